//! What every device must keep, on whichever it runs: the emulator's tests go over it, and the
//! program `pagewise-device` does on a card.

pub mod bench;
pub mod company;
pub mod malformed;
pub mod parity;
pub mod record;
pub mod report;

use backends::plugin::Plugin;

/// A device under test.
pub struct Device {
    /// The device.
    pub plugin: Plugin,
    /// Sets the schedule of the threads of what comes next: an emulator has many, by number; a
    /// card has its own.
    pub schedule: fn(u64),
}

impl Device {
    /// One whose schedule is its own.
    pub fn card(plugin: Plugin) -> Self {
        Self { plugin, schedule: drop }
    }
}
