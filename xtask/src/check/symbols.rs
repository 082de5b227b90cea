//! No vector intrinsic is called in the built kernels: each must have been inlined
//! where its instruction belongs. A call means that a body lost its instruction set
//! (a closure, a missing `inline(always)`), and costs tenfold without a word.

use super::shell::Shell;
use super::tally::Tally;
use std::path::Path;

/// Where instances of each level are checked.
const TARGETS: &[&str] = &["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// Compiles kernels-core to assembly, optimised, and looks for calls.
pub fn check(shell: &Shell) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let mut here = Vec::new();
    for target in TARGETS {
        match shell.add_target(target) {
            Ok(()) => here.push((*target).to_owned()),
            Err(by_hand) => tally.skipped.push(format!("the target is not here: {by_hand}")),
        }
    }
    let found = shell.side_by_side(&here, calls_of);
    for (target, calls) in here.iter().zip(found) {
        let calls = calls?;
        if calls.is_empty() {
            tally.passed += 1;
        } else {
            tally.failed += 1;
            println!("{target}: intrinsics are called, not inlined:\n  {}", calls.join("\n  "));
        }
    }
    Ok(tally)
}

/// The intrinsics that are called where kernels-core is built for a target.
fn calls_of(shell: &Shell, target: &str) -> Result<Vec<String>, String> {
    // A folder for each: builds in one wait for each other.
    let folder = shell.target.join("symbols").join(target);
    let out = folder.join("kernels.s");
    let mut command = shell.cargo(&["rustc", "--locked", "--release", "--lib"]);
    command.args(["--package", "pagewise-kernels-core", "--target", target]);
    command.arg("--target-dir").arg(&folder).arg("--");
    command.args(["-C", "codegen-units=1", "-C", "debuginfo=0"]);
    command.arg(format!("--emit=asm={}", out.display()));
    shell.run(&mut command)?;
    calls_in(&out)
}

fn calls_in(path: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(path);
    text.map(|text| calls(&text)).map_err(|error| format!("{}: {error}", path.display()))
}

/// The intrinsics that assembly calls or jumps to.
fn calls(assembly: &str) -> Vec<String> {
    let branches = ["call", "callq", "jmp", "jmpq", "bl", "b"];
    let mut found: Vec<String> = Vec::new();
    for line in assembly.lines() {
        let mut words = line.split_whitespace();
        let branch = words.next().is_some_and(|word| branches.contains(&word));
        // Both manglings write the module as its length and name.
        if let Some(name) = words.next().filter(|name| branch && name.contains("9core_arch"))
            && !found.iter().any(|seen| seen == name)
        {
            found.push(name.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::calls_in;
    use std::process::Command;

    const LOST: &str = "use core::arch::x86_64::*;\n\
        pub fn sum(a: &[f32; 16], out: &mut [f32; 16]) { unsafe {\n\
        let a = _mm512_loadu_ps(a.as_ptr()); _mm512_storeu_ps(out.as_mut_ptr(), _mm512_add_ps(a, a)) } }";

    /// Compiles a body that uses AVX-512, with or without the right to.
    fn compiled(name: &str, body: &str) -> Vec<String> {
        let folder = std::env::temp_dir().join(format!("pagewise-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let (source, out) = (folder.join("body.rs"), folder.join("body.s"));
        std::fs::write(&source, body).expect("a temporary file");
        let mut rustc = Command::new("rustc");
        rustc.args([
            "-O",
            "--edition=2024",
            "--crate-type=lib",
            "--target=x86_64-unknown-linux-gnu",
            "-o",
        ]);
        let status = rustc.arg(&out).arg("--emit=asm").arg(&source).status();
        assert!(status.is_ok_and(|status| status.success()), "the body compiles");
        let calls = calls_in(&out).expect("the assembly is there");
        std::fs::remove_dir_all(&folder).expect("a temporary folder");
        calls
    }

    #[test]
    fn an_intrinsic_outside_its_instruction_set_is_found() {
        assert_eq!(compiled("lost", LOST).len(), 3);
        let kept = LOST.replace("pub fn", "#[target_feature(enable = \"avx512f\")] pub fn");
        assert_eq!(compiled("kept", &kept), [""; 0]);
    }
}
