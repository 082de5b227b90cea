//! The probes that a card is asked first: the emulator makes a table of each, always the same,
//! and every function that kernels may use has one.
#![cfg(emulated)]

use emulator::{probes, table};
use std::collections::BTreeSet;

const OPS: &str = include_str!("../../../cuda/kernels/device_ops.h");

#[test]
fn every_probe_writes_its_whole_table_under_every_schedule() {
    let probes = probes();
    assert!(probes.len() > 40, "{} probes", probes.len());
    for probe in &probes {
        let first = table(probe, 0).unwrap_or_else(|fault| panic!("{}: {fault:?}", probe.name));
        let unwritten = first.iter().filter(|word| **word == 0xa5a5_a5a5).count();
        assert_eq!(unwritten, 0, "{}: words that it does not write", probe.name);
        for seed in 1..5 {
            let again = table(probe, seed).expect("it ran before");
            assert!(first == again, "{}: schedule {seed} gives another table", probe.name);
        }
    }
}

#[test]
fn tables_tell_what_was_read_from_where() {
    let tables: BTreeSet<Vec<u32>> =
        probes().iter().map(|probe| table(probe, 0).expect("it runs")).collect();
    // Copies of 4, 8 and 16 bytes are alike, and fences and barriers show nothing else.
    assert!(tables.len() + 6 >= probes().len(), "{} different tables", tables.len());
}

#[test]
fn every_function_of_a_card_has_a_probe() {
    let functions = OPS.lines().filter_map(|line| {
        let name = line.strip_prefix("OPS ")?.split('(').next()?;
        name.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()
    });
    let functions: BTreeSet<&str> = functions.collect();
    assert!(functions.len() > 10, "{functions:?}");
    let source = include_str!("../../../cuda/probe/probe.cu");
    for function in functions {
        // It is how the others name shared memory.
        let inner = function == "shared_address";
        assert!(inner || source.contains(&format!("ops::{function}")), "{function} has no probe");
    }
}
