//! A row's bits are its own: alone and in company, decoded and in a prefill. By bits, on any
//! device, for the kernels whose sums a device orders as it likes.

mod attention;
mod matmul;
mod token_logprob;

use super::Device;

/// Something that a kernel promises of a row.
#[derive(Clone, Copy)]
pub struct Claim {
    /// The kernel's stem.
    pub kernel: &'static str,
    /// What it promises.
    pub name: &'static str,
    /// Panics unless it is kept.
    pub assert: fn(&mut Device),
}

/// Calls a macro with every kernel's claims.
#[macro_export]
macro_rules! device_claims {
    ($then:ident) => {
        $then! {
            attention:
                a_row_decoded_alone_has_the_bits_it_has_in_prefill,
                a_sequence_alone_has_the_bits_it_has_in_company,
                pages_in_any_order_and_any_page_length_give_the_same_bits,
                a_value_that_is_no_number_changes_only_rows_that_see_it,
                rows_whose_splits_find_no_room_have_the_same_bits,
                what_the_cpu_refuses_of_a_step_is_refused_in_the_same_words;
            matmul:
                a_row_of_f32_weights_is_its_own,
                a_row_of_bf16_weights_is_its_own,
                a_row_of_bf16_weights_and_bf16_is_its_own,
                a_row_of_bf16_weights_and_f16_is_its_own,
                a_row_of_f16_weights_is_its_own,
                a_row_of_f16_weights_and_f16_is_its_own,
                a_row_of_bytes_is_its_own,
                a_row_of_affine_bytes_is_its_own,
                a_row_of_nibbles_is_its_own,
                a_row_of_symmetric_nibbles_is_its_own;
            token_logprob:
                a_row_of_f32_weights_is_its_own,
                a_row_of_bf16_weights_is_its_own,
                a_row_of_f16_weights_is_its_own,
                a_row_of_bytes_is_its_own,
                a_row_of_nibbles_is_its_own;
        }
    };
}

macro_rules! list {
    ($($kernel:ident: $($claim:ident),*;)*) => {
        /// Every claim.
        pub const CLAIMS: &[Claim] = &[$($(Claim {
            kernel: stringify!($kernel),
            name: stringify!($claim),
            assert: $kernel::$claim,
        }),*),*];
    };
}

device_claims!(list);

/// The claim of that kernel and name.
pub fn claim(kernel: &str, name: &str) -> Claim {
    let claim = CLAIMS.iter().find(|claim| claim.kernel == kernel && claim.name == name);
    *claim.unwrap_or_else(|| panic!("{kernel} does not claim {name}"))
}
