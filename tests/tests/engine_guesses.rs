//! What is guessed is not seen: the same tokens with the same bits come in fewer steps.

use engine::engine::{Guessing, Settings};
use engine::request::{Finish, Request};
use engine::weights::Quantize;
use pagewise_tests::guided::{Cycle, Late};
use pagewise_tests::model::thin;
use pagewise_tests::serving::{Drafter, Making, Served, generate, greedy, prompt, settings};

const CHAIN: Guessing = Guessing { tokens: 4, paths: 1, rows: 24 };
const TREE: Guessing = Guessing { tokens: 3, paths: 4, rows: 48 };

fn served(guessing: Guessing, late: u32, eos: &[u32]) -> Served {
    let masker = Box::new(Late::new(late));
    let making = Making { masker, eos: eos.to_vec(), ..Making::default() };
    Served::made(Settings { guessing, ..settings() }, making)
}

/// Of few tokens, so that what came before comes again, now and then.
fn request(id: u64, kind: u64) -> Request {
    let mut request = greedy(id, &prompt(id as u32, 5 + id as usize % 7), 48);
    let asked = generate(&mut request);
    (asked.sampling.temperature, asked.sampling.seed) = (1.0, id);
    asked.sampling.allowed = Some([3, 4, 5, 7].into());
    asked.top = Some(2);
    asked.stop.ignore_eos = kind != 6;
    match kind {
        0 => {}
        1 => (asked.sampling.presence, asked.sampling.frequency) = (0.5, 0.3),
        2 => asked.sampling.repetition = 1.3,
        3 => asked.grammar = Some(Cycle::grammar(2, 40, &[])),
        4 => asked.sampling.bad_words = [vec![3, 4], vec![5]].into(),
        5 => asked.stop.strings = [b"7 7 3".to_vec()].into(),
        6 => asked.stop.min_new = 20,
        7 => asked.choices = 3,
        8 => {
            asked.grammar = Some(Cycle::grammar(3, 30, &[]));
            asked.sampling.allowed = Some([3, 6, 4, 7, 5, 8].into());
            asked.sampling.frequency = 0.4;
        }
        9 => asked.sampling.bias = [(4, 1.5)].into(),
        _ => asked.sampling.top_k = 2,
    }
    request
}

#[test]
fn no_bit_tells_what_was_guessed() {
    for guessing in [CHAIN, TREE] {
        let mut guessed = [0; 11];
        let mut plain = served(Guessing::NONE, 0, &[7]);
        let mut speculative = served(guessing, 0, &[7]);
        for kind in 0..11 {
            for seed in 0..6 {
                let id = 100 * kind + seed;
                let truth = plain.answer(request(id, kind));
                let answer = speculative.answer(request(id, kind));
                assert_eq!(answer.bits(), truth.bits(), "kind {kind}, seed {seed}");
                assert_eq!(answer.ends, truth.ends);
                guessed[kind as usize] += answer.guesses.values().map(|held| held[1]).sum::<u32>();
            }
        }
        assert!(guessed.iter().all(|&held| held > 0), "{guessing:?}: {guessed:?}");
        assert!(speculative.engine.counters().steps < plain.engine.counters().steps);
        assert_eq!(plain.engine.counters().guessed, 0);
        speculative.assert_all_pages_free();
    }
}

#[test]
fn in_company_with_late_masks_and_short_pages_no_bit_tells_either() {
    for guessing in [CHAIN, TREE] {
        let tight = Settings { guessing, pages: 40, ..settings() };
        let masker = Box::new(Late::new(3));
        let mut crowd = Served::made(tight, Making { masker, ..Making::default() });
        let requests = || (0..22).map(|id| request(id, id % 11));
        requests().for_each(|request| crowd.submit(request));
        crowd.run();
        let mut plain = served(Guessing::NONE, 0, &[]);
        for request in requests() {
            let id = request.id;
            assert_eq!(crowd.answers[&id].bits(), plain.answer(request).bits(), "request {id}");
        }
        let counters = crowd.engine.counters();
        assert!(counters.held > 50 && counters.preemptions > 0 && counters.late_masks > 0);
        crowd.assert_all_pages_free();
    }
}

/// Guessed for by itself, or by what quantising makes of it.
fn drafted(guessing: Guessing, quantize: Option<Quantize>) -> Served {
    let drafter = Some(Drafter::Model(thin::checkpoint(), quantize));
    let making = Making { drafter, ..Making::default() };
    Served::made(Settings { guessing, ..settings() }, making)
}

/// Without what a guess does not know of.
fn plain(id: u64) -> Request {
    let mut request = greedy(id, &prompt(id as u32, 5 + id as usize % 30), 40);
    let asked = generate(&mut request);
    (asked.sampling.temperature, asked.sampling.seed, asked.top) = (1.0, id, Some(2));
    (asked.sampling.top_k, asked.sampling.top_p) = ([0, 20][id as usize % 2], 0.95);
    asked.choices = 1 + id as u32 % 2;
    request
}

#[test]
fn what_a_model_guesses_for_itself_holds() {
    for guessing in [CHAIN, TREE] {
        let mut served = drafted(guessing, None);
        let mut alone = self::served(Guessing::NONE, 0, &[]);
        (0..12).for_each(|id| served.submit(plain(id)));
        served.run();
        // Equal answers come to share their pages.
        let mut equal = plain(12);
        let asked = generate(&mut equal);
        (asked.sampling.temperature, asked.choices) = (0.0, 3);
        served.answer(equal.clone());
        assert_eq!(served.answers[&12].bits(), alone.answer(equal).bits());
        for id in 0..12 {
            assert_eq!(served.answers[&id].bits(), alone.answer(plain(id)).bits(), "{id}");
        }
        let counters = served.engine.counters();
        assert!(counters.guesses > 50 && counters.failed_guesses == 0);
        if guessing == CHAIN {
            // All but what an answer has no room for.
            let share = counters.held as f64 / counters.guessed as f64;
            assert!(share >= 0.99, "{} of {}", counters.held, counters.guessed);
        }
        served.assert_all_pages_free();
    }
}

#[test]
fn no_bit_tells_who_guessed() {
    for guessing in [CHAIN, TREE] {
        let mut plain = served(Guessing::NONE, 0, &[]);
        for quantize in [None, Some(Quantize::Q4)] {
            let mut guessed = drafted(guessing, quantize);
            for id in 0..22 {
                let asked = || if id < 11 { request(id, id) } else { self::plain(id) };
                let truth = plain.answer(asked());
                assert_eq!(guessed.answer(asked()).bits(), truth.bits(), "request {id}");
            }
            let counters = guessed.engine.counters();
            assert!(counters.held > 50 && counters.held < counters.guessed, "{counters:?}");
            guessed.assert_all_pages_free();
        }
    }
}

#[test]
fn what_repeats_comes_in_fewer_steps() {
    // One token alone may come.
    let mut request = greedy(1, &prompt(1, 9), 60);
    generate(&mut request).sampling.allowed = Some([5].into());
    let mut speculative = served(CHAIN, 0, &[]);
    let answer = speculative.answer(request.clone());
    assert_eq!((answer.tokens(0), &answer.ends[&0]), (vec![5; 60], &Finish::Length));
    let counters = speculative.engine.counters();
    assert!(counters.steps < 20, "{} steps for 60 tokens", counters.steps);
    assert_eq!(counters.generated_tokens, 60);
    let [guessed, held] = answer.guesses[&0];
    assert!(held > 40 && guessed <= held + 4, "{guessed} {held}");
    assert_eq!((u64::from(guessed), u64::from(held)), (counters.guessed, counters.held));
}

#[test]
fn a_tree_holds_where_a_chain_does_not() {
    let held = |guessing| {
        let mut served = served(guessing, 0, &[]);
        (0..20).for_each(|id| drop(served.answer(request(id, 0))));
        served.engine.counters().held
    };
    let chain = Guessing { tokens: 1, paths: 1, rows: 24 };
    let (chain, tree) = (held(chain), held(Guessing { paths: 4, ..chain }));
    assert!(tree > chain + chain / 4, "{tree} of a tree, {chain} of a chain");
}

#[test]
fn pages_of_what_held_are_found_by_the_next_turn() {
    let cached = |guessing| {
        let mut served = served(guessing, 0, &[]);
        let first = request(1, 0);
        let answer = served.answer(first.clone());
        let mut turn = Request { id: 2, ..first };
        turn.prompt.extend(answer.tokens(0));
        turn.prompt.push(1);
        served.answer(turn).prompt.expect("it was computed").0
    };
    assert_eq!(cached(CHAIN), cached(Guessing::NONE));
    assert_eq!(cached(TREE), cached(Guessing::NONE));
}

#[test]
fn pages_that_are_given_back_and_taken_again_change_no_bit() {
    for guesses in [false, true] {
        let drafter = guesses.then(|| Drafter::Model(thin::checkpoint(), Some(Quantize::Q8)));
        let guessing = if guesses { CHAIN } else { Guessing::NONE };
        let made = |drafter| {
            let making = Making { drafter, ..Making::default() };
            Served::made(Settings { guessing, ..settings() }, making)
        };
        let truth = made(None).answer(request(1, 7));
        let mut served = made(drafter);
        served.submit(request(1, 7));
        (0..6).for_each(|_| served.step());
        let counters = served.engine.counters();
        assert_eq!(served.engine.release_pages(), Ok(false), "somebody holds some");
        assert_eq!(served.engine.counters(), counters, "nothing happened");
        served.engine.retract();
        assert_eq!(served.engine.release_pages(), Ok(true));
        assert!(!served.engine.has_pages());
        // Who comes meanwhile waits; twice is once.
        served.submit(request(2, 0));
        served.step();
        assert_eq!(served.engine.counters().running, 0);
        assert_eq!(served.engine.release_pages(), Ok(true));
        for _ in 0..2 {
            assert_eq!(served.engine.take_pages(), Ok(()));
            assert!(served.engine.has_pages());
        }
        served.run();
        assert_eq!(served.answers[&1].bits(), truth.bits());
        assert_eq!(served.answers[&1].ends, truth.ends);
        served.assert_all_pages_free();
    }
}
