//! Appending, reading, and opening again.

use crate::samples::{Folder, all, ids, roomy, short, whole, with_id};
use std::fs;
use trajectories::{Error, Reward, Settings, Stats, Store, Syncing};

#[test]
fn an_empty_store_has_nothing_and_opens_again() {
    let folder = Folder::new();
    for _ in 0..2 {
        let store = folder.open(roomy());
        assert_eq!(store.damages(), []);
        assert_eq!(store.get(0), Ok(None));
        assert_eq!(store.get(u64::MAX), Ok(None));
        assert!(all(&store).is_empty());
        let stats = Stats { segments: 1, bytes: folder.bytes(), ..Stats::default() };
        assert_eq!(store.stats(), stats);
    }
}

#[test]
fn what_is_appended_comes_back_whole_at_once_and_after_reopening() {
    let folder = Folder::new();
    let store = folder.open(Settings { sync: Syncing::Always, ..roomy() });
    let sent = [whole(1), short(2), Default::default()];
    for (at, trajectory) in sent.iter().enumerate() {
        assert_eq!(store.append(trajectory), Ok(at as u64 + 1));
    }
    let sent = sent.into_iter().enumerate();
    let sent: Vec<_> = sent.map(|(at, of)| with_id(at as u64 + 1, of)).collect();
    assert_eq!(all(&store), sent);
    drop(store);
    let store = folder.open(roomy());
    assert_eq!(store.damages(), []);
    assert_eq!(all(&store), sent);
    assert_eq!(store.get(2).unwrap().as_ref(), Some(&sent[1]));
}

#[test]
fn ids_go_on_after_reopening_and_across_segments() {
    let folder = Folder::new();
    let small = Settings { segment_bytes: 1024, ..roomy() };
    for round in 0..10 {
        let store = folder.open(small);
        for number in 1..=3 {
            assert_eq!(store.append(&short(number)), Ok(round * 3 + number));
        }
    }
    let store = folder.open(small);
    assert_eq!(ids(&all(&store)), Vec::from_iter(1..=30));
    let stats = store.stats();
    assert!(stats.segments > 3, "{stats:?}");
    assert_eq!((stats.count, stats.oldest, stats.newest), (30, Some(1), Some(30)));
    assert_eq!((stats.bytes, stats.dropped), (folder.bytes(), 0));
}

#[test]
fn rewards_are_all_kept_in_order_with_their_givers() {
    let folder = Folder::new();
    let small = Settings { segment_bytes: 1024, ..roomy() };
    let store = folder.open(small);
    let id = store.append(&short(1)).unwrap();
    let other = store.append(&short(2)).unwrap();
    let given: Vec<_> = (0..40).map(|at| (f64::from(at) / 3.0, format!("judge-{at}"))).collect();
    for (value, by) in &given {
        store.reward(id, *value, by).unwrap();
    }
    let rewards = given.iter().map(|(value, by)| Reward { value: *value, by: by.as_str().into() });
    let rewards: Vec<_> = rewards.collect();
    assert!(store.stats().segments > 1);
    assert_eq!(store.get(id).unwrap().unwrap().rewards, rewards);
    drop(store);
    let store = folder.open(small);
    assert_eq!(store.get(id).unwrap().unwrap().rewards, rewards);
    assert_eq!(store.get(other).unwrap().unwrap().rewards, []);
}

#[test]
fn a_reward_of_nothing_is_refused() {
    let folder = Folder::new();
    let store = folder.open(roomy());
    store.append(&short(1)).unwrap();
    for id in [0, 2, u64::MAX] {
        assert_eq!(store.reward(id, 1.0, "judge"), Err(Error::Unknown { id }));
    }
}

#[test]
fn a_record_longer_than_a_segment_has_one_of_its_own() {
    let folder = Folder::new();
    let small = Settings { segment_bytes: 1024, ..roomy() };
    let store = folder.open(small);
    let mut long = short(2);
    long.prompt = vec![70_000; 5000];
    for trajectory in [&short(1), &long, &short(3)] {
        store.append(trajectory).unwrap();
    }
    assert_eq!(store.stats().segments, 3);
    drop(store);
    let store = folder.open(small);
    assert_eq!(store.get(2).unwrap(), Some(with_id(2, long)));
    assert_eq!(ids(&all(&store)), [1, 2, 3]);
}

#[test]
fn one_opener_at_a_time() {
    let folder = Folder::new();
    let store = folder.open(roomy());
    let locked = Error::Locked { folder: folder.path().to_owned() };
    assert_eq!(Store::open(folder.path(), roomy()).unwrap_err(), locked);
    store.append(&short(1)).unwrap();
    drop(store);
    assert_eq!(ids(&all(&folder.open(roomy()))), [1]);
}

#[test]
fn files_of_others_are_left_alone() {
    let folder = Folder::new();
    let names = ["1.segment", "notes.txt", "0000000000000000000x.segment"];
    for name in names {
        fs::write(folder.path().join(name), "mine").unwrap();
    }
    let store = folder.open(roomy());
    store.append(&short(1)).unwrap();
    assert_eq!(store.damages(), []);
    for name in names {
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), b"mine");
    }
}

#[test]
fn folders_on_the_way_are_made() {
    let folder = Folder::new();
    let deep = folder.path().join("of").join("run");
    Store::open(&deep, roomy()).unwrap().append(&short(1)).unwrap();
    assert_eq!(ids(&all(&Store::open(&deep, roomy()).unwrap())), [1]);
}

#[test]
fn a_folder_that_cannot_be_is_refused_by_its_path() {
    let folder = Folder::new();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = Store::open(&file.join("store"), roomy()).unwrap_err();
    assert!(matches!(refused, Error::Io { path, .. } if path == file.join("store")));
}

#[test]
fn a_segment_that_cannot_be_begun_loses_nothing() {
    let folder = Folder::new();
    let store = folder.open(Settings { segment_bytes: 1024, ..roomy() });
    fs::create_dir(folder.segment(2)).unwrap();
    let refused = (1..).find_map(|number| store.append(&short(number)).err()).unwrap();
    assert!(matches!(&refused, Error::Io { path, .. } if *path == folder.segment(2)), "{refused}");
    let kept = ids(&all(&store));
    assert_eq!(store.append(&short(99)), Err(refused));
    fs::remove_dir(folder.segment(2)).unwrap();
    let next = kept.len() as u64 + 1;
    assert_eq!(store.append(&short(99)), Ok(next));
    drop(store);
    assert_eq!(ids(&all(&folder.open(roomy()))), Vec::from_iter(1..=next));
}
