//! Two classes of requests at a ratio: of the tokens that are computed while both could use
//! more, rollouts have a share.
//!
//! What one class has had too little of is its credit, a debt of the other. It grows only
//! while the class could use more than it gets; so whoever is alone has everything, and who
//! comes back has no claim on the time in which it was not there. A class with credit has
//! seats that come free, and tokens of prompts, before the other; those seats that are its
//! share of all, it takes from answers of the other which have had their turn. Who has
//! credit and lacks pages is not overtaken by the other class.

use super::{Request, Step};
use crate::request::Class;
use std::collections::HashMap;

/// Turns of credit that are worth one seat more, of those that come free.
const TURNS_A_SEAT: f64 = 4.0;
/// And of those that are taken from others.
const TURNS_A_TAKEN_SEAT: f64 = 64.0;
/// The most credit: a class that was short for long has no claim on all that time.
const CREDIT_MAX: f64 = 16384.0;

/// Tokens of credit that rollouts have; inference has as many less than none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Balance(f64);

impl Balance {
    /// After a step that computed so many tokens of each class, and in which the classes that
    /// were `short` could have used more.
    pub fn settle(&mut self, share: f64, tokens: [u64; 2], short: [bool; 2]) {
        let [inference, rollout] = tokens.map(|tokens| tokens as f64);
        let credit = self.0 + share * (inference + rollout) - rollout;
        let least = if short[Class::Inference as usize] { -CREDIT_MAX } else { 0.0 };
        let most = if short[Class::Rollout as usize] { CREDIT_MAX } else { 0.0 };
        self.0 = credit.clamp(least, most);
    }

    /// The class that comes first: the one with credit.
    fn order(self) -> [Class; 2] {
        match self.0 > 0.0 {
            true => [Class::Rollout, Class::Inference],
            false => Class::ALL,
        }
    }
}

/// Divides what there is: rollouts have what they are owed, and each class what the other
/// does not want.
fn divide(all: u32, owed: f64, wants: [u32; 2]) -> [u32; 2] {
    let [inference, rollout] = wants;
    let owed = owed.round().clamp(0.0, f64::from(all)) as u32;
    let rollout = owed.max(all.saturating_sub(inference)).min(rollout);
    [inference.min(all - rollout), rollout]
}

impl Step<'_> {
    /// Takes seats for the class that has fewer than its share, from answers of the other.
    pub(super) fn take_seats(&mut self, share: f64, waiting: &[&Request]) {
        let rows = f64::from(self.limits.rows);
        let credit = self.view.balance.0 / (TURNS_A_TAKEN_SEAT * self.turn());
        for (class, other, share, credit) in [
            (Class::Inference, Class::Rollout, 1.0 - share, -credit),
            (Class::Rollout, Class::Inference, share, credit),
        ] {
            let entitled = (share * rows + credit).max(0.0) as usize;
            let lacking = entitled.saturating_sub(self.held(class)).min(ready(waiting, class));
            self.turn_out(lacking.saturating_sub(self.seats()), Some(other));
        }
    }

    /// Prompts of both classes, in the tokens that answers leave: those that run, then who
    /// waits.
    pub(super) fn share_out(&mut self, share: f64, waiting: &[&Request], tokens: u32) {
        let balance = self.view.balance;
        let ready = Class::ALL.map(|class| ready(waiting, class) as u32);
        let seats = share * f64::from(self.limits.rows) - self.held(Class::Rollout) as f64
            + balance.0 / (TURNS_A_SEAT * self.turn());
        let seats = divide(self.seats() as u32, seats, ready);
        let wants = Class::ALL.map(|class| self.prompts_left(waiting, class, seats));
        let decode = self.promised();
        let rollouts = self.running.iter().filter(|it| it.class == Class::Rollout);
        let rollouts = rollouts.filter(|it| decode.contains_key(&it.id)).count() as f64;
        let decode = decode.len() as f64;
        let owed = share * (decode + f64::from(tokens)) + balance.0 - rollouts;
        let mut tokens = divide(tokens, owed, wants);
        for class in Class::ALL {
            self.continue_running(false, Some(class), &mut tokens[class as usize]);
        }
        for class in balance.order() {
            let at = class as usize;
            let queue: Vec<&Request> =
                waiting.iter().filter(|it| it.class == class).copied().collect();
            if !self.admit(&queue, seats[at] as usize, &mut tokens[at]) {
                break;
            }
        }
        // What one class has no pages for, the prompts of the other go on with: the pages come
        // when these have ended.
        let mut left = tokens.iter().sum();
        self.continue_running(false, None, &mut left);
        self.plan.short = Class::ALL.map(|class| self.is_short(waiting, class));
    }

    /// Tokens of prompts of a class that can be computed in this step.
    fn prompts_left(&self, waiting: &[&Request], class: Class, seats: [u32; 2]) -> u32 {
        let of = |request: &&&Request| request.class == class && !request.awaits;
        let coming = waiting.iter().filter(of).take(seats[class as usize] as usize);
        let running = self.running.iter().filter(of);
        let running = running.filter(|request| request.left() > 1 && !request.pauses);
        let left = running.chain(coming).map(|request| request.left().min(self.limits.chunk));
        left.fold(0, u32::saturating_add)
    }

    /// Whether a class could use more than it has in the plan.
    fn is_short(&self, waiting: &[&Request], class: Class) -> bool {
        let promised = self.promised();
        let mut all = waiting.iter().copied().chain(self.view.running);
        all.any(|request| {
            let most = request.left().min(self.limits.chunk);
            let can = request.class == class && !request.awaits && !request.pauses;
            can && promised.get(&request.id).is_none_or(|count| *count < most)
        })
    }

    /// Tokens of who runs, by its number.
    fn promised(&self) -> HashMap<u64, u32> {
        self.plan.run.iter().copied().collect()
    }

    fn turn(&self) -> f64 {
        f64::from(self.limits.turn.max(1))
    }

    /// Seats that a class has.
    fn held(&self, class: Class) -> usize {
        self.running.iter().filter(|request| request.class == class).count()
    }
}

/// Those of a class that wait, and may come.
fn ready(waiting: &[&Request], class: Class) -> usize {
    waiting.iter().filter(|request| request.class == class && !request.awaits).count()
}
