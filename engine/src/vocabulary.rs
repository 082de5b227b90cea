//! The bytes of each token, in which stop strings are looked for.

/// The bytes that each token stands for, by its number.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<usize>,
}

impl Vocabulary {
    /// The bytes of token 0, 1, 2 and so on; none for a token that has no text.
    pub fn new<B: AsRef<[u8]>>(tokens: impl IntoIterator<Item = B>) -> Self {
        let mut all = Self::default();
        for token in tokens {
            all.bytes.extend_from_slice(token.as_ref());
            all.ends.push(all.bytes.len());
        }
        all
    }

    /// Tokens that it knows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it knows no token.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of a token; none of one it does not know.
    pub fn bytes(&self, token: u32) -> &[u8] {
        let at = token as usize;
        let Some(&end) = self.ends.get(at) else { return &[] };
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..end]
    }
}

#[cfg(test)]
mod tests {
    use super::Vocabulary;

    #[test]
    fn a_token_has_its_own_bytes_and_an_unknown_one_none() {
        let all = Vocabulary::new(["ab", "", "c"]);
        let bytes: Vec<_> = (0..4).map(|token| all.bytes(token)).collect();
        assert_eq!((all.len(), bytes), (3, vec![&b"ab"[..], b"", b"c", b""]));
    }
}
