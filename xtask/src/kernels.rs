//! The list of kernels, read from the sources: what tidy and the parity grid go by.

use crate::tidy::source::{Tree, code_of};

/// Where the list stands.
pub const LIST: &str = "kernels-core/src/device/mod.rs";

/// One kernel: a variant of `Command`, and the folder that holds its contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The variant: `AppendKv`.
    pub variant: String,
    /// The folder: `append_kv`. Several kernels may share one.
    pub stem: String,
    /// The name in its errors and hashes: `append_kv`.
    pub name: String,
}

/// Every variant of `kernels! { … }`, with its folder.
pub fn kernels(tree: &Tree) -> Result<Vec<Kernel>, String> {
    let list = tree.text(LIST).ok_or_else(|| format!("{LIST} is missing"))?;
    let code = code_of(list);
    let start = code.rfind("kernels! {").ok_or_else(|| format!("{LIST} has no kernels! list"))?;
    let inside = &code[start + "kernels! {".len()..];
    let inside = inside.split('}').next().unwrap_or_default();
    inside.split_whitespace().map(|variant| find(tree, variant)).collect()
}

/// The stems, each once, in the order of the list.
pub fn stems(kernels: &[Kernel]) -> Vec<String> {
    let mut stems: Vec<String> = Vec::new();
    for kernel in kernels {
        if !stems.contains(&kernel.stem) {
            stems.push(kernel.stem.clone());
        }
    }
    stems
}

/// The folder whose `command!` declares the variant.
fn find(tree: &Tree, variant: &str) -> Result<Kernel, String> {
    let declaration = format!("pub struct {variant}(\"");
    for (path, text) in tree.under("kernels-core/src/") {
        let Some((_, after)) = text.split_once(&declaration) else { continue };
        let name = after.split('"').next().unwrap_or_default().to_owned();
        let inner = path.strip_prefix("kernels-core/src/").unwrap_or(path);
        let stem = inner.split('/').next().unwrap_or_default().to_owned();
        return Ok(Kernel { variant: variant.to_owned(), stem, name });
    }
    Err(format!("{LIST} lists {variant}, which no command! declares"))
}

#[cfg(test)]
mod tests {
    use super::{LIST, kernels};
    use crate::tidy::source::Tree;

    #[test]
    fn a_kernel_is_found_by_its_declaration() {
        let contract = "crate::command! {\n pub struct AppendKv(\"append_kv\", params::A) {} }";
        let tree = Tree::of(&[
            (LIST, "macro_rules! kernels { () => {} }\nkernels! { AppendKv }\n"),
            ("kernels-core/src/kv/mod.rs", contract),
        ]);
        let found = kernels(&tree).expect("the list is there");
        assert_eq!((found[0].stem.as_str(), found[0].name.as_str()), ("kv", "append_kv"));
        let undeclared = Tree::of(&[(LIST, "kernels! { Norm }")]);
        assert!(kernels(&undeclared).is_err());
    }
}
