//! Making room in a full index, which reads all entries, does not hold up other tasks.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use scaikey_auth::revocation::{MemoryRevocationLog, Revocation, Revocations, RevocationsBuilder};
use scaikey_auth::testing::identity;
use serde_json::json;

use crate::support::eventually;

/// As many entries as make the search for room long.
const LIMIT: usize = 20_000;

fn session(n: usize) -> Revocation {
    Revocation::session("https://a", format!("{n}")).of_subject(format!("subject {}", n % 1_000))
}

/// Returns a full index, whose entries can be merged.
async fn full(builder: RevocationsBuilder) -> Revocations {
    let revocations = builder.max_entries(LIMIT).build();
    let mut n = 0;
    while revocations.health().entries < LIMIT {
        revocations.revoke(session(n)).await.unwrap();
        n += 1;
    }
    assert_eq!(revocations.health().widened, 0);
    revocations
}

#[tokio::test]
async fn full_index_holds_up_no_task() {
    let revocations = full(Revocations::builder()).await;
    let mut call = pin!(revocations.revoke(session(LIMIT)));
    let first = std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
    assert!(first.is_pending(), "room is made on another thread");
    call.await.unwrap();
    assert!(revocations.health().widened > 0);
    let sid = format!("{LIMIT}");
    assert!(
        revocations.is_revoked(&identity(json!({ "iss": "https://a", "sub": "x", "sid": sid })))
    );
}

#[tokio::test]
async fn dropped_call_is_logged_nevertheless() {
    let log = MemoryRevocationLog::default();
    let builder = Revocations::builder().check_every(Duration::from_millis(10)).log(log.clone());
    let revocations = full(builder).await;
    revocations.ready().await.unwrap();
    {
        let mut call = pin!(revocations.revoke(session(LIMIT)));
        let first = std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
        assert!(first.is_pending());
    }
    let late = Revocations::builder().check_every(Duration::from_millis(10)).log(log).build();
    let sid = format!("{LIMIT}");
    let caller = identity(json!({ "iss": "https://a", "sub": "x", "sid": sid }));
    eventually(async || late.ready().await.is_ok() && late.is_revoked(&caller)).await;
}
