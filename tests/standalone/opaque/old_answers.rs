//! Old answers, repeated questions and the breaker.

use std::time::Duration;

use scaikey_auth::testing::Fault;

use super::{Introspection, outcome};

#[tokio::test]
async fn purge_ends_refusals() {
    let it = Introspection::new().await;
    let auth = it.auth();
    let foreign = it.token().audience("another-service").opaque("skt_");
    assert_eq!(outcome(&auth, &foreign).await, "token_audience");
    auth.issuers().purge(&it.world.provider.issuer());
    assert_eq!((outcome(&auth, &foreign).await, it.questions()), ("token_audience", 2));
}

#[tokio::test]
async fn purged_answer_does_not_serve_in_outages() {
    let it = Introspection::new().await;
    let auth = it.auth_with(it.settings().serve_while_unavailable(Duration::from_secs(60)));
    let token = it.good();
    assert_eq!(outcome(&auth, &token).await, "active");
    auth.issuers().purge(&it.world.provider.issuer());
    it.fail(Fault::Status(500));
    assert_eq!(outcome(&auth, &token).await, "unavailable");
}

/// Only an unavailable endpoint lets an old answer serve: not wrong credentials, and not an answer of another form.
#[tokio::test]
async fn old_answer_serves_in_outages_only() {
    let it = Introspection::new().await;
    for fault in [Fault::Status(401), Fault::Status(404), Fault::garbage(), Fault::html()] {
        let auth = it.auth_with(it.settings().serve_while_unavailable(Duration::from_secs(300)));
        let token = it.good();
        assert_eq!(outcome(&auth, &token).await, "active");
        it.fail(fault.clone());
        it.advance(31);
        assert_eq!(outcome(&auth, &token).await, "unavailable", "{fault:?}");
        it.heal();
    }
}

#[tokio::test]
async fn failures_about_known_tokens_open_their_breaker() {
    let it = Introspection::new().await;
    let auth = it.auth_with(it.settings().cache_for(Duration::ZERO));
    let known = it.good();
    assert_eq!(outcome(&auth, &known).await, "active");
    it.fail(Fault::Status(500));
    for _ in 0..10 {
        assert_eq!(outcome(&auth, &known).await, "unavailable");
    }
    assert_eq!(it.questions(), 4, "three failures open the breaker");
    assert_eq!(outcome(&auth, "skt_unknown").await, "unavailable");
    assert_eq!(it.questions(), 5, "an unknown token is still asked about");
}

#[tokio::test]
async fn broken_connection_is_repeated_once() {
    let it = Introspection::new().await;
    let auth = it.auth();
    it.fail(Fault::HangUp);
    assert_eq!(outcome(&auth, &it.good()).await, "unavailable");
    assert_eq!((auth.introspected_tokens().stats().questions, it.questions()), (1, 2));
}
