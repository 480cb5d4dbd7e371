//! libFuzzer's way into [`fuzz::hpack`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::hpack(data));
