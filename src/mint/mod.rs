//! Tokens for foreign workloads, minted by the provider or by this service (feature `trust`).
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

/// A token to be minted (feature `trust`). The policy has granted it.
#[derive(Debug)]
#[non_exhaustive]
pub struct MintRequest<'a> {
    /// The identity, tenant, scopes and latest expiry.
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
    /// Makes an access token (RFC 8693 §2.2.1).
    pub fn new(
        access_token: impl Into<Secret>,
        expires_in: Option<Duration>,
        scopes: Scopes,
    ) -> Self {
        let issued_token_type = "urn:ietf:params:oauth:token-type:access_token".to_owned();
        Self { access_token: access_token.into(), expires_in, scopes, issued_token_type }
    }
}

/// Mints tokens for foreign workloads that the policy has granted (feature `trust`).
///
/// [`ForwardingMinter`] requests the token from the provider; [`LocalMinter`] signs it in this
/// process. The minter is called once for each request, after the policy. Its tokens are not
/// cached.
///
/// Harmless mistake: to fail. Attacks: to give more scopes than
/// [`granted.scopes`](Granted::scopes); to give a token of another tenant or for another audience
/// than requested; to sign a token that lives longer than
/// [`granted.expires_at`](Granted::expires_at); to take the identity from the foreign token instead
/// of [`granted.identity`](Granted::identity); to return an earlier token again. The caller checks
/// only the scopes.
#[async_trait]
pub trait Minter: Debug + Send + Sync + 'static {
    /// Mints a token.
    ///
    /// # Errors
    /// If no token can be minted. The response has the code of [`ExchangeError::Refused`], or the
    /// status 503 for [`ExchangeError::Unavailable`].
    async fn mint(&self, request: &MintRequest<'_>) -> Result<Minted, ExchangeError>;
}

#[async_trait]
impl<M: Minter + ?Sized> Minter for Arc<M> {
    async fn mint(&self, request: &MintRequest<'_>) -> Result<Minted, ExchangeError> {
        (**self).mint(request).await
    }
}
