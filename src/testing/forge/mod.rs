//! Tokens that a verifier must reject, each with its reason, and unusual tokens that it must accept
//! (feature `testing`).
//!
//! Run both [`all`] and [`valid`] against your service: a verifier that rejects every token passes
//! the first.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use scaikey_auth::testing::{Provider, forge};
//!
//! let provider = Provider::start().await;
//! for forged in forge::all(&provider) {
//!     // let status = ask_your_service(&forged.token).await;
//!     // assert_eq!(status, forged.rejection.status(), "{}: {}", forged.name, forged.why);
//! }
//! # }
//! ```
//!
//! Generate the tokens just before use, because they contain the current time. They assume a
//! verifier that trusts this issuer, has the audience of the provider, allows a leeway of 60
//! seconds, accepts tokens of at most 16 KiB with a header of at most 4 KiB and 16 levels of
//! nesting, and supports RS256 and ES256.

mod claims;
mod headers;
mod malformed;
mod ml_dsa;
mod signatures;
mod valid;

use http::{HeaderValue, StatusCode};

use super::issuer::TestIssuer;
use super::tokens::TokenBuilder;
use crate::config::Algorithm;

pub use ml_dsa::ml_dsa;
pub use valid::{rfc9068_valid, valid};

/// A token that a verifier must reject (feature `testing`).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Forged {
    /// A short, unique name.
    pub name: &'static str,
    /// The rule that it breaks, or the consequence of accepting it.
    pub why: &'static str,
    /// The token.
    pub token: String,
    /// The expected rejection.
    pub rejection: Rejection,
}

impl Forged {
    /// Returns an `Authorization` header value with this token, or `None` if a header value must
    /// not contain its characters.
    pub fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(format!("Bearer {}", self.token).as_bytes()).ok()
    }
}

/// An expected rejection (feature `testing`).
///
/// ```
/// use scaikey_auth::testing::forge::Rejection;
///
/// assert_eq!(Rejection::Unauthorized.status(), 401);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// 401 with `invalid_token`: the token is well formed as a credential but invalid.
    Unauthorized,
    /// 400 with `invalid_request`: the token has characters that no bearer token may have (RFC 6750
    /// §2.1, RFC 9110 §11.2), so the request is malformed.
    BadRequest,
}

impl Rejection {
    /// Returns the status code.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::BadRequest => StatusCode::BAD_REQUEST,
        }
    }
}

/// A token that a verifier must accept (feature `testing`).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ValidToken {
    /// A short, unique name that says what is unusual.
    pub name: &'static str,
    /// The token.
    pub token: String,
}

/// Returns all forged tokens for a verifier with the default token profile (feature `testing`).
///
/// Publishes an RS256 key and an ES256 key if the issuer has none.
pub fn all(issuer: &TestIssuer) -> Vec<Forged> {
    let mut list = ForgeryList::new(issuer);
    signatures::add(&mut list);
    headers::add(&mut list);
    malformed::add(&mut list);
    claims::add(&mut list);
    list.forged
}

/// Returns the tokens that a verifier with the profile of RFC 9068 must reject in addition to
/// [`all`].
pub fn rfc9068(issuer: &TestIssuer) -> Vec<Forged> {
    let mut list = ForgeryList::new(issuer);
    let token = || valid::rfc9068_token(issuer);
    let typ = "RFC 9068 §2.1: the type is at+jwt";
    list.add("RFC 9068: typ missing", typ, token().typ(None).sign());
    list.add("RFC 9068: typ JWT", typ, token().typ(Some("JWT")).sign());
    list.add("RFC 9068: typ jwt", typ, token().typ(Some("jwt")).sign());
    for name in [
        "RFC 9068: iss missing",
        "RFC 9068: exp missing",
        "RFC 9068: aud missing",
        "RFC 9068: sub missing",
        "RFC 9068: client_id missing",
        "RFC 9068: iat missing",
        "RFC 9068: jti missing",
    ] {
        let claim = name.split(' ').nth(2).unwrap_or_default();
        list.add(name, "RFC 9068 §2.2: the claim is required", token().without(claim).sign());
    }
    list.forged
}

/// The forged tokens collected so far.
struct ForgeryList<'a> {
    issuer: &'a TestIssuer,
    forged: Vec<Forged>,
}

impl<'a> ForgeryList<'a> {
    fn new(issuer: &'a TestIssuer) -> Self {
        Self { issuer, forged: Vec::new() }
    }

    fn add(&mut self, name: &'static str, why: &'static str, token: String) {
        self.forged.push(Forged { name, why, token, rejection: Rejection::Unauthorized });
    }

    fn add_malformed(&mut self, name: &'static str, why: &'static str, token: String) {
        self.forged.push(Forged { name, why, token, rejection: Rejection::BadRequest });
    }

    /// Returns a valid token, signed with RS256, to be modified.
    fn valid(&self) -> TokenBuilder {
        self.issuer.token().algorithm(Algorithm::RS256)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    };
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::super::Provider;
    use super::*;

    #[tokio::test]
    async fn names_are_unique_and_rejections_match() {
        let provider = Provider::builder().algorithms(Algorithm::ALL).start().await;
        let mut names = HashSet::new();
        let forged = all(&provider).into_iter().chain(rfc9068(&provider)).chain(ml_dsa(&provider));
        for Forged { name, token, rejection, why } in forged {
            assert!(names.insert(name), "{name} twice");
            assert!(!why.is_empty(), "{name}");
            let body = token.trim_end_matches('=');
            let bearer = !body.is_empty()
                && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
            assert_eq!(bearer, rejection == Rejection::Unauthorized, "{name}");
        }
        for ValidToken { name, token } in valid(&provider) {
            assert!(names.insert(name), "{name} twice");
            assert!(token.len() < 16 * 1024, "{name}");
        }
        assert!(names.len() > 200, "{}", names.len());
    }

    /// Returns whether the provider's RS256 or ES256 key made the signature.
    fn is_signed(issuer: &TestIssuer, token: &str) -> bool {
        let Some((signed, signature)) = token.rsplit_once('.') else { return false };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        let verifies = |verifier, algorithm| {
            UnparsedPublicKey::new(verifier, issuer.key_for(algorithm).public_key())
                .verify(signed.as_bytes(), &signature)
                .is_ok()
        };
        verifies(&RSA_PKCS1_2048_8192_SHA256 as &dyn VerificationAlgorithm, Algorithm::RS256)
            || verifies(&ECDSA_P256_SHA256_FIXED, Algorithm::ES256)
    }

    /// Returns whether the crate's JSON parser accepts header and payload.
    fn is_strict_json(token: &str) -> bool {
        token.split('.').take(2).all(|part| {
            let text = URL_SAFE_NO_PAD.decode(part).unwrap();
            crate::support::json::Document::parse(text).is_ok()
        })
    }

    #[tokio::test]
    async fn forgeries_break_one_rule_each() {
        let provider = Provider::start().await;
        for ValidToken { name, token } in valid(&provider) {
            assert!(is_signed(&provider, &token) && is_strict_json(&token), "{name}");
        }
        let mut list = ForgeryList::new(&provider);
        malformed::add_json(&mut list);
        let empty = |name: &str| name.ends_with(" an empty object");
        for Forged { name, token, .. } in &list.forged {
            assert!(is_signed(&provider, token), "{name}");
            assert_eq!(is_strict_json(token), empty(name), "{name}");
        }
        let mut list = ForgeryList::new(&provider);
        claims::add(&mut list);
        for Forged { name, token, .. } in list.forged.into_iter().chain(rfc9068(&provider)) {
            assert!(is_signed(&provider, &token), "{name}");
        }
        let mut list = ForgeryList::new(&provider);
        headers::add(&mut list);
        for Forged { name, token, .. } in list.forged {
            let embeds_a_key = name.contains(" in the header");
            assert_ne!(is_signed(&provider, &token), embeds_a_key, "{name}");
        }
        let mut list = ForgeryList::new(&provider);
        signatures::add(&mut list);
        // These have a valid signature; only a name in their header is wrong.
        let renamed = |name: &str| {
            name.starts_with("alg ")
                || name.contains(" with the kid of ")
                || name.contains(" over an ")
        };
        for Forged { name, token, .. } in list.forged.iter().filter(|row| !renamed(row.name)) {
            assert!(!is_signed(&provider, token), "{name}");
        }
    }

    #[tokio::test]
    async fn providers_share_only_constant_forgeries() {
        let (one, other) = (Provider::start().await, Provider::start().await);
        let tokens: HashSet<_> = all(&one).into_iter().map(|forged| forged.token).collect();
        let same: Vec<_> =
            all(&other).into_iter().filter(|forged| tokens.contains(&forged.token)).collect();
        // Tokens without any content from the issuer are the same for both.
        assert!(same.len() < 12, "{same:?}");
    }
}
