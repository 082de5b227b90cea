//! Reading a segment from end to end when a store is opened: what is whole, and what is not.

use crate::frame::{FRAME, Frame, HEAD, Head, Kind, MARKER};
use crate::{Damage, Error, Fault, Id};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// What a segment has besides its whole frames.
#[derive(Debug, Default)]
pub struct Scanned {
    /// Its head, if that is whole.
    pub head: Option<Head>,
    /// Its length.
    pub bytes: u64,
    /// What is damaged.
    pub damages: Vec<Damage>,
    /// The greatest id of a trajectory whose frame begins but is not whole.
    pub torn: Option<Id>,
}

/// Reads a segment. Each whole frame is told, with its place and its keys; a frame that is
/// not taken counts as damaged.
pub fn scan(
    path: &Path,
    segment: u64,
    mut take: impl FnMut(&Frame, u64, &[u8]) -> bool,
) -> Result<Scanned, Error> {
    let io = Error::io(path, "read");
    let file = File::open(path).map_err(&io)?;
    let bytes = file.metadata().map_err(&io)?.len();
    let mut reader = Reader { file: BufReader::with_capacity(1 << 20, file), bytes };
    let mut scanned = Scanned { bytes, ..Scanned::default() };

    let mut at = 0;
    if let Some(head) = reader.head().map_err(&io)? {
        scanned.head = Head::read(&head, segment, path)?;
    }
    match scanned.head {
        Some(_) => at = HEAD as u64,
        None if bytes > 0 => {
            at = reader.marker(0).map_err(&io)?;
            scanned.damages.push(Damage { segment, at: 0, bytes: at, fault: Fault::Head });
        }
        None => {}
    }
    reader.seek(at).map_err(&io)?;

    let mut keys = Vec::new();
    while at < bytes {
        let found = reader.frame(at, segment, &mut keys).map_err(&io)?;
        match found {
            Found::Whole(frame) if take(&frame, at, &keys) => {
                at += frame.len();
                continue;
            }
            Found::Begun(frame) if frame.kind == Kind::Trajectory => {
                scanned.torn = scanned.torn.max(Some(frame.id));
            }
            _ => {}
        }
        let next = reader.marker(at + 1).map_err(&io)?;
        skip(&mut scanned.damages, segment, at, next);
        at = next;
    }
    Ok(scanned)
}

/// Damaged bytes right after others are told as one.
fn skip(damages: &mut Vec<Damage>, segment: u64, from: u64, to: u64) {
    match damages.last_mut() {
        Some(last) if last.fault == Fault::Corrupt && last.at + last.bytes == from => {
            last.bytes = to - last.at;
        }
        _ => damages.push(Damage { segment, at: from, bytes: to - from, fault: Fault::Corrupt }),
    }
}

/// What begins at a place.
enum Found {
    Whole(Frame),
    /// A frame whose body is not there or not right.
    Begun(Frame),
    Nothing,
}

struct Reader {
    file: BufReader<File>,
    bytes: u64,
}

impl Reader {
    fn seek(&mut self, at: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(at)).map(|_| ())
    }

    fn head(&mut self) -> io::Result<Option<[u8; HEAD]>> {
        if self.bytes < HEAD as u64 {
            return Ok(None);
        }
        let mut head = [0; HEAD];
        self.file.read_exact(&mut head)?;
        Ok(Some(head))
    }

    /// The frame at `at`, which is where the file is read next; after a whole one, that is
    /// its end.
    fn frame(&mut self, at: u64, segment: u64, keys: &mut Vec<u8>) -> io::Result<Found> {
        let left = self.bytes - at;
        if left < FRAME as u64 {
            return Ok(Found::Nothing);
        }
        let mut head = [0; FRAME];
        self.file.read_exact(&mut head)?;
        let Some(frame) = Frame::read(&head, segment) else {
            return Ok(Found::Nothing);
        };
        if frame.len() > left {
            return Ok(Found::Begun(frame));
        }
        keys.resize(frame.keys_len as usize, 0);
        self.file.read_exact(keys)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(keys);
        let mut record = frame.record_len as usize;
        while record > 0 {
            let buffered = self.file.fill_buf()?;
            if buffered.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let part = record.min(buffered.len());
            crc.update(&buffered[..part]);
            self.file.consume(part);
            record -= part;
        }
        Ok(if crc.finalize() == frame.crc { Found::Whole(frame) } else { Found::Begun(frame) })
    }

    /// Where the next marker is, from `at` on; the end if there is none. It is where the
    /// file is read next.
    fn marker(&mut self, at: u64) -> io::Result<u64> {
        let mut from = at.min(self.bytes);
        self.seek(from)?;
        // The end of one part is the beginning of the next: a marker may lie across both.
        let mut window: Vec<u8> = Vec::new();
        loop {
            let buffered = self.file.fill_buf()?;
            let read = buffered.len();
            window.extend_from_slice(buffered);
            self.file.consume(read);
            let found = window.windows(MARKER.len()).position(|bytes| bytes == MARKER);
            if found.is_some() || read == 0 {
                let next = found.map_or(self.bytes, |place| from + place as u64);
                self.seek(next)?;
                return Ok(next);
            }
            let kept = window.len().min(MARKER.len() - 1);
            from += (window.len() - kept) as u64;
            window.drain(..window.len() - kept);
        }
    }
}
