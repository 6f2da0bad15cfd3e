//! Browser sessions: renewal, sign-out, and attacks on them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use axum::http::Method;
use scaikey_auth::admission::{Admission, AdmissionCheck, AdmissionRequest};
use scaikey_auth::config::Algorithm;
use scaikey_auth::error::{BoxError, InvalidToken};
use scaikey_auth::exchange::{PkceVerifier, SealingKeys};
use scaikey_auth::testing::{Fault, ManualClock, ProviderEndpoint, User};
use scaikey_auth::validator::Credentials;
use scaikey_auth::{AuthConfig, AuthError, Identity, JwksValidator, TokenValidator};

use super::env::{MINUTE, REDIRECT, Setup, TestEnv, Visitor};
use crate::support::files::File;
use crate::support::{Log, local};

const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");

async fn signed_in() -> (TestEnv, Visitor) {
    let env = Setup::with_sessions().build().await;
    let browser = env.visitor();
    let arrived = env.sign_in(&browser).await;
    assert_eq!((arrived.status, arrived.header("location")), (303, "/me"), "{arrived:?}");
    assert_eq!(
        browser.cookie_names().len(),
        browser.session_cookies().len(),
        "the cookie of the sign-in is cleared"
    );
    assert!(!browser.cookie_names().is_empty());
    (env, browser)
}

#[tokio::test]
async fn session_hides_tokens_from_the_browser() {
    let (env, browser) = signed_in().await;
    let me = browser.get("/me").await;
    assert_eq!(
        (me.status, me.body.as_str()),
        (200, "bob-id "),
        "the service does not see the cookies"
    );
    assert_eq!((me.header("cache-control"), me.header("vary")), ("private", "cookie"));
    assert!(me.headers.get("set-cookie").is_none(), "unchanged cookies are not set again");
    let whoami = browser.get("/v1/auth/whoami").await;
    assert_eq!(whoami.json()["subject"], "bob-id");
    let is_sealed =
        |cookie: &String| !cookie.contains("eyJhbGciOi") && !cookie.contains("eyJ0eXAiOi");
    assert!(browser.session_cookies().values().all(is_sealed));
    assert_eq!(env.visitor().get("/me").await.status, 401);
    // Public routes work with a session, and other cookies pass.
    assert_eq!(browser.get("/public").await.body, "true");
    browser.cookies.lock().unwrap().insert("theme".into(), "dark".into());
    assert_eq!(browser.get("/me").await.body, "bob-id theme=dark");
}

#[tokio::test]
async fn session_keys_are_replaced_without_restart() {
    let [old, new] = ["QUFB", "QkJC"].map(|part| part.repeat(12));
    let file = File::new("keys", &old);
    let keys = SealingKeys::file(file.path()).unwrap();
    let env = Setup { sessions: Some(keys), ..Setup::default() }.build().await;
    let browser = env.visitor();
    env.sign_in(&browser).await;
    let status_with = async |keys: &str| {
        file.write(keys);
        env.clock.advance(Duration::from_secs(10));
        browser.get("/me").await.status
    };
    assert_eq!(status_with(&format!("{new},{old}")).await, 200);
    assert_eq!(status_with("hunter2").await, 200, "the previous keys stay in force");
    assert_eq!(status_with(&new).await, 401);
    env.sign_in(&browser).await;
    assert_eq!(browser.get("/me").await.status, 200);
}

#[tokio::test]
async fn cross_site_requests_are_refused() {
    let (_house, browser) = signed_in().await;
    let post = async |headers: &[(&str, &str)]| {
        browser.send(Method::POST, "/me", headers, "").await.status
    };
    assert_eq!(post(&[SAME]).await, 200);
    assert_eq!(post(&[("origin", "https://spa.example")]).await, 200);
    assert_eq!(
        post(&[("origin", "https://spa.example"), ("sec-fetch-site", "cross-site")]).await,
        200
    );
    for forged in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")],
        &[],
    ] {
        let answer = browser.send(Method::POST, "/me", forged, "").await;
        assert_eq!(answer.status, 403, "{forged:?}");
        assert!(answer.body.contains("foreign_origin"), "{}", answer.body);
    }
    let socket = [("sec-websocket-key", "x"), ("origin", "https://evil.example")];
    assert_eq!(browser.send(Method::GET, "/me", &socket, "").await.status, 403);
    // Links from other sites work.
    let followed = browser.send(Method::GET, "/me", &[("sec-fetch-site", "cross-site")], "").await;
    assert_eq!(followed.status, 200);
    // Without a session there is no check.
    browser.cookies.lock().unwrap().clear();
    assert_eq!(post(&[]).await, 401);
}

#[tokio::test]
async fn another_token_beside_session_is_refused() {
    let (env, browser) = signed_in().await;
    let other = format!("Bearer {}", env.provider.token().sign());
    let get =
        async |value: &str| browser.send(Method::GET, "/me", &[("authorization", value)], "").await;
    let answer = get(&other).await;
    assert_eq!(
        (answer.status, &answer.json()["type"]),
        (400, &"urn:scaikey-auth:credentials_malformed".into())
    );
    assert_eq!(get(&other.replace("Bearer", "bEARER")).await.status, 400);
    assert_eq!(
        get("Basic cHJveHk6cHJveHk=").await.status,
        200,
        "credentials of a proxy are ignored"
    );
    browser.cookies.lock().unwrap().clear();
    assert_eq!(get(&other).await.status, 200);
}

#[tokio::test]
async fn renewal_starts_at_eighty_percent_of_lifetime() {
    let (env, browser) = signed_in().await;
    let before = browser.session_cookies();
    env.clock.advance(MINUTE * 40);
    browser.get("/me").await;
    assert_eq!(env.provider.granted("refresh_token"), 0);
    env.clock.advance(MINUTE * 12);
    let renewed = browser.get("/me").await;
    assert_eq!(renewed.status, 200);
    let after = browser.session_cookies();
    assert_ne!(before, after, "{renewed:?}");
    assert_eq!(before.len(), after.len(), "new cookies replace the old ones");
    assert_eq!(env.provider.granted("refresh_token"), 1);
    // The session outlives its first token.
    for _ in 0..10 {
        env.clock.advance(MINUTE * 30);
        assert_eq!(browser.get("/me").await.status, 200);
    }
    assert_eq!(env.provider.refresh_reuses(), 0);
}

#[tokio::test]
async fn parallel_requests_spend_one_refresh_token() {
    let (env, browser) = signed_in().await;
    for period in [MINUTE * 52, MINUTE * 70] {
        env.clock.advance(period);
        let before = env.provider.granted("refresh_token");
        let all = (0..20).map(|_| browser.get("/me"));
        for answer in join_all(all).await {
            assert_eq!(answer.status, 200);
        }
        assert_eq!(env.provider.granted("refresh_token"), before + 1);
    }
    assert_eq!(env.provider.refresh_reuses(), 0);
}

/// Polls all futures in turn, like parallel connections of a browser.
async fn join_all<F: Future>(all: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = all.into_iter().map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut pending {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        match pending.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test]
async fn session_survives_provider_outage() {
    let (env, browser) = signed_in().await;
    env.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    env.clock.advance(MINUTE * 55);
    assert_eq!(browser.get("/me").await.status, 200);
    env.clock.advance(MINUTE * 10);
    let answer = browser.get("/me").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(!answer.header("retry-after").is_empty());
    assert!(!browser.session_cookies().is_empty(), "the session is kept");
    env.provider.heal(ProviderEndpoint::Token);
    env.clock.advance(MINUTE);
    assert_eq!(browser.get("/me").await.status, 200);
}

#[tokio::test]
async fn expired_and_revoked_sessions_are_cleared() {
    let keys = SealingKeys::random().unwrap();
    let setup = |keys: &SealingKeys| Setup { sessions: Some(keys.clone()), ..Setup::default() };
    let env = setup(&keys).build().await;
    let browser = env.visitor();
    env.sign_in(&browser).await;
    for hours in 0..11 {
        env.clock.advance(MINUTE * 60);
        assert_eq!(browser.get("/me").await.status, 200, "{hours}");
    }
    env.clock.advance(MINUTE * 61);
    assert_eq!(browser.get("/me").await.status, 401);
    assert!(browser.cookie_names().is_empty());

    // A thief copied the cookies and uses them in a process that does not know that the refresh
    // token was spent. The provider ends the session for the thief and for the user.
    env.sign_in(&browser).await;
    let old = browser.cookies.lock().unwrap().clone();
    env.clock.advance(MINUTE * 70);
    assert_eq!(browser.get("/me").await.status, 200);
    let env = env.with_new_client().start_process(setup(&keys)).await;
    let thief = env.visitor();
    *thief.cookies.lock().unwrap() = old;
    assert_eq!(thief.get("/me").await.status, 401);
    assert!(thief.cookie_names().is_empty());
    assert_eq!(env.provider.refresh_reuses(), 1);
    env.clock.advance(MINUTE * 70);
    assert_eq!(browser.get("/me").await.status, 401);
}

#[tokio::test]
async fn provider_error_at_renewal_ends_no_session() {
    let (env, browser) = signed_in().await;
    env.clock.advance(MINUTE * 70);
    // The provider rejects the service, or its answer is malformed.
    let odd = Fault::replace_member("token_type", "odd");
    for fault in [Fault::Status(403), Fault::Status(401), odd] {
        env.provider.fail(ProviderEndpoint::Token, fault.clone());
        assert_eq!(browser.get("/me").await.status, 503, "{fault:?}");
        assert!(!browser.session_cookies().is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn renewal_for_another_user_ends_session() {
    for (claim, value) in [("sub", "mallory-id"), ("tenant_id", "tenant-2")] {
        let (env, browser) = signed_in().await;
        env.clock.advance(MINUTE * 70);
        let other = env.provider.token().subject("bob-id").claim(claim, value).sign();
        env.provider.fail(ProviderEndpoint::Token, Fault::replace_member("access_token", other));
        assert_eq!(browser.get("/me").await.status, 401, "{claim}");
        assert!(browser.cookie_names().is_empty(), "{claim}");
    }
}

#[tokio::test]
async fn invalid_session_settings_are_refused() {
    let env = TestEnv::new().await;
    let sessions = || {
        let keys = SealingKeys::random().unwrap();
        scaikey_auth::session::Sessions::builder(&env.auth, env.client.clone(), keys)
    };
    for (builder, problem) in [
        (sessions().lifetime(std::time::Duration::ZERO), "lifetime"),
        (sessions().lifetime(std::time::Duration::MAX), "lifetime"),
        (sessions().cookie_name("a b"), "cookie_name"),
        (sessions().trusted_origin("https://app.example/"), "trusted_origin"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[tokio::test]
async fn forged_and_changed_cookies_are_rejected() {
    let (env, browser) = signed_in().await;
    let good = browser.session_cookies();
    let (part, value) = good.iter().max_by_key(|(_, value)| value.len()).unwrap();
    let swapped = value.replace(['A', 'B'], "C");
    for bad in ["", "x", "%%%", &value[..value.len() / 2], &swapped, &format!("{value}A"), "9.A"] {
        let thief = env.visitor();
        thief.cookies.lock().unwrap().extend(good.clone());
        thief.cookies.lock().unwrap().insert(part.clone(), bad.to_owned());
        assert_eq!(thief.get("/me").await.status, 401, "{bad}");
        assert!(thief.cookie_names().is_empty(), "the cookies are cleared");
    }
    // A session with a missing cookie, or with the cookie of a sign-in, is rejected.
    for name in good.keys() {
        let thief = env.visitor();
        thief.cookies.lock().unwrap().extend(good.clone());
        thief.cookies.lock().unwrap().remove(name);
        assert_eq!(thief.get("/me").await.status, 401, "{name}");
    }
    let thief = env.visitor();
    thief.get("/v1/auth/login").await;
    let sign_in_cookie = thief.cookies.lock().unwrap().values().next().unwrap().clone();
    thief.cookies.lock().unwrap().extend(good.clone());
    thief.cookies.lock().unwrap().insert(part.clone(), sign_in_cookie);
    assert_eq!(thief.get("/me").await.status, 401);
    // A cookie of another session is rejected.
    let other = env.visitor();
    env.clock.advance(MINUTE);
    env.sign_in_as("alice", &other).await;
    let theirs = other.session_cookies().into_values().max_by_key(String::len).unwrap();
    let thief = env.visitor();
    thief.cookies.lock().unwrap().extend(good.clone());
    thief.cookies.lock().unwrap().insert(part.clone(), theirs);
    assert_eq!(thief.get("/me").await.status, 401);
}

#[tokio::test]
async fn sign_out_ends_session_and_revokes() {
    let (env, browser) = signed_in().await;
    let copy = browser.cookies.lock().unwrap().clone();
    let forged = browser.send(Method::POST, "/v1/auth/logout", &[], "").await;
    assert_eq!((forged.status, browser.session_cookies()), (403, copy.clone()));
    let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    assert_eq!(out.status, 204, "{out:?}");
    assert!(browser.cookie_names().is_empty());
    assert_eq!(browser.get("/me").await.status, 401);
    // A copy cannot be renewed either.
    let thief = env.visitor();
    *thief.cookies.lock().unwrap() = copy;
    env.clock.advance(MINUTE * 70);
    assert_eq!(thief.get("/me").await.status, 401);

    env.sign_in(&browser).await;
    env.provider.fail(ProviderEndpoint::Revocation, Fault::Status(503));
    let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    out.assert_oauth_error(503, "temporarily_unavailable");
    assert!(browser.cookie_names().is_empty(), "the session ends here in any case");
}

#[tokio::test]
async fn sign_out_during_renewal_revokes_successor() {
    let (env, browser) = signed_in().await;
    let copy = browser.cookies.lock().unwrap().clone();
    env.clock.advance(MINUTE * 55);
    let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    assert_eq!((out.status, browser.cookie_names().len()), (204, 0), "{out:?}");
    assert_eq!(env.provider.granted("refresh_token"), 1, "the session was due for renewal");
    let revoked = env.provider.received(ProviderEndpoint::Revocation).pop().unwrap().form();
    let spent = env.provider.received(ProviderEndpoint::Token).pop().unwrap().form();
    let token = |form: &[(String, String)], name: &str| {
        form.iter().find(|(known, _)| known == name).unwrap().1.clone()
    };
    assert_ne!(
        token(&revoked, "token"),
        token(&spent, "refresh_token"),
        "the successor is revoked"
    );
    let thief = env.visitor();
    *thief.cookies.lock().unwrap() = copy;
    env.clock.advance(MINUTE * 70);
    let env = env.with_new_client();
    assert_eq!(thief.get("/me").await.status, 401);
    drop(env);
}

#[tokio::test]
async fn refresh_token_is_revoked_without_session() {
    let env = TestEnv::new().await;
    let tokens = env.bob_tokens().await;
    let form = format!("refresh_token={}", tokens["refresh_token"].as_str().unwrap());
    let visitor = env.visitor();
    for _ in 0..2 {
        assert_eq!(visitor.post_form("/v1/auth/logout", &form).await.status, 204);
    }
    visitor.post_form("/v1/auth/refresh", &form).await.assert_oauth_error(400, "invalid_grant");
    visitor.post_form("/v1/auth/logout", "").await.assert_oauth_error(400, "invalid_request");
}

#[tokio::test]
async fn key_rotation_keeps_sessions() {
    let [old, new] = ["QUFB".repeat(12), "QkJC".repeat(12)];
    let setup = |keys: &str| {
        let keys = SealingKeys::parse(&keys.into()).unwrap();
        Setup { sessions: Some(keys), ..Setup::default() }
    };
    let first = setup(&old).build().await;
    let browser = first.visitor();
    first.sign_in(&browser).await;
    let second = first.start_process(setup(&format!("{new},{old}"))).await;
    let browser = browser.at(&second);
    assert_eq!(browser.get("/me").await.status, 200);
    second.clock.advance(MINUTE * 55);
    assert_eq!(
        browser.get("/me").await.status,
        200,
        "the renewed session is sealed with the new key"
    );
    let third = second.start_process(setup(&new)).await;
    let browser = browser.at(&third);
    assert_eq!(browser.get("/me").await.status, 200);
}

#[tokio::test]
async fn large_tokens_use_several_cookies() {
    let env = Setup::with_sessions().build().await;
    let groups: Vec<_> = (0..250).map(|nth| format!("group-{nth:08}")).collect();
    env.provider
        .register_user(scaikey_auth::testing::User::new("bob", "hunter2").claim("groups", groups));
    let browser = env.visitor();
    env.sign_in(&browser).await;
    assert!(browser.cookie_names().len() > 1, "{:?}", browser.cookie_names());
    assert_eq!(browser.get("/me").await.body, "bob-id ");
    let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    assert_eq!((out.status, browser.cookie_names().len()), (204, 0));
}

#[tokio::test]
async fn sessions_hold_tokens_of_ml_dsa() {
    use Algorithm::{MLDSA44, MLDSA65, MLDSA87};
    for algorithm in [MLDSA44, MLDSA65, MLDSA87] {
        let env = Setup { algorithms: vec![algorithm], ..Setup::with_sessions() }.build().await;
        let browser = env.visitor();
        let arrived = env.sign_in(&browser).await;
        assert_eq!((arrived.status, arrived.header("location")), (303, "/me"), "{arrived:?}");
        let cookies = browser.session_cookies().len();
        assert!((2..=4).contains(&cookies), "{algorithm}: {cookies} cookies");
        assert_eq!(browser.get("/me").await.body, "bob-id ", "{algorithm}");
        env.clock.advance(MINUTE * 52);
        assert_eq!(browser.get("/me").await.status, 200, "{algorithm}: renewed");
        let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
        assert_eq!((out.status, browser.session_cookies().len()), (204, 0));
        // The `at_hash` of the ID token is that of another access token.
        let other = env.provider.token().subject("bob-id").sign();
        env.provider.fail(ProviderEndpoint::Token, Fault::replace_member("access_token", other));
        env.sign_in(&env.visitor()).await.assert_oauth_error(400, "invalid_grant");
    }
}

#[tokio::test]
async fn other_cookies_may_have_any_bytes() {
    let env = Setup::with_sessions().build().await;
    for theme in ["café", "\u{fffd}", "a\"b", "=;;="] {
        let browser = env.visitor();
        browser.cookies.lock().unwrap().insert("AAA".to_owned(), theme.to_owned());
        browser.cookies.lock().unwrap().insert("zzz".to_owned(), theme.to_owned());
        assert_eq!(env.sign_in(&browser).await.status, 303, "{theme}");
        let me = browser.get("/me").await;
        assert_eq!(me.status, 200, "{theme}");
        let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
        assert_eq!((out.status, browser.session_cookies().len()), (204, 0), "{theme}");
    }
}

#[tokio::test]
async fn too_large_tokens_end_the_session() {
    let log = Log::start();
    // While the session is due for renewal, and after its token expired.
    for minutes in [52, 70] {
        let (env, browser) = signed_in().await;
        env.clock.advance(MINUTE * minutes);
        let groups: Vec<_> = (0..2000).map(|nth| format!("group-{nth:08}")).collect();
        let large = env.provider.token().subject("bob-id").claim("groups", groups).sign();
        env.provider.fail(ProviderEndpoint::Token, Fault::replace_member("access_token", large));
        browser.get("/me").await;
        assert!(browser.cookie_names().is_empty(), "the spent refresh token is cleared");
        assert_eq!(browser.get("/me").await.status, 401);
        let revoked = env.provider.received(ProviderEndpoint::Revocation).pop().unwrap().form();
        let spent = env.provider.received(ProviderEndpoint::Token).pop().unwrap().form();
        let token = |form: &[(String, String)], name: &str| {
            form.iter().find(|(known, _)| known == name).unwrap().1.clone()
        };
        assert_ne!(
            token(&revoked, "token"),
            token(&spent, "refresh_token"),
            "the successor is revoked"
        );
        assert_eq!(env.provider.refresh_reuses(), 0);
        assert!(log.text().contains("a session does not fit into cookies"));
    }
}

#[tokio::test]
async fn request_with_expiring_token_waits_for_renewal() {
    // `exp` has whole seconds, so the token expires shortly before `expires_in` says.
    let started_at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_778_935_867_700);
    let setup = || {
        let clock = ManualClock::at(started_at);
        Setup { clock, leeway: Duration::ZERO, ..Setup::with_sessions() }
    };
    for left in [4000, 1000, 500] {
        let env = setup().build().await;
        let browser = env.visitor();
        env.sign_in(&browser).await;
        env.clock.advance(MINUTE * 60 - Duration::from_millis(left));
        let me = browser.get("/me").await;
        assert_eq!((me.status, env.provider.granted("refresh_token")), (200, 1), "{left}: {me:?}");
    }
    // During an outage of the provider, the token is used while it is valid.
    let env = setup().build().await;
    let browser = env.visitor();
    env.sign_in(&browser).await;
    env.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    env.clock.advance(MINUTE * 60 - Duration::from_secs(3));
    assert_eq!(browser.get("/me").await.status, 200);
    assert!(!browser.session_cookies().is_empty());
}

#[tokio::test]
async fn sign_out_logs_failed_revocation() {
    let keys = SealingKeys::random().unwrap();
    let setup = || Setup { sessions: Some(keys.clone()), ..Setup::default() };
    let env = setup().build().await;
    env.provider.fail(ProviderEndpoint::Discovery, Fault::remove_member("revocation_endpoint"));
    let warned = |log: &Log| {
        let text = log.text();
        text.lines().any(|line| line.contains("WARN") && line.contains("not revoked"))
    };
    let log = Log::start();
    let browser = env.visitor();
    env.sign_in(&browser).await;
    let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    assert_eq!((out.status, browser.cookie_names().len()), (204, 0));
    assert!(warned(&log), "no endpoint: {}", log.text());

    let (env, browser) = signed_in().await;
    for fault in [Fault::Status(503), Fault::Status(400)] {
        let log = Log::start();
        env.sign_in(&browser).await;
        env.provider.fail(ProviderEndpoint::Revocation, fault);
        browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
        assert!(browser.cookie_names().is_empty());
        assert!(warned(&log), "an error: {}", log.text());
        env.provider.heal(ProviderEndpoint::Revocation);
    }

    // The successor of the refresh token is unknown and may stay valid.
    let log = Log::start();
    env.sign_in(&browser).await;
    env.clock.advance(MINUTE * 55);
    env.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    assert!(browser.cookie_names().is_empty());
    assert!(warned(&log), "a renewal that failed: {}", log.text());
}

#[tokio::test]
async fn answers_with_new_cookies_are_private() {
    let (env, browser) = signed_in().await;
    env.clock.advance(MINUTE * 52);
    let answer = browser.get("/cached").await;
    assert_eq!(answer.header("cache-control"), "private", "{answer:?}");
    assert_eq!(browser.get("/cached").await.header("cache-control"), "public, max-age=60");
}

#[tokio::test]
async fn sign_out_works_during_provider_outage() {
    for (minutes, revocation, status) in [(0, 503, 503), (61, 503, 503), (61, 200, 204)] {
        let (env, browser) = signed_in().await;
        env.clock.advance(MINUTE * minutes);
        env.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
        if revocation != 200 {
            env.provider.fail(ProviderEndpoint::Revocation, Fault::Status(revocation));
        }
        // Public routes answer as for anonymous callers.
        let public = browser.get("/public").await;
        let has_identity = (minutes == 0).to_string();
        assert_eq!((public.status, public.body), (200, has_identity), "{minutes}");
        assert_eq!(browser.get("/v1/auth/login").await.status, 303, "{minutes}");
        let me = browser.get("/me").await;
        assert_eq!(me.status, if minutes == 0 { 200 } else { 503 }, "{me:?}");
        let called = browser.get("/grpc").await;
        let unavailable = if minutes == 0 { "16" } else { "14" };
        assert_eq!((called.status, called.header("grpc-status")), (200, unavailable));
        assert!(!browser.session_cookies().is_empty(), "{minutes}: the session stays");

        let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
        assert_eq!(out.status, status, "{minutes}: {out:?}");
        assert!(browser.session_cookies().is_empty(), "{minutes}");
        env.provider.heal(ProviderEndpoint::Token);
        env.clock.advance(MINUTE * 2);
        assert_eq!(browser.get("/me").await.status, 401, "{minutes}");
    }
}

#[tokio::test]
async fn slow_renewal_delays_no_valid_token() {
    let (env, browser) = signed_in().await;
    env.clock.advance(MINUTE * 60 - Duration::from_millis(1200));
    env.provider.fail(ProviderEndpoint::Token, Fault::Hang);
    let answer =
        env.while_slow_runs(&browser, async { env.provider.heal(ProviderEndpoint::Token) }).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "bob-id"), "{answer:?}");
    // The renewal finished meanwhile, and this answer sets the new cookies.
    assert!(answer.headers.contains_key("set-cookie"), "{answer:?}");
    assert_eq!(env.provider.granted("refresh_token"), 1);
}

#[tokio::test]
async fn legacy_cookies_are_cleared() {
    let old = ["__Host-session", "__Host-session.1", "__Host-session.3"];
    let put = |browser: &Visitor| {
        let mut jar = browser.cookies.lock().unwrap();
        jar.extend(old.map(|name| (name.to_owned(), "sealed".to_owned())));
    };
    let (env, browser) = signed_in().await;
    let session = browser.session_cookies();
    put(&browser);
    let me = browser.get("/me").await;
    assert_eq!(
        (me.status, me.body.as_str()),
        (200, "bob-id "),
        "the service sees no session cookie"
    );
    assert_eq!(browser.session_cookies(), session);
    let stranger = env.visitor();
    put(&stranger);
    assert_eq!(stranger.get("/public").await.status, 200);
    assert!(stranger.cookie_names().is_empty());
}

/// Denies bob while switched on.
#[derive(Debug, Clone, Default)]
struct DenyBob(Arc<AtomicBool>);

#[async_trait]
impl AdmissionCheck for DenyBob {
    async fn admit(&self, request: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        let is_denied = self.0.load(Ordering::SeqCst) && request.identity.subject() == "bob-id";
        let denied = Admission::Deny(InvalidToken::Revoked.into());
        Ok(if is_denied { denied } else { Admission::Allow })
    }
}

#[tokio::test]
async fn denied_user_loses_session() {
    let (no_bob, setup) = (DenyBob::default(), Setup::with_sessions());
    let check = no_bob.clone();
    let env = setup.auth(|auth| auth.admission(check)).build().await;
    let browser = env.visitor();
    assert_eq!(env.sign_in(&browser).await.status, 303);
    assert_eq!(browser.get("/me").await.status, 200);
    no_bob.0.store(true, Ordering::SeqCst);
    let denied = browser.get("/me").await;
    assert_eq!((denied.status, denied.error().as_deref()), (401, Some("invalid_token")));
    assert!(browser.session_cookies().is_empty(), "the session has ended");
    let again = env.visitor();
    let refused = env.sign_in(&again).await;
    refused.assert_oauth_error(400, "invalid_grant");
    assert!(again.session_cookies().is_empty());
    assert_eq!(env.sign_in_as("alice", &again).await.status, 303);
}

/// Signs in a user whose access token is bound to a key, and asserts that no session starts.
async fn assert_bound_token_starts_no_session(env: &TestEnv) {
    let thumbprint = serde_json::json!({ "jkt": "A".repeat(43) });
    env.provider.register_user(User::new("carol", "secret").claim("cnf", thumbprint));
    let browser = env.visitor();
    let refused = env.sign_in_as("carol", &browser).await;
    assert_eq!(refused.status, 500, "{refused:?}");
    assert!(browser.session_cookies().is_empty());
}

/// A browser cannot prove possession of the key.
#[tokio::test]
async fn bound_access_token_starts_no_session() {
    let env = Setup::with_sessions().build().await;
    assert_bound_token_starts_no_session(&env).await;
}

/// Returns identities of bound tokens even if its caller does not allow them.
#[derive(Debug, Clone, Default)]
struct CarelessValidator(Arc<OnceLock<JwksValidator>>);

#[async_trait]
impl TokenValidator for CarelessValidator {
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        self.0.get().is_some_and(|validator| validator.accepts(presented))
    }

    async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError> {
        self.0.get().unwrap().validate(&presented.allow_bound()).await
    }
}

#[tokio::test]
async fn bound_token_starts_no_session_without_check() {
    let (careless, setup) = (CarelessValidator::default(), Setup::with_sessions());
    let validator = careless.clone();
    let env = setup.auth(|auth| auth.validator(validator)).build().await;
    let mut config = AuthConfig::default();
    config.issuers = vec![local(env.provider.issuer())];
    config.audience = vec!["scaiwave".to_owned()];
    let validator = JwksValidator::with_clock(&config, Arc::new(env.clock.clone())).unwrap();
    careless.0.set(validator).unwrap();
    assert_bound_token_starts_no_session(&env).await;
    assert_eq!(env.sign_in(&env.visitor()).await.status, 303);
}

#[tokio::test]
async fn denied_user_gets_no_tokens() {
    let no_bob = DenyBob::default();
    let check = no_bob.clone();
    let env = Setup::default().auth(|auth| auth.admission(check)).build().await;
    let redeem = async || {
        let verifier = PkceVerifier::generate().unwrap();
        let code = env.provider.authorize("bob", "wave", REDIRECT, &verifier.challenge());
        let body = serde_json::json!({ "code": code, "code_verifier": verifier.secret().expose() });
        env.visitor().post_json("/v1/auth/login", &body).await
    };
    assert_eq!(env.sign_in(&env.visitor()).await.status, 200);
    assert_eq!(redeem().await.status, 200);
    no_bob.0.store(true, Ordering::SeqCst);
    env.sign_in(&env.visitor()).await.assert_oauth_error(400, "invalid_grant");
    redeem().await.assert_oauth_error(400, "invalid_grant");
    assert_eq!(env.sign_in_as("alice", &env.visitor()).await.status, 200);
}
