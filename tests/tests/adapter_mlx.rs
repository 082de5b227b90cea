//! An adapter's files mean what MLX means by them, or are refused whole, in words that name
//! the field or the tensor.

use engine::model::Config;
use pagewise_tests::adapters::{Files, numbers};
use pagewise_tests::model::golden::folder;
use serde_json::{Value, json};

/// Of 56 elements, 96 between the halves of a feed-forward layer, 149 tokens; tied.
fn qwen3() -> Config {
    checkpoint::config(&folder("qwen3")).expect("it is committed")
}

const Q: &str = "model.layers.0.self_attn.q_proj";
const DOWN: &str = "model.layers.1.mlp.down_proj";
const Q_SHAPE: [u32; 2] = [56, 128];
const DOWN_SHAPE: [u32; 2] = [96, 56];

/// `[rows, columns]` as `[columns, rows]`.
fn turned(from: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut to = vec![0.0; from.len()];
    for row in 0..rows {
        for column in 0..columns {
            to[column * rows + row] = from[row * columns + column];
        }
    }
    to
}

#[test]
fn an_mlx_adapter_is_turned_and_scaled_as_it_says() {
    let mut files = Files::mlx(4, 20.0);
    files.mlx_term(Q, 4, Q_SHAPE).mlx_term(DOWN, 4, DOWN_SHAPE);
    let adapter = files.read(&qwen3()).expect("it is whole");
    let term = &adapter.terms[Q];
    assert_eq!((term.rank, term.inputs, term.outputs, term.scale), (4, 56, 128, 20.0));
    assert_eq!(term.a, turned(&numbers(4 * 56, 1), 56, 4));
    assert_eq!(term.b, turned(&numbers(4 * 128, 2), 4, 128));
    assert_eq!((term.magnitude.as_ref(), adapter.terms.len()), (None, 2));
    // The same with magnitudes.
    files.field("fine_tune_type", json!("dora"));
    assert!(files.refused(&qwen3()).contains("lora_a has no magnitudes beside it"));
    files.put(&format!("{Q}.m"), &[128], &numbers(128, 3));
    files.put(&format!("{DOWN}.m"), &[56], &numbers(56, 3));
    let adapter = files.read(&qwen3()).expect("it is whole");
    assert_eq!(adapter.terms[Q].magnitude, Some(numbers(128, 3)));
    files.field("fine_tune_type", json!("lora"));
    assert!(files.refused(&qwen3()).contains("is a magnitude, and the configuration has no DoRA"));
}

#[test]
fn a_tied_embedding_of_mlx_is_output_too() {
    let mut files = Files::mlx(2, 0.5);
    files
        .field("lora_parameters", json!({"rank": 2, "scale": 0.5, "keys": ["model.embed_tokens"]}));
    files.mlx_term("model.embed_tokens", 2, [149, 56]);
    let adapter = files.read(&qwen3()).expect("it is whole");
    let (embedding, output) = (&adapter.terms["model.embed_tokens"], &adapter.terms["lm_head"]);
    let (a, b) = (numbers(298, 1), numbers(112, 2));
    assert_eq!((&embedding.a, &embedding.b), (&turned(&a, 149, 2), &turned(&b, 2, 56)));
    // As output it is the embedding the other way round: b takes hidden states to ranks.
    assert_eq!((output.inputs, output.outputs, output.scale), (56, 149, 0.5));
    assert_eq!((&output.a, &output.b), (&b, &a));
    files.mlx_term("lm_head", 2, [56, 149]);
    assert!(files.refused(&qwen3()).contains("is of lm_head, a matrix this model has not"));
    // Where the output has weights of its own, the embedding is one alone.
    let mistral = checkpoint::config(&folder("mistral")).expect("it is committed");
    let mut files = Files::mlx(2, 0.5);
    let keys = json!(["model.embed_tokens", "lm_head"]);
    files.field("lora_parameters", json!({"rank": 2, "scale": 0.5, "keys": keys}));
    files.mlx_term("model.embed_tokens", 2, [97, 88]);
    assert_eq!(files.read(&mistral).expect("it is whole").terms.len(), 1);
    files.mlx_term("lm_head", 2, [88, 97]);
    assert_eq!(files.read(&mistral).expect("it is whole").terms.len(), 2);
}

#[test]
fn mlx_fields_and_tensors_that_do_not_fit_are_named() {
    let parameters = |rank: Value, scale: Value| json!({"rank": rank, "scale": scale});
    let keyed = |keys: Value| json!({"rank": 4, "scale": 1.0, "keys": keys});
    let fields = [
        ("fine_tune_type", json!("full"), "fine_tune_type must be lora or dora, not full"),
        ("lora_parameters", json!(null), "lora_parameters must be an object, not absent"),
        ("lora_parameters", json!({"rank": 4, "alpha": 8}), "lora_parameters.scale must be"),
        ("lora_parameters", parameters(json!(0), json!(1.0)), "lora_parameters.rank must be 1 to"),
        ("lora_parameters", parameters(json!(4), json!(1e39)), "lora_parameters.scale must be"),
        (
            "lora_parameters",
            parameters(json!(8), json!(1.0)),
            "lora_a must be [56, 8], not [56, 4]",
        ),
        ("lora_parameters", keyed(json!("q")), "lora_parameters.keys must be"),
        ("lora_parameters", keyed(json!(["mlp.up_proj"])), "lora_a is of a matrix that num_layers"),
        ("num_layers", json!(null), "num_layers must be a whole number, not absent"),
        ("num_layers", json!(1.5), "num_layers must be"),
        ("num_layers", json!(1), "lora_a is of a matrix that num_layers"),
    ];
    let files = || {
        let mut files = Files::mlx(4, 1.0);
        files.mlx_term(Q, 4, Q_SHAPE);
        files
    };
    for (name, value, expected) in fields {
        let words = files().field(name, value).refused(&qwen3());
        assert!(words.contains(expected), "{expected}: {words}");
    }
    for good in [keyed(json!(["self_attn.q_proj"])), keyed(json!([Q])), keyed(json!(null))] {
        files().field("lora_parameters", good).read(&qwen3()).expect("it is whole");
    }
    let mut old = files();
    old.field("num_layers", json!(null)).field("lora_layers", json!(99));
    old.read(&qwen3()).expect("fields of old are read");
    let words = files().put(&format!("{Q}.weight"), &[1], &[1.0]).refused(&qwen3());
    assert!(words.contains("q_proj.weight is no piece of a low-rank term"), "{words}");
}

#[test]
fn an_archive_of_arrays_is_the_same_adapter() {
    let mut files = Files::mlx(4, 20.0);
    files.mlx_term(Q, 4, Q_SHAPE).mlx_term(DOWN, 4, DOWN_SHAPE);
    let whole = files.read(&qwen3()).expect("it is whole");
    let text = files.text();
    let read = |bytes: &[u8]| checkpoint::adapter_of_bytes(text.as_bytes(), bytes, &qwen3());
    for deflated in [false, true] {
        let adapter = read(&files.archive(deflated)).expect("it is whole");
        for (name, term) in &whole.terms {
            let own = &adapter.terms[name];
            assert_eq!((own.rank, own.inputs, own.outputs), (term.rank, term.inputs, term.outputs));
            assert_eq!((&own.a, &own.b, own.scale), (&term.a, &term.b, term.scale));
        }
    }
    // A folder has either file; the newer one is read.
    let folder = std::env::temp_dir().join(format!("pagewise-npz-{}", std::process::id()));
    files.save(&folder);
    let (newer, older) = (folder.join("adapters.safetensors"), folder.join("adapters.npz"));
    std::fs::write(&older, b"PK\x03\x04 spoilt").expect("written");
    assert_eq!(checkpoint::adapter(&folder, &qwen3()).expect("it is whole").terms.len(), 2);
    std::fs::remove_file(newer).expect("it is there");
    let refused = checkpoint::adapter(&folder, &qwen3()).expect_err("spoilt").to_string();
    assert!(refused.contains("adapters.npz: is no whole archive"), "{refused}");
    std::fs::write(&older, files.archive(true)).expect("written");
    assert_eq!(checkpoint::adapter(&folder, &qwen3()).expect("it is whole").terms.len(), 2);
    std::fs::remove_dir_all(&folder).expect("it is there");

    for dtype in [safetensors::Dtype::F16, safetensors::Dtype::BF16] {
        let mut halves = Files::mlx(4, 20.0);
        let (a, b) = (numbers(4 * 56, 1), numbers(4 * 128, 2));
        halves.put_as(dtype, &format!("{Q}.lora_a"), &[56, 4], &a);
        halves.put_as(dtype, &format!("{Q}.lora_b"), &[4, 128], &b);
        let adapter = read(&halves.archive(true)).expect("it is whole");
        assert_eq!(adapter.terms[Q].a, turned(&a, 56, 4), "{dtype:?}");
    }
}

#[test]
fn a_spoilt_archive_is_refused_by_what_is_spoilt() {
    let mut files = Files::mlx(4, 1.0);
    files.mlx_term(Q, 4, Q_SHAPE);
    let text = files.text();
    let refused = |bytes: &[u8]| {
        let read = checkpoint::adapter_of_bytes(text.as_bytes(), bytes, &qwen3());
        read.map(drop).expect_err("it is spoilt").to_string()
    };
    let find = |bytes: &[u8], part: &[u8]| {
        bytes.windows(part.len()).position(|own| own == part).expect("it is there")
    };
    let changed = |deflated: bool, part: &[u8], after: usize, byte: u8| {
        let mut bytes = files.archive(deflated);
        let at = find(&bytes, part) + after;
        bytes[at] = byte;
        refused(&bytes)
    };
    let line = b"PK\x01\x02";
    for (words, expected) in [
        (changed(false, line, 10, 12), "is neither stored nor deflated"),
        (changed(false, line, 8, 1), "is encrypted"),
        (changed(false, line, 16, 0), "checksum"),
        (changed(true, line, 26, 9), "is not what its directory says"),
        (changed(true, line, 25, 0), "unpacks to more than its directory says"),
        (changed(true, b"lora_a.npy", 10, 7), "is deflated, and spoilt"),
        (changed(false, line, 42, 1), "is cut"),
        (changed(false, line, 0, 0), "its directory is cut or spoilt"),
    ] {
        assert!(words.contains(expected), "{expected}: {words}");
    }
    // What an array says of itself; its checksum is made for it.
    for (from, to, expected) in [
        ("<f4", "|O8", "must be f32, f16 or bf16, not |O8"),
        ("<f4", ">f4", "must be f32, f16 or bf16, not >f4"),
        ("False", "True ", "fortran_order"),
        ("(56,", "(57,", "has another size than its shape"),
        ("'shape'", "'Shape'", "says no shape"),
        ("NUMPY", "NUMPI", "is no array of numpy's format"),
    ] {
        let mut bytes = files.archive(false);
        let at = find(&bytes, from.as_bytes());
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        let (begin, end) = (find(&bytes, b"\x93NUMP"), find(&bytes[4..], b"PK\x03\x04") + 4);
        let sum = crc32fast::hash(&bytes[begin..end]).to_le_bytes();
        let at = find(&bytes, line) + 16;
        bytes[at..at + 4].copy_from_slice(&sum);
        let words = refused(&bytes);
        assert!(words.contains(expected) && words.contains("lora_a"), "{expected}: {words}");
    }
    let whole = files.archive(true);
    for cut in (0..whole.len()).step_by(7) {
        refused(&whole[..cut]);
    }
}
