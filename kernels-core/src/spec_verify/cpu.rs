//! `spec_verify` on the CPU: sequences are split between workers; then, in one
//! thread, the paths are read back from their last nodes.

use super::SpecVerify;
use super::walk::{Tile, sequences_at};
use crate::command::{Host, cast, cast_mut, live};
use crate::error::{Checks, Error, Fault};
use crate::params::{self, NONE, TREE_NODES_MAX};
use crate::simd::Level;
use crate::varlen_mask::LENGTH_MAX;
use crate::workers::{Pieces, Workers, even, split};
use core::ops::Range;

const CHECKS: Checks = SpecVerify::<Host>::CHECKS;

/// Runs the command in a workspace of the bytes it needs.
pub fn run(
    level: Level,
    workers: &dyn Workers,
    verify: SpecVerify<Host<'_>>,
    workspace: &mut [u8],
) -> Result<(), Error> {
    let needs = verify.needs(workers.count())?.workspace_bytes;
    CHECKS.holds("workspace", Some(needs), workspace.len() as u64)?;
    let p = verify.params;
    let count = live(CHECKS, "sequences", verify.sequences, p.sequences_max)?;
    let step = Step {
        p: &p,
        node_start: &cast(verify.node_start)[..count + 1],
        tokens: cast(verify.tokens),
        parents: verify.parents.map(cast),
        target: verify.target.map_or(&[], cast),
        draft: verify.draft.map(cast),
        sampled: verify.sampled.map_or(&[], cast),
        requests: verify.requests.map_or(&[], |bytes| &cast(bytes)[..count]),
    };
    step.check()?;

    let tiles = workers.count().clamp(1, (count as u32).max(1));
    let accepted = &mut cast_mut::<u32>(verify.accepted)[..count];
    let each = |out| Pieces::new(&mut cast_mut::<u32>(out)[..count], count, 1, tiles);
    let unit = if p.mode == params::VERIFY_REJECTION { p.vocab as usize } else { 0 };
    let weights = &mut cast_mut::<f32>(workspace)[..unit * tiles as usize];
    let weights = Pieces::new(weights, tiles as usize, unit, tiles);
    let out =
        (Pieces::new(&mut *accepted, count, 1, tiles), each(verify.next), each(verify.status));
    split(workers, tiles, (out, weights), |tile, ((last, next, status), weights)| {
        let sequences = even(count, tiles, tile);
        sequences_at(level, Tile { step, sequences, last, next, status, weights });
    });
    let places = verify.places.map(cast::<[u32; 2]>);
    let mut entries = verify.entries.map(cast_mut::<[u32; 5]>);
    let mut moved = 0;
    let path = cast_mut::<u32>(verify.path);
    for (sequence, accepted) in accepted.iter_mut().enumerate() {
        let (path, len) = step.path(sequence, *accepted, path);
        *accepted = len as u32;
        let (Some(places), Some(entries)) = (places, &mut entries) else { continue };
        let first = step.node_start[sequence] as usize;
        for (j, &node) in path.iter().enumerate() {
            if node as usize != first + j {
                let ([page, token], [to_page, to_token]) =
                    (places[node as usize], places[first + j]);
                entries[moved] = [page, token, to_page, to_token, 1];
                moved += 1;
            }
        }
    }
    if let Some(count) = verify.count {
        cast_mut::<u32>(count)[0] = moved as u32;
    }
    Ok(())
}

/// The live part of a call's inputs.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub p: &'a params::SpecVerify,
    pub node_start: &'a [u32],
    pub tokens: &'a [u32],
    pub parents: Option<&'a [u32]>,
    pub target: &'a [f32],
    pub draft: Option<&'a [f32]>,
    pub sampled: &'a [u32],
    pub requests: &'a [params::VerifyRequest],
}

impl Step<'_> {
    /// The nodes of a sequence.
    #[inline(always)]
    pub fn nodes(&self, sequence: usize) -> Range<usize> {
        self.node_start[sequence] as usize..self.node_start[sequence + 1] as usize
    }

    /// The parent of a node that is no root, as a number in its tree.
    #[inline(always)]
    pub fn parent(&self, first: usize, node: usize) -> usize {
        self.parents.map_or(node - 1, |parents| parents[first + node] as usize)
    }

    fn check(&self) -> Result<(), Error> {
        element("node_start", 0, 0..=0, self.node_start[0])?;
        for (at, pair) in self.node_start.windows(2).enumerate() {
            let most = pair[0].saturating_add(TREE_NODES_MAX).min(self.p.nodes_max);
            element("node_start", at + 1, pair[0] + 1..=most, pair[1])?;
        }
        let words = |field, words: &[u32]| {
            let found = words.iter().position(|&token| token >= self.p.vocab && token != NONE);
            match found {
                None => Ok(()),
                Some(at) => element(field, at, 0..=self.p.vocab - 1, words[at]),
            }
        };
        for sequence in 0..self.node_start.len() - 1 {
            let nodes = self.nodes(sequence);
            for node in 1..nodes.len() {
                let at = nodes.start + node;
                element("tokens", at, 0..=self.p.vocab - 1, self.tokens[at])?;
                if let Some(parents) = self.parents {
                    element("parents", at, 0..=node as u32 - 1, parents[at])?;
                }
            }
            if !self.sampled.is_empty() {
                words("sampled", &self.sampled[..nodes.end])?;
            }
        }
        for (at, request) in self.requests.iter().enumerate() {
            element("requests", at, 0..=LENGTH_MAX, request.position)?;
        }
        Ok(())
    }

    /// Writes the way from a sequence's root to a node: places in `tokens`, and how many.
    fn path<'p>(&self, sequence: usize, last: u32, path: &'p mut [u32]) -> (&'p [u32], usize) {
        let first = self.node_start[sequence] as usize;
        let mut above = [0; TREE_NODES_MAX as usize];
        let (mut len, mut node) = (1, last as usize);
        above[0] = node;
        while node != 0 {
            node = self.parent(first, node);
            above[len] = node;
            len += 1;
        }
        let path = &mut path[first..first + len];
        for (to, &node) in path.iter_mut().zip(above[..len].iter().rev()) {
            *to = (first + node) as u32;
        }
        (path, len)
    }
}

/// Refuses an element of a step buffer outside of its range.
fn element(
    field: &'static str,
    at: usize,
    allowed: core::ops::RangeInclusive<u32>,
    got: u32,
) -> Result<(), Error> {
    if allowed.contains(&got) {
        return Ok(());
    }
    let (least, most) = (i64::from(*allowed.start()), i64::from(*allowed.end()));
    Err(CHECKS.refuse(field, Fault::Element { at: at as u64, least, most, got: i64::from(got) }))
}
