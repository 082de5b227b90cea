//! Tensors of a checkpoint by name, and the way from them to a backend's memory.
//!
//! Whoever opens files hands over [`Tensors`]; a [`Loader`] takes one after the other,
//! in the shape that a model expects, and at the end none may be left over.

mod aside;
mod columns;
mod formats;
mod lines;
mod load;
mod pack;
mod quantise;
mod rows;
mod shelf;
mod values;

use half::{bf16, f16};
use kernels_core::device::HostBytes;
use kernels_core::dtype::Dtype;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use aside::Aside;
pub use load::{Loader, Matrix, Table};
pub use values::Rows32;

/// What the elements of a tensor are, as files have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// f32, f16 or bf16.
    Float(Dtype),
    /// 32 bits that hold packed numbers, or indices: signed or not.
    Word,
    /// Anything else, which no model here takes.
    Other {
        /// Bytes of one.
        bytes: u64,
    },
}

impl Element {
    /// Bytes of one.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Float(dtype) => dtype.align(),
            Self::Word => 4,
            Self::Other { bytes } => bytes,
        }
    }

    /// `"bf16"`, or `"32-bit words"`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float(dtype) => dtype.name(),
            Self::Word => "32-bit words",
            Self::Other { .. } => "elements of another type",
        }
    }
}

/// A tensor of a file that is in memory, or mapped.
#[derive(Clone)]
pub struct Tensor {
    element: Element,
    shape: Vec<u64>,
    file: HostBytes,
    range: Range<usize>,
}

impl Tensor {
    /// The tensor that those bytes of a file hold; `None` if they are not as many as its
    /// shape takes, or past the file's end.
    pub fn new(
        element: Element,
        shape: Vec<u64>,
        file: HostBytes,
        range: Range<usize>,
    ) -> Option<Self> {
        let count = shape.iter().try_fold(1u64, |count, &extent| count.checked_mul(extent))?;
        let held = (*file).as_ref().get(range.clone())?.len() as u64;
        (count.checked_mul(element.bytes())? == held).then_some(Self {
            element,
            shape,
            file,
            range,
        })
    }

    /// What its elements are.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Its extents, the outermost first.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The type of its elements, which are floats.
    fn float(&self) -> Dtype {
        match self.element {
            Element::Float(dtype) => dtype,
            _ => unreachable!("only tensors that were taken as floats are asked"),
        }
    }

    /// Bytes of its elements.
    fn len(&self) -> u64 {
        self.range.len() as u64
    }

    /// Which of its floats, if it has floats, is the first that is not finite.
    pub fn first_unfit(&self) -> Option<usize> {
        let Element::Float(dtype) = self.element else { return None };
        let mut each = self.bytes().chunks_exact(dtype.align() as usize);
        each.position(|bytes| !float(dtype, bytes).is_finite())
    }

    /// Its elements, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &(*self.file).as_ref()[self.range.clone()]
    }

    /// The same, for who may keep using them where they lie: of its file these alone.
    fn host(&self) -> HostBytes {
        Arc::new(Part { file: self.file.clone(), range: self.range.clone() })
    }
}

/// A range of a file, which stays as long as it does.
struct Part {
    file: HostBytes,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &(*self.file).as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} {:?}", self.element.name(), self.shape)
    }
}

/// The tensors of a checkpoint by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Weights that are quantised while they are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantize {
    /// Whole numbers of 8 bits, symmetric, in groups of 32 with an f16 scale.
    Q8,
    /// Of 4 bits, in groups of 32 with an f16 scale and an f16 bias.
    Q4,
}

/// Why a checkpoint cannot be loaded.
#[derive(Clone, Debug, PartialEq)]
pub enum LoadError {
    /// The configuration does not describe a model.
    Config(crate::request::Refused),
    /// A tensor that the model needs is not there.
    Missing {
        /// Its name.
        tensor: String,
    },
    /// A tensor that the model has no place for.
    Extra {
        /// Its name.
        tensor: String,
    },
    /// A tensor of another shape, or of elements that cannot serve there.
    Unfit {
        /// Its name.
        tensor: String,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// The backend has no place for a tensor.
    Backend {
        /// Its name.
        tensor: String,
        /// The backend's refusal.
        error: kernels_core::Error,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(refused) => write!(to, "config: {refused}"),
            Self::Missing { tensor } => write!(to, "tensor {tensor} is missing"),
            Self::Extra { tensor } => {
                write!(to, "tensor {tensor} has no place in a model of this family")
            }
            Self::Unfit { tensor, expected, got } => {
                write!(to, "tensor {tensor} must be {expected}, not {got}")
            }
            Self::Backend { tensor, error } => write!(to, "tensor {tensor}: {error}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// Appends floats as f32, exactly.
pub fn widen(dtype: Dtype, bytes: &[u8], to: &mut Vec<f32>) {
    let each = bytes.chunks_exact(dtype.align() as usize);
    to.extend(each.map(|bytes| float(dtype, bytes)));
}

/// One float.
fn float(dtype: Dtype, bytes: &[u8]) -> f32 {
    match dtype {
        Dtype::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        Dtype::Bf16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        _ => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
    }
}
