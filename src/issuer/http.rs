//! The one door to the network: bounded in time and size, and closed to surprising places.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::redirect;
use url::Url;

use crate::config::{JwksSettings, is_loopback};
use crate::support::telemetry::Causes;

/// How long connecting may take, within the deadline of the whole.
const CONNECT: Duration = Duration::from_secs(2);

/// What is asked for. RFC 7517 §8.5 registers a type of its own for key sets; files on plain web
/// servers are of any type.
const ACCEPT: &str = "application/json, application/jwk-set+json, */*;q=0.1";

/// Content codings are not undone, because a short answer could unfold into a very long one.
/// Without this header a server may use any (RFC 9110 §12.5.3).
const ACCEPT_ENCODING: &str = "identity";

/// How many redirects are followed, all within one origin.
const MAX_REDIRECTS: usize = 3;

/// What a fetch may cost.
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

/// A 200 answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    /// `Cache-Control: max-age`; zero for `no-store` and `no-cache` (RFC 9111 §5.2.2).
    pub(crate) max_age: Option<Duration>,
    /// Whether this was configured, and not fetched.
    pub(crate) is_given: bool,
}

/// Why a fetch failed. Says nothing that the other side sent but its status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("answered {status}")]
    Status {
        status: StatusCode,
        /// `Retry-After` of a 429 or 503.
        retry_after: Option<Duration>,
    },
    #[error(
        "answered in the content coding {0}, which was not asked for: switch compression off there"
    )]
    Encoded(&'static str),
    #[error("answered with more than {0} bytes")]
    TooLarge(usize),
    #[error("gave no answer within {0:?}")]
    Deadline(Duration),
    #[error("could not be reached: {0}")]
    Unreachable(String),
    /// Nothing was sent.
    #[error("could not be reached: {0}")]
    Unconnected(String),
    #[error("must not be asked: {0}")]
    Forbidden(&'static str),
}

/// The HTTP clients, built when first needed: building one reads the system's certificates.
#[derive(Debug, Default)]
pub(crate) struct Http {
    getting: [Client; 2],
    /// For what carries credentials: no redirect is followed.
    posting: [Client; 2],
}

type Client = OnceLock<Result<reqwest::Client, FetchError>>;

/// An answer to a form, whatever its status.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

impl Http {
    /// GETs `url`. Anything but a 200 within the limits is an error.
    pub(crate) async fn get(&self, url: &Url, limits: Limits) -> Result<Answer, FetchError> {
        ask(client(&self.getting, url, within_origin)?.get(url.clone()), limits).await
    }

    /// [`get`](Self::get) from a place that is not open to everybody: with a bearer token to show,
    /// and where `ca` is given (PEM), believing no other certificates.
    pub(crate) async fn get_as(
        &self,
        url: &Url,
        limits: Limits,
        ca: Option<&[u8]>,
        bearer: Option<HeaderValue>,
    ) -> Result<Answer, FetchError> {
        let own = ca.map(believing).transpose()?;
        let client = match &own {
            Some(client) => client,
            None => client(&self.getting, url, within_origin)?,
        };
        let mut request = client.get(url.clone());
        if let Some(bearer) = bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        ask(request, limits).await
    }

    /// POSTs a form to `url`. Every answer within the limits is handed on; a redirect is one, too.
    pub(crate) async fn post_form(
        &self,
        url: &Url,
        authorization: Option<HeaderValue>,
        form: String,
        limits: Limits,
        now: SystemTime,
    ) -> Result<Posted, FetchError> {
        let mut request = client(&self.posting, url, redirect::Policy::none)?
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

/// The client for `url`, of one for other machines and one for this: past every proxy, because
/// unencrypted keys must not leave this machine and come back.
fn client<'c>(
    [elsewhere, loopback]: &'c [Client; 2],
    url: &Url,
    redirects: fn() -> redirect::Policy,
) -> Result<&'c reqwest::Client, FetchError> {
    let any = reqwest::Client::builder;
    let client = match is_loopback(url) {
        true => loopback.get_or_init(|| build(any().no_proxy(), redirects())),
        false => elsewhere.get_or_init(|| build(any(), redirects())),
    };
    client.as_ref().map_err(Clone::clone)
}

async fn ask(request: reqwest::RequestBuilder, limits: Limits) -> Result<Answer, FetchError> {
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
    Ok(Answer { body, max_age, is_given: false })
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
    // Servers of compressed files do not always say so. JSON begins otherwise.
    match body.starts_with(&GZIP) {
        true => Err(FetchError::Encoded("gzip")),
        false => Ok(body),
    }
}

/// How every gzip file begins (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The coding of a body that is not as it is, by its registered name.
fn content_coding(headers: &HeaderMap) -> Option<&'static str> {
    const NAMES: [&str; 6] = ["gzip", "x-gzip", "deflate", "br", "zstd", "compress"];
    let codings = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let codings = codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut codings = codings.map(<[u8]>::trim_ascii);
    let used = codings.find(|it| !it.is_empty() && !it.eq_ignore_ascii_case(b"identity"))?;
    let name = NAMES.into_iter().find(|name| used.eq_ignore_ascii_case(name.as_bytes()));
    Some(name.unwrap_or("of another name"))
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

/// `Retry-After` in seconds, or as a date, which is compared with the other side's own clock when
/// it tells it (RFC 9110 §10.2.3), and else with `now`.
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

/// A client that believes these certificates and no others, past every proxy: what has its own
/// certificates is within the house.
fn believing(ca: &[u8]) -> Result<reqwest::Client, FetchError> {
    let unusable = || FetchError::Unreachable("the certificates to believe cannot be read".into());
    let certificates = reqwest::Certificate::from_pem_bundle(ca).map_err(|_| unusable())?;
    if certificates.is_empty() {
        return Err(unusable());
    }
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only(certificates);
    build(builder, within_origin())
}

fn build(
    builder: reqwest::ClientBuilder,
    redirects: redirect::Policy,
) -> Result<reqwest::Client, FetchError> {
    // What other crates of the program may have switched on in the client, which is shared with them:
    // another TLS, and decompression, which makes little of what was sent into much.
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

/// Judges a URL that came out of provider metadata: `https`, or loopback where allowed, and not
/// an address of a private network unless the metadata itself came from that host (RFC 8725 §3.10).
/// A *name* that resolves to a private address passes: providers inside a company have such names.
pub(crate) fn check_learned_url(
    url: &Url,
    learned_from: &Url,
    allow_loopback_http: bool,
) -> Result<(), FetchError> {
    let plain = url.scheme() == "http" && allow_loopback_http && is_loopback(url);
    if url.scheme() != "https" && !plain {
        return Err(FetchError::Forbidden("jwks_uri is not https"));
    }
    if is_private_address(url) && url.host() != learned_from.host() {
        return Err(FetchError::Forbidden("jwks_uri is an address of a private network"));
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
        Some(url::Host::Domain(name)) => name == "localhost",
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
    fn metadata_cannot_point_into_private_networks() {
        let from: Url = "https://scaikey.example/.well-known/openid-configuration".parse().unwrap();
        let judge = |url: &str, from: &Url| check_learned_url(&url.parse().unwrap(), from, true);
        for url in ["https://keys.example/jwks", "https://scaikey.example:8443/jwks"] {
            assert_eq!(judge(url, &from), Ok(()), "{url}");
        }
        for url in [
            "http://keys.example/jwks",
            "ftp://keys.example/jwks",
            "https://169.254.169.254/latest",
            "https://127.0.0.1/jwks",
            "http://localhost/jwks",
            "https://10.0.0.1/jwks",
            "https://[::1]/jwks",
            "https://[fe80::1]/jwks",
            "https://[::ffff:169.254.169.254]/jwks",
        ] {
            assert!(judge(url, &from).is_err(), "{url}");
        }
        let local: Url = "http://127.0.0.1:8080/".parse().unwrap();
        assert_eq!(judge("http://127.0.0.1:8080/jwks", &local), Ok(()));
        assert!(check_learned_url(&local, &local, false).is_err());
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
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
    fn content_codings_are_told_by_name() {
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
        assert_eq!(read(&["rot13"]), Some("of another name"));
    }

    #[test]
    fn cache_control_is_read_in_the_forms_providers_send() {
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
