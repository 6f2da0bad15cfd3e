//! The HTTP client. The crate sends all its HTTP requests here (except the `testing` module), within limits
//! of time and size, and only to expected destinations.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::redirect;
use url::Url;

use crate::config::{JwksSettings, is_loopback};
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
    #[error("was not requested: the CA certificates cannot be parsed")]
    InvalidCa,
    #[error("is not allowed: {0}")]
    Forbidden(&'static str),
}

/// The HTTP clients. Each is built on first use, because building one reads the system's certificates.
#[derive(Debug, Default)]
pub(crate) struct Http {
    get_clients: [Client; 2],
    /// For requests with credentials. They follow no redirect.
    post_clients: [Client; 2],
}

type Client = OnceLock<Result<reqwest::Client, FetchError>>;

/// An answer to a form, with any status.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

impl Http {
    /// Sends a GET request to `url`. Any answer but a 200 within the limits is an error.
    pub(crate) async fn get(&self, url: &Url, limits: Limits) -> Result<Answer, FetchError> {
        send_get(client(&self.get_clients, url, within_origin)?.get(url.clone()), limits).await
    }

    /// Sends a GET request as [`get`](Self::get) does, with a bearer token. If `ca` is given (PEM), only
    /// its certificates are trusted.
    pub(crate) async fn get_with_credentials(
        &self,
        url: &Url,
        limits: Limits,
        ca: Option<&[u8]>,
        bearer: Option<HeaderValue>,
    ) -> Result<Answer, FetchError> {
        let own = ca.map(client_with_ca).transpose()?;
        let client = match &own {
            Some(client) => client,
            None => client(&self.get_clients, url, within_origin)?,
        };
        let mut request = client.get(url.clone());
        if let Some(bearer) = bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        send_get(request, limits).await
    }

    /// Sends a form to `url` by POST. Returns every answer within the limits, including redirects.
    pub(crate) async fn post_form(
        &self,
        url: &Url,
        authorization: Option<HeaderValue>,
        form: String,
        limits: Limits,
        now: SystemTime,
    ) -> Result<Posted, FetchError> {
        let mut request = client(&self.post_clients, url, redirect::Policy::none)?
            .post(url.clone())
            .timeout(limits.deadline)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, ACCEPT_ENCODING)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let mut response = request.send().await.map_err(|error| failure(error, limits))?;
        let status = response.status();
        let retry_after = retry_after(response.headers(), Some(now));
        let body = read(&mut response, limits).await?;
        Ok(Posted { status, retry_after, body })
    }
}

/// Returns the client for `url`. Loopback addresses have their own client, which ignores proxies and name
/// servers, because another machine could change keys that are sent without TLS.
fn client<'c>(
    [remote, loopback]: &'c [Client; 2],
    url: &Url,
    redirects: fn() -> redirect::Policy,
) -> Result<&'c reqwest::Client, FetchError> {
    let any = reqwest::Client::builder;
    let client = match is_loopback(url) {
        true => {
            loopback.get_or_init(|| build(any().no_proxy().dns_resolver(LoopbackOnly), redirects()))
        }
        false => remote.get_or_init(|| build(any(), redirects())),
    };
    client.as_ref().map_err(Clone::clone)
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

async fn send_get(request: reqwest::RequestBuilder, limits: Limits) -> Result<Answer, FetchError> {
    let failed = |error| failure(error, limits);
    let request = request
        .timeout(limits.deadline)
        .header(header::ACCEPT, ACCEPT)
        .header(header::ACCEPT_ENCODING, ACCEPT_ENCODING);
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status();
    if status != StatusCode::OK {
        let is_busy =
            [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
        let retry_after = retry_after(response.headers(), None).filter(|_| is_busy);
        return Err(FetchError::Status { status, retry_after });
    }
    let max_age = max_age(response.headers());
    let body = read(&mut response, limits).await?;
    Ok(Answer { body, max_age, is_inline: false })
}

async fn read(response: &mut reqwest::Response, limits: Limits) -> Result<Vec<u8>, FetchError> {
    if let Some(coding) = content_coding(response.headers()) {
        return Err(FetchError::Encoded(coding));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(error, limits))? {
        if body.len() + chunk.len() > limits.max_bytes {
            return Err(FetchError::TooLarge(limits.max_bytes));
        }
        body.extend_from_slice(&chunk);
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

fn failure(error: reqwest::Error, limits: Limits) -> FetchError {
    if error.is_connect() {
        FetchError::Unconnected(Causes(&error.without_url()).to_string())
    } else if error.is_timeout() {
        FetchError::Deadline(limits.deadline)
    } else {
        FetchError::Unreachable(Causes(&error.without_url()).to_string())
    }
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

/// Creates a client that trusts only these certificates. It ignores proxies, because a server with a
/// private CA is in the internal network.
fn client_with_ca(ca: &[u8]) -> Result<reqwest::Client, FetchError> {
    let certificates =
        reqwest::Certificate::from_pem_bundle(ca).map_err(|_| FetchError::InvalidCa)?;
    if certificates.is_empty() {
        return Err(FetchError::InvalidCa);
    }
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only(certificates);
    build(builder, within_origin())
}

fn build(
    builder: reqwest::ClientBuilder,
    redirects: redirect::Policy,
) -> Result<reqwest::Client, FetchError> {
    // Other crates of the program may have enabled reqwest features: another TLS library, and
    // decompression, which can turn a short answer into a very long one.
    builder
        .tls_backend_rustls()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .connect_timeout(CONNECT)
        .redirect(redirects)
        .user_agent(concat!("scaikey-auth/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| FetchError::Unreachable(Causes(&error).to_string()))
}

/// Checks a URL from provider metadata (RFC 8725 §3.10). It must be `https`, or a loopback address where that
/// is allowed. If its host is an address in a private network, it must be the same host as that of the
/// metadata. A host *name* that resolves to a private address passes, because providers inside a company have
/// such names.
pub(crate) fn check_metadata_url(
    url: &Url,
    metadata_url: &Url,
    allow_loopback_http: bool,
) -> Result<(), FetchError> {
    let plain = url.scheme() == "http" && allow_loopback_http && is_loopback(url);
    if url.scheme() != "https" && !plain {
        return Err(FetchError::Forbidden("it names a URL that is not https"));
    }
    if is_private_address(url) && url.host() != metadata_url.host() {
        return Err(FetchError::Forbidden("it names an address in a private network"));
    }
    Ok(())
}

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
        let check = |url: &str, from: &Url| check_metadata_url(&url.parse().unwrap(), from, true);
        for url in ["https://keys.example/jwks", "https://scaikey.example:8443/jwks"] {
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
        assert!(check_metadata_url(&local, &local, false).is_err());
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
