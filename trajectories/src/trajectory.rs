//! What is kept of one answer to one prompt.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The number of a trajectory. The store gives them, from 1, ascending.
pub type Id = u64;

/// A JSON object of the client's.
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// One answer to one prompt, and how it came about.
///
/// As JSON, an f32 is written with the fewest digits that give it back: read as f32, or read
/// as f64 and then narrowed, they are the same bits. (`floats` says what that takes.)
/// A u64 is a number, too: who reads all numbers as f64 loses low bits of seeds and hashes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trajectory {
    /// Its number; 0 until the store gives one.
    pub id: Id,
    /// What it is compared with: answers to one prompt, usually.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The episode that it is a turn of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The name of the model, or of the adapter, that answered.
    pub model: String,
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Tokens of the answer.
    pub answer: Vec<u32>,
    /// Log-probabilities of the answer's tokens.
    pub logprobs: Logprobs,
    /// Which weights gave which tokens of the answer: ascending, none twice.
    pub versions: Vec<Span>,
    /// What the tokens of the answer were drawn from, where it was not everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masks: Option<Masks>,
    /// What else the request said of drawing, in fields of `sampling_params` that say it
    /// again: processors, a grammar, penalties, biases.
    #[serde(with = "metadata", skip_serializing_if = "Metadata::is_empty")]
    pub masking: Metadata,
    /// Which tokens of the answer are trained on; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_mask: Option<Vec<bool>>,
    /// How tokens were drawn.
    pub sampling: Sampling,
    /// Why the answer ended.
    pub finish: String,
    /// What it is worth, in the order of giving. They come later, each by
    /// [`Store::reward`](crate::Store::reward); the last one counts.
    pub rewards: Vec<Reward>,
    /// What the client says of it.
    #[serde(with = "metadata", skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// Hash of the template that made the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_hash: Option<u64>,
    /// When it was made, by its maker's clock: milliseconds since 1970.
    pub created_ms: u64,
    /// Updates of the weights since those that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staleness: Option<u32>,
}

/// Log-probabilities of an answer's tokens: of each list none, or one for each token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logprobs {
    /// Of the model's own distribution.
    #[serde(serialize_with = "floats::list")]
    pub raw: Vec<f32>,
    /// Of the distribution that was drawn from.
    #[serde(serialize_with = "floats::list")]
    pub processed: Vec<f32>,
}

/// Tokens `start..end` of an answer, and the weights that gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The name of the weights.
    pub version: String,
    /// The first token.
    pub start: u32,
    /// One past the last.
    pub end: u32,
    /// The name of the weights under it, where it is an adapter's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// What computed the keys and values that these tokens stand on, where that was not this
    /// version alone. Of positions before the first of them it is what the span before says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kv: Vec<Over>,
}

/// Keys and values of one version, from a position on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    /// The first: prompt and answer count as one.
    pub from: u32,
    /// The name of the version.
    pub version: String,
    /// The name of the weights under it, where it is an adapter's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
}

/// What each token of an answer was drawn from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Masks {
    /// A hash of the kept set, for each token; that of no token where all were kept.
    Hashes(Vec<u64>),
    /// The kept set, for each token.
    Kept(Vec<Vec<u32>>),
}

/// How tokens were drawn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// 0 takes the most likely token.
    #[serde(serialize_with = "floats::one")]
    pub temperature: f32,
    /// Mass kept at least.
    #[serde(serialize_with = "floats::one")]
    pub top_p: f32,
    /// Tokens kept at most; 0 keeps all.
    pub top_k: u32,
    /// Least probability over that of the most likely token.
    #[serde(serialize_with = "floats::one")]
    pub min_p: f32,
    /// Key of the noise.
    pub seed: u64,
    /// Which of the answers to one request; of a step, which noise its episode has.
    pub choice: u32,
}

/// What a trajectory is worth, and who says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reward {
    /// How much.
    pub value: f64,
    /// Who gave it.
    pub by: Arc<str>,
}

/// Floats as JSON that is right for readers who know f64 alone. Of all f32, the fewest
/// digits of one and of its negative, 7.038531e-26, are nearest to an f64 that narrows to
/// its neighbour: this one is written with the digits of an f64.
mod floats {
    use serde::{Serialize, Serializer};

    const EXCEPTION: u32 = 0x15AE_43FD;

    struct Float(f32);

    impl Serialize for Float {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            one(&self.0, to)
        }
    }

    pub fn one<S: Serializer>(value: &f32, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() && value.abs().to_bits() == EXCEPTION {
            return to.serialize_f64((*value).into());
        }
        to.serialize_f32(*value)
    }

    pub fn list<S: Serializer>(values: &[f32], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(|value| Float(*value)))
    }
}

/// Metadata is an object in JSON and its text in a record: no text has bytes above 0xF7, so
/// that none can look like the marker of a frame.
mod metadata {
    use super::Metadata;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    pub fn serialize<S: Serializer>(metadata: &Metadata, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            return metadata.serialize(to);
        }
        to.serialize_str(&serde_json::to_string(metadata).map_err(ser::Error::custom)?)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Metadata, D::Error> {
        if from.is_human_readable() {
            return Metadata::deserialize(from);
        }
        serde_json::from_str(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}
