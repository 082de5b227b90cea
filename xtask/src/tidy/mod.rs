//! Facts about the sources that no compiler checks. Each rule is a function of the
//! tree and is shown by a test to fail where it should.

mod arrows;
mod bits;
mod figures;
mod fuzz;
mod header;
mod places;
pub mod source;
mod stems;

use source::Tree;
use std::path::Path;

/// A rule: what it says, and everything that breaks it.
type Rule = (&'static str, fn(&Tree) -> Vec<String>);

const RULES: &[Rule] = &[
    ("crates depend along the arrows", arrows::broken),
    ("kernels-core depends on half, bytemuck and libm alone", arrows::core_dependencies),
    ("unsafe stands where it must", places::of_unsafe),
    ("cfg(feature) stands where a backend is chosen", places::of_features),
    ("the environment is read at the edge", places::of_environment),
    ("places of the rules above are there", places::stale),
    ("no file names a path or host of the machine it was written on", places::of_machines),
    ("a kernel has the same stem in every form", stems::broken),
    ("parameter blocks have fixed-width scalars, each explained, and no padding", header::broken),
    ("docs/parity.md is what the sources say", parity),
    ("promised bits stay while their id does", bits::broken),
    ("fuzz targets, corpora and bodies have the same names", fuzz::broken),
    ("docs/status.md, docs/performance.md and the plots show the records", pages),
    ("README's figures are ones the record holds", figures::broken),
];

/// Checks every rule and prints what breaks them.
pub fn tidy(root: &Path) -> Result<(), String> {
    let broken = broken(root)?;
    if broken.is_empty() {
        println!("{} rules hold", RULES.len());
        return Ok(());
    }
    Err(broken.join("\n"))
}

/// How many rules there are.
pub const fn rules() -> u64 {
    RULES.len() as u64
}

/// Each broken rule with what breaks it.
pub fn broken(root: &Path) -> Result<Vec<String>, String> {
    let tree = Tree::read(root)?;
    let check = |(says, rule): &Rule| {
        let faults = rule(&tree);
        (!faults.is_empty()).then(|| format!("tidy: {says}:\n  {}", faults.join("\n  ")))
    };
    Ok(RULES.iter().filter_map(check).collect())
}

fn parity(tree: &Tree) -> Vec<String> {
    match crate::parity::page(tree) {
        Err(message) => vec![message],
        Ok(page) if tree.text(crate::parity::PAGE) == Some(&page) => Vec::new(),
        Ok(_) => vec!["run `cargo xtask parity`".to_owned()],
    }
}

fn pages(tree: &Tree) -> Vec<String> {
    let pages = match crate::bench::pages::pages(&tree.root) {
        Err(message) => return vec![message],
        Ok(pages) => pages,
    };
    let old = pages.iter().filter(|(path, page)| tree.text(path) != Some(page));
    old.map(|(path, _)| format!("{path}: run `cargo xtask bench-record --pages`")).collect()
}
