//! Processes that die while they append, and one whose disk is full.

use crate::samples::{Folder, short, with_id};
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use trajectories::{Error, Policy, Settings, Store, Syncing, Trajectory};

/// The child's orders, in the folder that it is started in: how it syncs.
const ORDERS: &str = "orders";

const SETTINGS: Settings = Settings {
    segment_bytes: 16 << 10,
    cap_bytes: 1 << 30,
    policy: Policy::Refuse,
    sync: Syncing::Batched { bytes: 2048 },
};

#[test]
fn what_was_acknowledged_is_there_after_kill_9() {
    let folder = Folder::new();
    let mut acknowledged = BTreeMap::new();
    // Each goes on where the one before was killed.
    for (lines, sync) in [(1, "always"), (60, "always"), (700, "batched"), (1501, "batched")] {
        fs::write(folder.path().join(ORDERS), sync).unwrap();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "kill::the_child_appends_until_it_is_killed", "--nocapture"])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut count = 0;
        // Lines that the pipe held when it was killed count like the others.
        for line in told {
            let line = line.unwrap();
            let Some((id, number)) = line.strip_prefix("ack ").and_then(|of| of.split_once(' '))
            else {
                continue;
            };
            acknowledged.insert(id.parse::<u64>().unwrap(), number.parse::<u64>().unwrap());
            count += 1;
            if count == lines {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success());
        assert!(count >= lines);

        let store = Store::open(folder.path(), SETTINGS).unwrap();
        for (&id, &number) in &acknowledged {
            let found = store.get(id).unwrap().unwrap_or_else(|| panic!("{id} is lost"));
            assert_eq!(with_id(id, short(number)), without_rewards(&found));
            assert_eq!(found.rewards.len(), 1, "{id}");
        }
    }
}

#[cfg(unix)]
#[test]
fn what_does_not_fit_the_disk_is_taken_back_whole() {
    let folder = Folder::new();
    fs::write(folder.path().join(ORDERS), "full").unwrap();
    // The shell sees to it that no file gets longer than some kilobytes, and that writing
    // more is an error and not a signal. Of the last write, a part is done.
    let limited = "trap '' XFSZ; ulimit -f 13; exec \"$0\" \"$@\"";
    let child = Command::new("sh")
        .args(["-c", limited])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "kill::the_child_appends_until_its_disk_is_full", "--nocapture"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    let store = Store::open(folder.path(), SETTINGS).unwrap();
    assert_eq!(store.damages(), []);
    let count = store.stats().count;
    assert!(count > 10, "{count}");
    for id in 1..=count {
        assert_eq!(store.get(id).unwrap(), Some(with_id(id, short(id))));
    }
    assert_eq!(store.append(&short(99)), Ok(count + 1));
}

/// Nothing by itself: the body of the process whose disk is full.
#[test]
fn the_child_appends_until_its_disk_is_full() {
    if fs::read_to_string(ORDERS).ok().as_deref() != Some("full") {
        return;
    }
    let settings = Settings { segment_bytes: 1 << 20, sync: Syncing::Always, ..SETTINGS };
    let store = Store::open(Path::new("."), settings).unwrap();
    let append = |id: u64| (store.append(&short(id)) != Ok(id)).then_some(id);
    let id = (1..).find_map(append).unwrap();
    // It goes on as it is: each try is refused, none leaves a trace, all is readable.
    for _ in 0..3 {
        let refused = store.append(&short(id)).unwrap_err();
        assert!(matches!(refused, Error::Io { kind: io::ErrorKind::FileTooLarge, .. }));
        assert_eq!(store.stats().bytes, fs::metadata(store_file()).unwrap().len());
        assert_eq!(store.stats().newest, Some(id - 1));
    }
    assert!(store.get(id - 1).unwrap().is_some());
}

fn store_file() -> String {
    format!("{:020}.segment", 1)
}

/// Nothing by itself: the body of the process that is killed.
#[test]
fn the_child_appends_until_it_is_killed() {
    let Ok(orders) = fs::read_to_string(ORDERS) else { return };
    let sync = if orders == "always" { Syncing::Always } else { SETTINGS.sync };
    let store = Store::open(Path::new("."), Settings { sync, ..SETTINGS }).unwrap();
    thread::scope(|scope| {
        for thread in 0..3 {
            let store = &store;
            scope.spawn(move || {
                for count in 0.. {
                    let number = thread * 1_000_000 + count;
                    let id = store.append(&short(number)).unwrap();
                    store.reward(id, 1.0, "judge").unwrap();
                    writeln!(io::stdout().lock(), "\nack {id} {number}").unwrap();
                }
            });
        }
    });
}

fn without_rewards(of: &Trajectory) -> Trajectory {
    Trajectory { rewards: Vec::new(), ..of.clone() }
}
