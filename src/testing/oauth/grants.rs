//! The grants of the token endpoint (RFC 6749 §4, §6).

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::super::clients::{Client, User};
use super::super::issuer::TestIssuer;
use super::super::keys::base64url;
use super::super::tokens::TokenBuilder;
use super::grant_store::{Code, Session, SignIn};
use super::{Answer, Form, OAuthError, exchange};
use crate::config::Algorithm;
use crate::support::crypto::sha256;
use crate::support::shake::shake256;

pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// All supported grant types.
pub(super) const GRANT_TYPES: [&str; 5] =
    ["authorization_code", "client_credentials", "password", "refresh_token", TOKEN_EXCHANGE];

/// Answers a token request of an authenticated client.
pub(super) fn grant(
    issuer: &TestIssuer,
    client: &Client,
    form: &Form,
) -> Result<Answer, OAuthError> {
    let grant_type = form.require("grant_type")?;
    let answer = match grant_type {
        "client_credentials" => client_credentials(issuer, client, form),
        "password" => password(issuer, client, form),
        "authorization_code" => authorization_code(issuer, client, form),
        "refresh_token" => refresh(issuer, client, form),
        TOKEN_EXCHANGE => exchange::exchange(issuer, client, form),
        _ => Err(OAuthError::new("unsupported_grant_type", "the grant is not supported")),
    }?;
    issuer.grant_store().count_grant(grant_type);
    Ok(answer)
}

fn client_credentials(
    issuer: &TestIssuer,
    client: &Client,
    form: &Form,
) -> Result<Answer, OAuthError> {
    if client.is_public() {
        return Err(OAuthError::new(
            "unauthorized_client",
            "a public client cannot use this grant",
        ));
    }
    let scope = requested_scope(&client.scopes, form)?;
    let token = for_audience(issuer.service_token(&client.id), form);
    Ok(issue(issuer, client, token, &scope))
}

fn password(issuer: &TestIssuer, client: &Client, form: &Form) -> Result<Answer, OAuthError> {
    let (name, password) = (form.require("username")?, form.require("password")?);
    let user = issuer
        .registry()
        .user(name)
        .filter(|user| user.password.expose() == password)
        .ok_or(OAuthError::new("invalid_grant", "the user name or the password is wrong"))?;
    let scope = requested_scope(&client.scopes, form)?;
    let sign_in = SignIn { user, acr: None, at: issuer.unix_now() };
    let session = Session::new(&client.id, sign_in, scope);
    Ok(answer_with_refresh_token(issuer, client, &session, &session.scope, form))
}

fn authorization_code(
    issuer: &TestIssuer,
    client: &Client,
    form: &Form,
) -> Result<Answer, OAuthError> {
    let verifier = form.require("code_verifier")?;
    let (code, redirect_uri) = (form.require("code")?, form.require("redirect_uri")?);
    let challenge = base64url(digest::digest(&digest::SHA256, verifier.as_bytes()));
    let now = issuer.unix_now();
    let matches = |code: &Code| {
        code.session.client == client.id
            && code.redirect_uri == redirect_uri
            && code.challenge == challenge
            && now < code.expires_at
    };
    let (session, nonce) = issuer.grant_store().spend_code(code, matches)?;
    let mut answer = answer_with_refresh_token(issuer, client, &session, &session.scope, form);
    add_id_token(issuer, client, &session, nonce, &mut answer);
    Ok(answer)
}

fn refresh(issuer: &TestIssuer, client: &Client, form: &Form) -> Result<Answer, OAuthError> {
    let token = form.require("refresh_token")?;
    // Checked before the token is used up, so that a client can retry with fewer scopes.
    let scope = match issuer.grant_store().session(token) {
        Some(session) => {
            let granted: Vec<_> = session.scope.split(' ').map(str::to_owned).collect();
            requested_scope(&granted, form)?
        }
        None => String::new(),
    };
    let session = issuer.grant_store().spend_refresh_token(token, &client.id)?;
    let mut answer = match issuer.grant_store().keeps_refresh_tokens() {
        true => issue(issuer, client, user_token(issuer, client, &session, form), &scope),
        false => answer_with_refresh_token(issuer, client, &session, &scope, form),
    };
    add_id_token(issuer, client, &session, None, &mut answer);
    Ok(answer)
}

/// Adds an ID token to the answer if `openid` was granted (OpenID Connect Core §2).
fn add_id_token(
    issuer: &TestIssuer,
    #[cfg_attr(not(feature = "jwe"), allow(unused_variables))] client: &Client,
    session: &Session,
    nonce: Option<String>,
    answer: &mut Answer,
) {
    let Some(members) = answer.json.as_object_mut() else { return };
    let granted = members.get("scope").and_then(Value::as_str).unwrap_or_default();
    if !granted.split(' ').any(|scope| scope == "openid") {
        return;
    }
    let access_token = members.get("access_token").and_then(Value::as_str).unwrap_or_default();
    let at_hash = at_hash(access_token, issuer.key().algorithm());
    let User { claims, .. } = &*session.user;
    let token = with_authentication(issuer.token(), session);
    let token = claims.iter().fold(token, |token, (name, value)| token.claim(name, value.clone()));
    let mut token = token
        .unshaped()
        .without("roles")
        .without("groups")
        .audience(&session.client)
        .claim("sid", session.id.as_str());
    if let Some(hash) = at_hash {
        token = token.claim("at_hash", hash);
    }
    if let Some(nonce) = nonce {
        token = token.claim("nonce", nonce);
    }
    #[cfg(feature = "jwe")]
    if let Some(recipient) = &client.id_token_recipient {
        token = token.encrypted_for(recipient);
    }
    members.insert("id_token".to_owned(), token.sign().into());
}

/// Returns the left half of the access token's hash (OpenID Connect Core §3.1.3.6), for the algorithms that
/// most providers use, and for ML-DSA.
fn at_hash(access_token: &str, algorithm: Algorithm) -> Option<String> {
    match algorithm.as_str() {
        name if name.ends_with("256") => {
            let hash = sha256(access_token.as_bytes());
            Some(base64url(hash.split_at(16).0))
        }
        name if name.starts_with("ML-DSA") => Some(base64url(shake256(access_token.as_bytes()))),
        _ => None,
    }
}

/// Builds a token response with a refresh token.
fn answer_with_refresh_token(
    issuer: &TestIssuer,
    client: &Client,
    session: &Arc<Session>,
    scope: &str,
    form: &Form,
) -> Answer {
    let mut answer = issue(issuer, client, user_token(issuer, client, session, form), scope);
    if let Some(members) = answer.json.as_object_mut() {
        let token = issuer.grant_store().add_refresh_token(session);
        members.insert("refresh_token".to_owned(), token.into());
    }
    answer
}

fn user_token(
    issuer: &TestIssuer,
    client: &Client,
    session: &Session,
    form: &Form,
) -> TokenBuilder {
    let token = issuer.token().claim("client_id", client.id.as_str());
    let token = with_authentication(token, session);
    let User { claims, .. } = &*session.user;
    let token = claims.iter().fold(token, |token, (name, value)| token.claim(name, value.clone()));
    for_audience(token.claim("sid", session.id.as_str()), form)
}

/// Adds how and when the user signed in (RFC 9068 §2.2.1). Claims of the user replace these.
fn with_authentication(token: TokenBuilder, session: &Session) -> TokenBuilder {
    let token = token.claim("auth_time", session.began);
    match &session.acr {
        Some(acr) => token.claim("acr", acr.as_str()),
        None => token,
    }
}

fn for_audience(token: TokenBuilder, form: &Form) -> TokenBuilder {
    match form.get("audience") {
        Some(audience) => token.audience(audience),
        None => token,
    }
}

/// Builds the token response that all grants share (RFC 6749 §5.1).
pub(super) fn issue(
    issuer: &TestIssuer,
    client: &Client,
    mut token: TokenBuilder,
    scope: &str,
) -> Answer {
    let lifetime: Duration = client
        .lifetime
        .or_else(|| issuer.grant_store().lifetime())
        .unwrap_or_else(|| issuer.token_lifetime());
    token = token.expires_in(lifetime);
    let scope = with_extra_scopes(client, scope);
    if !scope.is_empty() {
        token = token.scope(&scope);
    }
    #[cfg(feature = "jwe")]
    if let Some(recipient) = &client.access_token_recipient {
        token = token.encrypted_for(recipient);
    }
    let access_token = match &client.opaque_prefix {
        Some(prefix) => token.opaque(prefix),
        None => token.sign(),
    };
    let mut json = json!({ "access_token": access_token, "token_type": "Bearer", "scope": scope });
    if let (true, Some(members)) = (client.sends_expires_in, json.as_object_mut()) {
        members.insert("expires_in".to_owned(), lifetime.as_secs().into());
    }
    Answer::ok(json)
}

/// Appends the scopes that the client always gets.
fn with_extra_scopes(client: &Client, scope: &str) -> String {
    let granted = scope.split_ascii_whitespace();
    let is_new = |extra: &&str| !granted.clone().any(|known| known == *extra);
    let extra = client.extra_scopes.iter().map(String::as_str).filter(is_new);
    granted.clone().chain(extra).collect::<Vec<_>>().join(" ")
}

/// Returns the requested scopes if all are allowed. If the form names no scope, returns all allowed
/// scopes.
pub(super) fn requested_scope(allowed: &[String], form: &Form) -> Result<String, OAuthError> {
    let Some(requested) = form.get("scope") else { return Ok(allowed.join(" ")) };
    let is_allowed = |scope: &str| allowed.iter().any(|known| known == scope);
    if requested.split_ascii_whitespace().all(is_allowed) {
        return Ok(requested.to_owned());
    }
    Err(OAuthError::new("invalid_scope", "the client may not request this scope"))
}

#[cfg(test)]
mod tests {
    use super::super::super::provider::tests::payload;
    use super::super::super::{ManualClock, Provider};
    use super::super::issuer::tests::{request_token, status_and_error};
    use super::*;

    // RFC 7636, Appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    const REDIRECT_URI: &str = "https://app.example/cb";

    async fn provider(clock: &ManualClock) -> Provider {
        let provider = Provider::builder().clock(clock.clone()).start().await;
        provider.register_client(Client::new("app", "s").scopes("read write"));
        provider.register_client(Client::new("other", "s").scopes("read"));
        provider.register_user(User::new("bob", "hunter2"));
        provider
    }

    async fn sign_in(provider: &Provider) -> Value {
        let form = [("grant_type", "password"), ("username", "bob"), ("password", "hunter2")];
        request_token(provider, "app", &form).await.1
    }

    async fn refresh(provider: &Provider, client: &str, token: &Value) -> (u16, Value) {
        let token = token.as_str().unwrap();
        request_token(
            provider,
            client,
            &[("grant_type", "refresh_token"), ("refresh_token", token)],
        )
        .await
    }

    #[tokio::test]
    async fn answers_resemble_another_provider() {
        let provider = Provider::start().await;
        let app = Client::new("app", "s").scopes("openid read email").extra_scopes("profile email");
        provider.register_client(app);
        provider.register_user(User::new("bob", "hunter2"));
        provider.shape_tokens(|claims| {
            let client = claims.remove("client_id").unwrap_or_default();
            claims.insert("azp".to_owned(), client);
            claims.remove("aud");
        });
        let form = [("grant_type", "client_credentials"), ("scope", "read")];
        let answer = request_token(&provider, "app", &form).await.1;
        let claims = payload(answer["access_token"].as_str().unwrap());
        assert_eq!(
            (&answer["scope"], &claims["scope"]),
            (&json!("read profile email"), &answer["scope"])
        );
        assert_eq!((claims.get("aud"), &claims["azp"]), (None, &json!("app")));

        let code = provider.authorize("bob", "app", REDIRECT_URI, CHALLENGE);
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ];
        let answer = request_token(&provider, "app", &form).await.1;
        assert_eq!(answer["scope"], "openid read email profile");
        let id_token = payload(answer["id_token"].as_str().unwrap());
        assert_eq!(id_token["aud"], "app", "ID tokens keep their shape");
    }

    #[tokio::test]
    async fn code_works_once_within_one_minute() {
        let clock = ManualClock::default();
        let provider = provider(&clock).await;
        let redeem = async |client: &str, code: &str, uri: &str, verifier: &str| {
            let form = [
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", uri),
                ("code_verifier", verifier),
            ];
            request_token(&provider, client, &form).await
        };
        let code = provider.authorize("bob", "app", REDIRECT_URI, CHALLENGE);
        for (client, uri, verifier) in [
            ("other", REDIRECT_URI, VERIFIER),
            ("app", "https://app.example/cb/", VERIFIER),
            ("app", REDIRECT_URI, CHALLENGE),
        ] {
            let error = status_and_error(redeem(client, &code, uri, verifier).await);
            assert_eq!(error, (400, "invalid_grant".into()), "{client} {uri} {verifier}");
        }
        let (_, first) = redeem("app", &code, REDIRECT_URI, VERIFIER).await;
        assert_eq!(payload(first["access_token"].as_str().unwrap())["sub"], "bob-id");
        let (_, again) = redeem("app", &code, REDIRECT_URI, VERIFIER).await;
        assert_eq!(again["error_description"], "code already used");
        let (status, _) = refresh(&provider, "app", &first["refresh_token"]).await;
        assert_eq!((status, provider.granted("authorization_code")), (400, 1));

        let code = provider.authorize("bob", "app", REDIRECT_URI, CHALLENGE);
        clock.advance(Duration::from_secs(60));
        assert_eq!(redeem("app", &code, REDIRECT_URI, VERIFIER).await.0, 400);
    }

    #[tokio::test]
    async fn refresh_token_reuse_revokes_the_session() {
        let provider = provider(&ManualClock::default()).await;
        let first = sign_in(&provider).await["refresh_token"].clone();
        let bystander = sign_in(&provider).await["refresh_token"].clone();
        assert_eq!(status_and_error(refresh(&provider, "other", &first).await).1, "invalid_grant");
        let (status, answer) = refresh(&provider, "app", &first).await;
        assert_eq!((status, &answer["scope"]), (200, &"read write".into()));
        let second = answer["refresh_token"].clone();
        assert_ne!(first, second);
        assert_eq!(provider.refresh_reuses(), 0);
        assert_eq!(status_and_error(refresh(&provider, "app", &first).await).1, "invalid_grant");
        assert_eq!(status_and_error(refresh(&provider, "app", &second).await).1, "invalid_grant");
        assert_eq!(refresh(&provider, "app", &bystander).await.0, 200);
        assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (2, 1));
    }

    #[tokio::test]
    async fn refresh_may_narrow_scopes_only() {
        let provider = provider(&ManualClock::default()).await;
        let token = sign_in(&provider).await["refresh_token"].clone();
        let token = token.as_str().unwrap();
        let form = [("grant_type", "refresh_token"), ("refresh_token", token), ("scope", "admin")];
        assert_eq!(
            status_and_error(request_token(&provider, "app", &form).await).1,
            "invalid_scope"
        );
        let form = [("grant_type", "refresh_token"), ("refresh_token", token), ("scope", "read")];
        assert_eq!(request_token(&provider, "app", &form).await.1["scope"], "read");
    }

    #[tokio::test]
    async fn refresh_token_stays_without_rotation() {
        let provider = provider(&ManualClock::default()).await;
        provider.keep_refresh_tokens(true);
        let token = sign_in(&provider).await["refresh_token"].clone();
        for _ in 0..3 {
            let (status, answer) = refresh(&provider, "app", &token).await;
            assert_eq!((status, answer.get("refresh_token")), (200, None));
        }
    }

    #[tokio::test]
    async fn token_lifetime_follows_client_then_issuer() {
        let provider = provider(&ManualClock::default()).await;
        let client = || Client::new("app", "s");
        let minute = Duration::from_secs(60);
        let cases = [
            (client(), None, Some(3600), 3600),
            (client(), Some(minute), Some(60), 60),
            (client().token_lifetime(minute / 2), Some(minute), Some(30), 30),
            (client().without_expires_in(), None, None, 3600),
        ];
        for (client, lifetime, expires_in, lifetime_in_token) in cases {
            provider.set_token_lifetime(lifetime);
            provider.register_client(client);
            let (_, answer) =
                request_token(&provider, "app", &[("grant_type", "client_credentials")]).await;
            assert_eq!(answer.get("expires_in"), expires_in.map(Value::from).as_ref());
            let claims = payload(answer["access_token"].as_str().unwrap());
            assert_eq!(
                claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
                lifetime_in_token
            );
        }
    }
}
