//! `WWW-Authenticate`: the challenges of RFC 6750 §3 and RFC 9470 §3. The common ones are built once.

use std::fmt::Write;

use http::{HeaderValue, StatusCode};

use super::{AuthError, InvalidToken, StepUp};

/// A challenge: an authentication scheme and its parameters (RFC 9110 §11.3).
///
/// Use it for schemes other than `Bearer`; the layer writes the `Bearer` challenge itself.
/// [`AuthError::with_challenge`] adds a challenge to one error,
/// [`AuthBuilder::challenge`](crate::AuthBuilder::challenge) to every 401.
///
/// ```
/// use scaikey_auth::error::Challenge;
///
/// let challenge = Challenge::new("DPoP").param("algs", "ES256").param("error", "use_dpop_nonce");
/// assert_eq!(challenge.as_str(), r#"DPoP algs="ES256", error="use_dpop_nonce""#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    text: String,
    /// The length of the scheme at the start of `text`, in bytes.
    scheme: usize,
    has_error_parameter: bool,
}

impl Challenge {
    /// Creates a challenge without parameters. Characters that a scheme cannot contain (RFC 9110 §5.6.2) are
    /// dropped.
    pub fn new(scheme: &'static str) -> Self {
        let text: String = scheme.chars().filter(is_token_character).collect();
        Self { scheme: text.len(), text, has_error_parameter: false }
    }

    /// Adds a parameter as a quoted string. Quotes and backslashes in the value are escaped, and characters
    /// outside printable ASCII become `?`, so the value may come from a request. Characters that a name
    /// cannot contain are dropped, as in the scheme.
    #[must_use]
    pub fn param(mut self, name: &'static str, value: &str) -> Self {
        self.has_error_parameter |= name.eq_ignore_ascii_case("error");
        self.text.push_str(if self.text.len() == self.scheme { " " } else { ", " });
        self.text.extend(name.chars().filter(is_token_character));
        self.text.push_str("=\"");
        for character in value.chars() {
            match character {
                '"' | '\\' => self.text.extend(['\\', character]),
                ' '..='~' => self.text.push(character),
                _ => self.text.push('?'),
            }
        }
        self.text.push('"');
        self
    }

    /// Returns the challenge as it appears in the header.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the header value, or `None` if the challenge has no scheme.
    pub(crate) fn to_header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(&self.text).ok().filter(|_| self.scheme > 0)
    }

    fn has_same_scheme_as(&self, other: &Self) -> bool {
        let (one, other) = (self.text.get(..self.scheme), other.text.get(..other.scheme));
        one.zip(other).is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
    }
}

/// Returns whether `character` is a `tchar` (RFC 9110 §5.6.2).
fn is_token_character(character: &char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(*character)
}

/// The realm of a service without a configured realm or audience.
pub(crate) const DEFAULT_REALM: &str = "scaikey";

/// A writer of challenges for one realm. The common challenges are built in advance, so that a flood of bad
/// requests costs no formatting.
#[derive(Debug)]
pub(crate) struct Challenger {
    /// `Bearer realm="…"[, resource_metadata="…"]`. It always has the realm, because RFC 6750 §3 requires a
    /// parameter.
    prefix: String,
    missing: HeaderValue,
    malformed: HeaderValue,
    invalid: HeaderValue,
    expired: HeaderValue,
    forbidden: HeaderValue,
    /// The accepted schemes other than `Bearer`. A 401 names all of them (RFC 9110 §11.6.1).
    others: Vec<(Challenge, HeaderValue)>,
}

impl Challenger {
    /// Creates a writer. Returns `None` if the realm or the metadata URL has characters that a header cannot
    /// contain.
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
            others: Vec::new(),
            prefix,
        })
    }

    /// Adds these schemes to every 401.
    pub(crate) fn with_schemes(mut self, others: Vec<Challenge>) -> Self {
        let ready = |other: Challenge| other.to_header().map(|value| (other, value));
        self.others = others.into_iter().filter_map(ready).collect();
        self
    }

    /// Returns the challenges for `error`, each for a separate header line (RFC 9110 §11.6.1). Tenant errors,
    /// outages and other errors for which RFC 6750 and RFC 9470 define no error code have only the challenges
    /// that were added to them.
    ///
    /// A challenge of the error replaces the configured one of the same scheme. If any challenge of the error
    /// has a parameter `error`, the `Bearer` challenge has none (RFC 9449 §7.2); otherwise the client could not
    /// know which of its credentials is wrong.
    pub(crate) fn challenges<'a>(
        &'a self,
        error: &'a AuthError,
    ) -> impl Iterator<Item = HeaderValue> + 'a {
        let additional = error.challenges();
        let has_error_parameter = additional.iter().any(|challenge| challenge.has_error_parameter);
        let bearer = self.bearer(error.plain());
        let bearer =
            bearer.map(|value| if has_error_parameter { self.missing.clone() } else { value });
        let others = self.others.iter().filter(move |(other, _)| {
            error.status() == StatusCode::UNAUTHORIZED
                && !additional.iter().any(|challenge| challenge.has_same_scheme_as(other))
        });
        let others = others.map(|(_, value)| value.clone());
        bearer.into_iter().chain(others).chain(additional.iter().filter_map(Challenge::to_header))
    }

    fn bearer(&self, error: &AuthError) -> Option<HeaderValue> {
        match error {
            AuthError::MissingCredentials => Some(self.missing.clone()),
            AuthError::MalformedCredentials(_) => Some(self.malformed.clone()),
            AuthError::InvalidToken(InvalidToken::Expired) => Some(self.expired.clone()),
            AuthError::InvalidToken(_) => Some(self.invalid.clone()),
            AuthError::Forbidden { .. } => Some(self.forbidden.clone()),
            AuthError::InsufficientScope { required } => {
                Some(self.with(r#"error="insufficient_scope", scope="#, &quoted(required)?))
            }
            AuthError::StepUpRequired(step_up) => Some(self.step_up(step_up)),
            _ => None,
        }
    }

    /// Returns the challenge of RFC 9470 §3. A value that no header can contain is left out.
    fn step_up(&self, StepUp { max_age, acr_values, scope }: &StepUp) -> HeaderValue {
        let max_age = max_age.map(|it| it.as_secs().to_string());
        let parameters = [
            ("acr_values", acr_values.as_deref()),
            ("max_age", max_age.as_deref()),
            ("scope", scope.as_deref()),
        ];
        let parameters = parameters.into_iter().filter_map(|(name, value)| {
            let value = value.and_then(quoted)?;
            Some(format!(", {name}={value}"))
        });
        let parameters: String = parameters.collect();
        self.with(r#"error="insufficient_user_authentication""#, &parameters)
    }

    fn with(&self, parameters: &str, value: &str) -> HeaderValue {
        HeaderValue::try_from(format!("{}, {parameters}{value}", self.prefix))
            .unwrap_or_else(|_| self.invalid.clone())
    }
}

/// Returns `text` as a quoted-string (RFC 9110 §5.6.4), or `None` if it is not printable ASCII.
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
        let mut challenges = challenger.challenges(&error);
        let first = challenges.next().map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(challenges.next(), None);
        first
    }

    #[test]
    fn each_refusal_has_its_rfc_challenge() {
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
                StepUp::default().max_age(Duration::from_millis(300_999)).into(),
                Some(
                    r#"Bearer realm="scaiwave", error="insufficient_user_authentication", max_age="300""#,
                ),
            ),
            (
                StepUp::default().acr_values(["urn:a", "x\"y"]).into(),
                Some(
                    r#"Bearer realm="scaiwave", error="insufficient_user_authentication", acr_values="urn:a x\"y""#,
                ),
            ),
            (
                StepUp::default().scope("a b").max_age(Duration::ZERO).acr_values(["phr"]).into(),
                Some(
                    r#"Bearer realm="scaiwave", error="insufficient_user_authentication", acr_values="phr", max_age="0", scope="a b""#,
                ),
            ),
            (
                StepUp::default().scope("\u{e9}\r\n").into(),
                Some(r#"Bearer realm="scaiwave", error="insufficient_user_authentication""#),
            ),
            (AuthError::TenantMissing, None),
            (AuthError::Unavailable { component: "keys", retry_after: None, source: None }, None),
        ];
        for (error, expected) in table {
            let case = format!("{error:?}");
            assert_eq!(challenge(error).as_deref(), expected, "{case}");
        }
    }

    #[test]
    fn realm_is_escaped_or_refused() {
        let challenger = Challenger::new(r#"a"b\c"#, Some("https://x/y")).unwrap();
        assert_eq!(
            challenger.challenges(&AuthError::MissingCredentials).next().unwrap(),
            r#"Bearer realm="a\"b\\c", resource_metadata="https://x/y""#
        );
        for realm in ["a\r\nSet-Cookie: x", "a\0", "é"] {
            assert!(Challenger::new(realm, None).is_none(), "{realm:?}");
        }
    }

    #[test]
    fn challenge_text_cannot_inject_headers() {
        let challenge = Challenge::new("X\r\n-Y z").param("a b=\"", "\"\\\r\né, Basic");
        assert_eq!(challenge.as_str(), r#"X-Yz ab="\"\\???, Basic""#);
        assert_eq!(challenge.to_header().unwrap(), challenge.as_str());
        assert_eq!(Challenge::new("Basic").to_header().unwrap(), "Basic");
        assert_eq!(Challenge::new(" \r\n").param("realm", "x").to_header(), None);
    }

    #[test]
    fn only_one_challenge_names_the_error() {
        let dpop = || Challenge::new("DPoP").param("algs", "ES256");
        let challenger = Challenger::new("r", None).unwrap();
        let challenger = challenger.with_schemes(vec![dpop(), Challenge::new("ApiKey")]);
        let sent = |error: AuthError| -> Vec<String> {
            let values = challenger.challenges(&error);
            values.map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        let (plain, invalid) =
            (r#"Bearer realm="r""#, r#"Bearer realm="r", error="invalid_token""#);
        let algs = r#"DPoP algs="ES256""#;
        assert_eq!(sent(AuthError::MissingCredentials), [plain, algs, "ApiKey"]);
        let unproven = || AuthError::from(InvalidToken::Unproven);
        assert_eq!(sent(unproven()), [invalid, algs, "ApiKey"]);
        let own = Challenge::new("dpop").param("error", "use_dpop_nonce");
        let challenges = sent(unproven().with_challenge(own));
        assert_eq!(challenges, [plain, "ApiKey", r#"dpop error="use_dpop_nonce""#]);
        let hint = Challenge::new("Hint").param("Errors", "none");
        let challenges = sent(unproven().with_challenge(hint));
        assert_eq!(challenges, [invalid, algs, "ApiKey", r#"Hint Errors="none""#]);
        let forbidden = AuthError::Forbidden { required: "x".into() };
        assert_eq!(sent(forbidden), [r#"Bearer realm="r", error="insufficient_scope""#]);
        assert_eq!(sent(AuthError::TenantMissing), [""; 0]);
    }
}
