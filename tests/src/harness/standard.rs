//! The tests that every kernel has over its listed cases.

use super::{Case, Recorded, assert_case, assert_levels, assert_same_bits};
use backends::cpu::{Cpu, Threads};
use kernels_core::device::Backend;
use kernels_core::simd::{Level, environment};
use kernels_core::workers::{Inline, Reversed};
use proptest::prelude::ProptestConfig;

/// Makes a kernel's standard tests from its list of cases, and from random shapes where
/// it has them.
#[macro_export]
macro_rules! standard_tests {
    ($cases:expr) => {
        #[test]
        fn every_level_has_the_scalar_bits_and_keeps_to_the_spec() {
            $cases.iter().for_each($crate::harness::assert_case);
        }

        #[test]
        fn the_bits_are_those_committed() {
            $crate::harness::assert_hashes(&$cases);
        }

        #[test]
        fn threads_and_a_host_that_flushes_change_no_bit() {
            $crate::harness::assert_threads(&$cases);
        }

        #[test]
        fn a_recorded_program_has_the_bits_of_a_call_each_time() {
            $crate::harness::assert_records(&$cases);
        }

        #[test]
        fn a_workspace_that_is_too_short_is_refused() {
            $crate::harness::assert_workspace(&$cases);
        }
    };
    ($cases:expr, $shapes:expr) => {
        $crate::standard_tests!($cases);

        proptest::proptest! {
            #[test]
            fn any_shape_has_the_scalar_bits_and_keeps_to_the_spec(shape in $shapes) {
                $crate::harness::assert_case(&shape.case());
            }
        }
    };
}

/// Three threads, on a host that flushes subnormals, give the bits of one; so do three
/// tiles at a time on one thread, the last of them first.
pub fn assert_threads<C: Case>(cases: &[C]) {
    let threads = Threads::new(3);
    for case in cases {
        // The case before has left the host flushing.
        let normal = environment::Normal::enter();
        let alone = run(case);
        let reversed = case.run(Level::best(), &Reversed(3));
        let reversed = reversed.unwrap_or_else(|error| panic!("{}: {error}", case.name()));
        assert_same_bits(&format!("{}, last tile first", case.name()), &alone, &reversed);
        drop(normal);
        environment::flush_subnormals();
        let normal = environment::Normal::enter();
        let together = case.run(Level::best(), &threads);
        drop(normal);
        assert!(!environment::is_normal(), "the host's environment comes back");
        let _normal = environment::Normal::enter();
        let together = together.unwrap_or_else(|error| panic!("{}: {error}", case.name()));
        assert_same_bits(&format!("{} on three threads", case.name()), &alone, &together);
    }
}

/// A backend gives the bits of a call, and gives them again from the same program.
pub fn assert_records<C: Case>(cases: &[C]) {
    let mut cpu = Cpu::new(Level::best(), 2);
    for case in cases {
        let name = case.name();
        let recorded = case.call(&mut Recorded(&mut cpu));
        let recorded = recorded.unwrap_or_else(|error| panic!("{name}, recorded: {error}"));
        assert_same_bits(&format!("{name}, recorded"), &run(case), &recorded);
    }
    assert_eq!(cpu.allocated_bytes(), 0, "every buffer was released");
}

/// A kernel that takes a workspace says so when it is a word short.
pub fn assert_workspace<C: Case>(cases: &[C]) {
    for case in cases {
        let mut short = super::Direct { level: Level::best(), workers: &Inline, withheld: 4 };
        if let Err(error) = case.call(&mut short) {
            assert_eq!(error.field, "workspace", "{}", case.name());
        } else {
            // What needs none has none to lack.
            let outputs = run(case);
            let mut none = super::Direct { withheld: usize::MAX, ..short };
            let without = case.call(&mut none).expect("a kernel without a workspace runs");
            assert_same_bits(&case.name(), &outputs, &without);
        }
    }
}

fn run<C: Case>(case: &C) -> Vec<super::Output> {
    let outputs = case.run(Level::best(), &Inline);
    outputs.unwrap_or_else(|error| panic!("{}: {error}", case.name()))
}

/// Cases of a property of malformed calls: most are refused at once, so there are eight
/// times as many.
pub fn malformed() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.saturating_mul(8), ..asked }
}

/// A backend refuses a call that is refused, naming the same field, and gives the bits
/// of one that is answered.
pub fn assert_replays<C: Case>(case: &C) {
    assert_replays_on(case, &mut Cpu::new(Level::best(), 1), |what, direct, recorded| {
        assert_same_bits(what, direct, recorded);
    });
}

/// The same of any backend, whose answers are compared so.
pub fn assert_replays_on<C: Case>(
    case: &C,
    backend: &mut dyn Backend,
    compare: impl Fn(&str, &[super::Output], &[super::Output]),
) {
    let direct = case.run(Level::best(), &Inline);
    if direct.as_ref().is_err_and(|error| error.kernel == "harness") {
        // Its workspace is more than a test should take.
        return;
    }
    let recorded = case.call(&mut Recorded(backend));
    // A refused call has no good name: its numbers may be any.
    match (direct, recorded) {
        (Ok(direct), Ok(recorded)) => {
            compare(&format!("{}, recorded", case.name()), &direct, &recorded);
        }
        (Err(direct), Err(recorded)) => {
            // A device may name a buffer, and not a part of its elements.
            let rest = direct.field.strip_prefix(recorded.field);
            let same = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            assert!(
                direct.kernel == recorded.kernel && same,
                "called: {direct}; recorded: {recorded}"
            );
        }
        (direct, recorded) => panic!(
            "{}: called {:?}, recorded {:?}",
            C::KERNEL,
            direct.map(drop),
            recorded.map(drop)
        ),
    }
}

/// A malformed call is refused, or answered as its changed parameters say: never a
/// panic, never a write out of bounds.
pub fn assert_refused_or_answered<C: Case>(case: &C) {
    assert_replays(case);
    if case.run(Level::best(), &Inline).is_err() {
        return;
    }
    if case.has_truth() {
        assert_case(case);
    } else {
        case.assert_answer(&assert_levels(case));
    }
}
