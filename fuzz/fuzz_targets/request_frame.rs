//! Runs [`fuzz::request_frame`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::request_frame::run(data));
