//! Trajectories, folders that go when they are dropped, and stores in them.

use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use trajectories::{
    Filter, Logprobs, Masks, Metadata, Over, Policy, Sampling, Settings, Span, Store, Syncing,
    Trajectory,
};

/// A folder of its own, gone when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("store-{}-{count}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn segment(&self, number: u64) -> PathBuf {
        self.0.join(format!("{number:020}.segment"))
    }

    /// Names of segments, ascending.
    pub fn segments(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.ends_with(".segment")).collect();
        names.sort();
        names
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        let len = |name: String| fs::metadata(self.0.join(name)).unwrap().len();
        self.segments().into_iter().map(len).sum()
    }

    pub fn open(&self, settings: Settings) -> Store {
        Store::open(&self.0, settings).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Settings under which nothing is at a bound, and tests are fast.
pub fn roomy() -> Settings {
    let sync = Syncing::Batched { bytes: 1 << 30 };
    Settings { segment_bytes: 1 << 20, cap_bytes: 1 << 30, policy: Policy::Refuse, sync }
}

/// A short one that differs from all others.
pub fn short(number: u64) -> Trajectory {
    let seed = number as u32;
    Trajectory {
        group: Some(format!("group-{}", number / 4)),
        model: "abacus".into(),
        prompt: vec![1, seed],
        answer: vec![seed, seed + 1],
        logprobs: Logprobs { raw: vec![-0.5, -(number as f32) / 3.0], processed: Vec::new() },
        created_ms: number,
        ..Trajectory::default()
    }
}

/// One with all that a trajectory may have.
pub fn whole(number: u64) -> Trajectory {
    let answer: Vec<u32> = (0..5).map(|token| token * 70_000 + number as u32).collect();
    let logprob = |token: &u32| -(*token as f32).sqrt() / 7.0;
    let metadata = json!({"task": "täsk\n", "tries": [1, -2, 0.1], "deep": {"of": null}});
    let span =
        |version: &str, start, end| Span { version: version.into(), start, end, ..Span::default() };
    let over =
        |from, version: &str| Over { from, version: version.into(), weights: Some("base".into()) };
    let kept = Span {
        weights: Some("base".into()),
        kv: vec![over(0, "step-1"), over(4, "step-2")],
        ..span("step-2", 2, 3)
    };
    Trajectory {
        id: 0,
        group: Some("group".into()),
        session: Some("session".into()),
        model: "abacus".into(),
        prompt: vec![0, 1, u32::MAX],
        logprobs: Logprobs {
            raw: answer.iter().map(logprob).collect(),
            processed: answer.iter().map(|token| logprob(token) * 0.9).collect(),
        },
        versions: vec![span("step-1", 0, 2), kept, span("step-1", 4, 5)],
        masks: Some(Masks::Kept(vec![vec![], vec![1], vec![2, 3], vec![], vec![u32::MAX]])),
        masking: object(json!({"logit_bias": {"7": -1.5}, "bad_words": ["nö"]})),
        loss_mask: Some(vec![true, false, true, true, false]),
        sampling: Sampling {
            temperature: 0.7,
            top_p: 0.9,
            top_k: 40,
            min_p: 0.05,
            seed: u64::MAX,
            choice: 3,
        },
        finish: "stop".into(),
        rewards: Vec::new(),
        metadata: object(metadata),
        template_hash: Some(0xFEDC_BA98_7654_3210),
        created_ms: 1_700_000_000_000 + number,
        staleness: Some(2),
        answer,
    }
}

pub fn object(value: serde_json::Value) -> Metadata {
    value.as_object().unwrap().clone()
}

/// What was appended, as it comes back.
pub fn with_id(id: u64, of: Trajectory) -> Trajectory {
    Trajectory { id, ..of }
}

/// All that is in a store.
pub fn all(store: &Store) -> Vec<Trajectory> {
    store.query(Filter::default()).unwrap().map(Result::unwrap).collect()
}

pub fn ids(of: &[Trajectory]) -> Vec<u64> {
    of.iter().map(|trajectory| trajectory.id).collect()
}
