//! The functions that the fuzz targets call: each passes arbitrary bytes to a parser and checks its
//! guarantees. A panic is a finding.

#[cfg(feature = "exchange")]
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;

use super::challenge;
use crate::auth::{Attempt, Auth, AuthRequest};
use crate::config::{Algorithm, AuthConfig, JwksSettings, PlainHttp};
#[cfg(feature = "jwe")]
use crate::config::{DecryptionKeys, IssuerConfig};
use crate::error::{AuthError, Challenger};
#[cfg(feature = "exchange")]
use crate::exchange::{AccessToken, SealingKeys};
use crate::issuer::{Key, KeySet, jwks_uri, workload_token_in};
use crate::revocation::LogEntry;
use crate::support::json::Document;
#[cfg(feature = "exchange")]
use crate::support::{seal::Purpose, secret::Secret};
#[cfg(feature = "trust")]
use crate::trust::TrustPolicy;
use crate::validator::{Credentials, insecure_decode_claims};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All targets by name. The corpus folders and the binaries have the same names.
pub const TARGETS: &[(&str, Target)] = &[
    ("json", json),
    ("token", token),
    ("key", key),
    ("key_set", key_set),
    ("pem", pem),
    ("metadata", metadata),
    ("challenge", challenges),
    ("introspection", introspection),
    ("config", config),
    ("revocation_log", revocation_log),
    ("workload_token", workload_token),
    #[cfg(feature = "jwe")]
    ("jwe", jwe),
    #[cfg(feature = "endpoints")]
    ("cookie", cookie),
    #[cfg(feature = "endpoints")]
    ("stored_session", stored_session),
    #[cfg(feature = "endpoints")]
    ("logout_token", logout_token),
    #[cfg(feature = "endpoints")]
    ("security_event", security_event),
    #[cfg(feature = "trust")]
    ("trust_policy", trust_policy),
    #[cfg(feature = "exchange")]
    ("cache_value", cache_value),
    #[cfg(feature = "exchange")]
    ("token_response", token_response),
];

/// Checks that the strict JSON parser accepts nothing that `serde_json` rejects.
pub fn json(bytes: &[u8]) {
    if Document::parse(bytes).is_ok() {
        let value: Result<serde_json::Map<_, serde_json::Value>, _> = serde_json::from_slice(bytes);
        assert!(value.is_ok(), "the strict parser accepted text that is no JSON object");
    }
}

/// Checks that an entry of a revocation log that can be read is written as one that reads the same.
pub fn revocation_log(bytes: &[u8]) {
    if let Ok(entry) = LogEntry::from_bytes(bytes) {
        let _ = entry.until();
        let again = LogEntry::from_bytes(&entry.to_bytes());
        assert_eq!(again.as_ref(), Ok(&entry), "the entry changed when it was written");
    }
}

/// Checks that a service without keys accepts no token.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = insecure_decode_claims::<serde_json::Value>(text);
    // No cache of verified tokens: creating it dominates the run time of an unoptimised build.
    let auth = Auth::builder().verified_tokens_bytes(0).issuer("https://scaikey.example");
    let Ok(auth) = auth.audience("scaiwave").build() else { return };
    let request = AuthRequest::token_only(Credentials::bearer(text));
    if let Attempt::Done(result) = auth.try_authenticate(request) {
        assert!(result.is_err(), "a token was accepted without a key");
    }
}

/// Private keys that everyone knows: those of RFC 7518 appendix C (Bob's), and RFC 8037 appendix A.6.
#[cfg(feature = "jwe")]
const KNOWN_KEYS: &str = r#"{"keys":[
    {"kty":"EC","crv":"P-256","kid":"bob","alg":"ECDH-ES","x":"weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ",
     "y":"e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck","d":"VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw"},
    {"kty":"OKP","crv":"X25519","kid":"x","alg":"ECDH-ES+A256KW","x":"hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo",
     "d":"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo"}]}"#;

/// Checks that private keys are not in the public set, and that a service without the keys of its issuer accepts no
/// encrypted token, even if it can open it.
#[cfg(feature = "jwe")]
pub fn jwe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(keys) = DecryptionKeys::jwks(text) {
        let set = keys.public_key_set();
        let set: serde_json::Value = serde_json::from_str(&set).unwrap_or_default();
        let is_private = |jwk: &serde_json::Value| jwk.get("d").or(jwk.get("p")).is_some();
        let keys = set.get("keys").and_then(|keys| keys.as_array()).cloned().unwrap_or_default();
        assert!(!keys.is_empty() && !keys.iter().any(is_private), "{set}");
    }
    let Ok(keys) = DecryptionKeys::jwks(KNOWN_KEYS) else { return };
    let issuer = IssuerConfig::new("https://scaikey.example").decrypt(keys);
    let auth = Auth::builder().verified_tokens_bytes(0).issuer(issuer).audience("scaiwave");
    let Ok(auth) = auth.build() else { return };
    let request = AuthRequest::token_only(Credentials::bearer(text));
    if let Attempt::Done(result) = auth.try_authenticate(request) {
        assert!(result.is_err(), "a token was accepted without a key of the issuer");
    }
}

/// Parses one JWK.
pub fn key(bytes: &[u8]) {
    let _ = Document::parse(bytes).map(|jwk| Key::parse(jwk.root(), &Algorithm::ALL).is_ok());
}

/// Checks that a parsed key set has at least one usable key and at most 100 keys, and that a SPIFFE bundle has at
/// most 100 keys.
pub fn key_set(bytes: &[u8]) {
    let max_keys = JwksSettings::default().max_keys;
    if let Ok(bundle) = KeySet::parse_bundle(bytes, &Algorithm::ALL, max_keys) {
        assert!(bundle.all.len() + bundle.unusable.len() <= 100, "the bundle is too large");
    }
    if let Ok(set) = KeySet::parse(bytes, &Algorithm::ALL, JwksSettings::default().max_keys) {
        let (usable, unusable) = (set.all.len(), set.unusable.len());
        assert!(usable > 0 && usable + unusable <= 100, "the key set is empty or too large");
    }
}

/// Checks that keys from a configuration (JSON or PEM) are never an empty set.
pub fn pem(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(set) = KeySet::parse_inline(text, &Algorithm::ALL, JwksSettings::default().max_keys) {
        assert!(!set.all.is_empty(), "a configured key set without a key was accepted");
    }
}

/// Checks that a metadata document is accepted for its own issuer only.
pub fn metadata(bytes: &[u8]) {
    let issuer = "https://scaikey.example";
    let Ok(from) = issuer.parse() else { return };
    if jwks_uri(bytes, &from, issuer, &PlainHttp::default()).is_ok() {
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

/// Reads answers of an introspection endpoint, plain and signed.
pub use crate::validator::opaque::fuzz::introspection;

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

/// Checks that a file with a workload token has nothing but the token and white space.
pub fn workload_token(bytes: &[u8]) {
    if let Some(token) = workload_token_in(bytes) {
        let token = token.expose();
        let is_jwt = token.split('.').count() == 3 && token.bytes().all(|b| b.is_ascii_graphic());
        assert!(is_jwt, "a text that is no JWT was accepted as a workload token");
    }
}

/// Reads and writes session cookies: `Cookie` headers, one per line, and the content of a sealed
/// cookie.
#[cfg(feature = "endpoints")]
pub use crate::session::fuzz::cookie;

/// Reads and writes sessions in a store: entries in Redis, values, and what is sealed in them.
#[cfg(feature = "endpoints")]
pub use crate::session::fuzz::stored_session;

/// Reads logout tokens, security event tokens, and answers to polls for them.
#[cfg(feature = "endpoints")]
pub use crate::endpoints::events::fuzz::{logout_token, security_event};

/// Checks that an accepted trust policy stays the same when it is written and read again.
#[cfg(feature = "trust")]
pub fn trust_policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for policy in [TrustPolicy::from_toml(text), TrustPolicy::from_json(text)] {
        match policy {
            Ok(policy) => {
                let written = serde_json::to_string(&policy).unwrap_or_default();
                let read =
                    TrustPolicy::from_json(&written).map(|read| serde_json::to_string(&read));
                assert!(matches!(&read, Ok(Ok(again)) if *again == written), "{written}\n{read:?}");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// Checks that a cache value that was not sealed cannot be opened, and that a token read from one
/// can be written and read again.
#[cfg(feature = "exchange")]
pub fn cache_value(bytes: &[u8]) {
    if let Ok(keys) = SealingKeys::random() {
        let keys = keys.current(&clock());
        let mut opened = keys.iter().map(|key| key.open(Purpose::ServiceTokens(b""), b"", bytes));
        assert!(opened.all(|plain| plain.is_none()), "a value was opened that was not sealed");
    }
    let clock = clock();
    AccessToken::from_bytes(bytes, &clock).iter().for_each(|token| store_and_read(token, &clock));
}

/// Checks that a token from the token endpoint can be written to a cache and read again.
#[cfg(feature = "exchange")]
pub fn token_response(bytes: &[u8]) {
    let clock = clock();
    AccessToken::parse(bytes, &clock).iter().for_each(|token| store_and_read(token, &clock));
}

/// Returns a clock that shows the same time in each run.
#[cfg(feature = "exchange")]
fn clock() -> super::ManualClock {
    super::ManualClock::at(UNIX_EPOCH + Duration::from_secs(1_800_000_000))
}

#[cfg(feature = "exchange")]
fn store_and_read(token: &AccessToken, clock: &super::ManualClock) {
    let parts = |token: &AccessToken| {
        let refresh_token = token.refresh_token().map(Secret::expose).map(str::to_owned);
        let scopes = token.scopes().map(ToString::to_string);
        let kind = token.issued_token_type().map(str::to_owned);
        (token.secret().expose().to_owned(), token.is_bearer(), refresh_token, scopes, kind)
    };
    let read = AccessToken::from_bytes(&token.to_bytes(clock), clock);
    assert_eq!(read.as_ref().map(parts), Some(parts(token)));
    clock.advance(Duration::from_secs(24 * 3600));
    let _ = token.freshness(clock);
}
