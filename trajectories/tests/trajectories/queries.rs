//! What a filter lets through.

use crate::samples::{Folder, ids, roomy, short};
use std::io::{self, Write};
use trajectories::{Error, Filter, Settings, Span, Store, Trajectory};

/// Twelve, over several segments: groups of four, sessions by two, versions by three.
fn twelve(folder: &Folder) -> Store {
    let store = folder.open(Settings { segment_bytes: 1024, ..roomy() });
    for number in 1..=12u64 {
        let span = |version, start, end| Span {
            version: format!("step-{version}"),
            start,
            end,
            ..Span::default()
        };
        let of = Trajectory {
            group: Some(format!("group-{}", (number - 1) / 4)),
            session: (number % 2 == 0).then(|| "even".into()),
            model: if number < 7 { "base" } else { "adapter" }.into(),
            versions: vec![span(number / 3, 0, 1), span(number / 3 + 1, 1, 2)],
            ..short(number)
        };
        store.append(&of).unwrap();
    }
    for (id, value) in [(2, 1.0), (3, 0.5), (2, -1.0), (9, 0.75), (10, 0.0)] {
        store.reward(id, value, "judge").unwrap();
    }
    assert!(store.stats().segments > 1);
    store
}

fn found(store: &Store, filter: Filter) -> Vec<u64> {
    ids(&store.query(filter).unwrap().map(Result::unwrap).collect::<Vec<_>>())
}

#[test]
fn each_field_of_a_filter_narrows_it_before_and_after_reopening() {
    let folder = Folder::new();
    let mut store = twelve(&folder);
    let text = |of: &str| Some(of.to_owned());
    let any = Filter::default;
    for _ in 0..2 {
        let cases = [
            (any(), Vec::from_iter(1..=12)),
            (Filter { ids: Some(vec![7, 3, 3, 0, 99]), ..any() }, vec![3, 7]),
            (Filter { ids: Some(vec![]), ..any() }, vec![]),
            (Filter { beyond: 9, ..any() }, vec![10, 11, 12]),
            (Filter { beyond: 12, ..any() }, vec![]),
            (Filter { beyond: u64::MAX, ..any() }, vec![]),
            (Filter { group: text("group-1"), ..any() }, vec![5, 6, 7, 8]),
            (Filter { session: text("even"), beyond: 6, ..any() }, vec![8, 10, 12]),
            (Filter { session: text("odd"), ..any() }, vec![]),
            (Filter { model: text("adapter"), limit: Some(2), ..any() }, vec![7, 8]),
            (Filter { version: text("step-2"), ..any() }, vec![3, 4, 5, 6, 7, 8]),
            (Filter { min_reward: Some(0.5), ..any() }, vec![3, 9]),
            (Filter { min_reward: Some(-1.0), ..any() }, vec![2, 3, 9, 10]),
            (Filter { limit: Some(0), ..any() }, vec![]),
            (Filter { ids: Some(vec![1, 2, 3]), beyond: 1, limit: Some(1), ..any() }, vec![2]),
        ];
        for (filter, right) in cases {
            assert_eq!(found(&store, filter.clone()), right, "{filter:?}");
        }
        drop(store);
        store = folder.open(roomy());
    }
}

#[test]
fn a_query_of_many_is_read_in_parts_and_ends_where_it_began() {
    let folder = Folder::new();
    let store = folder.open(Settings { segment_bytes: 4096, ..roomy() });
    for number in 1..=300 {
        store.append(&short(number)).unwrap();
    }
    let mut query = store.query(Filter::default()).unwrap();
    assert_eq!(query.next().unwrap().unwrap().id, 1);
    store.append(&short(301)).unwrap();
    let rest: Vec<_> = query.map(Result::unwrap).collect();
    assert_eq!(ids(&rest), Vec::from_iter(2..=300));
    let every = Filter { ids: Some((1..=301).rev().collect()), ..Filter::default() };
    assert_eq!(found(&store, every), Vec::from_iter(1..=301));
}

#[test]
fn a_reward_that_is_no_number_is_no_filter() {
    let folder = Folder::new();
    let store = folder.open(roomy());
    let filter = Filter { min_reward: Some(f64::NAN), ..Filter::default() };
    let refused = store.query(filter).unwrap_err();
    assert_eq!(refused.to_string(), "min_reward must be finite, not NaN");
}

#[test]
fn an_export_whose_reader_goes_is_an_error() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = Folder::new();
    let store = folder.open(roomy());
    assert_eq!(store.export(Filter::default(), &mut Gone).unwrap().lines, 0);
    store.append(&short(1)).unwrap();
    let refused = store.export(Filter::default(), &mut Gone).unwrap_err();
    assert!(matches!(refused, Error::Io { kind: io::ErrorKind::BrokenPipe, .. }), "{refused}");
}
