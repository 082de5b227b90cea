//! Attention over pages: decoding, prefill, and the rows of draft trees.

use super::{Device, Timed, Work};
use crate::harness::{Bytes, Direct, Kernel, Machine, Noise};
use kernels_core::Error;
use kernels_core::attention::Attention;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::params;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;

/// Elements of noise that fill a cache, over and over: odd, so that pages differ.
const NOISE: usize = 1_000_003;
/// Of keys and values in f8: what they are stored as, times this, is what they are.
const F8_SCALE: f32 = 1.0 / 32.0;
/// Nodes of a draft tree are two for each node before them.
const CHILDREN: u32 = 2;

/// Sequences of one length, with the same number of rows each.
#[derive(Clone, Copy, Debug)]
pub struct Attending {
    /// Sequences.
    pub seqs: u32,
    /// Rows of each.
    pub rows: u32,
    /// Positions of each, those of its rows among them.
    pub positions: u32,
    /// Query heads.
    pub q_heads: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Tokens of a page.
    pub page_len: u32,
    /// The type of keys and values; queries and the answer are bf16.
    pub kv: Dtype,
    /// Keys lie transposed, as our own caches have them; else in rows, as peers' have.
    pub transposed: bool,
    /// Each sequence's rows are the nodes of a draft tree.
    pub tree: bool,
}

/// The shapes.
pub fn shapes(quick: bool) -> Vec<Attending> {
    let (q_heads, kv_heads) = if quick { (8, 2) } else { (32, 8) };
    let of = |seqs: u32, rows: u32, positions: u32| Attending {
        seqs: if quick { seqs.min(2) } else { seqs },
        rows: if quick { rows.min(40) } else { rows },
        positions: if quick { (positions / 128).max(48) } else { positions },
        q_heads,
        kv_heads,
        head_dim: 128,
        page_len: 16,
        kv: Dtype::Bf16,
        transposed: false,
        tree: false,
    };
    let long = of(8, 1, 32 << 10);
    let middle = of(8, 1, 4 << 10);
    let mut shapes = vec![long, middle, of(1, 1, 32 << 10), of(1, 1, 1 << 10)];
    shapes.push(Attending { transposed: true, ..middle });
    shapes.extend([1, 8, 64, 256].map(|page_len| Attending { page_len, ..middle }));
    shapes.push(Attending { kv: Dtype::E4m3, ..long });
    let prefill = of(1, 8 << 10, 8 << 10);
    shapes.push(Attending { rows: prefill.positions, ..prefill });
    let causal = of(8, 64, 4 << 10);
    shapes.extend([causal, Attending { tree: true, ..causal }]);
    shapes
}

impl Attending {
    /// What it is.
    pub const fn what(&self) -> &'static str {
        match (self.rows, self.tree) {
            (_, true) => "tree",
            (1, false) => "decode",
            (rows, false) if rows == self.positions => "prefill",
            _ => "causal",
        }
    }

    /// Its name: what, sequences × rows × positions, type, group, head, page.
    pub fn name(&self) -> String {
        let Self { seqs, rows, positions, head_dim, page_len, kv, .. } = self;
        let (what, group, kv) = (self.what(), self.q_heads / self.kv_heads, kv.name());
        let shape = match what {
            "decode" => format!("{seqs}x{positions}"),
            "prefill" => format!("{seqs}x{rows}"),
            _ => format!("{seqs}x{rows} of {positions}"),
        };
        let lie = if self.transposed { " transposed" } else { "" };
        format!("{what} {shape} {kv} g{group} d{head_dim}{lie} page {page_len}")
    }

    /// Decoding reads every key and value once; many rows compute.
    pub fn work(&self) -> Work {
        let (seqs, rows, positions) =
            (u64::from(self.seqs), u64::from(self.rows), u64::from(self.positions));
        if rows == 1 {
            let elements = seqs * positions * u64::from(2 * self.kv_heads * self.head_dim);
            return Work::Read(elements * self.kv.bits() / 8);
        }
        // Row i of n sees all but the n − 1 − i last positions.
        let pairs = seqs * (rows * positions - rows * (rows - 1) / 2);
        // Two products, each of a multiply and an add.
        Work::Operations(pairs * u64::from(self.q_heads * self.head_dim) * 4)
    }

    fn seq_pages(&self) -> u32 {
        self.positions.div_ceil(self.page_len)
    }

    /// One slab: a page's keys, then its values, head by head.
    fn layout(&self) -> params::KvLayout {
        let block = u64::from(self.head_dim * self.page_len);
        let heads = u64::from(self.kv_heads);
        let (dims, len) = (u64::from(self.head_dim), u64::from(self.page_len));
        let scaled = self.kv == Dtype::E4m3;
        let (scales, scale) = match scaled {
            true => (params::KV_SCALES_STATIC, F8_SCALE),
            false => (params::KV_SCALES_NONE, 0.0),
        };
        params::KvLayout {
            page_stride: 2 * block * heads,
            k_head_stride: block,
            k_token_stride: if self.transposed { 1 } else { dims },
            k_dim_stride: if self.transposed { len } else { 1 },
            v_head_stride: block,
            v_token_stride: dims,
            v_offset: block * heads,
            pages: self.seqs * self.seq_pages(),
            page_len: self.page_len,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            dtype: self.kv as u32,
            scales,
            k_scale: scale,
            v_scale: scale,
        }
    }
}

/// A call and its buffers.
struct Call {
    shape: Attending,
    params: params::Attention,
    keys: Bytes,
    q: Bytes,
    q_start: Bytes,
    kv_len: Bytes,
    page_start: Bytes,
    page_ids: Bytes,
    /// Intervals and bits of each row.
    tree: Option<(Bytes, Bytes)>,
    out: Bytes,
}

impl Call {
    fn new(shape: Attending) -> Self {
        let mut noise = Noise::new(1);
        let Attending { seqs, rows, positions, .. } = shape;
        let layout = shape.layout();
        let width = u64::from(shape.q_heads * shape.head_dim);
        let params = params::Attention {
            kv: layout,
            q_row_stride: width,
            out_row_stride: width,
            rows_max: seqs * rows,
            seqs_max: seqs,
            q_heads: shape.q_heads,
            kv_len_max: positions,
            page_ids_max: layout.pages,
            q_dtype: params::DTYPE_BF16,
            out_dtype: params::DTYPE_BF16,
            causal: 1,
            scale: 1.0 / (shape.head_dim as f32).sqrt(),
            ..Default::default()
        };
        let size = if shape.kv == Dtype::E4m3 { 1.0 / F8_SCALE } else { 1.0 };
        let values = Bytes::rounded(shape.kv, &noise.normals(NOISE, size));
        let slab = layout.pages as usize * layout.page_stride as usize;
        let elements = (seqs * rows) as usize * width as usize;
        let starts = |step: u32| Bytes::of(&(0..=seqs).map(|i| i * step).collect::<Vec<_>>());
        Self {
            shape,
            params,
            keys: repeated(values.as_slice(), slab * shape.kv.bits() as usize / 8),
            q: Bytes::rounded(Dtype::Bf16, &noise.normals(elements, 1.0)),
            q_start: starts(rows),
            kv_len: Bytes::of(&vec![positions; seqs as usize]),
            page_start: starts(shape.seq_pages()),
            page_ids: Bytes::of(&noise.permutation(layout.pages)),
            tree: shape.tree.then(|| tree(&shape)),
            out: Bytes::poisoned(elements * 2),
        }
    }

    fn command(&mut self) -> Attention<Host<'_>> {
        Attention {
            params: self.params,
            q: self.q.as_slice(),
            keys: self.keys.as_slice(),
            values: None,
            scales: None,
            q_start: self.q_start.as_slice(),
            kv_len: self.kv_len.as_slice(),
            first_position: None,
            page_start: Some(self.page_start.as_slice()),
            page_ids: self.page_ids.as_slice(),
            intervals: self.tree.as_ref().map(|(intervals, _)| intervals.as_slice()),
            tree_bits: self.tree.as_ref().map(|(_, bits)| bits.as_slice()),
            sinks: None,
            slopes: None,
            out: self.out.as_mut_slice(),
            lse: None,
            seqs: None,
        }
    }

    /// The last row as the CPU has it.
    fn last_row(&self) -> Result<Bytes, Error> {
        let mut params = self.params;
        (params.rows_max, params.seqs_max) = (1, 1);
        params.page_ids_max = self.shape.seq_pages();
        let last = |bytes: &Bytes, count: usize| {
            let all = bytes.as_slice();
            Bytes::of(&all[all.len() - count..])
        };
        let width = params.q_row_stride as usize * 2;
        let mut alone = Self {
            shape: self.shape,
            params,
            keys: Bytes::filled(0, 0),
            q: last(&self.q, width),
            q_start: Bytes::of(&[0u32, 1]),
            kv_len: last(&self.kv_len, 4),
            page_start: Bytes::of(&[0, self.shape.seq_pages()]),
            page_ids: last(&self.page_ids, self.shape.seq_pages() as usize * 4),
            tree: self.tree.as_ref().map(|(pairs, bits)| (last(pairs, 8), last(bits, 8))),
            out: Bytes::poisoned(width),
        };
        let command = Attention { keys: self.keys.as_slice(), ..alone.command() };
        Direct { level: Level::best(), workers: &Inline, withheld: 0 }.run(command)?;
        Ok(alone.out)
    }
}

/// The mask of each row of each sequence: all that comes before the tree, and its own
/// ancestors.
fn tree(shape: &Attending) -> (Bytes, Bytes) {
    let before = shape.positions - shape.rows;
    let intervals = vec![[0, before]; (shape.seqs * shape.rows) as usize];
    let mut bits = Vec::new();
    for node in 0..shape.rows {
        let above = node.checked_sub(1).map(|before| bits[(before / CHILDREN) as usize]);
        bits.push(above.unwrap_or(0) | 1u64 << node);
    }
    (Bytes::of(&intervals), Bytes::of(&bits.repeat(shape.seqs as usize)))
}

/// Memory filled with a text over and over.
fn repeated(text: &[u8], bytes: usize) -> Bytes {
    let mut all = Bytes::filled(bytes, 0);
    for part in all.as_mut_slice().chunks_mut(text.len()) {
        part.copy_from_slice(&text[..part.len()]);
    }
    all
}

/// The seconds of a run, after its last row was found right.
pub fn time(device: &mut Device, shape: &Attending, quick: bool) -> Result<f64, Error> {
    let mut call = Call::new(*shape);
    let expected = call.last_row()?.floats(Dtype::Bf16);
    let timed = Timed::on(device, |laid| vec![Kernel::lay(&mut call.command(), laid)]);
    // A row of a sequence that ends there is the last of the call's.
    let answer = timed.answer(device)?.remove(0);
    let got = Bytes::of(&answer[answer.len() - expected.len() * 2..]).floats(Dtype::Bf16);
    let most = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
    // The rule of errors: four roundings of the answer's type.
    let bound = 4.0 * 2f32.powi(-7) * most;
    for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let is_near = (got - expected).abs() <= bound;
        assert!(is_near, "{}: the last row's {at} is {got}, not {expected}", shape.name());
    }
    let seconds = timed.seconds(device, quick)?;
    timed.release(device)?;
    Ok(seconds)
}
