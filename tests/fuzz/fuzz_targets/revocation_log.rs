//! Fuzzes `scaikey_auth::testing::fuzz::revocation_log` with arbitrary bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| scaikey_auth::testing::fuzz::revocation_log(bytes));
