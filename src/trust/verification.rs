//! [`Verification`]: the checks of a foreign token against the trusts of a policy.

use std::sync::Arc;
use std::time::SystemTime;

use super::outcome::DenialReason;
use super::policy::{Authority, Trust};
use super::rule::{Grant, Mismatch};
use crate::clock::Clock;
use crate::error::InvalidToken;
use crate::identity::{Identity, spiffe_id};
use crate::support::json::{Document, Value};
use crate::validator::{Credentials, JwksValidator, TokenValidator, unverified_claims};

/// A trust and the validator of its tokens.
#[derive(Debug)]
pub(super) struct CompiledTrust {
    pub(super) trust: Trust,
    pub(super) validator: JwksValidator,
}

/// The results of the checks of a token, up to the first failure.
pub(super) struct Verification {
    /// The unverified claims, if the token can be parsed.
    document: Option<Document>,
    compiled: Option<Arc<CompiledTrust>>,
    /// The verified token.
    pub(super) workload: Option<Identity>,
    /// The comparison with each rule of the trust, in order.
    pub(super) rules: Vec<Result<(), Mismatch>>,
    /// The index of the only matching rule.
    grant: Option<usize>,
    /// The identity that the rule gives the workload.
    pub(super) identity: Result<String, DenialReason>,
}

impl Verification {
    /// Returns the verification of a token that was not looked at.
    pub(super) fn denied(reason: DenialReason) -> Self {
        Self {
            document: None,
            compiled: None,
            workload: None,
            rules: Vec::new(),
            grant: None,
            identity: Err(reason),
        }
    }

    /// Runs all checks that have no side effects. Earlier use (`jti`) and the requested scopes are
    /// not checked.
    pub(super) async fn run(
        trusts: &[Arc<CompiledTrust>],
        trust_id: Option<&str>,
        token: &str,
        clock: &dyn Clock,
    ) -> Self {
        let mut verification = Self::denied(DenialReason::NoMatchingTrust);
        verification.identity = verification.verify(trusts, trust_id, token, clock).await;
        verification
    }

    async fn verify(
        &mut self,
        trusts: &[Arc<CompiledTrust>],
        trust_id: Option<&str>,
        token: &str,
        clock: &dyn Clock,
    ) -> Result<String, DenialReason> {
        let claims = self.document.insert(unverified_claims(token)?).root();
        let compiled = self.compiled.insert(find_trust(trusts, trust_id, claims)?);
        let trust = &compiled.trust;
        if trust.not_after.as_ref().is_some_and(|expiry| clock.now() >= expiry.end) {
            return Err(DenialReason::TrustEnded);
        }
        let workload = compiled.validator.validate(&Credentials::bearer(token)).await?;
        check_lifetime(trust, self.workload.insert(workload), clock.now())?;
        self.rules = trust.grants.iter().map(|grant| grant.compare(claims)).collect();
        let matching = trust.grants.iter().enumerate().zip(&self.rules);
        let mut matching = matching.filter(|(_, rule)| rule.is_ok()).map(|(grant, _)| grant);
        match (matching.next(), matching.next()) {
            (Some((nth, grant)), None) => {
                self.grant = Some(nth);
                grant.map.identity.fill(&trust.id, claims).ok_or(DenialReason::Identity)
            }
            (None, _) => Err(DenialReason::NoMatchingRule),
            (Some(_), Some(_)) => Err(DenialReason::AmbiguousRules),
        }
    }

    /// Returns the claims, verified or not.
    pub(super) fn claims(&self) -> Option<Value<'_>> {
        self.document.as_ref().map(Document::root)
    }

    /// Returns a claim that is a string.
    pub(super) fn text_claim(&self, name: &str) -> Option<&str> {
        self.claims()?.get(name)?.as_str()
    }

    /// Returns the trust of the token.
    pub(super) fn trust(&self) -> Option<&Trust> {
        self.compiled.as_ref().map(|compiled| &compiled.trust)
    }

    /// Returns the only matching rule.
    pub(super) fn grant(&self) -> Option<&Grant> {
        self.trust()?.grants.get(self.grant?)
    }
}

/// Returns the trust that the caller names, or else the one that matches the token's audience, and
/// its issuer or the trust domain of its subject. These claims are not verified yet.
fn find_trust(
    trusts: &[Arc<CompiledTrust>],
    trust_id: Option<&str>,
    claims: Value<'_>,
) -> Result<Arc<CompiledTrust>, DenialReason> {
    if let Some(id) = trust_id {
        let named = trusts.iter().find(|compiled| compiled.trust.id == id);
        return named.cloned().ok_or(DenialReason::UnknownTrust);
    }
    let issuer = match claims.get("iss") {
        None => None,
        Some(iss) => Some(iss.as_str().ok_or(InvalidToken::MalformedClaim("iss"))?),
    };
    let subject = claims.get("sub").and_then(Value::as_str);
    let trust_domain = subject.and_then(spiffe_id::trust_domain);
    if issuer.is_none() && trust_domain.is_none() {
        return Err(InvalidToken::MissingClaim("iss").into());
    }
    let is_match = |compiled: &&Arc<CompiledTrust>| {
        let Trust { authority, audiences, named_only, .. } = &compiled.trust;
        // A JWT-SVID may have an `iss`, which says nothing about the keys.
        let is_signer = match authority {
            Authority::Issuer(name) => issuer == Some(name),
            Authority::TrustDomain(name) => trust_domain == Some(name),
        };
        is_signer && !named_only && has_audience(claims, audiences)
    };
    let mut matching = trusts.iter().filter(is_match);
    match (matching.next(), matching.next()) {
        (Some(compiled), None) => Ok(compiled.clone()),
        (None, _) => Err(DenialReason::NoMatchingTrust),
        (Some(_), Some(_)) => Err(DenialReason::AmbiguousTrusts),
    }
}

fn has_audience(claims: Value<'_>, audiences: &[String]) -> bool {
    let is_accepted = |name: Value<'_>| {
        name.as_str().is_some_and(|name| audiences.iter().any(|audience| audience == name))
    };
    match claims.get("aud") {
        Some(aud) if aud.is_list() => aud.children().any(is_accepted),
        Some(aud) => is_accepted(aud),
        None => false,
    }
}

/// Checks `max_lifetime` and `max_age` against the token's `iat` and `exp`.
fn check_lifetime(trust: &Trust, identity: &Identity, now: SystemTime) -> Result<(), DenialReason> {
    let issued_at = match identity.issued_at() {
        Some(issued_at) => issued_at,
        // A JWT-SVID needs no `iat`. The rest of its lifetime is limited instead.
        None if trust.authority.is_trust_domain() && trust.max_age.is_none() => now,
        None => return Err(DenialReason::Lifetime),
    };
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
