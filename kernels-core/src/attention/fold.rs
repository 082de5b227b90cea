//! States of softmax that are not finished: how they fold, and how they end.

use crate::math::{exp_one, log_one};
use crate::simd::{Floats, FloatsMut, LANES, Lanes, load_at, store_at};

/// States of many queries: maxima, sums, and accumulators `width` apart.
#[derive(Debug)]
pub struct States<'a> {
    /// The largest score of each.
    pub most: &'a mut [f32],
    /// The sum of weights of each: 0 where nothing was seen.
    pub sum: &'a mut [f32],
    /// The weighted values of each.
    pub acc: &'a mut [f32],
    /// Floats of an accumulator, whole vectors.
    pub width: usize,
}

impl<'a> States<'a> {
    /// States of `queries` in a piece of memory.
    pub fn new(floats: &'a mut [f32], queries: usize, width: usize) -> Self {
        let (most, rest) = floats.split_at_mut(queries);
        let (sum, acc) = rest.split_at_mut(queries);
        Self { most, sum, acc, width }
    }

    /// Nothing seen yet.
    pub fn clear(&mut self) {
        self.most.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
    }

    /// The accumulator of a query.
    #[inline(always)]
    fn acc(&mut self, query: usize) -> &mut [f32] {
        &mut self.acc[query * self.width..][..self.width]
    }

    /// Folds the state of a later split into a query's.
    #[inline(always)]
    pub fn fold<L: Lanes>(&mut self, l: L, query: usize, most: f32, sum: f32, acc: &[f32]) {
        if sum == 0.0 {
            return;
        }
        let (before_most, before) = (self.most[query], self.sum[query]);
        let width = self.width;
        if before == 0.0 {
            (self.most[query], self.sum[query]) = (most, sum);
            self.acc(query).copy_from_slice(&acc[..width]);
            return;
        }
        let top = larger(before_most, most);
        let (old, new) = (exp_one(l, before_most - top), exp_one(l, most - top));
        self.most[query] = top;
        self.sum[query] = fma_one(l, new, sum, old * before);
        let to = self.acc(query);
        let (old, new) = (l.splat(old), l.splat(new));
        let mut at = 0;
        while at < width {
            let kept = l.mul(old, load_at(l, to, at, 0.0));
            let v = l.fma(new, load_at(l, acc, at, 0.0), kept);
            store_at(l, v, to, at);
            at += LANES;
        }
    }

    /// Lets a sink join, writes the output and gives the logarithm of the denominator.
    #[inline(always)]
    pub fn finish<L: Lanes>(
        &self,
        l: L,
        query: usize,
        sink: f32,
        out: &mut FloatsMut<'_>,
        dims: usize,
    ) -> f32 {
        let acc = Floats::F32(&self.acc[query * self.width..][..self.width]);
        let (most, sum) = (self.most[query], self.sum[query]);
        let mut at = 0;
        if sum == 0.0 {
            while at < dims {
                out.store(l, l.splat(0.0), at);
                at += LANES;
            }
            return sink;
        }
        let joins = sink > f32::NEG_INFINITY || sink.is_nan();
        let top = if joins { larger(most, sink) } else { most };
        let kept = if joins { exp_one(l, most - top) } else { 1.0 };
        let sum = if joins { fma_one(l, kept, sum, exp_one(l, sink - top)) } else { sum };
        let (kept, divisor) = (l.splat(kept), l.splat(sum));
        while at < dims {
            let v = l.mul(kept, acc.load(l, at, 0.0));
            out.store(l, l.div(v, divisor), at);
            at += LANES;
        }
        top + log_one(l, sum)
    }
}

/// As [`Lanes::max`].
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn fma_one<L: Lanes>(l: L, a: f32, b: f32, c: f32) -> f32 {
    let mut lane = [0.0; LANES];
    l.store(l.fma(l.splat(a), l.splat(b), l.splat(c)), &mut lane);
    lane[0]
}
