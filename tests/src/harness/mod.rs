//! What holds for every kernel: levels agree by bits, fast forms keep to the
//! specification, bits stay what they were.

#[expect(unsafe_code, reason = "C's functions take pointers")]
mod abi;
mod bytes;
mod hashes;
mod machine;
mod magnitude;
mod noise;
mod rule;
mod standard;

use kernels_core::Error;
use kernels_core::dtype::Dtype;
use kernels_core::math::Real;
use kernels_core::simd::Level;
use kernels_core::workers::{Inline, Workers};
use std::fmt::Debug;

pub use abi::{Abi, DeviceMemory, Piece, Refused};
pub use bytes::Bytes;
pub use hashes::{assert_committed, assert_hashes, hash};
pub use machine::{Direct, Kernel, Laid, Machine, Recorded};
pub use magnitude::{Magnitude, rounded_sums};
pub use noise::Noise;
pub use rule::assert_keeps_to_spec;
pub use standard::{
    assert_records, assert_refused_or_answered, assert_replays, assert_replays_on, assert_threads,
    assert_workspace, malformed,
};

/// One call of a kernel, with everything it reads.
pub trait Case: Debug {
    /// The kernel's stem.
    const KERNEL: &'static str;

    /// Its name in the list, unique within the kernel.
    fn name(&self) -> String;

    /// The call on a machine; every buffer it wrote, whole.
    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error>;

    /// The call at a level.
    fn run(&self, level: Level, workers: &dyn Workers) -> Result<Vec<Output>, Error> {
        self.call(&mut Direct { level, workers, withheld: 0 })
    }

    /// The specification's answer, one list of rows for each output of `run`; an
    /// output that is compared by other means (integers, say) has no rows here.
    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>>;

    /// Panics unless the outputs are right where no rule of errors can say so: copies,
    /// sets, counts, and what must not be written.
    fn assert_answer(&self, _outputs: &[Output]) {}

    /// Whether the specification's answer says what a call that ran must give: not where
    /// a malformed call makes numbers that no rule of errors can be put to.
    fn has_truth(&self) -> bool {
        true
    }

    /// The error that roundings within the kernel may leave in each row of an output,
    /// where plain arithmetic may be spared it by luck; nothing for an output unless a
    /// kernel says so.
    fn within(&self, _output: usize, _truth: &[Vec<Row<f64>>]) -> Vec<f64> {
        Vec::new()
    }
}

/// A buffer that a call wrote.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name in the contract.
    pub name: &'static str,
    /// What its elements are.
    pub dtype: Dtype,
    /// All of it, the gaps between rows included.
    pub bytes: Bytes,
}

/// Some consecutive elements of an output, as the specification has them.
#[derive(Clone, Debug)]
pub struct Row<R> {
    /// The first element's place in the output.
    pub at: usize,
    /// The values.
    pub values: Vec<R>,
}

/// Every level of this machine gives the scalar level's bits, and they keep to the
/// specification.
pub fn assert_case<C: Case>(case: &C) {
    let answer = assert_levels(case);
    assert_keeps_to_spec(case, &answer);
    case.assert_answer(&answer);
}

/// Every level of this machine gives the scalar level's bits; these are they.
pub fn assert_levels<C: Case>(case: &C) -> Vec<Output> {
    let name = case.name();
    let scalar = Level::named("scalar").expect("every machine has the scalar level");
    let expected = case.run(scalar, &Inline).unwrap_or_else(|error| panic!("{name}: {error}"));
    for level in Level::all() {
        let got = case.run(level, &Inline).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_same_bits(&format!("{name} at {}", level.name()), &expected, &got);
    }
    expected
}

/// Two calls wrote the same bits; NaNs equal NaNs.
pub fn assert_same_bits(what: &str, expected: &[Output], got: &[Output]) {
    assert_eq!(expected.len(), got.len(), "{what}: outputs");
    for (expected, got) in expected.iter().zip(got) {
        let name = expected.name;
        if expected.bytes.as_slice() == got.bytes.as_slice() {
            continue;
        }
        let pairs = expected.bits().into_iter().zip(got.bits()).enumerate();
        for (at, (e, g)) in pairs {
            assert!(
                e == g || (is_nan(expected.dtype, e) && is_nan(expected.dtype, g)),
                "{what}: {name}[{at}] is {g:#x}, expected {e:#x}"
            );
        }
        assert_eq!(expected.bytes.len(), got.bytes.len(), "{what}: length of {name}");
    }
}

impl Output {
    /// The bits of each element; bytes for the packed formats.
    pub fn bits(&self) -> Vec<u32> {
        match self.dtype {
            Dtype::F32 => self.bytes.cast::<u32>().to_vec(),
            Dtype::F16 | Dtype::Bf16 => {
                self.bytes.cast::<u16>().iter().map(|&bits| u32::from(bits)).collect()
            }
            _ => self.bytes.as_slice().iter().map(|&bits| u32::from(bits)).collect(),
        }
    }
}

fn is_nan(dtype: Dtype, bits: u32) -> bool {
    match dtype {
        Dtype::F32 => f32::from_bits(bits).is_nan(),
        Dtype::F16 => half::f16::from_bits(bits as u16).is_nan(),
        Dtype::Bf16 => half::bf16::from_bits(bits as u16).is_nan(),
        _ => false,
    }
}
