//! A failing token endpoint: which grants the breaker blocks, logs and metrics.

use std::time::Duration;

use scaikey_auth::exchange::{ExchangeError, PasswordRequest, RefreshRequest, ServiceTokenRequest};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Fault, ManualClock, ProviderEndpoint};
use scaikey_auth::{ExchangeRequest, TokenExchangeClient};

#[cfg(feature = "metrics")]
use super::{builder, drive, provider, timed_with};
use crate::support::files::File;
use crate::support::{Log, MetricsRecorder};

fn subject(nth: usize) -> ExchangeRequest {
    ExchangeRequest::new(format!("subject {nth}"), "scaivault")
}

async fn service_token(client: &TokenExchangeClient) -> Result<(), ExchangeError> {
    client.service_token(ServiceTokenRequest::default()).await.map(drop)
}

/// Returns a client of an endpoint that refuses connections. The socket reserves the port.
fn unreachable_client() -> (TokenExchangeClient, ManualClock, tokio::net::TcpSocket) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("http://{}/token", socket.local_addr().unwrap());
    let clock = ManualClock::new();
    let client = TokenExchangeClient::builder("https://scaikey.example")
        .client_auth(drive())
        .allow_loopback_http(true)
        .token_url(url)
        .enable_password_grant()
        .clock(clock.clone())
        .build();
    (client.unwrap(), clock, socket)
}

#[tokio::test]
async fn throttled_password_blocks_only_passwords() {
    for fault in [Fault::RetryAfter(429, 60), Fault::RetryAfter(500, 60)] {
        let (provider, client, clock) = timed_with(|it| it.enable_password_grant()).await;
        provider.fail(ProviderEndpoint::Token, fault.clone());
        let guess = || PasswordRequest::new("bob", "wrong");
        client.password(&guess()).await.unwrap_err();
        provider.heal(ProviderEndpoint::Token);
        // Other grants are still sent.
        service_token(&client).await.unwrap();
        let refused = client.exchange(&subject(1)).await.unwrap_err();
        assert!(refused.oauth_error().is_some(), "{fault:?}: {refused}");
        let refused = client.refresh(&RefreshRequest::new("r")).await.unwrap_err();
        assert!(refused.oauth_error().is_some(), "{fault:?}: {refused}");
        let before = provider.token_requests();
        let error = client.password(&guess()).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(60)), "{fault:?}");
        assert_eq!(provider.token_requests(), before, "{fault:?}");
        clock.advance(Duration::from_secs(60));
        let refused = client.password(&guess()).await.unwrap_err();
        assert!(refused.oauth_error().is_some(), "{fault:?}: {refused}");
    }
}

#[tokio::test]
async fn gateway_failure_blocks_every_grant() {
    let (provider, client, _) = timed_with(|it| it.enable_password_grant()).await;
    provider.fail(ProviderEndpoint::Token, Fault::RetryAfter(503, 60));
    client.password(&PasswordRequest::new("bob", "wrong")).await.unwrap_err();
    let before = provider.token_requests();
    let error = service_token(&client).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
    assert_eq!(provider.token_requests(), before);
}

#[tokio::test]
async fn unreachable_endpoint_blocks_every_grant() {
    let (client, _clock, _socket) = unreachable_client();
    for nth in 0..3 {
        client.exchange(&subject(nth)).await.unwrap_err();
    }
    let error = client.refresh(&RefreshRequest::new("r")).await.unwrap_err();
    assert!(error.retry_after().is_some(), "{error}");
}

#[tokio::test]
async fn endpoint_outage_is_logged_once() {
    let log = Log::start();
    let (client, clock, _socket) = unreachable_client();
    for nth in 0..100 {
        client.exchange(&subject(nth)).await.unwrap_err();
    }
    // Later probes fail the same way.
    for nth in 100..110 {
        clock.advance(Duration::from_secs(61));
        client.exchange(&subject(nth)).await.unwrap_err();
    }
    assert_eq!(log.lines("WARN").len(), 1, "{:#?}", log.lines("WARN"));
    assert!(log.lines("WARN")[0].contains("could not be reached"), "{}", log.text());
    assert!(log.lines("ERROR").is_empty(), "{}", log.text());
}

#[tokio::test]
async fn each_outage_and_recovery_is_logged() {
    let log = Log::start();
    let (provider, client, clock) = timed_with(|it| it).await;
    for round in 1..=3 {
        provider.fail(ProviderEndpoint::Token, Fault::Status(500));
        for nth in 0..10 {
            client.exchange(&subject(100 * round + nth)).await.unwrap_err();
        }
        provider.heal(ProviderEndpoint::Token);
        clock.advance(Duration::from_secs(61));
        for nth in 50..55 {
            client.exchange(&subject(100 * round + nth)).await.unwrap_err();
        }
        let warnings = log.lines("WARN");
        assert_eq!(warnings.len(), round, "{warnings:#?}");
        assert!(warnings[round - 1].contains("500"), "{warnings:#?}");
        assert_eq!(log.text().matches("requests to the provider succeed again").count(), round);
    }
}

#[tokio::test]
async fn refused_client_is_logged_once() {
    for code in ["invalid_client", "unauthorized_client", "unsupported_grant_type"] {
        let log = Log::start();
        let (provider, client, clock) = timed_with(|it| it).await;
        provider.fail(ProviderEndpoint::Token, Fault::OAuthError(401, code));
        for nth in 0..20 {
            client.exchange(&subject(nth)).await.unwrap_err();
            clock.advance(Duration::from_secs(11));
        }
        let warnings = log.lines("WARN");
        assert_eq!(warnings.len(), 1, "{code}: {warnings:#?}");
        assert!(warnings[0].contains(code), "{warnings:#?}");
        provider.heal(ProviderEndpoint::Token);
        service_token(&client).await.unwrap();
        client.exchange(&subject(99)).await.unwrap_err();
        assert_eq!(
            log.text().matches("requests to the provider succeed again").count(),
            1,
            "{code}"
        );
    }
}

#[tokio::test]
async fn invalid_credentials_of_callers_cause_no_warnings() {
    let log = Log::start();
    let (provider, client, _) = timed_with(|it| it.enable_password_grant()).await;
    for nth in 0..3 {
        client.exchange(&subject(nth)).await.unwrap_err();
        client.password(&PasswordRequest::new("bob", "wrong")).await.unwrap_err();
        client.refresh(&RefreshRequest::new(format!("r{nth}"))).await.unwrap_err();
    }
    assert_eq!(provider.token_requests(), 9);
    assert!(log.lines("WARN").is_empty(), "{:#?}", log.lines("WARN"));
}

#[tokio::test]
async fn unreadable_secret_file_causes_one_warning() {
    let log = Log::start();
    let provider = provider().await;
    let file = File::new("secret", "s");
    let source = scaikey_auth::issuer::SecretSource::File(file.path().into());
    let auth = ClientAuth::basic("drive:1 %", source);
    let client = builder(&provider).client_auth(auth).build().unwrap();
    file.remove();
    for nth in 0..20 {
        client.exchange(&subject(nth)).await.unwrap_err();
    }
    let warnings = log.lines("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains(&file.path_text()), "{warnings:#?}");
    assert_eq!(provider.token_requests(), 0);
}

#[tokio::test]
async fn invalid_answers_are_logged_once() {
    let log = Log::start();
    let (provider, client, clock) = timed_with(|it| it).await;
    let foreign = provider.token().audience("other").subject("subject").sign();
    let jwt = "urn:ietf:params:oauth:token-type:jwt";
    let body = format!(
        r#"{{"access_token":"{foreign}","token_type":"Bearer","issued_token_type":"{jwt}"}}"#
    );
    provider.fail(ProviderEndpoint::Token, Fault::Body("application/json", body));
    for nth in 0..20 {
        client.exchange(&subject(nth)).await.unwrap_err();
        clock.advance(Duration::from_secs(11));
    }
    let warnings = log.lines("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains("the provider's answer"), "{warnings:#?}");
}

#[cfg(feature = "metrics")]
#[tokio::test]
async fn metrics_count_sent_requests() {
    let counts = MetricsRecorder::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let (client, _clock, _socket) = unreachable_client();
    for nth in 0..100 {
        client.exchange(&subject(nth)).await.unwrap_err();
    }
    assert_eq!(counts.sum_of(&["scaikey_auth_token_requests_total"]), 3);
    assert_eq!(counts.sum_of(&["scaikey_auth_token_requests_not_sent_total"]), 97);
}
