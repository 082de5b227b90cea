//! The files of the checkout, and Rust without its comments and strings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every file that git tracks or would track, by its path from the root.
#[derive(Debug, Default)]
pub struct Tree {
    /// The checkout.
    pub root: PathBuf,
    files: BTreeMap<String, String>,
}

impl Tree {
    /// The files of a checkout.
    pub fn read(root: &Path) -> Result<Self, String> {
        let listed = git(root, &["ls-files", "-co", "--exclude-standard"])?;
        let read = |path: &str| {
            // What was deleted and not yet committed has no facts to check; what is
            // not text has its name alone.
            let bytes = std::fs::read(root.join(path)).ok()?;
            Some((path.to_owned(), String::from_utf8(bytes).unwrap_or_default()))
        };
        Ok(Self { root: root.to_owned(), files: listed.lines().filter_map(read).collect() })
    }

    /// A tree made up for a test.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).into(), (*text).into()));
        Self { root: PathBuf::new(), files: files.collect() }
    }

    /// One file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// The files whose path begins so, in order.
    pub fn under(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        let prefix = prefix.to_owned();
        let files = self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        files.filter(move |(path, _)| path.starts_with(&prefix))
    }

    /// Every Rust file.
    pub fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.under("").filter(|(path, _)| path.ends_with(".rs"))
    }
}

/// What git says.
pub fn git(root: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        // Containers check out as another user than they run as.
        .args(["-c", "safe.directory=*", "-c", "core.quotepath=off"])
        .args(arguments)
        .current_dir(root)
        .output()
        .map_err(|error| format!("git is needed: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(format!("git {}: {}", arguments.join(" "), message.trim()))
}

/// Rust with comments and the insides of strings as blanks; lines stay where they are.
pub fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = at + blank_length(&bytes[at..], at.checked_sub(1).map(|before| bytes[before]));
        if end == at {
            code.push(bytes[at]);
            at += 1;
            continue;
        }
        code.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
        at = end;
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// The length of the comment, string or character that starts here; zero if none does.
fn blank_length(rest: &[u8], before: Option<u8>) -> usize {
    let until = |end: &[u8], from: usize| {
        let found = rest[from..].windows(end.len()).position(|window| window == end);
        found.map_or(rest.len(), |at| from + at + end.len())
    };
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest),
        [b'r', b'"' | b'#', ..] if !before.is_some_and(is_word) => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return 0;
            }
            let mut end = vec![b'"'];
            end.resize(1 + hashes, b'#');
            until(&end, 2 + hashes)
        }
        // A lifetime has no second quote right after its first character.
        [b'\'', b'\\', ..] => until(b"'", 3),
        [b'\'', _, b'\'', ..] => 3,
        _ => 0,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The lines, from 1, on which the word stands alone.
pub fn lines_with_word(code: &str, word: &str) -> Vec<usize> {
    let stands = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let before = line.as_bytes()[..at].last().copied();
            let after = line.as_bytes().get(at + word.len()).copied();
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
    };
    code.lines().enumerate().filter(|(_, line)| stands(line)).map(|(at, _)| at + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::{code_of, lines_with_word};

    #[test]
    fn comments_and_strings_are_blank_and_code_stays() {
        let text = "let a = \"unsafe \\\" // x\"; // unsafe\n/* /* unsafe */ */ r#\"un\"safe\"# 'x'\n\
                    fn f<'a>(q: char) { q == '\\'' } unsafe {}\nfn unsafe_code() {}";
        let code = code_of(text);
        assert_eq!(code.lines().count(), 4);
        assert_eq!(lines_with_word(&code, "unsafe"), [3]);
        assert!(code.contains("fn f<'a>(q: char)"));
    }
}
