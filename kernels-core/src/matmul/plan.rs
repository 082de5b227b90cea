//! How a product lies in its workspace: rows in chunks that stay in a core's cache,
//! chunks in panels that one pass over a tile serves, panels in one unit for each
//! segment of inputs. Which of these a row is in changes nothing about its bits.

use super::SEGMENT;
use super::grouped::unpacked;
use crate::packing::{TILE, Values, Weight};
use crate::simd::Level;
use crate::workers::even;
use core::ops::Range;

/// Rows of a panel at most, for floats: 22 accumulators leave room for the weights of
/// two inputs and for what they are multiplied by.
pub(super) const FLOAT_ROWS: usize = 11;
/// Rows of a panel at most, for groups that are multiplied straight from memory.
pub(super) const GROUPED_ROWS: usize = 8;
/// Rows of a panel at most when there are many: fourteen integer and fourteen float
/// accumulators stay in registers.
const GROUPED_ROWS_OF_MANY: usize = 7;
/// Rows with which two tiles are multiplied side by side: memory gives more when two
/// streams ask, and there are registers left.
const FEW_ROWS: usize = 4;
/// Bytes of converted rows that a chunk aims at: half of a core's second cache.
const CHUNK_BYTES: usize = 1 << 20;
/// Rows of a chunk at least: weights come from memory once for each chunk.
const CHUNK_ROWS_MIN: usize = 84;

/// The layout of a product's workspace.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The matrix.
    pub weight: Weight,
    rows_max: usize,
}

impl Plan {
    /// The layout for at most so many rows.
    pub const fn new(weight: Weight, rows_max: usize) -> Self {
        Self { weight, rows_max }
    }

    /// Rows that are converted and multiplied at a time, at most.
    pub fn chunk_rows(&self) -> usize {
        let row_bytes = self.unit_words() * 4 * self.segments() / self.panel_rows_most();
        (CHUNK_BYTES / row_bytes).max(CHUNK_ROWS_MIN).min(self.rows_max)
    }

    /// The chunks of so many rows, balanced.
    pub fn chunks(&self, rows: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let count = rows.div_ceil(self.chunk_rows()) as u32;
        (0..count).map(move |chunk| even(rows, count, chunk))
    }

    /// Segments of the inputs.
    pub const fn segments(&self) -> usize {
        self.weight.inputs.div_ceil(SEGMENT)
    }

    /// Inputs of one segment.
    pub fn segment_inputs(&self, segment: usize) -> usize {
        (self.weight.inputs - segment * SEGMENT).min(SEGMENT)
    }

    const fn panel_rows_most(&self) -> usize {
        match self.weight.values {
            Values::Floats(_) => FLOAT_ROWS,
            Values::Groups(_) => GROUPED_ROWS,
        }
    }

    /// Panels of so many rows: never fewer for more rows.
    pub const fn panels(&self, rows: usize) -> usize {
        match self.weight.values {
            Values::Floats(_) => rows.div_ceil(FLOAT_ROWS),
            Values::Groups(_) if rows <= 2 * GROUPED_ROWS => rows.div_ceil(GROUPED_ROWS),
            Values::Groups(_) => rows.div_ceil(GROUPED_ROWS_OF_MANY),
        }
    }

    /// The rows of one panel of a chunk.
    pub fn panel(&self, rows: usize, panel: usize) -> Range<usize> {
        even(rows, self.panels(rows) as u32, panel as u32)
    }

    /// 32-bit words of one unit: a full panel's rows of one segment.
    pub fn unit_words(&self) -> usize {
        match self.weight.values {
            Values::Floats(_) => SEGMENT * FLOAT_ROWS,
            Values::Groups(groups) => SEGMENT / groups.len * (groups.len / 4 + 2) * GROUPED_ROWS,
        }
    }

    /// Words of the converted rows of a chunk.
    pub fn rows_words(&self) -> usize {
        self.panels(self.chunk_rows()) * self.segments() * self.unit_words()
    }

    /// Words of one worker's scratch: the totals of a tile, and a segment unpacked.
    pub fn scratch_words(&self) -> usize {
        self.totals_words() + self.unpacked_words()
    }

    /// Tiles that are multiplied side by side at most.
    pub fn tiles_at_once(&self, level: Level, rows: usize) -> usize {
        if level.many_registers() && rows <= FEW_ROWS { 2 } else { 1 }
    }

    /// Words of the totals of the tiles at hand: `[tiles][rows][32]` f32.
    pub fn totals_words(&self) -> usize {
        (self.chunk_rows() + FEW_ROWS) * TILE
    }

    fn unpacked_words(&self) -> usize {
        match self.weight.values {
            Values::Groups(groups) if groups.nibbles => {
                SEGMENT / groups.len * unpacked(groups).bytes() / 4
            }
            _ => 0,
        }
    }

    /// Bytes of the workspace with so many workers.
    pub fn workspace_bytes(&self, workers: u32) -> usize {
        4 * (self.rows_words() + workers as usize * self.scratch_words())
    }
}

#[cfg(test)]
mod tests {
    use super::Plan;
    use crate::dtype::Dtype;
    use crate::packing::{Values, Weight};
    use crate::simd::Level;

    #[test]
    fn few_rows_take_two_tiles_side_by_side_where_registers_are_many() {
        let weight = Weight { outputs: 96, inputs: 64, values: Values::Floats(Dtype::Bf16) };
        let plan = Plan::new(weight, 9);
        for level in Level::all() {
            let two = if level.name() == "avx512" { 2 } else { 1 };
            let at_once = [1, 4, 5].map(|rows| plan.tiles_at_once(level, rows));
            assert_eq!(at_once, [two, two, 1], "{}", level.name());
        }
    }
}
