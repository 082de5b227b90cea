//! The step buffers of a call, gone over before anything is written.

use super::Sample;
use crate::command::{Host, cast, live};
use crate::error::{Checks, Error, Fault};
use crate::params::SampleRow;
use crate::vocabulary::masks;

/// The live rows' settings, if every one is as the contract says.
pub(super) fn settings<'a>(command: &Sample<Host<'a>>) -> Result<&'a [SampleRow], Error> {
    let checks = Sample::<Host>::CHECKS;
    let rows = live(checks, "rows", command.rows, command.params.rows_max)?;
    let settings: &[SampleRow] = &cast(command.settings)[..rows];
    for (row, asked) in settings.iter().enumerate() {
        for (field, value, most) in [
            ("settings.temperature", asked.temperature, f32::MAX),
            ("settings.top_p", asked.top_p, 1.0),
            ("settings.min_p", asked.min_p, 1.0),
        ] {
            let at = row as u64;
            if !value.is_finite() {
                return Err(checks.refuse(field, Fault::NotFiniteAt { at }));
            } else if value < 0.0 {
                return Err(checks.refuse(field, Fault::BelowAt { at }));
            } else if value > most {
                return Err(checks.refuse(field, Fault::AboveAt { at }));
            }
        }
    }
    check_masks(checks, command, rows)?;
    Ok(settings)
}

/// The masks of the live rows are there, or none.
fn check_masks(checks: Checks, command: &Sample<Host<'_>>, rows: usize) -> Result<(), Error> {
    let chosen: &[u32] = command.row_masks.map_or(&[], |chosen| &cast(chosen)[..2 * rows]);
    match chosen.iter().position(|&mask| !masks::is_there(mask, command.params.masks)) {
        None => Ok(()),
        Some(at) => {
            let most = i64::from(command.params.masks) - 1;
            let got = i64::from(chosen[at]);
            Err(checks.refuse("row_masks", Fault::Element { at: at as u64, least: 0, most, got }))
        }
    }
}
