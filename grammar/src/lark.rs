//! A grammar in Lark's form, looked over before it is compiled: its rules and their depth,
//! the expressions and the schemas within it.

use crate::expression::{self, Size, bounds};
use crate::{Limits, Refusal, schema};
use serde_json::Value;

/// Looks a grammar over; what is left of it asks for nothing that is not honoured. Whether
/// it is well formed, its compiler says.
pub fn look_over(grammar: &str, limits: &Limits) -> Result<String, Refusal> {
    limits.bytes(grammar.len())?;
    let mut walk = Walk { limits, rest: grammar, kept: String::new() };
    let mut size = Size::new(limits);
    let mut rules = 0;
    while let Some(c) = walk.rest.chars().next() {
        match c {
            '"' => {
                walk.literal('"')?;
                size.push(1);
            }
            '#' => walk.take(line(walk.rest)),
            '/' if walk.rest.starts_with("//") => walk.take(line(walk.rest)),
            '<' => {
                walk.take(name(walk.rest));
                size.push(1);
            }
            '/' => {
                let literal = walk.literal('/')?;
                expression::look_over(literal, limits)?;
                size.push(1);
            }
            '%' if walk.rest.starts_with("%json") => {
                walk.take("%json".len());
                walk.schema()?;
                size.push(1);
            }
            '%' if walk.rest.starts_with("%llguidance") => {
                let keyword = "%llguidance".to_owned();
                return Err(Refusal::Unsupported { at: String::new(), keyword });
            }
            '(' | '[' => {
                size.open()?;
                walk.take(1);
            }
            ')' | ']' => {
                size.close();
                walk.take(1);
            }
            '{' | '~' => {
                walk.take(1);
                if let Some((times, _)) = repetition(c, walk.rest) {
                    size.repeat(times)?;
                }
            }
            ':' => {
                rules += 1;
                limits.definitions(rules)?;
                walk.take(1);
            }
            c if c.is_alphanumeric() || c == '_' => {
                walk.take(word(walk.rest));
                size.push(1);
            }
            c => walk.take(c.len_utf8()),
        }
    }
    size.check()?;
    Ok(walk.kept)
}

/// A text as such a grammar has it: a string of JSON, and no control characters.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// An expression as such a grammar has it.
pub fn expression(pattern: &str) -> String {
    if pattern.is_empty() {
        // Two strokes would begin a comment.
        return quoted("");
    }
    let mut written = "/".to_owned();
    let mut escaped = false;
    for c in pattern.chars() {
        match c {
            '/' if !escaped => written += "\\/",
            '\n' if !escaped => written += "\\n",
            c => written.push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    written + "/"
}

/// How often at most, after `{` or `~`.
fn repetition(mark: char, rest: &str) -> Option<(u64, &str)> {
    if mark == '{' {
        return bounds(rest);
    }
    let rest = rest.trim_start();
    let range = &rest[..rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len())];
    let most = range.rsplit("..").next()?;
    most.parse().ok().map(|times| (times, rest))
}

/// Bytes of a line.
fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// Bytes of the name of a special token, or of what begins like one.
fn name(text: &str) -> usize {
    let ends = |c: char| matches!(c, '<' | '>') || c.is_whitespace();
    let length = 1 + text[1..].find(ends).unwrap_or(text.len() - 1);
    if text[length..].starts_with('>') { length + 1 } else { 1 }
}

/// Bytes of a word.
fn word(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}

struct Walk<'a> {
    limits: &'a Limits,
    rest: &'a str,
    /// What was walked over, as it is compiled.
    kept: String,
}

impl<'a> Walk<'a> {
    fn take(&mut self, bytes: usize) {
        let (taken, rest) = self.rest.split_at(bytes);
        self.kept.push_str(taken);
        self.rest = rest;
    }

    /// From one mark to the next that no backslash is before.
    fn literal(&mut self, mark: char) -> Result<&'a str, Refusal> {
        let mut escaped = false;
        for (at, c) in self.rest.char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == mark => {
                    let inside = &self.rest[1..at];
                    self.take(at + 1);
                    return Ok(inside);
                }
                _ => {}
            }
        }
        let why = format!("no {mark} ends {:.40}", self.rest.lines().next().unwrap_or_default());
        Err(Refusal::Invalid { at: String::new(), why })
    }

    /// A schema, to be written out as it was looked over.
    fn schema(&mut self) -> Result<(), Refusal> {
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<Value>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            other => {
                let why = match other {
                    Some(Err(error)) => format!("after %json: {error}"),
                    _ => "nothing comes after %json".to_owned(),
                };
                return Err(Refusal::Invalid { at: String::new(), why });
            }
        };
        let (taken, rest) = self.rest.split_at(values.byte_offset());
        self.kept.push_str(&schema::look_over(value, self.limits)?.to_string());
        // Lines are where they were: the compiler names them.
        self.kept.extend(taken.chars().filter(|&c| c == '\n'));
        self.rest = rest;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::look_over;
    use crate::{Limits, Refusal};

    #[test]
    fn a_good_grammar_stays_as_it_is() {
        let grammar = "start: \"a:(\" b{1,3} // not (a rule:\nb: /[^\\/]+/ | %json{\"type\":\"null\"}\n\
             # \" nor this\nc: </call> < \"/\"\n";
        assert_eq!(look_over(grammar, &Limits::default()).as_deref(), Ok(grammar));
    }

    #[test]
    fn schemas_and_expressions_within_are_looked_over_too() {
        let not = look_over("start: %json {\"items\": {\"not\": {}}}", &Limits::default());
        let unsupported = Refusal::Unsupported { at: "/items".into(), keyword: "not".into() };
        assert_eq!(not, Err(unsupported));
        let huge = look_over("start: /((a{1,900}){900}){900}/", &Limits::default());
        assert!(matches!(huge, Err(Refusal::TooMuch { .. })), "{huge:?}");
    }

    #[test]
    fn rules_repetitions_and_levels_are_bounded() {
        let limits = Limits { definitions: 2, repetitions: 100, depth: 3, ..Limits::default() };
        for grammar in
            ["a: b\nb: c\nc: \"c\"", "start: (a{20}){20}", "start: a ~ 1..200", "start: ((((a))))"]
        {
            let refused = look_over(grammar, &limits);
            assert!(matches!(refused, Err(Refusal::TooMuch { .. })), "{grammar}: {refused:?}");
        }
    }
}
