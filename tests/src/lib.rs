//! Cases per kernel, and what every form of a kernel must keep over them.
//!
//! `cases` holds one type of case per kernel, with the list that tests and hashes go
//! over; properties, fuzz targets and most benches make others of it. `harness` holds the checks that are the same for all kernels; `fuzz`
//! holds the bodies of the fuzz targets, whose corpora replay in the tests; `device` what a device
//! must keep, for the emulator's tests and for a card.

pub mod adapters;
pub mod blank;
pub mod cases;
pub mod device;
pub mod fuzz;
pub mod guided;
pub mod harness;
pub mod lora;
pub mod model;
#[expect(unsafe_code, reason = "it is a driver: copies take addresses of the host")]
pub mod queued;
pub mod scheduling;
#[cfg(feature = "server")]
pub mod server;
pub mod serving;
