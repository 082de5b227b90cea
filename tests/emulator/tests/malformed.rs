//! Malformed calls on the emulated devices: refused or answered as on the CPU.
#![cfg(emulated)]

use backends::plugin::Plugin;
use emulator::seed;
use pagewise_tests::device::Device;
use pagewise_tests::device::malformed::property;
use pagewise_tests::device_properties;
use pagewise_tests::harness::malformed;

fn assert_kept(table: &'static plugin::pwp_table, kernel: &str) {
    let plugin = Plugin::of_table(table, 0).expect("the emulator is there");
    let mut config = malformed();
    if cfg!(feature = "sanitized") {
        // A detector is slow, and sees what these do sooner than a comparison would.
        config.cases = config.cases.div_ceil(4);
    }
    (property(kernel).assert)(&mut Device { plugin, schedule: seed }, config);
}

/// A test of each kernel that has the property, on both devices.
macro_rules! tests {
    ($($kernel:ident($case:ident, $change:ident): $step:expr;)*) => {
        tests! { cuda $($kernel)* }
        tests! { metal $($kernel)* }
    };
    ($device:ident $($kernel:ident)*) => {
        mod $device {
            $(mod $kernel {
                #[test]
                fn is_refused_or_answered_as_on_the_cpu() {
                    crate::assert_kept(emulator::$device(), stringify!($kernel));
                }
            })*
        }
    };
}

device_properties!(tests);
