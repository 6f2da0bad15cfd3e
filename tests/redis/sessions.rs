//! Browser sessions that several processes serve.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use axum::{Router, routing::get};
use scaikey_auth::TokenCache;
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::exchange::{RedisCache, SealingKeys};
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Client, ManualClock, Provider, User};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::fixture::{OLD, keys, layered};
use super::server::Redis;
use crate::support::stored_sessions::{wave_auth, wave_client};

const REDIRECT: &str = "https://wave.example/v1/auth/login";

/// Returns the router of one process. Processes share only Redis and the keys.
fn process(provider: &Provider, clock: &ManualClock, server: &Redis) -> Router {
    process_with(provider, clock, layered(&server.url()), Duration::from_secs(60))
}

fn process_with(
    provider: &Provider,
    clock: &ManualClock,
    cache: impl TokenCache,
    cache_timeout: Duration,
) -> Router {
    let auth = wave_auth(provider, clock);
    let client = wave_client(provider, clock).cache(cache).cache_timeout(cache_timeout);
    let client = client.cache_keys(keys(OLD)).build().unwrap();
    let session_keys = SealingKeys::parse(&OLD.into()).unwrap();
    let sessions = Sessions::builder(&auth, client.clone(), session_keys).build().unwrap();
    let endpoints = auth.endpoints().client(client).sessions(sessions.clone());
    let sign_in = SignIn::new(REDIRECT).scopes("openid");
    Router::new()
        .route("/me", get(async || "me"))
        .layer(auth.layer())
        .layer(endpoints.sign_in(sign_in).build().unwrap())
        .layer(sessions.layer())
}

async fn ask(process: &Router, path: &str, cookie: &str) -> Response<Body> {
    let request = Request::builder().uri(path).header("cookie", cookie).body(Body::empty());
    process.clone().oneshot(request.unwrap()).await.unwrap()
}

fn cookie_of(answer: &Response<Body>) -> String {
    cookies_after("", answer)
}

/// Returns the cookies of a browser after this answer.
fn cookies_after(before: &str, answer: &Response<Body>) -> String {
    let mut jar: BTreeMap<_, _> =
        before.split("; ").filter_map(|pair| pair.split_once('=')).collect();
    for cookie in answer.headers().get_all("set-cookie") {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        match value {
            "" => jar.remove(name),
            _ => jar.insert(name, value),
        };
    }
    let pairs: Vec<_> = jar.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("; ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_renew_a_session_once() {
    let (server, clock) = (Redis::start(), ManualClock::new());
    let provider = provider(&clock).await;
    let processes = [(); 2].map(|()| process(&provider, &clock, &server));

    // One process starts the sign-in, the other completes it.
    let (back, transaction) = signed_in_at(&provider, &processes[0]).await;
    let arrived = ask(&processes[1], &back, &transaction).await;
    assert_eq!(arrived.status(), 303);
    let mut session = cookie_of(&arrived);

    for round in 1..=3 {
        clock.advance(Duration::from_secs(55 * 60));
        let (mut requests, mut renewed) = (JoinSet::new(), String::new());
        for nth in 0..20 {
            let (process, session) = (processes[nth % 2].clone(), session.clone());
            requests.spawn(async move { ask(&process, "/me", &session).await });
        }
        for answer in requests.join_all().await {
            assert_eq!(answer.status(), 200);
            renewed = cookies_after(&session, &answer);
        }
        session = renewed;
        assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (round, 0));
    }
}

async fn provider(clock: &ManualClock) -> Provider {
    let provider = Provider::builder().clock(clock.clone()).start().await;
    provider.register_client(Client::new("wave", "secret").scopes("openid").redirect_uri(REDIRECT));
    provider.register_user(User::new("bob", "hunter2"));
    provider
}

/// Starts a sign-in at this process. Returns the URL of the callback and the transaction cookie.
async fn signed_in_at(provider: &Provider, process: &Router) -> (String, String) {
    let away = ask(process, "/v1/auth/login?return_to=/me", "").await;
    let url = url::Url::parse(away.headers()["location"].to_str().unwrap()).unwrap();
    let asked = |name: &str| {
        let (_, value) = url.query_pairs().find(|(known, _)| known == name).unwrap();
        value.into_owned()
    };
    let (challenge, nonce) = (asked("code_challenge"), asked("nonce"));
    let code = provider.authorize_with("bob", "wave", REDIRECT, &challenge, "openid", Some(&nonce));
    let issuer: String =
        url::form_urlencoded::byte_serialize(provider.issuer().as_bytes()).collect();
    let back = format!("/v1/auth/login?code={code}&state={}&iss={issuer}", asked("state"));
    (back, cookie_of(&away))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_callback_redeems_the_code_once() {
    let (server, clock) = (Redis::start(), ManualClock::new());
    let provider = provider(&clock).await;
    let processes = [(); 2].map(|()| process(&provider, &clock, &server));
    let (back, transaction) = signed_in_at(&provider, &processes[0]).await;
    let mut callbacks = JoinSet::new();
    for nth in 0..6 {
        let (process, back, cookie) =
            (processes[nth % 2].clone(), back.clone(), transaction.clone());
        callbacks.spawn(async move { ask(&process, &back, &cookie).await });
    }
    let mut session = String::new();
    for answer in callbacks.join_all().await {
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (303, &"/me".parse().unwrap())
        );
        session = cookie_of(&answer);
    }
    assert_eq!(provider.granted("authorization_code"), 1);
    // The provider received the code once, so the session is valid.
    clock.advance(Duration::from_secs(55 * 60));
    assert_eq!(ask(&processes[0], "/me", &session).await.status(), 200);
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_survives_unavailable_cache() {
    let (server, clock) = (Redis::start(), ManualClock::new());
    let provider = provider(&clock).await;
    let process = process(&provider, &clock, &server);
    let (back, transaction) = signed_in_at(&provider, &process).await;
    let session = cookie_of(&ask(&process, &back, &transaction).await);
    let short = Duration::from_secs(1);
    let usual = RedisCache::open(&server.url()).unwrap();
    let process = process_with(&provider, &clock, usual, short);
    server.pause();
    // The access token works until it expires, and the cookie does not change.
    for (minutes, status) in [(55, 200), (10, 503)] {
        clock.advance(Duration::from_secs(minutes * 60));
        let answer = ask(&process, "/me", &session).await;
        assert_eq!(answer.status(), status);
        assert!(!answer.headers().contains_key("set-cookie"));
        assert_eq!(answer.headers().contains_key("retry-after"), status == 503);
    }
    // The answer names the token store, not the provider, as unavailable.
    let request = Request::post("/v1/auth/refresh")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from("refresh_token=a-token-that-nobody-spends"));
    let answer = process.clone().oneshot(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 503);
    let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("token store") && !text.contains("provider"), "{text}");
    assert_eq!(provider.granted("refresh_token"), 0);
    server.resume();
    crate::support::eventually(async || ask(&process, "/me", &session).await.status() == 200).await;
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (1, 0));
}
