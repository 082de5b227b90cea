//! A request gives the same bits whatever its company, and all that an engine does to serve
//! many at once does happen.

use engine::engine::Settings;
use engine::processor::{Course, Keep, Processor, Schedule, Steps, Then, Thinking, TokenSet};
use engine::request::{Miss, Pooling, Request, Sampling, Task};
use engine::weights::Quantize;
use kernels_core::dtype::Dtype;
use kernels_core::simd::Level;
use pagewise_tests::model::golden::{Golden, SERVED};
use pagewise_tests::model::{Runner, thin};
use pagewise_tests::serving::{Answer, Making, Served, VOCAB, generate, greedy, prompt, settings};
use std::sync::Arc;

#[test]
fn a_greedy_answer_is_what_the_model_finds_most_likely() {
    let prompt = thin::prompt();
    let mut served = Served::new(settings());
    let answer = served.answer(greedy(1, &prompt, 20));
    let cpu = backends::cpu::Cpu::new(Level::best(), 1);
    let pages = [0, 1, 2, 3, 4, 5, 6, 7];
    let mut runner =
        Runner::new(cpu, &thin::checkpoint(), None, &thin::capacity(Dtype::F16), &pages);
    let mut row = runner.forward(&prompt).pop().expect("a row for each token");
    for token in answer.tokens(0) {
        let best = (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        assert_eq!(token, best as u32);
        row = runner.forward(&[token]).remove(0);
    }
    assert_eq!(answer.choices[&0].len(), 20);
    served.assert_all_pages_free();
}

/// One of each kind.
fn processors() -> Arc<[Processor]> {
    let set = |tokens: &[u32]| TokenSet::new(VOCAB, tokens).expect("they are of it");
    let lists: Vec<Arc<[u32]>> = vec![(0..60).collect(), (30..110).collect()];
    [
        Processor::Allowed(set(&(2..118).collect::<Vec<_>>())),
        Processor::Disallowed(set(&[40, 41, 99])),
        Processor::Steps(Steps { lists: lists.into(), then: Then::Free }),
        Processor::Temperature(Schedule { start: 1.3, end: 0.5, course: Course::Decay(0.9) }),
        Processor::Thinking(Thinking { tokens: 9, start: None, end: [20, 21].into() }),
    ]
    .into()
}

/// A request that asks for nearly all there is.
fn subject(id: u64) -> Request {
    let mut request = greedy(id, &prompt(7, 37), 24);
    let asked = generate(&mut request);
    asked.sampling = Sampling {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.95,
        min_p: 0.01,
        seed: 0x0123_4567_89ab_cdef,
        presence: 0.2,
        frequency: 0.3,
        repetition: 1.1,
        bias: [(5, 1.5), (9, -2.0)].into(),
        allowed: Some((0..120).collect()),
        bad_words: [vec![3], vec![4, 5]].into(),
        processors: processors(),
    };
    (asked.top, asked.kept) = (Some(5), Some(Keep::Tokens));
    request
}

/// Another one, of which every token of the prompt is asked for.
fn scored(id: u64) -> Request {
    let mut request = greedy(id, &prompt(8, 41), 12);
    let asked = generate(&mut request);
    (asked.prompt_top, asked.top) = (Some(3), Some(128));
    (asked.sampling.temperature, asked.sampling.seed) = (1.0, 99);
    request
}

/// An embedding of more tokens than a step takes.
fn embedded(id: u64) -> Request {
    Request { task: Task::Embed(Pooling::Mean), ..greedy(id, &prompt(9, 45), 1) }
}

/// Four answers to one prompt.
fn forked(id: u64) -> Request {
    let mut request = greedy(id, &prompt(10, 18), 15);
    let asked = generate(&mut request);
    (asked.choices, asked.sampling.temperature, asked.sampling.seed) = (4, 1.0, 5);
    request
}

fn subjects() -> [Request; 4] {
    [subject(1), scored(2), embedded(3), forked(4)]
}

/// Each subject alone, in steps that take it whole.
fn alone(kv: Dtype, quantize: Option<Quantize>) -> Vec<Answer> {
    let roomy = Settings { step_tokens: 96, chunk: 96, kv, ..settings() };
    let answers = subjects().map(|request| {
        let making = Making { quantize, ..Making::default() };
        let mut served = Served::made(roomy.clone(), making);
        let answer = served.answer(request);
        assert_eq!(served.engine.counters().chunks, 0);
        answer
    });
    assert_eq!(answers[0].choices[&0].len(), 24);
    assert_eq!(answers[3].choices.len(), 4);
    answers.into()
}

fn assert_same_bits(expected: &[Answer], served: &Served, what: &str) {
    for (answer, id) in expected.iter().zip(1..) {
        assert!(!answer.bits().is_empty());
        assert_eq!(answer.bits(), served.answers[&id].bits(), "request {id} {what}");
        assert_eq!(answer.ends, served.answers[&id].ends, "request {id} {what}");
    }
}

#[test]
fn chunks_batches_threads_and_pages_do_not_change_a_bit() {
    let weights = [None, Some(Quantize::Q8), Some(Quantize::Q4)];
    for (kv, quantize) in
        [(Dtype::F16, weights[0]), (Dtype::I8, weights[1]), (Dtype::F16, weights[2])]
    {
        let expected = alone(kv, quantize);
        for (chunk, step_tokens, threads) in [(1, 6, 1), (3, 8, 2), (7, 24, 1), (16, 17, 2)] {
            let settings = Settings { chunk, step_tokens, kv, ..settings() };
            let making = Making { quantize, threads, ..Making::default() };
            let mut served = Served::made(settings, making);
            subjects().into_iter().for_each(|request| served.submit(request));
            served.run();
            assert_same_bits(&expected, &served, &format!("in chunks of {chunk}"));
            assert!(served.engine.counters().chunks > 5);
            served.assert_all_pages_free();
        }
    }
}

#[test]
fn thirty_two_strangers_do_not_change_a_bit() {
    let expected = alone(Dtype::F16, None);
    let settings = Settings { rows: 40, step_tokens: 64, pages: 1000, ..settings() };
    let mut served = Served::new(settings);
    for id in 100..132 {
        let mut request = greedy(id, &prompt(id as u32, 1 + id as usize % 50), 30);
        let asked = generate(&mut request);
        (asked.sampling.temperature, asked.sampling.seed) = (1.0, id);
        asked.sampling.frequency = if id % 2 == 0 { 0.5 } else { 0.0 };
        served.submit(request);
        served.step();
    }
    subjects().into_iter().for_each(|request| served.submit(request));
    for _ in 0..3 {
        served.step();
    }
    assert!(served.engine.counters().last_rows > 20, "they do run together");
    served.run();
    assert_same_bits(&expected, &served, "among strangers");
    served.assert_all_pages_free();
}

#[test]
fn a_found_prefix_does_not_change_a_bit() {
    let expected = alone(Dtype::F16, None);
    let mut served = Served::new(settings());
    for (request, id) in subjects().into_iter().zip(100..) {
        let mut first = greedy(id, &request.prompt, 3);
        // One of them leaves only a part of the prompt behind.
        first.prompt.truncate(if id == 100 { 21 } else { 99 });
        served.answer(first);
    }
    let before = served.engine.counters();
    subjects().into_iter().for_each(|request| served.submit(request));
    served.run();
    assert_same_bits(&expected, &served, "after a prefix was found");
    let found = |id: u64| served.answers[&id].prompt.as_ref().map(|prompt| (prompt.0, prompt.1));
    assert_eq!(found(1), Some((20, Miss::Cold)));
    assert_eq!(found(2), Some((0, Miss::Asked)));
    assert_eq!(found(4), Some((16, Miss::PartialPage)));
    assert_eq!(served.engine.counters().hits - before.hits, 2);
    served.assert_all_pages_free();
}

#[test]
fn preemption_does_not_change_a_bit() {
    let expected = alone(Dtype::F16, None);
    for (request, expected) in subjects().into_iter().zip(&expected) {
        // Enough for the longest alone, and little more.
        let mut served = Served::new(Settings { pages: 17, chunk: 8, ..settings() });
        let id = request.id;
        served.submit(Request { priority: 1, ..request });
        for _ in 0..3 {
            served.step();
        }
        let long = prompt(50 + id as u32, 30);
        served.submit(greedy(100, &long, 35));
        served.run();
        // Only the subject, which is last in rank, can have given way.
        assert!(served.engine.counters().preemptions > 0, "request {id}");
        assert!(served.engine.counters().evictions > 0, "request {id}");
        assert_eq!(expected.bits(), served.answers[&id].bits(), "request {id}");
        let mut alone = Served::new(settings());
        assert_eq!(alone.answer(greedy(100, &long, 35)).bits(), served.answers[&100].bits());
        served.assert_all_pages_free();
    }
}

#[test]
fn choices_that_wait_for_a_seat_draw_what_forks_do() {
    let expected = alone(Dtype::F16, None).remove(3);
    let mut served = Served::new(settings());
    assert_eq!(served.answer(forked(4)).bits(), expected.bits());
    let counters = served.engine.counters();
    // The prompt of 18 tokens ends within a page, which three choices copy.
    assert_eq!((counters.forks, counters.prompt_tokens, counters.page_copies), (3, 18, 3));
    let mut narrow = Served::new(Settings { rows: 2, ..settings() });
    assert_eq!(narrow.answer(forked(4)).bits(), expected.bits());
    let counters = narrow.engine.counters();
    assert_eq!((counters.forks, counters.prompt_tokens), (1, 18 + 2 + 2));
    let choices: Vec<_> = (0..4).map(|choice| expected.tokens(choice)).collect();
    assert!((1..4).all(|choice| choices[choice] != choices[0]), "each draws its own noise");
    narrow.assert_all_pages_free();
}

#[test]
fn a_prefix_of_requests_that_come_together_is_computed_once() {
    let shared = prompt(20, 64);
    let settings = Settings { rows: 16, step_tokens: 48, pages: 200, max_len: 128, ..settings() };
    let mut served = Served::new(settings.clone());
    for id in 0..16 {
        let mut own = shared.clone();
        own.extend(prompt(100 + id as u32, 5));
        served.submit(greedy(id, &own, 4));
    }
    served.run();
    let counters = served.engine.counters();
    assert_eq!(counters.prompt_tokens, 64 + 16 * 5);
    assert_eq!((counters.hits, counters.preemptions), (15, 0));
    assert_eq!(counters.cached_tokens, 15 * 64);
    // The very same prompt: all but the last token of it.
    let mut served = Served::new(settings);
    (0..16).for_each(|id| served.submit(greedy(id, &shared, 4)));
    served.run();
    assert_eq!(served.engine.counters().prompt_tokens, 64 + 15);
    let bits = served.answers[&0].bits();
    assert!(served.answers.values().all(|answer| answer.bits() == bits));
    served.assert_all_pages_free();
}

#[test]
fn what_waits_for_a_prefix_leaves_its_part_of_the_step_to_others() {
    let mut served = Served::new(settings());
    // A chunk of 16 of the first; the second awaits it; the third fits beside it.
    let shared = prompt(40, 32);
    served.submit(greedy(1, &shared, 2));
    served.submit(greedy(2, &shared, 2));
    served.submit(greedy(3, &prompt(41, 8), 2));
    served.step();
    let counters = served.engine.counters();
    assert_eq!((counters.last_tokens, counters.last_rows, counters.waiting), (24, 2, 1));
    served.run();
    assert_eq!(served.engine.counters().prompt_tokens, 32 + 8 + 1);
}

#[test]
fn who_loses_patience_is_served_among_those_that_come_first() {
    let settings = Settings { rows: 2, patience: 20, turn: 4, ..settings() };
    let mut served = Served::new(settings);
    [100, 101].into_iter().for_each(|id| served.submit(greedy(id, &prompt(id as u32, 9), 30)));
    served.step();
    served.submit(Request { priority: 1, ..greedy(1, &prompt(1, 9), 4) });
    let (mut steps, mut id) = (0, 2);
    while served.answers[&1].ends.is_empty() {
        while served.engine.counters().waiting < 2 {
            served.submit(greedy(id, &prompt(id as u32, 9), 30));
            id += 1;
        }
        served.step();
        steps += 1;
        assert!(steps < 60, "it is served");
    }
    assert!(steps > 20, "others came first: {steps} steps");
    served.run();
    served.assert_all_pages_free();
}

#[test]
fn pages_of_an_answer_are_found_by_the_next_turn() {
    let mut served = Served::new(settings());
    let mut tokens = prompt(30, 10);
    let answer = served.answer(greedy(1, &tokens, 21));
    tokens.extend(answer.tokens(0));
    tokens.extend(prompt(31, 4));
    let answer = served.answer(greedy(2, &tokens, 2));
    // The last token drawn was not computed: 30 were, in pages of 4.
    assert_eq!(answer.prompt.map(|prompt| (prompt.0, prompt.1)), Some((28, Miss::Cold)));
}

#[test]
fn scores_of_a_prompt_are_the_log_probabilities_it_was_drawn_with() {
    let mut served = Served::new(settings());
    let mut request = subject(1);
    generate(&mut request).sampling.allowed = None;
    let answer = served.answer(request);
    let drawn = &answer.choices[&0];
    let mut whole = prompt(7, 37);
    whole.extend(answer.tokens(0));
    let mut again = greedy(2, &whole, 0);
    (generate(&mut again).prompt_top, generate(&mut again).prompt_from) = (Some(5), 37);
    let again = served.answer(again).prompt.expect("it is computed");
    // Position 36 scores the first of them; 36 tokens are nine pages.
    assert_eq!((again.0, again.1), (36, Miss::Asked));
    assert!(again.2[..37].iter().all(Option::is_none));
    for (drawn, scored) in drawn.iter().zip(&again.2[37..]) {
        let scored = scored.as_ref().expect("it was asked for");
        assert_eq!((drawn.token, drawn.raw.to_bits()), (scored.token, scored.raw.to_bits()));
        assert_eq!(drawn.top, scored.top);
    }
    assert_eq!(again.2.len(), 37 + drawn.len());
}

#[test]
fn scores_of_a_prompt_are_those_of_transformers() {
    let mut served = Served::new(Settings { kv: Dtype::F32, ..settings() });
    let tokens = thin::prompt();
    let mut request = greedy(1, &tokens, 0);
    generate(&mut request).prompt_top = Some(1);
    let scored = served.answer(request).prompt.expect("it is computed").2;
    assert_eq!(scored[0], None);
    for (row, scored) in thin::expected().iter().zip(&scored[1..]) {
        let scored = scored.as_ref().expect("all but the first");
        let error = (row[scored.token as usize] - f64::from(scored.raw)).abs();
        assert!(error < 1e-4, "{error}");
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert!((most - f64::from(scored.top[0].1)).abs() < 1e-4);
    }
}

#[test]
fn every_family_is_served_as_transformers_evaluates_it() {
    for golden in Golden::all() {
        let settings = Settings {
            step_tokens: 96,
            chunk: 64,
            page_len: 16,
            max_len: SERVED,
            kv: Dtype::F32,
            ..settings()
        };
        let checkpoint = Some(golden.checkpoint.clone());
        let mut served = Served::made(settings, Making { checkpoint, ..Making::default() });
        let new = golden.greedy().len() as u32;
        let mut request = greedy(1, &golden.prompt, new);
        generate(&mut request).prompt_top = Some(0);
        served.submit(request);
        // Another one beside it, and then one that finds the prompt.
        served.submit(greedy(2, &golden.prompt[..100], 20));
        served.run();
        let again = served.answer(greedy(3, &golden.prompt, new));
        let answer = &served.answers[&1];
        assert_eq!(answer.tokens(0), golden.greedy(), "{}", golden.name);
        assert_eq!(answer.choices, again.choices, "{}", golden.name);
        assert!(again.prompt.is_some_and(|prompt| prompt.0 > 300), "{}", golden.name);
        let scored = &answer.prompt.as_ref().expect("it is computed").2[1..];
        for (truth, scored) in golden.tokens.iter().zip(scored) {
            let error = scored.as_ref().map(|scored| (truth - f64::from(scored.raw)).abs());
            assert!(error.is_some_and(|error| error < 1e-4), "{}: {error:?}", golden.name);
        }
        assert!(served.engine.counters().chunks > 5);
        served.engine.forget_prefixes();
        // Beginnings of all lengths together.
        for ((length, tokens), id) in golden.continuations.iter().zip(4..) {
            served.submit(greedy(id, &golden.prompt[..*length], tokens.len() as u32));
        }
        served.run();
        for ((length, tokens), id) in golden.continuations.iter().zip(4..) {
            let told = served.answers[&id].tokens(0);
            assert_eq!(&told, tokens, "{} after {length}", golden.name);
        }
    }
}
