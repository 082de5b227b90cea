//! The headers as Rust: bindgen's output, committed, and checked to be what they say today.

use bindgen::Builder;
use bindgen::callbacks::{DeriveInfo, ItemInfo, ParseCallbacks};
use std::path::{Path, PathBuf};

/// A header, and where it is as Rust.
struct Bound {
    header: &'static str,
    output: &'static str,
    generate: fn(Builder) -> Builder,
}

const BOUND: [Bound; 3] = [
    Bound {
        header: "include/pagewise/kernel_params.h",
        output: "kernels-core/src/params/generated.rs",
        generate: of_params,
    },
    Bound {
        header: "include/pagewise/plugin.h",
        output: "plugin/src/generated.rs",
        generate: of_plugin,
    },
    Bound { header: "include/pagewise.h", output: "ffi/src/header.rs", generate: of_abi },
];

/// Writes the bindings.
pub fn write(root: &Path) -> Result<(), String> {
    BOUND.iter().try_for_each(|bound| {
        let path = root.join(bound.output);
        let text = generate(root, bound)?;
        // What is not written anew is not built anew.
        if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    })
}

/// Fails if the committed bindings are not the headers'; says how many are.
pub fn check(root: &Path) -> Result<u64, String> {
    for bound in &BOUND {
        let Bound { header, output, .. } = bound;
        let committed = std::fs::read_to_string(root.join(output)).unwrap_or_default();
        if committed != generate(root, bound)? {
            return Err(format!("{output} is not what {header} says: run `cargo xtask bindings`"));
        }
    }
    Ok(BOUND.len() as u64)
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

fn generate(root: &Path, bound: &Bound) -> Result<String, String> {
    let folder = libclang().ok_or("libclang is not here: apt-get install libclang-14-dev")?;
    // SAFETY: xtask is single-threaded here; nothing else reads the environment.
    unsafe { std::env::set_var("LIBCLANG_PATH", folder) };
    let builder = Builder::default()
        .header(root.join(bound.header).to_string_lossy())
        .use_core()
        .default_enum_style(bindgen::EnumVariation::Consts)
        .layout_tests(true)
        .raw_line(format!("// Made from {} by `cargo xtask bindings`.", bound.header));
    let bindings = (bound.generate)(builder).generate().map_err(|error| error.to_string())?;
    Ok(bindings.to_string())
}

/// Parameter blocks, by Rust's names.
fn of_params(builder: Builder) -> Builder {
    builder
        .allowlist_type("pwk_.*")
        .allowlist_var("PWK_.*")
        .derive_default(true)
        .derive_partialeq(true)
        .parse_callbacks(Box::new(Names))
}

/// What plugins and hosts know of each other, by its own names.
fn of_plugin(builder: Builder) -> Builder {
    builder.allowlist_item("(pwp|PWP)_.*").derive_default(true)
}

/// What embedders call, by its own names.
fn of_abi(builder: Builder) -> Builder {
    let plain = Box::new(PlainDescriptors);
    builder.allowlist_item("(pw|PW)_.*").derive_debug(false).parse_callbacks(plain)
}

/// Descriptors are plain bytes, so the compiler refuses one that has padding.
#[derive(Debug)]
struct PlainDescriptors;

impl ParseCallbacks for PlainDescriptors {
    fn add_derives(&self, of: &DeriveInfo<'_>) -> Vec<String> {
        let within = ["pw_kv_layout", "pw_weight"].contains(&of.name);
        match within || of.name.ends_with("_desc") {
            true => vec!["bytemuck::Pod".into(), "bytemuck::Zeroable".into()],
            false => Vec::new(),
        }
    }
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
