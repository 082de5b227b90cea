//! Pieces of memory by their address, so that the buffer of an address is found; and which
//! copies the GPU can do. Pure.

use kernels_core::Error;
use kernels_core::error::Fault;
use std::collections::BTreeMap;

/// What the GPU copies begins at a multiple of so many bytes, and is as long: on macOS a blit
/// takes no other.
const BLIT_BYTES: usize = 4;

/// Pieces by their address.
pub struct Pieces<B> {
    pieces: BTreeMap<u64, (u64, B)>,
    changes: u64,
}

/// Where an address lies.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'a, B> {
    /// The buffer.
    pub buffer: &'a B,
    /// From its beginning, in bytes.
    pub offset: usize,
}

// Deriving them would ask the same of `B`.
impl<B> Clone for Found<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Found<'_, B> {}

impl<B> Pieces<B> {
    /// None.
    pub fn new() -> Self {
        Self { pieces: BTreeMap::new(), changes: 0 }
    }

    /// One more.
    pub fn insert(&mut self, address: u64, bytes: u64, buffer: B) {
        self.pieces.insert(address, (bytes, buffer));
        self.changes += 1;
    }

    /// Takes the one that begins there away.
    pub fn remove(&mut self, address: u64) {
        self.pieces.remove(&address);
        self.changes += 1;
    }

    /// The buffer in which so many bytes from there on lie, or why there is none.
    pub fn find(&self, address: u64, bytes: u64) -> Result<Found<'_, B>, Error> {
        let stranger = || {
            let expected = "memory of the device's own, and that is another's";
            Error::new("device", "address", Fault::Unsupported { expected, got: address as i64 })
        };
        let (begin, (length, buffer)) =
            self.pieces.range(..=address).next_back().ok_or_else(stranger)?;
        let offset = address - begin;
        match offset.checked_add(bytes) {
            Some(end) if end <= *length => Ok(Found { buffer, offset: offset as usize }),
            _ => Err(stranger()),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &B> {
        self.pieces.values().map(|(_, buffer)| buffer)
    }

    /// Grows with every change: as long as it is the same, so are the pieces.
    pub fn changes(&self) -> u64 {
        self.changes
    }
}

/// Whether the GPU itself can copy or fill that.
pub fn is_blit(offsets: [usize; 2], bytes: usize) -> bool {
    offsets.into_iter().chain([bytes]).all(|number| number.is_multiple_of(BLIT_BYTES))
}

#[cfg(test)]
mod tests {
    use super::{Found, Pieces, is_blit};

    #[test]
    fn an_address_is_found_in_its_piece_and_never_past_its_end() {
        let mut pieces = Pieces::new();
        pieces.insert(1024, 256, 'a');
        pieces.insert(1280, 4, 'b');
        assert_eq!(pieces.find(1024, 256), Ok(Found { buffer: &'a', offset: 0 }));
        assert_eq!(pieces.find(1279, 1), Ok(Found { buffer: &'a', offset: 255 }));
        assert_eq!(pieces.find(1280, 4), Ok(Found { buffer: &'b', offset: 0 }));
        for (address, bytes) in [(1023, 1), (1024, 257), (1284, 1), (1280, u64::MAX), (0, 0)] {
            assert!(pieces.find(address, bytes).is_err(), "{address} {bytes}");
        }
    }

    #[test]
    fn what_is_freed_is_found_no_more_and_counts_as_a_change() {
        let mut pieces = Pieces::new();
        pieces.insert(64, 64, ());
        let before = pieces.changes();
        pieces.remove(64);
        assert_ne!(pieces.changes(), before);
        assert!(pieces.find(64, 1).is_err());
        assert_eq!(pieces.iter().count(), 0);
    }

    #[test]
    fn the_gpu_copies_whole_words_alone() {
        assert!(is_blit([0, 4], 8));
        for (offsets, bytes) in [([2, 0], 4), ([0, 2], 4), ([0, 0], 3)] {
            assert!(!is_blit(offsets, bytes));
        }
    }
}
