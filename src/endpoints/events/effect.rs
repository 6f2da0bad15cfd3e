//! [`Effect`]: what an event means for tokens.

use serde_json::Value;

use super::subject::Subject;
use crate::revocation::Revocation;

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";

const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";

/// The event types that metrics name.
const KINDS: [(&str, &[&str]); 3] = [
    (
        CAEP,
        &[
            "session-revoked",
            "token-claims-change",
            "credential-change",
            "assurance-level-change",
            "device-compliance-change",
            "session-established",
            "session-presented",
            "risk-level-change",
        ],
    ),
    (
        RISC,
        &[
            "account-credential-change-required",
            "account-purged",
            "account-disabled",
            "account-enabled",
            "identifier-changed",
            "identifier-recycled",
            "credential-compromise",
            "opt-in",
            "opt-out-initiated",
            "opt-out-cancelled",
            "opt-out-effective",
            "recovery-activated",
            "recovery-information-changed",
            "sessions-revoked",
        ],
    ),
    (SSF, &["verification", "stream-updated"]),
];

/// Returns the name of an event type in metrics.
pub(super) fn kind_of(event_type: &str) -> &'static str {
    let found = KINDS.iter().find_map(|(prefix, names)| {
        let name = event_type.strip_prefix(prefix)?;
        names.iter().find(|it| **it == name)
    });
    found.copied().unwrap_or("other")
}

/// The effect of an event on the tokens of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The session ends, or all sessions of the user or tenant.
    EndSession,
    /// All tokens of the user, or of the session, are refused that were issued before.
    EndTokens,
    None,
}

impl Effect {
    pub(super) fn of(event_type: &str, payload: &Value) -> Self {
        let is = |name: &str, values: &[&str]| {
            payload.get(name).and_then(Value::as_str).is_some_and(|value| values.contains(&value))
        };
        if let Some(name) = event_type.strip_prefix(CAEP) {
            return match name {
                "session-revoked" => Self::EndSession,
                "token-claims-change" => Self::EndTokens,
                "credential-change" if is("change_type", &["revoke", "delete"]) => Self::EndTokens,
                "assurance-level-change" if is("change_direction", &["decrease"]) => {
                    Self::EndTokens
                }
                _ => Self::None,
            };
        }
        match event_type.strip_prefix(RISC) {
            Some("account-disabled" | "account-purged" | "sessions-revoked") => Self::EndTokens,
            _ => Self::None,
        }
    }

    /// Returns the revocations for a subject; none if no token can have it.
    pub(super) fn revocations(self, issuer: &str, subject: &Subject<'_>) -> Vec<Revocation> {
        let Subject { user, session, either, tenant, token } = subject;
        if let (Some(token), true) = (token, self != Self::None) {
            return vec![Revocation::token(issuer, *token)];
        }
        let all_of = |user: &str| {
            let all = Revocation::subject(issuer, user);
            match tenant {
                Some(tenant) => all.in_tenant(tenant.clone()),
                None => all,
            }
        };
        match (self, session, user, either, tenant) {
            (Self::None, ..) => Vec::new(),
            (Self::EndTokens, _, Some(user), ..) => vec![all_of(user)],
            (Self::EndSession, Some(session), Some(user), ..) => {
                vec![Revocation::session(issuer, *session).of_subject(*user)]
            }
            (Self::EndSession, Some(session), None, ..) => {
                vec![Revocation::session(issuer, *session)]
            }
            // The session goes on, with new tokens.
            (Self::EndTokens, Some(session), None, ..) => {
                vec![Revocation::tokens_of_session(issuer, *session)]
            }
            (Self::EndSession, None, Some(user), ..) => vec![all_of(user)],
            // CAEP §3.1 uses such an id for a session, and transmitters for users, too.
            (Self::EndSession, None, None, Some(id), _) => {
                vec![Revocation::session(issuer, *id), all_of(id)]
            }
            (Self::EndTokens, None, None, Some(id), _) => vec![all_of(id)],
            (Self::EndSession, None, None, None, Some(tenant)) => {
                vec![Revocation::tenant(issuer, tenant.clone())]
            }
            (_, None, None, None, _) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_have_their_effects() {
        use Effect::{EndSession, EndTokens, None};
        let caep = |name: &str| format!("{CAEP}{name}");
        let risc = |name: &str| format!("{RISC}{name}");
        for (event_type, payload, effect) in [
            (caep("session-revoked"), json!({}), EndSession),
            (caep("token-claims-change"), json!({ "claims": { "role": "x" } }), EndTokens),
            (caep("credential-change"), json!({ "change_type": "revoke" }), EndTokens),
            (caep("credential-change"), json!({ "change_type": "delete" }), EndTokens),
            (caep("credential-change"), json!({ "change_type": "create" }), None),
            (caep("credential-change"), json!({ "change_type": ["revoke"] }), None),
            (caep("credential-change"), json!({}), None),
            (caep("assurance-level-change"), json!({ "change_direction": "decrease" }), EndTokens),
            (caep("assurance-level-change"), json!({ "change_direction": "increase" }), None),
            (caep("device-compliance-change"), json!({ "current_status": "x" }), None),
            (caep("session-established"), json!({}), None),
            (caep("session-revoked/x"), json!({}), None),
            (risc("account-disabled"), json!({ "reason": "hijacking" }), EndTokens),
            (risc("account-purged"), json!({}), EndTokens),
            (risc("sessions-revoked"), json!({}), EndTokens),
            (risc("account-enabled"), json!({}), None),
            (risc("session-revoked"), json!({}), None),
            (
                "https://schemas.openid.net/secevent/ssf/event-type/verification".to_owned(),
                json!({ "state": "x" }),
                None,
            ),
            ("session-revoked".to_owned(), json!({}), None),
            (String::new(), json!({}), None),
        ] {
            assert_eq!(Effect::of(&event_type, &payload), effect, "{event_type} {payload}");
        }
    }

    #[test]
    fn kinds_are_bounded() {
        for (event_type, kind) in [
            (format!("{CAEP}session-revoked"), "session-revoked"),
            (format!("{RISC}sessions-revoked"), "sessions-revoked"),
            (format!("{SSF}verification"), "verification"),
            (format!("{RISC}session-revoked"), "other"),
            (format!("{CAEP}invented"), "other"),
            ("session-revoked".to_owned(), "other"),
            (String::new(), "other"),
        ] {
            assert_eq!(kind_of(&event_type), kind, "{event_type}");
        }
    }

    #[test]
    fn subjects_are_revoked_as_named() {
        let tenant = || "acme".parse::<crate::TenantId>().unwrap();
        let user = Subject { user: Some("alice"), ..Subject::default() };
        let session = Subject { session: Some("17"), ..Subject::default() };
        let both = Subject { session: Some("17"), ..user.clone() };
        let in_tenant = Subject { tenant: Some(tenant()), ..user.clone() };
        let only_tenant = Subject { tenant: Some(tenant()), ..Subject::default() };
        let either = Subject { either: Some("x"), ..Subject::default() };
        let token = Subject { token: Some("7"), ..user.clone() };
        let of_7 = || Revocation::token("i", "7");
        let of_17 = || Revocation::session("i", "17");
        let alice = || Revocation::subject("i", "alice");
        let x = || Revocation::subject("i", "x");
        for (subject, on_session, on_tokens) in [
            (&user, vec![alice()], vec![alice()]),
            (&session, vec![of_17()], vec![Revocation::tokens_of_session("i", "17")]),
            (&both, vec![of_17().of_subject("alice")], vec![alice()]),
            (&in_tenant, vec![alice().in_tenant(tenant())], vec![alice().in_tenant(tenant())]),
            (&only_tenant, vec![Revocation::tenant("i", tenant())], vec![]),
            (&either, vec![Revocation::session("i", "x"), x()], vec![x()]),
            (&token, vec![of_7()], vec![of_7()]),
            (&Subject::default(), vec![], vec![]),
        ] {
            assert_eq!(Effect::EndSession.revocations("i", subject), on_session, "{subject:?}");
            assert_eq!(Effect::EndTokens.revocations("i", subject), on_tokens, "{subject:?}");
            assert_eq!(Effect::None.revocations("i", subject), vec![], "{subject:?}");
        }
    }
}
