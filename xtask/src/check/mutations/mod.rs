//! Breaks kernels and engine on purpose and asks for red: each line of `tests/mutations.txt`
//! changes one constant or one step of an order in a copy of the tree, and the tests
//! it names must fail there.
//!
//! Two copies are built, however long the list is. In the first every expression that
//! a line changes is there in both forms, and the environment says which one runs; with
//! none chosen all tests must pass. In the second all definitions are changed at once,
//! for those cannot be switched: so each of them names a test of its own, of a kernel
//! that does not see the others.

mod list;

use super::shell::Shell;
use super::tally::Tally;
use list::{CHOICE, LIST, Mutation};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Tests that go over a kernel's listed cases and none that are random: all that a
/// mutation's tests are, unless its line names others. The first asks the levels and the
/// specification; the second a hash, which any changed bit of any case turns red, so it
/// says little of the cases around a constant, and is asked only where the first is green.
const LISTED: [&str; 2] = ["every_", "the_bits_are_those_committed"];

/// Runs every mutation.
pub fn tests(shell: &Shell) -> Result<Tally, String> {
    let text = read(&shell.root.join(LIST))?;
    let list = list::parse(&text)?;
    let (here, elsewhere): (Vec<&Mutation>, Vec<&Mutation>) = list.iter().partition(|m| runs(m));
    let (definitions, switches): (Vec<&Mutation>, Vec<&Mutation>) =
        here.iter().partition(|mutation| mutation.defines());
    let own: BTreeSet<&str> = definitions.iter().map(|mutation| &mutation.test[..]).collect();
    if own.len() < definitions.len() {
        return Err(format!("{LIST}: two definitions name the same test"));
    }
    let mut tally = Tally::default();
    // Both before the first build: the tree may change meanwhile.
    let defined = Copy::new(shell, "defined", &definitions, list::defined)?;
    let switched = Copy::new(shell, "switched", &switches, list::switched)?;
    let binaries = switched.build(shell, Optimised::Fully)?;
    let asked = asked(&switches);
    let names: Vec<String> = asked.keys().map(|name| (*name).to_owned()).collect();
    let passed =
        shell.side_by_side(&names, |shell, name| binaries.passes(shell, name, &asked[name], 0));
    for (name, passed) in names.iter().zip(passed) {
        if !passed? {
            return Err(format!("{name} fails in the copy with no mutation in force"));
        }
    }
    binaries.ask(shell, &switches, |mutation| mutation.number, &mut tally)?;
    let binaries = defined.build(shell, Optimised::Little)?;
    binaries.ask(shell, &definitions, |_| 0, &mut tally)?;
    let skipped = elsewhere.iter().map(|m| format!("no such CPU: {}", m.said()));
    tally.skipped.extend(skipped);
    Ok(tally)
}

/// What noticed a mutation.
enum Noticed {
    /// The levels, the specification, or the tests that its line names.
    Plainly,
    /// A committed hash and nothing else.
    ByHash,
    /// Nothing.
    No,
}

fn count(tally: &mut Tally, mutation: &Mutation, noticed: Noticed) {
    match noticed {
        Noticed::Plainly => tally.passed += 1,
        Noticed::ByHash => {
            println!("noticed by a hash alone: {}", mutation.said());
            tally.passed += 1;
        }
        Noticed::No => {
            println!("NOT NOTICED: {}", mutation.said());
            tally.failed += 1;
        }
    }
}

/// Whether this machine runs the code of a mutation.
fn runs(mutation: &Mutation) -> bool {
    let level = Path::new(&mutation.file).file_stem().unwrap_or_default();
    match level.to_str() {
        #[cfg(target_arch = "x86_64")]
        Some("avx2") => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        #[cfg(target_arch = "x86_64")]
        Some("avx512") => is_x86_feature_detected!("avx512vnni"),
        #[cfg(not(target_arch = "x86_64"))]
        Some("avx2" | "avx512") => false,
        Some("neon") => cfg!(target_arch = "aarch64"),
        _ => true,
    }
}

/// The tests of a mutation, as words that their names hold.
fn only(mutation: &Mutation) -> Vec<&str> {
    match &mutation.only[..] {
        [] => LISTED.to_vec(),
        only => only.iter().map(String::as_str).collect(),
    }
}

/// What is asked of each test binary by any of the mutations.
fn asked<'a>(mutations: &[&'a Mutation]) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut asked: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for mutation in mutations {
        asked.entry(&mutation.test).or_default().extend(only(mutation));
    }
    asked
}

/// How much the compiler makes of the kernels of a copy; their bits are the same.
enum Optimised {
    /// As in the tests: hundreds of runs are worth it.
    Fully,
    /// A few runs are not.
    Little,
}

/// A copy of the tree with mutations in it.
struct Copy {
    folder: PathBuf,
    tests: BTreeSet<String>,
}

/// Its test binaries by name.
struct Binaries {
    folder: PathBuf,
    paths: BTreeMap<String, PathBuf>,
}

impl Copy {
    /// The files that git knows, as they are now, but for what mutations change.
    fn new(
        shell: &Shell,
        of: &str,
        mutations: &[&Mutation],
        mutated: fn(&str, &[&Mutation]) -> Result<String, String>,
    ) -> Result<Self, String> {
        let folder = shell.target.join("mutations").join(of);
        let names = crate::tidy::source::git(
            &shell.root,
            &["ls-files", "--cached", "--others", "--exclude-standard"],
        )?;
        // A file that is gone would still be built: a copy of other files begins anew.
        let listed = folder.with_extension("names");
        if std::fs::read_to_string(&listed).is_ok_and(|before| before != names) {
            std::fs::remove_dir_all(&folder).map_err(|error| format!("{of}: {error}"))?;
        }
        for name in names.lines() {
            let Ok(mut bytes) = std::fs::read(shell.root.join(name)) else { continue };
            if name == "Cargo.toml" {
                bytes = versioned(&String::from_utf8_lossy(&bytes), of)?.into_bytes();
            }
            let own: Vec<&Mutation> =
                mutations.iter().copied().filter(|m| m.file == name).collect();
            if !own.is_empty() {
                bytes = mutated(&String::from_utf8_lossy(&bytes), &own)?.into_bytes();
            }
            if mutations.iter().any(|mutation| mutation.head() == name) {
                bytes.extend(CHOICE.as_bytes());
            }
            write(&folder.join(name), &bytes)?;
        }
        let lost = mutations.iter().find(|mutation| !names.lines().any(|n| n == mutation.file));
        if let Some(mutation) = lost {
            return Err(format!("{LIST}: there is no such file: {}", mutation.said()));
        }
        write(&listed, names.as_bytes())?;
        Ok(Self { folder, tests: mutations.iter().map(|m| m.test.clone()).collect() })
    }

    fn build(self, shell: &Shell, optimised: Optimised) -> Result<Binaries, String> {
        let mut command = shell.cargo(&["--config", "profile.dev.debug=false"]);
        if matches!(optimised, Optimised::Little) {
            let kernels = "profile.dev.package.pagewise-kernels-core.opt-level=1";
            command.args(["--config", kernels]);
        }
        // Not locked: the versions of the copy's own packages are others.
        command.args(["test", "--no-run"]);
        command.current_dir(&self.folder).args(["--package", "pagewise-tests"]);
        command.arg("--no-default-features");
        // One for both copies: what is not the workspace's is built once.
        command.env("CARGO_TARGET_DIR", self.folder.with_file_name("target"));
        command.env("CARGO_INCREMENTAL", "0");
        for test in &self.tests {
            command.args(["--test", test]);
        }
        let output = shell.run(&mut command)?;
        let paths = super::rust::binaries(&output).into_iter();
        let paths = paths.map(|(name, path)| (name, self.folder.join(path))).collect();
        Ok(Binaries { folder: self.folder, paths })
    }
}

impl Binaries {
    /// Asks for red of each, with the switch on what is told of it: as many at a time as there
    /// are cores, for most test binaries keep to one.
    fn ask(
        &self,
        shell: &Shell,
        mutations: &[&Mutation],
        switch: fn(&Mutation) -> usize,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let names: Vec<String> = mutations.iter().map(|m| m.number.to_string()).collect();
        let noticed = shell.side_by_side(&names, |shell, name| {
            let of = mutations.iter().find(|m| m.number.to_string() == name);
            let mutation = of.expect("it is one of them");
            self.notice(shell, mutation, switch(mutation))
        });
        for (mutation, noticed) in mutations.iter().zip(noticed) {
            count(tally, mutation, noticed?);
        }
        Ok(())
    }

    /// What notices a mutation, with the switch on that number.
    fn notice(&self, shell: &Shell, mutation: &Mutation, number: usize) -> Result<Noticed, String> {
        let passes = |only: &[&str]| self.passes(shell, &mutation.test, only, number);
        if !mutation.only.is_empty() {
            let green = passes(&only(mutation))?;
            return Ok(if green { Noticed::No } else { Noticed::Plainly });
        }
        let [plain, hash] = LISTED;
        if !passes(&[plain])? {
            return Ok(Noticed::Plainly);
        }
        Ok(if passes(&[hash])? { Noticed::No } else { Noticed::ByHash })
    }

    /// Whether the tests of one binary whose names hold one of the words pass with a
    /// mutation in force.
    fn passes(
        &self,
        shell: &Shell,
        test: &str,
        only: &[&str],
        number: usize,
    ) -> Result<bool, String> {
        let path = self.paths.get(test).ok_or(format!("{LIST}: there is no test {test}"))?;
        let mut command = shell.tool(&path.to_string_lossy());
        command.current_dir(self.folder.join("tests")).args(only);
        command.env("PAGEWISE_MUTATION", number.to_string()).env_remove("PAGEWISE_WRITE_HASHES");
        let (passes, output) = shell.attempt(&mut command)?;
        if output.contains("running 0 tests") {
            return Err(format!("{test} has no test named {}", only.join(" or ")));
        }
        Ok(passes)
    }
}

/// The workspace's manifest with a version of the copy's own: to cargo its packages are others
/// than those of the other copy, and both have room in one folder.
fn versioned(manifest: &str, copy: &str) -> Result<String, String> {
    let plain = format!("\nversion = \"{}\"\n", env!("CARGO_PKG_VERSION"));
    let own = format!("\nversion = \"{}-{copy}\"\n", env!("CARGO_PKG_VERSION"));
    match manifest.matches(&plain).count() {
        1 => Ok(manifest.replacen(&plain, &own, 1)),
        count => Err(format!("Cargo.toml: the version stands {count} times there")),
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes a file; an unchanged one keeps its time, so that the next run builds little.
fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    if std::fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    let made = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, bytes));
    made.map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::versioned;

    #[test]
    fn a_copy_has_a_version_of_its_own() {
        let manifest =
            format!("[workspace.package]\nversion = \"{}\"\n", env!("CARGO_PKG_VERSION"));
        let [one, other] = ["a", "b"].map(|copy| versioned(&manifest, copy).expect("it is there"));
        assert!(one.contains("-a\"\n") && other.contains("-b\"\n"), "{one}{other}");
        assert!(versioned("version = \"no number\"\n", "a").is_err());
    }
}
