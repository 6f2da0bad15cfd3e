//! The destinations of outgoing requests, and the kind of token for each of them.

use std::borrow::Cow;
use std::ptr;

use http::Uri;
use http::header::{HOST, HeaderMap};
use http::uri::Authority;
use url::Url;

use super::OutboundError;
use crate::config::{Fault, PlainHttp};
use crate::exchange::{ExchangeRequest, ServiceTokenRequest};
use crate::identity::{Scopes, TenantId};

/// The kind of token that a destination gets.
///
/// ```
/// use scaikey_auth::TokenExchangeClient;
/// use scaikey_auth::identity::Scopes;
/// use scaikey_auth::outbound::{OutboundBuilder, OutboundLayer, OutboundToken};
///
/// fn destinations(tokens: TokenExchangeClient, read: Scopes) -> OutboundBuilder {
///     OutboundLayer::builder(tokens)
///         // The user acts.
///         .destination(
///             "https://vault.example",
///             OutboundToken::on_behalf_of_caller("scaivault").scopes(read),
///         )
///         // This service acts.
///         .destination("https://search.example/index", OutboundToken::service())
///         // No identity is needed.
///         .destination("https://weather.example", OutboundToken::none())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct OutboundToken {
    pub(super) kind: TokenKind,
    /// A configuration fault, which [`build`](super::OutboundBuilder::build) reports.
    problem: Option<&'static str>,
}

/// The kind of token, with its request, which still lacks the caller's token and tenant.
#[derive(Debug, Clone)]
pub(super) enum TokenKind {
    OnBehalf(ExchangeRequest),
    Service { request: ServiceTokenRequest, in_callers_tenant: bool },
    Forwarded,
    None,
}

impl OutboundToken {
    fn new(kind: TokenKind) -> Self {
        Self { kind, problem: None }
    }

    fn of_service(request: ServiceTokenRequest, in_callers_tenant: bool) -> Self {
        Self::new(TokenKind::Service { request, in_callers_tenant })
    }

    /// Exchanges the caller's token for a token with this audience: by RFC 8693, or as the client's
    /// [`exchange_grant`](crate::exchange::TokenExchangeBuilder::exchange_grant) says. The destination
    /// learns who the user is, and cannot use the token at other services.
    pub fn on_behalf_of_caller(audience: impl Into<String>) -> Self {
        let audience = audience.into();
        let problem = audience.is_empty().then_some("has an empty audience");
        Self { kind: TokenKind::OnBehalf(ExchangeRequest::new("", audience)), problem }
    }

    /// Uses this service's own token, for every caller.
    pub fn service() -> Self {
        Self::of_service(ServiceTokenRequest::default(), false)
    }

    /// Uses this service's own token in `tenant`.
    pub fn service_in(tenant: TenantId) -> Self {
        Self::of_service(ServiceTokenRequest::for_tenant(tenant), false)
    }

    /// Uses this service's own token in the caller's tenant.
    pub fn service_in_callers_tenant() -> Self {
        Self::of_service(ServiceTokenRequest::default(), true)
    }

    /// Forwards the caller's token unchanged. The price: the destination can use the token at every
    /// service that accepts it, including this one. Use it only for destinations with the same audience.
    pub fn forwarded() -> Self {
        Self::new(TokenKind::Forwarded)
    }

    /// Adds no token: requests pass unchanged, including their own `Authorization` header.
    pub fn none() -> Self {
        Self::new(TokenKind::None)
    }

    /// Requests only these scopes: `.scopes("stock:read".parse()?)`. With [`forwarded`](Self::forwarded) or
    /// [`none`](Self::none), building the layer fails, because no token is requested.
    pub fn scopes(mut self, only: Scopes) -> Self {
        match &mut self.kind {
            TokenKind::OnBehalf(request) => request.scopes = only,
            TokenKind::Service { request, .. } => request.scopes = only,
            TokenKind::Forwarded | TokenKind::None => {
                self.problem = Some("has scopes, but requests no token");
            }
        }
        self
    }

    /// Adds a target service by name (`audience`). Allowed for tokens that are requested: with
    /// [`on_behalf_of_caller`](Self::on_behalf_of_caller) a further one, and with service tokens, for
    /// providers such as Auth0 that require one. With [`forwarded`](Self::forwarded) or
    /// [`none`](Self::none), building the layer fails.
    pub fn audience(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if name.is_empty() {
            self.problem = Some("has an empty audience");
        }
        match &mut self.kind {
            TokenKind::OnBehalf(request) => request.audiences.push(name),
            TokenKind::Service { request, .. } => request.audiences.push(name),
            TokenKind::Forwarded | TokenKind::None => {
                self.problem = Some("has an audience, but requests no token");
            }
        }
        self
    }

    /// Adds a target service by URL (RFC 8693 §2.1, RFC 8707). Allowed for tokens that are requested.
    /// With [`forwarded`](Self::forwarded) or [`none`](Self::none), building the layer fails.
    pub fn resource(mut self, resource: Url) -> Self {
        match self.kind {
            TokenKind::OnBehalf(request) => {
                self.kind = TokenKind::OnBehalf(request.resource(resource));
            }
            TokenKind::Service { request, in_callers_tenant } => {
                let request = request.resource(resource);
                self.kind = TokenKind::Service { request, in_callers_tenant };
            }
            TokenKind::Forwarded | TokenKind::None => {
                self.problem = Some("has a resource, but requests no token");
            }
        }
        self
    }
}

/// One destination: an origin, and optionally a path prefix.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    scheme: String,
    host: String,
    port: u16,
    /// The path prefix without a trailing slash. Empty for all paths.
    path: String,
    /// The path prefix, normalised by [`normalise_leniently`].
    lenient: String,
    pub(super) token: OutboundToken,
}

impl Destination {
    pub(super) fn new(
        url: &str,
        token: OutboundToken,
        plain_http: &PlainHttp,
    ) -> Result<Self, Fault> {
        let wrong = |problem: &str| Fault::new("destination", format!("`{url}` {problem}"));
        let parsed = Url::parse(url).map_err(|_| wrong("is not a URL"))?;
        if !plain_http.allows(&parsed) {
            return Err(wrong(
                "is not an https URL (http is allowed only for loopback addresses, with \
                 allow_loopback_http, and for hosts that are named with insecure_http_host)",
            ));
        }
        let extra = parsed.query().or(parsed.fragment()).or(parsed.password());
        if extra.is_some() || !parsed.username().is_empty() {
            return Err(wrong("has more than a scheme, a host, a port and a path"));
        }
        if let Some(problem) = token.problem {
            return Err(wrong(problem));
        }
        let (host, port) = (parsed.host_str(), parsed.port_or_known_default());
        let (host, port) = host.zip(port).ok_or_else(|| wrong("has no host"))?;
        let path = parsed.path().trim_end_matches('/').to_owned();
        let lenient = normalise_leniently(&path).into_owned();
        if is_ambiguous(&path, &lenient) {
            return Err(wrong(
                "has an ambiguous path: remove dot segments, empty segments and encoded slashes",
            ));
        }
        let (scheme, host) = (parsed.scheme().to_owned(), host.to_owned());
        Ok(Self { scheme, host, port, path, lenient, token })
    }

    #[cfg(feature = "reqwest-middleware")]
    pub(super) fn is_http(&self) -> bool {
        self.scheme == "http"
    }

    /// Returns whether both destinations cover the same requests.
    pub(super) fn is_equivalent(&self, other: &Self) -> bool {
        (&self.scheme, &self.host, self.port, &self.lenient)
            == (&other.scheme, &other.host, other.port, &other.lenient)
    }

    fn has_origin_of(&self, target: &Target<'_>) -> bool {
        self.scheme == target.scheme
            && self.port == target.port
            && self.host.eq_ignore_ascii_case(target.host)
    }
}

/// Returns the destination whose path is the longest prefix of `path`.
fn longest_match<'d>(
    destinations: impl Iterator<Item = &'d Destination>,
    path: &str,
    prefix: impl Fn(&'d Destination) -> &'d str,
) -> Option<&'d Destination> {
    let covers = |prefix: &str| {
        let rest = path.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    destinations
        .filter(|destination| covers(prefix(destination)))
        .max_by_key(|destination| prefix(destination).len())
}

/// The origin of a request: the server that the client connects to.
struct Target<'r> {
    scheme: &'r str,
    host: &'r str,
    port: u16,
}

impl<'r> Target<'r> {
    fn of(uri: &'r Uri) -> Option<Self> {
        let (scheme, (host, port)) = (uri.scheme_str()?, host_and_port(uri.authority()?)?);
        Some(Self { scheme, host, port: port.or(default_port(scheme))? })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

/// Splits an authority into host and port. Returns `None` for an authority with user information or an
/// invalid port, because clients treat these differently.
fn host_and_port(authority: &Authority) -> Option<(&str, Option<u16>)> {
    let host = authority.host();
    let rest = authority.as_str().strip_prefix(host)?;
    let Some(port) = rest.strip_prefix(':') else { return rest.is_empty().then_some((host, None)) };
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((host, Some(port.parse().ok()?)))
}

/// Returns the destination of a request: the one with the same origin and the longest matching path.
///
/// # Errors
/// No destination matches, the `Host` header differs from the URI, or the path is ambiguous.
pub(super) fn find<'d>(
    destinations: &'d [Destination],
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<&'d Destination, OutboundError> {
    let unknown = || OutboundError::UnknownDestination(uri.host().unwrap_or_default().to_owned());
    if uri.authority().is_none() {
        return Err(OutboundError::RelativeUrl);
    }
    let target = Target::of(uri).ok_or_else(unknown)?;
    let hosts = headers.get_all(HOST);
    if hosts.iter().count() > 1 || !hosts.iter().all(|host| matches_host(host.as_bytes(), &target))
    {
        return Err(OutboundError::HostMismatch);
    }
    let at_origin = || destinations.iter().filter(|destination| destination.has_origin_of(&target));
    let found = longest_match(at_origin(), uri.path(), |destination| &destination.path);
    if at_origin().any(|destination| !destination.path.is_empty()) {
        let lenient = normalise_leniently(uri.path());
        let other = longest_match(at_origin(), &lenient, |destination| &destination.lenient);
        let is_one = found.map(ptr::from_ref) == other.map(ptr::from_ref);
        if !is_one || is_ambiguous(uri.path(), &lenient) {
            return Err(OutboundError::AmbiguousPath);
        }
    }
    found.ok_or_else(unknown)
}

/// Returns whether a `Host` header names the target.
fn matches_host(host: &[u8], target: &Target<'_>) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    host_and_port(&authority).is_some_and(|(host, port)| {
        host.eq_ignore_ascii_case(target.host)
            && port.or(default_port(target.scheme)) == Some(target.port)
    })
}

/// Normalises a path as the most lenient server would. Decodes it twice, because a gateway and the
/// server behind it may both decode; converts backslashes to slashes and letters to lower case; and
/// removes the parameters of segments (RFC 3986 §3.3).
fn normalise_leniently(path: &str) -> Cow<'_, str> {
    let is_odd = |byte| matches!(byte, b'%' | b'\\' | b';' | b'A'..=b'Z');
    if !path.bytes().any(is_odd) {
        return Cow::Borrowed(path);
    }
    let path = percent_decode(&percent_decode(path)).replace('\\', "/").to_ascii_lowercase();
    let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    Cow::Owned(segments.collect::<Vec<_>>().join("/"))
}

/// Decodes percent-encoded ASCII characters.
fn percent_decode(path: &str) -> String {
    let mut parts = path.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte.filter(u8::is_ascii), part.get(2..)) {
            (Some(byte), Some(rest)) => {
                text.push(char::from(byte));
                text.push_str(rest);
            }
            _ => {
                text.push('%');
                text.push_str(part);
            }
        }
    }
    text
}

/// Returns whether a server may read the path differently: it has dot segments, empty segments, or encoded
/// slashes.
fn is_ambiguous(path: &str, lenient: &str) -> bool {
    let mut segments = lenient.split('/').skip(1).peekable();
    let mut is_odd = false;
    while let Some(segment) = segments.next() {
        // An empty last segment is a trailing slash, which is allowed.
        let is_empty = segment.is_empty() && segments.peek().is_some();
        is_odd |= is_empty || matches!(segment, "." | "..");
    }
    is_odd || lenient.matches('/').count() != path.matches('/').count()
}
