//! The fuzz targets for logout tokens and security event tokens. They use private items, so they are not in `testing`.

use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::effect::{Effect, kind_of};
use super::poll::PollAnswer;
use super::subject::Subject;
use super::{events_of, occurred_at, subject_of};
use crate::auth::Auth;
use crate::support::base64url;
use crate::validator::{EventTokenKind, ExpectedEventToken, lacks_only_the_key};

const ISSUER: &str = "https://scaikey.example";
const AUDIENCE: &str = "wave";
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Reads logout tokens. Checks that none is accepted without a key, and the claims of those that lack only the key.
pub fn logout_token(bytes: &[u8]) {
    let header = r#"{"alg":"ES256","typ":"logout+jwt"}"#;
    let Some(claims) = valid_claims(bytes, header, EventTokenKind::Logout) else { return };
    let member = |name: &str| claims.get(name);
    assert!(member("events").and_then(|it| it.get(LOGOUT)).is_some_and(Value::is_object));
    assert!(member("nonce").is_none() && member("exp").is_some_and(Value::is_number), "{claims}");
    assert!(["sub", "sid"].into_iter().any(|name| is_text(member(name))), "{claims}");
}

/// Reads security event tokens, their events, and answers with such tokens. Checks that no token is accepted without
/// a key, and that an event revokes only what its subject names.
pub fn security_event(bytes: &[u8]) {
    let _ = serde_json::from_slice::<PollAnswer>(bytes);
    let header = r#"{"alg":"ES256","typ":"secevent+jwt"}"#;
    valid_claims(bytes, header, EventTokenKind::SecurityEvent);
    let claims: Value = serde_json::from_slice(bytes).unwrap_or_default();
    for (event_type, payload) in events_of(&claims) {
        assert!(!kind_of(event_type).is_empty());
        assert!(occurred_at(payload, &claims, UNIX_EPOCH) <= UNIX_EPOCH, "later than the token");
        let Some(subject) = subject_of(&claims, payload) else { continue };
        let tenant = "acme".parse().ok();
        let Ok(subjects) = Subject::read(subject, ISSUER, tenant.as_ref()) else { continue };
        for found in subjects {
            assert!(found.tenant.is_none() || found.tenant == tenant, "{subject}");
            let revocations = Effect::of(event_type, payload).revocations(ISSUER, &found);
            assert!(revocations.len() <= 2 && revocations.iter().all(|it| it.iss() == ISSUER));
            assert!(found != Subject::default() || revocations.is_empty(), "{subject}");
        }
    }
}

/// Returns the claims, if they are those of a token of this kind. `bytes` are read as a whole token, too.
fn valid_claims(bytes: &[u8], header: &str, kind: EventTokenKind) -> Option<Value> {
    // One value for all runs: an HTTP client takes milliseconds to make.
    static AUTH: OnceLock<Option<Auth>> = OnceLock::new();
    let auth = || {
        let auth = Auth::builder().verified_tokens_bytes(0).issuer(ISSUER);
        auth.audience("scaiwave").build().ok()
    };
    let auth = AUTH.get_or_init(auth).as_ref()?;
    let audiences = [AUDIENCE.to_owned()];
    let expected = ExpectedEventToken { kind, issuer: None, audiences: &audiences };
    let is_valid =
        |token: &[u8]| lacks_only_the_key(auth.issuers(), &**auth.clock(), token, &expected);
    is_valid(bytes);
    let token = format!("{}.{}.AA", base64url::encode(header), base64url::encode(bytes));
    if !is_valid(token.as_bytes()) {
        return None;
    }
    let claims: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let member = |name: &str| claims.get(name);
    assert_eq!(member("iss").and_then(Value::as_str), Some(ISSUER), "{claims}");
    assert!(is_text(member("jti")) && member("iat").is_some_and(Value::is_number), "{claims}");
    let is_us = |aud: &Value| aud == AUDIENCE;
    let is_among = |aud: &Value| aud.as_array().is_some_and(|it| it.iter().any(is_us));
    assert!(member("aud").is_some_and(|it| is_us(it) || is_among(it)), "{claims}");
    assert!(events_of(&claims).next().is_some(), "{claims}");
    assert!(events_of(&claims).all(|(_, event)| event.is_object()), "{claims}");
    Some(claims)
}

fn is_text(value: Option<&Value>) -> bool {
    value.and_then(Value::as_str).is_some_and(|text| !text.is_empty())
}
