//! What is said of a new version, of an adapter or of the weights, whoever says it.

use crate::checkpoints::Origin;
use crate::deadline::Deadline;
use crate::openai::Refusal;
use crate::openai::fields::Fields;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::engine::InFlight;
use serde_json::Value;

/// How a version is swapped in.
#[derive(Clone, Debug, Default)]
pub struct Swap {
    /// What it is called; its count, if nothing is said.
    pub label: Option<String>,
    /// What becomes of answers in flight; `None`: it follows from how the engine rests, and
    /// where it does not, they come to their end as they are.
    pub in_flight: Option<InFlight>,
    /// By when it must be there; else it is given up.
    pub until: Deadline,
    /// Where it comes from.
    pub origin: Origin,
}

impl Swap {
    /// As a call says.
    pub fn read(fields: &mut Fields) -> Result<Self, Refusal> {
        let label = fields.take("weight_version")?;
        let in_flight: Option<String> = fields.take("in_flight")?;
        Self::of(label, in_flight.as_deref(), fields.take("timeout_seconds")?)
    }

    /// The same from values.
    pub fn of(
        label: Option<Value>,
        in_flight: Option<&str>,
        timeout_seconds: Option<f64>,
    ) -> Result<Self, Refusal> {
        let until = timeout_seconds.map(|seconds| Deadline::of("timeout_seconds", seconds));
        Ok(Self {
            label: label.map(|label| label_of("weight_version", label)).transpose()?,
            in_flight: in_flight.map(in_flight_of).transpose()?,
            until: until.transpose()?.unwrap_or_default(),
            origin: Origin::Published,
        })
    }
}

/// What a version is called by a value: trainers count theirs, as text or as numbers.
pub fn label_of(field: &str, value: Value) -> Result<String, Refusal> {
    match value {
        Value::Number(number) => Ok(number.to_string()),
        Value::String(label) if (1..=256).contains(&label.len()) => Ok(label),
        other => Err(Refusal::expected(field, "a number, or text of 1 to 256 bytes", other)),
    }
}

/// What becomes of answers in flight, by its name.
fn in_flight_of(said: &str) -> Result<InFlight, Refusal> {
    match said {
        "wait" => Ok(InFlight::Wait),
        "recompute" => Ok(InFlight::Recompute),
        "keep" => Ok(InFlight::Keep),
        "abort" => Ok(InFlight::Abort),
        other => Err(Refusal::expected("in_flight", "wait, recompute, keep or abort", other)),
    }
}

/// The bytes of a safetensors file from base64. A pickle is told apart, and never opened.
pub fn safetensors(field: &str, text: &str) -> Result<Vec<u8>, Refusal> {
    // It may be gigabytes: others are answered meanwhile.
    let decoded = tokio::task::block_in_place(|| STANDARD.decode(text));
    let bytes = decoded.map_err(|_| Refusal::field(field, "is not base64"))?;
    // A pickle begins with its protocol, and torch's files are archives of one.
    let pickled = matches!(bytes[..], [0x80, 2..=5, ..] | [b'P', b'K', 3, 4, ..]);
    if pickled {
        let words = "is a pickle, which runs code when it is opened: this server never opens \
                     one; send a safetensors file";
        return Err(Refusal::field(field, words));
    }
    Ok(bytes)
}
