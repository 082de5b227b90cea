//! Kernels whose cases proptest can draw: the bytes seed its randomness, so one list of
//! shapes serves properties and the fuzzer. Each call keeps to the specification at
//! every level; the same call with one word of its parameters changed is refused or
//! answered, never a panic.

use super::Input;
use crate::cases::{attention, embed, lora, matmul, pool};
use crate::harness::{Case, assert_case, assert_refused_or_answered};
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// `attention`, any of its modes.
pub fn attention(data: &[u8]) {
    let mut input = Input::new(data);
    let change = Change::from(&mut input);
    let Some(shape) = drawn(attention::strategy(), input) else { return };
    let mut case = shape.case();
    assert_case(&case);
    change.of(bytemuck::bytes_of_mut(&mut case.params));
    assert_refused_or_answered(&case);
}

/// `matmul`, its weights packed from noise.
pub fn matmul(data: &[u8]) {
    let mut input = Input::new(data);
    let change = Change::from(&mut input);
    let Some(shape) = drawn(matmul::strategy(), input) else { return };
    let mut case = shape.case();
    assert_case(&case);
    change.of(bytemuck::bytes_of_mut(&mut case.params));
    assert_refused_or_answered(&case);
}

/// `lora`, rows of several adapters.
pub fn lora(data: &[u8]) {
    let mut input = Input::new(data);
    let change = Change::from(&mut input);
    let Some(shape) = drawn(lora::strategy(), input) else { return };
    let mut case = shape.case();
    assert_case(&case);
    change.of(bytemuck::bytes_of_mut(&mut case.params));
    // Other shapes make other matrices of the same packed bytes: what is not written is
    // as it was.
    if let Ok(outputs) = case.run(Level::best(), &Inline) {
        case.assert_answer(&outputs);
    }
}

/// `embed`, from plain rows and from packed weights, with any token.
pub fn embed(data: &[u8]) {
    let mut input = Input::new(data);
    let (change, token) = (Change::from(&mut input), input.word());
    let Some(shape) = drawn(embed::strategy(), input) else { return };
    let mut case = shape.case();
    assert_case(&case);
    case.tokens[0] = token;
    change.of(bytemuck::bytes_of_mut(&mut case.params));
    assert_refused_or_answered(&case);
}

/// `pool`, any of its kinds, with any start.
pub fn pool(data: &[u8]) {
    let mut input = Input::new(data);
    let (change, start) = (Change::from(&mut input), input.word());
    let Some(shape) = drawn(pool::strategy(), input) else { return };
    let mut case = shape.case();
    assert_case(&case);
    case.starts[1] = start;
    change.of(bytemuck::bytes_of_mut(&mut case.params));
    assert_refused_or_answered(&case);
}

/// What the bytes make of a strategy; none where it gives up.
fn drawn<S: Strategy>(strategy: S, input: Input<'_>) -> Option<S::Value> {
    // A seed, not the stream itself: proptest rejects draws, and would do so for ever once
    // the bytes ran out.
    let mut seed = [0; 32];
    for (at, byte) in input.rest().iter().enumerate() {
        seed[at % 32] = byte.wrapping_add(u8::rotate_left(seed[at % 32], 3));
    }
    let randomness = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), randomness);
    strategy.new_tree(&mut runner).ok().map(|tree| tree.current())
}

/// One word of a parameter block becomes another.
pub(super) struct Change {
    word: usize,
    value: u32,
}

impl Change {
    /// The change that the next bytes spell.
    pub(super) fn from(input: &mut Input<'_>) -> Self {
        let word = input.byte() as usize;
        let value = match input.byte() {
            small @ 0..64 => u32::from(small),
            64..128 => input.word(),
            bit @ 128..192 => 1 << (bit % 32),
            near => u32::MAX - u32::from(near - 192),
        };
        Self { word, value }
    }

    /// Makes it.
    pub(super) fn of(&self, params: &mut [u8]) {
        let at = self.word % (params.len() / 4) * 4;
        params[at..at + 4].copy_from_slice(&self.value.to_le_bytes());
    }
}
