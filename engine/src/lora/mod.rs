//! Low-rank adapters: what files hold of one, how it is packed for a backend, and the slots
//! there that many versions of many adapters share over one base.
//!
//! An [`Adapter`] is checked against a model and packed into an [`Image`] by whoever has
//! the time; an engine brings the image into a slot of its [`Slots`], a part in each step,
//! and rows of a forward pass name the slot that adds to them.

mod adapter;
mod base;
mod image;
mod matrices;
mod slots;

pub use adapter::{Adapter, Term};
pub use image::{AdapterError, Image};
pub use matrices::{Kind, Matrices, Matrix, OUTPUT};
pub use slots::{Settings, Slots, Work};
