//! [`Explanation`]: why a token is believed or not, in words for administrators.

use std::fmt;

use super::outcome::DenialReason;
use super::policy::{Mode, Trust};
use super::rule::quote;
use super::verification::Verification;
use crate::support::json::Value;

/// Which trust and which rule a token leads to, and why the others do not match (feature `trust`).
///
/// `Display` is the text to show. It quotes the policy, and claims of the token, escaped and cut:
/// show it to administrators only. There is neither the token nor its signature in it.
#[derive(Debug, Clone)]
pub struct Explanation {
    trust: Option<String>,
    grant: Option<String>,
    refusal: Option<DenialReason>,
    lines: Vec<String>,
}

impl Explanation {
    /// The trust the token leads to.
    pub fn trust(&self) -> Option<&str> {
        self.trust.as_deref()
    }

    /// The rule that matches, if exactly one does.
    pub fn grant(&self) -> Option<&str> {
        self.grant.as_deref()
    }

    /// Why the token would be denied; `None` if it would not, apart from scopes and earlier use.
    pub fn refusal(&self) -> Option<&DenialReason> {
        self.refusal.as_ref()
    }

    pub(super) fn of(found: Verification) -> Self {
        let mut explanation = Self { trust: None, grant: None, refusal: None, lines: Vec::new() };
        let refusal = match (found.claims(), found.trust()) {
            (Some(claims), Some(trust)) => explanation.go_through(&found, trust, claims),
            (Some(claims), None) => {
                let [from, to] = ["iss", "aud"].map(|name| quote(claims.get(name)));
                explanation.say(format!("the token says it is from {from}"));
                explanation.say(format!("the token says it is for {to}"));
                found.verdict.err()
            }
            (None, _) => found.verdict.err(),
        };
        explanation.say(match &refusal {
            Some(reason) => format!("denied: {reason}"),
            None => "granted".to_owned(),
        });
        Self { refusal, ..explanation }
    }

    /// Says what each rule makes of the token, and returns why it is denied.
    fn go_through(
        &mut self,
        found: &Verification,
        trust: &Trust,
        claims: Value<'_>,
    ) -> Option<DenialReason> {
        self.trust = Some(trust.id.clone());
        let verified = match found.workload {
            Some(_) => "its signature, audience and times hold",
            None => "it was not verified",
        };
        self.say(format!("trust `{}`: {verified}", trust.id));
        for (grant, rule) in trust.grants.iter().zip(&found.rules) {
            let outcome = match rule {
                Ok(()) => "matches".to_owned(),
                Err(mismatch) => format!("does not match: {}", grant.describe(mismatch, claims)),
            };
            self.say(format!("rule `{}`: {outcome}", grant.name));
        }
        if trust.grants.is_empty() {
            self.say(format!("trust `{}` has no rule: it grants nothing", trust.id));
        }
        if let (Ok(identity), Some(grant)) = (&found.verdict, found.grant()) {
            let (tenant, scopes) = (&grant.map.tenant, &grant.map.scopes);
            self.grant = Some(grant.name.clone());
            self.say(format!(
                "it becomes `{identity}` in tenant `{tenant}`, with at most: {scopes}"
            ));
        }
        if trust.single_use_jti {
            self.say("whether it was used before was not looked at".to_owned());
        }
        let in_audit = (trust.mode == Mode::Audit).then_some(DenialReason::AuditMode);
        found.verdict.clone().err().or(in_audit)
    }

    fn say(&mut self, line: String) {
        self.lines.push(line);
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}
