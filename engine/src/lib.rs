//! Requests in, tokens out. The engine knows tokens, never text; it is a state machine
//! that its caller steps, with time, threads and devices given to it.

pub mod model;
pub mod request;
pub mod schedule;
pub mod vocabulary;
pub mod weights;
