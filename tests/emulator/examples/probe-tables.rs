//! Writes what the emulator makes of every probe, for a card to be held against:
//! `probe-tables FILE`.

#![expect(clippy::print_stderr, reason = "a command-line tool")]

use std::process::ExitCode;

#[cfg(emulated)]
fn tables() -> Option<cuda::probes::Tables> {
    let table = |probe: emulator::Probe| {
        let expected = emulator::table(&probe, 0).unwrap_or_else(|fault| {
            panic!("{}: {}", probe.name, fault.message);
        });
        let emulator::Probe { name, threads, shared_bytes, words_in, .. } = probe;
        cuda::probes::Table { name, threads, shared_bytes, words_in, expected }
    };
    let tables = emulator::probes().into_iter().map(table).collect();
    Some(cuda::probes::Tables { words: emulator::words(), tables })
}

#[cfg(not(emulated))]
fn tables() -> Option<cuda::probes::Tables> {
    None
}

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("probe-tables FILE");
        return ExitCode::from(2);
    };
    let Some(tables) = tables() else {
        eprintln!("the emulator runs on 64-bit x86 Linux alone");
        return ExitCode::FAILURE;
    };
    if let Err(error) = std::fs::write(&file, tables.to_string()) {
        eprintln!("{file}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
