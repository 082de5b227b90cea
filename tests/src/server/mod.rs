//! A real server: the `pagewise` binary on a small checkpoint, asked over HTTP.

pub mod chaos;
pub mod checkpoint;
pub mod hostile;
pub mod wire;

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long a server may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(120);
/// How long one may take to come to rest.
const REST_WITHIN: Duration = Duration::from_secs(30);

/// A server that runs until it is dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens for gRPC, if it does.
    pub grpc: Option<SocketAddr>,
    agent: ureq::Agent,
    /// That goes with it.
    folder: Option<PathBuf>,
}

/// A server for several tests, which goes when the last of them does.
pub struct Shared(Mutex<Weak<Server>>);

impl Shared {
    /// That nobody uses yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The server; its options are those of whoever starts it.
    pub fn of(&self, options: &[&str]) -> Arc<Server> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Server::start(options));
            *shared = Arc::downgrade(&server);
            server
        })
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}

/// A response: its status, its headers by small names, its body.
pub struct Response {
    /// Its status.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Response {
    /// Its body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The field that an error names.
    pub fn param(&self) -> Option<String> {
        self.json()["error"]["param"].as_str().map(str::to_owned)
    }

    /// The events of a stream, up to its end.
    pub fn events(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).expect("a stream is UTF-8");
        let data: Vec<&str> =
            text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
        let (last, events) = data.split_last().expect("a stream has an end");
        assert_eq!(*last, "[DONE]");
        let read = |event: &&str| serde_json::from_str(event).expect("an event is JSON");
        events.iter().map(read).collect()
    }
}

impl Server {
    /// On the small checkpoint, with more options.
    pub fn start(options: &[&str]) -> Self {
        let folder = checkpoint::write();
        Self::of(folder, options)
    }

    /// On a checkpoint that stays where it is.
    pub fn at(folder: &Path, options: &[&str]) -> Self {
        let mut command = command();
        command.arg("serve").arg(folder).args(options);
        Self::spawn(command)
    }

    /// On the small checkpoint, in a process that has so many KiB of addresses.
    pub fn within(kib: u64, options: &[&str]) -> Self {
        let folder = checkpoint::write();
        let mut command = command_within(kib);
        command.arg("serve").arg(&folder).args(options);
        let mut server = Self::spawn(command);
        server.folder = Some(folder);
        server
    }

    /// On a checkpoint, in a folder of its own that goes with the server.
    pub fn of(folder: PathBuf, options: &[&str]) -> Self {
        let mut command = command();
        command.arg("serve").arg(&folder).args(options);
        let mut server = Self::spawn(command);
        server.folder = Some(folder);
        server
    }

    /// The folder of its checkpoint, if it is its own.
    pub fn folder(&self) -> &Path {
        self.folder.as_deref().expect("it has a checkpoint of its own")
    }

    /// On the model in the box: nobody names one.
    pub fn of_the_box() -> Self {
        let mut command = command();
        command.arg("serve");
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        command.args(["--port", "0", "--threads", "1", "--log-level", "warn"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let begun = Instant::now();
        let mut grpc = None;
        let address = loop {
            assert!(begun.elapsed() < UP_WITHIN, "the server does not come up");
            let line = lines.next().expect("it says where it listens").expect("text");
            if let Some(address) = line.strip_prefix("listening http://") {
                break address.trim().parse().expect("an address");
            }
            if let Some(address) = line.strip_prefix("listening grpc://") {
                grpc = Some(address.trim().parse().expect("an address"));
            }
        };
        // Whatever it says further is not looked at, but must not fill its pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let mut server = Self::already(child, address);
        server.grpc = grpc;
        server
    }

    /// One that was started already, and listens there.
    pub fn already(child: Child, address: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = config.timeout_global(Some(Duration::from_secs(120))).build().into();
        Self { child, address, grpc: None, agent, folder: None }
    }

    /// Asks without a body.
    pub fn get(&self, path: &str) -> Response {
        answer(self.agent.get(self.url(path)).call())
    }

    /// Asks with JSON.
    pub fn post(&self, path: &str, body: &Value) -> Response {
        let request = self.agent.post(self.url(path)).content_type("application/json");
        answer(request.send(body.to_string()))
    }

    /// Asks, and expects an answer.
    pub fn ask(&self, path: &str, body: &Value) -> Value {
        let response = self.post(path, body);
        assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
        response.json()
    }

    /// What `/debug/metrics` tells under a name.
    pub fn count(&self, name: &str) -> u64 {
        let told = self.get("/debug/metrics").json();
        told[name].as_u64().unwrap_or_else(|| panic!("{name} is not in {told}"))
    }

    /// Waits until nothing runs, and asserts that every page is free again.
    pub fn rests(&self) {
        let begun = Instant::now();
        loop {
            let told = self.get("/debug/metrics").json();
            let (total, free) = (&told["pages_total"], &told["pages_free"]);
            assert!(total.as_u64().is_some_and(|total| total > 0), "{told}");
            if total == free && told["running_last"] == 0 && told["queue_depth_last"] == 0 {
                return;
            }
            assert!(begun.elapsed() < REST_WITHIN, "pages are not given back: {told}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Tells it to stop.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends it a signal, as `kill` takes it.
    pub fn signal(&self, signal: &str) {
        send(signal, &self.child);
    }

    /// KiB of data that its process has, where the system tells it.
    pub fn data_kib(&self) -> Option<u64> {
        let told = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = told.lines().find_map(|line| line.strip_prefix("VmData:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Child {
        &mut self.child
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(own) = self.folder.as_deref().and_then(Path::parent) {
            let _ = std::fs::remove_dir_all(own);
        }
    }
}

/// Sends a signal to a process, as `kill` takes it.
pub fn send(signal: &str, to: &Child) {
    let told = Command::new("kill").args([signal, &to.id().to_string()]).status();
    assert!(told.expect("kill runs").success());
}

fn answer(outcome: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Response {
    let response = outcome.expect("the server answers");
    let status = response.status().as_u16();
    let told = response.headers().iter();
    let headers = told
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let mut body = Vec::new();
    response.into_body().into_reader().read_to_end(&mut body).expect("the body comes");
    Response { status, headers, body }
}

/// The binary in a process that has so many KiB of addresses.
pub fn command_within(kib: u64) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v \"$0\" && exec \"$@\"", &kib.to_string()]);
    shell.arg(command().get_program());
    shell
}

/// The binary, built as the tests are.
pub fn command() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let binary = BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        let profile = test.ancestors().nth(2).expect("target/<profile>/deps/<test>").to_owned();
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "-q", "--locked", "--workspace", "--bin", "pagewise"])
            // Beside it an example: cargo gives dependencies the features that they have for
            // tests where it builds something of the kind, else it builds them once more.
            .args(["--example", "plugin"])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        build.arg("--target-dir").arg(profile.parent().expect("target"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the binary builds");
        profile.join(Path::new("pagewise").with_extension(std::env::consts::EXE_EXTENSION))
    });
    Command::new(binary)
}
