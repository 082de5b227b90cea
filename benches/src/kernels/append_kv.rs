//! Benches of `append_kv`: rows of a step, keys turned on their way, into pages that no
//! cache holds, each time others.

use crate::frame::{Bench, Entry, On, Subject, Work, assert_scalar_bits};
use backends::cpu::Map;
use kernels_core::append_kv::{self, AppendKv};
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::params;
use kernels_core::rope::Pairing;
use pagewise_tests::cases::append_kv::{AppendKvCase, Shape};
use pagewise_tests::cases::kv_pages::Pages;
use pagewise_tests::harness::{Bytes, Noise};

const KV_HEADS: u32 = 8;
const HEAD_DIM: u32 = 128;
const PAGE_LEN: u32 = 32;
/// Pages of the slab that answers are checked on.
const PAGES_CHECKED: u32 = 16;

/// Times f32 rows into f16 and int8 pages.
pub fn bench(bench: &mut Bench) {
    for dtype in [Dtype::F16, Dtype::I8] {
        for rows in [1, 32, 512] {
            let numbers = u64::from(rows * 2 * KV_HEADS * HEAD_DIM);
            let work = match rows {
                512 => Work::Copied(numbers * (4 + dtype.align())),
                _ => Work::Items(rows.into()),
            };
            let name = dtype.name();
            let shape = format!("{rows} rows {KV_HEADS} heads d{HEAD_DIM} {name} page {PAGE_LEN}");
            bench.time(Entry { kernel: "append_kv", shape, work }, |bench| {
                let page = (2 * KV_HEADS * HEAD_DIM * PAGE_LEN) as usize * dtype.align() as usize;
                Appended::new(dtype, rows, bench.cycle(page).max(PAGES_CHECKED as usize))
            });
        }
    }
}

struct Appended {
    case: AppendKvCase,
    params: params::AppendKv,
    /// Every slot of the slab once, in random order.
    slots: Bytes,
    positions: Bytes,
    keys: Map,
    scales: Option<Map>,
    workspace: Bytes,
}

impl Appended {
    fn new(dtype: Dtype, rows: u32, pages: usize) -> Self {
        let plain = Shape::plain(dtype, PAGE_LEN, HEAD_DIM);
        let pages_checked = Pages { pages: PAGES_CHECKED, kv_heads: KV_HEADS, ..plain.pages };
        let rope = Some((Pairing::Neox, HEAD_DIM));
        let case = Shape { pages: pages_checked, rows: (rows, None), rope, ..plain }.case();
        let mut params = case.params;
        params.kv.pages = pages as u32;
        let order = Noise::new(2).permutation(params.kv.pages * PAGE_LEN).into_iter();
        let slots = order.map(|at| [at / PAGE_LEN, at % PAGE_LEN]);
        let map = |bytes: usize| Map::zeroed(bytes).expect("the machine has the memory");
        let tokens = pages * PAGE_LEN as usize * 2 * KV_HEADS as usize;
        let (_, positions) = case.turns.as_ref().expect("the shape turns");
        Self {
            params,
            slots: Bytes::of(&slots.collect::<Vec<_>>()),
            positions: Bytes::of(positions),
            keys: map(tokens * HEAD_DIM as usize * dtype.align() as usize),
            scales: case.scales.as_ref().map(|_| map(tokens * 4)),
            workspace: Bytes::filled(0, 0),
            case,
        }
    }
}

impl Subject for Appended {
    fn check(&mut self, on: On<'_>) {
        assert_scalar_bits(&self.case, on);
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        let bytes = self.params.rows_max as usize * 8;
        let turns = self.slots.len() / bytes;
        let (table, _) = self.case.turns.as_ref().expect("the shape turns");
        let command = AppendKv::<Host> {
            params: self.params,
            k: self.case.k.as_slice(),
            v: self.case.v.as_slice(),
            keys: self.keys.bytes_mut(),
            values: None,
            scales: self.scales.as_mut().map(Map::bytes_mut),
            slots: &self.slots.as_slice()[turn % turns * bytes..][..bytes],
            slot_starts: None,
            table: Some(table.as_slice()),
            positions: Some(self.positions.as_slice()),
            rows: None,
        };
        let needs = command.needs(on.workers.count()).expect("the call is a good one");
        if self.workspace.len() < needs.workspace_bytes as usize {
            self.workspace = Bytes::filled(needs.workspace_bytes as usize, 0);
        }
        append_kv::run(on.level, on.workers, command, self.workspace.as_mut_slice())
            .expect("the call is a good one");
    }
}
