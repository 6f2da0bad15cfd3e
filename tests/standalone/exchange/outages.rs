//! Outages of the provider: retries, timeouts and the circuit breaker.

use std::time::Duration;

use scaikey_auth::ExchangeRequest;
use scaikey_auth::exchange::{ExchangeError, PasswordRequest, RefreshRequest, ServiceTokenRequest};
use scaikey_auth::testing::{Fault, ProviderEndpoint};

use crate::support::until;

use super::{builder, provider, timed, timed_with};

#[tokio::test]
async fn only_idempotent_requests_are_retried() {
    let provider = provider().await;
    for fault in [Fault::Status(503), Fault::HangUp, Fault::Status(500)] {
        provider.fail(ProviderEndpoint::Token, fault.clone());
        let before = provider.token_requests();
        let client = builder(&provider).build().unwrap();
        client.exchange(&ExchangeRequest::new("subject", "scaivault")).await.unwrap_err();
        assert_eq!(provider.token_requests() - before, 2, "{fault:?}");
        let error = client.refresh(&RefreshRequest::new("r")).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Unavailable { .. }), "{error}");
        assert_eq!(provider.token_requests() - before, 3, "{fault:?}");
    }
    // `Retry-After` opens the breaker.
    provider.fail(ProviderEndpoint::Token, Fault::RetryAfter(429, 5));
    let before = provider.token_requests();
    let client = builder(&provider).build().unwrap();
    for _ in 0..10 {
        let error = client.service_token(ServiceTokenRequest::default()).await.unwrap_err();
        assert!(error.retry_after().unwrap() <= Duration::from_secs(5));
    }
    assert_eq!(provider.token_requests() - before, 1);
}

#[tokio::test]
async fn request_is_retried_if_connection_failed() {
    // Bound but not listening, so that no other server gets the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("http://{}/token", socket.local_addr().unwrap());
    let client = scaikey_auth::TokenExchangeClient::builder("https://scaikey.example")
        .client_auth(super::drive())
        .allow_loopback_http(true)
        .token_url(url)
        .build()
        .unwrap();
    let start = std::time::Instant::now();
    client.refresh(&RefreshRequest::new("r")).await.unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(50), "there is a pause before the retry");
}

#[tokio::test]
async fn failing_endpoint_opens_the_breaker() {
    let (provider, client, clock) = timed().await;
    provider.fail(ProviderEndpoint::Token, Fault::Status(500));
    let exchange = |n: usize| {
        let (client, subject) = (client.clone(), format!("subject {n}"));
        async move { client.exchange(&ExchangeRequest::new(subject, "scaivault")).await }
    };
    for n in 0..3 {
        exchange(n).await.unwrap_err();
    }
    assert_eq!(provider.token_requests(), 6);
    for n in 0..100 {
        let error = exchange(n).await.unwrap_err();
        assert!(error.retry_after().is_some_and(|wait| wait <= Duration::from_secs(1)), "{error}");
    }
    assert_eq!(provider.token_requests(), 6);
    clock.advance(Duration::from_secs(1));
    provider.heal(ProviderEndpoint::Token);
    let error = exchange(200).await.unwrap_err();
    assert!(!matches!(error, ExchangeError::Unavailable { .. }), "the endpoint answers: {error}");
    assert_eq!(provider.token_requests(), 7);
}

#[tokio::test]
async fn timeout_ends_every_call() {
    let provider = provider().await;
    for fault in [Fault::Hang, Fault::Stall, Fault::EndlessBody] {
        provider.fail(ProviderEndpoint::Token, fault.clone());
        let client = builder(&provider).timeout(Duration::from_millis(200)).build().unwrap();
        let call = client.service_token(ServiceTokenRequest::default());
        let ended = tokio::time::timeout(Duration::from_secs(60), call).await;
        assert!(matches!(ended, Ok(Err(ExchangeError::Unavailable { .. }))), "{fault:?}");
    }
}

#[tokio::test]
async fn dropped_probe_does_not_block_callers() {
    let (provider, client, clock) = timed_with(|it| it.enable_password_grant()).await;
    let password = PasswordRequest::new("bob", "hunter2");
    provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    for _ in 0..4 {
        client.password(&password).await.unwrap_err();
    }
    provider.fail(ProviderEndpoint::Token, Fault::Hang);
    clock.advance(Duration::from_secs(61));
    let before = provider.token_requests();
    let (prober, request) = (client.clone(), password.clone());
    let probe = tokio::spawn(async move { prober.password(&request).await.map(drop) });
    until(|| provider.token_requests() > before).await;
    client.service_token(ServiceTokenRequest::default()).await.unwrap_err();
    assert_eq!(provider.token_requests(), before + 1, "other callers wait for the probe");
    probe.abort();
    probe.await.unwrap_err();
    provider.heal(ProviderEndpoint::Token);
    client.service_token(ServiceTokenRequest::default()).await.unwrap();
    client.password(&password).await.unwrap();
}
