//! Tensors into a backend's memory: vectors, tables and packed matrices.

use super::rows::{Rows, Stored};
use super::{Element, LoadError, Quantize, Tensor, Tensors, pack, widen};
use crate::model::Source;
use kernels_core::device::{Backend, Buffer, Slice};
use kernels_core::dtype::Dtype;
use kernels_core::packing;
use kernels_core::params;
use kernels_core::workers::Workers;
use std::collections::BTreeSet;

/// Ends of names of tensors that old checkpoints hold and no model needs: turns of rotary
/// positions, which follow from the configuration.
const NEEDLESS: [&str; 2] = ["rotary_emb.inv_freq", "attention.masked_bias"];

/// Takes tensors one after the other and knows in the end which were not asked for.
pub struct Loader<'a> {
    backend: &'a mut dyn Backend,
    workers: &'a dyn Workers,
    tensors: &'a Tensors,
    quantize: Option<Quantize>,
    progress: &'a mut dyn FnMut(u64, u64),
    taken: BTreeSet<String>,
    buffers: Vec<Buffer>,
    done_bytes: u64,
    all_bytes: u64,
}

/// A matrix in a backend's memory.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// Its shape and format.
    pub weight: params::Weight,
    /// The packed matrix.
    pub packed: Slice,
    /// `[outputs]` f32: what is added to each output.
    pub bias: Option<Slice>,
}

/// An embedding table in a backend's memory.
#[derive(Clone, Copy, Debug)]
pub enum Table {
    /// Rows as the checkpoint has them.
    Plain(params::Weight, Slice),
    /// The output weights themselves.
    Packed(params::Weight, Slice),
}

impl<'a> Loader<'a> {
    /// A loader of those tensors. It tells `progress` bytes done and bytes in all.
    pub fn new(
        backend: &'a mut dyn Backend,
        source: &Source<'a>,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        let Source { tensors, quantize, workers, .. } = *source;
        let all_bytes = tensors.values().map(|tensor| tensor.bytes().len() as u64).sum();
        progress(0, all_bytes);
        let (taken, buffers) = (BTreeSet::new(), Vec::new());
        let done_bytes = 0;
        Self {
            backend,
            workers,
            tensors,
            quantize,
            progress,
            taken,
            buffers,
            done_bytes,
            all_bytes,
        }
    }

    /// The vectors of `names` with the elements of each, one after the other, as f32.
    pub fn vectors(&mut self, names: &[(String, u32)]) -> Result<Slice, LoadError> {
        let mut floats = Vec::new();
        for (name, len) in names {
            let tensor = self.floats(name, &[(*len).into()])?;
            widen(float_of(tensor), tensor.bytes(), &mut floats);
            self.done(tensor);
        }
        let name = names.first().map_or("", |(name, _)| name);
        self.upload(name, bytemuck::cast_slice(&floats))
    }

    /// A table of plain rows, borrowed from its file where the backend can.
    pub fn table(&mut self, name: &str, rows: u32, columns: u32) -> Result<Table, LoadError> {
        let name = &format!("{name}.weight");
        let tensor = self.floats(name, &[rows.into(), columns.into()])?;
        let dtype = float_of(tensor);
        let weight = params::Weight {
            outputs: rows,
            inputs: columns,
            dtype: dtype as u32,
            ..Default::default()
        };
        let bytes = tensor.bytes();
        // A file in which tensors do not begin at multiples of their elements is copied.
        let aligned = [bytes.as_ptr().addr(), tensor.range.start];
        let aligned = aligned.iter().all(|at| at.is_multiple_of(dtype.align() as usize));
        let slice = if aligned {
            let buffer = self.backend.import(tensor.file.clone());
            let buffer = buffer.map_err(|error| backend_error(name, error))?;
            self.buffers.push(buffer);
            Slice { buffer, offset: tensor.range.start as u64, bytes: bytes.len() as u64 }
        } else {
            self.upload(name, bytes)?
        };
        self.done(tensor);
        Ok(Table::Plain(weight, slice))
    }

    /// The matrices of `names` with the outputs of each, packed as one, and their biases
    /// where they have some.
    pub fn matrix(
        &mut self,
        names: &[(String, u32)],
        inputs: u32,
        bias: bool,
    ) -> Result<Matrix, LoadError> {
        let weights = suffixed(names, "weight");
        let mut tensors = Vec::new();
        for (name, outputs) in &weights {
            tensors.push(self.floats(name, &[(*outputs).into(), inputs.into()])?);
        }
        let (outputs, inputs) = (names.iter().map(|(_, outputs)| outputs).sum(), inputs);
        let grouped = self.quantize.zip(self.quantize.and_then(|to| to.weight(outputs, inputs)));
        // Matrices of one product have one format; where their files differ, the widest.
        let first = tensors.first().map_or(Dtype::F32, |tensor| float_of(tensor));
        let same = tensors.iter().all(|tensor| float_of(tensor) == first);
        let dtype = if same { first } else { Dtype::F32 } as u32;
        let dense = params::Weight { outputs, inputs, dtype, ..Default::default() };
        let weight = grouped.map_or(dense, |(_, weight)| weight);
        let rows = |(tensor, (_, outputs)): (&&'a Tensor, &(String, u32))| {
            let (dtype, values) = (float_of(tensor), tensor.bytes());
            let stored = match grouped {
                Some((quantize, _)) => Stored::Quantised(quantize, dtype, values),
                None => Stored::Floats(dtype, values),
            };
            Rows { count: *outputs as usize, inputs: inputs as usize, stored }
        };
        let parts: Vec<Rows<'_>> = tensors.iter().zip(names).map(rows).collect();
        let packed = self.packed(&weights[0].0, &weight, &parts)?;
        tensors.into_iter().for_each(|tensor| self.done(tensor));
        let bias = if bias { Some(self.vectors(&suffixed(names, "bias"))?) } else { None };
        Ok(Matrix { weight, packed, bias })
    }

    /// Nothing is left over.
    pub fn complete(&mut self) -> Result<(), LoadError> {
        let left = self.tensors.keys().find(|name| {
            !self.taken.contains(*name) && !NEEDLESS.iter().any(|end| name.ends_with(end))
        });
        if let Some(tensor) = left {
            return Err(LoadError::Extra { tensor: tensor.clone() });
        }
        (self.progress)(self.all_bytes, self.all_bytes);
        Ok(())
    }

    /// The buffers of all that was loaded.
    pub fn into_buffers(self) -> Vec<Buffer> {
        self.buffers
    }

    /// Gives back what was loaded.
    pub fn release(self) {
        for buffer in self.buffers {
            // A backend that refuses its own buffer has failed already; the first error is
            // the one to tell.
            let _ = self.backend.release(buffer);
        }
    }

    /// Marks a matrix that is not loaded as asked for.
    pub fn leave(&mut self, name: &str) {
        self.taken.insert(format!("{name}.weight"));
    }

    /// A tensor of floats of that shape.
    fn floats(&mut self, name: &str, shape: &[u64]) -> Result<&'a Tensor, LoadError> {
        let missing = || LoadError::Missing { tensor: name.to_owned() };
        let tensor = self.tensors.get(name).ok_or_else(missing)?;
        if tensor.shape() != shape || !matches!(tensor.element(), Element::Float(_)) {
            let tensor_name = name.to_owned();
            let (expected, got) = (format!("floats {shape:?}"), format!("{tensor:?}"));
            return Err(LoadError::Unfit { tensor: tensor_name, expected, got });
        }
        self.taken.insert(name.to_owned());
        Ok(tensor)
    }

    fn packed(
        &mut self,
        name: &str,
        weight: &params::Weight,
        parts: &[Rows<'_>],
    ) -> Result<Slice, LoadError> {
        let refuse = |error| backend_error(name, error);
        let bytes = packing::packed_bytes(weight).map_err(refuse)?;
        let slice = self.room(name, bytes)?;
        pack::pack(self.backend, self.workers, weight, parts, slice).map_err(refuse)?;
        Ok(slice)
    }

    fn upload(&mut self, name: &str, bytes: &[u8]) -> Result<Slice, LoadError> {
        let slice = self.room(name, bytes.len() as u64)?;
        self.backend.write(slice, bytes).map_err(|error| backend_error(name, error))?;
        Ok(slice)
    }

    fn room(&mut self, name: &str, bytes: u64) -> Result<Slice, LoadError> {
        let buffer = self.backend.alloc(bytes).map_err(|error| backend_error(name, error))?;
        self.buffers.push(buffer);
        Ok(Slice { buffer, offset: 0, bytes })
    }

    fn done(&mut self, tensor: &Tensor) {
        self.done_bytes += tensor.bytes().len() as u64;
        (self.progress)(self.done_bytes, self.all_bytes);
    }
}

/// The names with what the checkpoint puts after them.
fn suffixed(names: &[(String, u32)], suffix: &str) -> Vec<(String, u32)> {
    names.iter().map(|(name, outputs)| (format!("{name}.{suffix}"), *outputs)).collect()
}

fn backend_error(tensor: &str, error: kernels_core::Error) -> LoadError {
    LoadError::Backend { tensor: tensor.to_owned(), error }
}

/// The type of a tensor that is known to hold floats.
fn float_of(tensor: &Tensor) -> Dtype {
    match tensor.element() {
        Element::Float(dtype) => dtype,
        Element::Word | Element::Other { .. } => unreachable!("only tensors of floats come here"),
    }
}
