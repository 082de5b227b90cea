//! What a request asks besides its answers: that they are kept, scored, compared.

use super::form::Form;
use super::group::Group;
use super::scoring::Scoring;
use crate::openai::fields::Fields;
use crate::openai::{Context, Refusal};
use trajectories::{Metadata, Trajectory};

/// What is asked.
#[derive(Debug)]
pub struct Rollout {
    /// That trajectories are kept, and how.
    pub collect: Option<Collect>,
    /// What answers are worth.
    pub scoring: Option<Scoring>,
    /// How many are enough.
    pub group: Option<Group>,
    /// Of the template that made the prompt.
    pub template_hash: Option<u64>,
}

/// How trajectories are kept.
#[derive(Debug)]
pub struct Collect {
    /// What they have in common, as [`Trajectory`] has it.
    pub common: Trajectory,
    /// Versions that may come while an answer is made.
    pub max_staleness: Option<u64>,
}

impl Rollout {
    /// From a request's fields; `None`: nothing of the kind is asked.
    pub fn read(fields: &mut Fields, context: &Context) -> Result<Option<Self>, Refusal> {
        let compile = |schema| Form::compile(schema, &context.served);
        let scoring = fields.take("scoring_function")?;
        let scoring = scoring.map(|asked| Scoring::read(asked, &compile)).transpose()?;
        let collect = match fields.switch("collect_trajectory")? {
            true => Some(Collect::read(fields, context)?),
            false => Collect::none(fields).map(|()| None)?,
        };
        let asked = collect.is_some() || scoring.is_some();
        Ok(asked.then_some(Self { collect, scoring, group: None, template_hash: None }))
    }

    /// How many answers to each of so many prompts begin, where they are groups.
    pub fn read_group(
        of: &mut Option<Self>,
        fields: &mut Fields,
        prompts: usize,
    ) -> Result<Option<u32>, Refusal> {
        let scoring = of.as_ref().and_then(|rollout| rollout.scoring.as_ref());
        let group = Group::read(fields, scoring, prompts)?;
        let begun = group.as_ref().map(Group::begun);
        if let Some(rollout) = of {
            rollout.group = group;
        }
        Ok(begun)
    }
}

impl Collect {
    /// Fields that say nothing where nothing is collected.
    const OWN: [&str; 2] = ["group_id", "max_staleness"];

    fn read(fields: &mut Fields, context: &Context) -> Result<Self, Refusal> {
        if context.served.shelf.is_none() {
            return Err(Refusal::field("collect_trajectory", super::shelf::NONE));
        }
        let group = fields.take("group_id")?;
        let session = fields.take("session_id")?.or_else(|| context.session.clone());
        for (field, name) in [("group_id", &group), ("session_id", &session)] {
            if name.as_ref().is_some_and(String::is_empty) {
                return Err(Refusal::expected(field, "a name", "nothing"));
            }
        }
        let metadata: Metadata = fields.take("metadata")?.unwrap_or_default();
        let common = Trajectory { group, session, metadata, ..Trajectory::default() };
        common.check().map_err(|error| super::shelf::refused(&error))?;
        Ok(Self { common, max_staleness: fields.take("max_staleness")? })
    }

    /// Refuses what only makes sense where something is collected.
    fn none(fields: &mut Fields) -> Result<(), Refusal> {
        match Self::OWN.iter().find(|name| fields.has(name)) {
            None => Ok(()),
            Some(name) => Err(Refusal::field(*name, "only where `collect_trajectory` is true")),
        }
    }
}
