//! Who runs in a step, and how many of its tokens: a pure function of what there is.
//!
//! - A step has a budget of tokens and of rows. Requests that decode come first, one
//!   token each; what is left goes to prompts, cut into chunks; then requests that wait
//!   are admitted, in order of their rank. Where somebody decodes, prompts have
//!   [`Limits::beside`] tokens, or one for each that decodes, and no more, so that the next
//!   token does not keep long; they lose little by it, for a step streams all weights,
//!   however few its rows are. Where so many prompts have come that this would keep the
//!   last of them for long, they have a part of what is left of all of them: whoever has
//!   no token yet waits worse than whoever waits for the next.
//!   Nobody overtakes the first of them, so that
//!   a long prompt is not starved by short ones; only one that awaits a prefix which
//!   somebody else is computing is passed over.
//! - Rank is priority, then age. Whoever has waited for [`Limits::patience`] steps comes
//!   before all that have not, whatever its priority.
//! - Where pages run out the last in rank gives its own back, and waits again: its
//!   tokens are kept, their keys and values are computed anew.
//! - Where rows run out while somebody's patience has, the request that has its row for
//!   longest waits again, once it has generated [`Limits::turn`] tokens there.
//!
//! Whose patience is out, and who awaits nobody's prefix, is admitted within
//! `before * (longest + 1)` steps, also where pages are short: `before` requests run then
//! or have waited for longer, and none has more than `longest` tokens. For nobody that
//! comes later is admitted before it; in every step one of those before it computes a token
//! or gives its pages back, and who has given them back comes after it; and whoever is left
//! alone has all pages. What runs may have to wait again and again for pages, as long as
//! requests before it in rank keep coming: all but the first in rank, which never gives way.
//!
//! Where rollouts have a share (`share.rs`), each class waits in a queue of its own, in which all
//! of this holds, and rollouts give pages back before inference does.

mod share;

use crate::request::Class;

pub use share::Balance;

/// The part of the prompts at hand that a step has room for, whoever decodes: one in so
/// many of their tokens.
const BACKLOG_STEPS: u32 = 16;

/// What a step may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tokens of all requests together; at least `rows`.
    pub tokens: u32,
    /// Requests that run.
    pub rows: u32,
    /// Tokens of one prompt in one step.
    pub chunk: u32,
    /// Tokens of all prompts in a step in which no more than so many decode, and few
    /// prompts are left; at least one.
    pub beside: u32,
    /// Tokens of a page.
    pub page_len: u32,
    /// Steps that a request waits before it comes first.
    pub patience: u64,
    /// Tokens that a request generates before it may have to wait for one that comes
    /// first; at least one, so that every turn brings it on.
    pub turn: u32,
    /// The part of the tokens that rollouts have while both classes could use more, above 0
    /// and below 1; if none is given, classes make no difference.
    pub rollout_share: Option<f64>,
}

impl Limits {
    /// The queues that requests wait in: one for all, or one for each class.
    pub fn queues(&self) -> &'static [Option<Class>] {
        match self.rollout_share {
            None => &[None],
            Some(_) => &[Some(Class::Inference), Some(Class::Rollout)],
        }
    }
}

/// What the scheduler knows of a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number.
    pub id: u64,
    /// Who asks.
    pub class: Class,
    /// Smaller comes first.
    pub priority: i32,
    /// The step it arrived in.
    pub arrived: u64,
    /// The step since which it waits, or runs.
    pub since: u64,
    /// Tokens it has: its prompt and what was generated.
    pub known: u32,
    /// Tokens generated since it runs.
    pub generated: u32,
    /// Those of them whose keys and values are in pages; fewer than `known`.
    pub computed: u32,
    /// Pages it has.
    pub pages: u32,
    /// Of these, the ones that would be free if it gave its pages back.
    pub own: u32,
    /// Free pages that it takes besides those its next tokens fill: one where the page
    /// it writes next is shared; and where it waits, those of a prefix it has found that
    /// nobody holds.
    pub besides: u32,
    /// Whether somebody else is computing a prefix that it can use.
    pub awaits: bool,
    /// Whether it runs, but cannot go on in this step.
    pub pauses: bool,
}

impl Request {
    /// Tokens that are to be computed: one, where it decodes.
    fn left(&self) -> u32 {
        self.known - self.computed
    }

    /// Whether it is of a queue.
    pub fn is_of(&self, queue: Option<Class>) -> bool {
        queue.is_none_or(|class| class == self.class)
    }

    /// Whether it has waited for so long that it comes first.
    fn is_impatient(&self, step: u64, limits: &Limits) -> bool {
        step.saturating_sub(self.since) >= limits.patience
    }

    /// Its rank among those that wait: the smallest is admitted first.
    pub fn rank(&self, step: u64, limits: &Limits) -> impl Ord + use<> {
        let first = match self.is_impatient(step, limits) {
            true => (0, 0, self.since),
            false => (1, self.priority, 0),
        };
        (first, self.arrived, self.id)
    }
}

/// What there is.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The number of the step.
    pub step: u64,
    /// Pages that are free, or can be.
    pub free: u32,
    /// Which class has had too little so far, where they share.
    pub balance: Balance,
    /// Requests with a row.
    pub running: &'a [Request],
    /// Requests without.
    pub waiting: &'a [Request],
}

/// What to do in a step, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Give their pages back, and wait again.
    pub preempt: Vec<u64>,
    /// Cannot go on, though they have all pages there are.
    pub refuse: Vec<u64>,
    /// No longer wait.
    pub admit: Vec<u64>,
    /// The requests that run, and how many of their tokens.
    pub run: Vec<(u64, u32)>,
    /// Where classes share, those that could have used more.
    pub short: [bool; 2],
}

/// The plan of a step.
pub fn plan(view: View<'_>, limits: &Limits) -> Plan {
    let mut running: Vec<&Request> = view.running.iter().collect();
    let mut waiting: Vec<&Request> = view.waiting.iter().collect();
    // Who gives its pages back first is last.
    let class = |request: &Request| limits.rollout_share.map(|_| request.class);
    running.sort_by_key(|it| (class(it), it.priority, it.arrived, it.id));
    waiting.sort_by_key(|request| request.rank(view.step, limits));
    let mut step = Step { view, limits, plan: Plan::default(), free: view.free, running };
    for &queue in limits.queues() {
        step.make_room_for_the_impatient(&waiting, queue);
    }
    if let Some(share) = limits.rollout_share {
        step.take_seats(share, &waiting);
    }
    let backlog = step.backlog(&waiting);
    let mut tokens = limits.tokens;
    step.continue_running(true, None, &mut tokens);
    step.leave_to_prompts(backlog, &mut tokens);
    match limits.rollout_share {
        Some(share) => step.share_out(share, &waiting, tokens),
        None => {
            step.continue_running(false, None, &mut tokens);
            let seats = step.seats();
            step.admit(&waiting, seats, &mut tokens);
        }
    }
    step.plan
}

/// A plan in the making.
struct Step<'a> {
    view: View<'a>,
    limits: &'a Limits,
    plan: Plan,
    /// Pages that nobody has been promised.
    free: u32,
    /// Those that still run, in order of their rank.
    running: Vec<&'a Request>,
}

impl Step<'_> {
    fn make_room_for_the_impatient(&mut self, waiting: &[&Request], queue: Option<Class>) {
        let now = self.view.step;
        let ready = waiting.iter().filter(|request| request.is_of(queue) && !request.awaits);
        let impatient = ready.filter(|request| request.is_impatient(now, self.limits));
        self.turn_out(impatient.count().saturating_sub(self.seats()), queue);
    }

    /// So many of a queue that have had their turn wait again, those first that run longest.
    fn turn_out(&mut self, count: usize, queue: Option<Class>) {
        for _ in 0..count {
            let served = self.running.iter().enumerate();
            let served = served.filter(|(_, request)| {
                request.is_of(queue) && request.generated >= self.limits.turn.max(1)
            });
            let longest = served.min_by_key(|(_, request)| (request.since, request.id));
            let Some((at, _)) = longest else { break };
            self.preempt(at);
        }
    }

    /// Rows that nobody has.
    fn seats(&self) -> usize {
        (self.limits.rows as usize).saturating_sub(self.running.len())
    }

    fn preempt(&mut self, at: usize) {
        let request = self.running.remove(at);
        self.free += request.own;
        self.plan.preempt.push(request.id);
    }

    /// Tokens of prompts that can be computed now: of those that run, and of those that
    /// have rows to come to.
    fn backlog(&self, waiting: &[&Request]) -> u32 {
        let waiting = waiting.iter().filter(|request| !request.awaits).take(self.seats());
        let left = self.running.iter().chain(waiting).map(|request| request.left());
        left.filter(|&left| left > 1).fold(0, u32::saturating_add)
    }

    /// Those of a queue that decode, or whose prompts are computed.
    fn continue_running(&mut self, decoding: bool, queue: Option<Class>, tokens: &mut u32) {
        let mut at = 0;
        while at < self.running.len() {
            let request = self.running[at];
            let is_other = (request.left() == 1) != decoding || !request.is_of(queue);
            if is_other || request.pauses || (!decoding && self.has_promised(request)) {
                at += 1;
                continue;
            }
            match self.run(request, *tokens) {
                Some(0) => at += 1,
                Some(count) => {
                    *tokens -= count;
                    at += 1;
                }
                None => at = self.give_way(at),
            }
        }
    }

    /// Beside those who decode, prompts have but a part of the tokens.
    fn leave_to_prompts(&self, backlog: u32, tokens: &mut u32) {
        if !self.plan.run.is_empty() {
            let decode = self.plan.run.len() as u32;
            let beside = self.limits.beside.max(decode).max(backlog / BACKLOG_STEPS);
            *tokens = beside.min(*tokens);
        }
    }

    /// Promises a request as many tokens as the budget and the pages allow; none, where
    /// the budget is spent, `None`, where pages are lacking.
    fn run(&mut self, request: &Request, tokens: u32) -> Option<u32> {
        let most = request.left().min(self.limits.chunk).min(tokens);
        if most == 0 {
            return Some(0);
        }
        let page_len = self.limits.page_len;
        let room = (request.pages + self.free.checked_sub(request.besides)?) * page_len;
        let count = most.min(room.saturating_sub(request.computed));
        if count == 0 {
            return None;
        }
        self.free -= self.wants(request, count);
        self.plan.run.push((request.id, count));
        Some(count)
    }

    /// Whether a request has some of the tokens.
    fn has_promised(&self, request: &Request) -> bool {
        self.plan.run.iter().any(|run| run.0 == request.id)
    }

    /// Free pages that so many tokens take.
    fn wants(&self, request: &Request, tokens: u32) -> u32 {
        let pages = (request.computed + tokens).div_ceil(self.limits.page_len);
        pages.saturating_sub(request.pages) + request.besides
    }

    /// The request at `at` lacks pages: the last in rank without a promise, itself if
    /// need be, gives its own back. Says where to go on.
    fn give_way(&mut self, at: usize) -> usize {
        let last = self.running.iter().rposition(|request| !self.has_promised(request));
        let last = last.expect("the one that lacks pages has no promise");
        let prompt = self.running[at].left() > 1;
        if last == at && prompt && !self.plan.run.is_empty() {
            // Those that run will end, or give way themselves.
            return at + 1;
        }
        if self.running.len() == 1 && self.plan.preempt.is_empty() {
            self.plan.refuse.push(self.running.remove(at).id);
        } else {
            self.preempt(last);
        }
        at
    }

    /// Admits those who wait, in order; says whether none of them was kept for want of pages.
    fn admit(&mut self, waiting: &[&Request], mut seats: usize, tokens: &mut u32) -> bool {
        for request in waiting.iter().filter(|request| !request.awaits) {
            if seats == 0 || *tokens == 0 {
                break;
            }
            // A page for each that runs, so that none gives way in the next steps.
            let spare = (self.running.len() + self.plan.admit.len()) as u32;
            let chunk = request.left().min(self.limits.chunk).min(*tokens);
            if spare > 0 && self.wants(request, chunk) + spare > self.free {
                return false;
            }
            match self.run(request, *tokens) {
                Some(count) if count > 0 => *tokens -= count,
                _ => return false,
            }
            self.plan.admit.push(request.id);
            seats -= 1;
        }
        true
    }
}
