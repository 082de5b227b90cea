//! Which matrices a PEFT configuration speaks of, by name: lists of endings, and regular
//! expressions as Python's `re` reads them, as far as both languages agree. The engine of
//! these takes time in proportion to the name, whatever the expression.

use super::matrices::{Kind, Matrix};
use crate::error::Error;
use crate::field::Fields;
use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;
use std::collections::BTreeSet;

/// Bytes that an expression may take compiled; those of real files take a few thousand.
const COMPILED_BYTES_MAX: usize = 1 << 18;

/// Values for some matrices: the first expression that a name fits counts.
#[derive(Debug)]
pub struct Patterns<T>(Vec<(Regex, T)>);

impl<T: Copy> Patterns<T> {
    /// A field that has values by expressions, at most that many: a model has no use for
    /// more than it has matrices.
    pub fn read(
        fields: &Fields<'_>,
        name: &str,
        count_max: usize,
        parse: impl Fn(&Fields<'_>, &str) -> Result<T, Error>,
    ) -> Result<Self, Error> {
        let Some(object) = fields.object(name)? else {
            return Ok(Self(Vec::new()));
        };
        if object.len() > count_max {
            let expected = format!("at most {count_max} expressions, as the model has matrices");
            return Err(fields.refuse(name, expected, object.len()));
        }
        let within = format!("{}{name}.", fields.within);
        let values = Fields { within: &within, object, ..*fields };
        let each = object.keys().map(|key| {
            // Compiled alone first, so that no parenthesis of it ends the group around it.
            expression(&values, key, key)?;
            let whole = expression(&values, key, &format!(r"^(?:.*\.)?(?:{key})$"))?;
            Ok((whole, parse(&values, key)?))
        });
        each.collect::<Result<_, _>>().map(Self)
    }

    /// The value of a matrix.
    pub fn of(&self, matrix: &str) -> Option<T> {
        let fits = |(pattern, _): &&(Regex, T)| pattern.is_match(matrix.as_bytes());
        self.0.iter().find(fits).map(|(_, value)| *value)
    }
}

/// Which matrices have a term.
#[derive(Debug)]
pub struct Targets {
    named: Option<Names>,
    left_out: Option<Names>,
    layers: Option<BTreeSet<u64>>,
}

/// Names in one of three spellings.
#[derive(Debug)]
enum Names {
    /// Whole names, or what stands after a dot of them.
    Endings(BTreeSet<String>),
    /// What names are, from their first letter to their last.
    Expression(Regex),
    /// The products of all layers.
    AllLinear,
}

impl Targets {
    /// What the fields say.
    pub fn read(fields: &Fields<'_>) -> Result<Self, Error> {
        Ok(Self {
            named: names(fields, "target_modules")?,
            left_out: names(fields, "exclude_modules")?,
            layers: layers(fields)?,
        })
    }

    /// Whether that matrix may have one.
    pub fn hold(&self, name: &str, matrix: &Matrix) -> bool {
        if self.left_out.as_ref().is_some_and(|names| names.hold(name, matrix)) {
            return false;
        }
        // Whoever names a matrix in full means it, whatever the layers.
        if matches!(&self.named, Some(Names::Endings(endings)) if endings.contains(name)) {
            return true;
        }
        let of_layer = self.layers.as_ref().is_none_or(|layers| match matrix.kind {
            Kind::Layer(layer) => layers.contains(&u64::from(layer)),
            Kind::Embedding | Kind::Output => false,
        });
        of_layer && self.named.as_ref().is_none_or(|names| names.hold(name, matrix))
    }
}

impl Names {
    fn hold(&self, name: &str, matrix: &Matrix) -> bool {
        match self {
            Self::Endings(endings) => {
                let after = |(dot, _): (usize, _)| endings.contains(&name[dot + 1..]);
                endings.contains(name) || name.match_indices('.').any(after)
            }
            Self::Expression(expression) => expression.is_match(name.as_bytes()),
            Self::AllLinear => matches!(matrix.kind, Kind::Layer(_)),
        }
    }
}

fn names(fields: &Fields<'_>, name: &str) -> Result<Option<Names>, Error> {
    match fields.value(name) {
        None => Ok(None),
        Some(Value::String(word)) if word.is_empty() => Ok(None),
        Some(Value::String(word)) if word == "all-linear" => Ok(Some(Names::AllLinear)),
        Some(Value::String(word)) => {
            expression(fields, name, word)?;
            expression(fields, name, &format!("^(?:{word})$")).map(|it| Some(Names::Expression(it)))
        }
        Some(value) => {
            let word = |value: &Value| value.as_str().map(str::to_owned);
            let words = value.as_array().and_then(|words| words.iter().map(word).collect());
            let words: Option<BTreeSet<String>> = words;
            let words =
                words.ok_or_else(|| fields.refuse(name, "names or an expression", value))?;
            Ok((!words.is_empty()).then_some(Names::Endings(words)))
        }
    }
}

/// The layers that have terms, where not all have.
fn layers(fields: &Fields<'_>) -> Result<Option<BTreeSet<u64>>, Error> {
    let name = "layers_pattern";
    if let Some(value) = fields.value(name) {
        let words = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let layers = |word: &Value| matches!(word.as_str(), Some("" | "layers"));
        if !words.is_empty() && !words.iter().any(layers) {
            return Err(fields.refuse(name, "layers, as models here call them", value));
        }
    }
    let name = "layers_to_transform";
    let Some(value) = fields.value(name) else {
        return Ok(None);
    };
    let some = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let layers: Option<BTreeSet<u64>> = some.iter().map(Value::as_u64).collect();
    let layers = layers.ok_or_else(|| fields.refuse(name, "a layer or a list of layers", value))?;
    Ok((!layers.is_empty()).then_some(layers))
}

/// An expression. Names are ASCII, so its classes are those of ASCII.
fn expression(fields: &Fields<'_>, name: &str, text: &str) -> Result<Regex, Error> {
    let built = RegexBuilder::new(text).unicode(false).size_limit(COMPILED_BYTES_MAX).build();
    let expected = "a regular expression without looks around and references back";
    built.map_err(|_| fields.refuse(name, expected, text))
}
