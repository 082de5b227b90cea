//! `attention`: a plan by one block, units of 16 queries and wide units by blocks that take
//! items from its lists, and the fold of what was cut.

use crate::Facts;
use kernels_core::Error;
use kernels_core::attention::Attention;
use kernels_core::command::Raw;
use kernels_core::dtype::Dtype;
use kernels_core::error::Fault;
use kernels_core::params;
use plugin::lower::looping;
use plugin::{Launch, Launches};

/// Threads of the plan, of a block that attends, and of one that folds.
const PLAN_THREADS: u32 = 512;
const THREADS: u32 = 128;
const FOLD_WARPS: u32 = 4;
/// Queries of a unit, and of a wide one.
const UNIT: u32 = 16;
const WIDE: u32 = 64;
/// Positions of a split, and of a chunk.
const SPLIT: u64 = 256;
const CHUNK: u32 = 64;
/// Floats between the scores of two queries.
const SCORE_PITCH: u32 = CHUNK + 8;
/// Blocks of a multiprocessor that take items, of either list.
const UNIT_BLOCKS: u32 = 3;
const WIDE_BLOCKS: u32 = 2;
/// Bytes of the plan, and of what it says of a sequence.
const PLAN_BYTES: u64 = 32;
const SEQ_BYTES: u64 = 32;
/// Bytes of states of splits for each multiprocessor, at most: on a card of 132 those of a
/// million positions of eight heads of 128 dims that four queries share.
const STATE_BYTES: u64 = 512 << 10;

/// How numbers are multiplied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    F16,
    Bf16,
    F32,
}

pub fn lower(attention: &Attention<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &attention.params;
    let kind = match p.kv.dtype {
        dtype if dtype == Dtype::F32 as u32 => Kind::F32,
        dtype if dtype == Dtype::F16 as u32 => Kind::F16,
        _ => Kind::Bf16,
    };
    let dims = match p.kv.head_dim {
        _ if kind == Kind::F32 => 256,
        0..=64 => 64,
        65..=128 => 128,
        _ => 256,
    };
    let (unit, wide) = entries(kind, dims);
    let fits = |queries| shared_bytes(p, kind, dims, queries) <= facts.shared_bytes_max;
    if !fits(UNIT) {
        let fault = Fault::Unsupported {
            expected: "less shared memory than heads of this size, type and form take",
            got: p.kv.head_dim.into(),
        };
        return Err(Error::new("attention", "kv.head_dim", fault));
    }
    // Wide units change no bit: they share what they read.
    let wide = wide.filter(|_| fits(WIDE));
    let states = states(p, facts);
    let wide_queries = if wide.is_some() { WIDE } else { 0 };
    let enough = (facts.cores * WIDE_BLOCKS).min(u16::MAX.into());
    let told = [wide_queries | enough << 16, states];
    let mut launches = Launches::default();
    let plan = Launch {
        entry: "pw_attention_plan",
        grid: [1; 3],
        block: PLAN_THREADS,
        ..Launch::default()
    };
    launches.push(Launch { shared_bytes: PLAN_THREADS / 32 * 8, told, ..plan });
    let blocks = |each: u32| [facts.cores * each, 1, 1];
    let small =
        Launch { entry: unit, grid: blocks(UNIT_BLOCKS), block: THREADS, ..Launch::default() };
    launches.push(Launch { shared_bytes: shared_bytes(p, kind, dims, UNIT), told, ..small });
    if let Some(entry) = wide {
        let shared_bytes = shared_bytes(p, kind, dims, WIDE);
        launches.push(Launch { entry, grid: blocks(WIDE_BLOCKS), shared_bytes, told, ..small });
    }
    if states > 0 {
        let queries = u64::from(p.rows_max) * u64::from(p.q_heads);
        let warps = queries * u64::from(p.kv.head_dim.div_ceil(32));
        let fold_blocks = warps.div_ceil(FOLD_WARPS.into());
        let fold = looping("pw_attention_merge", 32 * FOLD_WARPS, fold_blocks, facts);
        launches.push(Launch { told, ..fold });
    }
    let seqs = u64::from(p.seqs_max) * SEQ_BYTES;
    Ok(launches.with_workspace(PLAN_BYTES + seqs + u64::from(states) * state_bytes(p)))
}

/// The entries for units of 16 queries and for wide ones.
fn entries(kind: Kind, dims: u32) -> (&'static str, Option<&'static str>) {
    match (kind, dims) {
        (Kind::F32, _) => ("pw_attention_f32", None),
        (Kind::F16, 64) => ("pw_attention_f16_64", Some("pw_attention_f16_64_wide")),
        (Kind::F16, 128) => ("pw_attention_f16_128", Some("pw_attention_f16_128_wide")),
        (Kind::F16, _) => ("pw_attention_f16_256", None),
        (Kind::Bf16, 64) => ("pw_attention_bf16_64", Some("pw_attention_bf16_64_wide")),
        (Kind::Bf16, 128) => ("pw_attention_bf16_128", Some("pw_attention_bf16_128_wide")),
        (Kind::Bf16, _) => ("pw_attention_bf16_256", None),
    }
}

/// Bytes of the state of a query and split.
fn state_bytes(p: &params::Attention) -> u64 {
    (4 + u64::from(p.kv.head_dim)) * 4
}

/// States there is room for: of all splits of all queries, if that is not too much.
fn states(p: &params::Attention, facts: &Facts) -> u32 {
    let splits = u64::from(p.kv_len_max).div_ceil(SPLIT);
    if splits == 1 {
        return 0;
    }
    let all = u64::from(p.rows_max) * u64::from(p.q_heads) * splits;
    let room = STATE_BYTES * u64::from(facts.cores) / state_bytes(p);
    all.min(room) as u32
}

/// Shared memory of a block, as `lay_out` in attention_unit.h takes it.
fn shared_bytes(p: &params::Attention, kind: Kind, dims: u32, queries: u32) -> u32 {
    let kv = &p.kv;
    let (number, pieces) = match (kind, Dtype::ALL.into_iter().find(|q| *q as u32 == p.q_dtype)) {
        (Kind::F32, _) => (4, 1),
        (Kind::F16, Some(Dtype::F32)) | (Kind::Bf16, Some(Dtype::F16)) => (2, 2),
        (Kind::Bf16, Some(Dtype::F32)) => (2, 3),
        _ => (2, 1),
    };
    let pair = if kv.dtype == Dtype::I4 as u32 { 2 } else { 1 };
    let raw = [Dtype::E4m3, Dtype::I8, Dtype::I4].into_iter().any(|it| it as u32 == kv.dtype);
    let transposed = kv.k_dim_stride != 1 && kv.k_token_stride == u64::from(pair);
    let whole = |bytes: u32| bytes.next_multiple_of(16);
    let dims16 = whole(kv.head_dim);
    let cells = kv.head_dim / pair;
    let row_pitch = dims16 * number + 16;
    let values = CHUNK * row_pitch;
    let keys = if transposed { dims16 * (CHUNK * number + 16) } else { values };
    let tiles = if kind == Kind::F32 { keys.max(values) } else { keys + values };
    let raw_keys = if transposed { cells * (CHUNK + 16) } else { CHUNK * whole(cells) };
    let raws = if raw { raw_keys + CHUNK * whole(cells) } else { 0 };
    let scores = if queries == UNIT { UNIT * SCORE_PITCH * 4 } else { 0 };
    let rows = queries * 32 + whole(queries * 4) + queries * dims * 4;
    let small = 192 + 2 * CHUNK * 8 + 2 * CHUNK * 4;
    small + rows + scores + pieces * queries * row_pitch + tiles + raws
}
