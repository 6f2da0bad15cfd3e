//! The sources of the token and the tenant in a request.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use super::{query, web_socket};

use crate::auth::{IncomingToken, RequestedTenant, TenantAuthoriser};
use crate::error::AuthError;
use crate::identity::{Identity, TenantId};
use crate::support::request_head::RequestHead;
use crate::tenant::Tenant;

const SCHEME: &[u8] = b"bearer";

/// The place in a request where the layer looks for the token.
///
/// Pages of the service itself need no source for their web sockets and `EventSource`s if they use
/// [`Sessions`](crate::session::Sessions): the browser sends the cookies.
///
/// ```
/// use http::HeaderName;
/// use scaikey_auth::layer::TokenSource;
///
/// # fn example(auth: &scaikey_auth::Auth) {
/// // Both places are read. A request with a token in each gets 400.
/// let api_key = TokenSource::Header(HeaderName::from_static("x-api-key"));
/// let layer = auth.layer().tokens_from([TokenSource::Authorization, api_key]);
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum TokenSource {
    /// `Authorization: Bearer …` (RFC 6750 §2.1). The only source by default; see
    /// [`tokens_from`](crate::AuthLayer::tokens_from).
    Authorization,
    /// A header that contains only the token, such as `x-api-key` or `x-forwarded-access-token`. If a
    /// proxy sets the header, the proxy must remove it from client requests.
    Header(HeaderName),
    /// The web socket protocols that the client offers: `bearer`, followed by the token. Browsers
    /// cannot set `Authorization` on a web socket, but they can offer protocols:
    ///
    /// ```js
    /// new WebSocket("wss://api.example/feed", ["bearer", token])
    /// ```
    ///
    /// It is read only from requests that open a web socket (`Upgrade: websocket`, or the extended
    /// `CONNECT` of RFC 8441). Other protocols may stand before and behind the two. `bearer` is
    /// compared exactly. A JWT is a valid protocol name; a token with `/` or `=` is not (RFC 6455
    /// §4.1), so browsers cannot send it.
    ///
    /// The layer removes the token from the header, and leaves `bearer` and the other protocols, so
    /// that a service that logs or echoes the header does not leak it. Browsers close a web socket
    /// if they offered protocols and the server selected none. If the service selects no protocol,
    /// the layer therefore selects `bearer`. A service that selects one of the other protocols, or
    /// `bearer` itself (`WebSocketUpgrade::protocols(["bearer"])` in axum), decides.
    ///
    /// *Not* checked: `Origin`. It is not needed, because pages of other sites do not have the
    /// token. An outer layer and a proxy still see the token: do not log this header there.
    ///
    /// ```
    /// use axum::extract::ws::{WebSocket, WebSocketUpgrade};
    /// use axum::{Router, response::Response, routing::any};
    /// use scaikey_auth::layer::TokenSource;
    /// use scaikey_auth::{Auth, AuthContext};
    ///
    /// async fn feed(context: AuthContext, upgrade: WebSocketUpgrade) -> Response {
    ///     upgrade.on_upgrade(async move |mut socket: WebSocket| {
    ///         let hello = format!("Hello, {}.", context.identity().subject());
    ///         let _ = socket.send(hello.into()).await;
    ///     })
    /// }
    ///
    /// # fn main() -> Result<(), scaikey_auth::ConfigError> {
    /// let auth = Auth::builder().issuer("https://scaikey.example").audience("scaiwave").build()?;
    /// let sources = [TokenSource::Authorization, TokenSource::WebSocketProtocol];
    /// let app: Router =
    ///     Router::new().route("/feed", any(feed)).layer(auth.layer().tokens_from(sources));
    /// # Ok(()) }
    /// ```
    WebSocketProtocol,
    /// A parameter of the query. See [`insecure_query`](Self::insecure_query), which creates it.
    InsecureQuery(Arc<str>),
    /// A function that finds the token. It is called for every request. It returns the token,
    /// `None` if there is none, or an error, with which the request is refused.
    ///
    /// Security holes: returning one of several tokens, because an attacker may have added it;
    /// reading a cookie without checking the origin of requests that change state, because a
    /// browser sends its cookies with requests of foreign pages too.
    /// [`Sessions`](crate::session::Sessions) checks the origin. This example does not check it, so
    /// it is only for a service whose requests change nothing:
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use http::{HeaderValue, header};
    /// use scaikey_auth::layer::{RequestHead, TokenSource};
    /// use scaikey_auth::{Auth, AuthError};
    ///
    /// /// Returns the cookie `token`.
    /// fn cookie(head: RequestHead<'_>) -> Result<Option<HeaderValue>, AuthError> {
    ///     let lines = head.headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    ///     let pairs = lines.flat_map(|line| line.split("; "));
    ///     let mut tokens = pairs.filter_map(|pair| pair.strip_prefix("token="));
    ///     match (tokens.next(), tokens.next()) {
    ///         (None, _) => Ok(None),
    ///         (Some(token), None) => HeaderValue::from_str(token)
    ///             .map(Some)
    ///             .map_err(|_| AuthError::MalformedCredentials("The cookie holds no token.")),
    ///         _ => Err(AuthError::MalformedCredentials("The request carries two tokens.")),
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), scaikey_auth::ConfigError> {
    /// let auth = Auth::builder().issuer("https://scaikey.example").audience("scaiwave").build()?;
    /// let sources = [TokenSource::Authorization, TokenSource::Custom(Arc::new(cookie))];
    /// let layer = auth.layer().tokens_from(sources);
    /// # Ok(()) }
    /// ```
    Custom(Arc<CustomSource>),
}

/// The function of [`TokenSource::Custom`].
pub type CustomSource =
    dyn Fn(RequestHead<'_>) -> Result<Option<HeaderValue>, AuthError> + Send + Sync;

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorization => f.write_str("Authorization"),
            Self::Header(name) => f.debug_tuple("Header").field(name).finish(),
            Self::WebSocketProtocol => f.write_str("WebSocketProtocol"),
            Self::InsecureQuery(name) => f.debug_tuple("InsecureQuery").field(name).finish(),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}

impl TokenSource {
    /// Reads the token from a parameter of the query, usually `access_token` (RFC 6750 §2.3), for
    /// clients that cannot set headers, such as the browser's `EventSource`.
    ///
    /// **This leaks tokens** (RFC 9700 §4.3.2 forbids it): URLs end up in the logs of proxies and
    /// load balancers, in the browser's history, in `Referer` headers and in reports of errors. All
    /// their readers can act as the user until the token expires. First consider these:
    ///
    /// - [`Sessions`](crate::session::Sessions): `EventSource` sends the cookies of its own origin.
    /// - `fetch` with an `Authorization` header: it can read a stream of events, too.
    /// - [`WebSocketProtocol`](Self::WebSocketProtocol).
    ///
    /// If it must be the query, use short-lived tokens, and this source only on the routes that need
    /// it, never on one that answers with a page.
    ///
    /// The layer removes the parameter from the URI, and in axum also from `OriginalUri`, before tenant
    /// sources, proof verifiers, guards, inner layers and handlers see the request. Responses get `Cache-Control: private,
    /// no-store`, unless they already have `private` or `no-store`. *Not* removed: what outer layers
    /// see. A `TraceLayer` outside of this one logs the URI with the token; give it a
    /// [span of your own](crate::manual::operating#who-calls).
    ///
    /// The name and the value may be percent-encoded; `+` is a plus sign. Two parameters with the
    /// name are refused with 400.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use scaikey_auth::Auth;
    /// use scaikey_auth::layer::TokenSource;
    ///
    /// # fn example(auth: &Auth, events: axum::routing::MethodRouter, api: Router) -> Router {
    /// let sources = [TokenSource::Authorization, TokenSource::insecure_query("access_token")];
    /// // Only this route reads the query.
    /// let events = Router::new().route("/events", events).layer(auth.layer().tokens_from(sources));
    /// api.layer(auth.layer()).merge(events)
    /// # }
    /// ```
    pub fn insecure_query(name: impl Into<Arc<str>>) -> Self {
        Self::InsecureQuery(name.into())
    }

    /// Reads all `sources`, and returns the token that one of them has, not yet checked. Refuses a
    /// request with several tokens (RFC 6750 §2), because an attacker may have added one of them.
    pub(super) fn read_all(
        sources: &[Self],
        head: RequestHead<'_>,
    ) -> Result<Option<IncomingToken>, AuthError> {
        let mut found = None;
        for source in sources {
            let token = source.read(head)?;
            if token.is_some() && found.is_some() {
                return Err(TWO_TOKENS);
            }
            found = found.or(token);
        }
        Ok(found)
    }

    /// Reads this source. Shares the header value instead of copying it.
    #[inline]
    fn read(&self, head: RequestHead<'_>) -> Result<Option<IncomingToken>, AuthError> {
        let bare = |value: &HeaderValue| IncomingToken { value: value.clone(), start: 0 };
        Ok(match self {
            Self::Authorization => single(head.headers, &header::AUTHORIZATION)?
                .and_then(|value| Some((value, after_bearer(value.as_bytes())?)))
                .map(|(value, start)| IncomingToken { value: value.clone(), start }),
            Self::Header(name) => single(head.headers, name)?.map(bare),
            Self::WebSocketProtocol => web_socket::token(head)?.as_ref().map(bare),
            Self::InsecureQuery(name) => query::token(name, head.uri)?.as_ref().map(bare),
            Self::Custom(read) => read(head)?.as_ref().map(bare),
        })
    }

    /// Returns whether [`remove_all`](Self::remove_all) has to remove tokens of this source.
    pub(super) fn is_removed(&self) -> bool {
        matches!(self, Self::WebSocketProtocol | Self::InsecureQuery(_))
    }

    /// Removes the tokens from places that services often log or echo.
    pub(super) fn remove_all<Q>(sources: &[Self], request: &mut Request<Q>) -> Removed {
        let mut removed = Removed::default();
        for source in sources {
            match source {
                Self::WebSocketProtocol => {
                    let opens = RequestHead::of(request).opens_web_socket();
                    removed.from_protocols |= web_socket::remove(request.headers_mut()) && opens;
                }
                Self::InsecureQuery(name) => {
                    removed.from_query |= query::remove(name, request.uri_mut());
                    #[cfg(feature = "axum")]
                    if let Some(original) =
                        request.extensions_mut().get_mut::<axum::extract::OriginalUri>()
                    {
                        query::remove(name, &mut original.0);
                    }
                }
                Self::Authorization | Self::Header(_) | Self::Custom(_) => {}
            }
        }
        removed
    }
}

/// The places from which tokens were removed. They decide about headers of the response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub(super) from_protocols: bool,
    pub(super) from_query: bool,
}

pub(super) const TWO_TOKENS: AuthError =
    AuthError::MalformedCredentials("The request carries more than one token.");

/// Returns the value of a header that may occur at most once. Refuses a request with several values
/// (RFC 9110 §11.6.2).
#[inline]
fn single<'r>(
    headers: &'r HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'r HeaderValue>, AuthError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(TWO_TOKENS);
    }
    Ok(first)
}

/// Returns the offset of the token if the scheme is `Bearer`, ignoring case (RFC 9110 §11.1).
/// Returns `None` for another scheme.
#[inline]
fn after_bearer(value: &[u8]) -> Option<usize> {
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) || rest.first().is_some_and(|byte| *byte != b' ') {
        return None;
    }
    Some(SCHEME.len() + rest.iter().take_while(|byte| **byte == b' ').count())
}

/// Returns the `Authorization` value for a token, or `None` if a header cannot contain it.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The place in a request, other than the token, where the layer looks for the tenant.
///
/// The tenant must be the token's own, unless an authoriser lets the caller act in another. If
/// several sources name a tenant, each must allow it; a source without an authoriser allows only
/// the token's own.
///
/// ```
/// use http::HeaderName;
/// use scaikey_auth::layer::TenantSource;
///
/// # fn example(auth: &scaikey_auth::Auth) {
/// // `/v1/t/acme/docs` is the token's own tenant, or 403. Administrators of the platform may name any tenant
/// // in the header.
/// let header = TenantSource::header(HeaderName::from_static("x-tenant-id"));
/// let layer = auth
///     .layer()
///     .tenant_from(TenantSource::path("/v1/t/{tenant_id}/"))
///     .tenant_from(header.authorised_by(|identity, _| identity.has_role("platform-admin")));
/// # }
/// ```
#[derive(Clone)]
pub struct TenantSource {
    location: TenantLocation,
    authoriser: Option<TenantAuthoriser>,
}

#[derive(Clone)]
enum TenantLocation {
    Header(HeaderName),
    /// The parts of the path before and after the tenant.
    Path(Arc<str>, Arc<str>),
    Custom(Arc<dyn Fn(RequestHead<'_>) -> Option<String> + Send + Sync>),
}

impl TenantSource {
    /// Creates a source that reads the tenant from a header, such as `x-tenant-id`. A request with
    /// several values, or with an invalid one, gets 403.
    pub fn header(name: HeaderName) -> Self {
        Self::new(TenantLocation::Header(name))
    }

    /// Creates a source that reads the tenant from the path segment `{tenant_id}` of a pattern,
    /// such as `/v1/t/{tenant_id}/`. A path that does not begin with the pattern names no tenant.
    /// If the pattern has no `{tenant_id}`, the tenant is the segment after it. The segment is not
    /// percent-decoded.
    pub fn path(pattern: &str) -> Self {
        let (before, after) = pattern.split_once("{tenant_id}").unwrap_or((pattern, ""));
        Self::new(TenantLocation::Path(before.into(), after.into()))
    }

    /// Creates a source that reads the tenant with a function, for example from a subdomain. `None`
    /// means that the request names no tenant.
    pub fn custom(
        read: impl Fn(RequestHead<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::new(TenantLocation::Custom(Arc::new(read)))
    }

    /// Lets a caller act in a tenant other than its token's if `allows` returns `true`, for example
    /// an administrator of a partner in the partner's tenants. `allows` receives the tenant from
    /// the tenant store. If it is too permissive, callers can act in every tenant.
    #[must_use]
    pub fn authorised_by(
        mut self,
        allows: impl Fn(&Identity, &Tenant) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.authoriser = Some(Arc::new(allows));
        self
    }

    fn new(location: TenantLocation) -> Self {
        Self { location, authoriser: None }
    }

    /// Returns the tenant that the request names, or `None` if no source finds one. If the sources
    /// disagree, or find an invalid id, the result has no id, and the request is refused.
    #[inline]
    pub(super) fn requested(sources: &[Self], head: RequestHead<'_>) -> Option<RequestedTenant> {
        let mut found: Option<RequestedTenant> = None;
        for source in sources {
            let Some(named) = source.read(head) else { continue };
            let id = named.and_then(|named| TenantId::new(&named).ok());
            let authorisers = source.authoriser.clone().into_iter();
            let own_only = source.authoriser.is_none();
            match &mut found {
                None => {
                    let authorisers = authorisers.collect();
                    found = Some(RequestedTenant { id, authorisers, own_only });
                }
                Some(earlier) => {
                    earlier.id = earlier.id.take().filter(|earlier| Some(earlier) == id.as_ref());
                    earlier.authorisers.extend(authorisers);
                    earlier.own_only |= own_only;
                }
            }
        }
        found
    }

    /// Returns the value at the location, `None` if there is none, or `Some(None)` if it is
    /// invalid.
    fn read<'r>(&self, head: RequestHead<'r>) -> Option<Option<Cow<'r, str>>> {
        match &self.location {
            TenantLocation::Header(name) => {
                let mut values = head.headers.get_all(name).iter();
                let value = values.next()?;
                let only = values.next().is_none();
                Some(value.to_str().ok().filter(|_| only).map(Cow::Borrowed))
            }
            TenantLocation::Path(before, after) => {
                let rest = head.uri.path().strip_prefix(&**before)?;
                let (segment, behind) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                behind.starts_with(&**after).then_some(Some(Cow::Borrowed(segment)))
            }
            TenantLocation::Custom(read) => Some(Some(Cow::Owned(read(head)?))),
        }
    }
}

impl fmt::Debug for TenantSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let location: &dyn fmt::Debug = match &self.location {
            TenantLocation::Header(name) => name,
            TenantLocation::Path(before, _) => before,
            TenantLocation::Custom(_) => &"custom",
        };
        f.debug_struct("TenantSource")
            .field("location", location)
            .field("authorised", &self.authoriser.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn token(authorization: &[&str]) -> Result<Option<String>, u16> {
        let mut request = Request::new(());
        for value in authorization {
            request
                .headers_mut()
                .append("authorization", HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        match TokenSource::read_all(&[TokenSource::Authorization], RequestHead::of(&request)) {
            Ok(None) => Ok(None),
            Ok(Some(token)) => {
                let credentials = token.credentials();
                let checked = credentials.check().map(|()| Some(credentials.token().to_owned()));
                checked.map_err(|error| error.status().as_u16())
            }
            Err(error) => Err(error.status().as_u16()),
        }
    }

    #[test]
    fn authorization_header_follows_rfc_9110_and_6750() {
        let found = |text: &str| Ok(Some(text.to_owned()));
        let table = [
            (vec![], Ok(None)),
            (vec!["Bearer abc"], found("abc")),
            (vec!["bEaReR   a.b-c_~+/=="], found("a.b-c_~+/==")),
            (vec!["Basic dXNlcjpwYXNz"], Ok(None)),
            (vec!["Bearerabc"], Ok(None)),
            (vec![""], Ok(None)),
            (vec!["Bearer"], Err(400)),
            (vec!["Bearer "], Err(400)),
            (vec!["Bearer ="], Err(400)),
            (vec!["Bearer a b"], Err(400)),
            (vec!["Bearer a,b"], Err(400)),
            (vec!["Bearer a=b"], Err(400)),
            (vec!["Bearer \ta"], Err(400)),
            (vec!["Bearer é"], Err(400)),
            (vec!["Bearer a", "Bearer a"], Err(400)),
            (vec!["Bearer a", "Basic b"], Err(400)),
        ];
        for (values, expected) in table {
            assert_eq!(token(&values), expected, "{values:?}");
        }
    }

    #[test]
    fn tokens_in_two_sources_are_refused() {
        let mut request = Request::new(());
        request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer a"));
        let sources =
            [TokenSource::Authorization, TokenSource::Header(HeaderName::from_static("x-token"))];
        let read = |request: &Request<()>| {
            TokenSource::read_all(&sources, RequestHead::of(request)).map(|found| found.is_some())
        };
        assert!(read(&request).unwrap());
        request.headers_mut().insert("x-token", HeaderValue::from_static("b"));
        assert!(matches!(read(&request), Err(AuthError::MalformedCredentials(_))));
    }

    #[test]
    fn tenant_is_one_whole_path_segment() {
        let tenant = |path: &str| {
            let request = Request::builder().uri(path).body(()).unwrap();
            let sources = [TenantSource::path("/v1/t/{tenant_id}/")];
            let found = TenantSource::requested(&sources, RequestHead::of(&request));
            found.map(|found| found.id.map(|id| id.to_string()))
        };
        let named = |id: &str| Some(Some(id.to_owned()));
        assert_eq!(tenant("/v1/t/acme/docs?x=/"), named("acme"));
        assert_eq!(tenant("/v1/t/%61cme/docs"), named("%61cme"));
        for path in ["/v1/t/acme", "/v1/x/acme/", "/", "/v2/v1/t/acme/"] {
            assert_eq!(tenant(path), None, "{path}");
        }
        assert_eq!(tenant("/v1/t//docs"), Some(None), "an empty segment is an invalid tenant");
    }
}
