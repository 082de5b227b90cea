//! What is refused before it fails: a number that no GPU has, GPUs that cannot run the kernels,
//! streams of the host. Pure.

use kernels_core::Error;
use kernels_core::error::Fault;

/// The least macOS: of the language that the kernels are compiled as, MSL 3.1.
const MACOS_LEAST: isize = 14;
/// Threads of a SIMD group, as the kernels count on.
const SIMD_WIDTH: usize = 32;

fn unsupported(field: &'static str, expected: &'static str, got: i64) -> Error {
    Error::new("device", field, Fault::Unsupported { expected, got })
}

/// Refuses a number that no GPU has.
pub fn of_ordinal(ordinal: u32, count: usize) -> Result<(), Error> {
    if (ordinal as usize) < count {
        return Ok(());
    }
    let expected = match count {
        0 => "a Metal device, and there is none on this machine",
        _ => plugin::lasting(format!("{count} of them, numbered from 0")),
    };
    Err(unsupported("ordinal", expected, ordinal.into()))
}

/// Refuses a macOS that does not know the kernels' language.
pub fn of_system(major: isize) -> Result<(), Error> {
    let expected = "macOS 14 or later, for kernels of MSL 3.1";
    if major >= MACOS_LEAST { Ok(()) } else { Err(unsupported("macos", expected, major as i64)) }
}

/// Refuses a GPU without Metal 3: kernels are told addresses of buffers.
pub fn of_family(has_metal3: bool) -> Result<(), Error> {
    let expected = "a GPU with Metal 3: an M1 or a later one";
    if has_metal3 { Ok(()) } else { Err(unsupported("gpu_family", expected, 0)) }
}

/// Refuses an entry whose SIMD groups have another width.
pub fn of_width(width: usize) -> Result<(), Error> {
    let expected = "SIMD groups of 32 threads, as Apple's GPUs have";
    if width == SIMD_WIDTH {
        return Ok(());
    }
    Err(unsupported("simd_width", expected, width as i64))
}

/// Refuses a stream of the host's: its queue would have to know every buffer of ours.
pub fn of_native(is_own: bool) -> Result<(), Error> {
    let expected = "streams of its own: a command queue of the host's is not taken yet";
    if is_own { Ok(()) } else { Err(unsupported("stream", expected, 0)) }
}

#[cfg(test)]
mod tests {
    use super::{of_family, of_native, of_ordinal, of_system, of_width};

    #[test]
    fn a_gpu_that_is_not_there_is_refused_by_its_number() {
        assert_eq!(of_ordinal(0, 1), Ok(()));
        let said = of_ordinal(1, 1).expect_err("there is one alone").to_string();
        assert!(said.contains("ordinal is 1") && said.contains("1 of them"), "{said}");
        let said = of_ordinal(0, 0).expect_err("there is none").to_string();
        assert!(said.contains("there is none on this machine"), "{said}");
    }

    #[test]
    fn what_a_gpu_lacks_is_said() {
        for good in [of_system(14), of_family(true), of_width(32), of_native(true)] {
            assert_eq!(good, Ok(()));
        }
        let said = of_system(13).expect_err("it is older").to_string();
        assert!(said.contains("macos is 13") && said.contains("macOS 14"), "{said}");
        let said = of_family(false).expect_err("it is older").to_string();
        assert!(said.contains("Metal 3: an M1"), "{said}");
        let said = of_width(64).expect_err("it is wider").to_string();
        assert!(said.contains("simd_width is 64"), "{said}");
        let said = of_native(false).expect_err("it is the host's").to_string();
        assert!(said.contains("streams of its own"), "{said}");
    }
}
