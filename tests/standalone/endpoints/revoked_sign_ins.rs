//! Sign-ins and revocations: a sign-in whose session at the provider has ended starts none here.

use std::time::Duration;

use futures_util::FutureExt as _;
use scaikey_auth::config::IdentitySource;
use scaikey_auth::revocation::Revocation;
use scaikey_auth::session::{MemorySessions, SessionsBuilder};
use scaikey_auth::testing::{ProviderEndpoint, User};

use super::env::{Setup, TestEnv};

/// Lets `revoke` decide with the `sid` of each access token before the service gets it. Access tokens have no `sid`
/// then, as at many providers.
fn revoke_during_sign_in(env: &TestEnv, revoke: fn(String, &str) -> Revocation) {
    let (revocations, issuer) = (env.auth.revocations().clone(), env.provider.issuer());
    env.provider.shape_tokens(move |claims| {
        let Some(sid) = claims.remove("sid") else { return };
        let revocation = revoke(issuer.clone(), sid.as_str().unwrap());
        revocations.revoke(revocation).now_or_never().unwrap().unwrap();
    });
}

type Settings = fn(SessionsBuilder) -> SessionsBuilder;

#[tokio::test]
async fn ended_provider_session_starts_none_here() {
    let settings: [Settings; 3] = [
        |it| it,
        |it| it.store(MemorySessions::new()),
        |it| it.identity_from(IdentitySource::IdToken),
    ];
    for session_settings in settings {
        let setup = Setup::with_sessions().sign_in(|it| it.failure_page("/sorry"));
        let setup = Setup { session_settings: Box::new(session_settings), ..setup };
        let env = setup.build().await;
        revoke_during_sign_in(&env, |issuer, sid| Revocation::session(issuer, sid));
        let browser = env.visitor();
        let answer = env.sign_in(&browser).await;
        assert_eq!(answer.header("location"), "/sorry?error=invalid_grant", "{answer:?}");
        assert!(browser.session_cookies().is_empty());
        let revoked = env.provider.requests(ProviderEndpoint::Revocation);
        assert_eq!(revoked, 1, "the refresh token is revoked");
    }
}

/// The code of a client that ran the flow itself.
#[tokio::test]
async fn ended_provider_session_yields_no_tokens() {
    let env = Setup::default().build().await;
    revoke_during_sign_in(&env, |issuer, sid| Revocation::session(issuer, sid));
    let browser = env.visitor();
    let answer = env.sign_in(&browser).await;
    assert!(!answer.body.contains("access_token"), "{answer:?}");
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 1);
}

/// The provider decides whether a user may sign in again, also without a password: then the ID token is new, and the
/// time of the authentication is that of its session.
#[tokio::test]
async fn user_may_sign_in_after_a_revocation() {
    for has_old_session in [false, true] {
        let env = Setup::with_sessions().build().await;
        let user = User::new("bob", "hunter2");
        let user = if has_old_session { user.claim("auth_time", 1_000) } else { user };
        env.provider.register_user(user);
        let bob = Revocation::subject(env.provider.issuer(), "bob-id");
        env.auth.revocations().revoke(bob).await.unwrap();
        let browser = env.visitor();
        env.clock.advance(Duration::from_secs(6));
        assert_eq!(env.sign_in(&browser).await.header("location"), "/me");
        assert!(browser.get("/me").await.body.starts_with("bob-id"), "{has_old_session}");
    }
}
