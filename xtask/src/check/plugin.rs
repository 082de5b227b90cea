//! CUDA's plugin where there is no card: it is linked to a stand-in for the driver and
//! tested on it; the host loads it, and what is no such plugin, and says why there is no
//! device; and works with it on a driver that only pretends.

use super::rust::count;
use super::shell::Shell;
use super::tally::Tally;
use crate::cuda::stub;
use std::path::Path;

/// A workspace of its own: it needs a driver to link, and nothing else does.
const MANIFEST: &str = "cuda/plugin/Cargo.toml";
/// A driver that does nothing, and aborts where a real one would be misused.
const PRETEND: &str = "cuda/plugin/pretend.c";
const LIBRARY: &str = "libpagewise_cuda.so";
/// Where the loader looks first.
const LIBRARIES: &str = "LD_LIBRARY_PATH";

/// A plugin of another build: its table begins as every build's does.
const ANOTHER: &str = "#include <pagewise/plugin.h>\n\
    static const struct pwp_table table = {\n\
    .struct_size = sizeof(struct pwp_table), .build = \"another\"};\n\
    const struct pwp_table *pagewise_plugin(void) { return &table; }\n";
/// A library that is no plugin.
const FOREIGN: &str = "int pagewise_nothing(void) { return 0; }\n";

/// Builds, tests and loads it.
pub fn check(shell: &Shell) -> Result<Tally, String> {
    let driver = stub::make(shell, &shell.root.join(MANIFEST))?;
    let drivers = driver.join("lib64");
    let target = shell.target.join("check/cuda/plugin");
    let cargo = |words: &[&str]| {
        let mut cargo = shell.cargo(words);
        cargo.args(["--locked", "--manifest-path", MANIFEST]).arg("--target-dir").arg(&target);
        cargo.env("CUDA_LIBRARY_PATH", &driver).env(LIBRARIES, &drivers);
        cargo.env("PAGEWISE_FATBINS", shell.target.join("check/cuda"));
        cargo
    };
    shell.run(&mut shell.cargo(&["fmt", "--manifest-path", MANIFEST, "--check"]))?;
    shell.run(cargo(&["clippy", "--all-targets"]).args(["--", "-D", "warnings"]))?;
    shell.run(&mut cargo(&["build", "--release"]))?;
    let mut tally = count(shell, &mut cargo(&["test", "--lib"]))?;
    // Format, lints and the build.
    tally.passed += 3;
    let loads = loads(shell, &target.join("release"), &drivers)?;
    (tally.passed, tally.failed) = (tally.passed + loads.passed, tally.failed + loads.failed);
    Ok(tally)
}

/// A folder that the host is given, and what it says of the plugin there.
struct Load<'a> {
    folder: &'a Path,
    /// Where the driver is looked for, before the system's own.
    drivers: Option<&'a Path>,
    /// One of these.
    says: &'a [&'a str],
}

/// The host says why there is no device, whatever lies in the folder.
fn loads(shell: &Shell, built: &Path, drivers: &Path) -> Result<Tally, String> {
    let folder = shell.target.join("check/cuda/loads");
    let at = |name: &str| folder.join(name);
    let [another, foreign, pretended, empty] = ["another", "foreign", "pretended", "empty"].map(at);
    std::fs::create_dir_all(&empty).map_err(|error| format!("{}: {error}", empty.display()))?;
    let pretend = std::fs::read_to_string(shell.root.join(PRETEND));
    let pretend = pretend.map_err(|error| format!("{PRETEND}: {error}"))?;
    compile(shell, &another.join(LIBRARY), ANOTHER)?;
    compile(shell, &foreign.join(LIBRARY), FOREIGN)?;
    compile(shell, &pretended.join(stub::SONAME), &pretend)?;
    let none = "does not load, is the driver installed? libcuda.so.1: cannot open";
    let loads = [
        // Where there is a driver, it answers.
        Load { folder: built, drivers: None, says: &[none, "opened in", "device: "] },
        Load {
            folder: built,
            drivers: Some(drivers),
            says: &["cuInit failed with 100: no CUDA device is here"],
        },
        // Its launches do nothing: memory stays as it was when it was made.
        Load {
            folder: built,
            drivers: Some(&pretended),
            says: &["a norm of twos gives 0\npretend: nothing is left"],
        },
        Load { folder: &another, drivers: None, says: &["of another build: it says another"] },
        Load { folder: &foreign, drivers: None, says: &["is no plugin of pagewise"] },
        Load { folder: &empty, drivers: None, says: &["there is no plugin"] },
    ];
    let words = ["build", "--locked", "--package", "pagewise-backends", "--example", "plugin"];
    shell.run(&mut shell.cargo(&words))?;
    let host = shell.target.join("debug/examples/plugin");
    let mut tally = Tally::default();
    for Load { folder, drivers, says } in loads {
        let mut command = shell.tool(&host.to_string_lossy());
        command.arg(folder).arg("cuda");
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
