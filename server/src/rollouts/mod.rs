//! Rollouts: what an answer is worth, and the store in which trajectories outlive the server.

mod ask;
mod collect;
mod export;
mod form;
mod group;
mod groups;
mod reference;
mod routes;
mod scoring;
mod shelf;
mod told;

pub use ask::Rollout;
pub use collect::Collector;
pub use reference::References;
pub use routes::ROUTES;
pub use shelf::Shelf;
pub use told::{Collected, Heading, Told};
