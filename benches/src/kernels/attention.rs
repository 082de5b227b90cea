//! Benches of `attention`: decoding over caches that no cache of the machine
//! holds, by group, type and page length, and causal prefill.

use crate::frame::{Bench, Entry, On, Subject, Work};
use backends::cpu::Map;
use kernels_core::attention::{self, Attention};
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::params;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::harness::{Bytes, Noise};

/// Elements of noise that fill a cache, over and over: odd, so that pages differ.
const NOISE: usize = 1_000_003;

/// Times decoding and prefill.
pub fn bench(bench: &mut Bench) {
    let g4 = Shape { q_heads: 32, kv_heads: 8, head_dim: 128, page_len: 32, dtype: Dtype::F16 };
    let g8 = Shape { q_heads: 32, kv_heads: 4, ..g4 };
    for (shape, positions) in [
        (g4, 512),
        (g4, 4096),
        (g4, 16_384),
        (Shape { page_len: 16, ..g4 }, 4096),
        (Shape { dtype: Dtype::I8, ..g4 }, 4096),
        (Shape { dtype: Dtype::Bf16, ..g4 }, 4096),
        (g8, 4096),
        (Shape { head_dim: 64, ..g8 }, 4096),
        (Shape { dtype: Dtype::I8, ..g8 }, 4096),
    ] {
        // As many for every type, so that their times compare.
        let least = Shape { dtype: Dtype::I8, ..shape }.seq_bytes(positions);
        let seqs = bench.cycle(least) as u32;
        let name = shape.name("decode", positions);
        let work = Work::Read(u64::from(seqs) * shape.seq_bytes(positions) as u64);
        let entry = Entry { kernel: "attention", shape: name, work };
        bench.time(entry, |_| Batch::new(shape, seqs, 1, positions));
    }
    for head_dim in [64, 128] {
        let shape = Shape { head_dim, ..g4 };
        let positions = if bench.smoke() { 64 } else { 2048 };
        let pairs = u64::from(positions) * u64::from(positions + 1) / 2;
        // Two products, each of a multiply and an add.
        let work = Work::F32(pairs * u64::from(shape.q_heads * head_dim) * 4);
        let name = shape.name("prefill", positions);
        let entry = Entry { kernel: "attention", shape: name, work };
        bench.time(entry, |_| Batch::new(shape, 1, positions, positions));
    }
}

#[derive(Clone, Copy)]
struct Shape {
    q_heads: u32,
    kv_heads: u32,
    head_dim: u32,
    page_len: u32,
    dtype: Dtype,
}

impl Shape {
    fn name(&self, what: &str, positions: u32) -> String {
        let Self { q_heads, kv_heads, head_dim, page_len, dtype } = self;
        let (group, dtype) = (q_heads / kv_heads, dtype.name());
        format!("{what} g{group} {dtype} d{head_dim} {positions} page {page_len}")
    }

    /// Elements of one page.
    fn page(&self) -> usize {
        (2 * self.kv_heads * self.head_dim * self.page_len) as usize
    }

    /// Bytes that one sequence's rows read: keys, values and their scales.
    fn seq_bytes(&self, positions: u32) -> usize {
        let pages = positions.div_ceil(self.page_len) as usize;
        pages * (self.page() * self.dtype.bits() as usize / 8 + self.scales() * 4)
    }

    /// Scales of one page.
    fn scales(&self) -> usize {
        if self.dtype == Dtype::I8 { (2 * self.kv_heads * self.page_len) as usize } else { 0 }
    }

    /// The native layout: a head's K, transposed, then its V.
    fn layout(&self, pages: u32) -> params::KvLayout {
        let half = u64::from(self.head_dim * self.page_len);
        params::KvLayout {
            page_stride: self.page() as u64,
            k_head_stride: 2 * half,
            k_token_stride: 1,
            k_dim_stride: u64::from(self.page_len),
            v_head_stride: 2 * half,
            v_token_stride: u64::from(self.head_dim),
            v_offset: half,
            pages,
            page_len: self.page_len,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            dtype: self.dtype as u32,
            scales: match self.dtype {
                Dtype::I8 => params::KV_SCALES_TOKEN,
                _ => params::KV_SCALES_NONE,
            },
            k_scale: 0.0,
            v_scale: 0.0,
        }
    }
}

/// Sequences of one length, each with the same number of rows.
struct Batch {
    params: params::Attention,
    keys: Map,
    scales: Option<Map>,
    q: Bytes,
    q_start: Bytes,
    kv_len: Bytes,
    page_start: Bytes,
    page_ids: Bytes,
    out: Bytes,
    workspace: Bytes,
}

impl Batch {
    fn new(shape: Shape, seqs: u32, rows: u32, positions: u32) -> Self {
        let mut noise = Noise::new(1);
        let seq_pages = positions.div_ceil(shape.page_len);
        let pages = seqs * seq_pages;
        let width = u64::from(shape.q_heads * shape.head_dim);
        let params = params::Attention {
            kv: shape.layout(pages),
            q_row_stride: width,
            out_row_stride: width,
            rows_max: seqs * rows,
            seqs_max: seqs,
            q_heads: shape.q_heads,
            kv_len_max: positions,
            page_ids_max: pages,
            q_dtype: params::DTYPE_F32,
            out_dtype: params::DTYPE_F32,
            causal: 1,
            scale: 1.0 / (shape.head_dim as f32).sqrt(),
            ..Default::default()
        };
        let scale = if shape.dtype == Dtype::I8 { 40.0 } else { 1.0 };
        let values = Bytes::rounded(shape.dtype, &noise.normals(NOISE, scale));
        let scales = Bytes::of(&vec![1f32 / 40.0; 4096]);
        let elements = (seqs * rows) as usize * width as usize;
        let starts = |step: u32| Bytes::of(&(0..=seqs).map(|i| i * step).collect::<Vec<_>>());
        let page_bytes = shape.page() * shape.dtype.bits() as usize / 8;
        Self {
            params,
            keys: repeated(values.as_slice(), pages as usize * page_bytes),
            scales: (shape.scales() > 0)
                .then(|| repeated(scales.as_slice(), pages as usize * shape.scales() * 4)),
            q: Bytes::of(&noise.normals(elements, 1.0)),
            q_start: starts(rows),
            kv_len: Bytes::of(&vec![positions; seqs as usize]),
            page_start: starts(seq_pages),
            page_ids: Bytes::of(&noise.permutation(pages)),
            out: Bytes::filled(elements * 4, 0),
            workspace: Bytes::filled(0, 0),
        }
    }

    /// Runs the call, or only the last row of its first sequence.
    fn run(&mut self, on: On<'_>, last_row_only: bool) {
        let mut params = self.params;
        let mut q = self.q.as_slice();
        let one = Bytes::of(&[0u32, 1]);
        let mut q_start = self.q_start.as_slice();
        let mut out = self.out.as_mut_slice();
        if last_row_only {
            let row = params.q_row_stride as usize * 4;
            let at = (params.rows_max / params.seqs_max - 1) as usize * row;
            (params.rows_max, params.seqs_max) = (1, 1);
            q = &q[at..at + row];
            out = &mut out[at..at + row];
            q_start = one.as_slice();
        }
        let command = Attention::<Host> {
            params,
            q,
            keys: self.keys.bytes(),
            values: None,
            scales: self.scales.as_ref().map(Map::bytes),
            q_start,
            kv_len: self.kv_len.as_slice(),
            first_position: None,
            page_start: Some(self.page_start.as_slice()),
            page_ids: self.page_ids.as_slice(),
            intervals: None,
            tree_bits: None,
            sinks: None,
            slopes: None,
            out,
            lse: None,
            seqs: None,
        };
        let needs = command.needs(on.workers.count()).expect("the call is a good one");
        if self.workspace.len() < needs.workspace_bytes as usize {
            self.workspace = Bytes::filled(needs.workspace_bytes as usize, 0);
        }
        attention::run(on.level, on.workers, command, self.workspace.as_mut_slice())
            .expect("the call is a good one");
    }
}

/// Memory filled with a text over and over.
fn repeated(text: &[u8], bytes: usize) -> Map {
    let mut map = Map::zeroed(bytes).expect("the machine has the memory");
    for part in map.bytes_mut().chunks_mut(text.len()) {
        part.copy_from_slice(&text[..part.len()]);
    }
    map
}

impl Subject for Batch {
    fn check(&mut self, on: On<'_>) {
        self.run(on, false);
        let got = self.out.as_slice().to_vec();
        let scalar = Level::named("scalar").expect("every machine has the scalar level");
        self.run(On { level: scalar, workers: &Inline }, true);
        // The scalar level wrote one row over the whole call's.
        assert_eq!(got, self.out.as_slice(), "the last row has the scalar level's bits");
    }

    fn call(&mut self, on: On<'_>, _turn: usize) {
        self.run(on, false);
    }
}
