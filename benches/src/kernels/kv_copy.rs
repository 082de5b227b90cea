//! Benches of `kv_copy`: forks of whole pages that no cache holds, and the few tokens
//! that compaction moves after speculation.

use crate::frame::{Bench, Entry, On, Subject, Work, assert_scalar_bits};
use backends::cpu::Map;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::kv_copy::{self, ENTRY_WORDS, KvCopy};
use kernels_core::params;
use pagewise_tests::cases::kv_copy::{KvCopyCase, Shape};
use pagewise_tests::cases::kv_pages::{Form, Pages};
use pagewise_tests::harness::Bytes;

const PAGE_LEN: u32 = 32;
const PAGES: Pages = Pages {
    form: Form::Native,
    pages: 4,
    page_len: PAGE_LEN,
    kv_heads: 8,
    head_dim: 128,
    dtype: Dtype::F16,
    token_scales: false,
};
const PAGE_BYTES: usize = 2 * 8 * 128 * 2 * PAGE_LEN as usize;
/// Entries of a call.
const ENTRIES: u32 = 64;

/// Times whole pages, and three tokens of each.
pub fn bench(bench: &mut Bench) {
    for (name, tokens) in [("pages", PAGE_LEN), ("runs of 3 tokens", 3)] {
        let bytes = (2 * ENTRIES * tokens) as u64 * PAGE_BYTES as u64 / u64::from(PAGE_LEN);
        let work = match tokens {
            PAGE_LEN => Work::Copied(bytes),
            _ => Work::Items(ENTRIES.into()),
        };
        let shape = format!("{ENTRIES} {name} f16 8 heads d128 page {PAGE_LEN}");
        bench.time(Entry { kernel: "kv_copy", shape, work }, |bench| {
            Copied::new(tokens, bench.cycle(PAGE_BYTES).max(2 * ENTRIES as usize))
        });
    }
}

struct Copied {
    case: KvCopyCase,
    params: params::KvCopy,
    /// From the first half of the slab to the second.
    entries: Bytes,
    keys: Map,
}

impl Copied {
    fn new(tokens: u32, pages: usize) -> Self {
        let half = pages as u32 / 2;
        let entry = |page: u32| [page, PAGE_LEN - tokens, half + page, 0, tokens];
        let checked = vec![[1, PAGE_LEN - tokens, 2, 0, tokens], [2, 0, 3, 0, tokens]];
        let case = Shape { pages: PAGES, entries: checked, count: None, seed: 1 }.case();
        let mut params = params::KvCopy { entries_max: ENTRIES, ..case.params };
        params.kv.pages = pages as u32;
        let mut keys = Map::zeroed(pages * PAGE_BYTES).expect("the machine has the memory");
        keys.bytes_mut().fill(1);
        let entries: Vec<[u32; ENTRY_WORDS]> = (0..half).map(entry).collect();
        Self { case, params, entries: Bytes::of(&entries), keys }
    }
}

impl Subject for Copied {
    fn check(&mut self, on: On<'_>) {
        assert_scalar_bits(&self.case, on);
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        let bytes = ENTRIES as usize * ENTRY_WORDS * 4;
        let turns = self.entries.len() / bytes;
        let command = KvCopy::<Host> {
            params: self.params,
            keys: self.keys.bytes_mut(),
            values: None,
            scales: None,
            entries: &self.entries.as_slice()[turn % turns * bytes..][..bytes],
            count: None,
        };
        kv_copy::run(on.level, on.workers, command).expect("the call is a good one");
    }
}
