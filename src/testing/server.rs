//! The HTTP server: accepts connections, finds the endpoint, applies its fault and answers.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::endpoint::{ProviderEndpoint, ReceivedRequest};
use super::faults::Fault;
use super::issuer::TestIssuer;
use super::keys::SigningKey;
use super::oauth::{self, Answer};

/// The issuers that the server answers for.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Tests add tenants while the provider runs.
    pub(super) issuers: RwLock<Vec<TestIssuer>>,
    /// The number of requests to unknown paths.
    pub(super) strays: AtomicU64,
}

/// The path prefix of the targets of [`Fault::RedirectHere`]. Requests below it get the normal
/// answer, without faults, and are not counted.
const REDIRECT_PREFIX: &str = "/moved";

/// The largest request body that the server reads, in bytes.
const MAX_BODY: usize = 1 << 20;

type HttpResponse = Response<BoxBody<Bytes, Infallible>>;

/// Serves until `stop` fires, then closes all connections before it returns.
pub(super) async fn serve(
    listener: TcpListener,
    routes: Arc<Routes>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stop => break,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let routes = Arc::clone(&routes);
                let answer = service_fn(move |request| answer(Arc::clone(&routes), request));
                let io = TokioIo::new(stream);
                connections.spawn(http1::Builder::new().serve_connection(io, answer));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn answer(routes: Arc<Routes>, request: Request<Incoming>) -> io::Result<HttpResponse> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Ok(response(StatusCode::PAYLOAD_TOO_LARGE, Full::default()));
    };
    let received = ReceivedRequest {
        method: head.method,
        target: head.uri.to_string(),
        headers: head.headers,
        body: body.to_bytes(),
    };
    if let Some(path) = received.path().strip_prefix(REDIRECT_PREFIX) {
        let found = routes.find(path);
        return Ok(found.map_or_else(not_found, |(issuer, it)| {
            normal_answer(&issuer, it, &received).into_response()
        }));
    }
    let Some((issuer, endpoint)) = routes.find(received.path()) else {
        routes.strays.fetch_add(1, Ordering::Relaxed);
        return Ok(not_found());
    };
    issuer.endpoint_state(endpoint).record(&received);
    answer_with_faults(&issuer, endpoint, &received).await
}

impl Routes {
    /// Returns the issuer and the endpoint of a path.
    fn find(&self, path: &str) -> Option<(TestIssuer, ProviderEndpoint)> {
        let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        issuers.iter().find_map(|issuer| {
            let endpoint = match path.strip_prefix(issuer.base())? {
                "/.well-known/openid-configuration" | "/.well-known/oauth-authorization-server" => {
                    ProviderEndpoint::Discovery
                }
                "/.well-known/jwks.json" => ProviderEndpoint::Jwks,
                "/auth" => ProviderEndpoint::Authorization,
                "/oauth/token" => ProviderEndpoint::Token,
                "/oauth/revoke" => ProviderEndpoint::Revocation,
                "/oauth/introspect" => ProviderEndpoint::Introspection,
                "/logout" => ProviderEndpoint::EndSession,
                _ => return None,
            };
            Some((issuer.clone(), endpoint))
        })
    }
}

async fn answer_with_faults(
    issuer: &TestIssuer,
    endpoint: ProviderEndpoint,
    request: &ReceivedRequest,
) -> io::Result<HttpResponse> {
    let mut faults = issuer.endpoint_state(endpoint).fault();
    // A request that waits here gets the fault, or none, that replaces `Hang`.
    let held = faults.wait_for(|fault| !matches!(fault, Some(Fault::Hang))).await;
    let fault = held.ok().and_then(|fault| (*fault).clone());
    let Some(fault) = fault else {
        return Ok(normal_answer(issuer, endpoint, request).into_response());
    };
    if let Fault::Slow(delay) = fault {
        tokio::time::sleep(delay).await;
    }
    let normal = || normal_answer(issuer, endpoint, request);
    Ok(match fault {
        Fault::Status(code) => response(status(code), Full::default()),
        Fault::RetryAfter(code, seconds) => {
            let mut answer = response(status(code), Full::default());
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
            answer
        }
        Fault::OAuthError(code, error) => {
            let body = serde_json::json!({ "error": error });
            let mut answer = json_response(Full::from(body.to_string()));
            *answer.status_mut() = status(code);
            answer
        }
        Fault::Slow(_) | Fault::Hang => normal().into_response(),
        Fault::Stall => {
            let text = Bytes::from(normal().json.to_string());
            json_response(StalledBody { text: Some(text), faults: Some(faults), release: None })
        }
        Fault::EndlessBody => json_response(EndlessBody),
        Fault::Padded(bytes) => {
            json_response(Full::from(format!("{}{}", " ".repeat(bytes), normal().json)))
        }
        Fault::Body(content_type, text) => {
            let mut answer = response(StatusCode::OK, Full::from(text));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            answer
        }
        Fault::Bytes(headers, bytes) => {
            let mut answer = response(StatusCode::OK, Full::from(bytes));
            for (name, value) in headers {
                answer.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            answer
        }
        Fault::Redirect(to) => redirect(&to),
        Fault::RedirectHere => redirect(&format!("{REDIRECT_PREFIX}{}", request.target)),
        Fault::HangUp => return Err(io::Error::other("connection closed by the fault")),
        Fault::Rewrite(rewrite) => {
            let Answer { status, headers, json, signed_by, .. } = normal();
            let mut answer = json_or_jwt(rewrite.apply(json), signed_by.as_ref());
            *answer.status_mut() = status;
            answer.headers_mut().extend(headers);
            answer
        }
    })
}

/// Returns the answer without a fault.
fn normal_answer(
    issuer: &TestIssuer,
    endpoint: ProviderEndpoint,
    request: &ReceivedRequest,
) -> Answer {
    let mut headers = http::HeaderMap::new();
    let json = match endpoint {
        ProviderEndpoint::Authorization
        | ProviderEndpoint::Token
        | ProviderEndpoint::Revocation
        | ProviderEndpoint::Introspection
        | ProviderEndpoint::EndSession => return oauth::answer(issuer, endpoint, request),
        ProviderEndpoint::Discovery => issuer.metadata(),
        ProviderEndpoint::Jwks => {
            let value = issuer.current_cache_control();
            if let Some(value) = value.and_then(|text| HeaderValue::from_str(&text).ok()) {
                headers.insert(CACHE_CONTROL, value);
            }
            issuer.jwks()
        }
    };
    Answer { status: StatusCode::OK, headers, json, page: None, signed_by: None }
}

impl Answer {
    fn into_response(self) -> HttpResponse {
        let mut answer = match (self.page, self.json) {
            (Some(page), _) => response(StatusCode::OK, Full::from(page)),
            (None, serde_json::Value::Null) => response(StatusCode::OK, Full::default()),
            (None, json) => json_or_jwt(json.to_string(), self.signed_by.as_ref()),
        };
        *answer.status_mut() = self.status;
        answer.headers_mut().extend(self.headers);
        answer
    }
}

fn not_found() -> HttpResponse {
    response(StatusCode::NOT_FOUND, Full::default())
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn redirect(to: &str) -> HttpResponse {
    let mut answer = response(StatusCode::FOUND, Full::default());
    if let Ok(to) = HeaderValue::from_str(to) {
        answer.headers_mut().insert(LOCATION, to);
    }
    answer
}

fn json_response(
    body: impl Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static,
) -> HttpResponse {
    let mut answer = response(StatusCode::OK, body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Answers with JSON, or with a JWT whose payload it is.
fn json_or_jwt(text: String, key: Option<&SigningKey>) -> HttpResponse {
    let Some(key) = key else { return json_response(Full::from(text)) };
    let header = serde_json::json!({
        "typ": "token-introspection+jwt", "alg": key.algorithm().as_str(), "kid": key.kid(),
    });
    let mut answer = response(StatusCode::OK, Full::from(key.token(header.to_string(), text)));
    let kind = HeaderValue::from_static(oauth::SIGNED_INTROSPECTION);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn response(
    status: StatusCode,
    body: impl Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static,
) -> HttpResponse {
    let mut answer = Response::new(BoxBody::new(body));
    *answer.status_mut() = status;
    answer
}

/// A body of endless white space, which no JSON parser can reject early.
struct EndlessBody;

impl Body for EndlessBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 8192])))))
    }
}

type Release = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// A body that waits until [`Fault::Stall`] is cleared or replaced.
struct StalledBody {
    text: Option<Bytes>,
    faults: Option<watch::Receiver<Option<Fault>>>,
    release: Option<Release>,
}

impl Body for StalledBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(mut faults) = self.faults.take() {
            self.release = Some(Box::pin(async move {
                let _ = faults.wait_for(|fault| !matches!(fault, Some(Fault::Stall))).await;
            }));
        }
        if let Some(release) = &mut self.release {
            std::task::ready!(release.as_mut().poll(context));
            self.release = None;
        }
        Poll::Ready(self.text.take().map(|text| Ok(Frame::data(text))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::Provider;
    use super::super::provider::tests::get;
    use super::*;

    #[tokio::test]
    async fn faults_can_change_at_run_time() {
        let provider = Provider::start().await;
        let url = provider.jwks_uri();
        let good = provider.jwks();
        for fault in [
            Fault::Status(500),
            Fault::RetryAfter(503, 7),
            Fault::HangUp,
            Fault::Redirect(format!("{}/elsewhere", provider.url())),
            Fault::garbage(),
            Fault::html(),
            Fault::rewrite(|_| "{".to_owned()),
        ] {
            provider.fail(ProviderEndpoint::Jwks, fault.clone());
            get(&url).await.expect_err(&format!("{fault:?}"));
        }
        for fault in [Fault::RedirectHere, Fault::Padded(1 << 20), Fault::Slow(Duration::ZERO)] {
            provider.fail(ProviderEndpoint::Jwks, fault.clone());
            assert_eq!(get(&url).await.unwrap(), good, "{fault:?}");
        }
        provider.fail(ProviderEndpoint::Jwks, Fault::empty_key_set());
        assert_eq!(get(&url).await.unwrap(), json!({ "keys": [] }));
        provider.fail(ProviderEndpoint::Jwks, Fault::many_keys(500));
        assert_eq!(get(&url).await.unwrap()["keys"].as_array().unwrap().len(), 500);
        provider.heal(ProviderEndpoint::Jwks);
        assert_eq!(get(&url).await.unwrap(), good);
    }

    #[tokio::test]
    async fn clearing_a_fault_releases_waiting_requests() {
        let provider = Provider::start().await;
        for (nth, fault) in [Fault::Hang, Fault::Stall].into_iter().enumerate() {
            provider.fail(ProviderEndpoint::Jwks, fault);
            let url = provider.jwks_uri();
            let waiting = tokio::spawn(async move { get(&url).await });
            provider.wait_for_jwks_requests(nth as u64 + 1).await;
            assert!(!waiting.is_finished());
            provider.heal(ProviderEndpoint::Jwks);
            assert_eq!(waiting.await.unwrap().unwrap(), provider.jwks());
        }
    }

    #[tokio::test]
    async fn endless_body_does_not_end() {
        let provider = Provider::start().await;
        provider.fail(ProviderEndpoint::Jwks, Fault::EndlessBody);
        let mut answer = reqwest::get(provider.jwks_uri()).await.unwrap();
        let mut read = 0;
        while read < 10 << 20 {
            read += answer.chunk().await.unwrap().unwrap().len();
        }
    }
}
