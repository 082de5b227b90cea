//! What happens at the cap.

use crate::samples::{Folder, all, ids, short};
use trajectories::{Error, Policy, Settings, Syncing};

fn tight(policy: Policy) -> Settings {
    Settings { segment_bytes: 1024, cap_bytes: 4096, policy, sync: Syncing::Always }
}

#[test]
fn at_the_cap_refuse_tells_the_numbers_and_loses_nothing() {
    let folder = Folder::new();
    let store = folder.open(tight(Policy::Refuse));
    let refused = (0..100).find_map(|_| store.append(&short(1)).err()).unwrap();
    let kept = store.stats().count;
    assert!(kept > 5);
    let Error::Full { used, asked, cap } = refused.clone() else { panic!("{refused:?}") };
    assert_eq!((used, cap), (folder.bytes(), 4096));
    assert!(used <= cap && used + asked > cap, "{refused}");
    assert_eq!(store.append(&short(1)), Err(refused));
    assert_eq!(ids(&all(&store)), Vec::from_iter(1..=kept));
    assert_eq!(store.stats().dropped, 0);
    // Rewards are short: some may still fit, and then they are refused in the same way.
    let rewards = (0..100).find_map(|_| store.reward(1, 1.0, "judge").err()).unwrap();
    assert!(matches!(rewards, Error::Full { cap: 4096, .. }), "{rewards}");
    drop(store);
    assert_eq!(ids(&all(&folder.open(tight(Policy::Refuse)))), Vec::from_iter(1..=kept));
}

#[test]
fn at_the_cap_the_oldest_segments_go_and_are_counted() {
    let folder = Folder::new();
    let store = folder.open(tight(Policy::DropOldest));
    for number in 1..=100 {
        assert_eq!(store.append(&short(number)), Ok(number));
        assert!(folder.bytes() <= 4096);
        let stats = store.stats();
        assert_eq!(stats.bytes, folder.bytes());
        assert_eq!(stats.count + stats.dropped, number);
    }
    let stats = store.stats();
    assert!(stats.dropped > 50 && stats.count > 5, "{stats:?}");
    let kept = Vec::from_iter(stats.dropped + 1..=100);
    assert_eq!(ids(&all(&store)), kept);
    assert_eq!(store.get(stats.dropped), Ok(None));
    drop(store);

    let store = folder.open(tight(Policy::DropOldest));
    assert_eq!(store.damages(), []);
    assert_eq!(store.stats(), stats);
    assert_eq!(ids(&all(&store)), kept);
    assert_eq!(store.append(&short(101)), Ok(101));
}

#[test]
fn rewards_go_with_their_trajectories() {
    let folder = Folder::new();
    let store = folder.open(tight(Policy::DropOldest));
    let first = store.append(&short(1)).unwrap();
    let mut refused = None;
    for at in 0..200 {
        refused = refused.or(store.reward(first, f64::from(at), "judge").err());
    }
    // Its rewards pushed it out.
    assert_eq!(refused, Some(Error::Unknown { id: first }));
    assert_eq!((store.stats().count, store.stats().rewards), (0, 0));
    let next = store.append(&short(2)).unwrap();
    store.reward(next, 0.5, "judge").unwrap();
    drop(store);
    let store = folder.open(tight(Policy::DropOldest));
    assert_eq!(store.get(first), Ok(None));
    assert_eq!(store.get(next).unwrap().unwrap().rewards.len(), 1);
    assert_eq!((store.stats().count, store.stats().rewards), (1, 1));
}

#[test]
fn what_is_longer_than_the_cap_is_refused_and_drops_nothing() {
    let folder = Folder::new();
    let store = folder.open(tight(Policy::DropOldest));
    store.append(&short(1)).unwrap();
    let mut long = short(2);
    long.prompt = vec![70_000; 1000];
    let refused = store.append(&long).unwrap_err();
    assert!(matches!(refused, Error::Full { cap: 4096, .. }), "{refused}");
    assert_eq!(ids(&all(&store)), [1]);
    // One that just fits drops all there is.
    long.prompt = vec![70_000; 750];
    assert_eq!(store.append(&long), Ok(2));
    assert_eq!(ids(&all(&store)), [2]);
    assert!(folder.bytes() <= 4096);
}

#[test]
fn a_lower_cap_holds_from_the_next_trajectory() {
    let folder = Folder::new();
    let settings = tight(Policy::DropOldest);
    let store = folder.open(Settings { cap_bytes: 1 << 20, ..settings });
    for number in 1..=100 {
        store.append(&short(number)).unwrap();
    }
    drop(store);
    let store = folder.open(settings);
    assert_eq!(store.stats().count, 100);
    assert_eq!(store.append(&short(101)), Ok(101));
    assert!(folder.bytes() <= 4096);
}

#[test]
fn a_query_misses_nothing_but_what_made_room() {
    let folder = Folder::new();
    let store = folder.open(Settings { cap_bytes: 1 << 20, ..tight(Policy::DropOldest) });
    for number in 1..=100 {
        store.append(&short(number)).unwrap();
    }
    drop(store);
    let store = folder.open(tight(Policy::DropOldest));
    let mut query = store.query(Default::default()).unwrap();
    assert_eq!(query.next().unwrap().unwrap().id, 1);
    store.append(&short(101)).unwrap();
    let rest: Vec<_> = query.map(Result::unwrap).collect();
    let oldest = store.stats().oldest.unwrap();
    // The file that it was reading is read to its end.
    assert!(oldest > 20);
    assert!(ids(&rest).ends_with(&Vec::from_iter(oldest..=100)));
}
