//! What a sign-out, a report or a revocation leaves of sessions: in copies, in other tabs and on other devices.

use std::sync::atomic::Ordering;

use axum::http::Method;
use scaikey_auth::Auth;
use scaikey_auth::clock::Clock;
use scaikey_auth::config::{Algorithm, IdentitySource};
use scaikey_auth::revocation::{MemoryRevocationLog, Revocation, Revocations};
use scaikey_auth::session::StoredSession;
use scaikey_auth::testing::{Client, Fault, ProviderEndpoint};

use super::super::env::{BYE, MINUTE, REDIRECT, Setup, TestEnv, Visitor};
use super::revoked::{
    KINDS, Kind, SIGNED_IN, SIGNED_OUT, Site, Unreliable, site, site_with, status,
};
use super::{LOGOUT, SAME, SESSIONS, seconds, sign_in, signed_in};
use crate::support::{Answer, MetricsRecorder, eventually, local};

async fn sign_out(browser: &Visitor) -> Answer {
    browser.send(Method::POST, LOGOUT, &[SAME], "").await
}

#[tokio::test]
async fn unread_log_renews_no_fresh_session() {
    let site = site(Kind::InCookies).await;
    let (browser, _) = site.sign_in("bob").await;
    // Another process, which has read nothing yet.
    let log = MemoryRevocationLog::default();
    let revocations = Revocations::builder().log(log).clock(site.env.clock.clone()).build();
    let auth = Auth::builder().issuer(local(site.issuer())).audience("scaiwave");
    let auth = auth.clock(site.env.clock.clone()).revocations(revocations).build().unwrap();
    let setup = Setup { sessions: Some(site.service.keys.clone()), ..Setup::default() };
    let env = TestEnv { auth, ..site.env }.start_process(setup).await;
    let browser = browser.at(&env);
    for _ in 0..5 {
        assert_eq!(status(&browser).await, SIGNED_IN);
    }
    assert_eq!(env.provider.granted("refresh_token"), 0);
}

/// Sessions in cookies, by access tokens or by ID tokens.
async fn cookie_site(source: IdentitySource) -> Site {
    let change = move |mut setup: Setup| {
        setup.session_settings = Box::new(move |sessions| sessions.identity_from(source));
        setup
    };
    let site = site_with(Kind::InCookies, None, change).await;
    if source == IdentitySource::IdToken {
        let wave = Client::new("wave", "secret").scopes("openid docs:read").redirect_uri(REDIRECT);
        site.env.provider.register_client(wave.opaque_access_tokens("ya29."));
    }
    site
}

#[tokio::test]
async fn cookie_copies_are_worthless_after_sign_out() {
    for source in [IdentitySource::AccessToken, IdentitySource::IdToken] {
        for minutes in [0, 2, 20, 56, 600] {
            let site = cookie_site(source).await;
            let (browser, _) = site.sign_in("bob").await;
            let (other, _) = site.sign_in("bob").await;
            let before = browser.copy_at(&site.env.api);
            site.env.clock.advance(MINUTE * 55);
            assert_eq!(status(&browser).await, SIGNED_IN, "with new tokens");
            let copy = browser.copy_at(&site.env.api);
            // The refresh token stays valid.
            site.env.provider.fail(ProviderEndpoint::Revocation, Fault::Status(503));
            assert_eq!(sign_out(&browser).await.status, 503);
            let grants = site.env.provider.granted("refresh_token");
            site.env.clock.advance(MINUTE * minutes);
            for copy in [before, copy] {
                assert_eq!(status(&copy).await, SIGNED_OUT, "{source:?} {minutes}");
            }
            assert_eq!(site.env.provider.granted("refresh_token"), grants, "{source:?} {minutes}");
            assert_eq!(status(&other).await, SIGNED_IN, "{source:?} {minutes}");
            site.sign_in_with("bob", &browser).await;
        }
    }
}

#[tokio::test]
async fn one_failure_hinders_no_other_revocation() {
    let log = Unreliable::default();
    let revocations = Revocations::builder().log(log.clone()).build();
    let site = site_with(Kind::InStore, Some(revocations), |setup| setup).await;
    let (_, one) = site.sign_in("bob").await;
    let (_, two) = site.sign_in("bob").await;
    site.env.clock.advance(MINUTE);
    let (browser, _) = site.sign_in("bob").await;
    log.is_away.store(true, Ordering::SeqCst);
    let ended = browser.send(Method::DELETE, &format!("{SESSIONS}?others=true"), &[SAME], "").await;
    assert_eq!(ended.json()["ended"], 2);
    assert_eq!([&one, &two].map(|it| site.is_revoked(it)), [true; 2], "in this process");
}

#[tokio::test]
async fn session_without_owner_is_none() {
    let (_env, service, browser) = signed_in().await;
    assert_eq!(status(&browser).await, SIGNED_IN);
    let id = service.store.all().await[0].id;
    service.store.change(&id, |session| session.value[10] ^= 1).await;
    assert_eq!(status(&browser).await, SIGNED_OUT);
}

#[tokio::test]
async fn clock_behind_refuses_no_new_sign_in() {
    for path in [LOGOUT, SESSIONS] {
        let site = site(Kind::InStore).await;
        let (browser, _) = site.sign_in("bob").await;
        let method = if path == LOGOUT { Method::POST } else { Method::DELETE };
        assert!(browser.send(method, path, &[SAME], "").await.status < 300);
        site.env.clock.set_wall(site.env.clock.now() - seconds(2));
        let again = site.sign_in_with("bob", &browser).await;
        assert_eq!((site.is_revoked(&again), status(&browser).await), (false, SIGNED_IN), "{path}");
    }
}

#[tokio::test]
async fn sign_out_of_a_revoked_session_succeeds() {
    for kind in KINDS {
        let site = site(kind).await;
        let (browser, _) = site.sign_in("bob").await;
        site.env.clock.advance(MINUTE * 5);
        site.revoke(Revocation::client(site.issuer(), "wave")).await;
        let out = sign_out(&browser).await;
        assert_eq!((out.status, browser.session_cookies().len()), (204, 0), "{kind:?} {out:?}");
        assert_eq!(site.env.provider.requests(ProviderEndpoint::Revocation), 1, "{kind:?}");
        assert_eq!(site.env.provider.granted("refresh_token"), 0, "{kind:?}");
        assert_eq!(sign_out(&browser).await.status, 400, "there is no session");
    }
}

/// The revocation is older than the token that the session would get.
#[tokio::test]
async fn session_in_failing_store_is_not_renewed() {
    let (env, service, browser) = signed_in().await;
    service.store.fail_removals(1_000);
    env.clock.advance(MINUTE * 5);
    let bob = Revocation::subject(env.provider.issuer(), "bob-id");
    env.auth.revocations().revoke(bob).await.unwrap();
    for minutes in [50, 20] {
        env.clock.advance(MINUTE * minutes);
        let (id, now) = (service.store.all().await[0].id, env.clock.now());
        let use_now = |it: &mut StoredSession| (it.used_at, it.expires_at) = (now, it.ends_at);
        service.store.change(&id, use_now).await;
        assert_eq!(status(&browser).await, SIGNED_OUT, "{minutes}");
    }
    assert_eq!((env.provider.granted("refresh_token"), service.store.all().await.len()), (0, 1));
}

#[tokio::test]
async fn sign_out_ends_older_sessions_of_browser() {
    let (env, service, one) = signed_in().await;
    let (bob, two) = (one.copy_at(&env.api), env.visitor());
    env.clock.advance(seconds(1));
    env.sign_in_as("alice", &two).await;
    let other = sign_in(&env).await;
    // As after two tabs signed in at the same time.
    one.cookies.lock().unwrap().extend(two.session_cookies());
    env.provider.fail(ProviderEndpoint::Revocation, Fault::Hang);
    let meanwhile = async {
        eventually(async || env.provider.requests(ProviderEndpoint::Revocation) == 1).await;
        assert_eq!(service.store.all().await.len(), 1, "no session waits for the provider");
        env.provider.heal(ProviderEndpoint::Revocation);
    };
    let (out, ()) = tokio::join!(sign_out(&one), meanwhile);
    assert_eq!(out.status, 204, "{out:?}");
    assert!(one.session_cookies().is_empty());
    for browser in [&one, &bob, &two] {
        assert_eq!(status(browser).await, SIGNED_OUT);
    }
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 2, "of both sessions");
    assert_eq!((status(&other).await, service.store.all().await.len()), (SIGNED_IN, 1));
}

#[tokio::test]
async fn revoked_sessions_are_counted_once() {
    let recorder = MetricsRecorder::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let revoked = || recorder.sum_of(&["scaikey_auth_sessions_closed_total", "revoked"]);
    let mut expected = 0;
    for kind in KINDS {
        let site = site(kind).await;
        for minutes in [0, 55, 61] {
            let (browser, _) = site.sign_in("bob").await;
            site.age(minutes).await;
            assert_eq!(sign_out(&browser).await.status, 204, "{kind:?}");
            assert_eq!(revoked(), expected, "{kind:?}: a sign-out is none");
        }
        for minutes in [5, 55, 61] {
            let (browser, _) = site.sign_in("bob").await;
            site.age(minutes).await;
            site.revoke(Revocation::client(site.issuer(), "wave")).await;
            assert_eq!(status(&browser).await, SIGNED_OUT, "{kind:?}");
            expected += 1;
            assert_eq!(revoked(), expected, "{kind:?} {minutes}");
            site.env.clock.advance(MINUTE);
        }
    }
}

/// Signs bob in with a new browser. His access token has no `sid`.
async fn sign_in_without_sid(site: &Site) -> Visitor {
    let token = site.env.provider.token().subject("bob-id").without("sid");
    let token = token.claim("client_id", "wave").sign();
    let replaced = Fault::replace_member("access_token", token);
    site.env.provider.fail(ProviderEndpoint::Token, replaced);
    let (browser, bob) = site.sign_in("bob").await;
    site.env.provider.heal(ProviderEndpoint::Token);
    assert_eq!(bob.session_id(), None);
    browser
}

#[tokio::test]
async fn reports_spare_other_devices() {
    for kind in KINDS {
        let change = |mut setup: Setup| {
            let before = std::mem::replace(&mut setup.session_settings, Box::new(|it| it));
            setup.session_settings = Box::new(move |it| before(it).end_at_provider(BYE));
            // Its ID tokens have no `at_hash`.
            Setup { algorithms: vec![Algorithm::ES384], ..setup }
        };
        let site = site_with(kind, None, change).await;
        let (one, two) = (sign_in_without_sid(&site).await, sign_in_without_sid(&site).await);
        site.env.clock.advance(MINUTE);
        let url = sign_out(&one).await.json()["end_session_url"].as_str().unwrap().to_owned();
        let hint = url.split("id_token_hint=").nth(1).unwrap().split('&').next().unwrap();
        let claims = hint.split('.').nth(1).unwrap().as_bytes();
        let claims = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(claims).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        site.report(site.logout_token_for("bob-id", claims["sid"].as_str().unwrap())).await;
        assert_eq!(status(&two).await, (401, true), "{kind:?}: a new token may be refused, too");
        site.env.clock.advance(seconds(15));
        assert_eq!(status(&two).await, SIGNED_IN, "{kind:?}");
        assert_eq!(site.env.provider.granted("refresh_token"), 1, "{kind:?}");
    }
}
