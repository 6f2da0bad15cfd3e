//! The fuzz target for security event tokens. It uses private items of this module, so it is not in `testing`.

use std::time::UNIX_EPOCH;

use super::effect::{Effect, kind_of};
use super::poll::PollAnswer;
use super::subject::Subject;
use super::{events_of, occurred_at, subject_of};
use crate::validator::EventTokenKind;
use crate::validator::event_token::fuzz::accepted_but_for_the_key;

/// Reads security event tokens, their events, and answers with such tokens. Checks that no token is accepted without
/// a key, and that an event revokes only what its subject names.
pub fn security_event(bytes: &[u8]) {
    let _ = serde_json::from_slice::<PollAnswer>(bytes);
    accepted_but_for_the_key(bytes, EventTokenKind::SecurityEvent);
    let claims: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    for (event_type, payload) in events_of(&claims) {
        assert!(!kind_of(event_type).is_empty());
        assert!(occurred_at(payload, &claims, UNIX_EPOCH) <= UNIX_EPOCH, "later than the token");
        let Some(subject) = subject_of(&claims, payload) else { continue };
        let tenant = "acme".parse().ok();
        let Ok(subjects) = Subject::read(subject, "https://scaikey.example", tenant.as_ref())
        else {
            continue;
        };
        for found in subjects {
            assert!(found.tenant.is_none() || found.tenant == tenant, "{subject}");
            let revocations = Effect::of(event_type, payload).revocations("i", &found);
            assert!(revocations.len() <= 2 && revocations.iter().all(|it| it.iss() == "i"));
            assert!(found != Subject::default() || revocations.is_empty(), "{subject}");
        }
    }
}
