//! `append_kv` on any bytes.

use crate::cases::append_kv::Shape;
use crate::cases::kv_pages::{FORMS, Pages};
use crate::harness::{Case, assert_case};
use kernels_core::dtype::Dtype;
use kernels_core::rope::Pairing;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;

/// The call that the bytes spell, some of its words overwritten by the rest of them:
/// refused, or the same at every level and near the truth wherever it was stored.
pub fn append(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut below = |bound: u32| u32::from(bytes.next().unwrap_or(0)) % bound;
    let head_dim = 8 * (1 + below(12));
    let dtypes = [Dtype::F32, Dtype::F16, Dtype::Bf16];
    let shape = Shape {
        pages: Pages {
            form: FORMS[below(FORMS.len() as u32) as usize],
            pages: 2 + below(3),
            page_len: 1 + below(20),
            kv_heads: 1 + below(3),
            head_dim,
            dtype: Dtype::ALL[below(6) as usize],
            token_scales: below(2) == 1,
        },
        rows: (1 + below(2), None),
        x_dtype: dtypes[below(3) as usize],
        rope: match below(3) {
            0 => None,
            1 => Some((Pairing::Neox, 2 + 2 * below(head_dim / 2))),
            _ => Some((Pairing::Interleaved, 2 + 2 * below(head_dim / 2))),
        },
        several: below(2) == 1,
        gap: below(9),
        seed: u64::from(below(256)),
    };
    let mut case = shape.case();
    // Three bytes change a word: which one, and to what, small or with its top bits set.
    let rest: Vec<u8> = bytes.collect();
    for change in rest.as_chunks::<3>().0 {
        let value = u32::from(change[1]) | u32::from(change[2]) << 24;
        let at = usize::from(change[0]);
        let words: &mut [u32] = bytemuck::cast_slice_mut(bytemuck::bytes_of_mut(&mut case.params));
        match at {
            0..32 => words[at] = value,
            32..64 => {
                let slots = case.slots.as_flattened_mut();
                let count = slots.len();
                slots[at % count] = value;
            }
            64..96 => {
                if let Some(starts) = &mut case.slot_starts {
                    let count = starts.len();
                    starts[at % count] = value;
                }
            }
            96..128 => {
                if let Some((_, positions)) = &mut case.turns {
                    let count = positions.len();
                    positions[at % count] = value;
                }
            }
            // Any bits may come in a row: the infinities and NaNs among them.
            128..192 => {
                let count = case.k.len();
                case.k.as_mut_slice()[at * 2 % count] = change[1];
            }
            _ => case.rows = Some(value),
        }
    }
    if case.run(Level::best(), &Inline).is_err() {
        return;
    }
    assert!(case.slots_differ(), "two rows went to one slot");
    assert_case(&case);
}
