//! Tokens copied between the pages of a slab: forks (a whole page, or the tokens of
//! one in use) and compaction after speculation.
//!
//! Order: the entries one after the other, each as if by way of a third place, so a
//! list may move a run of tokens onto itself and a later entry sees what an earlier
//! one wrote. Numbers and scales are copied as they are stored.

mod cpu;
mod spec;

use crate::command::{MaybeSpan, Memory};
use crate::device::Needs;
use crate::error::Error;
use crate::kv_layout::KvLayout;
use crate::params;

pub use cpu::run;
pub use spec::spec;

/// Words of an entry.
pub const ENTRY_WORDS: usize = 5;

crate::command! {
    /// `pages[to] = pages[from]`, entry by entry.
    pub struct KvCopy("kv_copy", params::KvCopy) {
        /// The slab of K, and of V where `v_offset` is not 0; see `pwk_kv_layout`.
        keys: Update,
        /// The slab of V where `v_offset` is 0.
        values: MaybeUpdate,
        /// `[pages, kv_heads, 2, page_len]` f32 with `PWK_KV_SCALES_TOKEN`.
        scales: MaybeUpdate,
        /// `[entries_max, 5]` u32: page and first token to copy from, page and first
        /// token to copy to, tokens to copy (0 to `tokens_max`, within both pages).
        entries: Read,
        /// `[1]` u32: entries in use, at most `entries_max`; absent, all of them.
        count: MaybeRead,
    }
}

impl<M: Memory> KvCopy<M> {
    /// Refuses what the contract does not allow.
    pub fn check(&self) -> Result<(), Error> {
        self.layout().map(drop)
    }

    /// What a checked call takes with so many workers: nothing.
    pub fn needs(&self, _workers: u32) -> Result<Needs, Error> {
        self.layout().map(|_| Needs::default())
    }

    fn layout(&self) -> Result<KvLayout, Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        let kv = KvLayout::new(checks, &p.kv)?;
        kv.buffers(checks, &self.keys, &self.values, &self.scales)?;
        checks.range("entries_max", p.entries_max, 1..=i64::from(i32::MAX))?;
        checks.range("tokens_max", p.tokens_max, 1..=p.kv.page_len.into())?;
        let words = u64::from(p.entries_max) * ENTRY_WORDS as u64;
        checks.words("entries", Some(words), &self.entries)?;
        if let Some(count) = self.count.span() {
            checks.words("count", Some(1), count)?;
        }
        Ok(kv)
    }
}
