//! One segment of one tile of a grouped weight, times one panel.

use super::tile::{Ahead, Totals};
use crate::dtype::Dtype;
use crate::packing::{Groups, TILE};
use crate::simd::{Element, LANES, Lanes, Level};
use half::{bf16, f16};

/// What a panel is multiplied by: the same segment of one tile, or of two neighbours.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// How the groups are stored.
    pub groups: Groups,
    /// Groups of the segment.
    pub count: usize,
    /// The groups of the first tile, one after the other.
    pub words: &'a [i32],
    /// Words from a tile to its neighbour.
    pub tile_words: usize,
    /// What to ask memory for meanwhile.
    pub ahead: Ahead<'a>,
}

/// The totals of a panel's rows, plus this segment.
pub(super) fn panel(level: Level, part: &Part<'_>, unit: &[i32], totals: &mut Totals<'_>) {
    let rows = totals.rows();
    if !level.many_registers() {
        for first in 0..rows {
            some_rows::<1, 1>(level, part, Panel { unit, rows, first }, totals);
        }
        return;
    }
    let panel = Panel { unit, rows, first: 0 };
    match (totals.tiles(), rows) {
        (1, 1) => some_rows::<1, 1>(level, part, panel, totals),
        (1, 2) => some_rows::<1, 2>(level, part, panel, totals),
        (1, 3) => some_rows::<1, 3>(level, part, panel, totals),
        (1, 4) => some_rows::<1, 4>(level, part, panel, totals),
        (1, 5) => some_rows::<1, 5>(level, part, panel, totals),
        (1, 6) => some_rows::<1, 6>(level, part, panel, totals),
        (1, 7) => some_rows::<1, 7>(level, part, panel, totals),
        (1, 8) => some_rows::<1, 8>(level, part, panel, totals),
        (2, 1) => some_rows::<2, 1>(level, part, panel, totals),
        (2, 2) => some_rows::<2, 2>(level, part, panel, totals),
        (2, 3) => some_rows::<2, 3>(level, part, panel, totals),
        (2, 4) => some_rows::<2, 4>(level, part, panel, totals),
        (tiles, rows) => unreachable!("a plan has no {rows} grouped rows of {tiles} tiles"),
    }
}

/// Some rows of a unit.
#[derive(Clone, Copy)]
struct Panel<'a> {
    unit: &'a [i32],
    /// Rows of the unit.
    rows: usize,
    /// The first of them that is multiplied.
    first: usize,
}

impl Panel<'_> {
    /// Rows of the unit: where registers are many, those that are multiplied.
    #[inline(always)]
    fn rows<L: Lanes, const ROWS: usize>(&self) -> usize {
        if L::MANY_REGISTERS { ROWS } else { self.rows }
    }
}

fn some_rows<const TILES: usize, const ROWS: usize>(
    level: Level,
    part: &Part<'_>,
    panel: Panel<'_>,
    totals: &mut Totals<'_>,
) {
    match (part.groups.nibbles, part.groups.affine) {
        (true, true) => segment(level, Form::<TILES, ROWS, true, true>, part, panel, totals),
        (true, false) => segment(level, Form::<TILES, ROWS, true, false>, part, panel, totals),
        (false, true) => segment(level, Form::<TILES, ROWS, false, true>, part, panel, totals),
        (false, false) => segment(level, Form::<TILES, ROWS, false, false>, part, panel, totals),
    }
}

/// What a loop is compiled for.
struct Form<const TILES: usize, const ROWS: usize, const NIBBLES: bool, const AFFINE: bool>;

crate::levels! {
    fn segment<const TILES: usize, const ROWS: usize, const NIBBLES: bool, const AFFINE: bool>(
        form: Form<TILES, ROWS, NIBBLES, AFFINE>,
        part: &Part<'_>,
        panel: Panel<'_>,
        totals: &mut Totals<'_>,
    ) = segment_body;
}

#[inline(always)]
fn segment_body<
    L: Lanes,
    const TILES: usize,
    const ROWS: usize,
    const NIBBLES: bool,
    const AFFINE: bool,
>(
    l: L,
    _: Form<TILES, ROWS, NIBBLES, AFFINE>,
    part: &Part<'_>,
    panel: Panel<'_>,
    totals: &mut Totals<'_>,
) {
    let rows = panel.rows::<L, ROWS>();
    let groups = part.groups;
    let (quad_words, head_words) = (groups.len / 4 * rows, groups.head_bytes() / 4);
    let (unit_words, group_words) = (quad_words + 2 * rows, groups.bytes() / 4);
    let mut sums = [[[l.splat(0.0); 2]; ROWS]; TILES];
    let mut group = 0;
    while group < part.count {
        let unit = &panel.unit[group * unit_words..][..unit_words];
        let mut t = 0;
        while t < TILES {
            part.ahead.ask(t * part.tile_words, group);
            let words = &part.words[t * part.tile_words + group * group_words..][..group_words];
            let stored = words.split_at(head_words);
            let unit = unit.split_at(quad_words);
            let one = One { scale: groups.scale, stored, unit, rows, first: panel.first };
            add_group::<L, ROWS, NIBBLES, AFFINE>(l, one, &mut sums[t]);
            t += 1;
        }
        group += 1;
    }
    let mut t = 0;
    while t < TILES {
        totals.add(l, t, panel.first, &sums[t]);
        t += 1;
    }
}

/// One group of one tile, and what it is multiplied by.
struct One<'a> {
    /// The type of the head.
    scale: Dtype,
    /// Head and numbers.
    stored: (&'a [i32], &'a [i32]),
    /// Numbers of the rows; their scales and what begins or ends their sums.
    unit: (&'a [i32], &'a [i32]),
    /// Rows of the unit.
    rows: usize,
    /// The first of them that is multiplied.
    first: usize,
}

#[inline(always)]
fn add_group<L: Lanes, const ROWS: usize, const NIBBLES: bool, const AFFINE: bool>(
    l: L,
    one: One<'_>,
    sums: &mut [[L::F; 2]; ROWS],
) {
    let One { scale, stored: (head, numbers), unit: (x, rest), rows, first } = one;
    let x_scales: &[i32; ROWS] = rows_of(rest, first);
    let extras: &[i32; ROWS] = rows_of(rest, rows + first);
    let mut dots = [[l.isplat(0); 2]; ROWS];
    if !AFFINE {
        let mut r = 0;
        while r < ROWS {
            dots[r] = [l.isplat(extras[r]); 2];
            r += 1;
        }
    }
    if NIBBLES {
        nibbles(l, numbers, x, rows, first, &mut dots);
    } else {
        bytes(l, numbers, x, rows, first, &mut dots);
    }
    let [low, high, low_bias, high_bias] = head_vectors::<L, AFFINE>(l, scale, head);
    let mut r = 0;
    while r < ROWS {
        let x_scale = l.splat(f32::from_bits(x_scales[r] as u32));
        sums[r][0] = l.fma(l.to_float(dots[r][0]), l.mul(low, x_scale), sums[r][0]);
        sums[r][1] = l.fma(l.to_float(dots[r][1]), l.mul(high, x_scale), sums[r][1]);
        if AFFINE {
            let mass = l.splat(f32::from_bits(extras[r] as u32));
            sums[r][0] = l.fma(low_bias, mass, sums[r][0]);
            sums[r][1] = l.fma(high_bias, mass, sums[r][1]);
        }
        r += 1;
    }
}

/// One number of each row that is multiplied.
#[inline(always)]
fn rows_of<const ROWS: usize>(words: &[i32], first: usize) -> &[i32; ROWS] {
    words[first..].first_chunk().expect("a unit holds its rows")
}

/// Products of bytes, four inputs at a time.
#[inline(always)]
fn bytes<L: Lanes, const ROWS: usize>(
    l: L,
    numbers: &[i32],
    x: &[i32],
    rows: usize,
    first: usize,
    dots: &mut [[L::I; 2]; ROWS],
) {
    for (w, x) in numbers.as_chunks::<TILE>().0.iter().zip(x.chunks_exact(rows)) {
        add_products(l, dots, vectors(l, w), rows_of(x, first));
    }
}

/// Products of nibbles, eight inputs at a time.
#[inline(always)]
fn nibbles<L: Lanes, const ROWS: usize>(
    l: L,
    numbers: &[i32],
    x: &[i32],
    rows: usize,
    first: usize,
    dots: &mut [[L::I; 2]; ROWS],
) {
    let low = l.isplat(0x0f0f_0f0f);
    for (w, x) in numbers.as_chunks::<TILE>().0.iter().zip(x.chunks_exact(2 * rows)) {
        let w = vectors(l, w);
        let (x, y) = x.split_at(rows);
        add_products(l, dots, [l.iand(w[0], low), l.iand(w[1], low)], rows_of(x, first));
        let w = [l.iand(l.shr::<4>(w[0]), low), l.iand(l.shr::<4>(w[1]), low)];
        add_products(l, dots, w, rows_of(y, first));
    }
}

#[inline(always)]
fn add_products<L: Lanes, const ROWS: usize>(
    l: L,
    dots: &mut [[L::I; 2]; ROWS],
    w: [L::I; 2],
    x: &[i32; ROWS],
) {
    let mut r = 0;
    while r < ROWS {
        let x = l.isplat(x[r]);
        dots[r][0] = l.dot4(dots[r][0], w[0], x);
        dots[r][1] = l.dot4(dots[r][1], w[1], x);
        r += 1;
    }
}

/// How [`unpack`] leaves groups of nibbles: as groups of bytes, with f32 heads.
pub(super) const fn unpacked(groups: Groups) -> Groups {
    Groups { nibbles: false, scale: Dtype::F32, ..groups }
}

crate::levels! {
    /// A segment of nibbles as bytes: worth it for many panels.
    pub(super) fn unpack(groups: Groups, packed: &[i32], to: &mut [i32]) = unpack_body;
}

#[inline(always)]
fn unpack_body<L: Lanes>(l: L, groups: Groups, packed: &[i32], to: &mut [i32]) {
    let (head_words, to_head_words) = (groups.head_bytes() / 4, unpacked(groups).head_bytes() / 4);
    let from = packed.chunks_exact(groups.bytes() / 4);
    for (packed, to) in from.zip(to.chunks_exact_mut(unpacked(groups).bytes() / 4)) {
        let (head, numbers) = packed.split_at(head_words);
        let (to_head, to_numbers) = to.split_at_mut(to_head_words);
        let head = match groups.affine {
            true => head_vectors::<L, true>(l, groups.scale, head),
            false => head_vectors::<L, false>(l, groups.scale, head),
        };
        for (to, v) in to_head.as_chunks_mut().0.iter_mut().zip(head) {
            l.istore(l.bits_of(v), to);
        }
        let to = to_numbers.as_chunks_mut::<TILE>().0.as_chunks_mut::<2>().0;
        for (w, to) in numbers.as_chunks::<TILE>().0.iter().zip(to) {
            let low = l.isplat(0x0f0f_0f0f);
            let w = vectors(l, w);
            let mut v = 0;
            while v < 2 {
                l.istore(l.iand(w[v], low), half_mut(&mut to[0], v));
                l.istore(l.iand(l.shr::<4>(w[v]), low), half_mut(&mut to[1], v));
                v += 1;
            }
        }
    }
}

#[inline(always)]
fn vectors<L: Lanes>(l: L, words: &[i32; TILE]) -> [L::I; 2] {
    let [a, b] = bytemuck::must_cast_ref::<_, [[i32; LANES]; 2]>(words);
    [l.iload(a), l.iload(b)]
}

#[inline(always)]
fn half_mut(words: &mut [i32; TILE], half: usize) -> &mut [i32; LANES] {
    &mut bytemuck::must_cast_mut::<_, [[i32; LANES]; 2]>(words)[half]
}

/// A head as f32: two vectors of scales, then two of biases, zeros where it has none.
#[inline(always)]
fn head_vectors<L: Lanes, const AFFINE: bool>(l: L, scale: Dtype, head: &[i32]) -> [L::F; 4] {
    match scale {
        Dtype::F32 => elements::<L, f32, AFFINE>(l, bytemuck::cast_slice(head)),
        Dtype::F16 => elements::<L, f16, AFFINE>(l, bytemuck::cast_slice(head)),
        _ => elements::<L, bf16, AFFINE>(l, bytemuck::cast_slice(head)),
    }
}

#[inline(always)]
fn elements<L: Lanes, E: Element, const AFFINE: bool>(l: L, head: &[E]) -> [L::F; 4] {
    let vectors = head.as_chunks::<LANES>().0;
    let zeros = l.splat(0.0);
    let [low, high] = [E::load(l, &vectors[0]), E::load(l, &vectors[1])];
    if AFFINE {
        [low, high, E::load(l, &vectors[2]), E::load(l, &vectors[3])]
    } else {
        [low, high, zeros, zeros]
    }
}
