//! What versions are called, and how many came after each. Every token carries a number;
//! here it has its words.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Names of versions, in the order in which they were given.
#[derive(Debug, Default)]
pub struct Labels(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    names: Vec<Name>,
    /// Versions that have come of each adapter, and of the weights.
    came: HashMap<Option<u64>, u64>,
}

#[derive(Debug)]
struct Name {
    text: Arc<str>,
    /// The adapter that it is of; `None`: the weights.
    of: Option<u64>,
    /// How many versions had come with it; `None`: it is on its way.
    ordinal: Option<u64>,
}

impl Known {
    fn push(&mut self, name: Name) -> u64 {
        self.names.push(name);
        self.names.len() as u64 - 1
    }
}

impl Labels {
    /// The number of one more name, which the current version of an adapter, or of the
    /// weights, has as well.
    pub fn add(&self, name: &str, of: Option<u64>) -> u64 {
        let mut known = self.write();
        let ordinal = known.came.get(&of).copied().unwrap_or(0);
        known.push(Name { text: name.into(), of, ordinal: Some(ordinal) })
    }

    /// The number of the name of a version that is on its way.
    pub fn coming(&self, name: &str, of: Option<u64>) -> u64 {
        self.write().push(Name { text: name.into(), of, ordinal: None })
    }

    /// The version of a number is there: if it was on its way, all before it are older now.
    pub fn came(&self, number: u64) {
        let known = &mut *self.write();
        let Some(name) = known.names.get_mut(number as usize) else { return };
        if name.ordinal.is_none() {
            let came = known.came.entry(name.of).or_default();
            *came += 1;
            name.ordinal = Some(*came);
        }
    }

    /// The name of a number.
    pub fn name(&self, number: u64) -> Arc<str> {
        let known = self.read();
        known.names.get(number as usize).map_or_else(|| "".into(), |name| name.text.clone())
    }

    /// How many versions of the same adapter, or of the weights, have come after it.
    pub fn behind(&self, number: u64) -> u64 {
        let known = self.read();
        let Some(name) = known.names.get(number as usize) else { return 0 };
        let came = known.came.get(&name.of).copied().unwrap_or(0);
        name.ordinal.map_or(0, |ordinal| came.saturating_sub(ordinal))
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Labels;

    #[test]
    fn a_version_is_behind_by_those_of_its_own_adapter_that_came_after_it() {
        let labels = Labels::default();
        let weights = labels.add("default", None);
        let versions = [("a@1", 1), ("b@1", 2), ("a@2", 1)];
        let [first, other, second] = versions.map(|(name, of)| labels.coming(name, Some(of)));
        labels.came(first);
        labels.came(other);
        // On its way it makes nobody older.
        assert_eq!(labels.behind(first), 0);
        labels.came(second);
        assert_eq!([weights, first, other, second].map(|it| labels.behind(it)), [0, 1, 0, 0]);
    }

    #[test]
    fn what_comes_back_or_has_another_name_makes_nobody_older() {
        let labels = Labels::default();
        let first = labels.coming("a@1", Some(1));
        labels.came(first);
        let [again, renamed] = ["a@1", "seven"].map(|name| labels.add(name, Some(1)));
        labels.came(again);
        assert_eq!([first, again, renamed].map(|it| labels.behind(it)), [0; 3]);
        labels.came(labels.coming("a@2", Some(1)));
        assert_eq!([first, again, renamed].map(|it| labels.behind(it)), [1; 3]);
        assert_eq!((labels.behind(99), &*labels.name(99)), (0, ""));
    }
}
