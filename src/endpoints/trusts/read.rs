//! `GET trusts`: the policy in force, its warnings, and the state of each trust.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::super::identity_id::rfc3339;
use super::conditions::{entity_tag, names_tag};
use super::history::Version;
use super::policy_text::{Fault, faults};
use super::{Admitted, Outcome};
use crate::clock::with_timeout;
use crate::error::{AuthError, BoxError};
use crate::identity::TenantId;
use crate::layer::RequestHead;
use crate::support::telemetry::{self, Causes};
use crate::trust::{
    CurrentPolicy, DecisionFilter, SyncError, TrustOverview, TrustPolicy, TrustUsage, presets,
};

const TOML: &str = "application/toml";

/// The component that an error names.
const STORE: &str = "trust policy store";

/// The limit of a look for a new version, in real time. After it, the policy of this process is shown.
const SYNC_LIMIT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct PolicyResponse<'a> {
    access: &'static str,
    tenant: Option<&'a str>,
    writable: bool,
    version: Option<Version>,
    text: String,
    policy: &'a TrustPolicy,
    warnings: Vec<Fault>,
    trusts: Vec<TrustState>,
    store: StoreState,
}

/// A trust in the overview.
#[derive(Serialize)]
pub(super) struct TrustState {
    #[serde(flatten)]
    overview: TrustOverview,
    last_used: Option<String>,
    granted: u64,
    denied: u64,
}

#[derive(Serialize)]
pub(super) struct StoreState {
    kind: Option<&'static str>,
    /// `ok`, `away` (the loaded policy is in force) or `none` (the policy cannot be changed here).
    state: &'static str,
    /// The latest version in the store, if its text has faults, so that an earlier one is in force.
    rejected: Option<String>,
}

/// The policy in force, after a look for a new version.
pub(super) struct Latest {
    pub(super) current: CurrentPolicy,
    is_away: bool,
}

impl Admitted<'_> {
    /// Looks for a new version, and returns the policy in force.
    pub(super) async fn latest(&self) -> Result<Latest, AuthError> {
        let is_synced = match with_timeout(SYNC_LIMIT, self.evaluator.sync()).await {
            None | Some(Err(SyncError::Store(_))) => false,
            Some(_) => true,
        };
        let current = self.evaluator.current();
        if current.is_missing() {
            // The check of the store has logged the cause.
            let cause = "no version was loaded yet";
            return Err(AuthError::unavailable(STORE, None, cause));
        }
        let is_away = !is_synced || current.is_store_away();
        Ok(Latest { current, is_away })
    }

    pub(super) async fn policy(&self) -> Outcome {
        let latest = self.latest().await?;
        let version = latest.current.version();
        let tag = version.and_then(|version| entity_tag(&version.change.id));
        let response = match self.toml(tag.as_ref(), || text(&latest.current)) {
            Some(response) => response,
            None => self.inner.ok(&self.policy_response(&latest)),
        };
        Ok(tagged(response, tag))
    }

    /// Returns 200 with a text, or 304 if the caller has it already. Returns `None` if the caller prefers JSON, which
    /// has more than the text.
    pub(super) fn toml(
        &self,
        tag: Option<&HeaderValue>,
        text: impl FnOnce() -> String,
    ) -> Option<Response<Bytes>> {
        let head = &self.incoming.head;
        if !RequestHead::of_parts(head).prefers(TOML) {
            return None;
        }
        let tag = tag.and_then(|tag| tag.to_str().ok());
        let mut response = Response::new(Bytes::new());
        if tag.is_some_and(|tag| names_tag(&head.headers, tag)) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *response.body_mut() = text().into();
            let media_type = HeaderValue::from_static(TOML);
            response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        }
        Some(response)
    }

    fn policy_response<'a>(&'a self, latest: &'a Latest) -> PolicyResponse<'a> {
        let current = &latest.current;
        let usage = self.evaluator.usage();
        let usage: HashMap<_, _> = usage.iter().map(|it| (it.trust.as_str(), it)).collect();
        let trusts = current.overview(self.inner.auth.now()).into_iter();
        PolicyResponse {
            access: "owner",
            tenant: None,
            writable: self.is_writable(),
            version: current.version().map(|version| Version::new(&version.change, true)),
            text: text(current),
            policy: current.policy(),
            warnings: faults(current.policy().warnings()),
            trusts: trusts
                .map(|overview| {
                    let usage = usage.get(overview.id.as_str()).copied();
                    TrustState::new(overview, usage)
                })
                .collect(),
            store: self.store_state(latest),
        }
    }

    pub(super) fn store_state(&self, latest: &Latest) -> StoreState {
        let store = self.evaluator.policy_store();
        StoreState {
            kind: store.map(|store| store.kind()),
            state: match store {
                None => "none",
                Some(_) if latest.is_away => "away",
                Some(_) => "ok",
            },
            rejected: latest.current.rejected().map(ToString::to_string),
        }
    }

    /// Returns whether the caller may replace the policy.
    pub(super) fn is_writable(&self) -> bool {
        let mut head = self.incoming.head.clone();
        head.method = Method::PUT;
        let access = self.administration.admin.admit(&head, &self.caller, self.inner.auth.now());
        self.evaluator.policy_store().is_some() && access.is_ok_and(|it| it == self.access)
    }

    /// Returns the trusts that a tenant sees, with the use by the tenant's workloads.
    pub(super) fn trusts_of(&self, tenant: &TenantId, current: &CurrentPolicy) -> Vec<TrustState> {
        let own = self.evaluator.decisions(&DecisionFilter::new().tenant(tenant.clone()));
        let trusts = current.overview_for_tenant(tenant, self.inner.auth.now()).into_iter();
        let state = |overview: TrustOverview| {
            let of_trust = || own.iter().filter(|it| it.trust.as_deref() == Some(&*overview.id));
            let granted = of_trust().filter(|it| it.outcome == "granted").count() as u64;
            TrustState {
                last_used: of_trust().next().map(|decision| rfc3339(decision.at)),
                granted,
                denied: of_trust().count() as u64 - granted,
                overview,
            }
        };
        trusts.map(state).collect()
    }

    pub(super) fn presets(&self) -> Response<Bytes> {
        let preset = |(name, text): &(&str, &str)| json!({ "name": name, "text": text });
        self.inner.ok(&json!({ "presets": presets::ALL.iter().map(preset).collect::<Vec<_>>() }))
    }
}

impl StoreState {
    /// Returns what a tenant sees: whether changes can be saved.
    pub(super) fn for_tenant(self) -> Self {
        Self { kind: None, rejected: None, ..self }
    }
}

impl TrustState {
    fn new(overview: TrustOverview, usage: Option<&TrustUsage>) -> Self {
        Self {
            overview,
            last_used: usage.and_then(|usage| usage.last_used).map(rfc3339),
            granted: usage.map_or(0, |usage| usage.granted),
            denied: usage.map_or(0, |usage| usage.denied),
        }
    }
}

/// Returns the text of the policy: as its author wrote it, or in the normal form if it is in no store.
pub(super) fn text(current: &CurrentPolicy) -> String {
    match current.version() {
        Some(version) => version.text.clone(),
        None if current.policy().trust_ids().next().is_none() => String::new(),
        None => current.policy().to_toml(),
    }
}

/// Returns 503, and logs the cause.
pub(super) fn store_away(cause: impl Into<BoxError>) -> AuthError {
    let cause = cause.into();
    telemetry::trust_store_failed_administrator(&Causes(&*cause));
    AuthError::unavailable(STORE, None, cause)
}

/// Adds the tag of a version to an answer that depends on `Accept`.
pub(super) fn tagged(mut response: Response<Bytes>, tag: Option<HeaderValue>) -> Response<Bytes> {
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if let Some(tag) = tag {
        headers.insert(header::ETAG, tag);
    }
    response
}
