//! What an answer is worth, by functions that are built in: clients choose one and its
//! parameters, and send no code.

use super::form::Form;
use crate::openai::Refusal;
use crate::openai::fields::Fields;
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// All there are.
const KNOWN: &str = "exact_match, contains, regex, numeric, length, json_schema";
/// Bytes of an expression, and of what it is compiled to: its time is bounded by their product
/// with the text's length.
const PATTERN_BYTES_MAX: usize = 4096;
const COMPILED_BYTES_MAX: usize = 1 << 18;

/// One of them, which gives 1 or 0.
#[derive(Clone, Debug)]
pub struct Scoring {
    /// Its name, which rewards are given by.
    pub name: &'static str,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    /// The text is this, but for white space around it.
    ExactMatch { answer: String },
    /// The text has this in it.
    Contains { text: String },
    /// The expression matches anywhere in the text.
    Regex { pattern: Regex },
    /// The last number of the text is this one, or so near.
    Numeric { answer: f64, tolerance: f64 },
    /// The answer has so many tokens, its end among them.
    Length { min: usize, max: usize },
    /// The text is JSON that keeps to a schema.
    Schema { form: Form },
}

/// What makes a form of a schema.
type Compile<'a> = &'a dyn Fn(Value) -> Result<Form, Refusal>;

impl Scoring {
    /// From a name, or from an object with a name and parameters.
    pub fn read(asked: Value, compile: Compile<'_>) -> Result<Self, Refusal> {
        let parameters = match asked {
            Value::String(name) => Map::from_iter([("name".to_owned(), Value::String(name))]),
            Value::Object(parameters) => parameters,
            other => {
                let words = "a name, or an object with a `name`";
                return Err(Refusal::expected("scoring_function", words, other));
            }
        };
        Self::parse(parameters, compile).map_err(|refusal| refusal.within("scoring_function"))
    }

    fn parse(parameters: Map<String, Value>, compile: Compile<'_>) -> Result<Self, Refusal> {
        let mut fields = Fields::of(parameters);
        let name: String = fields.must("name")?;
        let (name, rule) = match name.as_str() {
            "exact_match" => ("exact_match", Rule::ExactMatch { answer: fields.must("answer")? }),
            "contains" => ("contains", Rule::Contains { text: fields.must("text")? }),
            "regex" => ("regex", Rule::Regex { pattern: pattern(fields.must("pattern")?)? }),
            "numeric" => {
                let answer = fields.must("answer")?;
                let tolerance = fields.within("tolerance", 0.0..=f64::MAX)?.unwrap_or(0.0);
                ("numeric", Rule::Numeric { answer, tolerance })
            }
            "length" => {
                let (min, max) = (fields.take("min")?, fields.take("max")?);
                if min.is_none() && max.is_none() {
                    return Err(Refusal::field("min", "is required, or `max`"));
                }
                let (min, max) = (min.unwrap_or(0), max.unwrap_or(usize::MAX));
                if min > max {
                    return Err(Refusal::expected("max", &format!("at least {min}"), max));
                }
                ("length", Rule::Length { min, max })
            }
            "json_schema" => {
                ("json_schema", Rule::Schema { form: compile(fields.must("schema")?)? })
            }
            other => return Err(Refusal::expected("name", &format!("one of {KNOWN}"), other)),
        };
        fields.done()?;
        Ok(Self { name, rule })
    }

    /// What a text of so many tokens is worth.
    pub fn score(&self, text: &str, tokens: usize) -> f64 {
        let right = match &self.rule {
            Rule::ExactMatch { answer } => text.trim() == answer.trim(),
            Rule::Contains { text: part } => text.contains(part.as_str()),
            Rule::Regex { pattern } => pattern.is_match(text),
            Rule::Numeric { answer, tolerance } => {
                last_number(text).is_some_and(|number| (number - answer).abs() <= *tolerance)
            }
            Rule::Length { min, max } => (*min..=*max).contains(&tokens),
            Rule::Schema { form } => form.has(text),
        };
        if right { 1.0 } else { 0.0 }
    }
}

fn pattern(text: String) -> Result<Regex, Refusal> {
    let name = "pattern";
    if text.len() > PATTERN_BYTES_MAX {
        let expected = format!("at most {PATTERN_BYTES_MAX} bytes");
        return Err(Refusal::expected(name, &expected, text.len()));
    }
    let mut builder = RegexBuilder::new(&text);
    builder.size_limit(COMPILED_BYTES_MAX).dfa_size_limit(COMPILED_BYTES_MAX);
    builder.build().map_err(|error| match error {
        regex::Error::CompiledTooBig(bytes) => {
            Refusal::expected(name, &format!("at most {bytes} bytes when compiled"), "more")
        }
        error => Refusal::field(name, format!("is no expression: {error}")),
    })
}

/// The last number of a text, such as -1,234.5e6. A sign belongs to it unless it stands
/// right behind a letter, a digit or a bracket, as in 12-5.
fn last_number(text: &str) -> Option<f64> {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        let digits = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?-u:\b)|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+";
        Regex::new(&format!("(?:{digits})(?:[eE][+-]?[0-9]+)?")).expect("it is fixed")
    });
    let found = NUMBER.find_iter(text).last()?;
    let number: f64 = found.as_str().replace(',', "").parse().ok()?;
    let before = text[..found.start()].strip_suffix(['-', '\u{2212}']);
    let joined = |c: char| c.is_alphanumeric() || matches!(c, ')' | ']' | '}');
    Some(if before.is_some_and(|before| !before.ends_with(joined)) { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::{Scoring, last_number};
    use crate::openai::Refusal;
    use serde_json::{Value, json};

    fn read(asked: Value) -> Result<Scoring, Refusal> {
        Scoring::read(asked, &|_| Err(Refusal::field("schema", "no server compiles one here")))
    }

    fn scores(asked: Value, text: &str) -> f64 {
        read(asked).expect("a scoring function").score(text, 3)
    }

    #[test]
    fn the_last_number_of_a_text_is_found() {
        for (text, number) in [
            ("", None),
            ("none", None),
            (".", None),
            (", . -", None),
            ("7", Some(7.0)),
            ("So it is 46.", Some(46.0)),
            ("12 + 34 = 46", Some(46.0)),
            ("-3", Some(-3.0)),
            ("x = -3.50!", Some(-3.5)),
            ("12-5", Some(5.0)),
            ("$1,234.50 in all", Some(1234.5)),
            ("1,234,567", Some(1_234_567.0)),
            ("1,2", Some(2.0)),
            ("1.2.3", Some(0.3)),
            ("1,2345", Some(2345.0)),
            ("12345,678", Some(678.0)),
            ("6.02e23", Some(6.02e23)),
            ("1E-3 is it", Some(1e-3)),
            ("-2e+2", Some(-200.0)),
            ("the 3", Some(3.0)),
            ("e5", Some(5.0)),
            (".5", Some(0.5)),
            ("é9é", Some(9.0)),
            ("**42**", Some(42.0)),
            ("\u{2212}42", Some(-42.0)),
        ] {
            assert_eq!(last_number(text), number, "{text}");
        }
        assert_eq!(last_number(&"9".repeat(400)), Some(f64::INFINITY));
    }

    #[test]
    fn each_function_tells_right_from_wrong() {
        for (asked, right, wrong) in [
            (json!({ "name": "exact_match", "answer": " 46" }), "46\n", "46."),
            (json!({ "name": "contains", "text": "né" }), "Hernén", "ne"),
            (json!({ "name": "regex", "pattern": "^\\w+ \\d{2}$" }), "né 46", "46"),
            (json!({ "name": "numeric", "answer": 46 }), "it is 46", "46 or 47"),
            (json!({ "name": "numeric", "answer": -0.5, "tolerance": 0.1 }), "-0.45", "0.5"),
        ] {
            assert_eq!((scores(asked.clone(), right), scores(asked.clone(), wrong)), (1.0, 0.0));
            assert_eq!(scores(asked, ""), 0.0);
        }
        let infinite = json!({ "name": "numeric", "answer": 1, "tolerance": f64::MAX });
        assert_eq!(scores(infinite, &"9".repeat(400)), 0.0);
        let length = |min, max| scores(json!({ "name": "length", "min": min, "max": max }), "");
        assert_eq!([length(3, 3), length(4, 9), length(0, 2)], [1.0, 0.0, 0.0]);
    }

    #[test]
    fn wrong_parameters_are_refused_by_name() {
        for (asked, field) in [
            (json!(3), ""),
            (json!({}), ".name"),
            (json!("exact_match"), ".answer"),
            (json!("eval"), ".name"),
            (json!({ "name": "exact_match", "answer": 46 }), ".answer"),
            (json!({ "name": "contains", "text": "a", "texts": "b" }), ".texts"),
            (json!({ "name": "regex", "pattern": "(" }), ".pattern"),
            (json!({ "name": "regex", "pattern": "(\\w{99}){99}" }), ".pattern"),
            (json!({ "name": "regex", "pattern": "a".repeat(5000) }), ".pattern"),
            (json!({ "name": "numeric", "answer": "46" }), ".answer"),
            (json!({ "name": "numeric", "answer": 1, "tolerance": -1 }), ".tolerance"),
            (json!("length"), ".min"),
            (json!("json_schema"), ".schema"),
            (json!({ "name": "length", "min": 3, "max": 2 }), ".max"),
            (json!({ "name": "length", "max": -2 }), ".max"),
        ] {
            let refused = read(asked.clone()).expect_err("wrong");
            let expected = format!("scoring_function{field}");
            assert_eq!(refused.param.as_deref(), Some(expected.as_str()), "{asked}");
            assert!(refused.message.starts_with(&format!("{expected}: ")), "{}", refused.message);
        }
        let unknown = read(json!("eval")).expect_err("no such").message;
        assert!(unknown.contains(super::KNOWN), "{unknown}");
    }
}
