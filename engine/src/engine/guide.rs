//! Answers that keep to a grammar: their masks are computed while a step runs, and whoever's
//! mask comes late draws in a later step, while the others go on.

use super::Engine;
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
    /// It is known.
    Here {
        /// The answer so far.
        matcher: Box<dyn Matcher>,
        /// One bit for each token, lowest first.
        mask: Vec<u32>,
    },
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
    /// Asks what an answer may begin with, if it keeps to a grammar and did not ask before.
    pub(super) fn begin_guide(&mut self, id: u64) {
        let Some(sequence) = self.running.get_mut(&id) else { return };
        let grammar = self.groups[&sequence.request].generate().and_then(|generate| {
            let draws = generate.max_new > 0;
            generate.grammar.clone().filter(|_| draws)
        });
        if let Some(grammar) = grammar.filter(|_| sequence.guide.is_none()) {
            self.ask(id, Text::New(grammar), Vec::new());
        }
    }

    /// Asks what an answer may go on with after a token that was drawn.
    pub(super) fn guide_on(&mut self, id: u64, token: u32) {
        let Some(sequence) = self.running.get_mut(&id) else { return };
        if let Some(Guide::Here { matcher, .. }) = sequence.guide.take() {
            self.ask(id, Text::Begun(matcher), vec![token]);
        }
    }

    fn ask(&mut self, id: u64, text: Text, tokens: Vec<u32>) {
        let words = self.config().vocab.div_ceil(32) as usize;
        self.masker.ask(Job { id, text, tokens, words });
        let sequence = self.running.get_mut(&id).expect("it has a seat");
        sequence.guide = Some(Guide::Away { late: false });
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
        let wanted: Vec<u64> = draws.iter().filter(away).map(|draw| draw.id).collect();
        let ends = self.wait_for_masks(&wanted);
        let mut late = Vec::new();
        draws.retain(|draw| {
            let ended = ends.iter().any(|(id, _)| *id == draw.id);
            let away = !ended && self.is_away(draw.id);
            if away {
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
        let before = sequence.table.tokens() - 1;
        sequence.table.shorten(&mut self.memory.pages, before);
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
                Ok(Next { matcher, mask, .. }) => {
                    sequence.guide = Some(Guide::Here { matcher, mask });
                }
                Err(fault) => ends.push((id, Finish::Failed(fault.to_string()))),
            }
        }
        ends
    }
}
