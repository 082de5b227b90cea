//! Many at once.

use crate::samples::{Folder, all, roomy, short, with_id};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use trajectories::{Filter, Settings, Store, Syncing};

/// Eight threads append while another follows.
fn crowd(sync: Syncing) {
    let folder = Folder::new();
    let settings = Settings { segment_bytes: 8192, sync, ..roomy() };
    let store = Arc::new(folder.open(settings));
    let follower = thread::spawn({
        let store = store.clone();
        move || follow(&store, 400)
    });
    let threads = (0..8).map(|thread| {
        let store = store.clone();
        thread::spawn(move || append(&store, thread))
    });
    let threads: Vec<_> = threads.collect();
    let mut sent = BTreeMap::new();
    for thread in threads {
        let mine = thread.join().unwrap();
        assert!(mine.is_sorted(), "what a thread appends later has a greater id");
        sent.extend(mine);
    }
    let expected = sent.into_iter().map(|(id, number)| with_id(id, short(number)));
    let expected: Vec<_> = expected.collect();
    assert!(expected.iter().map(|of| of.id).eq(1..=400));
    assert_eq!(follower.join().unwrap(), Vec::from_iter(1..=400));
    assert_eq!(all(&store), expected);
    assert!(store.stats().segments > 3);
    drop(Arc::into_inner(store).unwrap());
    assert_eq!(all(&folder.open(settings)), expected);
}

fn append(store: &Store, thread: u64) -> Vec<(u64, u64)> {
    let append = |number| {
        let id = store.append(&short(number)).unwrap();
        // Whoever has an answer may read it.
        assert_eq!(store.get(id).unwrap(), Some(with_id(id, short(number))));
        (id, number)
    };
    (thread * 50..thread * 50 + 50).map(append).collect()
}

/// Ids as somebody sees them who asks for what is new.
fn follow(store: &Store, last: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    loop {
        let beyond = seen.last().copied().unwrap_or(0);
        if beyond == last {
            return seen;
        }
        let newest = store.wait_beyond(beyond, Duration::from_secs(30)).expect("more comes");
        assert!(newest > beyond);
        let filter = Filter { beyond, ..Filter::default() };
        seen.extend(store.query(filter).unwrap().map(|found| found.unwrap().id));
    }
}

#[test]
fn eight_threads_append_and_one_follows_with_each_synced() {
    crowd(Syncing::Always);
}

#[test]
fn eight_threads_append_and_one_follows_with_syncs_in_batches() {
    crowd(Syncing::Batched { bytes: 4096 });
}

#[test]
fn waiting_ends_with_the_time_where_nothing_comes() {
    let folder = Folder::new();
    let store = folder.open(roomy());
    assert_eq!(store.wait_beyond(0, Duration::ZERO), None);
    store.append(&short(1)).unwrap();
    assert_eq!(store.wait_beyond(0, Duration::ZERO), Some(1));
    assert_eq!(store.wait_beyond(1, Duration::from_millis(20)), None);
}
