//! Buffers of one call: pointers become slices, and none that is written overlaps another.

use crate::error::Refusal;
use kernels_core::error::Fault;
use std::ops::Range;

/// Buffers of a call at most.
const BUFFERS_MAX: usize = 24;

/// What a call has named so far.
pub struct Buffers {
    named: [(&'static str, Range<usize>, bool); BUFFERS_MAX],
    count: usize,
}

impl Buffers {
    /// None.
    pub fn new() -> Self {
        Self { named: [const { ("", 0..0, false) }; BUFFERS_MAX], count: 0 }
    }

    /// A buffer that is read.
    ///
    /// # Safety
    ///
    /// A pointer that is not NULL leads to so many bytes, which nobody writes while `'a` lasts.
    pub unsafe fn read<'a, T>(
        &mut self,
        field: &'static str,
        at: *const T,
        bytes: u64,
    ) -> Result<&'a [u8], Refusal> {
        let len = self.name(field, at, bytes, false)?;
        // SAFETY: it is there, as the caller of this says.
        Ok(unsafe { std::slice::from_raw_parts(at.cast(), len) })
    }

    /// A buffer that is read, if it is there.
    ///
    /// # Safety
    ///
    /// As of [`Buffers::read`].
    pub unsafe fn maybe_read<'a, T>(
        &mut self,
        field: &'static str,
        at: *const T,
        bytes: u64,
    ) -> Result<Option<&'a [u8]>, Refusal> {
        if at.is_null() {
            return Ok(None);
        }
        // SAFETY: as the caller of this says.
        unsafe { self.read(field, at, bytes) }.map(Some)
    }

    /// A buffer that is written.
    ///
    /// # Safety
    ///
    /// A pointer that is not NULL leads to so many bytes, which nobody else touches while `'a`
    /// lasts, but by buffers that are named here too.
    pub unsafe fn write<'a, T>(
        &mut self,
        field: &'static str,
        at: *mut T,
        bytes: u64,
    ) -> Result<&'a mut [u8], Refusal> {
        let len = self.name(field, at, bytes, true)?;
        // SAFETY: it is there, and no other slice of this call reaches into it.
        Ok(unsafe { std::slice::from_raw_parts_mut(at.cast(), len) })
    }

    /// Numbers that are read, as many as are said; none need not be anywhere.
    ///
    /// # Safety
    ///
    /// As of [`Buffers::read`].
    pub unsafe fn words<'a>(
        &mut self,
        field: &'static str,
        at: *const u32,
        count: u32,
    ) -> Result<&'a [u32], Refusal> {
        match count {
            0 => Ok(&[]),
            // SAFETY: as the caller of this says.
            _ => unsafe { self.read(field, at, 4 * u64::from(count)) }.map(bytemuck::cast_slice),
        }
    }

    /// Names one more, and says how many bytes it has.
    pub fn name<T>(
        &mut self,
        field: &'static str,
        at: *const T,
        bytes: u64,
        written: bool,
    ) -> Result<usize, Refusal> {
        crate::guard::aligned(field, at)?;
        let end = usize::try_from(bytes).ok().and_then(|bytes| at.addr().checked_add(bytes));
        let end = end.filter(|_| bytes <= isize::MAX as u64).ok_or(Refusal::Number {
            field,
            fault: Fault::Bytes { expected: bytes, got: isize::MAX as u64 },
        })?;
        let here = at.addr()..end;
        let meets = |(_, other, writes): &&(_, Range<usize>, bool)| {
            (written || *writes) && here.start < other.end && other.start < here.end
        };
        if let Some((with, ..)) = self.named[..self.count].iter().find(meets) {
            return Err(Refusal::Number { field, fault: Fault::Overlap { with } });
        }
        self.named[self.count] = (field, here, written);
        self.count += 1;
        Ok(bytes as usize)
    }
}

/// Tells a number to the caller.
///
/// # Safety
///
/// The pointer is NULL, or leads to one.
pub unsafe fn tell<T>(field: &'static str, to: *mut T, number: T) -> Result<(), Refusal> {
    crate::guard::aligned(field, to)?;
    // SAFETY: it is there, and aligned.
    unsafe { to.write(number) };
    Ok(())
}
