//! Masks of a tree of drafts, in one walk over it.

use crate::{Fault, Matcher};

/// Tokens that were drafted. Each comes after the present text, or after another of them.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// `[nodes]`: its token.
    pub tokens: &'a [u32],
    /// `[nodes]`: the node that it comes after, one before it in this list; none at the
    /// present text.
    pub parents: &'a [Option<u32>],
}

/// Writes what may come at the present text and after each node of a tree, and says which
/// nodes may come there at all. `masks` are `[1 + nodes, words]` u32: the row of the present
/// text, then a row for each node, of zeros if it may not come. Each node is accepted at
/// most once, and the matcher is left as it was, unless it fails.
///
/// # Panics
///
/// If a parent does not come before its node, or the lengths differ.
pub fn tree_masks(
    matcher: &mut dyn Matcher,
    tree: Tree<'_>,
    masks: &mut [u32],
) -> Result<Vec<bool>, Fault> {
    let count = tree.tokens.len();
    assert_eq!(tree.parents.len(), count, "each node has a token, and may have a parent");
    assert_eq!(masks.len() % (count + 1), 0, "there is a row for the text and each node");
    let words = masks.len() / (count + 1);
    let mut row = |matcher: &mut dyn Matcher, at: usize| match words {
        0 => Ok(()),
        _ => matcher.mask(&mut masks[at * words..][..words]),
    };
    // Children of the present text, then of each node, in lists: the first, and the next.
    let (mut first, mut next) = (vec![0; count + 1], vec![0; count + 1]);
    for (node, parent) in tree.parents.iter().enumerate().rev() {
        let at = node + 1;
        let parent = parent.map_or(0, |parent| parent as usize + 1);
        assert!(parent < at, "node {node} comes before its parent");
        next[at] = std::mem::replace(&mut first[parent], at);
    }
    let mut may_come = vec![false; count];
    row(matcher, 0)?;
    let mut path = Vec::new();
    let mut at = first[0];
    loop {
        if at == 0 {
            // Nothing more comes here: back, and to what comes beside.
            let Some(last) = path.pop() else { break };
            matcher.take_back(1)?;
            at = next[last];
            continue;
        }
        match matcher.accept(tree.tokens[at - 1]) {
            Ok(()) => {
                may_come[at - 1] = true;
                row(matcher, at)?;
                path.push(at);
                at = first[at];
            }
            Err(Fault::NotAllowed(_)) => at = next[at],
            Err(fault) => return Err(fault),
        }
    }
    // Rows of nodes that may not come were never written.
    for (node, _) in may_come.iter().enumerate().filter(|(_, may)| !**may) {
        masks[(node + 1) * words..][..words].fill(0);
    }
    Ok(may_come)
}
