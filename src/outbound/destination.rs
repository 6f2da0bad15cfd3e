//! Where tokens may go: destinations, and which token each of them gets.

use std::borrow::Cow;
use std::ptr;

use http::Uri;
use http::header::{HOST, HeaderMap};
use http::uri::Authority;
use url::Url;

use super::OutboundError;
use crate::config::{Fault, is_loopback};
use crate::exchange::{ExchangeRequest, ServiceTokenRequest};
use crate::identity::{Scopes, TenantId};

/// Which token a destination gets.
#[derive(Debug, Clone)]
pub struct OutboundToken {
    pub(super) kind: Kind,
    /// What was asked of it that it cannot do; told when the layer is built.
    problem: Option<&'static str>,
}

/// What is asked for, with the caller's part still to be filled in.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Without the caller's token and tenant.
    OnBehalf(ExchangeRequest),
    /// With the tenant, unless it is the caller's.
    Service {
        request: ServiceTokenRequest,
        in_callers_tenant: bool,
    },
    Forwarded,
    None,
}

impl OutboundToken {
    fn new(kind: Kind) -> Self {
        Self { kind, problem: None }
    }

    fn of_service(request: ServiceTokenRequest, in_callers_tenant: bool) -> Self {
        Self::new(Kind::Service { request, in_callers_tenant })
    }

    /// The caller's token exchanged for one of this audience (RFC 8693): the service there sees
    /// the user, and a token that is good for nobody else.
    pub fn on_behalf_of_caller(audience: impl Into<String>) -> Self {
        let audience = audience.into();
        let problem = audience.is_empty().then_some("has an empty audience");
        Self { kind: Kind::OnBehalf(ExchangeRequest::new("", audience)), problem }
    }

    /// A token of this service itself, whoever calls.
    pub fn service() -> Self {
        Self::of_service(ServiceTokenRequest::default(), false)
    }

    /// A token of this service itself, in this tenant.
    pub fn service_in(tenant: TenantId) -> Self {
        Self::of_service(ServiceTokenRequest::in_tenant(tenant), false)
    }

    /// A token of this service itself, in the tenant of the request it is serving.
    pub fn service_in_callers_tenant() -> Self {
        Self::of_service(ServiceTokenRequest::default(), true)
    }

    /// The caller's own token, as it came. The price: the service there can use it wherever it is
    /// good, this service included. For services that are the same audience.
    pub fn forwarded() -> Self {
        Self::new(Kind::Forwarded)
    }

    /// No token: requests pass as they are.
    pub fn none() -> Self {
        Self::new(Kind::None)
    }

    /// Asks for these scopes only. A token that is not asked for cannot be narrowed: for
    /// [`forwarded`](Self::forwarded) and [`none`](Self::none) the layer does not build.
    pub fn scopes(mut self, only: Scopes) -> Self {
        match &mut self.kind {
            Kind::OnBehalf(request) => request.scopes = only,
            Kind::Service { request, .. } => request.scopes = only,
            Kind::Forwarded | Kind::None => {
                self.problem = Some("has scopes for a token that is not asked for");
            }
        }
        self
    }

    /// Names what the token is for by its URL as well (RFC 8693 §2.1, RFC 8707). Only for
    /// [`on_behalf_of_caller`](Self::on_behalf_of_caller); with another the layer does not build.
    pub fn resource(mut self, resource: Url) -> Self {
        match self.kind {
            Kind::OnBehalf(request) => self.kind = Kind::OnBehalf(request.resource(resource)),
            _ => self.problem = Some("has a resource for a token that is not exchanged"),
        }
        self
    }
}

/// One destination: an origin, and perhaps a part of its paths.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    scheme: String,
    host: String,
    port: u16,
    /// Without a slash at its end; empty for all paths.
    path: String,
    /// The path as a lenient server reads it.
    lenient: String,
    pub(super) token: OutboundToken,
}

impl Destination {
    pub(super) fn new(
        url: &str,
        token: OutboundToken,
        allow_loopback_http: bool,
    ) -> Result<Self, Fault> {
        let wrong = |problem: &str| Fault::new("destination", format!("`{url}` {problem}"));
        let parsed = Url::parse(url).map_err(|_| wrong("is not a URL"))?;
        let plain = parsed.scheme() == "http" && allow_loopback_http && is_loopback(&parsed);
        if parsed.scheme() != "https" && !plain {
            return Err(wrong("is not an https URL"));
        }
        let extra = parsed.query().or(parsed.fragment()).or(parsed.password());
        if extra.is_some() || !parsed.username().is_empty() {
            return Err(wrong("has more than a host, a port and a path"));
        }
        if let Some(problem) = token.problem {
            return Err(wrong(problem));
        }
        let (host, port) = (parsed.host_str(), parsed.port_or_known_default());
        let (host, port) = host.zip(port).ok_or_else(|| wrong("has no host"))?;
        let path = parsed.path().trim_end_matches('/').to_owned();
        let lenient = read_leniently(&path).into_owned();
        if is_ambiguous(&path, &lenient) {
            return Err(wrong("has a path that can be read in two ways"));
        }
        let (scheme, host) = (parsed.scheme().to_owned(), host.to_owned());
        Ok(Self { scheme, host, port, path, lenient, token })
    }

    /// Whether both are the same place, however they are written.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let place = |of: &Self| (of.scheme.clone(), of.host.clone(), of.port, of.lenient.clone());
        place(self) == place(other)
    }

    fn is_origin_of(&self, target: &Target<'_>) -> bool {
        self.scheme == target.scheme
            && self.port == target.port
            && self.host.eq_ignore_ascii_case(target.host)
    }
}

/// The longest of these paths that covers this one.
fn longest<'d>(
    known: impl Iterator<Item = &'d Destination>,
    path: &str,
    of: impl Fn(&'d Destination) -> &'d str,
) -> Option<&'d Destination> {
    let covers = |part: &str| {
        let rest = path.strip_prefix(part);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    known.filter(|known| covers(of(known))).max_by_key(|known| of(known).len())
}

/// What a client will connect to.
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

/// `None` when there is more: a user, or a port that is no number, of which a client may make
/// what it likes.
fn host_and_port(authority: &Authority) -> Option<(&str, Option<u16>)> {
    let host = authority.host();
    let rest = authority.as_str().strip_prefix(host)?;
    let Some(port) = rest.strip_prefix(':') else { return rest.is_empty().then_some((host, None)) };
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((host, Some(port.parse().ok()?)))
}

/// The destination of a request: the longest path that covers it, at the origin it names.
pub(super) fn find<'d>(
    destinations: &'d [Destination],
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<&'d Destination, OutboundError> {
    let refused = || OutboundError::Destination(uri.host().unwrap_or_default().to_owned());
    let target = Target::of(uri).ok_or_else(refused)?;
    let named = headers.get_all(HOST);
    if named.iter().count() > 1 || !named.iter().all(|host| names(host.as_bytes(), &target)) {
        return Err(OutboundError::Host);
    }
    let at_origin = || destinations.iter().filter(|known| known.is_origin_of(&target));
    let found = longest(at_origin(), uri.path(), |known| &known.path);
    if at_origin().any(|known| !known.path.is_empty()) {
        let lenient = read_leniently(uri.path());
        let other = longest(at_origin(), &lenient, |known| &known.lenient);
        let is_one = found.map(ptr::from_ref) == other.map(ptr::from_ref);
        if !is_one || is_ambiguous(uri.path(), &lenient) {
            return Err(OutboundError::Path);
        }
    }
    found.ok_or_else(refused)
}

/// Whether a `Host` header names what will be connected to.
fn names(host: &[u8], target: &Target<'_>) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    host_and_port(&authority).is_some_and(|(host, port)| {
        host.eq_ignore_ascii_case(target.host)
            && port.or(default_port(target.scheme)) == Some(target.port)
    })
}

/// A path as the most lenient of servers reads it: decoded once at a gateway and once behind it,
/// in one case, backslashes as slashes, without the parameters of segments (RFC 3986 §3.3).
fn read_leniently(path: &str) -> Cow<'_, str> {
    let is_odd = |byte| matches!(byte, b'%' | b'\\' | b';' | b'A'..=b'Z');
    if !path.bytes().any(is_odd) {
        return Cow::Borrowed(path);
    }
    let path = decoded(&decoded(path)).replace('\\', "/").to_ascii_lowercase();
    let names = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    Cow::Owned(names.collect::<Vec<_>>().join("/"))
}

/// With the ASCII characters that were percent-encoded.
fn decoded(path: &str) -> String {
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

/// Whether a server may read the path as another one: dots, empty segments, hidden slashes.
fn is_ambiguous(path: &str, lenient: &str) -> bool {
    let mut segments = lenient.split('/').skip(1).peekable();
    let mut is_odd = false;
    while let Some(segment) = segments.next() {
        // An empty one at the end is a slash at the end.
        let is_empty = segment.is_empty() && segments.peek().is_some();
        is_odd |= is_empty || matches!(segment, "." | "..");
    }
    is_odd || lenient.matches('/').count() != path.matches('/').count()
}
