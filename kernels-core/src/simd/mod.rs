//! Vectors of sixteen, at four levels.
//!
//! Every level computes on sixteen lanes: one AVX-512 register, two of AVX2, four
//! of NEON, or an array at the scalar level. So an algorithm is written once, its
//! order of arithmetic is the same everywhere, and the levels agree by bits. A
//! value of a level is a token: holding one proves that the CPU has the
//! instructions.

pub mod attend;
mod detect;
mod element;
pub mod environment;
mod prefetch;
mod scalar;
mod stored;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use element::{Element, Floats, FloatsMut, load_at, load_part, store_at, store_part};
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use prefetch::{far, near, prefetch};
pub use scalar::Scalar;
pub use stored::{Nibbles, Stored};

/// Lanes of a vector, at every level.
pub const LANES: usize = 16;

/// One level of the CPU's instructions, as a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Plain Rust, for any machine: the executable order.
    Scalar(Scalar),
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 F, BW, DQ, VL and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// NEON, which every 64-bit Arm has.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Level {
    /// Every level this machine has, plainest first.
    pub fn all() -> impl Iterator<Item = Level> {
        let scalar = core::iter::once(Level::Scalar(Scalar));
        #[cfg(target_arch = "x86_64")]
        let vector = {
            let avx2 = Avx2::detect().map(Level::Avx2);
            avx2.into_iter().chain(Avx512::detect().map(Level::Avx512))
        };
        #[cfg(target_arch = "aarch64")]
        let vector = Neon::detect().map(Level::Neon).into_iter();
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let vector = core::iter::empty();
        scalar.chain(vector)
    }

    /// The fastest level this machine has.
    pub fn best() -> Level {
        Self::all().last().unwrap_or(Level::Scalar(Scalar))
    }

    /// The level of that name, if this machine has it.
    pub fn named(name: &str) -> Option<Level> {
        Self::all().find(|level| level.name() == name)
    }

    /// `"scalar"`, `"avx2"`, `"avx512"` or `"neon"`.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Level::Neon(_) => "neon",
        }
    }

    /// [`Lanes::MANY_REGISTERS`] of the level.
    pub const fn many_registers(self) -> bool {
        match self {
            Level::Scalar(_) => Scalar::MANY_REGISTERS,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => Avx2::MANY_REGISTERS,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => Avx512::MANY_REGISTERS,
            #[cfg(target_arch = "aarch64")]
            Level::Neon(_) => Neon::MANY_REGISTERS,
        }
    }
}

/// The elementwise operations of a level, on sixteen lanes.
///
/// Kernels are generic over this trait and inlined whole into one function per
/// level (see [`levels!`](crate::levels)), so that no operation is ever a call.
pub trait Lanes: Copy + Send + Sync + 'static {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen 32-bit integers, signed or not as the operation says.
    type I: Copy;
    /// Sixteen booleans.
    type M: Copy;

    /// Whether some thirty vectors stay in registers: how many rows a product takes at
    /// once depends on it, and no bit of the result.
    const MANY_REGISTERS: bool = false;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F;
    /// Lane `i` from element `i`.
    fn load(self, from: &[f32; LANES]) -> Self::F;
    /// Element `i` from lane `i`.
    fn store(self, v: Self::F, to: &mut [f32; LANES]);
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The square root, correctly rounded.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The nearest whole number, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `a > b`; false where either is NaN.
    fn gt(self, a: Self::F, b: Self::F) -> Self::M;
    /// `a >= b`; false where either is NaN.
    fn ge(self, a: Self::F, b: Self::F) -> Self::M;
    /// `a == b`; false where either is NaN.
    fn eq(self, a: Self::F, b: Self::F) -> Self::M;
    /// `m ? a : b`.
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F;

    /// Lane `i` from bit `i`.
    fn mask(self, bits: u16) -> Self::M;
    /// Bit `i` from lane `i`.
    fn mask_bits(self, m: Self::M) -> u16;

    /// All lanes `x`.
    fn isplat(self, x: i32) -> Self::I;
    /// Lane `i` from element `i`.
    fn iload(self, from: &[i32; LANES]) -> Self::I;
    /// Element `i` from lane `i`.
    fn istore(self, v: Self::I, to: &mut [i32; LANES]);
    /// `a + b`, wrapping.
    fn iadd(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a - b`, wrapping.
    fn isub(self, a: Self::I, b: Self::I) -> Self::I;
    /// The low halves of `a * b`.
    fn imul(self, a: Self::I, b: Self::I) -> Self::I;
    /// The high halves of `a * b`, unsigned.
    fn umul_high(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a & b`.
    fn iand(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a | b`.
    fn ior(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a ^ b`.
    fn ixor(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a << N`.
    fn shl<const N: u32>(self, a: Self::I) -> Self::I;
    /// `a >> N`, filled with zeros.
    fn shr<const N: u32>(self, a: Self::I) -> Self::I;
    /// `a >> N`, filled with the sign.
    fn sar<const N: u32>(self, a: Self::I) -> Self::I;
    /// `a > b`, signed.
    fn igt(self, a: Self::I, b: Self::I) -> Self::M;
    /// `a == b`.
    fn ieq(self, a: Self::I, b: Self::I) -> Self::M;
    /// `m ? a : b`.
    fn iselect(self, m: Self::M, a: Self::I, b: Self::I) -> Self::I;

    /// `sums` plus, in each lane, the products of its four unsigned bytes with its
    /// four signed ones; exact where the sum fits an i32.
    fn dot4(self, sums: Self::I, unsigned: Self::I, signed: Self::I) -> Self::I;

    /// The nearest integer, ties to even; any value where `|a| ≥ 2³⁰` or NaN.
    fn to_int(self, a: Self::F) -> Self::I;
    /// The nearest f32 of a signed integer.
    fn to_float(self, a: Self::I) -> Self::F;
    /// The bits of each lane.
    fn bits_of(self, a: Self::F) -> Self::I;
    /// The f32 of those bits.
    fn float_of_bits(self, a: Self::I) -> Self::F;

    /// Bytes, widened with zeros.
    fn load_u8(self, from: &[u8; LANES]) -> Self::I;
    /// Bytes, widened with their sign.
    fn load_i8(self, from: &[i8; LANES]) -> Self::I;
    /// 16-bit words, widened with zeros.
    fn load_u16(self, from: &[u16; LANES]) -> Self::I;
    /// The low byte of each lane.
    fn store_u8(self, v: Self::I, to: &mut [u8; LANES]);
    /// The low word of each lane.
    fn store_u16(self, v: Self::I, to: &mut [u16; LANES]);
    /// f16 as f32, exactly.
    fn load_f16(self, from: &[u16; LANES]) -> Self::F;
    /// f32 as f16, to nearest even.
    fn store_f16(self, v: Self::F, to: &mut [u16; LANES]);

    /// Lane `j` of vector `i` from lane `i` of vector `j`.
    #[inline(always)]
    fn transpose(self, v: [Self::I; LANES]) -> [Self::I; LANES] {
        let (mut rows, mut columns) = ([[0; LANES]; LANES], [[0; LANES]; LANES]);
        let mut i = 0;
        while i < LANES {
            self.istore(v[i], &mut rows[i]);
            i += 1;
        }
        for (i, column) in columns.iter_mut().enumerate() {
            for (value, row) in column.iter_mut().zip(&rows) {
                *value = row[i];
            }
        }
        let mut v = v;
        i = 0;
        while i < LANES {
            v[i] = self.iload(&columns[i]);
            i += 1;
        }
        v
    }

    /// The sum of all lanes: `i` with `i + 8`, then `+ 4`, `+ 2`, `+ 1`.
    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        let mut lane = [0.0; LANES];
        self.store(v, &mut lane);
        let mut half = LANES / 2;
        while half > 0 {
            let mut i = 0;
            while i < half {
                lane[i] += lane[i + half];
                i += 1;
            }
            half /= 2;
        }
        lane[0]
    }

    /// The largest lane, folded like [`sum`](Lanes::sum) by [`max`](Lanes::max).
    #[inline(always)]
    fn largest(self, v: Self::F) -> f32 {
        let mut lane = [0.0; LANES];
        self.store(v, &mut lane);
        let mut half = LANES / 2;
        while half > 0 {
            let mut i = 0;
            while i < half {
                let (a, b) = (lane[i], lane[i + half]);
                lane[i] = if a > b { a } else { b };
                i += 1;
            }
            half /= 2;
        }
        lane[0]
    }

    /// A mask of the lanes below `count`.
    #[inline(always)]
    fn first(self, count: usize) -> Self::M {
        self.mask(if count >= LANES { u16::MAX } else { (1u16 << count) - 1 })
    }
}

/// Makes one function that runs a generic body at any [`Level`].
///
/// `levels! { fn name<T: Bound>(a: A, b: B) = body; }` makes
/// `fn name<T: Bound>(level: Level, a: A, b: B)`, which calls `body(token, a, b)`
/// compiled for that level's instructions. `body` is generic over [`Lanes`] and
/// `#[inline(always)]`, and so is everything it calls in its loops; closures that
/// the compiler might not inline do not belong there. Sizes may be generic instead of
/// types, or before them (`fn name<const ROWS: usize; T: Bound>(…)`): each is a
/// function of its own, small enough for its registers.
#[macro_export]
macro_rules! levels {
    ($(#[$meta:meta])* $vis:vis fn $name:ident
        <$(const $size:ident : $kind:ty),+ $(; $($generic:ident : $bound:path),+)?>
        ($($arg:ident : $type:ty),* $(,)?) $(-> $output:ty)? = $body:path;) => {
        $crate::levels! {
            @ [$(const $size: $kind,)+ $($($generic: $bound),+)?] $(#[$meta])* $vis fn $name($($arg: $type),*) $(-> $output)? = $body;
        }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($generic:ident : $bound:path),+>)?
        ($($arg:ident : $type:ty),* $(,)?) $(-> $output:ty)? = $body:path;) => {
        $crate::levels! {
            @ [$($($generic: $bound),+)?] $(#[$meta])* $vis fn $name($($arg: $type),*) $(-> $output)? = $body;
        }
    };
    (@ [$($generics:tt)*] $(#[$meta:meta])* $vis:vis fn $name:ident
        ($($arg:ident : $type:ty),*) $(-> $output:ty)? = $body:path;) => {
        $(#[$meta])*
        #[allow(unsafe_code, reason = "a token proves the instructions of its level")]
        #[allow(clippy::too_many_arguments, reason = "the level comes before the body's own arguments")]
        $vis fn $name <$($generics)*> (level: $crate::simd::Level, $($arg: $type),*) $(-> $output)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,popcnt,lzcnt")]
            #[allow(clippy::too_many_arguments, reason = "the body's own arguments")]
            fn avx2 <$($generics)*> (token: $crate::simd::Avx2, $($arg: $type),*) $(-> $output)? {
                $body(token, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi1,bmi2,popcnt,lzcnt")]
            #[allow(clippy::too_many_arguments, reason = "the body's own arguments")]
            fn avx512 <$($generics)*> (token: $crate::simd::Avx512, $($arg: $type),*) $(-> $output)? {
                $body(token, $($arg),*)
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            #[allow(clippy::too_many_arguments, reason = "the body's own arguments")]
            fn neon <$($generics)*> (token: $crate::simd::Neon, $($arg: $type),*) $(-> $output)? {
                $body(token, $($arg),*)
            }
            match level {
                $crate::simd::Level::Scalar(token) => $body(token, $($arg),*),
                // SAFETY: the token is only made where the CPU has the instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Avx2(token) => unsafe { avx2(token, $($arg),*) },
                // SAFETY: the token is only made where the CPU has the instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Avx512(token) => unsafe { avx512(token, $($arg),*) },
                // SAFETY: the token is only made where the CPU has the instructions.
                #[cfg(target_arch = "aarch64")]
                $crate::simd::Level::Neon(token) => unsafe { neon(token, $($arg),*) },
            }
        }
    };
}
