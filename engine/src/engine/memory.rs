//! The pages of sequences: prefixes that are there, places that are claimed, room for
//! what comes next.

use super::sequence::{Group, Sequence};
use crate::request::Miss;
use kernels_core::kv_copy::ENTRY_WORDS;
use kv::{Awaited, Claim, Copied, Exhausted, Next, Page, Pages, Prefixes, Table};

/// Pages and the index of what they hold.
pub(super) struct Memory {
    pub pages: Pages,
    pub index: Prefixes,
    page_len: usize,
    pub evictions: u64,
}

/// What pages have of a sequence that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probed {
    /// Tokens.
    pub computed: u32,
    pub pages: u32,
    /// Pages to be had for it, besides those that its next tokens fill.
    pub besides: u32,
    pub next: Next,
}

impl Probed {
    pub fn awaited(&self) -> Option<Awaited> {
        match self.next {
            Next::Awaited(place) => Some(place),
            _ => None,
        }
    }
}

/// A page to copy before a step writes: page and token from, page and token to, tokens.
pub(super) type Copy = [u32; ENTRY_WORDS];

/// The part of a sequence that may come from pages.
struct Reusable<'a> {
    tokens: &'a [u32],
    /// Whether more might, if nothing were asked of its hidden states.
    asked: bool,
}

impl Memory {
    pub fn new(pages: u32, page_len: u32) -> Self {
        Self {
            pages: Pages::new(pages),
            index: Prefixes::new(page_len),
            page_len: page_len as usize,
            evictions: 0,
        }
    }

    /// Pages that are free, or that the index can let go of.
    pub fn free(&self) -> u32 {
        self.pages.free() + self.pages.idle()
    }

    /// What pages have of a sequence.
    pub fn probe(&self, group: &Group, sequence: &Sequence) -> Probed {
        let probe =
            self.index.probe(&self.pages, &sequence.scope, self.reusable(group, sequence).tokens);
        let whole = probe.pages as usize * self.page_len >= sequence.tokens.len();
        Probed {
            computed: (probe.pages as usize * self.page_len - usize::from(whole)) as u32,
            pages: probe.pages,
            // The last token is computed anew, in a copy of its page.
            besides: probe.idle + u32::from(whole),
            next: probe.next,
        }
    }

    /// Gives a sequence the pages that are there, and claims the places of those it will
    /// fill. `None` if somebody else is about to compute more.
    pub fn admit(&mut self, group: &Group, sequence: &mut Sequence) -> Option<(u32, Miss)> {
        let Reusable { tokens, asked } = self.reusable(group, sequence);
        let found = self.index.find(&mut self.pages, &sequence.scope, tokens);
        let miss = match found.miss {
            kv::Miss::Awaited => {
                found.pages.into_iter().for_each(|page| self.release(page));
                return None;
            }
            kv::Miss::PartialPage if asked => Miss::Asked,
            kv::Miss::PartialPage => Miss::PartialPage,
            kv::Miss::Evicted => Miss::Evicted,
            kv::Miss::Salt => Miss::Salt,
            kv::Miss::Version => Miss::Version,
            kv::Miss::Cold => Miss::Cold,
        };
        let page_len = self.page_len as u32;
        sequence.table = Table::starting_with(page_len, found.pages);
        let last = sequence.tokens.len() as u64 - 1;
        sequence.table.shorten(&mut self.pages, last);
        if !sequence.is_mixed() {
            let claims = self.index.claim(&sequence.scope, &sequence.tokens);
            let first = sequence.tokens.len() / self.page_len - claims.len();
            sequence.claims = (first..).zip(claims).collect();
        }
        Some((sequence.table.tokens() as u32, miss))
    }

    /// Room for so many more tokens; says what must be copied before they are written.
    pub fn grow(
        &mut self,
        sequence: &mut Sequence,
        tokens: u32,
    ) -> Result<Option<Copy>, Exhausted> {
        self.grow_table(&mut sequence.table, tokens)
    }

    fn grow_table(&mut self, table: &mut Table, tokens: u32) -> Result<Option<Copy>, Exhausted> {
        let wanted = table.wants(&self.pages, tokens.into());
        let lacking = wanted.saturating_sub(self.pages.free().into());
        if lacking > 0 {
            let lacking = u32::try_from(lacking).unwrap_or(u32::MAX);
            self.evictions += u64::from(self.index.evict(&mut self.pages, lacking));
        }
        let copied = table.grow(&mut self.pages, tokens.into())?;
        Ok(copied.map(|Copied { from, to, tokens }| [from.0, 0, to.0, 0, tokens]))
    }

    /// The pages of a sequence's first `before` tokens and of `tokens` more, for it to go on
    /// otherwise; and what must be copied first.
    pub fn fork(
        &mut self,
        sequence: &Sequence,
        before: u64,
        tokens: u32,
    ) -> Option<(Table, Option<Copy>)> {
        let mut table = sequence.table.fork(&mut self.pages);
        table.shorten(&mut self.pages, before);
        match self.grow_table(&mut table, tokens) {
            Ok(copy) => Some((table, copy)),
            Err(_) => {
                table.release(&mut self.pages);
                None
            }
        }
    }

    /// The pages that a sequence has filled are there for others from now on; those that
    /// were there already are shared.
    pub fn publish(&mut self, sequence: &mut Sequence, before: usize) {
        if sequence.is_mixed() {
            return;
        }
        let filled = sequence.computed() / self.page_len;
        for at in before / self.page_len..filled {
            let claimed = sequence.claims.pop_front_if(|claim| claim.0 <= at);
            if let Some((at, claim)) = claimed
                && self.fill(sequence, at, claim)
            {
                continue;
            }
            let tokens = &sequence.tokens[..(at + 1) * self.page_len];
            if let Some(page) = self.index.page_of(&sequence.scope, tokens) {
                self.share(sequence, at, page);
                continue;
            }
            // Places before it may have been forgotten meanwhile.
            let claims = self.index.claim(&sequence.scope, tokens);
            let first = at + 1 - claims.len();
            for (at, claim) in (first..).zip(claims) {
                self.fill(sequence, at, claim);
            }
        }
    }

    /// What a sequence was to fill will not come.
    pub fn abandon(&mut self, sequence: &mut Sequence) {
        for (_, claim) in sequence.claims.drain(..) {
            self.index.abandon(&mut self.pages, claim);
        }
    }

    /// Lets go of everything that a sequence has.
    pub fn clear(&mut self, sequence: &mut Sequence) {
        self.abandon(sequence);
        sequence.table.shorten(&mut self.pages, 0);
    }

    /// Pages that would be free, or idle, if a sequence let go of its own.
    pub fn own(&self, sequence: &Sequence) -> u32 {
        let own = sequence.table.pages().iter().filter(|&&page| self.pages.has_one_user(page));
        own.count() as u32
    }

    /// Whether the next token of a sequence goes to a page that others have too.
    pub fn shares_next(&self, sequence: &Sequence) -> bool {
        let partial = !sequence.computed().is_multiple_of(self.page_len);
        let last = sequence.table.pages().last().filter(|_| partial);
        last.is_some_and(|&page| self.pages.holders(page) > 1)
    }

    fn reusable<'a>(&self, group: &Group, sequence: &'a Sequence) -> Reusable<'a> {
        let tokens = &sequence.tokens[..];
        let from = group.asked_from(tokens.len());
        let mut whole = tokens.len() / self.page_len;
        // Where all pages are its own the last one cannot be copied.
        if whole * self.page_len == tokens.len() && whole >= self.pages.total() as usize {
            whole -= 1;
        }
        let asked = from + 1 < tokens.len();
        // Only what was computed by its first version alone is found.
        if let Some(second) = sequence.spans.get(1) {
            whole = whole.min(second.from / self.page_len);
        }
        let most = if asked { whole.min(from / self.page_len) } else { whole };
        Reusable { tokens: &tokens[..most * self.page_len], asked: asked && most < whole }
    }

    /// Publishes a page of a sequence.
    fn fill(&mut self, sequence: &Sequence, at: usize, claim: Claim) -> bool {
        let published = self.index.publish(&mut self.pages, claim, sequence.table.pages()[at]);
        published.expect("a sequence holds its pages")
    }

    /// Has a sequence take an equal page for its own.
    fn share(&mut self, sequence: &mut Sequence, at: usize, page: Page) {
        if sequence.table.pages()[at] == page {
            return;
        }
        self.pages.hold(page).expect("the index holds it");
        sequence.table.swap(&mut self.pages, at, page).expect("a sequence holds its pages");
    }

    fn release(&mut self, page: Page) {
        self.pages.release(page).expect("it was found and held");
    }
}
