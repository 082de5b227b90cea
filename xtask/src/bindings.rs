//! `include/pagewise/kernel_params.h` as Rust: bindgen's output, committed, and
//! checked to be what the header says today.

use bindgen::callbacks::{DeriveInfo, ItemInfo, ParseCallbacks};
use std::path::{Path, PathBuf};

const HEADER: &str = "include/pagewise/kernel_params.h";
const OUTPUT: &str = "kernels-core/src/params/generated.rs";

/// Writes the bindings into kernels-core.
pub fn write(root: &Path) -> Result<(), String> {
    let path = root.join(OUTPUT);
    std::fs::write(&path, generate(root)?).map_err(|error| format!("{}: {error}", path.display()))
}

/// Fails if the committed bindings are not the header's.
pub fn check(root: &Path) -> Result<(), String> {
    let committed = std::fs::read_to_string(root.join(OUTPUT)).unwrap_or_default();
    if committed == generate(root)? {
        return Ok(());
    }
    Err(format!("{OUTPUT} is not what {HEADER} says: run `cargo xtask bindings`"))
}

/// Whether libclang, which reads the header, can be found.
pub fn libclang() -> Option<PathBuf> {
    if let Some(set) = std::env::var_os("LIBCLANG_PATH") {
        return Some(set.into());
    }
    let llvm = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = llvm
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("llvm-"))
        .map(|path| path.join("lib"))
        .collect();
    folders.push("/usr/lib/x86_64-linux-gnu".into());
    folders.push("/usr/lib/aarch64-linux-gnu".into());
    folders.sort();
    folders.into_iter().rev().find(|folder| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).any(|name| is_libclang(&name.to_string_lossy()))
    })
}

/// Whether a file is libclang: not `libclang-cpp`, which other tools bring along.
fn is_libclang(name: &str) -> bool {
    let versioned = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    let versioned = name.strip_prefix("libclang-").is_some_and(versioned) && name.contains(".so");
    name.starts_with("libclang.so") || versioned
}

fn generate(root: &Path) -> Result<String, String> {
    let folder = libclang().ok_or("libclang is not here: apt-get install libclang-14-dev")?;
    // SAFETY: xtask is single-threaded here; nothing else reads the environment.
    unsafe { std::env::set_var("LIBCLANG_PATH", folder) };
    let bindings = bindgen::Builder::default()
        .header(root.join(HEADER).to_string_lossy())
        .use_core()
        .allowlist_type("pwk_.*")
        .allowlist_var("PWK_.*")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .derive_default(true)
        .derive_partialeq(true)
        .layout_tests(true)
        .parse_callbacks(Box::new(Names))
        .raw_line("// Made from include/pagewise/kernel_params.h by `cargo xtask bindings`.")
        .generate()
        .map_err(|error| error.to_string())?;
    Ok(bindings.to_string())
}

/// `pwk_kv_layout` becomes `KvLayout`, `PWK_DTYPE_F32` becomes `DTYPE_F32`.
#[derive(Debug)]
struct Names;

impl ParseCallbacks for Names {
    fn item_name(&self, item: ItemInfo<'_>) -> Option<String> {
        if let Some(constant) = item.name.strip_prefix("PWK_") {
            return Some(constant.to_owned());
        }
        let words = item.name.strip_prefix("pwk_")?.split('_');
        Some(words.map(capitalised).collect())
    }

    fn add_derives(&self, _: &DeriveInfo<'_>) -> Vec<String> {
        vec!["bytemuck::Pod".into(), "bytemuck::Zeroable".into()]
    }
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

#[cfg(test)]
mod tests {
    use super::is_libclang;

    #[test]
    fn libclang_is_told_from_its_neighbours() {
        assert!(is_libclang("libclang.so.1") && is_libclang("libclang-14.so.14.0.6"));
        assert!(!is_libclang("libclang-cpp.so.14") && !is_libclang("libclang-common-14-dev"));
    }
}
