//! A server on a device: the emulator as a plugin that the real binary loads, asked over HTTP;
//! and what it says where there is no device.
#![cfg(all(emulated, not(feature = "sanitized"), not(feature = "races")))]

use pagewise_tests::server::{Server, command};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of plugins that goes with the test.
struct Plugins(PathBuf);

impl Plugins {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    /// With the emulator, as CUDA's plugin.
    fn cuda(name: &str) -> Self {
        let plugins = Self::new(name);
        std::fs::copy(emulator(), plugins.library("cuda")).expect("it is built with the tests");
        plugins
    }

    /// With the emulator, as Metal's plugin: a library that asks it for its other device.
    fn metal(name: &str) -> Self {
        let plugins = Self::new(name);
        let source = plugins.0.join("metal.c");
        std::fs::write(&source, METAL).expect("a file");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(plugins.library("metal")).arg(source);
        compiler.arg(emulator());
        assert!(compiler.status().is_ok_and(|status| status.success()), "{compiler:?}");
        plugins
    }

    fn library(&self, kind: &str) -> PathBuf {
        self.0.join(backends::plugin::library_name(kind))
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

/// A plugin whose device is the emulator's Metal.
const METAL: &str = "extern const void *emulated_metal(void);\n\
    const void *pagewise_plugin(void) { return emulated_metal(); }\n";

/// The emulator's library.
fn emulator() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.with_file_name("libemulator.so")
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
    let (cuda, metal) = (Plugins::cuda("pagewise-cuda"), Plugins::metal("pagewise-metal"));
    let [expected, by] = answer(&Server::start(&[]));
    assert!(!expected.is_empty() && by == "pagewise-cpu-1", "{expected:?} by {by}");
    for (plugins, devices, by) in [
        (&cuda, ["cuda:0", "auto"], "pagewise-cuda-emulated-2"),
        (&metal, ["metal", "auto"], "pagewise-metal-emulated-1"),
    ] {
        for device in devices {
            let server = Server::start(&["--device", device, "--plugins", plugins.path()]);
            assert_eq!(answer(&server), [expected.clone(), by.to_owned()], "--device {device}");
        }
    }
}

#[test]
fn where_there_is_no_device_it_says_what_is_missing() {
    let plugins = Plugins::new("pagewise-none");
    for (device, kind) in [("cuda:0", "cuda"), ("metal", "metal")] {
        let said = refused(&plugins.0, device);
        let library = plugins.library(kind).display().to_string();
        assert!(said.contains(&format!("--device: there is no plugin {library}")), "{said}");
    }
    std::fs::write(plugins.library("cuda"), "no library").expect("a file");
    let said = refused(&plugins.0, "cuda:0");
    assert!(said.contains("does not load") && said.contains("driver"), "{said}");
    for unknown in ["cuda:x", "metal:0"] {
        let said = refused(&plugins.0, unknown);
        assert!(said.contains("cuda:0 and so on, metal, auto"), "{said}");
    }
    // The CPU goes on where nobody insists.
    let server = Server::start(&["--device", "auto", "--plugins", plugins.path()]);
    assert_eq!(answer(&server)[1], "pagewise-cpu-1");
}

#[test]
fn a_device_that_the_plugin_lacks_is_refused() {
    let plugins = Plugins::cuda("pagewise-second");
    let said = refused(&plugins.0, "cuda:1");
    assert!(said.contains("ordinal") && said.contains("one device, number 0"), "{said}");
}
