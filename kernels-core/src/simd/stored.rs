//! Numbers as pages of keys and values hold them, widened to f32 exactly.

use super::{Element, LANES, Lanes};
use crate::math::{E4m3, load_e4m3};
use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

/// A cell of a page: one number, or two that share a byte.
pub trait Stored: Pod + Send + Sync {
    /// Numbers of a cell.
    const PER_CELL: usize;
    /// Whether it is an f32 already.
    const WIDE: bool = false;
    /// The first number of sixteen cells.
    fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F;
    /// The second number of sixteen cells, where there are two.
    #[inline(always)]
    fn load_second<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F {
        Self::load(l, from)
    }
}

/// Two signed nibbles, the low one first.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct Nibbles(pub u8);

macro_rules! stored_floats {
    ($($float:ty: $wide:literal)*) => {$(
        impl Stored for $float {
            const PER_CELL: usize = 1;
            const WIDE: bool = $wide;
            #[inline(always)]
            fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F {
                <$float as Element>::load(l, from)
            }
        }
    )*};
}
stored_floats!(f32: true f16: false bf16: false);

impl Stored for i8 {
    const PER_CELL: usize = 1;
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F {
        l.to_float(l.load_i8(from))
    }
}

impl Stored for E4m3 {
    const PER_CELL: usize = 1;
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F {
        load_e4m3(l, bytemuck::must_cast_ref(from))
    }
}

impl Stored for Nibbles {
    const PER_CELL: usize = 2;
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F {
        // Up to the sign's place, then down with the sign.
        let cells = l.load_u8(bytemuck::must_cast_ref(from));
        l.to_float(l.sar::<28>(l.shl::<28>(cells)))
    }
    #[inline(always)]
    fn load_second<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F {
        let cells = l.load_u8(bytemuck::must_cast_ref(from));
        l.to_float(l.sar::<28>(l.shl::<24>(cells)))
    }
}

/// Runs an expression with `$T` naming the cell type of pages of a
/// [`Dtype`](crate::dtype::Dtype).
#[macro_export]
macro_rules! with_stored {
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
            $crate::dtype::Dtype::E4m3 => {
                type $T = $crate::math::E4m3;
                $body
            }
            $crate::dtype::Dtype::I8 => {
                type $T = i8;
                $body
            }
            $crate::dtype::Dtype::I4 => {
                type $T = $crate::simd::Nibbles;
                $body
            }
        }
    };
}
