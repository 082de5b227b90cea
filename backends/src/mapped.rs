//! Files in memory without reading them: weights, above all.

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A file's bytes, which the system reads when they are looked at.
#[derive(Debug)]
pub struct Mapped(Mmap);

/// Maps a file. Whoever changes the file meanwhile changes its bytes; whoever cuts it ends
/// the process that looks past its end.
pub fn open(path: &Path) -> io::Result<Arc<Mapped>> {
    let file = File::open(path)?;
    // SAFETY: the map is only read. A file that others write to while it is mapped is a
    // checkpoint that changes under its reader, which no reader can serve.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Arc::new(Mapped(map)))
}

impl Mapped {
    /// Counts no longer as memory of this process until it is looked at again: the system
    /// keeps the file's pages, or reads them anew.
    pub fn let_go(&self) {
        #[cfg(unix)]
        // SAFETY: the map is shared with a file and never written, so that its pages hold
        // nothing that the file does not, and come back as they were.
        let _ = unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
