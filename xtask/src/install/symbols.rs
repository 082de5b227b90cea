//! What `libpagewise` exports: every function of the header that it has, at the version that
//! brought it, and nothing else.

use super::header::Header;
use super::released::{Released, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Functions by the symbol-version node that they belong to, which is the major and the minor
/// version that brought them.
#[derive(Debug, PartialEq, Eq)]
pub struct Nodes(BTreeMap<(u64, u64), BTreeSet<String>>);

impl Nodes {
    /// Of the functions of the header that a library has: the oldest release that declares a
    /// function brought it, or else this version does.
    pub fn of(functions: &[&str], released: &[Released], version: Version) -> Result<Self, String> {
        let minor = version.minor();
        let over = released.iter().any(|of| of.version.minor() == minor);
        let mut nodes = BTreeMap::<_, BTreeSet<_>>::new();
        for name in functions {
            let declares = |header: &Header| header.functions().any(|its| its == *name);
            let since = match released.iter().find(|of| declares(&of.header)) {
                Some(of) => of.version.minor(),
                None if over => {
                    let (major, minor) = minor;
                    return Err(format!(
                        "{name} is not in the {major}.{minor} that was released: what is new takes a new minor version"
                    ));
                }
                None => minor,
            };
            nodes.entry(since).or_default().insert((*name).to_owned());
        }
        Ok(Self(nodes))
    }

    /// Names of functions, each once.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.0.values().flatten().map(String::as_str)
    }

    /// As `nm` writes what a library exports: its functions at their nodes, and the nodes.
    pub fn exports(&self) -> BTreeSet<String> {
        let of = |(node, names): (&_, &BTreeSet<String>)| {
            let node = called(*node);
            let names = names.iter().map(|name| format!("{name}@@{node}"));
            names.chain([node.clone()]).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// The script that the linker takes.
    pub fn script(&self) -> String {
        let mut script = String::new();
        let mut before = String::new();
        for (node, names) in &self.0 {
            let names: String = names.iter().map(|name| format!("    {name};\n")).collect();
            let local = if before.is_empty() { "  local:\n    *;\n" } else { "" };
            script += &format!("{} {{\n  global:\n{names}{local}}}{before};\n", called(*node));
            before = format!(" {}", called(*node));
        }
        script
    }
}

fn called((major, minor): (u64, u64)) -> String {
    format!("PAGEWISE_{major}.{minor}")
}

/// The functions `pw_…` that an archive defines.
pub fn defined(archive: &Path) -> Result<BTreeSet<String>, String> {
    let names = nm(&["-g"], archive)?;
    Ok(names.into_iter().filter(|name| name.starts_with("pw_")).collect())
}

/// Everything that a shared library exports.
pub fn exported(library: &Path) -> Result<BTreeSet<String>, String> {
    nm(&["-D"], library)
}

/// The names that it defines. An archive has thousands: they are kept out of the log.
fn nm(options: &[&str], path: &Path) -> Result<BTreeSet<String>, String> {
    let fault = |what: &str| format!("nm {}: {what}", path.display());
    let output = Command::new("nm").args(options).arg("--defined-only").arg(path).output();
    let output = output.map_err(|error| fault(&error.to_string()))?;
    if !output.status.success() {
        return Err(fault(&String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let names = lines.filter_map(|words| match words[..] {
        [_, _, name] => Some(name.to_owned()),
        _ => None,
    });
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use super::{Header, Nodes, Released, Version};

    fn released(version: &str, functions: &[&str]) -> Released {
        let declare = |name: &&str| format!("PW_API void {name}(void);\n");
        let header: String = functions.iter().map(declare).collect();
        Released {
            version: version.parse().expect("a version"),
            folder: version.into(),
            header: Header::of(&header),
        }
    }

    fn nodes(functions: &[&str], before: &[Released], version: &str) -> Result<Nodes, String> {
        Nodes::of(functions, before, version.parse::<Version>().expect("a version"))
    }

    #[test]
    fn a_function_stays_at_the_version_that_brought_it() {
        let before =
            [released("0.1.0", &["pw_a", "pw_gone"]), released("0.2.0", &["pw_a", "pw_b"])];
        let nodes = nodes(&["pw_c", "pw_b", "pw_a"], &before, "0.3.0").expect("nodes");
        assert_eq!(
            nodes.script(),
            "PAGEWISE_0.1 {\n  global:\n    pw_a;\n  local:\n    *;\n};\n\
             PAGEWISE_0.2 {\n  global:\n    pw_b;\n} PAGEWISE_0.1;\n\
             PAGEWISE_0.3 {\n  global:\n    pw_c;\n} PAGEWISE_0.2;\n"
        );
        let exports: Vec<_> = nodes.exports().into_iter().collect();
        assert_eq!(exports[..3], ["PAGEWISE_0.1", "PAGEWISE_0.2", "PAGEWISE_0.3"]);
        assert_eq!(
            exports[3..],
            ["pw_a@@PAGEWISE_0.1", "pw_b@@PAGEWISE_0.2", "pw_c@@PAGEWISE_0.3"]
        );
    }

    #[test]
    fn a_patch_release_brings_nothing_new() {
        let before = [released("0.1.0", &["pw_a"])];
        assert!(nodes(&["pw_a"], &before, "0.1.1").is_ok());
        assert!(nodes(&["pw_a", "pw_b"], &before, "0.1.1").is_err());
        assert!(nodes(&["pw_a", "pw_b"], &before, "0.2.0").is_ok());
    }
}
