//! Token revocation (RFC 7009) and introspection (RFC 7662), with signed answers (RFC 9701).

use http::header::ACCEPT;
use serde_json::{Value, json};

use super::super::clients::Client;
use super::super::endpoint::ReceivedRequest;
use super::super::issuer::TestIssuer;
use super::{Answer, Form, OAuthError, SIGNED_INTROSPECTION};

/// Revokes a refresh token together with its session, or an access token alone. Revoking an unknown
/// token succeeds (RFC 7009 §2.2).
pub(super) fn revoke(
    issuer: &TestIssuer,
    client: &Client,
    form: &Form,
) -> Result<Answer, OAuthError> {
    let token = form.require("token")?;
    let refused =
        Err(OAuthError::new("unauthorized_client", "the token belongs to another client"));
    if let Some(session) = issuer.grant_store().session(token) {
        if session.client != client.id {
            return refused;
        }
        issuer.grant_store().revoke(&session.id);
    } else if let Some(claims) = issuer.own_claims(token) {
        if claims.get("client_id").is_some_and(|owner| owner != client.id.as_str()) {
            return refused;
        }
        issuer.revoke_token(token);
    }
    Ok(Answer::ok(Value::Null))
}

/// Returns the claims of an active token to a confidential client, otherwise `active: false`.
pub(super) fn introspect(
    issuer: &TestIssuer,
    client: &Client,
    request: &ReceivedRequest,
    form: &Form,
) -> Result<Answer, OAuthError> {
    if client.is_public() {
        return Err(OAuthError::invalid_client());
    }
    let members = introspected(issuer, form.require("token")?);
    if !accepts_signed(request) {
        return Ok(Answer::ok(members));
    }
    Ok(Answer::ok(json!({
        "iss": issuer.issuer(),
        "aud": client.id,
        "iat": issuer.unix_now(),
        "token_introspection": members,
    }))
    .signed_by(issuer.key()))
}

fn introspected(issuer: &TestIssuer, token: &str) -> Value {
    if let Some(session) = issuer.grant_store().live_session(token) {
        return json!({
            "active": true,
            "sub": session.user.claims.get("sub"),
            "client_id": session.client,
            "scope": session.scope,
            "iss": issuer.issuer(),
        });
    }
    match issuer.live_claims(token) {
        Some(mut claims) => {
            claims.insert("active".to_owned(), true.into());
            claims.insert("token_type".to_owned(), "Bearer".into());
            Value::Object(claims)
        }
        None => json!({ "active": false }),
    }
}

/// Returns whether the client wants a signed answer (RFC 9701 §4).
fn accepts_signed(request: &ReceivedRequest) -> bool {
    let values = request.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        range.split(';').next().is_some_and(|kind| kind.trim() == SIGNED_INTROSPECTION)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::provider::tests::jws_header;
    use super::super::super::{Fault, ManualClock, Provider, ProviderEndpoint, User};
    use super::super::issuer::tests::{post, request_token, status_and_error};
    use super::*;

    #[tokio::test]
    async fn token_is_active_until_expiry_or_revocation() {
        let clock = ManualClock::default();
        let provider = Provider::builder().clock(clock.clone()).start().await;
        provider.register_client(Client::new("app", "s").scopes("read"));
        provider.register_client(Client::new("other", "s"));
        provider.register_user(User::new("bob", "hunter2"));
        let sign_in = async || {
            let form = [("grant_type", "password"), ("username", "bob"), ("password", "hunter2")];
            let (_, answer) = request_token(&provider, "app", &form).await;
            let text = |name: &str| answer[name].as_str().unwrap().to_owned();
            (text("access_token"), text("refresh_token"))
        };
        let introspect = async |token: &str| {
            let url = provider.introspection_endpoint();
            post(&url, Some(("other", "s")), &[("token", token)]).await.1
        };
        let revoke = async |client: &str, token: &str| {
            post(&provider.revocation_endpoint(), Some((client, "s")), &[("token", token)]).await
        };

        let (access, refresh) = sign_in().await;
        let seen = introspect(&access).await;
        assert_eq!((&seen["active"], &seen["sub"]), (&json!(true), &json!("bob-id")));
        assert_eq!((&seen["client_id"], &seen["scope"]), (&json!("app"), &json!("read")));
        assert_eq!(introspect(&refresh).await["sub"], "bob-id");
        for token in ["unknown", &provider.token().expired().sign()] {
            assert_eq!(introspect(token).await, json!({ "active": false }));
        }

        assert_eq!(status_and_error(revoke("other", &access).await).1, "unauthorized_client");
        assert_eq!(revoke("app", &access).await, (200, Value::Null));
        assert_eq!(introspect(&access).await, json!({ "active": false }));
        assert_eq!(introspect(&refresh).await["active"], true);

        let (access, refresh) = sign_in().await;
        assert_eq!(status_and_error(revoke("other", &refresh).await).1, "unauthorized_client");
        assert_eq!(revoke("app", &refresh).await, (200, Value::Null));
        assert_eq!(revoke("app", "unknown").await, (200, Value::Null));
        for token in [&access, &refresh] {
            assert_eq!(introspect(token).await, json!({ "active": false }));
        }
        assert_eq!(provider.requests(ProviderEndpoint::Revocation), 5);

        let (access, _) = sign_in().await;
        clock.advance(Duration::from_secs(3600));
        assert_eq!(introspect(&access).await, json!({ "active": false }));
    }
    #[tokio::test]
    async fn opaque_token_is_known_by_introspection() {
        let clock = ManualClock::default();
        let provider = Provider::builder().clock(clock.clone()).start().await;
        provider.register_client(Client::new("app", "s").opaque_access_tokens("skt_"));
        let introspect = async |token: &str| {
            let url = provider.introspection_endpoint();
            post(&url, Some(("app", "s")), &[("token", token)]).await.1
        };
        let form = [("grant_type", "client_credentials"), ("audience", "scaivault")];
        let (_, granted) = request_token(&provider, "app", &form).await;
        let granted = granted["access_token"].as_str().unwrap().to_owned();
        let chosen = provider.token().subject("bob").scope("read").opaque("");
        assert!(granted.starts_with("skt_") && !chosen.contains('.'));

        let seen = introspect(&granted).await;
        assert_eq!((&seen["aud"], &seen["sub"]), (&json!("scaivault"), &json!("app")));
        let seen = introspect(&chosen).await;
        assert_eq!((&seen["active"], &seen["token_type"]), (&json!(true), &json!("Bearer")));
        assert_eq!((&seen["sub"], &seen["scope"]), (&json!("bob"), &json!("read")));

        provider.revoke_token(&chosen);
        assert_eq!(introspect(&chosen).await, json!({ "active": false }));
        clock.advance(Duration::from_secs(3600));
        assert_eq!(introspect(&granted).await, json!({ "active": false }));
    }

    #[tokio::test]
    async fn answer_is_signed_if_accepted() {
        let provider = Provider::start().await;
        provider.register_client(Client::new("app", "s"));
        let token = provider.token().opaque("skt_");
        let ask = async || {
            let request = reqwest::Client::new()
                .post(provider.introspection_endpoint())
                .basic_auth("app", Some("s"))
                .header("content-type", "application/x-www-form-urlencoded")
                .header(
                    ACCEPT,
                    "application/token-introspection+jwt; q=1, application/json; q=0.5",
                );
            let answer = request.body(format!("token={token}")).send().await.unwrap();
            assert_eq!(answer.headers()["content-type"], SIGNED_INTROSPECTION);
            let answer = answer.text().await.unwrap();
            (answer.clone(), Value::from(provider.key().claims_of(&answer).unwrap()))
        };
        let (answer, claims) = ask().await;
        assert_eq!(jws_header(&answer)["typ"], "token-introspection+jwt");
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!(provider.issuer()), &json!("app")));
        assert_eq!(claims["token_introspection"]["sub"], "alice-id");
        assert!(claims.get("sub").is_none());

        provider.fail(ProviderEndpoint::Introspection, Fault::replace_member("aud", "other"));
        assert_eq!(ask().await.1["aud"], "other");
    }
}
