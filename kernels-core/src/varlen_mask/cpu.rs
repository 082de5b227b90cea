//! `varlen_mask` on the CPU: a few whole numbers a row, far below what a second
//! thread would cost.

use super::{LENGTH_MAX, NO_PARENT, TREE_NODES_MAX, VarlenMask};
use crate::command::{Host, cast, cast_mut, live};
use crate::error::{Checks, Error, Fault};
use crate::simd::Level;
use crate::workers::Workers;
use core::ops::Range;

/// Runs the command. It takes no workspace.
pub fn run(_: Level, _: &dyn Workers, mask: VarlenMask<Host<'_>>) -> Result<(), Error> {
    mask.check()?;
    let p = mask.params;
    let count = live(VarlenMask::<Host>::CHECKS, "sequences", mask.sequences, p.sequences_max)?;
    let step = Step {
        window: p.window,
        row_start: &cast(mask.row_start)[..count + 1],
        lengths: &cast(mask.lengths)[..count],
        prefixes: mask.prefixes.map(|bytes| &cast(bytes)[..count]),
        document_start: mask.document_start.map(|bytes| &cast(bytes)[..count + 1]),
        documents: mask.documents.map_or(&[], cast),
        tree_nodes: mask.tree_nodes.map(|bytes| &cast(bytes)[..count]),
        parents: mask.parents.map_or(&[], cast),
    };
    step.check(p.rows_max, p.documents_max)?;
    let mut out = Out {
        intervals: cast_mut(mask.intervals),
        tree_bits: mask.tree_bits.map(cast_mut),
        positions: mask.positions.map(cast_mut),
    };
    for sequence in 0..count {
        step.rows(sequence, &mut out);
        step.nodes(sequence, &mut out);
    }
    Ok(())
}

/// The live part of the step buffers.
struct Step<'a> {
    window: u32,
    row_start: &'a [u32],
    lengths: &'a [u32],
    prefixes: Option<&'a [u32]>,
    document_start: Option<&'a [u32]>,
    documents: &'a [u32],
    tree_nodes: Option<&'a [u32]>,
    parents: &'a [u32],
}

/// The outputs.
struct Out<'a> {
    intervals: &'a mut [[u32; 2]],
    tree_bits: Option<&'a mut [u64]>,
    positions: Option<&'a mut [u32]>,
}

impl Out<'_> {
    fn put(&mut self, row: usize, position: u32, interval: [u32; 2], bits: u64) {
        self.intervals[row] = interval;
        if let Some(all) = &mut self.tree_bits {
            all[row] = bits;
        }
        if let Some(all) = &mut self.positions {
            all[row] = position;
        }
    }
}

const CHECKS: Checks = VarlenMask::<Host>::CHECKS;

/// Refuses an element of a step buffer outside of its range.
fn element(field: &'static str, at: usize, allowed: Range<u64>, got: u32) -> Result<(), Error> {
    if allowed.contains(&u64::from(got)) {
        return Ok(());
    }
    let (least, most) = (allowed.start as i64, allowed.end as i64 - 1);
    let fault = Fault::Element { at: at as u64, least, most, got: i64::from(got) };
    Err(CHECKS.refuse(field, fault))
}

/// Refuses offsets that do not ascend from 0 to at most `most`.
fn ascending(field: &'static str, offsets: &[u32], most: u32) -> Result<(), Error> {
    let end = u64::from(most) + 1;
    element(field, 0, 0..1, offsets[0])?;
    for (at, pair) in offsets.windows(2).enumerate() {
        element(field, at + 1, u64::from(pair[0])..end, pair[1])?;
    }
    Ok(())
}

impl Step<'_> {
    fn check(&self, rows_max: u32, documents_max: u32) -> Result<(), Error> {
        ascending("row_start", self.row_start, rows_max)?;
        if let Some(offsets) = self.document_start {
            ascending("document_start", offsets, documents_max)?;
        }
        for (sequence, &length) in self.lengths.iter().enumerate() {
            let rows = self.row_start[sequence + 1] - self.row_start[sequence];
            let lengths = u64::from(rows)..u64::from(LENGTH_MAX) + 1;
            element("lengths", sequence, lengths, length)?;
            if let Some(prefixes) = self.prefixes {
                element("prefixes", sequence, 0..u64::from(length) + 1, prefixes[sequence])?;
            }
            let documents = self.document_range(sequence);
            let mut least = 0;
            for at in documents {
                element("documents", at, least..u64::from(length), self.documents[at])?;
                least = u64::from(self.documents[at]) + 1;
            }
            let Some(nodes) = self.tree_nodes else { continue };
            let most = u64::from(rows.min(TREE_NODES_MAX));
            element("tree_nodes", sequence, 0..most + 1, nodes[sequence])?;
            self.check_parents(self.node_rows(sequence))?;
        }
        Ok(())
    }

    /// A parent comes before its child: so there is no cycle either.
    fn check_parents(&self, rows: Range<usize>) -> Result<(), Error> {
        for (node, row) in rows.enumerate() {
            match self.parents[row] {
                NO_PARENT => {}
                parent if node == 0 => {
                    let root = u64::from(NO_PARENT);
                    element("parents", row, root..root + 1, parent)?;
                }
                parent => element("parents", row, 0..node as u64, parent)?,
            }
        }
        Ok(())
    }

    fn document_range(&self, sequence: usize) -> Range<usize> {
        self.document_start.map_or(0..0, |all| all[sequence] as usize..all[sequence + 1] as usize)
    }

    /// The rows of a sequence that are nodes of its tree.
    fn node_rows(&self, sequence: usize) -> Range<usize> {
        let end = self.row_start[sequence + 1] as usize;
        let nodes = self.tree_nodes.map_or(0, |nodes| nodes[sequence] as usize);
        end - nodes..end
    }

    /// The first position a row may see, within its document.
    fn begin(&self, document: u32, position: u32) -> u32 {
        let recent = if self.window == 0 { 0 } else { (position + 1).saturating_sub(self.window) };
        document.max(recent)
    }

    /// The rows of a sequence that are no nodes.
    fn rows(&self, sequence: usize, out: &mut Out<'_>) {
        let (first, end) = (self.row_start[sequence] as usize, self.row_start[sequence + 1]);
        let length = self.lengths[sequence];
        let prefix = self.prefixes.map_or(0, |prefixes| prefixes[sequence]);
        let documents = &self.documents[self.document_range(sequence)];
        let start = length - (end - first as u32);
        let mut next = documents.partition_point(|&begin| begin <= start);
        for row in first..self.node_rows(sequence).start {
            let position = start + (row - first) as u32;
            if documents.get(next).is_some_and(|&begin| begin <= position) {
                next += 1;
            }
            let document = if next == 0 { 0 } else { documents[next - 1] };
            let document_end = documents.get(next).copied().unwrap_or(length);
            let interval =
                [self.begin(document, position), (position + 1).max(prefix.min(document_end))];
            out.put(row, position, interval, 0);
        }
    }

    /// The rows of a sequence that are nodes.
    fn nodes(&self, sequence: usize, out: &mut Out<'_>) {
        let rows = self.node_rows(sequence);
        let start = self.lengths[sequence] - rows.len() as u32;
        let documents = &self.documents[self.document_range(sequence)];
        let place = documents.partition_point(|&begin| begin <= start);
        let document = if place == 0 { 0 } else { documents[place - 1] };
        // Nodes above each node, and the deepest node at each depth of its path.
        let mut above = [0u64; TREE_NODES_MAX as usize];
        let mut depth = [0u32; TREE_NODES_MAX as usize];
        for (node, row) in rows.enumerate() {
            let parent = self.parents[row];
            if parent != NO_PARENT {
                above[node] = above[parent as usize] | 1 << parent;
                depth[node] = depth[parent as usize] + 1;
            }
            let position = start + depth[node];
            let begin = self.begin(document, position);
            let mut bits = above[node] | 1 << node;
            // A window shorter than the path drops the nodes at its top.
            let mut rest = if begin > start { bits } else { 0 };
            while rest != 0 {
                let ancestor = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                if start + depth[ancestor] < begin {
                    bits &= !(1 << ancestor);
                }
            }
            out.put(row, position, [begin.min(start), start], bits);
        }
    }
}
