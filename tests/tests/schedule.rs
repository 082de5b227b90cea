//! What the scheduler promises, over random histories of arrivals and cancels.

use engine::schedule::{Limits, Plan, Request, View, plan};
use kv::{Pages, Table};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// One request of a history.
#[derive(Clone, Debug)]
struct Arrival {
    /// Steps after the one before it.
    after: u64,
    priority: i32,
    prompt: u32,
    /// Tokens that it generates.
    wants: u32,
    /// Steps after which its client leaves.
    patience: Option<u64>,
    /// The one, by its number before this one's, with the same prompt.
    like: Option<usize>,
}

struct Live {
    request: Request,
    table: Table,
    ends_at: u32,
    leaves_at: Option<u64>,
    like: Option<u64>,
    /// Since when it has come first but for so many, as the head of `schedule` says.
    first: Option<(u64, u64)>,
}

/// A request that arrives in a step, with so many tokens.
fn fresh(id: u64, step: u64, known: u32) -> Request {
    Request {
        id,
        priority: 0,
        arrived: step,
        since: step,
        known,
        generated: 0,
        computed: 0,
        pages: 0,
        own: 0,
        besides: 0,
        awaits: false,
        pauses: false,
    }
}

/// A machine that computes nothing, and counts.
struct Simulator {
    limits: Limits,
    pages: Pages,
    step: u64,
    running: Vec<Live>,
    waiting: Vec<Live>,
    finished: usize,
    preempted: usize,
    chunked: usize,
    awaited: usize,
    /// Tokens of the longest request.
    longest: u64,
    /// How long somebody waited, and how long that one could at most.
    waits: Vec<(u64, u64)>,
}

impl Simulator {
    fn new(limits: Limits, pages: u32) -> Self {
        Self {
            limits,
            pages: Pages::new(pages),
            step: 0,
            running: Vec::new(),
            waiting: Vec::new(),
            finished: 0,
            preempted: 0,
            chunked: 0,
            awaited: 0,
            longest: 0,
            waits: Vec::new(),
        }
    }

    fn arrive(&mut self, id: u64, arrival: &Arrival) {
        let request =
            Request { priority: arrival.priority, ..fresh(id, self.step, arrival.prompt) };
        self.waiting.push(Live {
            request,
            table: Table::new(self.limits.page_len),
            ends_at: arrival.prompt + arrival.wants,
            leaves_at: arrival.patience.map(|patience| self.step + patience),
            like: arrival.like.and_then(|before| id.checked_sub(1 + before as u64)),
            first: None,
        });
        self.longest = self.longest.max(u64::from(arrival.prompt + arrival.wants));
    }

    /// Who awaits a prompt that another is computing; and of the others, who comes first
    /// from now on.
    fn queue(&mut self) {
        let (step, patience) = (self.step, self.limits.patience);
        let prompts =
            self.running.iter().filter(|live| live.request.known > live.request.computed + 1);
        let computing: Vec<u64> = prompts.map(|live| live.request.id).collect();
        let age = |request: &Request| (request.since, request.arrived, request.id);
        let mut queue: Vec<_> = self.waiting.iter().map(|live| age(&live.request)).collect();
        queue.sort_unstable();
        for live in &mut self.waiting {
            let request = &mut live.request;
            request.awaits = live.like.is_some_and(|like| computing.contains(&like));
            self.awaited += usize::from(request.awaits);
            if request.awaits || step - request.since < patience {
                live.first = None;
                continue;
            }
            let own = age(request);
            let before = self.running.len() + queue.partition_point(|other| *other < own);
            live.first.get_or_insert((step, before as u64));
        }
    }

    fn leave(&mut self) {
        let step = self.step;
        for list in [&mut self.running, &mut self.waiting] {
            for live in list.extract_if(.., |live| live.leaves_at.is_some_and(|at| at <= step)) {
                live.table.release(&mut self.pages);
                self.finished += 1;
            }
        }
    }

    fn step(&mut self) -> Plan {
        self.queue();
        let requests = |all: &[Live]| all.iter().map(|live| live.request.clone()).collect();
        let (running, waiting): (Vec<_>, Vec<_>) =
            (requests(&self.running), requests(&self.waiting));
        let view =
            View { step: self.step, free: self.pages.free(), running: &running, waiting: &waiting };
        let plan = plan(view, &self.limits);
        assert!(plan.refuse.is_empty(), "everybody fits alone");
        for &id in &plan.preempt {
            let at = self.running.iter().position(|live| live.request.id == id);
            let mut live = self.running.remove(at.expect("it runs"));
            live.table.shorten(&mut self.pages, 0);
            (live.request.computed, live.request.pages, live.request.own) = (0, 0, 0);
            live.request.since = self.step;
            self.preempted += 1;
            self.waiting.push(live);
        }
        for &id in &plan.admit {
            assert!(!plan.preempt.contains(&id), "nobody comes and goes in one step");
            let at = self.waiting.iter().position(|live| live.request.id == id);
            let mut live = self.waiting.remove(at.expect("it waits"));
            if let Some((since, before)) = live.first.take() {
                self.waits.push((self.step - since, before * (self.longest + 1)));
            }
            live.request.since = self.step;
            live.request.generated = 0;
            self.running.push(live);
        }
        self.run(&plan.run);
        self.step += 1;
        plan
    }

    fn run(&mut self, run: &[(u64, u32)]) {
        assert!(run.iter().map(|run| run.1).sum::<u32>() <= self.limits.tokens);
        assert!(self.running.len() <= self.limits.rows as usize);
        for &(id, tokens) in run {
            let at = self.running.iter().position(|live| live.request.id == id);
            let at = at.expect("only those with a row run");
            let live = &mut self.running[at];
            assert!((1..=self.limits.chunk).contains(&tokens));
            live.table.grow(&mut self.pages, tokens.into()).expect("it was promised");
            live.request.computed += tokens;
            live.request.pages = live.table.pages().len() as u32;
            live.request.own = live.request.pages;
            if live.request.computed < live.request.known {
                self.chunked += 1;
                continue;
            }
            live.request.known += 1;
            live.request.generated += 1;
            if live.request.known > live.ends_at {
                self.running.remove(at).table.release(&mut self.pages);
                self.finished += 1;
            }
        }
    }
}

fn history() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0u64..4, 0i32..3, 1u32..40, 1u32..30, prop::option::weighted(0.2, 0u64..50))
        .prop_map(|(after, priority, prompt, wants, patience)| Arrival {
            after,
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
            let limits = Limits { tokens, rows, chunk, beside, page_len, patience, turn };
            // Enough for the longest request alone.
            (limits, 70u32.div_ceil(page_len) + pages)
        },
    )
}

/// Runs a history to its end.
fn simulate(limits: Limits, pages: u32, history: &[Arrival]) -> Simulator {
    let mut simulator = Simulator::new(limits, pages);
    let (mut next, mut due) = (0, history[0].after);
    let mut idle = 0;
    while simulator.finished < history.len() {
        while next < history.len() && due <= simulator.step {
            simulator.arrive(next as u64, &history[next]);
            next += 1;
            due += history.get(next).map_or(0, |arrival| arrival.after);
        }
        simulator.leave();
        let busy = !simulator.running.is_empty() || !simulator.waiting.is_empty();
        let plan = simulator.step();
        idle = if busy && plan.run.is_empty() { idle + 1 } else { 0 };
        assert!(idle < 3, "somebody runs");
        assert!(simulator.step < 100_000, "everybody ends");
    }
    simulator
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
}

/// More requests than are served for a long time, all short, many with the prompt of one
/// shortly before.
fn crowd() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0u64..6, 0i32..3, 1u32..20, 1u32..8, prop::option::weighted(0.3, 0usize..4))
        .prop_map(|(after, priority, prompt, wants, like)| Arrival {
            after,
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
    let limits =
        Limits { tokens: 8, rows: 4, chunk: 4, beside: 4, page_len: 2, patience: 50, turn: 10 };
    let arrival =
        Arrival { after: 1, priority: 0, prompt: 12, wants: 20, patience: None, like: None };
    let simulator = simulate(limits, 20, &vec![arrival; 10]);
    assert!(simulator.preempted > 0 && simulator.chunked > 10);
}

#[test]
fn a_smaller_priority_is_admitted_first_until_patience_runs_out() {
    let request = |id, priority, since| Request { priority, ..fresh(id, since, 4) };
    let limits =
        Limits { tokens: 9, rows: 1, chunk: 9, beside: 9, page_len: 2, patience: 10, turn: 5 };
    let waiting = [request(1, 0, 5), request(2, -1, 6)];
    let at = |step| plan(View { step, free: 9, running: &[], waiting: &waiting }, &limits).admit;
    assert_eq!((at(14), at(15)), (vec![2], vec![1]));
}

#[test]
fn the_row_of_who_had_its_turn_goes_to_who_lost_patience() {
    let limits =
        Limits { tokens: 9, rows: 1, chunk: 9, beside: 9, page_len: 2, patience: 10, turn: 5 };
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
        plan(View { step, free: 1, running: &running, waiting: &waiting }, &limits)
    };
    assert_eq!((at(10, 5).run, at(11, 4).run), (vec![(1, 1)], vec![(1, 1)]));
    let turned = at(11, 5);
    assert_eq!((turned.preempt, turned.admit, turned.run), (vec![1], vec![2], vec![(2, 4)]));
}

#[test]
fn beside_who_decodes_prompts_have_few_tokens_and_alone_all_there_are() {
    let limits =
        Limits { tokens: 40, rows: 4, chunk: 40, beside: 6, page_len: 4, patience: 50, turn: 5 };
    let decodes = Request { computed: 8, known: 9, generated: 5, pages: 3, ..fresh(1, 0, 9) };
    let prompt = Request { computed: 4, pages: 1, ..fresh(2, 0, 8) };
    let waiting = [fresh(3, 1, 50)];
    let run = |running: &[Request]| {
        let view = View { step: 2, free: 30, running, waiting: &waiting };
        plan(view, &limits).run
    };
    assert_eq!(run(&[decodes.clone(), prompt.clone()]), [(1, 1), (2, 4), (3, 2)]);
    assert_eq!(run(std::slice::from_ref(&decodes)), [(1, 1), (3, 6)]);
    assert_eq!(run(&[prompt]), [(2, 4), (3, 36)]);
    // As many as there are that decode.
    let limits = Limits { beside: 1, ..limits };
    let three = [1, 4, 5].map(|id| Request { id, ..decodes.clone() });
    let view = View { step: 2, free: 30, running: &three, waiting: &waiting };
    assert_eq!(plan(view, &limits).run, [(1, 1), (4, 1), (5, 1), (3, 3)]);
}

#[test]
fn where_many_prompts_have_come_they_have_a_part_of_what_is_left() {
    let limits =
        Limits { tokens: 512, rows: 4, chunk: 512, beside: 6, page_len: 4, patience: 50, turn: 5 };
    let decodes = [Request { computed: 8, known: 9, generated: 5, pages: 3, ..fresh(1, 0, 9) }];
    let shares = |waiting: &[Request]| {
        let view = View { step: 2, free: 1000, running: &decodes, waiting };
        plan(view, &limits).run[1..].to_vec()
    };
    // A sixteenth of them, of all that have rows to come to.
    assert_eq!(shares(&[fresh(2, 1, 320)]), [(2, 20)]);
    assert_eq!(shares(&[2, 3, 4, 5].map(|id| fresh(id, 1, 320))), [(2, 60)]);
    // Whoever awaits a prefix is no part of them.
    let awaits = Request { awaits: true, ..fresh(3, 1, 320) };
    assert_eq!(shares(&[fresh(2, 1, 320), awaits]), [(2, 20)]);
    // The setting is the least.
    assert_eq!(shares(&[fresh(2, 1, 64)]), [(2, 6)]);
}
