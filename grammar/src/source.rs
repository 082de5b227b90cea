//! What a client sends, as it is compiled.

use crate::tokens::Special;
use crate::{Limits, Refusal, expression, lark, schema, tags};
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::{Value, json};

/// What shall be allowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Values that a JSON schema allows.
    Schema(String),
    /// The same, written without blanks between their parts.
    Compact(String),
    /// Any JSON object.
    Object,
    /// What a regular expression matches, whole.
    Expression(String),
    /// One of some texts.
    Choice(Vec<String>),
    /// What a grammar in Lark's form generates.
    Lark(String),
    /// Structural tags: formats, or structures and triggers, in JSON.
    Tags(String),
}

impl Source {
    /// Bytes of it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Object => 0,
            Self::Schema(text)
            | Self::Compact(text)
            | Self::Expression(text)
            | Self::Lark(text)
            | Self::Tags(text) => text.len(),
            Self::Choice(texts) => texts.iter().map(String::len).sum(),
        }
    }

    /// Looks it over, and gives it to the compiler.
    pub(crate) fn read(
        &self,
        limits: &Limits,
        special: &Special,
    ) -> Result<TopLevelGrammar, Refusal> {
        limits.bytes(self.bytes())?;
        Ok(match self {
            Self::Schema(text) => of_schema(schema::bounded(schema::read(text, limits)?)),
            Self::Compact(text) => of_schema(schema::compact(schema::read(text, limits)?)),
            Self::Object => of_schema(schema::bounded(json!({"type": "object"}))),
            Self::Expression(text) => {
                expression::look_over(text, limits)?;
                TopLevelGrammar::from_regex(text)
            }
            Self::Choice(texts) => {
                limits.values(texts.len())?;
                if texts.is_empty() {
                    let why = "a choice needs at least one text".to_owned();
                    return Err(Refusal::Invalid { at: String::new(), why });
                }
                let texts: Vec<String> = texts.iter().map(|text| lark::quoted(text)).collect();
                // As one word of the lexer: as rules each would be a line of the parser.
                TopLevelGrammar::from_lark(format!("start: TEXT\nTEXT: {}", texts.join(" | ")))
            }
            Self::Lark(text) => TopLevelGrammar::from_lark(lark::look_over(text, limits)?),
            Self::Tags(text) => TopLevelGrammar::from_lark(tags::read(text, limits, special)?),
        })
    }
}

fn of_schema(schema: Value) -> TopLevelGrammar {
    TopLevelGrammar::from_grammar(GrammarWithLexer::from_json_schema(schema))
}
