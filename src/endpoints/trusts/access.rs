//! [`TrustAdmin`]: who may administer the trust policy.

use std::fmt;
use std::time::SystemTime;

use http::request::Parts;

use crate::auth::AuthContext;
use crate::error::AuthError;
use crate::guard::{Guard, GuardRequest};
use crate::identity::TenantId;

/// The guards of the administration of trust: `GET /v1/auth/trusts` and the paths below it (feature `trust`). Set
/// with [`EndpointsBuilder::trust_admin`](super::super::EndpointsBuilder::trust_admin).
///
/// A guard sees the method and the whole path of the request, so it can admit some callers to `GET` only. Requests
/// for the files of the page (`GET /v1/auth/trusts/ui`) pass no guard: the files contain no data.
///
/// ```
/// use http::Method;
/// use scaikey_auth::endpoints::TrustAdmin;
/// use scaikey_auth::guard::{GuardExt, GuardRequest, any_role, guard_fn};
/// use scaikey_auth::{AuthError, scope};
///
/// let reads = guard_fn(|request: &GuardRequest<'_>| match *request.head.method {
///     Method::GET | Method::HEAD => Ok(()),
///     _ => Err(AuthError::Forbidden { required: "method GET".into() }),
/// });
/// // Auditors read the policy, its history and the decisions. Who has the scope may do everything.
/// let admin = TrustAdmin::new(scope("trust:admin").or(any_role(["auditor"]).and(reads)));
/// ```
pub struct TrustAdmin {
    owner: Box<dyn Guard>,
    tenant: Option<Box<dyn Guard>>,
}

/// What an administrator may see and change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// The whole policy.
    Owner,
    /// The rules of one tenant.
    Tenant(TenantId),
}

impl Access {
    /// Returns the tenant whose rules the caller administers, or `None` for the whole policy.
    pub(super) fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Owner => None,
            Self::Tenant(tenant) => Some(tenant),
        }
    }
}

impl TrustAdmin {
    /// Creates the administration for callers that `guard` admits. They see and change the whole policy: they
    /// decide who gets which scopes in every tenant. Do not pass the guard of tenant administrators here: it is for
    /// [`tenant_guard`](Self::tenant_guard).
    pub fn new(guard: impl Guard) -> Self {
        Self { owner: Box::new(guard), tenant: None }
    }

    /// Also admits callers that `guard` admits to the rules of their own tenant: that of the caller's token. They see
    /// the rules that map into this tenant, and may change those that a delegation of the policy permits (see
    /// [`trust`](crate::trust#delegation-to-tenants)). The guard of [`new`](Self::new) is asked first, and a request
    /// that neither admits gets its refusal. Default: no such callers.
    ///
    /// *Not* checked: whether the caller is an administrator of the tenant, except by the guard. A caller whom the
    /// guard of [`new`](Self::new) admits to `GET` only reads the whole policy, so its changes as an administrator of a
    /// tenant are 412: give such callers two accounts.
    #[must_use]
    pub fn tenant_guard(mut self, guard: impl Guard) -> Self {
        self.tenant = Some(Box::new(guard));
        self
    }

    /// Decides what the caller may see and change.
    pub(super) fn admit(
        &self,
        head: &Parts,
        caller: &AuthContext,
        now: SystemTime,
    ) -> Result<Access, AuthError> {
        let request = GuardRequest::of_parts(head, caller, now);
        let Err(refusal) = self.owner.check(&request) else { return Ok(Access::Owner) };
        match (&self.tenant, caller.tenant()) {
            (Some(guard), Some(tenant)) if guard.check(&request).is_ok() => {
                Ok(Access::Tenant(tenant.id().clone()))
            }
            _ => Err(refusal),
        }
    }
}

impl fmt::Debug for TrustAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustAdmin").finish_non_exhaustive()
    }
}
