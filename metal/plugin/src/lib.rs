//! Metal as a device plugin: the kernels of `metal/kernels/` on Apple's driver, behind the C
//! table of `include/pagewise/plugin.h`. What a command becomes is decided in the crate
//! `metal`; here it is launched.
//!
//! Metal is on Apple's systems alone, so on any other this library is empty: it exports no
//! table, and only what is pure of it is compiled, for its tests.

#[cfg(target_os = "macos")]
mod device;
#[cfg(target_os = "macos")]
mod failure;
#[cfg(target_os = "macos")]
mod kernels;
#[cfg(any(target_os = "macos", test))]
mod memory;
#[cfg(any(target_os = "macos", test))]
mod refusal;
#[cfg(any(target_os = "macos", test))]
mod sent;
#[cfg(target_os = "macos")]
mod work;

/// The table of the device.
#[cfg(target_os = "macos")]
#[unsafe(no_mangle)]
pub extern "C" fn pagewise_plugin() -> *const plugin::pwp_table {
    plugin::table::<device::Metal>()
}
