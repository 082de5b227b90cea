//! Bytes that the memory-bound kernels move, over those that they must: counted by the detector
//! of races, which sees every load and store. `../bytes.csv` has the figures, `../launches.csv`
//! what CUDA's launches ask for; docs/performance.md is made from both.
//!
//! `operand` is the buffer that is most of the bytes (K and V, weights, logits): what blocks
//! read of it, each through a cache of 128 KiB, over what of it is needed. `all` is everything
//! that launches read and write, workspaces too, over each needed byte once; there blocks of
//! one launch share what they read, as by a card's second-level cache, and launches do not.
#![cfg(all(emulated, feature = "races"))]

use backends::plugin::Plugin;
use emulator::{Piece, Work, seed, watch};
use kernels_core::dtype::Dtype;
use kernels_core::params::SampleRow;
use pagewise_tests::cases::kv_pages::Form;
use pagewise_tests::cases::matmul::Format;
use pagewise_tests::cases::{
    append_kv, attention, logit_mask, matmul, norm, sample, token_logprob,
};
use pagewise_tests::harness::{Case, Recorded};
use std::fmt::Write as _;

const COMMITTED: &str = include_str!("../bytes.csv");
const LAUNCHES: &str = include_str!("../launches.csv");
/// A case is submitted so often.
const SUBMITS: u64 = 2;

/// The C table of an emulated device.
type Table = fn() -> &'static plugin::pwp_table;
const DEVICES: [(&str, Table); 2] = [("cuda", emulator::cuda), ("metal", emulator::metal)];

/// What a call must move.
struct Floor {
    shape: String,
    /// Length of the buffer that is most of it, where one is, and the bytes of it that are
    /// needed.
    operand: Option<(u64, u64)>,
    /// All bytes that are needed, read or written.
    all: u64,
    /// Why more is moved, where it is.
    missed: &'static str,
}

/// A call that moves more has a reason in the file.
const MOST: f64 = 1.1;

/// What a call moves, over its floor.
struct Ratio {
    operand: Option<f64>,
    all: f64,
}

/// Both files, as they should be.
struct Files {
    bytes: String,
    launches: String,
    /// Calls that are above the bar without a reason, or have one and are not.
    unlike: Vec<String>,
}

fn moved<C: Case>(table: Table, case: &C, floor: &Floor, launches: &mut String) -> Ratio {
    let mut device = Plugin::of_table(table(), 0).expect("the emulator is there");
    seed(1);
    let (came, watched) = watch(|| case.call(&mut Recorded(&mut device)));
    came.unwrap_or_else(|error| panic!("{}: {error}", case.name()));
    for (entry, work) in watched.entries.iter().filter(|(_, work)| work.changed_bytes > 0) {
        // It counts what it takes from a list, even where there is nothing to take.
        if entry.ends_with("_wide") && work.counts.mma_count == 0 {
            continue;
        }
        let Work { threads, shared_bytes, .. } = work;
        let shape = &floor.shape;
        writeln!(launches, "{},{shape},{entry},{threads},{shared_bytes}", C::KERNEL)
            .expect("a string takes text");
    }
    let pieces: Vec<Piece> = watched.pieces.into_values().collect();
    let operand = floor.operand.map(|(bytes, needed)| {
        let of: Vec<&Piece> = pieces.iter().filter(|it| it.bytes == bytes).collect();
        assert_eq!(of.len(), 1, "{}: buffers of that length", floor.shape);
        over(of[0].read_bytes, needed)
    });
    let all: u64 = pieces.iter().map(|it| it.read_once_bytes + it.written_once_bytes).sum();
    Ratio { operand, all: over(all, floor.all) }
}

fn over(bytes: u64, floor: u64) -> f64 {
    bytes as f64 / (SUBMITS * floor) as f64
}

/// Lines of the file for a case, on every device.
fn lines<C: Case>(files: &mut Files, case: &C, floor: &Floor) {
    for (device, table) in DEVICES {
        let mut launches = String::new();
        let Ratio { operand, all } = moved(table, case, floor, &mut launches);
        if device == "cuda" {
            files.launches += &launches;
        }
        let (shape, missed) = (&floor.shape, floor.missed);
        if (operand.unwrap_or(all).max(all) > MOST) != !missed.is_empty() {
            files.unlike.push(format!("{device}: {shape}"));
        }
        let operand = operand.map_or(String::new(), |operand| format!("{operand:.2}"));
        writeln!(files.bytes, "{device},{},{shape},{operand},{all:.2},{missed}", C::KERNEL)
            .expect("a string takes text");
    }
}

/// One token a sequence over 16 splits of K and V, four queries for each of two heads.
fn decode(files: &mut Files, dtype: Dtype, page_len: u32) {
    let (kv_len, heads, group, dims) = (4096u64, 2u64, 4u64, 128u64);
    let base = attention::Shape::plain(&[attention::seq(1, kv_len as u32)], group as u32, 128);
    let dtypes = (Dtype::Bf16, dtype, Dtype::Bf16);
    let case = attention::Shape { kv_heads: heads as u32, dtypes, page_len, ..base }.case();
    let bytes = if dtype == Dtype::E4m3 { 1 } else { 2 };
    let needed = kv_len * heads * dims * 2 * bytes;
    // The query, its output and logarithms, and the page ids.
    let rest = heads * group * (dims * 4 + 4) + kv_len.div_ceil(page_len.into()) * 4;
    let shape = format!("decode bf16 over {} 4096 8/2 heads d128 page {page_len}", dtype.name());
    let operand = Some((case.keys.len() as u64, needed));
    lines(files, &case, &Floor { shape, operand, all: needed + rest, missed: "" });
}

fn product(files: &mut Files, format: Format, name: &str, rows: u32) {
    let (inputs, outputs) = (2048, 1024);
    let shape = matmul::Shape::plain(rows, inputs, outputs, format);
    let case = matmul::Shape { dtypes: (Dtype::Bf16, Dtype::Bf16), ..shape }.case();
    let weight = case.weight.len() as u64;
    let all = weight + u64::from(rows * (inputs + outputs)) * 2;
    let shape = format!("{name} {rows} x {inputs} x {outputs}");
    lines(files, &case, &Floor { shape, operand: Some((weight, weight)), all, missed: "" });
}

fn logprobs(files: &mut Files) {
    let (rows, inputs, outputs) = (4, 1024, 8192);
    let shape = matmul::Shape::plain(rows, inputs, outputs, Format::Floats(Dtype::Bf16));
    let case = token_logprob::case(matmul::Shape { dtypes: (Dtype::Bf16, Dtype::F32), ..shape });
    let weight = case.product.weight.len() as u64;
    let all = weight + u64::from(rows * inputs) * 2 + u64::from(rows) * 12;
    let shape = format!("bf16 {rows} x {inputs} x {outputs}");
    lines(files, &case, &Floor { shape, operand: Some((weight, weight)), all, missed: "" });
}

fn sampling(files: &mut Files, (name, missed): (&str, &'static str), asked: SampleRow) {
    let (rows, vocab) = (1u64, 131_072u64);
    let plain = sample::Shape::plain(rows as u32, vocab as u32);
    let masks = u32::from(name.starts_with("mask"));
    let case = sample::Shape { asked, masks, top_n: 0, ..plain }.case();
    // Of eight logits, a sector, one that is allowed.
    let sectors = match &case.masks {
        Some((mask, _)) => {
            mask.as_slice()[..vocab as usize / 8].iter().filter(|bits| **bits != 0).count() as u64
        }
        None => rows * vocab / 8,
    };
    let logits = sectors * 32;
    // Which tokens were kept is a bit of each, and so is which are allowed.
    let all = logits + rows * vocab / 8 * u64::from(1 + masks);
    let shape = format!("{name} {rows} x {vocab}");
    let operand = Some((case.logits.len() as u64, logits));
    lines(files, &case, &Floor { shape, operand, all, missed });
}

fn masks(files: &mut Files, temperature: f32) {
    let (rows, vocab) = (1u64, 131_072u64);
    let plain = logit_mask::Shape::plain(rows as u32, vocab as u32);
    let case = logit_mask::Shape { temperature, ..plain }.case();
    let logits = rows * vocab * 4;
    // Some token of every sector is masked; logits are read only if they are divided.
    let passes = if temperature == 0.0 { 1 } else { 2 };
    let all = passes * logits + rows * vocab / 8;
    let with = if temperature == 0.0 { "a mask a row" } else { "a mask and a temperature" };
    let shape = format!("{with} {rows} x {vocab}");
    lines(files, &case, &Floor { shape, operand: None, all, missed: "" });
}

fn norms(files: &mut Files, residual: bool) {
    let (rows, columns) = (7u64, 4096u64);
    let plain = norm::Shape::plain(rows as u32, 1, columns as u32);
    let dtypes = (Dtype::Bf16, Dtype::F32, Dtype::F16);
    let case = norm::Shape { dtypes, residual, ..plain }.case();
    let x = rows * columns * 2;
    let all = x * if residual { 4 } else { 2 } + columns * 4;
    let with = if residual { "with a residual" } else { "bf16" };
    let shape = format!("{with} {rows} x {columns}");
    lines(files, &case, &Floor { shape, operand: None, all, missed: "" });
}

fn appends(files: &mut Files, form: Form, ascend: bool) {
    let (rows, heads, dims) = (64u64, 2u64, 128u64);
    let plain = append_kv::Shape::plain(Dtype::Bf16, 16, dims as u32);
    let pages = pagewise_tests::cases::kv_pages::Pages { form, pages: 64, ..plain.pages };
    let shape =
        append_kv::Shape { pages, rows: (rows as u32, None), x_dtype: Dtype::Bf16, ..plain };
    let mut case = shape.case();
    for (row, slot) in case.slots.iter_mut().enumerate() {
        let row = row as u32;
        // A prefill's tokens side by side, or a decode of as many sequences.
        *slot = if ascend { [row / 16, row % 16] } else { [row, (row * 7) % 16] };
    }
    let x = rows * heads * dims * 2;
    let all = 4 * x + rows * 8;
    let what = if ascend { "a prefill" } else { "a token a sequence" };
    let shape = format!("{what} {form:?} bf16 {rows} x {heads} x {dims}");
    let apart = form == Form::Native && !ascend;
    let missed = if apart { "K is transposed: a token has two bytes of each sector" } else { "" };
    lines(files, &case, &Floor { shape, operand: None, all, missed });
}

#[test]
fn kernels_move_the_bytes_that_are_committed() {
    let mut files = Files {
        bytes: "device,kernel,shape,operand_over_floor,all_over_floor,why\n".to_owned(),
        launches: "kernel,shape,entry,threads,shared_bytes\n".to_owned(),
        unlike: Vec::new(),
    };
    let plain = sample::PLAIN;
    decode(&mut files, Dtype::Bf16, 16);
    decode(&mut files, Dtype::Bf16, 1);
    decode(&mut files, Dtype::Bf16, 256);
    decode(&mut files, Dtype::E4m3, 16);
    product(&mut files, Format::Floats(Dtype::Bf16), "bf16", 8);
    product(&mut files, Format::Floats(Dtype::Bf16), "bf16", 40);
    product(&mut files, Format::Groups(Dtype::I4, 64, true, Dtype::F16), "int4", 8);
    product(&mut files, Format::Groups(Dtype::I8, 64, false, Dtype::F16), "int8", 8);
    logprobs(&mut files);
    let kept = "groups that can hold a kept token are read again";
    let both = SampleRow { top_k: 50, top_p: 0.9, ..plain };
    sampling(&mut files, ("top-k and top-p", kept), both);
    sampling(&mut files, ("mask with top-k and top-p", kept), both);
    let parts = "what is kept of groups that a mask hides in part is read again";
    sampling(&mut files, ("mask alone", parts), plain);
    sampling(&mut files, ("greedy", ""), SampleRow { temperature: 0.0, ..plain });
    let again = "masses by bins and what is kept are found in passes of their own";
    sampling(&mut files, ("top-p", again), SampleRow { top_p: 0.9, ..plain });
    sampling(&mut files, ("no filter", ""), plain);
    masks(&mut files, 0.0);
    masks(&mut files, 0.7);
    norms(&mut files, false);
    norms(&mut files, true);
    for form in [Form::Native, Form::Rows] {
        appends(&mut files, form, true);
        appends(&mut files, form, false);
    }
    let Files { bytes, launches, unlike } = files;
    assert!(
        bytes == COMMITTED && launches == LAUNCHES,
        "tests/emulator/bytes.csv should be:\n{bytes}\nlaunches.csv:\n{launches}"
    );
    assert!(unlike.is_empty(), "{unlike:?}: above 1.1 without a reason, or not above it");
}
