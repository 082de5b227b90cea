//! The parameter header in every language that reads it.

use super::shell::Shell;
use super::tally::Tally;

const HEADER: &str = "include/pagewise/kernel_params.h";

/// What Rust reads is what the header says.
pub fn bindings(shell: &Shell) -> Result<Tally, String> {
    if crate::bindings::libclang().is_none()
        && let Err(by_hand) = shell.install(&["libclang-14-dev"])
    {
        return Ok(Tally::skipped(format!("libclang is not here: {by_hand}")));
    }
    crate::bindings::check(&shell.root)?;
    Ok(Tally::passed())
}

/// The header compiles, with every warning an error, and its assertions hold: as C11,
/// as C++17 (which is how nvcc and embedders read it), and as Metal's C++14 dialect,
/// whose types a stand-in declares.
pub fn compile(shell: &Shell) -> Result<Tally, String> {
    let metal = shell.target.join("check/metal");
    let stand_in = "typedef unsigned int uint;\ntypedef unsigned long ulong;\n";
    std::fs::create_dir_all(&metal)
        .and_then(|()| std::fs::write(metal.join("metal_stdlib"), stand_in))
        .map_err(|error| format!("{}: {error}", metal.display()))?;
    let metal = metal.to_string_lossy().into_owned();
    let warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-pragma-once-outside-header"];
    let dialects: [(&str, &[&str]); 3] = [
        ("cc", &["-std=c11", "-x", "c"]),
        ("c++", &["-std=c++17", "-x", "c++"]),
        ("c++", &["-std=c++14", "-x", "c++", "-D__METAL_VERSION__=300", "-I", &metal]),
    ];
    for (compiler, dialect) in dialects {
        let mut command = shell.tool(compiler);
        command.args(warnings).args(dialect).args(["-fsyntax-only", HEADER]);
        shell.run(&mut command)?;
    }
    Ok(Tally { passed: dialects.len() as u64, ..Tally::default() })
}
