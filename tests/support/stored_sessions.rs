//! Processes of a service that share only a store of sessions.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use axum::{Router, routing::get};
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::exchange::{SealingKeys, TokenExchangeBuilder};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::session::{SessionId, SessionStore, Sessions};
use scaikey_auth::testing::{Client, Fault, ManualClock, Provider, ProviderEndpoint, User};
use scaikey_auth::{Auth, IssuerConfig, TokenExchangeClient};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::eventually;

const REDIRECT: &str = "https://wave.example/v1/auth/login";
const KEYS: &str = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
const MINUTE: Duration = Duration::from_secs(60);

/// A service of three processes, each with a connection of its own to the store.
pub(crate) struct Processes {
    pub(crate) provider: Provider,
    pub(crate) clock: ManualClock,
    routers: Vec<Router>,
}

impl Processes {
    pub(crate) async fn start<S: SessionStore>(store: impl Fn() -> S) -> Self {
        let clock = ManualClock::new();
        let provider = Provider::builder().clock(clock.clone()).start().await;
        let wave = Client::new("wave", "secret").scopes("openid").redirect_uri(REDIRECT);
        provider.register_client(wave);
        provider.register_user(User::new("bob", "hunter2"));
        let routers = (0..3).map(|_| router(&provider, &clock, store())).collect();
        Self { provider, clock, routers }
    }

    async fn send(&self, process: usize, request: Request<Body>) -> Response<Body> {
        self.routers[process].clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn get(&self, process: usize, path: &str, cookie: &str) -> Response<Body> {
        let request = Request::get(path).header("cookie", cookie).body(Body::empty());
        self.send(process, request.unwrap()).await
    }

    /// Returns the status of a page that needs an identity.
    pub(crate) async fn me(&self, process: usize, cookie: &str) -> u16 {
        self.get(process, "/me", cookie).await.status().as_u16()
    }

    /// Sends a state-changing request from a page of the service.
    pub(crate) async fn change(
        &self,
        process: usize,
        method: Method,
        path: &str,
        cookie: &str,
    ) -> StatusCode {
        let request = Request::builder().method(method).uri(path).header("cookie", cookie);
        let request = request.header("sec-fetch-site", "same-origin").body(Body::empty());
        self.send(process, request.unwrap()).await.status()
    }

    /// Signs bob in. Returns the cookie of the session.
    pub(crate) async fn sign_in(&self, process: usize) -> String {
        let arrived = self.try_sign_in(process).await;
        assert_eq!(arrived.status(), 303);
        cookie_of(&arrived)
    }

    /// Signs bob in at the provider. Returns the answer of the service to the code.
    pub(crate) async fn try_sign_in(&self, process: usize) -> Response<Body> {
        let away = self.get(process, "/v1/auth/login?return_to=/me", "").await;
        let url = url::Url::parse(away.headers()["location"].to_str().unwrap()).unwrap();
        let asked = |name: &str| {
            let (_, value) = url.query_pairs().find(|(known, _)| known == name).unwrap();
            value.into_owned()
        };
        let (challenge, nonce) = (asked("code_challenge"), asked("nonce"));
        let provider = &self.provider;
        let code =
            provider.authorize_with("bob", "wave", REDIRECT, &challenge, "openid", Some(&nonce));
        let issuer: String =
            url::form_urlencoded::byte_serialize(provider.issuer().as_bytes()).collect();
        let back = format!("/v1/auth/login?code={code}&state={}&iss={issuer}", asked("state"));
        self.get(process, &back, &cookie_of(&away)).await
    }
}

fn router(provider: &Provider, clock: &ManualClock, store: impl SessionStore) -> Router {
    let auth = wave_auth(provider, clock);
    let client = wave_client(provider, clock).build().unwrap();
    let keys = SealingKeys::parse(&KEYS.into()).unwrap();
    let sessions = Sessions::builder(&auth, client.clone(), keys).store(store);
    let sessions = sessions.idle(MINUTE * 600).build().unwrap();
    let endpoints = auth.endpoints().client(client).sessions(sessions.clone());
    let sign_in = SignIn::new(REDIRECT).scopes("openid");
    Router::new()
        .route("/me", get(async || "me").post(async || "me"))
        .layer(auth.layer())
        .layer(endpoints.sign_in(sign_in).build().unwrap())
        .layer(sessions.layer())
}

/// Returns the service `scaiwave`, which trusts this provider.
pub(crate) fn wave_auth(provider: &Provider, clock: &ManualClock) -> Auth {
    let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").clock(clock.clone());
    auth.build().unwrap()
}

/// Returns the service's client at this provider.
pub(crate) fn wave_client(provider: &Provider, clock: &ManualClock) -> TokenExchangeBuilder {
    TokenExchangeClient::builder(provider.issuer())
        .allow_loopback_http(true)
        .client_auth(ClientAuth::basic("wave", "secret"))
        .clock(clock.clone())
}

/// Returns the cookies that an answer sets.
fn cookie_of(answer: &Response<Body>) -> String {
    let set = answer.headers().get_all("set-cookie").iter();
    let pairs = set.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap());
    pairs.filter(|pair| !pair.ends_with('=')).collect::<Vec<_>>().join("; ")
}

/// Returns the key under which the store has the session of this cookie.
fn session_id(cookie: &str) -> SessionId {
    let (_, value) = cookie.split_once('=').unwrap();
    let (id, _) = value.split_once('.').unwrap();
    let id = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(id).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &id);
    SessionId::from_bytes(digest.as_ref().try_into().unwrap())
}

/// Checks that three processes with 50 requests each renew a session once, and see its end.
pub(crate) async fn check_three_processes<S: SessionStore>(store: impl Fn() -> S) {
    let processes = Arc::new(Processes::start(&store).await);
    let (provider, cookie) = (&processes.provider, processes.sign_in(0).await);
    let (store, id) = (store(), session_id(&cookie));
    // Due, and expired: then all requests wait.
    for (round, minutes) in [(1, 52), (2, 70)] {
        processes.clock.advance(MINUTE * minutes);
        provider.fail(ProviderEndpoint::Token, Fault::Slow(Duration::from_millis(200)));
        let mut requests = JoinSet::new();
        for nth in 0..150 {
            let (processes, cookie) = (processes.clone(), cookie.clone());
            requests.spawn(async move { processes.me(nth % 3, &cookie).await });
        }
        for status in requests.join_all().await {
            assert_eq!(status, 200, "{minutes}");
        }
        eventually(async || {
            // The lease is taken before the grant, and released with the new tokens.
            provider.granted("refresh_token") == round
                && store.load(&id).await.unwrap().unwrap().renewing_until.is_none()
        })
        .await;
        provider.heal(ProviderEndpoint::Token);
    }
    for process in 0..3 {
        assert_eq!(processes.me(process, &cookie).await, 200);
    }
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (2, 0));
    check_ends(&processes, &cookie).await;
}

/// Checks that each process sees the end of sessions by another.
async fn check_ends(processes: &Processes, cookie: &str) {
    let (second, third) = (processes.sign_in(1).await, processes.sign_in(2).await);
    let all = "/v1/auth/sessions";
    let listed = processes.get(1, all, cookie).await.into_body();
    let listed = axum::body::to_bytes(listed, 10_000).await.unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 3, "{listed}");
    assert_eq!(processes.change(2, Method::POST, "/v1/auth/logout", &second).await, 204);
    let path = format!("{all}?others=true");
    assert_eq!(processes.change(0, Method::DELETE, &path, cookie).await, 200);
    for process in 0..3 {
        let found = [cookie, &second, &third].map(|cookie| processes.me(process, cookie));
        let [first, second, third] = found;
        assert_eq!((first.await, second.await, third.await), (200, 401, 401), "{process}");
    }
    assert_eq!(processes.change(1, Method::DELETE, all, cookie).await, 200);
    for process in 0..3 {
        assert_eq!(processes.me(process, cookie).await, 401);
    }
}
