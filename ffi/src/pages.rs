//! Pages of a slab, and who holds them.

use crate::error::Refusal;
use crate::guard::{Sized32, aligned, write};
use crate::handles::Handles;
use crate::header::{pw_pages, pw_pages_state};
use crate::memory::Buffers;
use kernels_core::error::{Checks, Fault};
use kv::{Exhausted, Page, Pages};
use std::sync::{Mutex, MutexGuard, PoisonError};

const CHECKS: Checks = Checks("pages");
/// What is kept of a page at most: its holders of two kinds, the caller's part in them, its place
/// among the free.
const PAGE_BYTES: u64 = 16;

/// Pages that tables, prefixes and the caller hold.
pub struct Slab {
    pub page_len: u32,
    state: Mutex<State>,
}

pub struct State {
    pub pages: Pages,
    /// How often the caller holds each: it cannot let go of what others hold.
    own: Vec<u32>,
}

/// All that there are.
pub static PAGES: Handles<Slab, pw_pages> = Handles::new(5, "pages");

// SAFETY: bindgen's struct of numbers, the first of which is the size.
unsafe impl Sized32 for pw_pages_state {
    const LEAST: u32 = 16;
}

impl Slab {
    /// What no panic leaves half done.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// These pages are the slab's, and held as they should be.
    fn check(&self, ids: &[u32], held: impl Fn(u32) -> bool) -> Result<(), Refusal> {
        CHECKS.elements("ids", ids, 0..=self.pages.total() - 1)?;
        match ids.iter().position(|id| !held(*id)) {
            None => Ok(()),
            Some(at) => Err(Refusal::NotHeld { at, page: ids[at] }),
        }
    }
}

export! {
    fn pw_pages_create(pages: u32, page_len: u32, created: *mut *mut pw_pages) {
        aligned("created", created)?;
        CHECKS.range("pages", pages, 1..=1 << 31)?;
        CHECKS.range("page_len", page_len, 1..=65_536)?;
        let bytes = PAGE_BYTES * u64::from(pages);
        // What is made of pages takes memory as it comes, and aborts where there is none.
        if Vec::<u8>::new().try_reserve_exact(bytes as usize).is_err() {
            return Err(CHECKS.refuse("pages", Fault::OutOfMemory { bytes }).into());
        }
        let state = State { pages: Pages::new(pages), own: vec![0; pages as usize] };
        created.write(PAGES.add(Slab { page_len, state: Mutex::new(state) }));
        Ok(())
    }
    fn pw_pages_count(pages: *const pw_pages, state: *mut pw_pages_state) {
        let slab = PAGES.get(pages)?;
        let pages = &slab.lock().pages;
        let (total, free, idle) = (pages.total(), pages.free(), pages.idle());
        write("state", state, pw_pages_state { struct_size: 0, total, free, idle })
    }
    fn pw_pages_take(pages: *mut pw_pages, count: u32, ids: *mut u32) {
        let slab = PAGES.get(pages)?;
        if count == 0 {
            return Ok(());
        }
        let ids = Buffers::new().write("ids", ids, 4 * u64::from(count))?;
        let mut state = slab.lock();
        let free = state.pages.free();
        if free < count {
            return Err(Exhausted { wanted: count, free }.into());
        }
        for id in bytemuck::cast_slice_mut(ids) {
            *id = state.pages.take()?.0;
            state.own[*id as usize] += 1;
        }
        Ok(())
    }
    fn pw_pages_hold(pages: *mut pw_pages, ids: *const u32, count: u32) {
        let slab = PAGES.get(pages)?;
        let ids = Buffers::new().words("ids", ids, count)?;
        let mut state = slab.lock();
        state.check(ids, |id| state.pages.holders(Page(id)) > 0)?;
        for &id in ids {
            state.pages.hold(Page(id)).expect("it is held");
            state.own[id as usize] += 1;
        }
        Ok(())
    }
    fn pw_pages_release(pages: *mut pw_pages, ids: *const u32, count: u32) {
        let slab = PAGES.get(pages)?;
        let ids = Buffers::new().words("ids", ids, count)?;
        let mut state = slab.lock();
        state.check(ids, |_| true)?;
        // A page may be named as often as it is held: those before the first that is not are
        // given back.
        for (at, &page) in ids.iter().enumerate() {
            match &mut state.own[page as usize] {
                0 => {
                    ids[..at].iter().for_each(|id| state.own[*id as usize] += 1);
                    return Err(Refusal::NotHeld { at, page });
                }
                own => *own -= 1,
            }
        }
        for &id in ids {
            state.pages.release(Page(id)).expect("the caller holds it");
        }
        Ok(())
    }
}

export!(destroy pw_pages_destroy, pw_pages, PAGES);
