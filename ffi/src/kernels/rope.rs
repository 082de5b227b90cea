//! `rope`, as C calls it, and its tables.

use super::layout::{Matrix, reserved, switch, words};
use super::plan::Step;
use super::source::{Source, There};
use super::{Kernel, kernel};
use crate::error::Refusal;
use crate::guard::{Sized32, read};
use crate::header::{self, pw_rope_table};
use crate::memory::Buffers;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::error::{Checks, Error, Fault};
use kernels_core::params;
use kernels_core::rope::Rope;
use kernels_core::rope::table::{Scaling, Table, Yarn, yarn_attention};

const CHECKS: Checks = Rope::<Recorded>::CHECKS;

struct Call {
    params: params::Rope,
    x: Option<Matrix>,
    out: Matrix,
}

impl Kernel for Call {
    kernel!(rope Rope, pw_rope_desc, pw_rope_args, b"pw-rop-1");
    kernel!(rows);

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        reserved(desc.reserved)?;
        let x = Dtype::parse_float(CHECKS, "x_dtype", desc.x_dtype)?;
        let out = Dtype::parse_float(CHECKS, "out_dtype", desc.out_dtype)?;
        let width = u64::from(desc.heads) * u64::from(desc.head_dim);
        let x = Matrix::maybe("x_row_stride", desc.x_row_stride, x, width)?;
        let out = Matrix::new("out_row_stride", desc.out_row_stride, out, width)?;
        let params = params::Rope {
            x_row_stride: x.map_or(0, |x| x.row_stride),
            out_row_stride: out.row_stride,
            rows_max: desc.rows_max,
            heads: desc.heads,
            head_dim: desc.head_dim,
            rotary_dims: desc.rotary_dims,
            table_len: desc.table_len,
            pairing: desc.pairing,
            x_dtype: desc.x_dtype,
            out_dtype: desc.out_dtype,
        };
        Ok(Self { params, x, out })
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [rows, ..] = step.counts;
        let p = &self.params;
        let there = There::If(self.x.is_some(), "x_row_stride");
        let x_bytes = self.x.map_or(0, |x| x.bytes(rows));
        let turns = words(&[p.table_len.into(), p.rotary_dims.into()]);
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(Rope {
                params: params::Rope { rows_max: rows, ..*p },
                x: at.maybe_read("x", args.x.cast::<u8>(), there, x_bytes)?,
                table: at.read("table", args.table, turns)?,
                positions: at.read("positions", args.positions, 4 * u64::from(rows))?,
                out: at.update("out", args.out.cast::<u8>(), self.out.bytes(rows))?,
                rows: at.live(0),
            })
        }
    }
}

kernel!(export Call, pw_rope_query, pw_rope_plan(rows: u32), pw_rope_run, 56, 72);

// SAFETY: bindgen's struct of numbers, the first of which is the size.
unsafe impl Sized32 for pw_rope_table {
    const LEAST: u32 = 64;
}

/// A field that this scaling has no use for is 0.
fn unused(of: &pw_rope_table, used: &[&'static str]) -> Result<(), Refusal> {
    let fields = [
        ("original_positions", of.original_positions != 0),
        ("positions", of.positions != 0),
        ("truncate", of.truncate != 0),
        ("factor", of.factor != 0.0),
        ("fast", of.fast != 0.0),
        ("slow", of.slow != 0.0),
        ("attention_factor", of.attention_factor != 0.0),
    ];
    match fields.iter().find(|(field, given)| *given && !used.contains(field)) {
        None => Ok(()),
        Some((field, _)) => {
            let fault = Fault::Unused { needs: "another scaling" };
            Err(Refusal::Number { field, fault })
        }
    }
}

/// Numbers have one name here, whatever model files call them.
fn named(error: Error) -> Refusal {
    let field = match error.field {
        "beta_fast" | "high_factor" => "fast",
        "beta_slow" | "low_factor" => "slow",
        field => field,
    };
    Refusal::Kernel(Error { field, ..error })
}

fn table(of: &pw_rope_table) -> Result<Table, Refusal> {
    let &pw_rope_table { factor, original_positions, positions, .. } = of;
    let trained = ["factor", "original_positions"];
    let scaling = match of.scaling {
        header::PW_ROPE_PLAIN => {
            unused(of, &[])?;
            Scaling::None
        }
        header::PW_ROPE_LINEAR => {
            unused(of, &["factor"])?;
            Scaling::Linear { factor }
        }
        header::PW_ROPE_DYNAMIC => {
            unused(of, &[&trained[..], &["positions"]].concat())?;
            Scaling::Dynamic { factor, original_positions, positions }
        }
        header::PW_ROPE_YARN => {
            let more = ["fast", "slow", "attention_factor", "truncate"];
            unused(of, &[&trained[..], &more].concat())?;
            Scaling::Yarn(Yarn {
                factor,
                original_positions,
                beta_fast: of.fast,
                beta_slow: of.slow,
                attention_factor: match of.attention_factor {
                    0.0 => yarn_attention(factor, None),
                    given => given,
                },
                truncate: switch("truncate", of.truncate)?,
            })
        }
        header::PW_ROPE_LLAMA3 => {
            unused(of, &[&trained[..], &["fast", "slow"]].concat())?;
            let (low_factor, high_factor) = (of.slow, of.fast);
            Scaling::Llama3 { factor, low_factor, high_factor, original_positions }
        }
        got => {
            let fault = Fault::Range { least: 0, most: 4, got: got.into() };
            return Err(Refusal::Number { field: "scaling", fault });
        }
    };
    let table = Table { base: of.base, rotary_dims: of.rotary_dims, scaling };
    table.check().map_err(named)?;
    Ok(table)
}

export! {
    fn pw_rope_table_fill(
        of: *const pw_rope_table,
        first: u32,
        count: u32,
        rows: *mut f32,
    ) {
        let table = table(&read("table", of)?)?;
        CHECKS.range("first", u64::from(first) + u64::from(count), 0..=1 << 32)?;
        if count == 0 {
            return Ok(());
        }
        let bytes = words(&[count.into(), table.rotary_dims.into()]);
        let rows = Buffers::new().write("rows", rows, bytes)?;
        Ok(table.fill(first, bytemuck::cast_slice_mut(rows))?)
    }
}
