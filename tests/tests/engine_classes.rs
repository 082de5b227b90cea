//! Two classes of requests at a ratio, in an engine: the ratio holds, and no bit of an answer
//! depends on it.

use engine::engine::{Guessing, Settings};
use engine::request::{Class, Request};
use pagewise_tests::serving::{Served, generate, greedy, prompt, settings};

/// Half of them rollouts, each with a prompt of its own.
fn requests(count: u64) -> Vec<Request> {
    let request = |id| {
        let mut request = greedy(id, &prompt(id as u32, 10 + id as usize % 20), 30);
        request.class = Class::ALL[id as usize % 2];
        (generate(&mut request).sampling.temperature, generate(&mut request).top) = (1.0, Some(2));
        generate(&mut request).sampling.seed = id;
        request
    };
    (1..=count).map(request).collect()
}

#[test]
fn computed_tokens_are_shared_while_both_classes_wait() {
    let guessing = Guessing { tokens: 3, paths: 2, rows: 6 };
    for (share, guessing) in [(0.2, Guessing::NONE), (0.3, guessing), (0.7, Guessing::NONE)] {
        let settings = Settings { rollout_share: Some(share), guessing, ..settings() };
        let mut served = Served::new(settings);
        requests(160).into_iter().for_each(|request| served.submit(request));
        let counters = loop {
            served.step();
            let counters = served.engine.counters();
            assert_eq!(counters.running_of.iter().sum::<u32>(), counters.running);
            assert_eq!(counters.waiting_of.iter().sum::<u32>(), counters.waiting);
            if counters.waiting_of.contains(&0) {
                break counters;
            }
        };
        let [inference, rollouts] = counters.tokens_of.map(|tokens| tokens as f64);
        let part = rollouts / (inference + rollouts);
        assert!((part - share).abs() < 0.03, "{part}, not {share}");
        served.run();
        served.assert_all_pages_free();
    }
}

#[test]
fn whoever_is_alone_takes_as_many_steps_as_without_a_share() {
    for class in Class::ALL {
        let steps = |rollout_share| {
            let mut served = Served::new(Settings { rollout_share, ..settings() });
            let requests = requests(40).into_iter();
            requests.for_each(|request| served.submit(Request { class, ..request }));
            served.run();
            served.engine.counters().steps
        };
        assert_eq!(steps(Some(0.01)), steps(None), "{class:?}");
        assert_eq!(steps(Some(0.99)), steps(None), "{class:?}");
    }
}

#[test]
fn no_bit_depends_on_the_share() {
    // Few pages: many give them back.
    let answers = |rollout_share| {
        let mut served = Served::new(Settings { rollout_share, pages: 24, ..settings() });
        requests(24).into_iter().for_each(|request| served.submit(request));
        served.run();
        served.assert_all_pages_free();
        assert!(served.engine.counters().preemptions > 0);
        served.answers
    };
    let expected = answers(None);
    for share in [0.05, 0.5, 0.9] {
        for (id, answer) in answers(Some(share)) {
            assert_eq!(answer.bits(), expected[&id].bits(), "request {id}");
            assert_eq!(answer.ends, expected[&id].ends, "request {id}");
        }
    }
}

#[test]
fn a_share_that_leaves_one_class_nothing_is_refused() {
    for share in [0.0, 1.0, -0.1, 1.5, f64::NAN] {
        let settings = Settings { rollout_share: Some(share), ..settings() };
        let refused = settings.check().expect_err("no share");
        assert_eq!((refused.field, &*refused.expected), ("rollout_share", "above 0 and below 1"));
    }
}
