//! What is held and timed on a device, in lines for a reader: one that fails is told, and the
//! others go on.

use super::bench::{self, Shape};
use super::company::CLAIMS;
use super::parity::KERNELS;
use super::record::Row;
use super::{Device, malformed};
use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;
use std::any::Any;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Of a kernel's cases, one in so many where all would take too long.
const FEW: usize = 12;
/// Malformed calls that are drawn for each kernel.
const MALFORMED: u32 = 256;
const MALFORMED_FEW: u32 = 16;
/// They are the same each time.
const SEED: u64 = 2026;

/// How much of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent<'a> {
    /// Some of the cases, and small shapes: what an emulator does in seconds.
    pub is_quick: bool,
    /// Kernels, by their stems; none for all.
    pub kernels: &'a [String],
}

impl Extent<'_> {
    fn has(&self, kernel: &str) -> bool {
        self.kernels.is_empty() || self.kernels.iter().any(|asked| asked == kernel)
    }

    /// Those that are asked for.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let asked = KERNELS.iter().filter(move |kernel| self.has(kernel.name));
        asked.map(|kernel| kernel.name)
    }

    /// The first that is asked for and that no list has.
    pub fn unknown(&self) -> Option<&str> {
        let known = |asked: &&String| KERNELS.iter().all(|kernel| kernel.name != **asked);
        self.kernels.iter().find(known).map(String::as_str)
    }
}

/// Every kernel's cases, then malformed calls; how many kernels were wrong.
pub fn parity(device: &mut Device, extent: Extent<'_>, out: &mut dyn Write) -> io::Result<usize> {
    let mut wrong = 0;
    let every = if extent.is_quick { FEW } else { 1 };
    for kernel in KERNELS.iter().filter(|kernel| extent.has(kernel.name)) {
        let name = kernel.name;
        match attempt(|| (kernel.cases)(device, every)) {
            Ok(count) => writeln!(out, "{name}: {count} cases")?,
            Err(words) => {
                wrong += 1;
                writeln!(out, "{name}: WRONG: {words}")?;
            }
        }
        out.flush()?;
    }
    let cases = if extent.is_quick { MALFORMED_FEW } else { MALFORMED };
    for property in malformed::PROPERTIES.iter().filter(|it| extent.has(it.kernel)) {
        let config = ProptestConfig {
            cases,
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(SEED),
            ..ProptestConfig::default()
        };
        let name = property.kernel;
        match attempt(|| (property.assert)(device, config)) {
            Ok(()) => writeln!(out, "{name}: {cases} malformed calls")?,
            Err(words) => {
                wrong += 1;
                writeln!(out, "{name}: malformed calls: WRONG: {words}")?;
            }
        }
        out.flush()?;
    }
    Ok(wrong)
}

/// What kernels promise of a row; how many promises were not kept. Where all would take too
/// long, the first of each kernel.
pub fn company(device: &mut Device, extent: Extent<'_>, out: &mut dyn Write) -> io::Result<usize> {
    let mut wrong = 0;
    let mut before = "";
    for claim in CLAIMS.iter().filter(|claim| extent.has(claim.kernel)) {
        if extent.is_quick && claim.kernel == before {
            continue;
        }
        before = claim.kernel;
        let name = format!("{}: {}", claim.kernel, claim.name.replace('_', " "));
        match attempt(|| (claim.assert)(device)) {
            Ok(()) => writeln!(out, "{name}")?,
            Err(words) => {
                wrong += 1;
                writeln!(out, "{name}: WRONG: {words}")?;
            }
        }
        out.flush()?;
    }
    Ok(wrong)
}

/// Every shape, each row as soon as it is there; how many gave none.
pub fn bench(
    device: &mut Device,
    extent: Extent<'_>,
    first: Row,
    out: &mut dyn Write,
) -> io::Result<usize> {
    let mut wrong = 0;
    let mut rows = Vec::new();
    writeln!(out, "{}\n{first}", super::record::HEADER)?;
    let shapes = bench::shapes(extent.is_quick);
    for shape in shapes.iter().filter(|shape| extent.has(shape.kernel())) {
        match attempt(|| bench::time(device, shape, extent.is_quick)) {
            Ok(row) => {
                writeln!(out, "{row}")?;
                rows.push(row);
            }
            // It is no figure; the words are on the other stream.
            Err(_) => wrong += 1,
        }
        out.flush()?;
    }
    for row in bench::ratios(&rows) {
        writeln!(out, "{row}")?;
    }
    Ok(wrong)
}

/// The page from which peers make the same calls.
pub fn shapes(is_quick: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", bench::SHAPES_HEADER)?;
    bench::shapes(is_quick).iter().try_for_each(|shape: &Shape| writeln!(out, "{shape}"))
}

/// Does it; the words of its panic, on one line.
pub fn attempt<R>(what: impl FnOnce() -> R) -> Result<R, String> {
    let done = catch_unwind(AssertUnwindSafe(what));
    done.map_err(|words| said(words.as_ref()).split_whitespace().collect::<Vec<_>>().join(" "))
}

fn said(words: &(dyn Any + Send)) -> &str {
    let text = words.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| words.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

#[cfg(test)]
mod tests {
    use super::{Extent, attempt};

    #[test]
    fn a_panic_becomes_a_line() {
        let number = 3;
        assert_eq!(attempt(|| number), Ok(3));
        let two = attempt(|| panic!("{number}\n  is wrong"));
        assert_eq!(two, Err::<(), _>("3 is wrong".to_owned()));
    }

    #[test]
    fn a_kernel_that_no_list_has_is_found() {
        let asked = ["norm".to_owned(), "nrom".to_owned()];
        let extent = Extent { is_quick: false, kernels: &asked };
        assert_eq!(extent.unknown(), Some("nrom"));
        assert_eq!(Extent { kernels: &asked[..1], ..extent }.unknown(), None);
    }
}
