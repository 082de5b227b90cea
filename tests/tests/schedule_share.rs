//! Two classes at a ratio: what each has of a schedule, counted in tokens.

use engine::request::Class;
use engine::schedule::{Balance, Limits, Request, View, plan};
use pagewise_tests::scheduling::{Arrival, Simulator, arrival, fresh, view};

const LIMITS: Limits = Limits {
    tokens: 64,
    rows: 16,
    chunk: 32,
    beside: 8,
    page_len: 4,
    patience: 1000,
    turn: 16,
    rollout_share: Some(0.3),
};

/// Pages for all rows.
const PAGES: u32 = 4000;

fn of(prompt: u32, wants: u32) -> [Arrival; 2] {
    Class::ALL.map(|class| Arrival { prompt, wants, ..arrival(class) })
}

/// So many steps in which so many requests like these wait again and again.
fn run(simulator: &mut Simulator, steps: u64, like: &[(&Arrival, usize)]) -> [u64; 2] {
    let before = simulator.tokens;
    for _ in 0..steps {
        for (arrival, count) in like {
            let waiting = simulator.waiting.iter();
            let waiting = waiting.filter(|live| live.request.class == arrival.class).count();
            for _ in waiting..*count {
                simulator.arrive(simulator.arrived, arrival);
            }
        }
        simulator.step();
    }
    [0, 1].map(|class| simulator.tokens[class] - before[class])
}

fn rollouts_part(tokens: [u64; 2]) -> f64 {
    tokens[1] as f64 / tokens.iter().sum::<u64>() as f64
}

#[test]
fn where_both_classes_are_many_each_has_its_share() {
    let (few, long, short) = (of(12, 8), of(40, 300), of(200, 3));
    for share in [0.01, 0.1, 0.3, 0.5, 0.77, 0.99] {
        for rows in [4, 16] {
            for [inference, rollouts] in
                [[&few, &few], [&long, &short], [&short, &long], [&long, &long]]
            {
                let like = [(&inference[0], 8), (&rollouts[1], 8)];
                let limits = Limits { rollout_share: Some(share), rows, ..LIMITS };
                let part = rollouts_part(run(&mut Simulator::new(limits, PAGES), 6000, &like));
                assert!((part - share).abs() < 0.01, "{part}, not {share} of {rows}: {like:?}");
            }
        }
    }
}

#[test]
fn whoever_is_alone_has_everything() {
    for arrival in of(40, 100) {
        let tokens = |rollout_share| {
            let limits = Limits { rollout_share, ..LIMITS };
            run(&mut Simulator::new(limits, PAGES), 1000, &[(&arrival, 8)])
        };
        assert_eq!(tokens(Some(0.01)), tokens(None));
        assert_eq!(tokens(Some(0.99)), tokens(None));
    }
}

#[test]
fn what_one_class_does_not_use_the_other_has() {
    let (one, many) = (of(12, 400), of(40, 100));
    for class in Class::ALL {
        let mut simulator = Simulator::new(LIMITS, PAGES);
        let other = Class::ALL[1 - class as usize];
        simulator.arrive(0, &one[class as usize]);
        run(&mut simulator, 300, &[(&many[other as usize], 4)]);
        assert_eq!(simulator.running.len(), 16);
        // It has run all the while.
        let first = &simulator.running.iter().find(|live| live.request.id == 0);
        let first = &first.expect("it runs").request;
        assert!(first.generated > 280, "{first:?}");
    }
}

#[test]
fn whoever_comes_back_has_its_share_from_then_on_and_no_more() {
    let [inference, rollout] = of(20, 30);
    for (alone, share) in [(&inference, 0.3), (&rollout, 0.3), (&inference, 0.05)] {
        let limits = Limits { rollout_share: Some(share), ..LIMITS };
        let mut simulator = Simulator::new(limits, PAGES);
        run(&mut simulator, 3000, &[(alone, 8)]);
        let part = rollouts_part(run(&mut simulator, 400, &[(&inference, 8), (&rollout, 8)]));
        assert!((part - share).abs() < 0.04, "{part}, not {share} after {alone:?}");
    }
}

#[test]
fn seats_of_long_answers_are_taken_for_the_share_of_the_other() {
    let long = of(10, 100_000);
    let mut simulator = Simulator::new(LIMITS, 400_000);
    run(&mut simulator, 100, &[(&long[1], 4)]);
    let held = |simulator: &Simulator, class| {
        simulator.running.iter().filter(|live| live.request.class == class).count()
    };
    assert_eq!(held(&simulator, Class::Rollout), 16);
    run(&mut simulator, 20, &[(&long[0], 20), (&long[1], 4)]);
    assert_eq!(held(&simulator, Class::Inference), 11);
}

#[test]
fn each_has_its_share_where_pages_are_short_too() {
    let [inference, rollout] = of(40, 60);
    for share in [0.02, 0.3, 0.9] {
        let limits = Limits { rollout_share: Some(share), ..LIMITS };
        let mut simulator = Simulator::new(limits, 60);
        let part = rollouts_part(run(&mut simulator, 20_000, &[(&inference, 8), (&rollout, 8)]));
        assert!(simulator.preempted > 0);
        assert!((part - share).abs() < 0.01, "{part}, not {share}");
    }
}

#[test]
fn who_has_credit_and_lacks_pages_is_not_overtaken_by_the_other_class() {
    let runs = [Request { computed: 8, known: 9, pages: 3, ..fresh(1, 0, 9) }];
    let waiting = [
        Request { class: Class::Rollout, ..fresh(2, 0, 32) },
        Request { class: Class::Inference, ..fresh(3, 0, 4) },
    ];
    let admitted = |short| {
        let mut balance = Balance::default();
        balance.settle(0.5, if short == Class::Rollout { [4, 0] } else { [0, 4] }, [true; 2]);
        plan(View { balance, ..view(9, 2, &runs, &waiting) }, &LIMITS).admit
    };
    assert_eq!((admitted(Class::Rollout), admitted(Class::Inference)), (vec![], vec![3]));
}

#[test]
fn rollouts_give_pages_back_before_inference_does() {
    let decodes = |id, class, priority| Request {
        class,
        priority,
        computed: 8,
        known: 9,
        generated: 5,
        pages: 2,
        own: 2,
        ..fresh(id, id, 9)
    };
    let running = [decodes(1, Class::Rollout, -1), decodes(2, Class::Inference, 0)];
    let at = |limits: &Limits| plan(view(9, 0, &running, &[]), limits);
    let plan = at(&LIMITS);
    assert_eq!((plan.preempt, plan.run), (vec![1], vec![(2, 1)]));
    // Otherwise, whoever comes last.
    let plan = at(&Limits { rollout_share: None, ..LIMITS });
    assert_eq!((plan.preempt, plan.run), (vec![2], vec![(1, 1)]));
}

#[test]
fn a_prompt_that_runs_has_what_the_other_class_has_no_pages_for() {
    let running = [Request { computed: 8, pages: 2, own: 2, ..fresh(1, 0, 30) }];
    let waiting = [Request { class: Class::Rollout, ..fresh(2, 0, 30) }];
    let mut balance = Balance::default();
    balance.settle(0.3, [1000, 0], [false, true]);
    let view = View { balance, ..view(1, 1, &running, &waiting) };
    let plan = plan(view, &Limits { tokens: 8, ..LIMITS });
    assert_eq!((plan.admit, plan.run), (Vec::new(), vec![(1, 4)]));
}
