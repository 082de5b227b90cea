//! The step buffers of a call, gone over before anything is written.

use super::LogitMask;
use crate::command::{Host, cast, live};
use crate::error::{Checks, Error, Fault};
use crate::params::{self, LogitMaskRow};

/// What the rows of this step ask for.
pub(super) struct Step<'a> {
    pub(super) settings: &'a [LogitMaskRow],
    pub(super) banned: Lists<'a, u32>,
    pub(super) bias_tokens: Lists<'a, u32>,
    pub(super) bias_values: Lists<'a, f32>,
    pub(super) counted: Lists<'a, u32>,
}

/// A list for each row; all of them empty by default.
#[derive(Clone, Copy)]
pub(super) struct Lists<'a, T> {
    starts: &'a [u32],
    all: &'a [T],
}

impl<'a, T> Lists<'a, T> {
    /// The list of a row.
    pub(super) fn of(&self, row: usize) -> &'a [T] {
        match self.starts.get(row..row + 2) {
            Some(bounds) => &self.all[bounds[0] as usize..bounds[1] as usize],
            None => &[],
        }
    }
}

impl<'a> Step<'a> {
    /// The live rows' settings and lists, if every one is as the contract says.
    pub(super) fn read(command: &LogitMask<Host<'a>>) -> Result<Self, Error> {
        let (checks, p) = (LogitMask::<Host>::CHECKS, &command.params);
        let rows = live(checks, "rows", command.rows, p.rows_max)?;
        let settings: &[LogitMaskRow] = &cast(command.settings)[..rows];
        for (row, asked) in settings.iter().enumerate() {
            check_row(checks, p, row as u64, asked)?;
        }
        let starts =
            |field, starts: Option<&'a [u8]>, most| starts_of(checks, field, starts, rows, most);
        let banned =
            lists(starts("banned_starts", command.banned_starts, p.banned_max)?, command.banned);
        let bias = starts("bias_starts", command.bias_starts, p.bias_max)?;
        let bias_tokens = lists(bias, command.bias_tokens);
        let bias_values: Lists<'a, f32> = lists(bias, command.bias_values);
        let counted = starts("counted_starts", command.counted_starts, p.counted_max)?;
        let counted = lists(counted, command.counted);
        checks.elements("banned", banned.all, 0..=p.vocab - 1)?;
        checks.elements("bias_tokens", bias_tokens.all, 0..=p.vocab - 1)?;
        if let Some(at) = bias_values.all.iter().position(|value| !value.is_finite()) {
            return Err(checks.refuse("bias_values", Fault::NotFiniteAt { at: at as u64 }));
        }
        check_counted(checks, p, settings, counted)?;
        Ok(Self { settings, banned, bias_tokens, bias_values, counted })
    }
}

fn check_row(
    checks: Checks,
    p: &params::LogitMask,
    at: u64,
    asked: &LogitMaskRow,
) -> Result<(), Error> {
    let index = |field, got: u32, count: u32| {
        if got == params::NONE || got < count {
            return Ok(());
        }
        let most = i64::from(count) - 1;
        Err(checks.refuse(field, Fault::Element { at, least: 0, most, got: i64::from(got) }))
    };
    index("settings.mask", asked.mask, p.masks)?;
    index("settings.action", asked.action, p.masks)?;
    index("settings.slot", asked.slot, p.slots)?;
    for (field, value) in [
        ("settings.temperature", asked.temperature),
        ("settings.repetition", asked.repetition),
        ("settings.presence", asked.presence),
        ("settings.frequency", asked.frequency),
    ] {
        if !value.is_finite() {
            return Err(checks.refuse(field, Fault::NotFiniteAt { at }));
        }
    }
    if asked.temperature < 0.0 {
        return Err(checks.refuse("settings.temperature", Fault::BelowAt { at }));
    }
    if asked.repetition <= 0.0 {
        return Err(checks.refuse("settings.repetition", Fault::BelowAt { at }));
    }
    let penalised = (asked.repetition, asked.presence, asked.frequency) != (1.0, 0.0, 0.0);
    if asked.slot == params::NONE && penalised {
        let (least, most) = (0, i64::from(p.slots) - 1);
        let fault = Fault::Element { at, least, most, got: i64::from(asked.slot) };
        return Err(checks.refuse("settings.slot", fault));
    }
    Ok(())
}

/// The starts of the live rows' lists: ascending, the last one within the list.
fn starts_of<'a>(
    checks: Checks,
    field: &'static str,
    starts: Option<&'a [u8]>,
    rows: usize,
    most: u32,
) -> Result<&'a [u32], Error> {
    let Some(starts) = starts else { return Ok(&[]) };
    let starts = &cast::<u32>(starts)[..rows + 1];
    let mut least = 0;
    for (at, &start) in starts.iter().enumerate() {
        if start < least || start > most {
            let (least, most) = (i64::from(least), i64::from(most));
            let fault = Fault::Element { at: at as u64, least, most, got: i64::from(start) };
            return Err(checks.refuse(field, fault));
        }
        least = start;
    }
    Ok(starts)
}

/// The lists that the starts name, cut off behind the last.
fn lists<'a, T: bytemuck::Pod>(starts: &'a [u32], all: Option<&'a [u8]>) -> Lists<'a, T> {
    let end = starts.last().map_or(0, |&end| end as usize);
    Lists { starts, all: all.map_or(&[], |all| &cast(all)[..end]) }
}

fn check_counted(
    checks: Checks,
    p: &params::LogitMask,
    settings: &[LogitMaskRow],
    counted: Lists<'_, u32>,
) -> Result<(), Error> {
    for (row, asked) in settings.iter().enumerate() {
        if asked.slot == params::NONE && !counted.of(row).is_empty() {
            let (least, most) = (0, i64::from(p.slots) - 1);
            let got = i64::from(asked.slot);
            let fault = Fault::Element { at: row as u64, least, most, got };
            return Err(checks.refuse("settings.slot", fault));
        }
    }
    for (at, &entry) in counted.all.iter().enumerate() {
        let both = params::COUNTED_PROMPT | params::COUNTED_BACK;
        if entry & params::COUNTED_TOKEN >= p.vocab || entry & both == both {
            let most = i64::from(p.vocab) - 1;
            let fault = Fault::Element { at: at as u64, least: 0, most, got: i64::from(entry) };
            return Err(checks.refuse("counted", fault));
        }
    }
    Ok(())
}
