//! What goes through C has the bits of what is called from Rust, and refusals reach C.

use backends::cpu::{NUMERICS, Threads};
use kernels_core::simd::Level;
use pagewise_tests::device_kernels;
use pagewise_tests::harness::{Abi, Case, assert_same_bits};

/// Every case of a kernel has the same bits through C, buffers compared whole.
fn assert_bits<C: Case>(cases: Vec<C>) {
    let mut abi = Abi::cpu(3);
    assert_eq!(abi.numerics(), NUMERICS);
    let threads = Threads::new(3);
    assert!(cases.len() > 5, "{}: {} cases", C::KERNEL, cases.len());
    for case in cases {
        let rust = case.run(Level::best(), &threads).expect("a good call runs");
        let through = case.call(&mut abi);
        let c = through.unwrap_or_else(|_| panic!("{}: {:?}", case.name(), abi.refused));
        assert_same_bits(&case.name(), &rust, &c);
    }
}

/// A kernel's cases, and as a test of its own.
macro_rules! same_bits {
    ($($kernel:ident: $held:expr;)*) => {$(
        mod $kernel {
            #[test]
            fn has_the_bits_of_rust_through_c() {
                super::assert_bits(pagewise_tests::cases::$kernel::cases());
            }
        }
    )*};
}

device_kernels!(same_bits);

#[test]
fn what_rust_refuses_is_refused_through_c_by_the_same_name() {
    let mut abi = Abi::cpu(1);
    let good = pagewise_tests::cases::attention::cases()
        .into_iter()
        .find(|case| case.page_start.is_some());
    let good = good.expect("a case with lists");
    type Change = fn(&mut pagewise_tests::cases::attention::AttentionCase);
    let bad: &[(&str, Change)] = &[
        ("page_ids", |case| case.page_ids[0] = case.params.kv.pages),
        ("kv_len", |case| case.kv_len[0] = case.params.kv_len_max + 1),
        ("kv.head_dim", |case| case.params.kv.head_dim += 1),
        ("q_heads", |case| case.params.q_heads = 0),
        ("scale", |case| case.params.scale = f32::NAN),
        ("kv.dtype", |case| case.params.kv.dtype = 99),
        ("rows_max", |case| case.params.rows_max = 0),
    ];
    for (field, change) in bad {
        let mut case = good.clone();
        change(&mut case);
        abi.refused = None;
        assert!(case.call(&mut abi).is_err(), "{field}");
        let told = abi.refused.clone().expect("an error");
        assert!(told.status < 0 && told.field == *field, "{field}: {told:?}");
        assert!(told.message.len() > 10, "{told:?}");
    }
}
