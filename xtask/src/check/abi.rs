//! Programs in C and C++ against the built library: examples as a reader would build them,
//! tests under the sanitizers of addresses and of undefined behaviour.

use super::shell::Shell;
use super::tally::Tally;
use std::path::{Path, PathBuf};

/// Where programs are, from the root, and what they are built with.
const PROGRAMS: [(&str, &[&str]); 4] = [
    ("examples/c", &["-O2"]),
    ("examples/cpp", &["-O2"]),
    ("tests/abi", &["-g", "-fsanitize=address,undefined"]),
    // What sanitizers would do themselves.
    ("tests/abi/plain", &["-O2"]),
];

/// Builds and runs them.
pub fn programs(shell: &Shell) -> Result<Tally, String> {
    let words = ["rustc", "--locked", "--package", "pagewise-ffi", "--lib"];
    shell.run(shell.cargo(&words).args(["--crate-type", "cdylib,staticlib"]))?;
    let mut tally = Tally::default();
    for (folder, options) in PROGRAMS {
        for source in sources(&shell.root.join(folder))? {
            match program(shell, &source, options) {
                Ok(()) => tally.passed += 1,
                Err(message) => {
                    println!("{}: {message}", source.display());
                    tally.failed += 1;
                }
            }
        }
    }
    match tally.passed + tally.failed {
        0 => Err("there is no program to build".to_owned()),
        _ => Ok(tally),
    }
}

/// The programs of a folder, in order.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut sources: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "c" || end == "cpp"))
        .collect();
    sources.sort();
    Ok(sources)
}

fn program(shell: &Shell, source: &Path, options: &[&str]) -> Result<(), String> {
    let library = shell.target.join("debug");
    let out = shell.target.join("check/abi");
    std::fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let program = out.join(source.file_stem().unwrap_or_default());
    let cpp = source.extension().is_some_and(|end| end == "cpp");
    let (compiler, language) = if cpp { ("c++", "-std=c++17") } else { ("cc", "-std=c11") };
    let mut compile = shell.tool(compiler);
    compile.args([language, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Iinclude"]);
    compile.args(options).arg(source).arg("-L").arg(&library);
    compile.args(["-lpagewise", "-lpthread", "-lm", "-o"]).arg(&program);
    shell.run(&mut compile)?;
    let mut run = shell.tool(&program.to_string_lossy());
    shell.run(run.env("LD_LIBRARY_PATH", &library)).map(drop)
}
