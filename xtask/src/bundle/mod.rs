//! `cargo xtask gpu-bundle`: a folder that is carried to a machine with a card, whose `run.sh`
//! checks and times there what only a card can show. Nothing is compiled or fetched on that
//! machine.

use crate::check::shell::Shell;
use crate::check::{cuda, plugin};
use clap::Args;
use std::path::{Path, PathBuf};

/// What all files of the folder may weigh: what a slow line carries in a minute or two.
const BYTES_MAX: u64 = 40 << 20;
const FOLDER: &str = "gpu-bundle";
const RUN: &str = include_str!("run.sh");
const PEERS: &str = include_str!("peers.py");

/// The chore's settings.
#[derive(Args)]
pub struct Options {
    /// The folder; `gpu-bundle` in the target folder.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Wheels of peers, to be carried along: peers that are not among them are run if the
    /// machine's own python3 has them.
    #[arg(long)]
    wheels: Option<PathBuf>,
    /// The profile of cargo that `pagewise-device` is built by.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Build the emulated device in place of CUDA's, to try the folder where no card is.
    #[arg(long)]
    emulated: bool,
}

/// Makes the folder.
pub fn run(root: &Path, options: &Options) -> Result<(), String> {
    let shell = Shell::new(root, FOLDER)?;
    let folder = options.out.clone().unwrap_or_else(|| shell.target.join(FOLDER));
    let bundle = Bundle::at(&folder)?;
    let words = ["build", "--locked", "--package", "pagewise-tests", "--bin", "pagewise-device"];
    shell.run(shell.cargo(&words).args(["--profile", &options.profile]))?;
    let built = shell.target.join(match options.profile.as_str() {
        "dev" => "debug",
        profile => profile,
    });
    bundle.program(&shell, &built.join("pagewise-device"), "pagewise-device")?;
    println!("the emulator writes the probes' tables");
    let words = ["run", "--locked", "--package", "pagewise-emulator", "--example", "probe-tables"];
    shell.run(shell.cargo(&words).arg("--").arg(folder.join("probe-tables.txt")))?;
    match options.emulated {
        true => {
            let words = ["build", "--locked", "--package", "pagewise-emulator", "--lib"];
            shell.run(&mut shell.cargo(&words))?;
            let library = shell.target.join("debug/libemulator.so");
            bundle.program(&shell, &library, plugin::LIBRARY)?;
        }
        false => {
            println!("the kernels are compiled");
            cuda::fatbins(&shell)?;
            let built = plugin::build(&shell)?;
            bundle.program(&shell, &built.join(plugin::LIBRARY), plugin::LIBRARY)?;
            bundle.program(&shell, &built.join("pagewise-probe"), "pagewise-probe")?;
            bundle.copy(&shell.target.join("check/cuda/probe.fatbin"), "probe.fatbin")?;
        }
    }
    bundle.write("peers.py", PEERS)?;
    bundle.write("run.sh", RUN)?;
    executable(&folder.join("run.sh"))?;
    if let Some(wheels) = &options.wheels {
        bundle.wheels(wheels)?;
    }
    let files = bundle.files()?;
    let bytes = bounded(&files)?;
    for (name, bytes) in &files {
        println!("{:>9} KiB  {name}", bytes.div_ceil(1024));
    }
    let (major, minor) = bundle.glibc()?;
    println!(
        "{}: {:.1} MiB. Its programs need glibc {major}.{minor} or later and a driver as \
         docs/devices.md says; on the machine with the card: ./run.sh",
        folder.display(),
        bytes as f64 / f64::from(1 << 20)
    );
    Ok(())
}

/// The folder that is made.
struct Bundle<'a>(&'a Path);

impl<'a> Bundle<'a> {
    /// A folder that is there already has to be one of ours.
    fn at(folder: &'a Path) -> Result<Self, String> {
        let fault = |error| format!("{}: {error}", folder.display());
        let is_ours = folder.join("run.sh").exists();
        if folder.exists() && !is_ours && folder.read_dir().map_err(fault)?.next().is_some() {
            return Err(format!("{} is there, and no bundle: name another", folder.display()));
        }
        // What an earlier one brought along; results of its run stay.
        for old in ["wheels", "pagewise-probe", "probe.fatbin"].map(|name| folder.join(name)) {
            let removed = match old.is_dir() {
                true => std::fs::remove_dir_all(&old),
                false if old.exists() => std::fs::remove_file(&old),
                false => Ok(()),
            };
            removed.map_err(fault)?;
        }
        std::fs::create_dir_all(folder).map_err(fault)?;
        Ok(Self(folder))
    }

    fn copy(&self, from: &Path, name: &str) -> Result<(), String> {
        let copied = std::fs::copy(from, self.0.join(name));
        copied.map(drop).map_err(|error| format!("{}: {error}", from.display()))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        std::fs::write(self.0.join(name), text).map_err(|error| format!("{name}: {error}"))
    }

    /// Copies a program or a library without what debuggers read.
    fn program(&self, shell: &Shell, from: &Path, name: &str) -> Result<(), String> {
        self.copy(from, name)?;
        shell.run(shell.tool("strip").arg("--strip-debug").arg(absolute(self.0)?.join(name)))?;
        Ok(())
    }

    fn wheels(&self, from: &Path) -> Result<(), String> {
        let fault = |error| format!("{}: {error}", from.display());
        let folder = self.0.join("wheels");
        std::fs::create_dir_all(&folder).map_err(fault)?;
        for file in std::fs::read_dir(from).map_err(fault)? {
            let path = file.map_err(fault)?.path();
            if path.extension().is_some_and(|end| end == "whl") {
                let name = path.file_name().expect("files of a folder have names");
                std::fs::copy(&path, folder.join(name)).map_err(fault)?;
            }
        }
        Ok(())
    }

    /// Every file that is carried, with its bytes: results of a run are not.
    fn files(&self) -> Result<Vec<(String, u64)>, String> {
        let mut files = Vec::new();
        for folder in [self.0.to_owned(), self.0.join("wheels")] {
            for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let fault = |error| format!("{}: {error}", file.path().display());
                let about = file.metadata().map_err(fault)?;
                if about.is_file() {
                    files.push((file.file_name().to_string_lossy().into_owned(), about.len()));
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// The C library that its programs need.
    fn glibc(&self) -> Result<(u32, u32), String> {
        let programs = ["pagewise-device", "pagewise-probe", plugin::LIBRARY];
        let paths = programs.map(|name| self.0.join(name));
        let mut most = (2, 0);
        for path in paths.iter().filter(|path| path.exists()) {
            let bytes = std::fs::read(path);
            let bytes = bytes.map_err(|error| format!("{}: {error}", path.display()))?;
            most = most.max(glibc_of(&bytes));
        }
        Ok(most)
    }
}

/// What all files weigh, if they may.
fn bounded(files: &[(String, u64)]) -> Result<u64, String> {
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    if bytes <= BYTES_MAX {
        return Ok(bytes);
    }
    let mut largest: Vec<&(String, u64)> = files.iter().collect();
    largest.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let largest = largest.iter().take(3).map(|(name, bytes)| format!("{name} {bytes}"));
    Err(format!(
        "the bundle has {bytes} bytes, {BYTES_MAX} at most: the largest are {}",
        largest.collect::<Vec<_>>().join(", ")
    ))
}

/// The newest version of the C library's symbols that a program asks for, by the names in it.
fn glibc_of(program: &[u8]) -> (u32, u32) {
    const NAME: &[u8] = b"GLIBC_";
    let mut most = (2, 0);
    for at in 0..program.len().saturating_sub(NAME.len()) {
        if !program[at..].starts_with(NAME) {
            continue;
        }
        let rest = &program[at + NAME.len()..];
        let is_version = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
        let length = rest.iter().take(16).take_while(|byte| is_version(byte)).count();
        let version = String::from_utf8_lossy(&rest[..length]).into_owned();
        let mut numbers = version.split('.').map(str::parse);
        if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) {
            most = most.max((major, minor));
        }
    }
    most
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(unix)]
fn executable(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let made = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755));
    made.map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(not(unix))]
fn executable(_path: &Path) -> Result<(), String> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests;
