//! A request whose path is known, with all that came of it.

use super::upload::Upload;
use crate::openai::Refusal;
use crate::openai::fields::Fields;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::task::block_in_place;

/// What a path is asked.
pub struct Call {
    /// What stands behind the path, by name.
    query: Vec<(String, String)>,
    /// What the path has where its route has braces.
    part: String,
    /// Its body, which may be empty.
    pub body: Upload,
}

impl Call {
    /// With a query as it stands in the address.
    pub fn new(query: Option<&str>, body: Upload) -> Self {
        let parts = query.unwrap_or("").split('&').filter(|part| !part.is_empty());
        let decoded = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decoded(name), decoded(value))
        };
        Self { query: parts.map(pair).collect(), part: String::new(), body }
    }

    /// With a body that came otherwise, and nothing behind the path.
    pub fn of(body: Value) -> Self {
        Self::new(None, Upload::of(body.to_string()))
    }

    /// With what the path has where its route has braces, as it stands in the address.
    pub fn at(self, part: &str) -> Self {
        Self { part: percent_decode_str(part).decode_utf8_lossy().into_owned(), ..self }
    }

    /// What the path has where its route has braces.
    pub fn part(&self) -> &str {
        &self.part
    }

    /// Nothing else stands behind the path.
    pub fn only(&self, names: &[&str]) -> Result<(), Refusal> {
        match self.query.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::unknown(name)),
        }
    }

    /// The last value of a name behind the path.
    pub fn asked(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    /// All values of a name behind the path.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.query.iter().filter(move |pair| pair.0 == name).map(|pair| &*pair.1)
    }

    /// Fields of the body; none where there is no body.
    pub fn fields(&self) -> Result<Fields, Refusal> {
        let bytes = &self.body.bytes;
        match bytes.is_empty() {
            true => Ok(Fields::none()),
            // Weights in a body: others are answered meanwhile.
            false if self.body.is_large() => block_in_place(|| Fields::read(bytes)),
            false => Fields::read(bytes),
        }
    }

    /// A value from behind the path, or else from the body's fields: clients send the same
    /// things here and there.
    pub fn either<T: DeserializeOwned>(
        &self,
        fields: &mut Fields,
        name: &str,
    ) -> Result<Option<T>, Refusal> {
        let from_body = fields.take::<T>(name)?;
        let Some(text) = self.asked(name) else { return Ok(from_body) };
        let value = match text.to_ascii_lowercase().as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => match text.parse::<i64>() {
                Ok(number) => number.into(),
                Err(_) => match text.parse::<f64>() {
                    Ok(number) => number.into(),
                    Err(_) => text.into(),
                },
            },
        };
        let read = serde_json::from_value(value).or_else(|_| serde_json::from_value(text.into()));
        read.map(Some).map_err(|error| crate::openai::fields::misread(name, &error))
    }
}
