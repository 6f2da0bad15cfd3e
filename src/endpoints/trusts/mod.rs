//! `trusts`: administrators read, check, change and observe the trust policy (feature `trust`).

mod access;
mod conditions;
mod decisions;
mod explain;
mod history;
mod lint;
mod page;
mod policy_text;
mod problem;
mod read;
mod routes;
mod tenant;
mod write;

use std::hash::RandomState;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, header};
use http_body::Body;
use tokio::sync::Semaphore;

use super::introspect::throttle_account;
use super::response::Failure;
use super::{Endpoint, EndpointRequest, Inner, body};
use crate::auth::AuthContext;
use crate::error::AuthError;
use crate::identity::TenantId;
use crate::layer::{authenticate, mark_mock};
use crate::support::bounded::{Bounded, bounded};
use crate::support::off_thread::off_thread;
use crate::support::telemetry;
use crate::trust::{PolicyChange, PolicyVersionId, TrustEvaluator};
use access::Access;
pub use access::TrustAdmin;
use policy_text::check_encoding;
use problem::{Problem, Refused};
use routes::Route;

/// The number of policies that are checked at the same time. The largest policy takes a good part of a second of
/// one core; the other cores are for other requests.
const MAX_CHECKS: usize = 2;

/// The number of kept changes of tenants.
const MAX_TENANT_CHANGES: usize = 1000;

/// The administration of the policy of an exchange.
pub(super) struct Administration {
    admin: TrustAdmin,
    checks: Arc<Semaphore>,
    /// The last change of a tenant's part, for versions of the whole policy.
    tenant_changes: Bounded<(TenantId, PolicyVersionId), Option<PolicyChange>, RandomState>,
}

/// A request of an administrator, with its whole body.
struct Admitted<'a> {
    inner: &'a Inner,
    administration: &'a Administration,
    evaluator: &'a TrustEvaluator,
    incoming: EndpointRequest,
    caller: AuthContext,
    access: Access,
}

type Outcome = Result<Response<Bytes>, Refused>;

impl Administration {
    pub(super) fn new(admin: TrustAdmin) -> Self {
        Self {
            admin,
            checks: Arc::new(Semaphore::new(MAX_CHECKS)),
            tenant_changes: bounded(MAX_TENANT_CHANGES),
        }
    }

    /// Runs work that may take long, such as checking a policy, on a thread for blocking work. The work goes on if
    /// the caller has gone, and still counts then.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let unavailable =
            |error: &str| AuthError::unavailable("check of the policy", None, error.to_owned());
        let permit = self.checks.clone().acquire_owned().await;
        let permit = permit.map_err(|error| unavailable(&error.to_string()))?;
        let work = move || {
            let outcome = work();
            drop(permit);
            outcome
        };
        off_thread(work).await.map_err(|error| unavailable(&error.to_string()).into())
    }
}

impl Inner {
    /// Answers a request for `trusts` or a path below it.
    pub(super) async fn trusts<Q: Body>(&self, request: Request<Q>) -> Response<Bytes> {
        let (mut head, body) = request.into_parts();
        // Endpoints verify the token themselves, so an identity from an outer layer is removed.
        head.extensions.remove::<AuthContext>();
        let path = head.uri.path().strip_prefix(self.prefix.as_str()).unwrap_or_default();
        let route = Route::find(path.strip_prefix("/trusts").unwrap_or_default());
        let mut response = match route {
            Some(page @ Route::Page(file)) if page.allows(&head.method) => {
                let response = file.respond(&head.headers);
                telemetry::endpoint_answered(Endpoint::Trusts.as_str(), response.status().as_u16());
                response
            }
            route => {
                let outcome = self.administer(route, &head, body).await;
                let outcome = outcome.or_else(|refused| match refused {
                    Refused::Failure(failure) => Err(failure),
                    Refused::Problem(problem) => Ok(problem.into_response(head.version)),
                });
                self.finish(Endpoint::Trusts, &head, outcome)
            }
        };
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        response
    }

    /// Admits the caller before it reads the body, so that only administrators can make this service work.
    async fn administer<Q: Body>(&self, route: Option<Route>, head: &Parts, body: Q) -> Outcome {
        let route = route.ok_or(Problem::NOT_FOUND)?;
        if !route.allows(&head.method) {
            return Err(Problem::method_not_allowed(route.allow()).into());
        }
        let (Some(administration), Some(workloads)) = (&self.administration, &self.workloads)
        else {
            return Err(Failure::NotConfigured("there is no trust policy").into());
        };
        let max_body = route.max_body(&head.method);
        if max_body.is_some() {
            self.admit(Endpoint::Trusts, head, None).await?;
        }
        let caller = authenticate(&self.auth, head).await?;
        let access = administration.admin.admit(head, &caller, self.auth.now())?;
        let body = match max_body {
            None => Bytes::new(),
            Some(max_bytes) => {
                let account = throttle_account(caller.identity());
                self.admit(Endpoint::Trusts, head, Some(&account)).await?;
                let body = body::read(body, max_bytes, self.body_timeout).await;
                let body = body.map_err(|failure| Problem::of_body(failure, max_bytes))?;
                check_encoding(&head.headers)?;
                body
            }
        };
        let is_mock = caller.identity().is_mock();
        let incoming = EndpointRequest { head: head.clone(), body };
        let evaluator = workloads.evaluator();
        let admitted =
            Admitted { inner: self, administration, evaluator, incoming, caller, access };
        let mut response = admitted.answer(route).await?;
        mark_mock(is_mock, &mut response);
        Ok(response)
    }
}

impl Admitted<'_> {
    async fn answer(&self, route: Route) -> Outcome {
        let is_put = self.incoming.head.method == Method::PUT;
        let tenant = self.access.tenant();
        match (route, tenant) {
            (Route::Policy, None) if is_put => self.replace().await,
            (Route::Policy, None) => self.policy().await,
            (Route::Policy, Some(tenant)) if is_put => self.replace_tenant(tenant).await,
            (Route::Policy, Some(tenant)) => self.tenant_policy(tenant).await,
            (Route::Lint, None) => self.lint().await,
            (Route::Lint, Some(tenant)) => self.lint_tenant(tenant).await,
            (Route::DryRun, None) => self.dry_run().await,
            (Route::DryRun, Some(tenant)) => self.dry_run_tenant(tenant).await,
            (Route::History, None) => self.history().await,
            (Route::History, Some(tenant)) => self.tenant_history(tenant).await,
            (Route::Version(number), None) => self.version(number).await,
            (Route::Version(number), Some(tenant)) => self.tenant_version(tenant, number).await,
            (Route::Rollback, None) => self.rollback().await,
            (Route::Rollback, Some(tenant)) => self.rollback_tenant(tenant).await,
            (Route::Explain, tenant) => self.explain(tenant).await,
            (Route::Decisions, tenant) => self.decisions(tenant),
            (Route::Presets, _) => Ok(self.presets()),
            // Answered before.
            (Route::Page(_), _) => Err(Problem::NOT_FOUND.into()),
        }
    }
}

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
