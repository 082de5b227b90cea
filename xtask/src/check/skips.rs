//! The skips that do not fail a check: each with a reason, in a committed list.

use std::path::Path;

/// The list: a line `stage: beginning of the skip | reason`, or a comment.
pub const LIST: &str = "xtask/allowed-skips.txt";

/// Beginnings of skips, with their reasons.
pub struct Allowed(Vec<(String, String)>);

impl Allowed {
    /// The committed list.
    pub fn read(root: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(root.join(LIST));
        Self::of(&text.map_err(|error| format!("{LIST}: {error}"))?)
    }

    fn of(text: &str) -> Result<Self, String> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let parse = |line: &str| match line.split_once(" | ") {
            Some((skip, reason)) if skip.contains(": ") && !reason.trim().is_empty() => {
                Ok((skip.to_owned(), reason.to_owned()))
            }
            _ => Err(format!("{LIST}: `{line}` is not `stage: skip | reason`")),
        };
        lines.map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Why a skip is allowed, if it is.
    pub fn reason(&self, skip: &str) -> Option<&str> {
        let found = self.0.iter().find(|(beginning, _)| skip.starts_with(beginning));
        found.map(|(_, reason)| reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Allowed;

    #[test]
    fn a_skip_is_allowed_by_name_and_with_a_reason_only() {
        let list = Allowed::of("# why\nneon: no emulator | needs root\n").expect("a good list");
        assert_eq!(list.reason("neon: no emulator: apt-get"), Some("needs root"));
        assert_eq!(list.reason("miri: no emulator"), None);
        assert!(Allowed::of("neon: no emulator").is_err());
        assert!(Allowed::of("neon | all of it").is_err());
    }
}
