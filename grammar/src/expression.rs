//! A regular expression, looked over before it is compiled: its depth, and its size once
//! its repetitions are written out.

use crate::{Limits, Refusal};

/// How large something with groups and repetitions is once they are written out.
pub struct Size<'a> {
    limits: &'a Limits,
    /// Groups that are open: size of what each has so far, and of the last of it, which a
    /// repetition would multiply.
    groups: Vec<(u64, u64)>,
}

impl<'a> Size<'a> {
    pub fn new(limits: &'a Limits) -> Self {
        Self { limits, groups: vec![(0, 0)] }
    }

    /// One more part.
    pub fn push(&mut self, size: u64) {
        let (all, last) = self.groups.last_mut().expect("the outermost is never closed");
        (*all, *last) = (all.saturating_add(size), size);
    }

    /// A group begins.
    pub fn open(&mut self) -> Result<(), Refusal> {
        self.groups.push((0, 0));
        self.limits.depth(self.groups.len() - 1)
    }

    /// It ends; nothing of it if none is open.
    pub fn close(&mut self) {
        if self.groups.len() > 1
            && let Some((size, _)) = self.groups.pop()
        {
            self.push(size);
        }
    }

    /// The last part comes so many times.
    pub fn repeat(&mut self, times: u64) -> Result<(), Refusal> {
        let (all, last) = self.groups.last_mut().expect("the outermost is never closed");
        let repeated = last.saturating_mul(times.max(1));
        (*all, *last) = ((*all - *last).saturating_add(repeated), repeated);
        self.check().map(drop)
    }

    /// How large all of it is: not too large.
    pub fn check(&self) -> Result<u64, Refusal> {
        let size = self.groups.iter().fold(0u64, |sum, (size, _)| sum.saturating_add(*size));
        self.limits.repetitions(size).map(|()| size)
    }
}

/// Looks an expression over; its size. Whether it is well formed, its compiler says.
pub fn look_over(expression: &str, limits: &Limits) -> Result<u64, Refusal> {
    limits.bytes(expression.len())?;
    let mut size = Size::new(limits);
    let mut rest = expression.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                rest.next();
                size.push(1);
            }
            '[' => {
                skip_class(&mut rest);
                size.push(1);
            }
            '(' => size.open()?,
            ')' => size.close(),
            '{' => match bounds(rest.as_str()) {
                Some((times, after)) => {
                    rest = after.chars();
                    size.repeat(times)?;
                }
                None => size.push(1),
            },
            '*' | '+' | '?' | '|' => {}
            _ => size.push(1),
        }
    }
    size.check()
}

/// Goes to the end of a class.
fn skip_class(rest: &mut std::str::Chars<'_>) {
    let mut depth = 1;
    // A bracket that comes first is one of its members.
    let mut first = true;
    while let Some(c) = rest.next() {
        match c {
            '\\' => drop(rest.next()),
            '^' if first => continue,
            '[' => depth += 1,
            ']' if !first => depth -= 1,
            _ => {}
        }
        first = false;
        if depth == 0 {
            break;
        }
    }
}

/// The most of `m}`, `m,}` or `m,n}`, and what comes after it.
pub fn bounds(text: &str) -> Option<(u64, &str)> {
    let (inside, after) = text.split_once('}')?;
    let number = |digits: &str| -> Option<u64> {
        let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let times = match inside.split_once(',') {
        None => number(inside)?,
        Some((least, "")) => number(least)?,
        Some(("", most)) => number(most)?,
        Some((least, most)) => number(least)?.max(number(most)?),
    };
    Some((times, after))
}

#[cfg(test)]
mod tests {
    use super::look_over;
    use crate::{Limits, Refusal};

    fn size_of(expression: &str) -> u64 {
        let none = Limits { repetitions: 0, ..Limits::default() };
        let one = |most| look_over(expression, &Limits { repetitions: most, ..none });
        (0..).find(|&most| one(most).is_ok()).expect("some bound lets it pass")
    }

    #[test]
    fn repetitions_multiply_what_they_repeat() {
        let sizes =
            ["abc", "a{3}", "(ab){2,4}c", "((a{1,3}){2}){4,}", "[a-z]{5}x*", r"\{9}", "a{x}"];
        assert_eq!(sizes.map(size_of), [3, 3, 9, 24, 6, 3, 4]);
    }

    #[test]
    fn a_class_is_one_part_whatever_is_in_it() {
        assert_eq!(["[]a{9}]", "[^]]", r"[\]{9}]{2}", "[a[b]c]"].map(size_of), [1, 1, 2, 1]);
    }

    #[test]
    fn what_grows_beyond_measure_is_refused_at_once() {
        let huge = "((a{1,900}){1,900}){1,900}";
        assert!(matches!(look_over(huge, &Limits::default()), Err(Refusal::TooMuch { .. })));
        let deep = "(".repeat(1_000_000);
        let refused = look_over(&deep, &Limits::default());
        assert!(matches!(refused, Err(Refusal::TooMuch { what: "levels", .. })), "{refused:?}");
    }
}
