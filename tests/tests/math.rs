//! What exp, log, the small formats and the noise promise.

use half::{bf16, f16};
use kernels_core::math::philox::{philox, philox_lanes, uniform};
use kernels_core::math::{E4m3, EXP_LEAST, EXP_MOST, exp_slice, log_slice, tanh_slice};
use kernels_core::simd::{Element, FloatsMut, LANES, Lanes, Level, Scalar, load_at};
use pagewise_tests::harness::Noise;

/// Floats of every exponent and sign, some of each mantissa.
fn many() -> Vec<f32> {
    let mut values: Vec<f32> =
        (0..=u16::MAX).map(|top| f32::from_bits(u32::from(top) << 16 | 0x1234)).collect();
    values.extend((0..4096).map(|i| (i as f32 - 2048.0) / 23.0));
    values.extend([0.0, -0.0, 1.0, f32::MIN_POSITIVE, f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
    values.extend([EXP_LEAST, EXP_MOST, EXP_LEAST.next_down(), EXP_MOST.next_up()]);
    values
}

/// The distance in units of the last place of the truth.
fn ulps(truth: f64, got: f32) -> f64 {
    let unit = f64::from((truth as f32).abs().next_up()) - f64::from((truth as f32).abs());
    (truth - f64::from(got)).abs() / unit.max(f64::from(f32::MIN_POSITIVE) * 2f64.powi(-23))
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Sixteen numbers to compute on, ugly ones among them.
fn ugly(noise: &mut Noise) -> [u32; LANES] {
    std::array::from_fn(|_| match noise.below(12) {
        0 => f32::NAN.to_bits(),
        1 => f32::INFINITY.to_bits() | noise.word() & 1 << 31,
        2 => noise.word() & 1 << 31,
        3 => 1 | noise.word() & 0x8000_00ff,
        4 => (noise.below(9) as f32 - 4.5).to_bits(),
        5 => noise.below(300),
        _ => noise.normal().to_bits(),
    })
}

/// What an operation gives: whole numbers by bits, floats with one NaN.
#[derive(Debug, PartialEq, Eq)]
struct Given(Vec<u32>);

impl Given {
    fn float<L: Lanes>(&mut self, l: L, v: L::F) {
        let mut lanes = [0.0; LANES];
        l.store(v, &mut lanes);
        let bits = |x: f32| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
        self.0.extend(lanes.map(bits));
    }

    fn whole<L: Lanes>(&mut self, l: L, v: L::I) {
        let mut lanes = [0; LANES];
        l.istore(v, &mut lanes);
        self.0.extend(lanes.map(|lane| lane as u32));
    }
}

kernels_core::levels! {
    fn operations(from: &[[u32; LANES]; 3], given: &mut Given) = operations_body;
}

fn operations_body<L: Lanes>(l: L, from: &[[u32; LANES]; 3], given: &mut Given) {
    let words = from.map(|words| l.iload(&words.map(|word| word as i32)));
    let [a, b, c] = words.map(|words| l.float_of_bits(words));
    let floats = [
        l.add(a, b),
        l.sub(a, b),
        l.mul(a, b),
        l.div(a, b),
        l.fma(a, b, c),
        l.sqrt(a),
        l.max(a, b),
    ];
    floats
        .into_iter()
        .chain([l.round(a), l.select(l.gt(a, b), b, c)])
        .for_each(|v| given.float(l, v));
    given.0.extend([l.gt(a, b), l.ge(a, b), l.eq(a, b)].map(|m| u32::from(l.mask_bits(m))));
    given.0.extend([l.sum(a), l.largest(a)].map(|x| if x.is_nan() { 1 } else { x.to_bits() }));
    let [x, y, z] = words;
    let whole = [l.iadd(x, y), l.isub(x, y), l.imul(x, y), l.umul_high(x, y), l.iand(x, y)];
    whole.into_iter().for_each(|v| given.whole(l, v));
    let whole = [l.ior(x, y), l.ixor(x, y), l.shl::<7>(x), l.shr::<7>(x), l.sar::<7>(x)];
    whole.into_iter().for_each(|v| given.whole(l, v));
    given.whole(l, l.iselect(l.igt(x, y), y, z));
    // The contract leaves open what becomes of NaN and of numbers beyond 2³⁰.
    let small = l.select(l.gt(l.splat(1e9), a), a, l.splat(0.5));
    given.whole(l, l.to_int(l.select(l.gt(small, l.splat(-1e9)), small, l.splat(-1.5))));
    given.float(l, l.to_float(x));
    // Four bytes of 7 bits each: no sum of products leaves an i32.
    given.whole(l, l.dot4(z, l.iand(x, l.isplat(0x7f7f_7f7f)), y));
    given.0.extend([l.igt(x, y), l.ieq(x, y), l.first(5)].map(|m| u32::from(l.mask_bits(m))));
}

#[test]
fn every_operation_has_the_scalar_bits_on_ugly_numbers() {
    let mut noise = Noise::new(11);
    for _ in 0..500 {
        let from = [ugly(&mut noise), ugly(&mut noise), ugly(&mut noise)];
        let mut expected = Given(Vec::new());
        operations(Level::Scalar(Scalar), &from, &mut expected);
        for level in Level::all() {
            let mut got = Given(Vec::new());
            operations(level, &from, &mut got);
            assert_eq!(got, expected, "{from:x?} at {}", level.name());
        }
    }
    // Where either is no number the second is taken, at every level.
    let (nan, one) = ([f32::NAN.to_bits(); LANES], [1f32.to_bits(); LANES]);
    for (from, expected) in [([nan, one, one], one), ([one, nan, one], nan)] {
        for level in Level::all() {
            let mut got = Given(Vec::new());
            operations(level, &from, &mut got);
            assert_eq!(got.0[6 * LANES..7 * LANES], expected, "max at {}", level.name());
        }
    }
}

#[test]
fn exp_log_and_tanh_have_the_same_bits_at_every_level() {
    for function in [exp_slice, log_slice, tanh_slice] {
        let mut expected = many();
        function(Level::Scalar(Scalar), &mut expected);
        for level in Level::all() {
            let mut got = many();
            function(level, &mut got);
            for ((x, e), g) in many().iter().zip(&expected).zip(&got) {
                assert!(same(*e, *g), "at {}: f({x}) is {g}, expected {e}", level.name());
            }
        }
    }
}

#[test]
fn exp_is_within_two_ulp_and_exact_at_zero() {
    let mut got = many();
    exp_slice(Level::best(), &mut got);
    for (&x, &y) in many().iter().zip(&got) {
        if x < EXP_LEAST {
            assert_eq!(y.to_bits(), 0, "exp({x})");
        } else if x > EXP_MOST {
            assert_eq!(y, f32::INFINITY, "exp({x})");
        } else if x.is_nan() {
            assert!(y.is_nan());
        } else {
            let error = ulps(f64::from(x).exp(), y);
            assert!(error <= 2.0, "exp({x}) is {y}: {error} ulp");
        }
        assert!(x != 0.0 || y == 1.0);
    }
}

#[test]
fn log_is_within_two_ulp() {
    let mut got = many();
    log_slice(Level::best(), &mut got);
    for (&x, &y) in many().iter().zip(&got) {
        if x.is_nan() || x < 0.0 {
            assert!(y.is_nan(), "log({x}) is {y}");
        } else if x == 0.0 || x.is_infinite() {
            assert_eq!(f64::from(y), f64::from(x).ln());
        } else {
            let error = ulps(f64::from(x).ln(), y);
            assert!(error <= 2.0, "log({x}) is {y}: {error} ulp");
        }
    }
}

#[test]
fn tanh_is_within_three_ulp_and_odd() {
    let mut got = many();
    got.extend((0..4096).map(|i| i as f32 / 3000.0));
    let values = got.clone();
    tanh_slice(Level::best(), &mut got);
    let mut negative: Vec<f32> = values.iter().map(|x| -x).collect();
    tanh_slice(Level::best(), &mut negative);
    for ((&x, &y), &opposite) in values.iter().zip(&got).zip(&negative) {
        let error = ulps(f64::from(x).tanh(), y);
        assert!(x.is_nan() == y.is_nan() && (x.is_nan() || error <= 3.0), "tanh({x}): {error} ulp");
        assert!(same(-y, opposite), "tanh(-{x}) is {opposite}");
    }
}

#[test]
fn small_formats_widen_exactly_and_round_to_even_at_every_level() {
    let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let brains: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    for level in Level::all() {
        for (half, wide) in halves.iter().zip(widened(level, &halves)) {
            assert!(same(half.to_f32(), wide), "{half} at {}", level.name());
        }
        for (brain, wide) in brains.iter().zip(widened(level, &brains)) {
            assert!(same(brain.to_f32(), wide), "{brain} at {}", level.name());
        }
        let wide = roundings();
        let (mut narrow, mut brain) = (vec![f16::ZERO; wide.len()], vec![bf16::ZERO; wide.len()]);
        rounded(level, &wide, FloatsMut::F16(&mut narrow));
        rounded(level, &wide, FloatsMut::Bf16(&mut brain));
        for ((&wide, narrow), brain) in wide.iter().zip(narrow).zip(brain) {
            let (expected, name) = (f16::from_f32(wide), level.name());
            assert!(same(expected.to_f32(), narrow.to_f32()), "{wide}: {narrow} at {name}");
            let expected = bf16::from_f32(wide);
            assert!(same(expected.to_f32(), brain.to_f32()), "{wide}: {brain} at {name}");
        }
    }
}

/// Every float whose rounding to 16 bits is a question: ties and their neighbours.
fn roundings() -> Vec<f32> {
    let tops = (0..=u16::MAX).map(|top| u32::from(top) << 16);
    let low = [0, 1, 0x0fff, 0x1000, 0x1001, 0x3000, 0x7fff, 0x8000, 0x8001, 0xffff];
    let mut all: Vec<f32> = tops.flat_map(|top| low.map(|low| f32::from_bits(top | low))).collect();
    all.truncate(all.len() / LANES * LANES);
    all
}

kernels_core::levels! {
    fn widen_f16(from: &[f16], to: &mut [f32]) = widen_body;
}
kernels_core::levels! {
    fn widen_bf16(from: &[bf16], to: &mut [f32]) = widen_body;
}
kernels_core::levels! {
    fn round_at(from: &[f32], to: &mut FloatsMut<'_>) = round_body;
}
kernels_core::levels! {
    fn philox_at(key: [u32; 2], out: &mut [[i32; LANES]; 4]) = philox_body;
}

fn widen_body<T: Element, L: Lanes>(l: L, from: &[T], to: &mut [f32]) {
    for (at, to) in to.chunks_exact_mut(LANES).enumerate() {
        f32::store(l, load_at(l, from, at * LANES, 0.0), to.first_chunk_mut().expect("sixteen"));
    }
}

fn round_body<L: Lanes>(l: L, from: &[f32], to: &mut FloatsMut<'_>) {
    for at in (0..from.len()).step_by(LANES) {
        to.store(l, load_at(l, from, at, 0.0), at);
    }
}

fn philox_body<L: Lanes>(l: L, key: [u32; 2], out: &mut [[i32; LANES]; 4]) {
    let counter = l.iload(&std::array::from_fn(|i| i as i32 * 77 - 5));
    let other = [l.isplat(9), l.isplat(-3), l.isplat(0)];
    let words = philox_lanes(l, key, [counter, other[0], other[1], other[2]]);
    for (word, out) in words.into_iter().zip(out) {
        l.istore(word, out);
    }
}

/// Widens at a level by the type's own name.
trait Widened: Element {
    fn widened(level: Level, from: &[Self], to: &mut [f32]);
}
impl Widened for f16 {
    fn widened(level: Level, from: &[Self], to: &mut [f32]) {
        widen_f16(level, from, to);
    }
}
impl Widened for bf16 {
    fn widened(level: Level, from: &[Self], to: &mut [f32]) {
        widen_bf16(level, from, to);
    }
}

fn widened<T: Widened>(level: Level, from: &[T]) -> Vec<f32> {
    let mut to = vec![0.0; from.len()];
    T::widened(level, from, &mut to);
    to
}

fn rounded(level: Level, from: &[f32], mut to: FloatsMut<'_>) {
    round_at(level, from, &mut to);
}

#[test]
fn e4m3_has_the_values_of_its_format() {
    for code in 0..=u8::MAX {
        let (sign, exponent, mantissa) = (code >> 7, code >> 3 & 15, code & 7);
        let magnitude = match (exponent, mantissa) {
            (15, 7) => f32::NAN,
            (0, m) => f32::from(m) / 512.0,
            (e, m) => (1.0 + f32::from(m) / 8.0) * 2f32.powi(i32::from(e) - 7),
        };
        let expected = if sign == 1 { -magnitude } else { magnitude };
        assert!(same(expected, E4m3(code).to_f32()), "{code:#x}");
    }
    for (x, expected) in [(0.0, 0), (448.0, 0x7e), (1e9, 0x7e), (-500.0, 0xfe), (1.0, 0x38)] {
        assert_eq!(E4m3::from_f32(x).0, expected, "{x}");
    }
    assert_eq!(E4m3::from_f32(f32::NAN).0 & 0x7f, 0x7f);
    // Every number rounds to itself, every midpoint to the even neighbour.
    for code in 0..0x7e_u8 {
        let (low, high) = (E4m3(code).to_f32(), E4m3(code + 1).to_f32());
        assert_eq!(E4m3::from_f32(low).0, code);
        let even = if code % 2 == 0 { code } else { code + 1 };
        assert_eq!(E4m3::from_f32((low + high) / 2.0).0, even, "between {low} and {high}");
    }
}

#[test]
fn philox_gives_the_published_words() {
    assert_eq!(philox([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(
        philox([u32::MAX; 2], [u32::MAX; 4]),
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    );
    assert_eq!(
        philox([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
    assert!(uniform(0) > 0.0 && uniform(u32::MAX) < 1.0);
}

#[test]
fn philox_has_the_same_words_in_lanes() {
    let key = [0xdead_beef, 17];
    for level in Level::all() {
        let mut out = [[0; LANES]; 4];
        philox_at(level, key, &mut out);
        for i in 0..LANES {
            let counter = [(i as i32 * 77 - 5) as u32, 9, -3i32 as u32, 0];
            let expected = philox(key, counter);
            let got = out.map(|word| word[i] as u32);
            assert_eq!(got, expected, "at {}", level.name());
        }
    }
}
