//! [`Explanation`]: why a token is believed or not, in words for administrators.

use std::fmt;

use super::judge::Findings;
use super::outcome::DenialReason;
use super::policy::Mode;
use super::rule::quote;
use crate::json::Value;

/// Which trust and which rule a token leads to, and why the others do not match.
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

    pub(super) fn unreadable(reason: DenialReason) -> Self {
        let mut explanation = Self { trust: None, grant: None, refusal: None, lines: Vec::new() };
        explanation.conclude(Some(reason));
        explanation
    }

    pub(super) fn of(findings: Findings, claims: Value<'_>) -> Self {
        let mut explanation = Self { trust: None, grant: None, refusal: None, lines: Vec::new() };
        let Some(opened) = &findings.trust else {
            explanation.say(format!("the token says it is from {}", quote(claims.get("iss"))));
            explanation.say(format!("the token says it is for {}", quote(claims.get("aud"))));
            explanation.conclude(findings.verdict.err());
            return explanation;
        };
        let trust = &opened.trust;
        explanation.trust = Some(trust.id.clone());
        let verified = match findings.identity {
            Some(_) => "its signature, audience and times hold",
            None => "it was not verified",
        };
        explanation.say(format!("trust `{}`: {verified}", trust.id));
        for (grant, rule) in trust.grants.iter().zip(&findings.rules) {
            explanation.say(match rule {
                Ok(()) => format!("rule `{}`: matches", grant.name),
                Err(mismatch) => {
                    let why = grant.describe(mismatch, claims);
                    format!("rule `{}`: does not match: {why}", grant.name)
                }
            });
        }
        if trust.grants.is_empty() {
            explanation.say(format!("trust `{}` has no rule: it grants nothing", trust.id));
        }
        let grant = findings.verdict.as_ref().ok().and_then(|nth| trust.grants.get(*nth));
        let filled = grant.map(|grant| (grant, grant.map.identity.fill(&trust.id, claims)));
        let refusal = match (filled, trust.mode) {
            (None, _) => findings.verdict.err(),
            (Some((_, None)), _) => Some(DenialReason::Identity),
            (Some((grant, Some(identity))), mode) => {
                let (tenant, scopes) = (&grant.map.tenant, &grant.map.scopes);
                explanation.grant = Some(grant.name.clone());
                explanation.say(format!(
                    "it becomes `{identity}` in tenant `{tenant}`, with at most: {scopes}"
                ));
                (mode == Mode::Audit).then_some(DenialReason::AuditMode)
            }
        };
        if trust.single_use_jti {
            explanation.say("whether it was used before was not looked at".to_owned());
        }
        explanation.conclude(refusal);
        explanation
    }

    fn say(&mut self, line: String) {
        self.lines.push(line);
    }

    fn conclude(&mut self, refusal: Option<DenialReason>) {
        self.say(match &refusal {
            Some(reason) => format!("denied: {reason}"),
            None => "granted".to_owned(),
        });
        self.refusal = refusal;
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}
