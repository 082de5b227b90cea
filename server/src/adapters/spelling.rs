//! What is said of a new version, of an adapter or of the weights, whoever says it.

use crate::openai::Refusal;
use crate::openai::fields::Fields;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::engine::InFlight;
use serde_json::Value;

/// What a version is to be called, if that is said.
pub fn label(fields: &mut Fields) -> Result<Option<String>, Refusal> {
    fields.take::<Value>("weight_version")?.map(label_of).transpose()
}

/// What a version is called by a value: trainers count theirs, as text or as numbers.
pub fn label_of(value: Value) -> Result<String, Refusal> {
    match value {
        Value::Number(number) => Ok(number.to_string()),
        Value::String(label) if (1..=256).contains(&label.len()) => Ok(label),
        other => {
            Err(Refusal::expected("weight_version", "a number, or text of 1 to 256 bytes", other))
        }
    }
}

/// What becomes of answers in flight, if that is said.
pub fn in_flight(fields: &mut Fields) -> Result<Option<InFlight>, Refusal> {
    let said: Option<String> = fields.take("in_flight")?;
    said.map(|said| in_flight_of(&said)).transpose()
}

/// What becomes of answers in flight, by its name.
pub fn in_flight_of(said: &str) -> Result<InFlight, Refusal> {
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
