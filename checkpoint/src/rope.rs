//! How heads turn, in both spellings: `rope_theta` beside `rope_scaling`, and
//! `rope_parameters` with all in one.

use crate::error::Error;
use crate::field::Fields;
use engine::model::Rope;
use kernels_core::rope::table::{Scaling, Yarn, yarn_attention};

/// The base where a file gives none.
const BASE: f64 = 10_000.0;

/// What a configuration says of turns.
pub fn rope(config: &Fields<'_>, max_len: u32) -> Result<Rope, Error> {
    let newer = config.object("rope_parameters")?;
    let (within, object) = match newer {
        Some(object) => ("rope_parameters.", Some(object)),
        None => ("rope_scaling.", config.object("rope_scaling")?),
    };
    let base = config.maybe_f64("rope_theta")?.unwrap_or(BASE);
    let Some(object) = object else {
        return Ok(Rope { base, scaling: Scaling::None });
    };
    let fields = Fields { within, object, ..*config };
    // Families with turns of their own for some layers have one object for each kind.
    if let Some((kind, _)) = object.iter().find(|(_, value)| value.is_object()) {
        return Err(fields.refuse(kind, "absent: all layers turn alike", "an object"));
    }
    if fields.maybe_f64("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
        let got = "a part of them";
        return Err(fields.refuse("partial_rotary_factor", "1: all of a head turns", got));
    }
    let base = fields.maybe_f64("rope_theta")?.unwrap_or(base);
    Ok(Rope { base, scaling: scaling(config, &fields, max_len)? })
}

fn scaling(config: &Fields<'_>, fields: &Fields<'_>, max_len: u32) -> Result<Scaling, Error> {
    let kind = match fields.word("rope_type")? {
        Some(kind) => kind,
        None => fields.word("type")?.unwrap_or("default"),
    };
    let original = || {
        let own = fields.maybe_u32("original_max_position_embeddings")?;
        let outer = config.maybe_u32("original_max_position_embeddings")?;
        Ok::<_, Error>(own.or(outer))
    };
    Ok(match kind {
        "default" => Scaling::None,
        "linear" => Scaling::Linear { factor: fields.f64("factor")? },
        "dynamic" => Scaling::Dynamic {
            factor: fields.f64("factor")?,
            original_positions: max_len,
            positions: max_len,
        },
        "llama3" => Scaling::Llama3 {
            factor: fields.f64("factor")?,
            low_factor: fields.f64("low_freq_factor")?,
            high_factor: fields.f64("high_freq_factor")?,
            original_positions: original()?.unwrap_or(max_len),
        },
        "yarn" => Scaling::Yarn(yarn(fields, original()?.unwrap_or(max_len), max_len)?),
        other => {
            let expected = "default, linear, dynamic, yarn or llama3";
            return Err(fields.refuse("rope_type", expected, other));
        }
    })
}

fn yarn(fields: &Fields<'_>, original_positions: u32, max_len: u32) -> Result<Yarn, Error> {
    let factor = fields.maybe_f64("factor")?;
    let factor = factor.unwrap_or(f64::from(max_len) / f64::from(original_positions.max(1)));
    let mscale = fields.maybe_f64("mscale")?.zip(fields.maybe_f64("mscale_all_dim")?);
    let attention = fields.maybe_f64("attention_factor")?;
    Ok(Yarn {
        factor,
        original_positions,
        beta_fast: fields.maybe_f64("beta_fast")?.unwrap_or(32.0),
        beta_slow: fields.maybe_f64("beta_slow")?.unwrap_or(1.0),
        attention_factor: attention.unwrap_or_else(|| yarn_attention(factor, mscale)),
        truncate: fields.value("truncate").is_none() || fields.flag("truncate")?,
    })
}
