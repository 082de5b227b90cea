//! Hand-counted places, and layouts that must not pass.

use super::{KvLayout, Part, Place, Stored};
use crate::error::Checks;
use crate::params;
use alloc::vec;

const CHECKS: Checks = Checks("test");

/// The native layout: [page][head][K: dims × tokens | V: tokens × dims].
fn native(pages: u32, page_len: u32, kv_heads: u32, head_dim: u32) -> params::KvLayout {
    let block = u64::from(page_len) * u64::from(head_dim);
    params::KvLayout {
        page_stride: 2 * block * u64::from(kv_heads),
        k_head_stride: 2 * block,
        k_token_stride: 1,
        k_dim_stride: u64::from(page_len),
        v_head_stride: 2 * block,
        v_token_stride: u64::from(head_dim),
        v_offset: block,
        pages,
        page_len,
        kv_heads,
        head_dim,
        dtype: params::DTYPE_F16,
        scales: params::KV_SCALES_NONE,
        k_scale: 0.0,
        v_scale: 0.0,
    }
}

#[test]
fn places_of_the_native_layout_are_those_a_person_counts() {
    let kv = KvLayout::new(CHECKS, &native(3, 4, 2, 8)).expect("a good layout");
    let place = Place { page: 2, head: 1, token: 3 };
    // A head's block is 2 × 32, a page 2 × 64.
    assert_eq!(kv.cell(Part::Keys, place), 2 * 128 + 64 + 3);
    assert_eq!(kv.cell(Part::Values, place), 2 * 128 + 64 + 32 + 3 * 8);
    assert_eq!(kv.keys_bytes(), 3 * 128 * 2);
    assert_eq!(kv.scale(Part::Values, place), (5 * 2 + 1) * 4 + 3);
}

#[test]
fn slabs_past_two_to_the_31_have_their_addresses() {
    let kv = KvLayout::new(CHECKS, &native(1 << 20, 16, 8, 128)).expect("a good layout");
    let place = Place { page: (1 << 20) - 1, head: 7, token: 15 };
    let page = 2 * 16 * 128 * 8u64;
    let expected = ((1u64 << 20) - 1) * page + 7 * 4096 + 2048 + 15 * 128;
    assert_eq!(kv.cell(Part::Values, place), expected);
    assert_eq!(kv.keys_bytes(), page << 21);
    assert_eq!(expected + 128, page << 20);
}

#[test]
fn layouts_whose_places_meet_are_refused_by_field() {
    let refused = |change: fn(&mut params::KvLayout)| {
        let mut p = native(3, 4, 2, 8);
        change(&mut p);
        KvLayout::new(CHECKS, &p).expect_err("a bad layout").field
    };
    assert_eq!(refused(|p| p.k_dim_stride = 3), "k_dim_stride");
    assert_eq!(refused(|p| p.v_token_stride = 7), "v_token_stride");
    assert_eq!(refused(|p| p.page_stride = 127), "page_stride");
    assert_eq!(refused(|p| p.v_offset = 31), "v_offset");
    assert_eq!(refused(|p| p.v_offset = 33), "k_head_stride");
    assert_eq!(refused(|p| p.v_head_stride = 72), "v_offset");
    assert_eq!(refused(|p| p.page_stride = u64::MAX), "page_stride");
    assert_eq!(refused(|p| p.page_stride = 0), "page_stride");
    assert_eq!(refused(|p| p.scales = 2), "scales");
    assert_eq!(refused(|p| p.k_scale = 1.0), "k_scale");
    assert_eq!(refused(|p| p.head_dim = 12), "head_dim");
    assert_eq!(refused(|p| p.dtype = 9), "dtype");
}

#[test]
fn other_engines_layouts_pass() {
    // Rows of K and V: [page][token][head][dim] in two slabs, then as one
    // tensor [2][page][token][head][dim], and token by token.
    let rows = |p: &mut params::KvLayout| {
        (p.k_head_stride, p.v_head_stride) = (8, 8);
        (p.k_token_stride, p.v_token_stride) = (16, 16);
        (p.k_dim_stride, p.page_stride, p.v_offset) = (1, 64, 0);
    };
    let mut p = native(3, 4, 2, 8);
    rows(&mut p);
    let kv = KvLayout::new(CHECKS, &p).expect("two slabs");
    assert_eq!((kv.keys_bytes(), kv.values_bytes()), (384, 384));
    p.v_offset = 3 * 64;
    assert_eq!(KvLayout::new(CHECKS, &p).expect("one tensor").keys_bytes(), 768);
    (p.k_token_stride, p.v_token_stride) = (32, 32);
    (p.page_stride, p.v_offset) = (128, 16);
    assert_eq!(KvLayout::new(CHECKS, &p).expect("token by token").keys_bytes(), 768);
}

#[test]
fn nibbles_pair_along_the_dims() {
    let mut p = native(1, 4, 1, 8);
    (p.dtype, p.scales) = (params::DTYPE_I4, params::KV_SCALES_STATIC);
    (p.k_scale, p.v_scale) = (0.5, 2.0);
    assert_eq!(KvLayout::new(CHECKS, &p).expect_err("half a byte").field, "k_token_stride");
    p.k_token_stride = 2;
    let kv = KvLayout::new(CHECKS, &p).expect("a good layout");
    let mut keys = vec![0u8; kv.keys_bytes() as usize];
    // Pair 1 of K at token 3, and pair 2 of V at token 1.
    keys[4 + 3] = 0x9f;
    keys[16 + 4 + 2] = 0x78;
    let stored = Stored { kv: &kv, keys: &keys, values: None, scales: None };
    let at = |token| Place { page: 0, head: 0, token };
    assert_eq!(stored.number::<f64>(Part::Keys, at(3), 2), -0.5);
    assert_eq!(stored.number::<f64>(Part::Keys, at(3), 3), -3.5);
    assert_eq!(stored.number::<f64>(Part::Values, at(1), 4), -16.0);
    assert_eq!(stored.number::<f64>(Part::Values, at(1), 5), 14.0);
}
