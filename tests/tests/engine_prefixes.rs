//! What an engine promises over random histories whose prompts share prefixes: a page that
//! several ask for is computed once, and whoever waits for one that somebody else computes
//! comes to its end. Nothing is computed, so that there can be thousands of them.

use engine::engine::Settings;
use engine::request::Request;
use pagewise_tests::serving::{Served, greedy, prompt, settings};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::HashSet;

const PAGE_LEN: usize = 4;

/// One request of a history.
#[derive(Clone, Debug)]
struct Arrival {
    /// Steps after the one before it.
    after: usize,
    /// Which of a few prompts it begins with, and how much of it.
    family: u32,
    shared: usize,
    own: usize,
    max_new: u32,
    priority: i32,
    /// Steps after which its client leaves.
    leaves: Option<usize>,
}

impl Arrival {
    /// Its prompt, whose last page is not full: so none of it is computed twice.
    fn tokens(&self, id: u64) -> Vec<u32> {
        let mut tokens = prompt(self.family, self.shared);
        tokens.extend(prompt(1000 + id as u32, self.own));
        if tokens.len().is_multiple_of(PAGE_LEN) {
            tokens.push(1);
        }
        // Answers are zeros: no prompt goes on as one does.
        tokens.iter().map(|&token| token.max(1)).collect()
    }

    fn request(&self, id: u64) -> Request {
        Request { priority: self.priority, ..greedy(id, &self.tokens(id), self.max_new) }
    }
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let shape = (0usize..3, 0u32..3, 0usize..40, 1usize..8, 1u32..20);
    (shape, 0i32..2, prop::option::weighted(0.1, 0usize..20)).prop_map(
        |((after, family, shared, own, max_new), priority, leaves)| Arrival {
            after,
            family,
            shared,
            own,
            max_new,
            priority,
            leaves,
        },
    )
}

fn history() -> impl Strategy<Value = Vec<Arrival>> {
    prop::collection::vec(arrival(), 2..30)
}

fn tight() -> impl Strategy<Value = Settings> {
    (1u32..7, 0u32..20, 1u32..20, 1u32..20, 0u32..20, 0u64..30, 1u32..12).prop_map(
        |(rows, more, chunk, beside, pages, patience, turn)| Settings {
            step_tokens: rows + more,
            rows,
            chunk,
            beside,
            page_len: PAGE_LEN as u32,
            // Enough for the longest alone.
            pages: 20 + pages,
            patience,
            turn,
            ..settings()
        },
    )
}

/// Runs a history to its end; in every step somebody's tokens are computed, or somebody
/// gives pages back.
fn play(settings: Settings, history: &[Arrival]) -> Served {
    let mut served = Served::blank(settings);
    let (mut next, mut due, mut step) = (0, 0, 0usize);
    let mut leaving: Vec<(usize, u64)> = Vec::new();
    while next < history.len() || !served.engine.is_idle() {
        while next < history.len() && due <= step {
            served.submit(history[next].request(next as u64));
            leaving.extend(history[next].leaves.map(|after| (step + after, next as u64)));
            next += 1;
            due += history.get(next).map_or(0, |arrival| arrival.after);
        }
        let gone = leaving.extract_if(.., |leaves| leaves.0 <= step);
        gone.for_each(|(_, id)| served.engine.cancel(id));
        let before = served.engine.counters();
        served.step();
        let after = served.engine.counters();
        let busy = before.running + before.waiting > 0;
        let moved = after.steps > before.steps || after.preemptions > before.preemptions;
        assert!(moved || !busy, "nobody waits for nothing: {after:?}");
        step += 1;
    }
    served
}

/// Full pages of all prompts, those that are the same once; and tokens beside them.
fn distinct(history: &[Arrival]) -> (usize, usize) {
    let prompts: Vec<Vec<u32>> =
        history.iter().zip(0..).map(|(arrival, id)| arrival.tokens(id)).collect();
    let ends = |tokens: &Vec<u32>| (1..=tokens.len() / PAGE_LEN).map(|pages| pages * PAGE_LEN);
    let pages: HashSet<&[u32]> =
        prompts.iter().flat_map(|tokens| ends(tokens).map(|end| &tokens[..end])).collect();
    (pages.len(), prompts.iter().map(|tokens| tokens.len() % PAGE_LEN).sum())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn where_memory_suffices_each_shared_page_is_computed_once(
        settings in tight(),
        mut history in history(),
    ) {
        history.iter_mut().for_each(|arrival| arrival.leaves = None);
        let settings = Settings { pages: 2000, patience: u64::MAX, ..settings };
        let served = play(settings, &history);
        let counters = served.engine.counters();
        prop_assert_eq!((counters.preemptions, counters.evictions), (0, 0));
        let (pages, rest) = distinct(&history);
        prop_assert_eq!(counters.prompt_tokens, (pages * PAGE_LEN + rest) as u64);
    }

    #[test]
    fn where_pages_are_short_everybody_ends_and_every_page_comes_back(
        settings in tight(),
        history in history(),
    ) {
        let mut served = play(settings, &history);
        for (arrival, answer) in history.iter().zip(served.answers.values()) {
            prop_assert_eq!(answer.ends.len(), 1);
            let whole = answer.tokens(0).len() == arrival.max_new as usize;
            prop_assert!(whole || arrival.leaves.is_some());
        }
        served.assert_all_pages_free();
    }
}

#[test]
fn histories_hit_wait_for_pages_in_flight_evict_and_preempt() {
    let mut runner = TestRunner::deterministic();
    let [mut hits, mut awaited, mut evictions, mut preemptions] = [0u64; 4];
    for _ in 0..200 {
        let drawn = (tight(), history()).new_tree(&mut runner).expect("nothing is rejected");
        let (settings, history) = drawn.current();
        let served = play(settings, &history);
        let counters = served.engine.counters();
        hits += counters.hits;
        evictions += counters.evictions;
        preemptions += counters.preemptions;
        // Who comes with another of its family, both cold, finds what that one computes.
        let found = |id: u64| {
            let prompt = served.answers[&id].prompt.as_ref();
            prompt.is_some_and(|prompt| prompt.0 > 0)
        };
        let together = history[1..].iter().take_while(|arrival| arrival.after == 0).count();
        awaited += (0..=together as u64).filter(|&id| found(id)).count() as u64;
    }
    let counts = [hits, awaited, evictions, preemptions];
    assert!(counts.iter().all(|&count| count > 50), "{counts:?}");
}

#[test]
fn who_lost_patience_knows_which_pages_it_takes() {
    let settings = Settings {
        rows: 2,
        step_tokens: 24,
        chunk: 4,
        beside: 24,
        page_len: PAGE_LEN as u32,
        pages: 24,
        patience: 1,
        turn: 1000,
        ..settings()
    };
    let mut served = Served::blank(settings);
    let known: Vec<u32> = (1..=40).collect();
    served.answer(greedy(0, &known, 1));
    // It will take all pages but the ten that are known, and takes all but one of them when
    // two come that begin with these.
    served.submit(greedy(1, &[50; 9], 46));
    (0..43).for_each(|_| served.step());
    let begins = |id, own| greedy(id, &[&known[..], &[own; 3]].concat(), 4);
    served.submit(Request { priority: 1, ..begins(2, 60) });
    served.submit(begins(3, 70));
    served.run();
    // Nobody was let in only to give way.
    assert_eq!(served.engine.counters().preemptions, 0);
    served.assert_all_pages_free();
}
