//! [`AuthLayer`]: the tower layer and its options.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use tower_layer::Layer;

use super::identity_fields::IdentityFields;
use super::query::HadRevokedToken;
use super::service::refuse;
use super::source::{TenantSource, TokenSource};
use crate::auth::Auth;
use crate::error::{AuthError, ErrorResponse, InvalidToken, ProblemJson};
use crate::gate::Gated;
use crate::support::request_head::ClientKind;

/// A [`tower_layer::Layer`] that admits only authenticated requests and puts an
/// [`AuthContext`](crate::AuthContext) into their extensions.
///
/// It works anywhere in a tower stack: around every `Clone` service that takes `http::Request`s and
/// returns `http::Response`s, both with `http_body::Body` bodies. Examples are axum, plain hyper
/// and tonic (refused gRPC requests get a gRPC status). The response body is a
/// [`ResponseBody`](crate::layer::ResponseBody): the body of the service, or that of a refusal.
///
/// A refused request does not reach the service, and its body is not read. CORS preflights cannot
/// carry credentials, so they pass without an identity, unless
/// [`refuse_preflights`](Self::refuse_preflights) is set. A request with a body is never treated as
/// a preflight.
///
/// ```
/// use axum::{Router, routing::get};
/// use scaikey_auth::error::Envelope;
/// use scaikey_auth::layer::TokenSource;
/// use scaikey_auth::{Auth, Identity};
///
/// async fn home(caller: Option<Identity>) -> String {
///     format!("Hello, {}.\n", caller.as_ref().map_or("guest", |caller| caller.subject()))
/// }
///
/// fn app(auth: &Auth, api: Router) -> Router {
///     // Each layer has its own options. A proxy puts the token into a header of its own.
///     let sources = [TokenSource::Header(http::HeaderName::from_static("x-forwarded-access-token"))];
///     let protected = api.layer(auth.layer().tokens_from(sources).respond_with(Envelope::new("API_")));
///     let open = Router::new().route("/", get(home)).route_layer(auth.layer().optional());
///     open.merge(protected)
/// }
/// ```
#[derive(Clone)]
pub struct AuthLayer {
    pub(super) auth: Auth,
    pub(super) options: Arc<Options>,
}

/// A service behind an [`AuthLayer`].
pub type AuthService<S> = Gated<S, AuthLayer>;

#[derive(Clone)]
pub(super) struct Options {
    pub(super) optional: bool,
    pub(super) preflights_pass: bool,
    pub(super) tokens: Vec<TokenSource>,
    /// Whether one of the sources of tokens [is removed](TokenSource::is_removed).
    pub(super) removes_tokens: bool,
    pub(super) recorded: Option<IdentityFields>,
    pub(super) tenants: Vec<TenantSource>,
    respond: Arc<dyn ErrorResponse>,
}

impl AuthLayer {
    pub(crate) fn new(auth: Auth) -> Self {
        let options = Options {
            optional: false,
            preflights_pass: true,
            tokens: vec![TokenSource::Authorization],
            removes_tokens: false,
            recorded: None,
            tenants: Vec::new(),
            respond: Arc::new(ProblemJson),
        };
        Self { auth, options: Arc::new(options) }
    }

    /// Lets requests without a token pass. They have no identity. An invalid token is still
    /// refused.
    #[must_use]
    pub fn optional(self) -> Self {
        self.with_options(|options| options.optional = true)
    }

    /// Treats CORS preflights like all other requests. Use it if an outer layer answers preflights.
    #[must_use]
    pub fn refuse_preflights(self) -> Self {
        self.with_options(|options| options.preflights_pass = false)
    }

    /// Reads the token from `sources` instead of only the `Authorization` header. A request with
    /// tokens in several of them is refused with 400.
    #[must_use]
    pub fn tokens_from(self, sources: impl IntoIterator<Item = TokenSource>) -> Self {
        let sources: Vec<_> = sources.into_iter().collect();
        self.with_options(|options| {
            options.removes_tokens = sources.iter().any(TokenSource::is_removed);
            options.tokens = sources;
        })
    }

    /// Records who calls on the current `tracing` span, so that the lines of a caller can be found in
    /// the log. Default: nothing is recorded, because these fields are personal data.
    ///
    /// The current span is that of the innermost tracing layer outside this layer. A span has only
    /// the fields that it declares when it is created, so the span must declare `enduser.pseudo.id`
    /// and `tenant` as empty:
    ///
    /// ```
    /// use axum::Router;
    /// use http::Request;
    /// use scaikey_auth::layer::{IdentityFields, Pseudonyms};
    /// use scaikey_auth::{Auth, ConfigError, Secret};
    /// use tower_http::trace::TraceLayer;
    /// use tracing::field::Empty;
    ///
    /// /// `key`: from `openssl rand -base64 32`, the same in all processes.
    /// fn app(auth: &Auth, key: &Secret, api: Router) -> Result<Router, ConfigError> {
    ///     let fields = IdentityFields::Pseudonym(Pseudonyms::new(key)?);
    ///     let trace = TraceLayer::new_for_http().make_span_with(|request: &Request<_>| {
    ///         tracing::info_span!(
    ///             "request",
    ///             method = %request.method(),
    ///             path = request.uri().path(), // not the query, which may have secrets
    ///             enduser.pseudo.id = Empty,
    ///             tenant = Empty,
    ///         )
    ///     });
    ///     Ok(api.layer(auth.layer().record_identity(fields)).layer(trace))
    /// }
    /// ```
    ///
    /// Requests that this layer refuses, and those without a token, have no caller. A request that a guard
    /// refuses has one.
    #[must_use]
    pub fn record_identity(self, fields: IdentityFields) -> Self {
        self.with_options(|options| options.recorded = Some(fields))
    }

    /// Lets requests name their tenant in addition to the token. May be repeated; the order does
    /// not matter. All sources that name a tenant must agree, and each must
    /// [allow](TenantSource::authorised_by) a tenant other than the token's. Otherwise the request
    /// gets 403.
    #[must_use]
    pub fn tenant_from(self, source: TenantSource) -> Self {
        self.with_options(|options| options.tenants.push(source))
    }

    /// Sets the format of refusals. Default: [`ProblemJson`].
    #[must_use]
    pub fn respond_with(self, respond: impl ErrorResponse) -> Self {
        self.with_options(|options| options.respond = Arc::new(respond))
    }

    /// Returns this layer's response to a request that is refused with `error`: status, body
    /// ([`respond_with`](Self::respond_with)), `WWW-Authenticate`, `Retry-After` and
    /// `Cache-Control`. Logs and counts the refusal, as the layer does.
    ///
    /// Use it in code that authenticates without the layer: in one method of a gRPC service, in a
    /// framework without tower. Set `grpc` only if the client
    /// uses gRPC ([`RequestHead::is_grpc`](crate::layer::RequestHead::is_grpc)): the response then
    /// has the status 200 and a `grpc-status`, which any other client would read as success.
    ///
    /// A handler of a framework without tower:
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{HeaderMap, Response, header};
    /// use scaikey_auth::{Auth, AuthContext, AuthError, AuthLayer};
    ///
    /// /// `layer`: the `auth.layer()` of the other routes, so that all responses are alike.
    /// async fn admit(
    ///     auth: &Auth,
    ///     layer: &AuthLayer,
    ///     headers: &HeaderMap,
    /// ) -> Result<AuthContext, Response<Bytes>> {
    ///     let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    ///     let token = value.and_then(|value| value.strip_prefix("Bearer "));
    ///     let context = match token {
    ///         Some(token) => auth.authenticate(token).await,
    ///         None => Err(AuthError::MissingCredentials),
    ///     };
    ///     context.map_err(|error| layer.refusal(&error, false))
    /// }
    /// ```
    ///
    /// A method of a tonic service returns a `Status`. `Status::from_header_map` keeps the
    /// challenge and `Retry-After` in its metadata:
    ///
    /// ```
    /// use scaikey_auth::{AuthContext, AuthError, AuthLayer};
    /// use tonic::{Request, Response, Status};
    ///
    /// struct Documents {
    ///     layer: AuthLayer, // from `auth.layer()`
    /// }
    ///
    /// impl Documents {
    ///     async fn delete(&self, request: Request<()>) -> Result<Response<()>, Status> {
    ///         let context = request.extensions().get::<AuthContext>();
    ///         let context = context.ok_or_else(|| self.refuse(AuthError::MissingLayer))?;
    ///         if !context.identity().scopes().contains("documents:delete") {
    ///             let required = "documents:delete".into();
    ///             return Err(self.refuse(AuthError::InsufficientScope { required }));
    ///         }
    ///         Ok(Response::new(()))
    ///     }
    ///
    ///     fn refuse(&self, error: AuthError) -> Status {
    ///         let refusal = self.layer.refusal(&error, true);
    ///         let status = Status::from_header_map(refusal.headers());
    ///         status.unwrap_or_else(|| Status::internal(error.public_message()))
    ///     }
    /// }
    /// ```
    #[must_use = "the response must be sent"]
    pub fn refusal(&self, error: &AuthError, grpc: bool) -> Response<Bytes> {
        self.refuse(error, if grpc { ClientKind::Grpc } else { ClientKind::Program })
    }

    pub(super) fn refuse(&self, error: &AuthError, client: ClientKind) -> Response<Bytes> {
        let mut response = refuse(&self.auth, &*self.options.respond, error, client);
        if let AuthError::InvalidToken(InvalidToken::Revoked) = error.plain()
            && let [TokenSource::Authorization] = &*self.options.tokens
        {
            response.extensions_mut().insert(HadRevokedToken);
        }
        response
    }

    fn with_options(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(Arc::make_mut(&mut self.options));
        self
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}

impl fmt::Debug for AuthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { optional, preflights_pass, tokens, tenants, recorded, .. } = &*self.options;
        f.debug_struct("AuthLayer")
            .field("optional", optional)
            .field("preflights_pass", preflights_pass)
            .field("tokens", tokens)
            .field("tenants", tenants)
            .field("recorded", recorded)
            .finish_non_exhaustive()
    }
}
