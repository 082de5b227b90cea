//! All calls of a server at once, from several threads, by a seed: it lives, nothing hangs, no
//! answer is lost but by who asked for that, every token is told with its version and its
//! log-probability, no page leaks, and what came is what a calm server says. A failure tells
//! the seed and the calls; their order among threads is the machine's.

use pagewise_tests::server::Server;
use pagewise_tests::server::chaos::{Dice, Files, Spell};
use pagewise_tests::server::wire::Wire;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So many seeds; a hundred take minutes.
const SEEDS: u64 = 6;
/// Threads that ask, and calls of each.
const CLIENTS: u64 = 4;
const CALLS: usize = 150;
/// How long a call may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Answers of a seed that are computed again: of those that one version made, and of others.
const COMPARED: usize = 12;

/// An answer, and what was asked.
struct Sample {
    asked: Value,
    choice: Value,
}

impl Sample {
    /// Whether one version made it, and all that it stands on.
    fn is_plain(&self) -> bool {
        let spans = self.choice["weight_versions"].as_array().expect("spans");
        spans.len() == 1 && spans[0].get("kv").is_none()
    }
}

/// How often it was as bad as it should be.
#[derive(Debug, Default)]
struct Happened {
    /// Answers that were ended.
    aborted: AtomicU64,
    /// Answers of several versions.
    mixed: AtomicU64,
    /// Calls that were turned away while it rested.
    closed: AtomicU64,
    /// Steps of episodes that computed again what had gone.
    rebuilt: AtomicU64,
}

impl Happened {
    fn all(&self) -> [u64; 4] {
        [&self.aborted, &self.mixed, &self.closed, &self.rebuilt]
            .map(|count| count.load(Ordering::SeqCst))
    }
}

fn count(what: &AtomicU64, happened: bool) {
    what.fetch_add(happened.into(), Ordering::SeqCst);
}

struct Chaos {
    server: Server,
    agent: ureq::Agent,
    /// Calls, in the order in which they were sent.
    calls: Mutex<Vec<String>>,
    seed: u64,
    /// While somebody is ended; while who comes is turned away.
    aborts: Spell,
    closed: Spell,
    samples: Mutex<Vec<Sample>>,
    happened: Happened,
    over: AtomicBool,
}

impl Drop for Chaos {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            let told = format!("seed {}:\n{}\n", self.seed, calls.join("\n"));
            // A panic is on its way already.
            let _ = std::io::stderr().write_all(told.as_bytes());
        }
    }
}

impl Chaos {
    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.sent(path, body);
        let request = self.agent.post(format!("http://{}{path}", self.server.address));
        let answer = request.content_type("application/json").send(body.to_string());
        let mut answer = answer.unwrap_or_else(|error| panic!("{path} {body}: {error}"));
        let told = answer.body_mut().with_config().limit(64 << 20).read_to_string();
        let told = told.unwrap_or_else(|error| panic!("{path} {body}: {error}"));
        let status = answer.status().as_u16();
        assert_ne!(status, 500, "{path} {body}: {told}");
        (status, serde_json::from_str(&told).unwrap_or(Value::String(told)))
    }

    fn sent(&self, path: &str, body: &Value) {
        let mut body = body.to_string();
        body.truncate(body.floor_char_boundary(200));
        self.calls.lock().expect("whole").push(format!("{path} {body}"));
    }

    /// One call of a surface of tokens; a whole answer is held to what it says.
    fn generate(&self, dice: &mut Dice, models: &[&str]) {
        let (aborted, closed) = (self.aborts.ended(), self.closed.ended());
        let most = 1 + dice.roll(200);
        // Some begin alike, with more than a page.
        let alike = Dice(dice.roll(3));
        let tokens = [alike.exactly(40), dice.tokens(20)].concat();
        let asked = json!({
            "token_ids": tokens, "model": dice.one(models),
            "request_id": format!("chaos-{}", dice.roll(1 << 40)),
            "class": dice.one(&["inference", "rollout"]),
            "sampling_params": {
                "max_tokens": most, "logprobs": 1, "ignore_eos": true,
                "temperature": dice.one(&[0, 0, 1]), "n": dice.one(&[1, 1, 1, 3]),
            },
        });
        let (status, told) = self.post("/inference/v1/generate", &asked);
        if !self.is_answered(status, &told, closed) {
            return;
        }
        for choice in told["choices"].as_array().expect("choices") {
            let tokens = choice["token_ids"].as_array().expect("tokens").len() as u64;
            let entries = choice["logprobs"]["content"].as_array().expect("entries");
            let logprobs = entries.iter().map(|entry| &entry["logprob"]);
            assert_eq!(entries.len() as u64, tokens, "{told}");
            assert!(logprobs.clone().all(Value::is_f64), "{told}");
            covered(&choice["weight_versions"], tokens);
            count(&self.happened.mixed, choice["weight_versions"][1].is_object());
            count(&self.happened.aborted, choice["finish_reason"] == "abort");
            match choice["finish_reason"].as_str() {
                Some("abort") => assert!(self.aborts.met(aborted), "nobody asked: {told}"),
                Some("length") => assert_eq!(tokens, most, "{told}"),
                other => panic!("{other:?}: {told}"),
            }
        }
        let (choice, params) = (&told["choices"][0], &asked["sampling_params"]);
        if params["temperature"] == 0 && params["n"] == 1 {
            let sample = Sample { choice: choice.clone(), asked };
            self.samples.lock().expect("whole").push(sample);
        }
    }

    /// Whether a call was answered, and not turned away for a reason that there is.
    fn is_answered(&self, status: u16, told: &Value, closed: u64) -> bool {
        match status {
            200 => true,
            // The queue is full; an adapter has gone, or waits for a place.
            404 | 409 | 429 => false,
            503 => {
                assert!(self.closed.met(closed), "nobody has closed: {told}");
                count(&self.happened.closed, true);
                false
            }
            _ => panic!("{status} {told}"),
        }
    }

    /// What has other replies: it is answered, or turned away for a reason that there is.
    fn other(&self, dice: &mut Dice) {
        let closed = self.closed.ended();
        let message = json!([{ "role": "user", "content": "Hello" }]);
        let (path, body) = match dice.roll(4) {
            0 => ("/v1/completions", json!({ "prompt": "Hello", "n": 2, "max_tokens": 8 })),
            1 => ("/v1/chat/completions", json!({ "messages": message, "max_tokens": 8 })),
            2 => ("/v1/embeddings", json!({ "input": ["a", "some more"] })),
            _ => (
                "/generate",
                json!({ "input_ids": dice.tokens(20), "sampling_params": { "max_new_tokens": 8 } }),
            ),
        };
        let (status, told) = self.post(path, &body);
        self.is_answered(status, &told, closed);
    }

    /// A stream that is left when some of it has come.
    fn leave(&self, dice: &mut Dice) {
        let path = dice.one(&["/v1/completions", "/generate"]);
        let body = match path {
            "/generate" => json!({
                "text": "leave", "stream": true,
                "sampling_params": { "max_new_tokens": 200, "ignore_eos": true },
            }),
            _ => json!({ "prompt": "leave", "stream": true, "max_tokens": 200, "n": 2 }),
        };
        self.sent(path, &body);
        let mut wire = Wire::open(self.server.address);
        wire.post(path, body.to_string().as_bytes());
        if dice.roll(3) > 0 && !self.closed.met(self.closed.ended()) {
            wire.some(400);
        }
    }

    fn malformed(&self, dice: &mut Dice) {
        let path = dice.one(&[
            "/v1/completions",
            "/inference/v1/generate",
            "/generate",
            "/v1/episodes/step",
            "/v1/load_lora_adapter",
            "/update_weights_from_tensor",
        ]);
        let body = dice.one(&["{", "[]", "{\"prompt\": 1e999}", "{\"oddly\": true}", "\u{1}"]);
        self.sent(path, &json!(body));
        let request = self.agent.post(format!("http://{}{path}", self.server.address));
        let answer = request.content_type("application/json").send(body).expect("an answer");
        let status = answer.status().as_u16();
        assert!([400, 404].contains(&status), "{path} {body}: {status}");
    }

    /// A call about one of the episodes of a client.
    fn episode(&self, dice: &mut Dice, live: &mut Vec<String>) {
        let closed = self.closed.ended();
        let aborted = self.aborts.ended();
        if live.is_empty() || (live.len() < 4 && dice.roll(4) == 0) {
            let swap = dice.one(&["pin", "keep", "recompute"]);
            let body = json!({ "on_swap": swap, "reserve_tokens": dice.one(&[0, 0, 40]) });
            let (status, told) = self.post("/v1/episodes/start", &body);
            // What is reserved may not be there.
            if status != 400 && self.is_answered(status, &told, closed) {
                live.push(told["episode_id"].as_str().expect("a name").to_owned());
            }
            return;
        }
        let at = dice.roll(live.len() as u64) as usize;
        let id = json!({ "episode_id": live[at] });
        match dice.roll(6) {
            0 => {
                live.remove(at);
                let (status, told) = self.post("/v1/episodes/end", &id);
                assert_eq!(status, 200, "{told}");
            }
            1 => {
                let body = json!({ "from_episode_id": id["episode_id"] });
                let (status, told) = self.post("/v1/episodes/fork", &body);
                if ![400, 409].contains(&status) && self.is_answered(status, &told, closed) {
                    live.push(told["episode_id"].as_str().expect("a name").to_owned());
                }
            }
            _ => {
                let mut body = id;
                body["observation_token_ids"] = json!(dice.tokens(20));
                body["max_tokens"] = json!(1 + dice.roll(40));
                (body["ignore_eos"], body["logprobs"]) = (json!(true), json!(1));
                let (status, told) = self.post("/v1/episodes/step", &body);
                let is_full = status == 400 && told["error"]["code"] == "context_length_exceeded";
                if is_full || !self.is_answered(status, &told, closed) {
                    return;
                }
                let tokens = told["token_ids"].as_array().expect("tokens").len() as u64;
                let new = body["observation_token_ids"].as_array().expect("tokens").len() as u64;
                let before = told["position_before"].as_u64().expect("a number");
                assert_eq!(told["position"], before + new + tokens, "{told}");
                covered(&told["weight_versions"], tokens);
                count(&self.happened.rebuilt, told["rebuilt_tokens"] != 0);
                let entries = told["logprobs"].as_array().expect("entries");
                assert_eq!(entries.len() as u64, tokens, "{told}");
                assert!(entries.iter().all(|entry| entry["logprob"].is_f64()), "{told}");
                if told["finish_reason"] == "abort" {
                    assert!(self.aborts.met(aborted), "nobody asked: {told}");
                } else {
                    assert_eq!(body["max_tokens"], tokens, "{told}");
                }
            }
        }
    }

    fn client(&self, number: u64) {
        let mut dice = Dice(self.seed << 8 | number);
        let mut live = Vec::new();
        for _ in 0..CALLS {
            match dice.roll(10) {
                0..4 => self.generate(&mut dice, &["tiny", "tiny", "one", "two"]),
                4..7 => self.episode(&mut dice, &mut live),
                7 => self.other(&mut dice),
                8 => self.leave(&mut dice),
                _ => self.malformed(&mut dice),
            }
        }
        for id in live {
            self.post("/v1/episodes/end", &json!({ "episode_id": id }));
        }
    }

    /// Whoever changes what serves: a label ends with what it stands for.
    fn control(&self, files: &Files, swaps_weights: bool) {
        let mut dice = Dice(self.seed << 8 | 0xff);
        let mut count = 0;
        while !self.over.load(Ordering::SeqCst) {
            count += 1;
            match dice.roll(if swaps_weights { 10 } else { 8 }) {
                0..3 => {
                    let which = dice.one(&["p", "q"]);
                    let body = json!({
                        "lora_name": dice.one(&["one", "two"]), "lora_path": files.adapter(which),
                        "load_inplace": true, "weight_version": format!("{count}-{which}"),
                    });
                    self.swap(&mut dice, "/v1/load_lora_adapter", body);
                }
                3 => {
                    let path = dice.one(&["/v1/unload_lora_adapter", "/v1/rollback_lora_adapter"]);
                    let body = json!({ "lora_name": dice.one(&["one", "two"]) });
                    self.swap(&mut dice, path, body);
                }
                4 => {
                    let mode = dice.one(&["abort", "wait", "keep"]);
                    self.rest(&format!("/pause?mode={mode}"), "/resume", json!({}), &mut dice);
                }
                5 => {
                    let mode = dice.one(&["abort", "retract", "in_place"]);
                    let body = json!({ "mode": mode });
                    self.rest("/pause_generation", "/continue_generation", body, &mut dice);
                }
                6 => {
                    let (sleep, wake) = dice.one(&[
                        ("/sleep?level=1", "/wake_up"),
                        ("/release_memory_occupation", "/resume_memory_occupation"),
                    ]);
                    self.rest(sleep, wake, json!({}), &mut dice);
                }
                7 => {
                    let path = dice.one(&["/flush_cache", "/reset_prefix_cache"]);
                    self.post(path, &json!({}));
                    self.aborts.begin();
                    self.post("/abort_request", &json!({ "rid": "chaos-1" }));
                    self.aborts.end();
                }
                8 => {
                    let which = dice.one(&["a", "b"]);
                    let body = json!({
                        "model_path": files.weights(which), "weight_version": format!("{count}-{which}"),
                    });
                    self.swap(&mut dice, "/update_weights_from_disk", body);
                }
                _ => {
                    let body = json!({
                        "serialized_named_tensors": [files.changed], "flush_cache": true,
                        "weight_version": format!("{count}-b"),
                    });
                    self.swap(&mut dice, "/update_weights_from_tensor", body);
                }
            }
            std::thread::sleep(Duration::from_millis(dice.roll(30)));
        }
    }

    /// A version comes, or goes.
    fn swap(&self, dice: &mut Dice, path: &str, mut body: Value) {
        let how = dice.one(&["wait", "recompute", "keep", "abort"]);
        let unload = path.contains("unload");
        if !unload {
            body["in_flight"] = how.into();
        }
        if how == "abort" {
            self.aborts.begin();
        }
        let (status, told) = self.post(path, &body);
        if how == "abort" {
            self.aborts.end();
        }
        // There is no such adapter, or none before it, or it has no slot.
        let fine = [200, 404, 409, 429, 507].contains(&status) || (status == 400 && unload);
        assert!(fine, "{path} {body}: {status} {told}");
    }

    /// It rests a while, and goes on.
    fn rest(&self, rest: &str, wake: &str, body: Value, dice: &mut Dice) {
        for spell in [&self.aborts, &self.closed] {
            spell.begin();
        }
        let (status, told) = self.post(rest, &body);
        // What somebody holds is not released.
        let held = status == 400 && rest.contains("release");
        assert!(status == 200 || held, "{rest}: {status} {told}");
        std::thread::sleep(Duration::from_millis(dice.roll(40)));
        let (status, told) = self.post(wake, &json!({}));
        assert_eq!(status, 200, "{wake}: {told}");
        for spell in [&self.aborts, &self.closed] {
            spell.end();
        }
    }
}

/// Spans tell every token's version, once.
fn covered(spans: &Value, tokens: u64) {
    let mut end = 0;
    for span in spans.as_array().unwrap_or_else(|| panic!("no spans: {spans}")) {
        assert_eq!(span["start"], end, "{spans}");
        end = span["end"].as_u64().expect("a number");
        assert!(span["version"].as_str().is_some_and(|name| !name.is_empty()), "{spans}");
    }
    assert_eq!(end, tokens, "{spans}");
}

/// A server that nobody else asks: it computes answers again by the schedules that they tell.
struct Calm<'a> {
    files: &'a Files,
    server: Server,
    /// Which weights and which adapter serve.
    weights: String,
    adapter: String,
    /// Answers that were computed again; those of them over keys and values of several
    /// versions; those that a version went on with, having computed all anew.
    compared: [usize; 3],
}

impl<'a> Calm<'a> {
    fn start(files: &'a Files) -> Self {
        let server = Server::at(&files.weights("a"), &["--max-loras", "4"]);
        let (weights, adapter) = ("a".to_owned(), String::new());
        Self { files, server, weights, adapter, compared: [0; 3] }
    }

    /// Serves what a label stands for, under the adapter that goes by it if there is one.
    fn serve(&mut self, told: &Value) {
        let kind = |label: &Value| {
            let label = label.as_str().expect("a name");
            label.rsplit_once('-').map_or("a", |(_, kind)| kind).to_owned()
        };
        let weights = kind(told.get("weights").unwrap_or(&told["version"]));
        if self.weights != weights {
            let body = json!({ "model_path": self.files.weights(&weights) });
            self.server.ask("/update_weights_from_disk", &body);
            self.weights = weights;
        }
        if told.get("weights").is_none() {
            return;
        }
        let adapter = kind(&told["version"]);
        if self.adapter != adapter {
            let folder = self.files.adapter(&adapter);
            let body = json!({ "lora_name": "it", "lora_path": folder, "load_inplace": true });
            assert_eq!(self.server.post("/v1/load_lora_adapter", &body).status, 200);
            self.adapter = adapter;
        }
    }

    /// So many tokens after those that are known, whose keys and values several versions
    /// compute one after another.
    fn again(&mut self, known: &[Value], schedule: &[Value], count: usize) -> Value {
        self.serve(&schedule[0]);
        let model = if schedule[0].get("weights").is_some() { "it" } else { "tiny" };
        let opened = json!({ "model": model, "on_swap": "keep" });
        let mut step = self.server.ask("/v1/episodes/start", &opened);
        step = json!({
            "episode_id": step["episode_id"], "temperature": 0, "ignore_eos": true, "logprobs": 1,
        });
        let mut at = 0;
        for next in &schedule[1..] {
            let to = next["from"].as_u64().expect("a number") as usize;
            step["observation_token_ids"] = known[at..to].into();
            step["max_tokens"] = 0.into();
            self.server.ask("/v1/episodes/step", &step);
            self.serve(next);
            at = to;
        }
        step["observation_token_ids"] = known[at..].into();
        step["max_tokens"] = count.into();
        let told = self.server.ask("/v1/episodes/step", &step);
        self.server.ask("/v1/episodes/end", &json!({ "episode_id": step["episode_id"] }));
        assert_eq!(told["rebuilt_tokens"], 0, "{told}");
        told
    }

    /// Each token of an answer, bit for bit, by what its span says that it stands on.
    fn compare(&mut self, seed: u64, Sample { asked, choice }: &Sample) {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let (prompt, tokens) = (list(&asked["token_ids"]), list(&choice["token_ids"]));
        let entries = list(&choice["logprobs"]["content"]);
        let all = [&prompt[..], &tokens].concat();
        let mut schedule: Vec<Value> = Vec::new();
        let from = |over: &Value| over["from"].as_u64();
        for span in list(&choice["weight_versions"]) {
            let mut own = span.clone();
            own["from"] = 0.into();
            let came = span.get("kv").map_or_else(|| vec![own], list);
            self.compared[2] += usize::from(span.get("kv").is_none() && !schedule.is_empty());
            for over in came {
                schedule.retain(|before| from(before) < from(&over));
                schedule.push(over);
            }
            let [start, end] = ["start", "end"].map(|at| span[at].as_u64().expect("one") as usize);
            let told = self.again(&all[..prompt.len() + start], &schedule, end - start);
            let words = format!("seed {seed}: {schedule:?} of {choice} for {asked}: {told}");
            assert_eq!(list(&told["token_ids"]), tokens[start..end], "{words}");
            let logprobs = |entries: &[Value]| -> Vec<Value> {
                entries.iter().map(|entry| entry["logprob"].clone()).collect()
            };
            assert_eq!(
                logprobs(&list(&told["logprobs"])),
                logprobs(&entries[start..end]),
                "{words}"
            );
            self.compared[1] += usize::from(schedule.len() > 1);
        }
        self.compared[0] += 1;
    }
}

#[test]
fn whatever_is_called_at_once_nothing_is_lost_hangs_or_leaks() {
    let files = Files::write();
    let mut calm = Calm::start(&files);
    let mut happened = [0; 4];
    for seed in 1..=SEEDS {
        let options = ["--max-batch-size", "8", "--kv-cache-memory", "640KiB", "--max-loras", "3"];
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let chaos = Chaos {
            server: Server::at(&files.weights("a"), &options),
            agent: config.timeout_global(Some(ANSWER_WITHIN)).build().into(),
            calls: Mutex::default(),
            seed,
            aborts: Spell::default(),
            closed: Spell::default(),
            samples: Mutex::default(),
            happened: Happened::default(),
            over: AtomicBool::new(false),
        };
        let swaps_weights = seed % 2 == 0;
        std::thread::scope(|scope| {
            let (chaos, files) = (&chaos, &files);
            let control = scope.spawn(move || chaos.control(files, swaps_weights));
            let clients: Vec<_> =
                (0..CLIENTS).map(|number| scope.spawn(move || chaos.client(number))).collect();
            let ends: Vec<_> =
                clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            chaos.over.store(true, Ordering::SeqCst);
            assert!(control.join().is_ok() && ends.iter().all(Result::is_ok), "seed {seed}");
        });
        assert_eq!(chaos.post("/flush_cache", &json!({})).0, 200);
        chaos.server.ask("/v1/completions", &json!({ "prompt": "At last", "max_tokens": 2 }));
        chaos.server.rests();
        happened.iter_mut().zip(chaos.happened.all()).for_each(|(sum, count)| *sum += count);
        let samples = std::mem::take(&mut *chaos.samples.lock().expect("whole"));
        let (plain, mixed): (Vec<_>, Vec<_>) = samples.iter().partition(|it| it.is_plain());
        for some in [plain, mixed] {
            let step = some.len().div_ceil(COMPARED).max(1);
            some.into_iter().step_by(step).for_each(|sample| calm.compare(seed, sample));
        }
    }
    assert!(happened.iter().all(|&count| count > 0), "{happened:?} happened");
    let [compared, kept, anew] = calm.compared;
    let enough = compared >= COMPARED && kept > 0 && anew > 0;
    assert!(enough, "{compared} answers were compared, {kept} parts kept, {anew} anew");
}
