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

/// The words, for good, each once: errors are plain. For words of which few are ever said.
pub fn lasting(words: String) -> &'static str {
    static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    match kept.get(words.as_str()) {
        Some(known) => known,
        None => {
            let words: &'static str = words.leak();
            kept.insert(words);
            words
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{put, read};

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
}
