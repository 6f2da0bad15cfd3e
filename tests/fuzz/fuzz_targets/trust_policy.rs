//! Any bytes at all: see `scaikey_auth::testing::fuzz::trust_policy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| scaikey_auth::testing::fuzz::trust_policy(bytes));
