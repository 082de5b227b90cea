//! The slots of a step, before anything is written: each lies in the pages, and no two
//! are the same.

use super::AppendKv;
use crate::command::Host;
use crate::error::{Error, Fault};
use crate::params;

/// Words of workspace for so many slots: at most half of them are in use, so that a
/// search ends soon.
pub(super) const fn workspace_words(slots: u32) -> u64 {
    (2 * slots as u64).next_power_of_two()
}

/// Refuses slots that the contract does not allow; `seen` is the workspace.
pub(super) fn check(
    p: &params::AppendKv,
    rows: usize,
    starts: Option<&[u32]>,
    slots: &[[u32; 2]],
    seen: &mut [u32],
) -> Result<(), Error> {
    let checks = AppendKv::<Host>::CHECKS;
    let used = match starts {
        None => 0..rows,
        Some(starts) => {
            checks.ascending("slot_starts", starts, p.slots_max)?;
            starts[0] as usize..starts[rows] as usize
        }
    };
    let ends = [p.kv.pages - 1, p.kv.page_len - 1];
    for (slot, ids) in slots.iter().enumerate().take(used.end).skip(used.start) {
        for (i, (&got, &most)) in ids.iter().zip(&ends).enumerate() {
            if got > most {
                let at = 2 * slot as u64 + i as u64;
                let fault = Fault::Element { at, least: 0, most: most.into(), got: got.into() };
                return Err(checks.refuse("slots", fault));
            }
        }
    }
    match repeated(&slots[used.clone()], seen) {
        None => Ok(()),
        Some((at, earlier)) => {
            let word = |slot: usize| 2 * (used.start + slot) as u64;
            let fault = Fault::Repeated { at: word(at), earlier: word(earlier) };
            Err(checks.refuse("slots", fault))
        }
    }
}

/// The first slot that an earlier one names too, and that one. A table with open
/// addresses: a place holds the number of a slot and one more, or 0.
fn repeated(slots: &[[u32; 2]], seen: &mut [u32]) -> Option<(usize, usize)> {
    let places = workspace_words(slots.len() as u32) as usize;
    let seen = &mut seen[..places];
    seen.fill(0);
    for (at, slot) in slots.iter().enumerate() {
        let key = u64::from(slot[0]) << 32 | u64::from(slot[1]);
        // The golden ratio's bits, which spread neighbours far apart.
        let spread = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut place = (spread >> 32) as usize & (places - 1);
        while let Some(earlier) = (seen[place] as usize).checked_sub(1) {
            if slots[earlier] == *slot {
                return Some((at, earlier));
            }
            place = (place + 1) & (places - 1);
        }
        seen[place] = at as u32 + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::repeated;

    #[test]
    fn only_the_same_page_and_token_are_the_same_slot() {
        let mut seen = [7; 16];
        assert_eq!(repeated(&[[1, 2], [2, 1], [1, 3], [1, 2]], &mut seen), Some((3, 0)));
        assert_eq!(repeated(&[[1, 2], [2, 1], [1, 3], [0, 2]], &mut seen), None);
        assert_eq!(repeated(&[], &mut seen), None);
    }
}
