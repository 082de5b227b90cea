//! An engine on the emulated device, on all the ways that answers take: as many tokens, guesses,
//! hits and retractions come as on the CPU, and log-probabilities as close as its sums allow.
#![cfg(emulated)]

use backends::plugin::Plugin;
use engine::engine::{Change, Counters, Guessing, InFlight, Publish, Settings};
use engine::lora::{self, Adapter};
use engine::model::{Model, Source};
use engine::processor::Keep;
use engine::request::{Pooling, Request, Scored, Task};
use engine::weights::{Aside, Quantize};
use kernels_core::device::Backend;
use kernels_core::dtype::Dtype;
use kernels_core::workers::Inline;
use pagewise_tests::guided::Cycle;
use pagewise_tests::lora::{adapter, image, merged};
use pagewise_tests::model::thin;
use pagewise_tests::serving::{
    Answer, Drafter, Making, Served, generate, greedy, prompt, settings,
};

/// Sums of attention have another order there.
const APART_MOST: f32 = 1e-3;
const ALL: &[&str] = &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

fn devices() -> [Box<dyn Backend>; 2] {
    let device = || Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
    [Box::new(device()), Box::new(device())]
}

/// Plays on the CPU and on the device, and holds this one's answers to the other's; what is
/// left of both, the device's last.
fn both<T: PartialEq + std::fmt::Debug>(
    settings: &Settings,
    making: impl Fn() -> Making,
    play: impl Fn(&mut Served) -> T,
) -> [Served; 2] {
    let mut cpu = Served::made(settings.clone(), making());
    let mut device =
        Served::made(settings.clone(), Making { devices: Some(devices()), ..making() });
    let (expected, got) = (play(&mut cpu), play(&mut device));
    assert_eq!(got, expected);
    assert_eq!(device.answers.len(), cpu.answers.len());
    for (id, expected) in &cpu.answers {
        assert_alike(*id, &device.answers[id], expected);
    }
    // Who ran when follows from tokens alone.
    assert_eq!(device.engine.counters(), cpu.engine.counters());
    assert_eq!(device.engine.counters().failed_steps, 0);
    device.assert_all_pages_free();
    [cpu, device]
}

fn assert_alike(id: u64, got: &Answer, expected: &Answer) {
    assert_eq!(got.ends, expected.ends, "request {id}");
    assert_eq!(got.versions, expected.versions, "request {id}");
    assert_eq!(got.guesses, expected.guesses, "request {id}");
    for choice in expected.choices.keys() {
        assert_eq!(got.tokens(*choice), expected.tokens(*choice), "request {id}");
    }
    let prompt = |answer: &Answer| answer.prompt.as_ref().map(|it| (it.0, it.1, it.2.len()));
    assert_eq!(prompt(got), prompt(expected), "request {id}");
    let (got_all, expected_all) = (scored(got), scored(expected));
    assert_eq!(got_all.len(), expected_all.len(), "request {id}");
    for (got, expected) in got_all.into_iter().zip(expected_all) {
        assert_eq!(got.token, expected.token, "request {id}");
        assert_eq!(got.kept, expected.kept, "request {id}");
        let (got, expected) = (floats(got), floats(expected));
        assert_eq!(got.len(), expected.len(), "request {id}");
        assert_close(id, &got, &expected);
    }
    let embedding = |answer: &Answer| answer.embedding.clone().unwrap_or_default();
    let (got, expected) = (embedding(got), embedding(expected));
    assert_eq!(got.len(), expected.len(), "request {id}");
    assert_close(id, &got, &expected);
}

fn assert_close(id: u64, got: &[f32], expected: &[f32]) {
    for (got, expected) in got.iter().zip(expected) {
        let close = (got - expected).abs() <= APART_MOST || got == expected;
        assert!(close, "request {id}: {got}, on the CPU {expected}");
    }
}

/// All tokens of which something is told.
fn scored(answer: &Answer) -> Vec<&Scored> {
    let prompt = answer.prompt.iter().flat_map(|prompt| prompt.2.iter().flatten());
    prompt.chain(answer.choices.values().flatten()).collect()
}

fn floats(scored: &Scored) -> Vec<f32> {
    let listed = scored.top.iter().map(|(_, logprob)| *logprob);
    let listed = listed.chain(scored.chosen.iter().copied());
    [scored.raw, scored.processed].into_iter().chain(listed).collect()
}

fn publish(served: &mut Served, id: u64, adapter: &Adapter) {
    let slots = served.engine.adapter_settings().expect("it has slots");
    let image = image(&thin::checkpoint(), adapter, slots);
    let publish = Publish { adapter: id, image, in_flight: InFlight::Wait, pinned: false };
    let version = served.engine.publish(publish).expect("it has slots");
    for _ in 0..100 {
        let came = |change: &Change| matches!(change, Change::Current { version: came, .. } if *came == version);
        if served.engine.changes().iter().any(came) {
            return;
        }
        served.step();
    }
    panic!("it comes");
}

#[test]
fn rows_with_adapters_and_without_share_steps() {
    let base = thin::checkpoint();
    let adapters = [adapter(&base, ALL, 8, 3), adapter(&base, &["embed_tokens", "lm_head"], 5, 4)];
    let slots = Some(lora::Settings::new(2, 8, Dtype::F32));
    let making = || Making { adapters: slots, ..Making::default() };
    let [_, device] = both(&settings(), making, |served| {
        for (id, adapter) in (0..).zip(&adapters) {
            publish(served, id, adapter);
        }
        for (id, adapter) in [(1, None), (2, Some(0)), (3, Some(1))] {
            let mut request = Request { adapter, ..greedy(id, &prompt(9, 7), 4) };
            generate(&mut request).top = Some(3);
            served.submit(request);
        }
        served.run();
        served.engine.counters().last_rows
    });
    let tokens = [1, 2, 3].map(|id| device.answers[&id].tokens(0));
    assert!(tokens[0] != tokens[1] && tokens[0] != tokens[2], "adapters do something: {tokens:?}");
    assert_eq!(device.engine.counters().last_rows, 3, "all were in one step");
}

#[test]
fn weights_are_swapped_between_two_steps() {
    let base = thin::checkpoint();
    let other = merged(&base, &adapter(&base, ALL, 4, 9));
    for in_flight in [InFlight::Wait, InFlight::Recompute, InFlight::Keep] {
        let [_, device] = both(&settings(), Making::default, |served| {
            served.submit(greedy(1, &prompt(5, 6), 6));
            while served.answers[&1].tokens(0).len() < 3 {
                served.step();
            }
            let mut aside = Aside::default();
            let (config, tensors) = (&other.config, &other.tensors);
            let source = Source { config, tensors, quantize: None, workers: &Inline };
            let model = Model::load(&mut aside, &source, &mut |_, _| {}).expect("it loads");
            let version = served.engine.replace_weights((aside, model), in_flight);
            served.submit(greedy(2, &prompt(6, 5), 3));
            served.run();
            let gone = Change::Gone { adapter: None, version: 1 };
            assert!(served.engine.changes().contains(&gone), "the old weights are free");
            version
        });
        let old = in_flight == InFlight::Wait;
        assert_eq!(device.answers[&1].versions[5] == 1, old, "{in_flight:?}");
        assert_eq!(device.answers[&2].versions, [device.answers[&2].versions[0]; 3]);
        assert_ne!(device.answers[&2].versions[0], 1);
    }
}

#[test]
fn what_sleeps_goes_on_where_it_was() {
    both(&settings(), Making::default, |served| {
        served.submit(greedy(1, &prompt(1, 6), 6));
        (0..3).for_each(|_| served.step());
        served.engine.retract();
        assert_eq!(served.engine.release_pages(), Ok(true));
        assert!(!served.engine.has_pages());
        served.submit(greedy(2, &prompt(2, 4), 2));
        served.step();
        served.engine.take_pages().expect("there is room");
        served.run();
    });
}

#[test]
fn texts_become_vectors() {
    let [_, device] = both(&settings(), Making::default, |served| {
        for (id, pooling) in [(1, Pooling::Last), (2, Pooling::Mean)] {
            let task = Task::Embed(pooling);
            served.submit(Request { task, ..greedy(id, &prompt(3, 9), 0) });
        }
        served.run();
    });
    let of = |id: u64| device.answers[&id].embedding.clone().expect("it was asked for");
    assert_ne!(of(1), of(2));
    let length = of(2).iter().map(|x| x * x).sum::<f32>();
    assert!((length - 1.0).abs() < 1e-4, "{length}");
}

#[test]
fn what_is_guessed_holds_and_no_bit_tells() {
    let guessing = Guessing { tokens: 2, paths: 1, rows: 24 };
    let tree = Guessing { tokens: 2, paths: 2, rows: 24 };
    let play = |served: &mut Served| {
        // Of few tokens, so that what came before comes again.
        for (id, allowed) in [(1, &[3, 4][..]), (2, &[5])] {
            let mut request = greedy(id, &prompt(id as u32, 5), 9);
            let asked = generate(&mut request);
            (asked.sampling.temperature, asked.sampling.seed) = (1.0, id);
            asked.sampling.allowed = Some(allowed.iter().copied().collect());
            served.submit(request);
        }
        served.submit(greedy(3, &prompt(4, 6), 8));
        served.run();
    };
    let smaller = || Some(Drafter::Model(thin::checkpoint(), Some(Quantize::Q8)));
    let base = || Some(Drafter::Base(Some(Quantize::Q4)));
    let [_, alone] = both(&settings(), Making::default, play);
    for (guessing, drafter) in
        [(guessing, None), (tree, smaller()), (guessing, smaller()), (guessing, base())]
    {
        let told = match &drafter {
            None => "what came before",
            Some(Drafter::Model(..)) => "a model",
            Some(Drafter::Base(_)) => "the base",
        };
        let making = || Making {
            drafter: match told {
                "a model" => smaller(),
                "the base" => base(),
                _ => None,
            },
            ..Making::default()
        };
        let settings = Settings { guessing, ..settings() };
        let [_, device] = both(&settings, making, play);
        let Counters { held, guessed, failed_guesses, .. } = device.engine.counters();
        assert!(held > 0 && failed_guesses == 0, "{told}: {held} of {guessed}");
        // By its own distribution, which a smaller model comes close to.
        let free = device.answers[&3].guesses[&0];
        assert!(told != "a model" || free[1] > 0, "{free:?}");
        for id in [1, 2, 3] {
            assert_eq!(device.answers[&id].bits(), alone.answers[&id].bits(), "by {told}");
        }
    }
}

#[test]
fn answers_keep_to_grammars_and_settings() {
    let [_, device] = both(&settings(), Making::default, |served| {
        let mut kept = greedy(1, &prompt(1, 5), 9);
        let asked = generate(&mut kept);
        (asked.grammar, asked.top) = (Some(Cycle::grammar(5, 6, &[])), Some(3));
        let mut set = greedy(2, &prompt(2, 6), 6);
        let asked = generate(&mut set);
        (asked.sampling.temperature, asked.sampling.seed) = (0.8, 5);
        (asked.sampling.top_k, asked.sampling.top_p) = (20, 0.9);
        (asked.sampling.presence, asked.sampling.repetition) = (0.5, 1.2);
        asked.sampling.bias = [(4, 1.5)].into();
        asked.sampling.bad_words = [vec![9]].into();
        asked.kept = Some(Keep::Tokens);
        [kept, set].into_iter().for_each(|request| served.submit(request));
        served.run();
    });
    let tokens = device.answers[&1].tokens(0);
    assert_eq!(tokens.len(), 6, "it is complete then");
    assert!((0..).zip(&tokens).all(|(at, token)| token % 5 == at % 5), "{tokens:?}");
}

#[test]
fn what_a_model_says_of_tokens_is_told() {
    let [_, device] = both(&settings(), Making::default, |served| {
        let mut request = greedy(1, &prompt(7, 9), 4);
        let asked = generate(&mut request);
        (asked.top, asked.prompt_top, asked.choices) = (Some(5), Some(2), 2);
        asked.chosen = [0, 17, 130].into();
        served.submit(request);
        served.run();
    });
    let answer = &device.answers[&1];
    assert_eq!(answer.prompt.as_ref().expect("it was computed").2.len(), 9);
    let token = &answer.choices[&1][3];
    assert_eq!((token.top.len(), token.chosen.len()), (5, 3));
    assert!(token.chosen.iter().all(|logprob| *logprob <= token.top[0].1));
}

#[test]
fn pages_are_shared_and_given_back() {
    // As many as two of them need, and somebody always gives some back.
    let tight = Settings { pages: 9, rows: 3, ..settings() };
    let [_, device] = both(&tight, Making::default, |served| {
        for id in 1..=3 {
            let mut tokens = prompt(1, 9);
            tokens.push(id as u32);
            let priority = if id == 3 { -1 } else { 0 };
            served.submit(Request { priority, ..greedy(id, &tokens, 10) });
            served.step();
        }
        served.run();
    });
    let counters = device.engine.counters();
    assert!(counters.hits > 0 && counters.cached_tokens > 0, "{counters:?}");
    assert!(counters.preemptions > 0, "{counters:?}");
}
