//! What is refused, by the name of the field, before anything is written.

use crate::samples::{Folder, all, object, roomy, short, whole};
use serde_json::{Value, json};
use trajectories::{Error, Masks, Over, Policy, Reward, Settings, Span, Store, Trajectory};

type Spoil = fn(&mut Trajectory);

fn span(start: u32, end: u32) -> Vec<Span> {
    vec![Span { version: "step".into(), start, end, ..Span::default() }]
}

#[test]
fn each_wrong_field_is_refused_by_its_name_and_nothing_is_written() {
    let folder = Folder::new();
    let store = folder.open(roomy());
    let before = folder.bytes();
    let cases: &[(&str, Spoil)] = &[
        ("id", |of| of.id = 1),
        ("rewards", |of| of.rewards = vec![Reward { value: 1.0, by: "me".into() }]),
        ("group", |of| of.group = Some("x".repeat(513))),
        ("session", |of| of.session = Some("x".repeat(513))),
        ("model", |of| of.model = "x".repeat(513)),
        ("finish", |of| of.finish = "x".repeat(513)),
        ("logprobs.raw", |of| of.logprobs.raw.truncate(4)),
        ("logprobs.raw[0]", |of| of.logprobs.raw[0] = f32::NAN),
        ("logprobs.raw[4]", |of| of.logprobs.raw[4] = f32::NEG_INFINITY),
        ("logprobs.processed", |of| of.logprobs.processed.push(0.0)),
        ("logprobs.processed[2]", |of| of.logprobs.processed[2] = f32::INFINITY),
        ("versions", |of| of.versions = vec![span(0, 1).remove(0); 1025]),
        ("versions[0].version", |of| of.versions[0].version = "x".repeat(513)),
        ("versions[0].weights", |of| of.versions[0].weights = Some("x".repeat(513))),
        ("versions[1].kv[1].version", |of| of.versions[1].kv[1].version = "x".repeat(513)),
        ("versions[1].kv[0].weights", |of| of.versions[1].kv[0].weights = Some("x".repeat(513))),
        ("versions", |of| of.versions[1].kv = vec![Over::default(); 1025]),
        ("versions[0]", |of| of.versions = span(0, 0)),
        ("versions[0]", |of| of.versions = span(4, 6)),
        ("versions[0]", |of| of.versions = span(u32::MAX, 0)),
        ("versions[1]", |of| of.versions = [span(0, 3), span(2, 4)].concat()),
        ("masks.hashes", |of| of.masks = Some(Masks::Hashes(vec![0; 4]))),
        ("masks.kept", |of| of.masks = Some(Masks::Kept(vec![]))),
        ("loss_mask", |of| of.loss_mask = Some(vec![true; 6])),
        ("sampling.temperature", |of| of.sampling.temperature = f32::NAN),
        ("sampling.top_p", |of| of.sampling.top_p = f32::INFINITY),
        ("sampling.min_p", |of| of.sampling.min_p = f32::NEG_INFINITY),
        ("masking", |of| of.masking = object(json!({"text": "x".repeat(2 << 20)}))),
        ("masking", |of| of.masking = object(json!({"deep": deep(64)}))),
        ("metadata", |of| of.metadata = object(json!({"text": "x".repeat(64 << 10)}))),
        ("metadata", |of| of.metadata = object(json!({"deep": deep(64)}))),
        ("metadata", |of| of.metadata = object(json!({"deep": deep(2000)}))),
    ];
    for (name, spoil) in cases {
        let mut of = whole(1);
        spoil(&mut of);
        match store.append(&of) {
            Err(Error::Field { field, .. }) if field == *name => {}
            other => panic!("{name}: {other:?}"),
        }
    }
    for (value, by, name) in [
        (f64::NAN, "me".to_owned(), "reward"),
        (f64::INFINITY, "me".to_owned(), "reward"),
        (0.0, "x".repeat(513), "by"),
    ] {
        let refused = store.reward(1, value, &by).unwrap_err();
        assert!(matches!(refused, Error::Field { field, .. } if field == name));
    }
    assert!(all(&store).is_empty());
    assert_eq!(folder.bytes(), before);
    assert_eq!(store.append(&whole(1)), Ok(1));
}

fn deep(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
}

#[test]
fn what_is_at_each_bound_is_kept() {
    let folder = Folder::new();
    let store = folder.open(roomy());
    let mut of = short(1);
    of.group = Some("ü".repeat(256));
    of.answer = vec![0; 1024];
    of.logprobs.raw = vec![0.0; 1024];
    let name = |at| format!("{at:0512}");
    of.versions = (0..1024)
        .map(|at| Span { version: name(at), start: at, end: at + 1, ..Span::default() })
        .collect();
    of.metadata = object(json!({"deep": deep(63), "text": "x".repeat((64 << 10) - 156)}));
    let room = (64 << 10) - serde_json::to_string(&of.metadata).unwrap().len();
    of.metadata.insert("y".into(), json!("y".repeat(room.saturating_sub(7))));
    assert_eq!(serde_json::to_string(&of.metadata).unwrap().len(), 64 << 10);
    assert_eq!(store.append(&of), Ok(1));
    drop(store);
    let store = folder.open(roomy());
    assert_eq!(store.get(1).unwrap(), Some(Trajectory { id: 1, ..of }));
}

#[test]
fn settings_that_cannot_be_kept_are_refused() {
    let folder = Folder::new();
    let settings = |segment_bytes, cap_bytes| Settings {
        segment_bytes,
        cap_bytes,
        policy: Policy::DropOldest,
        ..Settings::default()
    };
    for (segment, cap) in [(0, 1 << 30), (1023, 1 << 30), (1024, 2047), (u64::MAX, u64::MAX)] {
        let refused = Store::open(folder.path(), settings(segment, cap)).unwrap_err();
        assert!(matches!(refused, Error::Field { field, .. } if field == "segment_bytes"));
    }
    assert!(Store::open(folder.path(), settings(1024, 2048)).is_ok());
}
