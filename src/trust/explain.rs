//! [`Explanation`]: the reasons for granting or denying a token, for administrators.

use std::fmt;

use super::outcome::DenialReason;
use super::policy::{Mode, Trust};
use super::rule::quote;
use super::verification::Verification;
use crate::support::json::Value;

/// An explanation of a decision about a foreign token (feature `trust`): the trust, the matching
/// rule, and the reasons why other rules do not match.
///
/// `Display` writes the explanation. It quotes the policy and claims of the token, escaped and
/// shortened, so show it to administrators only. It contains neither the token nor its signature.
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
#[derive(Debug, Clone)]
pub struct Explanation {
    trust: Option<String>,
    grant: Option<String>,
    denial: Option<DenialReason>,
    lines: Vec<String>,
}

impl Explanation {
    /// Returns the trust of the token.
    pub fn trust(&self) -> Option<&str> {
        self.trust.as_deref()
    }

    /// Returns the matching rule, if exactly one matches.
    pub fn grant(&self) -> Option<&str> {
        self.grant.as_deref()
    }

    /// Returns the reason why the token would be denied, or `None` if it would be granted. Earlier
    /// use and requested scopes are not considered.
    pub fn denial(&self) -> Option<&DenialReason> {
        self.denial.as_ref()
    }

    pub(super) fn of(verification: Verification) -> Self {
        let mut explanation = Self { trust: None, grant: None, denial: None, lines: Vec::new() };
        let denial = match (verification.claims(), verification.trust()) {
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
        Self { denial, ..explanation }
    }

    /// Adds the result of each rule, and returns the reason for denying the token.
    fn add_rules(
        &mut self,
        verification: &Verification,
        trust: &Trust,
        claims: Value<'_>,
    ) -> Option<DenialReason> {
        self.trust = Some(trust.id.clone());
        let verified = match verification.workload {
            Some(_) => "the token's signature, audience and times are valid",
            None => "the token was not verified",
        };
        self.add(format!("trust `{}`: {verified}", trust.id));
        for (grant, rule) in trust.grants.iter().zip(&verification.rules) {
            let outcome = match rule {
                Ok(()) => "matches".to_owned(),
                Err(mismatch) => format!("does not match: {}", grant.describe(mismatch, claims)),
            };
            self.add(format!("rule `{}`: {outcome}", grant.name));
        }
        if trust.grants.is_empty() {
            self.add(format!("trust `{}` has no rule: it grants nothing", trust.id));
        }
        if let (Ok(identity), Some(grant)) = (&verification.identity, verification.grant()) {
            let (tenant, scopes) = (&grant.map.tenant, &grant.map.scopes);
            self.grant = Some(grant.name.clone());
            self.add(format!(
                "the workload becomes `{identity}` in tenant `{tenant}`; permitted scopes: {scopes}"
            ));
        }
        if trust.single_use_jti {
            self.add("earlier use of the token was not checked".to_owned());
        }
        let in_audit = (trust.mode == Mode::Audit).then_some(DenialReason::AuditMode);
        verification.identity.clone().err().or(in_audit)
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
