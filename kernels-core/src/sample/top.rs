//! The most likely tokens of a row.

use super::passes::{self, GROUP};
use super::select;
use crate::params;
use crate::simd::Level;
use crate::vocabulary::Exponentials;

/// A row's part of the lists.
pub(super) struct Top<'a> {
    pub(super) token: &'a mut [u32],
    pub(super) logprob: &'a mut [f32],
}

impl Top<'_> {
    /// No tokens.
    pub(super) fn clear(&mut self) {
        self.token.fill(params::NONE);
        self.logprob.fill(f32::NAN);
    }

    /// The largest logits by insertion: groups below the least so far are passed over.
    pub(super) fn fill(&mut self, level: Level, row: &[f32], groups: &[f32], total: Exponentials) {
        let n = self.token.len();
        if n == 0 {
            return;
        }
        // So many groups have a logit at least as large.
        let mut least = select::nth_largest(groups, n as u64).unwrap_or(f32::NEG_INFINITY);
        let mut count = 0;
        for (group, (x, most)) in row.chunks(GROUP).zip(groups).enumerate() {
            if *most < least {
                continue;
            }
            for (i, &x) in x.iter().enumerate() {
                let passed = x < least || count == n && x == least;
                if passed || x == f32::NEG_INFINITY {
                    continue;
                }
                count = (count + 1).min(n);
                self.insert(count, (group * GROUP + i) as u32, x);
                if count == n {
                    least = self.logprob[n - 1];
                }
            }
        }
        for logprob in &mut self.logprob[..count] {
            *logprob = passes::logprob(level, total, *logprob);
        }
    }

    /// Puts a logit behind those that are as large, within the first `count`.
    fn insert(&mut self, count: usize, token: u32, x: f32) {
        let before = self.logprob[..count - 1].iter().take_while(|other| **other >= x).count();
        self.token.copy_within(before..count - 1, before + 1);
        self.logprob.copy_within(before..count - 1, before + 1);
        (self.token[before], self.logprob[before]) = (token, x);
    }
}
