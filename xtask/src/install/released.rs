//! Released versions: each has a folder with its header and its programs of C, which later
//! libraries run. The headers also say since when a function is there, so they stay for good;
//! a program goes where a minor version before 1.0 takes away what it uses.

use super::files::{copy, make, with_extensions};
use super::header::{self, Header};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where they are, from the root: a folder each, called by its version.
pub const FOLDER: &str = "tests/abi/released";
/// Whose programs a version keeps, with the folders in it that it takes along.
const PROGRAMS: (&str, [&str; 2]) = ("tests/abi", ["", "plain"]);

/// A version, as `0.1.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The soname's number.
    pub major: u64,
    /// With the major one, a node of symbols.
    pub minor: u64,
    patch: u64,
}

impl Version {
    /// Of the workspace.
    pub fn of_workspace() -> Self {
        env!("CARGO_PKG_VERSION").parse().expect("the workspace has a plain version")
    }

    /// What symbol nodes and package managers go by.
    pub fn minor(self) -> (u64, u64) {
        (self.major, self.minor)
    }

    /// Whether it has all that an earlier version of its soname has: before 1.0 only a patch
    /// release must.
    fn keeps(self, earlier: Self) -> bool {
        self.major > 0 || self.minor == earlier.minor
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<u64>, _> = text.split('.').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[major, minor, patch]) => Ok(Self { major, minor, patch }),
            _ => Err(format!("`{text}` is no version of three numbers")),
        }
    }
}

/// A released version.
pub struct Released {
    /// Which.
    pub version: Version,
    /// Its folder.
    pub folder: PathBuf,
    /// What its header declares.
    pub header: Header,
}

/// Every released version that has today's soname, oldest first.
pub fn read(root: &Path) -> Result<Vec<Released>, String> {
    let entries = fs::read_dir(root.join(FOLDER)).into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    let released = folders.map(|folder| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let version = name.parse().map_err(|error| format!("{FOLDER}: {error}"))?;
        let header = Header::read(&folder.join("pagewise.h"))?;
        Ok(Released { version, header, folder })
    });
    let mut released: Vec<Released> = released.collect::<Result<_, String>>()?;
    released.retain(|of| of.version.major == Version::of_workspace().major);
    released.sort_by_key(|of| of.version);
    Ok(released)
}

/// How a header of this version breaks what released versions promise: nothing that they
/// declare changes, and nothing goes that this version must keep.
pub fn broken(released: &[Released], version: Version, header: &Header) -> Vec<String> {
    let mut broken = Vec::new();
    for of in released {
        let by = of.header.broken_by(header);
        let name = of.folder.file_name().unwrap_or_default().to_string_lossy();
        broken.extend(by.changed.iter().map(|what| format!("{what} is not as in {name}")));
        if version.keeps(of.version) {
            broken.extend(by.gone.iter().map(|what| format!("{what} of {name} is gone")));
        }
    }
    broken
}

/// Keeps today's header and programs as those of this version.
pub fn keep(root: &Path) -> Result<(), String> {
    let version = env!("CARGO_PKG_VERSION");
    let kept = root.join(FOLDER).join(version);
    if kept.exists() {
        return Err(format!("{FOLDER}/{version} is there: a version is released once"));
    }
    let (from, folders) = PROGRAMS;
    for folder in folders {
        let to = kept.join(folder);
        make(&to)?;
        for source in with_extensions(&root.join(from).join(folder), &["c", "h"])? {
            copy(&source, &to)?;
        }
    }
    copy(&root.join(header::PATH), &kept)?;
    println!("{FOLDER}/{version} has the header and the programs of this version");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Header, Released, Version, broken};

    fn version(text: &str) -> Version {
        text.parse().expect("a version")
    }

    #[test]
    fn only_a_minor_version_before_one_point_nought_takes_away_and_none_changes() {
        let of = |name: &str| Released {
            version: version(name),
            folder: name.into(),
            header: Header::of("#define PW_ONE 1u\nPW_API void pw_do(void);\n"),
        };
        let less = Header::of("#define PW_ONE 1u\n");
        assert_eq!(broken(&[of("0.1.0")], version("0.1.3"), &less), ["pw_do of 0.1.0 is gone"]);
        assert_eq!(broken(&[of("0.1.0")], version("0.2.0"), &less), [""; 0]);
        assert_eq!(broken(&[of("1.0.2")], version("1.4.0"), &less), ["pw_do of 1.0.2 is gone"]);
        let other = Header::of("#define PW_ONE 2u\nPW_API void pw_do(void);\n");
        assert_eq!(broken(&[of("0.1.0")], version("0.2.0"), &other), ["PW_ONE is not as in 0.1.0"]);
    }

    #[test]
    fn a_version_is_three_numbers() {
        assert!(version("0.10.0") > version("0.9.3"));
        assert!("0.1".parse::<Version>().is_err() && "0.1.0-rc1".parse::<Version>().is_err());
    }
}
