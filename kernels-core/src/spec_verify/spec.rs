//! The truth of `spec_verify`, one sequence at a time.

use crate::math::Real;
use crate::params::{NOISE_ACCEPT, NOISE_RESIDUAL};
use crate::vocabulary::noise::Source;
use alloc::vec::Vec;

/// One sequence's drafts.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// The token of each node; the root's has no meaning.
    pub tokens: &'a [u32],
    /// The parent of each node; the root's has no meaning.
    pub parents: &'a [u32],
}

/// What the drafts are held against.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a, R> {
    /// The token that follows each node.
    Tokens(&'a [u32]),
    /// Rejection sampling.
    Rejection {
        /// The target's distribution after each node.
        target: &'a [Vec<R>],
        /// The draft's distribution after each node; without, the drafts were certain.
        draft: Option<&'a [Vec<R>]>,
        /// The noise of the root's own position.
        source: Source,
    },
}

/// What was accepted, and the token after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Accepted nodes, the root first.
    pub path: Vec<u32>,
    /// The token after the last one.
    pub next: u32,
}

/// The verdict on one sequence.
pub fn spec<R: Real>(tree: Tree<'_>, target: Target<'_, R>) -> Verdict {
    let mut path = alloc::vec![0u32];
    loop {
        let node = path[path.len() - 1];
        let children =
            (1..tree.tokens.len()).filter(|&child| tree.parents[child] == node).collect::<Vec<_>>();
        let token = |child: usize| tree.tokens[child];
        let (child, next) = match target {
            Target::Tokens(tokens) => {
                let next = tokens[node as usize];
                (children.into_iter().find(|&child| token(child) == next), next)
            }
            Target::Rejection { target, draft, source } => {
                let source = Source { position: source.position + path.len() as u32, ..source };
                let tokens: Vec<u32> = children.iter().map(|&child| token(child)).collect();
                let node = node as usize;
                let (tried, next) =
                    reject(&tokens, &target[node], draft.map(|rows| &rows[node][..]), source);
                (tried.map(|at| children[at]), next)
            }
        };
        match child {
            Some(child) => path.push(child as u32),
            None => return Verdict { path, next },
        }
    }
}

fn normalised<R: Real>(weights: &[R]) -> Vec<R> {
    let mut sum = R::of(0.0);
    for &weight in weights {
        sum += weight;
    }
    weights.iter().map(|&weight| weight / sum).collect()
}

/// The first draft that is accepted, and the token drawn if none is.
fn reject<R: Real>(
    tokens: &[u32],
    target: &[R],
    draft: Option<&[R]>,
    source: Source,
) -> (Option<usize>, u32) {
    let number = |purpose, token| {
        let word = Source { purpose, ..source }.word(token);
        (R::of(f64::from(word >> 1)) + R::of(0.5)) / R::of(2_147_483_648.0)
    };
    let draft = draft.map(normalised);
    let mut left = normalised(target);
    for (at, &token) in tokens.iter().enumerate() {
        let drafted = draft.as_ref().map_or(R::of(1.0), |draft| draft[token as usize]);
        if number(NOISE_ACCEPT, token) * drafted < left[token as usize] {
            return (Some(at), token);
        }
        match &draft {
            None => left[token as usize] = R::of(0.0),
            Some(draft) => {
                for (weight, &drafted) in left.iter_mut().zip(draft) {
                    *weight = (*weight - drafted).larger(R::of(0.0));
                }
            }
        }
        left = normalised(&left);
    }
    let mut best = (R::of(f64::NEG_INFINITY), u32::MAX);
    for (token, &weight) in left.iter().enumerate() {
        if weight > R::of(0.0) {
            let e = -(R::of(1.0) - number(NOISE_RESIDUAL, token as u32)).ln();
            let score = weight.ln() - e.ln();
            if score > best.0 {
                best = (score, token as u32);
            }
        }
    }
    (None, best.1)
}

#[cfg(test)]
mod tests {
    use super::{Target, Tree, Verdict, spec};
    use crate::vocabulary::noise::Source;

    const SOURCE: Source = Source { seed: 1, position: 0, fork: 0, purpose: 0 };

    #[test]
    fn a_walk_follows_the_targets_tokens() {
        // The root has children 7 and 8, and 8 has a child 9.
        let tree = Tree { tokens: &[0, 7, 8, 9], parents: &[0, 0, 0, 2] };
        let verdict = |tokens| spec::<f64>(tree, Target::Tokens(tokens));
        assert_eq!(verdict(&[8, 1, 9, 5]), Verdict { path: [0, 2, 3].to_vec(), next: 5 });
        assert_eq!(verdict(&[8, 1, 7, 5]), Verdict { path: [0, 2].to_vec(), next: 7 });
        assert_eq!(verdict(&[9, 1, 9, 5]), Verdict { path: [0].to_vec(), next: 9 });
    }

    #[test]
    fn certain_targets_leave_nothing_to_noise() {
        let tree = Tree { tokens: &[0, 0, 1], parents: &[0, 0, 0] };
        let sure = |token: usize| (0..3).map(|t| if t == token { 1.0 } else { 0.0 }).collect();
        let target = [sure(1), sure(0), sure(2)];
        let draft = [[0.5, 0.5, 0.0].to_vec(), sure(0), sure(0)];
        let with = |draft| Target::Rejection { target: &target, draft, source: SOURCE };
        let expected = Verdict { path: [0, 2].to_vec(), next: 2 };
        assert_eq!(spec::<f64>(tree, with(None)), expected);
        assert_eq!(spec::<f64>(tree, with(Some(&draft))), expected);
    }
}
