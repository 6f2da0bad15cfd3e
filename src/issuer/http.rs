//! The HTTP client. The crate sends all its HTTP requests here (except the `testing` module), within limits
//! of time and size, and only to expected destinations.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Debug;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use reqwest::redirect;
use url::Url;

use crate::clock::with_timeout;
use crate::config::{JwksSettings, PlainHttp, Route, is_loopback};
use crate::error::BoxError;
use crate::support::secret::path_for_errors;
use crate::support::telemetry::Causes;

/// The timeout for connecting, within the deadline of the whole request.
const CONNECT: Duration = Duration::from_secs(2);

/// The value of `Accept`. Key sets have a media type (RFC 7517 §8.5), but plain web servers serve files with
/// any type.
const ACCEPT: &str = "application/json, application/jwk-set+json, */*;q=0.1";

/// The value of `Accept-Encoding`. The client never decompresses, because a short answer could become a very
/// long one. Without this header, a server may compress (RFC 9110 §12.5.3).
const ACCEPT_ENCODING: &str = "identity";

/// The maximum number of redirects, all within one origin.
const MAX_REDIRECTS: usize = 3;

/// The maximum number of clients. Only resolvers that return many CA files need more; then all clients are
/// dropped, and built again when needed.
const MAX_CLIENTS: usize = 64;

/// A client for requests to providers, in place of the one that the crate builds: for a proxy of your own, a
/// client certificate, middleware, or tests without a network. Set it with
/// [`AuthBuilder::http_client`](crate::AuthBuilder::http_client) (metadata, keys, and questions about
/// [opaque tokens](crate::validator::OpaqueTokens)) and `TokenExchangeBuilder::http_client`.
///
/// It is implemented for [`reqwest::Client`], version 0.13:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use scaikey_auth::Auth;
///
/// let client = reqwest::Client::builder()
///     .proxy(reqwest::Proxy::https("http://proxy.corp.example:3128")?)
///     .redirect(reqwest::redirect::Policy::none())
///     .connect_timeout(std::time::Duration::from_secs(2))
///     .build()?;
/// let auth = Auth::builder()
///     .issuer("https://scaikey.example")
///     .audience("scaiwave")
///     .http_client(client)
///     .build()?;
/// # Ok(()) }
/// ```
///
/// A client for tests, which answers from memory:
///
/// ```
/// use http::{Request, Response};
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::issuer::HttpClient;
///
/// #[derive(Debug)]
/// struct Memory(String);
///
/// #[async_trait::async_trait]
/// impl HttpClient for Memory {
///     async fn send(&self, _: Request<Vec<u8>>, _: usize) -> Result<Response<Vec<u8>>, BoxError> {
///         Ok(Response::new(self.0.clone().into_bytes()))
///     }
/// }
/// ```
///
/// # Security
/// The crate still checks, before and after each call: the URL (`https`, or an allowed `http` host), the
/// time limit, the status, the content coding, the size of the body, and the whole content. It does *not*
/// check the parts that belong to the client:
///
/// * the server's certificate: a client that accepts every certificate lets an attacker in the network sign
///   in as any user. `ca_file` cannot be set together with a client;
/// * the DNS lookup and the proxy;
/// * redirects. The crate's own client follows redirects of metadata and keys within one origin, and none
///   of a request with credentials. A [`reqwest::Client`] that was redirected to another origin fails
///   afterwards, but has sent the credentials there by then: use `redirect::Policy::none()`.
///
/// The host names of metadata and keys come from the configuration and the provider's metadata, so a client
/// need not limit them. Requests for the keys of a trust policy do not use this client.
#[async_trait]
pub trait HttpClient: Debug + Send + Sync + 'static {
    /// Sends a request and returns the response. Reads the body only until it has more than `max_bytes`
    /// bytes; the crate then refuses it. The URI of the request is absolute. The call is dropped at the time
    /// limit.
    ///
    /// # Errors
    /// There is no response. If the error is or has as a source a [`reqwest::Error`] with
    /// [`is_connect`](reqwest::Error::is_connect), the request was not sent, and may be repeated. Every other
    /// error means that it may have been sent. Errors are logged, so they must not contain the request.
    async fn send(
        &self,
        request: Request<Vec<u8>>,
        max_bytes: usize,
    ) -> Result<Response<Vec<u8>>, BoxError>;
}

#[async_trait]
impl<C: HttpClient + ?Sized> HttpClient for Arc<C> {
    async fn send(
        &self,
        request: Request<Vec<u8>>,
        max_bytes: usize,
    ) -> Result<Response<Vec<u8>>, BoxError> {
        (**self).send(request, max_bytes).await
    }
}

#[async_trait]
impl HttpClient for reqwest::Client {
    async fn send(
        &self,
        request: Request<Vec<u8>>,
        max_bytes: usize,
    ) -> Result<Response<Vec<u8>>, BoxError> {
        let request = reqwest::Request::try_from(request).map_err(reqwest::Error::without_url)?;
        let origin = request.url().origin();
        let mut response = self.execute(request).await.map_err(reqwest::Error::without_url)?;
        if response.url().origin() != origin {
            return Err("redirect to another origin".into());
        }
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let mut body = Vec::new();
        while body.len() <= max_bytes
            && let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)?
        {
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(body);
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

/// The limits of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) deadline: Duration,
    pub(crate) max_bytes: usize,
}

impl Limits {
    pub(super) fn of(settings: &JwksSettings) -> Self {
        Self { deadline: settings.timeout, max_bytes: settings.max_bytes }
    }
}

/// The body of an answer with status 200, or of inline keys.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    /// `Cache-Control: max-age`; zero for `no-store` and `no-cache` (RFC 9111 §5.2.2).
    pub(crate) max_age: Option<Duration>,
    /// Whether the body is from the configuration and was not fetched.
    pub(crate) is_inline: bool,
}

/// The error of a request. It contains nothing of the server's answer except the status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("answered {status}")]
    Status {
        status: StatusCode,
        /// `Retry-After` of a 429 or 503.
        retry_after: Option<Duration>,
    },
    #[error(
        "answered with the content coding {0}, although only `identity` was requested: disable compression at that URL"
    )]
    Encoded(&'static str),
    #[error("answered with more than {0} bytes")]
    TooLarge(usize),
    #[error("did not answer within {0:?}")]
    Deadline(Duration),
    #[error("could not be reached: {0}")]
    Unreachable(String),
    /// The connection failed, so nothing was sent.
    #[error("could not be reached: {0}")]
    Unconnected(String),
    #[error("was not requested: the CA file {0}")]
    Ca(String),
    #[error("is not allowed: {0}")]
    Forbidden(&'static str),
}

/// The HTTP clients: the service's own one, or one of this crate for each kind of request.
#[derive(Debug, Default)]
pub(crate) struct Http {
    own: Option<Arc<dyn HttpClient>>,
    /// Each client is built on first use, because building one reads the system's certificates.
    clients: Mutex<HashMap<Kind, Client>>,
}

/// A kind of request that needs its own client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    route: Route,
    /// Requests with credentials in the body follow no redirect.
    follows_redirects: bool,
    /// Loopback addresses have their own client, which ignores proxies and name servers, because another
    /// machine could change what is sent without TLS.
    is_loopback: bool,
}

/// A client, and the content of the CA file that it was built with.
#[derive(Debug)]
struct Client {
    ca: Option<Vec<u8>>,
    client: reqwest::Client,
}

/// A form, ready to be sent. It has credentials, so it cannot be printed.
pub(super) struct Form {
    /// The value of `Accept`.
    pub(super) accept: &'static str,
    /// The value of `Authorization`, if there is one.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) body: String,
}

/// An answer to a form, with any status.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

impl Http {
    /// Sends all requests with `own`, if there is one.
    pub(crate) fn new(own: Option<Arc<dyn HttpClient>>) -> Self {
        Self { own, clients: Mutex::default() }
    }

    /// Returns whether the service's own client sends the requests.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Sends a GET request to `url`, with a bearer token if there is one. Any answer but a 200 within the
    /// limits is an error.
    pub(crate) async fn get(
        &self,
        url: &Url,
        limits: Limits,
        route: &Route,
        bearer: Option<HeaderValue>,
    ) -> Result<Answer, FetchError> {
        let mut request = request(Method::GET, url, ACCEPT, Vec::new())?;
        if let Some(bearer) = bearer {
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        let response = self.send(url, request, limits, route, true).await?;
        require_ok(&response)?;
        let max_age = max_age(response.headers());
        Ok(Answer { body: body(response, limits)?, max_age, is_inline: false })
    }

    /// Sends a GET request to the token service of a platform, and follows no redirect. Any answer but a 200
    /// within the limits is an error.
    pub(super) async fn get_token(
        &self,
        url: &Url,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
        limits: Limits,
    ) -> Result<Response<Vec<u8>>, FetchError> {
        let mut request = request(Method::GET, url, "*/*", Vec::new())?;
        request.headers_mut().extend(headers);
        let response = self.send(url, request, limits, &Route::default(), false).await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(FetchError::Status { status, retry_after: None });
        }
        let headers = response.headers().clone();
        let mut answer = Response::new(body(response, limits)?);
        *answer.headers_mut() = headers;
        Ok(answer)
    }

    /// Sends a form to `url` by POST. Returns every answer within the limits, including redirects.
    pub(super) async fn post_form(
        &self,
        url: &Url,
        form: Form,
        limits: Limits,
        route: &Route,
        now: SystemTime,
    ) -> Result<Posted, FetchError> {
        let mut request = request(Method::POST, url, form.accept, form.body.into_bytes())?;
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, form_type);
        if let Some(value) = form.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let response = self.send(url, request, limits, route, false).await?;
        let (status, retry_after) = (response.status(), retry_after(response.headers(), Some(now)));
        Ok(Posted { status, retry_after, body: body(response, limits)? })
    }

    /// Sends JSON to `url` by POST, and follows no redirect. Returns the body of the answer. Any answer but a 200
    /// within the limits is an error.
    #[cfg(feature = "endpoints")]
    pub(crate) async fn post_json(
        &self,
        url: &Url,
        json: Vec<u8>,
        authorization: Option<HeaderValue>,
        limits: Limits,
        route: &Route,
    ) -> Result<Vec<u8>, FetchError> {
        let mut request = request(Method::POST, url, "application/json", json)?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Of the descriptions of errors (RFC 8936 §2.6).
        headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static("en"));
        headers.extend(authorization.map(|value| (header::AUTHORIZATION, value)));
        let response = self.send(url, request, limits, route, false).await?;
        require_ok(&response)?;
        body(response, limits)
    }

    async fn send(
        &self,
        url: &Url,
        request: Request<Vec<u8>>,
        limits: Limits,
        route: &Route,
        follows_redirects: bool,
    ) -> Result<Response<Vec<u8>>, FetchError> {
        let sent = async {
            match &self.own {
                Some(own) => own.send(request, limits.max_bytes).await.map_err(failure),
                None => {
                    let client = self.client(url, route, follows_redirects)?;
                    client.send(request, limits.max_bytes).await.map_err(failure)
                }
            }
        };
        let response = with_timeout(limits.deadline, sent).await;
        response.unwrap_or(Err(FetchError::Deadline(limits.deadline)))
    }

    /// Returns the client for `url`. If the CA file has changed, builds a new one.
    fn client(
        &self,
        url: &Url,
        route: &Route,
        follows_redirects: bool,
    ) -> Result<reqwest::Client, FetchError> {
        let is_loopback = is_loopback(url);
        let mut kind = Kind { route: route.clone(), follows_redirects, is_loopback };
        // A network that encrypts plain `http` does so on the direct way only.
        kind.route.ignores_proxies |= is_loopback || url.scheme() == "http";
        let ca = route.ca_file.as_deref().map(read_ca).transpose()?;
        // Only whole entries are written, so a panic cannot leave the map half written.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = clients.get(&kind)
            && built.ca == ca
        {
            return Ok(built.client.clone());
        }
        let client = kind.build(ca.as_deref())?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(kind, Client { ca, client: client.clone() });
        Ok(client)
    }
}

/// A resolver that resolves every name to the loopback addresses, as RFC 6761 §6.3 requires for `localhost`
/// and the names under it. The resolvers of some operating systems know only `localhost`.
struct LoopbackOnly;

impl reqwest::dns::Resolve for LoopbackOnly {
    fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
        // The port of the URL replaces port 0.
        let addresses: [SocketAddr; 2] =
            [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
        let addresses: reqwest::dns::Addrs = Box::new(addresses.into_iter());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

/// Creates a request with the headers of all requests.
fn request(
    method: Method,
    url: &Url,
    accept: &'static str,
    body: Vec<u8>,
) -> Result<Request<Vec<u8>>, FetchError> {
    let request = Request::builder()
        .method(method)
        .uri(url.as_str())
        .header(header::ACCEPT, accept)
        .header(header::ACCEPT_ENCODING, ACCEPT_ENCODING)
        .body(body);
    request.map_err(|_| FetchError::Forbidden("it cannot be requested over HTTP"))
}

/// Checks that the status is 200.
fn require_ok(response: &Response<Vec<u8>>) -> Result<(), FetchError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    let is_busy =
        [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
    let retry_after = retry_after(response.headers(), None).filter(|_| is_busy);
    Err(FetchError::Status { status, retry_after })
}

/// Returns the body of a response, if it is within the limits and not compressed.
fn body(response: Response<Vec<u8>>, limits: Limits) -> Result<Vec<u8>, FetchError> {
    if let Some(coding) = content_coding(response.headers()) {
        return Err(FetchError::Encoded(coding));
    }
    let body = response.into_body();
    if body.len() > limits.max_bytes {
        return Err(FetchError::TooLarge(limits.max_bytes));
    }
    // Some servers send compressed files without `Content-Encoding`. JSON never begins like this.
    match body.starts_with(&GZIP) {
        true => Err(FetchError::Encoded("gzip")),
        false => Ok(body),
    }
}

/// The first bytes of every gzip file (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Returns the registered name of the body's content coding, unless it is `identity`.
fn content_coding(headers: &HeaderMap) -> Option<&'static str> {
    const NAMES: [&str; 6] = ["gzip", "x-gzip", "deflate", "br", "zstd", "compress"];
    let codings = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let codings = codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut codings = codings.map(<[u8]>::trim_ascii);
    let used = codings.find(|it| !it.is_empty() && !it.eq_ignore_ascii_case(b"identity"))?;
    let name = NAMES.into_iter().find(|name| used.eq_ignore_ascii_case(name.as_bytes()));
    Some(name.unwrap_or("(unknown)"))
}

fn failure(error: BoxError) -> FetchError {
    let text = Causes(&*error).to_string();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(error) = cause {
        if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect) {
            return FetchError::Unconnected(text);
        }
        cause = error.source();
    }
    FetchError::Unreachable(text)
}

/// Reads `Retry-After` in seconds or as a date (RFC 9110 §10.2.3). A date is compared with the server's
/// `Date`, if there is one, and otherwise with `now`.
fn retry_after(headers: &HeaderMap, now: Option<SystemTime>) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let wait = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = wait.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text| httpdate::parse_http_date(text).ok();
    let now = text(header::DATE).and_then(date).or(now)?;
    Some(date(wait)?.duration_since(now).unwrap_or_default())
}

fn within_origin() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let first = attempt.previous().first();
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else if first.is_some_and(|first| first.origin() == attempt.url().origin()) {
            attempt.follow()
        } else {
            attempt.error("redirect to another origin")
        }
    })
}

/// The problem of a CA file that is set together with the service's own client.
pub(crate) const HAS_OWN_CLIENT: &str =
    "is set together with http_client, whose own certificates count: set only one of them";

/// Checks that a CA file can be read and has certificates. The error names the file.
pub(crate) fn check_ca_file(file: &Path) -> Result<(), String> {
    let route = Route { ca_file: Some(file.to_owned()), ignores_proxies: false };
    let kind = Kind { route, follows_redirects: false, is_loopback: false };
    let client = read_ca(file).and_then(|ca| kind.build(Some(&ca)));
    match client {
        Ok(_) => Ok(()),
        Err(FetchError::Ca(problem)) => Err(problem),
        Err(error) => Err(format!("{} {error}", path_for_errors(file))),
    }
}

fn read_ca(file: &Path) -> Result<Vec<u8>, FetchError> {
    let unreadable =
        |error| FetchError::Ca(format!("{} cannot be read: {error}", path_for_errors(file)));
    std::fs::read(file).map_err(unreadable)
}

impl Kind {
    fn build(&self, ca: Option<&[u8]>) -> Result<reqwest::Client, FetchError> {
        let mut builder = reqwest::Client::builder();
        if self.route.ignores_proxies {
            builder = builder.no_proxy();
        }
        if self.is_loopback {
            builder = builder.dns_resolver(LoopbackOnly);
        }
        if let Some(ca) = ca {
            let certificates = reqwest::Certificate::from_pem_bundle(ca).unwrap_or_default();
            if certificates.is_empty() {
                return Err(self.unusable_ca("has no certificate in PEM (`BEGIN CERTIFICATE`)"));
            }
            builder = builder.tls_certs_only(certificates);
        }
        let redirects = match self.follows_redirects {
            true => within_origin(),
            false => redirect::Policy::none(),
        };
        // Other crates of the program may have enabled reqwest features: another TLS library, and
        // decompression, which can turn a short answer into a very long one.
        let built = builder
            .tls_backend_rustls()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(CONNECT)
            .redirect(redirects)
            .user_agent(concat!("scaikey-auth/", env!("CARGO_PKG_VERSION")))
            .build();
        built.map_err(|error| match ca {
            Some(_) => self.unusable_ca(&format!("cannot be used: {}", Causes(&error))),
            None => FetchError::Unreachable(Causes(&error).to_string()),
        })
    }

    fn unusable_ca(&self, problem: &str) -> FetchError {
        let file = self.route.ca_file.as_deref().unwrap_or(Path::new(""));
        FetchError::Ca(format!("{} {problem}", path_for_errors(file)))
    }
}

/// Checks a URL from provider metadata (RFC 8725 §3.10). It must be `https`, or `http` where that is allowed.
/// If its host is an address in a private network, it must be the same host as that of the
/// metadata. A host *name* that resolves to a private address passes, because providers inside a company have
/// such names.
pub(crate) fn check_metadata_url(
    url: &Url,
    metadata_url: &Url,
    plain_http: &PlainHttp,
) -> Result<(), FetchError> {
    match url.scheme() {
        _ if plain_http.allows(url) => {}
        "http" if !is_loopback(url) => return Err(FetchError::Forbidden(NOT_HTTPS)),
        _ => return Err(FetchError::Forbidden("it names a URL that is not https")),
    }
    if is_private_address(url) && url.host() != metadata_url.host() {
        return Err(FetchError::Forbidden("it names an address in a private network"));
    }
    Ok(())
}

const NOT_HTTPS: &str = "it names a URL that is not https; for a provider in a network that encrypts all traffic, such as a service mesh, set insecure_http_hosts";

fn is_private_address(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => {
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
        }
        Some(url::Host::Ipv6(address)) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some()
        }
        Some(url::Host::Domain(_)) => is_loopback(url),
        None => true,
    }
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get_all(header::CACHE_CONTROL).into_iter();
    directives.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).find_map(
        |directive| {
            let directive = directive.trim().to_ascii_lowercase();
            match directive.strip_prefix("max-age=") {
                Some(seconds) => seconds.trim_matches('"').parse().ok().map(Duration::from_secs),
                None => ["no-store", "no-cache"].contains(&&*directive).then_some(Duration::ZERO),
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_cannot_name_insecure_or_private_urls() {
        let from: Url = "https://scaikey.example/.well-known/openid-configuration".parse().unwrap();
        let plain = PlainHttp { loopback: true, hosts: vec!["keycloak.auth.svc".to_owned()] };
        let check = |url: &str, from: &Url| check_metadata_url(&url.parse().unwrap(), from, &plain);
        for url in [
            "https://keys.example/jwks",
            "https://scaikey.example:8443/jwks",
            "http://keycloak.auth.svc/jwks",
        ] {
            assert_eq!(check(url, &from), Ok(()), "{url}");
        }
        for url in [
            "http://keys.example/jwks",
            "ftp://keys.example/jwks",
            "https://169.254.169.254/latest",
            "https://127.0.0.1/jwks",
            "http://localhost/jwks",
            "https://localhost./jwks",
            "https://keys.localhost/jwks",
            "https://10.0.0.1/jwks",
            "https://[::1]/jwks",
            "https://[fe80::1]/jwks",
            "https://[::ffff:169.254.169.254]/jwks",
        ] {
            assert!(check(url, &from).is_err(), "{url}");
        }
        let local: Url = "http://127.0.0.1:8080/".parse().unwrap();
        assert_eq!(check("http://127.0.0.1:8080/jwks", &local), Ok(()));
        assert!(check_metadata_url(&local, &local, &PlainHttp::default()).is_err());
        let mesh: Url = "http://keycloak.auth.svc/jwks".parse().unwrap();
        let error = check_metadata_url(&mesh, &from, &PlainHttp::default()).unwrap_err();
        assert!(error.to_string().contains("insecure_http_hosts"), "{error}");
    }

    #[test]
    fn retry_after_may_be_seconds_or_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |value: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            if let Some(date) = date {
                headers.insert(header::DATE, date.parse().unwrap());
            }
            retry_after(&headers, Some(now)).map(|wait| wait.as_secs())
        };
        let (sooner, later) = ("Sun, 06 Nov 1994 08:49:00 GMT", "Sun, 06 Nov 1994 08:49:47 GMT");
        assert_eq!(read(" 7 ", None), Some(7));
        assert_eq!(read(later, None), Some(10));
        assert_eq!(read(later, Some(sooner)), Some(47));
        assert_eq!(read(sooner, None), Some(0));
        assert_eq!(read("soon", None), None);
        assert_eq!(read("-1", None), None);
    }

    #[test]
    fn content_codings_are_named() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
            }
            content_coding(&headers)
        };
        for values in [&[][..], &[""], &["identity"], &["Identity", " , identity"]] {
            assert_eq!(read(values), None, "{values:?}");
        }
        assert_eq!(read(&["GZIP"]), Some("gzip"));
        assert_eq!(read(&["identity, br"]), Some("br"));
        assert_eq!(read(&["identity", "zstd"]), Some("zstd"));
        assert_eq!(read(&["rot13"]), Some("(unknown)"));
    }

    #[test]
    fn cache_control_is_parsed() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, value.parse().unwrap());
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(read("public, max-age=600, must-revalidate"), Some(600));
        assert_eq!(read("Max-Age=\"7\""), Some(7));
        assert_eq!(read("no-store"), Some(0));
        assert_eq!(read("public"), None);
        assert_eq!(read("max-age=soon"), None);
    }
}
