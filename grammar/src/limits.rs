//! What a grammar may be, and what may be spent on it. Threads cannot be killed: whatever
//! is begun must end by itself, in bounded time, memory and depth.

use crate::Refusal;

/// Bounds of grammars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a source.
    pub bytes: usize,
    /// Levels of values within values, of schemas within schemas, of brackets in an
    /// expression.
    pub depth: usize,
    /// Definitions that references of a schema reach, or rules of a grammar: each may
    /// take a level of the compiler's stack.
    pub definitions: usize,
    /// Properties that a schema names, all in all.
    pub properties: usize,
    /// Properties of an object that may be left out: what comes after each may be any of
    /// those behind it, so that they are squared.
    pub optional: usize,
    /// Formats of structural tags, what begins and ends them, and names of special tokens
    /// in them.
    pub formats: usize,
    /// Values of all enumerations of a schema, or of a choice.
    pub values: usize,
    /// What a number of a schema may have to be a multiple of, its digits without the point:
    /// each remainder is a state, and no fuel bounds them.
    pub multiple: u64,
    /// What repetitions of an expression multiply to: `(a{1,9}){1,9}` has 81.
    pub repetitions: u64,
    /// States of a lexer, which take about 2 kB each.
    pub states: usize,
    /// Steps in which the first states of a grammar may be built; 50,000 take about 1 ms.
    pub build_fuel: u64,
    /// Steps in which a mask may be computed; 14,000 take about 1 ms.
    pub mask_fuel: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 1 << 20,
            depth: 64,
            definitions: 2000,
            properties: 4000,
            optional: 1000,
            formats: 8000,
            values: 20_000,
            multiple: 10_000,
            repetitions: 100_000,
            states: 50_000,
            build_fuel: 1_000_000,
            mask_fuel: 200_000,
        }
    }
}

impl Limits {
    pub(crate) fn bytes(&self, got: usize) -> Result<(), Refusal> {
        bound("bytes", got, self.bytes)
    }

    pub(crate) fn depth(&self, got: usize) -> Result<(), Refusal> {
        bound("levels", got, self.depth)
    }

    pub(crate) fn definitions(&self, got: usize) -> Result<(), Refusal> {
        bound("definitions", got, self.definitions)
    }

    pub(crate) fn properties(&self, got: usize) -> Result<(), Refusal> {
        bound("properties", got, self.properties)
    }

    pub(crate) fn optional(&self, got: usize) -> Result<(), Refusal> {
        bound("properties that may be left out", got, self.optional)
    }

    pub(crate) fn formats(&self, got: usize) -> Result<(), Refusal> {
        bound("formats, marks and names", got, self.formats)
    }

    pub(crate) fn repetitions(&self, got: u64) -> Result<(), Refusal> {
        bound("parts, with repetitions written out", got, self.repetitions)
    }

    /// Of a grammar that is written for a source.
    pub(crate) fn written(&self, got: usize) -> Result<(), Refusal> {
        bound("bytes, written as a grammar", got, 4 * self.bytes)
    }

    pub(crate) fn mark(&self, got: usize, most: usize) -> Result<(), Refusal> {
        bound("bytes of a mark", got, most)
    }

    pub(crate) fn values(&self, got: usize) -> Result<(), Refusal> {
        bound("values", got, self.values)
    }
}

fn bound<N: PartialOrd + TryInto<u64>>(what: &'static str, got: N, most: N) -> Result<(), Refusal> {
    if got <= most {
        return Ok(());
    }
    let count = |number: N| number.try_into().unwrap_or(u64::MAX);
    Err(Refusal::TooMuch { what, got: count(got), most: count(most) })
}
