//! Browsers with a session: what they may do, and what others cannot do by way of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use axum::http::Method;
use scaikey_auth::admission::{Admission, AdmissionCheck, AdmissionRequest};
use scaikey_auth::error::{BoxError, InvalidToken};
use scaikey_auth::exchange::{PkceVerifier, SealingKeys};
use scaikey_auth::testing::{Fault, ManualClock, ProviderEndpoint, User};
use scaikey_auth::validator::Credentials;
use scaikey_auth::{AuthConfig, AuthError, Identity, JwksValidator, TokenValidator};

use super::env::{MINUTE, REDIRECT, Setup, TestEnv, Visitor};
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
        "the sign-in's own is gone"
    );
    assert!(!browser.cookie_names().is_empty());
    (env, browser)
}

#[tokio::test]
async fn a_browser_is_signed_in_and_sees_no_token() {
    let (env, browser) = signed_in().await;
    let me = browser.get("/me").await;
    assert_eq!((me.status, me.body.as_str()), (200, "bob-id "), "the cookie goes no further");
    assert_eq!((me.header("cache-control"), me.header("vary")), ("private", "cookie"));
    assert!(me.headers.get("set-cookie").is_none(), "nothing is new");
    let whoami = browser.get("/v1/auth/whoami").await;
    assert_eq!(whoami.json()["subject"], "bob-id");
    let is_sealed =
        |cookie: &String| !cookie.contains("eyJhbGciOi") && !cookie.contains("eyJ0eXAiOi");
    assert!(browser.session_cookies().values().all(is_sealed));
    assert_eq!(env.visitor().get("/me").await.status, 401);
    // Routes that need nobody work with the session, too, and other cookies pass.
    assert_eq!(browser.get("/public").await.body, "true");
    browser.cookies.lock().unwrap().insert("theme".into(), "dark".into());
    assert_eq!(browser.get("/me").await.body, "bob-id theme=dark");
}

#[tokio::test]
async fn pages_of_others_cannot_act_by_way_of_it() {
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
    // A link from elsewhere may lead here.
    let followed = browser.send(Method::GET, "/me", &[("sec-fetch-site", "cross-site")], "").await;
    assert_eq!(followed.status, 200);
    // Somebody without a session is none of this layer's business.
    browser.cookies.lock().unwrap().clear();
    assert_eq!(post(&[]).await, 401);
}

#[tokio::test]
async fn a_token_beside_the_session_is_ambiguous_unless_it_is_the_same() {
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
    assert_eq!(get("Basic cHJveHk6cHJveHk=").await.status, 200, "a proxy's, and no token");
    browser.cookies.lock().unwrap().clear();
    assert_eq!(get(&other).await.status, 200);
}

#[tokio::test]
async fn it_is_renewed_behind_the_browsers_back_from_four_fifths_on() {
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
    assert_eq!(before.len(), after.len(), "in place of those before");
    assert_eq!(env.provider.granted("refresh_token"), 1);
    // Long after the first token expired, with many requests in between.
    for _ in 0..10 {
        env.clock.advance(MINUTE * 30);
        assert_eq!(browser.get("/me").await.status, 200);
    }
    assert_eq!(env.provider.refresh_reuses(), 0);
}

#[tokio::test]
async fn parallel_requests_that_find_it_due_spend_one_refresh_token() {
    let (env, browser) = signed_in().await;
    for period in [MINUTE * 52, MINUTE * 70] {
        env.clock.advance(period);
        let before = env.provider.granted("refresh_token");
        let all = (0..20).map(|_| browser.get("/me"));
        for answer in futures_of(all).await {
            assert_eq!(answer.status, 200);
        }
        assert_eq!(env.provider.granted("refresh_token"), before + 1);
    }
    assert_eq!(env.provider.refresh_reuses(), 0);
}

/// Polls all of them in turn, as a browser's connections are.
async fn futures_of<F: Future>(all: impl IntoIterator<Item = F>) -> Vec<F::Output> {
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
async fn while_the_provider_is_away_it_lasts_as_long_as_its_token() {
    let (env, browser) = signed_in().await;
    env.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    env.clock.advance(MINUTE * 55);
    assert_eq!(browser.get("/me").await.status, 200);
    env.clock.advance(MINUTE * 10);
    let answer = browser.get("/me").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(!answer.header("retry-after").is_empty());
    assert!(!browser.session_cookies().is_empty(), "nothing is lost");
    env.provider.heal(ProviderEndpoint::Token);
    env.clock.advance(MINUTE);
    assert_eq!(browser.get("/me").await.status, 200);
}

#[tokio::test]
async fn a_session_that_the_provider_ended_or_that_lasted_long_enough_is_taken_away() {
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

    // Somebody copied the cookie, and comes to a process that does not know its refresh token to be
    // used: the provider ends the session, for everybody.
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
async fn what_is_wrong_with_the_service_itself_ends_nobodys_session() {
    let (env, browser) = signed_in().await;
    env.clock.advance(MINUTE * 70);
    // The provider refuses the service, or says what nobody understands.
    let odd = Fault::member("token_type", "odd");
    for fault in [Fault::Status(403), Fault::Status(401), odd] {
        env.provider.fail(ProviderEndpoint::Token, fault.clone());
        assert_eq!(browser.get("/me").await.status, 503, "{fault:?}");
        assert!(!browser.session_cookies().is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn a_session_does_not_become_somebody_elses() {
    for (claim, value) in [("sub", "mallory-id"), ("tenant_id", "tenant-2")] {
        let (env, browser) = signed_in().await;
        env.clock.advance(MINUTE * 70);
        let other = env.provider.token().subject("bob-id").claim(claim, value).sign();
        env.provider.fail(ProviderEndpoint::Token, Fault::member("access_token", other));
        assert_eq!(browser.get("/me").await.status, 401, "{claim}");
        assert!(browser.cookie_names().is_empty(), "{claim}");
    }
}

#[tokio::test]
async fn sessions_that_cannot_be_are_refused_when_they_are_set_up() {
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
async fn cookies_that_were_made_up_or_changed_are_no_session() {
    let (env, browser) = signed_in().await;
    let good = browser.session_cookies();
    let (part, value) = good.iter().max_by_key(|(_, value)| value.len()).unwrap();
    let swapped = value.replace(['A', 'B'], "C");
    for bad in ["", "x", "%%%", &value[..value.len() / 2], &swapped, &format!("{value}A"), "9.A"] {
        let thief = env.visitor();
        thief.cookies.lock().unwrap().extend(good.clone());
        thief.cookies.lock().unwrap().insert(part.clone(), bad.to_owned());
        assert_eq!(thief.get("/me").await.status, 401, "{bad}");
        assert!(thief.cookie_names().is_empty(), "it is taken away");
    }
    // A part of it is none, and the cookie of a sign-in is none either.
    for name in good.keys() {
        let thief = env.visitor();
        thief.cookies.lock().unwrap().extend(good.clone());
        thief.cookies.lock().unwrap().remove(name);
        assert_eq!(thief.get("/me").await.status, 401, "{name}");
    }
    let thief = env.visitor();
    thief.get("/v1/auth/login").await;
    let begun = thief.cookies.lock().unwrap().values().next().unwrap().clone();
    thief.cookies.lock().unwrap().extend(good.clone());
    thief.cookies.lock().unwrap().insert(part.clone(), begun);
    assert_eq!(thief.get("/me").await.status, 401);
    // Nor is what was sealed for another session.
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
async fn signing_out_ends_it_here_and_at_the_provider() {
    let (env, browser) = signed_in().await;
    let copy = browser.cookies.lock().unwrap().clone();
    let forged = browser.send(Method::POST, "/v1/auth/logout", &[], "").await;
    assert_eq!((forged.status, browser.session_cookies()), (403, copy.clone()));
    let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    assert_eq!(out.status, 204, "{out:?}");
    assert!(browser.cookie_names().is_empty());
    assert_eq!(browser.get("/me").await.status, 401);
    // The copy lasts as long as its access token, and cannot be renewed.
    let thief = env.visitor();
    *thief.cookies.lock().unwrap() = copy;
    env.clock.advance(MINUTE * 70);
    assert_eq!(thief.get("/me").await.status, 401);

    env.sign_in(&browser).await;
    env.provider.fail(ProviderEndpoint::Revocation, Fault::Status(503));
    let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    out.refused(503, "temporarily_unavailable");
    assert!(browser.cookie_names().is_empty(), "here it ended all the same");
}

#[tokio::test]
async fn signing_out_while_it_is_renewed_leaves_no_token_behind() {
    let (env, browser) = signed_in().await;
    let copy = browser.cookies.lock().unwrap().clone();
    env.clock.advance(MINUTE * 55);
    let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    assert_eq!((out.status, browser.cookie_names().len()), (204, 0), "{out:?}");
    assert_eq!(env.provider.granted("refresh_token"), 1, "it was due");
    let revoked = env.provider.received(ProviderEndpoint::Revocation).pop().unwrap().form();
    let spent = env.provider.received(ProviderEndpoint::Token).pop().unwrap().form();
    let token = |form: &[(String, String)], name: &str| {
        form.iter().find(|(known, _)| known == name).unwrap().1.clone()
    };
    assert_ne!(token(&revoked, "token"), token(&spent, "refresh_token"), "the one it became");
    let thief = env.visitor();
    *thief.cookies.lock().unwrap() = copy;
    env.clock.advance(MINUTE * 70);
    let env = env.with_new_client();
    assert_eq!(thief.get("/me").await.status, 401);
    drop(env);
}

#[tokio::test]
async fn without_a_session_a_refresh_token_can_be_revoked() {
    let env = TestEnv::new().await;
    let tokens = env.bob_tokens().await;
    let form = format!("refresh_token={}", tokens["refresh_token"].as_str().unwrap());
    let visitor = env.visitor();
    for _ in 0..2 {
        assert_eq!(visitor.post_form("/v1/auth/logout", &form).await.status, 204);
    }
    visitor.post_form("/v1/auth/refresh", &form).await.refused(400, "invalid_grant");
    visitor.post_form("/v1/auth/logout", "").await.refused(400, "invalid_request");
}

#[tokio::test]
async fn any_process_with_the_keys_serves_it_and_old_keys_are_replaced_without_loss() {
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
    assert_eq!(browser.get("/me").await.status, 200, "renewed, under the new key");
    let third = second.start_process(setup(&new)).await;
    let browser = browser.at(&third);
    assert_eq!(browser.get("/me").await.status, 200);
}

#[tokio::test]
async fn large_tokens_travel_in_several_cookies() {
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
async fn bytes_of_other_cookies_do_not_matter() {
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
async fn tokens_that_outgrow_cookies_end_the_session() {
    let log = Log::start();
    // While it is due, and when it has expired.
    for minutes in [52, 70] {
        let (env, browser) = signed_in().await;
        env.clock.advance(MINUTE * minutes);
        let groups: Vec<_> = (0..2000).map(|nth| format!("group-{nth:08}")).collect();
        let large = env.provider.token().subject("bob-id").claim("groups", groups).sign();
        env.provider.fail(ProviderEndpoint::Token, Fault::member("access_token", large));
        browser.get("/me").await;
        assert!(browser.cookie_names().is_empty(), "the spent refresh token is gone");
        assert_eq!(browser.get("/me").await.status, 401);
        let revoked = env.provider.received(ProviderEndpoint::Revocation).pop().unwrap().form();
        let spent = env.provider.received(ProviderEndpoint::Token).pop().unwrap().form();
        let token = |form: &[(String, String)], name: &str| {
            form.iter().find(|(known, _)| known == name).unwrap().1.clone()
        };
        assert_ne!(token(&revoked, "token"), token(&spent, "refresh_token"), "its successor");
        assert_eq!(env.provider.refresh_reuses(), 0);
        assert!(log.text().contains("a session does not fit into cookies"));
    }
}

#[tokio::test]
async fn last_seconds_of_a_token_wait_for_the_next() {
    // Its `exp` is in whole seconds, so it ends a little before `expires_in` says.
    let begun = SystemTime::UNIX_EPOCH + Duration::from_millis(1_778_935_867_700);
    let setup = || {
        let clock = ManualClock::at(begun);
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
    // While the provider is away it serves as long as it is good.
    let env = setup().build().await;
    let browser = env.visitor();
    env.sign_in(&browser).await;
    env.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    env.clock.advance(MINUTE * 60 - Duration::from_secs(3));
    assert_eq!(browser.get("/me").await.status, 200);
    assert!(!browser.session_cookies().is_empty());
}

#[tokio::test]
async fn sign_out_tells_what_was_not_revoked() {
    let keys = SealingKeys::random().unwrap();
    let setup = || Setup { sessions: Some(keys.clone()), ..Setup::default() };
    let env = setup().build().await;
    env.provider.fail(ProviderEndpoint::Discovery, Fault::without("revocation_endpoint"));
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

    // The token it was to become is not known: it may live.
    let log = Log::start();
    env.sign_in(&browser).await;
    env.clock.advance(MINUTE * 55);
    env.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    assert!(browser.cookie_names().is_empty());
    assert!(warned(&log), "a renewal that failed: {}", log.text());
}

#[tokio::test]
async fn new_cookies_are_for_no_shared_cache() {
    let (env, browser) = signed_in().await;
    env.clock.advance(MINUTE * 52);
    let answer = browser.get("/cached").await;
    assert_eq!(answer.header("cache-control"), "private", "{answer:?}");
    assert_eq!(browser.get("/cached").await.header("cache-control"), "public, max-age=60");
}

#[tokio::test]
async fn sign_out_works_while_the_provider_is_away() {
    for (minutes, revocation, status) in [(0, 503, 503), (61, 503, 503), (61, 200, 204)] {
        let (env, browser) = signed_in().await;
        env.clock.advance(MINUTE * minutes);
        env.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
        if revocation != 200 {
            env.provider.fail(ProviderEndpoint::Revocation, Fault::Status(revocation));
        }
        // What anybody gets.
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
async fn slow_renewal_holds_no_request_whose_token_serves() {
    let (env, browser) = signed_in().await;
    env.clock.advance(MINUTE * 60 - Duration::from_millis(1200));
    env.provider.fail(ProviderEndpoint::Token, Fault::Hang);
    let answer =
        env.while_slow_runs(&browser, async { env.provider.heal(ProviderEndpoint::Token) }).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "bob-id"), "{answer:?}");
    // It went on meanwhile: the answer brings what came of it.
    assert!(answer.headers.contains_key("set-cookie"), "{answer:?}");
    assert_eq!(env.provider.granted("refresh_token"), 1);
}

#[tokio::test]
async fn cookies_of_the_old_kind_are_cleared() {
    let old = ["__Host-session", "__Host-session.1", "__Host-session.3"];
    let put = |browser: &Visitor| {
        let mut jar = browser.cookies.lock().unwrap();
        jar.extend(old.map(|name| (name.to_owned(), "sealed".to_owned())));
    };
    let (env, browser) = signed_in().await;
    let session = browser.session_cookies();
    put(&browser);
    let me = browser.get("/me").await;
    assert_eq!((me.status, me.body.as_str()), (200, "bob-id "), "the service sees none");
    assert_eq!(browser.session_cookies(), session);
    let stranger = env.visitor();
    put(&stranger);
    assert_eq!(stranger.get("/public").await.status, 200);
    assert!(stranger.cookie_names().is_empty());
}

/// Denies bob once it is switched on.
#[derive(Debug, Clone, Default)]
struct NoBob(Arc<AtomicBool>);

#[async_trait]
impl AdmissionCheck for NoBob {
    async fn admit(&self, request: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        let is_denied = self.0.load(Ordering::SeqCst) && request.identity.subject() == "bob-id";
        let denied = Admission::Deny(InvalidToken::Revoked.into());
        Ok(if is_denied { denied } else { Admission::Allow })
    }
}

#[tokio::test]
async fn denied_user_loses_the_session_and_begins_no_other() {
    let (no_bob, setup) = (NoBob::default(), Setup::with_sessions());
    let check = no_bob.clone();
    let env = setup.auth(|auth| auth.admission(check)).build().await;
    let browser = env.visitor();
    assert_eq!(env.sign_in(&browser).await.status, 303);
    assert_eq!(browser.get("/me").await.status, 200);
    no_bob.0.store(true, Ordering::SeqCst);
    let denied = browser.get("/me").await;
    assert_eq!((denied.status, denied.error().as_deref()), (401, Some("invalid_token")));
    let again = env.visitor();
    let refused = env.sign_in(&again).await;
    refused.refused(400, "invalid_grant");
    assert!(again.session_cookies().is_empty());
    assert_eq!(env.sign_in_as("alice", &again).await.status, 303);
    // Whom the service does not want may still sign out.
    let left = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    assert_eq!((left.status, browser.session_cookies().len()), (204, 0), "{left:?}");
}

/// Signs in a user whose access token is bound to a key.
async fn refuses_a_session_for_a_bound_token(env: &TestEnv) {
    let thumbprint = serde_json::json!({ "jkt": "A".repeat(43) });
    env.provider.register_user(User::new("carol", "secret").claim("cnf", thumbprint));
    let browser = env.visitor();
    let refused = env.sign_in_as("carol", &browser).await;
    assert_eq!(refused.status, 500, "{refused:?}");
    assert!(browser.session_cookies().is_empty());
}

/// No request of the browser's could prove that it has the key.
#[tokio::test]
async fn bound_access_token_begins_no_session() {
    let env = Setup::with_sessions().build().await;
    refuses_a_session_for_a_bound_token(&env).await;
}

/// Hands out bound identities, whatever its caller allows.
#[derive(Debug, Clone, Default)]
struct Careless(Arc<OnceLock<JwksValidator>>);

#[async_trait]
impl TokenValidator for Careless {
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        self.0.get().is_some_and(|validator| validator.accepts(presented))
    }

    async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError> {
        self.0.get().unwrap().validate(&presented.allow_bound()).await
    }
}

#[tokio::test]
async fn careless_validator_begins_no_session_with_a_bound_token() {
    let (careless, setup) = (Careless::default(), Setup::with_sessions());
    let validator = careless.clone();
    let env = setup.auth(|auth| auth.validator(validator)).build().await;
    let mut config = AuthConfig::default();
    config.issuers = vec![local(env.provider.issuer())];
    config.audience = vec!["scaiwave".to_owned()];
    let validator = JwksValidator::with_clock(&config, Arc::new(env.clock.clone())).unwrap();
    careless.0.set(validator).unwrap();
    refuses_a_session_for_a_bound_token(&env).await;
    assert_eq!(env.sign_in(&env.visitor()).await.status, 303);
}

#[tokio::test]
async fn denied_user_signs_in_to_no_tokens() {
    let no_bob = NoBob::default();
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
    env.sign_in(&env.visitor()).await.refused(400, "invalid_grant");
    redeem().await.refused(400, "invalid_grant");
    assert_eq!(env.sign_in_as("alice", &env.visitor()).await.status, 200);
}
