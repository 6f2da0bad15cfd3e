//! The functions that the fuzz targets call: each passes arbitrary bytes to a parser and checks its
//! guarantees. None of them may panic.

use http::HeaderValue;

use super::challenge;
use crate::auth::{Attempt, Auth, AuthRequest};
use crate::config::{Algorithm, AuthConfig, JwksSettings};
use crate::error::{AuthError, Challenger};
use crate::issuer::{Key, KeySet, jwks_uri};
use crate::support::json::Document;
use crate::validator::{Credentials, insecure_decode_claims};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All targets by name. The corpus folders and the binaries have the same names.
pub const TARGETS: [(&str, Target); 8] = [
    ("json", json),
    ("token", token),
    ("key", key),
    ("key_set", key_set),
    ("pem", pem),
    ("metadata", metadata),
    ("challenge", challenges),
    ("config", config),
];

/// Checks that the strict JSON parser accepts nothing that `serde_json` rejects.
pub fn json(bytes: &[u8]) {
    if Document::parse(bytes).is_ok() {
        let value: Result<serde_json::Map<_, serde_json::Value>, _> = serde_json::from_slice(bytes);
        assert!(value.is_ok(), "the strict parser accepted text that is no JSON object");
    }
}

/// Checks that no unsigned token is accepted.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = insecure_decode_claims::<serde_json::Value>(text);
    // No cache of verified tokens: creating it dominates the run time of an unoptimised build.
    let auth = Auth::builder().verified_tokens_bytes(0).issuer("https://scaikey.example");
    let Ok(auth) = auth.audience("scaiwave").build() else { return };
    let request = AuthRequest::token_only(Credentials::bearer(text));
    if let Attempt::Done(verdict) = auth.try_authenticate(request) {
        assert!(verdict.is_err(), "a token was accepted without a key");
    }
}

/// Parses one JWK.
pub fn key(bytes: &[u8]) {
    let _ = Document::parse(bytes).map(|jwk| Key::parse(jwk.root(), &Algorithm::ALL).is_ok());
}

/// Checks that a parsed key set has at least one usable key and at most 100 keys.
pub fn key_set(bytes: &[u8]) {
    if let Ok(set) = KeySet::parse(bytes, &Algorithm::ALL, JwksSettings::default().max_keys) {
        let (usable, unusable) = (set.all.len(), set.unusable.len());
        assert!(usable > 0 && usable + unusable <= 100, "the key set is empty or too large");
    }
}

/// Checks that keys from a configuration (JSON or PEM) are never an empty set.
pub fn pem(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(set) = KeySet::parse_inline(text, &Algorithm::ALL, JwksSettings::default().max_keys) {
        assert!(!set.all.is_empty(), "taken without a key");
    }
}

/// Checks that a metadata document is accepted for its own issuer only.
pub fn metadata(bytes: &[u8]) {
    let issuer = "https://scaikey.example";
    let Ok(from) = issuer.parse() else { return };
    if jwks_uri(bytes, &from, issuer, false).is_ok() {
        let document: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        assert_eq!(document.get("issuer").and_then(|v| v.as_str()), Some(issuer));
    }
}

/// Checks that the challenge parser reads all challenges that the crate writes.
pub fn challenges(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = challenge::parse(text);
    let Some(challenger) = Challenger::new(text, None) else { return };
    let error = AuthError::InsufficientScope { required: text.into() };
    for error in [AuthError::MissingCredentials, error] {
        let written: Option<HeaderValue> = challenger.challenges(&error).next();
        let written = written.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let read = challenge::parse(written).unwrap_or_default();
        assert_eq!(read.first().and_then(|c| c.param("realm")), Some(text), "{written}");
    }
}

/// Parses a configuration file, and an environment with one variable per line.
pub fn config(bytes: &[u8]) {
    if let Ok(config) = serde_json::from_slice::<AuthConfig>(bytes) {
        let _ = Auth::from_config(config).build();
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (format!("P_{name}"), value.to_owned()));
    let _ = Auth::from_config(AuthConfig::from_vars("P", variables)).build();
}
