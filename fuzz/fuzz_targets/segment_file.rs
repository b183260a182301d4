//! Runs [`fuzz::segment_file`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::segment_file::run(data));
