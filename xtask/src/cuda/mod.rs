//! CUDA's kernels as the compiler makes them, on any machine: no card is needed to compile for
//! one, and much of what goes wrong on it shows in the code that was made.

pub mod head;
pub mod listing;
pub mod occupancy;
pub mod stub;

use crate::check::shell::Shell;
use head::Head;
use listing::Resources;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where kernels lie. Probes are compiled like them.
const FOLDERS: [&str; 2] = ["cuda/kernels", "cuda/probe"];

/// One file of entries.
pub struct Source {
    /// From the root of the checkout.
    path: String,
    /// The name of its file, and of what is made of it.
    pub stem: String,
    head: Head,
}

/// What was made of a file: what its entries take, and what is wrong with them.
pub struct Compiled {
    /// Of every entry on every architecture.
    pub resources: Vec<Resources>,
    /// In words for a reader.
    pub faults: Vec<String>,
}

/// Every file, in order of its name.
pub fn sources(root: &Path) -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    for folder in FOLDERS {
        let fault = |error| format!("{folder}: {error}");
        for entry in std::fs::read_dir(root.join(folder)).map_err(fault)? {
            let path = entry.map_err(fault)?.path();
            let Some(stem) = stem(&path) else { continue };
            let text = std::fs::read_to_string(&path).map_err(fault)?;
            let path = format!("{folder}/{stem}.cu");
            let head = Head::of(&text).map_err(|fault| format!("{path}: {fault}"))?;
            sources.push(Source { path, stem, head });
        }
    }
    sources.sort_by(|a, b| a.stem.cmp(&b.stem));
    match sources.windows(2).find(|pair| pair[0].stem == pair[1].stem) {
        Some([a, b]) => Err(format!("{} and {} have the same name", a.path, b.path)),
        _ => Ok(sources),
    }
}

fn stem(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".cu").map(str::to_owned)
}

/// The compiler, and what reads what it made.
pub struct Toolkit(PathBuf);

impl Toolkit {
    /// As packages of Python bring it into an environment.
    pub fn of(environment: &Path) -> Result<Self, String> {
        let lib = environment.join("lib");
        let versions = std::fs::read_dir(&lib).into_iter().flatten().flatten();
        let mut bins = versions.map(|version| version.path().join("site-packages/nvidia/cu13/bin"));
        let bin = bins.find(|bin| bin.join("nvcc").exists());
        bin.map(Self).ok_or_else(|| format!("{} has no nvcc", lib.display()))
    }

    /// Compiles a file into `check/cuda/<stem>.fatbin`, with its entries in `<stem>.entries`
    /// for whoever embeds it, and judges it.
    pub fn compile(&self, shell: &Shell, source: &Source) -> Result<Compiled, String> {
        let folder = shell.target.join("check/cuda");
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let fatbin = folder.join(format!("{}.fatbin", source.stem));
        let mut nvcc = shell.tool(&self.0.join("nvcc").to_string_lossy());
        // Sums are those of the other backends: a product and a sum stay two roundings.
        nvcc.args(["-O3", "-std=c++17", "-fmad=false", "-Xptxas", "-v", "-Werror", "all-warnings"]);
        nvcc.args(["-I", "include", "-I", "cuda/kernels", "--fatbin"]);
        for arch in &source.head.archs {
            nvcc.arg(format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
        }
        // Cards that are not listed compile the first one's PTX themselves.
        if let Some(arch) = source.head.archs.first() {
            nvcc.arg(format!("-gencode=arch=compute_{arch},code=compute_{arch}"));
        }
        let output = shell.run(nvcc.arg(&source.path).arg("-o").arg(&fatbin))?;
        let mut resources = listing::resources(&self.dump("--dump-resource-usage", &fatbin)?);
        let spills = listing::spills(&output);
        for of in &mut resources {
            let spilled = spills.get(&(of.entry.clone(), of.arch.clone()));
            let lacks = || format!("ptxas says nothing of {} on sm_{}", of.entry, of.arch);
            of.spill_bytes = *spilled.ok_or_else(lacks)?;
        }
        let list = folder.join(format!("{}.entries", source.stem));
        std::fs::write(&list, entries(&resources))
            .map_err(|error| format!("{}: {error}", list.display()))?;
        let sass = self.dump("-sass", &fatbin)?;
        let ptx = self.dump("-ptx", &fatbin)?;
        let faults = faults(&source.head, &resources, &sass, &ptx);
        let faults = faults.into_iter().map(|fault| format!("{}: {fault}", source.path)).collect();
        Ok(Compiled { resources, faults })
    }

    /// What cuobjdump says of a file. It is long, and for no reader.
    fn dump(&self, what: &str, fatbin: &Path) -> Result<String, String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new(self.0.join("cuobjdump"))
            .arg(what)
            .arg(fatbin)
            // It calls nvdisasm by its name.
            .env("PATH", format!("{}:{path}", self.0.display()))
            .output()
            .map_err(|error| format!("cuobjdump: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = String::from_utf8_lossy(&output.stderr);
        Err(format!("cuobjdump {what} {}: {}", fatbin.display(), message.trim()))
    }
}

/// What is wrong with the code that was made of a file.
fn faults(head: &Head, resources: &[Resources], sass: &str, ptx: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for Resources { entry, arch, stack_bytes, spill_bytes, .. } in resources {
        if *stack_bytes + *spill_bytes > 0 && !head.has_stack(entry) {
            faults.push(format!(
                "{entry} on sm_{arch}: {stack_bytes} bytes of stack, {spill_bytes} spilled"
            ));
        }
    }
    for entry in head.stacks() {
        let has = |of: &Resources| of.entry == entry && of.stack_bytes + of.spill_bytes > 0;
        if !resources.iter().any(has) {
            faults.push(format!("{entry} has no stack, though the head says so"));
        }
    }
    let instructions = listing::instructions(sass);
    for arch in &head.archs {
        if !resources.iter().any(|of| of.arch == *arch) {
            faults.push(format!("it has no entry on sm_{arch}"));
        }
        let lacks =
            |asked: &&str| !instructions.get(arch).is_some_and(|has| listing::has(has, asked));
        let lacking = head.instructions(arch).filter(lacks);
        faults.extend(lacking.map(|asked| format!("no {asked} on sm_{arch}")));
    }
    if !ptx.contains(".entry ") {
        faults.push("it has no PTX".to_owned());
    }
    let inexact = listing::inexact(ptx).into_iter();
    faults.extend(inexact.map(|of| format!("{of} is not exact")));
    faults
}

/// The names of a file's entries, a line each.
fn entries(resources: &[Resources]) -> String {
    let names: BTreeSet<&str> = resources.iter().map(|of| of.entry.as_str()).collect();
    names.into_iter().map(|name| format!("{name}\n")).collect()
}

/// The page of what entries take, in order of their names.
pub fn page(mut resources: Vec<Resources>) -> String {
    let number = |arch: &str| arch.trim_end_matches(char::is_alphabetic).parse::<u32>();
    resources.sort_by_cached_key(|of| (of.entry.clone(), number(&of.arch).ok(), of.arch.clone()));
    let mut page = "entry,arch,registers,shared_bytes,stack_bytes,spill_bytes\n".to_owned();
    for Resources { entry, arch, registers, shared_bytes, stack_bytes, spill_bytes } in resources {
        page +=
            &format!("{entry},sm_{arch},{registers},{shared_bytes},{stack_bytes},{spill_bytes}\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::head::Head;
    use super::listing::Resources;
    use super::{entries, faults, page};

    const SASS: &str = "\tcode for sm_80\n/*0000*/ HMMA.16816.F32 R1 ;\n";
    const PTX: &str = ".visible .entry f(\n";

    fn of(entry: &str, arch: &str, stack_bytes: u64, spill_bytes: u64) -> Resources {
        let (entry, arch) = (entry.to_owned(), arch.to_owned());
        Resources { entry, arch, registers: 32, shared_bytes: 0, stack_bytes, spill_bytes }
    }

    #[test]
    fn stacks_and_spills_that_no_head_asks_for_are_found() {
        let bare = Head::of("// archs: 80\n").expect("a good head");
        let asking = Head::of("// archs: 80\n// stack: f\n").expect("a good head");
        for (f, wrong) in [
            (of("f", "80", 0, 0), false),
            (of("f", "80", 8, 0), true),
            (of("f", "80", 8, 16), true),
        ] {
            let found = faults(&bare, std::slice::from_ref(&f), SASS, PTX);
            assert_eq!(found.len(), usize::from(wrong), "{found:?}");
            // What is asked for in vain is a fault as well.
            assert_eq!(faults(&asking, &[f], SASS, PTX).len(), usize::from(!wrong));
        }
    }

    #[test]
    fn what_a_file_lacks_or_should_lack_is_found() {
        let head = Head::of("// archs: 80, 100\n// instructions: HMMA\n").expect("a good head");
        let found = faults(&head, &[of("f", "80", 0, 0)], SASS, PTX);
        assert_eq!(found, ["it has no entry on sm_100", "no HMMA on sm_100"]);
        let head = Head::of("// archs: 80\n// instructions: LDSM\n").expect("a good head");
        let ptx = [PTX, "ex2.approx.f32 %f1, %f2;\n"].concat();
        let found = faults(&head, &[of("f", "80", 0, 0)], SASS, &ptx);
        assert_eq!(found, ["no LDSM on sm_80", "f: ex2.approx.f32 is not exact"]);
        let head = Head::of("// archs: 80\n").expect("a good head");
        assert_eq!(faults(&head, &[of("f", "80", 0, 0)], SASS, ""), ["it has no PTX"]);
    }

    #[test]
    fn an_entry_is_listed_once_for_all_architectures() {
        let resources = [of("g", "80", 0, 0), of("f", "100", 0, 0), of("f", "80", 0, 0)];
        assert_eq!(entries(&resources), "f\ng\n");
    }

    #[test]
    fn the_page_is_in_order_whatever_came_first() {
        let rows = [of("g", "80", 0, 0), of("f", "100", 0, 0), of("f", "90a", 0, 0)];
        let mut turned = rows.to_vec();
        turned.reverse();
        let page = page(rows.to_vec());
        assert_eq!(page, super::page(turned));
        let rows: Vec<&str> = page.lines().skip(1).map(|row| &row[..row.len() - 9]).collect();
        assert_eq!(rows, ["f,sm_90a", "f,sm_100", "g,sm_80"]);
    }
}
