//! What may come next: a JSON schema, a regular expression, a choice, structural tags or a
//! grammar becomes a [`Matcher`], which says token by token what the vocabulary allows, or
//! for a whole tree of drafts ([`tree_masks`]).
//!
//! [`Tokens`] is the vocabulary, made once for a model. A [`Source`] is what a client
//! sends; it is looked over before anything is built of it ([`Refusal`] says what is wrong
//! with it, and where), then compiled by a [`Compiler`] on threads of its own, and kept in
//! its cache as a [`Grammar`], of which any number of texts begin. A [`Masker`] computes
//! masks beside whatever else is done meanwhile: one bit for each token, in words of 32,
//! lowest first, as `logit_mask` of the kernels takes them.
//!
//! The engine below is llguidance: it is exact, or it refuses. Nothing of it is seen
//! outside of this crate.

mod batch;
mod compile;
mod crew;
mod expression;
mod lark;
mod limits;
mod masker;
mod matcher;
mod refusal;
mod schema;
mod search;
mod source;
mod tags;
mod tokens;
mod tree;

pub use batch::{Batch, Batches, Busy, Desk, Hand, Row, masks_here};
pub use compile::{Compiler, Settings};
pub use crew::stand_back;
pub use limits::Limits;
pub use masker::{Done, Job, Masker, Next, Text, Threads};
pub use matcher::{Fault, Grammar, Matcher};
pub use refusal::Refusal;
pub use schema::schema_keywords;
pub use search::{Search, Searched};
pub use source::Source;
pub use tokens::Tokens;
pub use tree::{Tree, tree_masks};
