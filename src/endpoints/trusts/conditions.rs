//! Conditional requests (RFC 9110 §13.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::problem::Problem;
use crate::trust::PolicyVersionId;

/// The version that a change expects to be in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// This version, or `None` for an empty store.
    Version(Option<PolicyVersionId>),
    /// A tag that no version has.
    Never,
}

impl Expected {
    /// Reads the condition of a change: `If-Match` with the tag of the version that the administrator has seen, or
    /// `If-None-Match: *` for the first version. `If-Match: *` is no condition for this purpose: it would overwrite
    /// the change of another administrator.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Self::or(headers, FIRST_OR_NEXT)
    }

    /// Reads the condition of a change of a policy that exists.
    pub(super) fn of_next(headers: &HeaderMap) -> Result<Self, Problem> {
        Self::or(headers, NEXT)
    }

    fn or(headers: &HeaderMap, missing: &'static str) -> Result<Self, Problem> {
        let one = |name: HeaderName| {
            let mut values = headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (None, _) => Ok(None),
                (Some(value), None) => Ok(value.to_str().ok().map(str::trim)),
                (Some(_), Some(_)) => Err(ONE_TAG),
            }
        };
        match (one(header::IF_MATCH)?, one(header::IF_NONE_MATCH)?) {
            (Some(tag), None) => Self::of_tag(tag),
            (None, Some("*")) => Ok(Self::Version(None)),
            (None, None) if headers.contains_key(header::IF_MATCH) => Err(ONE_TAG),
            (None, None) => Err(Problem::new(428, "precondition_required", missing)),
            (Some(_), Some(_)) | (None, Some(_)) => Err(ONE_TAG),
        }
    }

    fn of_tag(tag: &str) -> Result<Self, Problem> {
        let (is_weak, quoted) = match tag.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, tag),
        };
        let opaque = quoted.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
        let opaque = opaque.filter(|it| !it.contains('"')).ok_or(ONE_TAG)?;
        // A weak tag never matches (RFC 9110 §13.1.1).
        Ok(match opaque.parse() {
            Ok(id) if !is_weak => Self::Version(Some(id)),
            _ => Self::Never,
        })
    }
}

const FIRST_OR_NEXT: &str = "A change needs If-Match with the ETag of the policy that it replaces, or \
                             If-None-Match: * if there is none.";

const NEXT: &str = "A change needs If-Match with the ETag of the policy that it replaces.";

const ONE_TAG: Problem = Problem::malformed(
    "If-Match must have exactly one entity tag in quotation marks, as the header ETag of GET trusts had it.",
);

/// Returns the entity tag of a version.
pub(super) fn entity_tag(id: &PolicyVersionId) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{id}\"")).ok()
}

/// Returns whether `If-None-Match` names an entity tag, or is `*`. Weak tags count, too (RFC 9110 §13.1.2).
pub(super) fn names_tag(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let tags = values.filter_map(|value| value.to_str().ok()).flat_map(|it| it.split(','));
    tags.map(str::trim).any(|it| it == "*" || it.strip_prefix("W/").unwrap_or(it) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_exactly_one_version() {
        let id = PolicyVersionId::new(7, "");
        let tag = format!("\"{id}\"");
        let version = Ok(Expected::Version(Some(id)));
        let (malformed, missing) = (Err(400), Err(428));
        type Headers<'h> = &'h [(&'static str, &'h str)];
        let table: &[(Headers<'_>, Result<Expected, u16>)] = &[
            (&[("if-match", &tag)], version.clone()),
            (&[("if-match", &format!(" {tag} "))], version),
            (&[("if-none-match", "*")], Ok(Expected::Version(None))),
            (&[("if-match", &format!("W/{tag}"))], Ok(Expected::Never)),
            (&[("if-match", "\"x\"")], Ok(Expected::Never)),
            (&[("if-match", "\"07-0000000000000000\"")], Ok(Expected::Never)),
            (&[("if-match", "\"\"")], Ok(Expected::Never)),
            (&[], missing.clone()),
            (&[("if-match", "*")], malformed.clone()),
            (&[("if-match", "")], malformed.clone()),
            (&[("if-match", "7-0000000000000000")], malformed.clone()),
            (&[("if-match", "w/\"x\"")], malformed.clone()),
            (&[("if-match", "\"")], malformed.clone()),
            (&[("if-match", &format!("{tag}, {tag}"))], malformed.clone()),
            (&[("if-match", &tag), ("if-match", &tag)], malformed.clone()),
            (&[("if-match", &tag), ("if-none-match", "*")], malformed.clone()),
            (&[("if-none-match", &tag)], malformed.clone()),
            (&[("if-match", "\"\u{e4}\"")], malformed),
        ];
        for (pairs, expected) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in *pairs {
                headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let found = Expected::of(&headers).map_err(|problem| problem.status());
            assert_eq!(found, *expected, "{pairs:?}");
        }
    }
}
