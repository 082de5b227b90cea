//! Groups in the making: one for each prompt of a request, and when no more is needed of
//! one, or of all.

use super::group::{Group, Summary};
use crate::atropos;
use std::ops::Range;
use trajectories::Trajectory;

/// The groups of one request.
pub struct Groups {
    rule: Group,
    made: Vec<Made>,
    /// Those that have enough, and whose answers are not all worth the same.
    varied: usize,
}

/// One of them.
#[derive(Default)]
struct Made {
    /// Answers that ended by themselves, in the order in which they did.
    indices: Vec<usize>,
    /// What each is worth.
    rewards: Vec<f64>,
    /// Each as somebody takes it, where somebody does.
    answers: Vec<Trajectory>,
    /// Answers that have not ended.
    open: usize,
    cancelled: usize,
    /// What has ended is enough.
    enough: bool,
    /// No more is needed: it is enough, or the others are.
    over: bool,
}

/// An answer that has ended by itself.
pub struct Ended {
    pub index: usize,
    pub reward: f64,
    /// For who takes groups, if somebody does.
    pub answer: Option<Trajectory>,
}

impl Groups {
    /// Of so many prompts.
    pub fn new(rule: &Group, prompts: usize) -> Self {
        let open = rule.begun() as usize;
        let made = std::iter::repeat_with(|| Made { open, ..Made::default() });
        Self { rule: rule.clone(), made: made.take(prompts).collect(), varied: 0 }
    }

    /// Whether no more is needed of a prompt's.
    pub fn is_over(&self, prompt: usize) -> bool {
        self.made[prompt].over
    }

    /// One of its answers has ended.
    pub fn closed(&mut self, prompt: usize, cancelled: bool) {
        let made = &mut self.made[prompt];
        made.open -= 1;
        made.cancelled += usize::from(cancelled);
    }

    /// One of its answers has ended by itself, and is worth something.
    pub fn ended(&mut self, prompt: usize, ended: Ended) {
        let made = &mut self.made[prompt];
        made.indices.push(ended.index);
        made.rewards.push(ended.reward);
        made.answers.extend(ended.answer);
    }

    /// The prompts of which it has just become plain that no more answers are needed.
    pub fn over(&mut self, prompt: usize) -> Range<usize> {
        let made = &mut self.made[prompt];
        if made.over || !self.rule.is_enough(&made.rewards) {
            return 0..0;
        }
        (made.enough, made.over) = (true, true);
        let kept: Vec<f64> =
            self.rule.kept(&made.rewards).into_iter().map(|at| made.rewards[at]).collect();
        self.varied += usize::from(kept.iter().any(|reward| *reward != kept[0]));
        if !self.rule.are_enough(self.varied) {
            return prompt..prompt + 1;
        }
        self.made.iter_mut().for_each(|made| made.over = true);
        0..self.made.len()
    }

    /// Whether the reply has an answer.
    pub fn has(&self, prompt: usize, index: usize) -> bool {
        let made = &self.made[prompt];
        self.rule.kept(&made.rewards).iter().any(|at| made.indices[*at] == index)
    }

    /// What came of a prompt's, so far.
    pub fn summary(&self, prompt: usize) -> Summary {
        let made = &self.made[prompt];
        self.rule.summary(&made.rewards, made.cancelled, made.enough)
    }

    /// A prompt's for who takes groups, once it has enough and all its answers have ended.
    pub fn whole(&mut self, prompt: usize) -> Option<atropos::Group> {
        let made = &mut self.made[prompt];
        if !made.enough || made.open > 0 || made.answers.is_empty() {
            return None;
        }
        let answers = std::mem::take(&mut made.answers);
        let mut group = atropos::Group::default();
        for at in self.rule.kept(&made.rewards) {
            group.push(&answers[at], made.rewards[at]);
        }
        Some(group)
    }
}
