//! One list of cases per kernel: the ugly shapes first.

pub mod logit_mask;
pub mod norm;
pub mod varlen_mask;
