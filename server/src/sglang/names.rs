//! The names of requests that have not ended: none is used twice at a time, and those who
//! wait before the engine's door can be ended, too.

use crate::openai::Refusal;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// All of them.
#[derive(Clone, Default)]
pub struct Names(Arc<All>);

#[derive(Default)]
struct All {
    live: Mutex<HashMap<Arc<str>, Arc<AtomicBool>>>,
    /// Whenever some are ended.
    ended: Notify,
}

/// Names that are taken until this is dropped.
pub struct Taken {
    all: Names,
    names: Vec<(Arc<str>, Arc<AtomicBool>)>,
}

impl Names {
    /// Takes names, which must differ from each other and from all that are taken.
    pub fn take(&self, names: impl Iterator<Item = Arc<str>>) -> Result<Taken, Refusal> {
        let mut taken = Taken { all: self.clone(), names: Vec::new() };
        let mut live = self.live();
        for name in names {
            if live.contains_key(&name) {
                // The lock first: those taken so far are given back under it.
                drop(live);
                let words = format!("`{name}` is the name of a request that has not ended");
                return Err(Refusal::field("rid", words));
            }
            let ended = Arc::new(AtomicBool::new(false));
            live.insert(name.clone(), ended.clone());
            taken.names.push((name, ended));
        }
        drop(live);
        Ok(taken)
    }

    /// Marks those as ended.
    pub fn end(&self, which: impl Fn(&str) -> bool) {
        for (_, ended) in self.live().iter().filter(|(name, _)| which(name)) {
            ended.store(true, Ordering::SeqCst);
        }
        self.0.ended.notify_waiters();
    }

    fn live(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<AtomicBool>>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Whether the one at a place was ended.
    pub fn ended(&self, at: usize) -> bool {
        self.names[at].1.load(Ordering::SeqCst)
    }

    /// Waits until something is ended that was not ended `before`.
    pub async fn change(&self, before: &[bool]) {
        let changed = self.all.0.ended.notified();
        tokio::pin!(changed);
        // Listens first and looks then: so nothing is missed.
        changed.as_mut().enable();
        if before.iter().enumerate().any(|(at, before)| self.ended(at) != *before) {
            return;
        }
        changed.await;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut live = self.all.live();
        for (name, _) in &self.names {
            live.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn a_name_is_free_again_when_its_request_has_ended() {
        let names = Names::default();
        let take = |all: &[&str]| names.take(all.iter().map(|name| (*name).into()));
        let taken = take(&["a", "b"]).expect("free");
        assert!(take(&["c", "a"]).is_err(), "`a` is taken");
        assert!(take(&["d", "d"]).is_err(), "twice in one request");
        // What came before the one at fault is free again.
        drop(take(&["c", "d"]).expect("free"));
        names.end(|name| name == "b");
        assert_eq!([taken.ended(0), taken.ended(1)], [false, true]);
        drop(taken);
        assert!(take(&["a", "b"]).is_ok());
    }
}
