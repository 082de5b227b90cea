//! The model in the box, served by the bare binary, does sums.

use pagewise_tests::server::Server;
use serde_json::{Value, json};

const PHRASINGS: [&str; 5] =
    ["What is A + B?", "A + B", "Please add A and B.", "What is the sum of A and B?", "A plus B"];

fn said(server: &Server, question: &str, asked: &Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": question}], "max_tokens": 64});
    for (name, value) in asked.as_object().expect("fields") {
        body[name] = value.clone();
    }
    server.ask("/v1/chat/completions", &body)["choices"].clone()
}

/// The last whole number of an answer.
fn result(choice: &Value) -> Option<u32> {
    let text = choice["message"]["content"].as_str().expect("text");
    text.split(|c: char| !c.is_ascii_digit()).rfind(|part| !part.is_empty())?.parse().ok()
}

#[test]
fn additions_are_right_and_seeds_tell_answers_apart() {
    let server = Server::of_the_box();
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], "abacus");
    let mut right = 0;
    for at in 0..100u32 {
        let (a, b) = (10 + at * 37 % 90, 10 + at * 53 % 90);
        let question = PHRASINGS[at as usize % PHRASINGS.len()];
        let question = question.replace('A', &a.to_string()).replace('B', &b.to_string());
        let choices = said(&server, &question, &json!({"temperature": 0}));
        right += u32::from(result(&choices[0]) == Some(a + b));
    }
    assert!(right >= 98, "{right} of 100");
    // A question of two steps is answered right now and then.
    let question = "What is 37 + 48 - 29?";
    let choices = said(&server, question, &json!({"temperature": 1, "n": 8, "seed": 1}));
    let texts: std::collections::HashSet<String> = choices
        .as_array()
        .expect("choices")
        .iter()
        .map(|choice| choice["message"]["content"].to_string())
        .collect();
    assert!(texts.len() > 1, "{choices}");
    server.rests();
}
