//! What a call says when it fails, in the caller's own memory.

use crate::header::{self, pw_error, pw_status};
use kernels_core::Error;
use kernels_core::error::Fault;
use std::fmt::{self, Write};

/// Why a call was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A pointer is NULL.
    Null(&'static str),
    /// A handle of nothing.
    Stale(&'static str),
    /// Something of the caller's that is being used aside.
    Busy(&'static str),
    /// Pages that are fewer than are wanted.
    Pages(kv::Exhausted),
    /// A page, at this place of a list, that is not held, or not so often.
    NotHeld { at: usize, page: u32 },
    /// A struct_size that no version has.
    Size { field: &'static str, least: u32, got: u32 },
    /// Bytes past what is known of a struct are not 0.
    Tail(&'static str),
    /// An address.
    Align { field: &'static str, expected: u64, got: u64 },
    /// Bytes that are too few.
    Space { field: &'static str, expected: u64, got: u64 },
    /// Bytes that are no plan of this call.
    Plan(&'static str),
    /// A number that only C has: a stride, a set of flags.
    Number { field: &'static str, fault: Fault },
    /// What the kernel refuses.
    Kernel(Error),
    /// A layout of keys and values that it refuses.
    Layout(Error),
    /// What a device's plugin refuses.
    Plugin(Error),
    /// No such device, and why.
    Device(String),
    /// There is no grammar of a source.
    Grammar(grammar::Refusal),
    /// A text cannot go on so.
    Text(grammar::Fault),
    /// A fault of this library.
    Internal,
}

impl From<grammar::Fault> for Refusal {
    fn from(fault: grammar::Fault) -> Self {
        Self::Text(fault)
    }
}

impl From<kv::Exhausted> for Refusal {
    fn from(lack: kv::Exhausted) -> Self {
        Self::Pages(lack)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Kernel(error)
    }
}

impl Refusal {
    /// Its status.
    pub fn status(&self) -> pw_status {
        match self {
            Self::Null(_) => header::PW_E_NULL,
            Self::Stale(_) => header::PW_E_STALE,
            Self::Busy(_) => header::PW_E_BUSY,
            Self::Pages(_) => header::PW_E_PAGES,
            Self::Size { .. } | Self::Tail(_) => header::PW_E_SIZE,
            Self::Align { .. } => header::PW_E_ALIGN,
            Self::Space { .. } => header::PW_E_SPACE,
            Self::Plan(_) => header::PW_E_PLAN,
            Self::Device(_) => header::PW_E_DEVICE,
            Self::Internal => header::PW_E_INTERNAL,
            Self::Grammar(refusal) => match refusal {
                grammar::Refusal::Invalid { .. } | grammar::Refusal::Unsupported { .. } => {
                    header::PW_E_GRAMMAR
                }
                grammar::Refusal::TooMuch { .. } | grammar::Refusal::TooSlow => {
                    header::PW_E_TOO_MUCH
                }
                grammar::Refusal::Busy => header::PW_E_BUSY,
            },
            Self::Text(grammar::Fault::NotAllowed(_)) => header::PW_E_NOT_ALLOWED,
            Self::Text(grammar::Fault::TooMuch(_)) => header::PW_E_TOO_MUCH,
            Self::NotHeld { .. } => header::PW_E_ARGUMENT,
            Self::Plugin(Error { fault: Fault::Unsupported { .. }, .. }) => {
                header::PW_E_UNSUPPORTED
            }
            Self::Number { fault, .. }
            | Self::Kernel(Error { fault, .. })
            | Self::Layout(Error { fault, .. })
            | Self::Plugin(Error { fault, .. }) => match fault {
                Fault::Align { .. } => header::PW_E_ALIGN,
                Fault::Bytes { .. } if self.field().1 == "workspace" => header::PW_E_SPACE,
                // Of what the header has not, nothing is a question of this device.
                Fault::Unsupported { got, .. } => {
                    let dtypes = i64::from(header::PW_F32)..=i64::from(header::PW_I4);
                    match self.field().1.ends_with("dtype") && dtypes.contains(got) {
                        true => header::PW_E_UNSUPPORTED,
                        false => header::PW_E_ARGUMENT,
                    }
                }
                // A slab that is larger than any is no question of what is left.
                Fault::OutOfMemory { .. } if !matches!(self, Self::Layout(_)) => {
                    header::PW_E_MEMORY
                }
                Fault::Device { .. } => header::PW_E_DEVICE,
                _ => header::PW_E_ARGUMENT,
            },
        }
    }

    /// What is at fault, as the header calls it: where it stands, and its name.
    fn field(&self) -> (&'static str, &str) {
        match self {
            Self::Null(field)
            | Self::Stale(field)
            | Self::Busy(field)
            | Self::Tail(field)
            | Self::Size { field, .. }
            | Self::Align { field, .. }
            | Self::Space { field, .. }
            | Self::Number { field, .. } => ("", field),
            Self::Plan(_) => ("", "plan"),
            Self::Device(_) => ("", "name"),
            Self::Pages(_) => ("", "pages"),
            Self::NotHeld { .. } => ("", "ids"),
            Self::Internal => ("", ""),
            Self::Grammar(
                grammar::Refusal::Invalid { at, .. } | grammar::Refusal::Unsupported { at, .. },
            ) if !at.is_empty() => ("", at),
            Self::Grammar(_) => ("", "source"),
            Self::Text(_) => ("", "tokens"),
            Self::Plugin(error) => of_device(error),
            Self::Kernel(error) => ("", error.field),
            Self::Layout(error) => ("kv.", error.field),
        }
    }

    /// What was expected, and what came.
    fn numbers(&self) -> (i64, i64) {
        match self {
            Self::Size { least, got, .. } => (i64::from(*least), i64::from(*got)),
            Self::Align { expected, got, .. } | Self::Space { expected, got, .. } => {
                (*expected as i64, *got as i64)
            }
            Self::Number { field, fault } => {
                let error = Error::new("", field, *fault);
                (error.expected(), error.got())
            }
            Self::Kernel(error) | Self::Layout(error) | Self::Plugin(error) => {
                (error.expected(), error.got())
            }
            Self::NotHeld { page, .. } => (0, i64::from(*page)),
            Self::Pages(lack) => (lack.wanted.into(), lack.free.into()),
            Self::Grammar(grammar::Refusal::TooMuch { got, most, .. }) => {
                (*most as i64, *got as i64)
            }
            Self::Text(grammar::Fault::NotAllowed(token)) => (0, i64::from(*token)),
            _ => (0, 0),
        }
    }

    /// Writes all of it, as far as the caller has room.
    ///
    /// # Safety
    ///
    /// A pointer that is not NULL leads to as many bytes as its first four say.
    pub unsafe fn tell(&self, error: *mut pw_error) {
        if error.is_null() || !error.is_aligned() {
            return;
        }
        // SAFETY: the caller's error begins with its size.
        let room = unsafe { (*error).struct_size };
        let ((place, name), (expected, got)) = (self.field(), self.numbers());
        let (mut field, mut message) = (Text::<32>::new(), Text::<200>::new());
        // What finds no room is cut; of a field that is seen, for half of it is another.
        if write!(field, "{place}{name}").is_err() {
            field.letters[28..31].copy_from_slice(&[b'.' as std::ffi::c_char; 3]);
        }
        let _ = write!(message, "{self}");
        let told = pw_error {
            struct_size: room,
            status: self.status(),
            field: field.letters,
            expected,
            got,
            message: message.letters,
        };
        let bytes = (room as usize).min(size_of::<pw_error>());
        // SAFETY: so many bytes are the caller's, and all of them are ours.
        unsafe { error.cast::<u8>().copy_from((&raw const told).cast(), bytes) };
    }
}

/// A field of a device's refusal, as the header calls it.
fn of_device(error: &Error) -> (&'static str, &'static str) {
    match (error.kernel, error.field) {
        // What a device writes of a call lies in the call's plan.
        (_, "fault") => ("", "plan"),
        (_, "sequences") => ("", "seqs"),
        ("attention" | "append_kv" | "kv_copy", "scales") => ("kv_", "scales"),
        (_, field) => ("", field),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null(field) => write!(f, "{field} is NULL"),
            Self::Stale(field) => write!(f, "{field} was destroyed, or is of another kind"),
            Self::Busy(field) => write!(f, "a mask of {field} is being computed"),
            Self::Pages(lack) => lack.fmt(f),
            Self::NotHeld { at, page } => {
                write!(f, "ids[{at}]: page {page} is not held, or not so often")
            }
            Self::Size { field, least, got } => {
                write!(f, "{field}: struct_size is {got}, the first version has {least}")
            }
            Self::Tail(field) => {
                write!(f, "{field}: bytes that this library does not know are not 0")
            }
            Self::Align { field, expected, got } => {
                write!(f, "{field} starts {got} bytes past a multiple of {expected}")
            }
            Self::Space { field, expected, got } => {
                write!(f, "{field} has {got} bytes, and takes {expected}")
            }
            Self::Plan(why) => write!(f, "plan: {why}"),
            Self::Number { field, fault } => Error::new("call", field, *fault).fmt(f),
            Self::Kernel(error) | Self::Layout(error) | Self::Plugin(error) => error.fmt(f),
            Self::Device(why) => f.write_str(why),
            Self::Grammar(refusal) => refusal.fmt(f),
            Self::Text(fault) => fault.fmt(f),
            Self::Internal => f.write_str("a fault of this library: please report it"),
        }
    }
}

/// So many bytes of C text, ended by 0.
struct Text<const BYTES: usize> {
    letters: [std::ffi::c_char; BYTES],
    len: usize,
}

impl<const BYTES: usize> Text<BYTES> {
    fn new() -> Self {
        Self { letters: [0; BYTES], len: 0 }
    }
}

impl<const BYTES: usize> Write for Text<BYTES> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut room = text.len().min(BYTES - 1 - self.len);
        while !text.is_char_boundary(room) {
            room -= 1;
        }
        let letters = &mut self.letters[self.len..][..room];
        letters.copy_from_slice(bytemuck::cast_slice(&text.as_bytes()[..room]));
        self.len += room;
        if room == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
