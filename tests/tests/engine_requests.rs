//! What each field of a request does, how answers end, and what is refused by its name.

use checkpoint::Checkpoint;
use engine::engine::{OpenError, Settings};
use engine::request::{Finish, Generate, Miss, Pooling, Refused, Request, Task};
use engine::weights::{Element, Tensor};
use kernels_core::dtype::Dtype;
use kernels_core::error::Fault;
use kernels_core::simd::Level;
use pagewise_tests::model::{Runner, thin};
use pagewise_tests::serving::{
    Making, Served, VOCAB, generate, greedy, prompt, settings, vocabulary,
};
use safetensors::SafeTensors;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A greedy answer of 20 tokens after a change to the request.
fn answered(making: Making, change: impl FnOnce(&mut Generate)) -> (Vec<u32>, Finish, Vec<usize>) {
    let mut served = Served::made(settings(), making);
    let mut request = greedy(1, &prompt(1, 9), 20);
    change(generate(&mut request));
    let answer = served.answer(request);
    served.assert_all_pages_free();
    (answer.tokens(0), answer.ends[&0].clone(), answer.held)
}

fn plain() -> Vec<u32> {
    let (tokens, end, _) = answered(Making::default(), |_| {});
    assert_eq!((tokens.len(), end), (20, Finish::Length));
    tokens
}

#[test]
fn an_answer_ends_with_the_models_end_with_a_stop_token_or_with_neither() {
    let tokens = plain();
    let (last, at) = (tokens[6], tokens.iter().position(|&token| token == tokens[6]));
    let upto = &tokens[..=at.expect("it is there")];
    let ends = || Making { eos: vec![last], ..Making::default() };
    let (got, end, _) = answered(ends(), |_| {});
    assert_eq!((&got[..], end), (upto, Finish::Eos));
    let (got, end, _) = answered(ends(), |asked| asked.stop.ignore_eos = true);
    assert_eq!((&got, end), (&tokens, Finish::Length));
    let (got, end, _) = answered(Making::default(), |asked| asked.stop.tokens = [last].into());
    assert_eq!((&got[..], end), (upto, Finish::Token(last)));
    // A stop token is not drawn before the least that is asked for.
    let (got, _, _) = answered(ends(), |asked| asked.stop.min_new = 15);
    assert!(got.len() > 15 && !got[..15].contains(&last), "{got:?}");
    assert_eq!(got[..upto.len() - 1], upto[..upto.len() - 1]);
}

#[test]
fn a_stop_string_is_found_across_tokens_and_what_may_begin_it_is_held() {
    let tokens = plain();
    let words = vocabulary();
    let bytes: Vec<u8> = tokens.iter().flat_map(|&token| words.bytes(token).to_vec()).collect();
    let starts: Vec<usize> = tokens
        .iter()
        .scan(0, |end, &token| {
            *end += words.bytes(token).len();
            Some(*end)
        })
        .collect();
    // From within the fourth token into the sixth.
    let string = bytes[starts[3] - 1..starts[4] + 2].to_vec();
    let first = bytes.windows(string.len()).position(|part| part == string);
    let before = first.expect("it is there");
    let (got, end, held) = answered(Making::default(), |asked| {
        asked.stop.strings = [b"none".to_vec(), string.clone()].into();
    });
    assert_eq!(end, Finish::String { which: 1, before });
    let count = starts.iter().position(|&end| end >= before + string.len()).expect("it ends");
    assert_eq!(got, tokens[..=count]);
    assert!(starts[count - 1] > before, "tokens divide it");
    assert_eq!(held[count - 1], starts[count - 1] - before);
    let (got, _, _) = answered(Making::default(), |asked| {
        asked.stop.strings = [string].into();
        asked.stop.min_new = 12;
    });
    assert!(got.len() >= 12);
}

#[test]
fn penalties_biases_masks_and_bad_words_change_what_is_drawn() {
    let tokens = plain();
    let repeated = |tokens: &[u32]| (1..tokens.len()).any(|at| tokens[..at].contains(&tokens[at]));
    assert!(repeated(&tokens) || tokens.iter().any(|token| prompt(1, 9).contains(token)));
    let change = |change: fn(&mut Generate)| answered(Making::default(), change).0;
    assert!(!repeated(&change(|asked| asked.sampling.presence = 100.0)));
    assert!(!repeated(&change(|asked| asked.sampling.frequency = 100.0)));
    // Nothing of the prompt or before comes again.
    let new = change(|asked| asked.sampling.repetition = 1e6);
    assert!(!repeated(&new) && new.iter().all(|token| !prompt(1, 9).contains(token)));
    assert_eq!(change(|asked| asked.sampling.bias = [(77, 1000.0)].into()), [77; 20]);
    let few = change(|asked| asked.sampling.allowed = Some([3, 64, 130].into()));
    assert!(few.iter().all(|token| [3, 64, 130].contains(token)));
    let pair = [tokens[4], tokens[5]];
    let (got, _, _) = answered(Making::default(), |asked| {
        asked.sampling.bad_words = [pair.to_vec(), vec![tokens[8]]].into();
    });
    assert!(!got.windows(2).any(|two| two == pair) && !got.contains(&tokens[8]));
    assert!(tokens.windows(2).any(|two| two == pair));
}

#[test]
fn where_no_token_is_allowed_an_answer_fails_in_words() {
    let making = Making { eos: vec![7], ..Making::default() };
    let (tokens, end, _) = answered(making, |asked| {
        asked.sampling.allowed = Some([7].into());
        asked.stop.min_new = 1;
    });
    assert!(tokens.is_empty());
    assert_eq!(end, Finish::Stuck("no token is allowed to come next".into()));
}

#[test]
fn a_prompt_alone_is_computed_and_each_choice_ends() {
    let mut served = Served::new(settings());
    let mut request = greedy(1, &prompt(1, 9), 0);
    generate(&mut request).choices = 3;
    let answer = served.answer(request);
    assert_eq!(answer.prompt, Some((0, Miss::Cold, Vec::new())));
    assert_eq!(answer.choices.len(), 0);
    assert_eq!(answer.ends.into_values().collect::<Vec<_>>(), vec![Finish::Length; 3]);
    served.assert_all_pages_free();
}

#[test]
fn a_seat_is_told_in_the_step_it_is_given_and_once() {
    // One seat, of which the first has a turn of 4 tokens.
    let mut served = Served::new(Settings { rows: 1, patience: 10, turn: 4, ..settings() });
    served.submit(greedy(1, &prompt(1, 40), 30));
    served.submit(greedy(2, &prompt(2, 9), 3));
    served.step();
    let first = &served.answers[&1];
    assert!(first.admitted && first.prompt.is_none(), "a chunk of its prompt is computed");
    assert!(!served.answers[&2].admitted, "it waits");
    while !served.answers[&2].admitted {
        assert!(served.answers[&1].ends.is_empty(), "the first has to wait, not to end");
        served.step();
    }
    // That the first is told nothing when it gets its seat again, `step` asserts.
    served.run();
    assert_eq!(served.engine.counters().preemptions, 1);
    let mut request = greedy(3, &prompt(3, 9), 3);
    request.task = Task::Embed(Pooling::Last);
    assert!(served.answer(request).admitted);
    served.submit(greedy(4, &prompt(4, 9), 3));
    served.engine.cancel(4);
    served.run();
    assert!(!served.answers[&4].admitted, "it ended where it waited");
}

#[test]
fn an_answer_ends_where_positions_or_pages_do() {
    let mut served = Served::new(settings());
    let answer = served.answer(greedy(1, &prompt(1, 90), 500));
    assert_eq!((answer.tokens(0).len(), &answer.ends[&0]), (6, &Finish::Length));
    let mut served = Served::new(Settings { pages: 5, ..settings() });
    let answer = served.answer(greedy(1, &prompt(1, 15), 500));
    assert_eq!((answer.tokens(0).len(), &answer.ends[&0]), (5, &Finish::Length));
    served.assert_all_pages_free();
}

#[test]
fn why_no_more_was_found_is_told() {
    let mut served = Served::new(Settings { pages: 24, ..settings() });
    let found = |served: &mut Served, id, salt: &[u8]| {
        let request = Request { salt: salt.into(), ..greedy(id, &prompt(1, 30), 1) };
        let prompt = served.answer(request).prompt.expect("it is computed");
        (prompt.0, prompt.1)
    };
    assert_eq!(found(&mut served, 1, b""), (0, Miss::Cold));
    assert_eq!(found(&mut served, 2, b""), (28, Miss::PartialPage));
    assert_eq!(found(&mut served, 3, b"mine"), (0, Miss::Salt));
    served.answer(greedy(4, &prompt(2, 90), 3));
    assert_eq!(found(&mut served, 5, b"").1, Miss::Evicted);
    let misses = served.engine.counters().misses;
    let count = |miss| misses[Miss::ALL.iter().position(|&other| other == miss).expect("listed")];
    assert_eq!([Miss::PartialPage, Miss::Salt, Miss::Evicted].map(count), [1, 1, 1]);
    assert_eq!(count(Miss::Cold), 2);
}

#[test]
fn a_request_that_is_cancelled_or_overdue_ends_and_frees_its_pages() {
    let mut served = Served::new(settings());
    let mut request = greedy(1, &prompt(1, 30), 60);
    generate(&mut request).choices = 3;
    served.submit(request);
    // One is cancelled before its prompt is computed, one while its choices run.
    let mut early = greedy(2, &prompt(2, 60), 60);
    generate(&mut early).choices = 2;
    served.submit(early);
    served
        .submit(Request { deadline: Some(Duration::from_secs(5)), ..greedy(3, &prompt(3, 9), 60) });
    served.step();
    served.engine.cancel(2);
    (0..6).for_each(|_| served.step());
    served.engine.cancel(1);
    served.engine.cancel(77);
    served.now = Duration::from_secs(5);
    served.step();
    assert!(served.engine.is_idle());
    let ends = |id: u64| served.answers[&id].ends.values().cloned().collect::<Vec<_>>();
    assert_eq!(ends(1), vec![Finish::Cancelled; 3]);
    assert_eq!(ends(2), vec![Finish::Cancelled; 2]);
    assert_eq!(ends(3), vec![Finish::Deadline]);
    assert!(served.answers[&1].choices.len() == 3 && served.answers[&2].choices.is_empty());
    served.assert_all_pages_free();
}

#[test]
fn a_device_that_fails_for_good_ends_everybody_in_words_and_takes_nobody() {
    let fails = Arc::new(AtomicBool::new(false));
    let fault = Fault::Device { says: "an illegal address", code: 700 };
    let making = Making { fails: Some(fails.clone()), fault, ..Making::default() };
    let mut served = Served::made(Settings { rows: 2, ..settings() }, making);
    let mut forked = greedy(2, &prompt(2, 9), 20);
    generate(&mut forked).choices = 3;
    served.submit(greedy(1, &prompt(1, 9), 20));
    served.submit(forked);
    // One that waits for a seat, and would be served by the next step.
    served.submit(greedy(3, &prompt(3, 9), 20));
    (0..4).for_each(|_| served.step());
    assert_eq!(served.engine.failure(), None);
    fails.store(true, Ordering::Relaxed);
    served.step();
    // What comes back is not trusted.
    fails.store(false, Ordering::Relaxed);
    assert!(served.engine.is_idle(), "nobody is left");
    for (id, choices) in [(1, 1), (2, 3), (3, 1)] {
        let ends = &served.answers[&id].ends;
        assert_eq!(ends.len(), choices, "request {id}");
        let told = |end: &Finish| matches!(end, Finish::Failed(why) if why.contains("illegal"));
        assert!(ends.values().all(told), "{ends:?}");
    }
    assert_eq!(served.engine.failure().map(|error| error.fault), Some(fault));
    let refused = served.refused(greedy(4, &prompt(4, 9), 1));
    assert!(refused.field == "device" && refused.got.contains("illegal"), "{refused}");
    served.assert_all_pages_free();
}

/// The golden Llama, in which nothing finite follows token 100.
fn poisoned() -> Checkpoint {
    let name = "model.embed_tokens.weight";
    let golden = include_bytes!("../golden/llama/golden.safetensors");
    let parsed = SafeTensors::deserialize(golden).expect("the golden is whole");
    let mut table = parsed.tensor(name).expect("the golden has it").data().to_vec();
    let row = 96 * 4;
    table[100 * row..][..row].copy_from_slice(&f32::NAN.to_le_bytes().repeat(96));
    let (bytes, shape) = (table.len(), vec![VOCAB.into(), 96]);
    let table = Tensor::new(Element::Float(Dtype::F32), shape, Arc::new(table), 0..bytes);
    let mut checkpoint = thin::checkpoint();
    checkpoint.tensors.insert(name.into(), table.expect("it has its shape"));
    checkpoint
}

#[test]
fn logits_that_are_not_finite_end_their_own_request_and_no_other() {
    let company = |id: u64| {
        let mut tokens = prompt(id as u32, 12);
        tokens.iter_mut().filter(|token| **token == 100).for_each(|token| *token = 99);
        greedy(id, &tokens, 10)
    };
    let making = || Making { checkpoint: Some(poisoned()), ..Making::default() };
    let mut served = Served::made(settings(), making());
    let alone = [1, 2].map(|id| served.answer(company(id)));
    let mut served = Served::made(settings(), making());
    [1, 2].into_iter().for_each(|id| served.submit(company(id)));
    let mut sick = vec![greedy(3, &[5, 100, 6], 10), greedy(4, &[5, 100, 6, 7], 10)];
    generate(&mut sick[1]).prompt_top = Some(0);
    sick.push(Request { task: Task::Embed(Pooling::Last), ..greedy(5, &[5, 100, 6], 10) });
    sick.into_iter().for_each(|request| served.submit(request));
    served.run();
    for id in 3..=5 {
        let answer = &served.answers[&id];
        assert!(matches!(&answer.ends[&0], Finish::Failed(why) if why.contains("not finite")));
        assert!(answer.choices.is_empty() && answer.embedding.is_none());
    }
    for (id, alone) in (1..).zip(&alone) {
        assert_eq!(served.answers[&id], *alone);
    }
    served.assert_all_pages_free();
}

#[test]
fn a_backend_that_fails_fails_the_requests_of_that_step_alone() {
    let fails = Arc::new(AtomicBool::new(false));
    let making = Making { fails: Some(fails.clone()), ..Making::default() };
    let mut served = Served::made(Settings { rows: 2, ..settings() }, making);
    (1..=3).for_each(|id| served.submit(greedy(id, &prompt(id as u32, 9), 10)));
    (0..4).for_each(|_| served.step());
    fails.store(true, Ordering::Relaxed);
    served.step();
    fails.store(false, Ordering::Relaxed);
    served.run();
    for id in [1, 2] {
        let end = &served.answers[&id].ends[&0];
        assert!(matches!(end, Finish::Failed(why) if why.contains("cpu")), "{end:?}");
        assert_eq!(served.answers[&id].tokens(0).len(), 4);
    }
    let counters = served.engine.counters();
    assert_eq!((counters.failed_steps, counters.failures), (1, 2));
    let mut other = Served::new(settings());
    let alone = other.answer(greedy(3, &prompt(3, 9), 10));
    assert_eq!(served.answers[&3].bits(), alone.bits());
    served.assert_all_pages_free();
}

#[test]
fn embeddings_are_of_length_one_and_of_the_states_they_name() {
    let mut served = Served::new(settings());
    let embed = |served: &mut Served, id, pooling, tokens: &[u32]| {
        let request = Request { task: Task::Embed(pooling), ..greedy(id, tokens, 1) };
        served.answer(request).embedding.expect("it is computed")
    };
    let tokens = prompt(1, 33);
    let mean = embed(&mut served, 1, Pooling::Mean, &tokens);
    let last = embed(&mut served, 2, Pooling::Last, &tokens);
    for values in [&mean, &last] {
        assert_eq!(values.len(), 96);
        let length: f64 = values.iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    assert_ne!(mean, last);
    // Of one token both are the same.
    let one = embed(&mut served, 3, Pooling::Mean, &tokens[..1]);
    assert_eq!(one, embed(&mut served, 4, Pooling::Last, &tokens[..1]));
    served.assert_all_pages_free();
}

#[test]
fn a_mean_is_that_of_the_states_of_all_tokens() {
    let tokens = thin::prompt();
    let mut served = Served::new(settings());
    let asked = Request { task: Task::Embed(Pooling::Mean), ..greedy(1, &tokens, 1) };
    let mean = served.answer(asked).embedding.expect("it is computed");
    // Logits are linear in the states: so the output weights make the mean of all logits of
    // the mean state, but for its length.
    let checkpoint = thin::checkpoint();
    let cpu = backends::cpu::Cpu::new(Level::best(), 1);
    let capacity = thin::capacity(Dtype::F16);
    let mut runner = Runner::new(cpu, &checkpoint, None, &capacity, &[0, 1, 2, 3, 4, 5, 6, 7]);
    let logits = runner.forward(&tokens);
    assert!(logits.len() > 1);
    let sum = |token: usize| logits.iter().map(|row| f64::from(row[token])).sum::<f64>();
    let weights = checkpoint.tensors["lm_head.weight"].bytes().chunks_exact(4);
    let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four"));
    let floats: Vec<f32> = weights.map(float).collect();
    let of_mean = |row: &[f32]| -> f64 {
        row.iter().zip(&mean).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum()
    };
    let [mut dot, mut squares, mut own] = [0.0; 3];
    for (token, row) in floats.chunks(96).enumerate() {
        let (expected, got) = (sum(token), of_mean(row));
        dot += expected * got;
        squares += expected * expected;
        own += got * got;
    }
    let cosine = dot / (squares * own).sqrt();
    assert!(cosine > 0.9999, "{cosine}");
}

#[test]
fn every_field_that_is_wrong_is_refused_by_its_name() {
    let mut served = Served::new(settings());
    let mut refused = |expected: &str, change: &dyn Fn(&mut Request)| {
        let mut request = greedy(1, &prompt(1, 9), 4);
        change(&mut request);
        let Refused { field, .. } = served.refused(request);
        assert_eq!(field, expected);
    };
    refused("prompt", &|x| x.prompt.clear());
    refused("prompt", &|x| x.prompt[3] = VOCAB);
    refused("prompt", &|x| x.prompt = prompt(1, 96));
    let mut of = |field: &str, change: &dyn Fn(&mut Generate)| {
        refused(field, &|request| change(generate(request)));
    };
    of("choices", &|x| x.choices = 0);
    of("choices", &|x| x.choices = u32::MAX);
    of("top", &|x| x.top = Some(129));
    of("prompt_top", &|x| x.prompt_top = Some(129));
    of("prompt_from", &|x| x.prompt_from = 1);
    of("prompt_from", &|x| (x.prompt_top, x.prompt_from) = (Some(0), 9));
    for wrong in [f32::NAN, f32::INFINITY, -0.1] {
        of("sampling.temperature", &|x| x.sampling.temperature = wrong);
        of("sampling.top_p", &|x| x.sampling.top_p = wrong);
        of("sampling.min_p", &|x| x.sampling.min_p = wrong);
        of("sampling.repetition", &|x| x.sampling.repetition = wrong);
    }
    of("sampling.top_p", &|x| x.sampling.top_p = 1.1);
    of("sampling.repetition", &|x| x.sampling.repetition = 0.0);
    of("sampling.presence", &|x| x.sampling.presence = f32::NAN);
    of("sampling.frequency", &|x| x.sampling.frequency = f32::NEG_INFINITY);
    of("sampling.bias", &|x| x.sampling.bias = [(VOCAB, 1.0)].into());
    of("sampling.bias", &|x| x.sampling.bias = [(1, f32::NAN)].into());
    of("sampling.bias", &|x| x.sampling.bias = [(1, 1.0); 1025].into());
    of("sampling.allowed", &|x| x.sampling.allowed = Some([].into()));
    of("sampling.allowed", &|x| x.sampling.allowed = Some([u32::MAX].into()));
    of("sampling.bad_words", &|x| x.sampling.bad_words = [vec![]].into());
    of("sampling.bad_words", &|x| x.sampling.bad_words = [vec![1, VOCAB]].into());
    of("sampling.bad_words", &|x| x.sampling.bad_words = vec![vec![1]; 1025].into());
    of("stop.tokens", &|x| x.stop.tokens = [VOCAB].into());
    of("stop.tokens", &|x| x.stop.tokens = [1; 1025].into());
    of("stop.strings", &|x| x.stop.strings = [vec![]].into());
    of("stop.strings", &|x| x.stop.strings = [vec![b'a'; 1025]].into());
    of("stop.strings", &|x| x.stop.strings = vec![vec![b'a']; 65].into());
    served.submit(greedy(1, &prompt(1, 9), 4));
    let twice = served.refused(greedy(1, &prompt(1, 9), 4));
    assert_eq!(twice.to_string(), "id must be a number that no living request has, not 1");
    served.run();
    // More than all pages hold.
    let mut small = Served::new(Settings { pages: 3, ..settings() });
    let refused = small.refused(greedy(1, &prompt(1, 12), 1));
    assert_eq!(refused.field, "prompt");
    assert_eq!(refused.expected, "at most 11 tokens, so that one can follow");
}

#[test]
fn settings_that_cannot_be_served_are_refused_by_name() {
    type Change = fn(&mut Settings);
    let wrong: [(&str, Change); 7] = [
        ("rows", |x| x.rows = 0),
        ("step_tokens", |x| x.step_tokens = 5),
        ("chunk", |x| x.chunk = 0),
        ("beside", |x| x.beside = 0),
        ("page_len", |x| x.page_len = 0),
        ("pages", |x| x.pages = 0),
        ("turn", |x| x.turn = 0),
    ];
    for (field, change) in wrong {
        let mut settings = Settings { kv: Dtype::F16, ..settings() };
        change(&mut settings);
        let error = settings.check().expect_err(field);
        assert_eq!(OpenError::from(error.clone()), OpenError::Settings(error.clone()));
        assert_eq!(error.field, field);
    }
}
