//! Answers that keep to a grammar: their masks are computed while a step runs, and whoever's
//! mask comes late draws in a later step, while the others go on.

use super::Engine;
use super::admit::Run;
use super::draft::{Place, guesses_of};
use super::launch::Draw;
use crate::request::Finish;
use grammar::{Done, Job, Matcher, Next, Text};

/// What may come next of an answer.
pub(super) enum Guide {
    /// It is being found out.
    Away {
        /// Whether a step has waited for it in vain.
        late: bool,
    },
    /// It is known, or can be asked.
    Here {
        /// The answer so far.
        matcher: Box<dyn Matcher>,
        /// Tokens that came since.
        came: Vec<u32>,
        /// What may come next, then after each token of what is guessed, in words of their own:
        /// one bit for each token, lowest first. None before it was asked.
        masks: Vec<u32>,
        /// Whether they took long.
        dear: bool,
    },
}

impl Guide {
    /// How many of these tokens may come next.
    pub fn allowed(&mut self, tokens: &[u32]) -> usize {
        let Self::Here { matcher, came, .. } = self else { return 0 };
        // What is wrong with them is told with the mask.
        while let Some(&token) = came.first() {
            if matcher.accept(token).is_err() {
                return 0;
            }
            came.remove(0);
        }
        matcher.allowed(tokens).unwrap_or(0)
    }
}

/// Draws that are made, and what became of the others.
pub(super) struct Guided {
    pub draws: Vec<Draw>,
    /// Sequences whose masks came too late.
    pub late: Vec<u64>,
    /// Sequences that end without another token.
    pub ends: Vec<(u64, Finish)>,
}

impl Engine {
    /// Asks for the masks of a step's draws, those after its guesses included; says whether
    /// there are any.
    pub(super) fn ask_masks(&mut self, runs: &[Run], draws: &[Draw]) -> bool {
        let words = self.config().vocab.div_ceil(32) as usize;
        let guesses = guesses_of(runs);
        let (mut guided, mut jobs) = (false, Vec::new());
        for draw in draws.iter().filter(|draw| draw.place == Place::default()) {
            let sequence = self.running.get_mut(&draw.id).expect("it draws");
            let (text, tokens, dear) = match sequence.guide.take() {
                None => match self.groups[&sequence.request].grammar() {
                    Some(grammar) => (Text::New(grammar.clone()), Vec::new(), false),
                    None => continue,
                },
                Some(Guide::Here { matcher, came, masks, dear }) if masks.is_empty() => {
                    (Text::Begun(matcher), came, dear)
                }
                there => {
                    sequence.guide = there;
                    guided = true;
                    continue;
                }
            };
            sequence.guide = Some(Guide::Away { late: false });
            let guesses = guesses.get(&draw.id).copied().unwrap_or(&[]);
            let paths = guesses.iter().map(|guess| guess.tokens.clone()).collect();
            jobs.push(Job { id: draw.id, text, tokens, paths, words, dear });
            guided = true;
        }
        if !jobs.is_empty() {
            self.masker.ask(jobs);
        }
        guided
    }

    /// Tokens of an answer were drawn.
    pub(super) fn guide_on(&mut self, id: u64, tokens: &[u32]) {
        let Some(sequence) = self.running.get_mut(&id) else { return };
        if let Some(Guide::Here { came, masks, .. }) = &mut sequence.guide {
            came.extend(tokens);
            masks.clear();
        }
    }

    /// Takes the masks that are there.
    pub(super) fn take_masks(&mut self) {
        for (id, why) in self.wait_for_masks(&[]) {
            self.end(id, why);
        }
    }

    /// Where nobody can run, those that are late may be awaited.
    pub(super) fn await_the_late(&mut self) {
        let late = self.running.iter().filter(|(_, sequence)| sequence.is_late());
        let ids: Vec<u64> = late.map(|(&id, _)| id).collect();
        for (id, why) in self.wait_for_masks(&ids) {
            self.end(id, why);
        }
    }

    /// Of the draws of a step, those whose masks are there, or come while there is patience.
    pub(super) fn guided(&mut self, mut draws: Vec<Draw>) -> Guided {
        let away = |draw: &&Draw| self.is_away(draw.id);
        let mut wanted: Vec<u64> = draws.iter().filter(away).map(|draw| draw.id).collect();
        wanted.dedup();
        let ends = self.wait_for_masks(&wanted);
        let mut late = Vec::new();
        draws.retain(|draw| {
            let ended = ends.iter().any(|(id, _)| *id == draw.id);
            let away = !ended && self.is_away(draw.id);
            if away && late.last() != Some(&draw.id) {
                late.push(draw.id);
            }
            !ended && !away
        });
        let guided = |draw: &&Draw| self.running[&draw.id].guide.is_some();
        self.counters.masks += draws.iter().filter(guided).count() as u64;
        self.counters.late_masks += late.len() as u64;
        Guided { draws, late, ends }
    }

    /// A sequence that could not draw computes its last token once more, with its mask.
    pub(super) fn put_back(&mut self, id: u64) {
        let Some(sequence) = self.running.get_mut(&id) else { return };
        let before = sequence.tokens.len() as u64 - 1;
        self.memory.shorten(sequence, before);
        sequence.drafted = sequence.drafted.min(before as usize);
        // What was guessed and is still counted goes with the slot's next writing.
        sequence.fresh = true;
        if let Some(Guide::Away { late }) = &mut sequence.guide {
            *late = true;
        }
    }

    /// Whether an answer's next mask is being found out.
    fn is_away(&self, id: u64) -> bool {
        self.running
            .get(&id)
            .is_some_and(|sequence| matches!(sequence.guide, Some(Guide::Away { .. })))
    }

    /// Takes what comes while there is patience for these; says who ends.
    fn wait_for_masks(&mut self, wanted: &[u64]) -> Vec<(u64, Finish)> {
        let mut ends = Vec::new();
        for Done { id, outcome } in self.masker.done(wanted) {
            // It may have ended, or wait without a seat, meanwhile.
            let sequence = self.running.get_mut(&id).or_else(|| self.waiting.get_mut(&id));
            let Some(sequence) = sequence else { continue };
            match outcome {
                Ok(Next { complete: true, .. }) => ends.push((id, Finish::Complete)),
                Ok(Next { matcher, masks, dear, .. }) => {
                    let came = Vec::new();
                    sequence.guide = Some(Guide::Here { matcher, came, masks, dear });
                }
                Err(fault) => ends.push((id, Finish::Stuck(fault.to_string()))),
            }
        }
        ends
    }
}
