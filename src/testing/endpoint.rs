//! The state of an endpoint: its request count, its last requests and its [`Fault`].

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::sync::watch;
use url::form_urlencoded;

use super::faults::Fault;
use crate::clock::with_timeout;

/// The number of requests that an endpoint keeps.
const MAX_RECENT: usize = 100;

/// The longest wait for requests, in real time.
const TIMEOUT: Duration = Duration::from_secs(120);

/// An endpoint of an issuer, with its own request count and fault (feature `testing`). The paths
/// begin after the issuer's base: `{url}`, `{url}/api/v1/auth/tenants/{slug}` for a
/// [`tenant`](super::Provider::tenant), or `{url}{path}` for an issuer
/// [at a path](super::Provider::issuer_at).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use scaikey_auth::testing::{Fault, Provider, ProviderEndpoint};
///
/// let provider = Provider::start().await;
/// provider.fail(ProviderEndpoint::Token, Fault::OAuthError(400, "invalid_grant"));
/// assert_eq!(provider.requests(ProviderEndpoint::Token), 0);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderEndpoint {
    /// `/.well-known/openid-configuration` and `/.well-known/oauth-authorization-server`.
    Discovery,
    /// `/.well-known/jwks.json`.
    Jwks,
    /// `/auth`, the sign-in page.
    Authorization,
    /// `/oauth/token`.
    Token,
    /// `/oauth/revoke` (RFC 7009).
    Revocation,
    /// `/oauth/introspect` (RFC 7662).
    Introspection,
    /// `/logout`, where a browser signs out (OpenID Connect RP-Initiated Logout 1.0).
    EndSession,
}

/// A request that the provider received (feature `testing`).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use scaikey_auth::TokenExchangeClient;
/// use scaikey_auth::exchange::ServiceTokenRequest;
/// use scaikey_auth::issuer::ClientAuth;
/// use scaikey_auth::testing::{Client, Provider, ProviderEndpoint};
///
/// let provider = Provider::start().await;
/// provider.register_client(Client::new("scaiwave", "secret").scopes("docs:read"));
/// let client = TokenExchangeClient::builder(provider.issuer())
///     .client_auth(ClientAuth::post("scaiwave", "secret"))
///     .allow_loopback_http(true)
///     .build()?;
/// client.service_token(ServiceTokenRequest::default()).await?;
///
/// let received = provider.received(ProviderEndpoint::Token);
/// assert!(received[0].form().contains(&("client_id".to_owned(), "scaiwave".to_owned())));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReceivedRequest {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl ReceivedRequest {
    /// Parses the body as a form: names and values in the order sent.
    pub fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// Returns the path without the query.
    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// The state of one endpoint.
#[derive(Debug)]
pub(super) struct EndpointState {
    count: watch::Sender<u64>,
    fault: watch::Sender<Option<Fault>>,
    recent: Mutex<VecDeque<ReceivedRequest>>,
}

impl EndpointState {
    pub(super) fn new() -> Self {
        Self {
            count: watch::Sender::new(0),
            fault: watch::Sender::new(None),
            recent: Mutex::default(),
        }
    }

    pub(super) fn record(&self, request: &ReceivedRequest) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == MAX_RECENT {
            recent.pop_front();
        }
        recent.push_back(request.clone());
        drop(recent);
        self.count.send_modify(|count| *count += 1);
    }

    pub(super) fn count(&self) -> u64 {
        *self.count.borrow()
    }

    pub(super) fn recent(&self) -> Vec<ReceivedRequest> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    #[expect(clippy::panic, reason = "a wait without an end is a failed test")]
    pub(super) async fn wait_for(&self, least: u64) {
        let mut count = self.count.subscribe();
        if with_timeout(TIMEOUT, count.wait_for(|count| *count >= least)).await.is_none() {
            panic!("expected {least} requests within {TIMEOUT:?}, received {}", self.count());
        }
    }

    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        self.fault.send_replace(fault);
    }

    pub(super) fn fault(&self) -> watch::Receiver<Option<Fault>> {
        self.fault.subscribe()
    }
}
