//! Rows of one matrix as the numbers that products with it use: what it becomes when it is
//! quantised, not what its file holds.

use super::formats::{self, Found, Reading, Wanted};
use super::lines::Lines;
use super::pack::pack_tile;
use super::shelf::Shelf;
use super::{LoadError, load::backend_error};
use crate::model::Source;
use kernels_core::error::Checks;
use kernels_core::packing::{self, TILE, Weight};
use kernels_core::{Error, params};

/// The rows of one matrix, as f32.
pub struct Rows32<'a> {
    name: String,
    found: Found<'a>,
}

impl<'a> Rows32<'a> {
    /// Finds a matrix of so many rows and columns.
    pub fn open(
        source: &Source<'a>,
        name: &str,
        [outputs, inputs]: [u32; 2],
    ) -> Result<Self, LoadError> {
        let Source { config, tensors, quantize, .. } = *source;
        let reading = Reading { quantize, zeros_less_one: config.zeros_less_one };
        let wanted = Wanted { name, outputs, inputs };
        let found = formats::find(&mut Shelf::new(tensors), wanted, reading)?;
        Ok(Self { name: name.to_owned(), found })
    }

    /// Hands over one row after the other.
    pub fn each(&self, f: impl FnMut(&[f32])) -> Result<(), LoadError> {
        self.tiles(f).map_err(|error| backend_error(&self.name, error))
    }

    fn tiles(&self, mut f: impl FnMut(&[f32])) -> Result<(), Error> {
        let whole = params::Weight { outputs: TILE as u32, ..self.found.weight };
        let weight = Weight::parse(Checks("base"), &whole)?;
        let mut room = Lines::zeroed(weight.tile_bytes());
        let count = self.found.rows.count;
        for first in (0..count).step_by(TILE) {
            pack_tile(&whole, first, &[self.found.rows], room.bytes_mut())?;
            for output in 0..TILE.min(count - first) {
                f(&packing::dequantise::<f32>(&weight, room.bytes_mut(), output));
            }
        }
        Ok(())
    }
}
