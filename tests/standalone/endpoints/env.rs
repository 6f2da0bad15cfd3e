//! A service with all endpoints, its provider, and an HTTP client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::{Router, routing::get};
use scaikey_auth::config::Algorithm;
use scaikey_auth::endpoints::{EndpointsBuilder, PasswordDecision, SignIn};
use scaikey_auth::exchange::{SealingKeys, TokenExchangeBuilder};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::registrar::MemoryRegistrar;
use scaikey_auth::session::{Sessions, SessionsBuilder};
use scaikey_auth::testing::{Client, ManualClock, Provider, User};
use scaikey_auth::{Auth, AuthBuilder, Identity, IssuerConfig, TokenExchangeClient};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::support::http::{self, Answer};
use crate::support::local;

/// The registered redirect URI. Tests send the callback to the address where the service listens.
pub(crate) const REDIRECT: &str = "https://wave.example/v1/auth/login";

/// Registered pages after a sign-out at the provider: a page of the service, and its endpoint.
pub(crate) const BYE: &str = "https://wave.example/bye";
pub(crate) const LOGOUT: &str = "https://wave.example/v1/auth/logout";
/// The redirect URI of a service that browsers see under `/app`.
pub(crate) const SUB_PATH_REDIRECT: &str = "https://wave.example/app/v1/auth/login";

pub(crate) struct TestEnv {
    pub(crate) provider: Provider,
    pub(crate) clock: ManualClock,
    pub(crate) auth: Auth,
    pub(crate) client: TokenExchangeClient,
    pub(crate) api: String,
    pub(crate) slow: Arc<SlowHandler>,
}

/// Controls the handler of `/slow`, which reports its start and waits to be resumed.
#[derive(Default)]
pub(crate) struct SlowHandler {
    pub(crate) started: Notify,
    pub(crate) resume: Notify,
}

/// Changes to the default [`TestEnv`].
pub(crate) struct Setup {
    pub(crate) auth: Box<dyn FnOnce(AuthBuilder) -> AuthBuilder>,
    pub(crate) issuer: Box<dyn FnOnce(IssuerConfig) -> IssuerConfig>,
    pub(crate) sessions: Option<SealingKeys>,
    pub(crate) session_settings: Box<dyn FnOnce(SessionsBuilder) -> SessionsBuilder>,
    pub(crate) endpoints: Box<dyn FnOnce(EndpointsBuilder) -> EndpointsBuilder>,
    pub(crate) sign_in: Box<dyn FnOnce(SignIn) -> SignIn>,
    pub(crate) clock: ManualClock,
    /// The start of all routes, where no proxy removes it.
    pub(crate) base: &'static str,
    /// Allowed clock difference between provider and service.
    pub(crate) leeway: Duration,
    /// The algorithms of the provider. It signs with the first.
    pub(crate) algorithms: Vec<Algorithm>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            auth: Box::new(|auth| auth),
            issuer: Box::new(|issuer| issuer),
            sessions: None,
            session_settings: Box::new(|sessions| sessions),
            endpoints: Box::new(|endpoints| endpoints),
            sign_in: Box::new(|sign_in| sign_in),
            clock: ManualClock::new(),
            base: "",
            leeway: MINUTE,
            algorithms: vec![Algorithm::RS256, Algorithm::ES256],
        }
    }
}

impl Setup {
    pub(crate) fn with_sessions() -> Self {
        Self { sessions: Some(SealingKeys::random().unwrap()), ..Self::default() }
    }

    pub(crate) fn auth(
        mut self,
        change: impl FnOnce(AuthBuilder) -> AuthBuilder + 'static,
    ) -> Self {
        self.auth = Box::new(change);
        self
    }

    pub(crate) fn issuer(
        mut self,
        change: impl FnOnce(IssuerConfig) -> IssuerConfig + 'static,
    ) -> Self {
        self.issuer = Box::new(change);
        self
    }

    pub(crate) fn endpoints(
        mut self,
        change: impl FnOnce(EndpointsBuilder) -> EndpointsBuilder + 'static,
    ) -> Self {
        self.endpoints = Box::new(change);
        self
    }

    /// Makes sign-outs end the provider's session, which then redirects to this page.
    pub(crate) fn end_at_provider(mut self, page: &'static str) -> Self {
        self.session_settings = Box::new(move |sessions| sessions.end_at_provider(page));
        self
    }

    pub(crate) fn sign_in(mut self, change: impl FnOnce(SignIn) -> SignIn + 'static) -> Self {
        self.sign_in = Box::new(change);
        self
    }

    pub(crate) async fn build(mut self) -> TestEnv {
        let clock = self.clock.clone();
        let algorithms = std::mem::take(&mut self.algorithms);
        let provider = Provider::builder().clock(clock.clone()).algorithms(algorithms.clone());
        let provider = provider.start().await;
        let wave = Client::new("wave", "secret").scopes("openid docs:read");
        let wave = wave.redirect_uri(REDIRECT).redirect_uri(SUB_PATH_REDIRECT);
        let wave = wave.post_logout_redirect_uri(BYE).post_logout_redirect_uri(LOGOUT);
        provider.register_client(wave);
        provider.register_user(User::new("bob", "hunter2"));
        provider.register_user(User::new("alice", "wonderland"));
        let change = std::mem::replace(&mut self.issuer, Box::new(|issuer| issuer));
        let issuer = local(provider.issuer()).leeway(self.leeway).algorithms(algorithms);
        let issuer = change(issuer);
        let auth = Auth::builder().issuer(issuer).audience("scaiwave").clock(clock.clone());
        let auth = auth.verified_tokens_bytes(1 << 20).resource("https://wave.example");
        let change = std::mem::replace(&mut self.auth, Box::new(|auth| auth));
        let auth = change(auth).build().unwrap();
        let client = client(&provider, &clock).build().unwrap();
        let env =
            TestEnv { provider, clock, auth, client, api: String::new(), slow: Arc::default() };
        env.start_process(self).await
    }
}

impl TestEnv {
    pub(crate) async fn new() -> Self {
        Setup::default().build().await
    }

    /// Replaces the token client, as in another process, which shares no memory.
    pub(crate) fn with_new_client(mut self) -> Self {
        self.client = client(&self.provider, &self.clock).build().unwrap();
        self
    }

    /// Starts another process of the service, with a changed client.
    pub(crate) async fn with_client(
        mut self,
        change: impl FnOnce(TokenExchangeBuilder) -> TokenExchangeBuilder,
    ) -> Self {
        self.client = change(client(&self.provider, &self.clock)).build().unwrap();
        self.start_process(Setup::default()).await
    }

    /// Starts another process of the same service.
    pub(crate) async fn start_process(mut self, setup: Setup) -> Self {
        self.api = self.serve(self.client.clone(), setup).await;
        self
    }

    /// Starts another process beside this one, which shares no memory with it. Returns its address.
    pub(crate) async fn start_beside(&self, setup: Setup) -> String {
        let client = client(&self.provider, &self.clock).build().unwrap();
        self.serve(client, setup).await
    }

    async fn serve(&self, client: TokenExchangeClient, setup: Setup) -> String {
        let sign_in = SignIn::new(REDIRECT).scopes("openid docs:read");
        let at = |path: &str| format!("{}{path}", setup.base);
        let mut endpoints = self
            .auth
            .endpoints()
            .client(client.clone())
            .sign_in((setup.sign_in)(sign_in))
            .registrar(MemoryRegistrar::new().clock(self.clock.clone()))
            .password_grant(|_| PasswordDecision::Allow);
        let mut app = Router::new()
            .route(&at("/me"), get(me).post(me))
            .route(&at("/slow"), get(slow).with_state(self.slow.clone()))
            .layer(self.auth.layer())
            .route(&at("/public"), get(public))
            .route(&at("/own-401"), get(async || StatusCode::UNAUTHORIZED))
            .route(&at("/basic-401"), get(basic))
            .route(&at("/grpc"), get(async || [("grpc-status", "16")]))
            .route(&at("/cached"), get(async || [("cache-control", "public, max-age=60")]));
        let sessions = setup.sessions.map(|keys| {
            let sessions = Sessions::builder(&self.auth, client, keys);
            // Long enough for a busy machine.
            let sessions = sessions.renewal_wait(MINUTE);
            let sessions = sessions.trusted_origin("https://spa.example");
            (setup.session_settings)(sessions).build().unwrap()
        });
        if let Some(sessions) = &sessions {
            endpoints = endpoints.sessions(sessions.clone());
        }
        app = app.layer((setup.endpoints)(endpoints).build().unwrap());
        if let Some(sessions) = &sessions {
            app = app.layer(sessions.layer());
        }
        serve(app).await
    }

    pub(crate) fn visitor(&self) -> Visitor {
        Visitor::new(&self.api)
    }

    /// Signs bob in at the provider, and returns the callback to the service.
    pub(crate) fn callback_path(&self, location: &str) -> String {
        self.callback_path_for("bob", location)
    }

    pub(crate) fn callback_path_for(&self, user: &str, location: &str) -> String {
        let query: BTreeMap<_, _> =
            url::Url::parse(location).unwrap().query_pairs().into_owned().collect();
        let redirect = query["redirect_uri"].as_str();
        assert!([REDIRECT, SUB_PATH_REDIRECT].contains(&redirect));
        assert_eq!(query["code_challenge_method"], "S256");
        let code = self.provider.authorize_with(
            user,
            "wave",
            redirect,
            &query["code_challenge"],
            query.get("scope").map_or("", String::as_str),
            query.get("nonce").map(String::as_str),
        );
        let (state, issuer) = (&query["state"], self.provider.issuer());
        let login = url::Url::parse(redirect).unwrap().path().to_owned();
        format!("{login}?code={code}&state={state}&iss={}", encoded(&issuer))
    }

    /// Signs bob in with this browser.
    pub(crate) async fn sign_in(&self, browser: &Visitor) -> Answer {
        self.sign_in_as("bob", browser).await
    }

    pub(crate) async fn sign_in_as(&self, user: &str, browser: &Visitor) -> Answer {
        let redirect = browser.get("/v1/auth/login?return_to=/me").await;
        assert_eq!(redirect.status, 303, "{redirect:?}");
        let callback = self.callback_path_for(user, redirect.header("location"));
        browser.get(&callback).await
    }

    /// Runs `meanwhile` while `/slow` serves the browser, and returns the answer of `/slow`.
    pub(crate) async fn while_slow_runs(
        &self,
        browser: &Visitor,
        meanwhile: impl Future<Output = ()>,
    ) -> Answer {
        let meanwhile = async {
            self.slow.started.notified().await;
            meanwhile.await;
            self.slow.resume.notify_one();
        };
        tokio::join!(browser.get("/slow"), meanwhile).0
    }

    pub(crate) async fn bob_tokens(&self) -> Value {
        let visitor = self.visitor();
        let form = "grant_type=password&username=bob&password=hunter2";
        visitor.post_form("/v1/auth/token", form).await.json()
    }
}

fn client(provider: &Provider, clock: &ManualClock) -> TokenExchangeBuilder {
    TokenExchangeClient::builder(provider.issuer())
        .allow_loopback_http(true)
        .client_auth(ClientAuth::basic("wave", "secret"))
        .enable_password_grant()
        .clock(clock.clone())
}

pub(crate) fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    api
}

async fn me(identity: Identity, headers: HeaderMap) -> String {
    let cookies = headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    format!("{} {}", identity.subject(), cookies.collect::<Vec<_>>().join("; "))
}

async fn slow(identity: Identity, State(slow): State<Arc<SlowHandler>>) -> String {
    slow.started.notify_one();
    slow.resume.notified().await;
    identity.subject().to_owned()
}

async fn basic() -> (StatusCode, [(&'static str, &'static str); 1]) {
    (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=\"wave\"")])
}

async fn public(headers: HeaderMap) -> (StatusCode, String) {
    (StatusCode::OK, format!("{}", headers.contains_key("authorization")))
}

/// An HTTP client that stores cookies and follows no redirects.
pub(crate) struct Visitor {
    http: reqwest::Client,
    api: String,
    pub(crate) cookies: Mutex<BTreeMap<String, String>>,
}

impl Visitor {
    pub(crate) fn new(api: &str) -> Self {
        Self { http: http::client(), api: api.to_owned(), cookies: Mutex::default() }
    }

    /// Returns a browser with copies of the cookies, which visits the process at this address.
    pub(crate) fn copy_at(&self, api: &str) -> Self {
        let cookies = self.cookies.lock().unwrap().clone();
        Self { cookies: Mutex::new(cookies), ..Self::new(api) }
    }

    /// Continues with another process of the service.
    pub(crate) fn at(self, env: &TestEnv) -> Self {
        Self { api: env.api.clone(), ..self }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn post_form(&self, path: &str, form: &str) -> Answer {
        let kind = ("content-type", "application/x-www-form-urlencoded");
        self.send(Method::POST, path, &[kind], form).await
    }

    pub(crate) async fn post_json(&self, path: &str, json: &Value) -> Answer {
        let kind = ("content-type", "application/json");
        self.send(Method::POST, path, &[kind], &json.to_string()).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.api));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let cookies: Vec<_> = self
            .cookies
            .lock()
            .unwrap()
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() {
            // Cookies of other pages may hold any bytes.
            let cookies = HeaderValue::from_bytes(cookies.join("; ").as_bytes()).unwrap();
            request = request.header("cookie", cookies);
        }
        let answer = http::send(request.body(body.to_owned())).await;
        self.store_cookies(&answer.headers);
        answer
    }

    fn store_cookies(&self, headers: &HeaderMap) {
        let mut kept = self.cookies.lock().unwrap();
        for cookie in headers.get_all("set-cookie") {
            let text = cookie.to_str().unwrap();
            assert!(text.contains("; Path=/;"), "{text}");
            let is_lax = text.ends_with("; Secure; HttpOnly; SameSite=Lax");
            // Only of a sign-in by form post: see `form_post.rs`.
            let is_cross_site = text.ends_with("; Secure; HttpOnly; SameSite=None");
            assert!(is_lax || (is_cross_site && text.starts_with("__Host-sign-in")), "{text}");
            assert!(text.starts_with("__Host-") && !text.contains("Domain"), "{text}");
            let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
            match text.contains("Max-Age=0;") {
                true => drop(kept.remove(name)),
                false => drop(kept.insert(name.to_owned(), value.to_owned())),
            }
        }
    }

    /// Returns the stored session cookies.
    pub(crate) fn session_cookies(&self) -> BTreeMap<String, String> {
        let kept = self.cookies.lock().unwrap();
        let session = kept.iter().filter(|(name, _)| name.starts_with("__Host-session"));
        session.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Returns the names of all stored cookies.
    pub(crate) fn cookie_names(&self) -> Vec<String> {
        self.cookies.lock().unwrap().keys().cloned().collect()
    }
}

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
