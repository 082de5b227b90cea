//! Trajectories of rollouts, kept in one folder that outlives the process: what was
//! acknowledged is there after a kill or a loss of power; what was not is there whole or
//! not at all.
//!
//! A [`Store`] appends to segments, files of frames with checksums (`frame.rs` has the
//! layout). In memory it holds where each trajectory lies and what it is searched by, never
//! the trajectory. Many threads may append, read and wait at once; one process has a store.

mod check;
mod error;
mod frame;
mod index;
mod log;
mod opening;
mod query;
mod record;
mod scan;
mod segment;
mod settings;
mod store;
mod trajectory;

pub use error::{Damage, Error, Fault};
pub use query::{Exported, Filter, Query};
pub use settings::{Policy, Settings, Syncing};
pub use store::{Stats, Store};
pub use trajectory::{Id, Logprobs, Masks, Metadata, Over, Reward, Sampling, Span, Trajectory};
