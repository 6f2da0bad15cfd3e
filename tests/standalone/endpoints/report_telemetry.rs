//! Logs and metrics of logout tokens and security events: pseudonyms, and labels from fixed lists.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use scaikey_auth::endpoints::{EventHandler, EventStream, SecurityEvent};
use scaikey_auth::error::BoxError;
use scaikey_auth::testing::{TestIssuer, TokenBuilder};
use serde_json::{Value, json};

use super::backchannel_logout::{PATH as LOGOUT, for_wave, logout_token};
use super::reported::{Api, post};
use super::security_events::{AUDIENCE, CAEP, RISC, event, push};
use crate::support::{Log, MetricsRecorder};

const NAME: &str = "scaikey_auth_security_events_total";

/// A handler that can fail.
#[derive(Debug, Clone, Default)]
struct Flaky(Arc<AtomicBool>);

#[async_trait]
impl EventHandler for Flaky {
    async fn handle(&self, _: &SecurityEvent<'_>) -> Result<(), BoxError> {
        if self.0.load(Ordering::SeqCst) { Err("busy".into()) } else { Ok(()) }
    }
}

fn canary(issuer: &TestIssuer) -> Value {
    json!({ "format": "iss_sub", "iss": issuer.issuer(), "sub": "subject-canary" })
}

/// Counts the events of one kind and outcome.
fn count(recorder: &MetricsRecorder, kind: &str, outcome: &str) -> u64 {
    recorder.sum_of(&[NAME, &format!("kind = {kind},"), &format!("outcome = {outcome}]")])
}

#[tokio::test]
async fn events_are_counted_by_kind() {
    let recorder = MetricsRecorder::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (log, handler) = (Log::start(), Flaky::default());
    let own = handler.clone();
    let api = Api::with_issuer(|issuer, endpoints| {
        endpoints.security_events(EventStream::push(issuer, AUDIENCE).handler(own))
    })
    .await;
    let issuer = &api.world.provider;
    let send = async |id: &str, event_type: &str, change: fn(TokenBuilder) -> TokenBuilder| {
        let token = event(issuer, event_type, json!({}), canary(issuer));
        push(&api, change(token.claim("jti", format!("jti-canary-{id}")))).await.status
    };
    let (revoked, disabled) =
        (format!("{CAEP}/session-revoked"), format!("{RISC}/account-disabled"));
    assert_eq!(send("1", &revoked, |it| it).await, 202);
    assert_eq!(send("1", &revoked, |it| it).await, 202);
    assert_eq!(send("2", "urn:invented-1", |it| it).await, 202);
    assert_eq!(send("3", "urn:invented-2", |it| it).await, 202);
    assert_eq!(send("4", &revoked, |it| it.kid(Some("unknown"))).await, 400);
    assert_eq!(send("5", &disabled, |it| it.claim("sub_id", "x")).await, 400);
    handler.0.store(true, Ordering::SeqCst);
    assert_eq!(send("6", &disabled, |it| it).await, 503);
    for (kind, outcome, expected) in [
        ("session-revoked", "revoked", 1),
        ("session-revoked", "repeated", 1),
        ("other", "passed_on", 2),
        ("unverified", "refused", 1),
        ("account-disabled", "refused", 1),
        ("account-disabled", "failed", 1),
    ] {
        assert_eq!(count(&recorder, kind, outcome), expected, "{:?}", recorder.series());
    }
    assert_eq!(recorder.sum_of(&[NAME]), 7);
    let text = log.text();
    assert!(!text.contains("canary"), "{text}");
    let lines: Vec<_> = text.lines().filter(|line| line.contains("security event kind=")).collect();
    assert_eq!(lines.len(), 7, "{lines:#?}");
    // One pseudonym for one subject, and one for each token.
    let field = |line: &str, name: &str| {
        let rest = line.split_once(&format!(" {name}=\"")).map(|(_, rest)| rest.to_owned());
        rest.map(|rest| rest.split('"').next().unwrap().to_owned())
    };
    let subjects: Vec<_> = lines.iter().map(|line| field(line, "subject")).collect();
    assert!(subjects[0].is_some() && subjects[0] == subjects[2], "{lines:#?}");
    let tokens: Vec<_> = lines.iter().map(|line| field(line, "token")).collect();
    assert!(tokens[0].is_some() && tokens[0] == tokens[1] && tokens[0] != tokens[2], "{lines:#?}");
}

#[tokio::test]
async fn logout_tokens_are_counted() {
    let recorder = MetricsRecorder::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let log = Log::start();
    let api = Api::new(for_wave).await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let token = logout_token(&api.world.provider).subject("subject-canary").sign();
    let forged = logout_token(&api.world.provider).audience("drive").sign();
    for token in [&token, &token, &forged] {
        post(&api.server, LOGOUT, &form, format!("logout_token={token}")).await;
    }
    for outcome in ["revoked", "repeated", "refused"] {
        assert_eq!(count(&recorder, "backchannel-logout", outcome), 1, "{:?}", recorder.series());
    }
    assert!(!log.text().contains("canary"), "{}", log.text());
}

#[test]
fn manual_lists_the_outcomes() {
    let manual = std::fs::read_to_string("src/manual/operating.md").unwrap();
    let row = manual.lines().find(|line| line.starts_with(&format!("| `{NAME}`"))).unwrap();
    let values = ["revoked", "passed_on", "repeated", "refused", "failed"];
    for value in values.into_iter().chain(["backchannel-logout", "other", "unverified"]) {
        assert!(row.contains(&format!("`{value}`")), "{value}");
    }
}
