//! When an answer ends by its bytes: stop strings, wherever tokens divide them.

/// The end of an answer so far, in which stop strings are looked for as tokens come.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    /// The last bytes: fewer than the longest string has, between two tokens.
    tail: Vec<u8>,
    /// Bytes of the answer before them.
    before: usize,
}

/// A stop string that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Which of them.
    pub which: usize,
    /// Bytes of the answer before it.
    pub before: usize,
}

impl Scan {
    /// The answer goes on by these bytes. If strings end within them, and they `count`, the
    /// one that begins first, then the first in the list.
    pub fn push(&mut self, strings: &[Vec<u8>], bytes: &[u8], count: bool) -> Option<Found> {
        let longest = strings.iter().map(Vec::len).max()?;
        let old = self.tail.len();
        self.tail.extend_from_slice(bytes);
        let mut found: Option<Found> = None;
        for (which, string) in strings.iter().enumerate().filter(|_| count) {
            let first = (old + 1).saturating_sub(string.len());
            let at = self.tail[first..].windows(string.len()).position(|part| part == string);
            let Some(before) = at.map(|at| self.before + first + at) else { continue };
            if found.is_none_or(|found| before < found.before) {
                found = Some(Found { which, before });
            }
        }
        let past = (self.tail.len() + 1).saturating_sub(longest);
        self.tail.drain(..past);
        self.before += past;
        found
    }

    /// Bytes at the end that may begin one of the strings.
    pub fn held(&self, strings: &[Vec<u8>]) -> usize {
        let held = |string: &Vec<u8>| {
            let most = self.tail.len().min(string.len().saturating_sub(1));
            (1..=most).rev().find(|&len| self.tail.ends_with(&string[..len])).unwrap_or(0)
        };
        strings.iter().map(held).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Scan};

    fn strings(all: &[&str]) -> Vec<Vec<u8>> {
        all.iter().map(|string| string.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_string_is_found_wherever_tokens_divide_it() {
        let (text, stop) = ("one, two, three", strings(&["two, t"]));
        for cut in 1..text.len() {
            for more in cut..text.len() {
                let mut scan = Scan::default();
                let parts = [&text[..cut], &text[cut..more], &text[more..]];
                let found = parts.iter().find_map(|part| scan.push(&stop, part.as_bytes(), true));
                assert_eq!(found, Some(Found { which: 0, before: 5 }), "{parts:?}");
            }
        }
    }

    #[test]
    fn the_first_to_begin_wins_and_what_does_not_count_is_passed_over() {
        let stop = strings(&["cd", "bcde", "bcd"]);
        let mut scan = Scan::default();
        assert_eq!(scan.push(&stop, b"abc", true), None);
        assert_eq!(scan.held(&stop), 2);
        assert_eq!(scan.push(&stop, b"d", false), None, "too early to end");
        assert_eq!(scan.push(&stop, b"ecde", true), Some(Found { which: 1, before: 1 }));
        let mut scan = Scan::default();
        assert_eq!(scan.push(&stop, b"xbcdx", true), Some(Found { which: 2, before: 1 }));
        assert_eq!(Scan::default().push(&[], b"abc", true), None);
    }

    #[test]
    fn held_bytes_are_the_longest_beginning_of_a_string() {
        let stop = strings(&["aab", "b"]);
        let mut scan = Scan::default();
        let held = [("xa", 1), ("a", 2), ("a", 2), ("c", 0)];
        for (bytes, count) in held {
            assert_eq!(scan.push(&stop, bytes.as_bytes(), true), None);
            assert_eq!(scan.held(&stop), count, "after {bytes}");
        }
    }
}
