//! Refresh tokens that change with every use, and sessions that are renewed in time.

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
async fn fifty_callers_with_one_refresh_token_spend_it_once() {
    let (provider, client) = with_passwords().await;
    let first = signed_in(&client).await;
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let (client, request) = (client.clone(), refresh(&first));
        callers.spawn(async move { client.refresh(&request).await.unwrap() });
    }
    let got = callers.join_all().await;
    assert!(got.iter().all(|token| token.refresh_token() == got[0].refresh_token()));
    // One who comes late gets the same, and the successor works.
    let late = client.refresh(&refresh(&first)).await.unwrap();
    assert_eq!(late.refresh_token(), got[0].refresh_token());
    client.refresh(&refresh(&late)).await.unwrap();
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (2, 0));
}

#[tokio::test]
async fn who_asks_for_less_than_the_first_gets_an_error_and_not_more() {
    let (provider, client) = with_passwords().await;
    let first = signed_in(&client).await;
    client.refresh(&refresh(&first)).await.unwrap();
    let mut fewer = refresh(&first);
    fewer.scopes = "nothing".parse().unwrap();
    let refused = client.refresh(&fewer).await.unwrap_err();
    assert!(matches!(refused, ExchangeError::Answer(_)), "{refused}");
    assert_eq!(provider.refresh_reuses(), 0);
}

#[tokio::test]
async fn a_session_is_renewed_behind_its_users_back_from_four_fifths_on() {
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
async fn a_session_outlives_a_provider_that_is_away_as_long_as_its_token_does() {
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
async fn a_session_that_was_ended_says_so() {
    let (provider, client, clock) = timed_with(|builder| builder.enable_password_grant()).await;
    let session = SessionTokens::new(client.clone(), signed_in(&client).await);
    client.revoke(&session.refresh_token().unwrap()).await.unwrap();
    session.access_token().await.unwrap();
    clock.advance(Duration::from_secs(3600));
    for _ in 0..10 {
        let refused = session.access_token().await.unwrap_err();
        assert_eq!(refused.oauth(), Some(&OAuthError::InvalidGrant));
    }
    assert_eq!(provider.token_requests(), 2);
}

#[tokio::test]
async fn a_session_of_short_tokens_uses_each_to_its_end() {
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
async fn a_refresh_token_that_stays_gives_a_new_token_each_time() {
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
async fn a_session_that_another_holder_renewed_twice_goes_on_where_that_one_is() {
    let (provider, client, clock) = timed_with(|builder| builder.enable_password_grant()).await;
    provider.set_token_lifetime(Some(Duration::from_secs(10)));
    let first = signed_in(&client).await;
    let ours = SessionTokens::new(client.clone(), first.clone());
    let theirs = SessionTokens::new(client.clone(), first);
    clock.advance(Duration::from_secs(10));
    let expired = theirs.access_token().await.unwrap();
    clock.advance(Duration::from_secs(10));
    let next = theirs.access_token().await.unwrap();
    let got = ours.access_token().await.unwrap();
    assert_ne!(got.secret(), expired.secret());
    assert_eq!(got.secret(), next.secret());
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (2, 0));
}
