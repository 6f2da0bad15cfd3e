//! [`Subject`]: the user, session and tenant that an event is about (RFC 9493; SSF 1.0, complex subjects).

use serde_json::Value;

use crate::identity::TenantId;

/// The most identifiers that `aliases` may have.
const MAX_ALIASES: usize = 16;

/// The parts of a subject that tokens of the issuer can have. A subject of any other format has none: an e-mail
/// address or a telephone number is no identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Subject<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) session: Option<&'a str>,
    pub(super) tenant: Option<TenantId>,
    /// The id of a user or a session: the format does not tell.
    pub(super) either: Option<&'a str>,
    /// The id of a token (`jti`).
    pub(super) token: Option<&'a str>,
}

/// An id in a subject that is not complex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Id<'a> {
    User(&'a str),
    Opaque(&'a str),
    Token(&'a str),
}

/// The reason why a subject is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubjectFault {
    Malformed,
    /// It belongs to another issuer or tenant, about which this issuer has no say.
    Foreign,
}

impl<'a> Subject<'a> {
    /// Reads the subject of an event of `issuer`, which may belong to a tenant. Returns all that it names: `aliases`
    /// names several, and a subject that resolves to nothing names none.
    pub(super) fn read(
        subject: &'a Value,
        issuer: &str,
        own_tenant: Option<&TenantId>,
    ) -> Result<Vec<Self>, SubjectFault> {
        match &*format(subject)? {
            // Drafts of the framework have no format for complex subjects.
            "complex" | "" => Self::read_complex(subject, issuer, own_tenant),
            _ => Ok(ids(subject, issuer)?.into_iter().map(Self::simple).collect()),
        }
    }

    fn simple(id: Id<'a>) -> Self {
        match id {
            Id::User(id) => Self { user: Some(id), ..Self::default() },
            Id::Opaque(id) => Self { either: Some(id), ..Self::default() },
            Id::Token(id) => Self { token: Some(id), ..Self::default() },
        }
    }

    /// Reads a complex subject (SSF 1.0), which means what all its parts have in common.
    fn read_complex(
        subject: &'a Value,
        issuer: &str,
        own_tenant: Option<&TenantId>,
    ) -> Result<Vec<Self>, SubjectFault> {
        let parts = |name: &str| subject.get(name).map_or(Ok(Vec::new()), |it| ids(it, issuer));
        let (users, sessions) = (parts("user")?, parts("session")?);
        let tenant = match parts("tenant")?.first() {
            Some(Id::User(id) | Id::Opaque(id)) => Some(id.parse::<TenantId>()),
            Some(Id::Token(_)) | None => None,
        };
        let tenant = tenant.transpose().map_err(|_| SubjectFault::Malformed)?;
        if own_tenant.is_some_and(|own| tenant.as_ref().is_some_and(|it| it != own)) {
            return Err(SubjectFault::Foreign);
        }
        let mut found = Vec::new();
        for session in optional(&sessions) {
            for user in optional(&users) {
                let mut one = Self { tenant: tenant.clone(), ..Self::default() };
                match session {
                    Some(Id::User(id) | Id::Opaque(id)) => one.session = Some(id),
                    Some(Id::Token(id)) => one.token = Some(id),
                    None => {}
                }
                match user {
                    Some(Id::User(id) | Id::Opaque(id)) => one.user = Some(id),
                    Some(Id::Token(id)) => one.token = Some(id),
                    None => {}
                }
                found.push(one);
            }
        }
        // A part that does not resolve, such as a user with an e-mail address, does not mean the whole tenant.
        let names_only = |names: &[&str]| {
            let mut members = subject.as_object().into_iter().flatten();
            members.all(|(name, _)| names.contains(&name.as_str()))
        };
        if users.is_empty()
            && sessions.is_empty()
            && !names_only(&["format", "subject_type", "tenant"])
        {
            found.clear();
        }
        found.retain(|it| *it != Self::default());
        Ok(found)
    }
}

/// Returns each id, or `None` if there is no id.
fn optional<'i, 'a>(ids: &'i [Id<'a>]) -> impl Iterator<Item = Option<Id<'a>>> + use<'i, 'a> {
    let none = ids.is_empty().then_some(None);
    ids.iter().map(|id| Some(*id)).chain(none)
}

/// Returns the format. Drafts call it `subject_type`, and write `iss-sub`.
fn format(subject: &Value) -> Result<String, SubjectFault> {
    if !subject.is_object() {
        return Err(SubjectFault::Malformed);
    }
    let Some(format) = subject.get("format").or_else(|| subject.get("subject_type")) else {
        return Ok(String::new());
    };
    let format = format.as_str().filter(|format| !format.is_empty());
    Ok(format.ok_or(SubjectFault::Malformed)?.replace('-', "_"))
}

/// Returns the ids in a subject that is not complex.
fn ids<'a>(subject: &'a Value, issuer: &str) -> Result<Vec<Id<'a>>, SubjectFault> {
    if format(subject)? != "aliases" {
        return Ok(id(subject, issuer)?.into_iter().collect());
    }
    let aliases = subject.get("identifiers").and_then(Value::as_array);
    let aliases = aliases.filter(|it| (1..=MAX_ALIASES).contains(&it.len()));
    let mut ids = Vec::new();
    for alias in aliases.ok_or(SubjectFault::Malformed)? {
        match id(alias, issuer) {
            Ok(id) => ids.extend(id),
            // Another issuer's name for the same user.
            Err(SubjectFault::Foreign) => {}
            Err(SubjectFault::Malformed) => return Err(SubjectFault::Malformed),
        }
    }
    Ok(ids)
}

/// Returns the id in a subject, if its format is one of ids.
fn id<'a>(subject: &'a Value, issuer: &str) -> Result<Option<Id<'a>>, SubjectFault> {
    let text = |name: &str| {
        let text = subject.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or(SubjectFault::Malformed)
    };
    match &*format(subject)? {
        "iss_sub" | "jwt_id" if text("iss")? != issuer => Err(SubjectFault::Foreign),
        "iss_sub" => text("sub").map(|id| Some(Id::User(id))),
        "jwt_id" => text("jti").map(|id| Some(Id::Token(id))),
        "opaque" => text("id").map(|id| Some(Id::Opaque(id))),
        // RFC 9493 §3.2.8: aliases are not nested.
        "aliases" => Err(SubjectFault::Malformed),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn subjects_of_all_formats_are_read() {
        let none = Subject::default();
        let alice = Subject { user: Some("alice"), ..none.clone() };
        let x = Subject { either: Some("x"), ..none.clone() };
        let token = Subject { token: Some("7"), ..none.clone() };
        let iss_sub = json!({ "format": "iss_sub", "iss": "i", "sub": "alice" });
        let jwt_id = json!({ "format": "jwt_id", "iss": "i", "jti": "7" });
        let foreign = json!({ "format": "iss_sub", "iss": "j", "sub": "alice" });
        let email = json!({ "format": "email", "email": "alice@example.com" });
        let opaque = |id: &str| json!({ "format": "opaque", "id": id });
        let aliases = |of: &[&Value]| json!({ "format": "aliases", "identifiers": of });
        let tenant = Some("acme".parse().unwrap());
        let all = Subject { session: Some("17"), tenant: tenant.clone(), ..alice.clone() };
        let of_session = |id| Subject { session: Some(id), ..alice.clone() };
        let only_tenant = Subject { tenant, ..none.clone() };
        for (subject, expected) in [
            (iss_sub.clone(), vec![alice.clone()]),
            (json!({ "subject_type": "iss-sub", "iss": "i", "sub": "alice" }), vec![alice.clone()]),
            (json!({ "subject_type": "iss_sub", "iss": "i", "sub": "alice" }), vec![alice.clone()]),
            (opaque("x"), vec![x.clone()]),
            (jwt_id.clone(), vec![token.clone()]),
            (email.clone(), vec![]),
            (json!({ "format": "phone_number", "phone_number": "+1206" }), vec![]),
            (json!({ "format": "account", "uri": "acct:alice@example.com" }), vec![]),
            (json!({ "format": "did", "url": "did:example:1" }), vec![]),
            (aliases(&[&email, &iss_sub]), vec![alice.clone()]),
            (aliases(&[&opaque("x"), &jwt_id, &iss_sub]), vec![x, token.clone(), alice.clone()]),
            (aliases(&[&foreign, &email]), vec![]),
            (json!({ "format": "complex", "user": iss_sub }), vec![alice.clone()]),
            (json!({ "user": opaque("alice") }), vec![alice.clone()]),
            (json!({ "user": aliases(&[&email, &iss_sub]) }), vec![alice.clone()]),
            (json!({ "session": jwt_id }), vec![token]),
            (
                json!({ "user": iss_sub, "session": aliases(&[&opaque("1"), &opaque("2")]) }),
                vec![of_session("1"), of_session("2")],
            ),
            (
                json!({ "format": "complex", "user": iss_sub, "session": opaque("17"),
                        "tenant": opaque("acme"), "device": opaque("d") }),
                vec![all],
            ),
            (json!({ "tenant": opaque("acme") }), vec![only_tenant]),
            // These are a part of the tenant, which no token names.
            (json!({ "tenant": opaque("acme"), "user": email }), vec![]),
            (json!({ "tenant": opaque("acme"), "group": opaque("g") }), vec![]),
            (json!({ "format": "complex", "user": email }), vec![]),
            (json!({ "format": "complex", "device": opaque("d") }), vec![]),
            (json!({}), vec![]),
        ] {
            assert_eq!(Subject::read(&subject, "i", None), Ok(expected), "{subject}");
        }
    }

    #[test]
    fn malformed_and_foreign_subjects_are_refused() {
        use SubjectFault::{Foreign, Malformed};
        let foreign = json!({ "format": "iss_sub", "iss": "j", "sub": "alice" });
        let tenant = json!({ "format": "opaque", "id": "globex" });
        for (subject, fault) in [
            (json!("alice"), Malformed),
            (json!(["alice"]), Malformed),
            (json!({ "format": "" }), Malformed),
            (json!({ "format": 7 }), Malformed),
            (json!({ "format": "iss_sub", "iss": "i" }), Malformed),
            (json!({ "format": "iss_sub", "iss": "i", "sub": "" }), Malformed),
            (json!({ "format": "iss_sub", "iss": "i", "sub": 7 }), Malformed),
            (json!({ "format": "iss_sub", "sub": "alice" }), Malformed),
            (json!({ "format": "opaque" }), Malformed),
            (json!({ "format": "opaque", "id": "" }), Malformed),
            (json!({ "format": "complex", "user": "alice" }), Malformed),
            (json!({ "format": "jwt_id", "iss": "i" }), Malformed),
            (json!({ "format": "jwt_id", "iss": "i", "jti": "" }), Malformed),
            (json!({ "format": "jwt_id", "iss": "j", "jti": "7" }), Foreign),
            (json!({ "format": "aliases" }), Malformed),
            (json!({ "format": "aliases", "identifiers": [] }), Malformed),
            (json!({ "format": "aliases", "identifiers": vec![&foreign; 17] }), Malformed),
            (json!({ "format": "aliases", "identifiers": [{ "format": "aliases" }] }), Malformed),
            (
                json!({ "format": "complex", "tenant": { "format": "opaque", "id": "a\nb" } }),
                Malformed,
            ),
            (foreign.clone(), Foreign),
            (json!({ "format": "complex", "user": foreign }), Foreign),
            (json!({ "format": "complex", "tenant": tenant }), Foreign),
        ] {
            let own = "acme".parse().unwrap();
            assert_eq!(Subject::read(&subject, "i", Some(&own)), Err(fault), "{subject}");
        }
    }
}
