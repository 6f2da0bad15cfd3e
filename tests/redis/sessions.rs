//! Sessions of browsers that several processes serve.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use axum::{Router, routing::get};
use scaikey_auth::testing::{Client, ManualClock, Provider, User};
use scaikey_auth::{
    Auth, ClientAuth, IssuerConfig, SessionKeys, Sessions, SignIn, TokenExchangeClient,
};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::server::Redis;
use super::support::{OLD, keys, layered};

const REDIRECT: &str = "https://wave.example/v1/auth/login";

/// What one process serves. Nothing but Redis and the secrets is shared with others.
fn process(provider: &Provider, clock: &ManualClock, server: &Redis) -> Router {
    let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").clock(clock.clone());
    let auth = auth.build().unwrap();
    let client = TokenExchangeClient::builder(provider.issuer())
        .allow_loopback_http(true)
        .client_auth(ClientAuth::basic("wave", "secret"))
        .cache(layered(&server.url()))
        .cache_keys(keys(OLD))
        .clock(clock.clone())
        .build()
        .unwrap();
    let session_keys = SessionKeys::parse(&OLD.into()).unwrap();
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
    let cookies = answer.headers().get_all("set-cookie").iter();
    let mut pairs = cookies.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap());
    pairs.find(|pair| !pair.ends_with('=')).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_find_a_session_due_at_once_spend_its_refresh_token_once() {
    let (server, clock) = (Redis::start(), ManualClock::new());
    let provider = Provider::builder().clock(clock.clone()).start().await;
    provider.register_client(Client::new("wave", "secret").scopes("openid").redirect_uri(REDIRECT));
    provider.register_user(User::new("bob", "hunter2"));
    let processes = [(); 2].map(|()| process(&provider, &clock, &server));

    // One begins the sign-in, the other ends it.
    let away = ask(&processes[0], "/v1/auth/login?return_to=/me", "").await;
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
    let arrived = ask(&processes[1], &back, &cookie_of(&away)).await;
    assert_eq!(arrived.status(), 303);
    let mut session = cookie_of(&arrived);

    for round in 1..=3 {
        clock.advance(Duration::from_secs(55 * 60));
        let mut requests = JoinSet::new();
        for nth in 0..20 {
            let (process, session) = (processes[nth % 2].clone(), session.clone());
            requests.spawn(async move { ask(&process, "/me", &session).await });
        }
        for answer in requests.join_all().await {
            assert_eq!(answer.status(), 200);
            session = cookie_of(&answer);
        }
        assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (round, 0));
    }
}
