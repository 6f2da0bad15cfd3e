//! Fuzzes `scaikey_auth::testing::fuzz::logout_token` with arbitrary bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| scaikey_auth::testing::fuzz::logout_token(bytes));
