//! Where the buffers of a call come from: from pointers of C, or out of thin air, to ask what a
//! call would take.

use crate::error::Refusal;
use crate::memory::Buffers;
use kernels_core::command::{Host, Memory, Recorded};
use kernels_core::device::{Buffer, Read, Slice, Update, Write};
use kernels_core::error::Fault;

/// Whether a buffer must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// The descriptor asks for it, or has no use for it.
    If(bool, &'static str),
    /// The caller may bring it.
    Maybe,
}

/// Gives each buffer of a call.
///
/// # Safety
///
/// Of all functions: a pointer that the source follows is NULL, or leads to so many bytes,
/// which nobody else touches if they are written.
pub trait Source<'a> {
    /// Where the buffers are then.
    type Memory: Memory;

    /// One that is read.
    unsafe fn read<T>(
        &mut self,
        field: &'static str,
        at: *const T,
        bytes: u64,
    ) -> Result<<Self::Memory as Memory>::Read, Refusal>;
    /// One that is written.
    unsafe fn write<T>(
        &mut self,
        field: &'static str,
        at: *mut T,
        bytes: u64,
    ) -> Result<<Self::Memory as Memory>::Write, Refusal>;
    /// One that is read and written.
    unsafe fn update<T>(
        &mut self,
        field: &'static str,
        at: *mut T,
        bytes: u64,
    ) -> Result<<Self::Memory as Memory>::Update, Refusal>;
    /// One that is read, if it is there.
    unsafe fn maybe_read<T>(
        &mut self,
        field: &'static str,
        at: *const T,
        there: There,
        bytes: u64,
    ) -> Result<<Self::Memory as Memory>::MaybeRead, Refusal>;
    /// One that is written, if it is there.
    unsafe fn maybe_write<T>(
        &mut self,
        field: &'static str,
        at: *mut T,
        there: There,
        bytes: u64,
    ) -> Result<<Self::Memory as Memory>::MaybeWrite, Refusal>;
    /// One that is read and written, if it is there.
    unsafe fn maybe_update<T>(
        &mut self,
        field: &'static str,
        at: *mut T,
        there: There,
        bytes: u64,
    ) -> Result<<Self::Memory as Memory>::MaybeUpdate, Refusal>;
    /// A list of the plan, of so many words at most.
    fn list(&mut self, list: &'a [u32], most: u64) -> <Self::Memory as Memory>::Read;
    /// A list of the plan, if it is there.
    fn maybe_list(
        &mut self,
        list: &'a [u32],
        there: bool,
        most: u64,
    ) -> <Self::Memory as Memory>::MaybeRead;
}

/// Pointers of C.
pub struct Given(pub Buffers);

/// Whether to follow a pointer.
fn follow<T>(field: &'static str, at: *const T, there: There) -> Result<bool, Refusal> {
    match (there, at.is_null()) {
        (There::If(true, _), true) => Err(Refusal::Null(field)),
        (There::If(false, needs), false) => {
            Err(Refusal::Number { field, fault: Fault::Unused { needs } })
        }
        (_, null) => Ok(!null),
    }
}

impl<'a> Source<'a> for Given {
    type Memory = Host<'a>;

    unsafe fn read<T>(
        &mut self,
        field: &'static str,
        at: *const T,
        bytes: u64,
    ) -> Result<&'a [u8], Refusal> {
        // SAFETY: as the caller of this says.
        unsafe { self.0.read(field, at, bytes) }
    }

    unsafe fn write<T>(
        &mut self,
        field: &'static str,
        at: *mut T,
        bytes: u64,
    ) -> Result<&'a mut [u8], Refusal> {
        // SAFETY: as the caller of this says.
        unsafe { self.0.write(field, at, bytes) }
    }

    unsafe fn update<T>(
        &mut self,
        field: &'static str,
        at: *mut T,
        bytes: u64,
    ) -> Result<&'a mut [u8], Refusal> {
        // SAFETY: as the caller of this says.
        unsafe { self.0.write(field, at, bytes) }
    }

    unsafe fn maybe_read<T>(
        &mut self,
        field: &'static str,
        at: *const T,
        there: There,
        bytes: u64,
    ) -> Result<Option<&'a [u8]>, Refusal> {
        // SAFETY: as the caller of this says.
        follow(field, at, there)?.then(|| unsafe { self.0.read(field, at, bytes) }).transpose()
    }

    unsafe fn maybe_write<T>(
        &mut self,
        field: &'static str,
        at: *mut T,
        there: There,
        bytes: u64,
    ) -> Result<Option<&'a mut [u8]>, Refusal> {
        // SAFETY: as the caller of this says.
        follow(field, at, there)?.then(|| unsafe { self.0.write(field, at, bytes) }).transpose()
    }

    unsafe fn maybe_update<T>(
        &mut self,
        field: &'static str,
        at: *mut T,
        there: There,
        bytes: u64,
    ) -> Result<Option<&'a mut [u8]>, Refusal> {
        // SAFETY: as the caller of this says.
        unsafe { self.maybe_write(field, at, there, bytes) }
    }

    fn list(&mut self, list: &'a [u32], _most: u64) -> &'a [u8] {
        bytemuck::cast_slice(list)
    }

    fn maybe_list(&mut self, list: &'a [u32], there: bool, _most: u64) -> Option<&'a [u8]> {
        there.then(|| bytemuck::cast_slice(list))
    }
}

/// Buffers that are nowhere, as large as they may be.
pub struct Imagined;

fn slice(bytes: u64) -> Slice {
    Slice { buffer: Buffer { owner: 0, id: 0, generation: 0 }, offset: 0, bytes }
}

impl There {
    fn imagined(self, bytes: u64) -> Option<Slice> {
        matches!(self, Self::If(true, _)).then(|| slice(bytes))
    }
}

impl<'a> Source<'a> for Imagined {
    type Memory = Recorded;

    unsafe fn read<T>(
        &mut self,
        _: &'static str,
        _: *const T,
        bytes: u64,
    ) -> Result<Read, Refusal> {
        Ok(Read(slice(bytes)))
    }

    unsafe fn write<T>(
        &mut self,
        _: &'static str,
        _: *mut T,
        bytes: u64,
    ) -> Result<Write, Refusal> {
        Ok(Write(slice(bytes)))
    }

    unsafe fn update<T>(
        &mut self,
        _: &'static str,
        _: *mut T,
        bytes: u64,
    ) -> Result<Update, Refusal> {
        Ok(Update(slice(bytes)))
    }

    unsafe fn maybe_read<T>(
        &mut self,
        _: &'static str,
        _: *const T,
        there: There,
        bytes: u64,
    ) -> Result<Option<Read>, Refusal> {
        Ok(there.imagined(bytes).map(Read))
    }

    unsafe fn maybe_write<T>(
        &mut self,
        _: &'static str,
        _: *mut T,
        there: There,
        bytes: u64,
    ) -> Result<Option<Write>, Refusal> {
        Ok(there.imagined(bytes).map(Write))
    }

    unsafe fn maybe_update<T>(
        &mut self,
        _: &'static str,
        _: *mut T,
        there: There,
        bytes: u64,
    ) -> Result<Option<Update>, Refusal> {
        Ok(there.imagined(bytes).map(Update))
    }

    fn list(&mut self, _list: &'a [u32], most: u64) -> Read {
        Read(slice(4 * most))
    }

    fn maybe_list(&mut self, _list: &'a [u32], there: bool, most: u64) -> Option<Read> {
        there.then(|| Read(slice(4 * most)))
    }
}
