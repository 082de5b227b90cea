//! Committed hashes of the bits of every listed case, under the id of the
//! arithmetic. A changed hash is a changed promise: it takes a new id.

use super::{Case, Output};
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

/// The bits of these cases are those committed in `tests/hashes/<numerics>/<kernel>.txt`.
/// A case that is not there yet is added when `PAGEWISE_WRITE_HASHES` is set.
pub fn assert_hashes<C: Case>(cases: &[C]) {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("hashes").join(backends::cpu::NUMERICS);
    let path = folder.join(format!("{}.txt", C::KERNEL));
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let mut text = String::new();
    let mut names = BTreeSet::new();
    for case in cases {
        assert!(names.insert(case.name()), "two cases have the name {}", case.name());
        let outputs = case.run(Level::best(), &Inline).expect("a listed case runs");
        writeln!(text, "{:016x} {}", hash(&outputs), case.name()).expect("a string takes text");
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

/// FNV-1a over all outputs, with every NaN as one.
fn hash(outputs: &[Output]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for output in outputs {
        for bits in output.bits() {
            let bits = if super::is_nan(output.dtype, bits) { u32::MAX } else { bits };
            for byte in bits.to_le_bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    hash
}
