//! How a segment is laid out: a head, then frames, each right after the one before.
//! Integers are little-endian; CRCs are CRC-32 as in zlib.
//!
//! | bytes of the head | what |
//! |---|---|
//! | 0..8 | `PAGETRAJ` |
//! | 8..12 | version of the layout, u32: 1 |
//! | 12..16 | CRC of bytes 0..12 and 16..32 |
//! | 16..24 | number of the segment, u64: the name of its file |
//! | 24..32 | the first id that was free when it was begun, u64 |
//!
//! | bytes of a frame | what |
//! |---|---|
//! | 0..12 | the marker, bytes of 0xF8..=0xFF |
//! | 12..16 | CRC of bytes 16..48 |
//! | 16..24 | number of the segment, u64 |
//! | 24..32 | id of the trajectory, u64, below 2^63 |
//! | 32..36 | kind, u32: 1 a trajectory, 2 a reward |
//! | 36..40 | length of the keys, u32 |
//! | 40..44 | length of the record, u32 |
//! | 44..48 | CRC of keys and record |
//! | 48.. | the keys, then the record: MessagePack, fields by name, floats as their bits |
//!
//! Of a trajectory, the keys are what it is searched by and the record is all of it; of a
//! reward, the keys are all and the record is empty.
//!
//! **A body has no marker in it**, whatever a client says, so that after a damaged frame
//! the next marker is the next frame. Text is UTF-8, which has no byte above 0xF7. The
//! other values with such bytes are lengths and numbers of at most eight bytes, each after
//! a byte that says what it is, and none of those is above 0xF7: but for negative numbers,
//! which no field has. So a run of such bytes is shorter than a marker.

use crate::{Error, Id};
use std::path::Path;

/// Bytes of a segment's head.
pub const HEAD: usize = 32;
/// Bytes of a frame before its body.
pub const FRAME: usize = 48;
/// Begins a frame. Shifted, it never fits over itself.
pub const MARKER: [u8; 12] =
    [0xFF, 0xFE, 0xF9, 0xFD, 0xF8, 0xFC, 0xFA, 0xFF, 0xFB, 0xF8, 0xFE, 0xFA];
/// Bytes of keys at most: more than [`SPANS_MAX`](crate::Trajectory::SPANS_MAX) names take.
pub const KEYS_BYTES_MAX: usize = 1 << 20;
/// The greatest id, so that there is always a next one to compare with.
pub const ID_MAX: Id = u64::MAX >> 1;
/// Bytes of a record at most.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

const MAGIC: [u8; 8] = *b"PAGETRAJ";
const VERSION: u32 = 1;

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub segment: u64,
    pub first: Id,
}

/// What a frame is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Trajectory = 1,
    Reward = 2,
}

/// What stands before the body of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub segment: u64,
    pub id: Id,
    pub kind: Kind,
    pub keys_len: u32,
    pub record_len: u32,
    pub crc: u32,
}

impl Head {
    pub fn bytes(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..].copy_from_slice(&self.first.to_le_bytes());
        let crc = Self::crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if the bytes are no head of that segment. Another version is refused, where
    /// its checksum, which stays where it is, says that it is no accident.
    pub fn read(bytes: &[u8; HEAD], segment: u64, path: &Path) -> Result<Option<Self>, Error> {
        if bytes[..8] != MAGIC || u32_at(bytes, 12) != Self::crc(bytes) {
            return Ok(None);
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            let path = path.to_owned();
            return Err(Error::Version { path, expected: VERSION, got: version });
        }
        let head = Self { segment: u64_at(bytes, 16), first: u64_at(bytes, 24) };
        Ok((head.segment == segment && head.first <= ID_MAX).then_some(head))
    }

    fn crc(bytes: &[u8; HEAD]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..12]);
        hasher.update(&bytes[16..]);
        hasher.finalize()
    }
}

impl Frame {
    pub fn bytes(&self) -> [u8; FRAME] {
        let mut bytes = [0; FRAME];
        bytes[..12].copy_from_slice(&MARKER);
        bytes[16..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.id.to_le_bytes());
        bytes[32..36].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[36..40].copy_from_slice(&self.keys_len.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.record_len.to_le_bytes());
        bytes[44..].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if the bytes are no frame of that segment.
    pub fn read(bytes: &[u8; FRAME], segment: u64) -> Option<Self> {
        if bytes[..12] != MARKER || u32_at(bytes, 12) != crc32fast::hash(&bytes[16..]) {
            return None;
        }
        let kind = match u32_at(bytes, 32) {
            1 => Kind::Trajectory,
            2 => Kind::Reward,
            _ => return None,
        };
        let frame = Self {
            segment: u64_at(bytes, 16),
            id: u64_at(bytes, 24),
            kind,
            keys_len: u32_at(bytes, 36),
            record_len: u32_at(bytes, 40),
            crc: u32_at(bytes, 44),
        };
        let lengths = frame.keys_len as usize <= KEYS_BYTES_MAX
            && frame.record_len as usize <= RECORD_BYTES_MAX;
        let ours = frame.segment == segment && frame.id <= ID_MAX;
        (lengths && ours).then_some(frame)
    }

    /// Bytes of the frame, its body included.
    pub fn len(&self) -> u64 {
        FRAME as u64 + u64::from(self.keys_len) + u64::from(self.record_len)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the range has four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the range has eight bytes"))
}
