#![no_main]

#[allow(dead_code, reason = "each target takes its own")]
#[path = "../oracles.rs"]
mod oracles;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    oracles::record(bytes);
});
