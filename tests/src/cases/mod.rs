//! One list of cases per kernel: the ugly shapes first.

pub mod norm;
