//! Rows and pages that lie so that threads take 16 bytes at once, but not all of a row; and
//! such that they cannot, though most could: shapes that the listed cases do not single out.
#![cfg(emulated)]

use backends::plugin::Plugin;
use kernels_core::dtype::Dtype;
use kernels_core::params;
use kernels_core::rope::Pairing;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::cases::{activation, append_kv, embed, gather, kv_copy, pool};
use pagewise_tests::harness::{Bytes, Case, assert_replays_on, assert_same_bits};

/// The call is good, and a device has the CPU's bits.
fn assert_bits<C: Case>(case: &C) {
    case.run(Level::best(), &Inline).expect("a good call runs");
    let mut device = Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
    assert_replays_on(case, &mut device, assert_same_bits);
}

#[test]
fn the_end_of_a_row_past_whole_pieces_is_written_and_nothing_after_it() {
    for columns in [1, 7, 9, 20, 30] {
        // Rows lie at multiples of 16 bytes in every type.
        let gap = 32 - columns;
        for dtype in kernels_core::gather::DTYPES {
            assert_bits(&gather::Shape { gap, dtype, ..gather::Shape::plain(5, columns) }.case());
        }
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let dtypes = (dtype, dtype);
            let plain = activation::Shape::plain(3, columns);
            // Then rows of x are 2 * columns + gap + 2 * gap, or 64 apart.
            let (up, rest) = (Some(gap), gap);
            let mut case = activation::Shape { up, gap: rest, dtypes, ..plain }.case();
            assert_eq!(case.params.x_row_stride, 64);
            assert_bits(&case);
            // And up lies where pieces of it do not.
            case.params.up_offset -= 1;
            assert_bits(&case);
            let table = embed::Table::Plain(dtype);
            let plain = embed::Shape::plain(5, columns);
            assert_bits(&embed::Shape { gap, table, out: dtype, ..plain }.case());
            let plain = pool::Shape::plain(&[3, 0, 9], columns, params::POOL_MEAN);
            assert_bits(&pool::Shape { gap, x: dtype, normalise: true, ..plain }.case());
        }
    }
}

/// The layout with all but V's dims twice as far apart, and a slab twice as long.
fn spread(kv: &mut params::KvLayout, keys: &mut Bytes) {
    let strides = [
        &mut kv.page_stride,
        &mut kv.k_head_stride,
        &mut kv.k_token_stride,
        &mut kv.k_dim_stride,
        &mut kv.v_head_stride,
        &mut kv.v_token_stride,
        &mut kv.v_offset,
    ];
    strides.into_iter().for_each(|stride| *stride *= 2);
    *keys = Bytes::of(&[keys.as_slice(), keys.as_slice()].concat());
}

#[test]
fn keys_without_any_neighbours_are_written_and_copied() {
    for dtype in Dtype::ALL {
        for rotary_dims in [16, 32] {
            let rope = Some((Pairing::Neox, rotary_dims));
            let plain = append_kv::Shape::plain(dtype, 16, 32);
            let mut case = append_kv::Shape { rope, gap: 1, several: true, ..plain }.case();
            spread(&mut case.params.kv, &mut case.keys);
            assert_bits(&case);
        }
        let entries = vec![[0, 1, 1, 1, 9], [2, 0, 3, 0, 16], [3, 2, 3, 4, 9], [4, 0, 2, 8, 8]];
        let pages = append_kv::Shape::plain(dtype, 16, 32).pages;
        let mut case = kv_copy::Shape { pages, entries, count: None, seed: 5 }.case();
        spread(&mut case.params.kv, &mut case.keys);
        assert_bits(&case);
    }
}

#[test]
fn entries_that_meet_keep_their_order_among_those_that_do_not() {
    // Chains over pages, runs onto themselves, and free ones between them.
    let chain = |page: u32| [page, 3, page + 1, 5, 6];
    let mut entries: Vec<[u32; 5]> = (0..6).map(chain).collect();
    entries.extend([[20, 0, 21, 0, 16], [7, 0, 7, 3, 13], [22, 4, 23, 8, 8], [7, 3, 7, 0, 13]]);
    entries.extend((24..40).map(|page| [page, 0, page + 20, 0, 1 + page % 16]));
    for dtype in Dtype::ALL {
        let pages = append_kv::Shape::plain(dtype, 16, 32).pages;
        let pages = pagewise_tests::cases::kv_pages::Pages { pages: 64, ..pages };
        let entries = entries.clone();
        assert_bits(&kv_copy::Shape { pages, entries, count: None, seed: 9 }.case());
    }
}
