//! Rows of one matrix of a checkpoint, in whichever way it stores them.

use super::columns::Columns;
use super::quantise::{Numbers, group};
use super::{Quantize, widen};
use kernels_core::dtype::Dtype;
use kernels_core::packing::Source;
use std::ops::Range;

/// The rows of one matrix.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// How many.
    pub count: usize,
    /// Columns of a row.
    pub inputs: usize,
    /// Their elements.
    pub stored: Stored<'a>,
}

/// How the elements of a matrix are stored, and what becomes of them.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// `[outputs][inputs]` floats that stay floats.
    Floats(Dtype, &'a [u8]),
    /// `[outputs][inputs]` floats that become whole numbers.
    Quantised(Quantize, Dtype, &'a [u8]),
    /// Whole numbers by rows, as packing takes them.
    Groups(Groups<'a>),
    /// Whole numbers by columns; whether they are signed, rather than with a bias.
    Columns(Columns<'a>, bool),
}

/// Whole numbers by rows.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a> {
    /// Bits of a number: 4 or 8.
    pub bits: usize,
    /// Inputs that share a scale and a bias.
    pub group: usize,
    /// Bytes of a scale, or a bias.
    pub scale_bytes: usize,
    /// `[outputs][inputs]`.
    pub numbers: &'a [u8],
    /// `[outputs][inputs / group]`.
    pub scales: &'a [u8],
    /// `[outputs][inputs / group]`.
    pub biases: &'a [u8],
}

/// Room for rows that are not packed from where they lie.
#[derive(Debug, Default)]
pub struct Scratch {
    numbers: Numbers,
    floats: Vec<f32>,
}

impl Rows<'_> {
    /// Some of them, to be packed.
    pub fn source<'s>(&'s self, rows: Range<usize>, scratch: &'s mut Scratch) -> Source<'s> {
        match self.stored {
            Stored::Floats(dtype, values) => {
                Source::Floats { dtype, values: self.part(dtype, values, rows) }
            }
            Stored::Quantised(quantize, dtype, values) => {
                let Scratch { numbers, floats } = scratch;
                floats.clear();
                widen(dtype, self.part(dtype, values, rows), floats);
                numbers.clear();
                let group = group(self.inputs).expect("only rows of whole groups are quantised");
                floats.chunks(group).for_each(|group| quantize.push(group, numbers));
                let Numbers { numbers, scales, biases } = numbers;
                Source::Groups { numbers, scales, biases }
            }
            Stored::Groups(groups) => {
                let part = |all: &'s [u8], each: usize| &all[rows.start * each..rows.end * each];
                let scale_bytes = self.inputs / groups.group * groups.scale_bytes;
                Source::Groups {
                    numbers: part(groups.numbers, self.inputs * groups.bits / 8),
                    scales: part(groups.scales, scale_bytes),
                    biases: part(groups.biases, scale_bytes),
                }
            }
            Stored::Columns(matrix, symmetric) => {
                matrix.rows(rows, symmetric, &mut scratch.numbers);
                let Numbers { numbers, scales, biases } = &scratch.numbers;
                Source::Groups { numbers, scales, biases }
            }
        }
    }

    /// The bytes of some rows.
    fn part<'s>(&self, dtype: Dtype, values: &'s [u8], rows: Range<usize>) -> &'s [u8] {
        let bytes = self.inputs * dtype.align() as usize;
        &values[rows.start * bytes..rows.end * bytes]
    }
}
