//! Sign-out (logout) at the provider, and attacks on it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, StatusCode};
use axum::routing::get;
use scaikey_auth::endpoints::{SignIn, TokenBuckets};
use scaikey_auth::exchange::{EndSessionRequest, ExchangeError, SealingKeys};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Fault, ManualClock, ProviderEndpoint, User};
use scaikey_auth::validator::insecure_decode_claims;
use scaikey_auth::{Auth, Identity, TokenExchangeClient};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::env::{BYE, LOGOUT, MINUTE, REDIRECT, Setup, TestEnv, Visitor, encoded};
use crate::support::http::{self, Answer};
use crate::support::{Log, Server, eventually, local, until, within_timeout};

const PATH: &str = "/v1/auth/logout";
const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");
const NAVIGATE: (&str, &str) = ("sec-fetch-mode", "navigate");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

async fn signed_in(setup: Setup) -> (TestEnv, Visitor) {
    let env = setup.build().await;
    let browser = env.visitor();
    let arrived = env.sign_in(&browser).await;
    assert_eq!((arrived.status, arrived.header("location")), (303, "/me"), "{arrived:?}");
    (env, browser)
}

/// Posts the form of a sign-out, as a page of the service does.
async fn post_form(browser: &Visitor, form: &str) -> Answer {
    let document = ("sec-fetch-dest", "document");
    browser.send(Method::POST, PATH, &[SAME, NAVIGATE, document, FORM], form).await
}

/// Posts with `fetch`, as a script of the service does.
async fn fetch(browser: &Visitor) -> Answer {
    browser.send(Method::POST, PATH, &[SAME, ("sec-fetch-mode", "cors")], "").await
}

fn parameters(env: &TestEnv, url: &str) -> BTreeMap<String, String> {
    let (endpoint, _) = url.split_once('?').unwrap();
    assert_eq!(endpoint, env.provider.end_session_endpoint());
    url::Url::parse(url).unwrap().query_pairs().into_owned().collect()
}

fn claims(token: &str) -> Value {
    insecure_decode_claims(token).unwrap()
}

/// Opens a URL of the provider, as the browser would. Returns where it leads.
async fn at_provider(url: &str) -> String {
    let answer = http::send(http::client().get(url)).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    answer.header("location").to_owned()
}

#[tokio::test]
async fn sign_out_continues_at_the_provider() {
    let (env, browser) = signed_in(Setup::with_sessions().end_at_provider(BYE)).await;
    assert_eq!(browser.get("/me").await.body, "bob-id ");
    let out = post_form(&browser, "").await;
    assert_eq!(out.status, 303, "{out:?}");
    assert_eq!(out.header("cache-control"), "no-store");
    let url = out.header("location").to_owned();
    let sent = parameters(&env, &url);
    let names: Vec<_> = sent.keys().map(String::as_str).collect();
    assert_eq!(names, ["client_id", "id_token_hint", "post_logout_redirect_uri"]);
    let hint = claims(&sent["id_token_hint"]);
    assert_eq!((&hint["aud"], &hint["sub"]), (&json!("wave"), &json!("bob-id")));
    assert_eq!((&*sent["client_id"], &*sent["post_logout_redirect_uri"]), ("wave", BYE));
    // The session here ended first.
    assert!(browser.cookie_names().is_empty());
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 1);
    assert_eq!(at_provider(&url).await, BYE);

    env.sign_in(&browser).await;
    let out = fetch(&browser).await;
    assert_eq!((out.status, browser.cookie_names().len()), (200, 0), "{out:?}");
    let json = out.json();
    assert_eq!(json.as_object().unwrap().len(), 1);
    assert_eq!(parameters(&env, json["end_session_url"].as_str().unwrap())["client_id"], "wave");

    // A browser without Fetch Metadata.
    env.sign_in(&browser).await;
    let old = [("origin", "https://spa.example"), ("accept", "text/html,*/*;q=0.8")];
    assert_eq!(browser.send(Method::POST, PATH, &old, "").await.status, 303);
}

#[tokio::test]
async fn newest_id_token_is_the_hint() {
    let (env, browser) = signed_in(Setup::with_sessions().end_at_provider(BYE)).await;
    let renew = async || {
        env.clock.advance(MINUTE * 55);
        assert_eq!(browser.get("/me").await.status, 200);
    };
    renew().await;
    // A refresh without an ID token keeps the one before.
    env.provider.fail(ProviderEndpoint::Token, Fault::remove_member("id_token"));
    renew().await;
    assert_eq!(env.provider.granted("refresh_token"), 2);
    let url = fetch(&browser).await.json()["end_session_url"].as_str().unwrap().to_owned();
    let sent = parameters(&env, &url);
    let hint = claims(&sent["id_token_hint"]);
    let seconds = |name: &str| hint[name].as_i64().unwrap();
    assert_eq!(seconds("iat") - seconds("auth_time"), 55 * 60, "that of the first renewal");
}

#[tokio::test]
async fn return_to_survives_the_provider() {
    let (env, browser) = signed_in(Setup::with_sessions().end_at_provider(LOGOUT)).await;
    let out = post_form(&browser, &format!("return_to={}", encoded("/bye?lang=de"))).await;
    let url = out.header("location").to_owned();
    let sent = parameters(&env, &url);
    assert_eq!((out.status, sent["state"].len()), (303, 43));
    assert!(!url.contains("lang"), "the page is in the cookie only: {url}");
    assert_eq!(browser.cookie_names(), ["__Host-sign-in-return"]);
    let back = at_provider(&url).await;
    let back = back.strip_prefix("https://wave.example").unwrap();
    // Another state, and another browser.
    for (visitor, path) in [
        (&browser, format!("{PATH}?state={}", "A".repeat(43))),
        (&browser, PATH.to_owned()),
        (&browser, format!("{back}&state=x")),
        (&env.visitor(), back.to_owned()),
    ] {
        let landed = visitor.get(&path).await;
        assert_eq!((landed.status, landed.header("location")), (303, "/"), "{path}");
    }
    let landed = browser.get(back).await;
    assert_eq!((landed.status, landed.header("location")), (303, "/bye?lang=de"));
    assert!(browser.cookie_names().is_empty(), "it can be used once");
    // Too late.
    env.sign_in(&browser).await;
    let out = post_form(&browser, "return_to=/bye").await;
    let state = parameters(&env, out.header("location"))["state"].clone();
    env.clock.advance(MINUTE * 11);
    let landed = browser.get(&format!("{PATH}?state={state}")).await;
    assert_eq!(landed.header("location"), "/");
    // Without a page there is no state.
    env.sign_in(&browser).await;
    let url = post_form(&browser, "").await.header("location").to_owned();
    assert!(!parameters(&env, &url).contains_key("state"));
    assert_eq!(at_provider(&url).await, LOGOUT);
}

#[tokio::test]
async fn return_to_another_host_is_refused() {
    let (env, browser) = signed_in(Setup::with_sessions().end_at_provider(LOGOUT)).await;
    for page in [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "evil",
        "/a\r\nset-cookie: x=y",
        "/\t/evil.example",
    ] {
        let out = post_form(&browser, &format!("return_to={}", encoded(page))).await;
        out.assert_oauth_error(400, "invalid_request");
        assert!(out.headers.get("location").is_none());
    }
    // A page of the service is where the provider leads, so the parameter has no effect.
    let env = env.start_process(Setup::with_sessions().end_at_provider(BYE)).await;
    let out = post_form(&env.visitor(), "return_to=https://evil.example/").await;
    assert_eq!(out.status, 303);
    assert!(!out.header("location").contains("evil"));
    // Nor does a state or a hint of the caller.
    let form =
        "state=x%0d%0aset-cookie:a&id_token_hint=y&post_logout_redirect_uri=https://evil.example";
    let out = post_form(&env.visitor(), form).await;
    let sent = parameters(&env, out.header("location"));
    assert_eq!((sent.len(), &*sent["post_logout_redirect_uri"]), (2, BYE));
}

#[tokio::test]
async fn invalid_parameters_prevent_no_sign_out() {
    let (env, browser) = signed_in(Setup::with_sessions().end_at_provider(LOGOUT)).await;
    let long = format!("return_to=/search?{}", "q".repeat(2100));
    let bodies =
        ["return_to=https://evil.example/", "return_to=/a&return_to=/b", "return_to=%ff", &long];
    for body in bodies {
        env.sign_in(&browser).await;
        let revoked = env.provider.requests(ProviderEndpoint::Revocation);
        assert_eq!(browser.get("/me").await.status, 200);
        post_form(&browser, body).await.assert_oauth_error(400, "invalid_request");
        assert!(browser.cookie_names().is_empty(), "{body}");
        assert_eq!(browser.get("/me").await.status, 401, "{body}");
        assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), revoked + 1, "{body}");
    }
    // From a page of another site nothing ends.
    env.sign_in(&browser).await;
    let foreign = [("sec-fetch-site", "cross-site"), NAVIGATE, FORM];
    let answer = browser.send(Method::POST, PATH, &foreign, bodies[1]).await;
    assert_eq!((answer.status, browser.get("/me").await.status), (403, 200));
}

#[tokio::test]
async fn sign_out_outside_the_session_layer_fails() {
    let log = Log::start();
    let keys = SealingKeys::random().unwrap();
    for ends_at_provider in [true, false] {
        let mut env = Setup { sessions: Some(keys.clone()), ..Setup::default() }.build().await;
        let sessions = Sessions::builder(&env.auth, env.client.clone(), keys.clone());
        let sessions = if ends_at_provider { sessions.end_at_provider(BYE) } else { sessions };
        let sessions = sessions.build().unwrap();
        let endpoints = env.auth.endpoints().client(env.client.clone()).sessions(sessions.clone());
        let endpoints = endpoints.sign_in(SignIn::new(REDIRECT)).build().unwrap();
        let app = Router::new()
            .route("/me", get(async |me: Identity| me.subject().to_owned()))
            .layer(env.auth.layer())
            .layer(sessions.layer())
            .layer(endpoints);
        let server = Server::axum(app).await;
        env.api = server.url();
        let browser = env.visitor();
        env.sign_in(&browser).await;
        assert_eq!(browser.get("/me").await.status, 200, "the session works");
        post_form(&browser, "").await.assert_oauth_error(500, "server_error");
    }
    assert!(log.text().contains("sessions.layer()"), "{}", log.text());
}

#[tokio::test]
async fn returns_from_the_provider_are_limited() {
    let throttle = TokenBuckets::new().per_address(2, MINUTE);
    let setup = Setup::with_sessions().end_at_provider(LOGOUT);
    let env = setup.endpoints(|endpoints| endpoints.throttle(throttle)).build().await;
    let path = format!("{PATH}?state={}", "A".repeat(43));
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(env.visitor().get(&path).await.status);
    }
    assert_eq!(answers, [303, 303, 429]);
}

#[tokio::test]
async fn get_never_signs_out() {
    for (page, status) in [(BYE, 405), (LOGOUT, 303)] {
        let (env, browser) = signed_in(Setup::with_sessions().end_at_provider(page)).await;
        for headers in [&[][..], &[NAVIGATE, SAME], &[NAVIGATE, ("sec-fetch-site", "cross-site")]] {
            let path = format!("{PATH}?refresh_token=x&return_to=/x");
            let answer = browser.send(Method::GET, &path, headers, "").await;
            assert_eq!(answer.status, status, "{page}");
            match status {
                405 => assert_eq!(answer.header("allow"), "POST"),
                _ => assert_eq!(answer.header("location"), "/"),
            }
        }
        assert_eq!(browser.get("/me").await.status, 200, "{page}");
        assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 0);
        let put = browser.send(Method::PUT, PATH, &[SAME], "").await;
        let allow = if status == 405 { "POST" } else { "GET, POST" };
        assert_eq!((put.status, put.header("allow")), (405, allow));
    }
}

#[tokio::test]
async fn other_sites_cannot_sign_out() {
    let (env, browser) = signed_in(Setup::with_sessions().end_at_provider(BYE)).await;
    let forged: [&[(&str, &str)]; 4] = [
        &[NAVIGATE, ("sec-fetch-site", "cross-site")],
        &[NAVIGATE, ("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example"), ("accept", "text/html")],
        &[],
    ];
    for headers in forged {
        let answer = browser.send(Method::POST, PATH, headers, "").await;
        assert_eq!(answer.status, 403, "{headers:?}");
        // Browsers omit `SameSite=Lax` cookies of a form on another site.
        let answer = env.visitor().send(Method::POST, PATH, headers, "").await;
        answer.assert_oauth_error(403, "invalid_request");
        assert!(answer.headers.get("location").is_none(), "{headers:?}");
    }
    assert_eq!(browser.get("/me").await.status, 200);
}

#[tokio::test]
async fn sign_out_without_session_reaches_the_provider() {
    let (env, browser) = signed_in(Setup::with_sessions().end_at_provider(BYE)).await;
    assert_eq!(post_form(&browser, "").await.status, 303);
    // Again, for example with the back button: the provider's session may still exist.
    let again = post_form(&browser, "").await;
    let sent = parameters(&env, again.header("location"));
    assert_eq!((again.status, sent.contains_key("id_token_hint")), (303, false));
    assert_eq!(fetch(&browser).await.status, 200);
    // A client with tokens signs out as ever.
    let tokens = env.bob_tokens().await;
    let form = format!("refresh_token={}", tokens["refresh_token"].as_str().unwrap());
    assert_eq!(env.visitor().post_form(PATH, &form).await.status, 204);
    // Without the setting, nothing changes.
    let plain = Setup::with_sessions().build().await;
    fetch(&plain.visitor()).await.assert_oauth_error(400, "invalid_request");
}

#[tokio::test]
async fn expired_session_still_gives_the_hint() {
    let (env, browser) = signed_in(Setup::with_sessions().end_at_provider(BYE)).await;
    env.clock.advance(MINUTE * 61);
    env.provider.fail(ProviderEndpoint::Token, Fault::OAuthError(400, "invalid_grant"));
    let out = post_form(&browser, "").await;
    let sent = parameters(&env, out.header("location"));
    assert_eq!(claims(&sent["id_token_hint"])["sub"], "bob-id");
    assert!(browser.cookie_names().is_empty());
    assert_eq!(at_provider(out.header("location")).await, BYE, "the provider accepts it");
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 0);
}

#[tokio::test]
async fn failed_revocation_prevents_no_sign_out() {
    let (env, browser) = signed_in(Setup::with_sessions().end_at_provider(BYE)).await;
    for fault in [Fault::Status(503), Fault::OAuthError(400, "invalid_request")] {
        let log = Log::start();
        env.sign_in(&browser).await;
        env.provider.fail(ProviderEndpoint::Revocation, fault);
        assert_eq!(post_form(&browser, "").await.status, 303);
        assert!(browser.cookie_names().is_empty());
        assert!(log.text().contains("not revoked"), "{}", log.text());
    }
}

#[tokio::test]
async fn unavailable_provider_still_ends_the_session() {
    let keys = SealingKeys::random().unwrap();
    let setup = || {
        let setup = Setup { sessions: Some(keys.clone()), ..Setup::default() };
        setup.end_at_provider(BYE).sign_in(|sign_in| sign_in.failure_page("/sorry"))
    };
    let (env, browser) = signed_in(setup()).await;
    env.provider.fail(ProviderEndpoint::Discovery, Fault::Status(503));
    // Another process, which has not read the metadata.
    let mut env = env.with_new_client();
    let auth = Auth::builder().issuer(local(env.provider.issuer())).audience("scaiwave");
    env.auth = auth.clock(env.clock.clone()).build().unwrap();
    let env = env.start_process(setup()).await;
    let browser = browser.at(&env);
    let out = post_form(&browser, "").await;
    let page = "/sorry?error=temporarily_unavailable";
    assert_eq!((out.status, out.header("location")), (303, page), "{out:?}");
    assert!(browser.cookie_names().is_empty());
    fetch(&browser).await.assert_oauth_error(503, "temporarily_unavailable");
    env.provider.heal(ProviderEndpoint::Discovery);
    env.clock.advance(MINUTE * 2);
    assert_eq!(fetch(&browser).await.status, 200);
}

#[tokio::test]
async fn missing_endpoint_is_logged() {
    let log = Log::start();
    let env = Setup::with_sessions().end_at_provider(BYE).build().await;
    let gone = Fault::remove_member("end_session_endpoint");
    env.provider.fail(ProviderEndpoint::Discovery, gone);
    let browser = env.visitor();
    for _ in 0..2 {
        env.sign_in(&browser).await;
        let out = post_form(&browser, "").await;
        assert_eq!((out.status, out.header("location")), (303, BYE));
        env.sign_in(&browser).await;
        assert_eq!(fetch(&browser).await.status, 204);
        assert!(browser.cookie_names().is_empty());
    }
    let text = log.text();
    let warnings =
        text.lines().filter(|line| line.contains("WARN") && line.contains("P_END_SESSION_URL"));
    assert_eq!(warnings.count(), 1, "{text}");
}

#[tokio::test]
async fn own_query_of_the_endpoint_survives() {
    let env = Setup::with_sessions().end_at_provider(BYE).build().await;
    let url = format!("{}?theme=dark&state=x#top", env.provider.end_session_endpoint());
    let fault = Fault::replace_member("end_session_endpoint", json!(url));
    env.provider.fail(ProviderEndpoint::Discovery, fault);
    let browser = env.visitor();
    env.sign_in(&browser).await;
    let sent = parameters(&env, post_form(&browser, "").await.header("location"));
    assert_eq!(
        (sent["theme"].as_str(), sent.contains_key("state"), sent.len()),
        ("dark", false, 4)
    );
}

#[tokio::test]
async fn large_id_token_is_left_out() {
    let log = Log::start();
    let env = Setup::with_sessions().end_at_provider(BYE).build().await;
    let bob = User::new("bob", "hunter2");
    env.provider.register_user(bob.claim("picture", "x".repeat(2500)));
    let browser = env.visitor();
    env.sign_in(&browser).await;
    assert_eq!(browser.get("/me").await.status, 200, "the session has precedence");
    let sent = parameters(&env, post_form(&browser, "").await.header("location"));
    assert!(!sent.contains_key("id_token_hint") && sent["client_id"] == "wave");
    let text = log.text();
    assert!(text.contains("WARN") && text.contains("no room for the ID token"), "{text}");
    assert!(text.contains("ask the user for confirmation"), "{text}");
}

#[tokio::test]
async fn sign_out_logs_no_token() {
    let log = Log::start();
    let (env, browser) = signed_in(Setup::with_sessions().end_at_provider(LOGOUT)).await;
    let refresh = env.bob_tokens().await["refresh_token"].as_str().unwrap().to_owned();
    let out = post_form(&browser, "return_to=/bye-canary").await;
    let url = out.header("location").to_owned();
    let sent = parameters(&env, &url);
    let revoked = env.provider.received(ProviderEndpoint::Revocation).remove(0).form();
    let token = revoked.iter().find(|(name, _)| name == "token").unwrap().1.clone();
    assert!(!url.contains(&token) && !url.contains(&refresh));
    browser.get(&format!("{PATH}?state={}", sent["state"])).await;
    env.provider.fail(ProviderEndpoint::Revocation, Fault::Status(503));
    env.sign_in(&browser).await;
    post_form(&browser, "").await;
    let text = log.text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("scaikey_auth")).collect();
    assert!(lines.iter().any(|line| line.contains("endpoint answered")), "{text}");
    for secret in [&token, &refresh, &sent["id_token_hint"], &sent["state"]] {
        assert!(lines.iter().all(|line| !line.contains(secret.as_str())), "{text}");
    }
}

#[tokio::test]
async fn config_names_the_end_session_endpoint() {
    let env = TestEnv::new().await;
    let config = env.visitor().get("/v1/auth/config").await.json();
    assert_eq!(config["end_session_endpoint"], env.provider.end_session_endpoint());
    let env = Setup::default().build().await;
    env.provider.fail(ProviderEndpoint::Discovery, Fault::remove_member("end_session_endpoint"));
    let config = env.visitor().get("/v1/auth/config").await.json();
    assert!(config.get("end_session_endpoint").is_none(), "{config}");
}

/// The behaviour of a server for a metadata document.
#[derive(Clone)]
enum Document {
    Served(Value),
    Status(u16),
    /// Served as soon as there are permits.
    Held(Arc<Semaphore>, Value),
}

/// A provider with two metadata documents, of which that of RFC 8414 has only members of OAuth.
struct TwoDocuments {
    url: String,
    second: Arc<Mutex<Document>>,
    /// The number of requests for the second document.
    requests: Arc<AtomicU64>,
}

impl TwoDocuments {
    /// Starts the provider. The second document names the end-session endpoint.
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let second = Arc::new(Mutex::new(Document::Served(Self::openid(&url))));
        let provider = Self { url, second, requests: Arc::default() };
        let (oauth, second) = (Self::oauth(&provider.url), provider.second.clone());
        let requests = provider.requests.clone();
        let serve = async move || {
            requests.fetch_add(1, Ordering::SeqCst);
            let document = second.lock().unwrap().clone();
            match document {
                Document::Served(json) => (StatusCode::OK, json.to_string()),
                Document::Status(code) => (StatusCode::from_u16(code).unwrap(), String::new()),
                Document::Held(gate, json) => {
                    gate.acquire().await.unwrap().forget();
                    (StatusCode::OK, json.to_string())
                }
            }
        };
        let app = Router::new()
            .route("/.well-known/oauth-authorization-server", get(async move || oauth.to_string()))
            .route("/.well-known/openid-configuration", get(serve));
        tokio::spawn(async move { axum::serve(listener, app).await });
        provider
    }

    fn oauth(url: &str) -> Value {
        let [token, authorize, jwks] =
            ["token", "authorize", "jwks"].map(|name| format!("{url}/{name}"));
        json!({
            "issuer": url,
            "token_endpoint": token,
            "authorization_endpoint": authorize,
            "jwks_uri": jwks,
        })
    }

    fn openid(url: &str) -> Value {
        let mut document = Self::oauth(url);
        document["end_session_endpoint"] = format!("{url}/logout").into();
        document
    }

    fn set(&self, second: Document) {
        *self.second.lock().unwrap() = second;
    }

    /// Holds the second document until the semaphore has permits.
    fn hold(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        self.set(Document::Held(gate.clone(), Self::openid(&self.url)));
        gate
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    fn client(&self, clock: &ManualClock) -> TokenExchangeClient {
        let client = TokenExchangeClient::builder(&self.url).allow_loopback_http(true);
        let client = client.clock(clock.clone()).timeout(MINUTE * 10);
        client.client_auth(ClientAuth::basic("wave", "s")).build().unwrap()
    }

    /// Returns a service whose sign-outs continue at this provider.
    fn service(&self, clock: &ManualClock) -> Router {
        let auth = Auth::builder().issuer(local(&self.url)).audience("scaiwave").build().unwrap();
        let client = self.client(clock);
        let sessions = Sessions::builder(&auth, client.clone(), SealingKeys::random().unwrap());
        let sessions = sessions.end_at_provider(BYE).build().unwrap();
        let endpoints = auth.endpoints().client(client).sessions(sessions);
        let endpoints = endpoints.sign_in(SignIn::new(REDIRECT).failure_page("/sorry"));
        Router::new().layer(endpoints.build().unwrap())
    }
}

async fn found(client: &TokenExchangeClient) -> Result<url::Url, ExchangeError> {
    within_timeout(client.end_session_url(&EndSessionRequest::new())).await
}

/// Signs out with a form, without a session. Returns where the browser is led.
async fn led_to(service: &Router) -> String {
    let request = http_request(Method::POST, PATH).header(SAME.0, SAME.1);
    let request = request.header(NAVIGATE.0, NAVIGATE.1).body(Body::empty()).unwrap();
    let answer = within_timeout(service.clone().oneshot(request)).await.unwrap();
    let location = &answer.headers()["location"];
    let url = location.to_str().unwrap().to_owned();
    assert_eq!(location.is_sensitive(), url.contains("client_id="), "{url}");
    url
}

/// Returns the end-session endpoint in `GET config`.
async fn in_config(service: &Router) -> Option<String> {
    let request = http_request(Method::GET, "/v1/auth/config").body(Body::empty()).unwrap();
    let answer = within_timeout(service.clone().oneshot(request)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let body = axum::body::to_bytes(answer.into_body(), 9999).await.unwrap();
    let config: Value = serde_json::from_slice(&body).unwrap();
    config.get("end_session_endpoint").map(|url| url.as_str().unwrap().to_owned())
}

fn http_request(method: Method, path: &str) -> axum::http::request::Builder {
    axum::http::Request::builder().method(method).uri(path)
}

#[tokio::test]
async fn endpoint_is_in_either_metadata() {
    let provider = TwoDocuments::start().await;
    let client = provider.client(&ManualClock::default());
    for _ in 0..3 {
        let url = found(&client).await.unwrap();
        assert_eq!(url.as_str(), format!("{}/logout?client_id=wave", provider.url));
    }
    assert_eq!(provider.requests(), 1);
}

#[tokio::test]
async fn concurrent_sign_outs_read_metadata_once() {
    let provider = TwoDocuments::start().await;
    let (client, gate) = (provider.client(&ManualClock::default()), provider.hold());
    let searches: Vec<_> = (0..40)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { found(&client).await })
        })
        .collect();
    until(|| provider.requests() > 0).await;
    gate.add_permits(40);
    for search in searches {
        search.await.unwrap().unwrap();
    }
    assert_eq!(provider.requests(), 1);
}

#[tokio::test]
async fn unavailable_metadata_is_no_missing_endpoint() {
    let log = Log::start();
    let (provider, clock) = (TwoDocuments::start().await, ManualClock::default());
    let (client, service) = (provider.client(&clock), provider.service(&clock));
    for status in [503, 500, 429] {
        provider.set(Document::Status(status));
        clock.advance(Duration::from_secs(6));
        let error = found(&client).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Unavailable { .. }), "{status} {error}");
        assert_eq!(led_to(&service).await, "/sorry?error=temporarily_unavailable", "{status}");
    }
    // Not again for each sign-out.
    let before = provider.requests();
    for _ in 0..5 {
        assert!(found(&client).await.is_err());
    }
    assert_eq!(provider.requests(), before);
    let text = log.text();
    assert!(text.contains("requests to the provider fail") && text.contains("P_END_SESSION_URL"));
    assert!(!text.contains("metadata has no end_session_endpoint"), "{text}");

    provider.set(Document::Served(TwoDocuments::openid(&provider.url)));
    clock.advance(Duration::from_secs(6));
    assert!(led_to(&service).await.starts_with(&format!("{}/logout?", provider.url)));
    found(&client).await.unwrap();
    // The endpoint outlives a later failure, and a document that is hidden for a while.
    for status in [503, 403] {
        provider.set(Document::Status(status));
        clock.advance(MINUTE * 61);
        let before = provider.requests();
        found(&client).await.unwrap();
        assert!(provider.requests() > before, "{status}");
    }
}

#[tokio::test]
async fn missing_document_is_no_failure() {
    let (provider, clock) = (TwoDocuments::start().await, ManualClock::default());
    let service = provider.service(&clock);
    for second in [
        Document::Status(404),
        Document::Status(410),
        // Of servers that hide what they do not have.
        Document::Status(401),
        Document::Status(403),
        Document::Served(TwoDocuments::oauth(&provider.url)),
        Document::Served(json!("a page of a single-page application")),
    ] {
        provider.set(second);
        clock.advance(MINUTE * 2);
        assert_eq!(led_to(&service).await, BYE);
    }
}

#[tokio::test]
async fn config_waits_for_no_second_metadata() {
    let (provider, clock) = (TwoDocuments::start().await, ManualClock::default());
    let (service, gate) = (provider.service(&clock), provider.hold());
    for _ in 0..5 {
        assert_eq!(in_config(&service).await, None);
    }
    until(|| provider.requests() > 0).await;
    gate.add_permits(1);
    let logout = Some(format!("{}/logout", provider.url));
    eventually(async || in_config(&service).await == logout).await;
    assert_eq!(provider.requests(), 1);
    // When it is old, it is read again, and still no answer waits.
    clock.advance(MINUTE * 61);
    assert_eq!(in_config(&service).await, logout);
    until(|| provider.requests() == 2).await;
    assert_eq!(in_config(&service).await, logout);
}
