//! Pages of keys and values by number: who holds them ([`pages`]), which ones a sequence
//! has ([`table`]), and which prefixes they hold ([`prefix`]).
//!
//! Only numbers are here. The bytes lie in slabs of a device; what must be copied there
//! is said by a return value, and the caller's next commands do it.

pub mod pages;
pub mod prefix;
pub mod table;

pub use pages::{Exhausted, NotHeld, Page, Pages};
pub use prefix::{Awaited, Claim, Found, Miss, Next, Prefixes, Probe, Scope};
pub use table::{Copied, Table};
