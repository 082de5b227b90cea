//! The model in the box, served by the bare binary, does sums.

use pagewise_tests::server::Server;
use serde_json::{Value, json};
use std::collections::HashSet;

/// Who asks at the same time.
const CLIENTS: usize = 8;

/// Additions of pairs that training never saw, as `models/abacus/recipe/additions.py`
/// chooses them.
fn additions() -> Vec<Value> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/abacus/additions.jsonl");
    let text = std::fs::read_to_string(file).expect("it is committed");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn said(server: &Server, messages: &Value, asked: &Value) -> Value {
    let mut body = json!({"messages": messages, "max_tokens": 64});
    for (name, value) in asked.as_object().expect("fields") {
        body[name] = value.clone();
    }
    server.ask("/v1/chat/completions", &body)["choices"].clone()
}

/// The last whole number of an answer.
fn result(choice: &Value) -> Option<&str> {
    let text = choice["message"]["content"].as_str().expect("text");
    text.split(|c: char| !c.is_ascii_digit()).rfind(|part| !part.is_empty())
}

/// A question without its numbers.
fn phrasing(question: &Value) -> String {
    let text = question["messages"][0]["content"].as_str().expect("text");
    text.replace(|c: char| c.is_ascii_digit(), "")
}

#[test]
fn additions_that_training_never_saw_are_right_in_every_phrasing() {
    let server = Server::of_the_box();
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], "abacus");
    let questions = additions();
    let phrasings: HashSet<String> = questions.iter().map(phrasing).collect();
    assert!(phrasings.len() >= 10 && questions.len() >= 100, "{phrasings:?}");
    let is_right = |question: &Value| {
        let choices = said(&server, &question["messages"], &json!({"temperature": 0}));
        result(&choices[0]) == question["answer"].as_str()
    };
    let right: usize = std::thread::scope(|scope| {
        let part =
            |part: Vec<&Value>| part.into_iter().filter(|question| is_right(question)).count();
        let parts = (0..CLIENTS).map(|at| questions.iter().skip(at).step_by(CLIENTS).collect());
        let asked: Vec<_> = parts.map(|of| scope.spawn(move || part(of))).collect();
        asked.into_iter().map(|asked| asked.join().expect("answered")).sum()
    });
    let (right, all) = (right as u32, questions.len() as u32);
    assert!(right * 100 >= all * 98, "{right} of {all}");
    server.rests();
}

#[test]
fn seeds_tell_answers_apart() {
    let server = Server::of_the_box();
    // A question of two steps, which is answered right now and then.
    let messages = json!([{"role": "user", "content": "What is 37 + 48 - 29?"}]);
    let choices = said(&server, &messages, &json!({"temperature": 1, "n": 8, "seed": 1}));
    let texts: HashSet<String> = choices
        .as_array()
        .expect("choices")
        .iter()
        .map(|choice| choice["message"]["content"].to_string())
        .collect();
    assert!(texts.len() > 1, "{choices}");
    server.rests();
}
