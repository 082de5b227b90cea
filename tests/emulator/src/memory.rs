//! Memory of the emulated device: each piece as long as was asked for, so that a sanitizer
//! sees one byte past it.

use crate::watch::Piece;
use kernels_core::Error;
use kernels_core::error::Fault;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ffi::c_void;

/// Where pieces begin, as on a card.
const ALIGN: usize = 256;

/// Pieces by their address.
pub struct Memory {
    pieces: BTreeMap<u64, Layout>,
}

impl Memory {
    pub const fn new() -> Self {
        Self { pieces: BTreeMap::new() }
    }

    /// Zeroed memory.
    pub fn alloc(&mut self, bytes: u64) -> Result<u64, Error> {
        let refused = Error::new("emulator", "bytes", Fault::OutOfMemory { bytes });
        let length = usize::try_from(bytes.max(1)).map_err(|_| refused)?;
        let layout = Layout::from_size_align(length, ALIGN).map_err(|_| refused)?;
        // SAFETY: the layout is not empty.
        let piece = unsafe { alloc_zeroed(layout) };
        if piece.is_null() {
            return Err(refused);
        }
        let address = piece.expose_provenance() as u64;
        self.pieces.insert(address, layout);
        Ok(address)
    }

    /// Bytes of all pieces.
    pub fn bytes(&self) -> u64 {
        self.pieces.values().map(|layout| layout.size() as u64).sum()
    }

    /// Whether the range lies in one piece.
    pub fn has(&self, address: u64, bytes: u64) -> bool {
        let before = self.pieces.range(..=address).next_back();
        before.is_some_and(|(at, layout)| {
            bytes <= (layout.size() as u64).saturating_sub(address - at)
        })
    }

    /// All pieces, in order of their addresses.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> {
        let piece = |(&address, layout): (&u64, &Layout)| Piece {
            address,
            bytes: layout.size() as u64,
            ..Piece::default()
        };
        self.pieces.iter().map(piece)
    }

    /// Gives it back.
    pub fn free(&mut self, address: u64) {
        if let Some(layout) = self.pieces.remove(&address) {
            // SAFETY: it is of `alloc`, by this layout, and was not given back before.
            unsafe { dealloc(pointer(address).cast(), layout) };
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let addresses: Vec<u64> = self.pieces.keys().copied().collect();
        addresses.into_iter().for_each(|address| self.free(address));
    }
}

/// An address as a pointer of this process.
pub fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}
