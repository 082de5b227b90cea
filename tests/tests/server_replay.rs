//! `pagewise replay`: stored trajectories give the same bits again, and where they do not, it
//! names the token and the cause.

use pagewise_tests::lora::{adapter, merged};
use pagewise_tests::server::{Server, checkpoint, command};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// A folder of its own that goes with its holder.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn folder(name: &str) -> Folder {
    let folder =
        std::env::temp_dir().join(format!("pagewise-replay-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    Folder(folder)
}

/// What the command says, and whether all is the same.
fn replayed(server: &Server, file: &Path) -> (String, bool) {
    let (words, code) = asked(server.address, file);
    (words, code == Some(0))
}

/// What the command says of a server, and what it ends with.
fn asked(address: SocketAddr, file: &Path) -> (String, Option<i32>) {
    let url = format!("http://{address}");
    let mut replay = command();
    replay.arg("replay").arg(file).args(["--base-url", &url]);
    let output = replay.output().expect("it runs");
    let told = [output.stdout, output.stderr].concat();
    (String::from_utf8(told).expect("text"), output.status.code())
}

#[test]
fn what_was_stored_comes_again_bit_for_bit_or_parts_for_a_reason() {
    let (store, export) = (folder("store"), folder("export"));
    let server = Server::start(&["--trajectory-dir", store.0.to_str().expect("plain")]);
    for (seed, more) in [
        (1, json!({ "temperature": 0.9 })),
        (2, json!({ "temperature": 0 })),
        (3, json!({ "temperature": 1.3, "top_p": 0.8, "top_k": 20 })),
    ] {
        let mut sampling = json!({ "max_tokens": 20, "seed": seed, "ignore_eos": true });
        let more = more.as_object().cloned().expect("an object");
        sampling.as_object_mut().expect("an object").extend(more);
        server.ask(
            "/inference/v1/generate",
            &json!({
                "token_ids": [65, 66, 67, 60 + seed], "sampling_params": sampling,
                "collect_trajectory": true,
            }),
        );
    }
    let exported = server.get("/v1/trajectories/export").body;
    let file = export.0.join("all.jsonl");
    std::fs::write(&file, &exported).expect("written");
    let (words, same) = replayed(&server, &file);
    assert!(same && words.contains("3 trajectories, 0 part"), "{words}");
    assert_eq!(words.matches("20 tokens, every bit is the same").count(), 3, "{words}");

    // Another temperature is told from another model.
    let text = String::from_utf8(exported).expect("text");
    let mut first: Value = serde_json::from_str(text.lines().next().expect("three")).expect("JSON");
    first["sampling"]["temperature"] = json!(0.5);
    let hot = export.0.join("hot.jsonl");
    std::fs::write(&hot, first.to_string()).expect("written");
    let (words, same) = replayed(&server, &hot);
    assert!(!same && words.contains("temperature"), "{words}");

    // A line that is none is told by its number.
    for (line, words) in [("{\"prompt\": [", "line 1: "), ("{}", "line 1: ")] {
        let broken = export.0.join("broken.jsonl");
        std::fs::write(&broken, line).expect("written");
        let (told, same) = replayed(&server, &broken);
        assert!(!same && told.contains(words), "{line}: {told}");
    }

    // Tokens that stand on keys and values of another version are its own no more.
    first["sampling"]["temperature"] = json!(0.9);
    first["logprobs"]["raw"][2] = json!(-1.5);
    first["versions"][0]["kv"] =
        json!([{ "from": 0, "version": "old" }, { "from": 3, "version": "default" }]);
    let kept = export.0.join("kept.jsonl");
    std::fs::write(&kept, first.to_string()).expect("written");
    let (words, same) = replayed(&server, &kept);
    assert!(!same && words.contains("parts at token 2"), "{words}");
    assert!(words.contains("stands on keys and values of `old`, which were kept"), "{words}");

    // Other weights serve: the first token that parts is of the version that is gone.
    let base = checkpoint::open(server.folder());
    let changed = merged(&base, &adapter(&base, &["q_proj", "down_proj"], 4, 3));
    let views = changed.tensors.iter().map(|(name, tensor)| {
        let shape = tensor.shape().iter().map(|&extent| extent as usize).collect();
        (name, TensorView::new(Dtype::F32, shape, tensor.bytes()).expect("whole"))
    });
    let other = checkpoint::write();
    let tensors = safetensors::serialize(views, None).expect("a file");
    std::fs::write(other.join("model.safetensors"), tensors).expect("written");
    server.ask("/update_weights", &json!({ "weight_dir": other }));
    let (words, same) = replayed(&server, &file);
    assert!(!same && words.contains("3 trajectories, 3 part"), "{words}");
    assert!(words.contains("version: `default` made it, `1` serves"), "{words}");
    let _ = std::fs::remove_dir_all(other.parent().expect("of its own"));
}

#[test]
fn what_masked_a_draw_is_kept_and_said_again_and_told_from_a_temperature() {
    let (store, export) = (folder("masks"), folder("masked"));
    let server = Server::start(&["--trajectory-dir", store.0.to_str().expect("plain")]);
    let schedule = json!({"type": "temperature_schedule", "start": 1.5, "end": 0.5, "tokens": 8});
    let disallowed = json!({"type": "disallowed_tokens", "token_ids": [65, 97, 110]});
    let all = [
        json!({"processors": [schedule, disallowed]}),
        json!({"structured_outputs": {"regex": "[a-f ]{20,40}"}}),
        json!({"response_format": {"type": "json_object"}, "max_tokens": 30}),
        json!({"presence_penalty": 1.5, "logit_bias": {"66": 3.0}, "min_tokens": 8, "top_k": 9}),
        json!({"allowed_token_ids": [65, 66, 67, 68], "ignore_eos": true}),
        json!({"ignore_eos": true}),
        json!({"ignore_eos": true, "temperature": 0}),
    ];
    for (seed, more) in (1..).zip(&all) {
        let mut sampling = json!({"max_tokens": 16, "seed": seed, "temperature": 1.2});
        let more = more.as_object().cloned().expect("an object");
        sampling.as_object_mut().expect("an object").extend(more);
        let told = server.ask(
            "/inference/v1/generate",
            &json!({
                "token_ids": [65, 66, 67], "sampling_params": sampling, "collect_trajectory": true,
            }),
        );
        assert_eq!(told["choices"][0]["sampling_mask"], Value::Null, "nobody asked to be told");
    }
    let exported = String::from_utf8(server.get("/v1/trajectories/export").body).expect("text");
    let lines: Vec<Value> =
        exported.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["masking"], all[0], "as it came");
    assert_eq!(lines[2]["masking"], json!({"structured_outputs": {"json_object": true}}));
    for line in &lines[..5] {
        let tokens = line["answer"].as_array().map(Vec::len);
        assert_eq!(line["masks"]["hashes"].as_array().map(Vec::len), tokens, "{line}");
    }
    let file = export.0.join("all.jsonl");
    std::fs::write(&file, &exported).expect("written");
    let (words, same) = replayed(&server, &file);
    assert!(same && words.contains("7 trajectories, 0 part"), "{words}");

    // Another temperature, another mask and another seed are told from each other.
    let parts = |change: &dyn Fn(&mut Value), of: usize| {
        let mut line = lines[of].clone();
        change(&mut line);
        let file = export.0.join("changed.jsonl");
        std::fs::write(&file, line.to_string()).expect("written");
        let (words, same) = replayed(&server, &file);
        assert!(!same, "{words}");
        words
    };
    let hot = parts(&|line| line["sampling"]["temperature"] = json!(0.7), 1);
    assert!(hot.contains("temperature, penalties or biases"), "{hot}");
    let other = parts(&|line| line["masking"]["allowed_token_ids"] = json!([65, 66, 67]), 4);
    assert!(other.contains("mask: "), "{other}");
    let colder = parts(&|line| line["sampling"]["temperature"] = json!(1.1), 5);
    assert!(colder.contains("now: temperature, penalties or biases"), "{colder}");
    for of in 1..6 {
        let seed = parts(&|line| line["sampling"]["seed"] = json!(99), of);
        assert!(seed.contains("now: seed: "), "{seed}");
    }
    // Of a schedule it is not known which temperature there was.
    let seed = parts(&|line| line["sampling"]["seed"] = json!(99), 0);
    assert!(seed.contains("now: temperature, penalties, biases or seed: "), "{seed}");

    // A mask where there was none: whether it leaves the token that was drawn, or does not.
    let kept = lines[5]["answer"].as_array().cloned().expect("tokens");
    let others = json!([1, 2, 3]);
    for allowed in [&Value::Array(kept), &others] {
        let added = parts(&|line| line["masking"]["allowed_token_ids"] = allowed.clone(), 5);
        assert!(added.contains("now: mask: "), "{added}");
    }
    let greedy = parts(&|line| line["masking"]["allowed_token_ids"] = others.clone(), 6);
    assert!(greedy.contains("now: mask, temperature, penalties or biases: "), "{greedy}");
}

#[test]
fn what_cannot_be_compared_is_told_and_the_rest_goes_on() {
    let (store, export) = (folder("rest"), folder("compared"));
    let server = Server::start(&["--trajectory-dir", store.0.to_str().expect("plain")]);
    for seed in [1, 2] {
        let asks = json!({
            "token_ids": [65, 66, seed], "collect_trajectory": true,
            "sampling_params": {"max_tokens": 6, "seed": seed, "ignore_eos": true, "top_k": 9},
        });
        server.ask("/inference/v1/generate", &asks);
    }
    let exported = String::from_utf8(server.get("/v1/trajectories/export").body).expect("text");
    let good: Vec<&str> = exported.lines().collect();
    let edited = |change: &dyn Fn(&mut Value)| {
        let mut line: Value = serde_json::from_str(good[0]).expect("JSON");
        change(&mut line);
        line.to_string().into_bytes()
    };
    let empty = json!([]);
    let wrong = [
        (edited(&|line| line["model"] = json!("nobody")), "trajectory 1: cannot be compared: "),
        (edited(&|line| line["answer"][2] = json!(9999)), "tokens below"),
        (
            edited(&|line| {
                (line["answer"], line["versions"]) = (empty.clone(), empty.clone());
                line["logprobs"] = json!({"raw": [], "processed": []});
                line["masks"] = json!({"hashes": []});
            }),
            "line 4: cannot be compared: 3 tokens of a prompt, 0 of an answer",
        ),
        (edited(&|line| line["masks"]["hashes"] = json!([1])), "line 5: cannot be compared: masks"),
        (b"{\"prompt\": [".to_vec(), "line 6: cannot be compared: "),
        (b"\xff".to_vec(), "line 7: cannot be compared: "),
        (edited(&|line| line["masking"]["processors"] = json!([{"type": "?"}])), "processors"),
    ];
    let all = |first: &[u8]| {
        let lines = wrong.iter().map(|(line, _)| &line[..]);
        let lines: Vec<&[u8]> =
            [first].into_iter().chain(lines).chain([b"", good[1].as_bytes()]).collect();
        let file = export.0.join("all.jsonl");
        std::fs::write(&file, lines.join(&b'\n')).expect("written");
        file
    };
    let file = all(good[0].as_bytes());
    let (told, code) = asked(server.address, &file);
    for (_, words) in &wrong {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(told.matches("every bit is the same").count(), 2, "{told}");
    assert!(told.contains("9 trajectories, 0 part, 7 not compared"), "{told}");
    assert!(code == Some(3) && told.contains("7 trajectories could not be compared"), "{told}");

    // One that parts counts for more than those that nobody knows of.
    let parts = edited(&|line| line["logprobs"]["raw"][1] = json!(-0.5));
    let (told, code) = asked(server.address, &all(&parts));
    assert!(told.contains("9 trajectories, 1 part, 7 not compared"), "{told}");
    assert!(code == Some(1) && told.contains("1 trajectories part from the server"), "{told}");

    // Where there is no server, there is nothing to tell of each.
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("one");
    let (told, code) = asked(free, &file);
    assert!(code == Some(2) && !told.contains("trajector"), "{told}");
}

#[test]
fn a_step_of_an_episode_is_kept_with_all_that_came_before_it_and_replays() {
    let (store, export) = (folder("steps"), folder("stepped"));
    let server = Server::start(&["--trajectory-dir", store.0.to_str().expect("plain")]);
    let start = |more: Value| server.ask("/v1/episodes/start", &more)["episode_id"].clone();
    let id = start(json!({"seed": 5}));
    let step = |id: &Value, new: u32, more: Value| {
        let mut asked = json!({
            "episode_id": id, "observation_token_ids": [new, 66], "max_tokens": 6,
            "ignore_eos": true, "collect_trajectory": true,
        });
        asked.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("one"));
        server.ask("/v1/episodes/step", &asked)
    };
    let mut tokens = Vec::new();
    let kept =
        |told: &Value| server.get(&format!("/v1/trajectories/{}", told["trajectory_id"])).json();
    let mut grow = |told: &Value, new: u32| {
        tokens.extend([json!(new), json!(66)]);
        let kept = kept(told);
        assert_eq!((&kept["prompt"], &kept["answer"]), (&json!(tokens), &told["token_ids"]));
        tokens.extend(told["token_ids"].as_array().cloned().expect("tokens"));
        kept
    };
    let first = grow(&step(&id, 65, json!({})), 65);
    assert_eq!((&first["session"], first.get("metadata")), (&id, None));
    let more = json!({
        "metadata": {"turn": 2}, "session_id": "own", "top_k": 20, "temperature": 1.3,
        "scoring_function": {"name": "length", "min": 6}, "expected_position": 8,
    });
    let told = step(&id, 70, more.clone());
    let second = grow(&told, 70);
    assert_eq!((&second["session"], &second["metadata"]["turn"]), (&json!("own"), &json!(2)));
    assert_eq!((&told["reward"], &second["rewards"][0]["value"]), (&json!(1.0), &json!(1.0)));
    // A step that is sent again is told again, and kept once.
    assert_eq!(step(&id, 70, more), told);
    let fork = server.ask("/v1/episodes/fork", &json!({"from_episode_id": id}));
    grow(&step(&fork["episode_id"], 71, json!({"presence_penalty": 1.5})), 71);
    // A score alone needs no store.
    let scored =
        json!({"collect_trajectory": false, "scoring_function": {"name": "length", "max": 1}});
    let told = step(&id, 72, scored);
    assert_eq!((&told["reward"], told.get("trajectory_id")), (&json!(0.0), None));

    let exported = server.get("/v1/trajectories/export").body;
    let file = export.0.join("all.jsonl");
    std::fs::write(&file, &exported).expect("written");
    let (words, same) = replayed(&server, &file);
    assert!(same && words.contains("3 trajectories, 0 part, 0 not compared"), "{words}");
}

#[test]
fn what_sglang_asks_is_collected_scored_and_replays() {
    let (store, export) = (folder("sglang"), folder("sglangs"));
    let server = Server::start(&["--trajectory-dir", store.0.to_str().expect("plain")]);
    let asks = json!({
        "input_ids": [[65, 66], [67]], "collect_trajectory": true, "session_id": "s",
        "scoring_function": {"name": "length", "min": 9}, "metadata": {"a": 1},
        "sampling_params": {
            "max_new_tokens": 9, "min_new_tokens": 9, "n": 2, "temperature": 1.2, "top_k": 30,
            "frequency_penalty": 0.5,
        },
    });
    let told = server.ask("/generate", &asks);
    let told = told.as_array().expect("answers");
    assert_eq!(told.len(), 4);
    for (at, one) in told.iter().enumerate() {
        let id = &one["meta_info"]["trajectory_id"];
        let kept = server.get(&format!("/v1/trajectories/{id}")).json();
        assert_eq!(kept["answer"], one["output_ids"]);
        assert_eq!(kept["prompt"], asks["input_ids"][at / 2]);
        assert_eq!(kept["sampling"]["choice"], at % 2);
        assert_eq!((&kept["session"], &kept["metadata"]), (&json!("s"), &json!({"a": 1})));
        assert_eq!(kept["masking"], json!({"frequency_penalty": 0.5, "min_tokens": 9}));
        assert_eq!(
            (&one["meta_info"]["reward"], &kept["rewards"][0]["value"]),
            (&json!(1.0), &json!(1.0))
        );
    }
    // What grows tells it with its end.
    let mut stream = asks.clone();
    (stream["stream"], stream["input_ids"]) = (json!(true), json!([65]));
    let events = server.post("/generate", &stream).events();
    for event in &events {
        let meta = &event["meta_info"];
        let ended = !meta["finish_reason"].is_null();
        assert_eq!(meta.get("trajectory_id").is_some(), ended, "{event}");
    }
    // Nobody asked, and nothing is told.
    let plain = json!({"input_ids": [65], "sampling_params": {"max_new_tokens": 2}});
    let plain = server.ask("/generate", &plain)["meta_info"].clone();
    assert!(plain.get("trajectory_id").is_none() && plain.get("reward").is_none(), "{plain}");

    let file = export.0.join("all.jsonl");
    std::fs::write(&file, server.get("/v1/trajectories/export").body).expect("written");
    let (words, same) = replayed(&server, &file);
    assert!(same && words.contains("6 trajectories, 0 part, 0 not compared"), "{words}");
}
