//! `TokenData` of the crate `jsonwebtoken` in sessions.

use axum::Router;
use axum::routing::get;
use scaikey_auth::AuthContext;
use scaikey_auth::config::IdentitySource;
use scaikey_auth::error::TokenDataError;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Client, Fault, Provider, ProviderEndpoint};

use super::env::{REDIRECT, Setup};
use crate::support::Server;

async fn header(context: AuthContext) -> String {
    match context.token_data::<serde_json::Value>() {
        Ok(data) => format!("{:?}", data.header),
        Err(error) => error.to_string(),
    }
}

/// The access token is for another service, and nobody has verified it.
#[tokio::test]
async fn token_data_never_mixes_two_tokens() {
    let keys = SealingKeys::random().unwrap();
    let mut setup = Setup { sessions: Some(keys.clone()), ..Setup::default() };
    setup.session_settings = Box::new(|sessions| sessions.identity_from(IdentitySource::IdToken));
    let env = setup.build().await;
    let wave = Client::new("wave", "secret").scopes("openid docs:read").redirect_uri(REDIRECT);
    env.provider.register_client(wave);
    let stranger = Provider::builder().clock(env.clock.clone()).start().await;
    let foreign = stranger.token().audience("drive").header("kid", "unverified").sign();
    env.provider.fail(ProviderEndpoint::Token, Fault::replace_member("access_token", foreign));
    env.provider.fail(ProviderEndpoint::Token, Fault::remove_member("scope"));
    let browser = env.visitor();
    let arrived = env.sign_in(&browser).await;
    assert_eq!(arrived.status, 303, "{arrived:?}");
    let sessions = Sessions::builder(&env.auth, env.client.clone(), keys);
    let sessions = sessions.identity_from(IdentitySource::IdToken).build().unwrap();
    let app = Router::new().route("/", get(header)).layer(env.auth.layer());
    let server = Server::axum(app.layer(sessions.layer())).await;
    let cookies = browser.session_cookies();
    let cookies = cookies.iter().map(|(name, value)| format!("{name}={value}"));
    let cookies = cookies.collect::<Vec<_>>().join("; ");
    let answer = server.get("/", &[("cookie", &cookies)]).await;
    assert_eq!((answer.status, answer.body), (200, TokenDataError::NotSigned.to_string()));
}
