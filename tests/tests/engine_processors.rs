//! What changes logits from step to step does what its data says, by a plain recomputation
//! from the model's logits, and the same bits come in any company; what was kept is told.

use engine::engine::{Guessing, Settings};
use engine::processor::{Course, Keep, Kept, Processor, Schedule, Steps, Then, Thinking, TokenSet};
use engine::request::{Finish, Request};
use kernels_core::dtype::Dtype;
use kernels_core::params::SampleRow;
use kernels_core::sample;
use kernels_core::simd::Level;
use pagewise_tests::guided::{Cycle, Late};
use pagewise_tests::model::{Runner, thin};
use pagewise_tests::serving::{Answer, Making, Served, VOCAB, generate, greedy, prompt, settings};
use std::sync::Arc;

const SEED: u64 = 77;
const NEW: u32 = 20;

fn set(tokens: impl IntoIterator<Item = u32>) -> TokenSet {
    let tokens: Vec<u32> = tokens.into_iter().collect();
    TokenSet::new(VOCAB, &tokens).expect("they are of it")
}

fn steps(lists: &[&[u32]], then: Then) -> Processor {
    let lists = lists.iter().map(|list| Arc::from(*list)).collect();
    Processor::Steps(Steps { lists, then })
}

fn decay(start: f64, end: f64, decay: f64) -> Processor {
    Processor::Temperature(Schedule { start, end, course: Course::Decay(decay) })
}

fn thinking(tokens: u32, start: Option<&[u32]>, end: &[u32]) -> Processor {
    let start = start.map(Into::into);
    Processor::Thinking(Thinking { tokens, start, end: end.into() })
}

/// Draws with these, and tells what was kept.
fn request(id: u64, processors: &[Processor]) -> Request {
    let mut request = greedy(id, &prompt(id as u32, 9), NEW);
    let asked = generate(&mut request);
    (asked.sampling.temperature, asked.sampling.seed) = (1.0, SEED);
    (asked.sampling.processors, asked.kept) = (processors.into(), Some(Keep::Tokens));
    request
}

fn answered(request: Request) -> Answer {
    let mut served = Served::new(settings());
    let answer = served.answer(request);
    served.assert_all_pages_free();
    answer
}

/// What a token may be drawn from, in plain words: which tokens, and how hot.
type Plain = fn(&[u32]) -> (Box<dyn Fn(u32) -> bool>, f64);

/// Holds an answer to the model's own logits with what `plain` says of each token.
fn assert_plain(request: &Request, answer: &Answer, plain: Plain) {
    let cpu = backends::cpu::Cpu::new(Level::best(), 1);
    let pages = [0, 1, 2, 3, 4, 5, 6, 7];
    let capacity = thin::capacity(Dtype::F16);
    let mut runner = Runner::new(cpu, &thin::checkpoint(), None, &capacity, &pages);
    let mut row = runner.forward(&request.prompt).pop().expect("a row for each token");
    let mut asked = request.clone();
    let sampling = generate(&mut asked).sampling.clone();
    let mut before = Vec::new();
    for scored in &answer.choices[&0] {
        let (allows, temperature) = plain(&before);
        let masked =
            |(token, logit): (u32, &f32)| if allows(token) { *logit } else { f32::NEG_INFINITY };
        let masked: Vec<f32> = (0..).zip(&row).map(masked).collect();
        let settings = SampleRow {
            seed: SEED,
            position: (request.prompt.len() + before.len()) as u32,
            fork: 0,
            temperature: temperature as f32,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
        };
        let truth = sample::spec::<f64>(&masked, &row, &settings, 0);
        assert_eq!(scored.token, truth.token, "after {before:?}");
        assert!((f64::from(scored.raw) - truth.raw).abs() < 1e-4);
        let processed = if temperature == 0.0 { 0.0 } else { truth.processed };
        assert!((f64::from(scored.processed) - processed).abs() < 1e-4, "{scored:?} {processed}");
        let mut kept = truth.kept;
        kept.sort_unstable();
        let expected = match kept.len() as u32 {
            VOCAB => Kept::All,
            _ => Kept::Tokens(kept.into()),
        };
        assert_eq!(scored.kept, Some(expected), "after {before:?}");
        before.push(scored.token);
        row = runner.forward(&[scored.token]).remove(0);
    }
}

#[test]
fn each_processor_is_what_a_plain_recomputation_makes_of_the_logits() {
    let cases: &[(&[Processor], Plain)] = &[
        (&[], |_| (Box::new(|_| true), 1.0)),
        (&[Processor::Allowed(set(10..30))], |_| (Box::new(|t| (10..30).contains(&t)), 1.0)),
        (&[Processor::Disallowed(set(0..128))], |_| (Box::new(|t| t >= 128), 1.0)),
        (&[steps(&[&[1, 2, 3], &[9], &[64, 130, 31]], Then::Free)], |before| {
            let lists: [&[u32]; 3] = [&[1, 2, 3], &[9], &[64, 130, 31]];
            let list = lists.get(before.len()).copied();
            (Box::new(move |t| list.is_none_or(|list| list.contains(&t))), 1.0)
        }),
        (&[steps(&[&[1], &[5, 6, 7]], Then::Last)], |before| {
            let first = before.is_empty();
            (Box::new(move |t| if first { t == 1 } else { [5, 6, 7].contains(&t) }), 1.0)
        }),
        (&[decay(1.6, 0.4, 0.8)], |before| {
            (Box::new(|_| true), 0.4 + 1.2 * 0.8f64.powi(before.len() as i32))
        }),
        (
            &[Processor::Temperature(Schedule { start: 2.0, end: 0.0, course: Course::Tokens(8) })],
            |before| (Box::new(|_| true), 2.0 - 2.0 * before.len().min(8) as f64 / 8.0),
        ),
        (&[thinking(6, None, &[40, 41])], |before| {
            let forced = [40, 41].get(before.len().wrapping_sub(6)).copied();
            (Box::new(move |t| forced.is_none_or(|it| it == t)), 1.0)
        }),
        (
            &[
                Processor::Allowed(set(0..100)),
                Processor::Disallowed(set([3, 4, 5])),
                Processor::Allowed(set(2..131)),
                decay(0.5, 1.5, 0.5),
                thinking(3, None, &[9]),
            ],
            |before| {
                let forced = before.len() >= 3 && !before.contains(&9);
                let temperature = 1.5 - 0.5f64.powi(before.len() as i32);
                let any = |t| (2..100).contains(&t) && ![3, 4, 5].contains(&t);
                (Box::new(move |t| if forced { t == 9 } else { any(t) }), temperature)
            },
        ),
    ];
    for (at, (processors, plain)) in cases.iter().enumerate() {
        for filtered in [false, true] {
            let mut request = request(1 + at as u64, processors);
            if filtered {
                let sampling = &mut generate(&mut request).sampling;
                (sampling.top_k, sampling.top_p, sampling.min_p) = (50, 0.9, 0.02);
            }
            let answer = answered(request.clone());
            assert_eq!(answer.choices[&0].len(), NEW as usize);
            assert_plain(&request, &answer, *plain);
        }
    }
}

#[test]
fn processed_log_probabilities_are_raw_ones_made_whole_over_what_was_kept() {
    let temperature = 0.7;
    let mut request = request(1, &[Processor::Disallowed(set(100..131)), decay(0.7, 0.7, 1.0)]);
    let asked = generate(&mut request);
    (asked.sampling.top_p, asked.top) = (0.9, Some(128));
    let answer = answered(request);
    let mut fewer = 0;
    for scored in &answer.choices[&0] {
        let Some(Kept::Tokens(kept)) = &scored.kept else { panic!("not all is kept") };
        let raw = |token: u32| {
            let listed = scored.top.iter().find(|listed| listed.0 == token);
            listed.map(|(_, raw)| f64::from(*raw)).expect("it is likely enough to be listed")
        };
        assert!(kept.contains(&scored.token) && kept.is_sorted() && kept[kept.len() - 1] < 100);
        let sum: f64 = kept.iter().map(|token| (raw(*token) / temperature).exp()).sum();
        let processed = raw(scored.token) / temperature - sum.ln();
        assert!((f64::from(scored.processed) - processed).abs() < 1e-4, "{processed} {scored:?}");
        fewer += usize::from(kept.len() < 90);
    }
    assert!(fewer > 10, "top-p leaves some out");
}

#[test]
fn what_was_kept_is_told_to_whoever_asks_and_hashes_are_of_it() {
    let asks = |keep| {
        let mut request = request(1, &[Processor::Allowed(set(0..50))]);
        generate(&mut request).kept = keep;
        request
    };
    let kept = |answer: &Answer| -> Vec<Option<Kept>> {
        answer.choices[&0].iter().map(|scored| scored.kept.clone()).collect()
    };
    let mut served = Served::new(settings());
    for (id, keep) in (1..).zip([None, Some(Keep::Tokens), Some(Keep::Hash)]) {
        served.submit(Request { id, ..asks(keep) });
    }
    served.run();
    assert!(kept(&served.answers[&1]).iter().all(Option::is_none));
    for (tokens, hash) in kept(&served.answers[&2]).into_iter().zip(kept(&served.answers[&3])) {
        let Some(Kept::Tokens(tokens)) = tokens else { panic!("{tokens:?}") };
        let bytes = tokens.iter().flat_map(|token| token.to_le_bytes());
        let fnv = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        assert_eq!(hash, Some(Kept::Hash(fnv)));
    }
    // Asking changes nothing else.
    let plain = answered(asks(None));
    let tokens = |answer: &Answer| answer.tokens(0);
    assert_eq!(tokens(&plain), tokens(&served.answers[&2]));
    // The most likely token alone, where nothing is drawn.
    let mut request = asks(Some(Keep::Tokens));
    generate(&mut request).sampling.temperature = 0.0;
    for scored in &answered(request).choices[&0] {
        assert_eq!(scored.kept, Some(Kept::Tokens([scored.token].into())));
    }
}

#[test]
fn lists_end_an_answer_or_let_it_go_on_and_what_leaves_nothing_is_told() {
    let lists: [&[u32]; 3] = [&[1, 2], &[3], &[4, 5]];
    let ended = answered(request(1, &[steps(&lists, Then::End)]));
    assert_eq!((ended.tokens(0).len(), &ended.ends[&0]), (3, &Finish::Complete));
    assert!(ended.tokens(0).iter().zip(lists).all(|(token, list)| list.contains(token)));
    // The shortest of two; a length that comes before.
    let two = [steps(&lists, Then::End), steps(&lists[..2], Then::End)];
    assert_eq!(answered(request(1, &two)).tokens(0).len(), 2);
    let mut cut = request(1, &[steps(&lists, Then::End)]);
    generate(&mut cut).max_new = 2;
    let cut = answered(cut);
    assert_eq!((cut.tokens(0).len(), &cut.ends[&0]), (2, &Finish::Length));
    for then in [Then::Free, Then::Last] {
        let answer = answered(request(1, &[steps(&lists, then)]));
        assert_eq!((answer.tokens(0).len(), &answer.ends[&0]), (20, &Finish::Length));
        let kept = answer.tokens(0)[3..].iter().all(|token| [4, 5].contains(token));
        assert_eq!(kept, then == Then::Last);
    }
    let stuck = || Finish::Stuck("no token is allowed to come next".into());
    for (processors, tokens) in [
        (&[Processor::Allowed(set([1])), Processor::Disallowed(set([1]))][..], 0),
        (&[Processor::Disallowed(set(0..VOCAB))], 0),
        (&[steps(&lists, Then::Free), steps(&[&[1, 2], &[4]], Then::Free)], 1),
        (&[thinking(4, None, &[9]), Processor::Disallowed(set([9]))], 4),
    ] {
        let answer = answered(request(1, processors));
        assert_eq!((answer.tokens(0).len(), &answer.ends[&0]), (tokens, &stuck()));
    }
}

#[test]
fn thinking_ends_after_its_budget_however_it_began() {
    let (start, end) = ([8, 9], [30, 31, 32]);
    let at = |answer: &Answer| {
        let tokens = answer.tokens(0);
        tokens.windows(3).position(|window| window == end)
    };
    // Its beginning is forced here, too, after two tokens; or its prompt ends within it.
    let begins = steps(&[&[1], &[2], &[8], &[9]], Then::Free);
    let mut asked = request(1, &[begins, thinking(5, Some(&start), &end)]);
    assert_eq!(at(&answered(asked.clone())), Some(4 + 5));
    generate(&mut asked).sampling.processors = [thinking(5, Some(&start), &end)].into();
    asked.prompt.extend([8, 9, 3]);
    assert_eq!(at(&answered(asked.clone())), Some(5));
    asked.prompt.extend(end);
    assert_eq!(at(&answered(asked.clone())), None, "it does not think");
    generate(&mut asked).sampling.processors = [thinking(0, None, &end)].into();
    let at_once = answered(asked);
    assert_eq!(at(&at_once), Some(0));
    let forced = &at_once.choices[&0][..3];
    assert!(forced.iter().all(|scored| scored.processed == 0.0 && scored.raw < 0.0));
    assert_eq!(forced[0].kept, Some(Kept::Tokens([30].into())));
}

#[test]
fn grammars_and_processors_hold_together() {
    let mut request = request(1, &[Processor::Disallowed(set(60..131)), decay(2.0, 0.5, 0.9)]);
    generate(&mut request).grammar = Some(Cycle::grammar(5, 12, &[]));
    let answer = answered(request.clone());
    assert_eq!((answer.tokens(0).len(), &answer.ends[&0]), (12, &Finish::Complete));
    for (at, scored) in (0..).zip(&answer.choices[&0]) {
        let expected: Vec<u32> = (0..60).filter(|token| token % 5 == at % 5).collect();
        assert_eq!(scored.kept, Some(Kept::Tokens(expected.into())));
    }
    // The third token of the list is none of the grammar's.
    let lists: [&[u32]; 3] = [&[0, 1, 5], &[6, 7], &[8]];
    generate(&mut request).sampling.processors = [steps(&lists, Then::Free)].into();
    let answer = answered(request);
    assert!(matches!(answer.ends[&0], Finish::Stuck(_)), "{:?}", answer.ends);
    assert_eq!((answer.tokens(0).len(), answer.tokens(0)[1]), (2, 6));
}

/// Of few tokens, so that guesses hold now and then; each kind with something of its own.
fn mixed(id: u64) -> Request {
    let few = Processor::Allowed(set([3, 4, 5, 7]));
    let (end, lists): ([u32; 2], [&[u32]; 3]) = ([4, 5], [&[3, 4], &[3, 4], &[5, 7]]);
    let more: &[Processor] = &match id % 7 {
        0 => vec![],
        1 => vec![decay(1.8, 0.2, 0.9)],
        2 => vec![steps(&lists, Then::Last)],
        3 => vec![thinking(7, None, &end)],
        4 => vec![thinking(9, Some(&[7]), &end), decay(1.0, 1.0, 1.0)],
        5 => vec![steps(&lists.repeat(8), Then::End), Processor::Disallowed(set([7, 9]))],
        _ => vec![decay(0.5, 2.0, 0.5)],
    };
    let mut request = request(id, &[&[few], more].concat());
    let asked = generate(&mut request);
    (asked.max_new, asked.choices, asked.sampling.seed) = (40, 1 + id as u32 % 2, id);
    asked.kept = [None, Some(Keep::Tokens), Some(Keep::Hash)][id as usize % 3];
    if id.is_multiple_of(5) {
        (asked.sampling.frequency, asked.sampling.top_k) = (0.4, 3);
    }
    if id % 7 == 6 {
        asked.grammar = Some(Cycle::grammar(2, 30, &[]));
    }
    request
}

#[test]
fn no_bit_tells_company_guesses_late_masks_or_short_pages() {
    let mut plain = Served::new(settings());
    let chain = Guessing { tokens: 4, paths: 1, rows: 24 };
    let tree = Guessing { tokens: 3, paths: 4, rows: 48 };
    for guessing in [Guessing::NONE, chain, tree] {
        let tight = Settings { guessing, pages: 40, ..settings() };
        let masker = Box::new(Late::new(3));
        let mut crowd = Served::made(tight, Making { masker, ..Making::default() });
        (0..28).for_each(|id| crowd.submit(mixed(id)));
        crowd.run();
        for id in 0..28 {
            let answer = &crowd.answers[&id];
            let alone = plain.answer(mixed(id));
            assert_eq!(answer.bits(), alone.bits(), "request {id}, {guessing:?}");
            assert_eq!(answer.ends, alone.ends);
        }
        let counters = crowd.engine.counters();
        assert!(counters.preemptions > 0 && counters.late_masks > 0, "{counters:?}");
        assert_eq!(counters.held > 50, guessing.tokens > 0);
        crowd.assert_all_pages_free();
    }
}

#[test]
fn what_is_no_processor_is_refused_by_its_field() {
    let mut served = Served::new(settings());
    let schedule = |start, end, course| Processor::Temperature(Schedule { start, end, course });
    let one = || Processor::Disallowed(set([1]));
    for (processors, expected) in [
        (vec![Processor::Allowed(set([]))], "at least one allowed token"),
        (vec![Processor::Allowed(TokenSet::new(VOCAB + 1, &[1]).expect("one"))], "sets of 131"),
        (vec![Processor::Disallowed(TokenSet::new(9, &[1]).expect("one"))], "sets of 131"),
        (vec![one(); 17], "at most 16"),
        (vec![steps(&[], Then::Free)], "not empty"),
        (vec![steps(&[&[1], &[]], Then::Free)], "not empty"),
        (vec![steps(&[&[1], &[131]], Then::Free)], "tokens below 131"),
        (vec![schedule(f64::NAN, 1.0, Course::Tokens(1))], "finite temperatures"),
        (vec![schedule(1.0, f64::INFINITY, Course::Tokens(1))], "finite temperatures"),
        (vec![schedule(-1.0, 1.0, Course::Tokens(1))], "finite temperatures"),
        (vec![schedule(1.0, 1e39, Course::Tokens(1))], "finite temperatures"),
        (vec![schedule(1.0, 1.0, Course::Tokens(0))], "at least one token"),
        (vec![schedule(1.0, 1.0, Course::Decay(f64::NAN))], "a decay of 0 to 1"),
        (vec![schedule(1.0, 1.0, Course::Decay(1.1))], "a decay of 0 to 1"),
        (vec![decay(1.0, 1.0, 1.0), one(), decay(1.0, 1.0, 1.0)], "at most one temperature"),
        (vec![thinking(1, None, &[])], "not empty"),
        (vec![thinking(1, Some(&[]), &[1])], "not empty"),
        (vec![thinking(1, Some(&[131]), &[1])], "tokens below 131"),
        (vec![thinking(1, None, &[131])], "tokens below 131"),
        (vec![thinking(1, None, &[1]), thinking(1, None, &[2])], "at most one budget"),
    ] {
        let refused = served.refused(request(1, &processors));
        assert_eq!(refused.field, "sampling.processors");
        assert!(refused.expected.contains(expected), "{refused}: {expected}");
    }
    let sixteen = vec![one(); 16];
    assert_eq!(served.answer(request(1, &sixteen)).tokens(0).len(), NEW as usize);
    assert_eq!(
        served.answer(request(2, &[decay(f64::from(f32::MAX), 0.0, 0.5)])).tokens(0).len(),
        20
    );
}
