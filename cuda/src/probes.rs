//! The tables of `cuda/probe/`: what the emulator makes of each probe, written where it is and
//! read beside a card, which must make the same.

use std::fmt;

/// A probe, and what it must write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name, and that of its entry after `probe_`.
    pub name: String,
    /// Threads of its one block.
    pub threads: u32,
    /// Bytes of shared memory.
    pub shared_bytes: u32,
    /// How many of the words it reads.
    pub words_in: usize,
    /// What it writes.
    pub expected: Vec<u32>,
}

/// All of them, and the words that they read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// What probes read, from its beginning.
    pub words: Vec<u32>,
    /// In the order in which they run.
    pub tables: Vec<Table>,
}

/// As a text: `words COUNT`, then that many in hexadecimal; `probe NAME THREADS SHARED_BYTES
/// WORDS_IN WORDS_OUT`, then what it writes; and so on.
impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "words {}", self.words.len())?;
        lines(f, &self.words)?;
        for Table { name, threads, shared_bytes, words_in, expected } in &self.tables {
            let words_out = expected.len();
            writeln!(f, "probe {name} {threads} {shared_bytes} {words_in} {words_out}")?;
            lines(f, expected)?;
        }
        Ok(())
    }
}

fn lines(f: &mut fmt::Formatter<'_>, words: &[u32]) -> fmt::Result {
    for line in words.chunks(8) {
        let line: Vec<String> = line.iter().map(|word| format!("{word:x}")).collect();
        writeln!(f, "{}", line.join(" "))?;
    }
    Ok(())
}

impl Tables {
    /// What a text says; nothing where it is none of these, or does not end where it says.
    pub fn parse(text: &str) -> Option<Self> {
        let mut tokens = text.split_ascii_whitespace();
        let next: &mut dyn Iterator<Item = &str> = &mut tokens;
        if next.next()? != "words" {
            return None;
        }
        let words = numbers(next)?;
        let mut tables = Vec::new();
        while let Some(token) = next.next() {
            if token != "probe" {
                return None;
            }
            let name = next.next()?.to_owned();
            let (threads, shared_bytes) = (next.next()?.parse().ok()?, next.next()?.parse().ok()?);
            let words_in = next.next()?.parse().ok()?;
            if words_in > words.len() {
                return None;
            }
            let expected = numbers(next)?;
            tables.push(Table { name, threads, shared_bytes, words_in, expected });
        }
        Some(Self { words, tables })
    }
}

/// A count, then so many words.
fn numbers(tokens: &mut dyn Iterator<Item = &str>) -> Option<Vec<u32>> {
    let count = tokens.next()?.parse::<usize>().ok()?;
    let words = tokens.take(count).map(|token| u32::from_str_radix(token, 16).ok());
    words.collect::<Option<Vec<u32>>>().filter(|words| words.len() == count)
}

#[cfg(test)]
mod tests {
    use super::{Table, Tables};

    #[test]
    fn what_is_written_is_read() {
        let table = |name: &str, count: u32| Table {
            name: name.to_owned(),
            threads: 32,
            shared_bytes: 64,
            words_in: 3,
            expected: (0..count).map(|word| word.wrapping_mul(0x9e37_79b9)).collect(),
        };
        let tables =
            Tables { words: vec![0, 7, u32::MAX], tables: vec![table("a", 9), table("b", 8)] };
        let text = tables.to_string();
        assert_eq!(Tables::parse(&text).as_ref(), Some(&tables));
        // One that is cut off anywhere, or that reads more than there is, is none.
        let last = text.trim_end().rsplit_once(' ').expect("it has words").0;
        assert_eq!(Tables::parse(last), None);
        assert_eq!(Tables::parse(&text.replace("32 64 3", "32 64 4")), None);
        assert_eq!(Tables::parse("words 2 0"), None);
        assert_eq!(Tables::parse(""), None);
    }
}
