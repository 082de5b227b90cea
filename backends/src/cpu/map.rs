//! Zeroed memory straight from the system, in huge pages where it gives them.

use memmap2::MmapMut;
use std::io;

/// Maps of at least this size ask for huge pages.
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed memory that starts at a page. Huge pages are asked for, so that walking
/// through much of it costs few misses of the address cache.
#[derive(Debug)]
pub struct Map(MmapMut);

impl Map {
    /// So many bytes; at least one.
    pub fn zeroed(bytes: usize) -> io::Result<Self> {
        map(bytes).map(Self)
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// All of it, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The map alone.
pub(super) fn map(bytes: usize) -> io::Result<MmapMut> {
    let map = MmapMut::map_anon(bytes.max(1))?;
    #[cfg(target_os = "linux")]
    if bytes >= HUGE_PAGE {
        // Advice only: without huge pages everything still works.
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    Ok(map)
}
