//! What a version's folder says of itself, and whether its files are those that were written.

use super::Error;
use crate::error;
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// The file that makes a folder a version's.
pub const MANIFEST: &str = "checkpoint.json";
/// The layout of these files.
const FORMAT: u32 = 1;
/// Bytes of a name at most.
const NAME_BYTES_MAX: usize = 256;
/// Bytes that a manifest may take: hundreds of files.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Bytes that are looked at together.
const CHUNK_BYTES: usize = 1 << 18;

/// Whose versions they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// The model's own.
    Weights,
    /// An adapter's, by its name.
    Adapter(String),
}

/// What is known of a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Whose it is.
    pub of: Of,
    /// What it is called.
    pub label: String,
    /// How many versions its name has had with it.
    pub count: u64,
    /// The step of the training that made it.
    pub step: Option<u64>,
    /// How good it is.
    pub metric: Option<f64>,
    /// When it was made, by its maker's clock: milliseconds since 1970.
    pub saved_ms: u64,
}

/// A version that is in an archive.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// Its number, which no other version has had.
    pub id: u64,
    /// What is known of it.
    pub version: Version,
    pub(super) turn: u64,
    pub(super) again: Option<String>,
    pub(super) files: Vec<Sum>,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sum {
    pub name: String,
    bytes: u64,
    crc32: u32,
}

/// A manifest as it is written.
#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    version: Version,
    turn: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    again: Option<String>,
    files: Vec<Sum>,
}

impl Version {
    /// Refuses what could not be found again.
    pub(super) fn check(&self) -> Result<(), Error> {
        let name = match &self.of {
            Of::Weights => None,
            Of::Adapter(name) => Some(("name", name)),
        };
        for (field, text) in name.into_iter().chain([("label", &self.label)]) {
            if text.is_empty() || text.len() > NAME_BYTES_MAX {
                let expected = format!("text of 1 to {NAME_BYTES_MAX} bytes");
                return Err(Error::field(field, expected, format!("{} bytes", text.len())));
            }
        }
        match self.metric {
            Some(metric) if !metric.is_finite() => {
                Err(Error::field("metric", "a finite number", metric))
            }
            _ => Ok(()),
        }
    }
}

impl Saved {
    /// Counts up where something was saved or served again: the latest has the largest.
    pub fn turn(&self) -> u64 {
        self.turn
    }

    /// What it was called when it served last.
    pub fn served_as(&self) -> &str {
        self.again.as_deref().unwrap_or(&self.version.label)
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The version in a folder, if its files have their lengths.
    pub(super) fn read(id: u64, folder: &Path) -> Result<Self, crate::Error> {
        let path = folder.join(MANIFEST);
        let unreadable = |error: io::Error| crate::Error::unreadable(&path, &error);
        let mut text = Vec::new();
        let file = File::open(&path).map_err(unreadable)?;
        file.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).map_err(unreadable)?;
        let malformed = |what: String| crate::Error::malformed(&path, error::short(what));
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        let Manifest { format, version, turn, again, files } = manifest;
        if format != FORMAT {
            return Err(malformed(format!("is of format {format}, and {FORMAT} is known here")));
        }
        version.check().map_err(|error| malformed(error.to_string()))?;
        super::check_names(files.iter().map(|file| file.name.as_str()))
            .map_err(|error| malformed(error.to_string()))?;
        let saved = Self { id, version, turn, again, files };
        saved.files.iter().try_for_each(|sum| sum.has_length(folder))?;
        Ok(saved)
    }

    /// The manifest that says so.
    pub(super) fn manifest(&self) -> Vec<u8> {
        let Self { version, turn, again, files, .. } = self.clone();
        let manifest = Manifest { format: FORMAT, version, turn, again, files };
        let text = serde_json::to_string_pretty(&manifest).expect("numbers and text are JSON");
        format!("{text}\n").into_bytes()
    }

    /// Refuses files that are not what was written.
    pub(super) fn verify(&self, folder: &Path) -> Result<(), crate::Error> {
        self.files.iter().try_for_each(|sum| {
            sum.has_length(folder)?;
            sum.has_bytes(folder)
        })
    }
}

impl Sum {
    fn has_length(&self, folder: &Path) -> Result<(), crate::Error> {
        let path = folder.join(&self.name);
        let facts = fs::metadata(&path).map_err(|error| crate::Error::unreadable(&path, &error))?;
        match facts.len() {
            len if len == self.bytes => Ok(()),
            len => {
                let what = format!("has {len} bytes, and {} were written", self.bytes);
                Err(crate::Error::malformed(&path, what))
            }
        }
    }

    fn has_bytes(&self, folder: &Path) -> Result<(), crate::Error> {
        let path = folder.join(&self.name);
        let unreadable = |error: io::Error| crate::Error::unreadable(&path, &error);
        let mut file = File::open(&path).map_err(unreadable)?;
        let (mut hasher, mut chunk) = (Hasher::new(), vec![0; CHUNK_BYTES]);
        loop {
            match file.read(&mut chunk).map_err(unreadable)? {
                0 => break,
                count => hasher.update(&chunk[..count]),
            }
        }
        match hasher.finalize() == self.crc32 {
            true => Ok(()),
            false => Err(crate::Error::malformed(&path, "holds other bytes than were written")),
        }
    }
}

/// Counts and sums what is written.
pub(super) struct Summed<'a> {
    to: &'a mut dyn Write,
    hasher: Hasher,
    bytes: u64,
}

impl<'a> Summed<'a> {
    pub fn new(to: &'a mut dyn Write) -> Self {
        Self { to, hasher: Hasher::new(), bytes: 0 }
    }

    pub fn sum(self, name: &str) -> Sum {
        Sum { name: name.to_owned(), bytes: self.bytes, crc32: self.hasher.finalize() }
    }
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
