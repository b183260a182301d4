//! Runs [`fuzz::record_batch`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::record_batch::run(data));
