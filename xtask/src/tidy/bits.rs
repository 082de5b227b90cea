//! Promised bits: once `tests/hashes/<id>/released` is committed, no line that a
//! hash file of that id has held since may go. Files only gain lines; another bit
//! takes another id.

use super::source::{Tree, git};
use std::collections::{BTreeMap, BTreeSet};

/// Lines that were promised and are gone.
pub fn broken(tree: &Tree) -> Vec<String> {
    let markers: Vec<&str> = tree
        .under("tests/hashes/")
        .filter_map(|(path, _)| path.strip_suffix("/released"))
        .collect();
    markers.into_iter().flat_map(|folder| check(tree, folder)).collect()
}

fn check(tree: &Tree, folder: &str) -> Vec<String> {
    let versions = match versions(tree, folder) {
        Ok(versions) => versions,
        Err(message) => return vec![message],
    };
    let mut faults = BTreeMap::new();
    for (commit, path, earlier) in versions {
        for line in lost(&earlier, tree.text(&path).unwrap_or_default()) {
            // The oldest promise is the one that stays: versions come newest first.
            let fault = format!("{path}: `{line}` was promised in {commit}");
            faults.insert((path.clone(), line.to_owned()), fault);
        }
    }
    faults.into_values().collect()
}

/// Every committed version of the folder's files from the release on.
fn versions(tree: &Tree, folder: &str) -> Result<Vec<(String, String, String)>, String> {
    let marker = format!("{folder}/released");
    if git(&tree.root, &["rev-parse", "--is-shallow-repository"])?.trim() == "true" {
        return Err(format!(
            "{marker}: the history it speaks of is cut off: git fetch --unshallow"
        ));
    }
    let added = git(&tree.root, &["log", "--diff-filter=A", "--format=%H", "--", &marker])?;
    // The marker is new and not committed: nothing was promised before it.
    let Some(release) = added.lines().last() else { return Ok(Vec::new()) };
    let since =
        git(&tree.root, &["log", "--format=%H", &format!("{release}..HEAD"), "--", folder])?;
    let mut versions = Vec::new();
    for commit in since.lines().chain([release]) {
        // The release promises every file; a later commit those it touched.
        let list = ["ls-tree", "-r", "--name-only", commit, "--", folder];
        let touched = [
            "diff-tree",
            "-r",
            "--no-commit-id",
            "--name-only",
            "--diff-filter=AM",
            commit,
            "--",
            folder,
        ];
        let files = git(&tree.root, if commit == release { &list } else { &touched })?;
        for path in files.lines().filter(|path| path.ends_with(".txt")) {
            let text = git(&tree.root, &["show", &format!("{commit}:{path}")])?;
            versions.push((commit[..12].to_owned(), path.to_owned(), text));
        }
    }
    Ok(versions)
}

/// Lines of the earlier text that the present one lacks.
fn lost<'a>(earlier: &'a str, now: &str) -> Vec<&'a str> {
    let now: BTreeSet<&str> = now.lines().collect();
    earlier.lines().filter(|line| !now.contains(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::broken;
    use crate::tidy::source::{Tree, git};
    use std::path::Path;

    fn commit(root: &Path, hashes: &str, release: bool) {
        let folder = root.join("tests/hashes/cpu-1");
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        std::fs::write(folder.join("norm.txt"), hashes).expect("a temporary file");
        if release {
            std::fs::write(folder.join("released"), "0.1.0\n").expect("a temporary file");
        }
        git(root, &["add", "-A"]).expect("git works");
        let name = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
        let rest = ["-c", "core.hooksPath=none", "commit", "-qm", "x", "--allow-empty"];
        git(root, &[&name[..], &rest[..]].concat()).expect("git works");
    }

    #[test]
    fn a_promised_line_that_goes_is_found_even_after_its_commit() {
        let root = std::env::temp_dir().join(format!("pagewise-tidy-bits-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a temporary folder");
        git(&root, &["init", "-q"]).expect("git works");
        let faults = || broken(&Tree::read(&root).expect("a checkout"));
        commit(&root, "1 a\n2 b\n", false);
        commit(&root, "9 a\n2 b\n", false);
        assert!(faults().is_empty(), "nothing is promised before the release");
        commit(&root, "9 a\n2 b\n", true);
        commit(&root, "9 a\n3 c\n2 b\n", false);
        assert!(faults().is_empty(), "a file gains lines");
        commit(&root, "9 a\n2 b\n", false);
        assert_eq!(faults().len(), 1, "a line added after the release is promised too");
        commit(&root, "8 a\n2 b\n3 c\n", false);
        assert_eq!(faults().len(), 1, "a changed hash is a lost line");
        std::fs::remove_dir_all(&root).expect("a temporary folder");
    }
}
