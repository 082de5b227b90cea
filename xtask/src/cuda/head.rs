//! What the head of a kernel's file asks of the compiler, in lines of its comment:
//!
//! - `archs: 90a`: the architectures it is compiled for, where not for all.
//! - `instructions: HMMA, LDSM`: each is in some entry of the file, on every architecture;
//!   `instructions 90a: HGMMA` asks it of that one alone. `LDSM.16` is found as `LDSM.16.M88.4`.
//! - `stack: entry, entry`: these may keep numbers in memory of their own, and spill.

/// Architectures that a file is compiled for if it names none: of all that `sm_80` runs on
/// the one with the fewest instructions, and those that serve rollouts.
const ARCHS: [&str; 3] = ["80", "90a", "100"];

/// What a file asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Architectures; the first is kept as PTX, too.
    pub archs: Vec<String>,
    /// Instructions, with the architecture that must have one, where not all must.
    instructions: Vec<(Option<String>, String)>,
    /// Entries that may have a stack.
    stack: Vec<String>,
}

impl Head {
    /// Reads it; lines end where the comment does.
    pub fn of(text: &str) -> Result<Self, String> {
        let mut head = Self::default();
        for line in text.lines().map(str::trim) {
            let Some(words) = ["//", "/*", "*"].iter().find_map(|mark| line.strip_prefix(mark))
            else {
                break;
            };
            let Some((key, list)) = words.trim().split_once(':') else { continue };
            let names = list.split(',').map(|name| name.trim().to_owned());
            let names = names.filter(|name| !name.is_empty());
            match key.split_once(' ').unwrap_or((key, "")) {
                ("archs", "") => head.archs.extend(names),
                ("stack", "") => head.stack.extend(names),
                ("instructions", "") => head.instructions.extend(names.map(|name| (None, name))),
                ("instructions", arch) if !arch.contains(' ') => {
                    let of_arch = |name| (Some(arch.to_owned()), name);
                    head.instructions.extend(names.map(of_arch));
                }
                _ => {}
            }
        }
        if head.archs.is_empty() {
            head.archs = ARCHS.map(str::to_owned).to_vec();
        }
        let mut asked = head.instructions.iter().filter_map(|(arch, _)| arch.as_ref());
        match asked.find(|arch| !head.archs.contains(arch)) {
            Some(arch) => Err(format!("instructions of {arch}, which it is not compiled for")),
            None => Ok(head),
        }
    }

    /// Instructions that an architecture must have.
    pub fn instructions<'a>(&'a self, arch: &'a str) -> impl Iterator<Item = &'a str> {
        let of_arch = move |of: &Option<String>| of.as_ref().is_none_or(|of| of == arch);
        self.instructions.iter().filter(move |(of, _)| of_arch(of)).map(|(_, name)| name.as_str())
    }

    /// Whether an entry may have a stack.
    pub fn has_stack(&self, entry: &str) -> bool {
        self.stack.iter().any(|name| name == entry)
    }

    /// Entries that say they have one.
    pub fn stacks(&self) -> impl Iterator<Item = &str> {
        self.stack.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::Head;

    #[test]
    fn a_head_is_read_up_to_its_end() {
        let head = Head::of(
            "// archs: 90a, 100\n// Words: no key.\n/* instructions: HMMA,\n * instructions: LDSM\n \
             * instructions 90a: HGMMA\n * stack: f\n */\n#include <x>\n// stack: g\n",
        );
        let head = head.expect("a good head");
        assert_eq!(head.archs, ["90a", "100"]);
        assert_eq!(head.instructions("90a").collect::<Vec<_>>(), ["HMMA", "LDSM", "HGMMA"]);
        assert_eq!(head.instructions("100").collect::<Vec<_>>(), ["HMMA", "LDSM"]);
        assert!(head.has_stack("f") && !head.has_stack("g"));
    }

    #[test]
    fn a_file_that_asks_for_nothing_is_compiled_for_all() {
        let head = Head::of("/* A kernel. */\n").expect("a good head");
        assert_eq!(head.archs, ["80", "90a", "100"]);
        assert_eq!(head.instructions("80").count(), 0);
        assert!(Head::of("// instructions 75: HMMA\n").is_err());
    }
}
