//! Pages and how many hold each.

use std::fmt;

/// A page's number in its slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Page(pub u32);

/// All pages of a slab. A page is free, or has holders: sequences, and the index of
/// prefixes.
#[derive(Debug)]
pub struct Pages {
    holders: Vec<Holders>,
    /// Pages that the index of prefixes holds, and nobody else.
    idle: u32,
    /// The last one is taken next.
    free: Vec<Page>,
}

/// How many hold a page.
#[derive(Clone, Copy, Debug, Default)]
struct Holders {
    all: u32,
    /// Of these, places in the index of prefixes.
    indexed: u32,
}

impl Holders {
    fn idle(self) -> bool {
        self.all > 0 && self.all == self.indexed
    }
}

/// There are fewer free pages than were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Pages asked for.
    pub wanted: u32,
    /// Pages that were free.
    pub free: u32,
}

/// A page that nobody holds, or that the slab has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotHeld(pub Page);

impl Pages {
    /// So many pages, all free.
    pub fn new(total: u32) -> Self {
        let free = (0..total).rev().map(Page).collect();
        Self { holders: vec![Holders::default(); total as usize], idle: 0, free }
    }

    /// Pages of the slab.
    pub fn total(&self) -> u32 {
        self.holders.len() as u32
    }

    /// Pages that nobody holds.
    pub fn free(&self) -> u32 {
        self.free.len() as u32
    }

    /// Pages that only the index of prefixes holds, which it can let go of.
    pub fn idle(&self) -> u32 {
        self.idle
    }

    /// A free page, which has one holder now.
    pub fn take(&mut self) -> Result<Page, Exhausted> {
        let page = self.free.pop().ok_or(Exhausted { wanted: 1, free: 0 })?;
        self.holders[page.0 as usize].all = 1;
        Ok(page)
    }

    /// One more holder of a page that is held.
    pub fn hold(&mut self, page: Page) -> Result<(), NotHeld> {
        self.change(page, |holders| holders.all += 1)
    }

    /// One holder less; after the last the page is free.
    pub fn release(&mut self, page: Page) -> Result<(), NotHeld> {
        self.change(page, |holders| holders.all -= 1)
    }

    /// One more holder of a page that is held: the index.
    pub(crate) fn hold_indexed(&mut self, page: Page) -> Result<(), NotHeld> {
        self.change(page, |holders| {
            holders.all += 1;
            holders.indexed += 1;
        })
    }

    /// The index no longer holds the page, in one of its places.
    pub(crate) fn release_indexed(&mut self, page: Page) -> Result<(), NotHeld> {
        self.change(page, |holders| {
            holders.all -= 1;
            holders.indexed -= 1;
        })
    }

    /// How many hold the page.
    pub fn holders(&self, page: Page) -> u32 {
        self.holders.get(page.0 as usize).map_or(0, |holders| holders.all)
    }

    /// Whether nobody but the index would hold the page, or nobody at all, if one of those
    /// that do let go of it.
    pub fn has_one_user(&self, page: Page) -> bool {
        self.users(page) == 1
    }

    /// How many hold the page besides the index.
    pub fn users(&self, page: Page) -> u32 {
        let holders = self.holders.get(page.0 as usize).copied().unwrap_or_default();
        holders.all - holders.indexed
    }

    fn change(&mut self, page: Page, change: impl Fn(&mut Holders)) -> Result<(), NotHeld> {
        let held = self.holders.get_mut(page.0 as usize).filter(|holders| holders.all > 0);
        let holders = held.ok_or(NotHeld(page))?;
        let before = holders.idle();
        change(holders);
        let after = holders.idle();
        if holders.all == 0 {
            self.free.push(page);
        }
        self.idle += u32::from(after);
        self.idle -= u32::from(before);
        Ok(())
    }
}

impl fmt::Display for Exhausted {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} pages of keys and values are wanted, {} are free", self.wanted, self.free)
    }
}

impl std::error::Error for Exhausted {}

impl fmt::Display for NotHeld {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "nobody holds page {}", self.0.0)
    }
}

impl std::error::Error for NotHeld {}

#[cfg(test)]
mod tests {
    use super::{Exhausted, NotHeld, Page, Pages};

    #[test]
    fn a_page_is_free_after_its_last_holder() {
        let mut pages = Pages::new(2);
        let page = pages.take().expect("two are free");
        pages.hold(page).expect("it is held");
        pages.release(page).expect("two hold it");
        assert_eq!((pages.free(), pages.holders(page)), (1, 1));
        pages.release(page).expect("one holds it");
        assert_eq!((pages.free(), pages.holders(page)), (2, 0));
    }

    #[test]
    fn what_is_not_held_is_refused() {
        let mut pages = Pages::new(1);
        assert_eq!(pages.release(Page(0)), Err(NotHeld(Page(0))));
        assert_eq!(pages.hold(Page(7)), Err(NotHeld(Page(7))));
        pages.take().expect("one is free");
        assert_eq!(pages.take(), Err(Exhausted { wanted: 1, free: 0 }));
    }
}
