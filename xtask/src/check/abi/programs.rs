//! Programs that embed `libpagewise`, of C and C++: by pkg-config and by CMake.

use super::count;
use crate::check::shell::Shell;
use crate::check::tally::Tally;
use crate::install::Installed;
use crate::install::files::with_extensions;
use crate::install::released::{Released, Version};
use std::path::{Path, PathBuf};

/// Folders of programs that run under sanitizers and under valgrind, from the root.
const WATCHED: [&str; 2] = ["examples/c", "tests/abi"];
/// Programs of C++, which run under sanitizers, and are too large for valgrind.
const CPP: &str = "examples/cpp";
/// Programs that do themselves what sanitizers and valgrind would.
const PLAIN: &str = "tests/abi/plain";
/// Programs that use the tests' own device, where it is built.
const DEVICE: &str = "tests/abi/device";
const HAS_DEVICE: bool = cfg!(all(target_arch = "x86_64", target_os = "linux"));
/// The one that is linked statically as well.
const STATIC: &str = "examples/c/decode.c";

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];
/// What a sanitizer finds ends the program.
const SANITIZED: [&str; 3] = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
/// What threads hold on to is no leak.
const VALGRIND: [&str; 5] = [
    "--quiet",
    "--error-exitcode=1",
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "--errors-for-leak-kinds=definite",
];

/// A program, and how it is built.
struct Program {
    /// Its path from the root without its end, as one word.
    name: String,
    source: PathBuf,
    /// Before the source.
    options: Vec<String>,
    /// After it.
    libraries: Vec<String>,
}

/// Builds programs by pkg-config and runs them, under sanitizers where they are not
/// plain: those of today, and those of released versions with their own header.
pub fn by_pkg_config(
    shell: &Shell,
    folder: &Path,
    library: &Installed,
    released: &[Released],
    tally: &mut Tally,
) -> Result<(), String> {
    let programs = programs(shell, library, released)?;
    if !HAS_DEVICE {
        tally.skipped.push(format!("no emulator on this CPU: {DEVICE}"));
    }
    let run = |shell: &Shell, program: &Program| {
        let binary = folder.join(&program.name);
        let cpp = program.source.extension().is_some_and(|end| end == "cpp");
        let (compiler, language) = if cpp { ("c++", "-std=c++17") } else { ("cc", "-std=c11") };
        let mut compile = shell.tool(compiler);
        compile.arg(language).args(STRICT).args(&program.options).arg(&program.source);
        compile.args(&program.libraries).args(["-lpthread", "-lm", "-o"]).arg(&binary);
        shell.run(&mut compile)?;
        let mut run = shell.tool(&binary.to_string_lossy());
        shell.run(run.env("LD_LIBRARY_PATH", library.prefix.join("lib"))).map(drop)
    };
    each(shell, "pkg-config", &programs, |program| &program.name, run, tally);
    Ok(())
}

fn programs(
    shell: &Shell,
    library: &Installed,
    released: &[Released],
) -> Result<Vec<Program>, String> {
    let flags = |words: &[&str]| pkg_config(shell, library, words);
    let include = flags(&["--cflags"])?;
    let libraries = flags(&["--libs"])?;
    // Where they are, what their header is, and what they are built with.
    let mut groups: Vec<(PathBuf, Vec<String>, &[&str])> = Vec::new();
    for folder in WATCHED.into_iter().chain([CPP]) {
        groups.push((folder.into(), include.clone(), &SANITIZED));
    }
    groups.push((PLAIN.into(), include.clone(), &["-O2"]));
    if HAS_DEVICE {
        groups.push((DEVICE.into(), include.clone(), &["-O2"]));
    }
    for Released { folder, .. } in released {
        let include = vec![format!("-I{}", folder.display())];
        groups.push((folder.clone(), include.clone(), &SANITIZED));
        let plain = folder.join("plain");
        if plain.exists() {
            groups.push((plain, include, &["-O2"]));
        }
    }
    let mut programs = Vec::new();
    for (folder, include, options) in groups {
        let options = options.iter().map(|option| (*option).to_owned());
        let options: Vec<String> = options.chain(include).collect();
        for source in with_extensions(&shell.root.join(folder), &["c", "cpp"])? {
            let (options, libraries) = (options.clone(), libraries.clone());
            programs.push(Program { name: name(shell, &source), source, options, libraries });
        }
    }
    let source = shell.root.join(STATIC);
    programs.push(Program {
        name: name(shell, &source) + "-static",
        source,
        options: [vec!["-static".to_owned()], include].concat(),
        libraries: flags(&["--static", "--libs"])?,
    });
    Ok(programs)
}

fn name(shell: &Shell, source: &Path) -> String {
    let path = source.with_extension("");
    let path = path.strip_prefix(&shell.root).unwrap_or(&path);
    path.to_string_lossy().replace('/', "-")
}

/// What pkg-config says of the library.
fn pkg_config(shell: &Shell, library: &Installed, words: &[&str]) -> Result<Vec<String>, String> {
    let mut ask = shell.tool("pkg-config");
    ask.env("PKG_CONFIG_PATH", library.prefix.join("lib/pkgconfig"));
    let flags = shell.run(ask.args(words).arg("pagewise"))?;
    Ok(flags.split_whitespace().map(str::to_owned).collect())
}

/// Builds all programs of today by CMake and runs them, those of C that are not plain under
/// valgrind. It hides AVX-512, so the library takes AVX2.
pub fn by_cmake(
    shell: &Shell,
    folder: &Path,
    library: &Installed,
    tally: &mut Tally,
) -> Result<(), String> {
    let build = folder.join("cmake");
    let (major, minor) = Version::of_workspace().minor();
    let mut configure = shell.tool("cmake");
    configure.args(["-S", "tests/abi", "-B"]).arg(&build).arg(format!("-DWANTED={major}.{minor}"));
    configure.arg(format!("-DCMAKE_PREFIX_PATH={}", library.prefix.display()));
    shell.run(&mut configure)?;
    shell.run(shell.tool("cmake").arg("--build").arg(&build).arg("--parallel"))?;

    let names = |folders: &[&str]| -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        for folder in folders {
            let sources = with_extensions(&shell.root.join(folder), &["c", "cpp"])?;
            names.extend(sources.iter().map(|source| name(shell, source)));
        }
        Ok(names)
    };
    let mut watched = names(&WATCHED)?;
    watched.push(name(shell, &shell.root.join(STATIC)) + "-static");
    let mut plain = names(&[PLAIN, CPP])?;
    if HAS_DEVICE {
        plain.extend(names(&[DEVICE])?);
    }
    let binary = |name: &str| build.join(name);
    let watch = |shell: &Shell, name: &String| {
        shell.run(shell.tool("valgrind").args(VALGRIND).arg(binary(name))).map(drop)
    };
    let run = |shell: &Shell, name: &String| {
        shell.run(&mut shell.tool(&binary(name).to_string_lossy())).map(drop)
    };
    each(shell, "valgrind", &watched, String::as_str, watch, tally);
    each(shell, "cmake", &plain, String::as_str, run, tally);
    Ok(())
}

/// Does a job for each, side by side, and counts what came of them.
fn each<T: Sync>(
    shell: &Shell,
    how: &str,
    all: &[T],
    name: impl Fn(&T) -> &str + Sync,
    job: impl Fn(&Shell, &T) -> Result<(), String> + Sync,
    tally: &mut Tally,
) {
    let called = |of: &T| format!("{how}-{}", name(of));
    let names: Vec<String> = all.iter().map(called).collect();
    let results = shell.side_by_side(&names, |shell, wanted| {
        let of = all.iter().find(|of| called(of) == wanted).expect("it is one of them");
        job(shell, of)
    });
    for (name, result) in names.iter().zip(results) {
        count(tally, name, [result]);
    }
}
