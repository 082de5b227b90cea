//! `libpagewise` as it is installed: what it exports, and programs of C and C++ that find it
//! as embedders do. They run under the sanitizers of addresses and of undefined behaviour,
//! then under valgrind; programs of released versions run with the library of today.

mod programs;

use super::shell::Shell;
use super::tally::Tally;
use crate::install::header::{self, Header};
use crate::install::released::{self, Released, Version};
use crate::install::{Build, Installed, install, soname, symbols};
use std::fs;
use std::path::Path;

const PACKAGES: [&str; 4] = ["cmake", "libc6-dbg", "pkg-config", "valgrind"];
const TOOLS: [&str; 3] = ["cmake", "pkg-config", "valgrind"];

/// Installs it, looks at it, and runs everything.
pub fn check(shell: &Shell) -> Result<Tally, String> {
    if !TOOLS.iter().all(|tool| shell.has(tool))
        && let Err(by_hand) = shell.install(&PACKAGES)
    {
        return Ok(Tally::skipped(format!("tools are not here: {by_hand}")));
    }
    let folder = shell.target.join("check/abi");
    let library = installed(shell, &folder)?;
    let released = released::read(&shell.root)?;
    let mut tally = Tally::default();
    count(&mut tally, "the library", [exports(shell, &library)]);
    if !released.is_empty() {
        count(&mut tally, header::PATH, [kept(shell, &released)]);
    }
    let came = programs::by_pkg_config(shell, &folder, &library, &released, &mut tally);
    count(&mut tally, "pkg-config", came.err().map(Err));
    let came = programs::by_cmake(shell, &folder, &library, &mut tally);
    count(&mut tally, "cmake", came.err().map(Err));
    Ok(tally)
}

/// Counts what passed, and prints the rest.
fn count(tally: &mut Tally, of: &str, results: impl IntoIterator<Item = Result<(), String>>) {
    for result in results {
        match result {
            Ok(()) => tally.passed += 1,
            Err(message) => {
                println!("{of}: {message}");
                tally.failed += 1;
            }
        }
    }
}

/// Installs it where nothing is, and moves it: nothing in it may say where it was made.
pub fn installed(shell: &Shell, folder: &Path) -> Result<Installed, String> {
    let fault = |error: std::io::Error| format!("{}: {error}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(fault)?;
    }
    let (made, prefix) = (folder.join("made"), folder.join("prefix"));
    let installed = install(shell, &made, Build::Tests)?;
    fs::rename(&made, &prefix).map_err(fault)?;
    // A device for the programs that ask for it: the tests' own, as CUDA's plugin.
    let emulator = shell.target.join("debug/libemulator.so");
    if !emulator.exists() {
        return Ok(Installed { prefix, ..installed });
    }
    let plugins = prefix.join("plugins");
    fs::create_dir_all(&plugins).map_err(fault)?;
    fs::copy(&emulator, plugins.join(super::plugin::LIBRARY))
        .map_err(|error| format!("{}: {error}", emulator.display()))?;
    Ok(Installed { prefix, ..installed })
}

/// It exports the functions of the header, each at its version, and nothing else; and goes by
/// its soname.
fn exports(shell: &Shell, library: &Installed) -> Result<(), String> {
    let (expected, found) = (library.nodes.exports(), symbols::exported(&library.shared())?);
    let wrong: Vec<_> = expected.symmetric_difference(&found).map(String::as_str).collect();
    if !wrong.is_empty() {
        return Err(format!("exported and should not be, or the reverse: {}", wrong.join(", ")));
    }
    let dynamic = shell.run(shell.tool("readelf").arg("-d").arg(library.shared()))?;
    match dynamic.contains(&format!("Library soname: [{}]", soname())) {
        true => Ok(()),
        false => Err(format!("its soname is not {}", soname())),
    }
}

/// The header keeps what released versions promise.
fn kept(shell: &Shell, released: &[Released]) -> Result<(), String> {
    let today = Header::read(&shell.root.join(header::PATH))?;
    match released::broken(released, Version::of_workspace(), &today) {
        broken if broken.is_empty() => Ok(()),
        broken => Err(broken.join(", ")),
    }
}
