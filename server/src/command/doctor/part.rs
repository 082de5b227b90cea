//! A reply, read place by place as a trainer reads it: what differs is noted with its place.

use serde_json::Value;
use std::cell::RefCell;
use std::fmt;

/// Characters of a value that are shown.
const SHOWN: usize = 80;

/// Something that is not as a trainer needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub field: String,
    /// What the trainer needs.
    pub expected: String,
    /// What came.
    pub got: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}: expected {}, got {}", self.field, self.expected, self.got)
    }
}

/// All that differs in one reply.
pub type Noted = RefCell<Vec<Difference>>;

/// A place in a reply.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    path: String,
    /// `None`: there is no such place.
    value: Option<&'a Value>,
    noted: &'a Noted,
}

impl<'a> Part<'a> {
    /// The whole reply.
    pub fn whole(value: &'a Value, noted: &'a Noted) -> Self {
        Self { path: String::new(), value: Some(value), noted }
    }

    /// A field.
    pub fn at(&self, name: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.place(format!("{}{dot}{name}", self.path), self.value.and_then(|it| it.get(name)))
    }

    /// An element.
    pub fn item(&self, index: usize) -> Self {
        self.place(format!("{}[{index}]", self.path), self.value.and_then(|it| it.get(index)))
    }

    fn place(&self, path: String, value: Option<&'a Value>) -> Self {
        Self { path, value, noted: self.noted }
    }

    /// Itself, if it is there and not null: a field that may be missing.
    pub fn maybe(self) -> Option<Self> {
        self.value.is_some_and(|value| !value.is_null()).then_some(self)
    }

    /// Notes that it is not what was expected.
    pub fn differs(&self, expected: impl Into<String>) {
        let got = match self.value {
            None => "nothing".to_owned(),
            Some(value) => value.to_string().chars().take(SHOWN).collect(),
        };
        let (field, expected) = (self.path.clone(), expected.into());
        self.noted.borrow_mut().push(Difference { field, expected, got });
    }

    /// What it must be, by `read`.
    fn must<T>(&self, expected: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        let read = self.value.and_then(read);
        if read.is_none() {
            self.differs(expected);
        }
        read
    }

    /// A list's elements.
    pub fn items(&self) -> Vec<Self> {
        let len = self.must("a list", Value::as_array).map_or(0, Vec::len);
        (0..len).map(|index| self.item(index)).collect()
    }

    /// The elements of a list that has so many.
    pub fn items_of(&self, count: usize) -> Vec<Self> {
        let items = self.items();
        if items.len() != count && self.value.is_some_and(Value::is_array) {
            let (field, expected) = (self.path.clone(), format!("a list of {count}"));
            let got = items.len().to_string();
            self.noted.borrow_mut().push(Difference { field, expected, got });
        }
        items
    }

    /// An object's fields.
    pub fn fields(&self) -> Vec<(&'a str, Self)> {
        let fields = self.must("an object", Value::as_object).into_iter().flatten();
        fields.map(|(name, _)| (name.as_str(), self.at(name))).collect()
    }

    /// A text.
    pub fn text(&self) -> Option<&'a str> {
        self.must("text", Value::as_str)
    }

    /// A number of things, or a token.
    pub fn count(&self) -> Option<u64> {
        self.must("a whole number from 0", Value::as_u64)
    }

    /// A list of tokens.
    pub fn tokens(&self) -> Vec<u64> {
        self.items().iter().filter_map(Self::count).collect()
    }

    /// True or false.
    pub fn switch(&self) -> Option<bool> {
        self.must("true or false", Value::as_bool)
    }

    /// A log-probability.
    pub fn logprob(&self) -> Option<f64> {
        self.must("a finite number", |value| value.as_f64().filter(|number| number.is_finite()))
    }

    /// This very value.
    pub fn is(&self, expected: &Value) {
        if self.value != Some(expected) {
            self.differs(expected.to_string());
        }
    }

    /// One of these texts.
    pub fn one_of(&self, all: &[&str]) -> Option<&'a str> {
        let expected = format!("one of {}", all.join(", "));
        self.must(&expected, |value| value.as_str().filter(|text| all.contains(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Noted, Part};
    use serde_json::json;

    #[test]
    fn what_differs_is_told_by_its_place() {
        let reply = json!({ "choices": [{ "token_ids": [1, -2], "logprobs": null }] });
        let noted = Noted::default();
        let choice = Part::whole(&reply, &noted).at("choices").item(0);
        let ids = choice.at("token_ids").items_of(3);
        assert_eq!(ids.iter().filter_map(Part::count).collect::<Vec<_>>(), [1]);
        choice.at("logprobs").at("content").items();
        assert!(choice.at("logprobs").maybe().is_none());
        let told: Vec<String> = noted.borrow().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "choices[0].token_ids: expected a list of 3, got 2",
                "choices[0].token_ids[1]: expected a whole number from 0, got -2",
                "choices[0].logprobs.content: expected a list, got nothing",
            ]
        );
    }
}
