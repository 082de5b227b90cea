//! What a reply says of the rollouts that its answers are.

use super::group::Summary;
use crate::openai::answer::Piece;
use serde::Serialize;
use trajectories::Id;

/// What became of one answer besides its text.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Collected {
    /// The number of its trajectory, which the store has from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trajectory_id: Option<Id>,
    /// What it is worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<f64>,
    /// Versions that came after that of its oldest token, until it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staleness: Option<u32>,
    /// Those were more than asked: it was not collected.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// Why it, or its reward, is not in the store, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trajectory_error: Option<String>,
    /// What the base says of its tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ref_logprobs: Option<Vec<f32>>,
}

/// The same of all answers to a request.
#[derive(Debug, Default)]
pub struct Told {
    /// Of each answer that has ended, where anything is to be told.
    pub each: Vec<Option<Collected>>,
    /// Of the group of each prompt, where they are groups and something has come.
    pub groups: Vec<Option<Summary>>,
    /// Whether they were to be collected.
    pub collects: bool,
}

/// What heads a whole reply.
#[derive(Debug, Serialize)]
pub struct Heading {
    /// Of each answer in it; null where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    trajectory_ids: Option<Vec<Option<Id>>>,
    /// Of the only prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Summary>,
    /// Of each of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<Summary>>,
}

impl Told {
    /// Of an answer, with its last piece.
    pub fn of(&self, piece: &Piece) -> Option<Collected> {
        piece.end.as_ref()?;
        self.each.get(piece.index)?.clone()
    }

    /// Of a reply with these answers.
    pub fn heading(&self, pieces: &[Piece]) -> Option<Heading> {
        let id = |piece: &Piece| self.each.get(piece.index)?.as_ref()?.trajectory_id;
        let trajectory_ids = self.collects.then(|| pieces.iter().map(id).collect());
        let mut summaries: Vec<Summary> = self.groups.iter().flatten().cloned().collect();
        let group = if self.groups.len() == 1 { summaries.pop() } else { None };
        let groups = (!summaries.is_empty()).then_some(summaries);
        let said = trajectory_ids.is_some() || group.is_some() || groups.is_some();
        said.then_some(Heading { trajectory_ids, group, groups })
    }
}
