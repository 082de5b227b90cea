//! Builds the emulator and every kernel with g++: each file once, and again only when it, a
//! header or the flags have changed.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"];
/// Contractions would fuse what the kernels keep apart.
const ARITHMETIC: [&str; 3] = ["-ffp-contract=off", "-mfma", "-mf16c"];

fn main() {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = fs::canonicalize(here.join("../..")).expect("the checkout is there");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let watched =
        ["include/pagewise", "cuda/kernels", "cuda/probe", "metal/kernels", "tests/emulator"];
    watched
        .iter()
        .for_each(|path| println!("cargo::rerun-if-changed={}", root.join(path).display()));
    println!("cargo::rustc-check-cfg=cfg(emulated)");
    let target = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    if target != "x86_64" || env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os != "linux") {
        // Threads of a block switch by hand, in this machine's own words.
        return;
    }
    println!("cargo::rustc-cfg=emulated");
    let headers = hash_of(&[
        &root.join("include/pagewise"),
        &root.join("cuda/kernels"),
        &here,
        &root.join("metal/kernels"),
    ]);
    let sources = sources(&root);
    let objects = objects(&root, &out, headers, &sources);
    let archive = out.join("libemulated.a");
    let _ = fs::remove_file(&archive);
    let mut ar = Command::new("ar");
    run(ar.arg("crs").arg(&archive).args(&objects));
    println!("cargo::rustc-link-search=native={}", out.display());
    // Kernels register themselves: nobody calls them by name.
    println!("cargo::rustc-link-lib=static:+whole-archive=emulated");
    println!("cargo::rustc-link-lib=stdc++");
    if env::var_os("CARGO_FEATURE_SANITIZED").is_some() {
        // Static: a dynamic one would have to come before every other library.
        println!("cargo::rustc-link-search=native={}", folder_of("libasan.a").display());
        println!("cargo::rustc-link-lib=static:+whole-archive,-bundle=asan");
    }
}

/// Every file, in order.
fn sources(root: &Path) -> Vec<PathBuf> {
    let folders = [
        ("cuda/kernels", "cu"),
        ("cuda/probe", "cu"),
        ("metal/kernels", "metal"),
        ("tests/emulator/faults", "cu"),
        ("tests/emulator/faults", "metal"),
        ("tests/emulator/runtime", "cpp"),
        ("tests/emulator/cuda", "cpp"),
        ("tests/emulator/metal", "cpp"),
    ];
    let mut sources = Vec::new();
    for (folder, extension) in folders {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        sources.extend(paths.filter(|path| path.extension().is_some_and(|it| it == extension)));
    }
    sources.sort();
    sources
}

/// Compiles what is not there yet, as many at a time as cargo says.
fn objects(root: &Path, out: &Path, headers: u64, sources: &[PathBuf]) -> Vec<PathBuf> {
    let next = AtomicUsize::new(0);
    let objects = Mutex::new(vec![PathBuf::new(); sources.len()]);
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(source) = sources.get(at) else { break };
                    let object = object(root, out, headers, source);
                    objects.lock().expect("no thread has panicked")[at] = object;
                }
            });
        }
    });
    objects.into_inner().expect("no thread has panicked")
}

fn object(root: &Path, out: &Path, headers: u64, source: &Path) -> PathBuf {
    let stem = source.file_stem().expect("a file").to_string_lossy();
    let kind = source.extension().expect("it was found by it").to_string_lossy();
    let mut compile = Command::new("g++");
    let level = if is_detecting() { "-O1" } else { "-O2" };
    compile.args(["-std=c++20", level, "-g1", "-fPIC", "-fno-strict-aliasing"]);
    compile.args(WARNINGS).args(ARITHMETIC).args(modes(&kind));
    let dialect = if kind == "metal" || source.starts_with(root.join("tests/emulator/metal")) {
        "metal"
    } else {
        "cuda"
    };
    let own = [format!("{dialect}/kernels"), format!("tests/emulator/{dialect}")];
    let shared = ["include", "tests/emulator/runtime", ""].map(str::to_owned);
    for folder in own.iter().chain(&shared) {
        compile.arg("-I").arg(root.join(folder));
    }
    if kind == "metal" {
        compile.arg("-DPAGEWISE_METAL");
    }
    let unit = match kind.as_ref() {
        "cpp" => source.to_owned(),
        _ => unit(root, out, source),
    };
    compile.arg("-DPAGEWISE_EMULATED").args(["-x", "c++", "-c"]).arg(unit);
    let mut hasher = DefaultHasher::new();
    (headers, format!("{compile:?}"), fs::read(source).expect("it is there")).hash(&mut hasher);
    let object = out.join(format!("{stem}-{kind}-{:016x}.o", hasher.finish()));
    if !object.exists() {
        // Under another name until it is whole.
        let part = object.with_extension("part");
        run(compile.arg("-o").arg(&part));
        fs::rename(&part, &object).expect("the folder is ours");
    }
    object
}

/// A kernel in a namespace of its own: CUDA's and Metal's have the same names, and what of
/// them is a template would become one.
fn unit(root: &Path, out: &Path, source: &Path) -> PathBuf {
    let within = source.strip_prefix(root).expect("sources are the checkout's");
    let words = within.display().to_string();
    let name = words.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let text = format!("#include \"kernel.h\"\nnamespace {name} {{\n#include \"{words}\"\n}}\n");
    let path = out.join(format!("{name}.cpp"));
    fs::write(&path, text).expect("the folder is ours");
    path
}

/// What a feature adds. The detector of races watches kernels, not the emulator; so does that
/// of undefined behaviour, whose finds are the emulator's to tell.
fn modes(kind: &str) -> Vec<&'static str> {
    let mut flags = Vec::new();
    if env::var_os("CARGO_FEATURE_SANITIZED").is_some() {
        flags.extend(["-fsanitize=address", "-fsanitize-recover=address"]);
        flags.push("-fno-omit-frame-pointer");
        if kind != "cpp" {
            flags.extend(["-fsanitize=undefined,float-cast-overflow", "-fno-sanitize=vptr"]);
        }
    }
    if env::var_os("CARGO_FEATURE_RACES").is_some() {
        flags.push("-DPAGEWISE_RACES");
        if kind != "cpp" {
            flags.push("-fsanitize=thread");
            // What becomes a call of the library would escape the detector.
            flags.push("-fno-tree-loop-distribute-patterns");
            flags.extend(["-fno-builtin-memcpy", "-fno-builtin-memset"]);
        }
    }
    flags
}

/// Whether a detector watches: what it adds costs more to compile than it gains.
fn is_detecting() -> bool {
    ["SANITIZED", "RACES"].iter().any(|it| env::var_os(format!("CARGO_FEATURE_{it}")).is_some())
}

/// The folder of a library that g++ brings.
fn folder_of(library: &str) -> PathBuf {
    let told = Command::new("g++").arg(format!("-print-file-name={library}")).output();
    let path = told.expect("g++ was just used").stdout;
    let path = PathBuf::from(String::from_utf8_lossy(&path).trim());
    path.parent().expect("a file in a folder").to_owned()
}

/// One number for what all files of some folders hold.
fn hash_of(folders: &[&Path]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for folder in folders {
        let mut paths = Vec::new();
        headers_below(folder, &mut paths);
        paths.sort();
        paths.iter().for_each(|path| fs::read(path).expect("it is there").hash(&mut hasher));
    }
    hasher.finish()
}

fn headers_below(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            headers_below(&path, paths);
        } else if path.extension().is_none_or(|it| it == "h") {
            paths.push(path);
        }
    }
}

fn run(command: &mut Command) {
    let status = command.status();
    let succeeded = status.as_ref().is_ok_and(|status| status.success());
    assert!(succeeded, "{command:?}: {status:?}; apt-get install g++");
}
