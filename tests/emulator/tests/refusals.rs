//! What a step brings, spoiled: an emulated device refuses it where and as the CPU does.
#![cfg(emulated)]

use backends::plugin::Plugin;
use emulator::seed;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::cases;
use pagewise_tests::harness::{Case, Recorded};

/// Spoils a case in the n-th of some ways, if it has what that takes.
type Spoil<C> = fn(&mut C, usize) -> bool;

/// Holds what a device tells of spoiled cases to what the CPU tells of them, in whatever order
/// its threads come.
fn assert_refusals<C: Case + Clone>(cases: &[C], ways: usize, spoil: Spoil<C>) {
    for table in [emulator::cuda(), emulator::metal()] {
        let device = Plugin::of_table(table, 0).expect("the emulator is there");
        assert_refusals_on(device, cases, ways, spoil);
    }
}

fn assert_refusals_on<C: Case + Clone>(
    mut device: Plugin,
    cases: &[C],
    ways: usize,
    spoil: Spoil<C>,
) {
    let mut refused = vec![0; ways];
    for (at, case) in cases.iter().enumerate() {
        for (way, count) in refused.iter_mut().enumerate() {
            let mut spoiled = case.clone();
            if !spoil(&mut spoiled, way) {
                continue;
            }
            seed((at * ways + way) as u64);
            let got = spoiled.call(&mut Recorded(&mut device));
            match spoiled.run(Level::best(), &Inline) {
                Ok(_) => assert!(got.is_ok(), "{}, way {way}: {:?}", case.name(), got.err()),
                Err(expected) => {
                    let got = got.expect_err("the CPU refuses it");
                    // A device names a buffer, and not a part of its elements.
                    let field = expected.field.split('.').next();
                    assert_eq!(field, got.field.split('.').next(), "{}, way {way}", case.name());
                    assert_eq!(expected.fault, got.fault, "{}, way {way}", case.name());
                    *count += 1;
                }
            }
        }
    }
    assert!(refused.iter().all(|&count| count > 0), "{}: {refused:?}", C::KERNEL);
}

/// Puts numbers at the last element, or over the whole.
fn put(numbers: &mut [u32], last: bool, number: u32) -> bool {
    match numbers {
        [] => return false,
        [.., end] if last => *end = number,
        _ => numbers.fill(number),
    }
    true
}

fn above(count: &mut Option<u32>) -> bool {
    *count = count.map(|_| u32::MAX);
    count.is_some()
}

/// Leaves room for all of some but one.
fn crowd(capacity: &mut u32, used: usize) -> bool {
    *capacity = (used as u32).saturating_sub(1);
    *capacity > 0
}

#[test]
fn positions_of_rope() {
    assert_refusals(&cases::rope::cases(), 3, |case, way| match way {
        0 => above(&mut case.rows),
        1 => put(&mut case.positions, true, case.params.table_len),
        _ => put(&mut case.positions, false, u32::MAX),
    });
}

#[test]
fn indices_of_gather() {
    assert_refusals(&cases::gather::cases(), 3, |case, way| match way {
        0 => above(&mut case.rows),
        1 => put(&mut case.indices, true, case.params.x_rows),
        _ => put(&mut case.indices, false, u32::MAX),
    });
}

#[test]
fn tokens_of_embed() {
    assert_refusals(&cases::embed::cases(), 3, |case, way| match way {
        0 => above(&mut case.rows),
        1 => put(&mut case.tokens, true, case.params.weight.outputs),
        _ => put(&mut case.tokens, false, u32::MAX),
    });
}

#[test]
fn starts_of_pool() {
    assert_refusals(&cases::pool::cases(), 4, |case, way| match way {
        0 => above(&mut case.seqs),
        1 => put(&mut case.starts, true, u32::MAX),
        2 => put(&mut case.starts, true, 0),
        _ => {
            case.starts.reverse();
            true
        }
    });
}

#[test]
fn slots_of_append_kv() {
    assert_refusals(&cases::append_kv::cases(), 9, |case, way| {
        let rows = case.slots.len();
        match way {
            0 => return above(&mut case.rows),
            1 if rows > 0 => case.slots[rows - 1][0] = case.params.kv.pages,
            2 if rows > 0 => case.slots[0][1] = case.params.kv.page_len,
            3 if rows > 1 => case.slots[rows - 1] = case.slots[0],
            4 if rows > 2 => case.slots[1] = case.slots[2],
            5 if rows > 3 => case.slots.fill([0, 0]),
            6 => return case.slot_starts.as_mut().is_some_and(|all| put(all, true, u32::MAX)),
            7 => return case.slot_starts.as_mut().is_some_and(|all| put(all, true, 0)),
            8 => {
                let most = case.params.table_len;
                return case.turns.as_mut().is_some_and(|(_, all)| put(all, true, most));
            }
            _ => return false,
        };
        true
    });
}

#[test]
fn entries_of_kv_copy() {
    assert_refusals(&cases::kv_copy::cases(), 7, |case, way| {
        let kv = case.params.kv;
        let Some(entry) = case.entries.last_mut() else { return false };
        match way {
            0 => return above(&mut case.count),
            1 => entry[0] = kv.pages,
            2 => entry[1] = kv.page_len + 1,
            3 => entry[2] = u32::MAX,
            4 => entry[3] = u32::MAX,
            5 => entry[4] = u32::MAX,
            _ => entry[3] = kv.page_len,
        }
        true
    });
}

#[test]
fn starts_of_varlen_mask() {
    assert_refusals(&cases::varlen_mask::cases(), 7, |case, way| {
        let used = case.sequences.len();
        let Some(last) = case.sequences.last_mut() else { return false };
        match way {
            0 => last.length = u32::MAX,
            1 => last.length = last.rows.wrapping_sub(1),
            2 if case.given[0] => last.prefix = last.length + 1,
            3 if !last.documents.is_empty() => last.documents[0] = last.length,
            4 if !last.parents.is_empty() => last.parents[0] = 0,
            5 if last.parents.len() > 1 => last.parents[1] = 1,
            6 => return crowd(&mut case.params.sequences_max, used),
            _ => return false,
        }
        true
    });
}

#[test]
fn settings_and_lists_of_logit_mask() {
    assert_refusals(&cases::logit_mask::cases(), 14, |case, way| {
        let vocab = case.params.vocab;
        let last = case.settings.len() - 1;
        match way {
            0 => return above(&mut case.rows),
            1 => case.settings[last].mask = case.params.masks,
            2 => case.settings[0].action = u32::MAX - 1,
            3 => case.settings[0].slot = case.params.slots,
            4 => case.settings[last].temperature = f32::NAN,
            5 => case.settings[0].temperature = -1.0,
            6 => case.settings[0].repetition = 0.0,
            7 => {
                case.settings[0].slot = u32::MAX;
                case.settings[0].presence = 1.0;
            }
            8 => return case.banned.as_mut().is_some_and(|(all, _)| put(all, true, u32::MAX)),
            9 => return case.banned.as_mut().is_some_and(|(_, all)| put(all, false, vocab)),
            10 => return case.bias.as_mut().is_some_and(|(_, all, _)| put(all, false, vocab)),
            11 => match &mut case.bias {
                Some((_, _, values)) => values.fill(f32::INFINITY),
                None => return false,
            },
            12 => return case.counted.as_mut().is_some_and(|(_, all)| put(all, false, vocab)),
            _ => return case.counted.as_mut().is_some_and(|(all, _)| put(all, true, u32::MAX)),
        }
        true
    });
}

#[test]
fn settings_of_sample() {
    assert_refusals(&cases::sample::cases(), 5, |case, way| {
        let last = case.settings.len() - 1;
        match way {
            0 => return above(&mut case.rows),
            1 => case.settings[last].temperature = -1.0,
            2 => case.settings[0].temperature = f32::NAN,
            3 => case.settings[last].top_p = 1.5,
            _ => case.settings[0].min_p = f32::INFINITY,
        }
        true
    });
}

#[test]
fn drafts_of_spec_verify() {
    assert_refusals(&cases::spec_verify::cases(), 5, |case, way| {
        let used = case.sequences.len();
        let vocab = case.params.vocab;
        let Some(last) = case.sequences.last_mut() else { return false };
        match way {
            0 if last.tokens.len() > 1 => return put(&mut last.tokens, true, vocab),
            1 if last.parents.len() > 1 => last.parents[1] = 1,
            2 => return put(&mut last.sampled, true, vocab),
            3 => last.request.position = u32::MAX,
            4 => return crowd(&mut case.params.sequences_max, used),
            _ => return false,
        }
        true
    });
}

#[test]
fn adapters_of_lora() {
    assert_refusals(&cases::lora::cases(), 4, |case, way| match way {
        0 => above(&mut case.rows),
        1 => put(&mut case.adapters, true, case.params.slots),
        2 => put(&mut case.ranks, false, case.params.rank_max + 1),
        _ => {
            case.scales.fill(f32::NAN);
            true
        }
    });
}

#[test]
fn starts_and_pages_of_attention() {
    assert_refusals(&cases::attention::cases(), 5, |case, way| {
        let (used, kv) = (case.shape.seqs.len(), case.params.kv);
        match way {
            0 => return crowd(&mut case.params.seqs_max, used),
            1 => return put(&mut case.q_start, false, u32::MAX),
            2 => return put(&mut case.kv_len, false, u32::MAX),
            3 => return put(&mut case.page_ids, false, kv.pages),
            _ => {
                // The last page of a sequence of more pages than a warp has lanes.
                let is_long = |&seq: &usize| case.kv_len[seq] > 32 * kv.page_len;
                let long = (0..used).rev().find(is_long);
                let (Some(seq), Some(starts), None) =
                    (long, &case.page_start, &case.first_position)
                else {
                    return false;
                };
                let last = starts[seq] + (case.kv_len[seq] - 1) / kv.page_len;
                case.page_ids[last as usize] = kv.pages;
            }
        }
        true
    });
}
