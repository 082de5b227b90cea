//! What versions are called. Every token carries a number; here it has its words.

use std::sync::{Arc, PoisonError, RwLock};

/// Names of versions, in the order in which they were given.
#[derive(Debug, Default)]
pub struct Labels {
    names: RwLock<Vec<Arc<str>>>,
}

impl Labels {
    /// The number of one more name.
    pub fn add(&self, name: &str) -> u64 {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.push(name.into());
        names.len() as u64 - 1
    }

    /// The name of a number.
    pub fn name(&self, number: u64) -> Arc<str> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.get(number as usize).cloned().unwrap_or_else(|| "".into())
    }
}
