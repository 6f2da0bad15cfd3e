//! The answers for the administrators of one tenant. They see and change the tenant's part of the policy only, and
//! learn nothing about the rest: neither other tenants' rules, nor key sources, nor the numbers of versions.

use http::header;
use serde_json::{Value, json};

use super::super::introspect::throttle_account;
use super::super::parameters::Parameters;
use super::conditions::{Expected, entity_tag};
use super::history::{MAX_VERSIONS, NO_VERSION, Version, in_time, limit, number};
use super::policy_text::{Fault, Format, faults, utf8};
use super::problem::{Problem, Refused};
use super::read::{Latest, store_away, tagged};
use super::write::{READ_ONLY, RollbackRequest, checked_note, conflict, invalid};
use super::{Admitted, Endpoint, Outcome};
use crate::identity::TenantId;
use crate::trust::{
    DecisionFilter, PolicyChange, PolicyError, PolicyVersion, SaveError, TenantChange,
    TenantPolicy, TrustPolicy,
};

impl Admitted<'_> {
    pub(super) async fn tenant_policy(&self, tenant: &TenantId) -> Outcome {
        self.throttle_read().await?;
        let latest = self.latest().await?;
        let view = self.view(tenant).await?;
        let tag = entity_tag(view.id());
        if let Some(response) = self.toml(tag.as_ref(), || view.text().to_owned()) {
            return Ok(tagged(response, tag));
        }
        // Without the store, the last change is not known.
        let change = self.last_change(tenant, &latest).await.unwrap_or_default();
        let unchanged = self.check_tenant(tenant, view.text().to_owned()).await?;
        let warnings = unchanged.map(|change| faults(change.warnings()));
        let response = self.inner.ok(&json!({
            "access": "tenant",
            "tenant": tenant.as_str(),
            "writable": !view.is_empty() && self.is_writable(),
            "version": change.map(|change| Version::of_tenant(tenant, &change, true)),
            "text": view.text(),
            "policy": rules_of(&latest.current.policy().for_tenant(tenant)),
            "warnings": warnings.unwrap_or_default(),
            "trusts": self.trusts_of(tenant, &latest.current),
            "store": self.store_state(&latest).for_tenant(),
        }));
        Ok(tagged(response, tag))
    }

    /// Returns what the tenant sees of the policy in force.
    async fn view(&self, tenant: &TenantId) -> Result<TenantPolicy, Refused> {
        let (evaluator, tenant) = (self.evaluator.clone(), tenant.clone());
        let view = self.administration.run(move || evaluator.tenant_policy(&tenant)).await?;
        view.map_err(invalid)
    }

    /// Returns the last change of the tenant's part. It is looked for once for each version of the whole policy,
    /// because it may be long ago.
    async fn last_change(
        &self,
        tenant: &TenantId,
        latest: &Latest,
    ) -> Result<Option<PolicyChange>, Refused> {
        let Some(version) = latest.current.version() else { return Ok(None) };
        let key = (tenant.clone(), version.change.id.clone());
        if let Some(known) = self.administration.tenant_changes.get(&key) {
            return Ok(known);
        }
        let changes = in_time(self.evaluator.tenant_history(tenant, None, 1)).await?;
        let change = changes.into_iter().next();
        self.administration.tenant_changes.insert(key, change.clone());
        Ok(change)
    }

    /// Checks a text of the tenant, without saving it.
    pub(super) async fn check_tenant(
        &self,
        tenant: &TenantId,
        text: String,
    ) -> Result<Result<TenantChange, PolicyError>, Refused> {
        let (evaluator, tenant) = (self.evaluator.clone(), tenant.clone());
        let check = move || evaluator.check_for_tenant(&tenant, &text);
        self.administration.run(check).await
    }

    pub(super) async fn lint_tenant(&self, tenant: &TenantId) -> Outcome {
        self.latest().await?;
        let (faults, warnings) = match self.check_tenant(tenant, self.tenant_text()?).await? {
            Ok(change) => (Vec::new(), faults(change.warnings())),
            Err(error) => (faults(error.faults()), Vec::new()),
        };
        Ok(self.inner.ok(&json!({ "faults": faults, "warnings": warnings, "policy": null })))
    }

    pub(super) async fn dry_run_tenant(&self, tenant: &TenantId) -> Outcome {
        self.latest().await?;
        let change = self.check_tenant(tenant, self.tenant_text()?).await?.map_err(invalid)?;
        // Only the decisions of the tenant: not even the number of the others is for it.
        let own = DecisionFilter::new().tenant(tenant.clone());
        let policy = change.policy().for_tenant(tenant);
        let evaluator = self.evaluator.clone();
        let compare = move || evaluator.dry_run(&policy, &own);
        let dry_run = self.administration.run(compare).await?;
        Ok(self.inner.ok(&dry_run))
    }

    pub(super) async fn replace_tenant(&self, tenant: &TenantId) -> Outcome {
        let parameters = self.parameters(&["note", "accept_lockout"])?;
        let note = checked_note(parameters.get("note"))?;
        let submitted = self.tenant_text()?;
        self.save_tenant(tenant, submitted, note, &parameters).await
    }

    pub(super) async fn rollback_tenant(&self, tenant: &TenantId) -> Outcome {
        let parameters = self.parameters(&["accept_lockout"])?;
        let request = RollbackRequest::of(&self.incoming)?;
        let note = checked_note(request.note.as_deref())?;
        if self.evaluator.policy_store().is_none() {
            return Err(READ_ONLY.into());
        }
        let text = self.find_tenant_version(tenant, request.number).await?.text;
        self.save_tenant(tenant, text, note, &parameters).await
    }

    async fn save_tenant(
        &self,
        tenant: &TenantId,
        submitted: String,
        note: Option<String>,
        parameters: &Parameters,
    ) -> Outcome {
        if self.evaluator.policy_store().is_none() {
            return Err(READ_ONLY.into());
        }
        let expected = Expected::of_next(&self.incoming.head.headers)?;
        self.latest().await?;
        let view = self.view(tenant).await?;
        let Expected::Version(Some(expected)) = expected else {
            return Err(conflict(Some(view.id())));
        };
        if expected != *view.id() {
            return Err(conflict(Some(view.id())));
        }
        let change = self.check_tenant(tenant, submitted.clone()).await?.map_err(invalid)?;
        self.check_lockout(parameters, change.policy())?;
        let warnings = faults(change.warnings());
        let mut version = self.new_version(submitted);
        version.note = note;
        let saved = self.evaluator.save_for_tenant(tenant, version, &expected).await;
        let id = saved.map_err(|error| match error {
            SaveError::Faults(error) => invalid(error),
            SaveError::Conflict(current) => conflict(current.as_ref()),
            SaveError::ReadOnly => READ_ONLY.into(),
            SaveError::Store(error) => store_away(error).into(),
        })?;
        let latest = self.latest().await?;
        let last = self.last_change(tenant, &latest).await.unwrap_or_default();
        let version = last.map(|change| Version::of_tenant(tenant, &change, true));
        let mut response = self.inner.ok(&json!({ "version": version, "warnings": warnings }));
        if let Some(tag) = entity_tag(&id) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        Ok(response)
    }

    pub(super) async fn tenant_history(&self, tenant: &TenantId) -> Outcome {
        let parameters = self.parameters(&["before", "limit"])?;
        let before = number(&parameters, "before")?;
        let limit = limit(&parameters, MAX_VERSIONS, MAX_VERSIONS)?;
        self.throttle_read().await?;
        let changes = in_time(self.evaluator.tenant_history(tenant, before, limit)).await?;
        let versions = changes.iter().enumerate();
        let versions: Vec<_> = versions
            .map(|(nth, change)| Version::of_tenant(tenant, change, nth == 0 && before.is_none()))
            .collect();
        Ok(self.inner.ok(&json!({ "versions": versions })))
    }

    pub(super) async fn tenant_version(&self, tenant: &TenantId, number: u64) -> Outcome {
        self.throttle_read().await?;
        let version = self.find_tenant_version(tenant, number).await?;
        let latest = self.latest().await?;
        let last = self.last_change(tenant, &latest).await?;
        let in_force = last.is_some_and(|last| last.id == version.change.id);
        let change = Version::of_tenant(tenant, &version.change, in_force);
        Ok(self.inner.ok(&json!({ "version": change, "text": version.text })))
    }

    async fn find_tenant_version(
        &self,
        tenant: &TenantId,
        number: u64,
    ) -> Result<PolicyVersion, Refused> {
        let version = in_time(self.evaluator.tenant_version(tenant, number)).await?;
        Ok(version.ok_or(NO_VERSION)?)
    }

    /// Throttles an answer for which the whole policy, or its history, is read and compared.
    async fn throttle_read(&self) -> Result<(), Refused> {
        let account = throttle_account(self.caller.identity());
        Ok(self.inner.admit(Endpoint::Trusts, &self.incoming.head, Some(&account)).await?)
    }

    /// Reads the body, which is TOML: the tenant's rules become a part of a text with comments.
    fn tenant_text(&self) -> Result<String, Problem> {
        match Format::of(&self.incoming.head.headers)? {
            Format::Toml => utf8(&self.incoming.body),
            Format::Json => Err(Problem::unsupported_media_type(
                "The rules of a tenant must be application/toml.",
            )),
        }
    }
}

/// Returns the ids and rules of the trusts, without the rest.
fn rules_of(policy: &TrustPolicy) -> Value {
    let mut policy = json!(policy);
    let trusts = policy.get_mut("trust").and_then(Value::as_array_mut);
    for trust in trusts.into_iter().flatten().filter_map(Value::as_object_mut) {
        trust.retain(|name, _| name == "id" || name == "grant");
    }
    policy
}

/// Returns 422 with the fault of everything that the tenant cannot see.
pub(super) fn hidden_conflict() -> Refused {
    let problem = "conflicts with rules that you cannot see: ask the owner of the policy";
    Problem::faults(&[Fault::of_policy(problem)]).into()
}
