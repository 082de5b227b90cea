//! What is refused before it fails: drivers and cards that cannot run the kernels, addresses
//! that are no card's, streams of another context. Pure.

use kernels_core::Error;
use kernels_core::error::Fault;

/// The least compute capability, as `10 * major + minor`: of mma.sync with bf16, and cp.async.
const CAPABILITY_LEAST: i32 = 80;
/// Kinds of memory, as the driver numbers them: of a device; managed, so of both.
const MEMORY_DEVICE: u32 = 2;
const MEMORY_UNIFIED: u32 = 4;

/// The first driver of each CUDA that runs what the compilers of that CUDA make.
const DRIVERS: [(i32, &str); 2] = [(12, "R525"), (13, "R580")];

/// Refuses a driver of an older CUDA than the compiler of the kernels; both are spelled as
/// `1000 * major + 10 * minor`. Drivers run the machine code of every compiler of their major
/// version, whichever minor version it has, and that of all before it.
pub fn of_driver(driver: i32, compiler: i32) -> Result<(), Error> {
    let major = compiler / 1000;
    if driver / 1000 >= major {
        return Ok(());
    }
    let first = DRIVERS.iter().find(|(of, _)| *of == major).map_or("", |(_, first)| first);
    let expected = plugin::lasting(format!(
        "kernels for drivers of CUDA {major} ({first}, {major}000) and later: update the driver, \
         nvidia-smi shows what it has"
    ));
    Err(Error::new("device", "driver", Fault::Unsupported { expected, got: driver.into() }))
}

/// Refuses a card that is too old.
pub fn of_capability(capability: i32) -> Result<(), Error> {
    if capability >= CAPABILITY_LEAST {
        return Ok(());
    }
    let expected = "kernels for compute capability 80 (sm_80: A100, RTX 30) and later";
    let fault = Fault::Unsupported { expected, got: capability.into() };
    Err(Error::new("device", "compute_capability", fault))
}

/// Refuses a number that no card has.
pub fn of_ordinal(ordinal: u32, count: i32) -> Result<(), Error> {
    if i64::from(ordinal) < i64::from(count) {
        return Ok(());
    }
    let expected = plugin::lasting(format!("{count} of them, numbered from 0"));
    Err(Error::new("device", "ordinal", Fault::Unsupported { expected, got: ordinal.into() }))
}

/// What the driver says of an address: its kind of memory, and the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The kind, as the driver numbers it.
    pub kind: u32,
    /// The card whose it is.
    pub ordinal: i32,
}

/// Refuses an address that a kernel on this card must not be given; nothing is known of one
/// that the driver did not make.
pub fn of_place(place: Option<Place>, address: u64, ordinal: i32) -> Result<(), Fault> {
    let expected = match place {
        Some(Place { kind: MEMORY_UNIFIED, .. }) => return Ok(()),
        Some(Place { kind: MEMORY_DEVICE, ordinal: of }) if of == ordinal => return Ok(()),
        Some(Place { kind: MEMORY_DEVICE, .. }) => "memory of this device, and that is another's",
        Some(_) => "memory of the device, and that is the host's",
        None => "memory of the device, and that is none the driver knows",
    };
    Err(Fault::Unsupported { expected, got: address as i64 })
}

/// Refuses a stream of another context than the one that is worked in.
pub fn of_stream<C: PartialEq>(of: C, ours: C) -> Result<(), Error> {
    if of == ours {
        return Ok(());
    }
    let expected = "streams of the context that was current when it was opened, or the primary one";
    Err(Error::new("device", "stream", Fault::Unsupported { expected, got: 0 }))
}

#[cfg(test)]
mod tests {
    use super::{MEMORY_DEVICE, MEMORY_UNIFIED, Place};
    use super::{of_capability, of_driver, of_ordinal, of_place, of_stream};
    use crate::kernels::COMPILED_BY;
    use kernels_core::error::Fault;

    #[test]
    fn a_driver_too_old_is_told_what_it_needs() {
        // Any of the compiler's own major version will do, and any later one.
        for driver in [13_000, 13_010, 14_000] {
            for compiler in [13_000, 13_010, 13_030] {
                assert_eq!(of_driver(driver, compiler), Ok(()));
            }
        }
        for driver in [11_080, 12_000, 12_090] {
            let said = of_driver(driver, 13_010).expect_err("it is older").to_string();
            assert!(said.contains(&format!("driver is {driver}")), "{said}");
            assert!(said.contains("CUDA 13 (R580, 13000)"), "{said}");
        }
    }

    #[test]
    fn the_first_driver_is_named_for_the_compiler_that_is_used() {
        let said = of_driver(0, COMPILED_BY).expect_err("it is older").to_string();
        assert!(said.contains("(R"), "{said}");
    }

    #[test]
    fn a_card_too_old_is_told_what_it_needs() {
        for good in [80, 86, 89, 90, 100, 120] {
            assert_eq!(of_capability(good), Ok(()));
        }
        let said = of_capability(75).expect_err("it is older").to_string();
        assert!(said.contains("compute_capability is 75") && said.contains("80"), "{said}");
    }

    #[test]
    fn a_card_that_is_not_there_is_refused_by_its_number() {
        assert_eq!(of_ordinal(1, 2), Ok(()));
        for (ordinal, count) in [(2, 2), (0, 0), (u32::MAX, 1)] {
            let said = of_ordinal(ordinal, count).expect_err("there is none").to_string();
            assert!(said.contains(&format!("ordinal is {ordinal}")), "{said}");
        }
    }

    #[test]
    fn addresses_are_this_cards_or_everybodys() {
        let place = |kind, ordinal| Some(Place { kind, ordinal });
        assert_eq!(of_place(place(MEMORY_DEVICE, 1), 64, 1), Ok(()));
        assert_eq!(of_place(place(MEMORY_UNIFIED, 0), 64, 1), Ok(()));
        // Of another card, of the host, and what malloc gave.
        for wrong in [place(MEMORY_DEVICE, 0), place(1, 1), None] {
            let fault = of_place(wrong, 64, 1).expect_err("it is elsewhere");
            assert!(matches!(fault, Fault::Unsupported { got: 64, .. }));
        }
    }

    #[test]
    fn a_stream_of_another_context_is_refused() {
        assert_eq!(of_stream(1, 1), Ok(()));
        assert!(of_stream(1, 2).is_err());
    }
}
