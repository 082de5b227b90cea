//! The pages of sequences: prefixes that are there, places that are claimed, room for
//! what comes next.

use super::sequence::{Group, Sequence};
use crate::request::Miss;
use kernels_core::kv_copy::ENTRY_WORDS;
use kv::{Awaited, Claim, Copied, Exhausted, Next, Page, Pages, Prefixes, Table};
use std::collections::{BTreeMap, HashMap};

/// Pages and the index of what they hold.
pub(super) struct Memory {
    pub pages: Pages,
    pub index: Prefixes,
    page_len: usize,
    pub evictions: u64,
    /// Pages of episodes that rest.
    pub parked: BTreeMap<u64, Parked>,
    /// Episodes whose pages were given up, since somebody asked.
    pub evicted_episodes: Vec<u64>,
}

/// Pages of an episode that rests.
pub(super) struct Parked {
    pub table: Table,
    /// So many of them, and of those yet to come, are never given up.
    pub reserve: u32,
    /// Those yet to come.
    pub spare: Vec<Page>,
    /// The step since which it rests.
    pub since: u64,
}

impl Parked {
    /// Pages that may be given up.
    fn rest(&self) -> &[Page] {
        self.table.pages().get(self.reserve as usize..).unwrap_or(&[])
    }
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
            parked: BTreeMap::new(),
            evicted_episodes: Vec::new(),
        }
    }

    /// Pages that are free, or that the index can let go of, or episodes that rest; these are
    /// counted only where the others are not enough.
    pub fn free(&self, enough: u32) -> u32 {
        let free = self.pages.free() + self.pages.idle();
        if free >= enough {
            return free;
        }
        // A page that several of them share is free when all have given it up.
        let mut users: HashMap<Page, u32> = HashMap::new();
        for page in self.parked.values().flat_map(Parked::rest) {
            *users.entry(*page).or_default() += 1;
        }
        let own = users.iter().filter(|(page, users)| self.pages.users(**page) == **users);
        free + own.count() as u32
    }

    /// What pages have of a sequence.
    pub fn probe(&self, group: &Group, sequence: &Sequence) -> Probed {
        if sequence.computed() > 0 {
            return Probed {
                computed: sequence.computed() as u32,
                pages: (sequence.table.pages().len() + sequence.spare.len()) as u32,
                besides: u32::from(self.shares_next(sequence)),
                next: Next::Nothing,
            };
        }
        let probe =
            self.index.probe(&self.pages, &sequence.scope, self.reusable(group, sequence).tokens);
        let whole = probe.pages as usize * self.page_len >= sequence.tokens.len();
        Probed {
            computed: (probe.pages as usize * self.page_len - usize::from(whole)) as u32,
            pages: probe.pages + sequence.spare.len() as u32,
            // The last token is computed anew, in a copy of its page.
            besides: probe.idle + u32::from(whole),
            next: probe.next,
        }
    }

    /// Gives a sequence the pages that are there, and claims the places of those it will
    /// fill. `None` if somebody else is about to compute more.
    pub fn admit(&mut self, group: &Group, sequence: &mut Sequence) -> Option<(u32, Miss)> {
        if sequence.computed() > 0 {
            self.claim_rest(sequence);
            return Some((sequence.computed() as u32, Miss::PartialPage));
        }
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
        self.claim_rest(sequence);
        Some((sequence.table.tokens() as u32, miss))
    }

    /// Claims the places of the pages that a sequence will fill; those that it has filled,
    /// and that others have lost meanwhile, are there at once.
    fn claim_rest(&mut self, sequence: &mut Sequence) {
        if sequence.is_mixed() {
            return;
        }
        let claims = self.index.claim(&sequence.scope, &sequence.tokens);
        let first = sequence.tokens.len() / self.page_len - claims.len();
        let filled = sequence.computed() / self.page_len;
        for (at, claim) in (first..).zip(claims) {
            if at < filled {
                self.fill(sequence, at, claim);
            } else {
                sequence.claims.push_back((at, claim));
            }
        }
    }

    /// Room for so many more tokens; says what must be copied before they are written.
    pub fn grow(
        &mut self,
        sequence: &mut Sequence,
        tokens: u32,
    ) -> Result<Option<Copy>, Exhausted> {
        // What is its own goes straight from it to itself.
        for _ in 0..sequence.table.wants(&self.pages, tokens.into()) {
            let Some(page) = sequence.spare.pop() else { break };
            self.release(page);
        }
        self.grow_table(&mut sequence.table, tokens)
    }

    /// Makes so many pages free, as far as somebody can give them up.
    pub fn make_free(&mut self, wanted: u64) {
        loop {
            let lacking = wanted.saturating_sub(self.pages.free().into());
            if lacking == 0 {
                return;
            }
            let lacking = u32::try_from(lacking).unwrap_or(u32::MAX);
            let evicted = self.index.evict(&mut self.pages, lacking);
            self.evictions += u64::from(evicted);
            if evicted < lacking && !self.evict_episode() {
                return;
            }
        }
    }

    /// The episode that rests longest gives its pages up. Says whether there is one.
    fn evict_episode(&mut self) -> bool {
        let able = self.parked.iter_mut().filter(|(_, parked)| !parked.rest().is_empty());
        let Some((&id, parked)) = able.min_by_key(|(id, parked)| (parked.since, **id)) else {
            return false;
        };
        let kept = u64::from(parked.reserve) * self.page_len as u64;
        parked.table.shorten(&mut self.pages, kept);
        self.evicted_episodes.push(id);
        true
    }

    /// A sequence that waits has the pages that nobody takes from it, and no others.
    pub fn rest(&mut self, sequence: &mut Sequence) {
        self.abandon(sequence);
        let kept = u64::from(sequence.reserve) * self.page_len as u64;
        sequence.table.shorten(&mut self.pages, kept);
        sequence.resumed = sequence.resumed.min(kept as usize);
    }

    /// A sequence forgets its tokens past the first so many.
    pub fn shorten(&mut self, sequence: &mut Sequence, tokens: u64) {
        let Sequence { table, reserve, spare, .. } = sequence;
        self.forget(table, tokens, *reserve, spare);
    }

    /// Forgets what pages hold past the first tokens; those that nobody takes are there for
    /// what comes.
    pub fn forget(&mut self, table: &mut Table, tokens: u64, reserve: u32, spare: &mut Vec<Page>) {
        table.shorten(&mut self.pages, tokens);
        let held = (table.pages().len() + spare.len()) as u64;
        let lacking = u64::from(reserve).saturating_sub(held);
        if lacking == 0 {
            return;
        }
        self.make_free(lacking);
        for _ in 0..lacking {
            spare.extend(self.pages.take().ok());
        }
    }

    fn grow_table(&mut self, table: &mut Table, tokens: u32) -> Result<Option<Copy>, Exhausted> {
        self.make_free(table.wants(&self.pages, tokens.into()));
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
        let rest = sequence.table.pages().iter().skip(sequence.reserve as usize);
        let own = rest.filter(|&&page| self.pages.has_one_user(page));
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

    pub fn release(&mut self, page: Page) {
        self.pages.release(page).expect("it was found and held");
    }
}
