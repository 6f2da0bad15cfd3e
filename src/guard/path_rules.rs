//! [`PathRules`]: a guard for each path of a service.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use http::uri::PathAndQuery;

use super::guards::{Guard, GuardRequest, authenticated};
use super::require_layer::RequireLayer;
use crate::auth::Auth;
use crate::config::{ConfigError, Fault};
use crate::error::{AuthError, StepUp};
use crate::support::telemetry;

/// The maximum number of unlisted paths that are logged as warnings, because clients choose them.
const MAX_WARNINGS: usize = 16;

/// The maximum length of a path in the log, in characters.
const MAX_LOGGED_PATH: usize = 200;

/// A builder for a [`RequireLayer`] with a guard for each path. Returned by
/// [`Auth::require_by_path`].
///
/// Use it for the methods of a gRPC service, whose paths are `/package.Service/Method`, and for HTTP
/// services without a router, such as plain hyper. With axum, [`Auth::require`] on the route is
/// simpler.
///
/// A request to a path without a rule is refused with 403 ([`AuthError::UnlistedPath`]), even if the
/// caller has every scope. So a method that is added to the service later cannot be open by mistake.
/// The log names the path and the remedy, as a warning for the first 16 paths; the response names
/// neither.
///
/// Paths are exact: they are compared byte by byte with the path of the request, which has no query.
/// There are no patterns and no prefixes. `/docs/`, `/Docs` and `/%64ocs` are not `/docs`, so they are
/// refused. This is safe if your service compares paths in the same way, as tonic does. Inside
/// `Router::nest` of axum, the path has no prefix. A rule holds for all HTTP methods of its path;
/// [`guard_fn`](super::guard_fn) sees the method.
///
/// ```
/// use scaikey_auth::guard::{GuardExt, authenticated};
/// use scaikey_auth::{Auth, ConfigError, role, scope};
/// use tonic::service::LayerExt as _;
/// use tower::ServiceBuilder;
///
/// # fn example<S>(orders: S) -> Result<(), ConfigError> {
/// let auth = Auth::builder().issuer("https://scaikey.example").audience("orders").build()?;
/// let methods = auth
///     .require_by_path()
///     .path("/shop.Orders/Get", scope("orders:read"))
///     .path("/shop.Orders/Cancel", scope("orders:write").and(role("clerk")))
///     .path("/shop.Orders/Whoami", authenticated())
///     .build()?;
/// // `orders` is the service, such as `OrdersServer::new(..)`, and `protected` goes to `add_service`.
/// let protected = ServiceBuilder::new()
///     .layer(auth.layer())
///     .layer(methods)
///     .named_layer(orders);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "call `build` to get a layer"]
pub struct PathRules {
    auth: Auth,
    rules: Vec<(String, Arc<dyn Guard>)>,
    public: HashSet<String>,
}

impl PathRules {
    pub(super) fn new(auth: Auth) -> Self {
        Self { auth, rules: Vec::new(), public: HashSet::new() }
    }

    /// Requires `guard` for requests to `path`, such as `/shop.Orders/Get`.
    pub fn path(mut self, path: impl Into<String>, guard: impl Guard) -> Self {
        self.rules.push((path.into(), Arc::new(guard)));
        self
    }

    /// Admits requests to `path` with and without an identity. Requests without a token reach this
    /// layer only through an [`optional`](crate::AuthLayer::optional) layer: with a layer that is not
    /// optional, the path needs a token. An invalid token is refused in both cases.
    pub fn public(mut self, path: impl Into<String>) -> Self {
        let path = path.into();
        self.public.insert(path.clone());
        self.path(path, authenticated())
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// All faults together. A path is invalid if it:
    ///
    /// * does not begin with `/`, or has a query, a fragment, or characters that a URI cannot have;
    /// * has characters other than ASCII, which clients send percent-encoded;
    /// * has `{`, `}` or `*`, because patterns are not supported;
    /// * has empty segments or dot segments, which clients and proxies remove;
    /// * has two rules.
    pub fn build(self) -> Result<RequireLayer, ConfigError> {
        let (mut guards, mut faults) = (HashMap::new(), Vec::new());
        for (path, guard) in self.rules {
            let problem = problem(&path).or(guards.contains_key(&path).then_some("has two rules"));
            let fault = |problem| Fault::new("require_by_path", format!("`{path}` {problem}"));
            faults.extend(problem.map(fault));
            guards.insert(path, guard);
        }
        ConfigError::from_faults(faults)?;
        let guard = GuardByPath { guards, warned: Mutex::default() };
        Ok(RequireLayer::with_public_paths(self.auth, guard, self.public))
    }
}

impl fmt::Debug for PathRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = self.rules.iter().map(|(path, _)| path).collect::<Vec<_>>();
        f.debug_struct("PathRules")
            .field("paths", &paths)
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// Returns what is wrong with the path of a rule.
fn problem(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some(
            "does not begin with `/`: the path of a gRPC method is `/package.Service/Method`",
        );
    }
    if !path.is_ascii() {
        return Some("has characters other than ASCII: encode them (`%C3%A9`), as clients do");
    }
    if path.contains(['{', '}', '*']) {
        return Some("is a pattern: list each path exactly, or use `require` on a route of axum");
    }
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        // An empty last segment is a trailing slash, which is allowed.
        let is_empty = segment.is_empty() && segments.peek().is_some();
        if is_empty || matches!(segment, "." | "..") {
            return Some("has empty segments or dot segments, which clients and proxies remove");
        }
    }
    let parsed: Option<PathAndQuery> = path.parse().ok();
    let is_path = parsed.is_some_and(|parsed| parsed.as_str() == path && parsed.query().is_none());
    (!is_path)
        .then_some("is not a path: remove the query, the fragment, spaces and control characters")
}

/// The guard of the layer: looks up the guard of the path.
struct GuardByPath {
    guards: HashMap<String, Arc<dyn Guard>>,
    /// The unlisted paths that were logged as warnings.
    warned: Mutex<BTreeSet<Arc<str>>>,
}

impl Guard for GuardByPath {
    fn check(&self, request: &GuardRequest<'_>) -> Result<(), AuthError> {
        match self.guards.get(request.head.uri.path()) {
            Some(guard) => guard.check(request),
            None => Err(self.unlisted(request.head.uri.path())),
        }
    }

    fn step_up(&self, request: &GuardRequest<'_>) -> StepUp {
        let guard = self.guards.get(request.head.uri.path());
        guard.map(|guard| guard.step_up(request)).unwrap_or_default()
    }
}

impl GuardByPath {
    fn unlisted(&self, path: &str) -> AuthError {
        let path: Arc<str> = path.chars().take(MAX_LOGGED_PATH).collect::<String>().into();
        let error = AuthError::UnlistedPath { path: path.clone() };
        telemetry::path_unlisted(&error, self.is_new(path));
        error
    }

    /// Returns whether the path is to be logged as a warning, and notes it.
    fn is_new(&self, path: Arc<str>) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.len() < MAX_WARNINGS && warned.insert(path)
    }
}
