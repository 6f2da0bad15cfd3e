//! The judging of a foreign token: which trust, does it hold, which rule.

use std::sync::Arc;
use std::time::SystemTime;

use super::outcome::DenialReason;
use super::policy::Trust;
use super::rule::Mismatch;
use crate::clock::Clock;
use crate::error::InvalidToken;
use crate::identity::Identity;
use crate::json::Value;
use crate::validator::{Credentials, JwksValidator, TokenValidator};

/// A trust with what verifies its tokens.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) trust: Trust,
    pub(super) validator: JwksValidator,
}

/// What was found out about a token, as far as it was looked into.
pub(super) struct Findings {
    pub(super) trust: Option<Arc<Opened>>,
    /// Whose token it is, once that is verified.
    pub(super) identity: Option<Identity>,
    /// For each rule of the trust, whether it matches.
    pub(super) rules: Vec<Result<(), Mismatch>>,
    /// The place of the one rule that matches.
    pub(super) verdict: Result<usize, DenialReason>,
}

impl Findings {
    /// Looks into a token whose payload is `document`. Nothing changes by that.
    pub(super) async fn of(
        trusts: &[Arc<Opened>],
        trust_id: Option<&str>,
        token: &str,
        claims: Value<'_>,
        clock: &dyn Clock,
    ) -> Self {
        let mut findings = Self {
            trust: None,
            identity: None,
            rules: Vec::new(),
            verdict: Err(DenialReason::NoTrust),
        };
        findings.verdict = findings.look(trusts, trust_id, token, claims, clock).await;
        findings
    }

    async fn look(
        &mut self,
        trusts: &[Arc<Opened>],
        trust_id: Option<&str>,
        token: &str,
        claims: Value<'_>,
        clock: &dyn Clock,
    ) -> Result<usize, DenialReason> {
        let opened = find(trusts, trust_id, claims)?;
        self.trust = Some(opened.clone());
        let trust = &opened.trust;
        if trust.not_after.as_ref().is_some_and(|last| clock.now() >= last.end) {
            return Err(DenialReason::TrustEnded);
        }
        let identity = opened.validator.validate(&Credentials::bearer(token)).await?;
        let times = times(trust, &identity, clock.now());
        self.identity = Some(identity);
        times?;
        self.rules = trust.grants.iter().map(|grant| grant.compare(claims)).collect();
        let mut matching = self.rules.iter().enumerate().filter(|(_, rule)| rule.is_ok());
        match (matching.next(), matching.next()) {
            (Some((nth, _)), None) => Ok(nth),
            (None, _) => Err(DenialReason::NoGrant),
            (Some(_), Some(_)) => Err(DenialReason::AmbiguousGrants),
        }
    }
}

/// The trust the caller names; or else the one that has the token's issuer and audience, by which
/// alone nothing is believed: the trust's keys decide.
fn find(
    trusts: &[Arc<Opened>],
    trust_id: Option<&str>,
    claims: Value<'_>,
) -> Result<Arc<Opened>, DenialReason> {
    if let Some(id) = trust_id {
        let named = trusts.iter().find(|opened| opened.trust.id == id);
        return named.cloned().ok_or(DenialReason::UnknownTrust);
    }
    let issuer = match claims.get("iss") {
        None => return Err(InvalidToken::MissingClaim("iss").into()),
        Some(iss) => iss.as_str().ok_or(InvalidToken::MalformedClaim("iss"))?,
    };
    let is_meant = |opened: &&Arc<Opened>| {
        let Trust { issuer: expected, audiences, named_only, .. } = &opened.trust;
        expected == issuer && !named_only && names_one_of(claims, audiences)
    };
    let mut meant = trusts.iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(opened), None) => Ok(opened.clone()),
        (None, _) => Err(DenialReason::NoTrust),
        (Some(_), Some(_)) => Err(DenialReason::AmbiguousTrust),
    }
}

fn names_one_of(claims: Value<'_>, audiences: &[String]) -> bool {
    let is_ours = |name: Value<'_>| {
        name.as_str().is_some_and(|name| audiences.iter().any(|audience| audience == name))
    };
    match claims.get("aud") {
        Some(aud) if aud.is_list() => aud.children().any(is_ours),
        Some(aud) => is_ours(aud),
        None => false,
    }
}

/// How long a token may live and how old it may be, by what it says itself.
fn times(trust: &Trust, identity: &Identity, now: SystemTime) -> Result<(), DenialReason> {
    let issued_at = identity.issued_at().ok_or(DenialReason::Lifetime)?;
    let lifetime = identity.expires_at().duration_since(issued_at).unwrap_or_default();
    if lifetime > trust.max_lifetime.0 {
        return Err(DenialReason::Lifetime);
    }
    let age = now.duration_since(issued_at).unwrap_or_default();
    match trust.max_age {
        Some(limit) if age > limit.0 + trust.leeway.0 => Err(DenialReason::Age),
        _ => Ok(()),
    }
}
