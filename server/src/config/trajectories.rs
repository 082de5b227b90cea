//! Settings of the store of trajectories.

use super::bytes;
use ::trajectories::{Settings, Syncing};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Bytes that all trajectories may take at least: sixteen of the shortest segments.
const BYTES_MIN: u64 = 16 * Settings::SEGMENT_BYTES_MIN;
/// Bytes of a segment at most; the shorter they are, the less is dropped at once.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Segments that a full store has at least.
const SEGMENTS_MIN: u64 = 8;
/// Bytes that wait for the disk where syncs are batched.
const BATCH_BYTES: u64 = 1 << 20;

/// Trajectories that outlive the server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Trajectories")]
pub struct Trajectories {
    /// The folder that keeps them; if not given, requests that ask to be kept are refused.
    #[arg(long, value_name = "DIR")]
    pub trajectory_dir: Option<PathBuf>,
    /// Bytes of all of them.
    #[arg(long, value_name = "BYTES", default_value = "10GiB", value_parser = store_bytes)]
    pub trajectory_max_bytes: u64,
    /// What happens when they have so many bytes.
    #[arg(long, value_enum, default_value_t = Policy::Refuse)]
    pub trajectory_policy: Policy,
    /// When one counts as kept.
    #[arg(long, value_enum, default_value_t = Sync::Always)]
    pub trajectory_sync: Sync,
}

/// What happens when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// Requests that ask to be kept are refused.
    Refuse,
    /// The oldest ones go.
    DropOldest,
}

/// When a trajectory counts as kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sync {
    /// When the disk has it: it outlives a loss of power.
    Always,
    /// When the system has it: it outlives the server.
    Batched,
}

impl Trajectories {
    /// As the store takes them.
    pub fn settings(&self) -> Settings {
        let cap_bytes = self.trajectory_max_bytes;
        Settings {
            segment_bytes: (cap_bytes / SEGMENTS_MIN).min(SEGMENT_BYTES_MAX),
            cap_bytes,
            policy: match self.trajectory_policy {
                Policy::Refuse => ::trajectories::Policy::Refuse,
                Policy::DropOldest => ::trajectories::Policy::DropOldest,
            },
            sync: match self.trajectory_sync {
                Sync::Always => Syncing::Always,
                Sync::Batched => Syncing::Batched { bytes: BATCH_BYTES },
            },
        }
    }
}

fn store_bytes(text: &str) -> Result<u64, String> {
    let bytes = bytes(text)?;
    if bytes < BYTES_MIN { Err(format!("at least {BYTES_MIN} bytes")) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use crate::config::Serve;
    use ::trajectories::Settings;

    #[test]
    fn every_cap_that_is_taken_is_one_that_a_store_takes() {
        for cap in ["16KiB", "1MiB", "10GiB", "900000GiB"] {
            let given = Serve::of(&["--trajectory-dir", "d", "--trajectory-max-bytes", cap]);
            let settings = given.trajectories.settings();
            assert!(settings.segment_bytes >= Settings::SEGMENT_BYTES_MIN, "{cap}");
            assert!(settings.segment_bytes <= settings.cap_bytes / 2, "{cap}");
        }
        assert!(super::store_bytes("16383").is_err());
        assert_eq!(Serve::of(&[]).trajectories.settings().cap_bytes, 10 << 30);
    }
}
