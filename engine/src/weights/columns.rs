//! AWQ and GPTQ: whole numbers in 32-bit words by columns, with a zero for each group.
//!
//! Both store a matrix transposed, its groups along the inputs: scale `[groups][outputs]`,
//! zeros `[groups][outputs / per word]`. AWQ's words hold eight outputs of one input, in an
//! order of their own; GPTQ's hold consecutive inputs of one output. A number q stands for
//! (q − zero) · scale.

use super::float;
use super::quantise::Numbers;
use kernels_core::dtype::Dtype;
use std::ops::Range;

/// The place of output o modulo 8 in a word of AWQ.
const AWQ_PLACES: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// A matrix stored so.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// Which of the two.
    pub order: Order,
    /// Bits of a number: 4 or 8.
    pub bits: usize,
    /// Inputs that share a scale and a zero.
    pub group: usize,
    /// Outputs of the whole matrix.
    pub outputs: usize,
    /// Inputs of the whole matrix.
    pub inputs: usize,
    /// The numbers.
    pub words: &'a [u8],
    /// The zeros, as words.
    pub zeros: &'a [u8],
    /// Whether zeros are stored less one: whole words were, with what they borrow.
    pub zeros_less_one: bool,
    /// The scales.
    pub scales: &'a [u8],
    /// Their type.
    pub scale_dtype: Dtype,
}

/// How numbers lie in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Eight outputs of an input, those of even number first.
    Awq,
    /// Consecutive inputs of an output; zeros of consecutive outputs.
    Gptq,
}

impl Columns<'_> {
    /// Whether every zero is the middle: then numbers are signed, and no bias is needed.
    pub fn is_symmetric(&self) -> bool {
        let middle = 1 << (self.bits - 1);
        let groups = self.inputs / self.group;
        (0..groups).all(|group| (0..self.outputs).all(|output| self.zero(group, output) == middle))
    }

    /// Some rows as packing takes them: signed, with scales as they are stored; or affine,
    /// with scales and biases of f32, which hold zero · scale exactly.
    pub fn rows(&self, rows: Range<usize>, symmetric: bool, to: &mut Numbers) {
        to.clear();
        let flip = if symmetric { 1 << (self.bits - 1) } else { 0 };
        for output in rows {
            match self.bits {
                4 => to.numbers.extend((0..self.inputs).step_by(2).map(|input| {
                    let nibble = |input| (self.number(input, output) ^ flip) as u8;
                    nibble(input) | nibble(input + 1) << 4
                })),
                _ => to.numbers.extend(
                    (0..self.inputs).map(|input| (self.number(input, output) ^ flip) as u8),
                ),
            }
            for group in 0..self.inputs / self.group {
                let bytes = self.scale_dtype.align() as usize;
                let scale = &self.scales[(group * self.outputs + output) * bytes..][..bytes];
                if symmetric {
                    to.scales.extend(scale);
                } else {
                    let scale = float(self.scale_dtype, scale);
                    let bias = -(self.zero(group, output) as f32) * scale;
                    to.scales.extend(scale.to_le_bytes());
                    to.biases.extend(bias.to_le_bytes());
                }
            }
        }
    }

    fn number(&self, input: usize, output: usize) -> u32 {
        let per_word = 32 / self.bits;
        let (word, place) = match self.order {
            Order::Awq => (input * (self.outputs / 8) + output / 8, AWQ_PLACES[output % 8]),
            Order::Gptq => (input / per_word * self.outputs + output, input % per_word),
        };
        self.part(self.words, word, place, 0)
    }

    fn zero(&self, group: usize, output: usize) -> u32 {
        let per_word = 32 / self.bits;
        let word = group * (self.outputs / per_word) + output / per_word;
        let place = match self.order {
            Order::Awq => AWQ_PLACES[output % 8],
            Order::Gptq => output % per_word,
        };
        // A one in every place: 0x11111111 or 0x01010101.
        let ones = u32::MAX / ((1 << self.bits) - 1);
        let more = if self.zeros_less_one { ones } else { 0 };
        self.part(self.zeros, word, place, more)
    }

    fn part(&self, words: &[u8], word: usize, place: usize, more: u32) -> u32 {
        let four = words[4 * word..].first_chunk().expect("a matrix holds its words");
        let word = u32::from_le_bytes(*four).wrapping_add(more);
        word >> (place * self.bits) & ((1 << self.bits) - 1)
    }
}
