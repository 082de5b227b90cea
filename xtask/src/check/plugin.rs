//! CUDA's plugin where there is no card: it is linked to a stand-in for the driver and
//! tested on it; the host loads it, and what is no such plugin, and says why there is no
//! device; and works with it on a driver that only pretends.

use super::rust::count;
use super::shell::Shell;
use super::tally::Tally;
use crate::cuda::stub;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A workspace of its own: it needs a driver to link, and nothing else does.
const MANIFEST: &str = "cuda/plugin/Cargo.toml";
/// A driver that does nothing, and aborts where a real one would be misused.
const PRETEND: &str = "cuda/plugin/pretend.c";
/// The tests that run on it; the others want a driver without a device.
const ON_PRETENDED: &str = "pretended::";
/// The version that it says it has.
const VERSION: &str = "PRETEND_VERSION";
pub const LIBRARY: &str = "libpagewise_cuda.so";
/// Where the loader looks first.
const LIBRARIES: &str = "LD_LIBRARY_PATH";

/// A plugin of another build: its table begins as every build's does.
const ANOTHER: &str = "#include <pagewise/plugin.h>\n\
    static const struct pwp_table table = {\n\
    .struct_size = sizeof(struct pwp_table), .build = \"another\"};\n\
    const struct pwp_table *pagewise_plugin(void) { return &table; }\n";
/// A library that is no plugin.
const FOREIGN: &str = "int pagewise_nothing(void) { return 0; }\n";

/// Cargo with these words on the plugin, linked to the stand-in in `driver`; and where it
/// builds into.
fn cargo(shell: &Shell, driver: &Path, words: &[&str]) -> (Command, PathBuf) {
    let target = shell.target.join("check/cuda/plugin");
    let mut cargo = shell.cargo(words);
    cargo.args(["--locked", "--manifest-path", MANIFEST]).arg("--target-dir").arg(&target);
    cargo.env("CUDA_LIBRARY_PATH", driver).env(LIBRARIES, driver.join("lib64"));
    cargo.env("PAGEWISE_FATBINS", shell.target.join("check/cuda"));
    (cargo, target)
}

/// Builds the plugin and the program that runs the probes, for release; the folder they are in.
pub fn build(shell: &Shell) -> Result<PathBuf, String> {
    let driver = stub::make(shell, &shell.root.join(MANIFEST))?;
    let (mut cargo, target) = cargo(shell, &driver, &["build", "--release"]);
    shell.run(&mut cargo)?;
    Ok(target.join("release"))
}

/// Builds, tests and loads it.
pub fn check(shell: &Shell) -> Result<Tally, String> {
    let driver = stub::make(shell, &shell.root.join(MANIFEST))?;
    let drivers = driver.join("lib64");
    let target = shell.target.join("check/cuda/plugin");
    let cargo = |words: &[&str]| cargo(shell, &driver, words).0;
    shell.run(&mut shell.cargo(&["fmt", "--manifest-path", MANIFEST, "--check"]))?;
    shell.run(cargo(&["clippy", "--all-targets"]).args(["--", "-D", "warnings"]))?;
    shell.run(&mut cargo(&["build", "--release"]))?;
    let pretended = pretended(shell)?;
    let without = count(shell, cargo(&["test", "--lib"]).args(["--", "--skip", ON_PRETENDED]))?;
    // Whether something is left is known where one test has ended before the next begins.
    let mut with = cargo(&["test", "--lib"]);
    with.args(["--", ON_PRETENDED, "--test-threads=1"]).env(LIBRARIES, &pretended);
    let with = count(shell, &mut with)?;
    let loads = loads(shell, &target.join("release"), &drivers, &pretended)?;
    if with.passed == 0 && with.failed == 0 {
        return Err(format!("no test is called {ON_PRETENDED}"));
    }
    // Format, lints and the build.
    let done = Tally { passed: 3, ..Tally::default() };
    Tally::sum([done, without, with, loads].map(Ok))
}

/// Makes the driver that only pretends; the folder it is in.
fn pretended(shell: &Shell) -> Result<PathBuf, String> {
    let folder = shell.target.join("check/cuda/loads/pretended");
    let source = std::fs::read_to_string(shell.root.join(PRETEND));
    let source = source.map_err(|error| format!("{PRETEND}: {error}"))?;
    compile(shell, &folder.join(stub::SONAME), &source)?;
    Ok(folder)
}

/// A folder that the host is given, and what it says of the plugin there.
#[derive(Clone, Copy)]
struct Load<'a> {
    folder: &'a Path,
    /// Where the driver is looked for, before the system's own.
    drivers: Option<&'a Path>,
    /// The version that a driver says it has, where it pretends.
    version: &'a str,
    /// One of these.
    says: &'a [&'a str],
}

/// The host says why there is no device, whatever lies in the folder.
fn loads(shell: &Shell, built: &Path, drivers: &Path, pretended: &Path) -> Result<Tally, String> {
    let folder = shell.target.join("check/cuda/loads");
    let [another, foreign, empty] = ["another", "foreign", "empty"].map(|name| folder.join(name));
    std::fs::create_dir_all(&empty).map_err(|error| format!("{}: {error}", empty.display()))?;
    compile(shell, &another.join(LIBRARY), ANOTHER)?;
    compile(shell, &foreign.join(LIBRARY), FOREIGN)?;
    let (none, no_device) = (
        "does not load, is the driver installed? libcuda.so.1: cannot open",
        "cuInit failed with 100: no CUDA device is here",
    );
    // A machine without a driver says so. One with a driver has the right answer, or what a
    // machine may lack: a device, a newer driver, a newer card. Anything else is a fault.
    let here = [
        none,
        "a norm of twos gives 1\n",
        "cuInit failed with 100: ",
        "device: driver is ",
        "device: compute_capability is ",
    ];
    let load = Load { folder: built, drivers: None, version: "", says: &[] };
    let loads = [
        Load { says: &here, ..load },
        Load { drivers: Some(drivers), says: &[no_device], ..load },
        // Its launches do nothing: memory stays as it was when it was made.
        Load {
            drivers: Some(pretended),
            version: "99000",
            says: &["a norm of twos gives 0\npretend: nothing is left"],
            ..load
        },
        Load {
            drivers: Some(pretended),
            version: "11040",
            says: &["device: driver is 11040, this backend has "],
            ..load
        },
        Load { folder: &another, says: &["of another build: it says another"], ..load },
        Load { folder: &foreign, says: &["is no plugin of pagewise"], ..load },
        Load { folder: &empty, says: &["there is no plugin"], ..load },
    ];
    let words = ["build", "--locked", "--workspace", "--example", "plugin"];
    shell.run(&mut shell.cargo(&words))?;
    let host = shell.target.join("debug/examples/plugin");
    let mut tally = Tally::default();
    for Load { folder, drivers, version, says } in loads {
        let mut command = shell.tool(&host.to_string_lossy());
        command.arg(folder).arg("cuda").env(VERSION, version);
        match drivers {
            Some(drivers) => command.env(LIBRARIES, drivers),
            None => command.env_remove(LIBRARIES),
        };
        let (_, output) = shell.attempt(&mut command)?;
        if says.iter().any(|words| output.contains(words)) {
            tally.passed += 1;
        } else {
            tally.failed += 1;
            println!("{}: {}, where {says:?} is to be said", folder.display(), output.trim());
        }
    }
    Ok(tally)
}

/// Makes a library of a source.
fn compile(shell: &Shell, library: &Path, source: &str) -> Result<(), String> {
    let file = library.with_extension("c");
    let folder = library.parent().unwrap_or(library);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&file, source))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let mut compiler = shell.tool("cc");
    compiler.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I", "include"]);
    shell.run(compiler.arg("-o").arg(library).arg(&file)).map(drop)
}
