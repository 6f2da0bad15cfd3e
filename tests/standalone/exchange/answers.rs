//! Answers of the token endpoint: the ones that are accepted and the ones that are rejected.

use std::time::Duration;

use scaikey_auth::exchange::{
    AccessToken, ExchangeError, RefreshRequest, ServiceTokenRequest, TokenExchangeBuilder,
};
use scaikey_auth::identity::ClaimsMapping;
use scaikey_auth::testing::{Client, Fault, Provider, ProviderEndpoint, TokenBuilder};
use scaikey_auth::{AuthConfig, ExchangeRequest, TenantId, TokenExchangeClient};

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

const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Makes the provider answer every token request with these members.
fn answer_with(provider: &Provider, members: serde_json::Value) {
    let mut body = json!({
        "token_type": "Bearer", "expires_in": 60, "issued_token_type": JWT, "access_token": "opaque",
    });
    let members = members.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(members);
    // `null` removes a member.
    body.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let body = body.to_string();
    provider.fail(ProviderEndpoint::Token, Fault::Body("application/json", body));
}

/// Returns a client that is configured by variables alone.
fn from_env(provider: &Provider, more: &[(&str, &str)]) -> TokenExchangeClient {
    builder_from_env(provider, more).build().unwrap()
}

pub(crate) fn builder_from_env(provider: &Provider, more: &[(&str, &str)]) -> TokenExchangeBuilder {
    let issuer = provider.issuer();
    let base = [
        ("ISSUER", issuer.as_str()),
        ("ALLOW_LOOPBACK_HTTP", "true"),
        ("CLIENT_ID", "drive:1 %"),
        ("CLIENT_SECRET", SECRET),
    ];
    let pairs = base.iter().chain(more);
    let pairs = pairs.map(|(name, value)| (format!("SVC_{name}"), (*value).to_owned()));
    TokenExchangeClient::from_config(&AuthConfig::from_vars("SVC", pairs))
}

#[tokio::test]
async fn every_rule_is_relaxed_by_environment() {
    let provider = provider().await;
    let token = || provider.token().audience("scaivault").scope("vault:read");
    let signed = |token: TokenBuilder| json!({ "access_token": token.sign() });
    let unreadable = format!("e30.{}.AA", encode(r#"{"sub":"alice-id","sub":"mallory"}"#));
    let cases = [
        ("ACCEPT_EXTRA_SCOPES", "profile email", json!({ "scope": "vault:read email profile" })),
        ("ACCEPT_EXTRA_SCOPES", "email", signed(token().scope("vault:read email"))),
        ("ACCEPT_UNTYPED_TOKENS", "true", json!({ "issued_token_type": null })),
        ("ACCEPT_NON_BEARER_TOKENS", "true", json!({ "token_type": "N_A" })),
        ("INSECURE_ANY_AUDIENCE", "true", signed(token().audience("elsewhere"))),
        ("INSECURE_ANY_SUBJECT", "true", signed(token().subject("bob-id"))),
        ("INSECURE_ANY_SUBJECT", "true", signed(token().tenant("tenant-2"))),
        ("INSECURE_UNREADABLE_CLAIMS", "true", json!({ "access_token": unreadable })),
    ];
    for (variable, value, answer) in cases {
        answer_with(&provider, answer.clone());
        let request = || {
            let request = ExchangeRequest::new(provider.token().sign(), "scaivault");
            request.scopes("vault:read".parse().unwrap())
        };
        let refused = from_env(&provider, &[]).exchange(&request()).await.unwrap_err();
        assert!(matches!(refused, ExchangeError::InvalidAnswer(_)), "{variable}: {refused}");
        let client = from_env(&provider, &[(variable, value)]);
        client.exchange(&request()).await.unwrap_or_else(|error| panic!("{variable}: {error}"));
    }

    answer_with(&provider, signed(token().tenant("tenant-2")));
    let acme = || ServiceTokenRequest::for_tenant(TenantId::new("acme").unwrap());
    let sends = ("TENANT_PARAMETER", "tenant");
    from_env(&provider, &[sends]).service_token(acme()).await.unwrap_err();
    let any = ("INSECURE_ANY_SERVICE_TENANT", "true");
    from_env(&provider, &[sends, any]).service_token(acme()).await.unwrap();
}

fn encode(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

#[tokio::test]
async fn extra_scopes_are_accepted_by_name() {
    let provider = provider().await;
    let get = async |client: &TokenExchangeClient, granted: &str| {
        answer_with(&provider, json!({ "scope": granted }));
        let request = ServiceTokenRequest::default().scopes("read".parse().unwrap());
        client.service_token(request).await
    };
    let new = || builder(&provider).accept_extra_scopes("profile email").build().unwrap();
    let scopes = |token: AccessToken| token.scopes().unwrap().as_str().to_owned();
    assert_eq!(scopes(get(&new(), "read email profile").await.unwrap()), "read email profile");
    get(&new(), "read").await.unwrap();
    for more in ["read admin", "read email admin", "Email read"] {
        let refused = get(&new(), more).await.unwrap_err().to_string();
        assert!(refused.contains("accept_extra_scopes"), "{more}: {refused}");
    }
    let fault = builder(&provider).accept_extra_scopes("a\"b").build().unwrap_err();
    assert_eq!(fault.faults()[0].field, "accept_extra_scopes");
}

#[tokio::test]
async fn mapped_tenant_claim_is_compared() {
    let provider = provider().await;
    let mapping = || ClaimsMapping::default().tenant_id(["tid"]);
    let token = || provider.token().audience("scaivault").without("tenant_id");
    let subject = token().claim("tid", "acme").sign();
    for (tenant, is_accepted) in [("acme", true), ("umbrella", false)] {
        answer_with(&provider, json!({ "access_token": token().claim("tid", tenant).sign() }));
        let request = ExchangeRequest::new(subject.as_str(), "scaivault");
        let mapped = builder(&provider).claims(mapping()).build().unwrap();
        assert_eq!(mapped.exchange(&request).await.is_ok(), is_accepted, "{tenant}");
        let mapped = from_env(&provider, &[("TENANT_CLAIM", "tid")]);
        assert_eq!(mapped.exchange(&request).await.is_ok(), is_accepted, "{tenant}");
        // The default mapping does not find the tenant.
        client(&provider).exchange(&request).await.unwrap();
    }
}

#[tokio::test]
async fn mapped_subject_claim_is_compared() {
    let provider = provider().await;
    let token = || provider.token().audience("scaivault");
    let subject = token().subject("pairwise-1").claim("oid", "o-1").sign();
    let request = ExchangeRequest::new(subject.as_str(), "scaivault");
    for (sub, oid, by_default, by_oid) in [
        ("pairwise-1", "o-1", true, true),
        ("pairwise-2", "o-1", false, true),
        ("pairwise-1", "o-2", true, false),
    ] {
        let answer = token().subject(sub).claim("oid", oid).sign();
        answer_with(&provider, json!({ "access_token": answer }));
        let mapping = ClaimsMapping::default().subject(["oid"]);
        for (client, is_accepted) in [
            (client(&provider), by_default),
            (builder(&provider).claims(mapping).build().unwrap(), by_oid),
            (from_env(&provider, &[("SUBJECT_CLAIM", "oid")]), by_oid),
        ] {
            assert_eq!(client.exchange(&request).await.is_ok(), is_accepted, "{sub} {oid}");
        }
    }
}

#[tokio::test]
async fn issued_type_may_be_the_requested_one() {
    let provider = provider().await;
    let request = ExchangeRequest::new("subject", "scaivault");
    answer_with(&provider, json!({ "issued_token_type": "urn:x:y" }));
    for (requested, is_accepted) in [("urn:x:y", true), ("urn:x:z", false), ("none", false)] {
        let client = from_env(&provider, &[("REQUESTED_TOKEN_TYPE", requested)]);
        let outcome = client.exchange(&request).await;
        assert_eq!(outcome.is_ok(), is_accepted, "{requested}: {outcome:?}");
    }
    // The provider may also issue one of the usual types.
    answer_with(&provider, json!({}));
    from_env(&provider, &[("REQUESTED_TOKEN_TYPE", "urn:x:y")]).exchange(&request).await.unwrap();
}

#[test]
fn invalid_answer_settings_are_faults() {
    let vars = |pairs: &[(&str, &str)]| {
        let base = [("ISSUER", "https://id.example"), ("CLIENT_ID", "a"), ("CLIENT_AUTH", "none")];
        let pairs = base.iter().chain(pairs);
        let pairs = pairs.map(|(name, value)| (format!("SVC_{name}"), (*value).to_owned()));
        TokenExchangeClient::from_config(&AuthConfig::from_vars("SVC", pairs.collect::<Vec<_>>()))
            .build()
    };
    for (name, good, bad) in [
        ("REQUESTED_TOKEN_TYPE", "none", "opaque"),
        ("REQUESTED_TOKEN_TYPE", "urn:x:y", "jwt?"),
        ("DEFAULT_LIFETIME_SECONDS", "60", "a minute"),
        ("ACCEPT_EXTRA_SCOPES", "profile email", "\"profile\""),
        ("INSECURE_ANY_AUDIENCE", "true", "maybe"),
        ("REVOCATION_URL", "https://id.example/revoke", "http://id.example/revoke"),
    ] {
        assert!(vars(&[(name, good)]).is_ok(), "{name}");
        let error = vars(&[(name, bad)]).unwrap_err();
        assert_eq!(error.faults()[0].field, format!("SVC_{name}"), "{error}");
    }
}

/// `azp` names the client in every token that it gets, so it does not say which service a token is for.
#[tokio::test]
async fn audience_claims_of_callers_do_not_count() {
    let provider = provider().await;
    let issuer = provider.issuer();
    let variables = [
        ("ISSUER", issuer.as_str()),
        ("ALLOW_LOOPBACK_HTTP", "true"),
        ("AUDIENCE_CLAIMS", "azp"),
        ("CLIENT_ID", "drive:1 %"),
        ("CLIENT_SECRET", SECRET),
    ];
    let variables = variables.map(|(name, value)| (format!("P_{name}"), value.to_owned()));
    let config = AuthConfig::from_vars("P", variables);
    let request = ExchangeRequest::new(provider.token().sign(), "scaivault");
    for (audience, client_of_token, is_accepted) in
        [("scaivault", "drive:1 %", true), ("elsewhere", "scaivault", false)]
    {
        let token = provider.token().audience(audience).claim("azp", client_of_token).sign();
        provider.fail(ProviderEndpoint::Token, Fault::replace_member("access_token", token));
        let client = TokenExchangeClient::from_config(&config).build().unwrap();
        assert_eq!(client.exchange(&request).await.is_ok(), is_accepted, "{audience}");
    }
}
