//! How many versions names have had, where no version that is there tells it: the last have
//! gone, or were never saved. So no name is given twice.

use super::Of;
use crate::error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// The file that tells it.
pub const COUNTS: &str = "counts.json";
/// The layout of that file.
const FORMAT: u32 = 1;

/// A count for each name.
pub type Counts = BTreeMap<Of, u64>;

#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    counts: Vec<(Of, u64)>,
}

/// What a folder has of it: nothing, where there is no such file.
pub fn read(folder: &Path) -> Result<Counts, crate::Error> {
    let path = folder.join(COUNTS);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Counts::default()),
        read => read.map_err(|error| crate::Error::unreadable(&path, &error))?,
    };
    let malformed = |what: String| crate::Error::malformed(&path, error::short(what));
    let Written { format, counts } =
        serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
    match format {
        FORMAT => Ok(counts.into_iter().collect()),
        _ => Err(malformed(format!("is of format {format}, and {FORMAT} is known here"))),
    }
}

/// The file's text.
pub fn text(counts: &Counts) -> Vec<u8> {
    let counts = counts.iter().map(|(of, count)| (of.clone(), *count)).collect();
    let written = Written { format: FORMAT, counts };
    let text = serde_json::to_string_pretty(&written).expect("numbers and text are JSON");
    format!("{text}\n").into_bytes()
}
