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
    /// How many groups of a request are enough, if their answers are not all worth the same.
    groups: Option<u32>,
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
    /// Of those that finished, as many as are wanted at most.
    returned: usize,
    cancelled: usize,
    /// Whether it came to its end before others made it unnecessary.
    enough: bool,
    /// Of the rewards of those that are returned; null where none is.
    mean: Option<f64>,
    /// The mean square of their distances from it.
    variance: Option<f64>,
}

impl Group {
    /// From a request's fields, which may leave it out.
    pub fn read(
        fields: &mut Fields,
        scoring: Option<&Scoring>,
        prompts: usize,
    ) -> Result<Option<Self>, Refusal> {
        let Some(group) = fields.take::<Map<String, Value>>("group")? else { return Ok(None) };
        if scoring.is_none() {
            return Err(Refusal::field("group", "only where there is a `scoring_function`"));
        }
        Self::parse(group, prompts).map(Some).map_err(|refusal| refusal.within("group"))
    }

    fn parse(group: Map<String, Value>, prompts: usize) -> Result<Self, Refusal> {
        let mut fields = Fields::of(group);
        let size = fields.within("size", 1..=SIZE_MAX)?;
        let size = size.ok_or_else(|| Refusal::field("size", "is required"))?;
        let oversample = fields.within("oversample", 0..=SIZE_MAX - size)?.unwrap_or(0);
        let (mut groups, mut enough) = (None, Enough::All);
        if let Some(rule) = fields.take::<Map<String, Value>>("stop_when")? {
            let parsed = Enough::parse(rule, size + oversample, prompts);
            (groups, enough) = parsed.map_err(|refusal| refusal.within("stop_when"))?;
        }
        fields.done()?;
        Ok(Self { size, oversample, enough, groups })
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

    /// Whether no more groups are needed beside so many that have enough and whose answers
    /// are not all worth the same.
    pub fn are_enough(&self, varied: usize) -> bool {
        self.groups.is_some_and(|count| varied >= count as usize)
    }

    /// Which of those that have ended, in that order, are returned: the first ones, but for
    /// those that made it enough, which more may have come with in the same step.
    pub fn kept(&self, rewards: &[f64]) -> Vec<usize> {
        let all = 0..rewards.len();
        let needed: Vec<usize> = match self.enough {
            Enough::Successes { count, threshold } => {
                all.clone().filter(|at| rewards[*at] >= threshold).take(count as usize).collect()
            }
            Enough::All if self.groups.is_none() => Vec::new(),
            Enough::All | Enough::Variance { .. } => {
                let other = all.clone().find(|at| rewards[*at] != rewards[0]);
                other.map_or(Vec::new(), |other| vec![0, other])
            }
        };
        let size = self.size as usize;
        let mut kept: Vec<usize> = needed.into_iter().take(size).collect();
        let others = all.filter(|at| !kept.contains(at)).take(size - kept.len());
        let others: Vec<usize> = others.collect();
        kept.extend(others);
        kept.sort_unstable();
        kept
    }

    /// What came of it: of those that are returned, what they are worth.
    pub fn summary(&self, rewards: &[f64], cancelled: usize, enough: bool) -> Summary {
        let kept: Vec<f64> = self.kept(rewards).into_iter().map(|at| rewards[at]).collect();
        let count = kept.len() as f64;
        let mean = (!kept.is_empty()).then(|| kept.iter().sum::<f64>() / count);
        let variance =
            mean.map(|mean| kept.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / count);
        let (begun, finished, returned) = (self.begun() as usize, rewards.len(), kept.len());
        Summary { begun, finished, returned, cancelled, enough, mean, variance }
    }
}

impl Enough {
    /// What is enough of the groups of so many prompts, and of each, of which so many answers
    /// begin.
    fn parse(
        rule: Map<String, Value>,
        begun: u32,
        prompts: usize,
    ) -> Result<(Option<u32>, Self), Refusal> {
        let mut fields = Fields::of(rule);
        let groups = fields.within("groups", 1..=u32::try_from(prompts).unwrap_or(u32::MAX))?;
        let successes = fields.within("successes", 1..=begun)?;
        let threshold: Option<f64> = fields.take("threshold")?;
        let variance = fields.switch("variance")?;
        let least = fields.within("min", 2..=begun.max(2))?;
        fields.done()?;
        let own = match (successes, variance) {
            (Some(_), true) => Err(Refusal::field("variance", "not together with `successes`")),
            (_, false) if least.is_some() => {
                Err(Refusal::field("min", "only together with `variance`"))
            }
            (Some(count), false) => {
                Ok(Self::Successes { count, threshold: threshold.unwrap_or(1.0) })
            }
            (None, _) if threshold.is_some() => {
                Err(Refusal::field("threshold", "only together with `successes`"))
            }
            (None, true) => Ok(Self::Variance { count: least.unwrap_or(2) }),
            (None, false) if groups.is_some() => Ok(Self::All),
            (None, false) => {
                Err(Refusal::field("successes", "is required, or `variance`, or `groups`"))
            }
        };
        Ok((groups, own?))
    }
}

#[cfg(test)]
mod tests {
    use super::{Enough, Group};
    use serde_json::{Value, json};

    fn parse(group: Value) -> Result<Group, Option<String>> {
        let Value::Object(group) = group else { panic!("no object") };
        Group::parse(group, 3).map_err(|refusal| refusal.param)
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
            (json!({ "size": 4, "stop_when": { "groups": 4 } }), "stop_when.groups"),
            (json!({ "size": 4, "stop_when": { "groups": 0 } }), "stop_when.groups"),
            (json!({ "size": 4, "stop_when": { "groups": 1, "min": 2 } }), "stop_when.min"),
        ] {
            assert_eq!(parse(group.clone()), Err(Some(field.to_owned())), "{group}");
        }
    }

    fn group(enough: Enough) -> Group {
        Group { size: 4, oversample: 2, enough, groups: None }
    }

    #[test]
    fn it_is_enough_when_the_rule_says_so_or_as_many_as_wanted_have_ended() {
        let successes = group(Enough::Successes { count: 2, threshold: 0.5 });
        assert!(!successes.is_enough(&[]) && !successes.is_enough(&[1.0, 0.0, 0.4]));
        assert!(successes.is_enough(&[0.5, 1.0]) && successes.is_enough(&[0.0; 4]));
        let variance = group(Enough::Variance { count: 3 });
        assert!(!variance.is_enough(&[0.0, 1.0]) && !variance.is_enough(&[1.0; 3]));
        assert!(variance.is_enough(&[1.0, 1.0, 0.0]) && variance.is_enough(&[1.0; 4]));
        assert!(!group(Enough::All).is_enough(&[0.0, 1.0, 0.0]));
    }

    #[test]
    fn as_many_as_wanted_are_kept_and_what_made_them_enough_is_among_them() {
        let variance = group(Enough::Variance { count: 2 });
        assert_eq!(variance.kept(&[1.0, 1.0, 1.0, 0.0, 0.0, 1.0]), [0, 1, 2, 3]);
        assert_eq!(variance.kept(&[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]), [0, 1, 2, 5]);
        assert_eq!(variance.kept(&[1.0; 6]), [0, 1, 2, 3]);
        assert_eq!(variance.kept(&[1.0, 0.0]), [0, 1]);
        let alone = Group { size: 1, ..variance };
        assert_eq!((alone.kept(&[1.0, 0.0]), alone.kept(&[])), (vec![0], vec![]));
        let successes = group(Enough::Successes { count: 2, threshold: 0.5 });
        assert_eq!(successes.kept(&[0.0, 0.0, 0.0, 1.0, 0.0, 1.0]), [0, 1, 3, 5]);
        assert_eq!(group(Enough::All).kept(&[1.0, 1.0, 1.0, 1.0, 0.0]), [0, 1, 2, 3]);
        let several = Group { groups: Some(1), ..group(Enough::All) };
        assert_eq!(several.kept(&[1.0, 1.0, 1.0, 1.0, 0.0]), [0, 1, 2, 4]);
        assert!(several.are_enough(1) && !several.are_enough(0));
    }

    #[test]
    fn mean_and_variance_are_of_those_that_are_returned() {
        let group = group(Enough::All);
        let told = |summary: super::Summary| serde_json::to_value(summary).expect("plain");
        let expected = json!({
            "begun": 6, "finished": 5, "returned": 4, "cancelled": 1, "enough": true,
            "mean": 0.25, "variance": 0.1875,
        });
        assert_eq!(told(group.summary(&[0.0, 1.0, 0.0, 0.0, 1.0], 1, true)), expected);
        let none = told(group.summary(&[], 6, false));
        assert_eq!((&none["mean"], &none["variance"]), (&Value::Null, &Value::Null));
    }
}
