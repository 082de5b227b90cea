//! How a checkpoint says that its weights are packed. Bits and groups are told by the
//! shapes of the tensors; here stands what would make their numbers mean something else.

use crate::error::Error;
use crate::field::Fields;

/// Whether zeros of GPTQ are stored less one. A method or an option that is not served is
/// refused.
pub fn zeros_less_one(config: &Fields<'_>) -> Result<bool, Error> {
    if let Some(object) = config.object("quantization")? {
        mlx(&Fields { within: "quantization.", object, ..*config })?;
    }
    let Some(object) = config.object("quantization_config")? else {
        return Ok(false);
    };
    let fields = Fields { within: "quantization_config.", object, ..*config };
    match fields.word("quant_method")? {
        Some("awq") => awq(&fields).map(|()| false),
        Some("gptq") => gptq(&fields),
        // MLX writes its own description a second time.
        None | Some("mlx") => mlx(&fields).map(|()| false),
        Some(other) => Err(fields.refuse("quant_method", "awq, gptq or MLX's own", other)),
    }
}

fn mlx(fields: &Fields<'_>) -> Result<(), Error> {
    bits(fields)?;
    word(fields, "mode", "affine")
}

fn awq(fields: &Fields<'_>) -> Result<(), Error> {
    bits(fields)?;
    word(fields, "version", "gemm")
}

fn gptq(fields: &Fields<'_>) -> Result<bool, Error> {
    bits(fields)?;
    if fields.flag("desc_act")? {
        return Err(fields.refuse("desc_act", "false: act-order is not served", true));
    }
    match fields.word("checkpoint_format")? {
        None | Some("gptq") => Ok(true),
        Some("gptq_v2") => Ok(false),
        Some(other) => Err(fields.refuse("checkpoint_format", "gptq or gptq_v2", other)),
    }
}

fn bits(fields: &Fields<'_>) -> Result<(), Error> {
    match fields.maybe_u32("bits")? {
        None | Some(4 | 8) => Ok(()),
        Some(other) => Err(fields.refuse("bits", "4 or 8", other)),
    }
}

/// A word that must be that one, where it is there.
fn word(fields: &Fields<'_>, name: &str, only: &str) -> Result<(), Error> {
    match fields.word(name)? {
        Some(other) if !other.eq_ignore_ascii_case(only) => Err(fields.refuse(name, only, other)),
        _ => Ok(()),
    }
}
