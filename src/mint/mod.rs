//! Tokens for foreign workloads: what [`trust`](crate::trust) granted, as a token of the provider's
//! or of this service's own (feature `trust`).
//!
//! [`WorkloadExchange`] puts a policy and a [`Minter`] together; `POST /v1/auth/exchange`
//! ([`Endpoints`](crate::endpoints::Endpoints)) is its door.
//!
//! How it fits together: [manual::endpoints](crate::manual::endpoints).

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

/// What is to be minted (feature `trust`). The policy has been asked, and granted it.
#[derive(Debug)]
#[non_exhaustive]
pub struct MintRequest<'a> {
    /// Who it is for, in which tenant, with which scopes, and how long at most.
    pub granted: &'a Granted,
    /// The foreign token, as it came.
    pub subject_token: &'a Secret,
    /// The service the new token is for.
    pub audience: &'a str,
    /// Its URL, if the caller named it.
    pub resource: Option<&'a Url>,
    /// Now, by the service's clock.
    pub now: SystemTime,
}

/// A token that was minted (feature `trust`).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Minted {
    /// The token: always a bearer token.
    pub access_token: Secret,
    /// How long it lives, if that is known.
    pub expires_in: Option<Duration>,
    /// What it permits.
    pub scopes: Scopes,
    /// What it is (RFC 8693 §3).
    pub issued_token_type: String,
}

impl Minted {
    /// An access token (RFC 8693 §2.2.1).
    pub fn new(
        access_token: impl Into<Secret>,
        expires_in: Option<Duration>,
        scopes: Scopes,
    ) -> Self {
        let issued_token_type = "urn:ietf:params:oauth:token-type:access_token".to_owned();
        Self { access_token: access_token.into(), expires_in, scopes, issued_token_type }
    }
}

/// Makes tokens for foreign workloads that a policy let in (feature `trust`).
///
/// [`ForwardingMinter`] has the provider do it, [`LocalMinter`] signs by itself. Asked once for
/// each request, after the policy; nothing is kept.
///
/// Harmless mistake: to fail. Attacks: to give more scopes than
/// [`granted.scopes`](Granted::scopes), or a token of another tenant or for another service than the
/// order says; to sign one that lives beyond [`granted.expires_at`](Granted::expires_at); to take
/// who it is for from the foreign token in place of [`granted.identity`](Granted::identity); to
/// answer with a token made before. Only the scopes are looked at again.
#[async_trait]
pub trait Minter: Debug + Send + Sync + 'static {
    /// Makes one.
    ///
    /// # Errors
    /// When none was to be had: [`ExchangeError::Refused`] is handed on by its code,
    /// [`ExchangeError::Unavailable`] is 503.
    async fn mint(&self, order: &MintRequest<'_>) -> Result<Minted, ExchangeError>;
}

#[async_trait]
impl<M: Minter + ?Sized> Minter for Arc<M> {
    async fn mint(&self, order: &MintRequest<'_>) -> Result<Minted, ExchangeError> {
        (**self).mint(order).await
    }
}
