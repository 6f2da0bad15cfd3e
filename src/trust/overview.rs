//! [`TrustOverview`]: the state of a trust, for administrators.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::current::CurrentPolicy;
use super::policy::{Authority, Mode, Trust};
use super::time::Expiry;
use super::verification::CompiledTrust;
use crate::identity::TenantId;
use crate::issuer::{IssuerHealth, KeyState};

/// A trust that ends within this time should be renewed now.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// The state of a trust.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TrustOverview {
    pub(crate) id: String,
    issuer: Option<String>,
    trust_domain: Option<String>,
    mode: Mode,
    named_only: bool,
    not_after: Option<Expiry>,
    ended: bool,
    expires_soon: bool,
    rules: usize,
    keys: KeysOverview,
}

/// The state of the keys of a trust.
#[derive(Debug, Clone, Serialize)]
struct KeysOverview {
    /// `ok`; `stale`: the last fetch failed, and the previous keys are used; `missing`: tokens cannot be verified;
    /// `unknown`: the keys were never fetched.
    state: &'static str,
    /// The error of the last fetch.
    problem: Option<String>,
    /// The time since the last fetch began.
    age_seconds: Option<u64>,
}

impl TrustOverview {
    fn of(compiled: &CompiledTrust, now: SystemTime) -> Self {
        let health = compiled.validator.issuers().health();
        Self::new(&compiled.trust, health.first(), now)
    }

    fn new(trust: &Trust, health: Option<&IssuerHealth>, now: SystemTime) -> Self {
        let (issuer, trust_domain) = match &trust.authority {
            Authority::Issuer(issuer) => (Some(issuer.clone()), None),
            Authority::TrustDomain(domain) => {
                (None, Some(domain.trim_start_matches("spiffe://").to_owned()))
            }
        };
        let ends_by = |at: SystemTime| trust.not_after.as_ref().is_some_and(|it| it.end <= at);
        let ended = ends_by(now);
        Self {
            id: trust.id.clone(),
            issuer,
            trust_domain,
            mode: trust.mode,
            named_only: trust.named_only,
            not_after: trust.not_after.clone(),
            ended,
            expires_soon: !ended && ends_by(now.checked_add(SOON).unwrap_or(now)),
            rules: trust.grants.len(),
            keys: KeysOverview::new(health, now),
        }
    }
}

impl CurrentPolicy {
    /// Returns the state of each trust, in the order of the text. Starts to fetch the keys that are due.
    pub(crate) fn overview(&self, now: SystemTime) -> Vec<TrustOverview> {
        self.loaded.trusts.iter().map(|compiled| TrustOverview::of(compiled, now)).collect()
    }

    /// Returns the state of each trust that a tenant sees, with the number of its rules.
    pub(crate) fn overview_for_tenant(
        &self,
        tenant: &TenantId,
        now: SystemTime,
    ) -> Vec<TrustOverview> {
        let own = self.policy().for_tenant(tenant);
        let rules: HashMap<_, _> =
            own.trusts.iter().map(|trust| (trust.id.as_str(), trust.grants.len())).collect();
        let overview = |compiled: &Arc<CompiledTrust>| {
            let rules = *rules.get(compiled.trust.id.as_str())?;
            let overview = TrustOverview::of(compiled, now);
            // The error of a fetch names the URL of the keys.
            let keys = KeysOverview { problem: None, ..overview.keys };
            Some(TrustOverview { rules, keys, ..overview })
        };
        self.loaded.trusts.iter().filter_map(overview).collect()
    }
}

impl KeysOverview {
    fn new(health: Option<&IssuerHealth>, now: SystemTime) -> Self {
        let state = match health.map(|health| health.state) {
            Some(KeyState::Fresh | KeyState::Due) => "ok",
            Some(KeyState::Stale) => "stale",
            Some(KeyState::Dead) => "missing",
            Some(KeyState::Never) if health.is_some_and(|it| it.last_error.is_some()) => "missing",
            Some(KeyState::Never) | None => "unknown",
        };
        let since = |at: SystemTime| now.duration_since(at).unwrap_or_default().as_secs();
        Self {
            state,
            problem: health.and_then(|health| health.last_error.clone()),
            age_seconds: health.and_then(|health| health.last_attempt).map(since),
        }
    }
}
