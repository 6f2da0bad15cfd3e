//! The fuzz target for introspection answers. It uses private items of this module, so it is not in
//! `testing`.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;

use super::super::jws::document;
use super::super::verification::Verification;
use super::answer::{Active, Expected};
use crate::clock::Clock;
use crate::config::{AuthConfig, IntrospectionSettings, IssuerConfig, SignedAnswers};
use crate::issuer::{Issuer, IssuerLookup, Issuers};

const ISSUER: &str = "https://scaikey.example";

const AUDIENCE: &str = "scaiwave";

/// The key of RFC 7515, appendix A.3.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

/// A clock that shows the same time in each run.
#[derive(Debug)]
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// Fuzzes the answers of an introspection endpoint: `bytes` are a plain answer, a signed one, and the payload of a
/// signed one.
pub fn introspection(bytes: &[u8]) {
    // One value for all runs: an HTTP client takes milliseconds to make.
    static FOUND: OnceLock<Option<Arc<Issuer>>> = OnceLock::new();
    let issuer = FOUND.get_or_init(issuer).as_deref();
    assert!(issuer.is_some(), "the issuer for this fuzz target could not be built");
    let Some(issuer) = issuer else { return };
    let signed = SignedAnswers::Accepted;
    let expected = Expected { issuer, client_id: AUDIENCE, signed, clock: &Fixed };
    let forged = expected.verify(bytes);
    assert!(
        !matches!(forged, Ok(Verification::Done(Ok(_)))),
        "an answer was accepted that the issuer did not sign"
    );
    if let Ok(payload) = document(bytes.to_vec()) {
        check_active(bytes, payload, issuer);
    }
    if let Ok(payload) = document(bytes.to_vec())
        && let Ok(members) = expected.signed_members(payload.root())
    {
        let json: Json = serde_json::from_slice(bytes).unwrap_or_default();
        let member = json.get("token_introspection").filter(|member| member.is_object());
        assert!(member.is_some() && json.get("iss").is_some_and(|iss| iss == ISSUER), "{json}");
        check_active(member.map(Json::to_string).unwrap_or_default().as_bytes(), members, issuer);
    }
}

/// Checks that the members about a token are accepted only if they are for this service.
fn check_active(bytes: &[u8], members: crate::support::json::Document, issuer: &Issuer) {
    let settings = IntrospectionSettings::default();
    let Ok(active) = Active::read(members, issuer, &settings, Fixed.now()) else { return };
    let json: Json = serde_json::from_slice(bytes).unwrap_or_default();
    let names_us = |aud: &Json| {
        let is_own = |name: &Json| name == AUDIENCE;
        is_own(aud) || aud.as_array().is_some_and(|all| all.iter().any(is_own))
    };
    assert!(json.get("aud").is_some_and(names_us), "{json}");
    assert!(json.get("iss").is_none_or(|iss| iss == ISSUER), "{json}");
    assert!(json.get("sub").is_some_and(|sub| sub == active.identity.subject()), "{json}");
    assert!(active.identity.confirmation().is_none() || json.get("cnf").is_some(), "{json}");
}

fn issuer() -> Option<Arc<Issuer>> {
    let mut config = AuthConfig::default();
    config.issuers.push(IssuerConfig::new(ISSUER).keys(KEYS));
    config.audience.push(AUDIENCE.to_owned());
    match Issuers::new(&config).ok()?.find(ISSUER) {
        IssuerLookup::Found(issuer) => Some(issuer),
        IssuerLookup::NotOpen(..) | IssuerLookup::Unknown => None,
    }
}
