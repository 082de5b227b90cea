//! Adapters on a backend: a slot holds one version of one adapter, in slabs of each matrix
//! that some adapter has added to so far.
//!
//! A slot whose adapter adds nothing to a matrix holds rank 1 of zeros there, scaled by
//! minus zero: `fma(-0, 0, x)` is x, bit for bit.

use super::image::{Image, Packed};
use super::matrices::{Kind, Matrices, Matrix};
use crate::model::Config;
use kernels_core::device::{Backend, Command, Read, Slice, Update, Write};
use kernels_core::dtype::Dtype;
use kernels_core::gather::Gather;
use kernels_core::lora::{Lora, OUTPUTS, RANK_MAX, RANKS, a_elements, b_elements};
use kernels_core::{Error, params};

/// Room for adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Versions of adapters that are there at once, old ones that answers still use among
    /// them.
    pub slots: u32,
    /// The largest rank; a multiple of 16, at most 256.
    pub rank_max: u32,
    /// The type of their elements.
    pub dtype: Dtype,
}

impl Settings {
    /// Those with room for that rank.
    pub fn new(slots: u32, rank: u32, dtype: Dtype) -> Self {
        let rank_max = rank.clamp(1, RANK_MAX).next_multiple_of(RANKS as u32);
        Self { slots, rank_max, dtype }
    }

    /// Bytes of a slot in the matrices of all layers; embedding and output take room when
    /// an adapter first adds to them.
    pub fn slot_bytes(&self, config: &Config) -> u64 {
        let matrices = Matrices::of(config);
        let layers = &matrices.all[1..matrices.output()];
        let each = layers.iter().map(|matrix| {
            let p = self.params(matrix);
            (a_elements(&p) + b_elements(&p)) * self.dtype.align()
        });
        each.sum()
    }

    fn params(&self, matrix: &Matrix) -> params::Lora {
        let embeds = matrix.kind == Kind::Embedding;
        // Of an embedding a token has chosen its row of A already.
        let inputs = if embeds { self.rank_max } else { matrix.inputs };
        params::Lora {
            x_row_stride: inputs.into(),
            out_row_stride: matrix.width.into(),
            rows_max: 0,
            inputs,
            outputs: matrix.outputs,
            slots: self.slots,
            rank_max: self.rank_max,
            x_dtype: if embeds { self.dtype as u32 } else { params::DTYPE_F32 },
            weight_dtype: self.dtype as u32,
            reserved: 0,
        }
    }
}

/// The slabs of one matrix.
#[derive(Clone, Copy, Debug)]
struct Room {
    a: Slice,
    b: Slice,
    /// `[slots]` u32.
    ranks: Slice,
    /// `[slots]` f32.
    scales: Slice,
    /// `[slots, outputs]` f32, if some adapter has them.
    magnitudes: Option<Slice>,
}

/// The embedding's own: `[slots, vocab, rank_max]`, each token's column of A; the rows that
/// a step's tokens choose; and which.
#[derive(Clone, Copy, Debug)]
struct Tables {
    tables: Slice,
    chosen: Slice,
    indices: Slice,
}

/// Slots for adapters over a model.
#[derive(Debug)]
pub struct Slots {
    settings: Settings,
    matrices: Matrices,
    rooms: Vec<Option<Room>>,
    tables: Option<Tables>,
    rows_max: u32,
    logit_rows_max: u32,
    /// `[rows_max]` u32: the slot of each row of a step, or none.
    rows: Slice,
    /// `[logit_rows_max]` u32: that of each row of logits.
    logit_rows: Slice,
}

/// What is still to be written of a slot, in parts.
#[derive(Debug)]
pub struct Work {
    slot: u32,
    /// The matrix at hand, and bytes of its A and B that are written.
    matrix: usize,
    done: usize,
}

impl Work {
    /// All of a slot.
    pub fn new(slot: u32) -> Self {
        Self { slot, matrix: 0, done: 0 }
    }

    /// Which slot.
    pub fn slot(&self) -> u32 {
        self.slot
    }
}

fn alloc(backend: &mut dyn Backend, bytes: u64) -> Result<Slice, Error> {
    Ok(Slice { buffer: backend.alloc(bytes)?, offset: 0, bytes })
}

fn cut(slice: Slice, at: u64, bytes: usize) -> Slice {
    Slice { offset: slice.offset + at, bytes: bytes as u64, ..slice }
}

impl Slots {
    /// Empty ones, for steps of so many rows, and rows of logits.
    pub fn alloc(
        backend: &mut dyn Backend,
        config: &Config,
        settings: Settings,
        [rows_max, logit_rows_max]: [u32; 2],
    ) -> Result<Self, Error> {
        let matrices = Matrices::of(config);
        Ok(Self {
            settings,
            rooms: vec![None; matrices.all.len()],
            matrices,
            tables: None,
            rows_max,
            logit_rows_max,
            rows: alloc(backend, 4 * u64::from(rows_max))?,
            logit_rows: alloc(backend, 4 * u64::from(logit_rows_max))?,
        })
    }

    /// Their settings.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Makes slabs for what an adapter adds to. Says whether there are new ones: what was
    /// recorded before knows nothing of them.
    pub fn make_room(&mut self, backend: &mut dyn Backend, image: &Image) -> Result<bool, Error> {
        let mut new = false;
        for (at, term) in image.terms.iter().enumerate() {
            let Some(term) = term else { continue };
            if self.rooms[at].is_none() {
                self.rooms[at] = Some(self.room(backend, at)?);
                new = true;
            }
            let outputs = self.matrices.all[at].outputs;
            let room = self.rooms[at].as_mut().expect("it was made");
            if term.magnitudes.is_some() && room.magnitudes.is_none() {
                let ones = vec![1f32; (self.settings.slots * outputs) as usize];
                let bytes: &[u8] = bytemuck::cast_slice(&ones);
                let slice = alloc(backend, bytes.len() as u64)?;
                backend.write(slice, bytes)?;
                room.magnitudes = Some(slice);
                new = true;
            }
        }
        Ok(new)
    }

    /// Writes about so many bytes more of an image into its slot. Says whether it is whole.
    pub fn write(
        &self,
        backend: &mut dyn Backend,
        image: &Image,
        work: &mut Work,
        mut bytes: usize,
    ) -> Result<bool, Error> {
        while work.matrix < self.rooms.len() {
            if bytes == 0 {
                return Ok(false);
            }
            let at = work.matrix;
            if let Some(room) = self.rooms[at] {
                let absent = self.absent(at);
                let term = image.terms[at].as_ref().unwrap_or(&absent);
                let left = self.write_term(backend, (at, room), term, work, &mut bytes)?;
                if left {
                    return Ok(false);
                }
            }
            (work.matrix, work.done) = (at + 1, 0);
        }
        Ok(true)
    }

    /// Whether some adapter adds to the logits.
    pub fn changes_output(&self) -> bool {
        self.rooms[self.matrices.output()].is_some()
    }

    /// The writes of a step whose tokens and rows have these slots.
    pub fn writes<'a>(&self, step: &'a Chosen) -> Vec<(Slice, &'a [u8])> {
        let part = |slice: Slice, words: &'a [u32]| {
            let bytes: &[u8] = bytemuck::cast_slice(words);
            (Slice { bytes: bytes.len() as u64, ..slice }, bytes)
        };
        let mut writes = vec![part(self.rows, &step.slots)];
        if let Some(tables) = &self.tables {
            writes.push(part(tables.indices, &step.indices));
        }
        writes
    }

    /// The write of the slots of rows of logits.
    pub fn logit_writes<'a>(&self, slots: &'a [u32]) -> (Slice, &'a [u8]) {
        let bytes: &[u8] = bytemuck::cast_slice(slots);
        (Slice { bytes: bytes.len() as u64, ..self.logit_rows }, bytes)
    }

    /// What a step's tokens choose.
    pub fn chosen(&self, tokens: &[u32], slots: &[u32]) -> Chosen {
        let vocab = self.matrices.all[Matrices::EMBEDDING].inputs;
        let index = |(&token, &slot): (&u32, &u32)| match slot {
            params::LORA_NONE => 0,
            slot => slot * vocab + token,
        };
        Chosen { slots: slots.to_vec(), indices: tokens.iter().zip(slots).map(index).collect() }
    }

    /// Adds to the embeddings of a step's tokens.
    pub fn add_to_embedding(&self, out: Slice, rows: Slice, commands: &mut Vec<Command>) {
        let (Some(room), Some(tables)) = (self.rooms[Matrices::EMBEDDING], self.tables) else {
            return;
        };
        let width = self.settings.rank_max;
        let vocab = self.matrices.all[Matrices::EMBEDDING].inputs;
        let gather = Gather {
            params: params::Gather {
                x_row_stride: width.into(),
                out_row_stride: width.into(),
                x_rows: self.settings.slots * vocab,
                rows_max: self.rows_max,
                columns: width,
                dtype: self.settings.dtype as u32,
            },
            x: Read(tables.tables),
            indices: Read(tables.indices),
            out: Write(tables.chosen),
            rows: Some(Read(rows)),
        };
        commands.push(gather.into());
        commands.push(self.lora(Matrices::EMBEDDING, room, tables.chosen, out, rows));
    }

    /// Adds to what a product of a layer, its first or its second, made of `x`.
    pub fn add_to_product(
        &self,
        (layer, second): (usize, bool),
        x: Slice,
        out: Slice,
        rows: Slice,
        commands: &mut Vec<Command>,
    ) {
        for at in self.matrices.of_layer(layer, second) {
            if let Some(room) = self.rooms[at] {
                commands.push(self.lora(at, room, x, out, rows));
            }
        }
    }

    /// Adds to logits.
    pub fn add_to_output(&self, x: Slice, out: Slice, rows: Slice, commands: &mut Vec<Command>) {
        let at = self.matrices.output();
        if let Some(room) = self.rooms[at] {
            commands.push(self.lora(at, room, x, out, rows));
        }
    }

    fn lora(&self, at: usize, room: Room, x: Slice, out: Slice, rows: Slice) -> Command {
        let matrix = &self.matrices.all[at];
        let output = at == self.matrices.output();
        let before = 4 * u64::from(matrix.column);
        let out = Slice { offset: out.offset + before, bytes: out.bytes - before, ..out };
        let command = Lora {
            params: params::Lora {
                rows_max: if output { self.logit_rows_max } else { self.rows_max },
                ..self.settings.params(matrix)
            },
            x: Read(x),
            a: Read(room.a),
            b: Read(room.b),
            ranks: Read(room.ranks),
            scales: Read(room.scales),
            magnitudes: room.magnitudes.map(Read),
            adapters: Read(if output { self.logit_rows } else { self.rows }),
            rows: Some(Read(rows)),
            out: Update(out),
        };
        command.into()
    }

    fn room(&mut self, backend: &mut dyn Backend, at: usize) -> Result<Room, Error> {
        let p = self.settings.params(&self.matrices.all[at]);
        let (slots, element) = (self.settings.slots, self.settings.dtype.align());
        let all = u64::from(slots);
        let room = Room {
            a: alloc(backend, all * a_elements(&p) * element)?,
            b: alloc(backend, all * b_elements(&p) * element)?,
            ranks: alloc(backend, all * 4)?,
            scales: alloc(backend, all * 4)?,
            magnitudes: None,
        };
        // Whoever is there already adds nothing here.
        backend.write(room.ranks, bytemuck::cast_slice(&vec![1u32; slots as usize]))?;
        backend.write(room.scales, bytemuck::cast_slice(&vec![-0f32; slots as usize]))?;
        if at == Matrices::EMBEDDING {
            let vocab = u64::from(self.matrices.all[at].inputs);
            let row = u64::from(self.settings.rank_max) * element;
            self.tables = Some(Tables {
                tables: alloc(backend, all * vocab * row)?,
                chosen: alloc(backend, u64::from(self.rows_max) * row)?,
                indices: alloc(backend, u64::from(self.rows_max) * 4)?,
            });
            self.write_identities(backend, &room)?;
        }
        Ok(room)
    }

    /// A of an embedding's slot hands on what a token has chosen.
    fn write_identities(&self, backend: &mut dyn Backend, room: &Room) -> Result<(), Error> {
        let rank = self.settings.rank_max as usize;
        let rows: Vec<f32> = (0..rank * rank).map(|i| f32::from(i / rank == i % rank)).collect();
        let mut packed = vec![0f32; rank * rank];
        kernels_core::lora::pack_a(&rows, rank, &mut packed);
        let bytes: Vec<u8> = match self.settings.dtype {
            Dtype::F32 => bytemuck::cast_slice(&packed).to_vec(),
            Dtype::Bf16 => {
                packed.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect()
            }
            _ => packed.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect(),
        };
        (0..u64::from(self.settings.slots)).try_for_each(|slot| {
            backend.write(cut(room.a, slot * bytes.len() as u64, bytes.len()), &bytes)
        })
    }

    /// What stands where an adapter adds nothing to a matrix.
    fn absent(&self, at: usize) -> Packed {
        let (matrix, element) = (&self.matrices.all[at], self.settings.dtype.align() as usize);
        // Of an embedding, whatever a token chooses is finite, and multiplied by zeros.
        let a = if at == Matrices::EMBEDDING { 0 } else { matrix.inputs as usize * RANKS };
        let b = (matrix.outputs as usize).next_multiple_of(OUTPUTS);
        Packed {
            rank: 1,
            scale: -0.0,
            a: vec![0; a * element],
            b: vec![0; b * element],
            magnitudes: None,
        }
    }

    /// Writes more of one matrix. Says whether something of it is left.
    fn write_term(
        &self,
        backend: &mut dyn Backend,
        (at, room): (usize, Room),
        term: &Packed,
        work: &mut Work,
        bytes: &mut usize,
    ) -> Result<bool, Error> {
        let slot = u64::from(work.slot);
        let p = self.settings.params(&self.matrices.all[at]);
        let element = self.settings.dtype.align();
        let table = self.tables.filter(|_| at == Matrices::EMBEDDING);
        let a = match table {
            Some(tables) => {
                (tables.tables, u64::from(self.matrices.all[at].inputs * p.rank_max) * element)
            }
            None => (room.a, a_elements(&p) * element),
        };
        let parts = [(a, &term.a), ((room.b, b_elements(&p) * element), &term.b)];
        let mut before = 0;
        for ((slab, stride), part) in parts {
            let first = work.done.saturating_sub(before).min(part.len());
            let last = (first + *bytes).min(part.len());
            if first < last {
                let to = cut(slab, slot * stride + first as u64, last - first);
                backend.write(to, &part[first..last])?;
                work.done += last - first;
                *bytes -= last - first;
            }
            if last < part.len() {
                return Ok(true);
            }
            before += part.len();
        }
        backend.write(cut(room.ranks, 4 * slot, 4), &term.rank.to_le_bytes())?;
        backend.write(cut(room.scales, 4 * slot, 4), &term.scale.to_le_bytes())?;
        if let Some(magnitudes) = room.magnitudes {
            let ones = vec![1f32; p.outputs as usize];
            let own = term.magnitudes.as_ref().unwrap_or(&ones);
            let bytes: &[u8] = bytemuck::cast_slice(own);
            backend.write(cut(magnitudes, slot * bytes.len() as u64, bytes.len()), bytes)?;
        }
        Ok(false)
    }
}

/// What the rows of one step choose.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    slots: Vec<u32>,
    /// Of the embedding's tables.
    indices: Vec<u32>,
}
