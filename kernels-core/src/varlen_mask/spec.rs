//! The truth of `varlen_mask`, one sequence at a time: every rule as a question
//! asked of each pair of a row and a slot.

use alloc::vec::Vec;

/// What a step knows of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// Its positions, the step's rows included.
    pub length: u32,
    /// Its rows in the step.
    pub rows: u32,
    /// Latest positions a row sees; 0 for all.
    pub window: u32,
    /// Leading positions that see each other both ways.
    pub prefix: u32,
    /// Where documents begin, ascending.
    pub documents: &'a [u32],
    /// The parents of the nodes that its last rows are.
    pub parents: &'a [u32],
}

/// What one row sees, slot by slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its position.
    pub position: u32,
    /// Slots before the tree, or all of them where the row is no node.
    pub slots: Vec<u32>,
    /// Nodes of the tree.
    pub nodes: Vec<u32>,
}

/// What each row of a sequence sees.
pub fn spec(of: Sequence<'_>) -> Vec<Seen> {
    let tree_start = of.length - of.parents.len() as u32;
    let document = |position: u32| of.documents.iter().filter(|&&begin| begin <= position).count();
    (of.length - of.rows..of.length)
        .map(|slot| {
            let ancestors = ancestors(of.parents, slot.checked_sub(tree_start));
            // A node stands behind the tree's start by its depth.
            let depth = ancestors.len().saturating_sub(1) as u32;
            let node = !ancestors.is_empty();
            let position = if node { tree_start + depth } else { slot };
            let home = document(if node { tree_start } else { slot });
            let recent = |other: u32| of.window == 0 || other + of.window > position;
            let sees = |other: &u32| {
                let before = *other <= position || (*other < of.prefix && !node);
                before && recent(*other) && document(*other) == home
            };
            let most = if node { tree_start } else { of.length };
            let place = |depth: usize| tree_start + (ancestors.len() - 1 - depth) as u32;
            let nodes = ancestors.iter().enumerate().filter(|(i, _)| recent(place(*i)));
            let mut nodes: Vec<u32> = nodes.map(|(_, &node)| node).collect();
            nodes.sort_unstable();
            Seen { position, slots: (0..most).filter(sees).collect(), nodes }
        })
        .collect()
}

/// A node and those above it, itself first; none for a row that is no node.
fn ancestors(parents: &[u32], node: Option<u32>) -> Vec<u32> {
    let mut path = Vec::new();
    let mut at = node;
    while let Some(node) = at {
        path.push(node);
        let parent = parents[node as usize];
        at = (parent != super::NO_PARENT).then_some(parent);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::{Sequence, spec};

    const PLAIN: Sequence<'static> =
        Sequence { length: 5, rows: 2, window: 0, prefix: 0, documents: &[], parents: &[] };

    #[test]
    fn the_last_two_of_five_see_four_and_five() {
        let seen = spec(PLAIN);
        assert_eq!(seen[0].slots, [0, 1, 2, 3]);
        assert_eq!(seen[1].slots, [0, 1, 2, 3, 4]);
        assert_eq!((seen[0].position, seen[1].position), (3, 4));
    }

    #[test]
    fn a_window_a_prefix_and_a_document_cut_what_is_seen() {
        assert_eq!(spec(Sequence { window: 2, ..PLAIN })[1].slots, [3, 4]);
        assert_eq!(spec(Sequence { prefix: 5, ..PLAIN })[0].slots, [0, 1, 2, 3, 4]);
        assert_eq!(spec(Sequence { documents: &[2, 4], ..PLAIN })[0].slots, [2, 3]);
        assert_eq!(spec(Sequence { documents: &[2, 4], ..PLAIN })[1].slots, [4]);
    }

    #[test]
    fn a_node_sees_its_ancestors_and_stands_at_its_depth() {
        // Slots 2, 3, 4 are a root with two children.
        let parents = [super::super::NO_PARENT, 0, 0];
        let seen = spec(Sequence { rows: 3, parents: &parents, ..PLAIN });
        assert_eq!(seen[2].slots, [0, 1]);
        assert_eq!(seen[2].nodes, [0, 2]);
        assert_eq!(seen[2].position, 3);
        // A window of one leaves the node alone.
        let seen = spec(Sequence { rows: 3, window: 1, parents: &parents, ..PLAIN });
        assert_eq!((&seen[1].slots[..], &seen[1].nodes[..]), (&[][..], &[1][..]));
    }
}
