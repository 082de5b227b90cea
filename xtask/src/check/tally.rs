//! Counts of what passed, failed and was skipped, read from the output of tests.

/// What a stage counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests, or the stage itself.
    pub passed: u64,
    /// Tests, or the stage itself.
    pub failed: u64,
    /// Why each skip was skipped.
    pub skipped: Vec<String>,
}

impl Tally {
    /// A stage that counts as one and passed.
    pub fn passed() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    /// A stage that counts as one and was skipped.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self { skipped: vec![why.into()], ..Self::default() }
    }

    /// The sum of several; the first that came to nothing.
    pub fn sum(tallies: impl IntoIterator<Item = Result<Self, String>>) -> Result<Self, String> {
        tallies.into_iter().try_fold(Self::default(), |mut all, tally| {
            let tally = tally?;
            all.passed += tally.passed;
            all.failed += tally.failed;
            all.skipped.extend(tally.skipped);
            Ok(all)
        })
    }

    /// The sum over every test binary of one `cargo test -- --show-output`.
    ///
    /// A test that prints a line `skipped: why` passed in name only, and is counted
    /// as skipped; so is one that is ignored.
    pub fn of_tests(output: &str) -> Self {
        let mut tally = Self::default();
        let mut shown = 0;
        for line in output.lines() {
            if let Some(counts) = line.strip_prefix("test result: ") {
                let count = |word: &str| count(counts, word);
                tally.passed += count("passed");
                tally.failed += count("failed");
            } else if let Some(why) = line.strip_prefix("skipped: ") {
                tally.skipped.push(why.to_owned());
                shown += 1;
            } else if let Some((name, why)) = line.split_once(" ... ignored") {
                let name = name.strip_prefix("test ").unwrap_or(name);
                tally.skipped.push(format!("{name} is ignored{why}"));
            }
        }
        tally.passed = tally.passed.saturating_sub(shown);
        tally
    }
}

/// The number before the word in `ok. 5 passed; 0 failed; …`.
fn count(counts: &str, word: &str) -> u64 {
    let mut words = counts.split([' ', ';']).filter(|part| !part.is_empty());
    let mut before = "";
    words.find(|part| {
        let found = *part == word;
        if !found {
            before = part;
        }
        found
    });
    before.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn tests_are_summed_over_binaries_and_skips_are_no_passes() {
        let output = "running 3 tests\n\
            test a ... ok\n\
            test needs_a_card ... ignored, no device\n\
            ---- b stdout ----\nskipped: no AVX-512\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
            test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\n";
        let tally = Tally::of_tests(output);
        assert_eq!((tally.passed, tally.failed), (5, 2));
        assert_eq!(tally.skipped, ["needs_a_card is ignored, no device", "no AVX-512"]);
        assert_eq!(Tally::of_tests("error: could not compile"), Tally::default());
    }
    #[test]
    fn a_sum_counts_all_and_is_nothing_where_one_is_nothing() {
        let one = Tally { passed: 2, failed: 1, skipped: vec!["why".to_owned()] };
        let two = Tally { passed: 3, ..Tally::default() };
        let sum = Tally::sum([Ok(one.clone()), Ok(two)]).expect("both came");
        assert_eq!(sum, Tally { passed: 5, failed: 1, skipped: vec!["why".to_owned()] });
        assert!(Tally::sum([Ok(one), Err("no compiler".to_owned())]).is_err());
    }
}
