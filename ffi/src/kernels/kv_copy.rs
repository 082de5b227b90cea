//! `kv_copy`, as C calls it.

use super::layout::{Slabs, reserved};
use super::plan::Step;
use super::source::{Source, There};
use super::{Kernel, kernel};
use crate::error::Refusal;
use kernels_core::command::Recorded;
use kernels_core::error::Checks;
use kernels_core::kv_copy::{ENTRY_WORDS, KvCopy};
use kernels_core::params;

const CHECKS: Checks = KvCopy::<Recorded>::CHECKS;

struct Call {
    params: params::KvCopy,
    slabs: Slabs,
}

impl Kernel for Call {
    kernel!(kv_copy KvCopy, pw_kv_copy_desc, pw_kv_copy_args, b"pw-cop-1");
    type Lens = u32;

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        reserved(desc.reserved)?;
        let slabs = Slabs::new(CHECKS, &desc.kv)?;
        let params = params::KvCopy {
            kv: slabs.params,
            entries_max: desc.entries_max,
            tokens_max: desc.tokens_max,
        };
        Ok(Self { params, slabs })
    }

    fn most(&self) -> Step<'static> {
        Step::of([self.params.entries_max, 0, 0])
    }

    unsafe fn step<'a>(&self, entries: u32) -> Result<Step<'a>, Refusal> {
        CHECKS.range("entries", entries, 0..=self.params.entries_max.into())?;
        Ok(Step::of([entries, 0, 0]))
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [entries, ..] = step.counts;
        let ((own, value_bytes), (scaled, scale_bytes)) =
            (self.slabs.values(), self.slabs.scales());
        let entry_bytes = 4 * ENTRY_WORDS as u64;
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(KvCopy {
                params: params::KvCopy { entries_max: entries, ..self.params },
                keys: at.update("keys", args.keys.cast::<u8>(), self.slabs.keys_bytes())?,
                values: at.maybe_update(
                    "values",
                    args.values.cast::<u8>(),
                    There::If(own, "kv.v_offset 0"),
                    value_bytes,
                )?,
                scales: at.maybe_update(
                    "kv_scales",
                    args.kv_scales,
                    There::If(scaled, "PW_KV_SCALES_TOKEN"),
                    scale_bytes,
                )?,
                entries: at.read("entries", args.entries, entry_bytes * u64::from(entries))?,
                count: at.live(0),
            })
        }
    }
}

kernel!(export Call, pw_kv_copy_query, pw_kv_copy_plan(entries: u32), pw_kv_copy_run, 104, 72);
