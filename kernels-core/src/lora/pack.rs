//! Adapters as `lora` reads them, made from the rows that files hold.

use super::{OUTPUTS, RANKS};
use crate::params;

/// Elements of a slot of A.
pub const fn a_elements(p: &params::Lora) -> u64 {
    p.inputs as u64 * p.rank_max as u64
}

/// Elements of a slot of B.
pub const fn b_elements(p: &params::Lora) -> u64 {
    p.outputs.div_ceil(OUTPUTS as u32) as u64 * OUTPUTS as u64 * p.rank_max as u64
}

/// Packs A, `rank` rows of `inputs` elements, into panels of 16 ranks at the start
/// of a slot. What lies beyond the rank is left as it is.
pub fn pack_a<T: Copy>(rows: &[T], inputs: usize, slot: &mut [T]) {
    for (rank, row) in rows.chunks_exact(inputs).enumerate() {
        let panel = &mut slot[rank / RANKS * inputs * RANKS..];
        for (input, &value) in row.iter().enumerate() {
            panel[input * RANKS + rank % RANKS] = value;
        }
    }
}

/// Packs B, `outputs` rows of `rank` elements, into panels of 32 outputs at the start
/// of a slot. What lies beyond the outputs is left as it is.
pub fn pack_b<T: Copy>(rows: &[T], rank: usize, slot: &mut [T]) {
    for (output, row) in rows.chunks_exact(rank).enumerate() {
        let panel = &mut slot[output / OUTPUTS * rank * OUTPUTS..];
        for (j, &value) in row.iter().enumerate() {
            panel[j * OUTPUTS + output % OUTPUTS] = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{pack_a, pack_b};

    #[test]
    fn a_panel_of_a_holds_one_input_after_the_other() {
        let mut slot = [0; 2 * 32];
        let rows: [i32; 17 * 2] = core::array::from_fn(|at| at as i32 + 1);
        pack_a(&rows, 2, &mut slot);
        assert_eq!(slot[..3], [1, 3, 5]);
        assert_eq!(slot[16..19], [2, 4, 6]);
        assert_eq!(slot[32..34], [33, 0]);
        assert_eq!(slot[48..50], [34, 0]);
    }

    #[test]
    fn a_panel_of_b_holds_one_rank_after_the_other() {
        let mut slot = [0; 2 * 64];
        let rows: [i32; 33 * 2] = core::array::from_fn(|at| at as i32 + 1);
        pack_b(&rows, 2, &mut slot);
        assert_eq!(slot[..3], [1, 3, 5]);
        assert_eq!(slot[32..35], [2, 4, 6]);
        assert_eq!((slot[64], slot[96]), (65, 66));
    }
}
