//! Formats, written as a grammar in Lark's form. Its lexer takes the longest word and never
//! goes back: so text that something ends is one word with its end, the shortest that there
//! is, and each format is written together with the mark that follows it.

use super::{Format, MARK_BYTES, Mark, Tag, Triggered};
use crate::lark::{expression, quoted};
use crate::tokens::Special;
use crate::{Limits, Refusal, schema};
use std::collections::BTreeMap;

/// What comes after a format.
#[derive(Clone, Copy)]
enum Follow<'a> {
    /// The end of the text.
    End,
    /// One of these marks, written with the format.
    Marks(&'a [Mark]),
    /// Something else: the format must tell by itself where it ends.
    Open,
}

/// Where a word ends that is text or an expression up to there.
struct Ending<'a> {
    mark: &'a Mark,
    /// Bytes of it that end the word, if it is a text.
    trigger: usize,
    /// What comes after the mark.
    then: String,
}

/// A format as a grammar.
pub fn lark(format: &Format, limits: &Limits, special: &Special) -> Result<String, Refusal> {
    let mut write = Write { limits, special, rules: String::new(), count: 0 };
    let start = write.format(format, Follow::End)?;
    Ok(format!("start: {start}\n{}", write.rules))
}

/// What stands for nothing.
const NOTHING: &str = "\"\"";

struct Write<'a> {
    limits: &'a Limits,
    special: &'a Special,
    rules: String,
    count: usize,
}

impl Write<'_> {
    /// A format, and the mark that follows it.
    fn format(&mut self, format: &Format, follow: Follow<'_>) -> Result<String, Refusal> {
        self.limits.written(self.rules.len())?;
        if is_word(format) {
            let word = self.word(format);
            let word = self.define("T", &word);
            return Ok(self.up_to(&word, follow));
        }
        Ok(match format {
            Format::Text(text) => format!("{} {}", quoted(text), self.marks(follow)),
            Format::Named(text) => self.text(text) + &self.marks(follow),
            Format::Token(token) => format!("<[{token}]> {}", self.marks(follow)),
            Format::Schema(schema) => {
                let schema = schema::bounded(schema.clone());
                let rule = self.define("r", &format!("%json {schema}"));
                format!("{rule} {}", self.marks(follow))
            }
            Format::Expression(_) => unreachable!("an expression is a word"),
            Format::Free { at, excludes } => {
                let free = Triggered {
                    at: at.clone(),
                    triggers: Vec::new(),
                    tags: Vec::new(),
                    excludes: excludes.clone(),
                    at_least_one: false,
                    one: false,
                };
                self.triggered(&free, follow)?
            }
            Format::Sequence(formats) => self.sequence(formats, follow)?,
            Format::Or(formats) => {
                let formats = formats.iter().map(|format| {
                    let format = self.format(format, follow)?;
                    Ok(self.define("r", &format))
                });
                any(&formats.collect::<Result<Vec<_>, Refusal>>()?)
            }
            Format::Repeat { content, least: 0, most: Some(1) } => {
                let content = self.format(content, follow)?;
                any(&[self.define("r", &content), self.marks(follow)])
            }
            Format::Repeat { content, least, most } => {
                let content = self.format(content, Follow::Open)?;
                let rule = self.define("r", &content);
                rule + &times(*least, *most) + " " + &self.marks(follow)
            }
            Format::Tag(tag) => self.begin(tag) + &self.inside(tag, follow)?,
            Format::Triggered(triggered) => self.triggered(triggered, follow)?,
            Format::Separated { tags, separator, at_least_one, one } => {
                let tags = tags.iter().map(|tag| {
                    let tag = self.begin(tag) + &self.inside(tag, Follow::Open)?;
                    Ok(self.define("r", &tag))
                });
                let tag = any(&tags.collect::<Result<Vec<_>, Refusal>>()?);
                let tag = self.define("r", &tag);
                let more = match one {
                    true => NOTHING.to_owned(),
                    false => format!("({} {tag})*", self.text(separator)),
                };
                let least = if *at_least_one { "" } else { "?" };
                format!("({tag} {more}){least} {}", self.marks(follow))
            }
        })
    }

    /// Formats one after the other. Each is written with the mark that begins the next.
    fn sequence(&mut self, formats: &[Format], follow: Follow<'_>) -> Result<String, Refusal> {
        let mut written = if formats.is_empty() { self.marks(follow) } else { String::new() };
        // Whether the mark that begins the next format is written.
        let mut begun = false;
        let mut rest = formats;
        while let [first, ..] = rest {
            let part = |format: &&Format| is_word(format) || matches!(format, Format::Text(_));
            let words = if begun { 0 } else { rest.iter().take_while(part).count() };
            let (here, after) = rest.split_at(words.max(1));
            let mark = after.first().and_then(head);
            let next = match (&mark, after) {
                (_, []) => follow,
                (Some(mark), _) => Follow::Marks(std::slice::from_ref(mark)),
                (None, _) => Follow::Open,
            };
            written += &match (begun, first) {
                (true, Format::Tag(tag)) => self.inside(tag, next)?,
                (true, _) => self.marks(next),
                (false, _) if here.iter().all(|format| matches!(format, Format::Text(_))) => {
                    let texts = here.iter().map(|format| self.format(format, Follow::Open));
                    texts.collect::<Result<Vec<_>, _>>()?.concat() + &self.marks(next)
                }
                (false, _) if words > 0 => {
                    let word = self.words(here);
                    let word = self.define("T", &word);
                    self.up_to(&word, next)
                }
                (false, _) => self.format(first, next)?,
            };
            written.push(' ');
            begun = mark.is_some();
            rest = after;
        }
        Ok(written)
    }

    fn begin(&self, tag: &Tag) -> String {
        self.mark(&tag.begin) + " "
    }

    /// A tag without its beginning.
    fn inside(&mut self, tag: &Tag, follow: Follow<'_>) -> Result<String, Refusal> {
        if tag.ends.is_empty() {
            return self.format(&tag.content, follow);
        }
        let inside = self.format(&tag.content, Follow::Marks(&tag.ends))?;
        Ok(self.define("r", &inside) + " " + &self.marks(follow))
    }

    /// Text in which triggers begin tags.
    fn triggered(&mut self, all: &Triggered, follow: Follow<'_>) -> Result<String, Refusal> {
        // A tag ends by itself, or with what follows.
        let after = if all.one { follow } else { Follow::Open };
        let mut insides = Vec::with_capacity(all.tags.len());
        for (tag, _) in &all.tags {
            let inside = self.inside(tag, after)?;
            insides.push(self.define("r", &inside));
        }
        let tags = all.tags.iter().zip(&insides);
        let first: Vec<String> =
            tags.clone().map(|((tag, _), inside)| self.begin(tag) + inside).collect();
        if all.at_least_one && all.one {
            return Ok(any(&first));
        }
        let marks = match follow {
            Follow::End => &[],
            Follow::Marks(marks) => marks,
            Follow::Open => {
                let keyword = "free text before what does not begin with a text or a token";
                let at = all.at.clone();
                return Err(Refusal::Unsupported { at, keyword: keyword.to_owned() });
            }
        };
        let ends = marks.iter().filter_map(|mark| match mark {
            Mark::Text(text) => Some(text),
            Mark::Token(_) => None,
        });
        let free = self.free(all.triggers.iter().chain(&all.excludes).chain(ends));
        let begins = tags.map(|((tag, trigger), inside)| Ending {
            mark: &tag.begin,
            trigger: *trigger,
            then: inside.clone(),
        });
        let begins = begins.collect();
        let tag = self.ending(&free, begins);
        let rest = match follow {
            Follow::Marks(_) => self.up_to(&free, follow),
            _ => free,
        };
        Ok(match (all.tags.is_empty(), all.one) {
            (true, _) => rest,
            (false, true) => any(&[tag, rest]),
            (false, false) => {
                let tag = self.define("r", &tag);
                let first = if all.at_least_one { any(&first) } else { String::new() };
                format!("{first} {tag}* {rest}")
            }
        })
    }

    /// A word of text without any of these.
    fn free<'s>(&mut self, without: impl Iterator<Item = &'s String>) -> String {
        let without: Vec<String> = without.map(|text| quoted(text)).collect();
        let any_text = "/(?s:.*)/";
        if without.is_empty() {
            return self.define("T", any_text);
        }
        // What is no text is none of these either: it must be text as well.
        let has = self.define("T", &format!("{any_text} {} {any_text}", any(&without)));
        self.define("T", &format!("~{has} & {any_text}"))
    }

    /// A word up to the mark that follows, or as long as it can be.
    fn up_to(&mut self, word: &str, follow: Follow<'_>) -> String {
        match follow {
            Follow::End | Follow::Open => word.to_owned(),
            Follow::Marks(marks) => {
                let length = |mark: &Mark| match mark {
                    Mark::Text(text) => text.len(),
                    Mark::Token(_) => 0,
                };
                let endings = marks.iter().map(|mark| Ending {
                    mark,
                    trigger: length(mark),
                    then: NOTHING.to_owned(),
                });
                self.ending(word, endings.collect())
            }
        }
    }

    /// A word up to the first of these marks, and what comes after it. The name of a special
    /// token is that token as well as its letters.
    fn ending(&mut self, word: &str, endings: Vec<Ending<'_>>) -> String {
        let mut by_text = BTreeMap::<&str, Vec<String>>::new();
        let mut by_token = BTreeMap::<(&str, u32), Vec<String>>::new();
        for Ending { mark, trigger, then } in endings {
            match mark {
                Mark::Token(token) => by_token.entry(("", *token)).or_default().push(then),
                Mark::Text(text) => {
                    for (span, token) in self.special.within(text) {
                        if span.start < trigger {
                            let rest = format!("{} {then}", self.text(&text[span.end..]));
                            let before = &text[..span.start];
                            by_token.entry((before, token)).or_default().push(rest);
                        }
                    }
                    let rest = format!("{} {then}", self.text(&text[trigger..]));
                    by_text.entry(&text[..trigger]).or_default().push(rest);
                }
            }
        }
        let mut all = Vec::new();
        for (text, then) in by_text {
            let lazy = self.define("lazy", &format!("{word} {}", quoted(text)));
            all.push(format!("{lazy} {}", any(&then)));
        }
        for ((before, token), then) in by_token {
            let before = match before {
                "" => word.to_owned(),
                before => self.define("T", &format!("{word} {}", quoted(before))),
            };
            all.push(format!("{before} <[{token}]> {}", any(&then)));
        }
        any(&all)
    }

    /// A format that [is a word](is_word), or a text, as one word of the lexer: it then ends
    /// in each way that it may.
    fn word(&mut self, format: &Format) -> String {
        match format {
            Format::Text(text) => quoted(text) + " ",
            Format::Expression(pattern) => expression(pattern) + " ",
            Format::Sequence(formats) => self.words(formats),
            Format::Or(formats) => {
                let words = formats.iter().map(|format| {
                    let word = self.word(format);
                    self.define("T", &word)
                });
                any(&words.collect::<Vec<_>>())
            }
            Format::Repeat { content, least, most } => {
                let word = self.word(content);
                self.define("T", &word) + &times(*least, *most) + " "
            }
            _ => unreachable!("it is no word"),
        }
    }

    fn words(&mut self, formats: &[Format]) -> String {
        formats.iter().map(|format| self.word(format)).collect()
    }

    /// One of the marks that follow.
    fn marks(&self, follow: Follow<'_>) -> String {
        match follow {
            Follow::Marks(marks) => {
                any(&marks.iter().map(|mark| self.mark(mark)).collect::<Vec<_>>())
            }
            Follow::End | Follow::Open => NOTHING.to_owned(),
        }
    }

    fn mark(&self, mark: &Mark) -> String {
        match mark {
            Mark::Text(text) => self.text(text),
            Mark::Token(token) => format!("<[{token}]>"),
        }
    }

    /// A text; where it has the name of a special token, that token or its letters.
    fn text(&self, text: &str) -> String {
        let mut written = String::new();
        let mut from = 0;
        for (span, token) in self.special.within(text) {
            if from < span.start {
                written += &quoted(&text[from..span.start]);
            }
            written += &format!(" (<[{token}]> | {}) ", quoted(&text[span.clone()]));
            from = span.end;
        }
        if from < text.len() || text.is_empty() {
            written += &quoted(&text[from..]);
        }
        written + " "
    }

    /// One more rule, `r`, or word, `T`, or word that is `lazy`; its name.
    fn define(&mut self, kind: &str, body: &str) -> String {
        let name = format!("{kind}{}", self.count);
        let how = if kind == "lazy" { "[lazy]" } else { "" };
        self.count += 1;
        self.rules += &format!("{name}{how}: {body}\n");
        name
    }
}

/// Whether a format can be one word: expressions, and texts beside them.
fn is_word(format: &Format) -> bool {
    let part = |format: &Format| is_word(format) || matches!(format, Format::Text(_));
    match format {
        Format::Expression(_) => true,
        Format::Sequence(formats) => !formats.is_empty() && formats.iter().all(part),
        Format::Or(formats) => formats.iter().all(part),
        Format::Repeat { content, .. } => part(content),
        _ => false,
    }
}

/// The mark that a format begins with, if it is known.
fn head(format: &Format) -> Option<Mark> {
    match format {
        Format::Text(text) | Format::Named(text) if (1..=MARK_BYTES).contains(&text.len()) => {
            Some(Mark::Text(text.clone()))
        }
        Format::Token(token) => Some(Mark::Token(*token)),
        Format::Tag(tag) if tag.begin != Mark::Text(String::new()) => Some(tag.begin.clone()),
        _ => None,
    }
}

/// One of these.
fn any(all: &[String]) -> String {
    format!("({}) ", all.join(" | "))
}

fn times(least: u32, most: Option<u32>) -> String {
    match (least, most) {
        (0, None) => "*".to_owned(),
        (1, None) => "+".to_owned(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) => format!("{{{least},{most}}}"),
    }
}
