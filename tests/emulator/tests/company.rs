//! What kernels promise of a row beyond their cases, emulated: its bits are its own, in company
//! and alone, decoded and in a prefill. Of Metal's kernels it is asked here alone: in which order
//! a GPU's matrices add is not known.
#![cfg(emulated)]

use backends::plugin::Plugin;
use emulator::seed;
use pagewise_tests::device::Device;
use pagewise_tests::device::company::claim;
use pagewise_tests::device_claims;

/// The C table of an emulated device.
type Table = fn() -> &'static plugin::pwp_table;

fn device(table: Table) -> Device {
    let plugin = Plugin::of_table(table(), 0).expect("the emulator is there");
    Device { plugin, schedule: seed }
}

/// A test of each claim on both devices.
macro_rules! tests {
    ($($claims:tt)*) => {
        tests_on! { cuda $($claims)* }
        tests_on! { metal $($claims)* }
    };
}

macro_rules! tests_on {
    ($device:ident $($kernel:ident: $($claim:ident),*;)*) => {
        mod $device {
            $(mod $kernel {
                $(#[test]
                fn $claim() {
                    let claim = crate::claim(stringify!($kernel), stringify!($claim));
                    (claim.assert)(&mut crate::device(emulator::$device));
                })*
            })*
        }
    };
}

device_claims!(tests);
