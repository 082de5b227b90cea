//! The `pagewise` binary.

fn main() {}
