//! Cases of `attention`: what a call is made from, and what the specification says of it.

mod build;
mod list;

use crate::harness::{Bytes, Case, Machine, Output, Row};
use kernels_core::Error;
use kernels_core::attention::{self, Attention, Key, Scores};
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::kv_layout::{KvLayout, Part, Place, Stored};
use kernels_core::math::Real;
use kernels_core::params;

pub use list::{cases, strategy};

/// A call of `attention` with its buffers.
#[derive(Clone, Debug)]
pub struct AttentionCase {
    /// What its values are, where that is the point of it.
    pub input: &'static str,
    /// What it was made from.
    pub shape: Shape,
    /// Its scalars.
    pub params: params::Attention,
    /// The queries.
    pub q: Bytes,
    /// The slab of K, or of both.
    pub keys: Bytes,
    /// The slab of V where it is apart.
    pub values: Option<Bytes>,
    /// The slab of scales.
    pub scales: Option<Bytes>,
    /// First rows.
    pub q_start: Vec<u32>,
    /// Lengths.
    pub kv_len: Vec<u32>,
    /// First positions.
    pub first_position: Option<Vec<u32>>,
    /// First ids of lists.
    pub page_start: Option<Vec<u32>>,
    /// Pages by number.
    pub page_ids: Vec<u32>,
    /// Begin and end for each row.
    pub intervals: Option<Vec<u32>>,
    /// Two words for each row.
    pub tree: Option<Vec<u32>>,
    /// One for each query head.
    pub sinks: Option<Vec<f32>>,
    /// One for each query head.
    pub slopes: Option<Vec<f32>>,
}

/// One sequence: its rows, its length, and the first position kept.
#[derive(Clone, Copy, Debug)]
pub struct Seq {
    /// Rows of queries.
    pub rows: u32,
    /// Positions.
    pub kv_len: u32,
    /// The first kept.
    pub first: u32,
}

/// How K and V lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// K transposed, V in rows, head by head in one slab.
    Native,
    /// Rows of K and V, token by token, in two slabs with gaps that are no multiple of 8.
    Rows,
}

/// What a case is made from.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The sequences.
    pub seqs: Vec<Seq>,
    /// Heads of K and V.
    pub kv_heads: u32,
    /// Query heads for each of them.
    pub group: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Tokens of a page.
    pub page_len: u32,
    /// How K and V lie.
    pub lie: Lie,
    /// Types of q, K and V, and out.
    pub dtypes: (Dtype, Dtype, Dtype),
    /// Scales by token, where the type has scales.
    pub token_scales: bool,
    /// No position after a row's own.
    pub causal: bool,
    /// Positions a row sees; 0: all.
    pub window: u32,
    /// The cap; 0: none.
    pub softcap: f32,
    /// What is there: sinks, slopes, intervals, tree bits, a padded table.
    pub with: With,
    /// Queries are this large.
    pub size: f32,
    /// Seed of the values.
    pub seed: u64,
}

/// Buffers that may be there.
#[derive(Clone, Copy, Debug, Default)]
pub struct With {
    /// Sinks.
    pub sinks: bool,
    /// ALiBi slopes.
    pub slopes: bool,
    /// Intervals of rows.
    pub intervals: bool,
    /// Tree bits of rows.
    pub tree: bool,
    /// A padded table, not lists.
    pub table: bool,
}

/// A sequence with all of its positions kept.
pub const fn seq(rows: u32, kv_len: u32) -> Seq {
    Seq { rows, kv_len, first: 0 }
}

const CHECKS: Checks = Checks("attention");

impl AttentionCase {
    fn stored<'a>(&'a self, kv: &'a KvLayout) -> Stored<'a> {
        Stored {
            kv,
            keys: self.keys.as_slice(),
            values: self.values.as_ref().map(Bytes::as_slice),
            scales: self.scales.as_ref().map(Bytes::as_slice),
        }
    }

    /// A sequence as the lists of the call have it.
    fn seq(&self, seq: usize) -> Seq {
        Seq {
            rows: self.q_start[seq + 1] - self.q_start[seq],
            kv_len: self.kv_len[seq],
            first: self.first_position.as_ref().map_or(0, |first| first[seq]),
        }
    }

    /// The page ids of a sequence, and those of all that come after it.
    fn ids(&self, seq: usize) -> &[u32] {
        match &self.page_start {
            Some(starts) => &self.page_ids[starts[seq] as usize..],
            None => &self.page_ids[seq * self.params.table_width as usize..],
        }
    }

    /// Where a position of a sequence lies.
    fn place(&self, seq: usize, position: u32, head: u32) -> Place {
        let len = self.params.kv.page_len;
        let number = position / len - self.seq(seq).first / len;
        Place { page: self.ids(seq)[number as usize], head, token: position % len }
    }

    /// Fills the value of a position of a sequence, in its first head, with NaN, or as near as
    /// its type has it.
    pub fn poison(&mut self, seq: usize, position: u32) {
        let kv = KvLayout::new(CHECKS, &self.params.kv).expect("cases have good layouts");
        let place = self.place(seq, position, 0);
        let slab = self.values.as_mut().unwrap_or(&mut self.keys).as_mut_slice();
        for dim in 0..kv.dim_cells() {
            let cell = kv.cell(Part::Values, place) + dim * kv.dim_stride(Part::Values);
            let bytes = kv.cell_bytes() as usize;
            slab[cell as usize * bytes..][..bytes].fill(0xff);
        }
    }

    /// Whether every key of the sequences is a finite number, and no value an infinity.
    fn is_finite(&self) -> bool {
        let kv = KvLayout::new(CHECKS, &self.params.kv).expect("a call that ran");
        let stored = self.stored(&kv);
        let finite = |part, place| {
            let mut numbers =
                (0..self.params.kv.head_dim).map(|d| stored.number::<f64>(part, place, d));
            numbers.all(|x| x.is_finite() || (part == Part::Values && x.is_nan()))
        };
        (0..self.shape.seqs.len()).all(|seq| {
            let of = self.seq(seq);
            (of.first..of.kv_len).all(|at| {
                (0..self.params.kv.kv_heads).all(|head| {
                    let place = self.place(seq, at, head);
                    finite(Part::Keys, place) && finite(Part::Values, place)
                })
            })
        })
    }

    /// Whether a row of a sequence sees a position, as the contract says it.
    fn sees(&self, seq: usize, row: u32, position: u32) -> bool {
        let (p, of) = (&self.params, self.seq(seq));
        let own = i64::from(of.kv_len) - i64::from(of.rows) + i64::from(row - self.q_start[seq]);
        let at = i64::from(position);
        let interval = self.intervals.as_ref().is_none_or(|intervals| {
            let (begin, end) = (intervals[2 * row as usize], intervals[2 * row as usize + 1]);
            let bit = at - i64::from(end);
            let node = self.tree.as_ref().is_some_and(|tree| {
                (0..64).contains(&bit)
                    && tree[2 * row as usize + bit as usize / 32] >> (bit % 32) & 1 == 1
            });
            begin <= position && (position < end || node)
        });
        position >= of.first
            && (p.causal == 0 || at <= own)
            && (p.window == 0 || at > own - i64::from(p.window))
            && interval
    }
}

fn float(number: u32) -> Dtype {
    // A malformed call may name none: it is refused before that matters.
    Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == number).unwrap_or(Dtype::F32)
}

impl Case for AttentionCase {
    const KERNEL: &'static str = "attention";

    fn name(&self) -> String {
        let (s, w) = (&self.shape, &self.shape.with);
        let seqs: Vec<String> =
            s.seqs.iter().map(|q| format!("{}/{}-{}", q.rows, q.first, q.kv_len)).collect();
        let marks = [
            (w.sinks, " sinks"),
            (w.slopes, " slopes"),
            (w.intervals, " intervals"),
            (w.tree, " tree"),
            (w.table, " table"),
            (s.causal, " causal"),
            (s.token_scales, " token"),
        ];
        let marks: String = marks.iter().filter(|mark| mark.0).map(|mark| mark.1).collect();
        format!(
            "{} h{}x{} d{} page {} {:?} {}-{}-{} window {} cap {} size {:e}{marks}{}",
            seqs.join(" "),
            s.kv_heads,
            s.group,
            s.head_dim,
            s.page_len,
            s.lie,
            s.dtypes.0.name(),
            s.dtypes.1.name(),
            s.dtypes.2.name(),
            s.window,
            s.softcap,
            s.size,
            self.input,
        )
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let p = &self.params;
        let out_dtype = float(p.out_dtype);
        let bytes = u64::from(self.shape.seqs.iter().map(|seq| seq.rows).sum::<u32>() + 2)
            * (u64::from(self.shape.kv_heads * self.shape.group * self.shape.head_dim) + 5);
        let mut out = Bytes::poisoned((bytes * out_dtype.align()) as usize);
        let rows = self.shape.seqs.iter().map(|seq| seq.rows).sum::<u32>() + 2;
        let heads = self.shape.kv_heads * self.shape.group;
        let mut lse = Bytes::poisoned((rows * heads * 4) as usize);
        let words = |words: &Option<Vec<u32>>| words.as_ref().map(|words| Bytes::of(words));
        let floats = |floats: &Option<Vec<f32>>| floats.as_ref().map(|floats| Bytes::of(floats));
        let (q_start, kv_len) = (Bytes::of(&self.q_start), Bytes::of(&self.kv_len));
        let (first, page_start) = (words(&self.first_position), words(&self.page_start));
        let page_ids = Bytes::of(&self.page_ids);
        let (intervals, tree) = (words(&self.intervals), words(&self.tree));
        let (sinks, slopes) = (floats(&self.sinks), floats(&self.slopes));
        let seqs = Bytes::of(&[self.shape.seqs.len() as u32]);
        let command = Attention::<Host<'_>> {
            params: *p,
            q: self.q.as_slice(),
            keys: self.keys.as_slice(),
            values: self.values.as_ref().map(Bytes::as_slice),
            scales: self.scales.as_ref().map(Bytes::as_slice),
            q_start: q_start.as_slice(),
            kv_len: kv_len.as_slice(),
            first_position: first.as_ref().map(Bytes::as_slice),
            page_start: page_start.as_ref().map(Bytes::as_slice),
            page_ids: page_ids.as_slice(),
            intervals: intervals.as_ref().map(Bytes::as_slice),
            tree_bits: tree.as_ref().map(Bytes::as_slice),
            sinks: sinks.as_ref().map(Bytes::as_slice),
            slopes: slopes.as_ref().map(Bytes::as_slice),
            out: out.as_mut_slice(),
            lse: Some(lse.as_mut_slice()),
            seqs: Some(seqs.as_slice()),
        };
        machine.run(command)?;
        Ok(vec![
            Output { name: "out", dtype: out_dtype, bytes: out },
            Output { name: "lse", dtype: Dtype::F32, bytes: lse },
        ])
    }

    /// A weight is e to a score: four roundings of a score s are an error of 4 eps |s| in
    /// its weight. The mean |s| over n weights is at most |log-sum-exp| + ln n.
    fn within(&self, output: usize, truth: &[Vec<Row<f64>>]) -> Vec<f64> {
        if output != 0 {
            return Vec::new();
        }
        let heads = self.params.q_heads as usize;
        let most = |values: &[f64]| {
            values.iter().map(|v| v.abs()).filter(|v| v.is_finite()).fold(0.0, f64::max)
        };
        let rows = truth[0].iter().zip(truth[1][0].values.chunks(heads));
        let error = |(out, lse): (&Row<f64>, &[f64])| {
            let score = most(lse) + f64::from(self.params.kv_len_max).ln();
            4.0 * f64::from(f32::EPSILON) * score * most(&out.values)
        };
        rows.map(error).collect()
    }

    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let p = &self.params;
        let kv = KvLayout::new(CHECKS, &p.kv).expect("a call that ran");
        let stored = self.stored(&kv);
        let q = self.q.floats(float(p.q_dtype));
        let (group, dims) = (p.q_heads / p.kv.kv_heads, p.kv.head_dim as usize);
        // A logarithm is a sum of parts that cancel: one is measured against all.
        let (mut outs, mut lse) = (Vec::new(), Vec::new());
        for seq in 0..self.shape.seqs.len() {
            let of = self.seq(seq);
            let vector = |part, position, head| -> Vec<R> {
                let place = self.place(seq, position, head);
                (0..p.kv.head_dim).map(|d| stored.number(part, place, d)).collect()
            };
            let all: Vec<Vec<(Vec<R>, Vec<R>)>> = (0..p.kv.kv_heads)
                .map(|head| {
                    (of.first..of.kv_len)
                        .map(|at| (vector(Part::Keys, at, head), vector(Part::Values, at, head)))
                        .collect()
                })
                .collect();
            for row in self.q_start[seq]..self.q_start[seq + 1] {
                let own =
                    i64::from(of.kv_len) - i64::from(of.rows) + i64::from(row - self.q_start[seq]);
                let mut out = Vec::new();
                for head in 0..p.q_heads {
                    let keys: Vec<Key<R>> = (of.first..of.kv_len)
                        .filter(|&at| self.sees(seq, row, at))
                        .map(|at| {
                            let (k, v) = &all[(head / group) as usize][(at - of.first) as usize];
                            let distance = (i64::from(at) - own) as f64;
                            Key { distance, k: k.clone(), v: v.clone() }
                        })
                        .collect();
                    let by = Scores {
                        scale: p.scale.into(),
                        softcap: p.softcap.into(),
                        slope: self.slopes.as_ref().map_or(0.0, |s| s[head as usize].into()),
                        sink: self.sinks.as_ref().map(|s| s[head as usize].into()),
                    };
                    let start = row as usize * p.q_row_stride as usize + head as usize * dims;
                    let q: Vec<R> =
                        q[start..start + dims].iter().map(|&q| R::of(q.into())).collect();
                    let (values, logarithm) = attention::spec(&q, &keys, by, dims);
                    out.extend(values);
                    lse.push(logarithm);
                }
                outs.push(Row { at: row as usize * p.out_row_stride as usize, values: out });
            }
        }
        let at = self.q_start[0] as usize * p.q_heads as usize;
        vec![outs, vec![Row { at, values: lse }]]
    }

    /// Numbers that f32 overflows on where f64 does not, and slots never written, are
    /// beyond the rule of errors.
    fn has_truth(&self) -> bool {
        let (p, s) = (&self.params, &self.shape);
        let moderate = |x: f32| x == 0.0 || (1e-4..1e4).contains(&x.abs());
        p.q_dtype == s.dtypes.0 as u32
            && p.kv.dtype == s.dtypes.1 as u32
            && [p.scale, p.softcap, p.kv.k_scale, p.kv.v_scale].into_iter().all(moderate)
            && self.is_finite()
    }

    /// What belongs to no row in use is as it was.
    fn assert_answer(&self, outputs: &[Output]) {
        let p = &self.params;
        let rows = self.q_start[0] as usize..self.q_start[self.shape.seqs.len()] as usize;
        let (heads, dims) = (p.q_heads as usize, p.kv.head_dim as usize);
        let layouts = [(p.out_row_stride as usize, heads * dims), (heads, heads)];
        for (output, (stride, width)) in outputs.iter().zip(layouts) {
            let bytes = output.dtype.align() as usize;
            let mut left = output.bytes.clone();
            for row in rows.clone() {
                left.as_mut_slice()[row * stride * bytes..][..width * bytes].fill(0xa5);
            }
            let untouched = Bytes::poisoned(left.len());
            assert!(left.as_slice() == untouched.as_slice(), "{}: {}", self.name(), output.name);
        }
    }
}
