//! Runs the tools a stage needs. Their whole output goes to a file per stage; what
//! a reader needs of it is printed when they fail.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Lines of a failed tool that are printed.
const LINES_SHOWN: usize = 200;
/// Property tests draw the same cases in every check, so that a second run says what the
/// first did; a seed or a count in the environment goes before it.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "2026");

/// What is built for release, always together: cargo builds what two selections share anew
/// for each, where their features differ.
pub const RELEASE: [&str; 5] =
    ["--locked", "--package", "pagewise", "--package", "pagewise-benches"];

/// What changes the system.
const INSTALLERS: [&str; 2] = ["apt-get", "rustup"];

/// Where a stage runs its tools.
pub struct Shell {
    /// The checkout.
    pub root: PathBuf,
    /// What cargo builds into.
    pub target: PathBuf,
    stage: String,
    log: PathBuf,
}

impl Shell {
    /// A shell of one stage, with an empty log.
    pub fn new(root: &Path, stage: &str) -> Result<Self, String> {
        let target = std::env::var_os("CARGO_TARGET_DIR");
        let target = target.map_or_else(|| root.join("target"), |folder| root.join(folder));
        let log = target.join("check").join(format!("{stage}.log"));
        let made = std::fs::create_dir_all(target.join("check")).and_then(|()| File::create(&log));
        made.map_err(|error| format!("{}: {error}", log.display()))?;
        Ok(Self { root: root.to_owned(), target, stage: stage.to_owned(), log })
    }

    /// Does a job for each name, as many at a time as there are cores, each in a shell
    /// with a log of its own; what came of them, in order. For tools that keep to one core.
    pub fn side_by_side<R: Send>(
        &self,
        names: &[String],
        job: impl Fn(&Self, &str) -> Result<R, String> + Sync,
    ) -> Vec<Result<R, String>> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let at = next.fetch_add(1, Ordering::Relaxed)
                && let Some(name) = names.get(at)
            {
                let shell = Self::new(&self.root, &format!("{}-{name}", self.stage));
                done.push((at, shell.and_then(|shell| job(&shell, name))));
            }
            done
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut done = thread::scope(|scope| {
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            let ended =
                |worker: thread::ScopedJoinHandle<'_, _>| worker.join().expect("a job ends");
            workers.into_iter().flat_map(ended).collect::<Vec<_>>()
        });
        done.sort_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, came)| came).collect()
    }

    /// `cargo` with these words; a toolchain may come first (`+nightly`).
    pub fn cargo(&self, words: &[&str]) -> Command {
        let mut command = self.seeded("cargo");
        command.args(words);
        if words.first().is_some_and(|word| word.starts_with('+')) {
            // What cargo has set for xtask belongs to the pinned toolchain.
            for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"] {
                command.env_remove(name);
            }
        }
        command
    }

    /// A tool that runs tests, with the seed of their random cases.
    pub fn seeded(&self, name: &str) -> Command {
        let mut command = self.tool(name);
        if std::env::var_os(SEED.0).is_none() {
            command.env(SEED.0, SEED.1);
        }
        command
    }

    /// A tool, run in the root of the checkout.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.current_dir(&self.root);
        command
    }

    /// Runs it; its output, or what a reader needs to see of it.
    pub fn run(&self, command: &mut Command) -> Result<String, String> {
        match self.attempt(command)? {
            (true, output) => Ok(output),
            (false, output) => Err(format!("{}\nfailed: {}", tail(&output), said(command))),
        }
    }

    /// Runs it; whether it succeeded, and its output. What changes the system runs alone.
    pub fn attempt(&self, command: &mut Command) -> Result<(bool, String), String> {
        static OF_SYSTEM: Mutex<()> = Mutex::new(());
        let changes = INSTALLERS.iter().any(|name| command.get_program() == *name);
        let _alone = changes.then(|| OF_SYSTEM.lock());
        let words = said(command);
        let fault = |error: std::io::Error| format!("{words}: {error}");
        let before = std::fs::metadata(&self.log).map_err(fault)?.len() as usize;
        let log = || OpenOptions::new().append(true).open(&self.log).map_err(fault);
        command.stdin(Stdio::null()).stdout(log()?).stderr(log()?);
        let status = command.status().map_err(fault)?;
        let bytes = std::fs::read(&self.log).map_err(fault)?;
        let output = String::from_utf8_lossy(&bytes[before..]).into_owned();
        Ok((status.success(), output))
    }

    /// Whether a tool is there.
    pub fn has(&self, name: &str) -> bool {
        let mut probe = Command::new(name);
        probe.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    }

    /// Installs packages of the system where that is ours to do; or why not.
    pub fn install(&self, packages: &[&str]) -> Result<(), String> {
        let by_hand = format!("apt-get install -y {}", packages.join(" "));
        let user = self.attempt(self.tool("id").arg("-u"));
        if !user.is_ok_and(|(_, id)| id.trim() == "0") || !self.has("apt-get") {
            return Err(by_hand);
        }
        let quiet = ["install", "-y", "--no-install-recommends"];
        // Lists may be old or absent: the install decides.
        let _ = self.attempt(self.tool("apt-get").arg("update"));
        match self.attempt(self.tool("apt-get").args(quiet).args(packages)) {
            Ok((true, _)) => Ok(()),
            _ => Err(format!("{by_hand} failed: see {}", self.log.display())),
        }
    }

    /// Adds a target to the pinned toolchain; or why not.
    pub fn add_target(&self, target: &str) -> Result<(), String> {
        let added = self.attempt(self.tool("rustup").args(["target", "add", target]));
        match added {
            Ok((true, _)) => Ok(()),
            _ => Err(format!("rustup target add {target}")),
        }
    }
}

/// The last lines of a failed tool.
pub fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}

fn said(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
