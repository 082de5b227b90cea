//! Cases of `append_kv`.

use super::kv_pages::{FORMS, Form, Pages};
use super::rope::{TABLE_LEN, table};
use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::append_kv::{self, AppendKv};
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::kv_layout::{KvLayout, Part, Place, Scales, Stored};
use kernels_core::math::Real;
use kernels_core::params;
use kernels_core::rope::Pairing;
use proptest::prelude::*;

/// A call of `append_kv` with its buffers.
#[derive(Clone, Debug)]
pub struct AppendKvCase {
    /// Its scalars.
    pub params: params::AppendKv,
    /// How the pages lie; only its name matters to the call.
    pub form: Form,
    /// Rows in use, where they are given.
    pub rows: Option<u32>,
    /// Keys.
    pub k: Bytes,
    /// Values.
    pub v: Bytes,
    /// The slabs before the call.
    pub keys: Bytes,
    /// V's own slab.
    pub values: Option<Bytes>,
    /// Scales of tokens.
    pub scales: Option<Bytes>,
    /// Page and token of each slot.
    pub slots: Vec<[u32; 2]>,
    /// Where each row's slots start.
    pub slot_starts: Option<Vec<u32>>,
    /// Cosines and sines, with the position of each row.
    pub turns: Option<(Bytes, Vec<u32>)>,
}

/// What a case is made from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Where to.
    pub pages: Pages,
    /// Capacity and rows in use.
    pub rows: (u32, Option<u32>),
    /// Type of k and v.
    pub x_dtype: Dtype,
    /// How keys turn, and how many of their dims.
    pub rope: Option<(Pairing, u32)>,
    /// Whether rows have none to three slots each, or one.
    pub several: bool,
    /// Elements between rows beyond their width.
    pub gap: u32,
    /// Seed of the values.
    pub seed: u64,
}

impl Shape {
    /// f32 rows into native pages of that type.
    pub const fn plain(dtype: Dtype, page_len: u32, head_dim: u32) -> Self {
        let pages = Pages {
            form: Form::Native,
            pages: 5,
            page_len,
            kv_heads: 2,
            head_dim,
            dtype,
            token_scales: true,
        };
        Self {
            pages,
            rows: (4, None),
            x_dtype: Dtype::F32,
            rope: None,
            several: false,
            gap: 0,
            seed: 1,
        }
    }

    /// The call with its values.
    pub fn case(self) -> AppendKvCase {
        let mut noise = Noise::new(self.seed);
        let layout = self.pages.layout();
        let kv = KvLayout::new(Checks("case"), &layout).expect("forms nest");
        let width = self.pages.kv_heads * self.pages.head_dim;
        let stride = u64::from(width + self.gap);
        let elements = self.rows.0 as usize * stride as usize;
        let mut free = noise.permutation(self.pages.pages * self.pages.page_len).into_iter();
        let mut slots = Vec::new();
        let mut starts = vec![0];
        for row in 0..self.rows.0 {
            // The last row goes to the last page's last token.
            let count = if self.several { noise.below(4) } else { 1 };
            let own = free.by_ref().take(count as usize);
            slots.extend(own.map(|at| [at / layout.page_len, at % layout.page_len]));
            assert!(self.several || slots.len() > row as usize, "pages for every row");
            starts.push(slots.len() as u32);
        }
        if slots.is_empty() {
            slots.push([0, 0]);
        }
        let params = params::AppendKv {
            kv: layout,
            k_row_stride: stride,
            v_row_stride: stride,
            rows_max: self.rows.0,
            slots_max: slots.len() as u32,
            x_dtype: self.x_dtype as u32,
            rope: match self.rope {
                None => params::ROPE_NONE,
                Some((Pairing::Neox, _)) => params::ROPE_NEOX,
                Some((Pairing::Interleaved, _)) => params::ROPE_INTERLEAVED,
            },
            rotary_dims: self.rope.map_or(0, |(_, rotary_dims)| rotary_dims),
            table_len: self.rope.map_or(0, |_| TABLE_LEN),
        };
        let scales = kv.scales() == Scales::Token;
        let scale_bytes = 4 * kv.scale_count().expect("cases are small") as usize;
        AppendKvCase {
            params,
            form: self.pages.form,
            rows: self.rows.1,
            k: Bytes::rounded(self.x_dtype, &noise.normals(elements, 2.0)),
            v: Bytes::rounded(self.x_dtype, &noise.normals(elements, 1.5)),
            keys: Bytes::poisoned(kv.keys_bytes() as usize),
            values: (!kv.shares_slab()).then(|| Bytes::poisoned(kv.values_bytes() as usize)),
            scales: scales.then(|| Bytes::poisoned(scale_bytes)),
            slots,
            slot_starts: self.several.then_some(starts),
            turns: self.rope.map(|(_, rotary_dims)| {
                let positions = (0..self.rows.0).map(|_| noise.below(TABLE_LEN)).collect();
                (table(rotary_dims), positions)
            }),
        }
    }
}

/// The list.
pub fn cases() -> Vec<AppendKvCase> {
    use Dtype::{Bf16, F16, F32};
    let mut shapes = Vec::new();
    for dtype in Dtype::ALL {
        for form in FORMS {
            let plain = Shape::plain(dtype, 16, 72);
            let pages = Pages { form, ..plain.pages };
            shapes.push(Shape { pages, several: true, x_dtype: Bf16, ..plain });
            let pages = Pages { token_scales: false, ..pages };
            let rope = Some((Pairing::Neox, 72));
            shapes.push(Shape { pages, rope, gap: 3, rows: (4, Some(3)), ..plain });
        }
        // Around the 16 lanes and the widest head; pages of every length.
        for (page_len, head_dim) in [(1, 8), (8, 16), (16, 24), (17, 80), (32, 128), (17, 256)] {
            shapes.push(Shape { x_dtype: F16, ..Shape::plain(dtype, page_len, head_dim) });
            let rope = Some((Pairing::Interleaved, 8));
            shapes.push(Shape { rope, several: true, ..Shape::plain(dtype, page_len, head_dim) });
        }
        let plain = Shape::plain(dtype, 8, 8);
        shapes.push(Shape { rows: (4, Some(0)), ..plain });
        for x_dtype in [F32, F16, Bf16] {
            shapes.push(Shape {
                x_dtype,
                rope: Some((Pairing::Neox, 64)),
                ..Shape::plain(dtype, 16, 80)
            });
        }
    }
    let mut cases: Vec<AppendKvCase> = shapes.into_iter().map(Shape::case).collect();
    // The last token of the last page, and a row that goes nowhere.
    let mut last = Shape { several: true, rows: (2, None), ..Shape::plain(F16, 17, 72) }.case();
    (last.slots, last.slot_starts) = (vec![[4, 16]], Some(vec![0, 0, 1]));
    last.params.slots_max = 1;
    cases.push(last);
    cases
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let dtype = prop::sample::select(Dtype::ALL.to_vec());
    let x_dtype = prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16]);
    let pairing = prop_oneof![Just(Pairing::Neox), Just(Pairing::Interleaved)];
    let rope = prop::option::of((pairing, 1u32..5));
    let form = prop::sample::select(FORMS.to_vec());
    let sizes = (2u32..5, 1u32..20, 1u32..4, 1u32..12);
    let rest = (any::<bool>(), any::<bool>(), 0u32..9, any::<u64>());
    (form, dtype, x_dtype, rope, sizes, rest).prop_map(
        |(form, dtype, x_dtype, rope, sizes, rest)| {
            let (pages, page_len, kv_heads, eighths) = sizes;
            let (several, token_scales, gap, seed) = rest;
            let head_dim = 8 * eighths;
            let pages = Pages { form, pages, page_len, kv_heads, head_dim, dtype, token_scales };
            let rope = rope.map(|(pairing, quarter)| (pairing, head_dim / 8 * quarter * 2));
            Shape { pages, rows: (2, None), x_dtype, rope, several, gap, seed }
        },
    )
}

impl AppendKvCase {
    fn x_dtype(&self) -> Dtype {
        let find = Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == self.params.x_dtype);
        // A malformed call may name none: it is refused before that matters.
        find.unwrap_or(Dtype::F32)
    }

    /// The layout of a call that ran.
    pub fn kv(&self) -> KvLayout {
        KvLayout::new(Checks("case"), &self.params.kv).expect("the call ran")
    }

    /// The slots of a row.
    pub fn slots(&self, row: usize) -> &[[u32; 2]] {
        match &self.slot_starts {
            Some(starts) => &self.slots[starts[row] as usize..starts[row + 1] as usize],
            None => &self.slots[row..row + 1],
        }
    }

    /// The K or V of one head of a row, before any rounding to the pages' type.
    pub fn row<R: Real>(&self, part: Part, row: usize, head: u32) -> Vec<R> {
        let p = &self.params;
        let (x, stride) = match part {
            Part::Keys => (&self.k, p.k_row_stride),
            Part::Values => (&self.v, p.v_row_stride),
        };
        let real = |values: &[f32]| -> Vec<R> { values.iter().map(|&v| R::of(v.into())).collect() };
        let at = row * stride as usize + (head * p.kv.head_dim) as usize;
        let x = real(&x.floats(self.x_dtype())[at..][..p.kv.head_dim as usize]);
        let pairing = match p.rope {
            params::ROPE_INTERLEAVED => Pairing::Interleaved,
            _ => Pairing::Neox,
        };
        match &self.turns {
            Some((table, positions)) if part == Part::Keys => {
                let dims = p.rotary_dims as usize;
                let turns = &table.cast::<f32>()[positions[row] as usize * dims..][..dims];
                let (cosines, sines) = (real(&turns[..dims / 2]), real(&turns[dims / 2..]));
                append_kv::turned(&x, Some((pairing, &cosines, &sines)))
            }
            _ => append_kv::turned(&x, None),
        }
    }

    /// The slabs after a call, to read.
    pub fn stored<'a>(&self, kv: &'a KvLayout, outputs: &'a [Output]) -> Stored<'a> {
        let named = |name| outputs.iter().find(|output| output.name == name);
        Stored {
            kv,
            keys: outputs[0].bytes.as_slice(),
            values: named("values").map(|output| output.bytes.as_slice()),
            scales: named("scales").map(|output| output.bytes.as_slice()),
        }
    }

    /// Whether the rows in use have numbers that every format can say.
    pub fn keys_are_finite(&self) -> bool {
        // f16 ends at 65504, which a turn may pass; some scales are too small to be one.
        let plain = |x: f32| x == 0.0 || (1e-30..3e4).contains(&x.abs());
        let (k, v) = (self.k.floats(self.x_dtype()), self.v.floats(self.x_dtype()));
        k.into_iter().chain(v).all(plain)
    }

    /// Whether no slot is named twice by the rows in use.
    pub fn slots_differ(&self) -> bool {
        let rows = 0..self.rows.unwrap_or(self.params.rows_max) as usize;
        let mut slots: Vec<[u32; 2]> = rows.flat_map(|row| self.slots(row).to_vec()).collect();
        let count = slots.len();
        slots.sort_unstable();
        slots.dedup();
        slots.len() == count
    }

    /// Each number lies no further from the truth than the format's nearest one, but
    /// for the rounding of turned keys to their own type and of f32 arithmetic.
    fn assert_near(&self, stored: &Stored<'_>, part: Part, place: Place, truth: &[f64]) {
        let dtype = stored.kv.dtype();
        let largest = truth.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        let turned = part == Part::Keys && self.turns.is_some();
        let own = match (turned, self.x_dtype()) {
            (false, _) => 0.0,
            (true, Dtype::F16) => 2f64.powi(-11),
            (true, Dtype::Bf16) => 2f64.powi(-8),
            (true, _) => 2f64.powi(-23),
        };
        let nearest = append_kv::nearest(truth, dtype);
        for (dim, (&truth, nearest)) in truth.iter().zip(nearest).enumerate() {
            let got: f64 = stored.number(part, place, dim as u32);
            let scale = f64::from(stored.scale(part, place));
            let most = match dtype {
                Dtype::I4 => 7.0 * scale,
                Dtype::I8 => 127.0 * scale,
                _ => 448.0 * scale,
            };
            // Past the range of a static scale the end of it is the nearest.
            let beyond = truth.abs() - most;
            let quantum = match dtype {
                Dtype::F32 => 0.0,
                Dtype::F16 => (truth.abs() * 2f64.powi(-11)).max(2f64.powi(-25)),
                Dtype::Bf16 => truth.abs() * 2f64.powi(-8),
                Dtype::E4m3 => {
                    (truth.abs() * 2f64.powi(-4)).max(scale * 2f64.powi(-10)).max(beyond)
                }
                Dtype::I8 | Dtype::I4 if stored.kv.scales() == Scales::Token => {
                    (truth - nearest).abs()
                }
                Dtype::I8 | Dtype::I4 => (scale / 2.0).max(beyond),
            };
            // Beside a tie a rounding of its own takes a number to the other side, twice as far.
            let bound = quantum + (2.0 * own + 2f64.powi(-22)) * largest;
            let (error, name) = ((got - truth).abs(), self.name());
            assert!(
                error <= bound,
                "{name}: {part:?} {place:?} dim {dim} is {got}, expected {truth} within {bound}"
            );
        }
    }

    /// Takes a token's cells and scale over from the slabs after the call.
    fn take_cells(&mut self, stored: &Stored<'_>, part: Part, place: Place) {
        let kv = stored.kv;
        let bytes = kv.cell_bytes() as usize;
        for dim in 0..kv.dim_cells() {
            let at = (kv.cell(part, place) + dim * kv.dim_stride(part)) as usize * bytes;
            let (to, from) = match (part, &mut self.values, stored.values) {
                (Part::Values, Some(values), Some(from)) => (values, from),
                _ => (&mut self.keys, stored.keys),
            };
            to.as_mut_slice()[at..at + bytes].copy_from_slice(&from[at..at + bytes]);
        }
        if let (Some(to), Some(from)) = (&mut self.scales, stored.scales) {
            let at = kv.scale(part, place) as usize * 4;
            to.as_mut_slice()[at..at + 4].copy_from_slice(&from[at..at + 4]);
        }
    }
}

impl Case for AppendKvCase {
    const KERNEL: &'static str = "append_kv";

    fn name(&self) -> String {
        let p = &self.params;
        let live = self.rows.map_or(String::new(), |rows| format!(" live {rows}"));
        let dtype = Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == p.kv.dtype);
        let (dtype, x) = (dtype.map_or("none", Dtype::name), self.x_dtype().name());
        let several = if self.slot_starts.is_some() { " several" } else { "" };
        let (sizes, form) =
            (format!("{}x{}x{}", p.kv.page_len, p.kv.kv_heads, p.kv.head_dim), self.form);
        let rope = format!("rope {}/{}", p.rope, p.rotary_dims);
        format!(
            "{form:?} {sizes} {x}-{dtype}/{} {} rows {rope}{several}{live}",
            p.kv.scales, p.rows_max
        )
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let mut keys = self.keys.clone();
        let (mut values, mut scales) = (self.values.clone(), self.scales.clone());
        let rows = self.rows.map(|rows| Bytes::of(&[rows]));
        let slots = Bytes::of(&self.slots);
        let slot_starts = self.slot_starts.as_ref().map(|starts| Bytes::of(starts));
        let positions = self.turns.as_ref().map(|(_, positions)| Bytes::of(positions));
        let command = AppendKv::<Host<'_>> {
            params: self.params,
            k: self.k.as_slice(),
            v: self.v.as_slice(),
            keys: keys.as_mut_slice(),
            values: values.as_mut().map(Bytes::as_mut_slice),
            scales: scales.as_mut().map(Bytes::as_mut_slice),
            slots: slots.as_slice(),
            slot_starts: slot_starts.as_ref().map(Bytes::as_slice),
            table: self.turns.as_ref().map(|(table, _)| table.as_slice()),
            positions: positions.as_ref().map(Bytes::as_slice),
            rows: rows.as_ref().map(Bytes::as_slice),
        };
        machine.run(command)?;
        let dtype = self.kv().dtype();
        let mut outputs = vec![Output { name: "keys", dtype, bytes: keys }];
        outputs.extend(values.map(|bytes| Output { name: "values", dtype, bytes }));
        outputs.extend(scales.map(|bytes| Output { name: "scales", dtype: Dtype::F32, bytes }));
        Ok(outputs)
    }

    /// Every slot of every row reads back as near as its format can say, and nothing
    /// else of the slabs has changed.
    fn assert_answer(&self, outputs: &[Output]) {
        if !self.keys_are_finite() {
            return;
        }
        let kv = self.kv();
        let stored = self.stored(&kv, outputs);
        let mut expected = self.clone();
        for row in 0..self.rows.unwrap_or(self.params.rows_max) as usize {
            for &[page, token] in self.slots(row) {
                for head in 0..self.params.kv.kv_heads {
                    for part in [Part::Keys, Part::Values] {
                        let place = Place { page, head, token };
                        self.assert_near(&stored, part, place, &self.row(part, row, head));
                        expected.take_cells(&stored, part, place);
                    }
                }
            }
        }
        let name = self.name();
        assert!(expected.keys.as_slice() == stored.keys, "{name}: keys elsewhere have changed");
        let values = expected.values.as_ref().map(Bytes::as_slice);
        assert!(values == stored.values, "{name}: values elsewhere have changed");
        let scales = expected.scales.as_ref().map(Bytes::as_slice);
        assert!(scales == stored.scales, "{name}: scales elsewhere have changed");
    }

    /// A number at a tie may go either way: see `assert_answer`.
    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let slabs = 1 + usize::from(self.values.is_some()) + usize::from(self.scales.is_some());
        vec![Vec::new(); slabs]
    }
}
