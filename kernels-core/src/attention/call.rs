//! A call of `attention` on this process's memory: its step buffers are gone over
//! before any work, and say what each row sees.

use super::scores::Row;
use super::{Attention, Types};
use crate::command::{Host, cast, live};
use crate::error::{Error, Fault};
use crate::params;
use crate::simd::Floats;
use core::ops::Range;

/// A call whose step buffers were gone over.
#[derive(Debug)]
pub struct Call<'a> {
    pub p: params::Attention,
    pub types: Types,
    pub group: usize,
    pub q: Floats<'a>,
    pub keys: &'a [u8],
    pub values: &'a [u8],
    pub scales: &'a [f32],
    pub q_start: &'a [u32],
    pub kv_len: &'a [u32],
    pub first_position: Option<&'a [u32]>,
    pub page_start: Option<&'a [u32]>,
    pub page_ids: &'a [u32],
    pub intervals: Option<&'a [u32]>,
    pub tree_bits: Option<&'a [u32]>,
    pub sinks: Option<&'a [f32]>,
    pub slopes: Option<&'a [f32]>,
}

impl<'a> Call<'a> {
    /// Goes over the step buffers before anything is written.
    pub fn new(attention: &Attention<Host<'a>>) -> Result<Self, Error> {
        let (checks, p) = (Attention::<Host<'_>>::CHECKS, attention.params);
        let types = attention.types()?;
        let seqs = live(checks, "seqs", attention.seqs, p.seqs_max)?;
        let words = |span: &'a [u8], count: usize| &cast::<u32>(span)[..count];
        let call = Self {
            p,
            types,
            group: (p.q_heads / p.kv.kv_heads) as usize,
            q: Floats::new(types.q, attention.q),
            keys: attention.keys,
            values: attention.values.unwrap_or(attention.keys),
            scales: attention.scales.map_or(&[], cast),
            q_start: words(attention.q_start, seqs + 1),
            kv_len: words(attention.kv_len, seqs),
            first_position: attention.first_position.map(|first| words(first, seqs)),
            page_start: attention.page_start.map(|starts| words(starts, seqs + 1)),
            page_ids: cast(attention.page_ids),
            intervals: attention.intervals.map(cast),
            tree_bits: attention.tree_bits.map(cast),
            sinks: attention.sinks.map(cast),
            slopes: attention.slopes.map(cast),
        };
        ascending("q_start", call.q_start, p.rows_max)?;
        if let Some(starts) = call.page_start {
            ascending("page_start", starts, p.page_ids_max)?;
        }
        checks.elements("kv_len", call.kv_len, 0..=p.kv_len_max)?;
        for seq in 0..seqs {
            call.check_pages(seq)?;
        }
        Ok(call)
    }

    /// The pages of a sequence are there, as many as its positions take.
    fn check_pages(&self, seq: usize) -> Result<(), Error> {
        let checks = Attention::<Host<'_>>::CHECKS;
        let (kv_len, first) = (self.kv_len[seq], self.first(seq));
        let element = |field, at: usize, most: i64, got: u32| {
            let fault = Fault::Element { at: at as u64, least: 0, most, got: got.into() };
            checks.refuse(field, fault)
        };
        if first > kv_len {
            return Err(element("first_position", seq, kv_len.into(), first));
        }
        let page_len = self.p.kv.page_len;
        let needed =
            if first == kv_len { 0 } else { (kv_len - 1) / page_len - first / page_len + 1 };
        let listed = self.listed(seq);
        if needed as usize > listed.len() {
            let most = (u64::from(first / page_len) + listed.len() as u64) * u64::from(page_len);
            return Err(element("kv_len", seq, most as i64, kv_len));
        }
        let used = &self.page_ids[listed.start..][..needed as usize];
        match used.iter().position(|id| *id >= self.p.kv.pages) {
            Some(at) => {
                let most = i64::from(self.p.kv.pages) - 1;
                Err(element("page_ids", listed.start + at, most, used[at]))
            }
            None => Ok(()),
        }
    }

    /// Where the page ids of a sequence stand.
    pub fn listed(&self, seq: usize) -> Range<usize> {
        let width = self.p.table_width as usize;
        match self.page_start {
            Some(starts) => starts[seq] as usize..starts[seq + 1] as usize,
            None => seq * width..(seq + 1) * width,
        }
    }

    /// The first position kept of a sequence.
    pub fn first(&self, seq: usize) -> u32 {
        self.first_position.map_or(0, |first| first[seq])
    }

    /// What a row sees.
    pub fn row(&self, seq: usize, row: u32) -> Row {
        let (kv_len, p) = (self.kv_len[seq], &self.p);
        let position = i64::from(kv_len) - i64::from(self.q_start[seq + 1]) + i64::from(row);
        let mut begin = i64::from(self.first(seq));
        let mut end = i64::from(kv_len);
        if p.causal == 1 {
            end = end.min(position + 1);
        }
        if p.window > 0 {
            begin = begin.max(position + 1 - i64::from(p.window));
        }
        let (mut tree_at, mut tree) = (end, u64::MAX);
        if let Some(intervals) = self.intervals {
            let interval = &intervals[2 * row as usize..][..2];
            begin = begin.max(interval[0].into());
            tree_at = interval[1].into();
            let mut last = tree_at;
            if let Some(words) = self.tree_bits {
                let words = &words[2 * row as usize..][..2];
                tree = u64::from(words[0]) | u64::from(words[1]) << 32;
                last += 64 - i64::from(tree.leading_zeros());
            }
            end = end.min(last);
        }
        let (begin, end) = if begin < end { (begin as u32, end as u32) } else { (0, 0) };
        Row { position, begin, end, tree_at, tree }
    }

    /// What some rows of a sequence see together.
    pub fn union(&self, seq: u32, rows: Range<u32>) -> Range<u32> {
        rows.map(|row| self.row(seq as usize, row)).filter(|row| row.begin < row.end).fold(
            0..0,
            |all, row| {
                if all.is_empty() {
                    return row.begin..row.end;
                }
                all.start.min(row.begin)..all.end.max(row.end)
            },
        )
    }
}

fn ascending(field: &'static str, starts: &[u32], most: u32) -> Result<(), Error> {
    let mut least = 0;
    for (at, &start) in starts.iter().enumerate() {
        if start < least || start > most {
            let (least, most, got) = (least.into(), most.into(), start.into());
            let fault = Fault::Element { at: at as u64, least, most, got };
            return Err(Attention::<Host<'_>>::CHECKS.refuse(field, fault));
        }
        least = start;
    }
    Ok(())
}
