//! docs/parity.md: which kernel exists in which form, and what tests it, by the names of
//! files.

use crate::kernels::{Kernel, kernels, stems};
use crate::tidy::source::Tree;
use std::fmt::Write as _;
use std::path::Path;

/// The kernels that devices are held to.
const DEVICES: &str = "tests/src/device/parity.rs";
/// The page this writes.
pub const PAGE: &str = "docs/parity.md";

const HEAD: &str = "# Parity\n\n\
Every kernel in every form. Written by `cargo xtask parity` from which files there are; a gap is seen here and\n\
never forgotten. That a form is right is what `cargo xtask check` says, on the machine where it runs.\n\n\
| mark | meaning |\n|---|---|\n\
| ok | there, and there is a test file that goes over its cases on hardware that has it |\n\
| plain | one body of plain Rust serves this level: nothing in it gains from vectors |\n\
| emulated | the same, but on an emulator: no hardware has run it |\n\
| untested | there, and nothing runs it |\n\
| absent | not there |\n\n";

/// Writes the page.
pub fn write(root: &Path) -> Result<(), String> {
    let page = page(&Tree::read(root)?)?;
    std::fs::write(root.join(PAGE), page).map_err(|error| format!("{PAGE}: {error}"))
}

/// Fails if the page is not what the sources say.
pub fn check(root: &Path) -> Result<(), String> {
    let tree = Tree::read(root)?;
    if tree.text(PAGE) == Some(page(&tree)?.as_str()) {
        return Ok(());
    }
    Err(format!("{PAGE} is not what the sources say: run `cargo xtask parity`"))
}

/// The page as the sources have it.
pub fn page(tree: &Tree) -> Result<String, String> {
    let kernels = kernels(tree)?;
    let mut page = HEAD.to_owned();
    page +=
        "| kernel | commands | spec | scalar | AVX2 | AVX-512 | NEON | CUDA | Metal | C ABI |\n";
    page += "|---|---|---|---|---|---|---|---|---|---|\n";
    for stem in stems(&kernels) {
        writeln!(page, "{}", row(tree, &kernels, &stem)).expect("a string takes text");
    }
    Ok(page)
}

fn row(tree: &Tree, kernels: &[Kernel], stem: &str) -> String {
    let commands = kernels.iter().filter(|kernel| kernel.stem == stem);
    let commands: Vec<String> = commands.map(|kernel| format!("`{}`", kernel.variant)).collect();
    let there = |path: String, mark: &'static str| match tree.text(&path) {
        Some(_) => mark,
        None => "absent",
    };
    let folder = format!("kernels-core/src/{stem}/");
    let tested = tree.text(&format!("tests/tests/{stem}.rs")).is_some();
    let vectors = tree.under(&folder).any(|(_, text)| text.contains("levels!"));
    let cpu = tree.under(&folder).any(|(path, _)| path[folder.len()..].starts_with("cpu"));
    let level = |by_vectors: &'static str| match (cpu, tested, vectors) {
        (false, _, _) => "absent",
        (_, false, _) => "untested",
        (_, _, true) => by_vectors,
        _ => "plain",
    };
    // Devices take their cases from one list, which the emulator's tests go over.
    let listed = tree.text(DEVICES).is_some_and(|list| list.contains(&format!(" {stem}: |")));
    let on_devices = if listed { "emulated" } else { "untested" };
    let cells = [
        if tree.under(&folder).any(|(path, _)| path[folder.len()..].starts_with("spec")) {
            "ok"
        } else {
            "absent"
        },
        if cpu && tested { "ok" } else { level("ok") },
        level("ok"),
        level("ok"),
        level("emulated"),
        there(format!("cuda/kernels/{stem}.cu"), on_devices),
        there(format!("metal/kernels/{stem}.metal"), on_devices),
        there(format!("ffi/src/kernels/{stem}.rs"), "ok"),
    ];
    format!("| {stem} | {} | {} |", commands.join(", "), cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::{DEVICES, page};
    use crate::kernels::LIST;
    use crate::tidy::source::Tree;

    #[test]
    fn a_missing_test_or_form_shows() {
        let contract = "pub struct Norm(\"norm\", params::Norm) {}";
        let mut files = vec![
            (LIST, "kernels! { Norm }"),
            ("kernels-core/src/norm/mod.rs", contract),
            ("kernels-core/src/norm/spec.rs", ""),
            ("kernels-core/src/norm/cpu.rs", "crate::levels! {}"),
        ];
        let untested = page(&Tree::of(&files)).expect("there is a list");
        assert!(untested.contains("| norm | `Norm` | ok | untested | untested |"), "{untested}");
        files.push(("tests/tests/norm.rs", ""));
        let tested = page(&Tree::of(&files)).expect("there is a list");
        let row = "| norm | `Norm` | ok | ok | ok | ok | emulated | absent | absent | absent |";
        assert!(tested.contains(row), "{tested}");
        files.push(("cuda/kernels/norm.cu", ""));
        let on_devices = |files: &[_]| page(&Tree::of(files)).expect("there is a list");
        assert!(on_devices(&files).contains("| emulated | untested | absent |"));
        files.push((DEVICES, "            norm: |_| Held::Bits;"));
        assert!(on_devices(&files).contains("| emulated | emulated | absent |"));
    }
}
