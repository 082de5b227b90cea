//! Files, read and put into place; what goes wrong is told by their path.

use std::fs;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

/// The files of a folder with these extensions, in order.
pub fn with_extensions(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, String> {
    let entries = of(folder, fs::read_dir(folder))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default();
        extensions.iter().any(|one| extension == *one)
    };
    let mut files: Vec<PathBuf> = paths.filter(is_one).collect();
    files.sort();
    Ok(files)
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String, String> {
    of(path, fs::read_to_string(path))
}

/// Writes a file, and makes its folder.
pub fn write(path: &Path, text: &str) -> Result<(), String> {
    make(path.parent().unwrap_or(path))?;
    of(path, fs::write(path, text))
}

/// Makes a folder and those that it is in.
pub fn make(folder: &Path) -> Result<(), String> {
    of(folder, fs::create_dir_all(folder))
}

/// Copies a file into a folder. One that is there goes first: a program may be running it.
pub fn copy(from: &Path, folder: &Path) -> Result<(), String> {
    make(folder)?;
    let to = folder.join(from.file_name().unwrap_or_default());
    match fs::remove_file(&to) {
        Err(error) if error.kind() != NotFound => of(&to, Err(error)),
        _ => of(&to, fs::copy(from, &to).map(drop)),
    }
}

fn of<T>(path: &Path, result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{}: {error}", path.display()))
}
