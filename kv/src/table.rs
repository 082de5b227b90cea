//! The pages of one sequence.

use super::pages::{Exhausted, NotHeld, Page, Pages};

/// The pages that hold a sequence's tokens, in order. It does not let go of them by
/// itself: [`release`](Table::release) does.
#[derive(Debug)]
pub struct Table {
    page_len: u32,
    pages: Vec<Page>,
    tokens: u64,
}

/// What must be copied before the sequence writes: it shared its last page, and now has
/// one of its own. The old page is held by those it was shared with until the next
/// commands have run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The page that is shared.
    pub from: Page,
    /// The sequence's own.
    pub to: Page,
    /// Tokens of it that count.
    pub tokens: u32,
}

impl Table {
    /// No tokens yet; pages hold `page_len` each, which is at least one.
    pub fn new(page_len: u32) -> Self {
        Self { page_len: page_len.max(1), pages: Vec::new(), tokens: 0 }
    }

    /// A sequence that begins with full pages, which are held for it already.
    pub fn starting_with(page_len: u32, pages: Vec<Page>) -> Self {
        let page_len = page_len.max(1);
        let tokens = pages.len() as u64 * u64::from(page_len);
        Self { page_len, pages, tokens }
    }

    /// The pages, in order.
    pub fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// Tokens that the sequence has.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Pages that so many more tokens would take.
    pub fn wants(&self, pages: &Pages, tokens: u64) -> u64 {
        let after = (self.tokens + tokens).div_ceil(u64::from(self.page_len));
        let own = u64::from(tokens > 0 && self.shares_last(pages));
        after - self.pages.len() as u64 + own
    }

    /// Makes room for so many more tokens, all or nothing. What it says must be copied
    /// before they are written.
    pub fn grow(&mut self, pages: &mut Pages, tokens: u64) -> Result<Option<Copied>, Exhausted> {
        let wanted = self.wants(pages, tokens);
        if wanted > u64::from(pages.free()) {
            let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
            return Err(Exhausted { wanted, free: pages.free() });
        }
        let mut copied = None;
        if tokens > 0 && self.shares_last(pages) {
            let to = pages.take()?;
            let from = self.pages.pop().expect("a page is shared");
            pages.release(from).expect("the sequence held it");
            self.pages.push(to);
            copied = Some(Copied { from, to, tokens: self.used_of_last() });
        }
        self.tokens += tokens;
        while (self.pages.len() as u64) < self.tokens.div_ceil(u64::from(self.page_len)) {
            self.pages.push(pages.take()?);
        }
        Ok(copied)
    }

    /// A second sequence with the same tokens: every page has one more holder.
    pub fn fork(&self, pages: &mut Pages) -> Self {
        for &page in &self.pages {
            pages.hold(page).expect("the sequence holds it");
        }
        Self { page_len: self.page_len, pages: self.pages.clone(), tokens: self.tokens }
    }

    /// Forgets the tokens past the first `tokens`, and lets go of their pages.
    pub fn shorten(&mut self, pages: &mut Pages, tokens: u64) {
        self.tokens = self.tokens.min(tokens);
        let kept = self.tokens.div_ceil(u64::from(self.page_len)) as usize;
        for page in self.pages.drain(kept..) {
            pages.release(page).expect("the sequence held it");
        }
    }

    /// Takes an equal page in place of page `at`: one that another sequence computed
    /// from the same tokens. The caller's hold on `page` becomes the sequence's.
    pub fn swap(&mut self, pages: &mut Pages, at: usize, page: Page) -> Result<(), NotHeld> {
        let old = std::mem::replace(&mut self.pages[at], page);
        pages.release(old)
    }

    /// Lets go of every page.
    pub fn release(mut self, pages: &mut Pages) {
        self.shorten(pages, 0);
    }

    fn used_of_last(&self) -> u32 {
        (self.tokens % u64::from(self.page_len)) as u32
    }

    /// Whether the next token would be written to a page that others hold too.
    fn shares_last(&self, pages: &Pages) -> bool {
        let last = self.pages.last().filter(|_| self.used_of_last() > 0);
        last.is_some_and(|&page| pages.holders(page) > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::{Copied, Table};
    use crate::pages::{Exhausted, Page, Pages};

    #[test]
    fn growing_takes_a_page_for_every_page_len_tokens_or_nothing() {
        let mut pages = Pages::new(3);
        let mut table = Table::new(4);
        table.grow(&mut pages, 5).expect("two pages");
        assert_eq!((table.pages(), table.tokens()), (&[Page(0), Page(1)][..], 5));
        let error = table.grow(&mut pages, 8).expect_err("two more pages are too many");
        assert_eq!(error, Exhausted { wanted: 2, free: 1 });
        assert_eq!((table.tokens(), pages.free()), (5, 1));
        table.grow(&mut pages, 3).expect("no page more");
        table.release(&mut pages);
        assert_eq!(pages.free(), 3);
    }

    #[test]
    fn a_fork_copies_the_page_it_shares_when_it_writes_and_no_other() {
        let mut pages = Pages::new(4);
        let mut one = Table::new(4);
        one.grow(&mut pages, 6).expect("two pages");
        let mut two = one.fork(&mut pages);
        assert_eq!(pages.free(), 2);
        let copied = two.grow(&mut pages, 1).expect("a page of its own");
        assert_eq!(copied, Some(Copied { from: Page(1), to: Page(2), tokens: 2 }));
        // The first sequence now has its last page to itself.
        assert_eq!(one.grow(&mut pages, 1), Ok(None));
        assert_eq!((one.pages()[0], two.pages()[0]), (Page(0), Page(0)));
        one.release(&mut pages);
        two.release(&mut pages);
        assert_eq!(pages.free(), 4);
    }

    #[test]
    fn a_full_last_page_is_not_copied_and_shortening_returns_pages() {
        let mut pages = Pages::new(4);
        let mut one = Table::new(4);
        one.grow(&mut pages, 8).expect("two pages");
        let mut two = one.fork(&mut pages);
        assert_eq!(two.grow(&mut pages, 1), Ok(None));
        two.shorten(&mut pages, 3);
        assert_eq!((two.pages().len(), two.tokens(), pages.free()), (1, 3, 2));
        // What is left of the page is shared still.
        assert!(two.grow(&mut pages, 1).expect("a page").is_some());
    }
}
