//! A machine for schedules that computes nothing, and counts: requests come, run as the plan
//! says, and leave, or end.

use engine::request::Class;
use engine::schedule::{Balance, Limits, Plan, Request, View, plan};
use kv::{Pages, Table};

/// One request of a history.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Steps after the one before it.
    pub after: u64,
    /// Who asks.
    pub class: Class,
    /// Smaller comes first.
    pub priority: i32,
    /// Tokens of its prompt.
    pub prompt: u32,
    /// Tokens that it generates.
    pub wants: u32,
    /// Steps after which its client leaves.
    pub patience: Option<u64>,
    /// The one, by its number before this one's, with the same prompt.
    pub like: Option<usize>,
}

/// A request that was taken.
pub struct Live {
    /// As the scheduler sees it.
    pub request: Request,
    table: Table,
    ends_at: u32,
    leaves_at: Option<u64>,
    like: Option<u64>,
    /// Since when it has come first but for so many, as the head of `schedule` says.
    first: Option<(u64, u64)>,
}

/// A request that arrives in a step, with so many tokens.
pub fn fresh(id: u64, step: u64, known: u32) -> Request {
    Request {
        id,
        class: Class::Inference,
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

/// What there is where classes make no difference.
pub fn view<'a>(step: u64, free: u32, running: &'a [Request], waiting: &'a [Request]) -> View<'a> {
    View { step, free, balance: Balance::default(), running, waiting }
}

/// A machine that computes nothing, and counts.
pub struct Simulator {
    /// What a step may take.
    pub limits: Limits,
    /// Pages that are free.
    pub pages: Pages,
    /// Steps so far.
    pub step: u64,
    balance: Balance,
    /// Requests that came.
    pub arrived: u64,
    /// Tokens computed, of each class.
    pub tokens: [u64; 2],
    /// Those that run.
    pub running: Vec<Live>,
    /// Those that wait.
    pub waiting: Vec<Live>,
    /// Those that ended, or left.
    pub finished: usize,
    /// Times that pages were given back.
    pub preempted: usize,
    /// Chunks of a prompt that were not its last.
    pub chunked: usize,
    /// Times that somebody awaited a prefix.
    pub awaited: usize,
    /// Tokens of the longest request.
    pub longest: u64,
    /// How long somebody waited, and how long that one could at most.
    pub waits: Vec<(u64, u64)>,
}

impl Simulator {
    /// Of so many pages.
    pub fn new(limits: Limits, pages: u32) -> Self {
        Self {
            limits,
            pages: Pages::new(pages),
            step: 0,
            balance: Balance::default(),
            arrived: 0,
            tokens: [0; 2],
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

    /// A request comes.
    pub fn arrive(&mut self, id: u64, arrival: &Arrival) {
        let Arrival { class, priority, .. } = *arrival;
        let request = Request { class, priority, ..fresh(id, self.step, arrival.prompt) };
        self.waiting.push(Live {
            request,
            table: Table::new(self.limits.page_len),
            ends_at: arrival.prompt + arrival.wants,
            leaves_at: arrival.patience.map(|patience| self.step + patience),
            like: arrival.like.and_then(|before| id.checked_sub(1 + before as u64)),
            first: None,
        });
        self.arrived += 1;
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

    /// Plans a step, and does what the plan says.
    pub fn step(&mut self) -> Plan {
        self.queue();
        let requests = |all: &[Live]| all.iter().map(|live| live.request.clone()).collect();
        let (running, waiting): (Vec<_>, Vec<_>) =
            (requests(&self.running), requests(&self.waiting));
        let view = View {
            balance: self.balance,
            ..view(self.step, self.pages.free(), &running, &waiting)
        };
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
        let before = self.tokens;
        self.run(&plan.run);
        if let Some(share) = self.limits.rollout_share {
            let tokens = [0, 1].map(|class| self.tokens[class] - before[class]);
            self.balance.settle(share, tokens, plan.short);
        }
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
            self.tokens[live.request.class as usize] += u64::from(tokens);
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

/// One in each step.
pub fn arrival(class: Class) -> Arrival {
    Arrival { after: 1, class, priority: 0, prompt: 12, wants: 8, patience: None, like: None }
}

/// Runs a history to its end.
pub fn simulate(limits: Limits, pages: u32, history: &[Arrival]) -> Simulator {
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
