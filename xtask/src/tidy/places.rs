//! Where `unsafe`, `cfg(feature` and reads of the environment may stand.

use super::source::{Tree, code_of, lines_with_word};

/// Files and folders in which `unsafe` may stand. `command!` and `levels!` are in
/// them; their callers write none.
const UNSAFE: &[&str] = &[
    "kernels-core/src/simd/",
    "kernels-core/src/workers.rs",
    "backends/src/cpu/arena.rs",
    "backends/src/cpu/threads.rs",
    // Files are mapped.
    "backends/src/mapped.rs",
    // Addresses of a device, and the C table behind which it is.
    "plugin/src/export.rs",
    "plugin/src/generated.rs",
    "plugin/src/driver.rs",
    "backends/src/plugin/",
    "cuda/plugin/",
    "metal/plugin/",
    "tests/emulator/",
    "tests/src/queued/",
    "ffi/src/",
    // C's functions are called as C would.
    "tests/src/harness/abi/",
    "tests/examples/suite.rs",
    "benches/benches/abi.rs",
    "benches/benches/masks.rs",
    // Peaks of the machine are measured with the very instructions.
    "benches/src/peaks/",
    // The environment is set for libclang, before any thread.
    "xtask/src/bindings.rs",
];

/// Where a build may differ by its features.
const FEATURES: &[&str] =
    &["server/src/backend.rs", "ffi/src/backend.rs", "tests/", "benches/", "fuzz/"];

/// Where the environment may be read.
const ENVIRONMENT: &[&str] = &[
    "server/src/config.rs",
    "xtask/src/",
    "tests/src/harness/hashes.rs",
    "proto/build.rs",
    "tests/emulator/build.rs",
    // Where the compiled kernels are.
    "cuda/plugin/build.rs",
    "metal/plugin/build.rs",
];

/// Places in the lists above that are no more; a crate that is still to come may have its
/// place before it.
pub fn stale(tree: &Tree) -> Vec<String> {
    let listed = [UNSAFE, FEATURES, ENVIRONMENT].concat();
    let has = |prefix: &str| tree.under(prefix).next().is_some();
    let stale = listed.iter().filter(|place| {
        let package = place.split('/').next().unwrap_or_default();
        !has(place) && has(&format!("{package}/Cargo.toml"))
    });
    stale.map(|place| format!("xtask/src/tidy/places.rs: there is no {place}")).collect()
}

/// `unsafe` elsewhere.
pub fn of_unsafe(tree: &Tree) -> Vec<String> {
    elsewhere(tree, UNSAFE, |code| lines_with_word(code, "unsafe"))
}

/// `cfg(feature` elsewhere.
pub fn of_features(tree: &Tree) -> Vec<String> {
    elsewhere(tree, FEATURES, |code| {
        let of_cfg = |line: &str| {
            let bare = line.replace("target_feature", "");
            bare.contains("cfg") && bare.contains("feature =")
        };
        let lines = code.lines().enumerate().filter(|(_, line)| of_cfg(line));
        lines.map(|(at, _)| at + 1).collect()
    })
}

/// Reads of the environment elsewhere. What cargo sets while it compiles is no such read.
pub fn of_environment(tree: &Tree) -> Vec<String> {
    elsewhere(tree, ENVIRONMENT, |code| {
        let reads = ["env::var", "env::set_var", "env::remove_var", "option_env!", "::env::{"];
        let lines = code.lines().enumerate();
        let lines = lines.filter(|(_, line)| reads.iter().any(|read| line.contains(read)));
        lines.map(|(at, _)| at + 1).collect()
    })
}

/// Paths that exist on one machine alone, and addresses that one network alone knows.
pub fn of_machines(tree: &Tree) -> Vec<String> {
    let homes = ["work", "root", "tmp", "home", "mnt", "Users"].map(|home| format!("/{home}/"));
    let mut found = Vec::new();
    for (path, text) in tree.under("") {
        for (at, line) in text.lines().enumerate() {
            // A path begins here only if nothing comes before its first slash.
            let begins = |home: &String| {
                line.match_indices(home.as_str()).any(|(at, _)| {
                    let before = line.as_bytes()[..at].last();
                    before.is_none_or(|b| !b.is_ascii_alphanumeric() && !b"._-/})".contains(b))
                })
            };
            if let Some(home) = homes.iter().find(|home| begins(home)) {
                found.push(format!("{path}:{}: {home}", at + 1));
            }
            for host in hosts(line).filter(|host| is_private(host)) {
                found.push(format!("{path}:{}: {host}", at + 1));
            }
        }
    }
    found
}

/// The hosts of a line's addresses, without user and port.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    line.split("://").skip(1).map(|rest| {
        let is_end = |c: char| !c.is_ascii_alphanumeric() && !"-._@".contains(c);
        let host = rest.split(is_end).next().unwrap_or_default();
        host.rsplit('@').next().unwrap_or_default().trim_end_matches('.')
    })
}

/// Whether a host has a meaning in one network alone; the machine's own is everyone's.
fn is_private(host: &str) -> bool {
    if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
        return address.is_private() || address.is_link_local();
    }
    let suffixes = [".local", ".internal", ".intranet", ".lan", ".corp", ".home"];
    let bare = !host.is_empty() && !host.contains('.') && host != "localhost";
    bare || suffixes.iter().any(|suffix| host.ends_with(suffix))
}

fn elsewhere(tree: &Tree, allowed: &[&str], lines: impl Fn(&str) -> Vec<usize>) -> Vec<String> {
    let files = tree.rust().filter(|(path, _)| !allowed.iter().any(|at| path.starts_with(at)));
    let found = files.flat_map(|(path, text)| {
        let lines = lines(&code_of(text));
        lines.into_iter().map(move |line| format!("{path}:{line}"))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::{of_environment, of_features, of_machines, of_unsafe, stale};
    use crate::tidy::source::Tree;

    #[test]
    fn unsafe_is_found_in_code_alone() {
        let tree = Tree::of(&[
            ("kernels-core/src/norm/cpu.rs", "// unsafe\nfn f() { unsafe {} }"),
            ("kernels-core/src/simd/mod.rs", "unsafe fn f() {}"),
            ("kernels-core/src/lib.rs", "#![deny(unsafe_code)]"),
        ]);
        assert_eq!(of_unsafe(&tree), ["kernels-core/src/norm/cpu.rs:2"]);
    }

    #[test]
    fn a_feature_below_the_backends_is_found() {
        let text = "#[cfg(feature = \"cuda\")]\nfn f() { if cfg!(all(unix, feature = \"x\")) {} }\n\
                    #[cfg(target_feature = \"neon\")]";
        let tree = Tree::of(&[("engine/src/lib.rs", text), ("server/src/backend.rs", text)]);
        assert_eq!(of_features(&tree), ["engine/src/lib.rs:1", "engine/src/lib.rs:2"]);
    }

    #[test]
    fn a_read_of_the_environment_below_the_settings_is_found() {
        let text = "const ROOT: &str = env!(\"X\");\nfn f() { std::env::var_os(\"Y\"); }";
        let tree = Tree::of(&[("engine/src/lib.rs", text), ("server/src/config.rs", text)]);
        assert_eq!(of_environment(&tree), ["engine/src/lib.rs:2"]);
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        let text = ["see ", "/", "work/x and target/", "tmp/y"].concat();
        let tree = Tree::of(&[("docs/a.md", &text), ("docs/b.md", "a/work/b")]);
        assert_eq!(of_machines(&tree).len(), 1);
        for private in ["10.0.0.1", "192.168.1.2:80", "me@build", "git.corp", "a.internal/x"] {
            let text = ["see http:", "//", private].concat();
            assert_eq!(of_machines(&Tree::of(&[("docs/a.md", &text)])).len(), 1, "{private}");
        }
        let public =
            "https://docs.rs/half, http://127.0.0.1:8000/v1, http://localhost, a scheme://";
        assert!(of_machines(&Tree::of(&[("docs/a.md", public)])).is_empty());
        for home in ["mnt", "Users"] {
            let text = ["cd /", home, "/x"].concat();
            assert_eq!(of_machines(&Tree::of(&[("docs/a.md", &text)])).len(), 1, "{home}");
        }
    }

    #[test]
    fn a_place_that_is_no_more_is_found_and_one_to_come_is_not() {
        let manifest = ("backends/Cargo.toml", "");
        let arena = ("backends/src/cpu/arena.rs", "");
        let mapped = ("backends/src/mapped.rs", "");
        let plugin = ("backends/src/plugin/mod.rs", "");
        assert_eq!(stale(&Tree::of(&[manifest, arena, mapped, plugin])).len(), 1);
        let threads = ("backends/src/cpu/threads.rs", "");
        assert!(stale(&Tree::of(&[manifest, arena, mapped, plugin, threads])).is_empty());
    }
}
