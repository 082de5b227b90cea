//! What a test needs that calls everything at once: numbers that follow from a seed, spells
//! that excuse what they do to others, and versions to swap.

use super::checkpoint;
use crate::lora::{adapter, merged};
use safetensors::tensor::{Dtype, TensorView};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that follow from a seed.
pub struct Dice(pub u64);

impl Dice {
    /// A number below another.
    pub fn roll(&mut self, below: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % below
    }

    /// One of several.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }

    /// So many tokens of bytes.
    pub fn exactly(mut self, count: u64) -> Vec<u32> {
        (0..count).map(|_| self.roll(256) as u32).collect()
    }

    /// One, or up to so many more.
    pub fn tokens(&mut self, most: u64) -> Vec<u32> {
        (0..=self.roll(most)).map(|_| self.roll(256) as u32).collect()
    }
}

/// What lasts a while: who saw some of it may say what it did to them.
#[derive(Default)]
pub struct Spell {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Spell {
    /// One begins.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// One ends.
    pub fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// How many have ended.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    /// Whether one was there after so many had ended.
    pub fn met(&self, ended: u64) -> bool {
        self.begun.load(Ordering::SeqCst) > ended
    }
}

/// Two adapters, two checkpoints, and the tensors in which the second differs.
pub struct Files {
    folder: PathBuf,
    /// As base64.
    pub changed: String,
}

impl Files {
    /// In a folder of their own.
    pub fn write() -> Self {
        use base64::Engine as _;
        let a = checkpoint::write();
        let folder = a.parent().expect("of its own").to_owned();
        let base = checkpoint::open(&a);
        for (which, seed) in [("p", 5), ("q", 6)] {
            let adapter = adapter(&base, &["_proj"], 4, seed);
            let to = folder.join(which);
            ::checkpoint::write_adapter(&to, &adapter, &base.config, "base").expect("written");
        }
        let other = merged(&base, &adapter(&base, &["q_proj", "down_proj"], 4, 3));
        let file = |all: bool| {
            let own = other
                .tensors
                .iter()
                .filter(|(name, _)| all || name.contains("q_proj") || name.contains("down_proj"));
            let views = own.map(|(name, tensor)| {
                let shape = tensor.shape().iter().map(|&extent| extent as usize).collect();
                (name, TensorView::new(Dtype::F32, shape, tensor.bytes()).expect("whole"))
            });
            safetensors::serialize(views, None).expect("a file")
        };
        let b = folder.join("b");
        std::fs::create_dir(&b).expect("a folder");
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(a.join(name), b.join(name)).expect("copied");
        }
        std::fs::write(b.join("model.safetensors"), file(true)).expect("written");
        let changed = base64::engine::general_purpose::STANDARD.encode(file(false));
        Self { folder, changed }
    }

    /// The folder of an adapter, `p` or `q`.
    pub fn adapter(&self, which: &str) -> PathBuf {
        self.folder.join(which)
    }

    /// The folder of a checkpoint, `a` or `b`.
    pub fn weights(&self, which: &str) -> PathBuf {
        self.folder.join(if which == "a" { "tiny" } else { which })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
