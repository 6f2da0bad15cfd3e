//! Handlers of security events that fail: revocations do not wait for them, and are not repeated.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use scaikey_auth::endpoints::{EventHandler, EventStream, SecurityEvent};
use scaikey_auth::error::BoxError;
use serde_json::json;

use super::reported::{Api, Flaky, with_log};
use super::security_events::{
    AUDIENCE, CAEP, RISC, access_tokens, alice, assert_accepted, push, session_revoked, statuses,
};

/// A handler that records the types of events, and fails for one of them.
#[derive(Debug, Clone, Default)]
struct Picky {
    calls: Arc<Mutex<Vec<String>>>,
    refused: Arc<Mutex<Option<&'static str>>>,
}

impl Picky {
    fn refuse(&self, name: Option<&'static str>) {
        *self.refused.lock().unwrap() = name;
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl EventHandler for Picky {
    async fn handle(&self, event: &SecurityEvent<'_>) -> Result<(), BoxError> {
        let name = event.event_type.rsplit('/').next().unwrap_or_default();
        self.calls.lock().unwrap().push(name.to_owned());
        let refused = *self.refused.lock().unwrap();
        if refused == Some(name) { Err("busy".into()) } else { Ok(()) }
    }
}

async fn api(handler: &Picky, log: &Flaky) -> Api {
    let (handler, log) = (handler.clone(), log.clone());
    Api::with_issuer_and(
        |auth| with_log(auth, log),
        |issuer, it| it.security_events(EventStream::push(issuer, AUDIENCE).handler(handler)),
    )
    .await
}

#[tokio::test]
async fn failing_handler_repeats_no_revocation() {
    let (handler, log) = (Picky::default(), Flaky::default());
    let api = api(&handler, &log).await;
    let tokens = access_tokens(&api.world.provider);
    handler.refuse(Some("session-revoked"));
    let event = || session_revoked(&api.world.provider).claim("jti", "1");
    for _ in 0..3 {
        assert_eq!(push(&api, event()).await.status, 503);
        assert_eq!(log.log.len(), 1);
        assert_eq!(statuses(&api, &tokens).await, [401, 401, 401, 200]);
    }
    handler.refuse(None);
    assert_accepted(&push(&api, event()).await);
    assert_accepted(&push(&api, event()).await);
    assert_eq!((log.log.len(), handler.calls().len()), (1, 4));
}

#[tokio::test]
async fn handler_hears_of_each_event_once() {
    let (handler, log) = (Picky::default(), Flaky::default());
    let api = api(&handler, &log).await;
    let tokens = access_tokens(&api.world.provider);
    let provider = &api.world.provider;
    let bob = json!({ "format": "iss_sub", "iss": provider.issuer(), "sub": "bob" });
    // In the order of their types.
    let events = json!({
        format!("{CAEP}/session-revoked"): { "subject": alice(provider) },
        format!("{RISC}/account-disabled"): { "subject": bob },
    });
    let event = || session_revoked(provider).claim("jti", "1").without("sub_id");
    let event = || event().claim("events", events.clone());
    for (refused, status, calls) in [
        (Some("session-revoked"), 503, 1),
        (Some("account-disabled"), 503, 3),
        (Some("account-disabled"), 503, 4),
        (None, 202, 5),
        (None, 202, 5),
    ] {
        handler.refuse(refused);
        assert_eq!(push(&api, event()).await.status, status);
        // All revocations are in force before the first call.
        assert_eq!(statuses(&api, &tokens).await, [401; 4]);
        assert_eq!((log.log.len(), handler.calls().len()), (2, calls), "{refused:?}");
    }
    let (first, second) = ("session-revoked", "account-disabled");
    assert_eq!(handler.calls(), [first, first, second, second, second]);
}
