//! Admission: checks that may deny a caller although its token is valid.
//!
//! An [`AdmissionCheck`] runs for each request. For revoked sessions, tokens and users there is
//! [`revocation`](crate::revocation).
//!
//! See also: [manual::request](crate::manual::request).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::clock::{CHECK_TIMEOUT, with_timeout};
use crate::error::{AuthError, BoxError};
use crate::identity::Identity;
use crate::support::telemetry::{self, Outage};

/// The input of an [`AdmissionCheck`]: a caller with a valid token.
///
/// ```
/// use std::time::SystemTime;
///
/// use scaikey_auth::Identity;
/// use scaikey_auth::admission::{Admission, AdmissionCheck, AdmissionRequest};
///
/// async fn is_denied(check: &dyn AdmissionCheck, identity: &Identity) -> bool {
///     let request = AdmissionRequest::new(identity, SystemTime::now());
///     matches!(check.admit(&request).await, Ok(Admission::Deny(_)))
/// }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AdmissionRequest<'r> {
    /// The identity of the caller.
    pub identity: &'r Identity,
    /// The current time, by the service's clock.
    pub now: SystemTime,
}

impl<'r> AdmissionRequest<'r> {
    /// Creates the input of a check, for tests.
    pub fn new(identity: &'r Identity, now: SystemTime) -> Self {
        Self { identity, now }
    }
}

/// The decision of an [`AdmissionCheck`].
///
/// ```
/// use std::time::SystemTime;
///
/// use scaikey_auth::Identity;
/// use scaikey_auth::admission::Admission;
/// use scaikey_auth::error::InvalidToken;
///
/// /// Denies tokens that were issued before the user's password was changed.
/// fn decide(identity: &Identity, changed_at: SystemTime) -> Admission {
///     match identity.issued_at() {
///         Some(issued_at) if issued_at >= changed_at => Admission::Allow,
///         _ => Admission::Deny(InvalidToken::Revoked.into()),
///     }
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Admission {
    /// The request proceeds.
    Allow,
    /// The request is refused with this error, including the challenges and headers of the error.
    /// [`InvalidToken::Revoked`](crate::error::InvalidToken::Revoked) is 401 `invalid_token`: the client must
    /// sign in again.
    Deny(AuthError),
}

/// A check that runs on each request with a valid token, such as a deny list of ended sessions.
///
/// Pass it to [`AuthBuilder::admission`](crate::AuthBuilder::admission); the default is none. It runs for
/// *each request*, even if the token is in the cache of verified tokens. It runs after the verification of
/// the token and its [proof](crate::proof), after the [revocations](crate::revocation), and before the tenant lookup:
///
/// - in the layer, in [`Auth::authenticate`](crate::Auth::authenticate), and in the endpoints that
///   authenticate their caller;
/// - in the introspection endpoint, on the introspected token;
/// - in the sign-in endpoints, before a session begins or tokens are returned.
///
/// At a sign-in, there is no identity to check if this service does not accept the provider's access token: a
/// sign-in with a session fails, and a sign-in without one returns the tokens unchecked.
///
/// It does *not* run for a connection that is already open, such as a web socket; for foreign tokens that
/// workloads exchange; or before the endpoints issue tokens for a password or a refresh token.
///
/// Harmless mistakes: denying too much; failing or taking longer than 2 s (the request gets 503). Security
/// holes: returning `Allow` when the store is unavailable; looking up `sid` or `jti` without the issuer,
/// although they are unique only within an issuer; looking up only `sid`, although the issuer puts none into
/// access tokens.
///
/// ```
/// use std::collections::HashSet;
/// use std::sync::{Arc, RwLock};
///
/// use async_trait::async_trait;
/// use scaikey_auth::{Auth, Identity};
/// use scaikey_auth::admission::{Admission, AdmissionCheck, AdmissionRequest};
/// use scaikey_auth::error::{BoxError, InvalidToken};
///
/// /// Revoked sessions (`sid`) and tokens (`jti`), each with its issuer.
/// #[derive(Debug, Clone, Default)]
/// struct DenyList(Arc<RwLock<HashSet<(String, String)>>>);
///
/// impl DenyList {
///     fn revoke(&self, issuer: &str, id: &str) {
///         self.0.write().unwrap().insert((issuer.to_owned(), id.to_owned()));
///     }
///
///     /// Looks up both ids of the caller. A list that cannot be read is an error, never `Allow`.
///     fn look_up(&self, identity: &Identity) -> Result<Admission, BoxError> {
///         let denied = self.0.read().map_err(|_| "the lock of the deny list is poisoned")?;
///         let is_denied = |id: &str| denied.contains(&(identity.issuer().to_owned(), id.to_owned()));
///         let ids = [identity.session_id(), identity.token_id()];
///         Ok(match ids.into_iter().flatten().any(is_denied) {
///             true => Admission::Deny(InvalidToken::Revoked.into()),
///             false => Admission::Allow,
///         })
///     }
/// }
///
/// #[async_trait]
/// impl AdmissionCheck for DenyList {
///     /// The list is in memory, so this never waits.
///     fn try_admit(&self, request: &AdmissionRequest<'_>) -> Option<Result<Admission, BoxError>> {
///         Some(self.look_up(request.identity))
///     }
///
///     async fn admit(&self, request: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
///         self.look_up(request.identity)
///     }
/// }
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let denied = DenyList::default();
/// let auth = Auth::builder()
///     .issuer("https://scaikey.example")
///     .audience("scaiwave")
///     .admission(denied.clone())
///     .build()?;
/// denied.revoke("https://scaikey.example", "session-17");
/// # Ok(()) }
/// ```
#[async_trait]
pub trait AdmissionCheck: fmt::Debug + Send + Sync + 'static {
    /// Decides if that is possible without waiting, else returns `None`. Returning a decision here avoids a
    /// heap allocation for the request. It may be called twice for one request, so it must not count or change
    /// anything. The default returns `None`.
    fn try_admit(&self, request: &AdmissionRequest<'_>) -> Option<Result<Admission, BoxError>> {
        let _ = request;
        None
    }

    /// Decides whether to admit the request. It is called only after [`try_admit`](Self::try_admit) returned
    /// `None`. After 2 s of real time the call is dropped and counts as an error.
    ///
    /// # Errors
    /// If the check cannot decide. The request is answered with 503 and `Retry-After`. The failure and the
    /// recovery are logged once each.
    async fn admit(&self, request: &AdmissionRequest<'_>) -> Result<Admission, BoxError>;
}

#[async_trait]
impl<C: AdmissionCheck + ?Sized> AdmissionCheck for Arc<C> {
    fn try_admit(&self, request: &AdmissionRequest<'_>) -> Option<Result<Admission, BoxError>> {
        (**self).try_admit(request)
    }

    async fn admit(&self, request: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        (**self).admit(request).await
    }
}

/// A check, with the state that makes it log each outage of its store only once.
#[derive(Debug)]
pub(crate) struct MonitoredCheck {
    check: Arc<dyn AdmissionCheck>,
    outage: Outage,
}

/// The checks of one [`Auth`](crate::Auth): all of them must allow a request.
#[derive(Debug)]
pub(crate) struct AdmissionChecks(Vec<MonitoredCheck>);

impl AdmissionChecks {
    pub(crate) fn new(checks: Vec<Arc<dyn AdmissionCheck>>) -> Self {
        let monitored = |check| MonitoredCheck { check, outage: Outage::default() };
        Self(checks.into_iter().map(monitored).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Decides if that is possible without waiting, else returns `None`.
    pub(crate) fn try_admit(
        &self,
        request: &AdmissionRequest<'_>,
        elapsed: impl Fn() -> Duration,
    ) -> Result<Option<()>, AuthError> {
        for monitored in &self.0 {
            let Some(result) = monitored.check.try_admit(request) else { return Ok(None) };
            monitored.decide(result, &elapsed)?;
        }
        Ok(Some(()))
    }

    pub(crate) async fn admit(
        &self,
        request: &AdmissionRequest<'_>,
        elapsed: impl Fn() -> Duration,
    ) -> Result<(), AuthError> {
        for monitored in &self.0 {
            let result = match monitored.check.try_admit(request) {
                Some(result) => result,
                None => with_timeout(CHECK_TIMEOUT, monitored.check.admit(request))
                    .await
                    .unwrap_or_else(|| Err("the check did not finish within 2 s".into())),
            };
            monitored.decide(result, &elapsed)?;
        }
        Ok(())
    }
}

impl MonitoredCheck {
    /// Converts the result of the check into a decision. Logs the failure and the recovery of the store once
    /// each.
    fn decide(
        &self,
        result: Result<Admission, BoxError>,
        elapsed: &impl Fn() -> Duration,
    ) -> Result<(), AuthError> {
        let error = match result {
            Ok(admission) => {
                if self.outage.record_success(elapsed) {
                    telemetry::store_recovered("admission check");
                }
                return match admission {
                    Admission::Allow => Ok(()),
                    Admission::Deny(error) => Err(error),
                };
            }
            Err(error) => error,
        };
        let is_new = self.outage.record_failure(&error, elapsed());
        telemetry::admission_failed(&*error, is_new);
        Err(AuthError::unavailable("admission check", None, error))
    }
}
