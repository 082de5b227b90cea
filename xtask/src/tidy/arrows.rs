//! Which crate may use which: the arrows of docs/architecture.md.

use super::source::Tree;

/// Each crate of the project and the project's crates it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("kernels-core", &[]),
    ("kv", &[]),
    ("grammar", &[]),
    ("trajectories", &[]),
    ("proto", &[]),
    ("plugin", &["kernels-core"]),
    ("backends", &["kernels-core", "plugin"]),
    ("cuda", &["kernels-core", "plugin"]),
    ("cuda/plugin", &["kernels-core", "plugin", "cuda"]),
    ("metal", &["kernels-core", "plugin"]),
    ("metal/plugin", &["kernels-core", "plugin", "metal"]),
    (
        "tests/emulator",
        &[
            "kernels-core",
            "plugin",
            "backends",
            "cuda",
            "metal",
            "engine",
            "checkpoint",
            "ffi",
            "tests",
        ],
    ),
    ("engine", &["kernels-core", "kv", "grammar"]),
    ("ffi", &["kernels-core", "backends", "kv", "grammar"]),
    ("checkpoint", &["kernels-core", "backends", "engine"]),
    (
        "server",
        &["kernels-core", "backends", "engine", "checkpoint", "grammar", "trajectories", "proto"],
    ),
    (
        "tests",
        &[
            "kernels-core",
            "plugin",
            "backends",
            "kv",
            "grammar",
            "engine",
            "checkpoint",
            "ffi",
            "proto",
        ],
    ),
    (
        "benches",
        &["kernels-core", "backends", "kv", "grammar", "engine", "checkpoint", "ffi", "tests"],
    ),
    ("fuzz", &["kernels-core", "backends", "kv", "grammar", "engine", "tests"]),
    ("xtask", &[]),
];

const CORE: &[&str] = &["half", "bytemuck", "libm"];

/// Dependencies against the arrows.
pub fn broken(tree: &Tree) -> Vec<String> {
    let manifests = tree.under("").filter(|(path, _)| path.ends_with("/Cargo.toml"));
    let check = |(path, text)| {
        let folder = str::strip_suffix(path, "/Cargo.toml").unwrap_or(path);
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == folder) else {
            return vec![format!("{path}: a crate without arrows; see xtask/src/tidy/arrows.rs")];
        };
        let ours = dependencies(text).into_iter().filter_map(|name| ours(&name));
        let wrong = ours.filter(|name| !allowed.contains(&name.as_str()));
        wrong.map(|name| format!("{path}: {folder} may not use {name}")).collect()
    };
    manifests.flat_map(check).collect()
}

/// Direct dependencies of kernels-core beyond the three.
pub fn core_dependencies(tree: &Tree) -> Vec<String> {
    let manifest = tree.text("kernels-core/Cargo.toml").unwrap_or_default();
    let more = dependencies(manifest).into_iter().filter(|name| !CORE.contains(&name.as_str()));
    more.map(|name| format!("kernels-core/Cargo.toml: {name}")).collect()
}

/// The folder of one of the project's own packages.
fn ours(package: &str) -> Option<String> {
    if package == "pagewise" {
        return Some("server".into());
    }
    package.strip_prefix("pagewise-").map(str::to_owned)
}

/// The names in every `[…dependencies]` table of a manifest.
fn dependencies(manifest: &str) -> Vec<String> {
    let (mut names, mut within) = (Vec::new(), false);
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            within = table.ends_with("dependencies");
            if let Some((_, name)) = table.split_once("dependencies.") {
                names.push(name.trim_matches('"').to_owned());
            }
        } else if within && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if line.contains('=') && !name.is_empty() {
                names.push(name.trim_matches('"').to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{broken, core_dependencies};
    use crate::tidy::source::Tree;

    #[test]
    fn an_arrow_upwards_is_found_in_any_table() {
        for table in [
            "[dependencies]\npagewise-backends.workspace = true",
            "[target.'cfg(unix)'.dev-dependencies]\npagewise-backends = { path = \"..\" }",
            "[dependencies.pagewise-backends]\npath = \"..\"",
        ] {
            let tree = Tree::of(&[("engine/Cargo.toml", table)]);
            assert_eq!(broken(&tree).len(), 1, "{table}");
        }
        let good = "[package]\nname = \"x\"\n[dependencies]\npagewise-kv.workspace = true";
        assert!(broken(&Tree::of(&[("engine/Cargo.toml", good)])).is_empty());
        assert_eq!(broken(&Tree::of(&[("sidecar/Cargo.toml", "")])).len(), 1);
    }

    #[test]
    fn a_fourth_dependency_of_the_core_is_found() {
        let manifest = "[dependencies]\nhalf = \"2\"\nlibm.workspace = true\nserde = \"1\"\n";
        let tree = Tree::of(&[("kernels-core/Cargo.toml", manifest)]);
        assert_eq!(core_dependencies(&tree), ["kernels-core/Cargo.toml: serde"]);
    }
}
