//! What changes from step to step: where it lies on the backend, and how it is filled.

use super::Capacity;
use kernels_core::Error;
use kernels_core::device::{Backend, Buffer, Slice};
use kernels_core::params::LORA_NONE;

/// The step buffers of a forward pass.
#[derive(Clone, Copy, Debug)]
pub struct StepSlices {
    /// `[rows_max]` u32: a token each.
    pub tokens: Slice,
    /// `[rows_max]` u32: its position in its sequence.
    pub positions: Slice,
    /// `[rows_max, 2]` u32: the page its keys and values go to, and the place in it.
    pub slots: Slice,
    /// `[seqs_max + 1]` u32: each sequence's first row.
    pub q_start: Slice,
    /// `[seqs_max]` u32: positions of each sequence, those of its rows included.
    pub kv_len: Slice,
    /// `[seqs_max + 1]` u32: each sequence's first page id.
    pub page_start: Slice,
    /// `[page_ids_max]` u32: pages by number.
    pub page_ids: Slice,
    /// `[1]` u32: rows in use.
    pub rows: Slice,
    /// `[1]` u32: sequences in use.
    pub seqs: Slice,
    buffer: Buffer,
}

impl StepSlices {
    /// Room for steps within the capacity.
    pub fn alloc(backend: &mut dyn Backend, capacity: &Capacity) -> Result<Self, Error> {
        let (rows, seqs) = (u64::from(capacity.rows_max), u64::from(capacity.seqs_max));
        let ids = u64::from(capacity.page_ids_max());
        let counts = [rows, rows, 2 * rows, seqs + 1, seqs, seqs + 1, ids, 1, 1];
        let mut ends = [0; 9];
        let mut all = 0;
        for (end, count) in ends.iter_mut().zip(counts) {
            // Each begins on a line of its own.
            all += (4 * count).next_multiple_of(64);
            *end = all;
        }
        let buffer = backend.alloc(all)?;
        let slice = |at: usize| {
            let offset = at.checked_sub(1).map_or(0, |before| ends[before]);
            Slice { buffer, offset, bytes: 4 * counts[at] }
        };
        Ok(Self {
            tokens: slice(0),
            positions: slice(1),
            slots: slice(2),
            q_start: slice(3),
            kv_len: slice(4),
            page_start: slice(5),
            page_ids: slice(6),
            rows: slice(7),
            seqs: slice(8),
            buffer,
        })
    }

    /// Gives the memory back.
    pub fn release(self, backend: &mut dyn Backend) -> Result<(), Error> {
        backend.release(self.buffer)
    }
}

/// The sequences of one step, as step buffers have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    q_start: Vec<u32>,
    kv_len: Vec<u32>,
    page_start: Vec<u32>,
    page_ids: Vec<u32>,
    rows: [u32; 1],
    seqs: [u32; 1],
    page_len: u32,
    /// Of each row, the slot of its adapter.
    adapters: Vec<u32>,
}

impl Batch {
    /// No sequences yet, over pages of so many tokens.
    pub fn new(page_len: u32) -> Self {
        Self {
            tokens: Vec::new(),
            positions: Vec::new(),
            slots: Vec::new(),
            q_start: vec![0],
            kv_len: Vec::new(),
            page_start: vec![0],
            page_ids: Vec::new(),
            rows: [0],
            seqs: [0],
            page_len,
            adapters: Vec::new(),
        }
    }

    /// Forgets the sequences and keeps their room.
    pub fn clear(&mut self) {
        for words in [
            &mut self.tokens,
            &mut self.positions,
            &mut self.slots,
            &mut self.kv_len,
            &mut self.page_ids,
            &mut self.adapters,
        ] {
            words.clear();
        }
        self.q_start.truncate(1);
        self.page_start.truncate(1);
        (self.rows, self.seqs) = ([0], [0]);
    }

    /// One more sequence: tokens from position `first` on, and its pages from position 0 on,
    /// which must reach past the last token. Its rows, by number.
    pub fn push(&mut self, first: u32, tokens: &[u32], pages: &[u32]) -> std::ops::Range<u32> {
        let kv_len = first + tokens.len() as u32;
        let held = kv_len.div_ceil(self.page_len) as usize;
        assert!(held <= pages.len(), "a sequence has pages for all its positions");
        let begin = self.rows[0];
        for (position, &token) in (first..).zip(tokens) {
            let page = pages[(position / self.page_len) as usize];
            self.tokens.push(token);
            self.positions.push(position);
            self.slots.extend([page, position % self.page_len]);
        }
        self.rows[0] += tokens.len() as u32;
        self.seqs[0] += 1;
        self.q_start.push(self.rows[0]);
        self.kv_len.push(kv_len);
        self.page_ids.extend(&pages[..held]);
        self.page_start.push(self.page_ids.len() as u32);
        self.adapters.resize(self.tokens.len(), LORA_NONE);
        begin..self.rows[0]
    }

    /// Gives rows the adapter in a slot.
    pub fn adapt(&mut self, rows: std::ops::Range<u32>, slot: u32) {
        self.adapters[rows.start as usize..rows.end as usize].fill(slot);
    }

    /// Of each row, the slot of its adapter.
    pub fn adapters(&self) -> &[u32] {
        &self.adapters
    }

    /// Whether some row has one.
    pub fn is_adapted(&self) -> bool {
        self.adapters.iter().any(|&slot| slot != LORA_NONE)
    }

    /// The tokens of all rows.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Rows of all sequences together.
    pub fn rows(&self) -> u32 {
        self.rows[0]
    }

    /// Sequences.
    pub fn seqs(&self) -> u32 {
        self.seqs[0]
    }

    /// The writes of a launch.
    pub fn writes<'a>(&'a self, to: &StepSlices) -> [(Slice, &'a [u8]); 9] {
        [
            part(to.tokens, &self.tokens),
            part(to.positions, &self.positions),
            part(to.slots, &self.slots),
            part(to.q_start, &self.q_start),
            part(to.kv_len, &self.kv_len),
            part(to.page_start, &self.page_start),
            part(to.page_ids, &self.page_ids),
            part(to.rows, &self.rows),
            part(to.seqs, &self.seqs),
        ]
    }
}

/// The beginning of a step buffer, and what goes there.
pub fn part(slice: Slice, words: &[u32]) -> (Slice, &[u8]) {
    let bytes: &[u8] = bytemuck::cast_slice(words);
    (Slice { bytes: bytes.len() as u64, ..slice }, bytes)
}
