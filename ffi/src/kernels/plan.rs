//! Plans: lengths of a step, in bytes that may be moved and copied. They say of which
//! descriptor they are, so that a plan of another is refused.
//!
//! On the CPU lists follow each other, as long as they are. A device finds each at a place that
//! the descriptor's capacity gives, so that one captured run serves every plan.

use super::Kernel;
use crate::backend::Device;
use crate::error::Refusal;
use bytemuck::{Pod, Zeroable};
use kernels_core::params;

/// What every plan is aligned to, and every workspace of the CPU.
pub const ALIGNMENT: u32 = 64;
/// What a device's workspace is aligned to.
pub const DEVICE_ALIGNMENT: u32 = 256;
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

    /// Words of each of its lists.
    pub fn words(&self) -> [u64; LISTS] {
        self.lists.map(|list| list.len() as u64)
    }
}

/// What every plan begins with.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Head {
    /// Which kernel's, and in which form.
    kind: u64,
    /// The descriptor's fingerprint, and the device's.
    of: u64,
    /// What a device found as it ran.
    fault: params::Fault,
    counts: [u32; COUNTS],
    /// Words of each list.
    lists: [u32; LISTS],
    /// The device's arithmetic.
    device: u32,
    reserved: [u32; 2],
}

const HEAD_BYTES: u64 = size_of::<Head>() as u64;
/// Where a device finds what it is told, from a plan's beginning.
pub const FAULT_AT: u64 = core::mem::offset_of!(Head, fault) as u64;
const COUNTS_AT: u64 = core::mem::offset_of!(Head, counts) as u64;

/// Where a count lies, from a plan's beginning.
pub fn count_at(count: usize) -> u64 {
    COUNTS_AT + 4 * count as u64
}

/// Where lists lie, from a plan's beginning, and where the last one ends.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub lists: [u64; LISTS],
    pub bytes: u64,
}

impl Places {
    /// One after the other.
    pub fn close(words: [u64; LISTS]) -> Self {
        let mut bytes = HEAD_BYTES;
        let lists = words.map(|words| {
            let at = bytes;
            bytes = bytes.saturating_add(words.saturating_mul(4));
            at
        });
        Self { lists, bytes }
    }

    /// Each with room for so many words, from a multiple of 16 bytes.
    pub fn apart(most: [u64; LISTS]) -> Self {
        Self::close(most.map(|words| words.next_multiple_of(4)))
    }
}

/// What a plan is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    kind: u64,
    of: u64,
    device: u32,
}

/// What plans call a device's arithmetic.
fn called(device: &Device) -> u64 {
    fnv(FNV, device.numerics.to_bytes())
}

impl Kind {
    /// Of a descriptor of that kernel, on that device.
    pub fn of<K: Kernel>(device: &Device, desc: &K::Desc) -> Self {
        let device = called(device);
        let of = fingerprint(device, bytemuck::bytes_of(desc));
        Self { kind: u64::from_le_bytes(*K::KIND), of, device: device as u32 }
    }

    /// Writes a step into a plan whose lists lie there.
    pub fn write(self, step: &Step<'_>, places: &Places, plan: &mut [u8]) {
        let Self { kind, of, device } = self;
        let lists = step.lists.map(|list| list.len() as u32);
        let head = Head { kind, of, counts: step.counts, lists, device, ..Head::zeroed() };
        plan[..HEAD_BYTES as usize].copy_from_slice(bytemuck::bytes_of(&head));
        for (list, at) in step.lists.into_iter().zip(places.lists) {
            let bytes: &[u8] = bytemuck::cast_slice(list);
            plan[at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }

    /// The step of a plan, which is aligned, and whose lists lie one after the other.
    pub fn read(self, plan: &[u8]) -> Result<Step<'_>, Refusal> {
        let other = || Refusal::Plan("these bytes are no plan of this descriptor on this device");
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

/// What a device found wrong while it ran with a plan of its own, of which these bytes are a
/// copy.
pub fn fault(device: &Device, plan: &[u8]) -> Result<params::Fault, Refusal> {
    let none = || Refusal::Plan("these bytes are no plan of this device");
    let head = plan.get(..HEAD_BYTES as usize).ok_or_else(none)?;
    let head: Head = bytemuck::pod_read_unaligned(head);
    let is_ours =
        head.kind.to_le_bytes().starts_with(b"pw-") && head.device == called(device) as u32;
    if is_ours { Ok(head.fault) } else { Err(none()) }
}

/// FNV-1a of a descriptor, over words. Its size and the zeros at its end take no part: so the
/// same descriptor of another version of the header is the same.
fn fingerprint(of: u64, desc: &[u8]) -> u64 {
    let said = &desc[size_of::<u32>()..];
    let len = said.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    fnv(of, &said[..len])
}

const FNV: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a over words.
fn fnv(of: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words.fold(of, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3))
}
