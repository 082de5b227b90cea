//! `token_logprob`: tokens are looked at and rows converted; logits and their sums, of few
//! rows by two launches, of many by one; then the fold.

use super::matmul::{FEW_MOST, FEW_ROWS, Form, THREADS, WARPS, convert, few_grid};
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::error::Checks;
use kernels_core::packing::{TILE, Weight};
use kernels_core::token_logprob::TokenLogprob;
use kernels_core::vocabulary::BLOCK;
use plugin::lower::looping;
use plugin::{Launch, Launches};

/// Threads of a block that folds.
const FOLD_THREADS: u32 = 64;
/// Where the parts of the workspace start: at a multiple of so many bytes.
const ALIGN: u64 = 256;
/// Rows of a block that takes many.
const MANY_ROWS: u64 = 64;

/// How many rows are served: their entry, rows and shared memory of a block.
fn many(form: Form) -> (&'static str, u64, u32) {
    let by_products = |entry| (entry, MANY_ROWS, form.many_bytes(MANY_ROWS));
    match form {
        Form::F32 => ("pw_token_logprob_many_f32", FEW_ROWS, form.few_bytes()),
        Form::I4 => by_products("pw_token_logprob_many_i4"),
        Form::I8 => by_products("pw_token_logprob_many_i8"),
        Form::Bf16(1) => by_products("pw_token_logprob_many_bf16_1"),
        Form::Bf16(2) => by_products("pw_token_logprob_many_bf16_2"),
        Form::Bf16(_) => by_products("pw_token_logprob_many_bf16_3"),
        Form::F16(1) => by_products("pw_token_logprob_many_f16_1"),
        Form::F16(_) => by_products("pw_token_logprob_many_f16_2"),
    }
}

fn few_entry(form: Form) -> &'static str {
    match form {
        Form::F32 => "pw_token_logprob_few_f32",
        Form::I4 => "pw_token_logprob_few_i4",
        Form::I8 => "pw_token_logprob_few_i8",
        Form::Bf16(1) => "pw_token_logprob_few_bf16_1",
        Form::Bf16(2) => "pw_token_logprob_few_bf16_2",
        Form::Bf16(_) => "pw_token_logprob_few_bf16_3",
        Form::F16(1) => "pw_token_logprob_few_f16_1",
        Form::F16(_) => "pw_token_logprob_few_f16_2",
    }
}

pub fn lower(command: &TokenLogprob<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &command.params;
    let weight = Weight::parse(Checks("token_logprob"), &p.weight)?;
    let (form, rows_max) = (Form::of(&weight, p.x_dtype), p.rows_max);
    let blocks = weight.outputs.div_ceil(BLOCK) as u64;
    let few_rows = rows_max.min(FEW_MOST);
    let told = if rows_max > FEW_MOST { [FEW_MOST, 0] } else { [0, 0] };
    let begin = convert("pw_token_logprob_begin", &weight, rows_max, facts);
    let mut launches = Launches::one(Launch { shared_bytes: 4, ..begin });
    launches.push(Launch {
        entry: few_entry(form),
        grid: few_grid(&weight, few_rows),
        block: THREADS,
        shared_bytes: form.few_bytes(),
        told,
    });
    let units = (u64::from(few_rows) * blocks).div_ceil(u64::from(WARPS));
    launches.push(Launch { told, ..looping("pw_token_logprob_sums", THREADS, units, facts) });
    let mut logits = u64::from(few_rows) * (weight.tiles() * TILE) as u64;
    if rows_max > FEW_MOST {
        let (entry, rows, shared_bytes) = many(form);
        let pieces = u64::from(rows_max).div_ceil(rows) * blocks;
        let grid = pieces.min(u64::from(facts.cores));
        logits = logits.max(grid * rows * BLOCK as u64);
        let grid = [grid as u32, 1, 1];
        launches.push(Launch { entry, grid, block: THREADS, shared_bytes, told });
    }
    let folds = u64::from(rows_max.div_ceil(FOLD_THREADS));
    launches.push(looping("pw_token_logprob_fold", FOLD_THREADS, folds, facts));
    let parts = [
        form.converted_bytes(&weight, rows_max),
        u64::from(rows_max) * (blocks * 8 + 4),
        logits * 4,
    ];
    let bytes = parts.iter().map(|bytes| bytes.next_multiple_of(ALIGN)).sum();
    Ok(launches.with_workspace(bytes))
}
