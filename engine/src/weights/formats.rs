//! How checkpoints store one matrix: told by the names and shapes of its tensors.

use super::columns::{Columns, Order};
use super::rows::{Groups, Rows, Stored};
use super::shelf::{Shelf, unfit};
use super::{Element, LoadError, Quantize, Tensor};
use kernels_core::dtype::Dtype;
use kernels_core::params;

/// A matrix as the checkpoint has it.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Its rows, as they will be packed.
    pub rows: Rows<'a>,
    /// What they become.
    pub weight: params::Weight,
    /// Bytes of its tensors.
    pub bytes: u64,
}

/// What is to be known besides tensors.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// What to make of floats.
    pub quantize: Option<Quantize>,
    /// Whether GPTQ's zeros are stored less one.
    pub zeros_less_one: bool,
}

/// A matrix that is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'n> {
    /// Its name.
    pub name: &'n str,
    /// Its rows.
    pub outputs: u32,
    /// Its columns.
    pub inputs: u32,
}

impl Wanted<'_> {
    /// The name of one of its tensors.
    fn part(&self, part: &str) -> String {
        format!("{}.{part}", self.name)
    }

    /// Rows and columns.
    fn shape(&self) -> (u64, u64) {
        (self.outputs.into(), self.inputs.into())
    }

    fn rows<'a>(&self, stored: Stored<'a>) -> Rows<'a> {
        Rows { count: self.outputs as usize, inputs: self.inputs as usize, stored }
    }

    fn weight(&self, bits: u64, scheme: u32, group: u64, scale: Dtype) -> params::Weight {
        params::Weight {
            outputs: self.outputs,
            inputs: self.inputs,
            dtype: if bits == 4 { params::DTYPE_I4 } else { params::DTYPE_I8 },
            scheme,
            group: group as u32,
            scale_dtype: scale as u32,
        }
    }
}

/// Whether the matrix is there as whole numbers.
pub fn is_packed(shelf: &Shelf<'_>, name: &str) -> bool {
    shelf.holds(&format!("{name}.scales"))
}

/// Finds a matrix.
pub fn find<'a>(
    shelf: &mut Shelf<'a>,
    wanted: Wanted<'_>,
    reading: Reading,
) -> Result<Found<'a>, LoadError> {
    if shelf.holds(&wanted.part("qweight")) {
        columns(shelf, wanted, reading.zeros_less_one)
    } else if is_packed(shelf, wanted.name) {
        mlx(shelf, wanted)
    } else {
        floats(shelf, wanted, reading.quantize)
    }
}

/// `weight` of floats.
fn floats<'a>(
    shelf: &mut Shelf<'a>,
    wanted: Wanted<'_>,
    quantize: Option<Quantize>,
) -> Result<Found<'a>, LoadError> {
    let Wanted { outputs, inputs, .. } = wanted;
    let tensor = shelf.floats(&wanted.part("weight"), &[outputs.into(), inputs.into()])?;
    let (dtype, values) = (tensor.float(), tensor.bytes());
    let grouped = quantize.and_then(|to| Some((to, to.weight(outputs, inputs)?)));
    let dense = params::Weight { outputs, inputs, dtype: dtype as u32, ..Default::default() };
    let (stored, weight) = match grouped {
        Some((quantize, weight)) => (Stored::Quantised(quantize, dtype, values), weight),
        None => (Stored::Floats(dtype, values), dense),
    };
    Ok(Found { rows: wanted.rows(stored), weight, bytes: tensor.len() })
}

/// MLX: `weight` of words with consecutive inputs, `scales` and `biases` by group.
fn mlx<'a>(shelf: &mut Shelf<'a>, wanted: Wanted<'_>) -> Result<Found<'a>, LoadError> {
    let [words, scales, biases] = ["weight", "scales", "biases"].map(|part| wanted.part(part));
    let (rows, columns) = wanted.shape();
    let tensor = shelf.take(&words)?;
    let bits = bits(&words, tensor, |bits| vec![rows, columns * bits / 32])?;
    let scale = shelf.take(&scales)?;
    let group = group(&scales, scale, columns, |groups| vec![rows, groups])?;
    let bias = shelf.floats(&biases, scale.shape())?;
    if bias.element() != scale.element() {
        return Err(unfit(&biases, scale.element().name(), bias));
    }
    let stored = Stored::Groups(Groups {
        bits: bits as usize,
        group: group as usize,
        scale_bytes: scale.float().align() as usize,
        numbers: tensor.bytes(),
        scales: scale.bytes(),
        biases: bias.bytes(),
    });
    let weight = wanted.weight(bits, params::SCHEME_AFFINE, group, scale.float());
    let bytes = tensor.len() + scale.len() + bias.len();
    Ok(Found { rows: wanted.rows(stored), weight, bytes })
}

/// AWQ or GPTQ: `qweight`, `qzeros` and `scales`, and with GPTQ the group of each input.
fn columns<'a>(
    shelf: &mut Shelf<'a>,
    wanted: Wanted<'_>,
    zeros_less_one: bool,
) -> Result<Found<'a>, LoadError> {
    let [words, zeros, scales] = ["qweight", "qzeros", "scales"].map(|part| wanted.part(part));
    let (rows, columns) = wanted.shape();
    let tensor = shelf.take(&words)?;
    // AWQ packs outputs, 4 bits each; GPTQ packs inputs.
    let (order, bits) = if tensor.shape() == [columns, rows / 8] {
        (Order::Awq, 4)
    } else {
        (Order::Gptq, bits(&words, tensor, |bits| vec![columns * bits / 32, rows])?)
    };
    let scale = shelf.take(&scales)?;
    let group = group(&scales, scale, columns, |groups| vec![groups, rows])?;
    let zero = shelf.take(&zeros)?;
    let shape = [columns / group, rows * bits / 32];
    if !(rows * bits).is_multiple_of(32) {
        return Err(unfit(&words, "of as many outputs as fill words", tensor));
    }
    for (name, tensor, shape) in [(&words, tensor, tensor.shape()), (&zeros, zero, &shape)] {
        if tensor.element() != Element::Word || tensor.shape() != shape {
            return Err(unfit(name, &format!("32-bit words {shape:?}"), tensor));
        }
    }
    let order_bytes = in_order(shelf, &wanted.part("g_idx"), columns, group)?;
    let matrix = Columns {
        order,
        bits: bits as usize,
        group: group as usize,
        outputs: wanted.outputs as usize,
        inputs: wanted.inputs as usize,
        words: tensor.bytes(),
        zeros: zero.bytes(),
        zeros_less_one: order == Order::Gptq && zeros_less_one,
        scales: scale.bytes(),
        scale_dtype: scale.float(),
    };
    let symmetric = matrix.is_symmetric();
    let weight = match symmetric {
        true => wanted.weight(bits, params::SCHEME_SYMMETRIC, group, scale.float()),
        false => wanted.weight(bits, params::SCHEME_AFFINE, group, Dtype::F32),
    };
    let bytes = tensor.len() + scale.len() + zero.len() + order_bytes;
    Ok(Found { rows: wanted.rows(Stored::Columns(matrix, symmetric)), weight, bytes })
}

/// Refuses inputs that lie in other groups than their order says; bytes of the list.
fn in_order(shelf: &mut Shelf<'_>, name: &str, inputs: u64, group: u64) -> Result<u64, LoadError> {
    if !shelf.holds(name) {
        return Ok(0);
    }
    let tensor = shelf.take(name)?;
    let four = tensor.bytes().as_chunks::<4>().0;
    let own =
        |(input, four): (u64, &[u8; 4])| u64::from(u32::from_le_bytes(*four)) == input / group;
    if tensor.element() == Element::Word && tensor.shape() == [inputs] && (0..).zip(four).all(own) {
        return Ok(tensor.len());
    }
    Err(unfit(name, "the groups of inputs in their order: act-order is not served", tensor))
}

/// The format that all matrices of one product can have.
pub fn in_common(found: &mut [Found<'_>], name: &str) -> Result<params::Weight, LoadError> {
    let outputs = found.iter().map(|found| found.weight.outputs).sum();
    let alike = |found: &[Found<'_>]| {
        let format = |found: &Found<'_>| params::Weight { outputs, ..found.weight };
        let first = format(&found[0]);
        found.iter().all(|found| format(found) == first).then_some(first)
    };
    if let Some(weight) = alike(found) {
        return Ok(weight);
    }
    for found in &mut *found {
        match &mut found.rows.stored {
            // Floats of several types are all exact as f32.
            Stored::Floats(..) => found.weight.dtype = params::DTYPE_F32,
            // What one needs a bias for, all can have one for.
            Stored::Columns(_, symmetric) => {
                *symmetric = false;
                found.weight.scheme = params::SCHEME_AFFINE;
                found.weight.scale_dtype = params::DTYPE_F32;
            }
            Stored::Groups(_) | Stored::Quantised(..) => {}
        }
    }
    alike(found).ok_or_else(|| LoadError::Unfit {
        tensor: name.to_owned(),
        expected: "of one format with the matrices that share its input".to_owned(),
        got: "another".to_owned(),
    })
}

/// 4 or 8, whichever the shape of the words says.
fn bits(name: &str, tensor: &Tensor, shape: impl Fn(u64) -> Vec<u64>) -> Result<u64, LoadError> {
    let fits = |bits: &u64| tensor.element() == Element::Word && tensor.shape() == shape(*bits);
    [4, 8].into_iter().find(fits).ok_or_else(|| {
        let expected = format!("words {:?} of 4 bits, or {:?} of 8", shape(4), shape(8));
        unfit(name, &expected, tensor)
    })
}

/// 32, 64 or 128, whichever the shape of the scales says.
fn group(
    name: &str,
    tensor: &Tensor,
    inputs: u64,
    shape: impl Fn(u64) -> Vec<u64>,
) -> Result<u64, LoadError> {
    let fits = |group: &u64| {
        inputs.is_multiple_of(*group)
            && matches!(tensor.element(), Element::Float(_))
            && tensor.shape() == shape(inputs / group)
    };
    [32, 64, 128].into_iter().find(fits).ok_or_else(|| {
        unfit(name, &format!("floats for groups of 32, 64 or 128 of {inputs} inputs"), tensor)
    })
}
