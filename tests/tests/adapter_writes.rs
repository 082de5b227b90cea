//! An adapter that is written reads back with the same bits, and takes the place of an
//! older one whole or not at all.

use checkpoint::{Fault, adapter, write_adapter};
use engine::lora::{Adapter, Term};
use engine::model::Config;
use pagewise_tests::adapters::{Files, numbers};
use pagewise_tests::model::golden::folder;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Of 56 elements, 96 between the halves of a feed-forward layer, 149 tokens; tied.
fn qwen3() -> Config {
    checkpoint::config(&folder("qwen3")).expect("it is committed")
}

const Q: &str = "model.layers.0.self_attn.q_proj";
const DOWN: &str = "model.layers.1.mlp.down_proj";

/// A folder of its own, empty, for folders of adapters.
fn room(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("adapter-writes").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("there is room for a folder");
    folder
}

fn term(rank: u32, inputs: u32, outputs: u32, scale: f32) -> Term {
    let (a, b) = (numbers((rank * inputs) as usize, 1), numbers((outputs * rank) as usize, 2));
    Term { rank, inputs, outputs, a, b, scale, magnitude: None }
}

/// An adapter of one term.
fn one(scale: f32) -> Adapter {
    Adapter { terms: [(Q.to_owned(), term(4, 56, 128, scale))].into() }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("it is there");
    entries.map(|it| it.expect("it is there").file_name().to_string_lossy().into_owned()).collect()
}

fn field(folder: &Path, name: &str) -> Value {
    let text = fs::read(folder.join("adapter_config.json")).expect("it is there");
    serde_json::from_slice::<Value>(&text).expect("it is JSON")[name].clone()
}

/// All bits of an adapter.
fn bits(adapter: &Adapter) -> Vec<u32> {
    let floats = adapter.terms.values().flat_map(|term| {
        let magnitude = term.magnitude.iter().flatten();
        term.a.iter().chain(&term.b).chain(magnitude).chain([&term.scale])
    });
    floats.map(|float| float.to_bits()).collect()
}

#[test]
fn what_is_written_reads_back_with_the_same_bits() {
    let odd = [
        1.0,
        0.1,
        -3.7e-5,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        f32::MAX,
        1.0 / 3.0,
        0.0,
        -0.0,
        16_777_217.0,
        1.0e9,
    ];
    for (at, scale) in odd.into_iter().enumerate() {
        let folder = room(&format!("bits-{at}")).join("adapter");
        let mut down = term(7, 96, 56, scale);
        down.a[..5].copy_from_slice(&[-0.0, f32::MAX, f32::from_bits(1), 1e-40, 0.1]);
        let terms = [
            (Q.to_owned(), term(4, 56, 128, 1.5)),
            (DOWN.to_owned(), down),
            ("model.embed_tokens".to_owned(), term(4, 149, 56, scale)),
            ("lm_head".to_owned(), term(256, 56, 149, 2.0)),
        ];
        let adapter = Adapter { terms: terms.into() };
        write_adapter(&folder, &adapter, &qwen3(), "a/model").expect("there is room");
        let read = checkpoint::adapter(&folder, &qwen3()).expect("it is whole");
        assert_eq!(read, adapter);
        assert_eq!(bits(&read), bits(&adapter), "{scale}");
    }
}

#[test]
fn magnitudes_are_written_where_all_terms_have_them() {
    let folder = room("magnitudes").join("adapter");
    let mut adapter = one(2.0);
    adapter.terms.insert(DOWN.into(), term(4, 96, 56, 2.0));
    for (name, len) in [(Q, 128), (DOWN, 56)] {
        let magnitude = Some(numbers(len, 3));
        adapter.terms.get_mut(name).expect("it is there").magnitude = magnitude;
    }
    write_adapter(&folder, &adapter, &qwen3(), "").expect("there is room");
    assert_eq!(checkpoint::adapter(&folder, &qwen3()), Ok(adapter.clone()));
    assert_eq!(field(&folder, "use_dora"), true);
    // The format has one word for all terms.
    adapter.terms.get_mut(Q).expect("it is there").magnitude = None;
    let error = write_adapter(&folder, &adapter, &qwen3(), "").expect_err("it cannot be said");
    assert!(error.to_string().contains("q_proj.lora_A.weight has no magnitudes beside it"));
}

#[test]
fn the_configuration_is_one_that_peft_reads() {
    let folder = room("configuration").join("adapter");
    write_adapter(&folder, &one(2.0), &qwen3(), "a/model").expect("there is room");
    let expected = ["adapter_config.json", "adapter_model.safetensors"].map(str::to_owned);
    assert_eq!(names(&folder), expected.into());
    assert_eq!(field(&folder, "peft_type"), "LORA");
    assert_eq!(field(&folder, "base_model_name_or_path"), "a/model");
    assert_eq!(field(&folder, "target_modules"), serde_json::json!(["q_proj"]));
    // A whole alpha is written as one, as PEFT's type has it.
    assert_eq!(field(&folder, "lora_alpha").as_u64(), Some(8));
    assert_eq!(field(&folder, "rank_pattern"), serde_json::json!({}));
    let bytes = fs::read(folder.join("adapter_model.safetensors")).expect("it is there");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("it is whole");
    let mut held = tensors.names();
    held.sort_unstable();
    let q = format!("base_model.model.{Q}");
    assert_eq!(held, [format!("{q}.lora_A.weight"), format!("{q}.lora_B.weight")]);
}

#[test]
fn an_adapter_that_would_not_read_back_is_not_written() {
    let room = room("refused");
    let folder = room.join("adapter");
    write_adapter(&folder, &one(1.0), &qwen3(), "").expect("there is room");
    type Spoil = (&'static str, fn(&mut Term));
    let spoils: [Spoil; 7] = [
        ("lora_A.weight must be [4, 56], not 223 elements", |term| term.a.truncate(223)),
        ("lora_B.weight must be [128, 4], not 513 elements", |term| term.b.push(1.0)),
        ("lora_A.weight is NaN at [0, 1]", |term| term.a[1] = f32::NAN),
        ("q_proj has the scale inf, which is no number", |term| term.scale = f32::INFINITY),
        ("q_proj has the scale NaN, which is no number", |term| term.scale = f32::NAN),
        ("must be [4294967295, 56], not 224 elements", |term| term.rank = u32::MAX),
        ("lora_magnitude_vector must be [128], not 0 elements", |term| {
            term.magnitude = Some(Vec::new());
        }),
    ];
    for (expected, spoil) in spoils {
        let mut adapter = one(2.0);
        spoil(adapter.terms.get_mut(Q).expect("it is there"));
        let error = write_adapter(&folder, &adapter, &qwen3(), "").expect_err("it is spoilt");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert!(error.path.starts_with(&folder), "{error}");
    }
    let mistral = checkpoint::config(&self::folder("mistral")).expect("it is committed");
    for (adapter, config) in [(Adapter::default(), &qwen3()), (one(2.0), &mistral)] {
        write_adapter(&folder, &adapter, config, "").expect_err("it is no adapter of the model");
    }
    // What was there still is, and nothing is beside it.
    assert_eq!(adapter(&folder, &qwen3()), Ok(one(1.0)));
    assert_eq!(names(&room), ["adapter".to_owned()].into());
}

#[test]
fn an_older_adapter_is_replaced_and_nothing_stays_behind() {
    let room = room("replaced");
    let folder = room.join("adapter");
    // What a writer that died left is in nobody's way.
    let process = std::process::id();
    let left = format!(".adapter.{process}-0.unfinished");
    fs::create_dir(room.join(&left)).expect("there is room");
    fs::write(room.join(&left).join("adapter_model.safetensors"), "half").expect("there is room");
    for scale in [1.0, 2.0, 3.0] {
        write_adapter(&folder, &one(scale), &qwen3(), "").expect("there is room");
        assert_eq!(adapter(&folder, &qwen3()), Ok(one(scale)));
        assert_eq!(names(&room), ["adapter".to_owned(), left.clone()].into());
    }
    // Of a folder that is a link, the link stays.
    let link = room.join("link");
    std::os::unix::fs::symlink("adapter", &link).expect("there is room");
    write_adapter(&link, &one(4.0), &qwen3(), "").expect("there is room");
    assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
    assert_eq!(adapter(&folder, &qwen3()), Ok(one(4.0)));
    assert_eq!(adapter(&link, &qwen3()), Ok(one(4.0)));
    // An empty folder is replaced too, and half an adapter.
    let empty = room.join("empty");
    fs::create_dir(&empty).expect("there is room");
    write_adapter(&empty, &one(5.0), &qwen3(), "").expect("there is room");
    fs::remove_file(empty.join("adapter_config.json")).expect("it is there");
    write_adapter(&empty, &one(6.0), &qwen3(), "").expect("there is room");
    assert_eq!(adapter(&empty, &qwen3()), Ok(one(6.0)));
}

#[test]
fn a_folder_with_more_in_it_is_left_alone() {
    let room = room("more");
    let folder = room.join("adapter");
    let mut files = Files::peft(4);
    files.term(Q, 4, [56, 128]).save(&folder);
    fs::write(folder.join("optimizer.pt"), "dear").expect("there is room");
    let before = adapter(&folder, &qwen3()).expect("it is whole");
    let error = write_adapter(&folder, &one(1.0), &qwen3(), "").expect_err("it holds more");
    assert!(matches!(error.fault, Fault::Unwritable(_)));
    assert!(error.to_string().contains("holds optimizer.pt, which would be lost"), "{error}");
    assert_eq!(adapter(&folder, &qwen3()), Ok(before));
    assert_eq!(fs::read(folder.join("optimizer.pt")).expect("it is there"), b"dear");
    // A file, and a parent that is not there, are no places for a folder.
    for no_place in [folder.join("optimizer.pt"), room.join("nowhere").join("adapter")] {
        let error = write_adapter(&no_place, &one(1.0), &qwen3(), "").expect_err("no place");
        assert!(matches!(error.fault, Fault::Unwritable(_)), "{error}");
    }
    assert_eq!(names(&room), ["adapter".to_owned()].into());
}

#[test]
fn who_reads_while_another_writes_has_one_adapter_whole_or_none() {
    let folder = room("meanwhile").join("adapter");
    let scaled = |number: u32| {
        let mut adapter = one(number as f32);
        // Tensors tell which adapter they are of, too.
        adapter.terms.get_mut(Q).expect("it is there").a.fill(number as f32);
        adapter
    };
    write_adapter(&folder, &scaled(1), &qwen3(), "").expect("there is room");
    let done = AtomicBool::new(false);
    let (mut whole, config) = (0, qwen3());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 2..200 {
                write_adapter(&folder, &scaled(number), &config, "").expect("there is room");
            }
            done.store(true, Ordering::Release);
        });
        // There is a folder of that name at every moment.
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                assert!(folder.is_dir());
            }
        });
        while !done.load(Ordering::Acquire) {
            match adapter(&folder, &config) {
                Ok(read) => {
                    assert_eq!(read, scaled(read.terms[Q].scale as u32));
                    whole += 1;
                }
                Err(error) => {
                    let fault = &error.fault;
                    let gone = matches!(fault, Fault::Unreadable(_) | Fault::Malformed(_));
                    assert!(gone, "{error}");
                }
            }
        }
    });
    assert!(whole > 0, "somebody read");
    assert_eq!(adapter(&folder, &config), Ok(scaled(199)));
}
