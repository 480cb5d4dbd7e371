//! libFuzzer's way into [`fuzz::peer_text`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::peer_text(data));
