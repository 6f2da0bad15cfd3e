//! [`OutboundLayer`]: a tower layer that adds tokens to the requests of an HTTP client.

use std::sync::Arc;

use http_body::Body;
use tower_layer::Layer;

use super::destination::{Destination, OutboundToken};
use super::service::OutboundService;
use crate::config::{ConfigError, Fault, PlainHttp};
use crate::exchange::TokenExchangeClient;
use crate::support::telemetry;

/// A tower layer that adds a token to each request that an HTTP client sends, and rejects requests to
/// unknown destinations. With the feature `reqwest-middleware`, it also builds
/// [`reqwest` clients](Self::reqwest_client).
///
/// Wraps any `Service<http::Request<B>, Response = http::Response<_>>`. The layer sends a request only
/// if:
///
/// 1. its URI belongs to one of the [destinations](OutboundBuilder::destination), unambiguously, and
///    its `Host` header matches the URI;
/// 2. it has no `Authorization` header of its own, unless the destination gets no token;
/// 3. the token of the destination could be obtained.
///
/// The layer cannot check requests that the client below it makes on its own. So that client must not
/// follow redirects, and no layer below may change the URI.
///
/// If a service answers 401 and the token is older than ten seconds, the layer requests a new token. It
/// then repeats the request once, if its body can be [copied](OutboundBuilder::resend). A forwarded
/// token cannot be replaced.
///
/// The caller is the [`AuthContext`](crate::AuthContext) in the extensions of the outgoing request. If
/// there is none, it is the caller of the current task ([`with_caller`](super::with_caller),
/// [`CallerLayer`](super::CallerLayer)).
///
/// ```
/// use axum::body::Body;
/// use hyper_util::client::legacy::{Client, connect::HttpConnector};
/// use hyper_util::rt::TokioExecutor;
/// use scaikey_auth::outbound::{OutboundLayer, OutboundService, OutboundToken};
/// use scaikey_auth::{ConfigError, TokenExchangeClient};
/// use tower::Layer;
///
/// type Http = OutboundService<Client<HttpConnector, Body>>;
///
/// fn http(tokens: TokenExchangeClient) -> Result<Http, ConfigError> {
///     let outbound = OutboundLayer::builder(tokens)
///         .destination("https://vault.example", OutboundToken::on_behalf_of_caller("scaivault"))
///         .destination("https://search.example/index", OutboundToken::service())
///         .build()?;
///     Ok(outbound.layer(Client::builder(TokioExecutor::new()).build_http()))
/// }
/// ```
///
/// `build_http` returns a client without TLS. For `https` destinations use `build` with a TLS connector.
#[derive(Debug, Clone)]
pub struct OutboundLayer<R = ResendEmpty> {
    pub(super) rules: Arc<Rules>,
    pub(super) resend: R,
}

/// The client and the destinations of a layer.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) client: TokenExchangeClient,
    pub(super) destinations: Vec<Destination>,
}

impl Rules {
    /// Returns whether a destination is `http`.
    #[cfg(feature = "reqwest-middleware")]
    pub(super) fn allows_http(&self) -> bool {
        self.destinations.iter().any(Destination::is_http)
    }
}

impl OutboundLayer {
    /// Returns a builder without destinations. A layer without destinations rejects every request.
    pub fn builder(client: TokenExchangeClient) -> OutboundBuilder {
        let (destinations, plain_http) = (Vec::new(), PlainHttp::default());
        OutboundBuilder { client, destinations, plain_http, resend: ResendEmpty }
    }
}

/// A builder for an [`OutboundLayer`], returned by [`OutboundLayer::builder`].
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use scaikey_auth::TokenExchangeClient;
/// use scaikey_auth::issuer::ClientAuth;
/// use scaikey_auth::outbound::{OutboundLayer, OutboundToken};
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let tokens = TokenExchangeClient::builder("https://scaikey.example")
///     .client_auth(ClientAuth::basic("scaidrive", "secret"))
///     .build()?;
/// let outbound = OutboundLayer::builder(tokens)
///     .destination("https://vault.example", OutboundToken::service())
///     .destination("http://localhost:8080", OutboundToken::none())
///     .allow_loopback_http(true)
///     .resend(|body: &Full<Bytes>| Some(body.clone()))
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "call `build` to get a layer"]
pub struct OutboundBuilder<R = ResendEmpty> {
    client: TokenExchangeClient,
    destinations: Vec<(String, OutboundToken)>,
    plain_http: PlainHttp,
    resend: R,
}

impl<R> OutboundBuilder<R> {
    /// Adds a destination and its token. `url` matches requests with the same scheme, host and port,
    /// and with the same path or a path below it (`/a` matches `/a/b`, but not `/ab`). If several
    /// destinations match, the longest path wins.
    pub fn destination(mut self, url: impl Into<String>, token: OutboundToken) -> Self {
        self.destinations.push((url.into(), token));
        self
    }

    /// Allows `http://` destinations on loopback addresses, `localhost` and names under it, for development.
    /// Your HTTP client resolves these names. Default: not allowed.
    pub fn allow_loopback_http(mut self, allow: bool) -> Self {
        self.plain_http.loopback = allow;
        self
    }

    /// Allows `http://` destinations with this host (`host` or `host:port`), and no other. May be repeated.
    /// Use it only where the network encrypts and authenticates all traffic, such as a service mesh:
    /// otherwise an attacker in the network can read the tokens and use them. `build()` logs a warning with
    /// these hosts. Your HTTP client decides whether the requests pass a proxy, which would see the tokens,
    /// too. Default: not allowed.
    pub fn insecure_http_host(mut self, host: impl Into<String>) -> Self {
        self.plain_http.hosts.push(host.into());
        self
    }

    /// Sets the function that copies a body, so that the layer can repeat the request after a 401.
    /// Takes a closure that returns the copy, or `None` if the body cannot be copied; for a body in
    /// memory, for example, `|body: &Full<Bytes>| Some(body.clone())`. Default: [`ResendEmpty`].
    pub fn resend<P>(self, resend: P) -> OutboundBuilder<P> {
        let Self { client, destinations, plain_http, .. } = self;
        OutboundBuilder { client, destinations, plain_http, resend }
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// All faults together. An [`insecure_http_host`](Self::insecure_http_host) is invalid if it is not a
    /// host. A destination is invalid if:
    ///
    /// * it is neither an `https` URL nor an allowed `http` URL;
    /// * it has more than a scheme, a host, a port and a path;
    /// * its path is ambiguous: it has dot segments, empty segments or encoded slashes;
    /// * it is equivalent to another destination;
    /// * its token has an empty audience, or options that do not apply to it.
    pub fn build(self) -> Result<OutboundLayer<R>, ConfigError> {
        let (mut destinations, mut faults) = (Vec::<Destination>::new(), Vec::new());
        if let Some(problem) = self.plain_http.problem_of_hosts() {
            faults.push(Fault::new("insecure_http_host", problem));
        }
        for (url, token) in self.destinations {
            match Destination::new(&url, token, &self.plain_http) {
                Ok(new) if destinations.iter().any(|known| known.is_equivalent(&new)) => {
                    faults.push(Fault::new(
                        "destination",
                        format!("`{url}` is equivalent to an earlier destination"),
                    ));
                }
                Ok(new) => destinations.push(new),
                Err(fault) => faults.push(fault),
            }
        }
        ConfigError::from_faults(faults)?;
        if !self.plain_http.hosts.is_empty() {
            telemetry::insecure_http_destinations(&self.plain_http.hosts);
        }
        let rules = Arc::new(Rules { client: self.client, destinations });
        Ok(OutboundLayer { rules, resend: self.resend })
    }
}

impl<S, R: Clone> Layer<S> for OutboundLayer<R> {
    type Service = OutboundService<S, R>;

    fn layer(&self, inner: S) -> OutboundService<S, R> {
        OutboundService { inner, layer: self.clone() }
    }
}

/// A function that copies a request body. Implemented for closures `Fn(&B) -> Option<B>` that are
/// `Clone + Send + 'static`.
///
/// ```
/// use http_body_util::Full;
/// use scaikey_auth::outbound::Resend;
///
/// /// Copies bodies of at most a given size, in bytes. As a type, it can be named in an alias of
/// /// `OutboundService`.
/// #[derive(Debug, Clone)]
/// struct UpTo(usize);
///
/// impl Resend<Full<bytes::Bytes>> for UpTo {
///     fn copy(&self, body: &Full<bytes::Bytes>) -> Option<Full<bytes::Bytes>> {
///         let size = http_body::Body::size_hint(body).exact()?;
///         (size <= self.0 as u64).then(|| body.clone())
///     }
/// }
///
/// assert!(UpTo(9).copy(&Full::from("a letter")).is_some());
/// assert!(UpTo(7).copy(&Full::from("a letter")).is_none());
/// ```
pub trait Resend<B>: Clone + Send + 'static {
    /// Returns a copy of a body that has not been sent, or `None` if it cannot be copied.
    fn copy(&self, body: &B) -> Option<B>;
}

/// The default [`Resend`]: copies only empty bodies, so requests with a body are not repeated.
///
/// ```
/// use axum::body::Body;
/// use scaikey_auth::outbound::{Resend, ResendEmpty};
///
/// assert!(ResendEmpty.copy(&Body::empty()).is_some());
/// assert!(ResendEmpty.copy(&Body::from("a letter")).is_none());
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct ResendEmpty;

impl<B: Body + Default> Resend<B> for ResendEmpty {
    fn copy(&self, body: &B) -> Option<B> {
        body.is_end_stream().then(B::default)
    }
}

impl<B, F> Resend<B> for F
where
    F: Fn(&B) -> Option<B> + Clone + Send + 'static,
{
    fn copy(&self, body: &B) -> Option<B> {
        self(body)
    }
}
