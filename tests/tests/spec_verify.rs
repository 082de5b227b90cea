//! What `spec_verify` promises, over its cases.

use backends::cpu::Threads;
use kernels_core::math::philox::philox;
use kernels_core::params::{
    NONE, STATUS_MASKED, STATUS_NOT_FINITE, STATUS_OK, VERIFY_GREEDY, VERIFY_REJECTION,
    VERIFY_TOKENS,
};
use kernels_core::simd::{Level, environment};
use kernels_core::workers::{Inline, Workers};
use pagewise_tests::cases::spec_verify::{Drafts, VerifyCase, cases, chain, drafts};
use pagewise_tests::harness::{Case, Noise, assert_case, assert_refused_or_answered, malformed};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

/// What a call says of one sequence.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    path: Vec<u32>,
    next: u32,
    status: u32,
}

/// The answers of a call, with its entries of `kv_copy`.
fn found(case: &VerifyCase, workers: &dyn Workers) -> (Vec<Found>, Vec<[u32; 5]>) {
    let outputs = case.run(Level::best(), workers).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let words = |at: usize| outputs[at].bytes.cast::<u32>();
    let mut first = 0;
    let of = |(at, drafts): (usize, &Drafts)| {
        let path = &words(0)[first..first + words(1)[at] as usize];
        let path = path.iter().map(|node| node - first as u32).collect();
        first += drafts.tokens.len();
        Found { path, next: words(2)[at], status: words(3)[at] }
    };
    let all = case.sequences.iter().enumerate().map(of).collect();
    let count = words(5)[0] as usize;
    (all, outputs[4].bytes.cast::<[u32; 5]>()[..count].to_vec())
}

#[test]
fn every_sequence_has_the_verdict_of_the_spec() {
    let mut deepest = 0;
    for case in cases() {
        assert_case(&case);
        let (found, _) = found(&case, &Inline);
        for (found, verdict) in found.iter().zip(case.verdicts::<f64>()) {
            assert_eq!((&found.path, found.next), (&verdict.path, verdict.next), "{}", case.name);
            assert_eq!(found.status, STATUS_OK, "{}", case.name);
            deepest = deepest.max(found.path.len());
        }
    }
    assert!(deepest > 4, "some drafts are accepted");
}

standard_tests!(cases());

/// A tree of tokens 10 to 16: 10 has 11 and 12, 12 has 13 and 14, 14 has 15 and 16.
fn hand(sampled: [u32; 7]) -> Drafts {
    Drafts {
        tokens: (10..17).collect(),
        parents: vec![0, 0, 0, 2, 2, 4, 4],
        sampled: sampled.to_vec(),
        ..Drafts::default()
    }
}

#[test]
fn trees_by_hand_give_paths_and_entries() {
    let trees = vec![
        // Down to the last leaf: nodes 0, 2, 4, 6.
        hand([12, 50, 14, 51, 16, 52, 53]),
        // The first child, a leaf.
        hand([11, 20, 14, 51, 16, 52, 53]),
        // Nothing: the root's own token is next.
        hand([13, 50, 14, 51, 16, 52, 53]),
    ];
    let case = VerifyCase::new("by hand", VERIFY_TOKENS, 60, trees);
    let (found, entries) = found(&case, &Inline);
    let expected = |path: &[u32], next| Found { path: path.to_vec(), next, status: STATUS_OK };
    assert_eq!(found[0], expected(&[0, 2, 4, 6], 53));
    assert_eq!(found[1], expected(&[0, 1], 20));
    assert_eq!(found[2], expected(&[0], 13));
    // Node i lies at token i of page 1000: 2, 4 and 6 move to 1, 2 and 3.
    let moves = [[2, 1], [4, 2], [6, 3]].map(|[from, to]| [1000, from, 1000, to, 1]);
    assert_eq!(entries, moves);
}

#[test]
fn rows_that_give_no_token_are_told_and_not_sampled() {
    let greedy = |row: [f32; 3]| {
        let sure = vec![0.0, 1.0, 0.0];
        let target = vec![sure, row.to_vec()];
        let drafts =
            Drafts { tokens: vec![0, 1], parents: vec![0, 0], target, ..Drafts::default() };
        [VERIFY_GREEDY, VERIFY_REJECTION].map(|mode| {
            let case = VerifyCase::new("ugly", mode, 3, vec![drafts.clone()]);
            let Found { path, next, status } = found(&case, &Inline).0.remove(0);
            assert_eq!(path, [0, 1], "what came before stands");
            (next, status)
        })
    };
    let none = |status| (NONE, status);
    assert_eq!(greedy([0.0, f32::NAN, 0.0]), [none(STATUS_NOT_FINITE); 2]);
    assert_eq!(greedy([0.0, f32::INFINITY, 0.0]), [none(STATUS_NOT_FINITE); 2]);
    let masked = greedy([f32::NEG_INFINITY; 3]);
    assert_eq!(masked, [none(STATUS_MASKED), none(STATUS_NOT_FINITE)]);
    assert_eq!(greedy([0.0; 3]), [(0, STATUS_OK), none(STATUS_MASKED)]);
    assert_eq!(greedy([0.0, -1.0, 0.0]), [(0, STATUS_OK), none(STATUS_NOT_FINITE)]);
    let asked =
        Drafts { sampled: vec![NONE], tokens: vec![0], parents: vec![0], ..Drafts::default() };
    let case = VerifyCase::new("no sample", VERIFY_TOKENS, 3, vec![asked]);
    let expected = Found { path: vec![0], next: NONE, status: STATUS_MASKED };
    assert_eq!(found(&case, &Inline).0, [expected]);
}

const TARGET: [f32; 6] = [0.3, 0.25, 0.2, 0.15, 0.1, 0.0];
const DRAFT: [f32; 6] = [0.05, 0.1, 0.4, 0.05, 0.1, 0.3];

/// How often each token comes first out of many verified drafts.
fn frequencies(children: usize, drafted: bool) -> [f32; 6] {
    const TRIALS: u32 = 40_000;
    let draw = |word: u32| {
        let mut left = (word >> 8) as f32 / 16_777_216.0;
        DRAFT
            .iter()
            .position(|p| {
                left -= p;
                left < 0.0
            })
            .unwrap_or(5) as u32
    };
    let trial = |seed: u32| {
        let mut tokens = vec![0];
        // Certain drafts are any distinct ones; drawn ones may be the same.
        let drawn =
            |child| if drafted { draw(philox([9, 9], [seed, child, 0, 0])[0]) } else { 2 + child };
        tokens.extend((0..children as u32).map(drawn));
        let rows = |row: [f32; 6]| vec![row.to_vec(); children + 1];
        let mut drafts = Drafts { tokens, parents: vec![0; children + 1], ..Drafts::default() };
        drafts.target = rows(TARGET);
        drafts.draft = if drafted { rows(DRAFT) } else { Vec::new() };
        drafts.request.seed = u64::from(seed) << 7;
        drafts
    };
    let sequences: Vec<Drafts> = (0..TRIALS).map(trial).collect();
    let mut counts = [0u32; 6];
    for batch in sequences.chunks(40) {
        let case = VerifyCase::new("frequency", VERIFY_REJECTION, 6, batch.to_vec());
        for (found, drafts) in found(&case, &Inline).0.iter().zip(batch) {
            let token = found.path.get(1).map_or(found.next, |&node| drafts.tokens[node as usize]);
            counts[token as usize] += 1;
        }
    }
    counts.map(|count| count as f32 / TRIALS as f32)
}

#[test]
fn rejection_sampling_keeps_the_targets_distribution() {
    for (children, drafted) in [(0, false), (1, false), (3, false), (1, true), (2, true), (4, true)]
    {
        let got = frequencies(children, drafted);
        for (token, (got, target)) in got.iter().zip(TARGET).enumerate() {
            // Five deviations of 40 000 trials at most.
            let bound = 5.0 * (target * (1.0 - target) / 40_000.0).sqrt();
            assert!((got - target).abs() <= bound, "{children} {drafted}: {token} came {got}");
        }
    }
}

#[test]
fn a_sequence_has_the_same_verdict_in_any_company() {
    let threads = Threads::new(3);
    for (mode, drafted) in
        [(VERIFY_GREEDY, false), (VERIFY_REJECTION, false), (VERIFY_REJECTION, true)]
    {
        let sequences: Vec<Drafts> =
            (0..9).map(|seed| drafts(seed, mode, 5000, &[0, 0, 0, 1, 3], drafted)).collect();
        let whole = VerifyCase::new("company", mode, 5000, sequences);
        let together = found(&whole, &threads).0;
        for (drafts, together) in whole.sequences.iter().zip(&together) {
            let alone = VerifyCase::new("alone", mode, 5000, vec![drafts.clone()]);
            environment::flush_subnormals();
            let _normal = environment::Normal::enter();
            assert_eq!(found(&alone, &Inline).0[0], *together);
        }
    }
}

#[test]
fn malformed_trees_are_refused_before_any_work() {
    let refused = |change: fn(&mut Drafts)| {
        let mut drafts = drafts(1, VERIFY_TOKENS, 9, &[0, 0, 1], false);
        change(&mut drafts);
        let case = VerifyCase::new("refused", VERIFY_TOKENS, 9, vec![drafts]);
        case.run(Level::best(), &Inline).expect_err("a bad tree is refused").field
    };
    assert_eq!(refused(|drafts| drafts.parents[2] = 2), "parents");
    assert_eq!(refused(|drafts| drafts.parents[1] = NONE), "parents");
    assert_eq!(refused(|drafts| drafts.tokens[2] = 9), "tokens");
    assert_eq!(refused(|drafts| drafts.sampled[2] = 9), "sampled");
    assert_eq!(refused(|drafts| *drafts = Drafts::default()), "node_start");
    let long = |drafts: &mut Drafts| *drafts = self::drafts(1, VERIFY_TOKENS, 9, &chain(65), false);
    assert_eq!(refused(long), "node_start");
}

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_calls_are_refused_or_answered(
        seed in any::<u64>(),
        mode in VERIFY_GREEDY..=VERIFY_TOKENS,
        drafted in any::<bool>(),
        field in 0usize..9,
        what in 0usize..6,
        value in prop_oneof![Just(0u32), Just(1), Just(7), Just(u32::MAX), any::<u32>()],
        cut in 0usize..40,
    ) {
        let mut noise = Noise::new(seed);
        let drafted = drafted && mode == VERIFY_REJECTION;
        let sequences = (0..noise.below(4)).map(|at| {
            let nodes = noise.below(12) + 1;
            let parents: Vec<u32> = (0..nodes).map(|node| noise.below(node.max(1))).collect();
            drafts(seed ^ u64::from(at), mode, 70, &parents, drafted)
        });
        let mut case = VerifyCase::new("malformed", mode, 70, sequences.collect());
        if let Some(drafts) = case.sequences.first_mut() {
            let node = value as usize % drafts.tokens.len();
            match what {
                0 => drafts.tokens[node] = value,
                1 => drafts.parents[node] = value,
                2 => drafts.sampled[node] = value,
                3 => drafts.target[node][field] = f32::from_bits(value),
                4 => case.cut = cut,
                _ => {
                    let params = bytemuck::bytes_of_mut(&mut case.params);
                    bytemuck::cast_slice_mut::<_, u32>(params)[field % 8] = value;
                }
            }
        }
        assert_refused_or_answered(&case);
    }
}

#[test]
fn any_bytes_are_refused_or_answered() {
    for seed in 0..300 {
        let mut noise = Noise::new(seed);
        let len = noise.below(200);
        let bytes: Vec<u8> = (0..len).map(|_| noise.word() as u8).collect();
        pagewise_tests::fuzz::verify::run(&bytes);
    }
}
