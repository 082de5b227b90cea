//! `cargo xtask install`: `libpagewise` as C takes it, in a folder that may be moved: the
//! header, a static and a shared library, and what pkg-config and CMake read.
//!
//! The shared library is linked from the static one by `cc`: rustc has a version script of
//! its own for such libraries, and linkers take no second one beside it.

pub mod files;
pub mod header;
pub mod released;
pub mod symbols;

use crate::check::shell::Shell;
use files::{copy, read, write};
use header::Header;
use released::{Released, Version};
use std::path::{Path, PathBuf};
use symbols::Nodes;

/// What pkg-config and CMake read, from the root, and where it goes.
const DESCRIPTIONS: [(&str, &str); 3] = [
    ("ffi/package/pagewise.pc.in", "lib/pkgconfig/pagewise.pc"),
    ("ffi/package/pagewise-config.cmake.in", "lib/cmake/pagewise/pagewise-config.cmake"),
    (
        "ffi/package/pagewise-config-version.cmake.in",
        "lib/cmake/pagewise/pagewise-config-version.cmake",
    ),
];
/// The shared library as linkers look for it; a version makes it a file and a soname.
const SHARED: &str = "libpagewise.so";
/// What a C compiler links with by itself, with `-static` as well, where it calls the
/// unwinder by another name.
const OF_COMPILER: [&str; 2] = ["-lgcc_s", "-lc"];

/// Where to, and how it is built.
#[derive(clap::Args)]
pub struct Options {
    /// The folder, made where it is not there.
    #[arg(long)]
    prefix: PathBuf,
    /// The profile of cargo.
    #[arg(long, default_value = "release")]
    profile: String,
}

/// What was installed.
pub struct Installed {
    /// Where.
    pub prefix: PathBuf,
    /// What the shared library exports.
    pub nodes: Nodes,
}

impl Installed {
    /// The shared library itself, which is what its links lead to.
    pub fn shared(&self) -> PathBuf {
        self.prefix.join("lib").join(file())
    }
}

/// The chore.
pub fn run(root: &Path, options: &Options) -> Result<(), String> {
    let shell = Shell::new(root, "install")?;
    println!("building libpagewise by the profile {}, which takes minutes", options.profile);
    let fault = |error| format!("{}: {error}", options.prefix.display());
    let prefix = std::path::absolute(&options.prefix).map_err(fault)?;
    let of = Build::Package { profile: &options.profile };
    install(&shell, &prefix, of)?;
    let prefix = prefix.display();
    println!(
        "installed into {prefix}: include/pagewise.h, lib/{SHARED}, lib/libpagewise.a

export PKG_CONFIG_PATH={prefix}/lib/pkgconfig LD_LIBRARY_PATH={prefix}/lib
cc program.c $(pkg-config --cflags --libs pagewise) -o program
cmake -DCMAKE_PREFIX_PATH={prefix} …    # find_package(pagewise), pagewise::pagewise"
    );
    Ok(())
}

/// What is built for it.
#[derive(Clone, Copy)]
pub enum Build<'a> {
    /// The library alone.
    Package { profile: &'a str },
    /// What the tests build, of which it is a part: after them nothing is left to build.
    Tests,
}

/// Builds it and puts it there.
pub fn install(shell: &Shell, prefix: &Path, of: Build<'_>) -> Result<Installed, String> {
    if std::env::consts::OS != "linux" {
        let by_hand = "cargo rustc --release -p pagewise-ffi --lib --crate-type cdylib,staticlib";
        return Err(format!("packages are made for Linux alone; elsewhere: {by_hand}"));
    }
    let header = Header::read(&shell.root.join(header::PATH))?;
    let released = released::read(&shell.root)?;
    let archive = archive(shell, of)?;
    let nodes = nodes(&header, &released, &archive.path)?;
    let shared = link(shell, &archive, &nodes)?;

    let (include, lib) = (prefix.join("include"), prefix.join("lib"));
    copy(&shell.root.join(header::PATH), &include)?;
    copy(&archive.path, &lib)?;
    copy(&shared, &lib)?;
    for (file, link) in [(file(), soname()), (soname(), SHARED.to_owned())] {
        shell.run(shell.tool("ln").args(["-sf", &file]).arg(lib.join(link)))?;
    }
    for (template, to) in DESCRIPTIONS {
        let text = filled(&read(&shell.root.join(template))?, &archive.needs);
        write(&prefix.join(to), &text)?;
    }
    Ok(Installed { prefix: prefix.to_owned(), nodes })
}

/// The static library.
struct Archive {
    path: PathBuf,
    /// Libraries of the system that it needs, as `-lm`.
    needs: Vec<String>,
}

fn archive(shell: &Shell, of: Build<'_>) -> Result<Archive, String> {
    let mut build = shell.cargo(&["build", "--locked"]);
    let folder = match of {
        Build::Package { profile } => {
            build.args(["--package", "pagewise-ffi", "--lib", "--profile", profile]);
            if profile == "dev" { "debug" } else { profile }
        }
        Build::Tests => {
            build.args(["--workspace", "--lib", "--bins", "--tests"]);
            "debug"
        }
    };
    shell.run(&mut build)?;
    let path = shell.target.join(folder).join("libpagewise.a");
    Ok(Archive { path, needs: needs(shell)? })
}

/// Libraries of the system that any static library of Rust's needs: ours needs no others, or it
/// is not linked.
fn needs(shell: &Shell) -> Result<Vec<String>, String> {
    let (source, nothing) = (shell.target.join("nothing.rs"), shell.target.join("libnothing.a"));
    write(&source, "")?;
    let mut ask = shell.tool("rustc");
    ask.args(["--crate-type", "staticlib", "--print", "native-static-libs", "-o"]);
    let output = shell.run(ask.arg(&nothing).arg(&source))?;
    let mut needs = output.lines().filter_map(|line| line.split_once("native-static-libs: "));
    let (_, needs) = needs.next().ok_or("rustc does not say what a static library needs")?;
    let needs = needs.split_whitespace().filter(|library| !OF_COMPILER.contains(library));
    Ok(needs.map(str::to_owned).collect())
}

/// What is exported: the functions of the header, all of which the archive has.
fn nodes(header: &Header, released: &[Released], archive: &Path) -> Result<Nodes, String> {
    let version = Version::of_workspace();
    if header.version() != Some(version.minor()) {
        let workspace = env!("CARGO_PKG_VERSION");
        return Err(format!("{}: PW_VERSION is not the workspace's {workspace}", header::PATH));
    }
    let defined = symbols::defined(archive)?;
    let (declared, lacking): (Vec<&str>, Vec<&str>) =
        header.functions().partition(|name| defined.contains(*name));
    if !lacking.is_empty() {
        return Err(format!("{} declares, and there is not, {}", header::PATH, lacking.join(", ")));
    }
    let undeclared = defined.iter().filter(|name| !declared.contains(&name.as_str()));
    let undeclared: Vec<&str> = undeclared.map(String::as_str).collect();
    if !undeclared.is_empty() {
        return Err(format!("{} does not declare {}", header::PATH, undeclared.join(", ")));
    }
    Nodes::of(&declared, released, version)
}

/// Makes the shared library beside the static one.
fn link(shell: &Shell, archive: &Archive, nodes: &Nodes) -> Result<PathBuf, String> {
    let (shared, script) =
        (archive.path.with_file_name(file()), archive.path.with_extension("map"));
    write(&script, &nodes.script())?;
    let mut link = shell.tool("cc");
    link.arg("-shared").arg("-o").arg(&shared).arg(format!("-Wl,-soname,{}", soname()));
    link.arg(format!("-Wl,--version-script={}", script.display()));
    // An archive gives what is asked for, and what that needs.
    link.args(nodes.functions().map(|name| format!("-Wl,-u,{name}")));
    link.args(["-Wl,--no-undefined-version", "-Wl,-z,defs", "-Wl,--gc-sections"]);
    link.args(["-Wl,-z,relro,-z,now", "-Wl,--as-needed"]);
    shell.run(link.arg(&archive.path).args(&archive.needs))?;
    Ok(shared)
}

fn filled(template: &str, needs: &[String]) -> String {
    let Version { major, minor, .. } = Version::of_workspace();
    let names = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("major", major.to_string()),
        ("minor", minor.to_string()),
        ("pointer_bytes", size_of::<usize>().to_string()),
        ("file", file()),
        ("soname", soname()),
        ("libs", needs.join(" ")),
        ("libs_listed", needs.join(";")),
    ];
    names
        .iter()
        .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

/// What programs ask the loader for.
pub fn soname() -> String {
    format!("{SHARED}.{}", Version::of_workspace().major)
}

/// The file that it is.
fn file() -> String {
    format!("{SHARED}.{}", env!("CARGO_PKG_VERSION"))
}
