//! Renewals of sessions whose access tokens are opaque or encrypted: they stay with their user.

use std::time::Duration;

use http::Method;
use scaikey_auth::Auth;
use scaikey_auth::config::{Algorithm, DecryptionKeys};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, EncryptionKey, Fault, ProviderEndpoint};
use scaikey_auth::validator::OpaqueTokens;
use serde_json::json;

use super::env::{MINUTE, REDIRECT, Setup, TestEnv, Visitor};
use crate::support::local_with_all_algorithms;

/// The kind of the access tokens.
enum Kind {
    Opaque,
    Encrypted(EncryptionKey),
}

impl Kind {
    fn all() -> [Self; 2] {
        [Self::Opaque, Self::Encrypted(EncryptionKey::generate("ECDH-ES"))]
    }

    /// Starts a service in which bob is signed in.
    async fn start(&self) -> (TestEnv, Visitor) {
        let setup = Setup { algorithms: vec![Algorithm::ES256], ..Setup::default() };
        let mut env = setup.build().await;
        let (client, url) = (Client::new("wave", "secret"), env.provider.issuer());
        let client = client.scopes("openid docs:read").redirect_uri(REDIRECT);
        let (mut issuer, auth) = (local_with_all_algorithms(&url), Auth::builder());
        let auth = match self {
            Self::Opaque => {
                env.provider.register_client(client.opaque_access_tokens("skt_"));
                let opaque = OpaqueTokens::new(url, ClientAuth::basic("wave", "secret"));
                let opaque = opaque.prefixes(["skt_"]).timeout(Duration::from_secs(60));
                auth.opaque_tokens(opaque)
            }
            Self::Encrypted(key) => {
                env.provider.register_client(client.encrypt_access_tokens(key));
                let set = json!({ "keys": [key.private_jwk()] }).to_string();
                issuer = issuer.decrypt(DecryptionKeys::jwks(set).unwrap());
                auth
            }
        };
        let auth = auth.issuer(issuer).audience("scaiwave").clock(env.clock.clone());
        env.auth = auth.build().unwrap();
        let env = env.start_process(Setup::with_sessions()).await;
        let browser = env.visitor();
        let arrived = env.sign_in(&browser).await;
        assert_eq!((arrived.status, arrived.header("location")), (303, "/me"), "{arrived:?}");
        assert_eq!(browser.get("/me").await.body, "bob-id ");
        (env, browser)
    }

    /// Returns a token of bob, with another claim.
    fn token(&self, env: &TestEnv, name: &str, value: &str) -> String {
        let mut token = env.provider.token().subject("bob-id").audience("scaiwave");
        token = token.claim(name, value);
        match self {
            Self::Opaque => token.opaque("skt_"),
            Self::Encrypted(key) => token.encrypted_for(key).sign(),
        }
    }
}

#[tokio::test]
async fn tokens_of_another_user_end_the_session() {
    for kind in Kind::all() {
        // The first time, the previous token is still valid.
        for (minutes, claim, value) in
            [(55, "sub", "alice-id"), (70, "sub", "alice-id"), (70, "tenant_id", "globex")]
        {
            let (env, browser) = kind.start().await;
            env.clock.advance(MINUTE * minutes);
            let other = kind.token(&env, claim, value);
            let fault = Fault::replace_member("access_token", other);
            env.provider.fail(ProviderEndpoint::Token, fault);
            let answer = browser.get("/me").await;
            let expected = if minutes == 55 { 200 } else { 401 };
            assert_eq!(answer.status, expected, "{claim} {}", answer.body);
            assert!(!answer.body.contains("alice"), "{}", answer.body);
            assert!(browser.session_cookies().is_empty(), "{claim}");
            assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 1, "{claim}");
        }
    }
}

#[tokio::test]
async fn sessions_are_renewed_again_and_again() {
    for kind in Kind::all() {
        let (env, browser) = kind.start().await;
        for (minutes, renewals) in [(55, 1), (70, 2), (55, 3), (70, 4)] {
            env.clock.advance(MINUTE * minutes);
            assert_eq!(browser.get("/me").await.body, "bob-id ");
            assert_eq!(env.provider.granted("refresh_token"), renewals);
        }
        // A token that this service refuses ends the session.
        env.clock.advance(MINUTE * 70);
        let foreign = kind.token(&env, "aud", "drive");
        let fault = Fault::replace_member("access_token", foreign);
        env.provider.fail(ProviderEndpoint::Token, fault);
        assert_eq!(browser.get("/me").await.status, 401);
        assert!(browser.session_cookies().is_empty());
    }
}

#[tokio::test]
async fn unanswered_question_keeps_the_session() {
    let (env, browser) = Kind::Opaque.start().await;
    env.clock.advance(MINUTE * 70);
    env.provider.fail(ProviderEndpoint::Introspection, Fault::Status(503));
    assert_eq!(browser.get("/me").await.status, 503);
    assert!(!browser.session_cookies().is_empty());
    env.provider.heal(ProviderEndpoint::Introspection);
    env.clock.advance(Duration::from_secs(30));
    assert_eq!(browser.get("/me").await.body, "bob-id ");
    assert_eq!(env.provider.granted("refresh_token"), 1, "the tokens of the first call");
}

#[tokio::test]
async fn revoked_token_is_refused_after_seconds() {
    let (env, browser) = Kind::Opaque.start().await;
    let question = env.provider.received(ProviderEndpoint::Introspection).pop().unwrap();
    let (_, token) = question.form().swap_remove(0);
    env.provider.revoke_token(&token);
    env.clock.advance(Duration::from_secs(31));
    assert_eq!(browser.get("/me").await.status, 401);
}

#[tokio::test]
async fn sign_out_forgets_answer_about_token() {
    let (env, browser) = Kind::Opaque.start().await;
    let question = env.provider.received(ProviderEndpoint::Introspection).pop().unwrap();
    let (_, token) = question.form().swap_remove(0);
    let bearer = format!("Bearer {token}");
    let other_service = env.visitor();
    let status = async || {
        other_service.send(Method::GET, "/me", &[("authorization", &bearer)], "").await.status
    };
    assert_eq!(status().await, 200);
    let from_here = [("sec-fetch-site", "same-origin")];
    let signed_out = browser.send(Method::POST, "/v1/auth/logout", &from_here, "").await;
    assert_eq!(signed_out.status, 204, "{signed_out:?}");
    env.provider.revoke_token(&token);
    assert_eq!(status().await, 401, "an answer from before the sign-out was used");
}
