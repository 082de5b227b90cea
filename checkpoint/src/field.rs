//! Fields of a JSON object, by name and type.

use crate::error::{Error, Fault, short};
use serde_json::{Map, Value};
use std::path::Path;

/// A JSON object of a file; null counts as absent.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// The file.
    pub path: &'a Path,
    /// The names of the objects it lies in, each with a dot after it.
    pub within: &'a str,
    /// Its fields.
    pub object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// A field that is there.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// A whole number, if it is there.
    pub fn maybe_u32(&self, name: &str) -> Result<Option<u32>, Error> {
        let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        self.parsed(name, "a whole number of 32 bits", number)
    }

    /// A whole number that must be there.
    pub fn u32(&self, name: &str) -> Result<u32, Error> {
        let number = self.maybe_u32(name)?;
        number.ok_or_else(|| self.refuse(name, "a whole number", "absent"))
    }

    /// A number, if it is there.
    pub fn maybe_f64(&self, name: &str) -> Result<Option<f64>, Error> {
        self.parsed(name, "a number", Value::as_f64)
    }

    /// A number that must be there.
    pub fn f64(&self, name: &str) -> Result<f64, Error> {
        let number = self.maybe_f64(name)?;
        number.ok_or_else(|| self.refuse(name, "a number", "absent"))
    }

    /// True or false; false where it is absent.
    pub fn flag(&self, name: &str) -> Result<bool, Error> {
        Ok(self.parsed(name, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// A word, if it is there.
    pub fn word(&self, name: &str) -> Result<Option<&'a str>, Error> {
        self.parsed(name, "a word", Value::as_str)
    }

    /// An object, if it is there.
    pub fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, Error> {
        self.parsed(name, "an object", Value::as_object)
    }

    /// A refusal of a field.
    pub fn refuse(&self, name: &str, expected: impl ToString, got: impl ToString) -> Error {
        let field = short(format!("{}{name}", self.within));
        let (expected, got) = (expected.to_string(), short(got.to_string()));
        Error::new(self.path, Fault::Field { field, expected, got })
    }

    fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        match parse(value) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(self.refuse(name, expected, value)),
        }
    }
}
