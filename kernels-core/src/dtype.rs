//! Element types by their numbers in parameter blocks.

use crate::error::{Checks, Error, Fault};
use crate::params;

/// What the elements of a buffer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Dtype {
    /// IEEE binary32.
    F32 = params::DTYPE_F32,
    /// IEEE binary16.
    F16 = params::DTYPE_F16,
    /// The upper half of a binary32.
    Bf16 = params::DTYPE_BF16,
    /// fp8 with four bits of exponent, finite only.
    E4m3 = params::DTYPE_E4M3,
    /// Signed bytes.
    I8 = params::DTYPE_I8,
    /// Signed nibbles, the low one first.
    I4 = params::DTYPE_I4,
}

impl Dtype {
    /// Every type.
    pub const ALL: [Dtype; 6] =
        [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::E4m3, Dtype::I8, Dtype::I4];

    /// The type of that number, if the field allows it.
    pub fn parse(
        checks: Checks,
        field: &'static str,
        number: u32,
        allowed: &[Dtype],
    ) -> Result<Dtype, Error> {
        let found = allowed.iter().find(|dtype| **dtype as u32 == number);
        found.copied().ok_or_else(|| {
            let expected = "one of the element types that its contract names";
            checks.refuse(field, Fault::Unsupported { expected, got: i64::from(number) })
        })
    }

    /// A type that kernels compute on as f32 and round when they store.
    pub fn parse_float(checks: Checks, field: &'static str, number: u32) -> Result<Dtype, Error> {
        Self::parse(checks, field, number, &[Dtype::F32, Dtype::F16, Dtype::Bf16])
    }

    /// Bits of one element.
    pub const fn bits(self) -> u64 {
        match self {
            Dtype::F32 => 32,
            Dtype::F16 | Dtype::Bf16 => 16,
            Dtype::E4m3 | Dtype::I8 => 8,
            Dtype::I4 => 4,
        }
    }

    /// Bytes that `count` elements take, or `None` past 2⁶⁴.
    pub fn bytes(self, count: Option<u64>) -> Option<u64> {
        count?.checked_mul(self.bits()).map(|bits| bits.div_ceil(8))
    }

    /// The alignment of an element in bytes.
    pub const fn align(self) -> u64 {
        self.bits().div_ceil(8)
    }

    /// `"f32"`, `"bf16"`, …
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::E4m3 => "e4m3",
            Dtype::I8 => "i8",
            Dtype::I4 => "i4",
        }
    }
}

/// Runs an expression with `$T` naming the element type of a float [`Dtype`].
#[macro_export]
macro_rules! with_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::dtype::Dtype::F32 => {
                type $T = f32;
                $body
            }
            $crate::dtype::Dtype::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::dtype::Dtype::Bf16 => {
                type $T = half::bf16;
                $body
            }
            other => unreachable!("check() let {} through where only floats go", other.name()),
        }
    };
}
