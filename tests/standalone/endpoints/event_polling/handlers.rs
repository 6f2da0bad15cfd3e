//! Events that a handler does not accept, tokens of unknown keys, and services that never poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use scaikey_auth::Auth;
use scaikey_auth::endpoints::{EventHandler, EventStream, SecurityEvent};
use scaikey_auth::error::BoxError;
use serde_json::json;

use super::super::security_events::{
    AUDIENCE, access_tokens, alice, event as event_of_type, statuses,
};
use super::transmitter::Transmitter;
use super::{api, event, plain, until_with_time};
use crate::support::{Log, eventually};

/// A handler that fails until it is told not to.
#[derive(Debug, Clone, Default)]
struct Failing {
    calls: Arc<AtomicUsize>,
    is_well: Arc<AtomicUsize>,
}

#[async_trait]
impl EventHandler for Failing {
    async fn handle(&self, _: &SecurityEvent<'_>) -> Result<(), BoxError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.is_well.load(Ordering::SeqCst) == 0 { Err("busy".into()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn failing_handler_delays_no_revocation() {
    let (log, transmitter, handler) = (Log::start(), Transmitter::new().await, Failing::default());
    let own = handler.clone();
    let api = api(&transmitter, |stream| stream.handler(own)).await;
    let tokens = access_tokens(&api.world.provider);
    let send = |ids: std::ops::Range<usize>| {
        for id in ids {
            let provider = &api.world.provider;
            let token = event_of_type(provider, "urn:other", json!({}), alice(provider));
            let id = format!("{id:03}");
            transmitter.send(&id, token.claim("jti", id.clone()).sign());
        }
    };
    send(0..40);
    // The provider sends it after the others.
    transmitter.send("z", event(&api, "z").sign());
    let are_refused = async || {
        eventually(async || {
            api.world.clock.advance(Duration::from_millis(500));
            statuses(&api, &tokens).await == [401, 401, 401, 200]
        })
        .await;
    };
    are_refused().await;
    assert_eq!(transmitter.acks(), Vec::<String>::new());
    let most = transmitter.polls().iter().map(|it| it["maxEvents"].as_u64().unwrap()).max();
    assert!(most > Some(32) && most <= Some(256), "{most:?}");
    handler.is_well.store(1, Ordering::SeqCst);
    until_with_time(&api, || transmitter.acks().len() >= 41).await;
    assert!(!log.text().contains("without the handler"), "{}", log.text());
}

#[tokio::test]
async fn unhandled_events_have_a_limit() {
    let (log, transmitter) = (Log::start(), Transmitter::new().await);
    let api = api(&transmitter, |stream| stream.handler(Failing::default())).await;
    for id in 0..270 {
        let provider = &api.world.provider;
        let token = event_of_type(provider, "urn:other", json!({}), alice(provider));
        let id = format!("{id:03}");
        transmitter.send(&id, token.claim("jti", id.clone()).sign());
    }
    // What is too much is acknowledged, so that later events arrive.
    until_with_time(&api, || transmitter.acks().len() == 46).await;
    let warnings = log.lines("WARN");
    let about = warnings.iter().filter(|line| line.contains("without the handler"));
    assert_eq!(about.count(), 1, "{warnings:#?}");
}

#[tokio::test]
async fn unknown_key_is_reported_after_two_deliveries() {
    let transmitter = Transmitter::new().await;
    let api = api(&transmitter, plain).await;
    transmitter.send("1", event(&api, "1").kid(Some("new")).sign());
    until_with_time(&api, || transmitter.error("1").is_some()).await;
    assert_eq!(transmitter.error("1").as_deref(), Some("invalid_key"));
    let polls = transmitter.polls();
    // The first one may have come before the event was sent.
    let reported = polls.iter().position(|it| it["setErrs"] != json!({})).unwrap();
    assert!(reported >= 2, "{polls:?}");
}

#[test]
fn polling_that_never_starts_is_logged() {
    let log = Log::start();
    let auth = Auth::builder().issuer("https://id.example").audience("docs").build().unwrap();
    let stream = EventStream::poll("https://id.example", AUDIENCE, "https://id.example/poll");
    let build = || auth.endpoints().security_events(stream.clone()).build().unwrap();
    drop(build());
    assert_eq!(log.text().matches("starts with the first request").count(), 1, "{}", log.text());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { drop(build()) });
    assert_eq!(log.text().matches("before the first poll").count(), 1, "{}", log.text());
}
