//! One process has an archive at a time.

use super::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

/// The lock of a folder. The system gives it back when its holder dies, however.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    pub fn take(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("lock");
        let unwritable = |error| crate::Error::unwritable(&path, &error);
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { folder: folder.to_owned() }),
            Err(TryLockError::Error(error)) => Err(unwritable(error).into()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone leaves it to a child of this process that has yet to become another
        // program. What fails here closing mends a little later.
        let _ = self.0.unlock();
    }
}
