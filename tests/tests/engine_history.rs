//! What an engine promises over random histories: everybody is answered as if alone, and
//! every page comes back.

use engine::engine::{Guessing, Settings};
use engine::processor::{Course, Keep, Processor, Schedule, Steps, Then, Thinking, TokenSet};
use engine::request::{Class, Finish, Generate, Pooling, Request, Sampling, Stop, Task};
use pagewise_tests::guided::{Cycle, Late};
use pagewise_tests::serving::{Answer, Making, Served, generate, greedy, prompt, settings};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::cell::Cell;

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
    choices: u32,
    kind: u8,
    class: Class,
    priority: i32,
    salt: u8,
    /// Steps after which its client leaves.
    leaves: Option<usize>,
}

impl Arrival {
    fn request(&self, id: u64) -> Request {
        let mut tokens = prompt(self.family, self.shared);
        tokens.extend(prompt(1000 + id as u32, self.own));
        let mut request = greedy(id, &tokens, self.max_new);
        (request.class, request.priority) = (self.class, self.priority);
        request.salt = [self.salt].into();
        let asked = generate(&mut request);
        asked.choices = self.choices;
        (asked.sampling.temperature, asked.sampling.seed) = (1.0, id);
        match self.kind {
            0 => asked.prompt_top = Some(2),
            1 => asked.sampling.frequency = 0.5,
            2 => asked.top = Some(3),
            3 => asked.stop.strings = [b"1 ".to_vec()].into(),
            4 => request.task = Task::Embed(Pooling::Mean),
            5 => asked.grammar = Some(Cycle::grammar(60, 12, &[])),
            6 => asked.sampling.allowed = Some([3, 5, 8].into()),
            _ => {}
        }
        request
    }
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let shape = (0usize..6, 0u32..3, 0usize..40, 1usize..20, 0u32..20, 1u32..5);
    let rest = (0u8..9, 0i32..2, 0u8..2, prop::option::weighted(0.2, 0usize..20), 0usize..2);
    (shape, rest).prop_map(|(shape, rest)| Arrival {
        after: shape.0,
        family: shape.1,
        shared: shape.2,
        own: shape.3,
        max_new: shape.4,
        choices: shape.5,
        kind: rest.0,
        priority: rest.1,
        salt: rest.2,
        leaves: rest.3,
        class: Class::ALL[rest.4],
    })
}

fn tight() -> impl Strategy<Value = Settings> {
    let share = prop::option::of(0.01f64..0.99);
    (1u32..7, 0u32..20, 1u32..20, 1u32..20, 0u32..30, 1u64..60, 1u32..12, share).prop_map(
        |(rows, more, chunk, beside, pages, patience, turn, rollout_share)| Settings {
            step_tokens: rows + more,
            rows,
            chunk,
            beside,
            // Enough for the longest alone.
            pages: 20 + pages,
            patience,
            turn,
            rollout_share,
            guessing: Guessing { tokens: turn % 5, paths: 1 + beside % 3, rows: chunk },
            ..settings()
        },
    )
}

/// What happened in some histories together.
#[derive(Debug, Default)]
struct Happened {
    hits: u64,
    preemptions: u64,
    chunks: u64,
    forks: u64,
    evictions: u64,
    cancelled: u64,
    late_masks: u64,
    held: u64,
}

fn play(settings: Settings, history: &[Arrival], happened: &mut Happened) -> Served {
    let masker = Box::new(Late::new(3));
    let mut served = Served::made(settings, Making { masker, ..Making::default() });
    let (mut leaving, mut step) = (Vec::new(), 0);
    for (arrival, id) in history.iter().zip(0..) {
        served.submit(arrival.request(id));
        leaving.extend(arrival.leaves.map(|after| (step + after, id)));
        for _ in 0..arrival.after {
            let gone = leaving.extract_if(.., |leaves| leaves.0 <= step);
            gone.for_each(|(_, id)| served.engine.cancel(id));
            served.step();
            step += 1;
        }
    }
    served.run();
    let counters = served.engine.counters();
    happened.hits += counters.hits;
    happened.preemptions += counters.preemptions;
    happened.chunks += counters.chunks;
    happened.forks += counters.forks;
    happened.evictions += counters.evictions;
    happened.late_masks += counters.late_masks;
    happened.held += counters.held;
    served
}

/// Everything that was said of a choice that was not cancelled is what is said alone.
fn assert_as_alone(
    arrival: &Arrival,
    id: u64,
    answer: &Answer,
    alone: &mut Served,
    left: &mut u64,
) {
    let truth = alone.answer(Request { priority: 0, ..arrival.request(id) });
    if answer.ends.values().any(|end| *end == Finish::Cancelled) {
        *left += 1;
        for (choice, tokens) in &answer.choices {
            assert_eq!(tokens[..], truth.choices[choice][..tokens.len()]);
        }
        return;
    }
    assert_eq!(answer.ends, truth.ends);
    assert_eq!(answer.bits(), truth.bits());
    assert_eq!(answer.ends.is_empty(), answer.embedding.is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn everybody_is_answered_as_if_alone_and_every_page_comes_back(
        settings in tight(),
        history in prop::collection::vec(arrival(), 1..14),
    ) {
        let mut served = play(settings, &history, &mut Happened::default());
        let mut alone = Served::new(pagewise_tests::serving::settings());
        for (arrival, id) in history.iter().zip(0..) {
            assert_as_alone(arrival, id, &served.answers[&id], &mut alone, &mut 0);
        }
        served.assert_all_pages_free();
    }
}

#[test]
fn histories_hit_preempt_cut_fork_evict_and_cancel() {
    let mut runner = TestRunner::deterministic();
    let mut happened = Happened::default();
    for _ in 0..40 {
        let history = prop::collection::vec(arrival(), 1..14);
        let drawn = (tight(), history).new_tree(&mut runner).expect("nothing is rejected");
        let (settings, history) = drawn.current();
        let served = play(settings, &history, &mut happened);
        let cancelled = |answer: &Answer| answer.ends.values().any(|end| *end == Finish::Cancelled);
        happened.cancelled += served.answers.values().filter(|x| cancelled(x)).count() as u64;
    }
    let Happened { hits, preemptions, chunks, forks, evictions, .. } = happened;
    let Happened { cancelled, late_masks, held, .. } = happened;
    let counts = [hits, preemptions, chunks, forks, evictions, cancelled, late_masks, held];
    assert!(counts.iter().all(|&count| count > 5), "{counts:?}");
}

/// Numbers that clients send: good ones, edges, nonsense.
fn number() -> impl Strategy<Value = f32> {
    let edges = [0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, f32::MAX, f32::INFINITY, f32::NAN];
    prop_oneof![30 => 0.0f32..1.0, 1 => prop::sample::select(edges.to_vec()), 1 => -9.0f32..9.0]
}

fn count(good: u32) -> impl Strategy<Value = u32> {
    prop_oneof![30 => 0..=good, 1 => Just(u32::MAX), 1 => any::<u32>()]
}

fn tokens(most: usize) -> impl Strategy<Value = Vec<u32>> {
    let token = prop_oneof![200 => 0u32..131, 1 => Just(131), 1 => any::<u32>()];
    prop::collection::vec(token, 0..most)
}

/// Good or not, as its numbers fall.
fn processor() -> impl Strategy<Value = Processor> {
    let set = |vocab: u32, tokens: Vec<u32>| {
        TokenSet::new(vocab, &tokens).or_else(|_| TokenSet::new(vocab, &[1])).expect("it has two")
    };
    let vocab = prop_oneof![20 => Just(131), 1 => 2u32..200];
    let lists = prop::collection::vec(tokens(4).prop_map(Into::into), 0..4);
    let then = prop::sample::select(vec![Then::Free, Then::Last, Then::End]);
    let course = prop_oneof![
        number().prop_map(|x| Course::Decay(x.into())),
        count(9).prop_map(Course::Tokens)
    ];
    prop_oneof![
        (vocab.clone(), tokens(9))
            .prop_map(move |(vocab, all)| Processor::Allowed(set(vocab, all))),
        (vocab, tokens(9)).prop_map(move |(vocab, all)| Processor::Disallowed(set(vocab, all))),
        (lists, then).prop_map(|(lists, then): (Vec<_>, _)| {
            Processor::Steps(Steps { lists: lists.into(), then })
        }),
        (number(), number(), course).prop_map(|(start, end, course)| {
            Processor::Temperature(Schedule { start: start.into(), end: end.into(), course })
        }),
        (count(9), prop::option::of(tokens(3)), tokens(4)).prop_map(|(tokens, start, end)| {
            Processor::Thinking(Thinking { tokens, start: start.map(Into::into), end: end.into() })
        }),
    ]
}

prop_compose! {
    fn sampling()(
        floats in prop::array::uniform6(number()),
        bias in prop::collection::vec((0u32..132, number()), 0..3),
        allowed in prop::option::weighted(0.3, tokens(5)),
        bad_words in prop::collection::vec(tokens(3), 0..3),
        top_k in count(200),
        seed in any::<u64>(),
        processors in prop::collection::vec(processor(), 0..3),
    ) -> Sampling {
        let [temperature, top_p, min_p, presence, frequency, repetition] = floats;
        Sampling {
            temperature, top_k, top_p, min_p, seed, presence, frequency, repetition,
            bias: bias.into(), allowed: allowed.map(Into::into), bad_words: bad_words.into(),
            processors: processors.into(),
        }
    }
}

prop_compose! {
    fn wild()(
        prompt in tokens(40),
        counts in (count(4), count(12), count(5)),
        tops in (prop::option::of(count(9)), prop::option::of(count(9)), count(9)),
        sampling in sampling(),
        stops in (tokens(3), prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3), 0..3)),
        flags in (any::<bool>(), any::<i32>(), 0u8..9),
        kept in prop::option::weighted(0.2, any::<bool>()),
        chosen in prop::collection::vec(0u32..132, 0..3),
    ) -> Request {
        let (choices, max_new, min_new) = counts;
        let (top, prompt_top, prompt_from) = tops;
        let prompt_from = if prompt_top.is_some() { prompt_from } else { prompt_from / 8 };
        let (tokens, strings) = stops;
        let (ignore_eos, priority, embeds) = flags;
        let class = Class::ALL[usize::from(embeds) % 2];
        let (tokens, strings) = (tokens.into(), strings.into());
        let stop = Stop { tokens, strings, expressions: None, ignore_eos, min_new };
        let task = match embeds {
            0 => Task::Embed(Pooling::Last),
            _ => Task::Generate(Generate {
                choices, max_new, sampling, stop, top, prompt_top, prompt_from, grammar: None,
                chosen: chosen.into(),
                kept: kept.map(|hash| if hash { Keep::Hash } else { Keep::Tokens }),
            }),
        };
        Request { id: 0, prompt, task, class, priority, salt: [].into(), adapter: None, episode: None, deadline: None }
    }
}

/// Serves some requests; how many were taken, and how many refused.
fn serve(requests: Vec<Request>) -> [usize; 2] {
    let mut served = Served::new(settings());
    let choices = |request: &Request| match &request.task {
        Task::Generate(generate) => generate.choices as usize,
        Task::Embed(_) => 0,
    };
    let (all, mut taken) = (requests.len(), Vec::new());
    for (request, id) in requests.into_iter().zip(0..) {
        let choices = choices(&request);
        match served.engine.submit(Request { id, ..request }) {
            Ok(()) => {
                served.answers.insert(id, Answer::default());
                taken.push((id, choices));
            }
            Err(refused) => assert!(!refused.field.is_empty()),
        }
    }
    served.run();
    for (id, choices) in &taken {
        let answer = &served.answers[id];
        assert_eq!(answer.ends.len(), *choices);
        assert_eq!(answer.embedding.is_some(), *choices == 0);
    }
    served.assert_all_pages_free();
    [taken.len(), all - taken.len()]
}

#[test]
fn whatever_a_request_says_it_is_refused_by_a_field_or_answered() {
    let (taken, refused) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(ProptestConfig::with_cases(60));
    let outcome = runner.run(&prop::collection::vec(wild(), 1..20), |requests| {
        let counts = serve(requests);
        taken.set(taken.get() + counts[0]);
        refused.set(refused.get() + counts[1]);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let counts = [taken.get(), refused.get()];
    assert!(counts.iter().all(|&count| count > 50), "taken, refused: {counts:?}");
}
