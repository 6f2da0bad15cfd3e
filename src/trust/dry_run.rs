//! [`DryRun`]: the decisions of late, judged again by a policy that is not in force.

use std::time::SystemTime;

use serde::Serialize;

use super::decisions::{Decision, Evidence, Record, SingleUse};
use super::outcome::DenialReason;
use super::policy::{Mode, Trust, TrustPolicy};
use super::time::rfc3339;
use super::verification::only_match;
use crate::config::IssuerConfig;
use crate::error::InvalidToken;
use crate::identity::{Scopes, TenantId};
use crate::support::json::Value;
use crate::validator::{check_times_with, claims_document};

/// The number of comparisons of a token with a rule after which no further decision is judged. They take a good part of
/// a second.
const MAX_COMPARISONS: usize = 500_000;

/// The effect that a policy would have had on the [decisions](Decision) of late (feature `trust`), from
/// [`TrustEvaluator::dry_run`](super::TrustEvaluator::dry_run).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), scaikey_auth::trust::PolicyError> {
/// use scaikey_auth::trust::{DecisionFilter, TrustEvaluator, TrustPolicy};
///
/// let trusts = TrustEvaluator::builder().build()?;
/// let dry_run = trusts.dry_run(&TrustPolicy::default(), &DecisionFilter::new());
/// for change in &dry_run.changes {
///     println!("decision {}: {} → {}", change.number, change.before, change.after);
/// }
/// assert_eq!((dry_run.considered, dry_run.unknown), (0, 0));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DryRun {
    /// The number of decisions that were judged again: those about tokens whose claims could be read.
    pub considered: usize,
    /// The decisions that would change, the latest first.
    pub changes: Vec<DecisionChange>,
    /// The number of decisions whose new outcome is not known.
    pub unknown: usize,
    /// The number of further decisions, the earliest, that were not judged again, because the others took 500,000
    /// comparisons of a token with a rule.
    pub skipped: usize,
}

/// A decision that another policy would change (feature `trust`), in a [`DryRun`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DecisionChange {
    /// The number of the [decision](Decision).
    pub number: u64,
    /// The time of the decision. Serialised as in RFC 3339, in UTC and whole seconds.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// The id of the trust that decided.
    pub trust: Option<String>,
    /// The name of the rule that decided.
    pub rule: Option<String>,
    /// The SHA-256 of `sub` in hexadecimal, as in the log.
    pub subject_sha256: Option<String>,
    /// The outcome: `granted`, or the [name of the reason](DenialReason::as_str) for denying the token.
    pub before: &'static str,
    /// The new outcome. It is `granted` before and after, if only what the workload gets changes.
    pub after: &'static str,
    /// What changes: `outcome`; for tokens that are granted before and after also `identity`, `tenant` or `scopes`.
    /// The same for audit mode.
    pub differences: Vec<&'static str>,
}

/// The judgement of another policy about a decision.
pub(super) struct Judgement {
    pub(super) outcome: &'static str,
    /// Set if the token is granted, or would be in enforce mode.
    pub(super) gain: Option<Gain>,
}

/// The identity, tenant and scopes that a workload gets.
#[derive(PartialEq)]
pub(super) struct Gain {
    pub(super) identity: String,
    pub(super) tenant: TenantId,
    pub(super) scopes: Scopes,
}

/// The reasons against a grant.
enum Obstacle {
    Denied(DenialReason),
    /// The outcome depends on something that was not recorded.
    Unknown,
}

impl From<DenialReason> for Obstacle {
    fn from(reason: DenialReason) -> Self {
        Self::Denied(reason)
    }
}

impl From<InvalidToken> for Obstacle {
    fn from(invalid: InvalidToken) -> Self {
        Self::Denied(invalid.into())
    }
}

impl DryRun {
    pub(super) fn of<'r>(policy: &TrustPolicy, records: impl Iterator<Item = &'r Record>) -> Self {
        let mut dry_run = Self { considered: 0, changes: Vec::new(), unknown: 0, skipped: 0 };
        let mut comparisons = 0;
        for record in records.filter(|record| record.depends_on_policy) {
            if comparisons >= MAX_COMPARISONS {
                dry_run.skipped += 1;
                continue;
            }
            dry_run.considered += 1;
            match judge(policy, record, &mut comparisons) {
                Some(judgement) => dry_run.changes.extend(change(record, &judgement)),
                None => dry_run.unknown += 1,
            }
        }
        dry_run
    }
}

/// Returns the change of a decision, if there is one.
fn change(record: &Record, after: &Judgement) -> Option<DecisionChange> {
    let Record { decision, identity, .. } = record;
    let mut differences = Vec::new();
    let mut compare = |name, is_same: bool| differences.extend((!is_same).then_some(name));
    compare("outcome", decision.outcome == after.outcome);
    if let (Some(identity), Some(gain)) = (identity, &after.gain) {
        compare("identity", *identity == gain.identity);
        compare("tenant", decision.tenant.as_ref() == Some(&gain.tenant));
        compare("scopes", decision.scopes == gain.scopes);
    }
    let Decision { number, at, trust, rule, outcome, subject_sha256, .. } = decision.clone();
    let (before, after) = (outcome, after.outcome);
    (!differences.is_empty()).then_some(DecisionChange {
        number,
        at,
        trust,
        rule,
        subject_sha256,
        before,
        after,
        differences,
    })
}

/// Judges a decision as of its own time. Returns `None` if the outcome is not known. Adds to `comparisons` those of the
/// token with a rule.
pub(super) fn judge(
    policy: &TrustPolicy,
    record: &Record,
    comparisons: &mut usize,
) -> Option<Judgement> {
    let evidence = record.evidence.as_ref()?;
    let document = claims_document(&evidence.claims).ok()?;
    match judge_claims(policy, record, document.root(), comparisons) {
        Ok((trust, gain)) => {
            let outcome = match trust.mode {
                Mode::Enforce => "granted",
                Mode::Audit => DenialReason::AuditMode.as_str(),
            };
            Some(Judgement { outcome, gain: Some(gain) })
        }
        // A token that was not verified may be junk, so the reason for denying it is of no interest.
        Err(Obstacle::Denied(_)) if evidence.times.is_none() => {
            Some(Judgement { outcome: record.decision.outcome, gain: None })
        }
        Err(Obstacle::Denied(reason)) => Some(Judgement { outcome: reason.as_str(), gain: None }),
        Err(Obstacle::Unknown) => None,
    }
}

/// Runs the checks of [`TrustEvaluator::evaluate`](super::TrustEvaluator::evaluate) in the same order.
fn judge_claims<'p>(
    policy: &'p TrustPolicy,
    record: &Record,
    claims: Value<'_>,
    comparisons: &mut usize,
) -> Result<(&'p Trust, Gain), Obstacle> {
    let at = record.decision.at;
    let evidence = record.evidence.as_ref().ok_or(Obstacle::Unknown)?;
    let nth = policy.index.find(evidence.trust_id.as_deref(), claims)?;
    let trust = policy.trusts.get(nth).ok_or(Obstacle::Unknown)?;
    trust.check_end(at)?;
    check_token(trust, evidence, claims, record)?;
    *comparisons += trust.grants.len();
    let rules = trust.compare(claims);
    let grant = trust.grants.get(only_match(&rules)?).ok_or(Obstacle::Unknown)?;
    let identity = grant.map.identity.fill(&trust.id, claims).ok_or(DenialReason::Identity)?;
    let scopes = grant.permitted(&evidence.requested).ok_or(DenialReason::Scope)?;
    if trust.single_use_jti {
        check_single_use(evidence.single_use, claims)?;
    }
    Ok((trust, Gain { identity, tenant: grant.map.tenant.clone(), scopes }))
}

/// Checks the token as far as the recorded result of its validator allows.
fn check_token(
    trust: &Trust,
    evidence: &Evidence,
    claims: Value<'_>,
    record: &Record,
) -> Result<(), Obstacle> {
    let (at, config) = (record.decision.at, trust.issuer_config());
    let before = evidence.config.as_deref().ok_or(Obstacle::Unknown)?;
    let Some(times) = evidence.times else {
        // The same validator denies it again, if it was asked at all.
        let was_asked = record.decision.outcome != DenialReason::TrustEnded.as_str();
        let is_same = was_asked && *before == config;
        return Err(if is_same { DenialReason::NoMatchingTrust.into() } else { Obstacle::Unknown });
    };
    if !accepts_signatures_of(&config, before) {
        return Err(Obstacle::Unknown);
    }
    trust.check_claims(claims)?;
    // With the same leeway, the result is known, even if the clock moved while the decision was made.
    if config.leeway != before.leeway {
        check_times_with(claims, at, config.leeway)?;
    }
    Ok(trust.check_lifetime(times.issued_at, times.expires_at, at)?)
}

/// Returns whether the trust of a token that was verified has another issuer, other keys or fewer algorithms in a
/// policy, so that the policy may not accept its signature.
pub(super) fn changes_keys(policy: &TrustPolicy, evidence: &Evidence) -> bool {
    let (Some(before), Ok(document)) = (&evidence.config, claims_document(&evidence.claims)) else {
        return false;
    };
    let nth = policy.index.find(evidence.trust_id.as_deref(), document.root()).ok();
    let trust = nth.and_then(|nth| policy.trusts.get(nth));
    trust.is_some_and(|trust| !accepts_signatures_of(&trust.issuer_config(), before))
}

/// Returns whether a token whose signature one configuration accepts has a signature that the other accepts, too: if
/// they differ only in audience, leeway and additional algorithms.
fn accepts_signatures_of(config: &IssuerConfig, before: &IssuerConfig) -> bool {
    let mut same = config.clone();
    same.audience.clone_from(&before.audience);
    same.leeway = before.leeway;
    same.algorithms.clone_from(&before.algorithms);
    same == *before && before.algorithms.iter().all(|it| config.algorithms.contains(it))
}

fn check_single_use(single_use: SingleUse, claims: Value<'_>) -> Result<(), Obstacle> {
    let jti = claims.get("jti").and_then(Value::as_str);
    if jti.is_none_or(str::is_empty) {
        return Err(DenialReason::NoJti.into());
    }
    match single_use {
        SingleUse::First => Ok(()),
        SingleUse::Used => Err(DenialReason::Replayed.into()),
        SingleUse::Unavailable => {
            Err(DenialReason::Unavailable { component: "replay log", retry_after: None }.into())
        }
        SingleUse::Unknown => Err(Obstacle::Unknown),
    }
}
