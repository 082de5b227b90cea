//! Tables of cosines and sines, made once on the host in f64 and stored as f32:
//! a pure function of the base, the dims that turn, the scaling and the position.

use crate::error::{Checks, Error, Fault};
use core::f64::consts::TAU;

/// The most dims of a head that turn.
pub const ROTARY_DIMS_MAX: u32 = 256;
const PAIRS_MAX: usize = ROTARY_DIMS_MAX as usize / 2;
const CHECKS: Checks = Checks("rope_table");

/// What a table is made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Table {
    /// Pair i of d dims turns by base^(−2i/d) a position; above 1.
    pub base: f64,
    /// The dims that turn; even, at least 2.
    pub rotary_dims: u32,
    /// How positions past the trained ones are reached.
    pub scaling: Scaling,
}

/// How the turns are slowed for more positions than a model was trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// Every pair, by one factor.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// A larger base, for a stated number of positions: every length served by one
    /// table gets the same turns, so a token's bits do not depend on who follows it.
    Dynamic {
        /// At least 1.
        factor: f64,
        /// Positions the model was trained on.
        original_positions: u32,
        /// Positions to reach; up to the trained ones nothing changes.
        positions: u32,
    },
    /// Fast pairs keep their turns, slow ones take the factor, a ramp between them.
    Yarn(Yarn),
    /// As yarn, with the ramp over wavelengths.
    Llama3 {
        /// At least 1.
        factor: f64,
        /// Pairs with fewer turns in the trained positions take the whole factor.
        low_factor: f64,
        /// Pairs with more turns take none; above `low_factor`.
        high_factor: f64,
        /// Positions the model was trained on.
        original_positions: u32,
    },
}

/// The numbers of yarn, named as model files have them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// At least 1.
    pub factor: f64,
    /// Positions the model was trained on.
    pub original_positions: u32,
    /// Pairs with more turns than this in them keep their turns; 32 where unsaid.
    pub beta_fast: f64,
    /// Pairs with fewer take the whole factor; 1 where unsaid.
    pub beta_slow: f64,
    /// What cosines and sines are multiplied by; see [`yarn_attention`].
    pub attention_factor: f64,
    /// Whether the ramp's ends are whole pairs; true where unsaid.
    pub truncate: bool,
}

/// Yarn's attention factor where a model file does not give it: from the factor,
/// and from `mscale` and `mscale_all_dim` where both are given and not zero.
pub fn yarn_attention(factor: f64, mscales: Option<(f64, f64)>) -> f64 {
    let mscale = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * libm::log(factor) + 1.0 };
    match mscales {
        Some((one, all)) if one != 0.0 && all != 0.0 => mscale(one) / mscale(all),
        _ => mscale(1.0),
    }
}

impl Table {
    /// Refuses numbers that give no turns.
    pub fn check(&self) -> Result<(), Error> {
        CHECKS.range("rotary_dims", self.rotary_dims, 2..=i64::from(ROTARY_DIMS_MAX))?;
        CHECKS.multiple("rotary_dims", 2, self.rotary_dims.into())?;
        above("base", self.base, 1.0)?;
        match self.scaling {
            Scaling::None => Ok(()),
            Scaling::Linear { factor } => at_least("factor", factor, 1.0),
            Scaling::Dynamic { factor, original_positions, .. } => {
                // Its exponent is d / (d - 2).
                CHECKS.range("rotary_dims", self.rotary_dims, 4..=i64::from(ROTARY_DIMS_MAX))?;
                trained(original_positions)?;
                at_least("factor", factor, 1.0)
            }
            Scaling::Yarn(yarn) => {
                trained(yarn.original_positions)?;
                at_least("factor", yarn.factor, 1.0)?;
                above("beta_slow", yarn.beta_slow, 0.0)?;
                above("beta_fast", yarn.beta_fast, 0.0)?;
                above("attention_factor", yarn.attention_factor, 0.0)
            }
            Scaling::Llama3 { factor, low_factor, high_factor, original_positions } => {
                trained(original_positions)?;
                at_least("factor", factor, 1.0)?;
                above("low_factor", low_factor, 0.0)?;
                above("high_factor", high_factor, low_factor)
            }
        }
    }

    /// Fills rows of `rotary_dims` floats for the positions from `first` on: the
    /// cosines of every pair, then their sines, each times the attention factor.
    pub fn fill(&self, first: u32, rows: &mut [f32]) -> Result<(), Error> {
        self.check()?;
        let pairs = self.rotary_dims as usize / 2;
        let mut turns = [0.0; PAIRS_MAX];
        self.turns(&mut turns[..pairs]);
        let factor = self.attention_factor();
        CHECKS.multiple("rows", 2 * pairs as u64, rows.len() as u64)?;
        for (at, row) in rows.chunks_exact_mut(2 * pairs).enumerate() {
            let position = f64::from(first) + at as f64;
            let (cosines, sines) = row.split_at_mut(pairs);
            for ((cosine, sine), turn) in cosines.iter_mut().zip(sines).zip(turns) {
                *cosine = (libm::cos(position * turn) * factor) as f32;
                *sine = (libm::sin(position * turn) * factor) as f32;
            }
        }
        Ok(())
    }

    /// What cosines and sines are multiplied by: 1 but for yarn.
    pub fn attention_factor(&self) -> f64 {
        match self.scaling {
            Scaling::Yarn(yarn) => yarn.attention_factor,
            _ => 1.0,
        }
    }

    /// Radians a position of each pair, of a checked table.
    pub fn turns(&self, turns: &mut [f64]) {
        let dims = f64::from(self.rotary_dims);
        let base = match self.scaling {
            Scaling::Dynamic { factor, original_positions, positions } => {
                let longer = f64::from(positions.max(original_positions));
                let stretch = factor * longer / f64::from(original_positions) - (factor - 1.0);
                self.base * libm::pow(stretch, dims / (dims - 2.0))
            }
            _ => self.base,
        };
        for (pair, turn) in turns.iter_mut().enumerate() {
            let plain = 1.0 / libm::pow(base, 2.0 * pair as f64 / dims);
            *turn = match self.scaling {
                Scaling::None | Scaling::Dynamic { .. } => plain,
                Scaling::Linear { factor } => plain / factor,
                Scaling::Yarn(yarn) => {
                    let slow = self.ramp(&yarn, pair as f64);
                    plain / yarn.factor * slow + plain * (1.0 - slow)
                }
                Scaling::Llama3 { factor, low_factor, high_factor, original_positions } => {
                    let turns = f64::from(original_positions) * plain / TAU;
                    let fast = (turns - low_factor) / (high_factor - low_factor);
                    let fast = fast.clamp(0.0, 1.0);
                    plain / factor * (1.0 - fast) + plain * fast
                }
            };
        }
    }

    /// How much of yarn's factor a pair takes: 0 for fast ones to 1 for slow ones.
    fn ramp(&self, yarn: &Yarn, pair: f64) -> f64 {
        let dims = f64::from(self.rotary_dims);
        // The pair that makes so many turns in the trained positions.
        let pair_of = |turns: f64| {
            let positions = f64::from(yarn.original_positions);
            dims * libm::log(positions / (turns * TAU)) / (2.0 * libm::log(self.base))
        };
        let (mut low, mut high) = (pair_of(yarn.beta_fast), pair_of(yarn.beta_slow));
        if yarn.truncate {
            (low, high) = (libm::floor(low), libm::ceil(high));
        }
        // The upper bound counts dims, not pairs, in every published implementation.
        (low, high) = (low.max(0.0), high.min(dims - 1.0));
        if low == high {
            high += 0.001;
        }
        ((pair - low) / (high - low)).clamp(0.0, 1.0)
    }
}

fn trained(original_positions: u32) -> Result<(), Error> {
    CHECKS.range("original_positions", original_positions, 1..=i64::from(u32::MAX))
}

fn at_least(field: &'static str, got: f64, least: f64) -> Result<(), Error> {
    if got == least { Ok(()) } else { above(field, got, least) }
}

fn above(field: &'static str, got: f64, bound: f64) -> Result<(), Error> {
    if !got.is_finite() {
        return Err(CHECKS.refuse(field, Fault::NotFinite));
    }
    if got > bound {
        return Ok(());
    }
    let fault = Fault::Range { least: bound as i64, most: i64::MAX, got: got as i64 };
    Err(CHECKS.refuse(field, fault))
}
