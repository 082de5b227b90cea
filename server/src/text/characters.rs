//! Bytes that come piece by piece, as text: never half of a character.

/// Bytes that are not yet a whole character.
#[derive(Clone, Debug, Default)]
pub struct Characters {
    pending: Vec<u8>,
}

impl Characters {
    /// More bytes; answers the characters that are whole. What can be no character is
    /// one U+FFFD for each longest beginning of one, as everywhere else.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let whole = self.pending.len() - unfinished(&self.pending);
        let text = String::from_utf8_lossy(&self.pending[..whole]).into_owned();
        self.pending.drain(..whole);
        text
    }

    /// No more bytes come: what is left is no character.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

/// Bytes at the end that may yet become a character.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    match std::str::from_utf8(tail) {
        Err(error) if error.error_len().is_none() => tail.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::Characters;

    #[test]
    fn any_cut_gives_the_text_of_the_whole() {
        let samples: [&[u8]; 6] = [
            "a é 数 🙂!".as_bytes(),
            b"\xf0\x9f\x99",
            b"a\xff\xc3\xa9\xe6\x95b",
            b"\xc3(\xe2\x82",
            b"",
            b"\xed\xa0\x80\xf4\x90",
        ];
        for bytes in samples {
            for cut in 0..=bytes.len() {
                for second in cut..=bytes.len() {
                    let mut characters = Characters::default();
                    let mut text = characters.push(&bytes[..cut]);
                    text += &characters.push(&bytes[cut..second]);
                    text += &characters.push(&bytes[second..]);
                    text += &characters.finish();
                    assert_eq!(
                        text,
                        String::from_utf8_lossy(bytes),
                        "{bytes:?} at {cut}, {second}"
                    );
                }
            }
        }
    }

    #[test]
    fn half_a_character_waits_for_the_other() {
        let mut characters = Characters::default();
        assert_eq!(characters.push(b"x\xf0\x9f"), "x");
        assert_eq!(characters.push(b"\x99\x82y"), "🙂y");
        assert_eq!(characters.finish(), "");
    }
}
