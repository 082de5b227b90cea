//! A shape becomes a call: its parameters, its lists of pages, its values.

use super::{AttentionCase, CHECKS, Lie, Seq, Shape, With};
use crate::harness::{Bytes, Noise};
use half::{bf16, f16};
use kernels_core::dtype::Dtype;
use kernels_core::kv_layout::{KvLayout, Part, Place};
use kernels_core::math::E4m3;
use kernels_core::params;

impl Shape {
    /// A causal call in f32 over the native layout.
    pub fn plain(seqs: &[Seq], group: u32, head_dim: u32) -> Self {
        Self {
            seqs: seqs.to_vec(),
            kv_heads: 1,
            group,
            head_dim,
            page_len: 16,
            lie: Lie::Native,
            dtypes: (Dtype::F32, Dtype::F32, Dtype::F32),
            token_scales: false,
            causal: true,
            window: 0,
            softcap: 0.0,
            with: With::default(),
            size: 1.0,
            seed: 1,
        }
    }

    /// With K and V of that type.
    pub fn stored(self, dtype: Dtype) -> Self {
        Self { dtypes: (self.dtypes.0, dtype, self.dtypes.2), ..self }
    }

    /// Where K and V lie in a slab of so many pages.
    pub fn layout(&self, pages: u32) -> params::KvLayout {
        let (dims, len, heads) =
            (u64::from(self.head_dim), u64::from(self.page_len), u64::from(self.kv_heads));
        let dtype = self.dtypes.1;
        let scaled = !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16);
        let scales = match (scaled, self.token_scales) {
            (false, _) => params::KV_SCALES_NONE,
            (true, false) => params::KV_SCALES_STATIC,
            (true, true) => params::KV_SCALES_TOKEN,
        };
        let fixed = scales == params::KV_SCALES_STATIC;
        let pair = if dtype == Dtype::I4 { 2 } else { 1 };
        let block = dims * len;
        let plain = params::KvLayout {
            page_stride: 2 * block * heads,
            k_head_stride: 2 * block,
            k_token_stride: pair,
            k_dim_stride: len,
            v_head_stride: 2 * block,
            v_token_stride: dims,
            v_offset: block,
            pages,
            page_len: self.page_len,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            dtype: dtype as u32,
            scales,
            k_scale: if fixed { 0.02 } else { 0.0 },
            v_scale: if fixed { 0.03 } else { 0.0 },
        };
        match self.lie {
            Lie::Native => plain,
            Lie::Rows => params::KvLayout {
                page_stride: (dims + 6) * heads * len + 2,
                k_head_stride: dims + 6,
                k_token_stride: (dims + 6) * heads,
                k_dim_stride: 1,
                v_head_stride: dims + 2,
                v_token_stride: (dims + 2) * heads,
                v_offset: 0,
                ..plain
            },
        }
    }

    /// The call with its values.
    pub fn case(self) -> AttentionCase {
        let mut noise = Noise::new(self.seed);
        let rows: u32 = self.seqs.iter().map(|seq| seq.rows).sum();
        let rows_max = rows + 2;
        let q_heads = self.kv_heads * self.group;
        let width = u64::from(q_heads * self.head_dim);
        let needed = |seq: &Seq| match seq.kv_len - seq.first {
            0 => 0,
            _ => (seq.kv_len - 1) / self.page_len - seq.first / self.page_len + 1,
        };
        let used: u32 = self.seqs.iter().map(needed).sum();
        // Apart, so that values do not hang on the pages they lie in.
        let mut free = Noise::new(!self.seed).permutation(used + 3);
        let layout = self.layout(used + 3);
        let mut case = AttentionCase {
            input: "",
            params: params::Attention {
                kv: layout,
                q_row_stride: width + 3,
                out_row_stride: width + 5,
                rows_max,
                seqs_max: self.seqs.len() as u32 + 1,
                q_heads,
                kv_len_max: self.seqs.iter().map(|seq| seq.kv_len).max().unwrap_or(0).max(1),
                table_width: 0,
                page_ids_max: 0,
                q_dtype: self.dtypes.0 as u32,
                out_dtype: self.dtypes.2 as u32,
                causal: self.causal.into(),
                window: self.window,
                scale: 1.0 / (self.head_dim as f32).sqrt(),
                softcap: self.softcap,
            },
            q: Bytes::rounded(
                self.dtypes.0,
                &noise.normals(rows_max as usize * (width as usize + 3), self.size),
            ),
            keys: Bytes::filled(0, 0),
            values: None,
            scales: None,
            q_start: vec![0],
            kv_len: self.seqs.iter().map(|seq| seq.kv_len).collect(),
            first_position: None,
            page_start: None,
            page_ids: Vec::new(),
            intervals: None,
            tree: None,
            sinks: None,
            slopes: None,
            shape: self.clone(),
        };
        // One sequence more than is in use, with numbers no one may look at.
        case.kv_len.push(u32::MAX);
        if self.seqs.iter().any(|seq| seq.first > 0) {
            let firsts = self.seqs.iter().map(|seq| seq.first);
            case.first_position = Some(firsts.chain([u32::MAX]).collect());
        }
        for seq in &self.seqs {
            case.q_start.push(case.q_start.last().expect("it begins with 0") + seq.rows);
        }
        case.q_start.push(0);
        let lists: Vec<Vec<u32>> = self
            .seqs
            .iter()
            .map(|seq| (0..needed(seq)).filter_map(|_| free.pop()).collect())
            .collect();
        case.list(&lists);
        case.fill(&mut noise, &lists);
        case.options(&mut noise);
        case
    }
}

impl AttentionCase {
    fn list(&mut self, lists: &[Vec<u32>]) {
        // Ids past a sequence's end are garbage.
        let widest = lists.iter().map(Vec::len).max().unwrap_or(0) + 1;
        if self.shape.with.table {
            self.params.table_width = widest as u32;
            for list in lists {
                self.page_ids.extend(list);
                self.page_ids.resize(self.page_ids.len() + widest - list.len(), u32::MAX);
            }
            self.page_ids.resize(self.page_ids.len() + widest, u32::MAX);
            return;
        }
        let mut starts = vec![0];
        for (i, list) in lists.iter().enumerate() {
            self.page_ids.extend(list);
            self.page_ids.resize(self.page_ids.len() + i % 2, u32::MAX);
            starts.push(self.page_ids.len() as u32);
        }
        starts.push(0);
        self.page_start = Some(starts);
        self.params.page_ids_max = self.page_ids.len() as u32;
    }

    /// Writes every position; all else in the slabs is NaN, or as near as the type has it.
    fn fill(&mut self, noise: &mut Noise, lists: &[Vec<u32>]) {
        let kv = KvLayout::new(CHECKS, &self.params.kv).expect("cases have good layouts");
        let mut keys = Bytes::filled(kv.keys_bytes() as usize, 0xff);
        let mut values =
            (!kv.shares_slab()).then(|| Bytes::filled(kv.values_bytes() as usize, 0xff));
        let count = kv.scale_count().expect("cases are small") as usize;
        let mut scales =
            vec![
                f32::NAN;
                if self.params.kv.scales == params::KV_SCALES_TOKEN { count } else { 0 }
            ];
        for (seq, list) in self.shape.seqs.iter().zip(lists) {
            let len = self.shape.page_len;
            for position in seq.first..seq.kv_len {
                let page = list[(position / len - seq.first / len) as usize];
                for head in 0..self.shape.kv_heads {
                    let place = Place { page, head, token: position % len };
                    for part in [Part::Keys, Part::Values] {
                        let slab = match (part, &mut values) {
                            (Part::Values, Some(values)) => values,
                            _ => &mut keys,
                        };
                        for dim in 0..self.shape.head_dim {
                            put(&kv, slab.as_mut_slice(), part, place, dim, noise.normal());
                        }
                        if !scales.is_empty() {
                            scales[kv.scale(part, place) as usize] = 0.01 + 0.03 * noise.uniform();
                        }
                    }
                }
            }
        }
        self.scales = (!scales.is_empty()).then(|| Bytes::of(&scales));
        (self.keys, self.values) = (keys, values);
    }

    fn options(&mut self, noise: &mut Noise) {
        let (with, heads) = (self.shape.with, self.params.q_heads as usize);
        let rows = self.params.rows_max as usize;
        let most = self.params.kv_len_max;
        self.sinks = with.sinks.then(|| noise.normals(heads, 2.0));
        self.slopes = with.slopes.then(|| (0..heads).map(|h| 0.5f32.powi(h as i32 + 1)).collect());
        self.tree = with.tree.then(|| (0..2 * rows).map(|_| noise.word()).collect());
        self.intervals = (with.intervals || with.tree).then(|| {
            let pair = |_| {
                let begin = noise.below(most + 1);
                // Some are empty, and some end where no sequence does.
                [begin, begin + noise.below(most + 9)]
            };
            (0..rows).flat_map(pair).collect()
        });
    }
}

/// Stores a number near `value` in units that suit its type.
fn put(kv: &KvLayout, slab: &mut [u8], part: Part, place: Place, dim: u32, value: f32) {
    let of = if kv.dtype() == Dtype::I4 { 2 } else { 1 };
    let cell = kv.cell(part, place) + u64::from(dim / of) * kv.dim_stride(part);
    let at = (cell * kv.cell_bytes()) as usize;
    match kv.dtype() {
        Dtype::F32 => slab[at..at + 4].copy_from_slice(&value.to_le_bytes()),
        Dtype::F16 => slab[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes()),
        Dtype::Bf16 => slab[at..at + 2].copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
        Dtype::E4m3 => slab[at] = E4m3::from_f32(value * 40.0).0,
        Dtype::I8 => slab[at] = (value * 40.0) as i8 as u8,
        Dtype::I4 => {
            let nibble = (value * 4.0).clamp(-8.0, 7.0) as i8 as u8 & 15;
            let shift = 4 * (dim % 2);
            slab[at] = slab[at] & !(15 << shift) | nibble << shift;
        }
    }
}
