//! [`GroupSource`]: fetches the groups that the provider left out of a token.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Credentials;
use crate::clock::{CHECK_TIMEOUT, with_timeout};
use crate::error::{AuthError, BoxError};
use crate::identity::Identity;
use crate::support::telemetry::{self, Outage};

/// The name of the component in errors and logs.
const COMPONENT: &str = "group source";

/// The input of a [`GroupSource`]: a verified token and its identity. `Debug` does not print the token.
///
/// Test a source without a provider:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), scaikey_auth::error::BoxError> {
/// use async_trait::async_trait;
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::testing::identity;
/// use scaikey_auth::validator::{GroupRequest, GroupSource};
/// use serde_json::json;
///
/// #[derive(Debug)]
/// struct Staff;
///
/// #[async_trait]
/// impl GroupSource for Staff {
///     async fn groups(&self, request: &GroupRequest<'_>) -> Result<Vec<String>, BoxError> {
///         Ok(vec![format!("staff-of-{}", request.identity.subject())])
///     }
/// }
///
/// let alice = identity(json!({ "sub": "alice", "hasgroups": true }));
/// assert_eq!(Staff.groups(&GroupRequest::new(&alice, "a token")).await?, ["staff-of-alice"]);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct GroupRequest<'r> {
    /// The identity of the caller, without groups. [`Identity::claims`] returns further claims, such as `oid`.
    pub identity: &'r Identity,
    credentials: Credentials<'r>,
}

impl<'r> GroupRequest<'r> {
    /// Creates the input of a source, for tests.
    pub fn new(identity: &'r Identity, token: &'r str) -> Self {
        Self { identity, credentials: Credentials::bearer(token) }
    }

    pub(super) fn of(identity: &'r Identity, credentials: Credentials<'r>) -> Self {
        Self { identity, credentials }
    }

    /// Returns the caller's token, to exchange it for one that reads the groups. It is a credential.
    pub fn token(&self) -> &'r str {
        self.credentials.token()
    }
}

/// A source of the groups of a caller whose token has too many of them.
///
/// Entra ID leaves the groups out of the token of a user with more than 200, and marks the token
/// ([`Identity::has_group_overage`]). Without a source, such a caller is in no group: guards for groups refuse
/// it, and a warning is logged once for each issuer. Pass a source, with the issuer that it is for, to
/// [`AuthBuilder::group_source`](crate::AuthBuilder::group_source), or to
/// [`JwksValidator::group_source`](crate::JwksValidator::group_source); the default is none. It is never asked
/// for tokens of another issuer, whose users may be able to write any claim, also those of a victim.
///
/// The source is asked when such a token is verified for the first time, before proof, admission checks and
/// tenant. Its answer becomes the groups of the identity, in guards, handlers and endpoints. It is cached with
/// the [verified token](super::VerifiedTokens), so the source is not asked for each request: **groups can be as
/// old as the token**, as if the token contained them. The source is asked again if the cache is off or full,
/// after a flush, and while the provider's keys are due for a refresh. Requests that present a new token at the
/// same time each ask the source. For fresher groups, let the provider issue tokens of a shorter life.
///
/// Harmless mistakes: returning too few groups; failing or taking longer than 2 s (the request gets 503).
/// Security holes: returning an empty list when the directory is unavailable, if a handler treats callers
/// without a group as more trusted; looking up the caller without its tenant; returning groups of another
/// caller.
///
/// ```
/// use async_trait::async_trait;
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::validator::{GroupRequest, GroupSource};
/// use scaikey_auth::{Auth, IssuerConfig};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct EntraUser {
///     tid: String,
///     oid: String,
/// }
///
/// /// Your client of Microsoft Graph.
/// #[derive(Debug)]
/// struct Graph;
///
/// impl Graph {
///     /// Calls `POST /users/{oid}/getMemberObjects` with a token of this service in the tenant.
///     async fn member_objects(&self, tid: &str, oid: &str) -> Result<Vec<String>, BoxError> {
/// #       let _ = (tid, oid);
/// #       Ok(Vec::new())
///     }
/// }
///
/// #[async_trait]
/// impl GroupSource for Graph {
///     async fn groups(&self, request: &GroupRequest<'_>) -> Result<Vec<String>, BoxError> {
///         let user: EntraUser = request.identity.claims()?;
///         self.member_objects(&user.tid, &user.oid).await
///     }
/// }
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let entra = IssuerConfig::entra("8eaef023-2b34-4da1-9baa-8bc8c9d6a490");
/// let auth = Auth::builder()
///     .group_source(entra.expected(), Graph)
///     .issuer(entra)
///     .audience("the-client-id-of-this-api")
///     .build()?;
/// # Ok(()) }
/// ```
#[async_trait]
pub trait GroupSource: Debug + Send + Sync + 'static {
    /// Returns the groups if that is possible without waiting, else `None`. It may be called twice for one
    /// request. The default returns `None`.
    fn try_groups(&self, request: &GroupRequest<'_>) -> Option<Result<Vec<String>, BoxError>> {
        let _ = request;
        None
    }

    /// Returns all groups of the caller, by the names that the guards use: for Entra ID, object ids. It is
    /// called only after [`try_groups`](Self::try_groups) returned `None`. After 2 s of real time the call is
    /// dropped and counts as an error.
    ///
    /// # Errors
    /// If the groups cannot be determined now. The request is answered with 503 and `Retry-After`. The failure
    /// and the recovery are logged once each.
    async fn groups(&self, request: &GroupRequest<'_>) -> Result<Vec<String>, BoxError>;
}

#[async_trait]
impl<S: GroupSource + ?Sized> GroupSource for Arc<S> {
    fn try_groups(&self, request: &GroupRequest<'_>) -> Option<Result<Vec<String>, BoxError>> {
        (**self).try_groups(request)
    }

    async fn groups(&self, request: &GroupRequest<'_>) -> Result<Vec<String>, BoxError> {
        (**self).groups(request).await
    }
}

/// A source, with the state that makes it log each outage only once.
#[derive(Debug)]
pub(super) struct MonitoredSource {
    source: Arc<dyn GroupSource>,
    outage: Outage,
}

impl MonitoredSource {
    pub(super) fn new(source: Arc<dyn GroupSource>) -> Self {
        Self { source, outage: Outage::default() }
    }

    /// Returns the identity with its groups if that is possible without waiting, else `None`.
    pub(super) fn try_complete(
        &self,
        request: &GroupRequest<'_>,
        elapsed: impl Fn() -> Duration,
    ) -> Option<Result<Identity, AuthError>> {
        let answer = self.source.try_groups(request)?;
        Some(self.complete_with(answer, request.identity, elapsed))
    }

    /// Returns the identity with its groups.
    pub(super) async fn complete(
        &self,
        request: &GroupRequest<'_>,
        elapsed: impl Fn() -> Duration,
    ) -> Result<Identity, AuthError> {
        let answer = match self.source.try_groups(request) {
            Some(answer) => answer,
            None => with_timeout(CHECK_TIMEOUT, self.source.groups(request))
                .await
                .unwrap_or_else(|| Err("the groups were not found within 2 s".into())),
        };
        self.complete_with(answer, request.identity, elapsed)
    }

    fn complete_with(
        &self,
        answer: Result<Vec<String>, BoxError>,
        identity: &Identity,
        elapsed: impl Fn() -> Duration,
    ) -> Result<Identity, AuthError> {
        let too_many = || BoxError::from("the group source returned too many groups");
        let answer = answer.and_then(|groups| identity.with_groups(&groups).ok_or_else(too_many));
        match answer {
            Ok(identity) => {
                if self.outage.record_success(elapsed) {
                    telemetry::store_recovered(COMPONENT);
                }
                Ok(identity)
            }
            Err(error) => {
                let is_new = self.outage.record_failure(&error, elapsed());
                telemetry::group_source_failed(&*error, is_new);
                Err(AuthError::unavailable(COMPONENT, None, error))
            }
        }
    }
}
