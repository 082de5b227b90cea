//! README says no figure that the record does not hold: a number before a unit of
//! speed, time or share must round one that stands in `benches/record/`.

use super::source::Tree;

const UNITS: &[&str] =
    &["%", "GB/s", "GF/s", "Gop/s", "GiB/s", "µs", "ms", "tokens/s", "tok/s", "×"];

/// Figures of README that no record holds.
pub fn broken(tree: &Tree) -> Vec<String> {
    let records = tree.under("benches/record/").filter(|(path, _)| path.ends_with(".csv"));
    let cells = records.flat_map(|(_, text)| text.split([',', '\n']));
    let recorded: Vec<f64> = cells.filter_map(|cell| cell.trim().parse().ok()).collect();
    let readme = tree.text("README.md").unwrap_or_default();
    let figures = readme
        .lines()
        .enumerate()
        .flat_map(|(at, line)| figures(line).into_iter().map(move |figure| (at + 1, figure)));
    let unknown = figures.filter(|(_, figure)| !recorded.iter().any(|cell| rounds(*cell, figure)));
    unknown.map(|(line, figure)| format!("README.md:{line}: {figure} is in no record")).collect()
}

/// The numbers of a line that stand before a unit.
fn figures(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for unit in UNITS {
        for (at, _) in line.match_indices(unit) {
            let before = line[..at].trim_end_matches([' ', '*', '\u{a0}']);
            let digits = before.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
            let number = before[digits.len()..].trim_matches('.');
            if !number.is_empty() {
                found.push(number.to_owned());
            }
        }
    }
    found
}

/// Whether the recorded number, or its hundredfold where a share is recorded, rounds
/// to the figure.
fn rounds(recorded: f64, figure: &str) -> bool {
    let decimals = figure.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    [recorded, recorded * 100.0].iter().any(|value| format!("{value:.decimals$}") == figure)
}

#[cfg(test)]
mod tests {
    use super::broken;
    use crate::tidy::source::Tree;

    #[test]
    fn a_figure_without_a_record_is_found() {
        let record = ("benches/record/a/b.csv", "name,rate,share\nmatmul,33.14,0.951\n");
        let readme = |text| Tree::of(&[record, ("README.md", text)]);
        assert!(broken(&readme("reads 33.1 GB/s, 95 % of 16 lanes in 2 threads")).is_empty());
        assert_eq!(broken(&readme("reads **34** GB/s, 96% of it")).len(), 2);
        assert_eq!(broken(&Tree::of(&[("README.md", "33.1 GB/s")])).len(), 1);
    }
}
