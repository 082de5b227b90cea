//! `/metrics` as those read it who know the text format alone, and as OpenMetrics.

use pagewise_tests::server::Server;
use serde_json::json;
use std::collections::BTreeMap;

/// The families of a text, each with its kind and its samples' names: every line must be
/// of the text format, and every sample of the family declared last.
fn families(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let mut families: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    let (mut helped, mut family) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split(' ').next().expect("a name").to_owned();
        } else if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a kind");
            assert_eq!(helped, name, "help and type are of one name");
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            let before = families.insert(name.to_owned(), (kind.to_owned(), Vec::new()));
            assert!(before.is_none(), "{name} is declared twice");
            name.clone_into(&mut family);
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().expect("a name");
            let (kind, samples) = families.get_mut(&family).expect("it is declared");
            let ending = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line}: {family}"));
            let known = match kind.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].contains(&ending),
                _ => ending.is_empty(),
            };
            assert!(known, "{line} is not of {kind} {family}");
            samples.push(name.to_owned());
        }
    }
    families
}

#[test]
fn metrics_are_in_the_text_format_unless_openmetrics_is_asked_for() {
    let server = Server::start(&[]);
    server.ask("/v1/completions", &json!({"prompt": "x", "max_tokens": 4, "ignore_eos": true}));
    let plain = server.get("/metrics");
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(plain.body).expect("text");
    let families = families(&text);
    for (name, kind) in [
        ("vllm:num_requests_running", "gauge"),
        ("vllm:prompt_tokens_total", "counter"),
        ("vllm:generation_tokens_total", "counter"),
        ("vllm:request_success_total", "counter"),
        ("vllm:cache_config_info", "gauge"),
        ("vllm:time_to_first_token_seconds", "histogram"),
        ("vllm:iteration_tokens_total", "histogram"),
        ("http_requests_total", "counter"),
    ] {
        let (told, samples) = families.get(name).unwrap_or_else(|| panic!("{name}: {text}"));
        assert!(told == kind && !samples.is_empty(), "{name} is a {told} of {samples:?}");
    }
    let request = ureq::get(format!("http://{}/metrics", server.address));
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3";
    let mut open = request.header("accept", accept).call().expect("an answer");
    let kind = open.headers()["content-type"].to_str().expect("text").to_owned();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    let text = open.body_mut().read_to_string().expect("text");
    assert!(text.contains("# TYPE vllm:prompt_tokens counter") && text.ends_with("# EOF\n"));
}
