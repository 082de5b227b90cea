//! Tensors of an adapter's file, in memory, and the floats they are widened to.

use super::arrays::Array;
use crate::error::Error;
use crate::files;
use engine::weights::{Element, widen};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::path::Path;

/// A tensor of a file.
#[derive(Debug)]
pub struct Stored<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its name there.
    pub name: String,
    view: TensorView<'a>,
}

/// The tensors of a file's bytes, by name: what is refused first is the same each time.
pub fn tensors<'a>(path: &'a Path, bytes: &'a [u8]) -> Result<BTreeMap<String, Stored<'a>>, Error> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| {
        files::blame(path, bytes).unwrap_or_else(|| Error::malformed(path, error))
    })?;
    let stored = file.tensors().into_iter().map(|(name, view)| {
        let stored = Stored { path, name: name.clone(), view };
        (name, stored)
    });
    Ok(stored.collect())
}

/// The arrays of an archive as such tensors.
pub fn arrays<'a>(
    path: &'a Path,
    arrays: &'a BTreeMap<String, Array<'_>>,
) -> BTreeMap<String, Stored<'a>> {
    let stored = arrays.iter().map(|(name, array)| {
        let view = TensorView::new(array.dtype, array.shape.clone(), array.elements());
        let view = view.expect("its size was checked");
        (name.clone(), Stored { path, name: name.clone(), view })
    });
    stored.collect()
}

impl Stored<'_> {
    /// A refusal of it.
    pub fn refuse(&self, what: impl ToString) -> Error {
        Error::tensor(self.path, &self.name, what)
    }

    /// Refuses another shape.
    pub fn has_shape(&self, expected: &[u32]) -> Result<(), Error> {
        let same = |(got, expected): (&usize, &u32)| *got as u64 == u64::from(*expected);
        let got = self.view.shape();
        if got.len() == expected.len() && got.iter().zip(expected).all(same) {
            return Ok(());
        }
        Err(self.refuse(format!("must be {expected:?}, not {got:?}")))
    }

    /// Its elements, exactly, if they have that shape and are numbers.
    pub fn floats(&self, shape: &[u32]) -> Result<Vec<f32>, Error> {
        self.has_shape(shape)?;
        let Element::Float(dtype) = files::element(self.view.dtype()) else {
            let got = self.view.dtype();
            return Err(self.refuse(format!("must be f32, f16 or bf16, not {got}")));
        };
        let mut floats = Vec::new();
        let count = self.view.data().len() / dtype.align() as usize;
        if floats.try_reserve_exact(count).is_err() {
            return Err(self.refuse(format!("has {count} elements, more than memory has room for")));
        }
        widen(dtype, self.view.data(), &mut floats);
        match floats.iter().position(|float| !float.is_finite()) {
            None => Ok(floats),
            Some(at) => {
                let place = place(at, shape);
                Err(self.refuse(format!("is {} at {place:?}, and no number", floats[at])))
            }
        }
    }
}

/// The place of the element that is `at` that many from the first.
fn place(at: usize, shape: &[u32]) -> Vec<usize> {
    let mut rest = at;
    let mut place: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&extent| {
            let here = rest % extent as usize;
            rest /= extent as usize;
            here
        })
        .collect();
    place.reverse();
    place
}
