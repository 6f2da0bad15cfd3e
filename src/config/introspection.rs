//! [`IntrospectionSettings`]: the settings of an issuer's introspection endpoint.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::jwks::seconds;
use super::{PlainHttp, has_user_information};

/// The longest time for which an answer may be reused without asking again.
const MAX_CACHE_FOR: Duration = Duration::from_secs(300);

/// The longest time for which an old answer may replace one that the endpoint does not give.
const MAX_SERVE_WHILE_UNAVAILABLE: Duration = Duration::from_secs(300);

/// The longest time limit of one question. A request waits for it.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// The form of the answers of an introspection endpoint.
///
/// ```
/// use scaikey_auth::issuer::ClientAuth;
/// use scaikey_auth::validator::{OpaqueTokens, SignedAnswers};
///
/// let opaque = OpaqueTokens::new("https://scaikey.example", ClientAuth::basic("docs", "secret"))
///     .signed_answers(SignedAnswers::Required);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SignedAnswers {
    /// Plain JSON is requested. A signed answer is verified if the endpoint sends one nevertheless. The default.
    #[default]
    Accepted,
    /// Only signed answers (RFC 9701) are requested and accepted. TLS already protects answers on the way; the
    /// signature also protects them from a gateway or proxy in front of the provider. The provider must have
    /// signed answers switched on for this client.
    Required,
}

/// The settings of an issuer's introspection endpoint: the table `introspection` of an issuer in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IntrospectionSettings {
    /// The URL of the endpoint. Default: from the issuer's metadata.
    pub(crate) url: Option<String>,
    /// The starts of the issuer's opaque tokens. Empty: all tokens that are neither a JWS nor a JWE.
    pub(crate) prefixes: Vec<String>,
    /// The time for which an answer is reused.
    #[serde(rename = "cache_seconds", with = "seconds")]
    pub(crate) cache_for: Duration,
    pub(crate) signed_answers: SignedAnswers,
    /// The time limit of one question, with everything that it needs.
    #[serde(rename = "timeout_seconds", with = "seconds")]
    pub(crate) timeout: Duration,
    /// The time for which the last answer replaces one that the endpoint does not give. Zero: never.
    #[serde(rename = "serve_while_unavailable_seconds", with = "seconds")]
    pub(crate) serve_while_unavailable: Duration,
    /// The number of questions about unknown tokens that are allowed immediately, and then per second.
    pub(crate) unknown_tokens: (u32, u32),
    /// Whether answers without an audience are accepted.
    pub(crate) insecure_accept_missing_audience: bool,
}

impl Default for IntrospectionSettings {
    fn default() -> Self {
        Self {
            url: None,
            prefixes: Vec::new(),
            cache_for: Duration::from_secs(30),
            signed_answers: SignedAnswers::default(),
            timeout: Duration::from_secs(2),
            serve_while_unavailable: Duration::ZERO,
            unknown_tokens: (200, 20),
            insecure_accept_missing_audience: false,
        }
    }
}

impl IntrospectionSettings {
    /// Returns all faults, each as a field and a problem. `plain_http` is that of the issuer.
    pub(crate) fn faults(&self, plain_http: &PlainHttp) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if let Some(Err(problem)) = self.url.as_deref().map(|url| check_url(url, plain_http)) {
            faults.push(("url", problem));
        }
        for (prefix, nth) in self.prefixes.iter().zip(1..) {
            if let Some(problem) = problem_of_prefix(prefix) {
                faults.push(("prefixes", format!("entry {nth} {problem}")));
            }
        }
        if let Some((one, other)) = overlap(&self.prefixes, &self.prefixes) {
            faults
                .push(("prefixes", format!("has `{one}` and `{other}`: leave out the longer one")));
        }
        if self.cache_for > MAX_CACHE_FOR {
            let problem = "must be at most 300 s: a revoked token is accepted for this long";
            faults.push(("cache_seconds", problem.to_owned()));
        }
        if self.serve_while_unavailable > MAX_SERVE_WHILE_UNAVAILABLE {
            let problem =
                "must be at most 300 s: a revoked token is accepted for this long during an outage";
            faults.push(("serve_while_unavailable_seconds", problem.to_owned()));
        }
        if self.timeout.is_zero() || self.timeout > MAX_TIMEOUT {
            faults.push(("timeout_seconds", "must be more than 0 and at most 60 s".to_owned()));
        }
        if self.unknown_tokens.0 == 0 || self.unknown_tokens.1 == 0 {
            let problem = "must allow at least one question, and one per second";
            faults.push(("unknown_tokens", problem.to_owned()));
        }
        faults
    }
}

fn check_url(url: &str, plain_http: &PlainHttp) -> Result<(), String> {
    let parsed = Url::parse(url).map_err(|_| "is not a URL".to_owned())?;
    if has_user_information(&parsed) {
        return Err("must have no user name and no password: the client authenticates".to_owned());
    }
    if parsed.fragment().is_some() || url.contains(['{', '}']) {
        return Err("must have neither a fragment nor braces".to_owned());
    }
    plain_http.check(&parsed)
}

/// Returns the first two prefixes of different entries of which one begins with the other.
pub(crate) fn overlap<'p>(ones: &'p [String], others: &'p [String]) -> Option<(&'p str, &'p str)> {
    let is_same_list = std::ptr::eq(ones, others);
    let mut pairs = ones.iter().enumerate().flat_map(|(nth, one)| {
        let skip = if is_same_list { nth + 1 } else { 0 };
        others.iter().skip(skip).map(move |other| (one.as_str(), other.as_str()))
    });
    pairs.find(|(one, other)| one.starts_with(other) || other.starts_with(one))
}

/// Returns the problem of a prefix that selects no token, or also JWTs.
fn problem_of_prefix(prefix: &str) -> Option<&'static str> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
    if prefix.is_empty() {
        return Some(
            "is empty: name the start of the issuer's opaque tokens, or leave `prefixes` out",
        );
    }
    if !prefix.chars().all(is_token) {
        return Some("has a character that a bearer token cannot have (RFC 6750 §2.1)");
    }
    // The encoded forms of `{"`, of `{` and white space, and of `{}`.
    let jwt = ["ey", "ew", "e3"];
    let may_be_jwt = jwt.iter().any(|it| prefix.starts_with(it) || it.starts_with(prefix));
    may_be_jwt.then_some("is a start that a JWT can have: such tokens are verified with the issuer's keys, not by introspection")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_select_opaque_tokens_only() {
        for good in ["skt_", "sgk_", "f", "e_", "E", "a.b.", "ez"] {
            assert_eq!(problem_of_prefix(good), None, "{good}");
        }
        for bad in ["", "e", "ey", "eyJ", "eyJhbGciOi", "ew", "ewo", "e30", "sk t", "ü", "a="] {
            assert!(problem_of_prefix(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn overlapping_prefixes_are_found() {
        let list = |list: &[&str]| list.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
        let skt = list(&["skt_", "sgk_"]);
        assert_eq!(overlap(&skt, &skt), None);
        assert_eq!(overlap(&skt, &list(&["x", "sgk_a"])), Some(("sgk_", "sgk_a")));
        let twice = list(&["a", "b", "a"]);
        assert_eq!(overlap(&twice, &twice), Some(("a", "a")));
    }
}
