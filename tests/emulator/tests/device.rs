//! What `pagewise-device` does on a card, on the emulated one: what it tells of kernels, and
//! the record that its bench writes.
#![cfg(emulated)]

use backends::plugin::Plugin;
use emulator::seed;
use kernels_core::Error;
use pagewise_tests::device::record::{HEADER, Row};
use pagewise_tests::device::report::{self, Extent};
use pagewise_tests::device::{Device, bench};

fn open() -> Result<Device, Error> {
    Ok(Device { plugin: Plugin::of_table(emulator::cuda(), 0)?, schedule: seed })
}

fn first() -> (Device, Row) {
    bench::first_launch(open).expect("the emulator is there")
}

fn lines(out: &[u8]) -> Vec<&str> {
    std::str::from_utf8(out).expect("text").lines().collect()
}

#[test]
fn parity_tells_a_line_for_each_kernel_and_its_malformed_calls() {
    let kernels = ["gather".to_owned(), "norm".to_owned(), "spec_verify".to_owned()];
    let (mut out, mut device) = (Vec::new(), open().expect("the emulator is there"));
    let extent = Extent { is_quick: true, kernels: &kernels };
    let wrong = report::parity(&mut device, extent, &mut out).expect("a list takes lines");
    let lines = lines(&out);
    assert_eq!(wrong, 0, "{lines:?}");
    let begins: Vec<&str> =
        lines.iter().map(|line| line.split(':').next().unwrap_or_default()).collect();
    assert_eq!(begins, ["gather", "norm", "spec_verify", "gather", "norm"]);
    for (line, what) in lines.iter().zip(["cases", "cases", "cases", "calls", "calls"]) {
        let count = line.split_whitespace().find_map(|word| word.parse::<u32>().ok());
        assert!(line.ends_with(what) && count > Some(0), "{line}");
    }
}

#[test]
fn company_tells_a_line_for_each_claim() {
    let kernels = ["token_logprob".to_owned()];
    let (mut out, mut device) = (Vec::new(), open().expect("the emulator is there"));
    let extent = Extent { is_quick: true, kernels: &kernels };
    let wrong = report::company(&mut device, extent, &mut out).expect("a list takes lines");
    assert_eq!((wrong, lines(&out)), (0, vec!["token_logprob: a row of f32 weights is its own"]));
}

#[test]
fn the_bench_writes_a_record_with_a_row_for_each_shape() {
    let (mut device, first) = first();
    let mut out = Vec::new();
    let extent = Extent { is_quick: true, kernels: &[] };
    let wrong = report::bench(&mut device, extent, first, &mut out).expect("a list takes lines");
    assert_eq!(wrong, 0);
    let lines = lines(&out);
    assert_eq!(lines[0], HEADER);
    let rows: Vec<Row> = lines[1..].iter().filter_map(|line| Row::parse(line)).collect();
    assert_eq!(rows.len(), lines.len() - 1, "{lines:?}");
    for shape in bench::shapes(true) {
        let row = rows.iter().find(|row| row.shape == shape.name()).expect("each has a row");
        assert_eq!(row.kernel, shape.kernel());
        assert_eq!(row.level, "cuda-emulated-2");
        let (work, ns) = (row.work.expect("it says its work"), row.median_ns.expect("a time"));
        assert!(ns > 0.0);
        // A figure is its work over its time, in its unit.
        let rate = work / ns * 1e9 / shape.work().unit().1;
        assert!((row.figure - rate).abs() < rate * 1e-3, "{row}: {rate}");
    }
    for what in ["decode", "prefill", "causal", "tree", "mask"] {
        assert!(rows.iter().any(|row| row.shape.starts_with(what)), "{what}");
    }
    for unit in ["ms", "parts"] {
        assert!(rows.iter().any(|row| row.unit == unit && row.figure > 0.0), "{unit}");
    }
    assert_eq!(device.plugin.allocated_bytes(), 0, "every buffer was released");
}

#[test]
fn shapes_have_names_of_their_own_and_columns_for_peers() {
    for is_quick in [false, true] {
        let mut out = Vec::new();
        report::shapes(is_quick, &mut out).expect("a list takes lines");
        let lines = lines(&out);
        let columns = lines[0].split(',').count();
        let mut names: Vec<&str> = Vec::new();
        for line in &lines[1..] {
            assert_eq!(line.split(',').count(), columns, "{line}");
            names.push(line.split(',').nth(1).expect("it has columns"));
        }
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
    }
}
