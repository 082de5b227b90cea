//! Slabs and tables of more than 2³¹ elements: what lies at their end has the bits it
//! has in a small one. They are mapped, and a few pages of them are touched.

use backends::cpu::Map;
use kernels_core::append_kv::AppendKv;
use kernels_core::attention::Attention;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::embed::Embed;
use kernels_core::gather::Gather;
use kernels_core::kv_copy::KvCopy;
use kernels_core::params;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::harness::{Bytes, Direct, Machine, Noise};

const HEAD_DIM: u32 = 16;
const PAGE_LEN: u32 = 4;
/// Elements from page to page: nearly all of them a gap.
const PAGE_STRIDE: u64 = 1 << 25;
/// The last page begins 2³¹ elements and one page on.
const PAGES: u32 = 66;

fn machine() -> Direct<'static> {
    Direct { level: Level::best(), workers: &Inline, withheld: 0 }
}

fn mapped(bytes: u64) -> Map {
    Map::zeroed(bytes as usize).expect("addresses are free, and memory is taken when touched")
}

/// Rows of K and V in one slab of i8, one head.
fn layout(pages: u32, page_stride: u64) -> params::KvLayout {
    let dims = u64::from(HEAD_DIM);
    params::KvLayout {
        page_stride,
        k_head_stride: 0,
        k_token_stride: dims,
        k_dim_stride: 1,
        v_head_stride: 0,
        v_token_stride: dims,
        v_offset: dims * u64::from(PAGE_LEN),
        pages,
        page_len: PAGE_LEN,
        kv_heads: 1,
        head_dim: HEAD_DIM,
        dtype: Dtype::I8 as u32,
        scales: params::KV_SCALES_STATIC,
        k_scale: 0.05,
        v_scale: 0.05,
    }
}

/// Three tokens go to page `at`, are copied to page 0 and back one token on, and are
/// attended to: the output.
fn attended(kv: params::KvLayout, slab: &mut [u8], at: u32) -> Vec<u8> {
    let mut noise = Noise::new(1);
    let dims = HEAD_DIM as usize;
    let rows = Bytes::of(&noise.normals(3 * dims, 1.0));
    let slots = Bytes::of(&[[at, 0], [at, 1], [at, 2]]);
    let append = AppendKv::<Host<'_>> {
        params: params::AppendKv {
            kv,
            k_row_stride: dims as u64,
            v_row_stride: dims as u64,
            rows_max: 3,
            slots_max: 3,
            x_dtype: params::DTYPE_F32,
            ..Default::default()
        },
        k: rows.as_slice(),
        v: rows.as_slice(),
        keys: &mut *slab,
        values: None,
        scales: None,
        slots: slots.as_slice(),
        slot_starts: None,
        table: None,
        positions: None,
        rows: None,
    };
    machine().run(append).expect("a good call runs");
    for entry in [[at, 0, 0, 0, 3], [0, 0, at, 1, 3]] {
        let entries = Bytes::of(&entry);
        let copy = KvCopy::<Host<'_>> {
            params: params::KvCopy { kv, entries_max: 1, tokens_max: PAGE_LEN },
            keys: &mut *slab,
            values: None,
            scales: None,
            entries: entries.as_slice(),
            count: None,
        };
        machine().run(copy).expect("a good call runs");
    }
    let q = Bytes::of(&noise.normals(dims, 1.0));
    let mut out = Bytes::poisoned(dims * 4);
    let (q_start, kv_len) = (Bytes::of(&[0u32, 1]), Bytes::of(&[2 * PAGE_LEN]));
    let (page_start, page_ids) = (Bytes::of(&[0u32, 2]), Bytes::of(&[at, 0u32]));
    let attention = Attention::<Host<'_>> {
        params: params::Attention {
            kv,
            q_row_stride: dims as u64,
            out_row_stride: dims as u64,
            rows_max: 1,
            seqs_max: 1,
            q_heads: 1,
            kv_len_max: 2 * PAGE_LEN,
            page_ids_max: 2,
            q_dtype: params::DTYPE_F32,
            out_dtype: params::DTYPE_F32,
            causal: 1,
            scale: 0.25,
            ..Default::default()
        },
        q: q.as_slice(),
        keys: slab,
        values: None,
        scales: None,
        q_start: q_start.as_slice(),
        kv_len: kv_len.as_slice(),
        first_position: None,
        page_start: Some(page_start.as_slice()),
        page_ids: page_ids.as_slice(),
        intervals: None,
        tree_bits: None,
        sinks: None,
        slopes: None,
        out: out.as_mut_slice(),
        lse: None,
        seqs: None,
    };
    machine().run(attention).expect("a good call runs");
    out.as_slice().to_vec()
}

#[test]
fn the_last_page_of_a_large_slab_is_appended_to_copied_and_attended_to() {
    let small = layout(2, 2 * u64::from(PAGE_LEN * HEAD_DIM));
    let expected = attended(small, Bytes::filled(4096, 0).as_mut_slice(), 1);
    let mut slab = mapped(u64::from(PAGES) * PAGE_STRIDE);
    let got = attended(layout(PAGES, PAGE_STRIDE), slab.bytes_mut(), PAGES - 1);
    assert_eq!(expected, got);
    // The first token, and the same one token on.
    let last = &slab.bytes()[(u64::from(PAGES - 1) * PAGE_STRIDE) as usize..];
    let dims = HEAD_DIM as usize;
    assert!(last[..dims].iter().any(|&k| k != 0) && last[..dims] == last[dims..2 * dims]);
}

#[test]
fn the_last_row_of_a_large_matrix_is_gathered_and_embedded() {
    let (rows, columns) = (70u32, 8usize);
    let stride = 1u64 << 25;
    let mut matrix = mapped(u64::from(rows) * stride * 2);
    let values = Bytes::rounded(Dtype::Bf16, &Noise::new(2).normals(columns, 1.0));
    let at = (u64::from(rows - 1) * stride * 2) as usize;
    matrix.bytes_mut()[at..at + 2 * columns].copy_from_slice(values.as_slice());
    let last = Bytes::of(&[rows - 1]);
    let mut out = Bytes::poisoned(2 * columns);
    let gather = Gather::<Host<'_>> {
        params: params::Gather {
            x_row_stride: stride,
            out_row_stride: columns as u64,
            x_rows: rows,
            rows_max: 1,
            columns: columns as u32,
            dtype: params::DTYPE_BF16,
        },
        x: matrix.bytes(),
        indices: last.as_slice(),
        out: out.as_mut_slice(),
        rows: None,
    };
    machine().run(gather).expect("a good call runs");
    assert_eq!(out.as_slice(), values.as_slice());
    let mut out = Bytes::poisoned(2 * columns);
    let embed = Embed::<Host<'_>> {
        params: params::Embed {
            table_row_stride: stride,
            out_row_stride: columns as u64,
            rows_max: 1,
            packed: 0,
            out_dtype: params::DTYPE_BF16,
            scale: 1.0,
            weight: params::Weight {
                outputs: rows,
                inputs: columns as u32,
                dtype: params::DTYPE_BF16,
                ..Default::default()
            },
        },
        table: matrix.bytes(),
        tokens: last.as_slice(),
        out: out.as_mut_slice(),
        rows: None,
    };
    machine().run(embed).expect("a good call runs");
    assert_eq!(out.as_slice(), values.as_slice());
}
