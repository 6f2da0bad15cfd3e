//! Where tokens may go: destinations, and which token each of them gets.

use http::Uri;
use http::header::{HOST, HeaderMap};
use url::Url;

use super::OutboundError;
use crate::config::{Fault, is_loopback};
use crate::identity::{Scopes, TenantId};

/// Which token a destination gets.
#[derive(Debug, Clone)]
pub struct OutboundToken(pub(super) Kind);

#[derive(Debug, Clone)]
pub(super) enum Kind {
    OnBehalf { audience: String, scopes: Scopes },
    Service { tenant: ServiceTenant, scopes: Scopes },
    Forwarded,
    None,
}

#[derive(Debug, Clone)]
pub(super) enum ServiceTenant {
    None,
    Fixed(TenantId),
    Callers,
}

impl OutboundToken {
    /// The caller's token exchanged for one of this audience (RFC 8693): the service there sees
    /// the user, and a token that is good for nobody else.
    pub fn on_behalf_of_caller(audience: impl Into<String>) -> Self {
        Self(Kind::OnBehalf { audience: audience.into(), scopes: Scopes::new() })
    }

    /// A token of this service itself, whoever calls.
    pub fn service() -> Self {
        Self(Kind::Service { tenant: ServiceTenant::None, scopes: Scopes::new() })
    }

    /// A token of this service itself, in this tenant.
    pub fn service_in(tenant: TenantId) -> Self {
        Self(Kind::Service { tenant: ServiceTenant::Fixed(tenant), scopes: Scopes::new() })
    }

    /// A token of this service itself, in the tenant of the request it is serving.
    pub fn service_in_callers_tenant() -> Self {
        Self(Kind::Service { tenant: ServiceTenant::Callers, scopes: Scopes::new() })
    }

    /// The caller's own token, as it came. The price: the service there can use it wherever it is
    /// good, this service included. For services that are the same audience.
    pub fn forwarded() -> Self {
        Self(Kind::Forwarded)
    }

    /// No token: requests pass as they are.
    pub fn none() -> Self {
        Self(Kind::None)
    }

    /// Asks for these scopes only, where a token is asked for.
    pub fn scopes(mut self, only: Scopes) -> Self {
        if let Kind::OnBehalf { scopes, .. } | Kind::Service { scopes, .. } = &mut self.0 {
            *scopes = only;
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
        let (host, port) = (parsed.host_str(), parsed.port_or_known_default());
        let (host, port) = host.zip(port).ok_or_else(|| wrong("has no host"))?;
        Ok(Self {
            scheme: parsed.scheme().to_owned(),
            host: host.to_owned(),
            port,
            path: parsed.path().trim_end_matches('/').to_owned(),
            token,
        })
    }

    fn is_origin_of(&self, target: &Target<'_>) -> bool {
        self.scheme == target.scheme
            && self.port == target.port
            && self.host.eq_ignore_ascii_case(target.host)
    }

    fn covers(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.path.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What a client will connect to.
struct Target<'r> {
    scheme: &'r str,
    host: &'r str,
    port: u16,
}

impl<'r> Target<'r> {
    fn of(uri: &'r Uri) -> Option<Self> {
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        let port = match (uri.port_u16(), scheme) {
            (Some(port), _) => port,
            (None, "https") => 443,
            (None, "http") => 80,
            _ => return None,
        };
        let plain = !authority.as_str().contains('@');
        plain.then_some(Self { scheme, host: authority.host(), port })
    }
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
    if is_ambiguous(uri.path()) && at_origin().any(|known| !known.path.is_empty()) {
        return Err(OutboundError::Path);
    }
    let covering = at_origin().filter(|known| known.covers(uri.path()));
    covering.max_by_key(|known| known.path.len()).ok_or_else(refused)
}

/// Whether a `Host` header names what will be connected to.
fn names(host: &[u8], target: &Target<'_>) -> bool {
    let Ok(authority) = http::uri::Authority::try_from(host) else { return false };
    let port = authority.port_u16().unwrap_or(if target.scheme == "https" { 443 } else { 80 });
    !authority.as_str().contains('@')
        && authority.host().eq_ignore_ascii_case(target.host)
        && port == target.port
}

/// Whether a server may read the path as another one: dots, empty segments, hidden slashes.
fn is_ambiguous(path: &str) -> bool {
    let path = path.to_ascii_lowercase().replace("%2e", ".");
    let inner = path.strip_prefix('/').unwrap_or(&path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let hidden = ["%2f", "%5c", "\\"].iter().any(|slash| path.contains(slash));
    hidden || (!inner.is_empty() && inner.split('/').any(|part| ["", ".", ".."].contains(&part)))
}
