//! Files that were cut, spoilt or taken away.

use crate::samples::{Folder, all, ids, object, roomy, short, with_id};
use serde_json::json;
use std::fs;
use trajectories::{Damage, Error, Fault, Logprobs, Masks, Settings, Store, Trajectory};

/// A store of one segment, and where each of its frames ends.
struct Small {
    bytes: Vec<u8>,
    /// In order of writing; a reward of the first trajectory is between the second and the
    /// third.
    ends: Vec<usize>,
}

const REWARD: usize = 2;
const FRAMES: usize = 5;

fn small() -> Small {
    let folder = Folder::new();
    let store = folder.open(roomy());
    let mut ends = Vec::new();
    for frame in 0..FRAMES {
        if frame == REWARD {
            store.reward(1, 0.25, "judge").unwrap();
        } else {
            store.append(&sent(frame)).unwrap();
        }
        ends.push(fs::metadata(folder.segment(1)).unwrap().len() as usize);
    }
    drop(store);
    Small { bytes: fs::read(folder.segment(1)).unwrap(), ends }
}

fn sent(frame: usize) -> Trajectory {
    let of = short(frame as u64);
    Trajectory { metadata: object(json!({"frame": frame})), ..of }
}

/// What is there if these frames are.
fn expected(frames: impl Fn(usize) -> bool) -> Vec<Trajectory> {
    let there = (0..FRAMES).filter(|frame| *frame != REWARD).enumerate();
    let there = there.filter(|(_, frame)| frames(*frame));
    let mut there: Vec<_> = there.map(|(at, frame)| with_id(at as u64 + 1, sent(frame))).collect();
    if frames(REWARD)
        && let Some(first) = there.first_mut().filter(|of| of.id == 1)
    {
        first.rewards.push(trajectories::Reward { value: 0.25, by: "judge".into() });
    }
    there
}

#[test]
fn cut_at_every_byte_whole_records_stay_and_the_torn_one_goes() {
    let small = small();
    let folder = Folder::new();
    for len in 0..=small.bytes.len() {
        fs::write(folder.segment(1), &small.bytes[..len]).unwrap();
        let whole = small.ends.iter().filter(|end| **end <= len).count();
        let store = folder.open(roomy());
        assert_eq!(all(&store), expected(|frame| frame < whole), "{len}");
        let head = if len < 32 { 0 } else { 32 };
        let kept = small.ends[..whole].last().copied().unwrap_or(head);
        let torn =
            Damage { segment: 1, at: kept as u64, bytes: (len - kept) as u64, fault: Fault::Tail };
        let told = store.damages();
        assert_eq!(told, if len == kept { &[][..] } else { std::slice::from_ref(&torn) }, "{len}");

        // Nothing of the torn record is in the way of the next.
        let before = all(&store);
        let id = store.append(&short(99)).unwrap();
        drop(store);
        let store = folder.open(roomy());
        assert_eq!(store.damages(), [], "{len}");
        let after = all(&store);
        assert_eq!(after[..before.len()], before);
        assert_eq!(after[before.len()..], [with_id(id, short(99))]);
        drop(store);
        fs::remove_file(folder.segment(1)).unwrap();
    }
}

#[test]
fn an_earlier_segment_cut_at_every_byte_costs_what_was_cut_and_stays_as_it_is() {
    let small = small();
    let folder = Folder::new();
    fs::write(folder.segment(1), &small.bytes).unwrap();
    let settings = Settings { segment_bytes: 1024, ..roomy() };
    let mut filler = short(7);
    filler.prompt = vec![1; 1000];
    assert_eq!(folder.open(settings).append(&filler), Ok(5));
    for len in 0..small.bytes.len() {
        fs::write(folder.segment(1), &small.bytes[..len]).unwrap();
        let store = folder.open(settings);
        let whole = small.ends.iter().filter(|end| **end <= len).count();
        let mut right = expected(|frame| frame < whole);
        right.push(with_id(5, filler.clone()));
        assert_eq!(all(&store), right, "{len}");
        let clean = len == 0 || len == 32 || small.ends.contains(&len);
        assert_eq!(store.damages().is_empty(), clean, "{len}: {:?}", store.damages());
        drop(store);
        assert!(fs::read(folder.segment(1)).unwrap() == small.bytes[..len], "{len}");
    }
}

#[test]
fn records_that_lie_under_a_right_checksum_are_no_panic() {
    let small = small();
    let folder = Folder::new();
    let (from, to) = (32, small.ends[0]);
    for at in from + 16..to {
        for value in [0x00, 0x7F, 0x80, 0xC1, 0xDB, 0xDD, 0xDF, 0xFF] {
            let mut bytes = small.bytes.clone();
            bytes[at] = value;
            if at >= from + 48 {
                let crc = crc32fast::hash(&bytes[from + 48..to]);
                bytes[from + 44..from + 48].copy_from_slice(&crc.to_le_bytes());
            }
            let crc = crc32fast::hash(&bytes[from + 16..from + 48]);
            bytes[from + 12..from + 16].copy_from_slice(&crc.to_le_bytes());
            fs::write(folder.segment(1), &bytes).unwrap();
            let store = folder.open(roomy());
            let found = store.query(Default::default()).unwrap().flatten();
            let right = expected(|frame| frame > 0);
            let count = found.filter(|of| right.contains(of)).count();
            // Its id may say that it came after the others.
            let id = from + 24..from + 32;
            assert!(count == right.len() || bytes[id.clone()] != small.bytes[id], "{at}");
        }
    }
}

#[test]
fn the_next_record_is_found_wherever_parts_of_a_file_end() {
    let small = small();
    let folder = Folder::new();
    let part = 1 << 20;
    for noise in part - 14..part + 2 {
        let noise = vec![0xFF; noise];
        let bytes = [&small.bytes[..32], &noise, &small.bytes[32..]].concat();
        fs::write(folder.segment(1), &bytes).unwrap();
        let store = folder.open(roomy());
        assert_eq!(all(&store), expected(|_| true), "{}", noise.len());
        let bytes = noise.len() as u64;
        assert_eq!(store.damages(), [Damage { segment: 1, at: 32, bytes, fault: Fault::Corrupt }]);
    }
}

#[test]
fn after_the_greatest_id_nothing_is_appended() {
    let small = small();
    let folder = Folder::new();
    let (from, mut bytes) = (32, small.bytes[..small.ends[0]].to_vec());
    bytes[from + 24..from + 32].copy_from_slice(&(u64::MAX >> 1).to_le_bytes());
    let crc = crc32fast::hash(&bytes[from + 16..from + 48]);
    bytes[from + 12..from + 16].copy_from_slice(&crc.to_le_bytes());
    fs::write(folder.segment(1), &bytes).unwrap();
    let store = folder.open(roomy());
    assert_eq!(ids(&all(&store)), [u64::MAX >> 1]);
    let refused = store.append(&short(1)).unwrap_err();
    assert!(matches!(refused, Error::Field { field, .. } if field == "id"));
    store.reward(u64::MAX >> 1, 1.0, "judge").unwrap();
}

#[test]
fn a_bit_flipped_in_any_byte_costs_its_record_alone_and_is_told() {
    let small = small();
    let folder = Folder::new();
    fs::write(folder.segment(1), &small.bytes).unwrap();
    // A second segment, so that the first is not the one that is cut.
    let settings = Settings { segment_bytes: small.bytes.len().max(1024) as u64, ..roomy() };
    let mut filler = short(7);
    filler.prompt = vec![1; 1000];
    assert_eq!(folder.open(settings).append(&filler), Ok(5));
    let second = fs::read(folder.segment(2)).unwrap();

    for at in 0..small.bytes.len() {
        let mut bytes = small.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(folder.segment(1), &bytes).unwrap();
        let store = folder.open(settings);
        let spoilt = small.ends.iter().position(|end| at < *end).filter(|_| at >= 32);
        let mut right = expected(|frame| spoilt != Some(frame));
        right.push(with_id(5, filler.clone()));
        assert_eq!(all(&store), right, "{at}");
        let [damage] = store.damages() else { panic!("{at}: {:?}", store.damages()) };
        let range = damage.at..damage.at + damage.bytes;
        assert_eq!(damage.segment, 1);
        assert!(range.contains(&(at as u64)), "{at}: {damage}");
        assert_eq!(damage.fault, if at < 32 { Fault::Head } else { Fault::Corrupt }, "{at}");
        drop(store);
        // It is told, not mended.
        assert!(fs::read(folder.segment(1)).unwrap() == bytes, "{at}");
        assert!(fs::read(folder.segment(2)).unwrap() == second, "{at}");
    }
}

#[test]
fn a_bit_flipped_in_the_last_segment_never_gives_a_wrong_record() {
    let small = small();
    let folder = Folder::new();
    for at in 0..small.bytes.len() {
        let mut bytes = small.bytes.clone();
        bytes[at] ^= 0x80 >> (at % 8);
        fs::write(folder.segment(1), &bytes).unwrap();
        let store = folder.open(roomy());
        let spoilt = small.ends.iter().position(|end| at < *end).filter(|_| at >= 32);
        assert_eq!(all(&store), expected(|frame| spoilt != Some(frame)), "{at}");
        assert_eq!(store.damages().len(), 1, "{at}");
        // An id is not given twice: but that of the last one, where it cannot be read.
        let last = small.ends[FRAMES - 2];
        let unread = at >= last && at < last + 48;
        let id = store.append(&short(99)).unwrap();
        assert_eq!(id, if unread { 4 } else { 5 }, "{at}");
        assert_eq!(store.get(id).unwrap(), Some(with_id(id, short(99))));
        drop(store);
        let store = folder.open(roomy());
        assert_eq!(store.get(id).unwrap(), Some(with_id(id, short(99))));
        drop(store);
        folder.segments().iter().for_each(|name| {
            fs::remove_file(folder.path().join(name)).unwrap();
        });
    }
}

#[test]
fn bytes_taken_out_or_put_in_anywhere_cost_one_record() {
    let small = small();
    let folder = Folder::new();
    for at in (32..small.bytes.len()).step_by(7) {
        let mut fewer = small.bytes.clone();
        fewer.drain(at..(at + 3).min(small.bytes.len()));
        let mut more = small.bytes.clone();
        more.splice(at..at, [0xFF, 0xFE, 0xF9]);
        for bytes in [fewer, more] {
            fs::write(folder.segment(1), &bytes).unwrap();
            let store = folder.open(roomy());
            let right = expected(|_| true);
            let found = ids(&all(&store));
            // Three bytes may lie across two records.
            assert!(found.len() + 2 >= right.len(), "{at}: {found:?}");
            assert!(!store.damages().is_empty(), "{at}");
        }
    }
}

#[test]
fn noise_zeros_and_hostile_lengths_are_no_store_and_no_panic() {
    let small = small();
    let folder = Folder::new();
    let mut noise: u32 = 1;
    let mut random = move || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    };
    let zeros = vec![0; 100_000];
    let random: Vec<u8> = (0..100_000).map(|_| random()).collect();
    let markers = small.bytes[32..44].repeat(9000);
    let longest = [&small.bytes[..68], &[0xFF; 12][..]].concat();
    for tail in [&zeros, &random, &markers, &longest, &vec![0xFF; 5]] {
        for before in [0, 31, small.bytes.len()] {
            fs::write(folder.segment(1), [&small.bytes[..before], tail].concat()).unwrap();
            let store = folder.open(roomy());
            let right = if before == small.bytes.len() { expected(|_| true) } else { vec![] };
            assert_eq!(all(&store), right);
            assert!(!store.damages().is_empty());
            let id = store.append(&short(1)).unwrap();
            assert_eq!(store.get(id).unwrap(), Some(with_id(id, short(1))));
            drop(store);
            folder.segments().iter().for_each(|name| {
                fs::remove_file(folder.path().join(name)).unwrap();
            });
        }
    }
}

#[test]
fn no_client_can_write_a_marker_into_a_record() {
    let folder = Folder::new();
    let store = folder.open(roomy());
    let marker = [0xFF, 0xFE, 0xF9, 0xFD, 0xF8, 0xFC, 0xFA, 0xFF, 0xFB, 0xF8, 0xFE, 0xFA];
    let words = |at: usize| {
        let bytes: [u8; 8] = std::array::from_fn(|byte| marker[(at + byte) % 12]);
        [u64::from_be_bytes(bytes), u64::from_le_bytes(bytes)]
    };
    for at in 0..12 {
        let [wide, reversed] = words(at);
        let halves = [wide as u32, (wide >> 32) as u32, reversed as u32, (reversed >> 32) as u32];
        let bits = halves.map(|half| f32::from_bits(half & 0xFF7F_FFFF));
        let mut of = short(1);
        of.prompt = halves.repeat(3);
        of.answer = halves.to_vec();
        of.logprobs = Logprobs { raw: bits.to_vec(), processed: bits.to_vec() };
        of.sampling.seed = wide;
        of.template_hash = Some(reversed);
        of.created_ms = wide;
        of.masks = Some(Masks::Hashes(vec![wide, reversed, wide, wide]));
        let negative: Vec<i64> = marker.iter().map(|byte| i64::from(*byte as i8)).collect();
        let text: String = marker.iter().map(|byte| char::from(*byte)).collect();
        of.metadata = object(json!({"list": negative, "text": text, "number": wide}));
        let id = store.append(&of).unwrap();
        of.masks = Some(Masks::Kept(vec![halves.to_vec(), vec![], halves.to_vec(), vec![]]));
        store.append(&of).unwrap();
        store.reward(id, f64::from_bits(wide & !(1 << 60)), &of.model).unwrap();
    }
    let bytes = fs::read(folder.segment(1)).unwrap();
    assert_eq!(bytes.windows(12).filter(|window| *window == marker).count(), 3 * 12);
}

#[test]
fn a_segment_taken_away_is_told_and_the_others_are_read() {
    let folder = Folder::new();
    let settings = Settings { segment_bytes: 1024, ..roomy() };
    let store = folder.open(settings);
    for number in 1..=20 {
        store.append(&short(number)).unwrap();
    }
    let count = store.stats().count;
    drop(store);
    fs::remove_file(folder.segment(2)).unwrap();
    let store = folder.open(settings);
    let missing = Damage { segment: 2, at: 0, bytes: 0, fault: Fault::Missing };
    assert_eq!(store.damages(), [missing]);
    let found = ids(&all(&store));
    assert!(found.starts_with(&[1]) && found.ends_with(&[20]) && (found.len() as u64) < count);
    assert_eq!(store.append(&short(1)), Ok(21));
}

#[test]
fn a_segment_in_the_place_of_another_gives_nothing_wrong() {
    let folder = Folder::new();
    let settings = Settings { segment_bytes: 1024, ..roomy() };
    let store = folder.open(settings);
    for number in 1..=20 {
        store.append(&short(number)).unwrap();
    }
    let right = all(&store);
    drop(store);
    fs::copy(folder.segment(1), folder.segment(2)).unwrap();
    let store = folder.open(settings);
    assert!(!store.damages().is_empty());
    for found in all(&store) {
        assert!(right.contains(&found));
    }
}

#[test]
fn a_record_that_is_not_where_it_was_written_is_told_and_not_taken() {
    let folder = Folder::new();
    let settings = Settings { segment_bytes: 1024, ..roomy() };
    let store = folder.open(settings);
    for number in 1..=6 {
        store.append(&short(number)).unwrap();
    }
    let right = all(&store);
    drop(store);
    let first = fs::read(folder.segment(1)).unwrap();
    let second = fs::read(folder.segment(2)).unwrap();
    // Records of its own once more, then records of the next segment.
    for again in [&first[32..], &second[32..]] {
        fs::write(folder.segment(1), [&first, again].concat()).unwrap();
        let store = folder.open(settings);
        assert_eq!(all(&store), right);
        let (at, bytes) = (first.len() as u64, again.len() as u64);
        let damage = Damage { segment: 1, at, bytes, fault: Fault::Corrupt };
        assert_eq!(store.damages(), [damage]);
    }
}

#[test]
fn a_record_spoilt_while_the_store_is_open_is_an_error_and_not_the_end() {
    let folder = Folder::new();
    let store = folder.open(roomy());
    for number in 1..=3 {
        store.append(&short(number)).unwrap();
    }
    let mut bytes = fs::read(folder.segment(1)).unwrap();
    let second = 32 + (bytes.len() - 32) / 2;
    bytes[second] ^= 1;
    fs::write(folder.segment(1), &bytes).unwrap();
    let Err(Error::Damaged(damage)) = store.get(2) else { panic!("{:?}", store.get(2)) };
    assert!((damage.at..damage.at + damage.bytes).contains(&(second as u64)));
    let query = store.query(Default::default()).unwrap();
    let found: Vec<_> = query.map(|of| of.map(|of| of.id)).collect();
    assert_eq!(found, [Ok(1), Err(Error::Damaged(damage.clone())), Ok(3)]);
    let mut lines = Vec::new();
    let exported = store.export(Default::default(), &mut lines).unwrap();
    assert_eq!((exported.lines, exported.damages), (2, vec![damage]));
}

#[test]
fn another_version_of_the_layout_is_refused_by_its_number() {
    let small = small();
    let folder = Folder::new();
    let mut bytes = small.bytes;
    bytes[8] = 2;
    let crc = crc32fast::hash(&[&bytes[..12], &bytes[16..32]].concat());
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    fs::write(folder.segment(1), &bytes).unwrap();
    let refused = Store::open(folder.path(), roomy()).unwrap_err();
    assert_eq!(refused, Error::Version { path: folder.segment(1), expected: 1, got: 2 });
    assert!(fs::read(folder.segment(1)).unwrap() == bytes);
}
