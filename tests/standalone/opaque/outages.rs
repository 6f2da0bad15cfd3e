//! Outages of the introspection endpoint, and wrong credentials of this service.

use std::time::Duration;

use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use scaikey_auth::validator::OpaqueTokens;

use super::{Introspection, assert_unavailable, outcome, refusal, server};
use crate::support::Log;

#[tokio::test]
async fn unavailable_endpoint_is_answered_503() {
    let it = Introspection::new().await;
    let (auth, log) = (it.auth(), Log::start());
    let server = server(&auth).await;
    for fault in [Fault::Status(500), Fault::HangUp, Fault::RetryAfter(429, 7)] {
        it.fail(fault.clone());
        let answer = server.get_as("/", &it.good()).await;
        assert_unavailable(&answer);
        assert_eq!(answer.json()["detail"], "The token cannot be checked right now. Try again.");
        if matches!(fault, Fault::RetryAfter(..)) {
            assert_eq!(answer.header("retry-after"), "7");
        }
    }
    it.heal();
    assert_eq!(server.get_as("/", &it.good()).await.status, 200);
    let text = log.text();
    assert!(
        !text.contains("ERROR") && text.contains("opaque tokens can be checked again"),
        "{text}"
    );
    assert_eq!(auth.introspected_tokens().stats().failures, 3);
}

#[tokio::test]
async fn slow_endpoint_ends_at_the_time_limit() {
    let it = Introspection::new().await;
    for fault in [Fault::Hang, Fault::Stall] {
        let auth = it.auth_with(it.settings().timeout(Duration::from_millis(50)));
        auth.ready().await.unwrap();
        it.fail(fault);
        let call = tokio::time::timeout(Duration::from_secs(60), auth.authenticate("skt_a"));
        assert_eq!(call.await.unwrap().unwrap_err().status(), 503);
        it.heal();
    }
}

#[tokio::test]
async fn failing_endpoint_opens_the_breaker() {
    let it = Introspection::new().await;
    let auth = it.auth();
    let known = it.good();
    assert_eq!(outcome(&auth, &known).await, "active");
    it.fail(Fault::Status(503));
    for n in 0..10 {
        assert_eq!(outcome(&auth, &format!("skt_{n}")).await, "unavailable");
    }
    assert_eq!(it.questions(), 4, "the breaker is open");
    assert_eq!(outcome(&auth, &known).await, "active", "its answer is reused");
    it.heal();
    it.advance(61);
    assert_eq!(outcome(&auth, &known).await, "active");
    assert_eq!(outcome(&auth, &it.good()).await, "active");
}

/// A caller could provoke these failures with a token of a special kind.
#[tokio::test]
async fn invented_token_does_not_open_the_breaker() {
    let it = Introspection::new().await;
    let auth = it.auth();
    for fault in [Fault::Status(500), Fault::HangUp, Fault::RetryAfter(429, 60), Fault::garbage()] {
        it.fail(fault.clone());
        for n in 0..5 {
            assert_eq!(outcome(&auth, &format!("skt_{n}")).await, "unavailable");
        }
        it.heal();
        assert_eq!(outcome(&auth, &it.good()).await, "active", "{fault:?}");
    }
}

#[tokio::test]
async fn refused_credentials_are_never_the_callers_fault() {
    let it = Introspection::new().await;
    let wrong = ClientAuth::basic("docs", "cAnArY-wr0ng-s3cret");
    let settings = OpaqueTokens::new(it.world.provider.issuer(), wrong)
        .prefixes(["skt_"])
        .serve_while_unavailable(Duration::from_secs(300));
    let (auth, log) = (it.auth_with(settings), Log::start());
    let server = server(&auth).await;
    for _ in 0..5 {
        let answer = server.get_as("/", &it.good()).await;
        assert_unavailable(&answer);
        assert!(answer.challenge().is_none());
    }
    let text = log.text();
    let errors: Vec<_> = text.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    assert!(errors[0].contains("refuses the credentials of this service"), "{errors:?}");
    assert!(!text.contains("cAnArY"), "{text}");
}

#[tokio::test]
async fn last_answer_serves_during_an_outage() {
    let it = Introspection::new().await;
    let settings = it.settings().serve_while_unavailable(Duration::from_secs(60));
    for (auth, serves) in [(it.auth_with(settings), true), (it.auth(), false)] {
        let revoked = it.good();
        assert_eq!(outcome(&auth, &revoked).await, "active");
        it.world.provider.revoke_token(&revoked);
        it.fail(Fault::Status(500));
        it.advance(31);
        let expected = if serves { "active" } else { "unavailable" };
        assert_eq!(outcome(&auth, &revoked).await, expected);
        assert_eq!(outcome(&auth, "skt_unknown").await, "unavailable", "it was never active");
        it.advance(58);
        assert_eq!(outcome(&auth, &revoked).await, expected);
        it.advance(1);
        assert_eq!(outcome(&auth, &revoked).await, "unavailable", "the limit has passed");
        assert_eq!(auth.introspected_tokens().stats().served_while_unavailable > 0, serves);
        it.heal();
        it.advance(61);
        assert_eq!(outcome(&auth, &revoked).await, "token_inactive");
    }
}

#[tokio::test]
async fn old_answer_does_not_outlive_expiry() {
    let it = Introspection::new().await;
    let auth = it.auth_with(it.settings().serve_while_unavailable(Duration::from_secs(300)));
    let token = it.token().expires_in(Duration::from_secs(50)).opaque("skt_");
    assert_eq!(outcome(&auth, &token).await, "active");
    it.fail(Fault::Status(500));
    it.advance(49);
    assert_eq!(outcome(&auth, &token).await, "active");
    it.advance(1);
    assert_eq!(outcome(&auth, &token).await, "unavailable");
}

/// While an old answer serves, the endpoint is asked once per second, and not for each request.
#[tokio::test]
async fn outage_is_probed_once_per_second() {
    let it = Introspection::new().await;
    let auth = it.auth_with(it.settings().serve_while_unavailable(Duration::from_secs(60)));
    let token = it.good();
    assert_eq!(outcome(&auth, &token).await, "active");
    it.fail(Fault::Status(500));
    it.advance(31);
    for _ in 0..100 {
        assert_eq!(outcome(&auth, &token).await, "active");
    }
    assert_eq!(it.questions(), 2);
    it.heal();
    it.advance(1);
    it.world.provider.revoke_token(&token);
    assert_eq!(outcome(&auth, &token).await, "token_inactive");
}

#[tokio::test]
async fn missing_endpoint_is_noticed_at_the_start() {
    let it = Introspection::new().await;
    let provider = &it.world.provider;
    let fault = Fault::remove_member("introspection_endpoint");
    provider.fail(ProviderEndpoint::Discovery, fault);
    let (auth, log) = (it.auth(), Log::start());
    let error = auth.ready().await.unwrap_err();
    assert_eq!(error.status(), 503, "{error}");
    let text = log.text();
    assert!(text.contains("ERROR") && text.contains("set introspection_url"), "{text}");
    assert_eq!(refusal(&auth, &it.good()).await.status(), 503);
    // JWTs are not affected.
    assert_eq!(outcome(&auth, &it.token().sign()).await, "active");
    let url = provider.introspection_endpoint();
    let auth = it.auth_with(it.settings().introspection_url(url));
    auth.ready().await.unwrap();
    assert_eq!(outcome(&auth, &it.good()).await, "active");
}

#[tokio::test]
async fn added_endpoint_is_noticed_within_a_minute() {
    let it = Introspection::new().await;
    let discovery = ProviderEndpoint::Discovery;
    let (auth, provider) = (it.auth(), &it.world.provider);
    provider.fail(discovery, Fault::remove_member("introspection_endpoint"));
    let token = it.token().expires_in(Duration::from_secs(9_000)).opaque("skt_");
    // The metadata is fetched once a minute, however many tokens need it.
    for minute in 1..=3 {
        for _ in 0..5 {
            assert_eq!(outcome(&auth, &token).await, "unavailable");
        }
        assert_eq!(provider.requests(discovery), minute);
        it.advance(60);
    }
    provider.heal(discovery);
    assert_eq!(outcome(&auth, &token).await, "active");
    it.advance(60);
    assert_eq!(outcome(&auth, &token).await, "active");
    assert_eq!(provider.requests(discovery), 4, "complete metadata is fetched once an hour");
}
