//! Decoding: one new row for each of many sequences, over a paged f16 cache.

use super::{Call, Failure};
use half::f16;
use kernels_core::attention::{Attention, Key, Scores, spec};
use kernels_core::device::{Backend, Launch, Read, Slice, Write};
use kernels_core::math::philox::{philox, uniform};
use kernels_core::params;

const POSITIONS: u32 = 4096;
const PAGE_LEN: u32 = 32;
const KV_HEADS: u32 = 8;
/// Query heads that share a head of keys and values.
const GROUP: u32 = 4;
const HEAD_DIM: u32 = 128;
const Q_HEADS: u32 = KV_HEADS * GROUP;
const SEQ_PAGES: u32 = POSITIONS / PAGE_LEN;
/// Elements of K, and of V, of one head in one page.
const HALF_PAGE: usize = (PAGE_LEN * HEAD_DIM) as usize;
const PAGE: usize = 2 * HALF_PAGE * KV_HEADS as usize;
/// Pages with values of their own; the others repeat them, so that filling is quick.
const DISTINCT: u32 = 61;
/// Pages lie out of order: neighbours of a sequence are so many places apart.
const STRIDE: u64 = 7919;
/// Query heads compared with the specification, in the first and the last sequence.
const CHECKED: [u32; 3] = [0, 13, Q_HEADS - 1];

/// Fills a cache of about so many bytes, records the call, runs it once and checks it.
pub(super) fn prepare(backend: &mut dyn Backend, bytes: u64) -> Result<Call, Failure> {
    let page_bytes = PAGE as u64 * 2;
    let seqs = (bytes / (page_bytes * u64::from(SEQ_PAGES))).clamp(1, 1024) as u32;
    let values = Values::new(seqs);
    let (attention, out) = buffers(backend, &values)?;
    let program = backend.record(&[attention.into()])?;
    let ticket = backend.submit(Launch { writes: &[], program, reads: &[out] })?;
    let mut got = vec![0u8; out.bytes as usize];
    backend.collect(ticket, &mut got)?;
    let got: Vec<f32> =
        got.chunks_exact(4).map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]])).collect();
    for seq in [0, seqs - 1] {
        for head in CHECKED {
            values.check(seq, head, &got)?;
        }
    }
    let cache_bytes = u64::from(seqs * SEQ_PAGES) * page_bytes;
    Ok(Call {
        program,
        title: format!(
            "attention, decoding {seqs} sequences at {POSITIONS} positions: {Q_HEADS} query heads \
             over {KV_HEADS} of {HEAD_DIM}, f16 pages of {PAGE_LEN}, {} MiB",
            cache_bytes >> 20
        ),
        bytes: cache_bytes,
        checked: format!("{} rows against the specification in f64", 2 * CHECKED.len()),
    })
}

/// Allocates and fills every buffer; gives the command and its output.
fn buffers(backend: &mut dyn Backend, values: &Values) -> Result<(Attention, Slice), Failure> {
    let seqs = values.seqs;
    let pages = seqs * SEQ_PAGES;
    let mut filled = |bytes: &[u8]| -> Result<Slice, Failure> {
        let bytes_all = bytes.len() as u64;
        let slice = Slice { buffer: backend.alloc(bytes_all)?, offset: 0, bytes: bytes_all };
        backend.write(slice, bytes)?;
        Ok(slice)
    };
    let words = |count: u32, word: &dyn Fn(u32) -> u32| -> Vec<u8> {
        (0..count).flat_map(|i| word(i).to_ne_bytes()).collect()
    };
    let q = filled(bytemuck::cast_slice(&values.q))?;
    let q_start = filled(&words(seqs + 1, &|i| i))?;
    let kv_len = filled(&words(seqs, &|_| POSITIONS))?;
    let page_start = filled(&words(seqs + 1, &|i| i * SEQ_PAGES))?;
    let page_ids = filled(&words(pages, &|i| page_id(i, pages)))?;
    let page_bytes = PAGE as u64 * 2;
    let slab = u64::from(pages) * page_bytes;
    let keys = Slice { buffer: backend.alloc(slab)?, offset: 0, bytes: slab };
    for id in 0..pages {
        let page = Slice { offset: u64::from(id) * page_bytes, bytes: page_bytes, ..keys };
        backend.write(page, bytemuck::cast_slice(values.page(id)))?;
    }
    let width = u64::from(Q_HEADS * HEAD_DIM);
    let out_bytes = u64::from(seqs) * width * 4;
    let out = Slice { buffer: backend.alloc(out_bytes)?, offset: 0, bytes: out_bytes };
    let params = params::Attention {
        kv: layout(pages),
        q_row_stride: width,
        out_row_stride: width,
        rows_max: seqs,
        seqs_max: seqs,
        q_heads: Q_HEADS,
        kv_len_max: POSITIONS,
        page_ids_max: pages,
        q_dtype: params::DTYPE_F32,
        out_dtype: params::DTYPE_F32,
        causal: 1,
        scale: scale(),
        ..Default::default()
    };
    let attention = Attention {
        params,
        q: Read(q),
        keys: Read(keys),
        values: None,
        scales: None,
        q_start: Read(q_start),
        kv_len: Read(kv_len),
        first_position: None,
        page_start: Some(Read(page_start)),
        page_ids: Read(page_ids),
        intervals: None,
        tree_bits: None,
        sinks: None,
        slopes: None,
        out: Write(out),
        lse: None,
        seqs: None,
    };
    Ok((attention, out))
}

/// The native layout: a head's K, transposed, then its V.
fn layout(pages: u32) -> params::KvLayout {
    let head = 2 * HALF_PAGE as u64;
    params::KvLayout {
        page_stride: PAGE as u64,
        k_head_stride: head,
        k_token_stride: 1,
        k_dim_stride: u64::from(PAGE_LEN),
        v_head_stride: head,
        v_token_stride: u64::from(HEAD_DIM),
        v_offset: HALF_PAGE as u64,
        pages,
        page_len: PAGE_LEN,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        dtype: params::DTYPE_F16,
        scales: params::KV_SCALES_NONE,
        k_scale: 0.0,
        v_scale: 0.0,
    }
}

fn scale() -> f32 {
    1.0 / (HEAD_DIM as f32).sqrt()
}

/// The place of the page that is number `i` in the list of all sequences.
fn page_id(i: u32, pages: u32) -> u32 {
    (u64::from(i) * STRIDE % u64::from(pages)) as u32
}

/// What the buffers hold.
struct Values {
    seqs: u32,
    q: Vec<f32>,
    /// The distinct pages, one after the other.
    pages: Vec<f16>,
}

impl Values {
    fn new(seqs: u32) -> Self {
        let noise = |i: u32| philox([i, 0], [7, 0, 0, 0]).map(|word| 2.0 * uniform(word) - 1.0);
        let q_words = seqs * Q_HEADS * HEAD_DIM / 4;
        let page_words = DISTINCT * PAGE as u32 / 4;
        Self {
            seqs,
            q: (0..q_words).flat_map(|i| noise(i).map(|v| 4.0 * v)).collect(),
            pages: (0..page_words).flat_map(|i| noise(!i).map(f16::from_f32)).collect(),
        }
    }

    /// What lies in a page.
    fn page(&self, id: u32) -> &[f16] {
        let at = (id % DISTINCT) as usize * PAGE;
        &self.pages[at..at + PAGE]
    }

    /// Holds one row and head of the answer against the specification: its error is
    /// at most twice that of the plain loops in f32, and four roundings.
    fn check(&self, seq: u32, head: u32, got: &[f32]) -> Result<(), Failure> {
        let dims = HEAD_DIM as usize;
        let row = (seq * Q_HEADS + head) as usize * dims;
        let by = Scores { scale: f64::from(scale()), ..Scores::default() };
        let q = &self.q[row..row + dims];
        let keys = self.keys(seq, head / GROUP);
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let keys_wide: Vec<Key<f64>> = keys
            .iter()
            .map(|key| Key { distance: key.distance, k: wide(&key.k), v: wide(&key.v) })
            .collect();
        let (truth, _) = spec(&wide(q), &keys_wide, by, dims);
        let (plain, _) = spec(q, &keys, by, dims);
        let errors =
            truth.iter().zip(&plain).map(|(truth, &plain)| (truth - f64::from(plain)).abs());
        let most = truth.iter().fold(0f64, |most, v| most.max(v.abs()));
        let bound = 2.0 * errors.fold(0.0, f64::max) + 4.0 * f64::from(f32::EPSILON) * most;
        for (&got, truth) in got[row..row + dims].iter().zip(&truth) {
            let error = (f64::from(got) - truth).abs();
            if error.is_nan() || error > bound {
                let what = format!("sequence {seq}, head {head}: {got}, expected {truth}");
                return Err(Failure::Wrong(what));
            }
        }
        Ok(())
    }

    /// The keys and values that one head of a sequence sees.
    fn keys(&self, seq: u32, kv_head: u32) -> Vec<Key<f32>> {
        let pages = self.seqs * SEQ_PAGES;
        let (len, dims) = (PAGE_LEN as usize, HEAD_DIM as usize);
        let key = |position: u32| {
            let page = self.page(page_id(seq * SEQ_PAGES + position / PAGE_LEN, pages));
            let (k, v) = page[kv_head as usize * 2 * HALF_PAGE..].split_at(HALF_PAGE);
            let token = (position % PAGE_LEN) as usize;
            Key {
                distance: f64::from(position) - f64::from(POSITIONS - 1),
                k: (0..dims).map(|dim| k[dim * len + token].to_f32()).collect(),
                v: v[token * dims..][..dims].iter().map(|v| v.to_f32()).collect(),
            }
        };
        (0..POSITIONS).map(key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, HEAD_DIM, PAGE, Q_HEADS, SEQ_PAGES, Values, prepare};
    use crate::backend::Machine;
    use crate::config;

    #[test]
    fn one_sequence_is_decoded_and_its_answer_is_right() {
        let mut machine = Machine::open(&config::Machine::default()).expect("the CPU is there");
        let call = prepare(machine.backend(), 0);
        let call = call.unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(call.bytes, u64::from(SEQ_PAGES) * PAGE as u64 * 2);
    }

    #[test]
    fn a_wrong_answer_is_told() {
        let wrong = vec![0.0; (Q_HEADS * HEAD_DIM) as usize];
        let told = Values::new(1).check(0, 0, &wrong);
        assert!(matches!(told, Err(Failure::Wrong(_))));
    }
}
