//! Brings the kernels that Metal's compiler made, one `.metallib`, to where they are embedded:
//! `PAGEWISE_METALLIB` names the file. `metal/check-on-a-mac.sh` makes it.

use std::env;
use std::fs;
use std::path::PathBuf;

const LIBRARY: &str = "PAGEWISE_METALLIB";

fn main() {
    println!("cargo::rerun-if-env-changed={LIBRARY}");
    // Elsewhere there is nothing to embed it in.
    let system = env::var_os("CARGO_CFG_TARGET_OS").expect("cargo sets it");
    if system != "macos" {
        return;
    }
    if let Err(why) = bring() {
        println!("cargo::error={why}");
    }
}

fn bring() -> Result<(), String> {
    let library = env::var_os(LIBRARY).map(PathBuf::from).ok_or_else(|| {
        format!(
            "the compiled kernels are missing: set {LIBRARY} to the .metallib that \
             metal/check-on-a-mac.sh makes"
        )
    })?;
    println!("cargo::rerun-if-changed={}", library.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let copied = fs::copy(&library, out.join("kernels.metallib"));
    copied.map(drop).map_err(|error| format!("{LIBRARY}: {}: {error}", library.display()))
}
