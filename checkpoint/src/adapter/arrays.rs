//! Archives of arrays, as numpy and MLX save them (`.npz`): a zip whose members are stored or
//! deflated, each an array (`.npy`). What is compressed or written otherwise is refused by its
//! name, and nothing grows beyond what an adapter may take.

use super::{TENSOR_BYTES_MAX, within};
use crate::error::Error;
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};
use safetensors::Dtype;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

/// How an archive begins.
pub const MAGIC: &[u8] = b"PK\x03\x04";
/// How the header of an array begins.
const ARRAY: &[u8] = b"\x93NUMPY";
/// How a member, its line in the directory, and the directory's end begin.
const LOCAL: u32 = 0x0403_4b50;
const LINE: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
/// Bytes of each, before its names.
const LOCAL_BYTES: usize = 30;
const LINE_BYTES: usize = 46;
const END_BYTES: usize = 22;
/// Bytes that may stand after the end: a comment.
const COMMENT_BYTES_MAX: usize = 65_535;
/// Dimensions of an array at most.
const DIMENSIONS_MAX: usize = 8;

/// An array of an archive.
#[derive(Debug)]
pub struct Array<'a> {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Of the archive, or unpacked; its header stands before its elements.
    bytes: Cow<'a, [u8]>,
    begin: usize,
}

impl Array<'_> {
    /// Its elements, little-endian.
    pub fn elements(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }
}

/// The arrays of an archive, by name.
pub fn read<'a>(path: &Path, bytes: &'a [u8]) -> Result<BTreeMap<String, Array<'a>>, Error> {
    let cut = || Error::malformed(path, "is no whole archive: its directory is cut or spoilt");
    let (mut at, count) = directory(bytes).ok_or_else(cut)?;
    let (mut arrays, mut unpacked) = (BTreeMap::new(), 0);
    for _ in 0..count {
        let member = Member::read(bytes, at).ok_or_else(cut)?;
        at = member.next;
        let name = String::from_utf8_lossy(member.name).into_owned();
        let refuse = |what: &str| Error::tensor(path, &name, what);
        let packed = member.packed(bytes).ok_or_else(|| refuse("is cut"))?;
        unpacked += u64::from(member.bytes);
        within(path, unpacked, TENSOR_BYTES_MAX)?;
        let whole = member.unpacked(packed).map_err(refuse)?;
        let array = array(whole).map_err(|what| refuse(&what))?;
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        if arrays.insert(name.clone(), array).is_some() {
            return Err(Error::tensor(path, &name, "is there twice"));
        }
    }
    Ok(arrays)
}

/// Where the directory begins, and how many members it lists.
fn directory(bytes: &[u8]) -> Option<(usize, u16)> {
    let last = bytes.len().checked_sub(END_BYTES)?;
    let first = last.saturating_sub(COMMENT_BYTES_MAX);
    let end = (first..=last).rev().find(|at| u32_at(bytes, *at) == Some(END))?;
    let begin = u32_at(bytes, end + 16)? as usize;
    (begin <= end).then_some((begin, u16_at(bytes, end + 10)?))
}

/// A line of the directory.
struct Member<'a> {
    name: &'a [u8],
    flags: u16,
    method: u16,
    crc: u32,
    packed: u32,
    /// When it is unpacked.
    bytes: u32,
    local: u32,
    /// Where the next line begins.
    next: usize,
}

impl<'a> Member<'a> {
    fn read(bytes: &'a [u8], at: usize) -> Option<Self> {
        let half = |offset| u16_at(bytes, at + offset);
        let word = |offset| u32_at(bytes, at + offset);
        if word(0)? != LINE {
            return None;
        }
        let names = at + LINE_BYTES;
        let after = names + usize::from(half(28)?);
        Some(Self {
            name: bytes.get(names..after)?,
            flags: half(8)?,
            method: half(10)?,
            crc: word(16)?,
            packed: word(20)?,
            bytes: word(24)?,
            local: word(42)?,
            next: after + usize::from(half(30)?) + usize::from(half(32)?),
        })
    }

    /// Its bytes as they are stored.
    fn packed(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let at = self.local as usize;
        if u32_at(bytes, at)? != LOCAL {
            return None;
        }
        let names = usize::from(u16_at(bytes, at + 26)?) + usize::from(u16_at(bytes, at + 28)?);
        let begin = at + LOCAL_BYTES + names;
        bytes.get(begin..begin.checked_add(self.packed as usize)?)
    }

    /// Its bytes as they were.
    fn unpacked(&self, packed: &'a [u8]) -> Result<Cow<'a, [u8]>, &'static str> {
        if self.flags & 1 == 1 {
            return Err("is encrypted");
        }
        let whole = match self.method {
            0 => Cow::Borrowed(packed),
            8 => match decompress_to_vec_with_limit(packed, self.bytes as usize) {
                Ok(whole) => Cow::Owned(whole),
                Err(error) if error.status == TINFLStatus::HasMoreOutput => {
                    return Err("unpacks to more than its directory says");
                }
                Err(_) => return Err("is deflated, and spoilt"),
            },
            _ => return Err("is neither stored nor deflated"),
        };
        if whole.len() != self.bytes as usize || crc32fast::hash(&whole) != self.crc {
            return Err("is not what its directory says: its length or checksum is another");
        }
        Ok(whole)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

/// What an array's bytes say of it.
fn array(bytes: Cow<'_, [u8]>) -> Result<Array<'_>, String> {
    let (header, begin) = header(&bytes).ok_or("is no array of numpy's format")?;
    let dtype = match value(header, "descr").map(|text| text.trim_matches(['\'', '"'])) {
        Some("<f4") => Dtype::F32,
        Some("<f2") => Dtype::F16,
        // numpy has no bf16: MLX writes it as two bytes of anything.
        Some("<V2" | "|V2") => Dtype::BF16,
        Some(other) => return Err(format!("must be f32, f16 or bf16, not {other:.40}")),
        None => return Err("says no type".to_owned()),
    };
    match value(header, "fortran_order") {
        Some("False") => {}
        _ => return Err("must have its rows one after the other (fortran_order False)".to_owned()),
    }
    let shape = value(header, "shape").and_then(shape).ok_or("says no shape")?;
    let element = dtype.bitsize() / 8;
    let count = shape.iter().try_fold(element, |count, extent| count.checked_mul(*extent));
    match count == Some(bytes.len() - begin) {
        true => Ok(Array { dtype, shape, bytes, begin }),
        false => Err("has another size than its shape and type take".to_owned()),
    }
}

/// The header's text, and where elements begin.
fn header(bytes: &[u8]) -> Option<(&str, usize)> {
    let rest = bytes.strip_prefix(ARRAY)?;
    let (begin, length): (usize, usize) = match rest.first()? {
        1 => (10, usize::from(u16_at(bytes, 8)?)),
        2 | 3 => (12, u32_at(bytes, 8)? as usize),
        _ => return None,
    };
    let end = begin.checked_add(length)?;
    Some((std::str::from_utf8(bytes.get(begin..end)?).ok()?, end))
}

/// What a key has in a Python dictionary of plain values: up to the comma after it, which
/// within brackets is one of its own.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}':"))?;
    let rest = rest.trim_start();
    let end = match rest.starts_with('(') {
        true => rest.find(')')? + 1,
        false => rest.find([',', '}'])?,
    };
    Some(rest[..end].trim_end())
}

fn shape(text: &str) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let parts = inner.split(',').map(str::trim).filter(|part| !part.is_empty());
    let shape: Vec<usize> = parts.map(|part| part.parse().ok()).collect::<Option<_>>()?;
    (shape.len() <= DIMENSIONS_MAX).then_some(shape)
}
