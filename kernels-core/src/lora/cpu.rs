//! `lora` on the CPU: rows are ordered by adapter, so that up to eight of one adapter
//! share each load of its weights. The down product is split between workers by rows,
//! the up product by columns, for it is the output that is large.

use super::tile::{Down, Up, down_at, up_at};
use super::{Lora, OUTPUTS};
use crate::command::{Host, cast, cast_mut, live};
use crate::error::{Error, Fault};
use crate::params::{self, LORA_NONE};
use crate::simd::{Floats, Level};
use crate::with_float;
use crate::workers::{Columns, Pieces, Workers, even, split};

/// Multiplications worth a thread of their own.
const TILE_PRODUCTS: u64 = 1 << 16;

/// Runs the command in a workspace of the bytes it needs.
pub fn run(
    level: Level,
    workers: &dyn Workers,
    lora: Lora<Host<'_>>,
    workspace: &mut [u8],
) -> Result<(), Error> {
    let types = lora.types()?;
    let checks = Lora::<Host>::CHECKS;
    let p = lora.params;
    let needs = lora.needs(workers.count())?.workspace_bytes;
    checks.holds("workspace", Some(needs), workspace.len() as u64)?;
    let rows = live(checks, "rows", lora.rows, p.rows_max)?;
    let adapters = &cast::<u32>(lora.adapters)[..rows];
    let slots = Slots { ranks: cast(lora.ranks), scales: cast(lora.scales) };
    slots.check(adapters, &p)?;

    let (h, order) = cast_mut::<u32>(workspace).split_at_mut(rows * p.rank_max as usize);
    let h = bytemuck::cast_slice_mut::<u32, f32>(h);
    let order = ordered(adapters, order);
    let products = |width: u32| order.len() as u64 * u64::from(width) * u64::from(p.rank_max);
    let tiles =
        |width| (products(width) / TILE_PRODUCTS).clamp(1, u64::from(workers.count())) as u32;
    let x = Floats::new(types.x, lora.x);
    with_float!(types.weight, T => {
        let a = cast::<T>(lora.a);
        let count = tiles(p.inputs);
        let parts = Pieces::new(&mut *h, order.len(), p.rank_max as usize, count);
        split(workers, count, parts, |tile, h| {
            let order = &order[even(order.len(), count, tile)];
            down_at(level, Down { p: &p, slots, adapters, order, x, a, h });
        });
        let b = cast::<T>(lora.b);
        let count = tiles(p.outputs);
        let (stride, columns) = (p.out_row_stride as usize, p.outputs as usize);
        let parts = Columns::new(cast_mut(lora.out), p.rows_max as usize, stride, columns, OUTPUTS, count);
        let magnitudes = lora.magnitudes.map(cast);
        let h = &*h;
        split(workers, count, parts, |_, out| {
            up_at(level, Up { p: &p, slots, adapters, order, h, b, magnitudes, out });
        });
    });
    Ok(())
}

/// What a step says of each slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots<'a> {
    pub ranks: &'a [u32],
    pub scales: &'a [f32],
}

impl Slots<'_> {
    /// Refuses slots that do not exist, and ranks and scales of those in use.
    fn check(self, adapters: &[u32], p: &params::Lora) -> Result<(), Error> {
        let checks = Lora::<Host>::CHECKS;
        let element = |field, at: usize, most: u32, least: u32, got: u32| {
            let [least, most, got] = [least, most, got].map(i64::from);
            checks.refuse(field, Fault::Element { at: at as u64, least, most, got })
        };
        for (row, &slot) in adapters.iter().enumerate() {
            if slot == LORA_NONE {
                continue;
            }
            if slot >= p.slots {
                return Err(element("adapters", row, p.slots - 1, 0, slot));
            }
            let at = slot as usize;
            let rank = self.ranks[at];
            if rank == 0 || rank > p.rank_max {
                return Err(element("ranks", at, p.rank_max, 1, rank));
            }
            if !self.scales[at].is_finite() {
                return Err(checks.refuse("scales", Fault::NotFiniteAt { at: at as u64 }));
            }
        }
        Ok(())
    }
}

/// The rows that have an adapter, those of one adapter together.
fn ordered<'a>(adapters: &[u32], space: &'a mut [u32]) -> &'a [u32] {
    let mut count = 0;
    for (row, &slot) in adapters.iter().enumerate() {
        if slot != LORA_NONE {
            space[count] = row as u32;
            count += 1;
        }
    }
    let order = &mut space[..count];
    order.sort_unstable_by_key(|&row| (adapters[row as usize], row));
    order
}
