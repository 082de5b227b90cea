//! A driver to link against where there is none: for each function that cust_raw declares one
//! that says there is no device, under the driver's own name. A library linked to it asks the
//! loader for that name, and so gets the true one; where there is none it does not load, and
//! whoever asked for it is told so.

use crate::check::shell::Shell;
use std::path::{Path, PathBuf};

/// `CUDA_ERROR_NO_DEVICE`: what all of its functions return. They are not there to be called,
/// and a caller that comes by one is told what it can handle.
const NO_DEVICE: u32 = 100;
/// The name under which the loader looks for the driver.
pub const SONAME: &str = "libcuda.so.1";

/// Makes it for the crate of a manifest, which depends on cust_raw; where it is, as
/// `CUDA_LIBRARY_PATH` has it.
pub fn make(shell: &Shell, manifest: &Path) -> Result<PathBuf, String> {
    let bindings = bindings(shell, manifest)?;
    let text = std::fs::read_to_string(&bindings);
    let text = text.map_err(|error| format!("{}: {error}", bindings.display()))?;
    let folder = shell.target.join("check/cuda/stub");
    let source = folder.join("stub.c");
    // cust's build looks for a folder of this name.
    let library = folder.join("lib64/libcuda.so");
    let functions =
        functions(&text).map(|name| format!("int {name}(void) {{ return {NO_DEVICE}; }}\n"));
    std::fs::create_dir_all(folder.join("lib64"))
        .and_then(|()| std::fs::write(&source, functions.collect::<String>()))
        .map_err(|error| format!("{}: {error}", source.display()))?;
    let mut compiler = shell.tool("cc");
    compiler.args(["-shared", "-fPIC", "-nostdlib"]).arg(format!("-Wl,-soname,{SONAME}"));
    shell.run(compiler.arg("-o").arg(&library).arg(&source))?;
    // What was linked looks for it by the driver's own name.
    let loaded = library.with_file_name(SONAME);
    std::fs::copy(&library, &loaded).map_err(|error| format!("{}: {error}", loaded.display()))?;
    Ok(folder)
}

/// Where cargo has cust_raw's declarations.
fn bindings(shell: &Shell, manifest: &Path) -> Result<PathBuf, String> {
    let mut metadata = shell.cargo(&["metadata", "--locked", "--format-version", "1"]);
    let output = shell.run(metadata.arg("--manifest-path").arg(manifest))?;
    let folder = package(&output, "cust_raw");
    let folder = folder.ok_or_else(|| format!("{} has no cust_raw", manifest.display()))?;
    Ok(Path::new(folder).join("src/cuda.rs"))
}

/// The folder of a package, from what `cargo metadata` says. The packages it depends on
/// have none there: it follows the first mention as a package's own name.
fn package<'a>(metadata: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = metadata.split_once(&format!("{{\"name\":\"{name}\",\"version\":"))?;
    let (_, path) = after.split_once("\"manifest_path\":\"")?;
    path.split('"').next()?.strip_suffix("/Cargo.toml")
}

/// The functions of the driver that Rust declares.
fn functions(bindings: &str) -> impl Iterator<Item = &str> {
    let after = bindings.split("pub fn ").skip(1);
    after.filter_map(|rest| rest.split('(').next()).filter(|name| name.starts_with("cu"))
}

#[cfg(test)]
mod tests {
    use super::{functions, package};

    #[test]
    fn functions_of_the_driver_are_found() {
        let bindings = "extern \"C\" {\n    pub fn cuInit(Flags: c_uint) -> CUresult;\n}\n\
            impl X { pub fn new(a: u8) {} }\nextern \"C\" { pub fn cuFree(\n a: u8,\n); }";
        assert_eq!(functions(bindings).collect::<Vec<_>>(), ["cuInit", "cuFree"]);
    }

    #[test]
    fn a_package_is_told_from_those_that_depend_on_it() {
        let metadata = "{\"packages\":[{\"name\":\"cust\",\"version\":\"0.3.2\",\"dependencies\":\
            [{\"name\":\"cust_raw\",\"source\":\"r\"}],\"manifest_path\":\"/c/cust/Cargo.toml\"},\
            {\"name\":\"cust_raw\",\"version\":\"0.11.3\",\"dependencies\":[],\
            \"manifest_path\":\"/c/cust_raw/Cargo.toml\"}]}";
        assert_eq!(package(metadata, "cust_raw"), Some("/c/cust_raw"));
        assert_eq!(package(metadata, "cust_core"), None);
    }
}
