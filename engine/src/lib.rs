//! Requests in, tokens out. The engine knows tokens, never text; it is a state machine
//! that its caller steps, with time, threads and devices given to it.
//!
//! How a caller drives it, from one thread:
//! 1. [`Model::load`](model::Model::load) brings weights to a backend;
//!    [`Engine::new`](engine::Engine::new) takes both, with
//!    [`Settings`](engine::Settings) and the bytes of each token;
//! 2. [`submit`](engine::Engine::submit) takes a [`Request`](request::Request) at any time,
//!    or refuses it by the field at fault; [`cancel`](engine::Engine::cancel) ends one;
//! 3. [`step`](engine::Engine::step) is called while it is not
//!    [`is_idle`](engine::Engine::is_idle), and gives the [`Event`](request::Event)s since
//!    the last one. Of each request that was taken come, in this order: `Prompt` once, then
//!    `Token`s of its choices, each choice ending by `End`; or one `Embedding`; or, where it
//!    could not be served, the `End` of each choice alone;
//! 4. [`counters`](engine::Engine::counters) says how it stands.
//!
//! `step` computes for as long as one forward pass takes; between two of them nothing
//! happens. A backend that fails fails the requests of that step, in words, and no others.

pub mod engine;
pub mod lora;
pub mod model;
pub mod processor;
pub mod request;
pub mod schedule;
pub mod vocabulary;
pub mod weights;
