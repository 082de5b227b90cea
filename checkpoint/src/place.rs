//! A folder that takes its place whole. Its files are written into a folder beside it, and
//! brought to the disk; then one step of the system puts that folder where the name says:
//! a rename where nothing is yet, an exchange of both names where an older folder is. So
//! the name has the old files or the new ones at every moment, and after every crash; two
//! files renamed one after the other would leave one of each for a while. Where a system
//! cannot exchange folders (some network file systems), nothing is replaced and the error
//! says so. A crash leaves at most the folder beside, which nobody reads.

use crate::error::{Error, Fault};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What stands at the end of the name of a folder beside.
pub const UNFINISHED: &str = ".unfinished";

/// What a file holds, by whoever writes it.
pub type Content<'a> = &'a dyn Fn(&mut dyn Write) -> io::Result<()>;

/// Puts those files, and no others, into a folder. Its parent is there already. What it
/// held before may be files of these names alone, which are gone afterwards.
pub fn place(folder: &Path, files: &[(&str, Content<'_>)]) -> Result<(), Error> {
    // A link keeps its place: what it leads to is replaced.
    let (folder, older) = match fs::canonicalize(folder) {
        Ok(whole) => (whole, true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (folder.to_owned(), false),
        Err(error) => return Err(Error::unwritable(folder, &error)),
    };
    if older {
        holds_no_more(&folder, files)?;
    }
    let parent = parent(&folder);
    let fresh = fresh(&folder, &parent)?;
    let swap = if older { exchange } else { rename };
    let put = fill(&fresh, files).and_then(|()| swap_for_good(swap, &fresh, &folder, sync));
    // What did not come, or what was there before; else nothing of ours has that name.
    if older || put.is_err() {
        clear(&fresh, names(files));
    }
    put.map_err(|error| Error::unwritable(&folder, &error))
}

/// Puts one file into a folder, in the place of an older one of that name, in one step.
pub fn put(folder: &Path, name: &str, content: Content<'_>) -> Result<(), Error> {
    let (path, fresh) = (folder.join(name), folder.join(format!(".{name}{UNFINISHED}")));
    // What a writer left who died is nobody's.
    let _ = fs::remove_file(&fresh);
    let put = fill(folder, &[(&format!(".{name}{UNFINISHED}"), content)]);
    let put = put.and_then(|()| fs::rename(&fresh, &path)).and_then(|()| sync(folder));
    put.map_err(|error| {
        let _ = fs::remove_file(&fresh);
        Error::unwritable(&path, &error)
    })
}

/// Takes a folder away with all in it: its name is gone in one step, and then its files are.
pub fn remove(folder: &Path) -> Result<(), Error> {
    let parent = parent(folder);
    let fresh = fresh(folder, &parent)?;
    // An empty folder gives its name to another one.
    if let Err(error) = swap_for_good(rename, folder, &fresh, sync) {
        let _ = fs::remove_dir(&fresh);
        return Err(Error::unwritable(folder, &error));
    }
    // What stays behind costs room and nothing else.
    let _ = fs::remove_dir_all(&fresh);
    Ok(())
}

/// A step that changes names.
type Swap = fn(&Path, &Path) -> io::Result<()>;

/// Takes the step, and brings the names to the disk; where that cannot be, the step is taken
/// back: who reads of an error finds what was there before.
fn swap_for_good(
    swap: Swap,
    one: &Path,
    other: &Path,
    sync: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<()> {
    swap(one, other)?;
    let synced = sync(&parent(other));
    if synced.is_err() {
        // Either way: a rename goes back to the name that is free now.
        let _ = swap(other, one);
    }
    synced
}

fn rename(one: &Path, other: &Path) -> io::Result<()> {
    fs::rename(one, other)
}

fn names<'a>(files: &'a [(&str, Content<'_>)]) -> impl Iterator<Item = &'a str> {
    files.iter().map(|(name, _)| *name)
}

/// Refuses a folder with more in it than would be replaced.
fn holds_no_more(folder: &Path, files: &[(&str, Content<'_>)]) -> Result<(), Error> {
    let unwritable = |error: io::Error| Error::unwritable(folder, &error);
    for entry in fs::read_dir(folder).map_err(unwritable)? {
        let name = entry.map_err(unwritable)?.file_name();
        if !files.iter().any(|(file, _)| name == *file) {
            let name = name.to_string_lossy();
            let what = format!("holds {name}, which would be lost: write into a folder of its own");
            return Err(Error::new(folder, Fault::Unwritable(what)));
        }
    }
    Ok(())
}

fn parent(folder: &Path) -> PathBuf {
    match folder.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A new folder beside it, of a name that no other writer has.
fn fresh(folder: &Path, parent: &Path) -> Result<PathBuf, Error> {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let Some(name) = name else {
        return Err(Error::new(folder, Fault::Unwritable("it has no name of its own".into())));
    };
    let process = std::process::id();
    let mut number = 0u32;
    loop {
        let fresh = parent.join(format!(".{name}.{process}-{number}{UNFINISHED}"));
        match fs::create_dir(&fresh) {
            Ok(()) => return Ok(fresh),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(Error::unwritable(&fresh, &error)),
        }
    }
}

/// Writes them, one after the other.
fn fill(folder: &Path, files: &[(&str, Content<'_>)]) -> io::Result<()> {
    for (name, content) in files {
        let mut file = BufWriter::new(File::create_new(folder.join(name))?);
        content(&mut file)?;
        file.into_inner()?.sync_all()?;
    }
    sync(folder)
}

/// Takes those files and their folder away. What else came into it since keeps it there.
fn clear<'a>(folder: &Path, names: impl Iterator<Item = &'a str>) {
    for name in names {
        // What stays behind costs room and nothing else.
        let _ = fs::remove_file(folder.join(name));
    }
    let _ = fs::remove_dir(folder);
}

/// Brings the names in a folder to the disk.
#[cfg(unix)]
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Other systems open no folders.
#[cfg(not(unix))]
fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Gives each of two folders the other's name, in one step.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(io::Error::from)
}

/// Other systems have no such step.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "folders are not replaced in one step here"))
}

#[cfg(test)]
mod tests {
    use super::{Swap, exchange, rename, swap_for_good};
    use std::fs;
    use std::io;

    #[test]
    fn what_the_disk_does_not_take_is_as_it_was() {
        let room = std::env::temp_dir().join(format!("pagewise-place-{}", std::process::id()));
        let (fresh, place) = (room.join("fresh"), room.join("place"));
        for (older, swap) in [(false, rename as Swap), (true, exchange)] {
            let _ = fs::remove_dir_all(&room);
            fs::create_dir_all(&fresh).expect("there is room");
            fs::write(fresh.join("file"), "new").expect("there is room");
            if older {
                fs::create_dir_all(&place).expect("there is room");
                fs::write(place.join("file"), "old").expect("there is room");
            }
            let broken = |_: &std::path::Path| {
                assert_eq!(fs::read(place.join("file")).expect("it is there"), b"new");
                Err(io::Error::from(io::ErrorKind::StorageFull))
            };
            swap_for_good(swap, &fresh, &place, broken).expect_err("the disk is broken");
            let read = fs::read(place.join("file")).ok();
            assert_eq!(read.as_deref(), older.then_some(&b"old"[..]));
            assert_eq!(fs::read(fresh.join("file")).expect("it is there"), b"new");
        }
        fs::remove_dir_all(&room).expect("it was there");
    }
}
