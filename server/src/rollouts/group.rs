//! Answers to one prompt that are compared with each other: more may begin than are needed,
//! and those that are still under way when enough have ended are given up.

use super::scoring::Scoring;
use crate::openai::Refusal;
use crate::openai::fields::Fields;
use serde::Serialize;
use serde_json::{Map, Value};

/// Answers of a group at most, as many as `n` may ask for.
pub const SIZE_MAX: u32 = 128;

/// What is asked of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Answers that are wanted.
    size: u32,
    /// Answers that begin besides them.
    oversample: u32,
    /// What is enough before so many have ended.
    enough: Enough,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Enough {
    /// Nothing is.
    All,
    /// So many whose reward is the threshold or more.
    Successes { count: u32, threshold: f64 },
    /// So many that are not all worth the same.
    Variance { count: u32 },
}

/// What came of a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    begun: usize,
    finished: usize,
    cancelled: usize,
    /// Of the rewards of those that finished; null where none did.
    mean: Option<f64>,
    /// The mean square of their distances from it.
    variance: Option<f64>,
}

impl Group {
    /// From a request's fields, which may leave it out.
    pub fn read(fields: &mut Fields, scoring: Option<&Scoring>) -> Result<Option<Self>, Refusal> {
        let Some(group) = fields.take::<Map<String, Value>>("group")? else { return Ok(None) };
        if scoring.is_none() {
            return Err(Refusal::field("group", "only where there is a `scoring_function`"));
        }
        Self::parse(group).map(Some).map_err(|refusal| refusal.within("group"))
    }

    fn parse(group: Map<String, Value>) -> Result<Self, Refusal> {
        let mut fields = Fields::of(group);
        let size = fields.within("size", 1..=SIZE_MAX)?;
        let size = size.ok_or_else(|| Refusal::field("size", "is required"))?;
        let oversample = fields.within("oversample", 0..=SIZE_MAX - size)?.unwrap_or(0);
        let enough = match fields.take::<Map<String, Value>>("stop_when")? {
            None => Enough::All,
            Some(rule) => Enough::parse(rule, size + oversample)
                .map_err(|refusal| refusal.within("stop_when"))?,
        };
        fields.done()?;
        Ok(Self { size, oversample, enough })
    }

    /// Answers that begin.
    pub fn begun(&self) -> u32 {
        self.size + self.oversample
    }

    /// Whether no more are needed beside those that have ended, which are worth so much.
    pub fn is_enough(&self, rewards: &[f64]) -> bool {
        let ended = rewards.len();
        let enough = match self.enough {
            Enough::All => false,
            Enough::Successes { count, threshold } => {
                rewards.iter().filter(|reward| **reward >= threshold).count() >= count as usize
            }
            Enough::Variance { count } => {
                let differ = rewards.iter().any(|reward| *reward != rewards[0]);
                ended >= count as usize && differ
            }
        };
        enough || ended >= self.size as usize
    }

    /// What came of it: of those that finished, what they are worth.
    pub fn summary(&self, rewards: &[f64], cancelled: usize) -> Summary {
        let count = rewards.len() as f64;
        let mean = (!rewards.is_empty()).then(|| rewards.iter().sum::<f64>() / count);
        let variance = mean
            .map(|mean| rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / count);
        let begun = self.begun() as usize;
        Summary { begun, finished: rewards.len(), cancelled, mean, variance }
    }
}

impl Enough {
    fn parse(rule: Map<String, Value>, begun: u32) -> Result<Self, Refusal> {
        let mut fields = Fields::of(rule);
        let successes = fields.within("successes", 1..=begun)?;
        let threshold: Option<f64> = fields.take("threshold")?;
        let variance = fields.switch("variance")?;
        let least = fields.within("min", 2..=begun.max(2))?;
        fields.done()?;
        match (successes, variance) {
            (Some(_), true) => Err(Refusal::field("variance", "not together with `successes`")),
            (Some(_), false) if least.is_some() => {
                Err(Refusal::field("min", "only together with `variance`"))
            }
            (Some(count), false) => {
                Ok(Self::Successes { count, threshold: threshold.unwrap_or(1.0) })
            }
            (None, _) if threshold.is_some() => {
                Err(Refusal::field("threshold", "only together with `successes`"))
            }
            (None, true) => Ok(Self::Variance { count: least.unwrap_or(2) }),
            (None, false) => Err(Refusal::field("successes", "is required, or `variance`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Enough, Group};
    use serde_json::{Value, json};

    fn parse(group: Value) -> Result<Group, Option<String>> {
        let Value::Object(group) = group else { panic!("no object") };
        Group::parse(group).map_err(|refusal| refusal.param)
    }

    #[test]
    fn wrong_fields_are_refused_by_name() {
        for (group, field) in [
            (json!({}), "size"),
            (json!({ "size": 0 }), "size"),
            (json!({ "size": 129 }), "size"),
            (json!({ "size": 100, "oversample": 29 }), "oversample"),
            (json!({ "size": 4, "oversampel": 1 }), "oversampel"),
            (json!({ "size": 4, "stop_when": {} }), "stop_when.successes"),
            (json!({ "size": 4, "stop_when": { "successes": 5 } }), "stop_when.successes"),
            (json!({ "size": 4, "stop_when": { "variance": true, "min": 1 } }), "stop_when.min"),
            (
                json!({ "size": 4, "stop_when": { "variance": true, "threshold": 1 } }),
                "stop_when.threshold",
            ),
            (
                json!({ "size": 4, "stop_when": { "successes": 1, "variance": true } }),
                "stop_when.variance",
            ),
        ] {
            assert_eq!(parse(group.clone()), Err(Some(field.to_owned())), "{group}");
        }
    }

    #[test]
    fn it_is_enough_when_the_rule_says_so_or_as_many_as_wanted_have_ended() {
        let group = |enough| Group { size: 4, oversample: 2, enough };
        let successes = group(Enough::Successes { count: 2, threshold: 0.5 });
        assert!(!successes.is_enough(&[]) && !successes.is_enough(&[1.0, 0.0, 0.4]));
        assert!(successes.is_enough(&[0.5, 1.0]) && successes.is_enough(&[0.0; 4]));
        let variance = group(Enough::Variance { count: 3 });
        assert!(!variance.is_enough(&[0.0, 1.0]) && !variance.is_enough(&[1.0; 3]));
        assert!(variance.is_enough(&[1.0, 1.0, 0.0]) && variance.is_enough(&[1.0; 4]));
        assert!(!group(Enough::All).is_enough(&[0.0, 1.0, 0.0]));
    }

    #[test]
    fn mean_and_variance_are_of_those_that_finished() {
        let group = Group { size: 4, oversample: 2, enough: Enough::All };
        let told = |summary: super::Summary| serde_json::to_value(summary).expect("plain");
        let expected = json!({
            "begun": 6, "finished": 4, "cancelled": 2, "mean": 0.25, "variance": 0.1875,
        });
        assert_eq!(told(group.summary(&[0.0, 1.0, 0.0, 0.0], 2)), expected);
        let none = told(group.summary(&[], 6));
        assert_eq!((&none["mean"], &none["variance"]), (&Value::Null, &Value::Null));
    }
}
