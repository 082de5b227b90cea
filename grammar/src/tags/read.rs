//! Formats, read: what each may have, where they stand, and how much there is of them.

use super::fields::Fields;
use super::{Format, MARK_BYTES, Mark, Tag, Triggered};
use crate::tokens::Special;
use crate::{Limits, Refusal, expression, schema};
use serde_json::Value;

/// Reads a format, in either form.
pub fn format(value: Value, limits: &Limits, special: &Special) -> Result<Format, Refusal> {
    let mut read = Read { limits, special, at: String::new(), depth: 0, formats: 0, parts: 1 };
    read.whole(value)
}

pub(super) struct Read<'a> {
    pub limits: &'a Limits,
    special: &'a Special,
    /// Where it is, as a JSON pointer.
    pub at: String,
    depth: usize,
    formats: usize,
    /// How often what is read comes, with repetitions written out.
    parts: u64,
}

impl Read<'_> {
    fn whole(&mut self, value: Value) -> Result<Format, Refusal> {
        let mut fields = self.object(value)?;
        if self.string(&mut fields, "type")? != "structural_tag" {
            return Err(self.invalid("the type is structural_tag"));
        }
        let format = match fields.remove("format") {
            Some(format) => self.within("format", |read| read.format(format))?,
            None => self.structures(&mut fields)?,
        };
        self.nothing_else(&fields)?;
        Ok(format)
    }

    /// The older form.
    fn structures(&mut self, fields: &mut Fields) -> Result<Format, Refusal> {
        let tags = self.each(fields, "structures", |read, value| {
            let mut fields = read.object(value)?;
            let begin = read.required(&mut fields, "begin")?;
            let begin = read.within("begin", |read| read.mark(begin))?;
            let schema = read.required(&mut fields, "schema")?;
            let content = read.within("schema", |read| match schema {
                Value::String(text) => schema::read(&text, read.limits)
                    .map(Format::Schema)
                    .map_err(|refusal| refusal.under(&read.at)),
                schema => read.schema(schema),
            })?;
            let ends = read.ends(&mut fields)?;
            read.nothing_else(&fields)?;
            Ok(Tag { begin, content, ends })
        })?;
        let triggers = self.strings(fields, "triggers", true)?;
        self.triggered("structures", self.free(triggers, tags, Vec::new()))
    }

    fn format(&mut self, value: Value) -> Result<Format, Refusal> {
        self.limits.depth(self.depth + 1)?;
        self.depth += 1;
        self.count()?;
        let mut fields = self.object(value)?;
        let name = self.string(&mut fields, "type")?;
        let format = self.known(&name, &mut fields)?;
        self.nothing_else(&fields)?;
        self.depth -= 1;
        Ok(format)
    }

    fn known(&mut self, name: &str, fields: &mut Fields) -> Result<Format, Refusal> {
        Ok(match name {
            "const_string" => {
                let text = self.string(fields, "value")?;
                if self.names(&text)? { Format::Named(text) } else { Format::Text(text) }
            }
            "json_schema" => {
                self.only(fields, "style", &Value::from("json"))?;
                self.only(fields, "any_order", &Value::Bool(false))?;
                self.only(fields, "max_whitespace_cnt", &Value::Null)?;
                let schema = self.required(fields, "json_schema")?;
                self.within("json_schema", |read| read.schema(schema))?
            }
            "regex" => {
                let pattern = self.string(fields, "pattern")?;
                let size = expression::look_over(&pattern, self.limits)?;
                self.limits.repetitions(size.saturating_mul(self.parts))?;
                Format::Expression(pattern)
            }
            "any_text" => {
                self.only(fields, "max_tokens", &Value::Null)?;
                self.only(fields, "max_chars", &Value::Null)?;
                let excludes = self.strings(fields, "excludes", false)?;
                Format::Free { at: self.at.clone(), excludes }
            }
            "token" => Format::Token(self.token(fields)?),
            "sequence" => Format::Sequence(self.each(fields, "elements", Self::format)?),
            "or" => Format::Or(self.some(fields, "elements", Self::format)?),
            "optional" => self.repeat(fields, 0, Some(1))?,
            "star" => self.repeat(fields, 0, None)?,
            "plus" => self.repeat(fields, 1, None)?,
            "repeat" => {
                let least = self.number(fields, "min")?;
                let least = least.ok_or_else(|| self.invalid("min is at least 0"))?;
                let most = self.number(fields, "max")?;
                if most.is_some_and(|most| most < least) {
                    return Err(self.invalid("max is below min"));
                }
                self.repeat(fields, least, most)?
            }
            "tag" => Format::Tag(Box::new(self.tag(fields)?)),
            "triggered_tags" => {
                let triggers = self.strings(fields, "triggers", true)?;
                let tags = self.tags(fields)?;
                let excludes = self.strings(fields, "excludes", false)?;
                let at_least_one = self.flag(fields, "at_least_one", false)?;
                let one = self.flag(fields, "stop_after_first", false)?;
                let all = Triggered { at_least_one, one, ..self.free(triggers, tags, excludes) };
                self.triggered("tags", all)?
            }
            "dispatch" => self.dispatch(fields)?,
            "tags_with_separator" => Format::Separated {
                tags: self.tags(fields)?,
                separator: self.string(fields, "separator")?,
                at_least_one: self.flag(fields, "at_least_one", false)?,
                one: self.flag(fields, "stop_after_first", false)?,
            },
            // Grammars in this form are not those in Lark's, though they look alike.
            "grammar" => return Err(self.unsupported("grammar (EBNF)")),
            name => return Err(self.unsupported(&format!("format {name:.80}"))),
        })
    }

    fn repeat(
        &mut self,
        fields: &mut Fields,
        least: u32,
        most: Option<u32>,
    ) -> Result<Format, Refusal> {
        let content = self.required(fields, "content")?;
        let before = self.parts;
        self.parts = before.saturating_mul(u64::from(most.unwrap_or(least).max(1)));
        self.limits.repetitions(self.parts)?;
        let content = self.within("content", |read| read.format(content))?;
        self.parts = before;
        Ok(Format::Repeat { content: Box::new(content), least, most })
    }

    fn tag(&mut self, fields: &mut Fields) -> Result<Tag, Refusal> {
        let begin = self.required(fields, "begin")?;
        let begin = self.within("begin", |read| read.mark(begin))?;
        let content = self.required(fields, "content")?;
        let content = self.within("content", |read| read.format(content))?;
        let ends = self.ends(fields)?;
        Ok(Tag { begin, content, ends })
    }

    /// What ends a tag; nothing if its only end is empty.
    fn ends(&mut self, fields: &mut Fields) -> Result<Vec<Mark>, Refusal> {
        let ends = match self.required(fields, "end")? {
            Value::Array(ends) => ends,
            end => vec![end],
        };
        let nothing = Mark::Text(String::new());
        self.within("end", |read| {
            let ends = ends.into_iter().map(|end| read.mark(end));
            let ends = ends.collect::<Result<Vec<_>, _>>()?;
            match ends.as_slice() {
                [end] if *end == nothing => Ok(Vec::new()),
                [] => Err(read.invalid("it has nothing")),
                all if all.contains(&nothing) => Err(read.invalid("one of several is empty")),
                _ => Ok(ends),
            }
        })
    }

    fn tags(&mut self, fields: &mut Fields) -> Result<Vec<Tag>, Refusal> {
        self.some(fields, "tags", |read, value| {
            read.count()?;
            let mut fields = read.object(value)?;
            if fields.remove("type").is_some_and(|name| name != "tag") {
                return Err(read.invalid("its type is tag"));
            }
            let tag = read.tag(&mut fields)?;
            read.nothing_else(&fields)?;
            Ok(tag)
        })
    }

    /// Free text, and formats that some texts in it begin.
    fn dispatch(&mut self, fields: &mut Fields) -> Result<Format, Refusal> {
        let tags = self.some(fields, "rules", |read, value| match value {
            Value::Array(mut rule) if rule.len() == 2 => {
                let format = rule.pop().unwrap_or_default();
                let content = read.within("1", |read| read.format(format))?;
                match rule.pop() {
                    Some(Value::String(begin)) if !begin.is_empty() => {
                        let begin = read.mark(Value::String(begin))?;
                        Ok(Tag { begin, content, ends: Vec::new() })
                    }
                    _ => Err(read.invalid("it begins with a text")),
                }
            }
            _ => Err(read.invalid("a text and a format are expected")),
        })?;
        let triggers = tags.iter().filter_map(|tag| match &tag.begin {
            Mark::Text(begin) => Some(begin.clone()),
            Mark::Token(_) => None,
        });
        let triggers = triggers.collect();
        let excludes = self.strings(fields, "excludes", false)?;
        let one = !self.flag(fields, "loop", true)?;
        self.triggered("rules", Triggered { one, ..self.free(triggers, tags, excludes) })
    }

    fn free(&self, triggers: Vec<String>, tags: Vec<Tag>, excludes: Vec<String>) -> Triggered {
        let tags = tags.into_iter().map(|tag| (tag, 0)).collect();
        let at = self.at.clone();
        Triggered { at, triggers, tags, excludes, at_least_one: false, one: false }
    }

    /// Finds the trigger of each tag.
    fn triggered(&mut self, name: &str, mut all: Triggered) -> Result<Format, Refusal> {
        all.triggers.sort();
        all.triggers.dedup();
        for trigger in &all.triggers {
            if let Some(part) = all.excludes.iter().find(|part| trigger.contains(part.as_str())) {
                let why = format!("the trigger {trigger:?} has {part:?}, which is excluded");
                return Err(self.invalid(&why));
            }
        }
        for (at, (tag, trigger)) in all.tags.iter_mut().enumerate() {
            let Mark::Text(begin) = &tag.begin else {
                return Err(self.invalid("a tag with triggers begins with a text"));
            };
            let mut found = all.triggers.iter().filter(|trigger| begin.starts_with(*trigger));
            let why = match (found.next(), found.next()) {
                (Some(one), None) => {
                    *trigger = one.len();
                    continue;
                }
                (None, _) => "no trigger begins it".to_owned(),
                (Some(one), Some(other)) => format!("{one:?} and {other:?} both begin it"),
            };
            return self
                .within(name, |read| read.within(&at.to_string(), |read| Err(read.invalid(&why))));
        }
        Ok(Format::Triggered(all))
    }

    fn schema(&self, schema: Value) -> Result<Format, Refusal> {
        let schema = schema::look_over(schema, self.limits);
        schema.map(Format::Schema).map_err(|refusal| refusal.under(&self.at))
    }

    fn mark(&mut self, value: Value) -> Result<Mark, Refusal> {
        self.count()?;
        match value {
            Value::String(text) => {
                self.names(&text)?;
                self.limits.mark(text.len(), MARK_BYTES).map(|()| Mark::Text(text))
            }
            Value::Object(mut fields) => {
                if self.string(&mut fields, "type")? != "token" {
                    return Err(self.invalid("it is a text or a token"));
                }
                let token = self.token(&mut fields)?;
                self.nothing_else(&fields)?;
                Ok(Mark::Token(token))
            }
            _ => Err(self.invalid("it is a text or a token")),
        }
    }

    fn token(&self, fields: &mut Fields) -> Result<u32, Refusal> {
        let token = match self.required(fields, "token")? {
            Value::String(name) => self.special.named(&name),
            Value::Number(id) => {
                let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                id.filter(|&id| id < self.special.count())
            }
            _ => None,
        };
        match token {
            Some(token) if self.special.ends(token) => {
                Err(self.unsupported(&format!("token {token}, which ends answers,")))
            }
            Some(token) => Ok(token),
            None => Err(self.invalid("there is no such token")),
        }
    }

    /// Looks over the names of special tokens in a text. A token that ends answers ends them
    /// here too: nothing comes after it. Whether there are names.
    fn names(&mut self, text: &str) -> Result<bool, Refusal> {
        let before = self.formats;
        for (span, token) in self.special.within(text) {
            self.count()?;
            if self.special.ends(token) {
                let name = &text[span];
                return Err(self.unsupported(&format!("{name}, which ends answers,")));
            }
        }
        Ok(self.formats > before)
    }

    /// One more format, mark or name.
    pub fn count(&mut self) -> Result<(), Refusal> {
        self.formats += 1;
        self.limits.formats(self.formats)
    }
}
