//! Sets of tokens that a server is given at its start, for requests to allow by name.

use super::Failure;
use engine::processor::TokenSet;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file: a list of tokens, or such a list by its name in requests.
#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    List(Vec<u32>),
    Named { allowed_token_ids: Vec<u32> },
}

/// From files, for a vocabulary.
pub fn read(
    given: &[(String, PathBuf)],
    vocabulary: u32,
) -> Result<BTreeMap<String, TokenSet>, Failure> {
    let mut sets = BTreeMap::new();
    for (name, path) in given {
        let wrong = |why: String| {
            let path = path.display();
            Failure::Setting(format!("--action-set {name}: {path}: {why}"))
        };
        let set = one(path, vocabulary).map_err(wrong)?;
        if sets.insert(name.clone(), set).is_some() {
            return Err(wrong("another set has this name".into()));
        }
    }
    Ok(sets)
}

fn one(path: &Path, vocabulary: u32) -> Result<TokenSet, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let file = serde_json::from_slice(&bytes)
        .map_err(|_| "expected a list of tokens as JSON, or one as `allowed_token_ids`")?;
    let (File::List(tokens) | File::Named { allowed_token_ids: tokens }) = file;
    if tokens.is_empty() {
        return Err("expected at least one token, got none".into());
    }
    TokenSet::new(vocabulary, &tokens)
        .map_err(|refused| format!("expected {}, got {}", refused.expected, refused.got))
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::command::Failure;

    #[test]
    fn sets_are_read_and_what_is_wrong_names_the_set_and_its_file() {
        let folder = std::env::temp_dir().join(format!("pagewise-sets-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let good = [
            ("moves".to_owned(), file("a.json", "[1, 40]")),
            ("all".to_owned(), file("b.json", r#"{"allowed_token_ids": [0]}"#)),
        ];
        let sets = read(&good, 41).unwrap_or_else(|_| panic!("they are good"));
        assert_eq!((sets["moves"].words(), sets["all"].words()), (&[2, 256][..], &[1, 0][..]));
        assert!(read(&[], 41).is_ok_and(|sets| sets.is_empty()));
        for (text, why) in [
            ("[]", "at least one"),
            ("[41]", "below 41, got 41"),
            ("[-1]", "list of tokens"),
            ("{\"tokens\": [1]}", "list of tokens"),
            ("", "list of tokens"),
        ] {
            let bad = [("bad".to_owned(), file("c.json", text))];
            match read(&bad, 41) {
                Err(Failure::Setting(words)) => {
                    assert!(words.contains("--action-set bad: ") && words.contains("c.json"));
                    assert!(words.contains(why), "{words}");
                }
                _ => panic!("{text} is not to be taken"),
            }
        }
        let twice = [good[0].clone(), good[0].clone()];
        assert!(
            matches!(read(&twice, 41), Err(Failure::Setting(words)) if words.contains("another"))
        );
        let nowhere = [("x".to_owned(), folder.join("none.json"))];
        assert!(matches!(read(&nowhere, 41), Err(Failure::Setting(_))));
        std::fs::remove_dir_all(folder).expect("it was there");
    }
}
