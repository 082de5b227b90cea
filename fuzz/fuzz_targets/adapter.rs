#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pagewise_tests::fuzz::run("adapter", data));
