//! Cases of `kv_copy`.

use super::kv_pages::{FORMS, Form, Pages};
use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::kv_copy::{self, ENTRY_WORDS, KvCopy};
use kernels_core::kv_layout::{KvLayout, Part, Place, Scales, Stored};
use kernels_core::math::Real;
use kernels_core::params;
use proptest::prelude::*;

/// A call of `kv_copy` with its buffers.
#[derive(Clone, Debug)]
pub struct KvCopyCase {
    /// Its scalars.
    pub params: params::KvCopy,
    /// How the pages lie; only its name matters to the call.
    pub form: Form,
    /// Entries in use, where they are given.
    pub count: Option<u32>,
    /// The slabs before the call.
    pub keys: Bytes,
    /// V's own slab.
    pub values: Option<Bytes>,
    /// Scales of tokens.
    pub scales: Option<Bytes>,
    /// Page and token from, page and token to, tokens.
    pub entries: Vec<[u32; ENTRY_WORDS]>,
}

/// What a case is made from.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Where.
    pub pages: Pages,
    /// What to copy.
    pub entries: Vec<[u32; ENTRY_WORDS]>,
    /// Entries in use, where they are given.
    pub count: Option<u32>,
    /// Seed of what the slabs hold.
    pub seed: u64,
}

impl Shape {
    /// The call with its values.
    pub fn case(&self) -> KvCopyCase {
        let layout = self.pages.layout();
        let kv = KvLayout::new(Checks("case"), &layout).expect("forms nest");
        let mut noise = Noise::new(self.seed);
        // Any bytes are numbers to a copy, NaNs too.
        let mut slab = |bytes: u64| {
            let words: Vec<u32> = (0..bytes.div_ceil(4)).map(|_| noise.word()).collect();
            Bytes::of(&bytemuck::cast_slice::<u32, u8>(&words)[..bytes as usize])
        };
        let scale_bytes = 4 * kv.scale_count().expect("cases are small");
        KvCopyCase {
            params: params::KvCopy {
                kv: layout,
                entries_max: self.entries.len() as u32,
                tokens_max: layout.page_len,
            },
            form: self.pages.form,
            count: self.count,
            keys: slab(kv.keys_bytes()),
            values: (!kv.shares_slab()).then(|| slab(kv.values_bytes())),
            scales: (kv.scales() == Scales::Token).then(|| slab(scale_bytes)),
            entries: self.entries.clone(),
        }
    }
}

/// The list.
pub fn cases() -> Vec<KvCopyCase> {
    let mut cases = Vec::new();
    for dtype in Dtype::ALL {
        for form in FORMS {
            for page_len in [1, 8, 16, 17, 32] {
                let (len, head_dim) = (page_len, if page_len == 17 { 72 } else { 16 });
                let pages = Pages {
                    form,
                    pages: 4,
                    page_len,
                    kv_heads: 2,
                    head_dim,
                    dtype,
                    token_scales: true,
                };
                let some = len.div_ceil(2);
                let entries = vec![
                    // A whole page, the tokens of one in use, its last token, none at all.
                    [0, 0, 3, 0, len],
                    [1, 0, 2, len - some, some],
                    [3, len - 1, 1, 0, 1],
                    [2, len, 0, 0, 0],
                    // A run onto itself in either direction, and a page onto itself.
                    [3, 0, 3, len - some, some],
                    [2, len - some, 2, 0, some],
                    [1, 0, 1, 0, len],
                    // A token that an earlier entry wrote.
                    [1, 0, 0, len - 1, 1],
                ];
                cases.push(Shape { pages, entries, count: None, seed: 3 }.case());
            }
        }
    }
    let pages = Pages {
        form: Form::Native,
        pages: 2,
        page_len: 8,
        kv_heads: 1,
        head_dim: 8,
        dtype: Dtype::F16,
        token_scales: false,
    };
    // Entries that are not in use may hold anything.
    let entries = vec![[0, 0, 1, 0, 8], [u32::MAX; ENTRY_WORDS]];
    for count in [0, 1] {
        cases.push(Shape { pages, entries: entries.clone(), count: Some(count), seed: 3 }.case());
    }
    cases.extend(tied_by_what_comes_later());
    cases
}

/// Entries that nothing before them writes or reads: later ones write what they read. The second
/// and the fourth must wait for the first and the third; the last one is free.
fn tied_by_what_comes_later() -> Vec<KvCopyCase> {
    let mut cases = Vec::new();
    for (form, dtype, head_dim) in [
        (Form::Native, Dtype::F16, 64),
        (Form::Rows, Dtype::Bf16, 64),
        (Form::Rows, Dtype::I8, 24),
        (Form::HeadMajor, Dtype::F32, 8),
    ] {
        let pages = Pages {
            form,
            pages: 9,
            page_len: 16,
            kv_heads: 3,
            head_dim,
            dtype,
            token_scales: true,
        };
        let entries = vec![
            [0, 0, 1, 0, 16],
            [2, 0, 0, 0, 16],
            [3, 4, 4, 0, 9],
            [5, 0, 3, 12, 3],
            [6, 0, 7, 0, 16],
        ];
        cases.push(Shape { pages, entries, count: None, seed: 4 }.case());
    }
    cases
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let dtype = prop::sample::select(Dtype::ALL.to_vec());
    let form = prop::sample::select(FORMS.to_vec());
    let entries = prop::collection::vec(any::<[u32; ENTRY_WORDS]>(), 1..8);
    let sizes = (1u32..5, 1u32..20, 1u32..4, 1u32..8);
    (form, dtype, sizes, any::<bool>(), entries, any::<u64>()).prop_map(
        |(form, dtype, (pages, page_len, kv_heads, eighths), token_scales, entries, seed)| {
            let head_dim = 8 * eighths;
            let entries = entries.into_iter().map(|[from, from_token, to, to_token, tokens]| {
                let (from_token, to_token) = (from_token % page_len, to_token % page_len);
                let most = page_len - from_token.max(to_token);
                [from % pages, from_token, to % pages, to_token, tokens % (most + 1)]
            });
            let entries = entries.collect();
            let pages = Pages { form, pages, page_len, kv_heads, head_dim, dtype, token_scales };
            Shape { pages, entries, count: None, seed }
        },
    )
}

impl KvCopyCase {}

/// A token's numbers and its scale.
fn bits(stored: &Stored<'_>, part: Part, place: Place) -> Vec<u32> {
    let dims = 0..stored.kv.params().head_dim;
    let codes = dims.map(|dim| stored.code(part, place, dim).to_bits());
    codes.chain([stored.scale(part, place).to_bits()]).collect()
}

/// The slab of K without its tokens' cells.
fn gaps(stored: &Stored<'_>) -> Vec<u8> {
    let (kv, mut slab) = (stored.kv, stored.keys.to_vec());
    let (p, bytes) = (kv.params(), kv.cell_bytes() as usize);
    for at in 0..p.pages * p.kv_heads * p.page_len {
        let (page, rest) = (at / (p.kv_heads * p.page_len), at % (p.kv_heads * p.page_len));
        let place = Place { page, head: rest / p.page_len, token: rest % p.page_len };
        for part in [Part::Keys, Part::Values] {
            if part == Part::Values && stored.values.is_some() {
                continue;
            }
            for dim in 0..kv.dim_cells() {
                let at = (kv.cell(part, place) + dim * kv.dim_stride(part)) as usize * bytes;
                slab[at..at + bytes].fill(0);
            }
        }
    }
    slab
}

impl Case for KvCopyCase {
    const KERNEL: &'static str = "kv_copy";

    fn name(&self) -> String {
        let p = &self.params.kv;
        let dtype = Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == p.dtype);
        let dtype = dtype.map_or("none", Dtype::name);
        let live = self.count.map_or(String::new(), |count| format!(" live {count}"));
        let sizes = format!("{}x{}x{}x{}", p.pages, p.page_len, p.kv_heads, p.head_dim);
        format!("{:?} {sizes} {dtype}/{} {} entries{live}", self.form, p.scales, self.entries.len())
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let mut keys = self.keys.clone();
        let (mut values, mut scales) = (self.values.clone(), self.scales.clone());
        let entries = Bytes::of(&self.entries);
        let count = self.count.map(|count| Bytes::of(&[count]));
        let command = KvCopy::<Host<'_>> {
            params: self.params,
            keys: keys.as_mut_slice(),
            values: values.as_mut().map(Bytes::as_mut_slice),
            scales: scales.as_mut().map(Bytes::as_mut_slice),
            entries: entries.as_slice(),
            count: count.as_ref().map(Bytes::as_slice),
        };
        machine.run(command)?;
        // Bytes are compared as such: a copied NaN keeps its bits.
        let mut outputs = vec![Output { name: "keys", dtype: Dtype::I8, bytes: keys }];
        outputs.extend(values.map(|bytes| Output { name: "values", dtype: Dtype::I8, bytes }));
        outputs.extend(scales.map(|bytes| Output { name: "scales", dtype: Dtype::I8, bytes }));
        Ok(outputs)
    }

    /// Every token holds what the specification says, and nothing between the tokens
    /// has changed.
    fn assert_answer(&self, outputs: &[Output]) {
        let kv = KvLayout::new(Checks("case"), &self.params.kv).expect("the call ran");
        let named = |name| outputs.iter().find(|output| output.name == name);
        let after = Stored {
            kv: &kv,
            keys: outputs[0].bytes.as_slice(),
            values: named("values").map(|output| output.bytes.as_slice()),
            scales: named("scales").map(|output| output.bytes.as_slice()),
        };
        let before = Stored {
            kv: &kv,
            keys: self.keys.as_slice(),
            values: self.values.as_ref().map(Bytes::as_slice),
            scales: self.scales.as_ref().map(Bytes::as_slice),
        };
        let p = &self.params.kv;
        let used = &self.entries[..self.count.map_or(self.entries.len(), |count| count as usize)];
        let mut bits_of_places = 0;
        for head in 0..p.kv_heads {
            for part in [Part::Keys, Part::Values] {
                let read = |stored: &Stored<'_>| -> Vec<Vec<u32>> {
                    let places = (0..p.pages * p.page_len).map(|at| Place {
                        page: at / p.page_len,
                        head,
                        token: at % p.page_len,
                    });
                    places.map(|place| bits(stored, part, place)).collect()
                };
                let expected = kv_copy::spec(&read(&before), p.page_len, used);
                assert!(read(&after) == expected, "{}: {part:?} of head {head}", self.name());
                bits_of_places += expected.len();
            }
        }
        assert_eq!(bits_of_places as u32, 2 * p.kv_heads * p.pages * p.page_len);
        assert!(gaps(&before) == gaps(&after), "{}: a gap has changed", self.name());
    }

    /// Copies have no arithmetic: see `assert_answer`.
    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let slabs = 1 + usize::from(self.values.is_some()) + usize::from(self.scales.is_some());
        vec![Vec::new(); slabs]
    }
}
