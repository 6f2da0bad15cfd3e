//! Refresh token rotation, and [`SessionTokens`] that renew themselves.

use std::time::Duration;

use scaikey_auth::TokenExchangeClient;
use scaikey_auth::exchange::{
    AccessToken, ExchangeError, OAuthError, PasswordRequest, RefreshRequest, SessionTokens,
};
use scaikey_auth::testing::{Fault, Provider, ProviderEndpoint};
use tokio::task::JoinSet;

use crate::support::until;

use super::{builder, provider, timed_with};

async fn signed_in(client: &TokenExchangeClient) -> AccessToken {
    client.password(&PasswordRequest::new("bob", "hunter2")).await.unwrap()
}

fn refresh(token: &AccessToken) -> RefreshRequest {
    RefreshRequest::new(token.refresh_token().unwrap().expose())
}

async fn with_passwords() -> (Provider, TokenExchangeClient) {
    let provider = provider().await;
    let client = builder(&provider).enable_password_grant().build().unwrap();
    (provider, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_refreshes_use_the_refresh_token_once() {
    let (provider, client) = with_passwords().await;
    let first = signed_in(&client).await;
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let (client, request) = (client.clone(), refresh(&first));
        callers.spawn(async move { client.refresh(&request).await.unwrap() });
    }
    let got = callers.join_all().await;
    assert!(got.iter().all(|token| token.refresh_token() == got[0].refresh_token()));
    // A later caller gets the same tokens, and the new refresh token works.
    let late = client.refresh(&refresh(&first)).await.unwrap();
    assert_eq!(late.refresh_token(), got[0].refresh_token());
    client.refresh(&refresh(&late)).await.unwrap();
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (2, 0));
}

#[tokio::test]
async fn later_refresh_with_fewer_scopes_is_rejected() {
    let (provider, client) = with_passwords().await;
    let first = signed_in(&client).await;
    client.refresh(&refresh(&first)).await.unwrap();
    let mut fewer = refresh(&first);
    fewer.scopes = "nothing".parse().unwrap();
    let refused = client.refresh(&fewer).await.unwrap_err();
    assert!(matches!(refused, ExchangeError::InvalidAnswer(_)), "{refused}");
    assert_eq!(provider.refresh_reuses(), 0);
}

#[tokio::test]
async fn due_session_is_renewed_in_background() {
    let (provider, client, clock) = timed_with(|builder| builder.enable_password_grant()).await;
    let session = SessionTokens::new(client.clone(), signed_in(&client).await);
    let first = session.access_token().await.unwrap();
    clock.advance(Duration::from_secs(3600 * 75 / 100));
    session.access_token().await.unwrap();
    assert_eq!(provider.granted("refresh_token"), 0);
    clock.advance(Duration::from_secs(3600 * 10 / 100));
    provider.fail(ProviderEndpoint::Token, Fault::Hang);
    for _ in 0..10 {
        assert_eq!(session.access_token().await.unwrap().secret(), first.secret());
    }
    until(|| provider.token_requests() == 2).await;
    provider.heal(ProviderEndpoint::Token);
    let old = session.refresh_token();
    until(|| session.refresh_token() != old).await;
    assert_ne!(session.access_token().await.unwrap().secret(), first.secret());
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (1, 0));
}

#[tokio::test]
async fn session_survives_outage_until_token_expires() {
    let (provider, client, clock) = timed_with(|builder| builder.enable_password_grant()).await;
    let session = SessionTokens::new(client.clone(), signed_in(&client).await);
    provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    clock.advance(Duration::from_secs(2990));
    for _ in 0..60 {
        clock.advance(Duration::from_secs(10));
        session.access_token().await.unwrap();
    }
    clock.advance(Duration::from_secs(10));
    let error = session.access_token().await.unwrap_err();
    assert!(matches!(error, ExchangeError::Unavailable { .. }), "{error}");
    provider.heal(ProviderEndpoint::Token);
    clock.advance(Duration::from_secs(61));
    session.access_token().await.unwrap();
    assert_eq!(provider.refresh_reuses(), 0);
}

#[tokio::test]
async fn ended_session_reports_invalid_grant() {
    let (provider, client, clock) = timed_with(|builder| builder.enable_password_grant()).await;
    let session = SessionTokens::new(client.clone(), signed_in(&client).await);
    client.revoke(&session.refresh_token().unwrap()).await.unwrap();
    session.access_token().await.unwrap();
    clock.advance(Duration::from_secs(3600));
    for _ in 0..10 {
        let refused = session.access_token().await.unwrap_err();
        assert_eq!(refused.oauth_error(), Some(&OAuthError::InvalidGrant));
    }
    assert_eq!(provider.token_requests(), 2);
}

#[tokio::test]
async fn short_lived_token_is_used_until_expiry() {
    let (provider, client, clock) = timed_with(|builder| builder.enable_password_grant()).await;
    provider.set_token_lifetime(Some(Duration::from_secs(10)));
    let session = SessionTokens::new(client.clone(), signed_in(&client).await);
    let first = session.access_token().await.unwrap();
    clock.advance(Duration::from_secs(7));
    assert_eq!(session.access_token().await.unwrap().secret(), first.secret());
    clock.advance(Duration::from_secs(3));
    assert_ne!(session.access_token().await.unwrap().secret(), first.secret());
    assert_eq!(provider.granted("refresh_token"), 1);
}

#[tokio::test]
async fn reusable_refresh_token_gets_new_tokens() {
    let (provider, client, clock) = timed_with(|builder| builder.enable_password_grant()).await;
    provider.keep_refresh_tokens(true);
    provider.set_token_lifetime(Some(Duration::from_secs(10)));
    let session = SessionTokens::new(client.clone(), signed_in(&client).await);
    let mut seen = Vec::new();
    for round in 0..4 {
        let token = session.access_token().await.unwrap();
        assert!(!seen.contains(token.secret()), "round {round}");
        seen.push(token.secret().clone());
        clock.advance(Duration::from_secs(10));
    }
    assert_eq!(provider.granted("refresh_token"), 3);
}

#[tokio::test]
async fn session_adopts_renewals_by_another_session() {
    let (provider, client, clock) = timed_with(|builder| builder.enable_password_grant()).await;
    provider.set_token_lifetime(Some(Duration::from_secs(10)));
    let first = signed_in(&client).await;
    let one = SessionTokens::new(client.clone(), first.clone());
    let other = SessionTokens::new(client.clone(), first);
    clock.advance(Duration::from_secs(10));
    let expired = other.access_token().await.unwrap();
    clock.advance(Duration::from_secs(10));
    let next = other.access_token().await.unwrap();
    let got = one.access_token().await.unwrap();
    assert_ne!(got.secret(), expired.secret());
    assert_eq!(got.secret(), next.secret());
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (2, 0));
}
