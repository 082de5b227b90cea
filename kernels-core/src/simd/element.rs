//! Element types of buffers, loaded as f32 and rounded to nearest even when stored.

use super::{LANES, Lanes};
use crate::command::{cast, cast_mut};
use crate::dtype::Dtype;
use bytemuck::Pod;
use core::ops::Range;
use half::{bf16, f16};

/// A floating-point type that buffers hold and that kernels compute on as f32.
pub trait Element: Pod + Send + Sync {
    /// Its name in parameters.
    const DTYPE: Dtype;
    /// As f32, exactly.
    fn to_f32(self) -> f32;
    /// The nearest value, ties to even.
    fn from_f32(x: f32) -> Self;
    /// Sixteen, as f32.
    fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F;
    /// Sixteen, rounded.
    fn store<L: Lanes>(l: L, v: L::F, to: &mut [Self; LANES]);
}

/// Up to sixteen elements; the lanes past them hold `fill`.
#[inline(always)]
pub fn load_part<T: Element, L: Lanes>(l: L, from: &[T], fill: f32) -> L::F {
    let mut whole = [T::from_f32(fill); LANES];
    whole[..from.len()].copy_from_slice(from);
    T::load(l, &whole)
}

/// The first lanes, as many as `to` has elements, at most sixteen.
#[inline(always)]
pub fn store_part<T: Element, L: Lanes>(l: L, v: L::F, to: &mut [T]) {
    let mut whole = [T::zeroed(); LANES];
    T::store(l, v, &mut whole);
    to.copy_from_slice(&whole[..to.len()]);
}

/// Elements whose type is known when they run: one match for sixteen of them.
#[derive(Clone, Copy, Debug)]
pub enum Floats<'a> {
    /// f32.
    F32(&'a [f32]),
    /// f16.
    F16(&'a [f16]),
    /// bf16.
    Bf16(&'a [bf16]),
}

/// [`Floats`] to write.
#[derive(Debug)]
pub enum FloatsMut<'a> {
    /// f32.
    F32(&'a mut [f32]),
    /// f16.
    F16(&'a mut [f16]),
    /// bf16.
    Bf16(&'a mut [bf16]),
}

impl<'a> Floats<'a> {
    /// A checked buffer of a float type.
    pub fn new(dtype: Dtype, bytes: &'a [u8]) -> Self {
        match dtype {
            Dtype::F32 => Self::F32(cast(bytes)),
            Dtype::F16 => Self::F16(cast(bytes)),
            Dtype::Bf16 => Self::Bf16(cast(bytes)),
            other => unreachable!("check() let {} through where only floats go", other.name()),
        }
    }

    /// The elements of a range.
    #[inline(always)]
    pub fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(all) => Self::F32(&all[range]),
            Self::F16(all) => Self::F16(&all[range]),
            Self::Bf16(all) => Self::Bf16(&all[range]),
        }
    }

    /// Sixteen from `at`; past the end, `fill`.
    #[inline(always)]
    pub fn load<L: Lanes>(self, l: L, at: usize, fill: f32) -> L::F {
        match self {
            Self::F32(all) => load_at(l, all, at, fill),
            Self::F16(all) => load_at(l, all, at, fill),
            Self::Bf16(all) => load_at(l, all, at, fill),
        }
    }
}

impl<'a> FloatsMut<'a> {
    /// A checked buffer of a float type.
    pub fn new(dtype: Dtype, bytes: &'a mut [u8]) -> Self {
        match dtype {
            Dtype::F32 => Self::F32(cast_mut(bytes)),
            Dtype::F16 => Self::F16(cast_mut(bytes)),
            Dtype::Bf16 => Self::Bf16(cast_mut(bytes)),
            other => unreachable!("check() let {} through where only floats go", other.name()),
        }
    }

    /// The elements of a range.
    #[inline(always)]
    pub fn part(&mut self, range: Range<usize>) -> FloatsMut<'_> {
        match self {
            Self::F32(all) => FloatsMut::F32(&mut all[range]),
            Self::F16(all) => FloatsMut::F16(&mut all[range]),
            Self::Bf16(all) => FloatsMut::Bf16(&mut all[range]),
        }
    }

    /// To read what was written.
    #[inline(always)]
    pub fn read(&self) -> Floats<'_> {
        match self {
            Self::F32(all) => Floats::F32(all),
            Self::F16(all) => Floats::F16(all),
            Self::Bf16(all) => Floats::Bf16(all),
        }
    }

    /// Sixteen from `at`, rounded; lanes past the end are dropped.
    #[inline(always)]
    pub fn store<L: Lanes>(&mut self, l: L, v: L::F, at: usize) {
        match self {
            Self::F32(all) => store_at(l, v, all, at),
            Self::F16(all) => store_at(l, v, all, at),
            Self::Bf16(all) => store_at(l, v, all, at),
        }
    }
}

/// Sixteen elements from `at`; past the end, `fill`.
#[inline(always)]
pub fn load_at<T: Element, L: Lanes>(l: L, from: &[T], at: usize, fill: f32) -> L::F {
    let rest = &from[at..];
    match rest.first_chunk::<LANES>() {
        Some(whole) => T::load(l, whole),
        None => load_part(l, rest, fill),
    }
}

/// Sixteen elements from `at`, rounded; lanes past the end are dropped.
#[inline(always)]
pub fn store_at<T: Element, L: Lanes>(l: L, v: L::F, to: &mut [T], at: usize) {
    let rest = &mut to[at..];
    match rest.first_chunk_mut::<LANES>() {
        Some(whole) => T::store(l, v, whole),
        None => store_part(l, v, rest),
    }
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F {
        l.load(from)
    }
    #[inline(always)]
    fn store<L: Lanes>(l: L, v: L::F, to: &mut [Self; LANES]) {
        l.store(v, to);
    }
}

impl Element for f16 {
    const DTYPE: Dtype = Dtype::F16;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        f16::from_f32(x)
    }
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F {
        l.load_f16(bytemuck::must_cast_ref(from))
    }
    #[inline(always)]
    fn store<L: Lanes>(l: L, v: L::F, to: &mut [Self; LANES]) {
        l.store_f16(v, bytemuck::must_cast_mut(to));
    }
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        bf16::from_f32(x)
    }
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F {
        l.float_of_bits(l.shl::<16>(l.load_u16(bytemuck::must_cast_ref(from))))
    }
    #[inline(always)]
    fn store<L: Lanes>(l: L, v: L::F, to: &mut [Self; LANES]) {
        let bits = l.bits_of(v);
        let odd = l.iand(l.shr::<16>(bits), l.isplat(1));
        let rounded = l.shr::<16>(l.iadd(bits, l.iadd(l.isplat(0x7fff), odd)));
        // Rounding would carry some NaNs into infinity or zero: keep their top bits, quiet.
        let quiet = l.ior(l.shr::<16>(bits), l.isplat(0x40));
        let magnitude = l.iand(bits, l.isplat(0x7fff_ffff));
        let nan = l.igt(magnitude, l.isplat(0x7f80_0000));
        l.store_u16(l.iselect(nan, quiet, rounded), bytemuck::must_cast_mut(to));
    }
}
