//! Run with `cargo run --example workload_identity`
fn main() {}
