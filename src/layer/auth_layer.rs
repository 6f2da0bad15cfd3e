//! [`AuthLayer`]: what is decided once, when the service is put together.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use super::source::{TenantSource, TokenSource};
use crate::auth::Auth;
use crate::error::ProblemJson;
use crate::gate::Gated;

/// A [`tower_layer::Layer`] that admits only authenticated requests and puts an
/// [`AuthContext`](crate::AuthContext) into their extensions.
///
/// Works for every type of body (`http_body::Body`): axum, bare hyper, tonic (with [`Grpc`](crate::error::Grpc)). Refused requests
/// do not reach the service, and their bodies are not read. CORS preflights, which cannot carry
/// credentials, pass without an identity; a request with a body is none, whatever its headers say.
#[derive(Clone)]
pub struct AuthLayer<R = ProblemJson> {
    pub(super) auth: Auth,
    pub(super) options: Arc<Options>,
    pub(super) respond: R,
}

/// A service behind an [`AuthLayer`].
pub type AuthService<S, R> = Gated<S, AuthLayer<R>>;

#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) optional: bool,
    pub(super) preflights_pass: bool,
    pub(super) tokens: Vec<TokenSource>,
    pub(super) tenants: Vec<TenantSource>,
}

impl AuthLayer {
    pub(crate) fn new(auth: Auth) -> Self {
        let options = Options {
            optional: false,
            preflights_pass: true,
            tokens: vec![TokenSource::Authorization],
            tenants: Vec::new(),
        };
        Self { auth, options: Arc::new(options), respond: ProblemJson }
    }
}

impl<R> AuthLayer<R> {
    /// Admits requests without a token too, without an identity. A token that does not hold is
    /// still refused.
    #[must_use]
    pub fn optional(self) -> Self {
        self.with(|options| options.optional = true)
    }

    /// Refuses CORS preflights like everything else. Use it when a layer outside answers them.
    #[must_use]
    pub fn refuse_preflights(self) -> Self {
        self.with(|options| options.preflights_pass = false)
    }

    /// Looks for the token in `sources` instead of the `Authorization` header alone. A request with
    /// a token in more than one of them is refused with 400.
    #[must_use]
    pub fn tokens_from(self, sources: impl IntoIterator<Item = TokenSource>) -> Self {
        let sources: Vec<_> = sources.into_iter().collect();
        self.with(|options| options.tokens = sources)
    }

    /// Lets requests name their tenant in another place than the token. May be repeated, in any order:
    /// all places that name one must agree, and each must
    /// [allow](TenantSource::authorised_by) a tenant that is not the token's.
    #[must_use]
    pub fn tenant_from(self, source: TenantSource) -> Self {
        self.with(|options| options.tenants.push(source))
    }

    /// Sets how refusals are answered. Default [`ProblemJson`].
    #[must_use]
    pub fn respond_with<R2>(self, respond: R2) -> AuthLayer<R2> {
        AuthLayer { auth: self.auth, options: self.options, respond }
    }

    fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(Arc::make_mut(&mut self.options));
        self
    }
}

impl<S, R: Clone> Layer<S> for AuthLayer<R> {
    type Service = AuthService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}

impl<R> fmt::Debug for AuthLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthLayer").field("options", &self.options).finish_non_exhaustive()
    }
}
