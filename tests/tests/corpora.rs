//! The corpora of the fuzz targets, and some random inputs, run as ordinary tests:
//! what a fuzzer once found stays found where there is none.

use pagewise_tests::fuzz::TARGETS;
use pagewise_tests::harness::Noise;
use std::path::PathBuf;

/// Random inputs beside each corpus.
const RANDOM: u64 = 100;

#[test]
fn every_corpus_replays() {
    for (name, body) in TARGETS {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let folder = root.with_file_name("fuzz").join("corpus").join(name);
        let files = std::fs::read_dir(&folder).expect("every target has a corpus");
        let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{name}: the corpus is empty");
        for path in paths {
            body(&std::fs::read(&path).expect("a corpus is readable"));
        }
    }
}

#[test]
fn random_inputs_keep_every_target_whole() {
    for (_, body) in TARGETS {
        body(&[]);
        for seed in 0..RANDOM {
            let mut noise = Noise::new(seed);
            let len = noise.below(200);
            body(&(0..len).map(|_| noise.word() as u8).collect::<Vec<_>>());
        }
    }
}
