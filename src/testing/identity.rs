//! [`identity`]: somebody, without a token.

use serde_json::Value;

use crate::clock::{Clock, SystemClock, unix_seconds};
use crate::identity::{ClaimsMapping, Identity, Provenance, Reading};
use crate::support::json::Document;

/// The identity that a token with these claims would have, for what is tested without requests (feature `testing`).
///
/// `iss` is `https://issuer.example` and `exp` an hour from now unless they are given. With a
/// `client_id` that equals `sub` it is a service account, else a user. Its provenance is
/// [`Provenance::Mock`]: nobody was asked.
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
/// When there is no `sub`, or no token may have such claims.
#[expect(clippy::panic, reason = "a tool for tests says what is wrong with the test")]
pub fn identity(claims: Value) -> Identity {
    let Value::Object(mut claims) = claims else { panic!("the claims are no object: {claims}") };
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
    };
    let Ok(document) = Document::parse(payload.clone()) else {
        panic!("these claims are not read: {payload}")
    };
    match reading.identity(document) {
        Ok(identity) => identity,
        Err(why) => panic!("no token may have these claims: {why}: {payload}"),
    }
}
