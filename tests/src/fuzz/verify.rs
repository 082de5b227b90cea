//! `spec_verify` on any bytes.

use crate::cases::spec_verify::{VerifyCase, drafts};
use crate::harness::{Case, assert_case};
use kernels_core::params::{STATUS_OK, VERIFY_GREEDY, VERIFY_REJECTION, VERIFY_TOKENS};
use kernels_core::simd::Level;
use kernels_core::workers::Inline;

/// The call that the bytes spell, some of its words overwritten by the rest of them:
/// refused, or the same at every level; and where tokens are certain, the
/// specification's verdict.
pub fn run(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut below = |bound: u32| u32::from(bytes.next().unwrap_or(0)) % bound;
    let mode = [VERIFY_GREEDY, VERIFY_REJECTION, VERIFY_TOKENS][below(3) as usize];
    let drafted = mode == VERIFY_REJECTION && below(2) == 1;
    let vocab = 1 + below(150);
    let count = below(4);
    let trees = (0..count).map(|_| {
        let nodes = 1 + below(20);
        let parents: Vec<u32> = (0..nodes).map(|node| below(node.max(1))).collect();
        drafts(u64::from(below(256)), mode, vocab, &parents, drafted)
    });
    let sequences = trees.collect();
    let mut case = VerifyCase::new("fuzz", mode, vocab, sequences);
    let params = case.params;
    // Three bytes change a word: which one, and to what, small or with its top bits set.
    let rest: Vec<u8> = bytes.collect();
    for change in rest.as_chunks::<3>().0 {
        let value = u32::from(change[1]) | u32::from(change[2]) << 24;
        change_word(&mut case, usize::from(change[0]), value);
    }
    let Ok(outputs) = case.run(Level::best(), &Inline) else {
        return;
    };
    assert_case(&case);
    let words = |at: usize| outputs[at].bytes.cast::<u32>();
    if mode == VERIFY_REJECTION || case.params != params || !case.given[0] {
        return;
    }
    let mut first = 0;
    for (at, verdict) in case.verdicts::<f64>().into_iter().enumerate() {
        if words(3)[at] == STATUS_OK {
            let path = &words(0)[first..first + words(1)[at] as usize];
            let path: Vec<u32> = path.iter().map(|node| node - first as u32).collect();
            assert_eq!((path, words(2)[at]), (verdict.path, verdict.next));
        }
        first += case.sequences[at].tokens.len();
    }
}

fn change_word(case: &mut VerifyCase, at: usize, value: u32) {
    let params: &mut [u32] = bytemuck::cast_slice_mut(bytemuck::bytes_of_mut(&mut case.params));
    if at < 8 {
        params[at] = value;
        return;
    }
    if at < 10 {
        case.given[at - 8] = value % 2 == 1;
        return;
    }
    let Some(drafts) = case.sequences.get_mut(at % 3) else { return };
    let node = at / 3 % drafts.tokens.len();
    match at % 5 {
        0 => drafts.tokens[node] = value,
        1 => drafts.parents[node] = value,
        2 => drafts.sampled[node] = value,
        3 => {
            let row = &mut drafts.target[node];
            let token = value as usize % row.len();
            row[token] = f32::from_bits(value << 8);
        }
        _ => drafts.request.position = value,
    }
}
