//! The life of a session in a store: its cookie, its limits, sign-in and sign-out.

use axum::http::Method;
use scaikey_auth::clock::Clock;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Fault, ProviderEndpoint, User};

use super::super::env::{BYE, MINUTE, Setup};
use super::{LOGOUT, SAME, Service, cookie, seconds, sign_in, signed_in};
use crate::support::until;

#[tokio::test]
async fn browser_has_one_small_cookie() {
    let (env, service, browser) = signed_in().await;
    let (name, value) = cookie(&browser);
    assert!(name.starts_with("__Host-session-"), "{name}");
    assert_eq!(value.len(), 66, "{value}");
    let me = browser.get("/me").await;
    assert_eq!((me.status, me.body.as_str()), (200, "bob-id "), "the service sees no cookie");
    assert_eq!((me.header("cache-control"), me.header("vary")), ("private", "cookie"));
    assert!(me.headers.get("set-cookie").is_none());
    assert_eq!(browser.get("/v1/auth/whoami").await.json()["subject"], "bob-id");
    assert_eq!(browser.get("/public").await.body, "true");
    assert_eq!(env.visitor().get("/me").await.status, 401);
    assert_eq!(service.store.all().await.len(), 1);
}

#[tokio::test]
async fn large_tokens_fit_into_the_store() {
    let service = Service::new();
    let env = service.setup().build().await;
    let groups: Vec<_> = (0..130).map(|nth| format!("group-{nth:074}")).collect();
    env.provider.register_user(User::new("bob", "hunter2").claim("groups", groups));
    let browser = sign_in(&env).await;
    assert_eq!(cookie(&browser).1.len(), 66);
    assert_eq!(browser.get("/me").await.status, 200);
    env.clock.advance(MINUTE * 20);
    assert!(service.store.all().await[0].value.len() > 16_000);
}

#[tokio::test]
async fn sessions_survive_a_restart() {
    let (env, service, browser) = signed_in().await;
    let env = env.with_new_client().start_process(service.setup()).await;
    assert_eq!(browser.at(&env).get("/me").await.status, 200);
}

#[tokio::test]
async fn sign_out_ends_every_copy() {
    let (env, service, browser) = signed_in().await;
    let copy = browser.copy_at(&env.api);
    assert_eq!(copy.get("/me").await.status, 200);
    let forged = browser.send(Method::POST, LOGOUT, &[], "").await;
    assert_eq!((forged.status, browser.session_cookies().len()), (403, 1), "{forged:?}");
    let out = browser.send(Method::POST, LOGOUT, &[SAME], "").await;
    assert_eq!((out.status, browser.cookie_names().len()), (204, 0), "{out:?}");
    assert!(service.store.all().await.is_empty());
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 1);
    let late = copy.get("/me").await;
    assert_eq!((late.status, copy.cookie_names().len()), (401, 0), "{late:?}");
    let again = copy.send(Method::POST, LOGOUT, &[SAME], "").await;
    assert_eq!(again.status, 400, "there is no session: {again:?}");
}

#[tokio::test]
async fn session_is_removed_before_its_token() {
    let (env, service, browser) = signed_in().await;
    let copy = browser.copy_at(&env.api);
    env.provider.fail(ProviderEndpoint::Revocation, Fault::Hang);
    let out = browser.send(Method::POST, LOGOUT, &[SAME], "");
    let meanwhile = async {
        until(|| env.provider.requests(ProviderEndpoint::Revocation) == 1).await;
        assert!(service.store.all().await.is_empty());
        assert_eq!(copy.get("/me").await.status, 401);
        env.provider.heal(ProviderEndpoint::Revocation);
    };
    let (out, ()) = tokio::join!(out, meanwhile);
    assert_eq!(out.status, 204, "{out:?}");
}

#[tokio::test]
async fn sign_out_hints_at_the_user() {
    let service = Service::new();
    let env = service.setup_with(|sessions| sessions.end_at_provider(BYE)).build().await;
    // Too large for a session in cookies, which would leave the ID token out.
    let groups: Vec<_> = (0..400).map(|nth| format!("group-{nth:08}")).collect();
    env.provider.register_user(User::new("bob", "hunter2").claim("groups", groups));
    let browser = sign_in(&env).await;
    env.clock.advance(MINUTE * 20);
    let out = browser.send(Method::POST, LOGOUT, &[SAME], "").await;
    let url = out.json()["end_session_url"].as_str().unwrap().to_owned();
    assert!(url.contains("id_token_hint=ey"), "{url}");
    assert!(service.store.all().await.is_empty());
}

#[tokio::test]
async fn idle_session_ends_by_the_clock() {
    for (idle, steps) in [
        // The default: 30 minutes.
        (None, &[(29 * 60, 200), (29 * 60, 200), (1800 - 1, 200), (1800, 401)][..]),
        (Some(600), &[(599, 200), (599, 200), (600, 401)]),
        // A request within a minute of the last write is no new use.
        (Some(600), &[(59, 200), (599 - 59, 200), (599, 200), (59, 200), (600 - 59, 401)]),
        (Some(60), &[(14, 200), (59 - 14, 200), (59, 200), (60, 401)]),
        (Some(13 * 3600), &[(1800, 200), (11 * 3600, 200), (1801, 401)]),
    ] {
        let service = Service::new();
        let setup = service.setup_with(move |sessions| match idle {
            Some(idle) => sessions.idle(seconds(idle)),
            None => sessions,
        });
        let env = setup.build().await;
        let browser = sign_in(&env).await;
        for (step, (pause, status)) in steps.iter().enumerate() {
            env.clock.advance(seconds(*pause));
            let answer = browser.get("/me").await;
            assert_eq!(answer.status, *status, "{idle:?} {step}: {answer:?}");
        }
        assert!(browser.cookie_names().is_empty(), "the cookie is cleared");
    }
}

#[tokio::test]
async fn shorter_idle_limit_applies_immediately() {
    let (env, service, browser) = signed_in().await;
    let setup = service.setup_with(|sessions| sessions.idle(MINUTE * 5));
    let env = env.start_process(setup).await;
    env.clock.advance(MINUTE * 6);
    assert_eq!(browser.at(&env).get("/me").await.status, 401);
}

#[tokio::test]
async fn lifetime_limits_sessions_in_use() {
    let service = Service::new();
    let env = service.setup().build().await;
    env.provider.set_token_lifetime(Some(MINUTE * 24 * 60));
    let browser = sign_in(&env).await;
    for hour in 0..23 {
        env.clock.advance(MINUTE * 29);
        assert_eq!(browser.get("/me").await.status, 200, "{hour}");
    }
    env.clock.advance(MINUTE * 60);
    assert_eq!(browser.get("/me").await.status, 401);
    // Also if the store says otherwise.
    let browser = sign_in(&env).await;
    let now = env.clock.now();
    let id = service.store.all().await.last().unwrap().id;
    service
        .store
        .change(&id, |session| {
            session.ends_at = super::far_future(now);
            session.expires_at = session.ends_at;
        })
        .await;
    for _ in 0..24 {
        env.clock.advance(MINUTE * 29);
        browser.get("/me").await;
    }
    env.clock.advance(MINUTE * 29);
    assert_eq!(browser.get("/me").await.status, 401);
}

#[tokio::test]
async fn use_is_written_once_a_minute() {
    let (env, service, browser) = signed_in().await;
    for minute in 0..5 {
        for _ in 0..20 {
            assert_eq!(browser.get("/me").await.status, 200);
            env.clock.advance(seconds(3));
        }
        assert_eq!(service.store.writes(), minute, "{minute}");
    }
    assert_eq!(service.store.loads(), 100);
}

#[tokio::test]
async fn sign_in_ends_the_session_before() {
    let (env, service, browser) = signed_in().await;
    let (before, copy) = (cookie(&browser), browser.copy_at(&env.api));
    env.clock.advance(MINUTE);
    assert_eq!(env.sign_in_as("alice", &browser).await.status, 303);
    let after = cookie(&browser);
    assert!(before.0 != after.0 && before.1 != after.1, "a new id");
    assert_eq!(service.store.all().await.len(), 1);
    assert_eq!(browser.get("/me").await.body, "alice-id ");
    assert_eq!(copy.get("/me").await.status, 401);
    // The next tokens of the provider's session are not revoked with it.
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 0);
}

#[tokio::test]
async fn sessions_move_to_a_store_and_back() {
    let service = Service::new();
    let in_cookies = || Setup { sessions: Some(service.keys.clone()), ..Setup::default() };
    let env = in_cookies().build().await;
    let browser = env.visitor();
    env.sign_in(&browser).await;
    assert_eq!(browser.get("/me").await.status, 200);
    let env = env.start_process(service.setup()).await;
    let browser = browser.at(&env);
    assert_eq!(browser.get("/me").await.status, 401);
    assert!(browser.cookie_names().is_empty(), "the cookies are cleared");
    env.sign_in(&browser).await;
    assert_eq!(browser.get("/me").await.status, 200);
    let env = env.start_process(in_cookies()).await;
    let browser = browser.at(&env);
    assert_eq!(browser.get("/me").await.status, 401);
    assert!(browser.cookie_names().is_empty());
}

#[tokio::test]
async fn store_settings_are_checked() {
    let (env, service, _) = signed_in().await;
    let sessions =
        || Sessions::builder(&env.auth, env.client.clone(), SealingKeys::random().unwrap());
    let short = sessions().store(service.store.clone()).idle(seconds(59));
    for (builder, problem) in [
        (sessions().idle(MINUTE), "session_idle needs a session store"),
        (short, "session_idle must be at least one minute"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    let sessions = sessions().build().unwrap();
    let endpoints = env.auth.endpoints().client(env.client.clone()).sessions(sessions);
    let error = endpoints.session_admin(scaikey_auth::role("admin")).build().unwrap_err();
    assert!(error.to_string().contains("session_admin needs sessions on the server"), "{error}");
}
