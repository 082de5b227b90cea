//! Opens the device of a plugin, says what it is and how long that took, and runs one small
//! kernel on it; or says why there is none: `plugin FOLDER KIND [ORDINAL]`, as in
//! `plugin target/release cuda`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it says what it finds")]

use backends::plugin::Plugin;
use kernels_core::Error;
use kernels_core::device::{Backend, Launch, Read, Slice, Write};
use kernels_core::norm::Norm;
use kernels_core::params;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Floats of the vector that is normed.
const COLUMNS: u32 = 64;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (folder, kind, ordinal) = match &words[..] {
        [folder, kind] => (folder, kind, Ok(0)),
        [folder, kind, ordinal] => (folder, kind, ordinal.parse()),
        _ => {
            eprintln!("plugin FOLDER KIND [ORDINAL]");
            return ExitCode::from(2);
        }
    };
    let Ok(ordinal) = ordinal else {
        eprintln!("the ordinal is a number");
        return ExitCode::from(2);
    };
    let start = Instant::now();
    let mut plugin = match Plugin::load(Path::new(folder), kind, ordinal) {
        Ok(plugin) => plugin,
        Err(refused) => {
            println!("{refused}");
            return ExitCode::FAILURE;
        }
    };
    let (took, about) = (start.elapsed().as_millis(), plugin.about());
    println!("{}: {}, opened in {took} ms", about.name, about.numerics);
    println!("{} of {} bytes are free", about.free_bytes, about.memory_bytes);
    match norm_of_twos(&mut plugin) {
        Ok(first) => println!("a norm of twos gives {first}"),
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The first element of the norm of a vector of twos, which is 1.
fn norm_of_twos(plugin: &mut Plugin) -> Result<f32, Error> {
    let bytes = u64::from(COLUMNS) * 4;
    let slice = |buffer| Slice { buffer, offset: 0, bytes };
    let x = slice(plugin.alloc(bytes)?);
    let weight = slice(plugin.alloc(bytes)?);
    let out = slice(plugin.alloc(bytes)?);
    let params = params::Norm {
        x_row_stride: COLUMNS.into(),
        out_row_stride: COLUMNS.into(),
        rows_max: 1,
        heads: 1,
        columns: COLUMNS,
        x_dtype: params::DTYPE_F32,
        weight_dtype: params::DTYPE_F32,
        out_dtype: params::DTYPE_F32,
        ..Default::default()
    };
    let norm = Norm {
        params,
        x: Read(x),
        weight: Read(weight),
        residual: None,
        out: Write(out),
        rows: None,
    };
    plugin.write(weight, [1f32; COLUMNS as usize].map(f32::to_ne_bytes).as_flattened())?;
    let program = plugin.record(&[norm.into()])?;
    let twos = [2f32; COLUMNS as usize].map(f32::to_ne_bytes);
    let writes = [(x, twos.as_flattened())];
    let ticket = plugin.submit(Launch { writes: &writes, program, reads: &[out] })?;
    let mut normed = [[0; 4]; COLUMNS as usize];
    plugin.collect(ticket, normed.as_flattened_mut())?;
    plugin.forget(program)?;
    for slice in [x, weight, out] {
        plugin.release(slice.buffer)?;
    }
    Ok(f32::from_ne_bytes(normed[0]))
}
