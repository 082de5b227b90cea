//! The files of a store: a lock, and segments named by their numbers.

use crate::frame::{HEAD, Head};
use crate::{Error, Id};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// What the names of segments end with.
const SUFFIX: &str = ".segment";

/// Makes a folder, if it is not there, and its name durable.
pub fn create_folder(folder: &Path) -> Result<(), Error> {
    let missing = folder.ancestors().take_while(|path| !path.exists());
    let missing: Vec<_> = missing.filter(|path| !path.as_os_str().is_empty()).collect();
    fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
    missing.iter().try_for_each(|path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    })
}

/// The lock of a folder. The system gives it back when its holder dies, however.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child of this process that has yet to become
        // another program holds a copy of it, and the lock with it. What fails here, closing
        // mends a little later.
        let _ = self.0.unlock();
    }
}

/// Takes the lock of a folder.
pub fn lock(folder: &Path) -> Result<Lock, Error> {
    let path = folder.join("lock");
    let open = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(Error::io(&path, "open"))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { folder: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(Error::io(&path, "lock")(error)),
    }
}

/// The number of the next segment.
pub fn after(number: u64) -> Result<u64, Error> {
    let number = number.checked_add(1);
    number.ok_or_else(|| Error::field("segment", "a number that another follows", u64::MAX))
}

/// Where a segment is.
pub fn path(folder: &Path, number: u64) -> PathBuf {
    // Twenty digits hold every u64, so that names sort as numbers do.
    folder.join(format!("{number:020}{SUFFIX}"))
}

/// Numbers of the segments of a folder, ascending. Other files are left alone.
pub fn list(folder: &Path) -> Result<Vec<u64>, Error> {
    let io = Error::io(folder, "list");
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(&io)? {
        let name = entry.map_err(&io)?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        let digits = digits.filter(|digits| digits.len() == 20);
        numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes a segment. When it returns, the disk has the file, its name and its head.
pub fn create(folder: &Path, number: u64, first: Id) -> Result<File, Error> {
    let path = path(folder, number);
    let open = OpenOptions::new().append(true).create_new(true).open(&path);
    let mut file = open.map_err(Error::io(&path, "create"))?;
    let write = file.write_all(&Head { segment: number, first }.bytes());
    let made = write.and_then(|()| file.sync_all()).map_err(Error::io(&path, "begin"));
    let made = made.and_then(|()| sync_folder(folder));
    if let Err(error) = made {
        // Half a segment would be in the way of the next try; opening heals what stays.
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    Ok(file)
}

/// Opens a segment to go on at its end, which is cut to `bytes`.
pub fn resume(folder: &Path, number: u64, bytes: u64) -> Result<File, Error> {
    let path = path(folder, number);
    let open = OpenOptions::new().append(true).open(&path);
    let file = open.map_err(Error::io(&path, "open"))?;
    let io = Error::io(&path, "cut");
    if file.metadata().map_err(&io)?.len() > bytes {
        file.set_len(bytes).map_err(&io)?;
    }
    // What a process wrote that was killed may wait for the disk still, and so may the name.
    file.sync_all().map_err(&io)?;
    sync_folder(folder)?;
    Ok(file)
}

/// Removes a segment, if it is there.
pub fn remove(folder: &Path, number: u64) -> Result<(), Error> {
    let path = path(folder, number);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.map_err(Error::io(&path, "remove")),
    }
}

/// Makes names that came or went durable.
pub fn sync_folder(folder: &Path) -> Result<(), Error> {
    // Elsewhere a folder is no file, and its names need no sync.
    if cfg!(unix) {
        let synced = File::open(folder).and_then(|file| file.sync_all());
        synced.map_err(Error::io(folder, "sync"))?;
    }
    Ok(())
}

/// Bytes of a segment that holds nothing.
pub const EMPTY: u64 = HEAD as u64;
