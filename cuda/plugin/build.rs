//! Lists the kernels that the compiler made, to be embedded: a fatbin for each
//! `cuda/kernels/*.cu`, and beside it the names of its entries, in the folder that
//! `PAGEWISE_FATBINS` names. `cargo xtask check --stage cuda` makes them.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const FOLDER: &str = "PAGEWISE_FATBINS";
const KERNELS: &str = "../kernels";
/// The version of the compiler is written here alone; a driver has to be of its major version or later.
const REQUIREMENTS: &str = "../requirements.txt";

fn main() {
    println!("cargo::rerun-if-env-changed={FOLDER}");
    println!("cargo::rerun-if-changed={KERNELS}");
    println!("cargo::rerun-if-changed={REQUIREMENTS}");
    let made = source().and_then(|source| {
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
        fs::write(out.join("fatbins.rs"), source).map_err(|error| error.to_string())
    });
    if let Err(why) = made {
        println!("cargo::error={why}");
    }
}

fn source() -> Result<String, String> {
    let folder = env::var_os(FOLDER).ok_or_else(|| {
        format!(
            "the compiled kernels are missing: set {FOLDER} to the folder of the fatbins that \
             `cargo xtask check --stage cuda` makes, target/check/cuda"
        )
    })?;
    let folder = PathBuf::from(folder);
    let mut source = format!("const COMPILER: i32 = {};\n", compiler()?);
    source += "const FATBINS: &[Fatbin] = &[\n";
    for stem in stems()? {
        let image = folder.join(format!("{stem}.fatbin"));
        let list = folder.join(format!("{stem}.entries"));
        for file in [&image, &list] {
            println!("cargo::rerun-if-changed={}", file.display());
            if !file.exists() {
                let file = file.display();
                return Err(format!(
                    "{file} is missing: `cargo xtask check --stage cuda` makes it"
                ));
            }
        }
        let list = read(&list)?;
        let entries: Vec<&str> = list.lines().collect();
        let line = writeln!(
            source,
            "    Fatbin {{ stem: {stem:?}, entries: &{entries:?}, \
             image: &Aligned(*include_bytes!({image:?})) }},"
        );
        line.expect("a string takes it");
    }
    Ok(source + "];\n")
}

/// The names of the kernels' files, in order.
fn stems() -> Result<Vec<String>, String> {
    let files = fs::read_dir(KERNELS).map_err(|error| format!("{KERNELS}: {error}"))?;
    let names = files.flatten().map(|file| file.path());
    let kernels = names.filter(|path| path.extension().is_some_and(|end| end == "cu"));
    let stem = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut stems: Vec<String> = kernels.filter_map(stem).collect();
    stems.sort();
    Ok(stems)
}

/// The version of CUDA that compiled them, as the driver spells its own: 13000 for 13.0.
fn compiler() -> Result<u32, String> {
    let text = read(Path::new(REQUIREMENTS))?;
    let version = text.lines().find_map(|line| line.strip_prefix("nvidia-cuda-nvcc=="));
    let mut parts = version.unwrap_or_default().split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok(major * 1000 + minor * 10),
        _ => Err(format!("{REQUIREMENTS} has no version of nvidia-cuda-nvcc")),
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
