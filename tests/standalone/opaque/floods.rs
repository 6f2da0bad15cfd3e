//! Invented tokens: bounded questions, bounded memory, and no harm for good tokens.

use std::time::Duration;

use futures_util::future::join_all;
use scaikey_auth::testing::Fault;
use scaikey_auth::validator::insecure_decode_claims;
use serde_json::{Value, json};

use super::{Introspection, answer, assert_unavailable, outcome, refusal, server};
use crate::support::{Log, until};

#[tokio::test]
async fn invented_tokens_cause_bounded_questions() {
    let it = Introspection::new().await;
    let (auth, log) = (it.auth(), Log::start());
    let server = server(&auth).await;
    let known = it.good();
    assert_eq!(server.get_as("/", &known).await.status, 200);
    let mut refused = 0;
    for n in 0..10_000 {
        match outcome(&auth, &format!("skt_invented-{n}")).await {
            "token_inactive" => refused += 1,
            "unavailable" => {}
            other => panic!("{other}"),
        }
    }
    // The known token gave its question back.
    assert_eq!((refused, it.questions()), (200, 201));
    let stats = auth.introspected_tokens().stats();
    assert_eq!((stats.active, stats.refused, stats.over_budget), (1, 200, 9_800));
    assert!(stats.bytes < 100_000, "{stats:?}");

    // A good token may be among those beyond the budget.
    let new = it.good();
    assert_unavailable(&server.get_as("/", &new).await);
    // A known token is not affected, not even when it must be asked about again.
    assert_eq!(server.get_as("/", &known).await.status, 200);
    it.advance(31);
    for n in 0..10_000 {
        outcome(&auth, &format!("skt_more-{n}")).await;
    }
    assert_eq!(server.get_as("/", &known).await.status, 200);
    it.advance(1);
    let before = it.questions();
    for n in 0..1_000 {
        outcome(&auth, &format!("skt_others-{n}")).await;
    }
    assert_eq!(it.questions() - before, 20, "20 per second");
    it.advance(1);
    assert_eq!(server.get_as("/", &new).await.status, 200);
    let text = log.text();
    let warnings = text.lines().filter(|line| line.contains("WARN") && line.contains("503"));
    assert_eq!(warnings.count(), 1, "{text}");
}

#[tokio::test]
async fn good_tokens_are_not_limited() {
    let it = Introspection::new().await;
    let auth = it.auth_with(it.settings().unknown_tokens(5, 1));
    for n in 0..100 {
        assert_eq!(outcome(&auth, &it.good()).await, "active", "{n}");
    }
    for n in 0..5 {
        assert_eq!(outcome(&auth, &format!("skt_{n}")).await, "token_inactive");
    }
    let error = refusal(&auth, &it.good()).await;
    assert!(error.retry_after().is_some_and(|wait| wait <= Duration::from_secs(1)), "{error:?}");
}

#[tokio::test]
async fn refused_tokens_use_the_budget() {
    let it = Introspection::new().await;
    let auth = it.auth_with(it.settings().unknown_tokens(5, 1));
    // Their owner may create as many as the provider allows.
    for n in 0..20 {
        let token = it.token().audience("another-service").opaque("skt_");
        let expected = if n < 5 { "token_audience" } else { "unavailable" };
        assert_eq!(outcome(&auth, &token).await, expected, "{n}");
    }
    assert_eq!(it.questions(), 5);
}

#[tokio::test]
async fn tokens_after_their_expiry_use_the_budget() {
    let it = Introspection::new().await;
    let auth = it.auth_with(it.settings().unknown_tokens(5, 1));
    let token = it.token().expires_in(Duration::from_secs(5)).opaque("skt_");
    assert_eq!(outcome(&auth, &token).await, "active");
    // Within the leeway the provider still says that it is active. Such an answer is not reused.
    let claims = it.token().expires_in(Duration::from_secs(5)).sign();
    let mut body: Value = insecure_decode_claims(&claims).unwrap();
    body["active"] = json!(true);
    it.fail(answer(body.to_string()));
    it.advance(20);
    let before = it.questions();
    for n in 0..20 {
        let expected = if n < 5 { "active" } else { "unavailable" };
        assert_eq!(outcome(&auth, &token).await, expected, "{n}");
    }
    assert_eq!(it.questions() - before, 5);
    it.advance(1);
    assert_eq!(outcome(&auth, &token).await, "active");
}

#[tokio::test]
async fn budget_limits_concurrent_questions() {
    let it = Introspection::new().await;
    let auth = it.auth_with(it.settings().unknown_tokens(5, 1));
    it.fail(Fault::Hang);
    let tokens: Vec<_> = (0..20).map(|_| it.good()).collect();
    let calls: Vec<_> = tokens
        .into_iter()
        .map(|token| {
            let auth = auth.clone();
            tokio::spawn(async move { outcome(&auth, &token).await })
        })
        .collect();
    until(|| auth.introspected_tokens().stats().over_budget == 15).await;
    it.heal();
    let outcomes: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes.iter().filter(|it| **it == "active").count(), 5);
    assert_eq!(it.questions(), 5);
}

#[tokio::test]
async fn unsuitable_tokens_cause_no_question() {
    let it = Introspection::new().await;
    let auth = it.auth();
    let long = format!("skt_{}", "a".repeat(509));
    assert_eq!(outcome(&auth, &long).await, "token_malformed");
    let server = server(&auth).await;
    assert_eq!(server.get_as("/", &long).await.status, 401);
    assert_eq!(server.get_as("/", "skt_a\u{2009}b").await.status, 400);
    assert_eq!(server.get_as("/", "skt_a,b").await.status, 400);
    assert_eq!(outcome(&auth, "sk_other").await, "token_unrecognised");
    assert_eq!(it.questions(), 0);
    assert_eq!(outcome(&auth, &long[..512]).await, "token_inactive");
    assert_eq!(it.questions(), 1);
}

/// Answers of 60 KiB, which an issuer that is under attack might give.
#[tokio::test]
async fn large_answers_use_bounded_memory() {
    let it = Introspection::new().await;
    let auth = it.auth();
    for _ in 0..200 {
        let token = it.token().claim("extra", "x".repeat(60_000)).opaque("skt_");
        assert_eq!(outcome(&auth, &token).await, "active");
    }
    let stats = auth.introspected_tokens().stats();
    assert!(stats.bytes <= 8 << 20 && stats.active < 150, "{stats:?}");
}
