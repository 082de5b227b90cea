//! What the pages and the index of prefixes promise, over random histories.

use kv::{Claim, Miss, Next, Page, Pages, Prefixes, Scope, Table};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

const PAGE_LEN: u32 = 2;
const TOTAL: u32 = 12;

/// A sequence in flight.
struct Sequence {
    scope: Scope,
    prompt: Vec<u32>,
    /// What is written of it, and after it.
    tokens: Vec<u32>,
    table: Table,
    /// By the number of the page.
    claims: BTreeMap<usize, Claim>,
}

/// A world in which every page's tokens are written down, to see that no sequence finds
/// any but its own.
struct World {
    pages: Pages,
    index: Prefixes,
    sequences: Vec<Sequence>,
    /// Scope and tokens that each page was written with.
    written: HashMap<Page, (Scope, Vec<u32>)>,
    hits: usize,
    evicted: u32,
}

impl World {
    fn new() -> Self {
        Self {
            pages: Pages::new(TOTAL),
            index: Prefixes::new(PAGE_LEN),
            sequences: Vec::new(),
            written: HashMap::new(),
            hits: 0,
            evicted: 0,
        }
    }

    /// A prompt arrives: what is found is used, the rest claimed.
    fn admit(&mut self, scope: u64, prompt: &[u32]) {
        let scope = Scope { weights: scope % 2, adapter: 0, adapter_version: 0, salt: [].into() };
        let (probe, idle) = (self.index.probe(&self.pages, &scope, prompt), self.pages.idle());
        let found = self.index.find(&mut self.pages, &scope, prompt);
        for (page, tokens) in found.pages.iter().zip(prompt.chunks(PAGE_LEN as usize)) {
            assert_eq!(self.written[page], (scope.clone(), tokens.to_vec()), "its own tokens");
            self.hits += 1;
        }
        let held = (found.pages.len() as u32, idle - self.pages.idle());
        assert_eq!((probe.pages, probe.idle), held, "a probe tells what is found");
        assert_eq!(matches!(probe.next, Next::Awaited(_)), found.miss == Miss::Awaited);
        let left = prompt.len() - found.pages.len() * PAGE_LEN as usize;
        assert_eq!(found.miss == Miss::PartialPage, left < PAGE_LEN as usize);
        let first = found.pages.len();
        let claims = self.index.claim(&scope, prompt).into_iter().enumerate();
        let claims = claims.map(|(at, claim)| (first + at, claim)).collect();
        let table = Table::starting_with(PAGE_LEN, found.pages);
        let tokens = prompt[..table.tokens() as usize].to_vec();
        let prompt = prompt.to_vec();
        self.sequences.push(Sequence { scope, prompt, tokens, table, claims });
    }

    /// A sequence writes as many tokens: of its prompt, then these. Full pages that it
    /// claimed are published.
    fn write(&mut self, which: usize, tokens: &[u32]) {
        let Some(which) = which.checked_rem(self.sequences.len()) else { return };
        let one = &self.sequences[which];
        let left = one.prompt.get(one.tokens.len()..).unwrap_or_default();
        let tokens: Vec<u32> = left.iter().chain(tokens).take(tokens.len()).copied().collect();
        let wanted = self.sequences[which].table.wants(&self.pages, tokens.len() as u64);
        let lacking = wanted.saturating_sub(u64::from(self.pages.free()));
        let free = self.pages.free();
        let evicted = self.index.evict(&mut self.pages, lacking as u32);
        assert_eq!(self.pages.free(), free + evicted, "what is evicted is free");
        self.evicted += evicted;
        let sequence = &mut self.sequences[which];
        match sequence.table.grow(&mut self.pages, tokens.len() as u64) {
            Err(error) => assert!(error.wanted > error.free),
            Ok(copied) => {
                if let Some(copied) = copied {
                    self.written.insert(copied.to, self.written[&copied.from].clone());
                }
                sequence.tokens.extend(tokens);
                let chunks = sequence.tokens.chunks(PAGE_LEN as usize).enumerate();
                for (at, chunk) in chunks {
                    let page = sequence.table.pages()[at];
                    self.written.insert(page, (sequence.scope.clone(), chunk.to_vec()));
                    if chunk.len() == PAGE_LEN as usize
                        && let Some(claim) = sequence.claims.remove(&at)
                    {
                        self.index.publish(&mut self.pages, claim, page).expect("it is held");
                    }
                }
            }
        }
    }

    fn fork(&mut self, which: usize) {
        let Some(which) = which.checked_rem(self.sequences.len()) else { return };
        let one = &self.sequences[which];
        let (scope, prompt, tokens) = (one.scope.clone(), one.prompt.clone(), one.tokens.clone());
        let table = one.table.fork(&mut self.pages);
        self.sequences.push(Sequence { scope, prompt, tokens, table, claims: BTreeMap::new() });
    }

    fn finish(&mut self, which: usize) {
        let Some(which) = which.checked_rem(self.sequences.len()) else { return };
        let sequence = self.sequences.swap_remove(which);
        for claim in sequence.claims.into_values() {
            self.index.abandon(&mut self.pages, claim);
        }
        sequence.table.release(&mut self.pages);
    }

    /// Every page is free, or its holders are those who say they hold it, and holds what
    /// they wrote.
    fn assert_conserved(&self) {
        for sequence in &self.sequences {
            let chunks = sequence.tokens.chunks(PAGE_LEN as usize);
            for (page, tokens) in sequence.table.pages().iter().zip(chunks) {
                let written = &self.written[page];
                assert_eq!((&written.0, &written.1[..]), (&sequence.scope, tokens));
            }
        }
        let mut holders: HashMap<Page, u32> = HashMap::new();
        for page in self.sequences.iter().flat_map(|sequence| sequence.table.pages()) {
            *holders.entry(*page).or_default() += 1;
        }
        let (mut free, mut of_index, mut idle) = (0, 0, 0);
        for page in (0..TOTAL).map(Page) {
            let tables = holders.get(&page).copied().unwrap_or(0);
            let all = self.pages.holders(page);
            assert!(all == tables || all == tables + 1, "page {page:?}");
            of_index += (all - tables) as usize;
            free += u32::from(all == 0);
            idle += u32::from(all == 1 && tables == 0);
            let used_once = all > 0 && tables == 1;
            assert_eq!(self.pages.has_one_user(page), used_once, "page {page:?}");
        }
        let counts = (self.pages.free(), self.index.held(), self.pages.idle());
        assert_eq!((free, of_index, idle), counts);
    }
}

#[derive(Clone, Debug)]
enum Event {
    Admit(u64, Vec<u32>),
    Write(usize, Vec<u32>),
    Fork(usize),
    Finish(usize),
    Forget(u64),
}

fn event() -> impl Strategy<Value = Event> {
    // Few tokens, so that prefixes meet.
    let tokens = |most| prop::collection::vec(0u32..2, 0..most);
    prop_oneof![
        3 => (0u64..2, tokens(9)).prop_map(|(scope, tokens)| Event::Admit(scope, tokens)),
        6 => (any::<usize>(), tokens(4)).prop_map(|(which, tokens)| Event::Write(which, tokens)),
        1 => any::<usize>().prop_map(Event::Fork),
        3 => any::<usize>().prop_map(Event::Finish),
        1 => (0u64..2).prop_map(Event::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn pages_are_conserved_and_nobody_finds_another_s_tokens(
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut world = World::new();
        for event in events {
            match event {
                Event::Admit(scope, prompt) => world.admit(scope, &prompt),
                Event::Write(which, tokens) => world.write(which, &tokens),
                Event::Fork(which) => world.fork(which),
                Event::Finish(which) => world.finish(which),
                Event::Forget(weights) => {
                    world.index.forget(&mut world.pages, |scope| scope.weights == weights);
                }
            }
            world.assert_conserved();
        }
        while !world.sequences.is_empty() {
            world.finish(0);
        }
        world.index.evict(&mut world.pages, TOTAL);
        prop_assert_eq!((world.pages.free(), world.index.held()), (TOTAL, 0));
    }
}

#[test]
fn histories_do_hit_and_evict() {
    let mut world = World::new();
    for round in 0..20 {
        let prompt = [round % 3, 1, round % 2, 0];
        world.admit(0, &prompt);
        let left = world.sequences[0].tokens.len();
        world.write(0, &[1; 5][left..]);
        world.finish(0);
        world.assert_conserved();
    }
    assert!(world.hits > 20, "{} pages were found", world.hits);
    for round in 0..9 {
        world.admit(1, &[round, round, 5, 5]);
        world.write(0, &[0; 4]);
        world.finish(0);
    }
    assert!(world.evicted > 0, "{} pages were evicted", world.evicted);
}
