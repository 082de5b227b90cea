//! Low-rank adapters: what files hold of one, and its place among others on a backend.

mod adapter;

pub use adapter::{Adapter, Term};
