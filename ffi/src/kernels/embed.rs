//! `embed`, as C calls it.

use super::layout::{Matrix, reserved, switch, weight};
use super::plan::Step;
use super::source::Source;
use super::{Kernel, kernel};
use crate::error::Refusal;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::embed::Embed;
use kernels_core::error::{Checks, Fault};
use kernels_core::packing::Weight;
use kernels_core::params;

const CHECKS: Checks = Embed::<Recorded>::CHECKS;

struct Call {
    params: params::Embed,
    table_bytes: u64,
    out: Matrix,
}

impl Kernel for Call {
    kernel!(embed Embed, pw_embed_desc, pw_embed_args, b"pw-emb-1");
    kernel!(rows);

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        reserved(desc.reserved)?;
        let table = weight(&desc.weight);
        let parsed = Weight::parse(CHECKS, &table)?;
        let inputs = u64::from(table.inputs);
        let out = Dtype::parse_float(CHECKS, "out_dtype", desc.out_dtype)?;
        let out = Matrix::new("out_row_stride", desc.out_row_stride, out, inputs)?;
        let (table_row_stride, table_bytes) = if switch("packed", desc.packed)? {
            let fault = Fault::Equal { expected: 0, got: desc.table_row_stride };
            if desc.table_row_stride != 0 {
                return Err(Refusal::Number { field: "table_row_stride", fault });
            }
            (0, parsed.bytes())
        } else {
            let dtype = Dtype::parse_float(CHECKS, "weight.dtype", table.dtype)?;
            let rows = Matrix::new("table_row_stride", desc.table_row_stride, dtype, inputs)?;
            (rows.row_stride, rows.bytes(table.outputs))
        };
        let params = params::Embed {
            table_row_stride,
            out_row_stride: out.row_stride,
            rows_max: desc.rows_max,
            packed: desc.packed,
            out_dtype: desc.out_dtype,
            scale: desc.scale,
            weight: table,
        };
        Ok(Self { params, table_bytes, out })
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [rows, ..] = step.counts;
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(Embed {
                params: params::Embed { rows_max: rows, ..self.params },
                table: at.read("table", args.table.cast::<u8>(), self.table_bytes)?,
                tokens: at.read("tokens", args.tokens, 4 * u64::from(rows))?,
                out: at.write("out", args.out.cast::<u8>(), self.out.bytes(rows))?,
                rows: at.live(0),
            })
        }
    }
}

kernel!(export Call, pw_embed_query, pw_embed_plan(rows: u32), pw_embed_run, 64, 64);
