//! CUDA as a device plugin: the kernels of `cuda/kernels/` on the driver, behind the C table
//! of `include/pagewise/plugin.h`. What a command becomes is decided in the crate `cuda`; here
//! it is launched.

mod context;
mod device;
mod driver;
mod kernels;
#[cfg(test)]
mod pretended;
pub mod probe;
mod refusal;
mod work;

use plugin::pwp_table;

/// The table of the device.
#[unsafe(no_mangle)]
pub extern "C" fn pagewise_plugin() -> *const pwp_table {
    plugin::table::<device::Cuda>()
}
