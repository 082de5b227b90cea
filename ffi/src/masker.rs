//! Masks of many texts at once.

use crate::backend::THREADS_MAX;
use crate::error::Refusal;
use crate::guard::aligned;
use crate::handles::Handles;
use crate::header::{self, pw_masker, pw_matcher, pw_status};
use crate::matcher::{MATCHERS, Text, rows};
use crate::memory::{Buffers, tell};
use grammar::{Batch, Batches, Desk, Row, masks_here};
use kernels_core::error::{Checks, Fault};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const CHECKS: Checks = Checks("masker");
/// Texts of a batch at most.
const TEXTS_MAX: i64 = 1 << 20;

/// All that there are.
static MASKERS: Handles<Batches, pw_masker> = Handles::new(4, "masker");

/// The texts of a batch, each another.
fn texts(handles: &[*mut pw_matcher]) -> Result<Vec<Arc<Text>>, Refusal> {
    let text = |&handle: &*mut pw_matcher| {
        MATCHERS.get(handle).map_err(|refusal| match refusal {
            Refusal::Null(_) => Refusal::Null("matchers"),
            _ => Refusal::Stale("matchers"),
        })
    };
    let texts = handles.iter().map(text).collect::<Result<_, _>>()?;
    let mut seen = BTreeMap::new();
    for (at, &handle) in (0..).zip(handles) {
        if let Some(earlier) = seen.insert(handle.addr(), at) {
            return Err(CHECKS.refuse("matchers", Fault::Repeated { at, earlier }).into());
        }
    }
    Ok(texts)
}

/// What a row's status says.
fn status(row: &Row) -> pw_status {
    match row {
        Row::Done => header::PW_OK as pw_status,
        Row::Late => header::PW_E_BUSY,
        Row::Fault(fault) => Refusal::Text(fault.clone()).status(),
    }
}

export! {
    fn pw_masker_create(threads: u32, masker: *mut *mut pw_masker) {
        aligned("masker", masker)?;
        CHECKS.range("threads", threads, 0..=THREADS_MAX)?;
        let all = || std::thread::available_parallelism().map_or(1, |all| all.get());
        let threads = if threads == 0 { all() } else { threads as usize };
        crate::guard::threads()?;
        masker.write(MASKERS.add(Batches::new(threads)));
        Ok(())
    }
    fn pw_masker_masks(
        masker: *mut pw_masker,
        matchers: *const *mut pw_matcher,
        count: u32,
        deadline_us: u32,
        words: *mut u32,
        row_words: u64,
        statuses: *mut pw_status,
        late: *mut u32,
    ) {
        let batches = if masker.is_null() { None } else { Some(MASKERS.get(masker)?) };
        CHECKS.range("count", count, 0..=TEXTS_MAX)?;
        if count == 0 {
            return if late.is_null() { Ok(()) } else { tell("late", late, 0) };
        }
        let (mut buffers, each) = (Buffers::new(), u64::from(count));
        let handles = buffers.read("matchers", matchers, 8 * each)?;
        // Handles are numbers, whose provenance is none.
        let handles: Vec<_> = bytemuck::cast_slice::<u8, usize>(handles)
            .iter()
            .map(|handle| std::ptr::without_provenance_mut(*handle))
            .collect();
        let texts = texts(&handles)?;
        let desks: Vec<Arc<Desk>> = texts.iter().map(|text| text.desk.clone()).collect();
        let most = texts.iter().map(|text| text.words()).max().unwrap_or(0);
        let words = rows(&mut buffers, most, words, row_words, each)?;
        let statuses = buffers.write("statuses", statuses, 4 * each)?;
        let patience = Duration::from_micros(deadline_us.into());
        let patience = (deadline_us > 0).then_some(patience);
        let batch = Batch { desks: &desks, words, row_words: row_words as usize, patience };
        let rows = match batches {
            None => masks_here(batch),
            Some(batches) => batches.masks(batch),
        };
        for (to, row) in bytemuck::cast_slice_mut(statuses).iter_mut().zip(&rows) {
            *to = status(row);
        }
        let late_rows = rows.iter().filter(|row| **row == Row::Late).count();
        if late.is_null() { Ok(()) } else { tell("late", late, late_rows as u32) }
    }
}

export!(destroy pw_masker_destroy, pw_masker, MASKERS);
