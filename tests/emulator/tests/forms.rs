//! Every entry of every kernel does work over the cases: a form that is never taken would be
//! right in all of them.
#![cfg(emulated)]

use backends::plugin::Plugin;
use emulator::{Watched, entries, seed, shared_bytes_max, watch};
use kernels_core::dtype::Dtype;
use pagewise_tests::cases::attention::{AttentionCase, Shape, seq};
use pagewise_tests::device::parity::KERNELS;
use pagewise_tests::device_kernels;
use pagewise_tests::harness::{Case, Output, Recorded, assert_keeps_to_spec, assert_same_bits};
use std::collections::BTreeSet;

/// The C table of an emulated device.
type Table = fn() -> &'static plugin::pwp_table;

/// What names of Metal's entries begin with.
const METAL: &str = "metal:";

/// The kernel that an entry is of: the longest stem that its name goes on from.
fn kernel_of(entry: &str) -> Option<&'static str> {
    let name = entry.strip_prefix(METAL).unwrap_or(entry).strip_prefix("pw_")?;
    let is_of = |stem: &&str| {
        name.strip_prefix(*stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    };
    KERNELS.iter().map(|kernel| kernel.name).filter(is_of).max_by_key(|stem| stem.len())
}

/// The entries of a kernel in one dialect.
fn entries_of(kernel: &str, prefix: &str) -> BTreeSet<String> {
    let names = entries().into_iter().map(|entry| entry.name);
    let of = |name: &String| name.starts_with(METAL) == (prefix == METAL);
    names.filter(of).filter(|name| kernel_of(name) == Some(kernel)).collect()
}

/// What checks a step changes nothing of a good one: it is enough that it was launched. What
/// takes units of attention from a list counts them there, even where there is none: it must
/// have multiplied.
fn did_its_work(entry: &str, watched: &Watched) -> bool {
    let work = watched.entries.get(entry).copied().unwrap_or_default();
    if ["pw_attention_f16_", "pw_attention_bf16_"].iter().any(|of| entry.starts_with(of)) {
        return work.counts.mma_count > 0;
    }
    work.changed_bytes > 0 || (work.launches > 0 && entry.ends_with("_check"))
}

/// Over the cases, each entry of the kernel changes something.
fn assert_all_do_work<C: Case>(table: Table, prefix: &str, cases: &[C]) {
    let mut left = entries_of(C::KERNEL, prefix);
    assert!(!left.is_empty(), "{} has no entries", C::KERNEL);
    let mut device = Plugin::of_table(table(), 0).expect("the emulator is there");
    // The large ones come last in most lists, and take the forms that are seldom taken.
    for (at, case) in cases.iter().enumerate().rev() {
        if left.is_empty() {
            return;
        }
        seed(at as u64);
        let (came, watched) = watch(|| case.call(&mut Recorded(&mut device)));
        came.unwrap_or_else(|error| panic!("{}: {error}", case.name()));
        left.retain(|entry| !did_its_work(entry, &watched));
    }
    assert!(left.is_empty(), "no case of {} has work for {left:?}", C::KERNEL);
}

macro_rules! tests {
    ($($kernel:ident: $held:expr;)*) => {
        tests! { cuda "": $($kernel)* }
        tests! { metal "metal:": $($kernel)* }
    };
    ($device:ident $prefix:literal: $($kernel:ident)*) => {
        mod $device {
            $(#[test]
            fn $kernel() {
                let cases = pagewise_tests::cases::$kernel::cases();
                crate::assert_all_do_work(emulator::$device, $prefix, &cases);
            })*
        }
    };
}

device_kernels!(tests);

#[test]
fn every_entry_is_of_a_kernel() {
    let stray = |name: &String| kernel_of(name).is_none() && name.contains("pw_");
    let strays: Vec<String> = entries().into_iter().map(|e| e.name).filter(stray).collect();
    assert!(strays.is_empty(), "{strays:?}");
}

/// Shared memory of a block on sm_86, sm_89 and sm_120.
const LITTLE: u32 = 99 << 10;
/// On sm_80.
const MUCH: u32 = 163 << 10;

fn run(case: &AttentionCase, shared_bytes: u32) -> (Vec<Output>, Watched) {
    let mut device = Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
    shared_bytes_max(shared_bytes);
    let (outputs, watched) = watch(|| case.call(&mut Recorded(&mut device)));
    shared_bytes_max(MUCH);
    (outputs.unwrap_or_else(|error| panic!("{}: {error}", case.name())), watched)
}

/// Entries of wide units that attended.
fn wide(watched: &Watched) -> Vec<&String> {
    let works = watched.entries.iter().filter(|(_, work)| work.counts.mma_count > 0);
    works.map(|(entry, _)| entry).filter(|entry| entry.ends_with("_wide")).collect()
}

#[test]
fn without_wide_units_attention_has_the_same_bits() {
    use Dtype::{Bf16, E4m3, F16, F32, I8};
    let mut left_out = BTreeSet::new();
    for (q, kv, dims) in [
        (F16, F16, 64),
        (F32, F16, 128),
        (Bf16, Bf16, 128),
        (F32, Bf16, 128),
        (F32, E4m3, 64),
        (F32, I8, 128),
    ] {
        // 26 queries of a wide unit's 64 are none; a decode goes beside the prefill.
        let shape =
            Shape { dtypes: (q, kv, q), ..Shape::plain(&[seq(75, 300), seq(1, 700)], 2, dims) };
        let case = shape.case();
        let (with, much) = run(&case, MUCH);
        let (without, little) = run(&case, LITTLE);
        assert_eq!(wide(&much).len(), 1, "{}: {:?}", case.name(), wide(&much));
        assert_same_bits(&case.name(), &with, &without);
        if wide(&little).is_empty() {
            assert!(!little.entries.keys().any(|entry| entry.ends_with("_wide")));
            left_out.extend(wide(&much).into_iter().cloned());
        }
        assert_keeps_to_spec(&case, &without);
    }
    assert!(left_out.len() > 1, "it is left out where it does not fit: {left_out:?}");
}

#[test]
fn on_a_small_card_a_row_decoded_alone_has_the_bits_it_has_in_prefill() {
    for (kv, dims) in [(Dtype::F16, 128), (Dtype::Bf16, 128), (Dtype::I8, 128)] {
        let rows = 70;
        let case = Shape::plain(&[seq(rows, 330)], 3, dims).stored(kv).case();
        let (together, _) = run(&case, LITTLE);
        for row in [0, 15, 16, 63, 69] {
            let mut alone = case.clone();
            let kv_len = 330 - rows + row + 1;
            alone.shape.seqs = vec![seq(1, kv_len)];
            (alone.params.rows_max, alone.params.seqs_max) = (3, 1);
            (alone.q_start, alone.kv_len) = (vec![0, 1], vec![kv_len]);
            let stride = case.params.q_row_stride as usize * 4;
            let own = &case.q.as_slice()[row as usize * stride..][..stride];
            alone.q = pagewise_tests::harness::Bytes::of(&own.repeat(3));
            alone.page_start.as_mut().expect("plain shapes have lists").truncate(2);
            let (apart, _) = run(&alone, LITTLE);
            for (output, stride) in [(0, case.params.out_row_stride), (1, 3)] {
                let width = if output == 0 { 3 * dims as usize * 4 } else { 12 };
                let start = row as usize * stride as usize * 4;
                let in_company = &together[output].bytes.as_slice()[start..start + width];
                assert_eq!(&apart[output].bytes.as_slice()[..width], in_company, "row {row}");
            }
        }
    }
}
