//! The request and the answer of each grant.

use scaikey_auth::exchange::{
    CodeRequest, ExchangeError, OAuthError, PasswordRequest, PkceVerifier, RefreshRequest,
    ServiceTokenRequest, TokenType,
};
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use scaikey_auth::validator::insecure_decode_claims;
use scaikey_auth::{ExchangeRequest, TenantId, TokenExchangeClient};

use super::{SECRET, builder, client, provider};

fn last_form(provider: &scaikey_auth::testing::Provider) -> Vec<(String, String)> {
    let mut form = provider.received(ProviderEndpoint::Token).pop().unwrap().form();
    form.sort();
    form
}

#[tokio::test]
async fn exchange_sends_exactly_five_parameters() {
    let provider = provider().await;
    let client = client(&provider);
    let subject = provider.token().sign();
    let token =
        client.exchange(&ExchangeRequest::new(subject.as_str(), "scaivault")).await.unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        last_form(&provider),
        [
            pair("audience", "scaivault"),
            pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            pair("requested_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            pair("subject_token", &subject),
            pair("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ]
    );
    assert_eq!(token.scopes().unwrap().as_str(), "vault:read vault:write");
    assert_eq!(token.cacheable_for().unwrap().as_secs(), 3570);
    assert!(token.is_bearer() && token.refresh_token().is_none());
    let claims: serde_json::Value = insecure_decode_claims(token.secret().expose()).unwrap();
    assert_eq!((&claims["aud"], &claims["sub"]), (&"scaivault".into(), &"alice-id".into()));
}

#[tokio::test]
async fn keycloak_is_asked_for_access_tokens() {
    let provider = provider().await;
    for (own, expected) in [(None, "access_token"), (Some("jwt"), "jwt")] {
        let config = serde_json::json!({
            "issuers": [{
                "provider": "keycloak", "issuer": provider.issuer(), "allow_loopback_http": true,
                "claims": { "tenant_id": ["tenant_id"] },
            }],
            "client": { "id": "drive:1 %", "secret": SECRET, "requested_token_type": own },
        });
        let config = serde_json::from_value(config).unwrap();
        let client = TokenExchangeClient::from_config(&config).build().unwrap();
        let request = ExchangeRequest::new(provider.token().sign(), "scaivault");
        client.exchange(&request).await.unwrap();
        let kind = format!("urn:ietf:params:oauth:token-type:{expected}");
        assert!(last_form(&provider).contains(&("requested_token_type".to_owned(), kind)));
    }
}

#[tokio::test]
async fn exchange_sends_scopes_and_actor() {
    let provider = provider().await;
    let client = builder(&provider).requested_token_type(None).build().unwrap();
    let (subject, actor) = (provider.token().sign(), provider.service_token("robot").sign());
    let request = ExchangeRequest::new(subject, "scaivault")
        .scopes("vault:read".parse().unwrap())
        .actor(actor, TokenType::Jwt);
    let token = client.exchange(&request).await.unwrap();
    assert_eq!(token.scopes().unwrap().as_str(), "vault:read");
    assert_eq!(token.issued_token_type(), Some(TokenType::AccessToken.as_str()));
    let claims: serde_json::Value = insecure_decode_claims(token.secret().expose()).unwrap();
    assert_eq!(claims["act"]["sub"], "robot");
    assert!(last_form(&provider).iter().all(|(name, _)| name != "requested_token_type"));
}

#[tokio::test]
async fn error_codes_of_refusals_are_parsed() {
    let provider = provider().await;
    let client = client(&provider);
    let (good, expired) = (provider.token().sign(), provider.token().expired().sign());
    for (subject, audience, error) in [
        (good, "elsewhere", OAuthError::InvalidTarget),
        (expired, "scaivault", OAuthError::InvalidRequest),
    ] {
        let refused = client.exchange(&ExchangeRequest::new(subject, audience)).await.unwrap_err();
        assert_eq!(refused.oauth_error(), Some(&error));
    }
    let refused = client.refresh(&RefreshRequest::new("unknown")).await.unwrap_err();
    assert_eq!(refused.oauth_error(), Some(&OAuthError::InvalidGrant));
}

#[tokio::test]
async fn code_session_is_refreshed_and_revoked() {
    let provider = provider().await;
    let client = client(&provider);
    let verifier = PkceVerifier::generate().unwrap();
    let here = "https://app.example/cb";
    let code = provider.authorize("bob", "drive:1 %", here, &verifier.challenge());
    let request = CodeRequest::new(code, here, verifier);
    let first = client.authorization_code(&request).await.unwrap();
    // The second redemption is refused without a request, so the provider does not end the session.
    let again = client.authorization_code(&request).await.unwrap_err();
    assert_eq!(again.oauth_error(), Some(&OAuthError::InvalidGrant));
    let repeats = client.authorization_code(&request.clone().allow_repeats()).await.unwrap();
    assert_eq!((repeats.secret(), provider.granted("authorization_code")), (first.secret(), 1));
    let mut other = request;
    other.verifier = PkceVerifier::generate().ok();
    let stolen = client.authorization_code(&other.allow_repeats()).await.unwrap_err();
    assert_eq!(stolen.oauth_error(), Some(&OAuthError::InvalidGrant));

    let verifier = PkceVerifier::generate().unwrap();
    let code = provider.authorize("bob", "drive:1 %", here, &verifier.challenge());
    let session = client.authorization_code(&CodeRequest::new(code, here, verifier)).await.unwrap();
    let refresh = |token: &scaikey_auth::exchange::AccessToken| {
        RefreshRequest::new(token.refresh_token().unwrap().expose())
    };
    let second = client.refresh(&refresh(&session)).await.unwrap();
    assert_ne!(session.refresh_token(), second.refresh_token());
    client.revoke(second.refresh_token().unwrap()).await.unwrap();
    client.revoke(&"unknown".into()).await.unwrap();
    let refused = client.refresh(&refresh(&second)).await.unwrap_err();
    assert_eq!(refused.oauth_error(), Some(&OAuthError::InvalidGrant));
    client.refresh(&refresh(&first)).await.unwrap();
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (2, 0));
}

#[tokio::test]
async fn password_grant_needs_opt_in() {
    let provider = provider().await;
    let request = PasswordRequest::new("bob", "hunter2");
    let refused = client(&provider).password(&request).await.unwrap_err();
    assert!(matches!(refused, ExchangeError::NotConfigured(_)));
    assert_eq!(provider.token_requests(), 0);
    let client = builder(&provider).enable_password_grant().build().unwrap();
    assert!(client.password(&request).await.unwrap().refresh_token().is_some());
}

#[tokio::test]
async fn service_token_must_match_requested_tenant() {
    let provider = provider().await;
    let acme = provider.tenant("acme", "acme");
    acme.register_client(scaikey_auth::testing::Client::new("drive:1 %", super::SECRET));
    let tenant = |id: &str| ServiceTokenRequest::for_tenant(TenantId::new(id).unwrap());

    client(&provider).service_token(ServiceTokenRequest::default()).await.unwrap();
    let refused = client(&provider).service_token(tenant("acme")).await.unwrap_err();
    assert!(matches!(refused, ExchangeError::NotConfigured(_)), "{refused}");

    // The provider ignores the parameter and answers with a token of its own tenant.
    let client = builder(&provider).tenant_parameter("tenant").build().unwrap();
    client.service_token(tenant("tenant-1")).await.unwrap();
    assert!(last_form(&provider).contains(&("tenant".to_owned(), "tenant-1".to_owned())));
    let refused = client.service_token(tenant("acme")).await.unwrap_err();
    assert!(matches!(refused, ExchangeError::InvalidAnswer(_)), "{refused}");

    let template = format!("{}/api/v1/auth/tenants/{{tenant_id}}/oauth/token", provider.url());
    let client = builder(&provider).token_url(template).build().unwrap();
    client.service_token(tenant("acme")).await.unwrap();
    assert_eq!(acme.granted("client_credentials"), 1);
    for outside in ["..", "../../..", "acme/../acme", "?x", "#"] {
        client.service_token(tenant(outside)).await.unwrap_err();
    }
    assert_eq!(acme.token_requests(), 1);
}

#[tokio::test]
async fn service_token_is_for_the_requested_targets() {
    let provider = provider().await;
    let client = client(&provider);
    let request = |audience: &str| ServiceTokenRequest::default().audience(audience);
    let url = || "https://vault.example/#part".parse().unwrap();
    let targets = request("scaivault").resource(url());
    let answer = |audience: serde_json::Value| {
        let token = provider.token().claim("aud", audience).sign();
        let body = serde_json::json!({ "access_token": token, "token_type": "Bearer" });
        Fault::Body("application/json", body.to_string())
    };
    let both = serde_json::json!(["https://vault.example/", "scaivault"]);
    provider.fail(ProviderEndpoint::Token, answer(both));
    let token = client.service_token(targets.clone()).await.unwrap();
    let form = last_form(&provider);
    for (name, value) in [("audience", "scaivault"), ("resource", "https://vault.example/")] {
        assert!(form.contains(&(name.to_owned(), value.to_owned())), "{form:?}");
    }
    // Each difference is another token.
    let cached = client.service_token(targets.clone()).await.unwrap();
    assert_eq!(cached.secret(), token.secret());
    assert_eq!(provider.received(ProviderEndpoint::Token).len(), 1);
    provider.fail(ProviderEndpoint::Token, answer("scaivault".into()));
    client.service_token(request("scaivault")).await.unwrap();
    client.service_token(ServiceTokenRequest::default()).await.unwrap();
    assert_eq!(provider.received(ProviderEndpoint::Token).len(), 3);
    for wrong in [request("scaigrid"), request("scaivault").audience("scaigrid")] {
        let refused = client.service_token(wrong.clone()).await.unwrap_err();
        assert!(matches!(refused, ExchangeError::InvalidAnswer(_)), "{refused}");
        let any = builder(&provider).insecure_any_audience().build().unwrap();
        any.service_token(wrong).await.unwrap();
    }
}

#[tokio::test]
async fn exchange_reads_tenant_of_own_subject() {
    let provider = provider().await;
    let acme = provider.tenant("acme", "acme");
    let drive = scaikey_auth::testing::Client::new("drive:1 %", super::SECRET);
    acme.register_client(drive.may_exchange("scaivault", "vault:read"));
    let client = TokenExchangeClient::builder(format!("{}/tenants/{{tenant_id}}", provider.url()))
        .token_url(format!("{}/api/v1/auth/tenants/{{tenant_id}}/oauth/token", provider.url()))
        .allow_loopback_http(true)
        .client_auth(super::drive())
        .build()
        .unwrap();
    let request = |subject: String| ExchangeRequest::new(subject, "scaivault");
    client.exchange(&request(acme.token().sign())).await.unwrap();
    assert_eq!(acme.token_requests(), 1);
    // In the tokens of others, the claim may have another meaning.
    for foreign in [acme.token().issuer("https://other.example").sign(), "opaque".to_owned()] {
        let refused = client.exchange(&request(foreign)).await.unwrap_err();
        assert!(matches!(refused, ExchangeError::NotConfigured(_)), "{refused}");
    }
}
