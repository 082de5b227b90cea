//! What a store promises.

mod appending;
mod bits;
mod caps;
mod damage;
mod kill;
mod queries;
mod refusals;
mod samples;
mod threads;
