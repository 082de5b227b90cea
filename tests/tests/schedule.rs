//! What the scheduler promises, over random histories of arrivals and cancels.

use engine::request::Class;
use engine::schedule::{Limits, Request, plan};
use pagewise_tests::scheduling::{Arrival, arrival, fresh, simulate, view};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

fn history() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0u64..4, 0i32..3, 1u32..40, 1u32..30, prop::option::weighted(0.2, 0u64..50))
        .prop_map(|(after, priority, prompt, wants, patience)| Arrival {
            after,
            class: Class::Inference,
            priority,
            prompt,
            wants,
            patience,
            like: None,
        });
    prop::collection::vec(arrival, 1..40)
}

fn limits() -> impl Strategy<Value = (Limits, u32)> {
    let budget = (1u32..6, 0u32..20, 1u32..20, 1u32..20);
    (budget, 1u32..6, 0u64..20, 1u32..20, 0u32..40).prop_map(
        |((rows, more, chunk, beside), page_len, patience, turn, pages)| {
            let tokens = rows + more;
            let rollout_share = None;
            let limits =
                Limits { tokens, rows, chunk, beside, page_len, patience, turn, rollout_share };
            // Enough for the longest request alone.
            (limits, 70u32.div_ceil(page_len) + pages)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn everybody_ends_within_the_limits_and_every_page_comes_back(
        (limits, pages) in limits(),
        history in history(),
    ) {
        let simulator = simulate(limits, pages, &history);
        prop_assert_eq!(simulator.pages.free(), pages);
    }

    #[test]
    fn with_a_share_everybody_ends_too(
        (limits, pages) in limits(),
        history in history(),
        share in 0.01f64..0.99,
        rollouts in prop::collection::vec(any::<bool>(), 40),
    ) {
        let limits = Limits { rollout_share: Some(share), ..limits };
        let mut history = history;
        for (arrival, is_rollout) in history.iter_mut().zip(rollouts) {
            arrival.class = if is_rollout { Class::Rollout } else { Class::Inference };
        }
        let simulator = simulate(limits, pages, &history);
        prop_assert_eq!(simulator.pages.free(), pages);
    }
}

/// More requests than are served for a long time, all short, many with the prompt of one
/// shortly before.
fn crowd() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0u64..6, 0i32..3, 1u32..20, 1u32..8, prop::option::weighted(0.3, 0usize..4))
        .prop_map(|(after, priority, prompt, wants, like)| Arrival {
            after,
            class: Class::Inference,
            priority,
            prompt,
            wants,
            patience: None,
            like,
        });
    prop::collection::vec(arrival, 150)
}

/// Pages for the longest of a crowd alone, and a few more.
fn scarce() -> impl Strategy<Value = (Limits, u32)> {
    limits().prop_map(|(limits, pages)| {
        let longest = 28u32.div_ceil(limits.page_len);
        (limits, longest + pages % 8)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nobody_waits_longer_than_is_stated_though_pages_are_short(
        (limits, pages) in scarce(),
        history in crowd(),
    ) {
        let simulator = simulate(limits, pages, &history);
        for (waited, most) in simulator.waits {
            prop_assert!(waited <= most, "{waited} steps, {most} are stated");
        }
    }
}

#[test]
fn a_crowd_does_preempt_and_await() {
    let mut runner = TestRunner::deterministic();
    let [mut preempted, mut awaited, mut waits] = [0; 3];
    for _ in 0..20 {
        let drawn = (scarce(), crowd()).new_tree(&mut runner).expect("nothing is rejected");
        let ((limits, pages), history) = drawn.current();
        let simulator = simulate(limits, pages, &history);
        preempted += simulator.preempted;
        awaited += simulator.awaited;
        waits += simulator.waits.len();
    }
    assert!(preempted > 100 && awaited > 100 && waits > 1000, "{preempted} {awaited} {waits}");
}

#[test]
fn histories_do_preempt_and_cut_prompts() {
    let limits = Limits {
        tokens: 8,
        rows: 4,
        chunk: 4,
        beside: 4,
        page_len: 2,
        patience: 50,
        turn: 10,
        rollout_share: None,
    };
    let arrival = Arrival { wants: 20, ..arrival(Class::Inference) };
    let simulator = simulate(limits, 20, &vec![arrival; 10]);
    assert!(simulator.preempted > 0 && simulator.chunked > 10);
}

/// Room for one at a time, who has a turn of five steps.
fn one_row() -> Limits {
    Limits {
        tokens: 9,
        rows: 1,
        chunk: 9,
        beside: 9,
        page_len: 2,
        patience: 10,
        turn: 5,
        rollout_share: None,
    }
}

#[test]
fn a_smaller_priority_is_admitted_first_until_patience_runs_out() {
    let request = |id, priority, since| Request { priority, ..fresh(id, since, 4) };
    let limits = one_row();
    let waiting = [request(1, 0, 5), request(2, -1, 6)];
    let at = |step| plan(view(step, 9, &[], &waiting), &limits).admit;
    assert_eq!((at(14), at(15)), (vec![2], vec![1]));
}

#[test]
fn the_row_of_who_had_its_turn_goes_to_who_lost_patience() {
    let limits = one_row();
    let running = |generated| Request {
        generated,
        known: 4 + generated,
        computed: 3 + generated,
        pages: 5,
        own: 5,
        ..fresh(1, 0, 4)
    };
    let at = |step, generated| {
        let (running, waiting) = ([running(generated)], [fresh(2, 1, 4)]);
        plan(view(step, 1, &running, &waiting), &limits)
    };
    assert_eq!((at(10, 5).run, at(11, 4).run), (vec![(1, 1)], vec![(1, 1)]));
    let turned = at(11, 5);
    assert_eq!((turned.preempt, turned.admit, turned.run), (vec![1], vec![2], vec![(2, 4)]));
}

#[test]
fn beside_who_decodes_prompts_have_few_tokens_and_alone_all_there_are() {
    let limits = Limits {
        tokens: 40,
        rows: 4,
        chunk: 40,
        beside: 6,
        page_len: 4,
        patience: 50,
        turn: 5,
        rollout_share: None,
    };
    let decodes = Request { computed: 8, known: 9, generated: 5, pages: 3, ..fresh(1, 0, 9) };
    let prompt = Request { computed: 4, pages: 1, ..fresh(2, 0, 8) };
    let waiting = [fresh(3, 1, 50)];
    let run = |running: &[Request]| plan(view(2, 30, running, &waiting), &limits).run;
    assert_eq!(run(&[decodes.clone(), prompt.clone()]), [(1, 1), (2, 4), (3, 2)]);
    assert_eq!(run(std::slice::from_ref(&decodes)), [(1, 1), (3, 6)]);
    assert_eq!(run(&[prompt]), [(2, 4), (3, 36)]);
    // As many as there are that decode.
    let limits = Limits { beside: 1, ..limits };
    let three = [1, 4, 5].map(|id| Request { id, ..decodes.clone() });
    assert_eq!(plan(view(2, 30, &three, &waiting), &limits).run, [(1, 1), (4, 1), (5, 1), (3, 3)]);
}

#[test]
fn where_many_prompts_have_come_they_have_a_part_of_what_is_left() {
    let limits = Limits {
        tokens: 512,
        rows: 4,
        chunk: 512,
        beside: 6,
        page_len: 4,
        patience: 50,
        turn: 5,
        rollout_share: None,
    };
    let decodes = [Request { computed: 8, known: 9, generated: 5, pages: 3, ..fresh(1, 0, 9) }];
    let shares =
        |waiting: &[Request]| plan(view(2, 1000, &decodes, waiting), &limits).run[1..].to_vec();
    // A sixteenth of them, of all that have rows to come to.
    assert_eq!(shares(&[fresh(2, 1, 320)]), [(2, 20)]);
    assert_eq!(shares(&[2, 3, 4, 5].map(|id| fresh(id, 1, 320))), [(2, 60)]);
    // Whoever awaits a prefix is no part of them.
    let awaits = Request { awaits: true, ..fresh(3, 1, 320) };
    assert_eq!(shares(&[fresh(2, 1, 320), awaits]), [(2, 20)]);
    // The setting is the least.
    assert_eq!(shares(&[fresh(2, 1, 64)]), [(2, 6)]);
}
