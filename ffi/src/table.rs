//! The pages of one sequence.

use crate::error::Refusal;
use crate::guard::{Sized32, aligned, write};
use crate::handles::Handles;
use crate::header::{pw_pages, pw_table, pw_table_state};
use crate::memory::{Buffers, tell};
use crate::pages::{PAGES, Slab};
use kernels_core::error::Checks;
use kv::Table;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const CHECKS: Checks = Checks("table");

/// A sequence, which lets go of its pages when it goes.
pub struct Sequence {
    pub slab: Arc<Slab>,
    table: Mutex<Table>,
}

/// All that there are.
pub static TABLES: Handles<Sequence, pw_table> = Handles::new(6, "table");

// SAFETY: bindgen's struct of numbers, the first of which is the size.
unsafe impl Sized32 for pw_table_state {
    const LEAST: u32 = 16;
}

impl Sequence {
    /// With its pages, which are held for it.
    pub fn new(slab: Arc<Slab>, table: Table) -> Self {
        Self { slab, table: Mutex::new(table) }
    }

    /// What no panic leaves half done. Comes before the slab's lock.
    pub fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        let table = self.table.get_mut().unwrap_or_else(PoisonError::into_inner);
        table.shorten(&mut self.slab.lock().pages, 0);
    }
}

/// The numbers from `first` on, `count` of them, are among so many.
fn within(first: u64, count: u32, all: u64) -> Result<(), Refusal> {
    let all = all as i64;
    CHECKS.range("first", first, 0..=all)?;
    Ok(CHECKS.range("count", count, 0..=all - first as i64)?)
}

export! {
    fn pw_table_create(pages: *mut pw_pages, table: *mut *mut pw_table) {
        let slab = PAGES.get(pages)?;
        aligned("table", table)?;
        let empty = Table::new(slab.page_len);
        table.write(TABLES.add(Sequence::new(slab, empty)));
        Ok(())
    }
    fn pw_table_grow(table: *mut pw_table, tokens: u64, entry: *mut u32, copied: *mut u32) {
        let sequence = TABLES.get(table)?;
        aligned("entry", entry)?;
        aligned("copied", copied)?;
        CHECKS.range("tokens", tokens, 0..=1 << 40)?;
        let mut table = sequence.lock();
        let copy = table.grow(&mut sequence.slab.lock().pages, tokens)?;
        if let Some(copy) = copy {
            entry.cast::<[u32; 5]>().write([copy.from.0, 0, copy.to.0, 0, copy.tokens]);
        }
        tell("copied", copied, u32::from(copy.is_some()))
    }
    fn pw_table_fork(table: *const pw_table, fork: *mut *mut pw_table) {
        let sequence = TABLES.get(table)?;
        aligned("fork", fork)?;
        let same = sequence.lock().fork(&mut sequence.slab.lock().pages);
        fork.write(TABLES.add(Sequence::new(sequence.slab.clone(), same)));
        Ok(())
    }
    fn pw_table_shorten(table: *mut pw_table, tokens: u64) {
        let sequence = TABLES.get(table)?;
        sequence.lock().shorten(&mut sequence.slab.lock().pages, tokens);
        Ok(())
    }
    fn pw_table_count(table: *const pw_table, state: *mut pw_table_state) {
        let sequence = TABLES.get(table)?;
        let table = sequence.lock();
        let (pages, tokens) = (table.pages().len() as u32, table.tokens());
        write("state", state, pw_table_state { struct_size: 0, pages, tokens })
    }
    fn pw_table_ids(table: *const pw_table, first: u32, count: u32, ids: *mut u32) {
        let sequence = TABLES.get(table)?;
        let table = sequence.lock();
        within(first.into(), count, table.pages().len() as u64)?;
        if count == 0 {
            return Ok(());
        }
        let ids = Buffers::new().write("ids", ids, 4 * u64::from(count))?;
        let pages = &table.pages()[first as usize..];
        for (id, page) in bytemuck::cast_slice_mut(ids).iter_mut().zip(pages) {
            *id = page.0;
        }
        Ok(())
    }
    fn pw_table_slots(table: *const pw_table, first: u64, count: u32, slots: *mut u32) {
        let sequence = TABLES.get(table)?;
        let table = sequence.lock();
        within(first, count, table.tokens())?;
        if count == 0 {
            return Ok(());
        }
        let slots = Buffers::new().write("slots", slots, 8 * u64::from(count))?;
        let len = u64::from(sequence.slab.page_len);
        for (slot, token) in bytemuck::cast_slice_mut::<u8, [u32; 2]>(slots).iter_mut().zip(first..)
        {
            *slot = [table.pages()[(token / len) as usize].0, (token % len) as u32];
        }
        Ok(())
    }
}

export!(destroy pw_table_destroy, pw_table, TABLES);
