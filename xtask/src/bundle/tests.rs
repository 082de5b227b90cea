//! The folder's script and its bounds, where no card is.

use super::{BYTES_MAX, Bundle, PEERS, RUN, bounded, executable, glibc_of};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pagewise-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("there is room");
        Self(path)
    }

    fn script(&self, name: &str, body: &str) {
        let path = self.0.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("there is room");
        executable(&path).expect("it is ours");
    }

    /// The bundle's script in it, with these for its programs.
    fn run(&self, probe: &str, device: &str) -> Output {
        std::fs::write(self.0.join("run.sh"), RUN).expect("there is room");
        // A peer that is not there.
        std::fs::write(self.0.join("peers.py"), PEERS).expect("there is room");
        self.script("pagewise-probe", probe);
        self.script("pagewise-device", device);
        let mut run = Command::new("sh");
        run.arg(self.0.join("run.sh")).args(["--quick", "--out"]).arg(self.0.join("results"));
        run.output().expect("there is a shell")
    }

    fn result(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join("results").join(name)).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A program that answers as `pagewise-device` does, but for one chore.
fn device(chore: &str, body: &str) -> String {
    format!(
        "case $1 in\n{chore}) {body} ;;\ntable) shift; cat \"$1\"; while [ \"$1\" != --out ]; do \
         shift; done; echo whole >\"$2\" ;;\n*) echo \"$@\" ;;\nesac"
    )
}

#[test]
fn the_script_is_one_that_any_shell_reads() {
    let folder = Folder::new("syntax");
    let path = folder.0.join("run.sh");
    std::fs::write(&path, RUN).expect("there is room");
    let read = Command::new("sh").arg("-n").arg(&path).output().expect("there is a shell");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    for bash in ["[[", "function ", "local ", "<<<", "$'"] {
        assert!(!RUN.contains(bash), "{bash} is no word of POSIX");
    }
}

#[test]
fn all_stages_together_take_nine_minutes_at_most() {
    // `stage NAME SECONDS`, each of them killed two seconds later; peers as `NAME:SECONDS`.
    let stages = RUN
        .split("stage ")
        .skip(1)
        .filter_map(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
    let peers = RUN.lines().find(|line| line.starts_with("for peer in ")).expect("peers run");
    let peers = peers.split([' ', ';']).filter_map(|word| word.split_once(':')?.1.parse().ok());
    let limits: Vec<u32> = stages.chain(peers).collect();
    assert_eq!(limits.len(), 7, "{limits:?}");
    let table = 10;
    let all = limits.iter().map(|limit| limit + 2).sum::<u32>() + table + 2;
    assert!(all <= 9 * 60, "{limits:?}: {all} s");
}

#[test]
fn a_stage_that_dies_keeps_the_others_and_is_told() {
    let folder = Folder::new("dies");
    let dies = "echo half; echo why >&2; kill -9 $$";
    let output = folder.run("echo probed", &device("company", dies));
    let words = said(&output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("FAILED: company"), "{words}");
    assert!(words.contains("company: FAILED: it was killed after"), "{words}");
    for (name, holds) in [
        ("probe.csv", "probed"),
        ("parity.txt", "parity --device cuda:0 --plugins . --apart 40 --quick"),
        ("company.txt", "half"),
        ("company.log", "why"),
        ("bench.csv", "bench --device cuda:0"),
        ("record.csv", "whole"),
    ] {
        assert!(folder.result(name).contains(holds), "{name}: {}", folder.result(name));
    }
}

#[test]
fn where_all_is_well_it_ends_with_nothing_and_tells_the_table() {
    let folder = Folder::new("well");
    let output = folder.run("echo probed", &device("shapes", "echo kernel,shape"));
    let words = said(&output);
    assert!(output.status.success(), "{words}");
    for stage in ["probe", "parity", "company", "bench"] {
        assert!(words.contains(&format!("{stage}: passed")), "{words}");
    }
    // The first record is the probes'.
    assert!(words.contains("probed"), "{words}");
}

#[test]
fn what_is_wrong_is_shown_beside_its_stage() {
    let folder = Folder::new("wrong");
    let wrong = "echo 'norm: WRONG: a is 1'; exit 1";
    let output = folder.run("echo probed", &device("parity", wrong));
    let words = said(&output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("parity: FAILED with 1") && words.contains("norm: WRONG"), "{words}");
}

#[test]
fn without_a_driver_the_probes_are_skipped_and_nothing_else() {
    let folder = Folder::new("driver");
    let none = "echo 'libcuda.so.1: cannot open shared object file' >&2; exit 127";
    let words = said(&folder.run(none, &device("shapes", "echo kernel,shape")));
    assert!(words.contains("probe: skipped: there is no driver"), "{words}");
    assert!(words.contains("parity: passed"), "{words}");
    // The program itself says so where it was asked for nothing.
    let asked = said(&folder.run("exit 2", &device("shapes", "echo kernel,shape")));
    assert!(asked.contains("probe: FAILED with 2"), "{asked}");
}

#[test]
fn a_bundle_that_is_too_large_is_refused_by_its_sum() {
    let files = |last: u64| {
        let of = |name: &str, bytes| (name.to_owned(), bytes);
        [of("a", 1), of("torch.whl", BYTES_MAX - 3), of("b", last)]
    };
    assert_eq!(bounded(&files(2)), Ok(BYTES_MAX));
    let said = bounded(&files(3)).expect_err("it is too large");
    assert!(said.contains(&format!("{} bytes", BYTES_MAX + 1)), "{said}");
    assert!(said.contains("torch.whl"), "{said}");
}

#[test]
fn wheels_are_carried_and_counted() {
    let (folder, wheels) = (Folder::new("carried"), Folder::new("wheels"));
    for name in ["a.whl", "b.txt"] {
        std::fs::write(wheels.0.join(name), "wheel").expect("there is room");
    }
    let empty = folder.0.join("empty");
    let bundle = Bundle::at(&empty).expect("nothing is there");
    bundle.write("run.sh", RUN).expect("there is room");
    bundle.wheels(&wheels.0).expect("they are there");
    let files = bundle.files().expect("they are ours");
    assert_eq!(files, [("a.whl".to_owned(), 5), ("run.sh".to_owned(), RUN.len() as u64)]);
    // Made anew, it has those of then.
    let again = Bundle::at(&empty).expect("it is a bundle");
    assert_eq!(again.files().expect("they are ours").len(), 1);
}

#[test]
fn a_folder_that_is_no_bundle_is_left_alone() {
    let folder = Folder::new("alone");
    std::fs::write(folder.0.join("mine"), "").expect("there is room");
    assert!(Bundle::at(&folder.0).is_err());
    assert!(folder.0.join("mine").exists());
}

#[test]
fn the_newest_version_of_the_c_library_counts() {
    let program = b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_PRIVATE\0GLIBC_2.2.5\0";
    assert_eq!(glibc_of(program), (2, 34));
    assert_eq!(glibc_of(b"no program"), (2, 0));
}

#[test]
fn peers_are_written_in_python() {
    let folder = Folder::new("peers");
    let path: &Path = &folder.0.join("peers.py");
    std::fs::write(path, PEERS).expect("there is room");
    let compile = "import ast, sys; ast.parse(open(sys.argv[1]).read())";
    match Command::new("python3").args(["-c", compile]).arg(path).output() {
        Ok(read) => assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr)),
        Err(error) => println!("skipped: no python3: {error}"),
    }
}
