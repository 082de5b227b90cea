//! Every kernel of CUDA and of Metal, emulated, over the very cases of the CPU's: through the
//! plugin's C table, the backend on top of it, and several schedules of its threads.
#![cfg(emulated)]

use backends::plugin::Plugin;
use emulator::seed;
use pagewise_tests::device::Device;
use pagewise_tests::device::parity::kernel;
use pagewise_tests::device_kernels;

/// The C table of an emulated device.
type Table = fn() -> &'static plugin::pwp_table;

fn device(table: Table) -> Device {
    let plugin = Plugin::of_table(table(), 0).expect("the emulator is there");
    Device { plugin, schedule: seed }
}

/// The tests of both devices' kernels over their cases.
macro_rules! tests {
    ($($kernel:ident: $held:expr;)*) => {
        tests! { cuda: $($kernel)* }
        tests! { metal: $($kernel)* }
    };
    ($device:ident: $($kernel:ident)*) => {
        mod $device {
            $(mod $kernel {
                use crate::{device, kernel};

                #[test]
                fn is_right_over_the_cases_of_the_cpu() {
                    let mut device = device(emulator::$device);
                    (kernel(stringify!($kernel)).cases)(&mut device, 1);
                    assert_eq!(device.plugin.allocated_bytes(), 0);
                }

                #[test]
                fn has_the_same_bits_under_every_schedule() {
                    (kernel(stringify!($kernel)).schedules)(&mut device(emulator::$device));
                }
            })*
        }
    };
}

device_kernels!(tests);
