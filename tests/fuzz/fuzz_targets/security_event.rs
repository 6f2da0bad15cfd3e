//! Fuzzes `scaikey_auth::testing::fuzz::security_event` with arbitrary bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| scaikey_auth::testing::fuzz::security_event(bytes));
