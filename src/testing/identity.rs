//! [`identity`]: an identity without a token.

use serde_json::Value;

use crate::clock::{Clock, SystemClock, unix_seconds};
use crate::identity::{ClaimsMapping, Identity, Provenance, Reading};
use crate::support::json::Document;

/// Returns the identity of a token with these claims, for tests without requests (feature
/// `testing`).
///
/// By default `iss` is `https://issuer.example` and `exp` is one hour from now. If `client_id`
/// equals `sub`, the identity is a service account, otherwise a user. Its provenance is
/// [`Provenance::Mock`], because no token was verified.
///
/// ```
/// use scaikey_auth::testing::identity;
/// use serde_json::json;
///
/// let alice = identity(json!({"sub": "alice", "tenant_id": "acme", "name": "Alice Smith"}));
/// assert_eq!(alice.display_name(), Some("Alice Smith"));
/// ```
///
/// # Panics
/// Panics if `claims` is not a JSON object, if `sub` is missing, or if a validator would reject the
/// claims as malformed.
#[expect(clippy::panic, reason = "a panic reports the mistake in the test")]
pub fn identity(claims: Value) -> Identity {
    let Value::Object(mut claims) = claims else {
        panic!("the claims must be a JSON object: {claims}")
    };
    let now = unix_seconds(SystemClock::default().now());
    claims.entry("exp").or_insert_with(|| (now + 3600).into());
    let issuer = claims.entry("iss").or_insert_with(|| "https://issuer.example".into());
    let issuer = issuer.as_str().unwrap_or_default().into();
    let payload = Value::Object(claims).to_string();
    let mapping = ClaimsMapping::default();
    let reading = Reading {
        issuer,
        mapping: &mapping,
        provenance: Provenance::Mock,
        legacy_service_tokens: false,
        logged: None,
    };
    let Ok(document) = Document::parse(payload.clone()) else {
        panic!("the claims are not valid JSON for a token: {payload}")
    };
    match reading.identity(document) {
        Ok(identity) => identity,
        Err(why) => panic!("a validator rejects these claims: {why}: {payload}"),
    }
}
