//! Token revocation (RFC 7009) and introspection (RFC 7662).

use serde_json::{Value, json};

use super::super::clients::Client;
use super::super::issuer::TestIssuer;
use super::{Answer, Form, OAuthError};

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
        if let Some(id) = claims.get("jti").and_then(Value::as_str) {
            issuer.grant_store().revoke(id);
        }
    }
    Ok(Answer::ok(Value::Null))
}

/// Returns the claims of an active token to a confidential client, otherwise `active: false`.
pub(super) fn introspect(
    issuer: &TestIssuer,
    client: &Client,
    form: &Form,
) -> Result<Answer, OAuthError> {
    if client.is_public() {
        return Err(OAuthError::invalid_client());
    }
    let token = form.require("token")?;
    if let Some(session) = issuer.grant_store().live_session(token) {
        return Ok(Answer::ok(json!({
            "active": true,
            "sub": session.user.claims.get("sub"),
            "client_id": session.client,
            "scope": session.scope,
            "iss": issuer.issuer(),
        })));
    }
    Ok(Answer::ok(match issuer.live_claims(token) {
        Some(mut claims) => {
            claims.insert("active".to_owned(), true.into());
            claims.insert("token_type".to_owned(), "Bearer".into());
            Value::Object(claims)
        }
        None => json!({ "active": false }),
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::{ManualClock, Provider, ProviderEndpoint, User};
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
}
