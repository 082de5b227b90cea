//! What a trajectory may be: checked once, before anything of it is written.

use crate::{Error, Masks, Metadata, Trajectory};
use serde_json::Value;

impl Trajectory {
    /// Bytes of a name at most: of a group, a session, a model, a version, an end, a giver.
    pub const NAME_BYTES_MAX: usize = 512;
    /// Spans of versions at most.
    pub const SPANS_MAX: usize = 1024;
    /// Bytes of metadata at most, as compact JSON.
    pub const METADATA_BYTES_MAX: usize = 64 << 10;
    /// Bytes of what else was said of drawing at most, as compact JSON.
    pub const MASKING_BYTES_MAX: usize = 2 << 20;
    /// Objects and lists within each other in metadata, and in that, at most.
    pub const METADATA_DEPTH_MAX: usize = 64;

    /// Refuses what [`Store::append`](crate::Store::append) would refuse in any store, for
    /// those who want to know before there is an answer.
    pub fn check(&self) -> Result<(), Error> {
        trajectory(self)
    }
}

/// Refuses what is no trajectory to append.
pub fn trajectory(of: &Trajectory) -> Result<(), Error> {
    if of.id != 0 {
        return Err(Error::field("id", "0, for the store gives it", of.id));
    }
    if let Some(reward) = of.rewards.first() {
        return Err(Error::field("rewards", "empty, for they are given by id", reward.value));
    }
    let names = [
        ("group", of.group.as_ref()),
        ("session", of.session.as_ref()),
        ("model", Some(&of.model)),
        ("finish", Some(&of.finish)),
    ];
    names.iter().try_for_each(|(field, text)| text.map_or(Ok(()), |text| name(field, text)))?;

    tokens("prompt", of.prompt.len())?;
    tokens("answer", of.answer.len())?;
    logprobs("logprobs.raw", &of.logprobs.raw, of.answer.len())?;
    logprobs("logprobs.processed", &of.logprobs.processed, of.answer.len())?;
    versions(of)?;
    match &of.masks {
        Some(Masks::Hashes(hashes)) => each("masks.hashes", hashes.len(), of.answer.len())?,
        Some(Masks::Kept(sets)) => each("masks.kept", sets.len(), of.answer.len())?,
        None => {}
    }
    if let Some(mask) = &of.loss_mask {
        each("loss_mask", mask.len(), of.answer.len())?;
    }

    let sampling = &of.sampling;
    finite(|| "sampling.temperature".into(), sampling.temperature.into())?;
    finite(|| "sampling.top_p".into(), sampling.top_p.into())?;
    finite(|| "sampling.min_p".into(), sampling.min_p.into())?;
    object("masking", &of.masking, Trajectory::MASKING_BYTES_MAX)?;
    object("metadata", &of.metadata, Trajectory::METADATA_BYTES_MAX)
}

/// Refuses what is no reward.
pub fn reward(value: f64, by: &str) -> Result<(), Error> {
    finite(|| "reward".into(), value)?;
    name("by", by)
}

fn name(field: &str, text: &str) -> Result<(), Error> {
    if text.len() > Trajectory::NAME_BYTES_MAX {
        let expected = format!("at most {} bytes", Trajectory::NAME_BYTES_MAX);
        return Err(Error::field(field, expected, text.len()));
    }
    Ok(())
}

/// Positions are u32.
fn tokens(field: &str, len: usize) -> Result<(), Error> {
    u32::try_from(len).map_err(|_| Error::field(field, "a list that u32 can count", len))?;
    Ok(())
}

fn each(field: &str, len: usize, tokens: usize) -> Result<(), Error> {
    if len != tokens {
        let expected = format!("one for each of the answer's {tokens} tokens");
        return Err(Error::field(field, expected, len));
    }
    Ok(())
}

fn logprobs(field: &str, values: &[f32], tokens: usize) -> Result<(), Error> {
    if !values.is_empty() {
        each(field, values.len(), tokens)?;
    }
    let mut places = values.iter().enumerate();
    places.try_for_each(|(at, value)| finite(|| format!("{field}[{at}]"), f64::from(*value)))
}

/// JSON has neither NaN nor infinities, and no gradient survives them.
fn finite(field: impl Fn() -> String, value: f64) -> Result<(), Error> {
    if value.is_finite() { Ok(()) } else { Err(Error::field(field(), "finite", value)) }
}

fn versions(of: &Trajectory) -> Result<(), Error> {
    if of.versions.len() > Trajectory::SPANS_MAX {
        let expected = format!("at most {} spans", Trajectory::SPANS_MAX);
        return Err(Error::field("versions", expected, of.versions.len()));
    }
    let over = of.versions.iter().map(|span| span.kv.len()).sum::<usize>();
    if over > Trajectory::SPANS_MAX {
        let expected = format!("at most {} spans of keys and values", Trajectory::SPANS_MAX);
        return Err(Error::field("versions", expected, over));
    }
    let mut from = 0;
    for (at, span) in of.versions.iter().enumerate() {
        let place = |field: &str| format!("versions[{at}].{field}");
        name(&place("version"), &span.version)?;
        let weights = |field: &str, weights: &Option<String>| {
            weights.as_ref().map_or(Ok(()), |weights| name(&place(field), weights))
        };
        weights("weights", &span.weights)?;
        for (at, over) in span.kv.iter().enumerate() {
            name(&place(&format!("kv[{at}].version")), &over.version)?;
            weights(&format!("kv[{at}].weights"), &over.weights)?;
        }
        let whole = from <= span.start && span.start < span.end;
        if !whole || span.end as usize > of.answer.len() {
            let expected = format!("a range of tokens within {from}..{}", of.answer.len());
            let got = format!("{}..{}", span.start, span.end);
            return Err(Error::field(format!("versions[{at}]"), expected, got));
        }
        from = span.end;
    }
    Ok(())
}

fn object(field: &str, of: &Metadata, bytes_max: usize) -> Result<(), Error> {
    // Depth comes first: the text is written by a function that calls itself.
    let mut level: Vec<&Value> = of.values().collect();
    for depth in 1.. {
        if level.is_empty() {
            break;
        }
        if depth > Trajectory::METADATA_DEPTH_MAX {
            let expected = format!("at most {} levels deep", Trajectory::METADATA_DEPTH_MAX);
            return Err(Error::field(field, expected, "more"));
        }
        level = level.into_iter().flat_map(inner).collect();
    }
    let text = serde_json::to_string(of)
        .map_err(|error| Error::field(field, "an object of JSON", error))?;
    if text.len() > bytes_max {
        let expected = format!("at most {bytes_max} bytes");
        return Err(Error::field(field, expected, text.len()));
    }
    Ok(())
}

fn inner(of: &Value) -> Vec<&Value> {
    match of {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}
