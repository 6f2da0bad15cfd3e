//! [`Verification`]: the checks of a foreign token against the trusts of a policy.

use std::sync::Arc;
use std::time::SystemTime;

use super::decisions::UsageCounters;
use super::index::Signer;
use super::outcome::DenialReason;
use super::policy::{Trust, TrustPolicy};
use super::rule::{Grant, Mismatch};
use crate::clock::Clock;
use crate::config::IssuerConfig;
use crate::error::InvalidToken;
use crate::identity::{Confirmation, Identity, text};
use crate::support::json::{Document, Value};
use crate::validator::{
    Credentials, JwksValidator, TokenValidator, claims_document, unverified_claims,
};

/// The limit of claims without a token, in bytes. Those of a token are shorter.
const MAX_CLAIMS_BYTES: usize = 64 * 1024;

/// A trust and the validator of its tokens.
#[derive(Debug)]
pub(super) struct CompiledTrust {
    pub(super) trust: Trust,
    pub(super) validator: JwksValidator,
    /// The configuration of the validator.
    pub(super) config: Arc<IssuerConfig>,
    /// Kept while a trust with this id is in the policy.
    pub(super) usage: Arc<UsageCounters>,
}

/// The results of the checks of a token, up to the first failure.
pub(super) struct Verification<'p> {
    /// The claims, if they can be parsed. Those of a token are verified if there is a `workload`.
    document: Option<Document>,
    pub(super) trust: Option<&'p Trust>,
    /// The trust with its validator, if there is a token.
    pub(super) compiled: Option<&'p CompiledTrust>,
    /// The time for which the trust and the lifetime of the token were checked.
    pub(super) at: SystemTime,
    /// The verified token.
    pub(super) workload: Option<Identity>,
    /// The comparison with each rule of the trust, in order.
    pub(super) rules: Vec<Result<(), Mismatch>>,
    /// The index of the only matching rule.
    grant: Option<usize>,
    /// The identity that the rule gives the workload.
    pub(super) identity: Result<String, DenialReason>,
}

impl<'p> Verification<'p> {
    /// Returns the verification of a token that was not looked at.
    pub(super) fn denied(reason: DenialReason, at: SystemTime) -> Self {
        Self {
            document: None,
            trust: None,
            compiled: None,
            at,
            workload: None,
            rules: Vec::new(),
            grant: None,
            identity: Err(reason),
        }
    }

    /// Runs all checks that have no side effects. `trusts` are those of the policy, in the same order. Earlier
    /// use (`jti`) and the requested scopes are not checked.
    pub(super) async fn run(
        policy: &TrustPolicy,
        trusts: &'p [Arc<CompiledTrust>],
        trust_id: Option<&str>,
        token: &str,
        clock: &dyn Clock,
    ) -> Self {
        let mut verification = Self::denied(DenialReason::NoMatchingTrust, clock.now());
        verification.identity = verification.verify(policy, trusts, trust_id, token, clock).await;
        verification
    }

    /// Runs the checks of claims without a token: neither signature nor times are checked.
    pub(super) fn of_claims(
        policy: &'p TrustPolicy,
        trust_id: Option<&str>,
        claims: &str,
        now: SystemTime,
    ) -> Self {
        let mut verification = Self::denied(DenialReason::NoMatchingTrust, now);
        verification.identity = verification.check(policy, trust_id, claims);
        verification
    }

    async fn verify(
        &mut self,
        policy: &TrustPolicy,
        trusts: &'p [Arc<CompiledTrust>],
        trust_id: Option<&str>,
        token: &str,
        clock: &dyn Clock,
    ) -> Result<String, DenialReason> {
        let document = self.document.insert(unverified_claims(token)?);
        let nth = policy.index.find(trust_id, document.root())?;
        let compiled: &CompiledTrust = trusts.get(nth).ok_or(DenialReason::NoMatchingTrust)?;
        let trust = &compiled.trust;
        (self.compiled, self.trust) = (Some(compiled), Some(trust));
        trust.check_end(self.at)?;
        let workload = compiled.validator.validate(&Credentials::bearer(token)).await?;
        self.at = clock.now();
        let workload = self.workload.insert(workload);
        trust.check_lifetime(workload.issued_at(), workload.expires_at(), self.at)?;
        self.apply_rules()
    }

    fn check(
        &mut self,
        policy: &'p TrustPolicy,
        trust_id: Option<&str>,
        claims: &str,
    ) -> Result<String, DenialReason> {
        if claims.len() > MAX_CLAIMS_BYTES {
            return Err(InvalidToken::Malformed("the claims are longer than 64 KiB").into());
        }
        let claims = self.document.insert(claims_document(claims)?).root();
        let nth = policy.index.find(trust_id, claims)?;
        let trust = policy.trusts.get(nth).ok_or(DenialReason::NoMatchingTrust)?;
        self.trust = Some(trust);
        trust.check_end(self.at)?;
        trust.check_claims(claims)?;
        self.apply_rules()
    }

    /// Compares the claims with the rules of the trust, and returns the identity of the only rule that matches.
    fn apply_rules(&mut self) -> Result<String, DenialReason> {
        let (Some(trust), Some(document)) = (self.trust, &self.document) else {
            return Err(DenialReason::NoMatchingTrust);
        };
        let claims = document.root();
        self.rules = trust.compare(claims);
        let nth = only_match(&self.rules)?;
        self.grant = Some(nth);
        let grant = trust.grants.get(nth).ok_or(DenialReason::NoMatchingRule)?;
        grant.map.identity.fill(&trust.id, claims).ok_or(DenialReason::Identity)
    }

    /// Returns the text of the claims.
    pub(super) fn into_claims(self) -> Option<String> {
        self.document.map(Document::into_source)
    }

    /// Returns the claims, verified or not.
    pub(super) fn claims(&self) -> Option<Value<'_>> {
        self.document.as_ref().map(Document::root)
    }

    /// Returns a claim that is a string.
    pub(super) fn text_claim(&self, name: &str) -> Option<&str> {
        self.claims()?.get(name)?.as_str()
    }

    /// Returns the id of the token, by which its use is recorded.
    pub(super) fn jti(&self) -> Option<&str> {
        self.text_claim("jti").filter(|jti| !jti.is_empty())
    }

    /// Returns the only matching rule.
    pub(super) fn grant(&self) -> Option<&'p Grant> {
        self.trust?.grants.get(self.grant?)
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

impl Trust {
    /// Checks `not_after`.
    pub(super) fn check_end(&self, now: SystemTime) -> Result<(), DenialReason> {
        match &self.not_after {
            Some(not_after) if now >= not_after.end => Err(DenialReason::TrustEnded),
            _ => Ok(()),
        }
    }

    /// Checks the claims that the validator of the trust would check, but for the times and the marks of
    /// other kinds of tokens.
    pub(super) fn check_claims(&self, claims: Value<'_>) -> Result<(), InvalidToken> {
        if !Signer::of(claims)?.is(self) {
            return Err(InvalidToken::Issuer);
        }
        if !has_audience(claims, &self.audiences) {
            return Err(InvalidToken::Audience);
        }
        text(claims.get("jti"), "jti")?;
        if Confirmation::read(claims)?.is_some() {
            return Err(InvalidToken::Unproven);
        }
        let subject = text(claims.get("sub"), "sub")?.filter(|subject| !subject.is_empty());
        subject.map(|_| ()).ok_or(InvalidToken::MissingClaim("sub"))
    }

    /// Compares the claims with each rule, in order.
    pub(super) fn compare(&self, claims: Value<'_>) -> Vec<Result<(), Mismatch>> {
        self.grants.iter().map(|grant| grant.compare(claims)).collect()
    }

    /// Checks `max_lifetime` and `max_age` against the token's `iat` and `exp`.
    pub(super) fn check_lifetime(
        &self,
        issued_at: Option<SystemTime>,
        expires_at: SystemTime,
        now: SystemTime,
    ) -> Result<(), DenialReason> {
        let issued_at = match issued_at {
            Some(issued_at) => issued_at,
            // A JWT-SVID needs no `iat`. The rest of its lifetime is limited instead.
            None if self.authority.is_trust_domain() && self.max_age.is_none() => now,
            None => return Err(DenialReason::Lifetime),
        };
        let lifetime = expires_at.duration_since(issued_at).unwrap_or_default();
        if lifetime > self.max_lifetime.0 {
            return Err(DenialReason::Lifetime);
        }
        let age = now.duration_since(issued_at).unwrap_or_default();
        match self.max_age {
            Some(limit) if age > limit.0 + self.leeway.0 => Err(DenialReason::Age),
            _ => Ok(()),
        }
    }
}

/// Returns the index of the only rule that matches.
pub(super) fn only_match(rules: &[Result<(), Mismatch>]) -> Result<usize, DenialReason> {
    let mut matching = rules.iter().enumerate().filter(|(_, rule)| rule.is_ok());
    match (matching.next(), matching.next()) {
        (Some((nth, _)), None) => Ok(nth),
        (None, _) => Err(DenialReason::NoMatchingRule),
        (Some(_), Some(_)) => Err(DenialReason::AmbiguousRules),
    }
}
