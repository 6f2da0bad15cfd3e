//! Any bytes at all: see `scaikey_auth::testing::fuzz::json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| scaikey_auth::testing::fuzz::json(bytes));
