//! Answers that keep to a grammar: whoever's mask is late waits, and nobody else does; bits
//! and tokens do not tell.

use engine::request::{Finish, Request};
use grammar::{Grammar, Threads};
use pagewise_tests::guided::{Cycle, Late};
use pagewise_tests::serving::{Answer, Making, Served, generate, greedy, prompt, settings};
use std::time::Duration;

const PERIOD: u32 = 5;
const END: u32 = 7;

fn late(most: u32, eos: &[u32]) -> Served {
    let masker = Box::new(Late::new(most));
    Served::made(settings(), Making { eos: eos.to_vec(), masker, ..Making::default() })
}

/// Draws from all that a grammar allows.
fn drawn(id: u64, grammar: Option<Grammar>, max_new: u32) -> Request {
    let mut request = greedy(id, &prompt(id as u32, 3 + id as usize % 9), max_new);
    let asked = generate(&mut request);
    (asked.sampling.temperature, asked.sampling.seed) = (1.0, id);
    (asked.grammar, asked.top) = (grammar, Some(3));
    request
}

fn keeps(answer: &Answer, choice: u32) {
    for (at, token) in (0..).zip(answer.tokens(choice)) {
        assert_eq!(token % PERIOD, at % PERIOD, "{:?}", answer.tokens(choice));
    }
}

#[test]
fn an_answer_keeps_to_its_grammar_and_ends_where_it_is_complete() {
    let grammar = Cycle::grammar(PERIOD, 9, &[]);
    let answer = late(0, &[]).answer(drawn(1, Some(grammar), 40));
    assert_eq!((answer.tokens(0).len(), &answer.ends[&0]), (9, &Finish::Complete));
    keeps(&answer, 0);
    // With a token to say so, that one comes, whoever would ignore it.
    for ignore in [false, true] {
        let mut request = drawn(1, Some(Cycle::grammar(PERIOD, 9, &[END])), 40);
        generate(&mut request).stop.ignore_eos = ignore;
        let ended = late(0, &[END]).answer(request);
        assert_eq!((ended.tokens(0).len(), &ended.ends[&0]), (10, &Finish::Eos));
        assert_eq!(ended.tokens(0)[9], END);
    }
    let cut = late(0, &[END]).answer(drawn(1, Some(Cycle::grammar(PERIOD, 9, &[END])), 4));
    assert_eq!((cut.tokens(0).len(), &cut.ends[&0]), (4, &Finish::Length));
}

#[test]
fn masks_alone_copy_no_logits_and_draw_as_those_that_lists_do() {
    let answer = |bias: &[(u32, f32)]| {
        let mut request = drawn(1, Some(Cycle::grammar(PERIOD, 9, &[])), 40);
        generate(&mut request).sampling.bias = bias.into();
        let mut served = late(0, &[]);
        let answer = served.answer(request);
        (answer.choices[&0].clone(), served.engine.counters().clone())
    };
    let (masked, alone) = answer(&[]);
    assert_eq!((alone.masks, alone.copied_logits), (9, 0));
    // A list that changes nothing.
    let (listed, with_list) = answer(&[(3, 0.0)]);
    assert_eq!((with_list.masks, with_list.copied_logits), (9, 9));
    assert_eq!(masked, listed);
}

#[test]
fn raw_log_probabilities_are_the_models_own_and_processed_ones_are_renormalised() {
    let mut served = late(0, &[]);
    let guided = served.answer(drawn(1, Some(Cycle::grammar(PERIOD, 1, &[])), 8));
    let mut free = drawn(2, None, 1);
    (free.prompt, generate(&mut free).top) = (prompt(1, 4), Some(128));
    let free = served.answer(free);
    let token = &guided.choices[&0][0];
    let listed = &free.choices[&0][0].top;
    assert_eq!(listed.len(), 128);
    let of = |token: u32| listed.iter().find(|entry| entry.0 == token).map(|entry| entry.1);
    assert_eq!(Some(token.raw), of(token.token), "as if there were no grammar");
    let allowed = listed.iter().filter(|entry| entry.0 % PERIOD == 0);
    let mass: f64 = allowed.map(|entry| f64::from(entry.1).exp()).sum();
    let expected = f64::from(token.raw) - mass.ln();
    assert!((f64::from(token.processed) - expected).abs() < 1e-2, "{token:?} {expected}");
}

#[test]
fn masks_that_come_late_change_no_bit_and_keep_nobody_else() {
    let requests = || {
        let guided = (0..6).map(|id| {
            let mut request = drawn(id, Some(Cycle::grammar(PERIOD, 20, &[])), 30);
            generate(&mut request).choices = 1 + id as u32 % 3;
            request
        });
        guided.chain((6..9).map(|id| drawn(id, None, 24)))
    };
    let mut alone = late(0, &[]);
    let mut served = late(5, &[]);
    requests().for_each(|request| served.submit(request));
    served.run();
    for request in requests() {
        let (id, guided) = (request.id, request.id < 6);
        let answer = &served.answers[&id];
        assert_eq!(answer.bits(), alone.answer(request).bits(), "request {id}");
        if guided {
            answer.choices.keys().for_each(|choice| keeps(answer, *choice));
            assert!(answer.ends.values().all(|end| *end == Finish::Complete));
        }
    }
    let counters = served.engine.counters();
    assert!(counters.late_masks > 50, "{}", counters.late_masks);
    assert_eq!(alone.engine.counters().late_masks, 0);
    served.assert_all_pages_free();

    // Who keeps to no grammar draws in every step it would draw in alone.
    let steps = |with: bool| {
        let mut served = late(9, &[]);
        served.submit(drawn(7, None, 24));
        if with {
            served.submit(drawn(1, Some(Cycle::grammar(PERIOD, 20, &[])), 30));
        }
        let mut steps = 0;
        while served.answers[&7].ends.is_empty() {
            served.step();
            steps += 1;
        }
        steps
    };
    assert_eq!(steps(true), steps(false));

    // A mask is awaited in vain once: then its answer pauses.
    let mut served = late(9, &[]);
    served.answer(drawn(1, Some(Cycle::grammar(PERIOD, 20, &[])), 30));
    let counters = served.engine.counters();
    assert!((1..=21).contains(&counters.late_masks), "{}", counters.late_masks);
}

#[test]
fn where_pages_run_out_a_text_goes_on_where_it_was() {
    let tight = engine::engine::Settings { pages: 16, ..settings() };
    let masker = Box::new(Late::new(3));
    let mut served = Served::made(tight, Making { masker, ..Making::default() });
    let request = |id| drawn(id, Some(Cycle::grammar(PERIOD, 30, &[])), 40);
    (0..6).for_each(|id| served.submit(request(id)));
    served.run();
    assert!(served.engine.counters().preemptions > 0);
    let mut alone = late(0, &[]);
    for id in 0..6 {
        let answer = &served.answers[&id];
        assert_eq!(answer.bits(), alone.answer(request(id)).bits());
        assert_eq!((answer.tokens(0).len(), &answer.ends[&0]), (30, &Finish::Complete));
    }
    served.assert_all_pages_free();
}

#[test]
fn a_grammar_that_lets_nothing_come_is_told() {
    // No token leaves five when divided by six and is below five.
    let mut request = drawn(1, Some(Cycle::grammar(6, 9, &[])), 40);
    generate(&mut request).sampling.allowed = Some((0..5).collect());
    let answer = late(0, &[]).answer(request);
    let why = "no token is allowed to come next";
    assert_eq!((answer.tokens(0).len(), &answer.ends[&0]), (5, &Finish::Stuck(why.into())));
}

#[test]
fn threads_give_the_masks_of_one() {
    let masker = Box::new(Threads::new(3, Duration::from_secs(10)));
    let mut served = Served::made(settings(), Making { masker, ..Making::default() });
    let request = |id| drawn(id, Some(Cycle::grammar(PERIOD, 20, &[])), 30);
    (0..9).for_each(|id| served.submit(request(id)));
    served.engine.cancel(4);
    served.run();
    let mut alone = late(0, &[]);
    for id in (0..9).filter(|id| *id != 4) {
        assert_eq!(served.answers[&id].bits(), alone.answer(request(id)).bits());
    }
    let counters = served.engine.counters();
    assert!(counters.late_masks == 0 && counters.steps > 0);
    served.assert_all_pages_free();
}
