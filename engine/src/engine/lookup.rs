//! Guesses of what comes next: what came after the same tokens before.

/// How many of the last tokens are looked for, at most and at least.
const LONGEST: usize = 4;
const SHORTEST: usize = 2;
/// Tokens that are looked through, the last ones.
const REACH: usize = 8192;

/// Continuations of `tokens` of at most `len` tokens each: what followed where their end
/// was before, the longest likeness first, then the latest. No more than `most`, and no two
/// that begin alike.
pub(super) fn lookup(tokens: &[u32], len: usize, most: usize) -> Vec<Vec<u32>> {
    let tokens = &tokens[tokens.len().saturating_sub(REACH)..];
    let mut found: Vec<Vec<u32>> = Vec::new();
    for like in (SHORTEST..=LONGEST.min(tokens.len().saturating_sub(1))).rev() {
        let end = &tokens[tokens.len() - like..];
        // The end itself is no find.
        for at in (0..tokens.len() - like).rev() {
            if found.len() >= most || len == 0 {
                return found;
            }
            if &tokens[at..at + like] != end {
                continue;
            }
            let guess = &tokens[at + like..][..len.min(tokens.len() - at - like)];
            if found.iter().all(|other| other[0] != guess[0]) {
                found.push(repeated(guess, len));
            }
        }
    }
    found
}

/// A guess that ends with the text goes on from its own beginning: it repeats.
fn repeated(guess: &[u32], len: usize) -> Vec<u32> {
    guess.iter().copied().cycle().take(len).collect()
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn what_followed_the_same_tokens_is_guessed() {
        let tokens = [1, 2, 3, 4, 5, 9, 2, 3];
        assert_eq!(lookup(&tokens, 3, 1), [vec![4, 5, 9]]);
        assert_eq!(lookup(&tokens, 1, 4), [vec![4]]);
        assert!(lookup(&[1, 2, 3, 4], 3, 1).is_empty());
        assert!(lookup(&[7], 3, 1).is_empty());
        assert!(lookup(&[], 3, 1).is_empty());
        assert!(lookup(&tokens, 0, 1).is_empty());
    }

    #[test]
    fn a_longer_likeness_comes_first_then_a_later_one_and_none_twice() {
        let tokens = [8, 1, 2, 3, 5, 9, 1, 2, 4, 7, 1, 2, 3];
        // `1 2 3` was followed by 5.
        assert_eq!(lookup(&tokens, 2, 4), [vec![5, 9]]);
        let tokens = [1, 2, 5, 6, 1, 2, 7, 8, 1, 2, 5, 9, 3, 1, 2];
        assert_eq!(lookup(&tokens, 2, 4), [vec![5, 9], vec![7, 8]]);
        assert_eq!(lookup(&tokens, 2, 1), [vec![5, 9]]);
    }

    #[test]
    fn what_repeats_is_guessed_past_its_end() {
        assert_eq!(lookup(&[4, 6, 6, 6], 3, 1), [vec![6, 6, 6]]);
        assert_eq!(lookup(&[1, 2, 1, 2], 5, 1), [vec![1, 2, 1, 2, 1]]);
    }
}
