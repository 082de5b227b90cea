//! The tokens that each was drawn from: how a request asks for them, and how they are told.

use super::Refusal;
use super::fields::Fields;
use engine::processor::{Keep, Kept};
use engine::request::Scored;
use serde::Serialize;
use std::sync::Arc;

/// Tokens in all sampling masks of a request, at most: about eight bytes each on the wire.
pub const KEPT_MAX: u64 = 1 << 25;

/// How a request asks for what was kept: `return_sampling_mask`, and `sampling_mask`.
pub fn read(fields: &mut Fields) -> Result<Option<Keep>, Refusal> {
    let name = "sampling_mask";
    let wanted = fields.switch("return_sampling_mask")?;
    let form: Option<String> = fields.take(name)?;
    match (wanted, form.as_deref()) {
        (false, None) => Ok(None),
        (false, Some(_)) => Err(Refusal::field(name, "only where `return_sampling_mask` is true")),
        (true, None | Some("tokens")) => Ok(Some(Keep::Tokens)),
        (true, Some("hash")) => Ok(Some(Keep::Hash)),
        (true, Some(other)) => {
            Err(Refusal::expected(name, "`tokens` or `hash`", format!("`{other}`")))
        }
    }
}

/// The tokens that one was drawn from, as an answer tells them: null is all there are.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum SamplingMask {
    /// Ascending.
    Tokens(Arc<[u32]>),
    /// Sixteen digits of a hash: JSON's numbers have no 64 bits.
    Hash(String),
    /// The whole vocabulary.
    All(()),
}

impl SamplingMask {
    /// As the engine tells it.
    pub fn of(kept: &Kept) -> Self {
        match kept {
            Kept::All => Self::All(()),
            Kept::Tokens(tokens) => Self::Tokens(tokens.clone()),
            Kept::Hash(hash) => Self::Hash(format!("{hash:016x}")),
        }
    }
}

/// One for each token of a piece.
pub fn told(tokens: &[(Scored, usize)]) -> Vec<SamplingMask> {
    let kept = tokens.iter().filter_map(|(scored, _)| scored.kept.as_ref());
    kept.map(SamplingMask::of).collect()
}

#[cfg(test)]
mod tests {
    use super::{SamplingMask, read};
    use crate::openai::fields::Fields;
    use engine::processor::{Keep, Kept};
    use serde_json::json;

    #[test]
    fn masks_are_asked_for_by_their_tokens_or_by_a_hash() {
        for (body, expected) in [
            (json!({}), Ok(None)),
            (json!({"return_sampling_mask": false}), Ok(None)),
            (json!({"return_sampling_mask": true}), Ok(Some(Keep::Tokens))),
            (
                json!({"return_sampling_mask": true, "sampling_mask": "tokens"}),
                Ok(Some(Keep::Tokens)),
            ),
            (json!({"return_sampling_mask": true, "sampling_mask": "hash"}), Ok(Some(Keep::Hash))),
            (json!({"sampling_mask": "hash"}), Err("sampling_mask")),
            (json!({"return_sampling_mask": true, "sampling_mask": "md5"}), Err("sampling_mask")),
            (json!({"return_sampling_mask": true, "sampling_mask": 1}), Err("sampling_mask")),
            (json!({"return_sampling_mask": 1}), Err("return_sampling_mask")),
        ] {
            let mut fields = Fields::read(body.to_string().as_bytes()).expect("an object");
            let keep = read(&mut fields).map_err(|refusal| refusal.param.expect("a field"));
            assert_eq!(keep, expected.map_err(str::to_owned), "{body}");
        }
    }

    #[test]
    fn all_is_null_and_a_hash_has_all_its_digits() {
        let told = [Kept::All, Kept::Tokens([3, 9].into()), Kept::Hash(0xab)];
        let told = told.map(|kept| SamplingMask::of(&kept));
        let text = serde_json::to_string(&told).expect("JSON");
        assert_eq!(text, r#"[null,[3,9],"00000000000000ab"]"#);
    }
}
