//! What `pagewise.h` declares, read from its text: functions, constants, structs and types.
//! It is written plainly enough for that, and a test holds this against bindgen's reading.

use std::path::Path;

/// Where it is, from the root.
pub const PATH: &str = "include/pagewise.h";

/// A header of this library, of today or of a released version: names, and what it says of
/// each in words and marks with one space between them.
#[derive(Debug, Default)]
pub struct Header(Vec<(String, Says)>);

#[derive(Debug, PartialEq, Eq)]
enum Says {
    Function(String),
    Constant(String),
    /// Its fields, in order.
    Struct(Vec<String>),
    Type(String),
}

/// What a later header does to an earlier one's programs, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// No longer declared.
    pub gone: Vec<String>,
    /// Declared otherwise; a struct that says its size may grow.
    pub changed: Vec<String>,
}

impl Header {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        super::files::read(path).map(|text| Self::of(&text))
    }

    /// Reads its text.
    pub fn of(text: &str) -> Self {
        let mut header = Self::default();
        let mut rest = String::new();
        let mut of_cpp = false;
        for line in without_comments(text).lines() {
            match line.trim() {
                "#ifdef __cplusplus" => of_cpp = true,
                "#endif" => of_cpp = false,
                _ if of_cpp => {}
                line if line.starts_with('#') => header.0.extend(constant(line)),
                line => rest.extend([line, "\n"]),
            }
        }
        declarations(&rest).iter().for_each(|words| header.declare(words));
        header
    }

    fn declare(&mut self, words: &[&str]) {
        let (name, says) = match words {
            [] | ["PW_ASSERT", ..] => return,
            ["PW_API", ..] => {
                let before = words.split(|word| *word == "(").next().unwrap_or_default();
                (before.last(), Says::Function(words.join(" ")))
            }
            ["typedef", "struct", name, "{", fields @ .., "}", _] => {
                let fields = fields.split(|word| *word == ";").filter(|field| !field.is_empty());
                (Some(name), Says::Struct(fields.map(|field| field.join(" ")).collect()))
            }
            _ => (words.last(), Says::Type(words.join(" "))),
        };
        self.0.push((name.map_or_else(String::new, |name| (*name).to_owned()), says));
    }

    /// The names of its functions.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        let functions = self.0.iter().filter(|(_, says)| matches!(says, Says::Function(_)));
        functions.map(|(name, _)| name.as_str())
    }

    /// Its `PW_VERSION_MAJOR` and `PW_VERSION_MINOR`.
    pub fn version(&self) -> Option<(u64, u64)> {
        let number = |name| match self.says(name)? {
            Says::Constant(value) => value.trim_end_matches('u').parse().ok(),
            _ => None,
        };
        Some((number("PW_VERSION_MAJOR")?, number("PW_VERSION_MINOR")?))
    }

    fn says(&self, name: &str) -> Option<&Says> {
        self.0.iter().find(|(its, _)| its == name).map(|(_, says)| says)
    }

    /// What a later header breaks; but for the version, whose constants are there to change.
    pub fn broken_by(&self, later: &Self) -> Broken {
        let mut broken = Broken::default();
        for (name, says) in self.0.iter().filter(|(name, _)| !name.starts_with("PW_VERSION")) {
            match (says, later.says(name)) {
                (_, None) => broken.gone.push(name.clone()),
                (Says::Struct(before), Some(Says::Struct(now))) if has_grown(before, now) => {}
                (_, Some(now)) if says == now => {}
                _ => broken.changed.push(name.clone()),
            }
        }
        broken
    }
}

fn has_grown(before: &[String], now: &[String]) -> bool {
    before.first().is_some_and(|first| first == "uint32_t struct_size") && now.starts_with(before)
}

fn without_comments(text: &str) -> String {
    let (mut kept, mut rest) = (String::new(), text);
    while let Some((before, comment)) = rest.split_once("/*") {
        kept.extend([before, " "]);
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    kept + rest
}

/// The name and the value of `#define PW_NAME value`; macros that take arguments have none.
fn constant(line: &str) -> Option<(String, Says)> {
    let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
    let counts = name.starts_with("PW_") && name != "PW_API" && !name.contains('(');
    counts.then(|| (name.to_owned(), Says::Constant(words(value).join(" "))))
}

/// The words of each declaration, without the semicolon that ends it.
fn declarations(text: &str) -> Vec<Vec<&str>> {
    let mut found = vec![Vec::new()];
    let mut depth = 0;
    for word in words(text) {
        depth += i32::from(word == "{") - i32::from(word == "}");
        match found.last_mut() {
            Some(last) if word != ";" || depth > 0 => last.push(word),
            _ => found.push(Vec::new()),
        }
    }
    found
}

/// Names, numbers, and every other mark by itself.
fn words(text: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match is_word(first) {
            true => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        found.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Broken, Header, Says};

    const TODAY: &str = include_str!("../../../include/pagewise.h");
    const BINDGEN: &str = include_str!("../../../ffi/src/header.rs");

    /// What bindgen makes of it.
    fn word(says: &Says) -> &'static str {
        match says {
            Says::Function(_) => "pub fn ",
            Says::Constant(_) => "pub const ",
            Says::Struct(_) => "pub struct ",
            Says::Type(of) if of.starts_with("typedef struct ") => "pub struct ",
            Says::Type(_) => "pub type ",
        }
    }

    #[test]
    fn the_header_declares_what_bindgen_reads() {
        let Header(declared) = Header::of(TODAY);
        for item in ["pub fn ", "pub const ", "pub struct ", "pub type "] {
            let ours = declared.iter().filter(|(_, says)| word(says) == item);
            let mut ours: Vec<&str> = ours.map(|(name, _)| name.as_str()).collect();
            let theirs = BINDGEN.split(item).skip(1);
            let mut theirs: Vec<&str> =
                theirs.filter_map(|rest| rest.split(['(', ':', ' ']).next()).collect();
            ours.sort_unstable();
            theirs.sort_unstable();
            assert_eq!(ours, theirs, "{item}");
        }
    }

    #[test]
    fn what_goes_and_what_changes_is_told_and_sized_structs_may_grow() {
        let before = Header::of(
            "#define PW_ONE 1u /* one; of one */\n#define PW_VERSION_MINOR 1u\ntypedef uint32_t pw_dtype;\n\
             typedef struct pw_a { uint32_t struct_size; int64_t x, y; } pw_a;\n\
             typedef struct pw_b { uint32_t z; } pw_b;\nPW_API void pw_do(const pw_a *a);\n",
        );
        let later = "#define PW_ONE 1u\n#define PW_VERSION_MINOR 2u\n#define PW_TWO 2u\ntypedef uint32_t\npw_dtype;\n\
             typedef struct pw_a { uint32_t struct_size; int64_t x, y; uint32_t more; } pw_a;\n\
             typedef struct pw_b { uint32_t z; } pw_b;\nPW_API void pw_do(const pw_a * a);\n";
        assert_eq!(before.broken_by(&Header::of(later)), Broken::default());
        let broken = |from: &str, to: &str| {
            assert!(later.contains(from), "{from} is there to be changed");
            before.broken_by(&Header::of(&later.replace(from, to)))
        };
        assert_eq!(broken("PW_ONE 1u", "PW_ONE 2u").changed, ["PW_ONE"]);
        assert_eq!(broken("const pw_a * a", "pw_a * a").changed, ["pw_do"]);
        assert_eq!(broken("x, y", "y, x").changed, ["pw_a"]);
        assert_eq!(broken("uint32_t z;", "uint32_t z; uint32_t w;").changed, ["pw_b"]);
        assert_eq!(broken("uint32_t\n", "uint64_t ").changed, ["pw_dtype"]);
        assert_eq!(broken("pw_do(", "pw_did(").gone, ["pw_do"]);
        assert_eq!(broken("#define PW_ONE 1u\n", "").gone, ["PW_ONE"]);
    }
}
