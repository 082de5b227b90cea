//! Committed hashes of the bits of every listed case, and of whole models, under the id of
//! the arithmetic. A changed hash is a changed promise: it takes a new id.

use super::{Case, Output};
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

/// The bits of these cases are those committed for their kernel.
pub fn assert_hashes<C: Case>(cases: &[C]) {
    let hashes = cases.iter().map(|case| {
        let outputs = case.run(Level::best(), &Inline).expect("a listed case runs");
        (case.name(), hash(outputs.iter().flat_map(bits)))
    });
    assert_committed(C::KERNEL, hashes);
}

/// These hashes by name are those committed in `tests/hashes/<numerics>/<file>.txt`. A name
/// that is not there yet is added when `PAGEWISE_WRITE_HASHES` is set.
pub fn assert_committed(file: &str, hashes: impl IntoIterator<Item = (String, u64)>) {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("hashes").join(backends::cpu::NUMERICS);
    let path = folder.join(format!("{file}.txt"));
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let mut text = String::new();
    let mut names = BTreeSet::new();
    for (name, hash) in hashes {
        writeln!(text, "{hash:016x} {name}").expect("a string takes text");
        assert!(names.insert(name.clone()), "two cases have the name {name}");
    }
    if text == committed {
        return;
    }
    if std::env::var_os("PAGEWISE_WRITE_HASHES").is_some() {
        std::fs::create_dir_all(&folder).expect("the checkout can be written");
        std::fs::write(&path, text).expect("the checkout can be written");
        return;
    }
    for (expected, got) in committed.lines().zip(text.lines()) {
        assert_eq!(expected, got, "the bits of a case changed: see docs/kernels.md, \"Bits\"");
    }
    panic!(
        "{}: cases and hashes differ in number: run with PAGEWISE_WRITE_HASHES=1",
        path.display()
    );
}

/// The bits of an output, with every NaN as one.
fn bits(output: &Output) -> impl Iterator<Item = u32> {
    let nan_or = |bits| if super::is_nan(output.dtype, bits) { u32::MAX } else { bits };
    output.bits().into_iter().map(nan_or)
}

/// FNV-1a over the bytes of these words.
pub fn hash(words: impl IntoIterator<Item = u32>) -> u64 {
    words.into_iter().flat_map(u32::to_le_bytes).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
