//! Buffers aligned like a device's, holding elements of any type.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};
use kernels_core::dtype::Dtype;
use kernels_core::math::E4m3;

/// Bytes that start at a multiple of 64.
#[derive(Clone)]
pub struct Bytes {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Bytes {
    /// `len` bytes, all of that value.
    pub fn filled(len: usize, value: u8) -> Self {
        Self { lines: vec![Line([value; 64]); len.div_ceil(64)], len }
    }

    /// An output before it is written: a pattern that no kernel writes by chance.
    pub fn poisoned(len: usize) -> Self {
        Self::filled(len, 0xa5)
    }

    /// The bytes of these elements.
    pub fn of<T: Pod>(elements: &[T]) -> Self {
        let bytes = bytemuck::cast_slice(elements);
        let mut all = Self::filled(bytes.len(), 0);
        all.as_mut_slice().copy_from_slice(bytes);
        all
    }

    /// These values, rounded to a type: any but the packed nibbles.
    pub fn rounded(dtype: Dtype, values: &[f32]) -> Self {
        match dtype {
            Dtype::F32 => Self::of(values),
            Dtype::F16 => Self::of(&values.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>()),
            Dtype::Bf16 => Self::of(&values.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>()),
            Dtype::E4m3 => Self::of(&values.iter().map(|&v| E4m3::from_f32(v)).collect::<Vec<_>>()),
            Dtype::I8 => Self::of(&values.iter().map(|&v| v as i8).collect::<Vec<_>>()),
            Dtype::I4 => panic!("nibbles have no rounding of their own"),
        }
    }

    /// The elements as f32.
    pub fn floats(&self, dtype: Dtype) -> Vec<f32> {
        match dtype {
            Dtype::F32 => self.cast::<f32>().to_vec(),
            Dtype::F16 => self.cast::<f16>().iter().map(|v| v.to_f32()).collect(),
            Dtype::Bf16 => self.cast::<bf16>().iter().map(|v| v.to_f32()).collect(),
            Dtype::E4m3 => self.cast::<E4m3>().iter().map(|v| v.to_f32()).collect(),
            Dtype::I8 => self.cast::<i8>().iter().map(|&v| f32::from(v)).collect(),
            Dtype::I4 => panic!("nibbles are unpacked by their kernel's case"),
        }
    }

    /// The elements, as many as are whole.
    pub fn cast<T: Pod>(&self) -> &[T] {
        kernels_core::command::cast(self.as_slice())
    }

    /// All of them.
    pub fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    /// All of them, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}
