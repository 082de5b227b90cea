//! Where the buffers of a call come from: from pointers of C into memory of this process or of
//! a device, or out of thin air, to ask what a call would take.

use super::plan::{Places, Step, count_at};
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
    /// A list of the plan, of so many words.
    fn list(&mut self, step: &Step<'a>, list: usize, words: u64) -> <Self::Memory as Memory>::Read;
    /// A list of the plan, if it is there.
    fn maybe_list(
        &mut self,
        step: &Step<'a>,
        list: usize,
        there: There,
        words: u64,
    ) -> <Self::Memory as Memory>::MaybeRead;
    /// A count of the plan, where it is not told by the parameters.
    fn live(&mut self, count: usize) -> <Self::Memory as Memory>::MaybeRead;
}

/// Pointers of C into memory of this process.
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

    fn list(&mut self, step: &Step<'a>, list: usize, _words: u64) -> &'a [u8] {
        bytemuck::cast_slice(step.lists[list])
    }

    fn maybe_list(
        &mut self,
        step: &Step<'a>,
        list: usize,
        there: There,
        words: u64,
    ) -> Option<&'a [u8]> {
        let there = match there {
            There::If(there, _) => there,
            There::Maybe => !step.lists[list].is_empty(),
        };
        there.then(|| self.list(step, list, words))
    }

    fn live(&mut self, _count: usize) -> Option<&'a [u8]> {
        None
    }
}

/// A device's memory, by address: each slice lies at its offset. Without buffers they are
/// anywhere, as large as they may be, to ask what a call would take.
pub struct Placed {
    /// The caller's buffers, if there are some.
    pub buffers: Option<Buffers>,
    /// The plan, if lists and counts are read from one.
    pub plan: Option<(u64, Places)>,
}

impl Placed {
    /// Buffers that are nowhere; on the CPU, or on a device whose lists lie there.
    pub fn imagined(lists: Option<Places>) -> Self {
        Self { buffers: None, plan: lists.map(|lists| (0, lists)) }
    }

    fn slice<T>(
        &mut self,
        field: &'static str,
        at: *const T,
        bytes: u64,
        written: bool,
    ) -> Result<Slice, Refusal> {
        match &mut self.buffers {
            None => Ok(slice(backends::plugin::ANYWHERE, bytes)),
            Some(buffers) => {
                let bytes = buffers.name(field, at, bytes, written)? as u64;
                Ok(slice(at.expose_provenance() as u64, bytes))
            }
        }
    }

    fn maybe<T>(
        &mut self,
        field: &'static str,
        at: *const T,
        there: There,
        bytes: u64,
        written: bool,
    ) -> Result<Option<Slice>, Refusal> {
        let is_there = match self.buffers {
            None => matches!(there, There::If(true, _)),
            Some(_) => follow(field, at, there)?,
        };
        is_there.then(|| self.slice(field, at, bytes, written)).transpose()
    }

    /// Where a part of the plan lies.
    fn part(&self, at: impl Fn(&Places) -> u64, bytes: u64) -> Slice {
        match &self.plan {
            Some((plan, places)) if self.buffers.is_some() => slice(plan + at(places), bytes),
            _ => slice(backends::plugin::ANYWHERE, bytes),
        }
    }
}

fn slice(at: u64, bytes: u64) -> Slice {
    Slice { buffer: Buffer { owner: 0, id: 0, generation: 0 }, offset: at, bytes }
}

impl<'a> Source<'a> for Placed {
    type Memory = Recorded;

    unsafe fn read<T>(
        &mut self,
        field: &'static str,
        at: *const T,
        bytes: u64,
    ) -> Result<Read, Refusal> {
        self.slice(field, at, bytes, false).map(Read)
    }

    unsafe fn write<T>(
        &mut self,
        field: &'static str,
        at: *mut T,
        bytes: u64,
    ) -> Result<Write, Refusal> {
        self.slice(field, at, bytes, true).map(Write)
    }

    unsafe fn update<T>(
        &mut self,
        field: &'static str,
        at: *mut T,
        bytes: u64,
    ) -> Result<Update, Refusal> {
        self.slice(field, at, bytes, true).map(Update)
    }

    unsafe fn maybe_read<T>(
        &mut self,
        field: &'static str,
        at: *const T,
        there: There,
        bytes: u64,
    ) -> Result<Option<Read>, Refusal> {
        Ok(self.maybe(field, at, there, bytes, false)?.map(Read))
    }

    unsafe fn maybe_write<T>(
        &mut self,
        field: &'static str,
        at: *mut T,
        there: There,
        bytes: u64,
    ) -> Result<Option<Write>, Refusal> {
        Ok(self.maybe(field, at, there, bytes, true)?.map(Write))
    }

    unsafe fn maybe_update<T>(
        &mut self,
        field: &'static str,
        at: *mut T,
        there: There,
        bytes: u64,
    ) -> Result<Option<Update>, Refusal> {
        Ok(self.maybe(field, at, there, bytes, true)?.map(Update))
    }

    fn list(&mut self, _step: &Step<'a>, list: usize, words: u64) -> Read {
        Read(self.part(|places| places.lists[list], 4 * words))
    }

    /// One that a step may lack has its place all the same.
    fn maybe_list(
        &mut self,
        _step: &Step<'a>,
        list: usize,
        there: There,
        words: u64,
    ) -> Option<Read> {
        let is_there = match there {
            There::If(there, _) => there,
            There::Maybe => self.plan.is_some(),
        };
        is_there.then(|| Read(self.part(|places| places.lists[list], 4 * words)))
    }

    fn live(&mut self, count: usize) -> Option<Read> {
        self.plan.is_some().then(|| Read(self.part(|_| count_at(count), 4)))
    }
}
