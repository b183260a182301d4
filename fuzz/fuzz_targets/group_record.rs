//! Runs [`fuzz::group_record`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::group_record::run(data));
