//! An archive of versions has what was saved whole, after a crash at any byte, keeps those it
//! is told to, and touches nothing that is not its own.

use checkpoint::archive::{Archive, Better, Error, Of, Saved, Settings, Version, Which};
use checkpoint::{Checkpoint, Content, Fault};
use engine::lora::{Adapter, Term};
use pagewise_tests::adapters::numbers;
use pagewise_tests::model::golden;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const ALL: Settings = Settings { keep: 0, better: Better::Higher };
/// The file that makes a folder a version's.
const MANIFEST: &str = "checkpoint.json";

/// A folder of its own, which is not there yet.
fn room(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("archive").join(name);
    let _ = fs::remove_dir_all(&folder);
    folder
}

fn open(folder: &Path) -> Archive {
    Archive::open(folder, ALL).expect("it is a folder")
}

fn version(name: &str, count: u64) -> Version {
    Version {
        of: Of::Adapter(name.into()),
        label: format!("{name}@{count}"),
        count,
        step: Some(10 * count),
        metric: None,
        saved_ms: 1_700_000_000_000 + count,
    }
}

/// Saves a version whose files tell which it is.
fn save(archive: &Archive, name: &str, count: u64, metric: Option<f64>) -> Saved {
    let first = move |to: &mut dyn Write| write!(to, "first of {name} {count}");
    let files: [(&str, Content<'_>); 2] = [("first", &first), ("second", &|to| to.write_all(b"2"))];
    let version = Version { metric, ..version(name, count) };
    archive.save(version, &files).expect("there is room")
}

fn labels(archive: &Archive) -> Vec<String> {
    archive.list().into_iter().map(|saved| saved.version.label).collect()
}

fn entries(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("it is there");
    entries.map(|it| it.expect("it is there").file_name().to_string_lossy().into_owned()).collect()
}

fn latest(archive: &Archive, name: &str) -> Option<String> {
    let saved = archive.pick(&Of::Adapter(name.into()), &Which::Latest);
    saved.map(|saved| saved.version.label)
}

#[test]
fn what_was_saved_is_there_when_it_is_opened_again() {
    let folder = room("again");
    let archive = open(&folder);
    let saved = [save(&archive, "a", 1, Some(0.1 + 0.2)), save(&archive, "b/c d", 1, None)];
    assert_eq!(archive.list(), saved);
    assert_eq!(
        fs::read(archive.path(saved[0].id).join("first")).expect("it is there"),
        b"first of a 1"
    );
    assert_eq!(saved[0].bytes(), 13);
    drop(archive);
    let archive = open(&folder);
    assert_eq!(archive.list(), saved);
    assert_eq!(archive.names(), [Of::Adapter("a".into()), Of::Adapter("b/c d".into())].into());
    assert_eq!(archive.verify(saved[1].id), Ok(saved[1].clone()));
    assert_eq!(archive.find(9), Err(Error::Unknown { id: 9 }));
    // Numbers go on.
    assert!(save(&archive, "a", 2, None).id > saved[1].id);
    assert_eq!(latest(&archive, "a").as_deref(), Some("a@2"));
    let called = |label: &str| archive.pick(&Of::Adapter("a".into()), &Which::Called(label.into()));
    assert_eq!(called("a@1"), Some(saved[0].clone()));
    assert_eq!(called("b/c d@1"), None);
}

#[test]
fn an_adapter_and_weights_read_back_with_the_same_bits() {
    let base = Checkpoint::open(&golden::folder("qwen3")).expect("it is committed");
    let archive = open(&room("bits"));
    let term = Term {
        rank: 4,
        inputs: 56,
        outputs: 128,
        a: numbers(4 * 56, 1),
        b: numbers(128 * 4, 2),
        scale: 0.3,
        magnitude: None,
    };
    let name = "model.layers.0.self_attn.q_proj";
    let adapter = Adapter { terms: [(name.to_owned(), term)].into() };
    let more: [(&str, Content<'_>); 1] = [("optimizer", &|to| to.write_all(b"moments"))];
    let model = (&base.config, "a/model");
    let saved = archive.save_adapter(version("a", 1), &adapter, model, &more).expect("room");
    let path = archive.path(saved.id);
    assert_eq!(checkpoint::adapter(&path, &base.config), Ok(adapter));
    assert_eq!(fs::read(path.join("optimizer")).expect("it is there"), b"moments");
    let text = fs::read(golden::folder("qwen3").join("config.json")).expect("it is committed");
    let weights = Version { of: Of::Weights, ..version("weights", 1) };
    let saved = archive.save_weights(weights, &base.tensors, &text).expect("there is room");
    let read = Checkpoint::open(&archive.path(saved.id)).expect("it is whole");
    assert_eq!(read.config, base.config);
    assert!(read.tensors.keys().eq(base.tensors.keys()));
    for (name, tensor) in &read.tensors {
        let own = &base.tensors[name];
        assert_eq!((tensor.shape(), tensor.element()), (own.shape(), own.element()), "{name}");
        assert!(tensor.bytes() == own.bytes(), "{name}");
    }
    archive.verify(saved.id).expect("it is whole");
}

#[test]
fn the_newest_are_kept_and_the_best_beside_them() {
    let metrics = [0.5, 0.9, 0.1, 0.3, 0.2];
    for (better, expected) in [(Better::Higher, [2, 4, 5]), (Better::Lower, [3, 4, 5])] {
        let folder = room(&format!("keep-{better:?}"));
        let archive = Archive::open(&folder, Settings { keep: 2, better }).expect("a folder");
        save(&archive, "other", 1, None);
        for (at, metric) in metrics.into_iter().enumerate() {
            save(&archive, "a", at as u64 + 1, Some(metric));
        }
        let mut kept = vec!["other@1".to_owned()];
        kept.extend(expected.map(|count| format!("a@{count}")));
        assert_eq!(labels(&archive), kept);
        let best = archive.pick(&Of::Adapter("a".into()), &Which::Best).expect("one is");
        assert_eq!(best.version.count, expected[0]);
        // Four folders, and the lock.
        assert_eq!(entries(&folder).len(), 5);
        // Another is better from now on; the one before makes room.
        let five = archive.pick(&Of::Adapter("a".into()), &Which::Latest).expect("one is");
        let metric = if better == Better::Higher { 2.0 } else { -2.0 };
        assert_eq!(
            archive.mark(five.id, Some(metric), None).expect("marked").version.metric,
            Some(metric)
        );
        let wrong = archive.mark(five.id, Some(f64::NAN), None).expect_err("no number");
        assert!(matches!(wrong, Error::Field { field: "metric", .. }), "{wrong}");
        save(&archive, "a", 6, None);
        assert_eq!(labels(&archive), ["other@1", "a@5", "a@6"]);
        save(&archive, "a", 7, None);
        save(&archive, "a", 8, None);
        drop(archive);
        let archive = Archive::open(&folder, Settings { keep: 2, better }).expect("a folder");
        assert_eq!(labels(&archive), ["other@1", "a@5", "a@7", "a@8"], "it stays the best");
        let own = archive.find(five.id).expect("it is there");
        assert_eq!(archive.delete(five.id), Ok(own), "who says so takes the best away");
        assert_eq!(labels(&archive), ["other@1", "a@7", "a@8"]);
    }
}

#[test]
fn what_is_served_again_is_the_latest_and_stays() {
    let folder = room("renewed");
    let settings = Settings { keep: 2, ..ALL };
    let archive = Archive::open(&folder, settings).expect("a folder");
    let first = save(&archive, "a", 1, None);
    save(&archive, "a", 2, None);
    let again = archive.renew(first.id, "back").expect("it is there");
    assert_eq!((again.served_as(), &*again.version.label), ("back", "a@1"));
    assert_eq!(latest(&archive, "a").as_deref(), Some("a@1"));
    drop(archive);
    let archive = Archive::open(&folder, settings).expect("a folder");
    assert_eq!(latest(&archive, "a").as_deref(), Some("a@1"));
    assert_eq!(archive.find(first.id).expect("it is there").served_as(), "back");
    save(&archive, "a", 3, None);
    assert_eq!(labels(&archive), ["a@1", "a@3"], "the one before it goes");
}

#[test]
fn a_count_outlives_the_versions_that_had_it() {
    let folder = room("counts");
    let (a, b) = (Of::Adapter("a".into()), Of::Adapter("b".into()));
    let archive = open(&folder);
    assert_eq!(archive.count(&a), 0);
    let saved = [1, 2, 3].map(|count| save(&archive, "a", count, None));
    save(&archive, "b", 1, None);
    // What another tells has to be written nowhere.
    archive.delete(saved[0].id).expect("it is there");
    archive.counted(&a, 2).expect("there is room");
    assert!(!folder.join("counts.json").exists());
    for gone in &saved[1..] {
        archive.delete(gone.id).expect("it is there");
    }
    archive.counted(&b, 6).expect("there is room");
    archive.counted(&b, 5).expect("there is room");
    assert_eq!((archive.count(&a), archive.count(&b)), (3, 6));
    drop(archive);
    let archive = open(&folder);
    assert_eq!((archive.count(&a), archive.count(&b)), (3, 6));
    assert_eq!(archive.strange(), []);
    drop(archive);
    fs::write(folder.join("counts.json"), "{").expect("there is room");
    let archive = open(&folder);
    assert_eq!((archive.count(&a), archive.count(&b)), (0, 1));
    let [strange] = archive.strange() else { panic!("{:?}", archive.strange()) };
    assert!(strange.to_string().contains("counts.json"), "{strange}");
}

#[test]
fn those_that_lead_are_told_of_all_names_at_once() {
    let archive = open(&room("leading"));
    for (name, count, metric) in
        [("a", 1, Some(0.5)), ("b", 1, None), ("a", 2, Some(0.5)), ("a", 3, Some(0.1))]
    {
        save(&archive, name, count, metric);
    }
    let first = archive.list()[0].id;
    archive.renew(first, "again").expect("it is there");
    let leading = archive.leading(&archive.list());
    let of = |which: Which| {
        let ids = archive.names().into_iter().filter_map(|of| archive.pick(&of, &which));
        ids.map(|saved| saved.id).collect::<BTreeSet<u64>>()
    };
    assert_eq!(leading.latest, of(Which::Latest));
    assert_eq!(leading.best, of(Which::Best));
    assert_eq!((leading.latest.len(), leading.best.len()), (2, 1));
}

/// Files of a version in the order in which they are written.
fn files(folder: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let names = ["first", "second", MANIFEST];
    names.map(|name| (name, fs::read(folder.join(name)).expect("it is there"))).into()
}

#[test]
fn a_crash_at_any_byte_leaves_what_was_there() {
    let folder = room("crash");
    let archive = open(&folder);
    save(&archive, "a", 1, None);
    let second = save(&archive, "a", 2, None);
    let files = files(&archive.path(second.id));
    drop(archive);
    let before = entries(&folder);
    let beside = folder.join(format!(".{:020}.{}-0.unfinished", 3, std::process::id()));
    let all: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    for written in 0..=all {
        fs::create_dir(&beside).expect("there is room");
        let mut left = written;
        for (name, bytes) in &files {
            let here = left.min(bytes.len());
            fs::write(beside.join(name), &bytes[..here]).expect("there is room");
            left -= here;
            if left == 0 {
                break;
            }
        }
        let archive = open(&folder);
        assert_eq!(labels(&archive), ["a@1", "a@2"], "at byte {written}");
        assert_eq!(archive.strange(), []);
        drop(archive);
        assert_eq!(entries(&folder), before, "at byte {written}");
    }
    // While it was marked: beside the manifest lies a part of the next one.
    let folder_of_second = folder.join(format!("{:020}", second.id));
    let (_, manifest) = &files[2];
    for written in 0..=manifest.len() {
        let beside = folder_of_second.join(format!(".{MANIFEST}.unfinished"));
        fs::write(beside, &manifest[..written]).expect("there is room");
        let archive = open(&folder);
        assert_eq!(archive.find(second.id), Ok(second.clone()), "at byte {written}");
    }
    // Nor is the next one hindered by it.
    let second = open(&folder).mark(second.id, Some(0.0), Some(7)).expect("it is marked");
    assert_eq!(open(&folder).find(second.id), Ok(second));
    // While it was taken away: its name is gone, and some of its files.
    for gone in 0..=files.len() {
        fs::create_dir(&beside).expect("there is room");
        for (name, bytes) in &files[gone..] {
            fs::write(beside.join(name), bytes).expect("there is room");
        }
        assert_eq!(labels(&open(&folder)), ["a@1", "a@2"], "{gone} files are gone");
        assert_eq!(entries(&folder), before);
    }
}

#[test]
fn a_disk_that_is_full_is_an_error_and_nothing_has_changed() {
    let folder = room("full");
    let settings = Settings { keep: 1, ..ALL };
    let archive = Archive::open(&folder, settings).expect("a folder");
    let kept = save(&archive, "a", 1, None);
    let before = entries(&folder);
    for room in 0..8 {
        let full = |to: &mut dyn Write| {
            to.write_all(&b"a tensor"[..room])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        };
        let whole: Content<'_> = &|to| to.write_all(b"whole");
        for files in [[("one", whole), ("two", &full)], [("one", &full), ("two", whole)]] {
            let error = archive.save(version("a", 2), &files).expect_err("no room");
            let Error::File(error) = error else { panic!("{error}") };
            assert!(matches!(error.fault, Fault::Unwritable(_)), "{error}");
        }
        assert_eq!((archive.list(), entries(&folder)), (vec![kept.clone()], before.clone()));
    }
    drop(archive);
    assert_eq!(open(&folder).list(), [kept]);
}

#[test]
fn two_do_not_share_a_folder() {
    let folder = room("shared");
    let archive = open(&folder);
    let refused = Archive::open(&folder, ALL).expect_err("it is taken");
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    assert!(refused.to_string().contains("another process"), "{refused}");
    drop(archive);
    open(&folder);
}

#[test]
fn what_is_not_its_own_is_left_alone() {
    let folder = room("strange");
    fs::create_dir_all(folder.join("notes")).expect("there is room");
    // A version's name, and none of its files; one that is named nearly so.
    let (empty, near) = (format!("{:020}", 7), format!("{:019}", 8));
    let others = [&*empty, &*near, ".mine.unfinished", "notes"];
    for name in others {
        fs::create_dir_all(folder.join(name)).expect("there is room");
        fs::write(folder.join(name).join("dear"), name).expect("there is room");
    }
    fs::write(folder.join("README"), "dear").expect("there is room");
    let settings = Settings { keep: 1, ..ALL };
    let archive = Archive::open(&folder, settings).expect("a folder");
    assert_eq!(archive.list(), []);
    let [strange] = archive.strange() else { panic!("{:?}", archive.strange()) };
    assert!(strange.to_string().contains(&empty), "{strange}");
    let first = save(&archive, "a", 1, None);
    assert_eq!(first.id, 8, "no number of anybody else");
    save(&archive, "a", 2, None);
    assert_eq!(labels(&archive), ["a@2"]);
    for name in others {
        let read = fs::read_to_string(folder.join(name).join("dear")).expect("it is there");
        assert_eq!(read, name);
    }
    assert_eq!(fs::read_to_string(folder.join("README")).expect("it is there"), "dear");
}

#[test]
fn files_that_changed_since_are_told() {
    let folder = room("changed");
    let archive = open(&folder);
    let saved = save(&archive, "a", 1, None);
    let path = archive.path(saved.id).join("first");
    let whole = fs::read(&path).expect("it is there");
    let mut other = whole.clone();
    other[3] ^= 1;
    fs::write(&path, &other).expect("there is room");
    let changed = archive.verify(saved.id).expect_err("it changed");
    assert!(changed.to_string().contains("first: holds other bytes"), "{changed}");
    fs::write(&path, &whole[1..]).expect("there is room");
    let shorter = archive.verify(saved.id).expect_err("it changed");
    assert!(shorter.to_string().contains("has 11 bytes, and 12 were written"), "{shorter}");
    drop(archive);
    // Half of one is none, and the list goes on without it.
    let archive = open(&folder);
    assert_eq!((archive.list(), archive.strange().len()), (vec![], 1));
    assert!(save(&archive, "a", 2, None).id > saved.id);
}

#[test]
fn what_could_not_be_found_again_is_refused() {
    let archive = open(&room("refused"));
    let refuse = |version: Version, name: &str, field: &str| {
        let refused = archive.save(version, &[(name, &|_| panic!("it is not asked"))]);
        let refused = refused.expect_err("it is wrong");
        assert!(matches!(&refused, Error::Field { field: own, .. } if *own == field), "{refused}");
    };
    refuse(version("", 1), "file", "name");
    refuse(version(&"n".repeat(257), 1), "file", "name");
    refuse(Version { label: String::new(), ..version("a", 1) }, "file", "label");
    let metric = Some(f64::INFINITY);
    refuse(Version { metric, ..version("a", 1) }, "file", "metric");
    for name in ["", "..", "a/b", "/a", MANIFEST] {
        refuse(version("a", 1), name, "files");
    }
    assert_eq!(archive.list(), []);
}
