//! The commands of the binary beside `serve`.

use pagewise_tests::server::{Server, checkpoint, command, send};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Output, Stdio};

fn run(words: &[&str], folder: &Path, input: &str) -> String {
    let model = ["--model-path", folder.to_str().expect("text")];
    text(&outcome(&[words, &model[..]].concat(), input.as_bytes()))
}

fn outcome(words: &[&str], input: &[u8]) -> Output {
    let mut command = command();
    command.args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    child.stdin.take().expect("piped").write_all(input).expect("it listens");
    child.wait_with_output().expect("it ends")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn complete_and_chat_say_what_a_server_says() {
    let folder = checkpoint::write();
    let server = Server::start(&[]);
    let asked = json!({"prompt": "Hello", "max_tokens": 20, "temperature": 1, "seed": 9});
    let told = server.ask("/v1/completions", &asked)["choices"][0]["text"].clone();
    let drawing = ["--max-tokens", "20", "--temperature", "1", "--seed", "9"];
    let drawing = [&drawing[..], &["--threads", "1"]].concat();
    let printed = run(&[&["complete", "Hello"], &drawing[..]].concat(), &folder, "");
    assert_eq!(printed, format!("{}\n", told.as_str().expect("text")));
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let asked = json!({"messages": messages, "max_tokens": 20, "temperature": 1, "seed": 9});
    let told =
        server.ask("/v1/chat/completions", &asked)["choices"][0]["message"]["content"].clone();
    let printed = run(&[&["chat"], &drawing[..]].concat(), &folder, "Hi\n");
    assert_eq!(printed, format!("{}\n", told.as_str().expect("text")));
    std::fs::remove_dir_all(folder.parent().expect("its own")).expect("removed");
}

#[test]
fn a_model_of_conversations_says_how_it_is_asked() {
    let bare = outcome(&["complete", "What is 12 + 34?"], b"");
    assert_eq!(text(&bare), "\n");
    let told = String::from_utf8_lossy(&bare.stderr).into_owned();
    assert!(told.contains("--chat") && told.contains("pagewise chat"), "{told}");
    let asked = outcome(&["complete", "--chat", "What is 12 + 34?"], b"");
    assert!(text(&asked).trim_end().trim_end_matches('.').ends_with("46"), "{asked:?}");
    assert!(asked.stderr.is_empty(), "{asked:?}");
}

#[test]
fn a_talk_outlives_its_models_memory_and_what_is_no_text() {
    // The model in the box is good for 256 tokens.
    let mut lines = b"What is 12 + 34?\n\xff\xfe\n".to_vec();
    lines.extend(b"What is 23 + 41?\n".repeat(30));
    lines.extend("7".repeat(300).as_bytes());
    lines.extend(b"\nWhat is 27 + 15?\n");
    let talk = outcome(&["chat", "--max-tokens", "64"], &lines);
    let answers: Vec<String> = text(&talk).lines().map(str::to_owned).collect();
    let ends = |answer: &String, with| answer.trim_end_matches('.').ends_with(with);
    assert!(ends(&answers[0], "46") && ends(&answers[answers.len() - 1], "42"), "{answers:?}");
    assert!(answers[1..answers.len() - 1].iter().all(|answer| ends(answer, "64")), "{answers:?}");
    let told = String::from_utf8_lossy(&talk.stderr).into_owned();
    assert_eq!(told.matches("forgets the oldest turns").count(), 1, "{told}");
    assert!(told.contains("must be UTF-8") && told.contains("messages: has"), "{told}");
}

#[test]
fn an_interrupt_ends_the_answer_and_where_none_is_written_the_talk() {
    // So hot that what comes is anything but the end of an answer; slow enough to be met.
    let words = ["chat", "--max-tokens", "200", "--temperature", "90", "--seed", "5"];
    let words = [&words[..], &["--threads", "1", "--level", "scalar"]].concat();
    let whole = text(&outcome(&words, b"Hi\n")).into_bytes();
    assert!(whole.len() > 60, "a long answer: {}", whole.len());
    let start = || {
        let mut command = command();
        command.args(&words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(b"Hi\n").expect("it listens");
        (child.stdout.take().expect("piped"), input, child)
    };
    let (mut output, mut input, mut child) = start();
    let mut told = vec![0];
    output.read_exact(&mut told).expect("it answers");
    send("-INT", &child);
    input.write_all(b"Hi\n").expect("it listens");
    drop(input);
    output.read_to_end(&mut told).expect("it ends");
    assert!(child.wait().expect("it ends").success());
    let same = told.iter().zip(&whole).take_while(|(a, b)| a == b).count();
    assert!(same < whole.len() - 1 && told[same] == b'\n', "cut after {same} of {}", whole.len());
    assert!(told.len() > same + 10, "the next line is answered");
    let (mut output, input, mut child) = start();
    let mut told = vec![0; whole.len()];
    output.read_exact(&mut told).expect("the whole answer");
    send("-INT", &child);
    assert!(child.wait().expect("it ends").success());
    drop(input);
}

#[test]
fn info_tells_shapes_and_what_fits() {
    let folder = checkpoint::write();
    let told = run(&["info", "--kv-cache-memory", "1MiB"], &folder, "");
    assert!(told.contains("2 layers of 64, 4 heads over 2 of 16, 264 tokens known"), "{told}");
    // A page of 32 tokens: two layers, keys and values of two heads of 16, in f16.
    assert!(told.contains("f16: 256 B a token, 8.0 KiB a page"), "{told}");
    assert!(told.contains("128 pages of 32 tokens: 4096 tokens, or 8 answers of 512"), "{told}");
    std::fs::remove_dir_all(folder.parent().expect("its own")).expect("removed");
}

#[test]
fn info_counts_weights_as_they_are_packed() {
    let folder = checkpoint::write();
    let weights = |quantize: &str| {
        let told = run(&["info", "--quantize", quantize], &folder, "");
        let line = told.lines().find_map(|line| line.strip_prefix("weights"));
        let words: Vec<_> = line.expect("a line of weights").split_whitespace().collect();
        assert_eq!(words[1..], ["KiB", "in", "memory"], "{told}");
        words[0].parse::<f64>().expect("a number")
    };
    let (dense, q8, q4) = (weights("none"), weights("q8"), weights("q4"));
    // All but the embedding, which is 66 KiB of floats.
    let [packed8, packed4] = [q8, q4].map(|packed| (packed - 66.0) / (dense - 66.0));
    assert!((0.2..0.4).contains(&packed8) && (0.1..0.3).contains(&packed4), "{dense} {q8} {q4}");
    std::fs::remove_dir_all(folder.parent().expect("its own")).expect("removed");
}

#[test]
fn bench_refuses_to_share_more_than_a_prompt_has() {
    let words = ["bench", "--prompt-tokens", "8", "--shared-tokens", "9"];
    let output = command().args(words).output().expect("it ends");
    let told = String::from_utf8(output.stderr).expect("text");
    assert!(told.contains("--shared-tokens: a prompt has 8 tokens, not 9"), "{told}");
}

#[test]
fn bench_counts_what_a_server_gives() {
    let server = Server::start(&[]);
    let url = format!("http://{}", server.address);
    for load in [&["--concurrency", "4"][..], &["--rate", "50"]] {
        let mut command = command();
        command.args(["bench", "--json", "--base-url", &url, "--requests", "12"]);
        command.args(["--prompt-tokens", "80", "--shared-tokens", "64", "--max-tokens", "10"]);
        let told: Value =
            serde_json::from_str(&text(&command.args(load).output().expect("it runs")))
                .expect("a line of JSON");
        assert_eq!((&told["requests"], &told["failed"]), (&json!(12), &json!(0)), "{told}");
        let rate = told["tokens_per_second"].as_f64().expect("a rate");
        let tokens = rate * told["seconds"].as_f64().expect("a time");
        assert!((tokens - 120.0).abs() < 1e-6, "{told}");
        assert!(told["cached_tokens"].as_u64().expect("a count") >= 64 * 8, "{told}");
        assert!(told["ttft_ms"]["p50"].as_f64().expect("a time") > 0.0);
    }
    server.rests();
    // What is said besides is asked for, and what nobody takes fails.
    for (extra, part) in
        [(r#"{"n": 0}"#, "every request failed"), ("[1]", "an object of JSON"), ("{", "JSON")]
    {
        let mut command = command();
        command.args(["bench", "--base-url", &url, "--requests", "2", "--extra-body", extra]);
        let output = command.output().expect("it runs");
        let told = String::from_utf8(output.stderr).expect("text");
        assert!(!output.status.success() && told.contains(part), "{extra}: {told}");
    }
    // A prompt longer than the model's length, each time.
    let mut command = command();
    command.args(["bench", "--base-url", &url, "--requests", "2", "--prompt-tokens", "100000"]);
    let output = command.output().expect("it runs");
    let told = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success() && told.contains("every request failed"), "{told}");
}

#[test]
fn who_has_nobody_to_draft_for_is_told() {
    for (words, part) in [
        (&["--draft", "base", "--max-loras", "0"][..], "--max-loras leaves none"),
        (&["--draft", "base", "--draft-tokens", "0"], "--draft: --draft-tokens says how many"),
        (
            &["--draft", "base", "--draft-quantize", "q8", "--quantize", "q8"],
            "--draft-quantize: that is the format of --quantize",
        ),
        (&["--draft-quantize", "q8"], "--draft-quantize: nothing comes of it without --draft"),
        (&["--draft", "base", "--draft-model", "models/abacus"], "cannot be used with"),
        (&["--draft", "adapter"], "possible values: base"),
    ] {
        let output = outcome(&[&["info"], words].concat(), b"");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(part), "{words:?}: {told}");
    }
    let drafts = text(&outcome(&["info", "--draft", "base", "--draft-quantize", "q4"], b""));
    let plain = text(&outcome(&["info"], b""));
    assert_ne!(drafts, plain, "other weights take memory");
}
