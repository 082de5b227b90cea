//! The emulator's own tests: kernels with one fault each (`faults/`), seen by the build that
//! must see it and named, and their good twins, which every build lets pass.
#![cfg(emulated)]

use emulator::{Fault, Run, run};

/// Words of a block, in and out.
const WORDS: usize = 256;
const BLOCKS: usize = 3;
const SEEDS: u64 = 12;

// The codes of `runtime/emulator.h`.
const BARRIER: i32 = -4;
const COLLECTIVE: i32 = -5;
const DEADLOCK: i32 = -6;
const RACE: i32 = -7;
const COPY: i32 = -8;
const ALIGNMENT: i32 = -9;
const SHARED: i32 = -10;
const MEMORY: i32 = -11;
const UNDEFINED: i32 = -12;

/// What a build makes of a faulty kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// A fault of this code.
    Code(i32),
    /// It runs, and gives other words than its twin.
    Wrong,
    /// It runs; its words may be right.
    Unseen,
    /// It would harm the process.
    NotRun,
}
use Seen::{Code, NotRun, Unseen, Wrong};

/// Of the good twin: a block's output from its input, where it says so.
type Answer = fn(&[u32]) -> Vec<u32>;

/// A pair: its name, what the good one computes, and what each build makes of the bad one: as
/// it is, sanitized, with the detector of races.
type Pair = (&'static str, Answer, [Seen; 3]);

const PAIRS: [Pair; 22] = [
    ("barrier", reversed, [Wrong, Wrong, Code(RACE)]),
    ("variable", reversed, [Wrong, Wrong, Code(RACE)]),
    ("copy_wait", reversed, [Wrong, Wrong, Code(COPY)]),
    ("copy_group", two_rows, [Wrong, Wrong, Code(COPY)]),
    ("copy_barrier", reversed, [Unseen, Unseen, Code(RACE)]),
    ("matrix_barrier", matrices, [Unseen, Unseen, Code(RACE)]),
    ("shuffle_barrier", doubled, [Unseen, Unseen, Code(RACE)]),
    ("atomic_barrier", summed, [Unseen, Unseen, Code(RACE)]),
    ("index", reversed, [Wrong, Wrong, Wrong]),
    ("branch", same, [Code(BARRIER); 3]),
    ("early_return", same, [Code(BARRIER); 3]),
    ("shuffle_branch", swapped, [Code(COLLECTIVE); 3]),
    ("mask", all_set, [Code(COLLECTIVE); 3]),
    ("matrix_row", matrices, [Code(ALIGNMENT); 3]),
    ("copy_from", whole, [Code(ALIGNMENT); 3]),
    ("copy_to", whole, [Code(ALIGNMENT); 3]),
    ("copy_outside", whole, [Code(SHARED); 3]),
    ("shared_end", same, [Code(SHARED), Code(MEMORY), Code(SHARED)]),
    ("global_end", last, [NotRun, Code(MEMORY), NotRun]),
    ("shift", ones, [Unseen, Code(UNDEFINED), Unseen]),
    ("vector", same, [NotRun, Code(UNDEFINED), NotRun]),
    ("spin", one, [Code(DEADLOCK); 3]),
];

const METAL: [Pair; 8] = [
    ("metal:barrier", reversed, [Wrong, Wrong, Code(RACE)]),
    ("metal:flags", reversed, [Unseen, Unseen, Code(RACE)]),
    ("metal:simd_barrier", doubled, [Unseen, Unseen, Code(RACE)]),
    ("metal:load", squares, [Unseen, Unseen, Code(RACE)]),
    ("metal:store", squares, [Unseen, Unseen, Code(RACE)]),
    ("metal:branch", group_sums, [Code(COLLECTIVE); 3]),
    ("metal:matrix_end", squares, [Code(SHARED); 3]),
    ("metal:atomic", summed, [Unseen, Unseen, Code(RACE)]),
];

fn same(i: &[u32]) -> Vec<u32> {
    i[..64].to_vec()
}
fn reversed(i: &[u32]) -> Vec<u32> {
    (0..64).map(|t| i[63 - t]).collect()
}
fn two_rows(i: &[u32]) -> Vec<u32> {
    (0..64).map(|t| i[t].wrapping_add(i[64 + t])).collect()
}
fn doubled(i: &[u32]) -> Vec<u32> {
    (0..64).map(|t| i[t ^ 1].wrapping_mul(2)).collect()
}
fn swapped(i: &[u32]) -> Vec<u32> {
    (0..64).map(|t| i[t ^ 1]).collect()
}
fn summed(i: &[u32]) -> Vec<u32> {
    vec![i[..64].iter().fold(0, |sum, word| sum.wrapping_add(*word)); 64]
}
fn group_sums(i: &[u32]) -> Vec<u32> {
    let sum = |group: &[u32]| group.iter().fold(0u32, |sum, word| sum.wrapping_add(*word));
    (0..64).map(|t| sum(&i[t / 32 * 32..][..32])).collect()
}
fn whole(i: &[u32]) -> Vec<u32> {
    i.to_vec()
}
fn ones(_: &[u32]) -> Vec<u32> {
    vec![1; 64]
}
fn one(_: &[u32]) -> Vec<u32> {
    vec![1]
}
fn all_set(_: &[u32]) -> Vec<u32> {
    vec![u32::MAX; 64]
}
/// The last 64 words alone are written.
fn last(i: &[u32]) -> Vec<u32> {
    [&[0; 192], &i[..64]].concat()
}
fn matrices(i: &[u32]) -> Vec<u32> {
    let word = |t: usize, m: usize| {
        let (warp, lane) = (t / 32, t % 32);
        i[128 * warp + 4 * (8 * m + lane / 4) + lane % 4]
    };
    (0..64).flat_map(|t| (0..4).map(move |m| word(t, m))).collect()
}
/// A + A·A of each 8 × 8 tile of small numbers.
fn squares(i: &[u32]) -> Vec<u32> {
    let a = |tile: usize, row: usize, column: usize| i[64 * tile + 8 * row + column] % 16;
    let element = |k: usize| {
        let (tile, row, column) = (k / 64, k % 64 / 8, k % 8);
        a(tile, row, column) + (0..8).map(|j| a(tile, row, j) * a(tile, j, column)).sum::<u32>()
    };
    (0..128).map(element).collect()
}

/// Which column of the tables this build is.
fn build() -> usize {
    match (cfg!(feature = "sanitized"), cfg!(feature = "races")) {
        (false, false) => 0,
        (true, false) => 1,
        (false, true) => 2,
        (true, true) => panic!("one of both"),
    }
}

fn input() -> Vec<u32> {
    let word = |at: usize| (at as u32).wrapping_mul(2_654_435_761) >> 7;
    (0..BLOCKS * WORDS).map(word).collect()
}

/// What an entry gives.
fn launched(entry: &str, seed: u64) -> Result<Vec<u32>, Fault> {
    let (input, mut output) = (input(), vec![0u32; BLOCKS * WORDS]);
    let addresses = [input.as_ptr().expose_provenance(), output.as_mut_ptr().expose_provenance()];
    let asked = Run { entry, grid: [BLOCKS as u32, 1, 1], block: 64, shared_bytes: 1024, seed };
    // SAFETY: both buffers are as long as the kernels' head says, and those that overrun them
    // run only where a sanitizer stops them.
    unsafe { run(&asked, bytemuck::cast_slice(&addresses))? };
    Ok(output)
}

/// `metal:barrier` as `metal:good_barrier`, `barrier` as `good_barrier`.
fn entry(name: &str, kind: &str) -> String {
    match name.strip_prefix("metal:") {
        Some(name) => format!("metal:{kind}_{name}"),
        None => format!("{kind}_{name}"),
    }
}

/// Whether every block's output begins as the good twin's.
fn is_right(output: &[u32], answer: Answer) -> bool {
    output.chunks(WORDS).zip(input().chunks(WORDS)).all(|(output, input)| {
        let expected = answer(input);
        output[..expected.len()] == expected[..]
    })
}

#[test]
fn good_kernels_pass_and_give_what_they_say_under_every_schedule() {
    for (name, answer, _) in PAIRS.iter().chain(&METAL) {
        for seed in 0..SEEDS {
            let output = launched(&entry(name, "good"), seed);
            let output = output.unwrap_or_else(|fault| panic!("{name}, seed {seed}: {fault:?}"));
            assert!(is_right(&output, *answer), "{name}, seed {seed}");
        }
    }
}

#[test]
fn each_fault_is_seen_by_its_build_and_named() {
    for (name, answer, seen) in PAIRS.iter().chain(&METAL) {
        let seen = seen[build()];
        let seeds = if *name == "spin" { 2 } else { SEEDS };
        for seed in 0..seeds {
            if seen == NotRun {
                continue;
            }
            let bad = entry(name, "bad");
            match (seen, launched(&bad, seed)) {
                (Code(code), Err(fault)) => {
                    assert_eq!(fault.code, code, "{name}, seed {seed}: {}", fault.message);
                    let named = bad.trim_start_matches("metal:");
                    assert!(fault.message.contains(named), "{name}: {}", fault.message);
                }
                (Wrong, Ok(output)) => {
                    // One schedule may be lucky; most are not.
                    let lucky = is_right(&output, *answer);
                    assert!(!lucky || seed == 0, "{name}, seed {seed}: nobody saw it");
                }
                (Unseen, Ok(_)) => {}
                (seen, came) => panic!("{name}, seed {seed}: {seen:?} expected, {came:?}"),
            }
        }
    }
}

#[test]
fn launches_that_are_none_are_refused() {
    let asked =
        Run { entry: "good_barrier", grid: [1, 1, 1], block: 64, shared_bytes: 1024, seed: 0 };
    let code = |asked: Run<'_>, bytes: &[u8]| {
        // SAFETY: nothing of these runs.
        unsafe { run(&asked, bytes) }.expect_err("it is refused").code
    };
    assert_eq!(code(Run { entry: "nobody", ..asked }, &[0; 16]), -1);
    assert_eq!(code(asked, &[0; 8]), -2);
    assert_eq!(code(Run { block: 65, ..asked }, &[0; 16]), -3);
    assert_eq!(code(Run { block: 0, ..asked }, &[0; 16]), -3);
    assert_eq!(code(Run { grid: [1, 0, 1], ..asked }, &[0; 16]), -3);
}
