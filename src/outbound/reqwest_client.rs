//! [`OutboundLayer::reqwest_client`]: a `reqwest` client whose requests carry tokens.

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{AUTHORIZATION, HeaderMap};
use http::{Extensions, StatusCode, Uri};
use reqwest_middleware::reqwest::{self, redirect};
use reqwest_middleware::{ClientWithMiddleware, Middleware, Next};

use super::OutboundError;
use super::layer::{OutboundLayer, Rules};
use super::send::{Client, TokenAction, decide, send};

impl<R> OutboundLayer<R> {
    /// Builds a `reqwest` client that adds tokens to its requests (feature `reqwest-middleware`).
    ///
    /// ```
    /// use axum::{extract::State, http::StatusCode};
    /// use reqwest_middleware::ClientWithMiddleware;
    /// use scaikey_auth::TokenExchangeClient;
    /// use scaikey_auth::outbound::{OutboundLayer, OutboundToken};
    ///
    /// fn http(tokens: TokenExchangeClient) -> Result<ClientWithMiddleware, Box<dyn std::error::Error>> {
    ///     let outbound = OutboundLayer::builder(tokens)
    ///         .destination("https://vault.example", OutboundToken::on_behalf_of_caller("scaivault"))
    ///         .build()?;
    ///     Ok(outbound.reqwest_client(reqwest::Client::builder())?)
    /// }
    ///
    /// async fn secrets(State(http): State<ClientWithMiddleware>) -> Result<String, StatusCode> {
    ///     let answer = http.get("https://vault.example/secrets").send().await;
    ///     let answer = answer.map_err(|_| StatusCode::BAD_GATEWAY)?;
    ///     answer.text().await.map_err(|_| StatusCode::BAD_GATEWAY)
    /// }
    /// ```
    ///
    /// The rules are those of the layer, with these differences:
    ///
    /// * the caller is the [`AuthContext`](crate::AuthContext) given with `with_extension`, or else the
    ///   caller of the current task;
    /// * after a 401, a request is repeated unless its body is a stream, whatever
    ///   [`resend`](super::OutboundBuilder::resend) says;
    /// * `reqwest` normalises a URL before the layer sees it, and sends the normalised one.
    ///
    /// Takes a builder instead of a client, because the client must not follow redirects: the layer would not
    /// see where they lead. So this method turns them off, and a redirect is the response of the request.
    /// Unless a destination is `http`, it also turns on `https_only`. Every other setting of the builder
    /// counts, such as timeouts, proxies, and the certificates of a private CA (`tls_certs_only`). The layer
    /// does not see a `Host` header in `default_headers`. Do not enable a cookie store: the cookies of one user
    /// would be sent with the requests of another.
    ///
    /// # Errors
    /// `reqwest` cannot build the client.
    pub fn reqwest_client(
        &self,
        client: reqwest::ClientBuilder,
    ) -> Result<ClientWithMiddleware, reqwest::Error> {
        self.reqwest_client_behind(Vec::new(), client)
    }

    /// Builds a client as [`reqwest_client`](Self::reqwest_client) does, with other middlewares outside of
    /// the layer; the first is the outermost. They see requests without a token: for example, a middleware
    /// that retries gets a token that is valid at each attempt, and one that traces cannot log it.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use reqwest_middleware::{ClientWithMiddleware, Middleware};
    /// use scaikey_auth::outbound::OutboundLayer;
    ///
    /// fn http(
    ///     outbound: &OutboundLayer,
    ///     retries: impl Middleware,
    /// ) -> Result<ClientWithMiddleware, reqwest::Error> {
    ///     outbound.reqwest_client_behind(vec![Arc::new(retries)], reqwest::Client::builder())
    /// }
    /// ```
    ///
    /// A middleware that is added to the returned client with `ClientBuilder::from_client(http).with(…)` is
    /// inside of the layer. It sees the token, and must not change the URL.
    ///
    /// # Errors
    /// `reqwest` cannot build the client.
    pub fn reqwest_client_behind(
        &self,
        mut outer: Vec<Arc<dyn Middleware>>,
        client: reqwest::ClientBuilder,
    ) -> Result<ClientWithMiddleware, reqwest::Error> {
        let mut client = client.redirect(redirect::Policy::none());
        if !self.rules.allows_http() {
            client = client.https_only(true);
        }
        outer.push(Arc::new(TokenMiddleware { rules: self.rules.clone() }));
        Ok(ClientWithMiddleware::new(client.build()?, outer))
    }
}

/// The layer as a middleware. It is not public, because in a client that follows redirects it would not
/// see where a token goes.
struct TokenMiddleware {
    rules: Arc<Rules>,
}

#[async_trait]
impl Middleware for TokenMiddleware {
    async fn handle(
        &self,
        mut request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let uri = uri_of(&request)?;
        match decide(&self.rules, &uri, request.headers(), extensions)? {
            TokenAction::Pass => next.run(request, extensions).await,
            TokenAction::Forward(header) => {
                request.headers_mut().insert(AUTHORIZATION, header);
                next.run(request, extensions).await
            }
            TokenAction::Fetch(token_request) => {
                let client = Chain { next, extensions };
                send(client, self.rules.clone(), token_request, request).await
            }
        }
    }
}

/// Returns the URI that the client will connect to. `reqwest` converts the URL in the same way.
fn uri_of(request: &reqwest::Request) -> Result<Uri, OutboundError> {
    let url = request.url();
    let unknown =
        |_| OutboundError::UnknownDestination(url.host_str().unwrap_or_default().to_owned());
    url.as_str().parse().map_err(unknown)
}

/// The inner middlewares and the client.
struct Chain<'c> {
    next: Next<'c>,
    extensions: &'c mut Extensions,
}

impl Client<reqwest::Request> for Chain<'_> {
    type Response = reqwest::Response;
    type Error = reqwest_middleware::Error;

    fn copy(&self, request: &reqwest::Request) -> Option<reqwest::Request> {
        request.try_clone()
    }

    fn headers(request: &mut reqwest::Request) -> &mut HeaderMap {
        request.headers_mut()
    }

    fn head(response: &reqwest::Response) -> (StatusCode, &HeaderMap) {
        (response.status(), response.headers())
    }

    async fn send(
        &mut self,
        request: reqwest::Request,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        self.next.clone().run(request, self.extensions).await
    }
}

impl From<OutboundError> for reqwest_middleware::Error {
    fn from(error: OutboundError) -> Self {
        Self::middleware(error)
    }
}
