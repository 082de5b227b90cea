//! Words in C's arrays of characters, ended by 0; and words of errors, which are for good.

use core::ffi::c_char;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Writes as much of `text` as fits.
pub fn put(text: &str, to: &mut [c_char]) {
    let room = to.len().saturating_sub(1);
    let mut end = text.len().min(room);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    to.fill(0);
    for (to, from) in to.iter_mut().zip(&text.as_bytes()[..end]) {
        *to = *from as c_char;
    }
}

/// What was written; what is no UTF-8 is replaced.
pub fn read(from: &[c_char]) -> String {
    let bytes: Vec<u8> = from.iter().map(|&c| c as u8).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Words that are kept at most: those with a number in them could be any.
const WORDS_MAX: usize = 1024;

/// The words of an error, for good, each once: errors are plain. For words of which few are
/// ever said; of more than there is room for this says so.
pub fn lasting(words: String) -> &'static str {
    static KEPT: Kept = Kept::new();
    KEPT.keep(words, WORDS_MAX).unwrap_or("more is wrong here than there are words for")
}

/// The name of a field, the same way, however many words were said: as many as contracts have.
pub fn lasting_name(name: String) -> &'static str {
    static KEPT: Kept = Kept::new();
    KEPT.keep(name, usize::MAX).unwrap_or_default()
}

/// Words that stay.
struct Kept(Mutex<BTreeSet<&'static str>>);

impl Kept {
    const fn new() -> Self {
        Self(Mutex::new(BTreeSet::new()))
    }

    fn keep(&self, words: String, most: usize) -> Option<&'static str> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(words.as_str()) {
            return Some(known);
        }
        if kept.len() >= most {
            return None;
        }
        let words: &'static str = words.leak();
        kept.insert(words);
        Some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::{Kept, WORDS_MAX, lasting_name, put, read};

    #[test]
    fn what_does_not_fit_is_cut_between_characters() {
        let mut room = [1; 6];
        put("naïve", &mut room);
        assert_eq!(read(&room), "naïv");
        put("ab", &mut room);
        assert_eq!(read(&room), "ab");
        let mut none = [0; 0];
        put("x", &mut none);
        assert_eq!(read(&none), "");
    }

    #[test]
    fn words_are_kept_once() {
        let kept = Kept::new();
        let keep = |words: &str| kept.keep(words.to_owned(), 2);
        let first = keep("one").expect("there is room");
        assert!(std::ptr::eq(first, keep("one").expect("it is known")));
        assert_eq!((keep("two"), keep("three"), keep("two")), (Some("two"), None, Some("two")));
    }

    #[test]
    fn a_name_is_not_lost_behind_many() {
        // Not words, which tests beside this one say, too.
        for number in 0..=WORDS_MAX {
            let name = format!("field_{number}");
            assert_eq!(lasting_name(name.clone()), name);
        }
    }
}
