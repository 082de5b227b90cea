//! Tensors that are taken by name, each in the shape that is expected of it.

use super::{Element, LoadError, Tensor, Tensors};
use std::collections::BTreeSet;

/// Ends of names of tensors that old checkpoints hold and no model needs: turns of rotary
/// positions, which follow from the configuration.
const NEEDLESS: [&str; 2] = ["rotary_emb.inv_freq", "attention.masked_bias"];

/// A checkpoint's tensors, and which of them were asked for.
pub struct Shelf<'a> {
    tensors: &'a Tensors,
    taken: BTreeSet<String>,
}

impl<'a> Shelf<'a> {
    /// All of them, none asked for.
    pub fn new(tensors: &'a Tensors) -> Self {
        Self { tensors, taken: BTreeSet::new() }
    }

    /// Whether there is such a tensor.
    pub fn holds(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Bytes of all.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(Tensor::len).sum()
    }

    /// A tensor of whatever shape.
    pub fn take(&mut self, name: &str) -> Result<&'a Tensor, LoadError> {
        let missing = || LoadError::Missing { tensor: name.to_owned() };
        let tensor = self.tensors.get(name).ok_or_else(missing)?;
        self.taken.insert(name.to_owned());
        Ok(tensor)
    }

    /// A tensor of floats of that shape.
    pub fn floats(&mut self, name: &str, shape: &[u64]) -> Result<&'a Tensor, LoadError> {
        let tensor = self.take(name)?;
        match tensor.element() {
            Element::Float(_) if tensor.shape() == shape => Ok(tensor),
            _ => Err(unfit(name, &format!("floats {shape:?}"), tensor)),
        }
    }

    /// Marks what there is of a matrix as asked for.
    pub fn leave(&mut self, name: &str) {
        let own = self
            .tensors
            .keys()
            .filter(|tensor| tensor.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')));
        self.taken.extend(own.cloned());
    }

    /// Nothing is left over.
    pub fn complete(&self) -> Result<(), LoadError> {
        let left = self.tensors.keys().find(|name| {
            !self.taken.contains(*name) && !NEEDLESS.iter().any(|end| name.ends_with(end))
        });
        match left {
            Some(tensor) => Err(LoadError::Extra { tensor: tensor.clone() }),
            None => Ok(()),
        }
    }
}

/// A tensor that cannot serve.
pub fn unfit(tensor: &str, expected: &str, got: &Tensor) -> LoadError {
    let (tensor, expected, got) = (tensor.to_owned(), expected.to_owned(), format!("{got:?}"));
    LoadError::Unfit { tensor, expected, got }
}
