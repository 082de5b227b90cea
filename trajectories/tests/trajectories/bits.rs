//! Floats, which keep their bits.

use crate::samples::{Folder, all, object, roomy, short, whole, with_id};
use serde_json::{Value, json};
use trajectories::{Filter, Logprobs, Reward, Trajectory};

/// The ugly ones, and many others from everywhere.
fn floats() -> Vec<f32> {
    // The last one's fewest digits, read as f64, narrow to its neighbour.
    let ugly =
        [0.0, -0.0, 1e-45, -1e-45, f32::MIN_POSITIVE, f32::MAX, f32::MIN, 0.1, -7.038531e-26];
    let next = |bits: &u32| Some(bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let bits = std::iter::successors(Some(1), next).take(20_000);
    let many = bits.map(f32::from_bits).filter(|float| float.is_finite());
    ugly.into_iter().chain(many).collect()
}

fn bits(of: &[f32]) -> Vec<u32> {
    of.iter().map(|float| float.to_bits()).collect()
}

fn with_floats() -> Trajectory {
    let raw = floats();
    let processed = raw.iter().rev().copied().collect();
    let answer = vec![0; raw.len()];
    Trajectory { answer, logprobs: Logprobs { raw, processed }, ..short(1) }
}

fn lines(of: &[u8]) -> Vec<&str> {
    std::str::from_utf8(of).unwrap().lines().collect()
}

#[test]
fn floats_keep_their_bits_in_the_store() {
    let folder = Folder::new();
    let mut sent = with_floats();
    sent.sampling.temperature = f32::from_bits(0x0000_0001);
    sent.sampling.top_p = -0.0;
    folder.open(roomy()).append(&sent).unwrap();
    let found = folder.open(roomy()).get(1).unwrap().unwrap();
    assert_eq!(bits(&found.logprobs.raw), bits(&sent.logprobs.raw));
    assert_eq!(bits(&found.logprobs.processed), bits(&sent.logprobs.processed));
    assert_eq!(found.sampling.temperature.to_bits(), 1);
    assert_eq!(found.sampling.top_p.to_bits(), (-0.0f32).to_bits());
}

#[test]
fn floats_keep_their_bits_in_lines_read_as_f32_and_as_f64() {
    let folder = Folder::new();
    let store = folder.open(roomy());
    let sent = with_floats();
    store.append(&sent).unwrap();
    let mut text = Vec::new();
    store.export(Filter::default(), &mut text).unwrap();
    let [line] = lines(&text)[..] else { panic!("one line") };
    let read: Trajectory = serde_json::from_str(line).unwrap();
    assert_eq!(bits(&read.logprobs.raw), bits(&sent.logprobs.raw));
    assert_eq!(bits(&read.logprobs.processed), bits(&sent.logprobs.processed));
    let value: Value = serde_json::from_str(line).unwrap();
    let wide = value["logprobs"]["raw"].as_array().unwrap().iter();
    let narrowed: Vec<f32> = wide.map(|float| float.as_f64().unwrap() as f32).collect();
    assert_eq!(bits(&narrowed), bits(&sent.logprobs.raw));
}

#[test]
fn rewards_and_metadata_keep_their_bits() {
    let folder = Folder::new();
    let store = folder.open(roomy());
    let next = |bits: &u64| Some(bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    let many = std::iter::successors(Some(1), next).take(2000).map(f64::from_bits);
    let ugly = [0.1 + 0.2, 5e-324, f64::MAX, -0.0, 1.0 / 3.0];
    let floats: Vec<f64> = ugly.into_iter().chain(many.filter(|float| float.is_finite())).collect();
    let mut sent = short(1);
    sent.metadata = object(json!({"list": floats, "most": u64::MAX, "least": i64::MIN}));
    store.append(&sent).unwrap();
    for float in &floats {
        store.reward(1, *float, "judge").unwrap();
    }
    drop(store);

    let store = folder.open(roomy());
    let mut text = Vec::new();
    store.export(Filter::default(), &mut text).unwrap();
    let read: Trajectory = serde_json::from_slice(&text).unwrap();
    for found in [store.get(1).unwrap().unwrap(), read] {
        let wide = |of: &[Reward]| of.iter().map(|of| of.value.to_bits()).collect::<Vec<_>>();
        let right: Vec<u64> = floats.iter().map(|float| float.to_bits()).collect();
        assert_eq!(wide(&found.rewards), right);
        let list = found.metadata["list"].as_array().unwrap();
        let list: Vec<u64> = list.iter().map(|of| of.as_f64().unwrap().to_bits()).collect();
        assert_eq!(list, right);
        assert_eq!(found.metadata["most"], u64::MAX);
        assert_eq!(found.metadata["least"], i64::MIN);
    }
}

#[test]
fn a_line_is_a_trajectory_with_its_rewards_whatever_it_holds() {
    let folder = Folder::new();
    let store = folder.open(roomy());
    let sent = [whole(1), Trajectory::default(), short(3)];
    for trajectory in &sent {
        store.append(trajectory).unwrap();
    }
    store.reward(1, -1.5, "ju\"dge\n\u{2028}").unwrap();
    let mut text = Vec::new();
    let exported = store.export(Filter::default(), &mut text).unwrap();
    assert_eq!((exported.lines, exported.damages), (3, vec![]));
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 3);
    let read: Vec<Trajectory> =
        lines(&text).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, all(&store));
    assert_eq!(read[0].rewards, [Reward { value: -1.5, by: "ju\"dge\n\u{2028}".into() }]);
    assert_eq!(read[1], with_id(2, Trajectory::default()));
}
