//! One stem per kernel in every form, so that a reader finds each form by name.

use super::source::Tree;
use crate::kernels::{kernels, stems};

/// Hashes of no kernel: of whole models' log-probabilities.
const MODELS: &str = "models";

/// Forms that a kernel's stem lacks, and hashes that belong to no kernel.
pub fn broken(tree: &Tree) -> Vec<String> {
    let kernels = match kernels(tree) {
        Ok(kernels) => kernels,
        Err(message) => return vec![message],
    };
    let mut faults = Vec::new();
    let has = |path: &str| {
        tree.text(&format!("{path}.rs")).is_some() || tree.text(&format!("{path}/mod.rs")).is_some()
    };
    for stem in stems(&kernels) {
        let forms = [
            format!("kernels-core/src/{stem}"),
            format!("kernels-core/src/{stem}/spec"),
            format!("kernels-core/src/{stem}/cpu"),
            format!("tests/src/cases/{stem}"),
            format!("tests/tests/{stem}"),
        ];
        for kernel in [format!("cuda/kernels/{stem}.cu"), format!("metal/kernels/{stem}.metal")] {
            if tree.text(&kernel).is_none() {
                faults.push(format!("{stem}: there is no {kernel}"));
            }
        }
        let lacking = forms.iter().filter(|form| !has(form));
        faults
            .extend(lacking.map(|form| format!("{stem}: there is no {form}.rs or {form}/mod.rs")));
    }
    let hashes: Vec<(&str, &str)> = tree
        .under("tests/hashes/")
        .filter_map(|(path, _)| path.strip_suffix(".txt")?.rsplit_once('/'))
        .collect();
    for kernel in &kernels {
        if !hashes.iter().any(|(_, name)| *name == kernel.name) {
            faults.push(format!("{}: there are no hashes of its bits", kernel.name));
        }
    }
    for (folder, name) in hashes {
        if name != MODELS && !kernels.iter().any(|kernel| kernel.name == name) {
            faults.push(format!("{folder}/{name}.txt: there is no such kernel"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::broken;
    use crate::kernels::LIST;
    use crate::tidy::source::Tree;

    const WHOLE: [(&str, &str); 9] = [
        (LIST, "kernels! { Norm }"),
        ("kernels-core/src/norm/mod.rs", "pub struct Norm(\"norm\", params::Norm) {}"),
        ("kernels-core/src/norm/spec.rs", ""),
        ("kernels-core/src/norm/cpu/mod.rs", ""),
        ("tests/src/cases/norm.rs", ""),
        ("tests/tests/norm.rs", ""),
        ("cuda/kernels/norm.cu", ""),
        ("metal/kernels/norm.metal", ""),
        ("tests/hashes/cpu-1/norm.txt", ""),
    ];

    #[test]
    fn each_missing_form_is_found() {
        assert!(broken(&Tree::of(&WHOLE)).is_empty());
        for (missing, (path, _)) in WHOLE.iter().enumerate().skip(2) {
            let mut files = WHOLE.to_vec();
            files.remove(missing);
            assert_eq!(broken(&Tree::of(&files)).len(), 1, "{path}");
        }
    }

    #[test]
    fn hashes_of_no_kernel_are_found() {
        let mut files = WHOLE.to_vec();
        files.push(("tests/hashes/cpu-1/models.txt", ""));
        files.push(("tests/hashes/cpu-1/norms.txt", ""));
        assert_eq!(broken(&Tree::of(&files)).len(), 1);
    }
}
