//! A server on a device: the emulator as a plugin that the real binary loads, asked over HTTP;
//! and what it says where there is no device.
#![cfg(all(emulated, not(feature = "sanitized"), not(feature = "races")))]

use pagewise_tests::server::{Server, command};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Output;

/// A folder of plugins that goes with the test.
struct Plugins(PathBuf);

impl Plugins {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    /// With the emulator, as CUDA's plugin.
    fn emulated(name: &str) -> Self {
        let plugins = Self::new(name);
        let test = std::env::current_exe().expect("a test has a path");
        let built = test.with_file_name("libemulator.so");
        std::fs::copy(built, plugins.library()).expect("it is built with the tests");
        plugins
    }

    fn library(&self) -> PathBuf {
        self.0.join("libpagewise_cuda.so")
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn asked() -> Value {
    json!({"prompt": "one two three", "max_tokens": 12, "temperature": 0, "logprobs": 1})
}

/// The text of an answer, and whose arithmetic it is.
fn answer(server: &Server) -> [String; 2] {
    let answer = server.ask("/v1/completions", &asked());
    [&answer["choices"][0]["text"], &answer["system_fingerprint"]]
        .map(|told| told.as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
}

/// What a server that does not come up says.
fn refused(plugins: &Path, device: &str) -> String {
    let folder = pagewise_tests::server::checkpoint::write();
    let mut command = command();
    command.arg("serve").arg(&folder).args(["--port", "0", "--device", device, "--plugins"]);
    let Output { status, stderr, .. } = command.arg(plugins).output().expect("it starts");
    let _ = std::fs::remove_dir_all(folder.parent().expect("its own"));
    assert!(!status.success(), "it does not serve");
    String::from_utf8_lossy(&stderr).into_owned()
}

#[test]
fn a_server_on_a_device_answers_as_one_on_the_cpu() {
    let plugins = Plugins::emulated("pagewise-served");
    let device = Server::start(&["--device", "cuda:0", "--plugins", plugins.path()]);
    let auto = Server::start(&["--device", "auto", "--plugins", plugins.path()]);
    let cpu = Server::start(&[]);
    let [expected, by] = answer(&cpu);
    assert!(!expected.is_empty() && by == "pagewise-cpu-1", "{expected:?} by {by}");
    let by = "pagewise-cuda-emulated-1".to_owned();
    assert_eq!(answer(&device), [expected.clone(), by.clone()]);
    assert_eq!(answer(&auto), [expected, by]);
}

#[test]
fn where_there_is_no_device_it_says_what_is_missing() {
    let plugins = Plugins::new("pagewise-none");
    let said = refused(&plugins.0, "cuda:0");
    assert!(said.contains("there is no plugin") && said.contains("libpagewise_cuda"), "{said}");
    std::fs::write(plugins.library(), "no library").expect("a file");
    let said = refused(&plugins.0, "cuda:0");
    assert!(said.contains("does not load") && said.contains("driver"), "{said}");
    let said = refused(&plugins.0, "cuda:x");
    assert!(said.contains("cuda:0 and so on"), "{said}");
    // The CPU goes on where nobody insists.
    let server = Server::start(&["--device", "auto", "--plugins", plugins.path()]);
    assert_eq!(answer(&server)[1], "pagewise-cpu-1");
}

#[test]
fn a_device_that_the_plugin_lacks_is_refused() {
    let plugins = Plugins::emulated("pagewise-second");
    let said = refused(&plugins.0, "cuda:1");
    assert!(said.contains("ordinal") && said.contains("one device, number 0"), "{said}");
}
