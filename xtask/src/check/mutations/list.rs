//! The list of mutations, and the text of a file with some of them in it.

/// Where the list is, from the root.
pub const LIST: &str = "tests/mutations.txt";

/// Which mutation is in force, for each crate of a mutated copy: the number of its line in
/// the environment, 0 without one.
pub const CHOICE: &str = "
extern crate std;

/// Which mutation is in force.
pub fn mutation() -> usize {
    static CHOSEN: std::sync::LazyLock<usize> = std::sync::LazyLock::new(|| {
        std::env::var(\"PAGEWISE_MUTATION\").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
    });
    *CHOSEN
}
";

/// One change and the tests that must notice it.
#[derive(Debug, PartialEq, Eq)]
pub struct Mutation {
    /// From 1, in the order of the list.
    pub number: usize,
    /// From the root.
    pub file: String,
    /// The type of the one level that it changes, where the code is generic over `L`.
    pub level: Option<String>,
    /// What stands there, once.
    pub find: String,
    /// What shall stand there.
    pub replace: String,
    /// The test binary.
    pub test: String,
    /// Which of its tests: those whose names hold one of these.
    pub only: Vec<String>,
}

impl Mutation {
    /// Whether it changes a definition, which no switch can do while a test runs.
    pub fn defines(&self) -> bool {
        self.find.contains("const ")
    }

    /// The head of its crate, from the root.
    pub fn head(&self) -> String {
        let package = self.file.split('/').next().unwrap_or_default();
        format!("{package}/src/lib.rs")
    }

    /// How a reader finds its line.
    pub fn said(&self) -> String {
        let level = self.level.as_ref().map_or(String::new(), |level| format!("@{level}"));
        format!("{}{level}: {} -> {} ({})", self.file, self.find, self.replace, self.test)
    }
}

/// The list: `file | find | replace | test names…` by the line, or `file@Level | …`.
pub fn parse(text: &str) -> Result<Vec<Mutation>, String> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.enumerate().map(|(at, line)| parse_line(at + 1, line)).collect()
}

fn parse_line(number: usize, line: &str) -> Result<Mutation, String> {
    let fields: Vec<&str> = line.split(" | ").map(str::trim).collect();
    let [file, find, replace, tests] = fields[..] else {
        return Err(format!("{LIST}: not `file | find | replace | test`: {line}"));
    };
    let mut tests = tests.split(' ').map(str::to_owned);
    let test = tests.next().unwrap_or_default();
    // A bar of Rust's own is written `\\|`.
    let [file, find, replace] = [file, find, replace].map(|field| field.replace("\\|", "|"));
    let (file, level) = match file.split_once('@') {
        Some((file, level)) => (file.to_owned(), Some(level.to_owned())),
        None => (file, None),
    };
    Ok(Mutation { number, file, level, find, replace, test, only: tests.collect() })
}

/// A file with an expression that its mutations switch: both forms are compiled, and the
/// one that is in force runs.
pub fn switched(text: &str, mutations: &[&Mutation]) -> Result<String, String> {
    mutations.iter().try_fold(text.to_owned(), |text, mutation| {
        let Mutation { number, level, find, replace, .. } = mutation;
        if ![find, replace].iter().all(|side| is_expression(side)) {
            return Err(format!("{LIST}: no expression to switch: {}", mutation.said()));
        }
        let here = level.as_ref().map_or(String::new(), |level| {
            format!(" && core::any::type_name::<L>().ends_with(\"::{level}\")")
        });
        let both =
            format!("(if crate::mutation() == {number}{here} {{ {replace} }} else {{ {find} }})");
        replaced(&text, mutation, &both)
    })
}

/// Whether braces can stand around it: no statement, and nothing closed that it does not open.
fn is_expression(text: &str) -> bool {
    let mut open = 0_i32;
    let closed = text.chars().all(|letter| {
        open += match letter {
            '(' | '[' | '{' => 1,
            ')' | ']' | '}' => -1,
            _ => 0,
        };
        open >= 0
    });
    closed && open == 0 && !text.ends_with(';')
}

/// A file with a definition changed for good.
pub fn defined(text: &str, mutations: &[&Mutation]) -> Result<String, String> {
    let all = mutations.iter();
    all.copied().try_fold(text.to_owned(), |text, one| replaced(&text, one, &one.replace))
}

/// The text with its one occurrence of `find` replaced; more or fewer is a stale list.
fn replaced(text: &str, mutation: &Mutation, by: &str) -> Result<String, String> {
    match text.matches(&mutation.find).count() {
        1 => Ok(text.replacen(&mutation.find, by, 1)),
        count => Err(format!("{LIST}: it stands {count} times there: {}", mutation.said())),
    }
}

#[cfg(test)]
mod tests {
    use super::{defined, parse, switched};

    #[test]
    fn a_line_names_a_file_a_change_and_tests() {
        let list =
            parse("# words\n\na.rs | a + b | a - b | norm\na.rs | x = 1; | x = 2; | norm y z\n")
                .expect("good lines");
        let both = switched("let c = a + b;", &[&list[0]]).expect("it stands there once");
        assert_eq!(both, "let c = (if crate::mutation() == 1 { a - b } else { a + b });");
        assert_eq!(defined("let x = 1;", &[&list[1]]).expect("once"), "let x = 2;");
        assert_eq!(
            (list[1].test.as_str(), &list[1].only[..]),
            ("norm", &["y", "z"].map(str::to_owned)[..])
        );
        let one = parse("a.rs@Scalar | a | b | norm").expect("a good line");
        let both = switched("a;", &[&one[0]]).expect("it stands there once");
        let here = "core::any::type_name::<L>().ends_with(\"::Scalar\")";
        assert_eq!(both, format!("(if crate::mutation() == 1 && {here} {{ b }} else {{ a }});"));
        assert!(defined("x = 1; x = 1;", &[&list[1]]).is_err());
        assert!(switched("", &[&list[0]]).is_err());
        assert!(switched("x = 1;", &[&list[1]]).is_err(), "a statement");
        let half = parse("a.rs | b } | c } | norm").expect("a good line");
        assert!(switched("{ b }", &[&half[0]]).is_err(), "a bracket without its other");
        assert!(parse("a.rs | x").is_err());
    }
}
