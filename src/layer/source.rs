//! Where in a request the token and the tenant are looked for.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};

use crate::auth::{IncomingToken, RequestedTenant, TenantAuthoriser};
use crate::error::AuthError;
use crate::identity::{Identity, TenantId};
use crate::tenant::Tenant;

const GRPC: &[u8] = b"application/grpc";
const SCHEME: &[u8] = b"bearer";

/// What of a request may be looked at to find token and tenant, and to guard a route. `Debug` prints neither
/// headers nor the query, where tokens are.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct RequestHead<'r> {
    /// The method.
    pub method: &'r Method,
    /// The target, as the service inside of routers that strip prefixes sees it.
    pub uri: &'r Uri,
    /// The headers.
    pub headers: &'r HeaderMap,
}

impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .finish_non_exhaustive()
    }
}

impl<'r> RequestHead<'r> {
    /// Makes the head of a request.
    pub fn of<B>(request: &'r Request<B>) -> Self {
        Self { method: request.method(), uri: request.uri(), headers: request.headers() }
    }

    pub(crate) fn of_parts(parts: &'r http::request::Parts) -> Self {
        Self { method: &parts.method, uri: &parts.uri, headers: &parts.headers }
    }

    /// Returns whether the request is gRPC, which alone understands a refusal with status 200: `POST` of
    /// `application/grpc`, alone or with a message format or parameters (gRPC over HTTP/2, Requests).
    pub fn is_grpc(&self) -> bool {
        let content_type = self.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let parts = content_type.and_then(|value| value.split_at_checked(GRPC.len()));
        *self.method == Method::POST
            && parts.is_some_and(|(start, rest)| {
                start.eq_ignore_ascii_case(GRPC) && matches!(rest, [] | [b'+' | b';', ..])
            })
    }

    /// A CORS preflight (Fetch §4.8), by its method and headers: it carries no credentials and
    /// announces neither content nor another protocol.
    #[inline]
    pub(super) fn is_preflight(&self) -> bool {
        *self.method == Method::OPTIONS
            && self.headers.contains_key(header::ORIGIN)
            && self.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
            && !self.headers.contains_key(header::TRANSFER_ENCODING)
            && !self.headers.contains_key(header::UPGRADE)
            && self.headers.get_all(header::CONTENT_LENGTH).iter().all(|length| *length == "0")
    }
}

/// A place where a token may be.
///
/// Tokens in the query are not among the places (RFC 9700 §4.3.2): they end up in logs.
#[derive(Clone)]
#[non_exhaustive]
pub enum TokenSource {
    /// `Authorization: Bearer …` (RFC 6750 §2.1). It alone is looked at unless
    /// [`tokens_from`](crate::AuthLayer::tokens_from) says otherwise.
    Authorization,
    /// A header that holds the bare token, such as `x-forwarded-access-token`. Only behind a proxy
    /// that removes the header from what clients send.
    Header(HeaderName),
    /// Anything else. Called for every request; returns the bare token, or `None` where there is none.
    ///
    /// Attacks: to return one of several tokens, which an attacker may have put beside the right one; to
    /// read a cookie where requests change something and nothing checks their origin, since a browser
    /// sends its cookies with requests of foreign pages, too. [`Sessions`](crate::session::Sessions) checks
    /// the origin. This example does not; it fits a service that only reads:
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

/// What [`TokenSource::Custom`] holds.
pub type CustomSource =
    dyn Fn(RequestHead<'_>) -> Result<Option<HeaderValue>, AuthError> + Send + Sync;

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorization => f.write_str("Authorization"),
            Self::Header(name) => f.debug_tuple("Header").field(name).finish(),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}

impl TokenSource {
    /// The token in one of `sources`, not yet checked. More than one is refused: which of them would
    /// count, an attacker might know better than we do (RFC 6750 §2).
    pub(super) fn find(
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

    /// No text is copied: header values are counted references.
    #[inline]
    fn read(&self, head: RequestHead<'_>) -> Result<Option<IncomingToken>, AuthError> {
        let bare = |value: &HeaderValue| IncomingToken { value: value.clone(), start: 0 };
        Ok(match self {
            Self::Authorization => single(head.headers, &header::AUTHORIZATION)?
                .and_then(|value| Some((value, after_bearer(value.as_bytes())?)))
                .map(|(value, start)| IncomingToken { value: value.clone(), start }),
            Self::Header(name) => single(head.headers, name)?.map(bare),
            Self::Custom(read) => read(head)?.as_ref().map(bare),
        })
    }
}

const TWO_TOKENS: AuthError =
    AuthError::MalformedCredentials("The request carries more than one token.");

/// The only value of a header; several are ambiguous (RFC 9110 §11.6.2).
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

/// Where the token begins, if the scheme is `Bearer` in any case (RFC 9110 §11.1). Another scheme
/// is no credentials at all to us.
#[inline]
fn after_bearer(value: &[u8]) -> Option<usize> {
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) || rest.first().is_some_and(|byte| *byte != b' ') {
        return None;
    }
    Some(SCHEME.len() + rest.iter().take_while(|byte| **byte == b' ').count())
}

/// The `Authorization` that sends a token; `None` if it does not fit into a header.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A place where a request may name its tenant, beside the token.
///
/// The tenant named must be the token's own, unless an authoriser lets the caller act in another. Where
/// several places of a request name it, each must allow that: a place without an authoriser allows only
/// the token's own.
#[derive(Clone)]
pub struct TenantSource {
    place: Place,
    authoriser: Option<TenantAuthoriser>,
}

#[derive(Clone)]
enum Place {
    Header(HeaderName),
    /// What stands before and behind the tenant in a path.
    Path(Arc<str>, Arc<str>),
    Custom(Arc<dyn Fn(RequestHead<'_>) -> Option<String> + Send + Sync>),
}

impl TenantSource {
    /// A header, such as `x-tenant-id`.
    pub fn header(name: HeaderName) -> Self {
        Self::at(Place::Header(name))
    }

    /// A segment of the path, written as `{tenant_id}`: `/v1/t/{tenant_id}/`. Paths that do not
    /// begin like that name no tenant. The segment is taken as it stands, without decoding.
    pub fn path(pattern: &str) -> Self {
        let (before, after) = pattern.split_once("{tenant_id}").unwrap_or((pattern, ""));
        Self::at(Place::Path(before.into(), after.into()))
    }

    /// Anything else, such as a sub-domain.
    pub fn custom(
        read: impl Fn(RequestHead<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::at(Place::Custom(Arc::new(read)))
    }

    /// Lets callers act in a tenant that is not their token's if `allows` says so: for partner
    /// administrators, say, and only within their partner. It sees the tenant as the resolver
    /// found it. An `allows` that is too generous opens every tenant to the caller.
    #[must_use]
    pub fn authorised_by(
        mut self,
        allows: impl Fn(&Identity, &Tenant) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.authoriser = Some(Arc::new(allows));
        self
    }

    fn at(place: Place) -> Self {
        Self { place, authoriser: None }
    }

    /// The tenant the request names, if any of `sources` finds one. Those that do must agree, and each
    /// must allow it; if they disagree, or what they find is no tenant, the request names a tenant
    /// that is nobody's.
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

    /// What stands in the place, if there is anything; `Some(None)` if it cannot be read.
    fn read<'r>(&self, head: RequestHead<'r>) -> Option<Option<Cow<'r, str>>> {
        match &self.place {
            Place::Header(name) => {
                let mut values = head.headers.get_all(name).iter();
                let value = values.next()?;
                let only = values.next().is_none();
                Some(value.to_str().ok().filter(|_| only).map(Cow::Borrowed))
            }
            Place::Path(before, after) => {
                let rest = head.uri.path().strip_prefix(&**before)?;
                let (segment, behind) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                behind.starts_with(&**after).then_some(Some(Cow::Borrowed(segment)))
            }
            Place::Custom(read) => Some(Some(Cow::Owned(read(head)?))),
        }
    }
}

impl fmt::Debug for TenantSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place: &dyn fmt::Debug = match &self.place {
            Place::Header(name) => name,
            Place::Path(before, _) => before,
            Place::Custom(_) => &"custom",
        };
        f.debug_struct("TenantSource")
            .field("place", place)
            .field("authorised", &self.authoriser.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(authorization: &[&str]) -> Result<Option<String>, u16> {
        let mut request = Request::new(());
        for value in authorization {
            request
                .headers_mut()
                .append("authorization", HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        match TokenSource::find(&[TokenSource::Authorization], RequestHead::of(&request)) {
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
    fn the_authorization_header_is_read_as_the_rfcs_say() {
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
    fn two_sources_with_a_token_are_refused() {
        let mut request = Request::new(());
        request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer a"));
        let sources =
            [TokenSource::Authorization, TokenSource::Header(HeaderName::from_static("x-token"))];
        let read = |request: &Request<()>| {
            TokenSource::find(&sources, RequestHead::of(request)).map(|found| found.is_some())
        };
        assert!(read(&request).unwrap());
        request.headers_mut().insert("x-token", HeaderValue::from_static("b"));
        assert!(matches!(read(&request), Err(AuthError::MalformedCredentials(_))));
    }

    #[test]
    fn the_tenant_is_one_whole_segment_of_the_path() {
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
        assert_eq!(tenant("/v1/t//docs"), Some(None), "an empty segment is nobody's");
    }
}
