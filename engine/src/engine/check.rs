//! What a request must be, field by field: refused by name before any work.

use super::settings::Settings;
use crate::processor::{Course, Processor, Schedule, Steps, Thinking};
use crate::request::{Generate, Refused, Request, Sampling, Stop, Task};
use std::fmt::Display;
use std::ops::RangeInclusive;

/// Answers to one prompt at most.
const CHOICES_MAX: u32 = 4096;
/// Most likely tokens that are listed with one.
pub(super) const TOP_MAX: u32 = 128;
/// Tokens of a request that it bans in a step at most.
pub(super) const BANNED_MAX: usize = Generate::BANNED_MAX;
/// Biases of a request.
pub(super) const BIAS_MAX: usize = 1024;
/// Stop strings of a request, and bytes of each.
const STRINGS_MAX: usize = 64;
const STRING_BYTES_MAX: usize = 1024;

pub(super) fn refused(
    field: &'static str,
    expected: impl Into<String>,
    got: impl Display,
) -> Refused {
    Refused { field, expected: expected.into(), got: got.to_string() }
}

pub(super) fn range(
    field: &'static str,
    got: u32,
    allowed: RangeInclusive<u32>,
) -> Result<(), Refused> {
    if allowed.contains(&got) {
        return Ok(());
    }
    Err(refused(field, format!("{} to {}", allowed.start(), allowed.end()), got))
}

pub(super) fn above(field: &'static str, got: u32, least: u32) -> Result<(), Refused> {
    if got > least { Ok(()) } else { Err(refused(field, format!("above {least}"), got)) }
}

/// What a request is checked against.
pub(super) struct Checks<'a> {
    pub settings: &'a Settings,
    pub vocab: u32,
    /// Tokens with which the model ends an answer.
    pub eos: usize,
}

impl Checks<'_> {
    pub fn request(&self, request: &Request) -> Result<(), Refused> {
        let len = request.prompt.len();
        if len == 0 {
            return Err(refused("prompt", "at least one token", "none"));
        }
        self.tokens("prompt", &request.prompt)?;
        let generates = matches!(&request.task, Task::Generate(generate) if generate.max_new > 0);
        let most = self.settings.len_max() as usize - usize::from(generates);
        if len > most {
            let answer = if generates { ", so that one can follow" } else { "" };
            let expected = format!("at most {most} tokens{answer}");
            return Err(refused("prompt", expected, format!("{len} tokens")));
        }
        match &request.task {
            Task::Generate(generate) => self.generate(generate, len),
            Task::Embed(_) => Ok(()),
        }
    }

    fn generate(&self, generate: &Generate, prompt_len: usize) -> Result<(), Refused> {
        range("choices", generate.choices, 1..=CHOICES_MAX)?;
        if let Some(top) = generate.top {
            range("top", top, 0..=TOP_MAX)?;
        }
        if let Some(top) = generate.prompt_top {
            range("prompt_top", top, 0..=TOP_MAX)?;
            range("prompt_from", generate.prompt_from, 0..=prompt_len as u32 - 1)?;
        } else if generate.prompt_from > 0 {
            return Err(refused("prompt_from", "0 without prompt_top", generate.prompt_from));
        }
        self.tokens("chosen", &generate.chosen)?;
        if generate.chosen.len() > Generate::CHOSEN_MAX {
            let expected = format!("at most {}", Generate::CHOSEN_MAX);
            return Err(refused("chosen", expected, generate.chosen.len()));
        }
        self.sampling(&generate.sampling)?;
        self.stop(&generate.stop)?;
        let ends = self.eos + generate.stop.tokens.len();
        if ends > BANNED_MAX {
            let expected = format!("at most {BANNED_MAX}, the model's ends included");
            return Err(refused("stop.tokens", expected, ends));
        }
        let banned = ends + generate.sampling.bad_words.len();
        if banned > BANNED_MAX {
            let expected =
                format!("at most {BANNED_MAX}, stop tokens and the model's ends included");
            return Err(refused("sampling.bad_words", expected, banned));
        }
        Ok(())
    }

    fn sampling(&self, sampling: &Sampling) -> Result<(), Refused> {
        number("sampling.temperature", sampling.temperature, |x| x >= 0.0, "finite, at least 0")?;
        let share = |x: f32| (0.0..=1.0).contains(&x);
        number("sampling.top_p", sampling.top_p, share, "0 to 1")?;
        number("sampling.min_p", sampling.min_p, share, "0 to 1")?;
        number("sampling.presence", sampling.presence, |_| true, "finite")?;
        number("sampling.frequency", sampling.frequency, |_| true, "finite")?;
        number("sampling.repetition", sampling.repetition, |x| x > 0.0, "finite, above 0")?;
        if sampling.bias.len() > BIAS_MAX {
            let expected = format!("at most {BIAS_MAX}");
            return Err(refused("sampling.bias", expected, sampling.bias.len()));
        }
        for &(token, bias) in sampling.bias.iter() {
            self.tokens("sampling.bias", &[token])?;
            number("sampling.bias", bias, |_| true, "finite")?;
        }
        if let Some(allowed) = &sampling.allowed {
            if allowed.is_empty() {
                return Err(refused("sampling.allowed", "at least one token", "none"));
            }
            self.tokens("sampling.allowed", allowed)?;
        }
        for word in sampling.bad_words.iter() {
            if word.is_empty() {
                return Err(refused("sampling.bad_words", "words of at least one token", "none"));
            }
            self.tokens("sampling.bad_words", word)?;
        }
        self.processors(&sampling.processors)
    }

    fn processors(&self, processors: &[Processor]) -> Result<(), Refused> {
        let field = "sampling.processors";
        if processors.len() > Processor::MAX {
            let expected = format!("at most {}", Processor::MAX);
            return Err(refused(field, expected, processors.len()));
        }
        for (kind, is) in [
            ("temperature", (|it| matches!(it, Processor::Temperature(_))) as fn(&Processor) -> _),
            ("budget of thinking", |it| matches!(it, Processor::Thinking(_))),
        ] {
            let count = processors.iter().filter(|processor| is(processor)).count();
            if count > 1 {
                return Err(refused(field, format!("at most one {kind}"), count));
            }
        }
        processors.iter().try_for_each(|processor| match processor {
            Processor::Allowed(set) | Processor::Disallowed(set) if set.vocab() != self.vocab => {
                let expected = format!("sets of {} tokens", self.vocab);
                Err(refused(field, expected, format!("one of {}", set.vocab())))
            }
            Processor::Allowed(set) if set.is_empty() => {
                Err(refused(field, "at least one allowed token", "none"))
            }
            Processor::Allowed(_) | Processor::Disallowed(_) => Ok(()),
            Processor::Steps(Steps { lists, .. }) => {
                some(field, lists)?;
                lists.iter().try_for_each(|list| self.some_tokens(field, list))
            }
            Processor::Temperature(schedule) => temperatures(field, *schedule),
            Processor::Thinking(Thinking { start, end, .. }) => {
                start.iter().try_for_each(|start| self.some_tokens(field, start))?;
                self.some_tokens(field, end)
            }
        })
    }

    fn some_tokens(&self, field: &'static str, tokens: &[u32]) -> Result<(), Refused> {
        some(field, tokens)?;
        self.tokens(field, tokens)
    }

    fn stop(&self, stop: &Stop) -> Result<(), Refused> {
        self.tokens("stop.tokens", &stop.tokens)?;
        if stop.strings.len() > STRINGS_MAX {
            let expected = format!("at most {STRINGS_MAX}");
            return Err(refused("stop.strings", expected, stop.strings.len()));
        }
        let wrong = stop.strings.iter().find(|x| !(1..=STRING_BYTES_MAX).contains(&x.len()));
        match wrong {
            Some(string) => {
                let expected = format!("1 to {STRING_BYTES_MAX} bytes each");
                Err(refused("stop.strings", expected, format!("{} bytes", string.len())))
            }
            None => Ok(()),
        }
    }

    fn tokens(&self, field: &'static str, tokens: &[u32]) -> Result<(), Refused> {
        match tokens.iter().find(|&&token| token >= self.vocab) {
            Some(token) => Err(refused(field, format!("tokens below {}", self.vocab), token)),
            None => Ok(()),
        }
    }
}

fn number(
    field: &'static str,
    got: f32,
    allowed: impl Fn(f32) -> bool,
    expected: &str,
) -> Result<(), Refused> {
    if got.is_finite() && allowed(got) { Ok(()) } else { Err(refused(field, expected, got)) }
}

fn some<T>(field: &'static str, list: &[T]) -> Result<(), Refused> {
    if list.is_empty() { Err(refused(field, "lists that are not empty", "one")) } else { Ok(()) }
}

fn temperatures(field: &'static str, schedule: Schedule) -> Result<(), Refused> {
    let Schedule { start, end, course } = schedule;
    let bounds = 0.0..=f64::from(f32::MAX);
    if let Some(wrong) = [start, end].iter().find(|it| !bounds.contains(*it)) {
        return Err(refused(field, "finite temperatures, at least 0", wrong));
    }
    match course {
        Course::Decay(decay) if !(0.0..=1.0).contains(&decay) => {
            Err(refused(field, "a decay of 0 to 1", decay))
        }
        Course::Tokens(0) => Err(refused(field, "at least one token", 0)),
        Course::Decay(_) | Course::Tokens(_) => Ok(()),
    }
}
