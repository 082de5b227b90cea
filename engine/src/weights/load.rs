//! Tensors into a backend's memory: vectors, tables and packed matrices.

use super::formats::{self, Found, Reading, Wanted};
use super::rows::Rows;
use super::shelf::Shelf;
use super::{LoadError, pack, widen};
use crate::model::Source;
use kernels_core::device::{Backend, Buffer, Slice};
use kernels_core::packing;
use kernels_core::params;
use kernels_core::workers::Workers;

/// Takes tensors one after the other and knows in the end which were not asked for.
pub struct Loader<'a> {
    /// Where they go; `None` only counts what they would take.
    backend: Option<&'a mut dyn Backend>,
    workers: &'a dyn Workers,
    shelf: Shelf<'a>,
    reading: Reading,
    progress: &'a mut dyn FnMut(u64, u64),
    buffers: Vec<Buffer>,
    /// Memory that they take.
    room_bytes: u64,
    done_bytes: u64,
    all_bytes: u64,
}

/// Of no backend: what a loader gives that only counts.
const NOWHERE: Buffer = Buffer { owner: 0, id: 0, generation: 0 };

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
    /// A loader of those tensors. It tells `progress` bytes done and bytes in all. Without
    /// a backend it only counts what they would take.
    pub fn new(
        backend: Option<&'a mut dyn Backend>,
        source: &Source<'a>,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        let Source { config, tensors, quantize, workers } = *source;
        let shelf = Shelf::new(tensors);
        let reading = Reading { quantize, zeros_less_one: config.zeros_less_one };
        let all_bytes = shelf.bytes();
        progress(0, all_bytes);
        let (buffers, room_bytes, done_bytes) = (Vec::new(), 0, 0);
        Self {
            backend,
            workers,
            shelf,
            reading,
            progress,
            buffers,
            room_bytes,
            done_bytes,
            all_bytes,
        }
    }

    /// The vectors of `names` with the elements of each, one after the other, as f32.
    pub fn vectors(&mut self, names: &[(String, u32)]) -> Result<Slice, LoadError> {
        let mut floats = Vec::new();
        for (name, len) in names {
            let tensor = self.shelf.floats(name, &[(*len).into()])?;
            widen(tensor.float(), tensor.bytes(), &mut floats);
            self.done(tensor.len());
        }
        let name = names.first().map_or("", |(name, _)| name);
        self.upload(name, bytemuck::cast_slice(&floats))
    }

    /// A table of rows: floats are borrowed from their file where the backend can, and
    /// packed numbers are packed as for a product.
    pub fn table(&mut self, name: &str, rows: u32, columns: u32) -> Result<Table, LoadError> {
        if formats::is_packed(&self.shelf, name) {
            let matrix = self.matrix(&[(name.to_owned(), rows)], columns, false)?;
            return Ok(Table::Packed(matrix.weight, matrix.packed));
        }
        let name = &format!("{name}.weight");
        let tensor = self.shelf.floats(name, &[rows.into(), columns.into()])?;
        let dtype = tensor.float();
        let weight = params::Weight {
            outputs: rows,
            inputs: columns,
            dtype: dtype as u32,
            ..Default::default()
        };
        let bytes = tensor.bytes();
        // One that does not begin at a multiple of its elements is copied.
        let aligned = bytes.as_ptr().addr().is_multiple_of(dtype.align() as usize);
        let slice = if aligned {
            self.room_bytes += bytes.len() as u64;
            let buffer = match &mut self.backend {
                None => NOWHERE,
                Some(backend) => {
                    let buffer = backend.import(tensor.host());
                    let buffer = buffer.map_err(|error| backend_error(name, error))?;
                    self.buffers.push(buffer);
                    buffer
                }
            };
            Slice { buffer, offset: 0, bytes: bytes.len() as u64 }
        } else {
            self.upload(name, bytes)?
        };
        self.done(tensor.len());
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
        let mut found = Vec::new();
        for (name, outputs) in names {
            let wanted = Wanted { name, outputs: *outputs, inputs };
            found.push(formats::find(&mut self.shelf, wanted, self.reading)?);
        }
        let name = &names[0].0;
        let weight = formats::in_common(&mut found, name)?;
        let packed = self.packed(name, &weight, &found)?;
        self.done(found.iter().map(|found| found.bytes).sum());
        let biases = suffixed(names, "bias");
        // Some packers write biases of zeros where a model has none.
        let bias = bias || packed_with_bias(&self.shelf, names);
        let bias = if bias { Some(self.vectors(&biases)?) } else { None };
        Ok(Matrix { weight, packed, bias })
    }

    /// Nothing is left over.
    pub fn complete(&mut self) -> Result<(), LoadError> {
        self.shelf.complete()?;
        (self.progress)(self.all_bytes, self.all_bytes);
        Ok(())
    }

    /// Memory that all of it takes, what the backend borrows from files with it.
    pub fn bytes(&self) -> u64 {
        self.room_bytes
    }

    /// The buffers of all that was loaded.
    pub fn into_buffers(self) -> Vec<Buffer> {
        self.buffers
    }

    /// Gives back what was loaded.
    pub fn release(self) {
        let Some(backend) = self.backend else { return };
        for buffer in self.buffers {
            // A backend that refuses its own buffer has failed already; the first error is
            // the one to tell.
            let _ = backend.release(buffer);
        }
    }

    /// Marks a matrix that is not loaded as asked for.
    pub fn leave(&mut self, name: &str) {
        self.shelf.leave(name);
    }

    fn packed(
        &mut self,
        name: &str,
        weight: &params::Weight,
        found: &[Found<'_>],
    ) -> Result<Slice, LoadError> {
        let parts: Vec<Rows<'_>> = found.iter().map(|found| found.rows).collect();
        let refuse = |error| backend_error(name, error);
        let bytes = packing::packed_bytes(weight).map_err(refuse)?;
        let slice = self.room(name, bytes)?;
        if let Some(backend) = &mut self.backend {
            pack::pack(*backend, self.workers, weight, &parts, slice).map_err(refuse)?;
        }
        Ok(slice)
    }

    fn upload(&mut self, name: &str, bytes: &[u8]) -> Result<Slice, LoadError> {
        let slice = self.room(name, bytes.len() as u64)?;
        if let Some(backend) = &mut self.backend {
            backend.write(slice, bytes).map_err(|error| backend_error(name, error))?;
        }
        Ok(slice)
    }

    fn room(&mut self, name: &str, bytes: u64) -> Result<Slice, LoadError> {
        self.room_bytes += bytes;
        let buffer = match &mut self.backend {
            None => NOWHERE,
            Some(backend) => {
                let buffer = backend.alloc(bytes).map_err(|error| backend_error(name, error))?;
                self.buffers.push(buffer);
                buffer
            }
        };
        Ok(Slice { buffer, offset: 0, bytes })
    }

    fn done(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        (self.progress)(self.done_bytes, self.all_bytes);
    }
}

/// The names with what the checkpoint puts after them.
fn suffixed(names: &[(String, u32)], suffix: &str) -> Vec<(String, u32)> {
    names.iter().map(|(name, outputs)| (format!("{name}.{suffix}"), *outputs)).collect()
}

pub(super) fn backend_error(tensor: &str, error: kernels_core::Error) -> LoadError {
    LoadError::Backend { tensor: tensor.to_owned(), error }
}

/// Whether matrices of whole numbers all have a bias.
fn packed_with_bias(shelf: &Shelf<'_>, names: &[(String, u32)]) -> bool {
    let own = |name: &str, part: &str| shelf.holds(&format!("{name}.{part}"));
    names.iter().all(|(name, _)| own(name, "qweight") && own(name, "bias"))
}
