//! [`OutboundLayer`]: which destinations there are, around any HTTP client.

use std::sync::Arc;

use http_body::Body;
use tower_layer::Layer;

use super::destination::{Destination, OutboundToken};
use super::service::OutboundService;
use crate::config::{ConfigError, Fault};
use crate::exchange::TokenExchangeClient;

/// Puts the right token on each request an HTTP client sends, and sends none anywhere else.
///
/// Works around every `Service<http::Request<B>, Response = http::Response<_>>`. A request goes out
/// only if its URI, which is what the client connects to, is one of the
/// [destinations](OutboundBuilder::destination); everything else is refused before it is sent, and so
/// is a request for which no token is to be had, and one that brings an `Authorization` of its own.
/// Each request is looked at by itself, and what happens below this layer it does not see: a client
/// there should not follow redirects, and no layer there should change the URI.
///
/// When a service answers 401, the token is replaced once, if it is older than ten seconds, and the
/// request is sent once more, if its body can be [replayed](OutboundBuilder::replay). A forwarded
/// token cannot be replaced.
///
/// The caller is the [`AuthContext`](crate::AuthContext) in the extensions of the request that is
/// sent, else the one of the task ([`with_caller`](super::with_caller),
/// [`CallerLayer`](super::CallerLayer)).
///
/// ```
/// use axum::body::Body;
/// use hyper_util::client::legacy::{Client, connect::HttpConnector};
/// use hyper_util::rt::TokioExecutor;
/// use scaikey_auth::outbound::{ReplayEmpty, OutboundLayer, OutboundService, OutboundToken};
/// use scaikey_auth::{ConfigError, TokenExchangeClient};
/// use tower::Layer;
///
/// type Http = OutboundService<Client<HttpConnector, Body>, ReplayEmpty>;
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
/// `build_http` makes a client without TLS: for these destinations give `build` a connector with it.
#[derive(Debug, Clone)]
pub struct OutboundLayer<R = ReplayEmpty> {
    pub(super) rules: Arc<Rules>,
    pub(super) replay: R,
}

#[derive(Debug)]
pub(super) struct Rules {
    pub(super) client: TokenExchangeClient,
    pub(super) destinations: Vec<Destination>,
}

impl OutboundLayer {
    /// Begins with no destination: nothing may be sent.
    pub fn builder(client: TokenExchangeClient) -> OutboundBuilder {
        let (destinations, replay) = (Vec::new(), ReplayEmpty);
        OutboundBuilder { client, destinations, allow_loopback_http: false, replay }
    }
}

/// Sets up an [`OutboundLayer`]. Made by [`OutboundLayer::builder`].
#[derive(Debug, Clone)]
#[must_use = "a layer exists only once it is built"]
pub struct OutboundBuilder<R = ReplayEmpty> {
    client: TokenExchangeClient,
    destinations: Vec<(String, OutboundToken)>,
    allow_loopback_http: bool,
    replay: R,
}

impl<R> OutboundBuilder<R> {
    /// Requests to `url` get this token: to its scheme, host and port, and to its path and all
    /// below. Of several that fit, the longest path counts.
    pub fn destination(mut self, url: impl Into<String>, token: OutboundToken) -> Self {
        self.destinations.push((url.into(), token));
        self
    }

    /// Allows `http://` to this machine, for development. Default: no.
    pub fn allow_loopback_http(mut self, allow: bool) -> Self {
        self.allow_loopback_http = allow;
        self
    }

    /// How a body is had twice, for the second attempt after a 401: a closure that gives a copy,
    /// or `None` when it cannot be had. `|body: &Full<Bytes>| Some(body.clone())` for bodies that
    /// are in memory. Default: [`ReplayEmpty`].
    pub fn replay<P>(self, replay: P) -> OutboundBuilder<P> {
        let Self { client, destinations, allow_loopback_http, .. } = self;
        OutboundBuilder { client, destinations, allow_loopback_http, replay }
    }

    /// The layer.
    ///
    /// # Errors
    /// All faults at once: a destination that is no `https` URL (or allowed loopback one), has more
    /// than host, port and path, has a path that can be read in two ways, or is given twice, in
    /// whatever spelling.
    pub fn build(self) -> Result<OutboundLayer<R>, ConfigError> {
        let (mut destinations, mut faults) = (Vec::<Destination>::new(), Vec::new());
        for (url, token) in self.destinations {
            match Destination::new(&url, token, self.allow_loopback_http) {
                Ok(twin) if destinations.iter().any(|known| known.is_same(&twin)) => {
                    faults.push(Fault::new("destination", format!("`{url}` is given twice")));
                }
                Ok(destination) => destinations.push(destination),
                Err(fault) => faults.push(fault),
            }
        }
        ConfigError::from_faults(faults)?;
        let rules = Arc::new(Rules { client: self.client, destinations });
        Ok(OutboundLayer { rules, replay: self.replay })
    }
}

impl<S, R: Clone> Layer<S> for OutboundLayer<R> {
    type Service = OutboundService<S, R>;

    fn layer(&self, inner: S) -> OutboundService<S, R> {
        OutboundService { inner, layer: self.clone() }
    }
}

/// Gives a body a second time. Closures of this shape are one.
pub trait Replay<B>: Clone + Send + 'static {
    /// A copy of a body that was not sent yet; `None` when there is none to be had.
    fn copy(&self, body: &B) -> Option<B>;
}

/// Replays empty bodies only.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplayEmpty;

impl<B: Body + Default> Replay<B> for ReplayEmpty {
    fn copy(&self, body: &B) -> Option<B> {
        body.is_end_stream().then(B::default)
    }
}

impl<B, F> Replay<B> for F
where
    F: Fn(&B) -> Option<B> + Clone + Send + 'static,
{
    fn copy(&self, body: &B) -> Option<B> {
        self(body)
    }
}
