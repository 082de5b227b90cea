//! The first thing to run on a new card: `pagewise-probe FATBIN TABLES [ORDINAL]`. How fast
//! the card copies, as a row of a record on the standard output, and a line for each probe that
//! differs from its table. Ends with 1 where one differs.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

use cuda::probes::Tables;
use pagewise_cuda::probe::{Came, Card};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (fatbin, tables, ordinal) = match &words[..] {
        [fatbin, tables] => (fatbin, tables, Ok(0)),
        [fatbin, tables, ordinal] => (fatbin, tables, ordinal.parse()),
        _ => {
            eprintln!("pagewise-probe FATBIN TABLES [ORDINAL]");
            return ExitCode::from(2);
        }
    };
    let Ok(ordinal) = ordinal else {
        eprintln!("the ordinal is a number");
        return ExitCode::from(2);
    };
    match probe(fatbin, tables, ordinal) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("pagewise-probe: {wrong} differ");
            ExitCode::FAILURE
        }
        Err(words) => {
            eprintln!("pagewise-probe: {words}");
            ExitCode::FAILURE
        }
    }
}

/// Runs them; how many differ.
fn probe(fatbin: &str, tables: &str, ordinal: u32) -> Result<usize, String> {
    let image = std::fs::read(fatbin).map_err(|error| format!("{fatbin}: {error}"))?;
    let text = std::fs::read_to_string(tables).map_err(|error| format!("{tables}: {error}"))?;
    let tables = Tables::parse(&text).ok_or_else(|| format!("{tables} holds no tables"))?;
    let card = Card::open(ordinal).map_err(|error| error.to_string())?;
    eprintln!("{}: sm_{}, {} probes", card.name, card.capability, tables.tables.len());
    // First, for rows of other stages are held against it, whatever comes of the probes.
    let figure = card.copied_bytes_s().map_err(|error| error.to_string())? / 1e9;
    let level = cuda::numerics(card.capability);
    println!("kernel,shape,level,threads,median_ns,work,unit,figure,peak,share");
    println!("peaks,copy,{level},1,,,GB/s copied,{figure:.1},{figure:.1},1");
    let mut wrong = 0;
    let ran = card.run(&image, &tables, |table, came| match came {
        Came::Same => (),
        Came::Differs { at, expected, got } => {
            wrong += 1;
            eprintln!("{}: word {at} is {got:08x}, the emulator's {expected:08x}", table.name);
        }
    });
    ran.map_err(|error| error.to_string())?;
    Ok(wrong)
}
