//! Sign-in, tokens, registration and more under `/v1/auth/`, as a tower layer (feature `endpoints`,
//! on by default).
//!
//! [`Auth::endpoints`] returns a builder for [`Endpoints`]. It sets which endpoints exist
//! ([`Endpoint`]), how browsers sign in ([`SignIn`]), where passwords are allowed
//! ([`PasswordDecision`]), the rate limits ([`Throttle`], by default [`TokenBuckets`]), and the
//! proxies that report client addresses ([`TrustedProxies`]).
//!
//! See also: [manual::endpoints](crate::manual::endpoints).

mod accounts;
mod backchannel_logout;
mod body;
mod builder;
mod client_config;
pub(crate) mod events;
#[cfg(feature = "trust")]
mod exchange;
mod identity_id;
mod introspect;
#[cfg(feature = "jwe")]
mod keys;
mod login;
mod logout;
mod metadata;
mod parameters;
mod pending_sign_in;
mod pending_sign_out;
mod proxies;
mod register;
mod report_limits;
mod response;
mod revoked;
mod seen_tokens;
mod service;
mod session_settings;
mod sessions;
mod sign_in;
mod step_up;
mod throttle;
mod tokens;
#[cfg(feature = "trust")]
mod trust_settings;
#[cfg(feature = "trust")]
mod trusts;
mod whoami;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};

use crate::auth::{Auth, AuthContext};
use crate::error::{AuthError, ErrorResponse};
use crate::exchange::TokenExchangeClient;
use crate::guard::Guard;
use crate::layer::{RequestHead, authenticate};
use crate::registrar::Registrar;
use crate::session::Sessions;
use crate::support::telemetry;
use accounts::AccountRule;
use events::Polling;
use identity_id::IdentityIdRule;
use proxies::ClientAddress;
use report_limits::RefusedAddresses;
use response::{Failure, Outages};
use seen_tokens::SeenTokens;
use tokens::PasswordRule;

pub use builder::EndpointsBuilder;
pub use events::{EventHandler, EventStream, SecurityEvent};
pub use proxies::{InvalidNetwork, TrustedProxies};
pub use service::{EndpointsService, NotFound};
pub use sign_in::SignIn;
use throttle::ThrottleWithFallback;
pub use throttle::{Attempt, Throttle, ThrottleDecision, TokenBuckets};
pub use tokens::{PasswordAttempt, PasswordDecision};
#[cfg(feature = "trust")]
pub use trusts::TrustAdmin;

/// An endpoint of [`Endpoints`].
///
/// ```
/// use scaikey_auth::endpoints::Endpoint;
///
/// # fn example(auth: &scaikey_auth::Auth) {
/// // This service registers its users at sign-in only.
/// let builder = auth.endpoints().without(Endpoint::Register).without(Endpoint::Introspect);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// `GET login` starts and completes a sign-in in the browser. `POST login` redeems an
    /// authorization code for a client that ran the flow itself (RFC 6749 §4.1.3).
    Login,
    /// `POST token`: the password grant (RFC 6749 §4.3), off by default.
    Token,
    /// `POST refresh`: redeems a refresh token (RFC 6749 §6).
    Refresh,
    /// `POST logout`: ends a session and revokes its refresh token (RFC 7009). If the sessions
    /// [end at the provider](crate::session::SessionsBuilder::end_at_provider), it also leads the
    /// browser there, and `GET logout` may be where the provider redirects it back.
    Logout,
    /// `GET sessions`, `DELETE sessions/{handle}` and `DELETE sessions`: the caller lists and ends its sessions, if
    /// they are in a [store](crate::session::SessionsBuilder::store). See [manual::sessions](crate::manual::sessions).
    Sessions,
    /// `POST backchannel_logout`: the provider reports that a session ended, and its tokens are refused from then on
    /// (OpenID Connect Back-Channel Logout 1.0).
    BackchannelLogout,
    /// `POST events`: a provider pushes security events, such as those of CAEP and RISC (RFC 8935).
    Events,
    /// `POST register`: registers the caller in this service (see [`Registrar`]).
    Register,
    /// `GET whoami`: returns the caller's identity.
    Whoami,
    /// `POST introspect`: reports whether a token is active (RFC 7662).
    Introspect,
    /// `POST exchange`: exchanges a workload token of another platform for a token of the provider
    /// or of this service (RFC 8693; feature `trust`).
    Exchange,
    /// `trusts` and the paths below it: administrators read, check, change and observe the trust policy
    /// of `exchange` (feature `trust`).
    Trusts,
    /// `GET config`: the settings a client needs to start a sign-in.
    Config,
    /// `GET keys`: the public keys that the provider encrypts tokens with (RFC 7517; feature `jwe`).
    Keys,
    /// `GET /.well-known/oauth-protected-resource`: metadata of this service (RFC 9728).
    Metadata,
}

impl Endpoint {
    /// All endpoints.
    pub(crate) const ALL: [Self; 15] = [
        Self::Login,
        Self::Token,
        Self::Refresh,
        Self::Logout,
        Self::Sessions,
        Self::BackchannelLogout,
        Self::Events,
        Self::Register,
        Self::Whoami,
        Self::Introspect,
        Self::Exchange,
        Self::Trusts,
        Self::Config,
        Self::Keys,
        Self::Metadata,
    ];

    /// Returns the endpoint's name: the last segment of its path, also used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Token => "token",
            Self::Refresh => "refresh",
            Self::Logout => "logout",
            Self::Sessions => "sessions",
            Self::BackchannelLogout => "backchannel_logout",
            Self::Events => "events",
            Self::Register => "register",
            Self::Whoami => "whoami",
            Self::Introspect => "introspect",
            Self::Exchange => "exchange",
            Self::Trusts => "trusts",
            Self::Config => "config",
            Self::Keys => "keys",
            Self::Metadata => "oauth-protected-resource",
        }
    }

    /// Returns the value of the `Allow` header (RFC 9110 §10.2.1).
    fn allow(self) -> &'static str {
        match self {
            Self::Login => "GET, POST",
            Self::Sessions => "GET, HEAD, DELETE",
            Self::Whoami | Self::Config | Self::Keys | Self::Metadata => "GET, HEAD",
            _ => "POST",
        }
    }

    /// Returns whether the endpoint uses the request body. Unused bodies are not read.
    fn reads_body(self, method: &Method) -> bool {
        *method == Method::POST && self != Self::Register
    }
}

/// The authentication endpoints of a service, as a [`tower_layer::Layer`]. It answers requests for
/// its paths and passes all others to the inner service. For a service without an inner service,
/// call [`service`](Self::service). Made by [`Auth::endpoints`]; cheap to clone.
///
/// ```
/// use axum::Router;
/// use scaikey_auth::endpoints::SignIn;
/// use scaikey_auth::registrar::MemoryRegistrar;
/// use scaikey_auth::{Auth, ConfigError, TokenExchangeClient};
///
/// fn app(auth: &Auth, client: TokenExchangeClient, api: Router) -> Result<Router, ConfigError> {
///     let endpoints = auth
///         .endpoints()
///         .client(client)
///         .sign_in(SignIn::new("https://wave.example/v1/auth/login"))
///         .registrar(MemoryRegistrar::new())
///         .build()?;
///     Ok(api.layer(auth.layer()).layer(endpoints))
/// }
/// ```
///
/// Place this layer outside [`Auth::layer`], which rejects requests without a token, and inside
/// [`Sessions::layer`](crate::session::Sessions::layer) and CORS layers.
///
/// | path | needs | enabled by |
/// |---|---|---|
/// | `GET /v1/auth/login` | nothing; optional `return_to` | [`sign_in`](EndpointsBuilder::sign_in) |
/// | `POST /v1/auth/login` | `code`, `code_verifier` | `sign_in` |
/// | `POST /v1/auth/token` | `grant_type=password`, `username`, `password` | [`client`](EndpointsBuilder::client); refused unless [allowed](EndpointsBuilder::password_grant) |
/// | `POST /v1/auth/refresh` | `refresh_token` | `client` |
/// | `POST /v1/auth/logout` | a session, or `refresh_token` | `client` |
/// | `/v1/auth/sessions` and below | a session | [`sessions`](EndpointsBuilder::sessions) with a [store](crate::session::SessionsBuilder::store) |
/// | `POST /v1/auth/backchannel_logout` | `logout_token` | [`backchannel_logout`](EndpointsBuilder::backchannel_logout) |
/// | `POST /v1/auth/events` | a security event token | [`security_events`](EndpointsBuilder::security_events) |
/// | `POST /v1/auth/register` | a bearer token | [`registrar`](EndpointsBuilder::registrar) |
/// | `GET /v1/auth/whoami` | a bearer token | always |
/// | `POST /v1/auth/introspect` | a bearer token with scope `admin`; `token` | always |
/// | `POST /v1/auth/exchange` | `grant_type`, `subject_token`, `subject_token_type` | [`workloads`](EndpointsBuilder::workloads) (feature `trust`) |
/// | `/v1/auth/trusts` and below | a bearer token that the guard admits | [`trust_admin`](EndpointsBuilder::trust_admin) (feature `trust`) |
/// | `GET /v1/auth/config` | nothing | `sign_in` |
/// | `GET /v1/auth/keys` | nothing | decryption keys of an issuer, such as `P_DECRYPTION_KEYS` (feature `jwe`) |
/// | `GET /.well-known/oauth-protected-resource` | nothing | [`AuthBuilder::resource`](crate::AuthBuilder::resource) |
///
/// Requests for endpoints that are not enabled go to the inner service. Methods that are not in the
/// table get 405, except `HEAD` for `whoami`, `config`, `keys` and the metadata. Every response except
/// the keys and the metadata has `Cache-Control: no-store`. Bodies are forms or JSON objects of at most 64 KiB and
/// 64 parameters; `token`, `refresh` and `backchannel_logout` accept forms
/// only. A parameter must not be repeated; in
/// forms and queries, this does not apply to parameters that the endpoint does not know. A body
/// must arrive within 10 seconds ([`body_timeout`](EndpointsBuilder::body_timeout)), or the
/// response is 408. Bodies that an endpoint does not use are not read. `trusts` accepts policies of up to 1 MiB, and
/// reads a body only if the guard admits its caller. `events` has the errors of RFC 8935 §2.4. `register`, `whoami`,
/// `introspect`, `sessions` and `trusts` report errors like
/// [`Auth::layer`]; the other endpoints use the error format of RFC
/// 6749 §5.2.
#[derive(Clone)]
pub struct Endpoints(Arc<Inner>);

struct Inner {
    auth: Auth,
    prefix: String,
    enabled: Vec<Endpoint>,
    client: Option<TokenExchangeClient>,
    sign_in: Option<SignIn>,
    sessions: Option<Sessions>,
    /// Whether the provider redirects browsers to `GET logout` after a sign-out there.
    provider_returns_to_logout: bool,
    /// The clients whose logout tokens are accepted.
    logout_audiences: Vec<String>,
    event_streams: Vec<EventStream>,
    polling: Polling,
    seen_tokens: SeenTokens,
    refused_addresses: RefusedAddresses,
    registrar: Option<Arc<dyn Registrar>>,
    registers_at_sign_in: bool,
    #[cfg(feature = "trust")]
    workloads: Option<crate::mint::WorkloadExchange>,
    #[cfg(feature = "trust")]
    administration: Option<trusts::Administration>,
    password_rule: Option<PasswordRule>,
    introspect_guard: Box<dyn Guard>,
    introspects_all_tenants: bool,
    session_admin: Option<Box<dyn Guard>>,
    ends_sessions_in_all_tenants: bool,
    identity_id: IdentityIdRule,
    wrap_in_data: bool,
    respond: Arc<dyn ErrorResponse>,
    throttle: Option<ThrottleWithFallback>,
    account_rule: AccountRule,
    client_address: ClientAddress,
    body_timeout: Duration,
    outages: Outages,
}

/// A request to an endpoint, with its whole body.
struct EndpointRequest {
    head: Parts,
    body: Bytes,
}

impl Endpoints {
    /// Returns the endpoints as a service that answers 404 to all other paths. Use it with
    /// `Router::nest_service` (and [`prefix("")`](EndpointsBuilder::prefix)), with
    /// `fallback_service`, or with hyper.
    pub fn service(&self) -> EndpointsService<NotFound> {
        EndpointsService { inner: NotFound, endpoints: self.clone() }
    }

    /// Returns the enabled endpoints.
    pub fn enabled(&self) -> &[Endpoint] {
        &self.0.enabled
    }

    /// Returns the sessions that sign-ins start, if configured. Place their
    /// [layer](Sessions::layer) outside this one.
    pub fn sessions(&self) -> Option<&Sessions> {
        self.0.sessions.as_ref()
    }

    /// Returns the exchange of workload tokens of other platforms, if enabled (feature `trust`).
    /// Its [evaluator](crate::mint::WorkloadExchange::evaluator) reloads the policy, explains
    /// decisions, and reports the state of the keys of the platforms' issuers.
    #[cfg(feature = "trust")]
    pub fn workloads(&self) -> Option<&crate::mint::WorkloadExchange> {
        self.0.workloads.as_ref()
    }

    /// Returns the endpoint at a path.
    fn find(&self, path: &str) -> Option<Endpoint> {
        let Inner { auth, prefix, enabled, .. } = &*self.0;
        let name = path.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_prefix('/'));
        let found = enabled.iter().find(|endpoint| match endpoint {
            Endpoint::Metadata => {
                auth.resource().is_some_and(|resource| resource.has_metadata_at(path))
            }
            Endpoint::Trusts | Endpoint::Sessions => name.is_some_and(|name| {
                let rest = name.strip_prefix(endpoint.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }),
            endpoint => name == Some(endpoint.as_str()),
        });
        found.copied()
    }
}

impl Inner {
    async fn dispatch(&self, endpoint: Endpoint, incoming: EndpointRequest) -> Response<Bytes> {
        let outcome = match endpoint {
            Endpoint::Login => self.login(&incoming).await,
            Endpoint::Token => self.token(&incoming).await,
            Endpoint::Refresh => self.refresh(&incoming).await,
            Endpoint::Logout => self.logout(&incoming).await,
            Endpoint::Sessions => self.sessions(&incoming).await,
            Endpoint::BackchannelLogout | Endpoint::Events => {
                self.report(endpoint, &incoming).await
            }
            Endpoint::Register => self.register(&incoming).await,
            Endpoint::Whoami => self.whoami(&incoming).await,
            Endpoint::Introspect => self.introspect(&incoming).await,
            #[cfg(feature = "trust")]
            Endpoint::Exchange => self.exchange(&incoming).await,
            #[cfg(not(feature = "trust"))]
            Endpoint::Exchange => Err(Failure::NotConfigured("needs the cargo feature `trust`")),
            // `respond` has answered it.
            Endpoint::Trusts => Err(Failure::NotConfigured("needs the cargo feature `trust`")),
            Endpoint::Config => self.config().await,
            #[cfg(feature = "jwe")]
            Endpoint::Keys => return self.keys(),
            #[cfg(not(feature = "jwe"))]
            Endpoint::Keys => Err(Failure::NotConfigured("needs the cargo feature `jwe`")),
            Endpoint::Metadata => return self.metadata(),
        };
        self.finish(endpoint, &incoming.head, outcome)
    }

    /// Turns an outcome into a response, and records it in metrics.
    fn finish(
        &self,
        endpoint: Endpoint,
        head: &Parts,
        outcome: Result<Response<Bytes>, Failure>,
    ) -> Response<Bytes> {
        if outcome.is_ok() {
            self.outages.record_success(endpoint, || self.auth.clock().elapsed());
        }
        let mut response =
            outcome.unwrap_or_else(|failure| self.failure_response(endpoint, head, failure));
        telemetry::endpoint_answered(endpoint.as_str(), response.status().as_u16());
        response::set_no_store(response.headers_mut());
        response
    }

    /// Returns the value of the `Allow` header of an endpoint at this path.
    fn allow(&self, endpoint: Endpoint, path: &str) -> &'static str {
        match endpoint {
            Endpoint::Logout if self.provider_returns_to_logout => "GET, POST",
            Endpoint::Sessions if self.session_handle(path).is_some() => "DELETE",
            endpoint => endpoint.allow(),
        }
    }

    fn allows(&self, endpoint: Endpoint, head: &Parts) -> bool {
        let allow = self.allow(endpoint, head.uri.path());
        allow.split(", ").any(|allowed| allowed == head.method.as_str())
    }

    /// Returns 405 with `Allow` (RFC 9110 §15.5.6), or the failure page for a browser.
    fn method_not_allowed(&self, endpoint: Endpoint, head: &Parts) -> Response<Bytes> {
        let is_shown = RequestHead::of_parts(head).is_navigation();
        let page = is_shown.then(|| self.failure_page(response::INVALID_REQUEST));
        let mut response = page.flatten().unwrap_or_else(|| {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            let allow = HeaderValue::from_static(self.allow(endpoint, head.uri.path()));
            response.headers_mut().insert(header::ALLOW, allow);
            response
        });
        response::set_no_store(response.headers_mut());
        response
    }

    /// Authenticates the caller by the token in the request.
    async fn caller(&self, incoming: &EndpointRequest) -> Result<AuthContext, AuthError> {
        authenticate(&self.auth, &incoming.head).await
    }

    /// Asks the throttle whether the attempt may proceed. The first call has no account and
    /// precedes reading the body. If the attempt concerns an account, a second call names it.
    async fn admit(
        &self,
        endpoint: Endpoint,
        head: &Parts,
        account: Option<&str>,
    ) -> Result<(), Failure> {
        let Some(throttle) = &self.throttle else { return Ok(()) };
        let address = self.client_address.find(head);
        let attempt = Attempt { endpoint, address, account };
        let now = self.auth.clock().elapsed();
        match throttle.admit(&attempt, now).await {
            ThrottleDecision::Allow => Ok(()),
            ThrottleDecision::Deny { retry_after } => Err(Failure::Throttled(retry_after)),
        }
    }

    fn client(&self) -> Result<&TokenExchangeClient, Failure> {
        self.client.as_ref().ok_or(Failure::NotConfigured("the token client is not configured"))
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints")
            .field("prefix", &self.0.prefix)
            .field("enabled", &self.0.enabled)
            .finish_non_exhaustive()
    }
}
