//! Files in memory without reading them: weights, above all.

use kernels_core::device::HostBytes;
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A file's bytes, which the system reads when they are looked at. Whoever changes the
/// file meanwhile changes them; whoever cuts it ends the process that looks past its end.
pub fn open(path: &Path) -> io::Result<HostBytes> {
    let file = File::open(path)?;
    // SAFETY: the map is only read. A file that others write to while it is mapped is a
    // checkpoint that changes under its reader, which no reader can serve.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Arc::new(map))
}
