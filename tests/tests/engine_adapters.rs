//! Adapters over one base: what they add, that no company changes a bit of it, and what
//! becomes of answers when a version comes.

use engine::engine::{Change, Guessing, InFlight, Policy, Publish, Settings, Span};
use engine::lora::{self, Adapter, AdapterError, Image};
use engine::model::{Model, Source};
use engine::request::{Finish, Miss, Request};
use engine::weights::{Aside, Quantize};
use kernels_core::dtype::Dtype;
use kernels_core::workers::Inline;
use pagewise_tests::lora::{adapter, image, merged};
use pagewise_tests::model::thin;
use pagewise_tests::serving::{
    Answer, Drafter, Making, Served, generate, greedy, prompt, settings,
};

const ALL: &[&str] = &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

fn slots(slots: u32) -> lora::Settings {
    lora::Settings::new(slots, 16, Dtype::F32)
}

fn served(settings: Settings, count: u32) -> Served {
    let making = Making { adapters: Some(slots(count)), ..Making::default() };
    Served::made(settings, making)
}

/// Publishes and waits until it is current; its version.
fn publish(served: &mut Served, id: u64, adapter: &Adapter, in_flight: InFlight) -> u64 {
    let image = image(&thin::checkpoint(), adapter, served_slots(served));
    let publish = Publish { adapter: id, image, in_flight, pinned: false };
    let version = served.engine.publish(publish).expect("it has slots");
    for _ in 0..10_000 {
        let came = |change: &Change| matches!(change, Change::Current { version: came, .. } if *came == version);
        if served.engine.changes().iter().any(came) {
            return version;
        }
        served.step();
    }
    panic!("it comes");
}

fn served_slots(served: &Served) -> lora::Settings {
    served.engine.adapter_settings().expect("it has slots")
}

/// A request of an adapter, which samples and lists.
fn asked(id: u64, adapter: Option<u64>, seed: u32, len: usize, max_new: u32) -> Request {
    let mut request = Request { adapter, ..greedy(id, &prompt(seed, len), max_new) };
    let asked = generate(&mut request);
    (asked.sampling.temperature, asked.sampling.seed) = (0.9, u64::from(seed) + 7);
    (asked.top, asked.prompt_top) = (Some(3), Some(2));
    request
}

#[test]
fn an_adapter_adds_what_merging_it_into_the_base_would() {
    let base = thin::checkpoint();
    let mut long = adapter(&base, ALL, 5, 1);
    for term in long.terms.values_mut() {
        let lengths = (0..term.outputs).map(|at| 1.0 + (at % 7) as f32 / 3.0);
        term.magnitude = Some(lengths.collect());
    }
    let adapters = [
        adapter(&base, &["q_proj"], 3, 2),
        adapter(&base, ALL, 16, 3),
        adapter(&base, &["embed_tokens"], 4, 4),
        adapter(&base, &["lm_head"], 9, 5),
        adapter(&base, &["v_proj", "embed_tokens", "lm_head"], 2, 6),
        long,
    ];
    for (at, adapter) in adapters.iter().enumerate() {
        let request = |adapter| {
            let mut request = Request { adapter, ..greedy(1, &prompt(3, 30), 12) };
            (generate(&mut request).top, generate(&mut request).prompt_top) = (Some(4), Some(4));
            request
        };
        let settings = Settings { kv: Dtype::F32, ..settings() };
        let mut served = served(settings.clone(), 2);
        publish(&mut served, 9, adapter, InFlight::Wait);
        let added = served.answer(request(Some(9)));
        let checkpoint = Some(merged(&base, adapter));
        let making = Making { checkpoint, ..Making::default() };
        let expected = Served::made(settings.clone(), making).answer(request(None));
        let plain = Served::new(settings).answer(request(None));
        assert_eq!(added.tokens(0), expected.tokens(0), "adapter {at}");
        let [added, expected, plain] = [added, expected, plain].map(|answer| scores(&answer));
        let apart =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(apart(&added, &expected) < 2e-4, "adapter {at}: {}", apart(&added, &expected));
        assert!(apart(&added, &plain) > 0.05, "adapter {at} does something");
    }
}

/// Log-probabilities of prompt and answer.
fn scores(answer: &Answer) -> Vec<f32> {
    let prompt = answer.prompt.iter().flat_map(|prompt| prompt.2.iter().flatten());
    let answer = answer.choices.values().flatten();
    prompt.chain(answer).map(|scored| scored.raw).collect()
}

#[test]
fn many_adapters_share_steps_and_no_bit_depends_on_it() {
    let base = thin::checkpoint();
    let adapters = [
        adapter(&base, ALL, 16, 1),
        adapter(&base, &["q_proj", "down_proj"], 4, 2),
        adapter(&base, &["embed_tokens", "lm_head", "up_proj"], 7, 3),
        adapter(&base, &["lm_head"], 1, 4),
    ];
    let of = |id: u64| (id % 5).checked_sub(1);
    let requests =
        || (1..=10).map(|id| asked(id, of(id), id as u32, 20 + id as usize, 10 + id as u32 % 4));
    // Each alone: with its own adapter only, in steps that take it whole.
    let alone: Vec<Answer> = requests()
        .map(|request| {
            let roomy = Settings { step_tokens: 96, chunk: 96, ..settings() };
            let mut served = served(roomy, 1);
            if let Some(id) = request.adapter {
                publish(&mut served, id, &adapters[id as usize], InFlight::Wait);
            }
            served.answer(request)
        })
        .collect();
    for (chunk, guessing) in
        [(3, Guessing::NONE), (16, Guessing::NONE), (5, Guessing { tokens: 3, paths: 2, rows: 12 })]
    {
        let mut served = served(Settings { chunk, guessing, ..settings() }, 6);
        for (id, adapter) in (0..).zip(&adapters) {
            publish(&mut served, id, adapter, InFlight::Wait);
        }
        requests().for_each(|request| served.submit(request));
        served.run();
        for (expected, id) in alone.iter().zip(1..) {
            assert_eq!(expected.bits(), served.answers[&id].bits(), "request {id}");
        }
        assert!(served.engine.counters().chunks > 0);
        served.assert_all_pages_free();
    }
}

#[test]
fn the_base_guesses_for_its_adapters_and_no_bit_tells() {
    let base = thin::checkpoint();
    // Near enough to the base that its guesses often hold.
    let mut near = adapter(&base, ALL, 8, 3);
    near.terms.values_mut().for_each(|term| term.scale /= 8.0);
    let of = |id: u64| (id % 3 < 2).then_some(id % 3);
    let requests = || {
        (1..=12).map(|id| {
            let mut request = asked(id, of(id), id as u32, 9 + id as usize, 24);
            generate(&mut request).choices = 1 + id as u32 % 2;
            request
        })
    };
    let made = |guessing, pages, drafter| {
        let making = Making { drafter, adapters: Some(slots(3)), ..Making::default() };
        let mut served = Served::made(Settings { guessing, pages, ..settings() }, making);
        publish(&mut served, 0, &near, InFlight::Wait);
        publish(&mut served, 1, &adapter(&base, &["lm_head", "up_proj"], 4, 4), InFlight::Wait);
        served
    };
    let mut plain = made(Guessing::NONE, 128, None);
    let chain = Guessing { tokens: 4, paths: 1, rows: 48 };
    let mut held_of = |guessing: Guessing, drafter: Option<Drafter>| {
        // So few pages that some must wait.
        let mut served = made(guessing, 40, drafter);
        requests().for_each(|request| served.submit(request));
        served.run();
        let mut held = [0; 3];
        for request in requests() {
            let id = request.id;
            let answer = &served.answers[&id];
            assert_eq!(answer.bits(), plain.answer(request).bits(), "request {id}");
            held[id as usize % 3] += answer.guesses.values().map(|held| held[1]).sum::<u32>();
        }
        let counters = served.engine.counters();
        assert!(counters.preemptions > 0 && counters.failed_guesses == 0, "{counters:?}");
        served.assert_all_pages_free();
        held
    };
    assert_eq!(held_of(chain, None), [0; 3], "nothing repeats");
    for guessing in [chain, Guessing { paths: 3, ..chain }] {
        let [near, other, none] = held_of(guessing, Some(Drafter::Base(None)));
        assert!(near > 40 && other > 40 && none == 0, "{near} {other} {none}");
    }
    let by_few_bits = held_of(chain, Some(Drafter::Base(Some(Quantize::Q4))));
    assert!(by_few_bits.iter().all(|held| *held > 40), "{by_few_bits:?}");
}

#[test]
fn a_version_is_told_before_the_step_that_it_serves() {
    let base = thin::checkpoint();
    let mut served = served(settings(), 2);
    publish(&mut served, 1, &adapter(&base, ALL, 4, 1), InFlight::Wait);
    served.submit(asked(1, Some(1), 3, 8, 40));
    (0..4).for_each(|_| served.step());
    let image = image(&base, &adapter(&base, ALL, 4, 2), served_slots(&served));
    let publish = Publish { adapter: 1, image, in_flight: InFlight::Recompute, pinned: false };
    served.engine.publish(publish).expect("it has slots");
    let (moved, steps) = loop {
        let steps = served.engine.counters().steps;
        served.step();
        let came = served.engine.changes().into_iter().find_map(|change| match change {
            Change::Current { moved, .. } => Some(moved),
            _ => None,
        });
        if let Some(moved) = came {
            break (moved, steps);
        }
    };
    let counters = served.engine.counters();
    assert_eq!((moved.recomputed, counters.steps, counters.running), (1, steps, 0));
    served.run();
    assert_eq!(served.answers[&1].tokens(0).len(), 40);
}

#[test]
fn prefixes_are_found_under_their_own_adapter_and_version_alone() {
    let base = thin::checkpoint();
    let mut served = served(settings(), 4);
    let first = adapter(&base, ALL, 4, 1);
    publish(&mut served, 1, &first, InFlight::Wait);
    publish(&mut served, 2, &adapter(&base, ALL, 4, 2), InFlight::Wait);
    let found = |served: &mut Served, id, adapter| {
        let request = Request { adapter, ..greedy(id, &prompt(1, 30), 1) };
        let (cached, miss, _) = served.answer(request).prompt.expect("it is told");
        (cached, miss)
    };
    assert_eq!(found(&mut served, 1, Some(1)), (0, Miss::Cold));
    assert_eq!(found(&mut served, 2, Some(1)), (28, Miss::PartialPage));
    assert_eq!(found(&mut served, 3, Some(2)), (0, Miss::Version));
    assert_eq!(found(&mut served, 4, None), (0, Miss::Version));
    assert_eq!(found(&mut served, 5, None), (28, Miss::PartialPage));
    // The same adapter again is another version, whatever it holds.
    publish(&mut served, 1, &first, InFlight::Wait);
    assert_eq!(found(&mut served, 6, Some(1)), (0, Miss::Version));
    assert_eq!(found(&mut served, 7, Some(2)), (28, Miss::PartialPage));
}

/// An answer that is in flight when the second version comes: the tokens before it, the
/// answer, and the versions.
fn swapped(in_flight: InFlight, settings: Settings) -> (usize, Answer, [u64; 2], Served) {
    let base = thin::checkpoint();
    let mut served = served(settings, 4);
    let first = publish(&mut served, 1, &adapter(&base, ALL, 4, 1), InFlight::Wait);
    served.submit(asked(1, Some(1), 5, 21, 30));
    while served.answers[&1].tokens(0).len() < 9 {
        served.step();
    }
    // It is swapped at the beginning of the next step.
    let before = served.answers[&1].tokens(0).len();
    let second = publish(&mut served, 1, &adapter(&base, ALL, 4, 2), in_flight);
    // Who comes now has the new version, in the same steps.
    served.submit(asked(2, Some(1), 6, 18, 12));
    served.run();
    let answer = served.answers[&1].clone();
    (before, answer, [first, second], served)
}

/// The answer of one version alone.
fn whole(seed: u64, request: Request) -> Answer {
    let mut served = served(settings(), 1);
    publish(&mut served, 1, &adapter(&thin::checkpoint(), ALL, 4, seed), InFlight::Wait);
    served.answer(request)
}

#[test]
fn who_waits_comes_to_its_end_under_the_version_it_has() {
    let (before, answer, [first, second], mut served) = swapped(InFlight::Wait, settings());
    assert!((9..30).contains(&before));
    assert_eq!(answer.versions, vec![first; 30]);
    assert_eq!(answer.bits(), whole(1, asked(1, Some(1), 5, 21, 30)).bits());
    let later = &served.answers[&2];
    assert_eq!(later.versions, vec![second; 12]);
    assert_eq!(later.bits(), whole(2, asked(2, Some(1), 6, 18, 12)).bits());
    let gone = Change::Gone { adapter: Some(1), version: first };
    assert!(served.engine.changes().contains(&gone), "its slot is free with its last answer");
    served.assert_all_pages_free();
}

#[test]
fn who_is_computed_anew_has_the_bits_of_the_new_version_over_all_it_has() {
    let (before, answer, [first, second], mut served) = swapped(InFlight::Recompute, settings());
    let versions: Vec<u64> = (0..30).map(|at| if at < before { first } else { second }).collect();
    assert_eq!(answer.versions, versions);
    // What the new version says after the same tokens, nothing of the old one being left.
    let old = whole(1, asked(1, Some(1), 5, 21, 30));
    assert_eq!(answer.tokens(0)[..before], old.tokens(0)[..before]);
    let mut request = asked(1, Some(1), 5, 21, 30 - before as u32);
    request.prompt.extend(&answer.tokens(0)[..before]);
    generate(&mut request).prompt_top = None;
    let expected = whole(2, request);
    assert_eq!(answer.choices[&0][before..], expected.choices[&0][..]);
    assert!(answer.tokens(0) != old.tokens(0), "it makes a difference");
    served.assert_all_pages_free();
}

#[test]
fn who_is_kept_goes_on_over_old_keys_and_replays_to_the_same_bits_when_preempted() {
    let (before, calm, [first, second], mut served) = swapped(InFlight::Keep, settings());
    let versions: Vec<u64> = (0..30).map(|at| if at < before { first } else { second }).collect();
    assert_eq!(calm.versions, versions);
    assert_eq!(served.engine.counters().preemptions, 0);
    let anew = swapped(InFlight::Recompute, settings()).1;
    assert_ne!(calm.choices[&0][before..], anew.choices[&0][before..], "old keys are kept");
    // None of its pages is found, under either version.
    let mut request = asked(3, Some(1), 5, 21, 1);
    request.prompt.extend(&calm.tokens(0)[..8]);
    generate(&mut request).prompt_top = None;
    let (cached, miss, _) = served.answer(request).prompt.expect("it is told");
    assert_eq!((cached, miss), (0, Miss::Cold));
    served.assert_all_pages_free();

    // The same with so few pages that others push it aside after the swap.
    let base = thin::checkpoint();
    let making = Making { adapters: Some(slots(4)), ..Making::default() };
    let mut served = Served::made(Settings { pages: 20, ..settings() }, making);
    publish(&mut served, 1, &adapter(&base, ALL, 4, 1), InFlight::Wait);
    served.submit(asked(1, Some(1), 5, 21, 30));
    while served.answers[&1].tokens(0).len() < before {
        served.step();
    }
    let image = image(&base, &adapter(&base, ALL, 4, 2), slots(4));
    let publish = Publish { adapter: 1, image, in_flight: InFlight::Keep, pinned: false };
    served.engine.publish(publish).expect("it has slots");
    for (id, priority) in [(4, -1), (5, -2), (6, -1)] {
        let request = asked(id, Some(1), id as u32, 30, 20);
        served.submit(Request { priority, ..request });
    }
    served.run();
    assert!(served.engine.counters().preemptions > 0);
    let pushed = &served.answers[&1];
    let at = pushed.versions.iter().position(|&version| version != pushed.versions[0]);
    assert_eq!(at, Some(before), "it is swapped where the calm one was");
    assert_eq!(pushed.bits(), calm.bits());
    served.assert_all_pages_free();
}

#[test]
fn tokens_tell_what_the_keys_and_values_under_them_were_computed_with() {
    let span = |from, adapter| Span { from, policy: Policy { weights: 0, adapter: Some(adapter) } };
    // The spans of a sequence, as its tokens told them one after another.
    let schedule = |answer: &Answer| {
        let mut spans: Vec<Span> = Vec::new();
        for told in answer.made.iter().flat_map(|made| made.over.iter().chain([&made.span])) {
            spans.retain(|span| span.from < told.from);
            spans.push(*told);
        }
        spans
    };
    for in_flight in [InFlight::Keep, InFlight::Recompute] {
        let (before, answer, [first, second], _) = swapped(in_flight, settings());
        let weights = answer.made[0].span.policy.weights;
        let on = |from, adapter| {
            let policy = Policy { weights, ..span(from, adapter).policy };
            Span { from, policy }
        };
        assert!(answer.made.iter().all(|made| made.over.is_empty()));
        assert_eq!(answer.made[before - 1].span, on(0, first));
        // The last token told is in nobody's keys yet.
        let expected = match in_flight {
            InFlight::Keep => vec![on(0, first), on(21 + before - 1, second)],
            _ => vec![on(0, second)],
        };
        assert_eq!(schedule(&answer), expected);
    }
    // Two versions come while its prompt is computed, and one while it answers.
    let base = thin::checkpoint();
    let mut served = served(Settings { chunk: 8, ..settings() }, 6);
    let mut versions = vec![publish(&mut served, 1, &adapter(&base, ALL, 4, 1), InFlight::Wait)];
    served.submit(asked(1, Some(1), 5, 60, 30));
    for seed in [2, 3] {
        served.step();
        versions.push(publish(&mut served, 1, &adapter(&base, ALL, 4, seed), InFlight::Keep));
    }
    assert!(served.answers[&1].made.is_empty(), "it is at its prompt");
    while served.answers[&1].made.len() < 4 {
        served.step();
    }
    versions.push(publish(&mut served, 1, &adapter(&base, ALL, 4, 4), InFlight::Keep));
    served.run();
    let answer = &served.answers[&1];
    let told = schedule(answer);
    let by: Vec<u64> = told.iter().map(|span| span.policy.version()).collect();
    assert_eq!(by, versions);
    assert_eq!((told[0].from, answer.made[0].over.len()), (0, 2));
    assert!(told.windows(2).all(|pair| pair[0].from < pair[1].from) && told[2].from < 60);
    assert!(told[3].from >= 60);
}

#[test]
fn who_is_aborted_is_told_what_it_has_with_its_log_probabilities() {
    let (before, answer, [first, _], mut served) = swapped(InFlight::Abort, settings());
    assert_eq!(answer.ends[&0], Finish::Aborted);
    assert_eq!(answer.versions, vec![first; before]);
    let old = whole(1, asked(1, Some(1), 5, 21, 30));
    assert_eq!(answer.choices[&0][..], old.choices[&0][..before]);
    assert_eq!(served.answers[&2].tokens(0).len(), 12, "who came later is served");
    served.assert_all_pages_free();
}

#[test]
fn nobody_is_lost_over_many_swaps_and_nothing_stale_is_used() {
    let base = thin::checkpoint();
    let modes = [InFlight::Wait, InFlight::Recompute, InFlight::Keep];
    let images: Vec<_> =
        (0..3).map(|seed| image(&base, &adapter(&base, ALL, 4, seed), slots(8))).collect();
    for (round, in_flight) in modes.into_iter().enumerate() {
        let mut served = served(Settings { pages: 60, ..settings() }, 8);
        publish(&mut served, 1, &adapter(&base, ALL, 4, 0), InFlight::Wait);
        let (mut next, mut swaps) = (1, 0);
        for step in 0.. {
            if swaps == 60 {
                break;
            }
            if served.engine.counters().running + served.engine.counters().waiting < 8 {
                served.submit(asked(next, Some(1), next as u32 % 9, 13, 12));
                next += 1;
            }
            let changes = served.engine.changes();
            let current = |change: &&Change| matches!(change, Change::Current { .. });
            swaps += changes.iter().filter(current).count();
            if step % 9 == 0 {
                let image = images[(swaps + round) % 3].clone();
                let publish = Publish { adapter: 1, image, in_flight, pinned: false };
                served.engine.publish(publish).expect("it has slots");
            }
            served.step();
        }
        served.run();
        for (id, answer) in &served.answers {
            assert_eq!(answer.ends[&0], Finish::Length, "request {id} under {in_flight:?}");
            assert_eq!(answer.tokens(0).len(), 12);
            let ascending = answer.versions.is_sorted();
            assert!(ascending, "versions of a request only grow: {:?}", answer.versions);
        }
        assert!(next > 20);
        served.assert_all_pages_free();
    }
}

#[test]
fn the_longest_unused_gives_way_unless_it_is_pinned_or_used() {
    let base = thin::checkpoint();
    let mut served = served(settings(), 2);
    let image = |seed| image(&base, &adapter(&base, &["q_proj"], 2, seed), slots(2));
    let put = |served: &mut Served, id, pinned| {
        let publish = Publish { adapter: id, image: image(id), in_flight: InFlight::Wait, pinned };
        served.engine.publish(publish).expect("it has slots");
        served.step();
        served.engine.changes()
    };
    put(&mut served, 1, true);
    put(&mut served, 2, false);
    let changes = put(&mut served, 3, false);
    assert!(changes.contains(&Change::GivenUp { adapter: 2 }), "{changes:?}");
    let refused = served.refused(Request { adapter: Some(2), ..greedy(1, &[1], 1) });
    assert_eq!((refused.field, refused.got.as_str()), ("adapter", "2"));
    // While one is pinned and the other used, the next has to wait.
    served.submit(Request { adapter: Some(3), ..greedy(2, &[1, 2, 3], 8) });
    served.step();
    assert_eq!(put(&mut served, 4, false), []);
    assert!(served.engine.is_changing());
    served.run();
    let current = |change: &Change| matches!(change, Change::Current { adapter: Some(4), .. });
    assert!(served.engine.changes().iter().any(current), "it comes when there is room");
    // Who has an adapter that is withdrawn keeps it to the end.
    served.submit(Request { adapter: Some(4), ..greedy(3, &[1, 2, 3], 8) });
    served.step();
    assert!(served.engine.withdraw(4) && !served.engine.withdraw(4));
    served.refused(Request { adapter: Some(4), ..greedy(4, &[1], 1) });
    served.run();
    assert_eq!(served.answers[&3].tokens(0).len(), 8);
    assert!(served.engine.changes().iter().any(|change| matches!(change, Change::Gone { .. })));
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_by_what_is_wrong() {
    let base = thin::checkpoint();
    let (config, tensors) = (&base.config, &base.tensors);
    let source = Source { config, tensors, quantize: None, workers: &Inline };
    let whole = adapter(&base, &["layers.0.self_attn.q_proj"], 2, 1);
    let refuse = |change: &dyn Fn(&mut Adapter)| {
        let mut adapter = whole.clone();
        change(&mut adapter);
        Image::new(&adapter, &source, slots(1)).expect_err("it does not fit")
    };
    assert_eq!(refuse(&|adapter| adapter.terms.clear()), AdapterError::Empty);
    let unknown = refuse(&|adapter| {
        let term = adapter.terms.values().next().expect("one").clone();
        adapter.terms.insert("model.layers.7.self_attn.q_proj".into(), term);
    });
    assert!(matches!(unknown, AdapterError::Unknown { matrix } if matrix.contains("layers.7")));
    type Change = fn(&mut lora::Term);
    let changes: [(&str, Change); 8] = [
        ("shape", |term| term.inputs += 1),
        ("shape", |term| term.outputs -= 1),
        ("rank", |term| term.rank = 17),
        ("rank", |term| term.rank = 0),
        ("a", |term| term.a[5] = f32::NAN),
        ("b", |term| term.b.truncate(3)),
        ("scale", |term| term.scale = f32::INFINITY),
        ("magnitude", |term| term.magnitude = Some(vec![1.0; 3])),
    ];
    for (expected, change) in changes {
        let error = refuse(&|adapter| adapter.terms.values_mut().for_each(change));
        let AdapterError::Unfit { field, .. } = error else { panic!("{error}") };
        assert_eq!(field, expected);
    }
    let served = Served::new(settings());
    assert_eq!(served.engine.adapter_settings(), None);
}

/// A model that was made ready aside.
fn aside(checkpoint: &checkpoint::Checkpoint) -> (Aside, Model) {
    let mut aside = Aside::default();
    let (config, tensors) = (&checkpoint.config, &checkpoint.tensors);
    let source = Source { config, tensors, quantize: Some(Quantize::Q8), workers: &Inline };
    let model = Model::load(&mut aside, &source, &mut |_, _| {}).expect("it loads");
    (aside, model)
}

#[test]
fn other_weights_come_as_an_adapter_does_in_each_way() {
    let base = thin::checkpoint();
    let other = merged(&base, &adapter(&base, ALL, 4, 9));
    let quantize = Some(Quantize::Q8);
    let with = |checkpoint: Option<_>, settings: Settings| {
        Served::made(settings, Making { quantize, checkpoint, ..Making::default() })
    };
    let request = || asked(1, None, 5, 21, 30);
    let old = with(None, settings()).answer(request());
    let mut kept = Vec::new();
    for in_flight in [InFlight::Wait, InFlight::Recompute, InFlight::Keep, InFlight::Abort] {
        let mut served = with(None, settings());
        served.submit(request());
        while served.answers[&1].tokens(0).len() < 9 {
            served.step();
        }
        let version = served.engine.replace_weights(aside(&other), in_flight).expect("it fits");
        served.submit(asked(2, None, 6, 18, 12));
        served.run();
        let later = with(Some(other.clone()), settings()).answer(asked(2, None, 6, 18, 12));
        assert_eq!(served.answers[&2].bits(), later.bits(), "who comes later has the new ones");
        let answer = &served.answers[&1];
        let news = answer.versions.iter().filter(|it| **it == version).count();
        match in_flight {
            InFlight::Wait => assert_eq!((answer.bits(), news), (old.bits(), 0)),
            InFlight::Recompute => {
                let mut rest = asked(1, None, 5, 21, 21);
                rest.prompt.extend(&answer.tokens(0)[..9]);
                generate(&mut rest).prompt_top = None;
                let expected = with(Some(other.clone()), settings()).answer(rest);
                assert_eq!(answer.choices[&0][9..], expected.choices[&0][..]);
                assert_eq!(news, 21);
            }
            InFlight::Keep => {
                assert_eq!(news, 21);
                kept = answer.bits();
                assert_ne!(kept, old.bits());
            }
            InFlight::Abort => {
                assert_eq!(answer.ends[&0], Finish::Aborted);
                assert_eq!(answer.choices[&0][..], old.choices[&0][..9]);
            }
        }
        let gone = Change::Gone { adapter: None, version: 1 };
        assert!(served.engine.changes().contains(&gone), "the old weights are free");
        served.assert_all_pages_free();
    }
    // Pushed aside after the swap, its old part is computed by the old weights again.
    let mut served = with(None, Settings { pages: 20, ..settings() });
    served.submit(request());
    while served.answers[&1].tokens(0).len() < 9 {
        served.step();
    }
    served.engine.replace_weights(aside(&other), InFlight::Keep).expect("it fits");
    for (id, priority) in [(4, -1), (5, -2), (6, -1)] {
        served.submit(Request { priority, ..asked(id, None, id as u32, 30, 20) });
    }
    served.run();
    assert!(served.engine.counters().preemptions > 0);
    assert_eq!(served.answers[&1].bits(), kept);
    served.assert_all_pages_free();
}

#[test]
fn an_adapter_made_of_the_old_weights_stays_with_them() {
    let base = thin::checkpoint();
    let mut long = adapter(&base, &["q_proj"], 4, 1);
    for term in long.terms.values_mut() {
        term.magnitude = Some(vec![1.5; term.outputs as usize]);
    }
    let adapters = [(7, long), (8, adapter(&base, &["q_proj"], 4, 2))];
    let begun = || {
        let mut served = served(settings(), 3);
        for (id, adapter) in &adapters {
            publish(&mut served, *id, adapter, InFlight::Wait);
        }
        for (id, adapter) in [(1, 7), (2, 8)] {
            served.submit(asked(id, Some(adapter), 5, 12, 20));
        }
        while (1..=2).any(|id| served.answers[&id].tokens(0).len() < 4) {
            served.step();
        }
        served
    };
    let mut calm = begun();
    calm.run();
    let mut served = begun();
    let (mut aside, config) = (Aside::default(), &base.config);
    let other = merged(&base, &adapter(&base, ALL, 4, 9));
    let source = Source { config, tensors: &other.tensors, quantize: None, workers: &Inline };
    let model = Model::load(&mut aside, &source, &mut |_, _| {}).expect("it loads");
    let version = served.engine.replace_weights((aside, model), InFlight::Keep).expect("it fits");
    served.run();
    assert_eq!(served.answers[&1].bits(), calm.answers[&1].bits(), "its magnitudes are of these");
    assert_ne!(served.answers[&2].bits(), calm.answers[&2].bits(), "another goes on with the new");
    let moved = served.engine.changes().into_iter().find_map(|change| match change {
        Change::Current { adapter: None, version: came, moved, .. } if came == version => {
            Some(moved)
        }
        _ => None,
    });
    assert_eq!(moved.expect("it was told").kept, 1);
}
