//! Tensors written as one safetensors file, one after the other: no second copy of them is in
//! memory.

use crate::Error;
use engine::weights::{Element, Tensor, Tensors};
use kernels_core::dtype::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

/// What files of that format begin at multiples of.
const ALIGN: usize = 8;

/// What stands before the tensors: their places, and the length of that.
pub fn header(path: &Path, tensors: &Tensors) -> Result<Vec<u8>, Error> {
    let (mut places, mut end) = (Vec::new(), 0);
    for (name, tensor) in ordered(tensors) {
        let Some(dtype) = dtype(tensor.element()) else {
            return Err(Error::tensor(path, name, "has elements of a type that is not written"));
        };
        let shape = tensor.shape().iter().map(|&extent| extent as usize).collect();
        let begin = end;
        end += tensor.bytes().len();
        places.push((name.clone(), TensorInfo { dtype, shape, data_offsets: (begin, end) }));
    }
    // Readers of other libraries ask for it.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), places);
    let metadata = metadata.map_err(|error| Error::malformed(path, error))?;
    let mut text = serde_json::to_vec(&metadata).map_err(|error| Error::malformed(path, error))?;
    text.resize(text.len().next_multiple_of(ALIGN), b' ');
    Ok([&(text.len() as u64).to_le_bytes()[..], &text].concat())
}

/// Writes that, and the tensors.
pub fn write(to: &mut dyn Write, header: &[u8], tensors: &Tensors) -> io::Result<()> {
    to.write_all(header)?;
    ordered(tensors).into_iter().try_for_each(|(_, tensor)| to.write_all(tensor.bytes()))
}

/// Those of larger elements first, so that each begins at a multiple of its own.
fn ordered(tensors: &Tensors) -> Vec<(&String, &Tensor)> {
    let mut all: Vec<_> = tensors.iter().collect();
    all.sort_by_key(|(_, tensor)| Reverse(tensor.element().bytes()));
    all
}

/// Their type in a file; words are written as unsigned ones, whichever they were.
fn dtype(element: Element) -> Option<safetensors::Dtype> {
    match element {
        Element::Float(Dtype::F32) => Some(safetensors::Dtype::F32),
        Element::Float(Dtype::F16) => Some(safetensors::Dtype::F16),
        Element::Float(Dtype::Bf16) => Some(safetensors::Dtype::BF16),
        Element::Word => Some(safetensors::Dtype::U32),
        Element::Float(_) | Element::Other { .. } => None,
    }
}
