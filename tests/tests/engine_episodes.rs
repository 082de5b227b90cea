//! Episodes: what goes on from step to step is what one request would have computed, and no
//! token of it is computed twice, unless its pages had to go.

use engine::engine::{Change, InFlight, OnSwap, Publish, Settings, Start};
use engine::lora;
use engine::request::{Finish, Request, Sampling};
use kernels_core::dtype::Dtype;
use pagewise_tests::lora::{adapter, image};
use pagewise_tests::model::thin;
use pagewise_tests::serving::{Answer, Making, Served, generate, greedy, prompt, settings};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn start(on_swap: OnSwap, reserve: u32) -> Start {
    Start { adapter: None, salt: [].into(), on_swap, reserve }
}

fn begin(served: &mut Served, id: u64) {
    served.engine.start_episode(id, start(OnSwap::Pin, 0)).expect("it is new");
}

/// A step of an episode: some tokens, and what is asked of them.
fn step(id: u64, episode: u64, tokens: &[u32], max_new: u32) -> Request {
    let mut request = Request { episode: Some(episode), ..greedy(id, tokens, max_new) };
    generate(&mut request).top = Some(3);
    request
}

/// What a plain request says after all these tokens.
fn plain(tokens: &[u32], max_new: u32) -> Answer {
    let mut request = greedy(1, tokens, max_new);
    generate(&mut request).top = Some(3);
    Served::new(settings()).answer(request)
}

#[test]
fn a_step_computes_its_own_tokens_alone_and_says_what_one_request_would() {
    let mut served = Served::new(settings());
    begin(&mut served, 7);
    let mut tokens = Vec::new();
    for (id, len) in [(1, 21), (2, 5), (3, 1), (4, 0), (5, 9)] {
        let new = prompt(id as u32, len);
        let before = served.engine.counters();
        let answer = served.answer(step(id, 7, &new, 6));
        let after = served.engine.counters();
        tokens.extend(&new);
        let expected = plain(&tokens, 6);
        assert_eq!(answer.choices, expected.choices, "step {id}");
        // The last token of the step before was drawn, and not computed.
        let computed = len as u64 + u64::from(id > 1);
        let steps = after.steps - before.steps;
        let mut all = after.prompt_tokens - before.prompt_tokens;
        // A row of one token counts as an answer's, once it has drawn.
        all += u64::from(computed == 1 && all == 0);
        assert_eq!(all, computed, "step {id}, in {steps}");
        tokens.extend(answer.tokens(0));
        let standing = served.engine.episode(7).expect("it rests");
        assert_eq!((&standing.tokens, standing.request), (&tokens, None));
        assert_eq!(standing.computed as usize, tokens.len() - 1);
    }
    assert!(served.engine.end_episode(7) && !served.engine.end_episode(7));
    served.assert_all_pages_free();
}

#[test]
fn many_episodes_share_steps_and_none_changes_a_bit_of_another() {
    let ask = |id: u64, round: u64| {
        let new = prompt((id * 10 + round) as u32, 3 + (id + round) as usize % 7);
        let mut request = step(id * 100 + round, id, &new, 4 + (id % 3) as u32);
        generate(&mut request).sampling =
            Sampling { temperature: 0.9, seed: id, ..Sampling::default() };
        request
    };
    // Alone, each begins with the same noise as in company.
    let mut crowd = Served::new(Settings { chunk: 3, ..settings() });
    (1..=8).for_each(|id| begin(&mut crowd, id));
    for round in 0..4 {
        (1..=8).for_each(|id| crowd.submit(ask(id, round)));
        crowd.run();
    }
    let mut calm = Served::new(settings());
    (1..=8).for_each(|id| begin(&mut calm, id));
    for id in 1..=8 {
        for round in 0..4 {
            let answer = calm.answer(ask(id, round));
            let expected = &crowd.answers[&(id * 100 + round)];
            assert_eq!(answer.bits(), expected.bits(), "episode {id}, step {round}");
        }
    }
    assert!(crowd.engine.counters().chunks > 0);
    (1..=8).for_each(|id| assert!(crowd.engine.end_episode(id)));
    crowd.assert_all_pages_free();
}

#[test]
fn who_rests_longest_gives_its_pages_up_and_is_rebuilt_with_the_same_bits() {
    let mut served = Served::new(Settings { pages: 16, ..settings() });
    let second = prompt(2, 6);
    for id in [1, 2] {
        begin(&mut served, id);
        served.answer(step(id, id, &prompt(id as u32, 17), 5));
    }
    // Needs more than is left.
    served.answer(greedy(9, &prompt(9, 24), 8));
    let standing = |served: &Served, id| served.engine.episode(id).expect("it rests");
    let (one, two) = (standing(&served, 1), standing(&served, 2));
    assert_eq!((one.evictions, one.computed), (1, 0), "the first rests longest");
    assert_eq!((two.evictions, two.computed as usize), (0, two.tokens.len() - 1));
    let mut tokens = one.tokens.clone();
    tokens.extend(&second);
    let answer = served.answer(step(10, 1, &second, 5));
    assert_eq!(answer.choices, plain(&tokens, 5).choices);
    let (cached, ..) = answer.prompt.expect("it is told");
    assert!((cached as usize) < one.tokens.len() - 1, "the reply shows that it was rebuilt");
    (1..=2).for_each(|id| assert!(served.engine.end_episode(id)));
    served.assert_all_pages_free();
}

#[test]
fn forks_that_rest_on_the_same_pages_give_them_up_together() {
    let mut served = Served::new(Settings { pages: 16, ..settings() });
    begin(&mut served, 1);
    served.answer(step(1, 1, &prompt(1, 30), 3));
    served.engine.fork_episode(1, 2).expect("it rests");
    // More than is left beside the pages that both hold.
    let answer = served.answer(greedy(9, &prompt(9, 40), 8));
    assert_eq!(answer.bits(), Served::new(settings()).answer(greedy(9, &prompt(9, 40), 8)).bits());
    let tokens = served.engine.episode(1).expect("it rests").tokens;
    for id in [1, 2] {
        let standing = served.engine.episode(id).expect("it rests");
        assert_eq!((standing.evictions, standing.computed), (1, 0), "episode {id}");
        let all = [tokens.clone(), prompt(2, 4)].concat();
        let answer = served.answer(step(10 + id, id, &prompt(2, 4), 5));
        assert_eq!(answer.choices, plain(&all, 5).choices, "episode {id}");
    }
    (1..=2).for_each(|id| assert!(served.engine.end_episode(id)));
    served.assert_all_pages_free();
}

#[test]
fn memory_is_given_back_while_episodes_rest_and_they_go_on_with_the_same_bits() {
    let mut served = Served::new(settings());
    begin(&mut served, 1);
    served.answer(step(1, 1, &prompt(1, 18), 5));
    assert!(served.engine.release_pages().expect("it is given back"));
    assert!(!served.engine.has_pages());
    served.engine.take_pages().expect("it is there");
    let standing = served.engine.episode(1).expect("it rests");
    assert_eq!((standing.evictions, standing.computed), (1, 0));
    let all = [standing.tokens, prompt(2, 4)].concat();
    let answer = served.answer(step(2, 1, &prompt(2, 4), 5));
    assert_eq!(answer.choices, plain(&all, 5).choices);
    // What is reserved is not given up.
    served.engine.start_episode(2, start(OnSwap::Pin, 20)).expect("there is room");
    assert!(!served.engine.release_pages().expect("it stays") && served.engine.has_pages());
    (1..=2).for_each(|id| assert!(served.engine.end_episode(id)));
    served.assert_all_pages_free();
}

#[test]
fn a_reservation_keeps_its_pages_or_is_refused_with_numbers() {
    let mut served = Served::new(Settings { pages: 64, max_len: 96, ..settings() });
    let refused = served.engine.start_episode(1, start(OnSwap::Pin, 161)).expect_err("too many");
    assert_eq!((refused.field, refused.got.as_str()), ("reserve", "161"));
    assert!(refused.expected.contains("160 tokens"), "{}", refused.expected);
    served.engine.start_episode(1, start(OnSwap::Pin, 80)).expect("there is room");
    served.answer(step(1, 1, &prompt(1, 30), 6));
    // Others take all the rest, several times over.
    for id in 2..12 {
        served.submit(greedy(id, &prompt(id as u32, 50), 30));
    }
    served.run();
    assert!(served.engine.counters().preemptions + served.engine.counters().evictions > 0);
    let standing = served.engine.episode(1).expect("it rests");
    assert_eq!((standing.evictions, standing.computed), (0, 35));
    let mut tokens = standing.tokens;
    tokens.extend(prompt(3, 9));
    for id in 20..26 {
        served.submit(greedy(id, &prompt(id as u32, 60), 30));
    }
    served.submit(step(50, 1, &prompt(3, 9), 20));
    served.run();
    assert_eq!(served.answers[&50].choices, plain(&tokens, 20).choices);
    let (cached, ..) = served.answers[&50].prompt.clone().expect("it is told");
    assert_eq!(cached, 35, "nothing of it was computed twice");
    assert!(served.engine.end_episode(1));
    served.assert_all_pages_free();
}

#[test]
fn forks_share_what_they_have_and_draw_different_noise() {
    let mut served = Served::new(settings());
    begin(&mut served, 1);
    served.answer(step(1, 1, &prompt(1, 22), 5));
    let free = |served: &Served| served.engine.counters().pages_free;
    let before = free(&served);
    for fork in [2, 3, 4] {
        served.engine.fork_episode(1, fork).expect("it rests");
    }
    assert_eq!(free(&served), before, "no page is copied before somebody writes");
    let sampled = |id, episode| {
        let mut request = step(id, episode, &prompt(2, 3), 12);
        generate(&mut request).sampling = Sampling { seed: 5, ..Sampling::default() };
        request
    };
    (1..=4).for_each(|id| served.submit(sampled(id + 10, id)));
    served.run();
    let tokens: Vec<_> = (11..=14).map(|id| served.answers[&id].tokens(0)).collect();
    let distinct: std::collections::BTreeSet<_> = tokens.iter().collect();
    assert_eq!(distinct.len(), 4, "{tokens:?}");
    assert!(served.engine.counters().page_copies > 0);
    // Without noise they agree.
    served.engine.fork_episode(2, 5).expect("it rests");
    let (one, two) = (step(20, 2, &prompt(3, 4), 6), step(21, 5, &prompt(3, 4), 6));
    assert_eq!(served.answer(one).choices, served.answer(two).choices);
    let refused = served.engine.fork_episode(1, 5).expect_err("it is there");
    assert_eq!(refused.field, "episode");
    assert_eq!(served.engine.fork_episode(99, 6).expect_err("unknown").got, "99");
    (1..=5).for_each(|id| assert!(served.engine.end_episode(id)));
    served.assert_all_pages_free();
}

#[test]
fn one_step_is_in_flight_and_what_ends_early_leaves_what_it_has() {
    let fails = Arc::new(AtomicBool::new(false));
    let making = Making { fails: Some(fails.clone()), ..Making::default() };
    let mut served = Served::made(settings(), making);
    begin(&mut served, 1);
    served.submit(step(1, 1, &prompt(1, 20), 30));
    while served.answers[&1].tokens(0).len() < 4 {
        served.step();
    }
    let refused = served.refused(step(2, 1, &[1], 2));
    assert!(refused.field == "episode" && refused.got.contains("request 1"), "{refused}");
    assert!(served.engine.fork_episode(1, 2).is_err());
    assert_eq!(served.engine.episode(1).expect("it runs").request, Some(1));
    served.engine.abort(1);
    served.run();
    let kept = served.engine.episode(1).expect("it rests");
    let came = served.answers[&1].tokens(0);
    assert_eq!(kept.tokens, [prompt(1, 20), came].concat());
    // A step that fails leaves the episode as it was before.
    served.submit(step(3, 1, &prompt(2, 5), 30));
    served.step();
    fails.store(true, Ordering::Relaxed);
    served.run();
    assert!(matches!(served.answers[&3].ends[&0], Finish::Failed(_)));
    fails.store(false, Ordering::Relaxed);
    let after = served.engine.episode(1).expect("it rests");
    assert_eq!((&after.tokens, after.computed), (&kept.tokens, kept.computed));
    let mut tokens = kept.tokens;
    tokens.extend(prompt(2, 5));
    let answer = served.answer(step(4, 1, &prompt(2, 5), 6));
    assert_eq!(answer.choices, plain(&tokens, 6).choices);
    // Whoever ends it ends its step, too.
    served.submit(step(5, 1, &[1, 2], 30));
    served.step();
    assert!(served.engine.end_episode(1));
    served.run();
    assert_eq!(served.answers[&5].ends[&0], Finish::Aborted);
    assert_eq!(served.refused(step(6, 1, &[1], 1)).field, "episode");
    let wrong = |change: &dyn Fn(&mut Request)| {
        let mut request = step(7, 2, &[1, 2], 3);
        change(&mut request);
        request
    };
    begin(&mut served, 2);
    let two = wrong(&|request| generate(request).choices = 2);
    assert_eq!(served.refused(two).field, "choices");
    served.answer(step(8, 2, &[1, 2, 3], 2));
    let scored = wrong(&|request| generate(request).prompt_top = Some(1));
    assert_eq!(served.refused(scored).field, "prompt_from");
    let long = wrong(&|request| request.prompt = vec![1; 100]);
    assert_eq!(served.refused(long).field, "prompt");
    assert!(served.engine.end_episode(2));
    served.assert_all_pages_free();
}

#[test]
fn a_version_moves_episodes_as_each_has_asked() {
    let base = thin::checkpoint();
    let slots = lora::Settings::new(4, 16, Dtype::F32);
    let parts = &["q_proj", "k_proj", "v_proj", "down_proj"];
    let publish = |served: &mut Served, seed| {
        let image = image(&base, &adapter(&base, parts, 4, seed), slots);
        let publish = Publish { adapter: 1, image, in_flight: InFlight::Wait, pinned: false };
        let version = served.engine.publish(publish).expect("it has slots");
        while !served.engine.changes().iter().any(
            |change| matches!(change, Change::Current { version: came, .. } if *came == version),
        ) {
            served.step();
        }
        version
    };
    let making = || Making { adapters: Some(slots), ..Making::default() };
    // What one version alone says after all these tokens.
    let alone = |seed, tokens: &[u32]| {
        let mut served = Served::made(settings(), making());
        publish(&mut served, seed);
        let mut request = Request { adapter: Some(1), ..greedy(1, tokens, 6) };
        generate(&mut request).top = Some(3);
        served.answer(request)
    };
    let mut kept = Vec::new();
    for pages in [128, 14] {
        let mut served = Served::made(Settings { pages, ..settings() }, making());
        let first = publish(&mut served, 1);
        let modes = [OnSwap::Pin, OnSwap::Keep, OnSwap::Recompute];
        for (id, on_swap) in (1..).zip(modes) {
            let start = Start { adapter: Some(1), ..start(on_swap, 0) };
            served.engine.start_episode(id, start).expect("it is new");
            served.answer(step(id, id, &prompt(1, 18), 5));
        }
        let second = publish(&mut served, 2);
        let tokens = served.engine.episode(1).expect("it rests").tokens;
        let all = [tokens, prompt(2, 4)].concat();
        let answers: Vec<Answer> =
            (1..=3).map(|id| served.answer(step(id + 10, id, &prompt(2, 4), 6))).collect();
        assert_eq!(answers[0].versions, [first; 6]);
        assert_eq!(answers[0].choices, alone(1, &all).choices);
        assert_eq!(answers[1].versions, [second; 6]);
        assert_eq!(answers[2].versions, [second; 6]);
        assert_eq!(answers[2].choices, alone(2, &all).choices, "nothing stale is left");
        assert_ne!(answers[1].choices, answers[2].choices, "old keys are kept");
        kept.push(answers[1].choices.clone());
        let evicted = (1..=3).map(|id| served.engine.episode(id).expect("it rests").evictions);
        assert_eq!(evicted.sum::<u32>() > 0, pages == 14);
        (1..=3).for_each(|id| assert!(served.engine.end_episode(id)));
        assert!(served.engine.withdraw(1));
        let gone = served.engine.changes().into_iter();
        let gone = gone.filter(|change| matches!(change, Change::Gone { .. })).count();
        assert_eq!(gone, 2, "no version outlives who needs it");
        served.assert_all_pages_free();
    }
    assert_eq!(kept[0], kept[1], "what was given up is rebuilt by the versions that made it");
}
