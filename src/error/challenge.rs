//! `WWW-Authenticate`: the challenges of RFC 6750 §3 and RFC 9470 §3, built once where possible.

use std::fmt::Write;

use http::HeaderValue;

use super::{AuthError, InvalidToken};

/// Writes challenges for one realm. The common ones are ready-made, so that a flood of bad
/// requests formats nothing.
#[derive(Debug)]
pub(crate) struct Challenger {
    /// `Bearer realm="…"[, resource_metadata="…"]`: never bare, since RFC 6750 §3 wants at least
    /// one parameter.
    prefix: String,
    missing: HeaderValue,
    malformed: HeaderValue,
    invalid: HeaderValue,
    expired: HeaderValue,
    forbidden: HeaderValue,
}

impl Challenger {
    /// `None` when the realm or the metadata URL has characters that cannot stand in a header.
    pub(crate) fn new(realm: &str, resource_metadata: Option<&str>) -> Option<Self> {
        let mut prefix = format!("Bearer realm={}", quoted(realm)?);
        if let Some(url) = resource_metadata {
            write!(prefix, ", resource_metadata={}", quoted(url)?).ok()?;
        }
        let with = |parameters: &str| HeaderValue::try_from(format!("{prefix}{parameters}")).ok();
        Some(Self {
            missing: with("")?,
            malformed: with(r#", error="invalid_request""#)?,
            invalid: with(r#", error="invalid_token""#)?,
            expired: with(r#", error="invalid_token", error_description="The token has expired""#)?,
            forbidden: with(r#", error="insufficient_scope""#)?,
            prefix,
        })
    }

    /// The challenge that goes with `error`; `None` where another token of the same caller would
    /// not help, or where the caller is not at fault.
    pub(crate) fn challenge(&self, error: &AuthError) -> Option<HeaderValue> {
        match error {
            AuthError::MissingCredentials => Some(self.missing.clone()),
            AuthError::MalformedCredentials(_) => Some(self.malformed.clone()),
            AuthError::InvalidToken(InvalidToken::Expired) => Some(self.expired.clone()),
            AuthError::InvalidToken(_) => Some(self.invalid.clone()),
            AuthError::Forbidden { .. } => Some(self.forbidden.clone()),
            AuthError::InsufficientScope { required } => {
                Some(self.with(r#"error="insufficient_scope", scope="#, &quoted(required)?))
            }
            AuthError::StepUpRequired { max_age } => Some(self.with(
                r#"error="insufficient_user_authentication", max_age="#,
                &quoted(&max_age.as_secs().to_string())?,
            )),
            _ => None,
        }
    }

    fn with(&self, parameters: &str, value: &str) -> HeaderValue {
        HeaderValue::try_from(format!("{}, {parameters}{value}", self.prefix))
            .unwrap_or_else(|_| self.invalid.clone())
    }
}

/// A quoted-string (RFC 9110 §5.6.4), refused when it would need characters outside printable
/// ASCII.
fn quoted(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            _ => return None,
        }
    }
    out.push('"');
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn challenge(error: AuthError) -> Option<String> {
        let challenger = Challenger::new("scaiwave", None).unwrap();
        challenger.challenge(&error).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn each_refusal_has_the_challenge_its_rfc_wants() {
        let required = "docs:read admin".into();
        let table = [
            (AuthError::MissingCredentials, Some(r#"Bearer realm="scaiwave""#)),
            (
                AuthError::MalformedCredentials("x"),
                Some(r#"Bearer realm="scaiwave", error="invalid_request""#),
            ),
            (
                InvalidToken::Signature.into(),
                Some(r#"Bearer realm="scaiwave", error="invalid_token""#),
            ),
            (
                InvalidToken::Expired.into(),
                Some(
                    r#"Bearer realm="scaiwave", error="invalid_token", error_description="The token has expired""#,
                ),
            ),
            (
                AuthError::InsufficientScope { required },
                Some(
                    r#"Bearer realm="scaiwave", error="insufficient_scope", scope="docs:read admin""#,
                ),
            ),
            (
                AuthError::StepUpRequired { max_age: Duration::from_secs(300) },
                Some(
                    r#"Bearer realm="scaiwave", error="insufficient_user_authentication", max_age="300""#,
                ),
            ),
            (AuthError::TenantMissing, None),
            (AuthError::Unavailable { what: "keys", retry_after: None, source: None }, None),
        ];
        for (error, expected) in table {
            let told = format!("{error:?}");
            assert_eq!(challenge(error).as_deref(), expected, "{told}");
        }
    }

    #[test]
    fn a_realm_is_escaped_or_refused_but_never_injected() {
        let challenger = Challenger::new(r#"a"b\c"#, Some("https://x/y")).unwrap();
        assert_eq!(
            challenger.challenge(&AuthError::MissingCredentials).unwrap(),
            r#"Bearer realm="a\"b\\c", resource_metadata="https://x/y""#
        );
        for realm in ["a\r\nSet-Cookie: x", "a\0", "é"] {
            assert!(Challenger::new(realm, None).is_none(), "{realm:?}");
        }
    }
}
