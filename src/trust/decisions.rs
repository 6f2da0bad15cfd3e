//! [`Decision`]: the decisions of late, and [`TrustUsage`]: how often each trust was used.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::outcome::DenialReason;
use super::time::{optional_rfc3339, rfc3339};
use super::verification::Verification;
use crate::clock::unix_seconds;
use crate::config::IssuerConfig;
use crate::identity::{Scopes, TenantId};

/// The number of kept decisions about tokens that were not verified. They have a log of their own, so that an
/// attacker, who can create any number of such tokens, evicts no other decision.
const KEPT_UNVERIFIED: usize = 200;

/// The limit of the evidence that is kept of one decision, in bytes. Tokens of real platforms have claims of 1 to
/// 3 KiB.
const MAX_EVIDENCE_BYTES: usize = 8 * 1024;

/// A decision of this process about a foreign token, for administrators (feature `trust`). It contains neither
/// the token nor its claims.
///
/// [`TrustEvaluator::decisions`](super::TrustEvaluator::decisions) returns the decisions of late: the last
/// [`CAPACITY`](Self::CAPACITY) about tokens whose signature was verified, and the last 200 others. They are kept in memory
/// and end with the process. The log has all decisions.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), scaikey_auth::trust::PolicyError> {
/// use scaikey_auth::identity::Scopes;
/// use scaikey_auth::trust::{DecisionFilter, TrustEvaluator};
///
/// let trusts = TrustEvaluator::builder().build()?;
/// let _ = trusts.evaluate("not a token", None, &Scopes::new()).await;
/// let denied = trusts.decisions(&DecisionFilter::new().outcome("token_malformed"));
/// assert_eq!((denied.len(), &denied[0].trust), (1, &None));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Decision {
    /// The number of the decision: unique in this process and larger than that of each earlier decision. It tells the
    /// time, in microseconds since the Unix epoch, and not how many decisions there were.
    pub number: u64,
    /// The time of the decision. Serialised as in RFC 3339, in UTC and whole seconds.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// The id of the trust, if there is one for the token.
    pub trust: Option<String>,
    /// The name of the rule, if exactly one matched.
    pub rule: Option<String>,
    /// `granted`, or the [name of the reason](DenialReason::as_str) for denying the token.
    pub outcome: &'static str,
    /// The tenant of the rule.
    pub tenant: Option<TenantId>,
    /// The SHA-256 of `sub` in hexadecimal, as in the log.
    pub subject_sha256: Option<String>,
    /// The granted scopes; in audit mode, those that would have been granted. Otherwise empty.
    pub scopes: Scopes,
}

impl Decision {
    /// The number of kept decisions about tokens whose signature was verified.
    pub const CAPACITY: usize = 1000;
}

/// A selection of [decisions](Decision) (feature `trust`). All conditions must hold. Default: all kept decisions.
///
/// ```
/// use scaikey_auth::trust::DecisionFilter;
///
/// let seen = 1_778_939_467_000_000; // the number of the latest decision on the screen
/// let filter = DecisionFilter::new().trust("k8s-prod-eu").outcome("grant_none").after(seen).limit(50);
/// # let _ = filter;
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct DecisionFilter {
    trust: Option<String>,
    outcome: Option<String>,
    tenant: Option<TenantId>,
    after: Option<u64>,
    limit: Option<usize>,
}

impl DecisionFilter {
    /// Creates a filter for all decisions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects the decisions of the trust with this id.
    pub fn trust(mut self, id: impl Into<String>) -> Self {
        self.trust = Some(id.into());
        self
    }

    /// Selects the decisions with this outcome: `granted`, or the [name of a reason](DenialReason::as_str).
    pub fn outcome(mut self, outcome: impl Into<String>) -> Self {
        self.outcome = Some(outcome.into());
        self
    }

    /// Selects the decisions of rules that map into this tenant. A decision without such a rule is of no tenant.
    pub fn tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Selects the decisions with a larger number.
    pub fn after(mut self, number: u64) -> Self {
        self.after = Some(number);
        self
    }

    /// Returns at most this many decisions, the latest first. Default: all.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    fn selects(&self, decision: &Decision) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| value == Some(wanted))
        };
        self.after.is_none_or(|after| decision.number > after)
            && is(&self.trust, decision.trust.as_deref())
            && is(&self.outcome, Some(decision.outcome))
            && (self.tenant.is_none() || self.tenant == decision.tenant)
    }
}

/// The use of a trust since the process started or the trust was added (feature `trust`). It outlives changes of the
/// policy while the id of the trust stays.
///
/// ```
/// use scaikey_auth::trust::TrustEvaluator;
///
/// /// Prints the trusts that no workload uses. (Other processes count for themselves.)
/// fn print_unused(trusts: &TrustEvaluator) {
///     for usage in trusts.usage().iter().filter(|usage| usage.last_used.is_none()) {
///         println!("{}: {} tokens denied, none of them verified", usage.trust, usage.denied);
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TrustUsage {
    /// The id of the trust.
    pub trust: String,
    /// The time of the last decision about a token whose signature was verified, in whole seconds. Serialised as in
    /// RFC 3339.
    #[serde(serialize_with = "optional_rfc3339")]
    pub last_used: Option<SystemTime>,
    /// The number of granted tokens.
    pub granted: u64,
    /// The number of denied tokens, also of those in audit mode. It includes tokens whose signature was not
    /// verified, so anyone can raise it.
    pub denied: u64,
}

/// The counters of a trust.
#[derive(Debug, Default)]
pub(super) struct UsageCounters {
    granted: AtomicU64,
    denied: AtomicU64,
    /// In seconds since the Unix epoch; 0 if the trust was not used.
    last_used: AtomicU64,
}

impl UsageCounters {
    fn count(&self, is_granted: bool, verified_at: Option<SystemTime>) {
        let counter = if is_granted { &self.granted } else { &self.denied };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(at) = verified_at {
            self.last_used.fetch_max(unix_seconds(at), Ordering::Relaxed);
        }
    }

    pub(super) fn of_trust(&self, trust: &str) -> TrustUsage {
        let seconds = self.last_used.load(Ordering::Relaxed);
        let last_used = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        TrustUsage {
            trust: trust.to_owned(),
            last_used: last_used.filter(|_| seconds > 0),
            granted: self.granted.load(Ordering::Relaxed),
            denied: self.denied.load(Ordering::Relaxed),
        }
    }
}

/// A decision with the evidence for [dry runs](super::DryRun).
pub(super) struct Record {
    pub(super) decision: Decision,
    /// The identity that the workload got, or would have got in enforce mode.
    pub(super) identity: Option<String>,
    /// Whether another policy could decide differently: if the claims could be read.
    pub(super) depends_on_policy: bool,
    /// `None` if there are no claims, or if it is too long.
    pub(super) evidence: Option<Evidence>,
}

/// All that a decision depended on, besides the policy. The token and its signature are not part of it.
pub(super) struct Evidence {
    pub(super) claims: Box<str>,
    /// The trust that the caller named.
    pub(super) trust_id: Option<Box<str>>,
    pub(super) requested: Scopes,
    /// The times of the token, if its signature was verified.
    pub(super) times: Option<TokenTimes>,
    /// The configuration of the validator, if there was a trust for the token.
    pub(super) config: Option<Arc<IssuerConfig>>,
    pub(super) single_use: SingleUse,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct TokenTimes {
    pub(super) issued_at: Option<SystemTime>,
    pub(super) expires_at: SystemTime,
}

/// The answer of the log of used tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum SingleUse {
    /// It was not asked.
    Unknown,
    First,
    Used,
    Unavailable,
}

/// The request that led to a decision.
pub(super) struct Asked<'r> {
    pub(super) trust_id: Option<&'r str>,
    pub(super) requested: &'r Scopes,
}

impl Record {
    fn of(
        verification: Verification<'_>,
        asked: &Asked<'_>,
        subject_sha256: Option<String>,
        denied: Option<&DenialReason>,
    ) -> Self {
        let rule = verification.grant();
        let is_permitted = matches!(denied, None | Some(DenialReason::AuditMode));
        let scopes = rule.filter(|_| is_permitted).and_then(|rule| rule.permitted(asked.requested));
        let identity = verification.identity.as_ref().ok().filter(|_| scopes.is_some());
        Self {
            decision: Decision {
                number: 0,
                at: verification.at,
                trust: verification.trust.map(|trust| trust.id.clone()),
                rule: rule.map(|rule| rule.name.clone()),
                outcome: denied.map_or("granted", DenialReason::as_str),
                tenant: rule.map(|rule| rule.map.tenant.clone()),
                subject_sha256,
                scopes: scopes.unwrap_or_default(),
            },
            identity: identity.cloned(),
            depends_on_policy: verification.claims().is_some(),
            evidence: Evidence::of(verification, asked, denied),
        }
    }
}

impl Evidence {
    fn of(
        verification: Verification<'_>,
        asked: &Asked<'_>,
        denied: Option<&DenialReason>,
    ) -> Option<Self> {
        let times = verification.workload.as_ref().map(|workload| TokenTimes {
            issued_at: workload.issued_at(),
            expires_at: workload.expires_at(),
        });
        let config = verification.compiled.map(|compiled| compiled.config.clone());
        let is_single_use = verification.trust.is_some_and(|trust| trust.single_use_jti);
        let single_use = match denied {
            None | Some(DenialReason::AuditMode) if is_single_use => SingleUse::First,
            Some(DenialReason::Replayed) => SingleUse::Used,
            Some(DenialReason::Unavailable { .. }) if times.is_some() => SingleUse::Unavailable,
            _ => SingleUse::Unknown,
        };
        let claims = verification.into_claims()?;
        let parts = [&claims, asked.trust_id.unwrap_or_default(), asked.requested.as_str()];
        if parts.iter().map(|part| part.len()).sum::<usize>() > MAX_EVIDENCE_BYTES {
            return None;
        }
        Some(Self {
            claims: claims.into(),
            trust_id: asked.trust_id.map(Into::into),
            requested: asked.requested.clone(),
            times,
            config,
            single_use,
        })
    }
}

/// The decisions of late. `Debug` shows no claims.
#[derive(Default)]
pub(super) struct DecisionLog(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    last: u64,
    verified: VecDeque<Arc<Record>>,
    unverified: VecDeque<Arc<Record>>,
}

impl DecisionLog {
    /// Records a decision. Evicts the oldest one of its kind, if there are too many.
    pub(super) fn record(
        &self,
        verification: Verification<'_>,
        asked: &Asked<'_>,
        subject_sha256: Option<String>,
        denied: Option<&DenialReason>,
    ) {
        let is_verified = verification.workload.is_some();
        if let Some(compiled) = verification.compiled {
            compiled.usage.count(denied.is_none(), is_verified.then_some(verification.at));
        }
        let mut record = Record::of(verification, asked, subject_sha256, denied);
        let evicted = {
            let mut kept = self.lock();
            kept.last = number_after(kept.last, record.decision.at);
            record.decision.number = kept.last;
            let (records, limit) = match is_verified {
                true => (&mut kept.verified, Decision::CAPACITY),
                false => (&mut kept.unverified, KEPT_UNVERIFIED),
            };
            let evicted = if records.len() < limit { None } else { records.pop_front() };
            records.push_back(Arc::new(record));
            evicted
        };
        // Its claims are freed without the lock.
        drop(evicted);
    }

    /// Returns the kept decisions, the latest first.
    pub(super) fn records(&self) -> Vec<Arc<Record>> {
        let mut records: Vec<_> = {
            let kept = self.lock();
            kept.verified.iter().chain(&kept.unverified).cloned().collect()
        };
        records.sort_unstable_by_key(|record| std::cmp::Reverse(record.decision.number));
        records
    }

    /// Returns the kept decisions that `filter` selects, the latest first.
    pub(super) fn selected(&self, filter: &DecisionFilter) -> Vec<Arc<Record>> {
        let records = self.records().into_iter();
        let selected = records.filter(|record| filter.selects(&record.decision));
        selected.take(filter.limit.unwrap_or(usize::MAX)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the number of the decision after `last`: the time in microseconds since the Unix epoch, which JSON numbers
/// hold exactly until the year 2255, or the next number if that is larger.
fn number_after(last: u64, at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let micros = u64::try_from(since.as_micros()).unwrap_or(0);
    micros.max(last.saturating_add(1))
}

impl fmt::Debug for DecisionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecisionLog").field("last", &self.lock().last).finish_non_exhaustive()
    }
}
