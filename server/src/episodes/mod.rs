//! Episodes: conversations that the server holds, token by token, from step to step. What
//! was computed stays; a step brings its observation and has its answer, and nothing is
//! tokenized twice.

mod held;
mod routes;
mod step;

pub use held::Episodes;
pub use routes::{ROUTES, opening};
pub use step::Step;
