//! A fuzz target is a name in four places: the list of bodies, a file for the
//! fuzzer, a `[[bin]]` and a corpus that replays in the tests.

use super::source::Tree;
use std::collections::BTreeSet;

const BODIES: &str = "tests/src/fuzz/mod.rs";

/// Names that are in one place and not in another.
pub fn broken(tree: &Tree) -> Vec<String> {
    let bodies = bodies(tree.text(BODIES).unwrap_or_default());
    let files = names(tree, "fuzz/fuzz_targets/", |inner| inner.strip_suffix(".rs"));
    let corpora = names(tree, "fuzz/corpus/", |inner| inner.split('/').next());
    let manifest = tree.text("fuzz/Cargo.toml").unwrap_or_default();
    let bins = manifest.lines().filter_map(|line| {
        line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\"").map(str::to_owned)
    });
    let bins: BTreeSet<String> = bins.collect();
    let mut faults = Vec::new();
    let places =
        [("fuzz/fuzz_targets", &files), ("fuzz/corpus", &corpora), ("fuzz/Cargo.toml", &bins)];
    for (place, names) in places {
        faults.extend(bodies.difference(names).map(|name| format!("{place} lacks {name}")));
        faults.extend(names.difference(&bodies).map(|name| format!("{BODIES} lacks {name}")));
    }
    faults
}

/// The names in the list of bodies: `("arena", arena::run),`.
fn bodies(text: &str) -> BTreeSet<String> {
    let list = text.split_once("TARGETS").map_or("", |(_, rest)| rest);
    let list = list.split("];").next().unwrap_or_default();
    list.split("(\"").skip(1).filter_map(|part| part.split('"').next()).map(str::to_owned).collect()
}

fn names(tree: &Tree, folder: &str, name: fn(&str) -> Option<&str>) -> BTreeSet<String> {
    let inner = tree.under(folder).filter_map(|(path, _)| name(&path[folder.len()..]));
    inner.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{BODIES, broken};
    use crate::tidy::source::Tree;

    #[test]
    fn a_name_that_is_not_everywhere_is_found() {
        let whole = [
            (BODIES, "pub const TARGETS: &[Target] = &[(\"arena\", arena::run)];"),
            ("fuzz/fuzz_targets/arena.rs", ""),
            ("fuzz/corpus/arena/one", ""),
            ("fuzz/Cargo.toml", "[[bin]]\nname = \"arena\"\npath = \"fuzz_targets/arena.rs\"\n"),
        ];
        assert!(broken(&Tree::of(&whole)).is_empty());
        for missing in 1..whole.len() {
            let mut files = whole.to_vec();
            files.remove(missing);
            assert_eq!(broken(&Tree::of(&files)).len(), 1);
        }
        assert_eq!(broken(&Tree::of(&whole[1..])).len(), 3);
    }
}
