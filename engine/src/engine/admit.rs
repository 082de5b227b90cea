//! Who runs in a step: what the scheduler is told, and what is done of its plan.

use super::Engine;
use super::draft::Guess;
use super::memory::{Copy, Probed};
use super::sequence::Sequence;
use super::versions::policy_at;
use crate::request::{Class, Event};
use crate::schedule::{self, Plan, View};
use kv::Next;
use std::collections::{HashMap, HashSet};

/// Those who wait first look again for pages in every step, the others when they come and
/// when what they awaited is there: what they found before may be less than there is now.
const LOOK_AGAIN: usize = 4;

/// Plans that may be thrown away in a step because two would compute one page.
const PLANS_MAX: usize = 8;

/// A sequence that runs in a step.
pub(super) struct Run {
    pub id: u64,
    /// Tokens that it had computed before.
    pub first: usize,
    /// Tokens of this step.
    pub tokens: u32,
    /// The version of the weights that computes them.
    pub weights: u64,
    /// A page to copy first.
    pub copy: Option<Copy>,
    /// What may come after them.
    pub guesses: Vec<Guess>,
}

impl Run {
    /// Rows of the step: its tokens, then those of each guess; all but the first guess
    /// compute the last token once more, in pages of their own.
    pub fn rows(&self) -> u32 {
        let own = |guess: &Guess| guess.tokens.len() as u32 + u32::from(guess.fork.is_some());
        self.tokens + self.guesses.iter().map(own).sum::<u32>()
    }

    /// Pages to copy before the step.
    pub fn copies(&self) -> impl Iterator<Item = Copy> {
        let forks = self.guesses.iter().filter_map(|guess| guess.fork.as_ref()?.1);
        self.copy.into_iter().chain(forks)
    }
}

impl Engine {
    /// Who runs, so that no two compute one page.
    pub(super) fn plan(&mut self) -> Plan {
        self.probe_waiting();
        let mut held = HashSet::new();
        let mut plan = self.plan_without(&held);
        for _ in 0..PLANS_MAX {
            let mut first = HashMap::new();
            let mut twice = false;
            for &id in &plan.admit {
                let Some(place) = self.unclaimed(id) else { continue };
                twice |= *first.entry(place).or_insert(id) != id;
            }
            if !twice {
                break;
            }
            let waits = |id: &u64| {
                let first = self.unclaimed(*id).and_then(|place| first.get(&place));
                first.is_some_and(|first| first != id)
            };
            held.extend(self.waiting.keys().copied().filter(waits));
            plan = self.plan_without(&held);
        }
        plan
    }

    /// The place that a sequence would claim first.
    fn unclaimed(&self, id: u64) -> Option<u64> {
        match self.waiting.get(&id)?.probed?.next {
            Next::Unclaimed(place) => Some(place),
            _ => None,
        }
    }

    /// Who runs, if `held` wait for somebody else's prefix.
    fn plan_without(&self, held: &HashSet<u64>) -> Plan {
        // So many pages are promised at most: what each would give back counts only then.
        let enough = self.limits.rows * 2 + self.limits.tokens / self.limits.page_len + 1;
        let free = self.memory.free(enough);
        let scarce = free < enough;
        let running: Vec<_> =
            self.running.iter().map(|(&id, x)| self.view(id, x, scarce)).collect();
        let waiting = self.waiting.iter().map(|(&id, sequence)| {
            let mut request = self.view(id, sequence, false);
            request.awaits |= held.contains(&id);
            request
        });
        let waiting: Vec<_> = waiting.collect();
        let (step, balance) = (self.step, self.balance);
        let view = View { step, free, balance, running: &running, waiting: &waiting };
        schedule::plan(view, &self.limits)
    }

    fn view(&self, id: u64, sequence: &Sequence, own: bool) -> schedule::Request {
        let probed = sequence.probed.as_ref();
        let awaited = probed.and_then(Probed::awaited);
        let (computed, pages, besides) = match (sequence.seat, probed) {
            (None, Some(probed)) => (probed.computed, probed.pages, probed.besides),
            (None, None) => (0, 0, 0),
            (Some(_), _) => {
                let besides = u32::from(self.memory.shares_next(sequence));
                let pages = sequence.table.pages().len() + sequence.spare.len();
                (sequence.computed() as u32, pages as u32, besides)
            }
        };
        schedule::Request {
            id,
            class: sequence.class,
            priority: sequence.priority,
            arrived: sequence.arrived,
            since: sequence.since,
            known: sequence.tokens.len() as u32,
            generated: sequence.turn,
            computed,
            pages,
            own: if own { self.memory.own(sequence) } else { 0 },
            besides,
            awaits: awaited.is_some_and(|place| self.memory.index.is_awaited(place)),
            pauses: sequence.is_late(),
        }
    }

    /// Looks for pages of those who may be admitted now.
    fn probe_waiting(&mut self) {
        let seats = self.seats.len();
        if seats == 0 {
            return;
        }
        for &queue in self.limits.queues() {
            self.probe_queue(queue, seats);
        }
    }

    fn probe_queue(&mut self, queue: Option<Class>, seats: usize) {
        let waiting = self.waiting.iter().map(|(&id, sequence)| self.view(id, sequence, false));
        let ready = waiting.filter(|request| request.is_of(queue) && !request.awaits);
        let mut ready: Vec<_> =
            ready.map(|request| (request.rank(self.step, &self.limits), request.id)).collect();
        if ready.len() > seats {
            ready.select_nth_unstable(seats - 1);
            ready.truncate(seats);
        }
        ready.sort_unstable();
        for (rank, (_, id)) in ready.into_iter().enumerate() {
            let sequence = self.waiting.get_mut(&id).expect("it waits");
            let known = sequence.probed.is_some_and(|probed| probed.awaited().is_none());
            if known && rank >= LOOK_AGAIN {
                continue;
            }
            let group = &self.groups[&sequence.request];
            sequence.probed = Some(self.memory.probe(group, sequence));
        }
    }

    /// A sequence has to wait again, for others to go on.
    pub(super) fn preempt(&mut self, id: u64) {
        self.counters.preemptions += u64::from(self.running.contains_key(&id));
        self.unseat(id);
    }

    /// A sequence gives its pages and its seat back, and waits again.
    pub(super) fn unseat(&mut self, id: u64) {
        let Some(mut sequence) = self.running.remove(&id) else { return };
        self.memory.rest(&mut sequence);
        self.seats.extend(sequence.seat.take());
        (sequence.since, sequence.turn, sequence.probed) = (self.step, 0, None);
        self.waiting.insert(id, sequence);
    }

    /// Seats those who are admitted, and makes room for the tokens of all who run.
    pub(super) fn make_room(&mut self, plan: &Plan) -> Vec<Run> {
        let mut runs = Vec::with_capacity(plan.run.len());
        for &(id, tokens) in &plan.run {
            if self.waiting.contains_key(&id) && !self.seat(id) {
                continue;
            }
            let Some(sequence) = self.running.get_mut(&id) else { continue };
            let first = sequence.computed();
            // What was found may be more than the plan knew.
            let end = sequence.tokens.len().min(first + tokens as usize);
            let weights = policy_at(&sequence.spans, first).weights;
            // One forward pass is of one version of the weights.
            let others = sequence.spans.iter().filter(|span| span.policy.weights != weights);
            let end =
                others.map(|span| span.from).filter(|&from| from > first).fold(end, usize::min);
            let tokens = (end - first) as u32;
            match self.memory.grow(sequence, tokens) {
                Ok(copy) => {
                    runs.push(Run { id, first, tokens, weights, copy, guesses: Vec::new() });
                }
                Err(_) => self.preempt(id),
            }
        }
        runs
    }

    /// Gives a sequence a seat and the pages that are there. Says whether it has them:
    /// another may have claimed the next page in this very step.
    fn seat(&mut self, id: u64) -> bool {
        let Some(mut sequence) = self.waiting.remove(&id) else { return false };
        let group = self.groups.get_mut(&sequence.request).expect("a sequence has a request");
        let admitted =
            if self.seats.is_empty() { None } else { self.memory.admit(group, &mut sequence) };
        let Some((cached, miss)) = admitted else {
            sequence.probed = None;
            self.waiting.insert(id, sequence);
            return false;
        };
        if group.found.is_none() {
            group.found = Some((cached, miss));
            self.events.push(Event::Admitted { id: sequence.request });
            self.counters.cached_tokens += u64::from(cached);
            self.counters.hits += u64::from(cached > 0);
            self.counters.count_miss(miss);
        }
        (sequence.since, sequence.turn, sequence.probed) = (self.step, 0, None);
        (sequence.seat, sequence.fresh, sequence.begun) = (self.seats.pop(), true, true);
        sequence.drafted = sequence.computed();
        self.running.insert(id, sequence);
        true
    }
}
