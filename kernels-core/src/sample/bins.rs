//! Masses by bins of z, for top-p over a whole vocabulary: the bin in which the mass
//! of a head comes to its target is found without looking at single tokens, of which
//! there may be very many.

use super::passes::{GROUP, MASS_LEAST, Tempered, mass};
use crate::simd::{LANES, Lanes, load_at};

/// Bins, the largest z first.
pub(super) const BINS: usize = 512;
/// Bins for each unit of z: [`MASS_LEAST`] comes to bin 504.
const FINENESS: f32 = 24.0;

/// The last bin, where no z comes to by itself.
pub(super) const LAST: usize = BINS - 1;

/// The bin of each z: a larger z is never in a later bin.
#[inline(always)]
pub(super) fn of<L: Lanes>(l: L, z: L::F) -> L::I {
    let z = l.max(z, l.splat(MASS_LEAST));
    l.to_int(l.mul(z, l.splat(-FINENESS)))
}

/// A number that every z of a bin is above.
pub(super) fn below(bin: usize) -> f32 {
    (bin + 1) as f32 / -FINENESS
}

/// A pass over some blocks of a row.
pub(super) struct Weigh<'a> {
    pub(super) row: &'a [f32],
    pub(super) groups: &'a [f32],
    pub(super) tempered: Tempered,
    /// Groups whose largest z is below go to the last bin, whatever is in them.
    pub(super) least: f32,
    /// `[BINS]`: the low and the high word of each bin's mass.
    pub(super) bins: &'a mut [[u32; 2]],
}

crate::levels! {
    /// The mass of every bin.
    pub(super) fn weigh(weigh: Weigh<'_>) = weigh_body;
}

#[inline(always)]
fn weigh_body<L: Lanes>(l: L, weigh: Weigh<'_>) {
    let mut sums = [0u64; BINS];
    for (x, most) in weigh.row.chunks(GROUP).zip(weigh.groups) {
        let most = weigh.tempered.of(*most);
        // Not so where it is −∞ either.
        if most < MASS_LEAST {
            continue;
        }
        let (mut bin, mut masses) = ([[0; LANES]; GROUP / LANES], [[0; LANES]; GROUP / LANES]);
        for i in 0..GROUP / LANES {
            let rest = &x[(i * LANES).min(x.len())..];
            let z = weigh.tempered.lanes(l, load_at(l, rest, 0, f32::NEG_INFINITY));
            l.istore(of(l, z), &mut bin[i]);
            l.istore(mass(l, z), &mut masses[i]);
        }
        let (bin, masses) = (bin.as_flattened(), masses.as_flattened());
        if most < weigh.least {
            sums[LAST] += masses.iter().map(|mass| *mass as u64).sum::<u64>();
            continue;
        }
        for (bin, mass) in bin.iter().zip(masses) {
            // Always below: a mask spares the check.
            sums[*bin as usize % BINS] += *mass as u64;
        }
    }
    for (to, sum) in weigh.bins.iter_mut().zip(sums) {
        *to = [sum as u32, (sum >> 32) as u32];
    }
}

/// Where a head of the ranking ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// In this bin.
    pub(super) bin: usize,
    /// Of whose masses, the largest first, it takes so much.
    pub(super) target: u64,
}

/// The end of the shortest head with so large a share, of 2³², of the mass that the
/// parts of a row have in their bins.
pub(super) fn end(parts: &[[u32; 2]], share: u64) -> End {
    let of = |bin: usize| {
        let words = parts.iter().skip(bin).step_by(BINS);
        words.map(|words| u64::from(words[0]) | u64::from(words[1]) << 32).sum::<u64>()
    };
    let total: u64 = (0..BINS).map(of).sum();
    let target = (u128::from(total) * u128::from(share)).div_ceil(1 << 32);
    let mut target = (target as u64).max(1);
    let mut bin = 0;
    while bin < LAST && of(bin) < target {
        target -= of(bin);
        bin += 1;
    }
    End { bin, target }
}

#[cfg(test)]
mod tests {
    use super::{BINS, End, end};

    #[test]
    fn heads_end_in_the_bin_that_reaches_their_share() {
        let mut parts = [[0; 2]; 2 * BINS];
        (parts[3], parts[BINS + 3], parts[BINS + 7]) = ([20, 0], [10, 0], [70, 0]);
        let share = |percent: u64| (percent << 32) / 100;
        assert_eq!(end(&parts, 0), End { bin: 3, target: 1 });
        assert_eq!(end(&parts, share(30)), End { bin: 3, target: 30 });
        assert_eq!(end(&parts, share(30) + 1), End { bin: 7, target: 1 });
        assert_eq!(end(&parts, 1 << 32), End { bin: 7, target: 70 });
    }
}
