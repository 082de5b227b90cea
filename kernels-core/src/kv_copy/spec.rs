//! The truth of `kv_copy`: tokens as numbers of a list, pages one after the other.

use alloc::vec::Vec;

/// The tokens of all pages after the entries; each entry is page and token to copy
/// from, page and token to copy to, and how many.
pub fn spec<T: Clone>(tokens: &[T], page_len: u32, entries: &[[u32; 5]]) -> Vec<T> {
    let mut tokens = tokens.to_vec();
    for &[from_page, from_token, to_page, to_token, count] in entries {
        let start = |page: u32, token: u32| (page * page_len + token) as usize;
        let from = start(from_page, from_token);
        let moved = tokens[from..from + count as usize].to_vec();
        let to = start(to_page, to_token);
        tokens[to..to + count as usize].clone_from_slice(&moved);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::spec;

    #[test]
    fn entries_run_in_order_and_each_reads_before_it_writes() {
        let tokens = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
        // A run onto itself, one token on; then what it wrote goes to the other page.
        let got = spec(&tokens, 4, &[[0, 0, 0, 1, 3], [0, 2, 1, 0, 2]]);
        assert_eq!(got, ['a', 'a', 'b', 'c', 'b', 'c', 'g', 'h']);
    }
}
