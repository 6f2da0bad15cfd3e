//! The judging of a foreign token: which trust, does it hold, which rule.

use std::sync::Arc;
use std::time::SystemTime;

use super::outcome::DenialReason;
use super::policy::Trust;
use super::rule::{Grant, Mismatch};
use crate::clock::Clock;
use crate::error::InvalidToken;
use crate::identity::Identity;
use crate::support::json::{Document, Value};
use crate::validator::{Credentials, JwksValidator, TokenValidator, unverified_claims};

/// A trust with what verifies its tokens.
#[derive(Debug)]
pub(super) struct CompiledTrust {
    pub(super) trust: Trust,
    pub(super) validator: JwksValidator,
}

/// What was found out about a token, as far as it was looked into.
pub(super) struct Verification {
    /// What the token says, if it can be read.
    document: Option<Document>,
    compiled: Option<Arc<CompiledTrust>>,
    /// Whose token it is, once that is verified.
    pub(super) workload: Option<Identity>,
    /// For each rule of the trust, whether it matches.
    pub(super) rules: Vec<Result<(), Mismatch>>,
    /// The place of the one rule that matches.
    grant: Option<usize>,
    /// Who the workload becomes by that rule.
    pub(super) verdict: Result<String, DenialReason>,
}

impl Verification {
    /// Looks into a token. Nothing changes by that.
    pub(super) async fn of(
        trusts: &[Arc<CompiledTrust>],
        trust_id: Option<&str>,
        token: &str,
        clock: &dyn Clock,
    ) -> Self {
        let mut found = Self {
            document: None,
            compiled: None,
            workload: None,
            rules: Vec::new(),
            grant: None,
            verdict: Err(DenialReason::NoTrust),
        };
        found.verdict = found.look(trusts, trust_id, token, clock).await;
        found
    }

    async fn look(
        &mut self,
        trusts: &[Arc<CompiledTrust>],
        trust_id: Option<&str>,
        token: &str,
        clock: &dyn Clock,
    ) -> Result<String, DenialReason> {
        let claims = self.document.insert(unverified_claims(token)?).root();
        let compiled = self.compiled.insert(find(trusts, trust_id, claims)?);
        let trust = &compiled.trust;
        if trust.not_after.as_ref().is_some_and(|expiry| clock.now() >= expiry.end) {
            return Err(DenialReason::TrustEnded);
        }
        let workload = compiled.validator.validate(&Credentials::bearer(token)).await?;
        times(trust, self.workload.insert(workload), clock.now())?;
        self.rules = trust.grants.iter().map(|grant| grant.compare(claims)).collect();
        let matching = trust.grants.iter().enumerate().zip(&self.rules);
        let mut matching = matching.filter(|(_, rule)| rule.is_ok()).map(|(grant, _)| grant);
        match (matching.next(), matching.next()) {
            (Some((nth, grant)), None) => {
                self.grant = Some(nth);
                grant.map.identity.fill(&trust.id, claims).ok_or(DenialReason::Identity)
            }
            (None, _) => Err(DenialReason::NoGrant),
            (Some(_), Some(_)) => Err(DenialReason::AmbiguousGrants),
        }
    }

    /// What the token says, verified or not.
    pub(super) fn claims(&self) -> Option<Value<'_>> {
        self.document.as_ref().map(Document::root)
    }

    /// A claim that is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.claims()?.get(name)?.as_str()
    }

    /// The trust the token leads to.
    pub(super) fn trust(&self) -> Option<&Trust> {
        self.compiled.as_ref().map(|compiled| &compiled.trust)
    }

    /// The one rule that matches.
    pub(super) fn grant(&self) -> Option<&Grant> {
        self.trust()?.grants.get(self.grant?)
    }
}

/// The trust the caller names; or else the one that has the token's issuer and audience, by which
/// alone nothing is believed: the trust's keys decide.
fn find(
    trusts: &[Arc<CompiledTrust>],
    trust_id: Option<&str>,
    claims: Value<'_>,
) -> Result<Arc<CompiledTrust>, DenialReason> {
    if let Some(id) = trust_id {
        let named = trusts.iter().find(|compiled| compiled.trust.id == id);
        return named.cloned().ok_or(DenialReason::UnknownTrust);
    }
    let issuer = match claims.get("iss") {
        None => return Err(InvalidToken::MissingClaim("iss").into()),
        Some(iss) => iss.as_str().ok_or(InvalidToken::MalformedClaim("iss"))?,
    };
    let is_meant = |compiled: &&Arc<CompiledTrust>| {
        let Trust { issuer: expected, audiences, named_only, .. } = &compiled.trust;
        expected == issuer && !named_only && names_one_of(claims, audiences)
    };
    let mut meant = trusts.iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(compiled), None) => Ok(compiled.clone()),
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
