//! Issues ("mints") tokens for foreign workloads, by the provider or by this service (feature
//! `trust`).
//!
//! [`WorkloadExchange`] combines a [trust policy](crate::trust) with a [`Minter`]. Workloads call
//! it through `POST /v1/auth/exchange` ([`Endpoints`](crate::endpoints::Endpoints)).
//!
//! See also: [manual::endpoints](crate::manual::endpoints).

mod forwarding;
mod local;
mod workloads;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use url::Url;

use crate::exchange::ExchangeError;
use crate::identity::Scopes;
use crate::support::secret::Secret;
use crate::trust::Granted;

pub use forwarding::ForwardingMinter;
pub use local::LocalMinter;
pub use workloads::{WorkloadExchange, WorkloadRefusal, WorkloadRequest};

/// A request to a [`Minter`] (feature `trust`). The policy has granted the foreign token.
#[derive(Debug)]
#[non_exhaustive]
pub struct MintRequest<'a> {
    /// The granted identity, tenant and scopes, and the latest time at which the new token may
    /// expire.
    pub granted: &'a Granted,
    /// The foreign token.
    pub subject_token: &'a Secret,
    /// The audience of the new token.
    pub audience: &'a str,
    /// The requested `resource` (RFC 8707), if any.
    pub resource: Option<&'a Url>,
    /// The current time by the service's clock.
    pub now: SystemTime,
}

/// A minted token (feature `trust`).
///
/// ```
/// use std::time::Duration;
///
/// use scaikey_auth::mint::Minted;
///
/// let scopes = "secrets:read".parse()?;
/// let minted = Minted::new("the new token", Some(Duration::from_secs(300)), scopes);
/// assert!(minted.issued_token_type.ends_with(":access_token"));
/// # Ok::<_, scaikey_auth::identity::InvalidScope>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Minted {
    /// The bearer token.
    pub access_token: Secret,
    /// The lifetime of the token, if known.
    pub expires_in: Option<Duration>,
    /// The scopes of the token.
    pub scopes: Scopes,
    /// The type of the token (RFC 8693 §3).
    pub issued_token_type: String,
}

impl Minted {
    /// Creates the result for an access token (RFC 8693 §2.2.1).
    pub fn new(
        access_token: impl Into<Secret>,
        expires_in: Option<Duration>,
        scopes: Scopes,
    ) -> Self {
        let issued_token_type = "urn:ietf:params:oauth:token-type:access_token".to_owned();
        Self { access_token: access_token.into(), expires_in, scopes, issued_token_type }
    }
}

/// An issuer of tokens for foreign workloads whose tokens the policy has granted (feature `trust`).
///
/// [`ForwardingMinter`] requests the token from the provider; [`LocalMinter`] signs it in this
/// process. The minter is called once for each request, after the policy. Its tokens are not
/// cached.
///
/// Harmless mistakes: failing. Security holes: issuing more scopes than
/// [`granted.scopes`](Granted::scopes); issuing a token for a tenant other than the granted one, or
/// for an audience other than the requested one; issuing a token that outlives
/// [`granted.expires_at`](Granted::expires_at); taking the identity from the foreign token instead
/// of [`granted.identity`](Granted::identity); returning an earlier token again.
/// [`WorkloadExchange`] checks only the scopes.
///
/// ```
/// use std::time::Duration;
///
/// use async_trait::async_trait;
/// use scaikey_auth::exchange::ExchangeError;
/// use scaikey_auth::mint::{MintRequest, Minted, Minter};
///
/// /// Gets short tokens from a service of your own.
/// #[derive(Debug)]
/// struct TokenService;
///
/// impl TokenService {
///     /// Returns a token for `identity` in `tenant`, which expires after `lifetime`.
///     async fn issue(&self, identity: &str, tenant: &str, lifetime: Duration) -> String {
///         format!("{identity}@{tenant} for {lifetime:?}")
///     }
/// }
///
/// #[async_trait]
/// impl Minter for TokenService {
///     async fn mint(&self, request: &MintRequest<'_>) -> Result<Minted, ExchangeError> {
///         let granted = request.granted;
///         let rest = granted.expires_at.duration_since(request.now).unwrap_or_default();
///         let lifetime = rest.min(Duration::from_secs(300));
///         let token = self.issue(&granted.identity, granted.tenant.as_str(), lifetime).await;
///         Ok(Minted::new(token, Some(lifetime), granted.scopes.clone()))
///     }
/// }
/// ```
#[async_trait]
pub trait Minter: Debug + Send + Sync + 'static {
    /// Mints a token.
    ///
    /// # Errors
    /// If no token can be minted. [`WorkloadRefusal::code`] and [`WorkloadRefusal::status`]
    /// describe the response to the workload.
    async fn mint(&self, request: &MintRequest<'_>) -> Result<Minted, ExchangeError>;
}

#[async_trait]
impl<M: Minter + ?Sized> Minter for Arc<M> {
    async fn mint(&self, request: &MintRequest<'_>) -> Result<Minted, ExchangeError> {
        (**self).mint(request).await
    }
}
