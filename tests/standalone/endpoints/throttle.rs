//! Rate limits, and limits of bodies and parameters.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use scaikey_auth::AuthConfig;
use scaikey_auth::endpoints::{
    Attempt, Endpoint, Endpoints, EndpointsBuilder, PasswordAttempt, PasswordDecision, SignIn,
    Throttle, ThrottleDecision, TokenBuckets, TrustedProxies,
};
use scaikey_auth::error::BoxError;
use scaikey_auth::layer::ResponseBody;
use scaikey_auth::registrar::MemoryRegistrar;
use serde_json::json;
use tower::ServiceExt as _;

use super::env::{MINUTE, REDIRECT, Setup, TestEnv, Visitor};
use crate::support::{Log, within_timeout};

const WRONG: &str = "grant_type=password&username=bob&password=wrong";

async fn guess(visitor: &Visitor, forwarded: &str) -> u16 {
    let headers =
        [("content-type", "application/x-www-form-urlencoded"), ("x-forwarded-for", forwarded)];
    visitor.send(Method::POST, "/v1/auth/token", &headers, WRONG).await.status
}

fn strict_throttle() -> TokenBuckets {
    let hour = Duration::from_secs(3600);
    TokenBuckets::new().per_address(3, hour).per_account(5, hour).introspections(2, hour)
}

#[tokio::test]
async fn password_guesses_are_limited() {
    let setup = Setup::default().endpoints(|endpoints| endpoints.throttle(strict_throttle()));
    let env = setup.build().await;
    let visitor = env.visitor();
    // A forged header does not change the client's address.
    for (nth, expected) in [400, 400, 400, 429, 429].into_iter().enumerate() {
        assert_eq!(guess(&visitor, &format!("192.0.2.{nth}")).await, expected, "{nth}");
    }
    let answer = visitor.post_form("/v1/auth/token", WRONG).await;
    answer.assert_oauth_error(429, "temporarily_unavailable");
    assert_eq!(answer.header("retry-after"), "3600");
    assert_eq!(env.provider.requests(scaikey_auth::testing::ProviderEndpoint::Token), 3);
    // Other endpoints have their own limits, and limits recover with time.
    assert_eq!(visitor.post_form("/v1/auth/refresh", "refresh_token=x").await.status, 400);
    env.clock.advance(Duration::from_secs(3600));
    assert_eq!(guess(&visitor, "192.0.2.1").await, 400);
}

#[tokio::test]
async fn trusted_proxy_separates_clients_not_accounts() {
    let setup = Setup::default().endpoints(|endpoints| {
        let proxies = TrustedProxies::new(["127.0.0.0/8"]).unwrap();
        endpoints.throttle(strict_throttle()).trusted_proxies(proxies)
    });
    let env = setup.build().await;
    let visitor = env.visitor();
    for nth in 0..5 {
        assert_eq!(guess(&visitor, &format!("6.6.6.6, 192.0.2.{nth}")).await, 400);
    }
    // The limit of the account holds for all addresses.
    assert_eq!(guess(&visitor, "192.0.2.77").await, 429);
    let other = WRONG.replace("bob", "carol");
    let headers =
        [("content-type", "application/x-www-form-urlencoded"), ("x-forwarded-for", "192.0.2.99")];
    let answer = visitor.send(Method::POST, "/v1/auth/token", &headers, &other).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn proxies_of_builder_override_configuration() {
    let setup = Setup::default().endpoints(|endpoints| {
        let proxies = TrustedProxies::new(["127.0.0.0/8"]).unwrap();
        let variable = ("P_TRUSTED_PROXIES".to_owned(), "198.51.100.0/24".to_owned());
        let config = AuthConfig::from_vars("P", [variable]);
        endpoints.throttle(strict_throttle()).trusted_proxies(proxies).configured(&config)
    });
    let env = setup.build().await;
    let visitor = env.visitor();
    for nth in 0..5 {
        assert_eq!(guess(&visitor, &format!("192.0.2.{nth}")).await, 400, "{nth}");
    }
}

#[tokio::test]
async fn throttled_introspection_answers_like_the_layer() {
    let setup = Setup::default().endpoints(|endpoints| endpoints.throttle(strict_throttle()));
    let env = setup.build().await;
    let visitor = env.visitor();
    let bearer = format!("Bearer {}", env.provider.token().scope("admin").sign());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let introspection = json!({ "token": "x" }).to_string();
    for expected in [200, 200, 429] {
        let answer =
            visitor.send(Method::POST, "/v1/auth/introspect", &headers, &introspection).await;
        assert_eq!(answer.status, expected);
        if expected == 429 {
            assert_eq!(answer.json()["type"], "urn:scaikey-auth:too_many_requests");
            assert_eq!(answer.header("retry-after"), "3600");
        }
    }
}

/// A body that never ends, and records whether it was read.
#[derive(Clone, Default)]
struct EndlessBody(Arc<AtomicBool>);

impl http_body::Body for EndlessBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        self.0.store(true, Ordering::Relaxed);
        Poll::Pending
    }
}

type Attempts = Arc<Mutex<Vec<(Endpoint, Option<String>)>>>;

/// Records the attempts, and allows or refuses all of them.
#[derive(Debug, Default)]
struct RecordingThrottle {
    refuses: bool,
    attempts: Attempts,
}

#[async_trait]
impl Throttle for RecordingThrottle {
    async fn admit(
        &self,
        attempt: &Attempt<'_>,
        _: Duration,
    ) -> Result<ThrottleDecision, BoxError> {
        let account = attempt.account.map(str::to_owned);
        self.attempts.lock().unwrap().push((attempt.endpoint, account));
        match self.refuses {
            true => Ok(ThrottleDecision::Deny { retry_after: MINUTE }),
            false => Ok(ThrottleDecision::Allow),
        }
    }
}

fn default_endpoints(env: &TestEnv) -> EndpointsBuilder {
    let (auth, client) = (&env.auth, env.client.clone());
    let endpoints = auth.endpoints().client(client).sign_in(SignIn::new(REDIRECT));
    endpoints.registrar(MemoryRegistrar::new()).password_grant(|_| PasswordDecision::Allow)
}

/// Sends a request without a socket.
async fn request(
    endpoints: &Endpoints,
    method: Method,
    path: &str,
    body: impl http_body::Body<Data = Bytes> + Send + 'static,
) -> Response<Bytes> {
    let request = Request::builder().method(method).uri(format!("/v1/auth/{path}"));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    collect_body(endpoints.service().oneshot(request.body(body).unwrap()).await.unwrap()).await
}

async fn collect_body(answer: Response<ResponseBody<String>>) -> Response<Bytes> {
    let (head, body) = answer.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

fn oauth_error(answer: &Response<Bytes>) -> String {
    let error: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    format!("{} {}", error["error"].as_str().unwrap(), error["error_description"].as_str().unwrap())
}

#[tokio::test]
async fn throttle_decides_before_reading_bodies() {
    let env = TestEnv::new().await;
    let throttle = RecordingThrottle { refuses: true, ..RecordingThrottle::default() };
    let endpoints = default_endpoints(&env).throttle(throttle).build().unwrap();
    for path in ["login", "token", "refresh", "logout", "introspect"] {
        let body = EndlessBody::default();
        let answer = now_or_never(request(&endpoints, Method::POST, path, body.clone()));
        let answer = answer.unwrap_or_else(|| panic!("{path} waits for its body"));
        assert_eq!(answer.status(), 429, "{path}");
        assert_eq!(answer.headers()["retry-after"], "60", "{path}");
        assert!(!body.0.load(Ordering::Relaxed), "{path} reads its body");
    }
}

#[tokio::test]
async fn unused_bodies_are_not_read() {
    let env = TestEnv::new().await;
    let endpoints = default_endpoints(&env).build().unwrap();
    let asked = [(Method::POST, "register", 401), (Method::GET, "whoami", 401)];
    for (method, path, status) in
        asked.into_iter().chain([(Method::GET, "login?return_to=//", 400)])
    {
        let answer = request(&endpoints, method, path, EndlessBody::default());
        let answer = now_or_never(answer);
        assert_eq!(answer.map(|answer| answer.status().as_u16()), Some(status), "{path}");
    }
}

#[tokio::test]
async fn late_body_is_408() {
    let env = TestEnv::new().await;
    let endpoints = default_endpoints(&env).body_timeout(Duration::ZERO).build().unwrap();
    for path in ["token", "refresh", "logout", "login", "introspect"] {
        let answer = request(&endpoints, Method::POST, path, EndlessBody::default()).await;
        assert_eq!(answer.status(), 408, "{path}");
        assert_eq!(answer.headers()["connection"], "close", "{path}");
        assert_eq!(answer.headers()["cache-control"], "no-store", "{path}");
    }
}

#[tokio::test]
async fn form_with_many_parameters_is_refused() {
    let env = TestEnv::new().await;
    let visitor = env.visitor();
    let names = |many: usize| (0..many).map(|nth| format!("n{nth}=v"));
    let form = names(64).collect::<Vec<_>>().join("&");
    let most = visitor.post_form("/v1/auth/refresh", &form).await;
    assert!(most.body.contains("refresh_token is missing"), "{most:?}");
    for many in [65, 8000] {
        let form = names(many).collect::<Vec<_>>().join("&");
        for path in ["token", "refresh", "logout", "login"] {
            let answer = visitor.post_form(&format!("/v1/auth/{path}"), &form).await;
            answer.assert_oauth_error(400, "invalid_request");
            assert!(answer.body.contains("more than 64 parameters"), "{answer:?}");
        }
    }
    let query = names(65).collect::<Vec<_>>().join("&");
    let answer = visitor.get(&format!("/v1/auth/login?{query}")).await;
    assert!(answer.body.contains("more than 64 parameters"), "{answer:?}");
}

#[tokio::test]
async fn json_with_many_members_is_refused() {
    let env = TestEnv::new().await;
    let visitor = env.visitor();
    for (many, problem) in [(65, "more than 64 parameters"), (4000, "more than 4096")] {
        let object: serde_json::Map<_, _> =
            (0..many).map(|nth| (format!("n{nth}"), "v".into())).collect();
        for path in ["logout", "login"] {
            let answer =
                visitor.post_json(&format!("/v1/auth/{path}"), &object.clone().into()).await;
            answer.assert_oauth_error(400, "invalid_request");
            assert!(answer.body.contains(problem), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn oversized_scope_is_refused() {
    let env = TestEnv::new().await;
    let endpoints = default_endpoints(&env).build().unwrap();
    let scopes: Vec<_> = (0..1000).map(|nth| format!("s{nth}")).collect();
    for form in ["grant_type=password&username=bob&password=x", "refresh_token=x"] {
        let path = if form.starts_with("refresh") { "refresh" } else { "token" };
        let form = format!("{form}&scope={}", scopes.join("+"));
        let answer = request(&endpoints, Method::POST, path, Full::from(form)).await;
        assert_eq!(answer.status(), 400);
        assert_eq!(oauth_error(&answer), "invalid_scope The scope has more than 4096 bytes.");
    }
}

#[tokio::test]
async fn spellings_of_an_account_share_limit() {
    let env = TestEnv::new().await;
    let endpoints = default_endpoints(&env).throttle(strict_throttle()).build().unwrap();
    let spellings = ["bob", "BOB", "bob%20", "+Bob", "%EF%BD%82ob", "b%C2%ADob", "b%E2%80%8Bob"];
    let mut answers = Vec::new();
    for name in spellings {
        let form = format!("grant_type=password&username={name}&password=wrong");
        let answer = request(&endpoints, Method::POST, "token", Full::from(form)).await;
        answers.push(answer.status().as_u16());
    }
    assert_eq!(answers, [400, 400, 400, 400, 400, 429, 429]);
}

#[tokio::test]
async fn account_rule_can_be_replaced() {
    let env = TestEnv::new().await;
    let throttle = RecordingThrottle::default();
    let attempts = throttle.attempts.clone();
    let rule = |attempt: &PasswordAttempt<'_>| format!("acme/{}", attempt.account());
    let endpoints = default_endpoints(&env).throttle(throttle).account_of(rule).build().unwrap();
    let form = "grant_type=password&username=+BOB&password=wrong";
    request(&endpoints, Method::POST, "token", Full::from(form)).await;
    let expected = [None, Some("acme/bob".to_owned())].map(|account| (Endpoint::Token, account));
    assert_eq!(*attempts.lock().unwrap(), expected);
    let long = format!("grant_type=password&password=x&username={}", "x".repeat(1025));
    let answer = request(&endpoints, Method::POST, "token", Full::from(long)).await;
    let expected = "invalid_request The username has more than 1024 bytes.";
    assert_eq!(oauth_error(&answer), expected);
}

#[tokio::test]
async fn introspection_accounts_include_the_tenant() {
    let env = TestEnv::new().await;
    let throttle = RecordingThrottle::default();
    let attempts = throttle.attempts.clone();
    let endpoints = default_endpoints(&env).throttle(throttle).build().unwrap();
    for tenant in ["acme", "zeta"] {
        let token = env.provider.token().subject("gateway").claim("tenant_id", tenant);
        let bearer = format!("Bearer {}", token.scope("admin").sign());
        let request = Request::post("/v1/auth/introspect").header("authorization", bearer);
        let request = request.header("content-type", "application/json");
        let request = request.body(Full::<Bytes>::from(r#"{"token":"x"}"#)).unwrap();
        let answer = endpoints.service().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let attempts = attempts.lock().unwrap();
    let accounts: BTreeSet<_> =
        attempts.iter().filter_map(|(_, account)| account.clone()).collect();
    assert_eq!(accounts.len(), 2, "{attempts:?}");
}

#[tokio::test]
async fn missing_address_is_logged_once() {
    let env = TestEnv::new().await;
    let log = Log::start();
    let count = |log: &Log| log.text().matches("no client address").count();
    let unthrottled = default_endpoints(&env).unthrottled().build().unwrap();
    request(&unthrottled, Method::POST, "refresh", Full::from("refresh_token=x")).await;
    assert_eq!(count(&log), 0);
    let endpoints = default_endpoints(&env).build().unwrap();
    for _ in 0..3 {
        request(&endpoints, Method::POST, "refresh", Full::from("refresh_token=x")).await;
    }
    assert_eq!(count(&log), 1, "{}", log.text());
}

#[tokio::test]
async fn socket_address_extension_is_used() {
    let env = TestEnv::new().await;
    let endpoints = default_endpoints(&env).throttle(strict_throttle()).build().unwrap();
    let mut answers = Vec::new();
    for port in 4000..4004 {
        let mut request = Request::post("/v1/auth/token").body(Full::<Bytes>::default()).unwrap();
        request.extensions_mut().insert(SocketAddr::from(([192, 0, 2, 1], port)));
        let answer = endpoints.service().oneshot(request).await.unwrap();
        answers.push(answer.status().as_u16());
    }
    assert_eq!(answers, [400, 400, 400, 429]);
}

#[tokio::test]
async fn untrusted_proxy_is_logged_once() {
    let env = TestEnv::new().await;
    let log = Log::start();
    let visitor = env.visitor();
    for _ in 0..3 {
        guess(&visitor, "192.0.2.1").await;
    }
    assert_eq!(log.text().matches("…_TRUSTED_PROXIES").count(), 1, "{}", log.text());
}

fn now_or_never<F: Future>(work: F) -> Option<F::Output> {
    match std::pin::pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// A store shared by processes. Allows three attempts per address.
#[derive(Debug, Default)]
struct SharedStore {
    counts: Mutex<HashMap<(Endpoint, Option<IpAddr>), u32>>,
    is_unavailable: AtomicBool,
    hangs: AtomicBool,
}

#[async_trait]
impl Throttle for SharedStore {
    async fn admit(
        &self,
        attempt: &Attempt<'_>,
        _: Duration,
    ) -> Result<ThrottleDecision, BoxError> {
        tokio::task::yield_now().await;
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.is_unavailable.load(Ordering::SeqCst) {
            return Err("the store is unavailable".into());
        }
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry((attempt.endpoint, attempt.address)).or_default();
        *count += 1;
        Ok(match *count > 3 {
            true => ThrottleDecision::Deny { retry_after: MINUTE },
            false => ThrottleDecision::Allow,
        })
    }
}

/// Sends an attempt from one address, without a socket.
async fn attempt_from(endpoints: &Endpoints, address: [u8; 4]) -> Response<Bytes> {
    let mut request = Request::post("/v1/auth/refresh").body(Full::<Bytes>::default()).unwrap();
    request.extensions_mut().insert(SocketAddr::from((address, 4000)));
    collect_body(endpoints.service().oneshot(request).await.unwrap()).await
}

/// Returns the statuses of `many` attempts from one address.
async fn attempts_from(endpoints: &Endpoints, address: [u8; 4], many: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..many {
        statuses.push(attempt_from(endpoints, address).await.status().as_u16());
    }
    statuses
}

#[tokio::test]
async fn processes_share_counts_through_a_store() {
    let env = TestEnv::new().await;
    let store = Arc::new(SharedStore::default());
    let process = || default_endpoints(&env).throttle(store.clone()).build().unwrap();
    let (one, other) = (process(), process());
    assert_eq!(attempts_from(&one, [192, 0, 2, 1], 2).await, [400, 400]);
    assert_eq!(attempts_from(&other, [192, 0, 2, 1], 2).await, [400, 429]);
    let refused = attempt_from(&one, [192, 0, 2, 1]).await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"60".parse().unwrap())
    );
    assert_eq!(
        attempts_from(&one, [192, 0, 2, 2], 1).await,
        [400],
        "other addresses are not refused"
    );
}

#[tokio::test]
async fn failing_throttle_falls_back_to_local_counts() {
    let env = TestEnv::new().await;
    let log = Log::start();
    let store = Arc::new(SharedStore::default());
    let endpoints = default_endpoints(&env).throttle(store.clone()).build().unwrap();
    for outage in 1..=2 {
        store.is_unavailable.store(true, Ordering::SeqCst);
        // The default: a burst of 60, then one per second.
        let mut statuses = attempts_from(&endpoints, [192, 0, 2, outage], 61).await;
        assert_eq!((statuses.pop(), statuses), (Some(429), vec![400; 60]));
        store.is_unavailable.store(false, Ordering::SeqCst);
        assert_eq!(attempts_from(&endpoints, [192, 0, 2, outage], 1).await, [400]);
        let text = log.text();
        let warnings: Vec<_> = text
            .lines()
            .filter(|line| line.contains("throttle failed") && line.contains("WARN"))
            .collect();
        assert_eq!(warnings.len(), usize::from(outage), "{warnings:#?}");
        assert!(warnings[0].contains("the store is unavailable"), "{warnings:#?}");
        assert_eq!(text.matches("throttle works again").count(), usize::from(outage));
    }
}

#[tokio::test]
async fn hanging_throttle_falls_back_to_local_counts() {
    let env = TestEnv::new().await;
    let store = Arc::new(SharedStore::default());
    store.hangs.store(true, Ordering::SeqCst);
    let endpoints = default_endpoints(&env).throttle(store).build().unwrap();
    // Ends after one second; without the timeout it would hang.
    assert_eq!(within_timeout(attempts_from(&endpoints, [192, 0, 2, 1], 1)).await, [400]);
}

/// A throttle that answers without waiting.
#[derive(Debug)]
struct ReadyThrottle(ThrottleDecision);

#[async_trait]
impl Throttle for ReadyThrottle {
    fn try_admit(&self, _: &Attempt<'_>, _: Duration) -> Option<ThrottleDecision> {
        Some(self.0)
    }

    async fn admit(&self, _: &Attempt<'_>, _: Duration) -> Result<ThrottleDecision, BoxError> {
        panic!("`admit` is called although `try_admit` answered");
    }
}

#[tokio::test]
async fn ready_throttle_skips_async_call() {
    let env = TestEnv::new().await;
    for (decision, status) in [
        (ThrottleDecision::Allow, 400),
        (ThrottleDecision::Deny { retry_after: Duration::ZERO }, 429),
    ] {
        let endpoints = default_endpoints(&env).throttle(ReadyThrottle(decision)).build().unwrap();
        let answer = now_or_never(attempt_from(&endpoints, [192, 0, 2, 1])).unwrap();
        assert_eq!(answer.status(), status);
    }
}
