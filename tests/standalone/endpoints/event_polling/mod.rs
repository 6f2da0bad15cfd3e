//! Security events that the service polls (RFC 8936).

mod handlers;
mod transmitter;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::Request;
use scaikey_auth::endpoints::{EventHandler, EventStream, SecurityEvent};
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::ServiceTokenRequest;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, TokenBuilder};
use scaikey_auth::{Auth, ConfigError, TokenExchangeClient};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::reported::{Api, Flaky, with_log};
use super::security_events::{AUDIENCE, access_tokens, session_revoked, statuses};
use crate::support::{Log, MetricsRecorder, World, eventually, until};
use transmitter::{Mode, Transmitter};

/// An API that polls the events of its first issuer.
async fn api(transmitter: &Transmitter, set: impl FnOnce(EventStream) -> EventStream) -> Api {
    let url = transmitter.url();
    Api::with_issuer(|issuer, endpoints| {
        endpoints.security_events(set(EventStream::poll(issuer, AUDIENCE, url)))
    })
    .await
}

fn plain(stream: EventStream) -> EventStream {
    stream
}

/// Returns an event about alice with this `jti`.
fn event(api: &Api, id: &str) -> TokenBuilder {
    session_revoked(&api.world.provider).claim("jti", id)
}

/// Waits for a condition, while the time passes by which the service waits after failures.
async fn until_with_time(api: &Api, mut reached: impl FnMut() -> bool) {
    eventually(async || {
        api.world.clock.advance(Duration::from_millis(500));
        reached()
    })
    .await;
}

#[tokio::test]
async fn polled_event_is_acknowledged_in_force() {
    let transmitter = Transmitter::new().await;
    let api = api(&transmitter, plain).await;
    let tokens = access_tokens(&api.world.provider);
    // After the first answer, the provider waits for events.
    until_with_time(&api, || transmitter.polls().len() == 2).await;
    let first = json!({ "maxEvents": 32, "returnImmediately": true, "ack": [], "setErrs": {} });
    let polls = transmitter.polls();
    assert_eq!(polls[0], first);
    assert_eq!(polls[1]["returnImmediately"], false);
    assert_eq!(transmitter.header("content-type").unwrap(), "application/json");
    assert_eq!(transmitter.header("accept").unwrap(), "application/json");
    assert_eq!(transmitter.header("authorization"), None);
    assert_eq!(statuses(&api, &tokens).await, [200; 4]);

    transmitter.send("1", event(&api, "1").sign());
    until(|| transmitter.has_ack("1")).await;
    assert_eq!(statuses(&api, &tokens).await, [401, 401, 401, 200]);
    assert_eq!(transmitter.polls().len(), 3, "{:?}", transmitter.polls());
}

#[tokio::test]
async fn many_events_are_fetched_in_pages() {
    let transmitter = Transmitter::new().await;
    let api = api(&transmitter, plain).await;
    for id in 0..100 {
        let id = id.to_string();
        transmitter.send(&id, event(&api, &id).sign());
    }
    // New events are fetched without a pause.
    until_with_time(&api, || transmitter.acks().len() >= 100).await;
    let mut acks = transmitter.acks();
    acks.sort();
    acks.dedup();
    assert_eq!(acks.len(), 100);
}

#[tokio::test]
async fn refused_events_get_their_codes() {
    let transmitter = Transmitter::new().await;
    let api = api(&transmitter, plain).await;
    let forged = event(&api, "forged").signed_by(&api.other.key()).sign();
    let foreign = json!({ "format": "iss_sub", "iss": "https://elsewhere.example", "sub": "a" });
    let table: [(&str, Value, &str); 7] = [
        ("forged", forged.into(), "invalid_key"),
        ("aud", event(&api, "aud").audience("x").sign().into(), "invalid_audience"),
        ("iss", event(&api, "iss").issuer("https://x.example").sign().into(), "invalid_issuer"),
        ("about", event(&api, "about").claim("sub_id", foreign).sign().into(), "access_denied"),
        ("other-id", event(&api, "id").sign().into(), "invalid_request"),
        ("text", "x".into(), "invalid_request"),
        ("number", json!(7), "invalid_request"),
    ];
    for (id, token, _) in &table {
        transmitter.send(id, token.clone());
    }
    transmitter.send("valid", event(&api, "valid").sign());
    until_with_time(&api, || transmitter.has_ack("valid")).await;
    for (id, _, code) in table {
        until_with_time(&api, || transmitter.error(id).is_some()).await;
        assert_eq!(transmitter.error(id).as_deref(), Some(code), "{id}");
        assert!(!transmitter.has_ack(id), "{id}");
    }
    assert_eq!(transmitter.header("content-language").unwrap(), "en");
}

#[tokio::test]
async fn unstored_event_is_not_acknowledged() {
    let (transmitter, revocations) = (Transmitter::new().await, Flaky::default());
    revocations.is_full.store(true, Ordering::SeqCst);
    let (shared, url) = (revocations.clone(), transmitter.url());
    let api = Api::with_issuer_and(
        |auth| with_log(auth, shared),
        |issuer, it| it.security_events(EventStream::poll(issuer, AUDIENCE, url)),
    )
    .await;
    transmitter.send("1", event(&api, "1").sign());
    until_with_time(&api, || transmitter.polls().len() >= 5).await;
    assert!(!transmitter.has_ack("1") && transmitter.error("1").is_none());
    revocations.is_full.store(false, Ordering::SeqCst);
    until_with_time(&api, || transmitter.has_ack("1")).await;
    assert!(!revocations.log.is_empty());
}

/// A handler that fails twice.
#[derive(Debug, Clone, Default)]
struct Unsteady(Arc<AtomicUsize>);

#[async_trait]
impl EventHandler for Unsteady {
    async fn handle(&self, _: &SecurityEvent<'_>) -> Result<(), BoxError> {
        if self.0.fetch_add(1, Ordering::SeqCst) < 2 { Err("busy".into()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn failed_handler_gets_the_event_again() {
    let (transmitter, handler) = (Transmitter::new().await, Unsteady::default());
    let own = handler.clone();
    let api = api(&transmitter, |stream| stream.handler(own)).await;
    transmitter.send("1", event(&api, "1").sign());
    until_with_time(&api, || transmitter.has_ack("1")).await;
    assert_eq!(handler.0.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn failures_are_logged_and_backed_off() {
    let recorder = MetricsRecorder::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    for (mode, cause) in [
        (Mode::Status(401), "answered 401"),
        (Mode::Status(500), "answered 500"),
        (Mode::Redirect, "answered 307"),
        (Mode::Huge, "more than 5242880 bytes"),
        (Mode::Malformed, "RFC 8936"),
    ] {
        let log = Log::start();
        let transmitter = Transmitter::new().await;
        transmitter.set_mode(mode);
        let api = api(&transmitter, plain).await;
        until(|| log.text().contains("polling for security events failed")).await;
        // Without time, there is no other attempt.
        assert_eq!(statuses(&api, &access_tokens(&api.world.provider)).await, [200; 4]);
        assert_eq!(transmitter.polls().len(), 1, "{mode:?}");
        until_with_time(&api, || transmitter.polls().len() >= 5).await;
        let warnings = log.lines("WARN");
        let about = warnings.iter().filter(|line| line.contains("polling for security events"));
        assert_eq!(about.count(), 1, "{warnings:#?}");
        assert!(warnings.iter().any(|line| line.contains(cause)), "{mode:?}: {warnings:#?}");
        assert!(transmitter.polls().iter().all(|poll| poll["returnImmediately"] == true));
        transmitter.set_mode(Mode::Works);
        transmitter.send("1", event(&api, "1").sign());
        until_with_time(&api, || transmitter.has_ack("1")).await;
        let again = "polling for security events works again";
        assert_eq!(log.text().matches(again).count(), 1, "{}", log.text());
    }
    for outcome in ["ok", "failed"] {
        assert!(recorder.sum_of(&["scaikey_auth_event_polls_total", outcome]) >= 5);
    }
}

#[tokio::test]
async fn repeated_events_are_not_polled_constantly() {
    let (transmitter, handler) = (Transmitter::new().await, Unsteady::default());
    handler.0.store(2, Ordering::SeqCst);
    let own = handler.clone();
    let api = api(&transmitter, |stream| stream.handler(own)).await;
    transmitter.set_mode(Mode::Repeats);
    for id in ["1", "2"] {
        transmitter.send(id, event(&api, id).sign());
    }
    until_with_time(&api, || transmitter.polls().len() >= 20).await;
    assert_eq!(handler.0.load(Ordering::SeqCst), 4);
    // Each request but the first two waited for the time to pass.
    let polls = transmitter.polls().len();
    for _ in 0..20 {
        assert_eq!(statuses(&api, &access_tokens(&api.world.provider)).await[3], 200);
    }
    assert!(transmitter.polls().len() <= polls + 1);
}

#[tokio::test]
async fn polling_ends_with_the_endpoints() {
    let (transmitter, world) = (Transmitter::new().await, World::new().await);
    let auth = world.auth().build().unwrap();
    let stream = EventStream::poll(world.provider.issuer(), AUDIENCE, transmitter.url());
    let endpoints = auth.endpoints().security_events(stream).build().unwrap();
    assert!(!endpoints.enabled().contains(&scaikey_auth::endpoints::Endpoint::Events));
    let clone = endpoints.clone();
    eventually(async || {
        world.clock.advance(Duration::from_millis(500));
        transmitter.waiting() == 1 && transmitter.polls().len() == 2
    })
    .await;
    drop(endpoints);
    drop(clone);
    until(|| transmitter.waiting() == 0).await;
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!(transmitter.polls().len(), 2);
}

#[test]
fn polling_starts_with_the_first_runtime() {
    let built = |url: &str| {
        let stream = EventStream::poll("https://id.example", AUDIENCE, url);
        let auth = Auth::builder().issuer("https://id.example").audience("docs").build().unwrap();
        auth.endpoints().security_events(stream).build().unwrap()
    };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let transmitter = first.block_on(Transmitter::new());
    // There is no runtime here.
    let endpoints = built(&transmitter.url());
    first.block_on(async {
        let request = Request::get("/elsewhere").body(String::new()).unwrap();
        let answer = endpoints.service().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 404);
        until(|| !transmitter.polls().is_empty()).await;
    });
}

#[tokio::test]
async fn header_of_polls_is_configurable() {
    let transmitter = Transmitter::new().await;
    let _api = api(&transmitter, |stream| stream.authorization("Bearer s3cret")).await;
    until(|| !transmitter.polls().is_empty()).await;
    assert_eq!(transmitter.header("authorization").as_deref(), Some("Bearer s3cret"));
}

#[tokio::test]
async fn service_token_is_replaced_after_401() {
    let (transmitter, world) = (Transmitter::new().await, World::new().await);
    world.provider.register_client(Client::new("wave", "secret").scopes("ssf.read"));
    let client = TokenExchangeClient::builder(world.provider.issuer()).allow_loopback_http(true);
    let client = client.client_auth(ClientAuth::basic("wave", "secret")).clock(world.clock.clone());
    let client = client.build().unwrap();
    let auth = world.auth().build().unwrap();
    let stream = EventStream::poll(world.provider.issuer(), AUDIENCE, transmitter.url());
    let request = ServiceTokenRequest::default().scopes("ssf.read".parse().unwrap());
    let stream = stream.service_token(client, request);
    let _endpoints = auth.endpoints().security_events(stream).build().unwrap();
    let until = async |mut reached: Box<dyn FnMut() -> bool + '_>| {
        eventually(async || {
            world.clock.advance(Duration::from_millis(500));
            reached()
        })
        .await;
    };
    until(Box::new(|| transmitter.waiting() == 1)).await;
    let first = transmitter.header("authorization").unwrap();
    assert!(first.starts_with("Bearer ey"), "{first}");
    // The service does not replace a token younger than ten seconds.
    world.clock.advance(Duration::from_secs(10));
    transmitter.set_mode(Mode::Status(401));
    until(Box::new(|| transmitter.header("authorization").as_ref() != Some(&first))).await;
    transmitter.set_mode(Mode::Works);
    until(Box::new(|| transmitter.waiting() == 1)).await;
    let last = transmitter.header("authorization");
    assert!(last.is_some() && last.as_ref() != Some(&first), "{last:?}");
}

#[test]
fn polling_settings_are_checked() {
    let build = |stream: EventStream| -> Result<_, ConfigError> {
        let auth = Auth::builder().issuer("https://id.example").audience("docs").build()?;
        auth.endpoints().security_events(stream).build()
    };
    let stream = |url: &str| EventStream::poll("https://id.example", AUDIENCE, url);
    let valid = "https://id.example/poll";
    build(stream(valid)).unwrap();
    build(stream("http://localhost:8080/poll")).unwrap();
    let client = || {
        let client = TokenExchangeClient::builder("https://id.example");
        client.client_auth(ClientAuth::basic("wave", "secret")).build().unwrap()
    };
    let request = ServiceTokenRequest::default;
    let pushed = EventStream::push("https://id.example", AUDIENCE);
    for (stream, problem) in [
        (stream("http://id.example/poll"), "is not https"),
        (stream("ftp://id.example/poll"), "is not https"),
        (stream("/poll"), "is not a URL"),
        (stream("https://u:s3cret@id.example/poll"), "has credentials"),
        (stream(valid).authorization("a\nb"), "no header can have"),
        (
            stream(valid).authorization("Bearer x").service_token(client(), request()),
            "set only one",
        ),
        (pushed.service_token(client(), request()), "only a polled stream"),
    ] {
        let error = build(stream).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}
