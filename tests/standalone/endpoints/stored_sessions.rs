//! Sessions in a store: sign-in, use, renewal, idle limit and sign-out.

use std::sync::Arc;

use scaikey_auth::session::MemorySessions;
use scaikey_auth::testing::conformance::session_store;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_sessions_pass_conformance_suite() {
    session_store(Arc::new(MemorySessions::new())).await;
}
