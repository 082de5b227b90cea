//! What kernels promise of a row beyond their cases, on CUDA emulated: its bits are its own, in
//! company and alone, decoded and in a prefill.
#![cfg(emulated)]

use backends::plugin::Plugin;
use emulator::seed;
use pagewise_tests::device::Device;
use pagewise_tests::device::company::claim;
use pagewise_tests::device_claims;

fn device() -> Device {
    let plugin = Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
    Device { plugin, schedule: seed }
}

/// A test of each claim.
macro_rules! tests {
    ($($kernel:ident: $($claim:ident),*;)*) => {
        $(mod $kernel {
            $(#[test]
            fn $claim() {
                let claim = crate::claim(stringify!($kernel), stringify!($claim));
                (claim.assert)(&mut crate::device());
            })*
        })*
    };
}

device_claims!(tests);
