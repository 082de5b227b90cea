//! An adapter as slots hold it: checked against a model, and packed. Any thread may do it.

use super::base::lengths;
use super::matrices::{Kind, Matrices, Matrix};
use super::{Adapter, Settings, Term};
use crate::model::Source;
use crate::weights::LoadError;
use bytemuck::Pod;
use half::{bf16, f16};
use kernels_core::dtype::Dtype;
use kernels_core::lora::{OUTPUTS, RANKS, pack_a, pack_b};
use std::fmt;

/// An adapter that is ready for a slot.
#[derive(Clone, Debug)]
pub struct Image {
    /// Of each of the model's matrices, by number.
    pub(super) terms: Vec<Option<Packed>>,
    /// For which slots it was packed.
    pub(super) settings: Settings,
}

/// What is added to one matrix.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub rank: u32,
    pub scale: f32,
    /// As a slot of A begins; of the embedding, a table of tokens, each `rank_max` wide.
    pub a: Vec<u8>,
    /// As a slot of B begins.
    pub b: Vec<u8>,
    /// `[outputs]`: what each output is multiplied by.
    pub magnitudes: Option<Vec<f32>>,
}

/// Why an adapter does not fit a model, or its slots.
#[derive(Clone, Debug, PartialEq)]
pub enum AdapterError {
    /// It adds to nothing.
    Empty,
    /// The model has no such matrix.
    Unknown {
        /// Its name.
        matrix: String,
    },
    /// What it adds to a matrix is not what it must be.
    Unfit {
        /// The name of the matrix.
        matrix: String,
        /// What must be so.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// The base weights could not be read.
    Base(LoadError),
}

impl fmt::Display for AdapterError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(to, "the adapter adds to no matrix"),
            Self::Unknown { matrix } => write!(to, "the model has no matrix {matrix}"),
            Self::Unfit { matrix, field, expected, got } => {
                write!(to, "{matrix}: {field} must be {expected}, not {got}")
            }
            Self::Base(error) => write!(to, "base weights: {error}"),
        }
    }
}

impl std::error::Error for AdapterError {}

impl Image {
    /// Packs an adapter for slots over the model that is loaded from `base`.
    pub fn new(
        adapter: &Adapter,
        base: &Source<'_>,
        settings: Settings,
    ) -> Result<Self, AdapterError> {
        let matrices = Matrices::of(base.config);
        if adapter.terms.is_empty() {
            return Err(AdapterError::Empty);
        }
        let mut image = Self { terms: vec![None; matrices.all.len()], settings };
        for (name, term) in &adapter.terms {
            let at = matrices.named(name);
            let at = at.ok_or_else(|| AdapterError::Unknown { matrix: name.clone() })?;
            let matrix = &matrices.all[at];
            check(matrix, term, &settings)?;
            image.terms[at] = Some(pack(matrix, term, base, &settings)?);
        }
        Ok(image)
    }

    /// Bytes that it takes of a slot.
    pub fn bytes(&self) -> u64 {
        let each = self.terms.iter().flatten().map(|term| {
            let magnitudes = term.magnitudes.as_ref().map_or(0, |all| 4 * all.len());
            term.a.len() + term.b.len() + magnitudes
        });
        each.sum::<usize>() as u64
    }

    /// Whether it was made of the base's numbers, and goes with no other base: its rows have
    /// lengths of their own.
    pub fn is_of_its_base(&self) -> bool {
        self.terms.iter().flatten().any(|term| term.magnitudes.is_some())
    }

    /// The slots that it was packed for.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Its largest rank.
    pub fn rank(&self) -> u32 {
        self.terms.iter().flatten().map(|term| term.rank).max().unwrap_or(0)
    }

    /// Whether it adds to the logits themselves.
    pub fn changes_output(&self) -> bool {
        self.terms.last().is_some_and(Option::is_some)
    }
}

fn check(matrix: &Matrix, term: &Term, settings: &Settings) -> Result<(), AdapterError> {
    let unfit = |field, expected: String, got: String| AdapterError::Unfit {
        matrix: matrix.name.clone(),
        field,
        expected,
        got,
    };
    let shape = [matrix.outputs, matrix.inputs];
    if [term.outputs, term.inputs] != shape {
        let got = format!("{:?}", [term.outputs, term.inputs]);
        return Err(unfit("shape", format!("{shape:?}"), got));
    }
    if !(1..=settings.rank_max).contains(&term.rank) {
        let expected = format!("1 to {}, as this server has room for", settings.rank_max);
        return Err(unfit("rank", expected, term.rank.to_string()));
    }
    let halves = [
        ("a", term.a.len(), [term.rank, term.inputs]),
        ("b", term.b.len(), [term.outputs, term.rank]),
    ];
    for (field, len, [rows, columns]) in halves {
        if len as u64 != u64::from(rows) * u64::from(columns) {
            return Err(unfit(field, format!("{rows} x {columns} numbers"), len.to_string()));
        }
    }
    let most = match settings.dtype {
        Dtype::F16 => f16::MAX.to_f32(),
        Dtype::Bf16 => bf16::MAX.to_f32(),
        _ => f32::MAX,
    };
    let magnitude = term.magnitude.as_deref().unwrap_or(&[]);
    for (field, all, most) in
        [("a", &term.a[..], most), ("b", &term.b, most), ("magnitude", magnitude, f32::MAX)]
    {
        // A NaN is within no bound.
        if let Some(at) = all.iter().position(|x| !(-most..=most).contains(x)) {
            let expected = format!("numbers from {} to {most}", -most);
            return Err(unfit(field, expected, format!("{} at {at}", all[at])));
        }
    }
    if !term.scale.is_finite() {
        return Err(unfit("scale", "finite".into(), term.scale.to_string()));
    }
    if let Some(magnitude) = &term.magnitude {
        if magnitude.len() != matrix.outputs as usize {
            let expected = format!("{} numbers", matrix.outputs);
            return Err(unfit("magnitude", expected, magnitude.len().to_string()));
        }
        // The kernel multiplies all of an output; DoRA leaves a bias as it is.
        if matrix.bias || !matches!(matrix.kind, Kind::Layer(_)) {
            let expected = "absent where a bias is added, and of embedding and output".into();
            return Err(unfit("magnitude", expected, "there".into()));
        }
    }
    Ok(())
}

fn pack(
    matrix: &Matrix,
    term: &Term,
    base: &Source<'_>,
    settings: &Settings,
) -> Result<Packed, AdapterError> {
    let magnitudes = match &term.magnitude {
        None => None,
        Some(magnitude) => {
            let lengths = lengths(matrix, term, base).map_err(AdapterError::Base)?;
            let each = magnitude.iter().zip(lengths);
            Some(each.map(|(&magnitude, length)| (f64::from(magnitude) / length) as f32).collect())
        }
    };
    let (a, b) = match settings.dtype {
        Dtype::F16 => halves(matrix, term, settings, f16::from_f32),
        Dtype::Bf16 => halves(matrix, term, settings, bf16::from_f32),
        _ => halves(matrix, term, settings, |x| x),
    };
    Ok(Packed { rank: term.rank, scale: term.scale, a, b, magnitudes })
}

/// A and B of a term, in the elements of its slot.
fn halves<T: Pod>(
    matrix: &Matrix,
    term: &Term,
    settings: &Settings,
    round: impl Fn(f32) -> T,
) -> (Vec<u8>, Vec<u8>) {
    let rounded = |all: &[f32]| all.iter().map(|&x| round(x)).collect::<Vec<T>>();
    let (rank, inputs) = (term.rank as usize, term.inputs as usize);
    let (a, b) = (rounded(&term.a), rounded(&term.b));
    let a = if matrix.kind == Kind::Embedding {
        // A token's column of A is a row of the table.
        let width = settings.rank_max as usize;
        let mut table = vec![T::zeroed(); inputs * width];
        for (rank, row) in a.chunks_exact(inputs).enumerate() {
            for (token, &value) in row.iter().enumerate() {
                table[token * width + rank] = value;
            }
        }
        table
    } else {
        let mut packed = vec![T::zeroed(); rank.next_multiple_of(RANKS) * inputs];
        pack_a(&a, inputs, &mut packed);
        packed
    };
    let mut packed = vec![T::zeroed(); (term.outputs as usize).next_multiple_of(OUTPUTS) * rank];
    pack_b(&b, rank, &mut packed);
    (bytemuck::cast_slice(&a).to_vec(), bytemuck::cast_slice(&packed).to_vec())
}
