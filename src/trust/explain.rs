//! [`Explanation`]: the reasons for granting or denying a token, for administrators.

use std::fmt;

use serde::Serialize;

use super::outcome::DenialReason;
use super::policy::{Mode, Trust};
use super::rule::quote;
use super::verification::Verification;
use crate::identity::{Scopes, TenantId};
use crate::support::json::Value;

/// An explanation of a decision about a foreign token (feature `trust`): the trust, the matching
/// rule, and the reasons why other rules do not match.
///
/// `Display` writes the explanation as text. `Serialize` writes an object with the members `verified`, `trust`,
/// `rule`, `outcome` (`granted`, or the [name of the reason](DenialReason::as_str)), `problem`, `identity`,
/// `tenant`, `scopes`, `rules` (each with `name`, `matches` and `problem`), and `lines`, the lines of the text.
/// Both quote the policy and claims of the token, escaped and shortened, so show them to administrators only.
/// They contain neither the token nor its signature.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), scaikey_auth::trust::PolicyError> {
/// use scaikey_auth::trust::TrustEvaluator;
///
/// let trusts = TrustEvaluator::builder().build()?;
/// let explanation = trusts.explain("not a token", None).await;
/// assert_eq!(explanation.denial().map(|reason| reason.as_str()), Some("token_malformed"));
/// println!("{explanation}"); // for an administrator
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    #[serde(rename = "verified")]
    is_verified: bool,
    trust: Option<String>,
    #[serde(rename = "rule")]
    rule: Option<String>,
    outcome: &'static str,
    problem: Option<String>,
    identity: Option<String>,
    tenant: Option<TenantId>,
    scopes: Scopes,
    rules: Vec<ExplainedRule>,
    lines: Vec<String>,
    #[serde(skip)]
    denial: Option<DenialReason>,
}

/// The comparison of a token with one rule (feature `trust`), in an [`Explanation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedRule {
    /// The name of the rule.
    pub name: String,
    /// Whether all conditions of the rule hold.
    pub matches: bool,
    /// The first condition that does not hold. It quotes the policy and the claim.
    pub problem: Option<String>,
}

impl Explanation {
    /// Returns whether signature, audience and times of the token are valid. Otherwise anyone can have written its
    /// claims.
    pub fn is_verified(&self) -> bool {
        self.is_verified
    }

    /// Returns the trust of the token.
    pub fn trust(&self) -> Option<&str> {
        self.trust.as_deref()
    }

    /// Returns the matching rule, if exactly one matches.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    /// Returns the comparison with each rule of the trust, in the order of the policy. Empty if the rules were not
    /// reached, for example because the token has expired.
    pub fn rules(&self) -> &[ExplainedRule] {
        &self.rules
    }

    /// Returns the identity that the workload gets, or would get in enforce mode.
    pub fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// Returns the tenant of the [identity](Self::identity).
    pub fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    /// Returns the scopes that the matching rule permits. Empty if there is no identity.
    pub fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// Returns the reason why the token would be denied, or `None` if it would be granted. Earlier
    /// use and requested scopes are not considered.
    pub fn denial(&self) -> Option<&DenialReason> {
        self.denial.as_ref()
    }

    pub(super) fn of(verification: Verification<'_>) -> Self {
        let mut explanation = Self {
            is_verified: verification.workload.is_some(),
            trust: None,
            rule: None,
            outcome: "granted",
            problem: None,
            identity: None,
            tenant: None,
            scopes: Scopes::new(),
            rules: Vec::new(),
            lines: Vec::new(),
            denial: None,
        };
        let denial = match (verification.claims(), verification.trust) {
            (Some(claims), Some(trust)) => explanation.add_rules(&verification, trust, claims),
            (Some(claims), None) => {
                for name in ["iss", "sub", "aud"] {
                    let claim = quote(claims.get(name));
                    explanation.add(format!("the token's `{name}` is {claim}"));
                }
                verification.identity.err()
            }
            (None, _) => verification.identity.err(),
        };
        explanation.add(match &denial {
            Some(reason) => format!("denied: {reason}"),
            None => "granted".to_owned(),
        });
        let outcome = denial.as_ref().map_or("granted", DenialReason::as_str);
        let problem = denial.as_ref().map(ToString::to_string);
        Self { outcome, problem, denial, ..explanation }
    }

    /// Adds the result of each rule, and returns the reason for denying the token.
    fn add_rules(
        &mut self,
        verification: &Verification<'_>,
        trust: &Trust,
        claims: Value<'_>,
    ) -> Option<DenialReason> {
        self.trust = Some(trust.id.clone());
        let verified = match (self.is_verified, verification.compiled) {
            (true, _) => "the token's signature, audience and times are valid",
            (false, Some(_)) => "the token was not verified",
            (false, None) => "claims without a token: signature and times were not checked",
        };
        self.add(format!("trust `{}`: {verified}", trust.id));
        for (grant, rule) in trust.grants.iter().zip(&verification.rules) {
            let problem = rule.as_ref().err().map(|mismatch| grant.describe(mismatch, claims));
            let outcome = match &problem {
                None => "matches".to_owned(),
                Some(problem) => format!("does not match: {problem}"),
            };
            self.add(format!("rule `{}`: {outcome}", grant.name));
            let (name, matches) = (grant.name.clone(), problem.is_none());
            self.rules.push(ExplainedRule { name, matches, problem });
        }
        if trust.grants.is_empty() {
            self.add(format!("trust `{}` has no rule: it grants nothing", trust.id));
        }
        self.rule = verification.grant().map(|grant| grant.name.clone());
        if let (Ok(identity), Some(grant)) = (&verification.identity, verification.grant()) {
            let (tenant, scopes) = (&grant.map.tenant, &grant.map.scopes);
            self.add(format!(
                "the workload becomes `{identity}` in tenant `{tenant}`; permitted scopes: {scopes}"
            ));
            self.identity = Some(identity.clone());
            self.tenant = Some(tenant.clone());
            self.scopes = scopes.clone();
        }
        if trust.single_use_jti {
            self.add("earlier use of the token was not checked".to_owned());
        }
        let no_jti = trust.single_use_jti && verification.jti().is_none();
        let no_jti = no_jti.then_some(DenialReason::NoJti);
        let in_audit = (trust.mode == Mode::Audit).then_some(DenialReason::AuditMode);
        verification.identity.clone().err().or(no_jti).or(in_audit)
    }

    fn add(&mut self, line: String) {
        self.lines.push(line);
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}
