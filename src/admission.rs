//! Admission: whether a caller whose token holds may come in at all.
//!
//! An [`AdmissionCheck`] is asked for each request: a deny list of sessions and tokens that were revoked, for
//! instance.
//!
//! How it fits together: [manual::request](crate::manual::request).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::clock::{CHECK_PATIENCE, within};
use crate::error::{AuthError, BoxError};
use crate::identity::Identity;
use crate::support::telemetry::{self, Outage};

/// A verified caller at the door.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AdmissionRequest<'r> {
    /// Who calls.
    pub identity: &'r Identity,
    /// Now, by the service's clock.
    pub now: SystemTime,
}

impl<'r> AdmissionRequest<'r> {
    /// Makes what a check is asked: to test a check.
    ///
    /// ```
    /// use std::time::SystemTime;
    ///
    /// use scaikey_auth::Identity;
    /// use scaikey_auth::admission::{Admission, AdmissionCheck, AdmissionRequest};
    ///
    /// async fn is_denied(check: &dyn AdmissionCheck, identity: &Identity) -> bool {
    ///     let request = AdmissionRequest::of(identity, SystemTime::now());
    ///     matches!(check.admit(&request).await, Ok(Admission::Deny(_)))
    /// }
    /// ```
    pub fn of(identity: &'r Identity, now: SystemTime) -> Self {
        Self { identity, now }
    }
}

/// The answer of an [`AdmissionCheck`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Admission {
    /// The request goes on.
    Allow,
    /// The request is refused, with this answer and its challenge.
    /// [`InvalidToken::Revoked`](crate::error::InvalidToken::Revoked) is 401 `invalid_token`: the client must sign in
    /// again.
    Deny(AuthError),
}

/// Decides about each request whose token holds: a deny list of sessions that ended, say.
///
/// Given to [`AuthBuilder::admission`](crate::AuthBuilder::admission); default none. Asked for *each request*, also when its token was
/// verified before, after the token and its [proof](crate::proof) and before the tenant: in the layer,
/// in [`Auth::authenticate`](crate::Auth::authenticate), in the endpoints that know their caller, for tokens
/// that are introspected, and at a sign-in, before a session begins or tokens are handed out (unless this
/// service does not take the access token). *Not* asked: for a connection that was let in before, such as a web
/// socket; for foreign tokens that workloads exchange; and before the endpoints hand out tokens for a password
/// or a refresh token.
///
/// Harmless mistakes: to deny too much; to be slow, or to fail: a store that cannot tell is answered with
/// 503. Attacks: to answer `Allow` when the store cannot tell; to look for `sid` or `jti` without the issuer
/// that they are unique in; to look for `sid` alone where the issuer puts none into access tokens.
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
/// /// Sessions (`sid`) and tokens (`jti`) that ended before their time, each behind its issuer.
/// #[derive(Debug, Clone, Default)]
/// struct DenyList(Arc<RwLock<HashSet<(String, String)>>>);
///
/// impl DenyList {
///     fn revoke(&self, issuer: &str, id: &str) {
///         self.0.write().unwrap().insert((issuer.to_owned(), id.to_owned()));
///     }
///
///     /// Looks up both ids of a caller. A list that cannot be read is an error, never `Allow`.
///     fn look_up(&self, identity: &Identity) -> Result<Admission, BoxError> {
///         let denied = self.0.read().map_err(|_| "the list is broken")?;
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
///     /// The list is in memory: the answer is always there without waiting.
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
    /// Returns an answer that needs no waiting, if there is one: keeps a request free of allocations. May be
    /// asked twice for one request, so it must not count or change anything. The default knows none.
    fn try_admit(&self, request: &AdmissionRequest<'_>) -> Option<Result<Admission, BoxError>> {
        let _ = request;
        None
    }

    /// Returns the answer; asked where [`try_admit`](Self::try_admit) gave none. May take 2 s of real time: then
    /// it is dropped, and counts as a store that cannot tell.
    ///
    /// # Errors
    /// When the store cannot tell: the request is answered with 503 and `Retry-After`, and the log is told
    /// once for each change.
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

/// A check, and what the log was told of its store.
#[derive(Debug)]
pub(crate) struct Watched {
    check: Arc<dyn AdmissionCheck>,
    outage: Outage,
}

/// The checks of one [`Auth`](crate::Auth): all of them must allow a request.
#[derive(Debug)]
pub(crate) struct AdmissionChecks(Vec<Watched>);

impl AdmissionChecks {
    pub(crate) fn new(checks: Vec<Arc<dyn AdmissionCheck>>) -> Self {
        let watched = |check| Watched { check, outage: Outage::default() };
        Self(checks.into_iter().map(watched).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Decides as far as it can without waiting; `None` if a check must be waited for.
    pub(crate) fn try_admit(
        &self,
        request: &AdmissionRequest<'_>,
        elapsed: impl Fn() -> Duration,
    ) -> Result<Option<()>, AuthError> {
        for watched in &self.0 {
            let Some(answer) = watched.check.try_admit(request) else { return Ok(None) };
            watched.judge(answer, &elapsed)?;
        }
        Ok(Some(()))
    }

    pub(crate) async fn admit(
        &self,
        request: &AdmissionRequest<'_>,
        elapsed: impl Fn() -> Duration,
    ) -> Result<(), AuthError> {
        for watched in &self.0 {
            let answer = match watched.check.try_admit(request) {
                Some(answer) => answer,
                None => within(CHECK_PATIENCE, watched.check.admit(request))
                    .await
                    .unwrap_or_else(|| Err("no answer in time".into())),
            };
            watched.judge(answer, &elapsed)?;
        }
        Ok(())
    }
}

impl Watched {
    /// Judges an answer. The log is told of a store's failures, once for each change.
    fn judge(
        &self,
        answer: Result<Admission, BoxError>,
        elapsed: &impl Fn() -> Duration,
    ) -> Result<(), AuthError> {
        let error = match answer {
            Ok(admission) => {
                if self.outage.ends(elapsed) {
                    telemetry::store_works("admission check");
                }
                return match admission {
                    Admission::Allow => Ok(()),
                    Admission::Deny(error) => Err(error),
                };
            }
            Err(error) => error,
        };
        let is_new = self.outage.begins(&error, elapsed());
        telemetry::admission_failed(&*error, is_new);
        Err(AuthError::unavailable("admission check", None, error))
    }
}
