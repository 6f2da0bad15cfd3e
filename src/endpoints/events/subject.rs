//! [`Subject`]: the user, session and tenant that an event is about (RFC 9493; SSF 1.0, complex subjects).

use serde_json::Value;

use crate::identity::TenantId;

/// The parts of a subject that tokens of the issuer can have. A subject of any other format has none: an e-mail
/// address or a telephone number is no identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Subject<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) session: Option<&'a str>,
    pub(super) tenant: Option<TenantId>,
    /// The id of a user or a session: the format does not tell.
    pub(super) either: Option<&'a str>,
}

/// The reason why a subject is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubjectFault {
    Malformed,
    /// It belongs to another issuer or tenant, about which this issuer has no say.
    Foreign,
}

impl<'a> Subject<'a> {
    /// Reads the subject of an event of `issuer`, which may belong to a tenant.
    pub(super) fn read(
        subject: &'a Value,
        issuer: &str,
        own_tenant: Option<&TenantId>,
    ) -> Result<Self, SubjectFault> {
        if !subject.is_object() {
            return Err(SubjectFault::Malformed);
        }
        let id = |part: &str| match subject.get(part) {
            Some(part) => simple(part, issuer),
            None => Ok(None),
        };
        match &*format(subject)? {
            "opaque" => Ok(Self { either: simple(subject, issuer)?, ..Self::default() }),
            // Drafts of the framework have no format for complex subjects.
            "complex" | "" => {
                let tenant = id("tenant")?.map(str::parse).transpose();
                let tenant: Option<TenantId> = tenant.map_err(|_| SubjectFault::Malformed)?;
                if own_tenant.is_some_and(|own| tenant.as_ref().is_some_and(|it| it != own)) {
                    return Err(SubjectFault::Foreign);
                }
                Ok(Self { user: id("user")?, session: id("session")?, tenant, either: None })
            }
            _ => Ok(Self { user: simple(subject, issuer)?, ..Self::default() }),
        }
    }
}

/// Returns the format. Drafts call it `subject_type`, and write `iss-sub`.
fn format(subject: &Value) -> Result<String, SubjectFault> {
    let Some(format) = subject.get("format").or_else(|| subject.get("subject_type")) else {
        return Ok(String::new());
    };
    let format = format.as_str().filter(|format| !format.is_empty());
    Ok(format.ok_or(SubjectFault::Malformed)?.replace('-', "_"))
}

/// Returns the id in a subject that is not complex, if its format is one of ids.
fn simple<'a>(subject: &'a Value, issuer: &str) -> Result<Option<&'a str>, SubjectFault> {
    let text = |name: &str| {
        let text = subject.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or(SubjectFault::Malformed)
    };
    if !subject.is_object() {
        return Err(SubjectFault::Malformed);
    }
    match &*format(subject)? {
        "iss_sub" if text("iss")? != issuer => Err(SubjectFault::Foreign),
        "iss_sub" => text("sub").map(Some),
        "opaque" => text("id").map(Some),
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
        let iss_sub = json!({ "format": "iss_sub", "iss": "i", "sub": "alice" });
        let opaque = |id: &str| json!({ "format": "opaque", "id": id });
        let tenant = Some("acme".parse().unwrap());
        let all = Subject { session: Some("17"), tenant, ..alice.clone() };
        for (subject, expected) in [
            (iss_sub.clone(), alice.clone()),
            (json!({ "subject_type": "iss-sub", "iss": "i", "sub": "alice" }), alice.clone()),
            (json!({ "subject_type": "iss_sub", "iss": "i", "sub": "alice" }), alice.clone()),
            (opaque("x"), Subject { either: Some("x"), ..none.clone() }),
            (json!({ "format": "email", "email": "alice@example.com" }), none.clone()),
            (json!({ "format": "phone_number", "phone_number": "+1206" }), none.clone()),
            (json!({ "format": "aliases", "identifiers": [iss_sub] }), none.clone()),
            (json!({ "format": "complex", "user": iss_sub }), alice.clone()),
            (json!({ "user": opaque("alice") }), alice),
            (
                json!({ "format": "complex", "user": iss_sub, "session": opaque("17"),
                        "tenant": opaque("acme"), "device": opaque("d") }),
                all,
            ),
            (
                json!({ "format": "complex", "user": { "format": "email", "email": "a@b.c" } }),
                none.clone(),
            ),
            (json!({ "format": "complex", "device": opaque("d") }), none.clone()),
            (json!({}), none),
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
