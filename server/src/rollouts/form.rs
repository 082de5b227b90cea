//! Texts that are held to a JSON schema once they are whole, by the grammar that holds answers
//! to it while they are made.

use crate::openai::Refusal;
use crate::served::Served;
use grammar::{Grammar, Source};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// A compiled schema, and the tokens that its grammar reads.
#[derive(Clone)]
pub struct Form {
    grammar: Grammar,
    served: Arc<Served>,
}

impl Form {
    /// Of a schema, as itself or as its text; waits until it is compiled.
    pub fn compile(schema: Value, served: &Arc<Served>) -> Result<Self, Refusal> {
        let text = match schema {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let compiled = served.grammars.compile(&Source::Compact(text));
        let refused = |refusal: grammar::Refusal| Refusal::field("schema", refusal.to_string());
        let grammar = compiled.map(Grammar::new).map_err(refused)?;
        Ok(Self { grammar, served: served.clone() })
    }

    /// Whether a text is JSON that keeps to the schema; blanks between its parts are free.
    pub fn has(&self, text: &str) -> bool {
        let Ok(value) = serde_json::from_str::<Value>(text.trim()) else { return false };
        let tokens = self.served.text.tokenizer.encode(&value.to_string(), false);
        let mut matcher = self.grammar.begin();
        tokens.is_ok_and(|tokens| tokens.iter().all(|token| matcher.accept(*token).is_ok()))
            && matcher.may_end().unwrap_or(false)
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.grammar.fmt(to)
    }
}
