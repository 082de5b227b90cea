//! A JSON schema, looked over before it is compiled: each keyword is honoured, or an
//! annotation, or refused by its name and place.

mod keywords;

use crate::{Limits, Refusal, expression};
pub use keywords::schema_keywords;
use keywords::{Keyword, keyword};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Up to it whole numbers are exact as 64-bit floats.
const EXACT: f64 = 9_007_199_254_740_991.0;

/// Blanks between two parts of a value, at most: a model that falls into them comes out.
const BLANKS: &str = r"[ \n\t\r]{1,16}";

/// The same schema, of values with few blanks.
pub fn bounded(schema: Value) -> Value {
    with_option(schema, "whitespace_pattern", BLANKS.into())
}

/// The same schema, of values without any.
pub fn compact(schema: Value) -> Value {
    with_option(schema, "whitespace_flexible", false.into())
}

/// As llguidance is told of it.
fn with_option(schema: Value, name: &str, value: Value) -> Value {
    let mut schema = match schema {
        Value::Object(fields) => fields,
        other => Map::from_iter([("allOf".to_owned(), Value::from(vec![other]))]),
    };
    let options = Map::from_iter([(name.to_owned(), value)]);
    schema.insert("x-guidance".into(), options.into());
    schema.into()
}

/// Where the drafts of JSON Schema are. Others may mean other things by a keyword.
const DRAFTS: [&str; 2] = ["http://json-schema.org/", "https://json-schema.org/"];

/// Whether a keyword that is not honoured asks for nothing.
fn asks_nothing(name: &str, value: &Value) -> bool {
    matches!((name, value), ("uniqueItems" | "nullable" | "$recursiveAnchor", Value::Bool(false)))
}

/// Reads a schema and looks it over; what is left of it asks for nothing that is not
/// honoured.
pub fn read(text: &str, limits: &Limits) -> Result<Value, Refusal> {
    look_over(parse(text, limits)?, limits)
}

/// Parses what is sent as JSON.
pub fn parse(text: &str, limits: &Limits) -> Result<Value, Refusal> {
    limits.bytes(text.len())?;
    serde_json::from_str(text)
        .map_err(|error| Refusal::Invalid { at: String::new(), why: error.to_string() })
}

/// Looks a schema over.
pub fn look_over(mut schema: Value, limits: &Limits) -> Result<Value, Refusal> {
    let mut look = Look { limits, at: String::new(), depth: 0, counts: Counts::default() };
    look.schema(&mut schema)?;
    look.multiples()?;
    look.optional()?;
    Ok(schema)
}

#[derive(Default)]
struct Counts {
    properties: usize,
    /// Properties that may be left out: of the object that has most, and all in all.
    optional: (usize, usize),
    values: usize,
    references: BTreeSet<String>,
    /// What numbers are multiples of: digits without the point, and how many come after it.
    multiples: BTreeSet<(u64, u32)>,
    /// Whether some schemas hold together.
    combines: bool,
}

struct Look<'a> {
    limits: &'a Limits,
    /// Where it is, as a JSON pointer.
    at: String,
    depth: usize,
    counts: Counts,
}

impl Look<'_> {
    fn schema(&mut self, schema: &mut Value) -> Result<(), Refusal> {
        match schema {
            Value::Bool(_) => Ok(()),
            Value::Object(keywords) => self.keywords(keywords),
            _ => Err(self.invalid("a schema is an object, true or false")),
        }
    }

    fn keywords(&mut self, keywords: &mut Map<String, Value>) -> Result<(), Refusal> {
        self.limits.depth(self.depth + 1)?;
        self.depth += 1;
        keywords.retain(|name, value| !asks_nothing(name, value));
        let combines = |name: &str| matches!(name, "allOf" | "anyOf" | "oneOf" | "$ref");
        self.counts.combines |= keywords.contains_key("allOf")
            || keywords.len() > 1 && keywords.keys().any(|name| combines(name));
        self.count_optional(keywords);
        for (name, value) in keywords.iter_mut() {
            let length = self.step(name);
            self.keyword(name, value)?;
            self.at.truncate(length);
        }
        // Names that no draft knows are annotations, and go: the compiler need not tell
        // them from those that it lacks.
        keywords.retain(|name, _| keyword(name) != Keyword::Annotation);
        self.depth -= 1;
        Ok(())
    }

    fn keyword(&mut self, name: &str, value: &mut Value) -> Result<(), Refusal> {
        match keyword(name) {
            Keyword::Schema => self.schema(value),
            Keyword::Schemas => self.list(value),
            Keyword::SchemaOrList if value.is_array() => self.list(value),
            Keyword::SchemaOrList => self.schema(value),
            Keyword::Properties | Keyword::Patterns => {
                self.counts.properties += value.as_object().map_or(0, Map::len);
                self.limits.properties(self.counts.properties)?;
                self.named(value, keyword(name) == Keyword::Patterns)
            }
            Keyword::Definitions => self.named(value, false),
            Keyword::Values => {
                let Some(values) = value.as_array() else {
                    return Err(self.invalid("enum is a list"));
                };
                self.counts.values += values.len();
                self.limits.values(self.counts.values)?;
                self.exact(value)
            }
            Keyword::Value => self.exact(value),
            Keyword::Bound if value.is_f64() => Ok(()),
            Keyword::Bound => self.exact(value),
            Keyword::Expression => match value.as_str() {
                Some(pattern) => self.expression(pattern),
                None => Err(self.invalid("pattern is a string")),
            },
            Keyword::Reference => self.reference(value),
            Keyword::Multiple => self.multiple(value),
            Keyword::Count => {
                // A count may be written with a point.
                if let Some(count) = value.as_f64().filter(|count| {
                    value.is_f64() && count.fract() == 0.0 && (0.0..1e15).contains(count)
                }) {
                    *value = Value::from(count as u64);
                }
                Ok(())
            }
            Keyword::Draft => match value.as_str() {
                Some(draft) if DRAFTS.iter().any(|known| draft.starts_with(known)) => Ok(()),
                _ => Err(self.unsupported(format!("$schema {value:.80}"))),
            },
            Keyword::Refused => {
                let at = self.at[..self.at.rfind('/').unwrap_or(0)].to_owned();
                Err(Refusal::Unsupported { at, keyword: name.to_owned() })
            }
            Keyword::Plain | Keyword::Annotation => Ok(()),
        }
    }

    /// Refuses numbers that the compiler would round: it has them as 64-bit floats.
    fn exact(&self, value: &Value) -> Result<(), Refusal> {
        match value {
            Value::Number(number) => match number.as_f64() {
                Some(float) if float.abs() <= EXACT => Ok(()),
                _ => Err(self.unsupported(format!("{number}, of more than 53 bits"))),
            },
            Value::Array(values) => values.iter().try_for_each(|value| self.exact(value)),
            Value::Object(fields) => fields.values().try_for_each(|value| self.exact(value)),
            _ => Ok(()),
        }
    }

    fn list(&mut self, value: &mut Value) -> Result<(), Refusal> {
        let Some(schemas) = value.as_array_mut() else {
            return Err(self.invalid("a list of schemas is expected"));
        };
        for (at, schema) in schemas.iter_mut().enumerate() {
            let length = self.step(&at.to_string());
            self.schema(schema)?;
            self.at.truncate(length);
        }
        Ok(())
    }

    /// Schemas by name; whether the names are expressions.
    fn named(&mut self, value: &mut Value, expressions: bool) -> Result<(), Refusal> {
        let Some(schemas) = value.as_object_mut() else {
            return Err(self.invalid("an object of schemas is expected"));
        };
        for (name, schema) in schemas.iter_mut() {
            let length = self.step(name);
            if expressions {
                self.expression(name)?;
            }
            self.schema(schema)?;
            self.at.truncate(length);
        }
        Ok(())
    }

    fn expression(&mut self, expression: &str) -> Result<(), Refusal> {
        expression::look_over(expression, self.limits).map(drop)
    }

    fn reference(&mut self, value: &Value) -> Result<(), Refusal> {
        let Some(reference) = value.as_str() else {
            return Err(self.invalid("$ref is a string"));
        };
        // Nothing is fetched: what another document says is not known here.
        if !reference.starts_with('#') {
            return Err(self.unsupported(format!("$ref to another document ({reference:.80})")));
        }
        self.counts.references.insert(reference.to_owned());
        self.limits.definitions(self.counts.references.len())
    }

    fn multiple(&mut self, value: &Value) -> Result<(), Refusal> {
        let Some(mut digits) = value.as_f64().filter(|&number| number > 0.0) else {
            return Err(self.invalid("multipleOf is a number above 0"));
        };
        let mut places = 0;
        while digits.fract() != 0.0 && places < 9 {
            (digits, places) = (digits * 10.0, places + 1);
        }
        if digits.fract() != 0.0 || digits > self.limits.multiple as f64 {
            return Err(self.unsupported(format!("multipleOf {value}")));
        }
        self.counts.multiples.insert((digits as u64, places));
        Ok(())
    }

    fn count_optional(&mut self, keywords: &Map<String, Value>) {
        let Some(properties) = keywords.get("properties").and_then(Value::as_object) else {
            return;
        };
        let required = keywords.get("required").and_then(Value::as_array);
        let required: BTreeSet<&str> =
            required.into_iter().flatten().filter_map(Value::as_str).collect();
        let count = properties.keys().filter(|name| !required.contains(name.as_str())).count();
        let (most, all) = &mut self.counts.optional;
        (*most, *all) = (count.max(*most), *all + count);
    }

    /// Objects that hold together have the properties of all.
    fn optional(&self) -> Result<(), Refusal> {
        let (most, all) = self.counts.optional;
        self.limits.optional(if self.counts.combines { all } else { most })
    }

    /// Schemas that hold together ask for a multiple of both.
    fn multiples(&self) -> Result<(), Refusal> {
        let multiples = &self.counts.multiples;
        if !self.counts.combines || multiples.len() < 2 {
            return Ok(());
        }
        let places = multiples.iter().map(|&(_, places)| places).max().unwrap_or(0);
        let whole = |&(digits, less): &(u64, u32)| u128::from(digits) * 10u128.pow(places - less);
        let all = multiples.iter().map(whole).try_fold(1, |a, b| {
            let multiple = a / common(a, b) * b;
            (multiple <= u128::from(self.limits.multiple)).then_some(multiple)
        });
        match all {
            Some(_) => Ok(()),
            None => Err(self.unsupported("multipleOf of several large numbers".to_owned())),
        }
    }

    fn unsupported(&self, keyword: String) -> Refusal {
        Refusal::Unsupported { at: self.at.clone(), keyword }
    }

    fn invalid(&self, why: &str) -> Refusal {
        Refusal::Invalid { at: self.at.clone(), why: why.to_owned() }
    }

    /// Goes a step down; the length to come back to.
    fn step(&mut self, name: &str) -> usize {
        let length = self.at.len();
        self.at.push('/');
        self.at.push_str(&name.replace('~', "~0").replace('/', "~1"));
        length
    }
}

/// The largest number that divides both.
fn common(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { common(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::{Limits, Refusal};
    use serde_json::json;

    fn refusal(schema: serde_json::Value) -> Refusal {
        read(&schema.to_string(), &Limits::default()).expect_err("it is refused")
    }

    #[test]
    fn what_is_not_honoured_is_refused_by_name_and_place() {
        let schema = json!({"properties": {"a/b": {"type": "array", "uniqueItems": true}}});
        let at = "/properties/a~1b".to_owned();
        assert_eq!(refusal(schema), Refusal::Unsupported { at, keyword: "uniqueItems".into() });
        let not = Refusal::Unsupported { at: String::new(), keyword: "not".into() };
        assert_eq!(refusal(json!({"not": {}})), not);
    }

    #[test]
    fn names_that_are_expressions_are_looked_over() {
        let huge = json!({"patternProperties": {"((a{900}){900}){900}": {}}});
        assert!(matches!(refusal(huge), Refusal::TooMuch { .. }));
        let name = json!({"properties": {"((a{900}){900}){900}": {}}});
        assert_eq!(read(&name.to_string(), &Limits::default()), Ok(name));
    }

    #[test]
    fn a_property_may_be_called_like_a_keyword_and_a_value_is_no_schema() {
        let schema = json!({"properties": {"not": {"const": {"if": 1}}}, "enum": [{"not": 2}]});
        let text = schema.to_string();
        assert_eq!(read(&text, &Limits::default()), Ok(schema));
    }

    #[test]
    fn annotations_and_what_asks_for_nothing_are_left_out() {
        let schema =
            json!({"type": "array", "uniqueItems": false, "title": "x", "x-y": {"not": 1}});
        let read = read(&schema.to_string(), &Limits::default());
        assert_eq!(read, Ok(json!({"type": "array"})));
    }

    #[test]
    fn properties_that_may_be_left_out_are_bounded_together_if_they_hold_together() {
        let some = |from: usize| {
            let properties = (from..from + 600).map(|at| (format!("p{at}"), json!({})));
            json!({"properties": properties.collect::<serde_json::Map<_, _>>()})
        };
        let passes = |schema: serde_json::Value| read(&schema.to_string(), &Limits::default());
        assert!(passes(json!({"anyOf": [some(0), some(600)]})).is_ok());
        let too_much = |got| {
            Err(Refusal::TooMuch { what: "properties that may be left out", got, most: 1000 })
        };
        assert_eq!(passes(json!({"allOf": [some(0), some(600)]})), too_much(1200));
        let mut one = some(0);
        let names = (0..1200).map(|at| (format!("p{at}"), json!({})));
        one["properties"] = names.collect::<serde_json::Map<_, _>>().into();
        assert_eq!(passes(one.clone()), too_much(1200));
        one["required"] = (0..300).map(|at| format!("p{at}")).collect();
        assert!(passes(one).is_ok());
    }

    #[test]
    fn a_count_may_have_a_point_and_a_draft_is_known() {
        let schema = json!({"maxItems": 2.0, "items": {"minLength": 1.5}});
        let exact = json!({"maxItems": 2, "items": {"minLength": 1.5}});
        assert_eq!(read(&schema.to_string(), &Limits::default()), Ok(exact));
        let known = json!({"$schema": "https://json-schema.org/draft/2020-12/schema"});
        assert_eq!(read(&known.to_string(), &Limits::default()), Ok(known));
        let why = refusal(json!({"$schema": "http://localhost/mine"})).to_string();
        assert!(why.contains("$schema \"http://localhost/mine\" is not supported"), "{why}");
    }

    #[test]
    fn nothing_is_fetched() {
        let why = refusal(json!({"$ref": "http://127.0.0.1/schema.json"})).to_string();
        assert!(why.contains("another document"), "{why}");
    }

    #[test]
    fn multiples_are_small_together_too() {
        let of = |multiple: f64| json!({"type": "number", "multipleOf": multiple});
        let passes = |schema: serde_json::Value| read(&schema.to_string(), &Limits::default());
        assert!(passes(json!({"properties": {"a": of(0.01), "b": of(9973.0)}})).is_ok());
        assert!(passes(json!({"allOf": [of(0.5), of(0.25)]})).is_ok());
        for schema in [of(10_001.0), of(1e-12), json!({"allOf": [of(97.0), of(9973.0)]})] {
            let why = refusal(schema).to_string();
            assert!(why.contains("multipleOf"), "{why}");
        }
        assert!(matches!(refusal(of(0.0)), Refusal::Invalid { .. }));
    }

    #[test]
    fn what_is_too_much_is_told_by_its_count() {
        let values: Vec<u32> = (0..20_001).collect();
        let too_many = Refusal::TooMuch { what: "values", got: 20_001, most: 20_000 };
        assert_eq!(refusal(json!({"enum": values})), too_many);
        let deep = (0..70).fold(json!({}), |inner, _| json!({"items": inner}));
        assert!(matches!(refusal(deep), Refusal::TooMuch { what: "levels", .. }));
    }
}
