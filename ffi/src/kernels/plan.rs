//! Plans: lengths of a step, in bytes that may be moved and copied. They say of which
//! descriptor they are, so that a plan of another is refused.

use super::Kernel;
use crate::error::Refusal;
use bytemuck::{Pod, Zeroable};

/// What every plan and workspace is aligned to.
pub const ALIGNMENT: u32 = 64;
/// Lists of a step at most.
pub const LISTS: usize = 6;
/// Counts of a step at most.
pub const COUNTS: usize = 3;

/// What is different from step to step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step<'a> {
    /// Rows, or what the kernel has in their place, come first: where there are none, there is
    /// nothing to do.
    pub counts: [u32; COUNTS],
    /// One that is not there is empty.
    pub lists: [&'a [u32]; LISTS],
}

impl Step<'_> {
    /// A step without lists.
    pub fn of(counts: [u32; COUNTS]) -> Self {
        Self { counts, lists: [&[]; LISTS] }
    }

    /// Words of all its lists.
    pub fn words(&self) -> u64 {
        self.lists.iter().map(|list| list.len() as u64).sum()
    }
}

/// What every plan begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Head {
    /// Which kernel's, and in which form.
    kind: u64,
    /// The descriptor's fingerprint.
    of: u64,
    counts: [u32; COUNTS],
    /// Words of each list.
    lists: [u32; LISTS],
    reserved: u32,
}

const HEAD_BYTES: u64 = size_of::<Head>() as u64;

/// What a plan is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    kind: u64,
    of: u64,
}

impl Kind {
    /// Of a descriptor of that kernel.
    pub fn of<K: Kernel>(desc: &K::Desc) -> Self {
        Self { kind: u64::from_le_bytes(*K::KIND), of: fingerprint(bytemuck::bytes_of(desc)) }
    }

    /// Bytes of a plan with so many words in all its lists.
    pub fn bytes(words: u64) -> u64 {
        HEAD_BYTES + 4 * words
    }

    /// Writes a step into a plan.
    pub fn write(self, step: &Step<'_>, plan: &mut [u8]) {
        let Self { kind, of } = self;
        let lists = step.lists.map(|list| list.len() as u32);
        let head_of = Head { kind, of, counts: step.counts, lists, reserved: 0 };
        let (head, mut rest) = plan.split_at_mut(HEAD_BYTES as usize);
        head.copy_from_slice(bytemuck::bytes_of(&head_of));
        for list in step.lists {
            let (words, more) = rest.split_at_mut(4 * list.len());
            words.copy_from_slice(bytemuck::cast_slice(list));
            rest = more;
        }
    }

    /// The step of a plan, which is aligned.
    pub fn read(self, plan: &[u8]) -> Result<Step<'_>, Refusal> {
        let other = || Refusal::Plan("these bytes are no plan of this descriptor");
        let (head, rest) = plan.split_at_checked(HEAD_BYTES as usize).ok_or_else(other)?;
        let head: &Head = bytemuck::from_bytes(head);
        if (head.kind, head.of) != (self.kind, self.of) {
            return Err(other());
        }
        let cut = || Refusal::Plan("it is cut off");
        let mut words: &[u32] = bytemuck::cast_slice(&rest[..rest.len() / 4 * 4]);
        let mut step = Step::of(head.counts);
        for (list, len) in step.lists.iter_mut().zip(head.lists) {
            let (these, more) = words.split_at_checked(len as usize).ok_or_else(cut)?;
            (*list, words) = (these, more);
        }
        Ok(step)
    }
}

/// FNV-1a of a descriptor, over words. Its size and the zeros at its end take no part: so the
/// same descriptor of another version of the header is the same.
fn fingerprint(desc: &[u8]) -> u64 {
    let said = &desc[size_of::<u32>()..];
    let len = said.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let words = said[..len].chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words.fold(0xcbf2_9ce4_8422_2325, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3))
}
