//! What launches of this thread did, by their entries, and what they moved of each piece of
//! the device's memory: so that a test can say that a form ran, and what it cost.

use crate::memory::{Memory, pointer};
use crate::run::{Counts, Run, counted, watch_pieces};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What launches of an entry did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// How often it was launched.
    pub launches: u64,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory that a block asked for, at most.
    pub shared_bytes: u32,
    /// Bytes of the device's memory that are others than before.
    pub changed_bytes: u64,
    /// What the emulator counted.
    pub counts: Counts,
}

/// A piece of the device's memory, and what launches moved of it. The detector of races sees
/// all loads and stores; other builds see copies to shared memory, `load_once` and Metal's
/// matrices alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Where it lies.
    pub address: u64,
    /// How long it is.
    pub bytes: u64,
    /// Bytes that blocks read, each through a small cache of its own.
    pub read_bytes: u64,
    /// Bytes that blocks wrote, the same way.
    pub written_bytes: u64,
    /// Bytes that launches read, however many blocks of one did.
    pub read_once_bytes: u64,
    /// Bytes that launches wrote, the same way.
    pub written_once_bytes: u64,
}

/// What was watched.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// By entries; Metal's begin with `metal:`.
    pub entries: BTreeMap<String, Work>,
    /// By address; one that was given back and taken anew at the same address is one piece.
    pub pieces: BTreeMap<u64, Piece>,
}

thread_local! {
    static WATCHED: RefCell<Option<Watched>> = const { RefCell::new(None) };
}

/// What this thread launches in `work` is watched.
pub fn watch<T>(work: impl FnOnce() -> T) -> (T, Watched) {
    let before = WATCHED.replace(Some(Watched::default()));
    assert!(before.is_none(), "watches do not nest");
    let came = work();
    (came, WATCHED.take().expect("it was begun above"))
}

/// What was asked for, run by `act`, and watched if somebody watches.
pub fn launched<T>(memory: &Memory, asked: &Run<'_>, act: impl FnOnce() -> T) -> T {
    let Some(mut watched) = WATCHED.take() else {
        return act();
    };
    let mut pieces: Vec<Piece> = memory.pieces().collect();
    let before: Vec<Vec<u8>> = pieces.iter().map(|piece| contents(piece).to_vec()).collect();
    let counts = counted();
    let came = watch_pieces(&mut pieces, act);
    let work = watched.entries.entry(asked.entry.to_owned()).or_default();
    work.launches += 1;
    work.threads = asked.block;
    work.shared_bytes = work.shared_bytes.max(asked.shared_bytes);
    work.counts = work.counts.plus(counted().since(counts));
    for (piece, before) in pieces.iter().zip(&before) {
        let changed = contents(piece).iter().zip(before).filter(|(now, then)| now != then);
        work.changed_bytes += changed.count() as u64;
        let sum = watched.pieces.entry(piece.address).or_default();
        *sum = Piece {
            address: piece.address,
            bytes: piece.bytes,
            read_bytes: sum.read_bytes + piece.read_bytes,
            written_bytes: sum.written_bytes + piece.written_bytes,
            read_once_bytes: sum.read_once_bytes + piece.read_once_bytes,
            written_once_bytes: sum.written_once_bytes + piece.written_once_bytes,
        };
    }
    WATCHED.set(Some(watched));
    came
}

/// What lies in a piece; no launch runs meanwhile.
fn contents(piece: &Piece) -> &[u8] {
    // SAFETY: the piece is the memory's, which nobody gives back while its device is borrowed,
    // and zeroed from its beginning on.
    unsafe { std::slice::from_raw_parts(pointer(piece.address).cast(), piece.bytes as usize) }
}
