//! The fields of an object: each is asked for, and nothing may be left.

use super::MARK_BYTES;
use super::read::Read;
use crate::Refusal;
use serde_json::{Map, Value};

/// The fields of an object that nobody asked for yet.
pub type Fields = Map<String, Value>;

impl Read<'_> {
    pub fn object(&self, value: Value) -> Result<Fields, Refusal> {
        match value {
            Value::Object(fields) => Ok(fields),
            _ => Err(self.invalid("an object is expected")),
        }
    }

    pub fn nothing_else(&self, fields: &Fields) -> Result<(), Refusal> {
        match fields.keys().next() {
            Some(name) => Err(self.unsupported(name)),
            None => Ok(()),
        }
    }

    pub fn required(&self, fields: &mut Fields, name: &str) -> Result<Value, Refusal> {
        fields.remove(name).ok_or_else(|| self.invalid(&format!("{name} is missing")))
    }

    /// What may be said, but changes nothing.
    pub fn only(&self, fields: &mut Fields, name: &str, value: &Value) -> Result<(), Refusal> {
        match fields.remove(name) {
            Some(given) if given != *value => Err(self.unsupported(&format!("{name} {given:.80}"))),
            _ => Ok(()),
        }
    }

    pub fn string(&self, fields: &mut Fields, name: &str) -> Result<String, Refusal> {
        match self.required(fields, name)? {
            Value::String(text) => Ok(text),
            _ => Err(self.invalid(&format!("{name} is a text"))),
        }
    }

    pub fn flag(&self, fields: &mut Fields, name: &str, default: bool) -> Result<bool, Refusal> {
        match fields.remove(name) {
            Some(Value::Bool(flag)) => Ok(flag),
            None => Ok(default),
            _ => Err(self.invalid(&format!("{name} is true or false"))),
        }
    }

    /// A count; none if it is -1.
    pub fn number(&self, fields: &mut Fields, name: &str) -> Result<Option<u32>, Refusal> {
        let value = self.required(fields, name)?;
        if value == -1 {
            return Ok(None);
        }
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        match number {
            Some(number) => self.limits.repetitions(number.into()).map(|()| Some(number)),
            None => Err(self.invalid(&format!("{name} is a count"))),
        }
    }

    /// Texts, none of them empty.
    pub fn strings(
        &mut self,
        fields: &mut Fields,
        name: &str,
        required: bool,
    ) -> Result<Vec<String>, Refusal> {
        if !required && !fields.contains_key(name) {
            return Ok(Vec::new());
        }
        let texts = self.each(fields, name, |read, value| match value {
            Value::String(text) if !text.is_empty() => {
                read.count()?;
                read.limits.mark(text.len(), MARK_BYTES).map(|()| text)
            }
            _ => Err(read.invalid("a text is expected, not an empty one")),
        })?;
        match required && texts.is_empty() {
            true => Err(self.invalid(&format!("{name} has nothing"))),
            false => Ok(texts),
        }
    }

    /// The members of a list.
    pub fn each<T>(
        &mut self,
        fields: &mut Fields,
        name: &str,
        one: impl Fn(&mut Self, Value) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let Value::Array(values) = self.required(fields, name)? else {
            return Err(self.invalid(&format!("{name} is a list")));
        };
        self.within(name, |read| {
            let member =
                |(at, value): (usize, Value)| read.within(&at.to_string(), |read| one(read, value));
            values.into_iter().enumerate().map(member).collect()
        })
    }

    /// The same, at least one.
    pub fn some<T>(
        &mut self,
        fields: &mut Fields,
        name: &str,
        one: impl Fn(&mut Self, Value) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let all = self.each(fields, name, one)?;
        match all.is_empty() {
            true => Err(self.invalid(&format!("{name} has nothing"))),
            false => Ok(all),
        }
    }

    /// Goes a step down, and comes back.
    pub fn within<T>(
        &mut self,
        name: &str,
        inside: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let length = self.at.len();
        self.at.push('/');
        self.at.push_str(name);
        let result = inside(self);
        self.at.truncate(length);
        result
    }

    pub fn unsupported(&self, keyword: &str) -> Refusal {
        Refusal::Unsupported { at: self.at.clone(), keyword: keyword.to_owned() }
    }

    pub fn invalid(&self, why: &str) -> Refusal {
        Refusal::Invalid { at: self.at.clone(), why: why.to_owned() }
    }
}
