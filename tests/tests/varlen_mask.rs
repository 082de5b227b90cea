//! What `varlen_mask` promises, over its cases.

use backends::cpu::Threads;
use kernels_core::error::Fault;
use kernels_core::params::NO_PARENT;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::cases::varlen_mask::{MaskCase, Sequence, cases, chain, random};
use pagewise_tests::harness::{Case, assert_case, assert_refused_or_answered, malformed};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

standard_tests!(cases());

#[test]
fn the_bits_of_a_tree_count_from_the_end_of_its_interval() {
    let parents = vec![NO_PARENT, 0, 0, 2];
    let sequence = Sequence { length: 14, rows: 4, parents, ..Sequence::default() };
    let case = MaskCase::new("by hand", 0, vec![sequence]);
    let outputs = case.run(Level::best(), &Inline).expect("a good call runs");
    assert_eq!(outputs[0].bytes.cast::<[u32; 2]>()[..4], [[0, 10]; 4]);
    assert_eq!(outputs[1].bytes.cast::<u64>()[..4], [0b1, 0b11, 0b101, 0b1101]);
    assert_eq!(outputs[2].bytes.cast::<u32>()[..4], [10, 11, 11, 12]);
}

#[test]
fn a_sequence_has_the_same_rows_in_any_company() {
    let threads = Threads::new(3);
    for seed in 0..40 {
        let whole = random(seed);
        let together = whole.run(Level::best(), &threads).expect("a good call runs");
        let mut row = 0;
        for sequence in &whole.sequences {
            let mut alone = whole.clone();
            alone.sequences = vec![sequence.clone()];
            let outputs = alone.run(Level::best(), &Inline).expect("a good call runs");
            let rows = sequence.rows as usize;
            for ((alone, together), bytes) in outputs.iter().zip(&together).zip([8, 8, 4]) {
                let part = &together.bytes.as_slice()[row * bytes..(row + rows) * bytes];
                assert_eq!(&alone.bytes.as_slice()[..rows * bytes], part, "seed {seed}");
            }
            row += rows;
        }
    }
}

#[test]
fn malformed_trees_are_refused_before_any_work() {
    let refused = |rows: u32, parents: Vec<u32>| {
        let good = Sequence { length: 3, rows: 3, ..Sequence::default() };
        let bad = Sequence { length: 100, rows, parents, ..Sequence::default() };
        let case = MaskCase::new("refused", 0, vec![good, bad]);
        case.run(Level::best(), &Inline).expect_err("a bad tree is refused")
    };
    // Its own parent, a parent after it, a cycle, a root with a parent.
    for (parents, at) in [
        (vec![NO_PARENT, 1], 4),
        (vec![NO_PARENT, 2, 0], 4),
        (vec![NO_PARENT, 0, 3, 2], 5),
        (vec![0, 0], 3),
    ] {
        let error = refused(parents.len() as u32, parents);
        assert_eq!(error.field, "parents");
        assert!(matches!(error.fault, Fault::Element { at: found, .. } if found == at), "{error}");
    }
    assert_eq!(refused(65, chain(65)).field, "tree_nodes");
    assert_eq!(refused(2, chain(3)).field, "tree_nodes");
}

#[test]
fn malformed_lengths_and_boundaries_are_refused() {
    let refused = |sequence: Sequence| {
        let case = MaskCase::new("refused", 0, vec![sequence]);
        case.run(Level::best(), &Inline).expect_err("a bad sequence is refused").field
    };
    let good = Sequence { length: 9, rows: 4, ..Sequence::default() };
    assert_eq!(refused(Sequence { length: 3, ..good.clone() }), "lengths");
    assert_eq!(refused(Sequence { length: 1 << 31, ..good.clone() }), "lengths");
    assert_eq!(refused(Sequence { prefix: 10, ..good.clone() }), "prefixes");
    assert_eq!(refused(Sequence { documents: vec![4, 4], ..good.clone() }), "documents");
    assert_eq!(refused(Sequence { documents: vec![4, 9], ..good.clone() }), "documents");
    let mut case = MaskCase::new("refused", 0, vec![good]);
    case.params.rows_max = 3;
    let error = case.run(Level::best(), &Inline).expect_err("four rows of three");
    assert_eq!(error.field, "row_start");
}

proptest! {
    #[test]
    fn any_step_sees_what_the_spec_says(seed in any::<u64>()) {
        assert_case(&random(seed));
    }
}

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_calls_are_refused_or_answered(
        seed in any::<u64>(),
        field in 0usize..4,
        value in prop_oneof![Just(0u32), Just(1), Just(7), Just(u32::MAX), any::<u32>()],
        sequence in any::<prop::sample::Index>(),
        part in 0usize..6,
        cut in 0usize..24,
    ) {
        let mut case = random(seed);
        if part == 5 {
            bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
            case.cut = cut;
        } else if !case.sequences.is_empty() {
            let at = sequence.index(case.sequences.len());
            let sequence = &mut case.sequences[at];
            let words = [&mut sequence.length, &mut sequence.rows, &mut sequence.prefix];
            match part {
                0..3 => *words.into_iter().nth(part).expect("one of three") = value % 300,
                3 => sequence.documents.push(value),
                _ => sequence.parents.push(value),
            }
            case.given = [true; 3];
        }
        assert_refused_or_answered(&case);
    }
}
