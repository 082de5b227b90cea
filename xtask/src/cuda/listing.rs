//! Reads what the compiler and the tools beside it say of the code that was made.

use std::collections::{BTreeMap, BTreeSet};

/// What one entry takes on one architecture.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resources {
    /// The entry.
    pub entry: String,
    /// `80`, `90a`.
    pub arch: String,
    /// Registers of each thread.
    pub registers: u64,
    /// Bytes of shared memory without what a launch asks for. From sm_90 on the first 1024 are
    /// the system's.
    pub shared_bytes: u64,
    /// Bytes of each thread's own memory.
    pub stack_bytes: u64,
    /// Bytes that code stores there and loads again for want of registers.
    pub spill_bytes: u64,
}

/// Spilled bytes of every entry on every architecture, as `ptxas -v` says while it compiles.
pub fn spills(output: &str) -> BTreeMap<(String, String), u64> {
    let mut spills = BTreeMap::new();
    let mut of = None;
    for line in output.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let mut parts = rest.split('\'');
            let (entry, arch) = (parts.next(), parts.nth(1));
            of = entry.zip(arch.and_then(|arch| arch.strip_prefix("sm_")));
        } else if line.ends_with("bytes spill loads")
            && let Some((entry, arch)) = of
        {
            // After the stack frame: what is stored, and what is loaded.
            let counts = line.split(',').skip(1).filter_map(|part| part.trim().split(' ').next());
            let bytes: u64 = counts.filter_map(|count| count.parse::<u64>().ok()).sum();
            // A function that is called comes after the entry that calls it.
            *spills.entry((entry.to_owned(), arch.to_owned())).or_default() += bytes;
        }
    }
    spills
}

/// What each entry takes, as `cuobjdump --dump-resource-usage` says; spills it does not know.
pub fn resources(output: &str) -> Vec<Resources> {
    let mut found = Vec::new();
    let (mut arch, mut entry) = ("", "");
    for line in output.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("arch = sm_") {
            arch = name;
        } else if let Some(name) = line.strip_prefix("Function ") {
            entry = name.trim_end_matches(':');
        } else if line.starts_with("REG:") {
            let field = |key: &str| {
                let mut fields = line.split(' ').filter_map(|field| field.split_once(':'));
                let value = fields.find(|(name, _)| *name == key);
                value.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
            };
            found.push(Resources {
                entry: entry.to_owned(),
                arch: arch.to_owned(),
                registers: field("REG"),
                shared_bytes: field("SHARED"),
                stack_bytes: field("STACK") + field("LOCAL"),
                spill_bytes: 0,
            });
        }
    }
    found
}

/// The instructions that each architecture has, as `cuobjdump -sass` lists them.
pub fn instructions(output: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    let mut arch = "";
    for line in output.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("code for sm_") {
            arch = name;
        } else if let Some((address, code)) =
            line.strip_prefix("/*").and_then(|rest| rest.split_once("*/"))
            // Beside the code is its encoding, with blanks.
            && address.bytes().all(|byte| byte.is_ascii_hexdigit())
            && let Some(name) = code.split_whitespace().find(|word| !word.starts_with(['@', '{']))
        {
            let names = found.entry(arch.to_owned()).or_default();
            names.insert(name.trim_end_matches(';').to_owned());
        }
    }
    found
}

/// Whether one of the instructions is the one asked for, or a form of it.
pub fn has(instructions: &BTreeSet<String>, asked: &str) -> bool {
    let is_form = |name: &str| {
        name.strip_prefix(asked).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    instructions.iter().any(|name| is_form(name))
}

/// Entries with instructions of PTX that only come near the true result or drop the smallest
/// numbers, as `cuobjdump -ptx` lists them. SASS could not tell: an exact division begins with
/// an approximation, and looks at its operands without the smallest.
pub fn inexact(output: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut entry = "";
    for line in output.lines() {
        if let Some((_, name)) = line.split_once(".entry ") {
            entry = name.trim_end_matches('(');
        }
        let is_inexact = |word: &&str| {
            let mut parts = word.split('.').skip(1);
            parts.any(|part| ["approx", "ftz", "full"].contains(&part.trim_end_matches(';')))
        };
        let words = line.split("//").next().unwrap_or_default().split_whitespace();
        found.extend(words.filter(is_inexact).map(|word| format!("{entry}: {word}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Resources, has, inexact, instructions, resources, spills};

    #[test]
    fn spills_are_of_the_entry_that_is_compiled() {
        let output = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'f' for 'sm_90a'\n\
            ptxas info    : Function properties for f\n\
            \x20   2440 bytes stack frame, 4808 bytes spill stores, 5676 bytes spill loads\n\
            ptxas info    : Used 64 registers, used 1 barriers, 2440 bytes cumulative stack size\n\
            ptxas info    : Compiling entry function 'g' for 'sm_80'\n\
            ptxas info    : Function properties for g\n\
            \x20   0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n";
        let of = |entry: &str, arch: &str| {
            spills(output).get(&(entry.to_owned(), arch.to_owned())).copied()
        };
        assert_eq!((of("f", "90a"), of("g", "80"), of("g", "90a")), (Some(10484), Some(0), None));
    }

    #[test]
    fn resources_are_of_an_entry_on_an_architecture() {
        let output = "Fatbin ptx code:\n================\narch = sm_80\ncompressed\n\n\
            Fatbin elf code:\n================\narch = sm_90a\n\nResource usage:\n Common:\n  GLOBAL:0\n\
            \x20Function f:\n  REG:64 STACK:2440 SHARED:256 LOCAL:8 CONSTANT[0]:368 TEXTURE:0\n";
        let f = Resources {
            entry: "f".into(),
            arch: "90a".into(),
            registers: 64,
            shared_bytes: 256,
            stack_bytes: 2448,
            spill_bytes: 0,
        };
        assert_eq!(resources(output), [f]);
    }

    #[test]
    fn instructions_are_told_from_predicates_and_encodings() {
        let output = "\tcode for sm_80\n\t\tFunction : f\n\
            \t.headerflags\t@\"EF_CUDA_SM80\"\n\
            /*0000*/    IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;  /* 0x00000a00ff017624 */\n\
            /* 0x000fe400078e00ff */\n\
            /*0010*/    @!P0 LDSM.16.M88.4 R4, [R5] ;  /* 0x0000000000057919 */\n\
            /*0020*/    EXIT ;\n";
        let found = instructions(output);
        assert_eq!(found.len(), 1);
        let found = &found["80"];
        assert_eq!(found.iter().collect::<Vec<_>>(), ["EXIT", "IMAD.MOV.U32", "LDSM.16.M88.4"]);
        assert!(has(found, "LDSM") && has(found, "LDSM.16") && has(found, "EXIT"));
        assert!(!has(found, "LDS") && !has(found, "HMMA"));
    }

    #[test]
    fn what_only_comes_near_is_found() {
        let output = ".visible .entry f(\n\t.param .align 8 .b8 f_param_0[16]\n)\n\
            div.rn.f32 %f1, %f2, %f3;\n@%p1 ex2.approx.ftz.f32 %f3, %f2;\n\
            .visible .entry g(\nred.add.noftz.f16 [%rd1], %h1;\n// ex2.approx.f32\ndiv.full.f32 %f1, %f2, %f3;\n";
        let found = inexact(output);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, ["f: ex2.approx.ftz.f32", "g: div.full.f32"]);
    }
}
