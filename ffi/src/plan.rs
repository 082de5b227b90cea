//! Plans: lengths of a step, in bytes that may be moved and copied. They say of which
//! descriptor they are, so that a plan of another is refused.

use crate::error::Refusal;
use bytemuck::{Pod, Zeroable};

/// What every plan and workspace is aligned to.
pub const ALIGNMENT: u32 = 64;

/// What a plan begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Head {
    /// Which kernel's, and in which form.
    kind: u64,
    /// The descriptor's fingerprint.
    of: u64,
    /// Words of each list.
    lists: [u32; LISTS],
}

/// Lists of a plan at most.
pub const LISTS: usize = 4;
const HEAD_BYTES: u64 = size_of::<Head>() as u64;

/// What a plan is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Which kernel's, and in which form.
    pub kind: u64,
    /// The descriptor's fingerprint.
    pub of: u64,
}

impl Kind {
    /// A plan of a kernel's descriptor.
    pub fn new(kind: &[u8; 8], descriptor: &[u8]) -> Self {
        Self { kind: u64::from_le_bytes(*kind), of: fingerprint(descriptor) }
    }

    /// Bytes of a plan with so many words in all its lists.
    pub fn bytes(words: u64) -> u64 {
        HEAD_BYTES + 4 * words
    }

    /// Writes lists into a plan.
    pub fn write(self, lists: [&[u32]; LISTS], plan: &mut [u8]) {
        let Self { kind, of } = self;
        let (head, mut rest) = plan.split_at_mut(HEAD_BYTES as usize);
        let head_of = Head { kind, of, lists: lists.map(|list| list.len() as u32) };
        head.copy_from_slice(bytemuck::bytes_of(&head_of));
        for list in lists {
            let (words, more) = rest.split_at_mut(4 * list.len());
            words.copy_from_slice(bytemuck::cast_slice(list));
            rest = more;
        }
    }

    /// The lists of a plan, which is aligned.
    pub fn read(self, plan: &[u8]) -> Result<[&[u32]; LISTS], Refusal> {
        let other = || Refusal::Plan("these bytes are no plan of this descriptor");
        let (head, rest) = plan.split_at_checked(HEAD_BYTES as usize).ok_or_else(other)?;
        let head: &Head = bytemuck::from_bytes(head);
        if (head.kind, head.of) != (self.kind, self.of) {
            return Err(other());
        }
        let cut = || Refusal::Plan("it is cut off");
        let mut words: &[u32] = bytemuck::cast_slice(&rest[..rest.len() / 4 * 4]);
        let mut lists: [&[u32]; LISTS] = [&[]; LISTS];
        for (list, len) in lists.iter_mut().zip(head.lists) {
            let (these, more) = words.split_at_checked(len as usize).ok_or_else(cut)?;
            (*list, words) = (these, more);
        }
        Ok(lists)
    }
}

/// FNV-1a of a descriptor, over words.
fn fingerprint(descriptor: &[u8]) -> u64 {
    let words = descriptor.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words.fold(0xcbf2_9ce4_8422_2325, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3))
}
