//! Trajectories and rewards as the bodies of frames, and back.

use crate::frame::{FRAME, Frame, KEYS_BYTES_MAX, Kind, RECORD_BYTES_MAX};
use crate::{Error, Id, Trajectory, check};
use serde::{Deserialize, Serialize};

/// What trajectories are searched by.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Keys<'a> {
    #[serde(borrow)]
    pub group: Option<&'a str>,
    pub session: Option<&'a str>,
    pub model: &'a str,
    /// Each once.
    pub versions: Vec<&'a str>,
}

/// What a reward is.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Given<'a> {
    pub value: f64,
    pub by: &'a str,
}

/// A frame that has yet to learn its segment and its id.
pub struct Draft {
    kind: Kind,
    keys_len: u32,
    crc: u32,
    /// Room for what stands before the body, then the body.
    bytes: Vec<u8>,
}

impl Draft {
    /// A trajectory, which is checked.
    pub fn trajectory(of: &Trajectory) -> Result<Self, Error> {
        check::trajectory(of)?;
        let mut versions: Vec<&str> = of.versions.iter().map(|span| &*span.version).collect();
        versions.sort_unstable();
        versions.dedup();
        let (group, session) = (of.group.as_deref(), of.session.as_deref());
        let keys = Keys { group, session, model: &of.model, versions };
        Self::new(Kind::Trajectory, &keys, Some(of))
    }

    /// A reward, which is checked.
    pub fn reward(value: f64, by: &str) -> Result<Self, Error> {
        check::reward(value, by)?;
        Self::new(Kind::Reward, &Given { value, by }, None)
    }

    fn new(kind: Kind, keys: &impl Serialize, record: Option<&Trajectory>) -> Result<Self, Error> {
        let mut bytes = vec![0; FRAME];
        write(&mut bytes, keys);
        let keys_len = bytes.len() - FRAME;
        assert!(keys_len <= KEYS_BYTES_MAX, "names and spans are bounded, so that keys are");
        if let Some(record) = record {
            write(&mut bytes, record);
        }
        let record_len = bytes.len() - FRAME - keys_len;
        if record_len > RECORD_BYTES_MAX {
            let expected = format!("at most {RECORD_BYTES_MAX} bytes");
            return Err(Error::field("trajectory", expected, record_len));
        }
        let crc = crc32fast::hash(&bytes[FRAME..]);
        Ok(Self { kind, keys_len: keys_len as u32, crc, bytes })
    }

    /// The keys alone.
    pub fn keys(&self) -> &[u8] {
        &self.bytes[FRAME..FRAME + self.keys_len as usize]
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes of the frame.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The frame, in its segment.
    pub fn place(&mut self, segment: u64, id: Id) -> &[u8] {
        let record_len = (self.bytes.len() - FRAME) as u32 - self.keys_len;
        let (kind, keys_len, crc) = (self.kind, self.keys_len, self.crc);
        let frame = Frame { segment, id, kind, keys_len, record_len, crc };
        self.bytes[..FRAME].copy_from_slice(&frame.bytes());
        &self.bytes
    }
}

/// The trajectory of a whole frame. `None` if it is not that frame, not whole or not read.
pub fn read(bytes: &[u8], segment: u64, id: Id) -> Option<Trajectory> {
    let (head, body) = bytes.split_first_chunk::<FRAME>()?;
    let frame = Frame::read(head, segment)?;
    let whole = frame.id == id && frame.kind == Kind::Trajectory;
    if !whole || frame.len() != bytes.len() as u64 || crc32fast::hash(body) != frame.crc {
        return None;
    }
    let record = rmp_serde::from_slice(&body[frame.keys_len as usize..]).ok()?;
    Some(Trajectory { id, rewards: Vec::new(), ..record })
}

fn write(to: &mut Vec<u8>, of: &impl Serialize) {
    // A vector takes all bytes, and no type of ours has a list of unknown length or fails.
    rmp_serde::encode::write_named(to, of).expect("what was checked can be written");
}
