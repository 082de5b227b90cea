//! The headers in every language that reads them.

use super::shell::Shell;
use super::tally::Tally;

const PARAMS: &str = "include/pagewise/kernel_params.h";
const PLUGIN: &str = "include/pagewise/plugin.h";
const ABI: &str = "include/pagewise.h";

/// What Rust reads is what the headers say.
pub fn bindings(shell: &Shell) -> Result<Tally, String> {
    if crate::bindings::libclang().is_none()
        && let Err(by_hand) = shell.install(&["libclang-14-dev"])
    {
        return Ok(Tally::skipped(format!("libclang is not here: {by_hand}")));
    }
    let passed = crate::bindings::check(&shell.root)?;
    Ok(Tally { passed, ..Tally::default() })
}

/// The headers compile, with every warning an error, and their assertions hold: as C11,
/// as C++17 (which is how nvcc and embedders read them), and that of parameters as Metal's
/// C++14 dialect, whose types a stand-in declares.
pub fn compile(shell: &Shell) -> Result<Tally, String> {
    super::emulator::compiler(shell)?;
    let metal = shell.target.join("check/metal");
    let stand_in = "typedef unsigned int uint;\ntypedef unsigned long ulong;\n";
    std::fs::create_dir_all(&metal)
        .and_then(|()| std::fs::write(metal.join("metal_stdlib"), stand_in))
        .map_err(|error| format!("{}: {error}", metal.display()))?;
    let metal = metal.to_string_lossy().into_owned();
    let warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-pragma-once-outside-header"];
    let c: &[&str] = &["-std=c11", "-x", "c"];
    let cpp: &[&str] = &["-std=c++17", "-x", "c++"];
    let metal: &[&str] = &["-std=c++14", "-x", "c++", "-D__METAL_VERSION__=300", "-I", &metal];
    let dialects = [
        ("cc", c, PARAMS),
        ("c++", cpp, PARAMS),
        ("c++", metal, PARAMS),
        ("cc", c, PLUGIN),
        ("c++", cpp, PLUGIN),
        ("cc", c, ABI),
        ("c++", cpp, ABI),
    ];
    for (compiler, dialect, header) in dialects {
        let mut command = shell.tool(compiler);
        command.args(warnings).args(dialect).args(["-fsyntax-only", header]);
        shell.run(&mut command)?;
    }
    Ok(Tally { passed: dialects.len() as u64, ..Tally::default() })
}
