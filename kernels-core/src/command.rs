//! Buffers of a command, declared once: recorded as slices of device memory,
//! and resolved to host memory where a CPU runs them.

use crate::device;
use crate::error::{Checks, Error, Fault};
use bytemuck::Pod;

/// Where the buffers of a command are: [`Recorded`] or [`Host`].
pub trait Memory {
    /// A buffer that is only read.
    type Read: Span;
    /// A buffer that is only written, and overlaps no other.
    type Write: Span;
    /// A buffer that is read and written, and overlaps no other.
    type Update: Span;
    /// A buffer read if it is there.
    type MaybeRead: MaybeSpan;
    /// A buffer written if it is there.
    type MaybeWrite: MaybeSpan;
    /// A buffer updated if it is there.
    type MaybeUpdate: MaybeSpan;
}

/// Buffers as slices of a device's memory.
#[derive(Clone, Copy, Debug)]
pub struct Recorded;

impl Memory for Recorded {
    type Read = device::Read;
    type Write = device::Write;
    type Update = device::Update;
    type MaybeRead = Option<device::Read>;
    type MaybeWrite = Option<device::Write>;
    type MaybeUpdate = Option<device::Update>;
}

/// Buffers as bytes of this process.
#[derive(Debug)]
pub struct Host<'a>(core::marker::PhantomData<&'a mut [u8]>);

impl<'a> Memory for Host<'a> {
    type Read = &'a [u8];
    type Write = &'a mut [u8];
    type Update = &'a mut [u8];
    type MaybeRead = Option<&'a [u8]>;
    type MaybeWrite = Option<&'a mut [u8]>;
    type MaybeUpdate = Option<&'a mut [u8]>;
}

/// Buffers by their addresses in a device's memory, as its plugin gets them.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

/// A buffer of [`Raw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Where it begins; 0 where there is none.
    pub at: u64,
    /// How long it is.
    pub bytes: u64,
}

impl Memory for Raw {
    type Read = Address;
    type Write = Address;
    type Update = Address;
    type MaybeRead = Option<Address>;
    type MaybeWrite = Option<Address>;
    type MaybeUpdate = Option<Address>;
}

impl Span for Address {
    fn bytes(&self) -> u64 {
        self.bytes
    }
    fn misalignment(&self, align: u64) -> u64 {
        self.at % align
    }
}

/// What a check needs to know of a buffer, wherever it is.
pub trait Span {
    /// Its length.
    fn bytes(&self) -> u64;
    /// Its address modulo `align`, as far as it is known.
    fn misalignment(&self, align: u64) -> u64;
}

/// A buffer that may be absent.
pub trait MaybeSpan {
    /// The buffer, if it is there.
    fn span(&self) -> Option<&dyn Span>;
}

impl<S: Span> MaybeSpan for Option<S> {
    fn span(&self) -> Option<&dyn Span> {
        self.as_ref().map(|span| span as &dyn Span)
    }
}

impl Span for &[u8] {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }
    fn misalignment(&self, align: u64) -> u64 {
        self.as_ptr().addr() as u64 % align
    }
}

impl Span for &mut [u8] {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }
    fn misalignment(&self, align: u64) -> u64 {
        self.as_ptr().addr() as u64 % align
    }
}

macro_rules! recorded_span {
    ($($access:ident)*) => {$(
        impl Span for device::$access {
            fn bytes(&self) -> u64 {
                self.0.bytes
            }
            fn misalignment(&self, align: u64) -> u64 {
                self.0.offset % align
            }
        }
    )*};
}
recorded_span!(Read Write Update);

/// The shape of a matrix whose rows may be apart.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// How many rows.
    pub rows: u32,
    /// Elements from one row to the next.
    pub row_stride: u64,
    /// Elements of a row.
    pub width: u64,
}

/// The largest distance of two rows, in elements.
const ROW_STRIDE_MAX: u64 = 1 << 30;

/// How a command uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Only written.
    Write,
    /// Read and written.
    Update,
}

/// Turns slices of a device's memory into bytes of this process.
pub trait Resolve<'a> {
    /// A buffer that is only read.
    fn read(&mut self, slice: device::Slice) -> Result<&'a [u8], Fault>;
    /// A buffer that this command alone may touch while it runs.
    fn write(&mut self, slice: device::Slice) -> Result<&'a mut [u8], Fault>;
}

/// Lays bytes of this process out in a device's memory: the way back of [`Resolve`].
pub trait Lay {
    /// Where a buffer lies that is only read.
    fn read(&mut self, bytes: &[u8]) -> device::Slice;
    /// Where a buffer lies that is written.
    fn write(&mut self, bytes: &mut [u8]) -> device::Slice;
}

impl Checks {
    /// The buffer is there, long enough and aligned for `count` elements.
    pub fn buffer(
        self,
        field: &'static str,
        dtype: crate::dtype::Dtype,
        count: Option<u64>,
        span: &dyn Span,
    ) -> Result<(), Error> {
        self.holds(field, dtype.bytes(count), span.bytes())?;
        self.aligned(field, dtype.align(), span)
    }

    /// The buffer is long enough and aligned for `count` 32-bit numbers.
    pub fn words(
        self,
        field: &'static str,
        count: Option<u64>,
        span: &dyn Span,
    ) -> Result<(), Error> {
        self.holds(field, count.and_then(|count| count.checked_mul(4)), span.bytes())?;
        self.aligned(field, 4, span)
    }

    /// The buffer holds `rows` rows of `width` elements, `row_stride` elements apart.
    pub fn matrix(
        self,
        field: &'static str,
        dtype: crate::dtype::Dtype,
        shape: Rows,
        span: &dyn Span,
    ) -> Result<(), Error> {
        let Rows { rows, row_stride, width } = shape;
        let before = u64::from(rows.saturating_sub(1)).checked_mul(row_stride);
        // The bound keeps every product of a row and its bytes within 64 bits.
        if row_stride < width || row_stride > ROW_STRIDE_MAX {
            let fault = Fault::Bytes {
                expected: dtype.bytes(Some(width)).unwrap_or(u64::MAX),
                got: dtype.bytes(Some(row_stride)).unwrap_or(u64::MAX),
            };
            return Err(self.refuse(field, fault));
        }
        let count = before.and_then(|before| before.checked_add(width));
        self.buffer(field, dtype, count, span)
    }

    /// The buffer starts at a multiple of `align` bytes.
    pub fn aligned(self, field: &'static str, align: u64, span: &dyn Span) -> Result<(), Error> {
        match span.misalignment(align) {
            0 => Ok(()),
            got => Err(self.refuse(field, Fault::Align { expected: align, got })),
        }
    }
}

/// The elements of a checked buffer.
pub fn cast<T: Pod>(bytes: &[u8]) -> &[T] {
    let whole = bytes.len() / size_of::<T>() * size_of::<T>();
    bytemuck::cast_slice(&bytes[..whole])
}

/// The elements of a checked buffer, to write.
pub fn cast_mut<T: Pod>(bytes: &mut [u8]) -> &mut [T] {
    let whole = bytes.len() / size_of::<T>() * size_of::<T>();
    bytemuck::cast_slice_mut(&mut bytes[..whole])
}

/// The live count of a step buffer of one u32, or all of `capacity` without one.
pub fn live(
    checks: Checks,
    field: &'static str,
    count: Option<&[u8]>,
    capacity: u32,
) -> Result<usize, Error> {
    let Some(count) = count else {
        return Ok(capacity as usize);
    };
    let count = cast::<u32>(count);
    checks.elements(field, &count[..1], 0..=capacity)?;
    Ok(count[0] as usize)
}

/// Declares a command: its parameters and its buffers by name, each with how it
/// is used. One declaration gives the struct for any [`Memory`], the list of
/// slices that overlap checks walk, and the step from device to host memory; a
/// function cannot give a struct, hence a macro.
#[macro_export]
macro_rules! command {
    ($(#[$meta:meta])* pub struct $name:ident ($kernel:literal, $params:ty) {
        $($(#[$field_meta:meta])* $field:ident : $access:ident,)*
    }) => {
        $(#[$meta])*
        pub struct $name<M: $crate::command::Memory = $crate::command::Recorded> {
            /// The scalars of the call.
            pub params: $params,
            $($(#[$field_meta])* pub $field: M::$access,)*
        }

        impl Clone for $name {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl Copy for $name {}

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name)).field("params", &self.params)
                    $(.field(stringify!($field), &self.$field))*.finish()
            }
        }

        impl $name {
            /// Calls `f` with every buffer as declared, those that are absent too.
            pub fn buffers(
                &self,
                mut f: impl FnMut(
                    &'static str,
                    Option<($crate::command::Access, $crate::device::Slice)>,
                ),
            ) {
                $(f(stringify!($field), $crate::command!(@buffer self, $field, $access));)*
            }

            /// The same command on this process's memory.
            pub fn resolve<'a>(
                &self,
                memory: &mut impl $crate::command::Resolve<'a>,
            ) -> Result<$name<$crate::command::Host<'a>>, $crate::Error> {
                Ok($name {
                    params: self.params,
                    $($field: $crate::command!(@resolve memory, self, $kernel, $field, $access),)*
                })
            }
        }

        impl $name<$crate::command::Host<'_>> {
            /// The same command on a device's memory, buffer by buffer as declared.
            pub fn lay(&mut self, memory: &mut impl $crate::command::Lay) -> $name {
                $name {
                    params: self.params,
                    $($field: $crate::command!(@lay memory, self, $field, $access),)*
                }
            }
        }

        impl $name<$crate::command::Raw> {
            /// Of the bytes of its parameters and of its buffers as declared; nothing where
            /// they are not as many, or one that must be there is not.
            pub fn raw(params: &[u8], buffers: &[$crate::command::Address]) -> Option<Self> {
                if buffers.len() != Self::FIELDS.len() {
                    return None;
                }
                let params = bytemuck::try_pod_read_unaligned(params).ok()?;
                let mut buffers = buffers.iter().copied().map(|at| (at.at != 0).then_some(at));
                let mut next = || buffers.next().flatten();
                Some(Self { params, $($field: $crate::command!(@raw next, $access),)* })
            }

            /// The same command on slices, buffer by buffer as declared.
            pub fn sliced(
                &self,
                mut slice: impl FnMut($crate::command::Address) -> $crate::device::Slice,
            ) -> $name {
                $name {
                    params: self.params,
                    $($field: $crate::command!(@sliced slice, self, $field, $access),)*
                }
            }
        }

        impl<M: $crate::command::Memory> $name<M> {
            /// The bytes of its parameters.
            pub fn params(&self) -> &[u8] {
                bytemuck::bytes_of(&self.params)
            }

            /// Its refusals begin with this name.
            pub const CHECKS: $crate::error::Checks = $crate::error::Checks($kernel);

            /// The names of its buffers, as declared.
            pub const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];
        }
    };
    (@buffer $self:ident, $field:ident, MaybeRead) => {
        $self.$field.map(|slice| ($crate::command::Access::Read, slice.0))
    };
    (@buffer $self:ident, $field:ident, MaybeWrite) => {
        $self.$field.map(|slice| ($crate::command::Access::Write, slice.0))
    };
    (@buffer $self:ident, $field:ident, MaybeUpdate) => {
        $self.$field.map(|slice| ($crate::command::Access::Update, slice.0))
    };
    (@buffer $self:ident, $field:ident, $access:ident) => {
        Some(($crate::command::Access::$access, $self.$field.0))
    };
    (@raw $next:ident, MaybeRead) => {
        $next()
    };
    (@raw $next:ident, MaybeWrite) => {
        $next()
    };
    (@raw $next:ident, MaybeUpdate) => {
        $next()
    };
    (@raw $next:ident, $access:ident) => {
        $next()?
    };
    (@sliced $slice:ident, $self:ident, $field:ident, MaybeRead) => {
        $self.$field.map(|at| $crate::device::Read($slice(at)))
    };
    (@sliced $slice:ident, $self:ident, $field:ident, MaybeWrite) => {
        $self.$field.map(|at| $crate::device::Write($slice(at)))
    };
    (@sliced $slice:ident, $self:ident, $field:ident, MaybeUpdate) => {
        $self.$field.map(|at| $crate::device::Update($slice(at)))
    };
    (@sliced $slice:ident, $self:ident, $field:ident, $access:ident) => {
        $crate::device::$access($slice($self.$field))
    };
    (@lay $memory:ident, $self:ident, $field:ident, Read) => {
        $crate::device::Read($memory.read($self.$field))
    };
    (@lay $memory:ident, $self:ident, $field:ident, MaybeRead) => {
        $self.$field.map(|bytes| $crate::device::Read($memory.read(bytes)))
    };
    (@lay $memory:ident, $self:ident, $field:ident, MaybeWrite) => {
        $self.$field.as_deref_mut().map(|bytes| $crate::device::Write($memory.write(bytes)))
    };
    (@lay $memory:ident, $self:ident, $field:ident, MaybeUpdate) => {
        $self.$field.as_deref_mut().map(|bytes| $crate::device::Update($memory.write(bytes)))
    };
    (@lay $memory:ident, $self:ident, $field:ident, $access:ident) => {
        $crate::device::$access($memory.write($self.$field))
    };
    (@resolve $memory:ident, $self:ident, $kernel:literal, $field:ident, Read) => {
        $memory.read($self.$field.0).map_err(|fault| $crate::Error::new($kernel, stringify!($field), fault))?
    };
    (@resolve $memory:ident, $self:ident, $kernel:literal, $field:ident, MaybeRead) => {
        match $self.$field {
            Some(slice) => Some($memory.read(slice.0)
                .map_err(|fault| $crate::Error::new($kernel, stringify!($field), fault))?),
            None => None,
        }
    };
    (@resolve $memory:ident, $self:ident, $kernel:literal, $field:ident, MaybeWrite) => {
        match $self.$field {
            Some(slice) => Some($memory.write(slice.0)
                .map_err(|fault| $crate::Error::new($kernel, stringify!($field), fault))?),
            None => None,
        }
    };
    (@resolve $memory:ident, $self:ident, $kernel:literal, $field:ident, MaybeUpdate) => {
        $crate::command!(@resolve $memory, $self, $kernel, $field, MaybeWrite)
    };
    (@resolve $memory:ident, $self:ident, $kernel:literal, $field:ident, $access:ident) => {
        $memory.write($self.$field.0).map_err(|fault| $crate::Error::new($kernel, stringify!($field), fault))?
    };
}
