//! Answers of the token endpoint: the ones that are accepted and the ones that are rejected.

use std::time::Duration;

use scaikey_auth::ExchangeRequest;
use scaikey_auth::exchange::{ExchangeError, RefreshRequest, ServiceTokenRequest};
use scaikey_auth::testing::{Client, Fault, ProviderEndpoint};

use serde_json::json;

use super::{SECRET, builder, client, provider};

#[tokio::test]
async fn exp_is_used_without_expires_in() {
    let provider = provider().await;
    provider.register_client(Client::new("drive:1 %", SECRET).without_expires_in());
    let token = client(&provider).service_token(ServiceTokenRequest::default()).await.unwrap();
    let lifetime = token.lifetime().unwrap();
    assert!(lifetime > Duration::from_secs(3500) && lifetime <= Duration::from_secs(3600));
}

#[tokio::test]
async fn answer_differing_from_request_is_rejected() {
    let provider = provider().await;
    let exchange = async |members: &str| {
        // A new client each time, because a client caches failures.
        let client = client(&provider);
        let body = format!(r#"{{"access_token":"opaque",{members}}}"#);
        provider.fail(ProviderEndpoint::Token, Fault::Body("application/json", body));
        let request = ExchangeRequest::new("subject", "scaivault");
        client.exchange(&request.scopes("vault:read".parse().unwrap())).await
    };
    let jwt = r#""issued_token_type":"urn:ietf:params:oauth:token-type:jwt""#;
    exchange(&format!(r#""token_type":"bearer",{jwt}"#)).await.unwrap();
    for members in [
        format!(r#""token_type":"N_A",{jwt}"#),
        format!(r#""token_type":"DPoP",{jwt}"#),
        r#""token_type":"Bearer""#.to_owned(),
        r#""token_type":"Bearer","issued_token_type":"urn:x""#.to_owned(),
        format!(r#""token_type":"Bearer","scope":"vault:read vault:write",{jwt}"#),
    ] {
        let refused = exchange(&members).await.unwrap_err();
        assert!(matches!(refused, ExchangeError::InvalidAnswer(_)), "{members}");
    }
}

#[tokio::test]
async fn wrong_subject_or_audience_needs_opt_in() {
    let provider = provider().await;
    let strict = client(&provider);
    let any_audience = builder(&provider).insecure_any_audience().build().unwrap();
    let any_subject = builder(&provider).insecure_any_subject().build().unwrap();
    let token = || provider.token().audience("scaivault");
    let several = token().claim("aud", vec!["scaigrid", "scaivault"]);
    for (answer, by_default, by_audience, by_subject) in [
        (token(), true, true, true),
        (several, true, true, true),
        (token().audience("scaivault2"), false, true, false),
        (token().without("aud"), false, true, false),
        (token().subject("bob-id"), false, false, true),
        (token().without("sub"), false, false, true),
        (token().tenant("tenant-2"), false, false, true),
    ] {
        let body = format!(
            r#"{{"access_token":"{}","token_type":"Bearer","issued_token_type":"{}"}}"#,
            answer.clone().sign(),
            "urn:ietf:params:oauth:token-type:access_token",
        );
        provider.fail(ProviderEndpoint::Token, Fault::Body("application/json", body));
        let request = ExchangeRequest::new(provider.token().sign(), "scaivault");
        for (client, good) in
            [(&strict, by_default), (&any_audience, by_audience), (&any_subject, by_subject)]
        {
            assert_eq!(client.exchange(&request).await.is_ok(), good, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn outage_and_refusal_are_different_errors() {
    let provider = provider().await;
    let cases = [
        (Fault::RetryAfter(503, 7), true, Some(7)),
        (Fault::RetryAfter(429, 9), true, Some(9)),
        (Fault::Status(500), true, None),
        (Fault::HangUp, true, None),
        (Fault::EndlessBody, true, None),
        (Fault::Hang, true, None),
        (Fault::Status(400), false, None),
        (Fault::Status(401), false, None),
        (Fault::RedirectHere, false, None),
    ];
    for (fault, unavailable, seconds) in cases {
        // A new client each time, because the breaker of the last one may be open.
        // Only a fault that hangs should reach the timeout.
        let hangs = matches!(fault, Fault::Hang);
        let timeout = Duration::from_millis(if hangs { 300 } else { 60_000 });
        let client = builder(&provider).timeout(timeout).build().unwrap();
        provider.fail(ProviderEndpoint::Token, fault.clone());
        let error = client.refresh(&RefreshRequest::new("hunter2")).await.unwrap_err();
        let is = matches!(error, ExchangeError::Unavailable { .. });
        assert_eq!(is, unavailable, "{fault:?}: {error:?}");
        assert_eq!(error.oauth_error(), None, "{fault:?}");
        assert_eq!(error.retry_after().map(|wait| wait.as_secs()), seconds, "{fault:?}");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{fault:?}");
    }
    assert_eq!(provider.stray_requests(), 0);
}

#[tokio::test]
async fn untyped_and_na_tokens_need_opt_in() {
    let provider = provider().await;
    let answer =
        |members: &str| format!(r#"{{"access_token":"opaque","expires_in":60,{members}}}"#);
    let untyped = answer(r#""token_type":"Bearer""#);
    let jwt = r#""issued_token_type":"urn:ietf:params:oauth:token-type:jwt""#;
    let other = answer(&format!(r#""token_type":"N_A",{jwt}"#));
    for (body, accepts_untyped, accepts_other) in [(untyped, true, false), (other, false, true)] {
        provider.fail(ProviderEndpoint::Token, Fault::Body("application/json", body.clone()));
        let clients = [
            (client(&provider), false),
            (builder(&provider).accept_untyped_tokens().build().unwrap(), accepts_untyped),
            (builder(&provider).accept_non_bearer_tokens().build().unwrap(), accepts_other),
        ];
        for (client, accepts) in clients {
            let got = client.exchange(&ExchangeRequest::new("subject", "scaivault")).await;
            assert_eq!(got.is_ok(), accepts, "{body}");
            assert!(got.is_err() || got.unwrap().is_bearer() == accepts_untyped, "{body}");
        }
    }
}

#[tokio::test]
async fn exchanged_token_must_match_requested_tenant() {
    let provider = provider().await;
    let request = || ExchangeRequest::new(provider.token().sign(), "scaivault");
    let tenant = |id: &str| scaikey_auth::TenantId::new(id).unwrap();
    client(&provider).exchange(&request().in_tenant(tenant("tenant-1"))).await.unwrap();
    let refused = client(&provider).exchange(&request().in_tenant(tenant("acme"))).await;
    assert!(matches!(refused, Err(ExchangeError::InvalidAnswer(_))), "{refused:?}");
}

#[tokio::test]
async fn unrequested_scope_in_claims_is_rejected() {
    let provider = provider().await;
    let request = || {
        let request = ExchangeRequest::new(provider.token().sign(), "scaivault");
        request.scopes("vault:read".parse().unwrap())
    };
    let jwt = |scope: &str| provider.token().audience("scaivault").scope(scope).sign();
    for (scope, is_accepted) in
        [("vault:read", true), ("vault:read vault:write", false), ("admin", false)]
    {
        let token = jwt(scope);
        let answer = json!({
            "access_token": token, "token_type": "Bearer", "expires_in": 60,
            "issued_token_type": "urn:ietf:params:oauth:token-type:jwt",
        });
        provider.fail(ProviderEndpoint::Token, Fault::rewrite(move |_| answer.to_string()));
        let outcome = client(&provider).exchange(&request()).await;
        assert_eq!(outcome.is_ok(), is_accepted, "{scope}: {outcome:?}");
    }
}
