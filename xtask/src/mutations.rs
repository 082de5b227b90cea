//! Breaks the code on purpose and asks for red: each line of `tests/mutations.txt`
//! changes one constant or one step of an order in a copy of the tree, and the test it
//! names must fail there.

use std::path::{Path, PathBuf};
use std::process::Command;

const LIST: &str = "tests/mutations.txt";

/// One change and the test that must notice it.
struct Mutation {
    file: String,
    find: String,
    replace: String,
    test: String,
}

/// Runs every mutation in turn; the error names those that no test noticed.
pub fn run(root: &Path) -> Result<usize, String> {
    let list = parse(&read(&root.join(LIST))?)?;
    let copy = root.join("target/mutations/tree");
    copy_tree(root, &copy)?;
    let mut unnoticed = Vec::new();
    for mutation in &list {
        let path = copy.join(&mutation.file);
        let original = read(&path)?;
        write(&path, &mutated(&original, mutation)?)?;
        let noticed = notices(&copy, &mutation.test);
        write(&path, &original)?;
        let verdict = if noticed? { "noticed" } else { "NOT NOTICED" };
        println!("{verdict}: {} -> {} in {}", mutation.find, mutation.replace, mutation.file);
        if verdict != "noticed" {
            unnoticed.push(mutation.find.clone());
        }
    }
    if unnoticed.is_empty() {
        return Ok(list.len());
    }
    Err(format!("no test noticed these mutations: {}", unnoticed.join("; ")))
}

fn parse(text: &str) -> Result<Vec<Mutation>, String> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(parse_line).collect()
}

fn parse_line(line: &str) -> Result<Mutation, String> {
    let fields: Vec<&str> = line.split(" | ").map(str::trim).collect();
    let [file, find, replace, test] = fields[..] else {
        return Err(format!("{LIST}: not `file | find | replace | test`: {line}"));
    };
    let [file, find, replace, test] = [file, find, replace, test].map(str::to_owned);
    Ok(Mutation { file, find, replace, test })
}

/// The text with its one occurrence of `find` replaced; more or fewer is a stale list.
fn mutated(text: &str, mutation: &Mutation) -> Result<String, String> {
    match text.matches(&mutation.find).count() {
        1 => Ok(text.replacen(&mutation.find, &mutation.replace, 1)),
        count => {
            Err(format!("{LIST}: `{}` stands {count} times in {}", mutation.find, mutation.file))
        }
    }
}

/// Whether the test builds and then fails.
fn notices(copy: &Path, test: &str) -> Result<bool, String> {
    let cargo = |more: &[&str]| {
        let mut command = Command::new("cargo");
        command
            .current_dir(copy)
            .env("PROPTEST_CASES", "16")
            .env("CARGO_TARGET_DIR", copy.with_file_name("target"));
        command.args(["test", "--quiet", "--package", "pagewise-tests", "--test", test]);
        command.args(more).output().map_err(|error| format!("cargo: {error}"))
    };
    let built = cargo(&["--no-run"])?;
    if !built.status.success() {
        let words = String::from_utf8_lossy(&built.stderr).into_owned();
        return Err(format!("a mutation does not build, so it shows nothing:\n{words}"));
    }
    Ok(!cargo(&[])?.status.success())
}

/// The files that git knows, as they are now.
fn copy_tree(root: &Path, copy: &Path) -> Result<(), String> {
    let listed = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .map_err(|error| format!("git: {error}"))?;
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let (from, to): (PathBuf, PathBuf) = (root.join(name), copy.join(name));
        let Ok(bytes) = std::fs::read(&from) else { continue };
        // An unchanged file keeps its time, so that the next run builds little.
        if std::fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        let folder = to.parent().unwrap_or(copy);
        let made = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&to, bytes));
        made.map_err(|error| format!("{}: {error}", to.display()))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{mutated, parse};

    #[test]
    fn a_line_names_a_file_a_change_and_a_test() {
        let list = parse("# words\n\na.rs | x = 1; | x = 2; | norm\n").expect("a good line");
        assert_eq!(mutated("let x = 1;", &list[0]).expect("once"), "let x = 2;");
        assert!(mutated("x = 1; x = 1;", &list[0]).is_err());
        assert!(mutated("", &list[0]).is_err());
        assert!(parse("a.rs | x").is_err());
    }
}
