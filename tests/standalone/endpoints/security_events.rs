//! Security events that a provider pushes (RFC 8417, RFC 8935, CAEP, RISC).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use scaikey_auth::Auth;
use scaikey_auth::endpoints::{
    Endpoint, EndpointsBuilder, EventHandler, EventStream, SecurityEvent,
};
use scaikey_auth::error::BoxError;
use scaikey_auth::testing::{TestIssuer, TokenBuilder};
use serde_json::{Value, json};

use super::env::MINUTE;
use super::reported::{Api, Flaky, post, serve, with_log};
use crate::support::{Answer, Log, Server, mock, request};

pub(super) const PATH: &str = "/v1/auth/events";
pub(super) const AUDIENCE: &str = "https://wave.example/events";
/// Adds a stream to the builder.
type Addition = fn(EndpointsBuilder, EventStream) -> EndpointsBuilder;

pub(super) const SET: (&str, &str) = ("content-type", "application/secevent+jwt");
pub(super) const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type";
pub(super) const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type";

/// An API with a stream of its first issuer.
pub(super) async fn api() -> Api {
    api_with(|stream| stream).await
}

async fn api_with(set: impl FnOnce(EventStream) -> EventStream) -> Api {
    Api::with_issuer(|issuer, endpoints| {
        endpoints.security_events(set(EventStream::push(issuer, AUDIENCE)))
    })
    .await
}

/// A security event token with one event about the subject.
pub(super) fn event(
    issuer: &TestIssuer,
    event_type: &str,
    payload: Value,
    subject: Value,
) -> TokenBuilder {
    let token = issuer.token().without("sub").without("tenant_id").without("exp");
    let token = token.without("preferred_username").without("email");
    let token = token.typ(Some("secevent+jwt")).audience(AUDIENCE).claim("sub_id", subject);
    token.claim("events", json!({ event_type: payload }))
}

pub(super) fn alice(issuer: &TestIssuer) -> Value {
    json!({ "format": "iss_sub", "iss": issuer.issuer(), "sub": "alice" })
}

pub(super) fn session_revoked(issuer: &TestIssuer) -> TokenBuilder {
    event(issuer, &format!("{CAEP}/session-revoked"), json!({}), alice(issuer))
}

async fn push_to(server: &Server, token: &str) -> Answer {
    post(server, PATH, &[SET], token).await
}

pub(super) async fn push(api: &Api, token: TokenBuilder) -> Answer {
    push_to(&api.server, &token.sign()).await
}

#[track_caller]
pub(super) fn assert_accepted(answer: &Answer) {
    assert_eq!((answer.status, answer.body.as_str()), (202, ""), "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[track_caller]
pub(super) fn assert_error(answer: &Answer, code: &str) {
    assert_eq!(answer.status, 400, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["err"], code, "{answer:?}");
    assert!(body["description"].is_string() && body.as_object().unwrap().len() == 2, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("content-language"), "en");
    assert_eq!(answer.header("cache-control"), "no-store");
}

/// Alice's access tokens in acme: of session 17, and without one. One in globex, and one of bob in acme.
pub(super) fn access_tokens(issuer: &TestIssuer) -> [String; 4] {
    let alice = || issuer.token().subject("alice");
    [
        alice().tenant("acme").claim("sid", "17").sign(),
        alice().tenant("acme").sign(),
        alice().tenant("globex").claim("sid", "18").sign(),
        issuer.token().subject("bob").tenant("acme").sign(),
    ]
}

pub(super) async fn statuses(api: &Api, tokens: &[String; 4]) -> [u16; 4] {
    api.statuses(tokens.each_ref().map(String::as_str)).await
}

#[tokio::test]
async fn events_refuse_the_tokens_they_mean() {
    let opaque = |id: &str| json!({ "format": "opaque", "id": id });
    let complex = |members: Value| {
        let mut complex = json!({ "format": "complex" });
        complex.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        complex
    };
    let user = json!({ "format": "iss_sub", "iss": "ISSUER", "sub": "alice" });
    let session = (format!("{CAEP}/session-revoked"), json!({}));
    let claims = (format!("{CAEP}/token-claims-change"), json!({ "claims": {} }));
    let deleted = (format!("{CAEP}/credential-change"), json!({ "change_type": "delete" }));
    let created = (format!("{CAEP}/credential-change"), json!({ "change_type": "create" }));
    let weaker =
        (format!("{CAEP}/assurance-level-change"), json!({ "change_direction": "decrease" }));
    let device =
        (format!("{CAEP}/device-compliance-change"), json!({ "current_status": "not-compliant" }));
    let disabled = (format!("{RISC}/account-disabled"), json!({ "reason": "hijacking" }));
    let all = (format!("{RISC}/sessions-revoked"), json!({}));
    let other = ("urn:example:event".to_owned(), json!({}));
    let (of_alice, of_none) = ([401, 401, 401, 200], [200; 4]);
    for ((event_type, payload), subject, expected) in [
        (&session, user.clone(), of_alice),
        (&session, complex(json!({ "user": user, "session": opaque("17") })), [401, 401, 200, 200]),
        (&session, complex(json!({ "session": opaque("17") })), [401, 200, 200, 200]),
        (&session, opaque("17"), [401, 200, 200, 200]),
        (&session, opaque("alice"), of_alice),
        (
            &session,
            complex(json!({ "user": user, "tenant": opaque("acme") })),
            [401, 401, 200, 200],
        ),
        (&session, complex(json!({ "tenant": opaque("acme") })), [401, 401, 200, 401]),
        (&claims, user.clone(), of_alice),
        (&deleted, user.clone(), of_alice),
        (&created, user.clone(), of_none),
        (&weaker, user.clone(), of_alice),
        (&device, user.clone(), of_none),
        (&disabled, user.clone(), of_alice),
        (&all, opaque("alice"), of_alice),
        (&other, user.clone(), of_none),
        (&disabled, complex(json!({ "tenant": opaque("acme") })), of_none),
        // An e-mail address is no identity.
        (&disabled, json!({ "format": "email", "email": "alice" }), of_none),
        (&disabled, json!({ "format": "phone_number", "phone_number": "alice" }), of_none),
    ] {
        let api = api().await;
        let issuer = &api.world.provider;
        let subject = subject.to_string().replace("ISSUER", &issuer.issuer());
        let subject = serde_json::from_str(&subject).unwrap();
        let name = format!("{event_type} {subject}");
        let tokens = access_tokens(issuer);
        assert_eq!(statuses(&api, &tokens).await, of_none, "{name}");
        assert_accepted(&push(&api, event(issuer, event_type, payload.clone(), subject)).await);
        assert_eq!(statuses(&api, &tokens).await, expected, "{name}");
    }
}

#[tokio::test]
async fn draft_layouts_are_understood() {
    let api = api().await;
    let tokens = access_tokens(&api.world.provider);
    let mut subject = alice(&api.world.provider);
    subject.as_object_mut().unwrap().remove("format");
    subject["subject_type"] = json!("iss-sub");
    let payload = json!({ "subject": subject, "reason": "hijacking" });
    let token = event(&api.world.provider, &format!("{RISC}/account-disabled"), payload, json!({}));
    assert_accepted(&push(&api, token.without("sub_id")).await);
    assert_eq!(statuses(&api, &tokens).await, [401, 401, 401, 200]);
}

#[tokio::test]
async fn tokens_after_the_event_are_accepted() {
    let api = api().await;
    let happened_at = api.now();
    let before = access_tokens(&api.world.provider);
    api.advance(60);
    let after = access_tokens(&api.world.provider);
    api.advance(60);
    let payload = json!({ "event_timestamp": happened_at });
    let token = event(
        &api.world.provider,
        &format!("{CAEP}/session-revoked"),
        payload,
        alice(&api.world.provider),
    );
    assert_accepted(&push(&api, token).await);
    assert_eq!(statuses(&api, &before).await, [401, 401, 401, 200]);
    assert_eq!(statuses(&api, &after).await, [200; 4]);
    // The time of the token's events counts as well, and neither can be later than the token.
    assert_accepted(
        &push(&api, session_revoked(&api.world.provider).claim("toe", happened_at)).await,
    );
    assert_eq!(statuses(&api, &after).await, [200; 4]);
    let future = session_revoked(&api.world.provider);
    let future = future.claim("toe", happened_at * 1000).claim("iat", happened_at + 1_000_000);
    assert_accepted(&push(&api, future).await);
    assert_eq!(statuses(&api, &after).await, [401, 401, 401, 200]);
    api.advance(10);
    assert_eq!(statuses(&api, &access_tokens(&api.world.provider)).await, [200; 4]);
}

type Change = fn(TokenBuilder) -> TokenBuilder;

#[tokio::test]
async fn violations_are_refused_with_codes() {
    let table: &[(&str, &str, Change)] = &[
        ("no typ", "invalid_request", |it| it.typ(None)),
        ("typ JWT", "invalid_request", |it| it.typ(Some("JWT"))),
        ("typ of a logout token", "invalid_request", |it| it.typ(Some("logout+jwt"))),
        ("typ of an access token", "invalid_request", |it| it.typ(Some("at+jwt"))),
        ("no iss", "invalid_request", |it| it.without("iss")),
        ("unknown iss", "invalid_issuer", |it| it.issuer("https://elsewhere.example")),
        ("no aud", "invalid_request", |it| it.without("aud")),
        ("another aud", "invalid_audience", |it| it.audience("scaiwave")),
        ("empty aud", "invalid_audience", |it| it.claim("aud", json!([]))),
        ("aud of another type", "invalid_request", |it| it.claim("aud", json!([AUDIENCE, 7]))),
        ("no jti", "invalid_request", |it| it.without("jti")),
        ("empty jti", "invalid_request", |it| it.claim("jti", "")),
        ("no iat", "invalid_request", |it| it.without("iat")),
        ("iat of another type", "invalid_request", |it| it.claim("iat", "now")),
        ("expired", "invalid_request", |it| it.claim("exp", 1)),
        ("no events", "invalid_request", |it| it.without("events")),
        ("events is empty", "invalid_request", |it| it.claim("events", json!({}))),
        ("events is a list", "invalid_request", |it| it.claim("events", json!([{}]))),
        ("an event is a text", "invalid_request", |it| it.claim("events", json!({ "urn:x": "" }))),
        ("subject is a text", "invalid_request", |it| it.claim("sub_id", "alice")),
        ("subject without members", "invalid_request", |it| {
            it.claim("sub_id", json!({ "format": "iss_sub" }))
        }),
        ("subject of another issuer", "access_denied", |it| {
            let iss = "https://elsewhere.example";
            it.claim("sub_id", json!({ "format": "iss_sub", "iss": iss, "sub": "alice" }))
        }),
        ("alg none", "invalid_key", |it| it.header("alg", "none")),
        ("alg of another key", "invalid_key", |it| it.header("alg", "RS256")),
        ("unknown key", "invalid_key", |it| it.kid(Some("unknown"))),
        ("a critical extension", "invalid_request", |it| it.header("crit", json!(["exp"]))),
    ];
    let api = api().await;
    let tokens = access_tokens(&api.world.provider);
    for (name, code, change) in table {
        let answer = push(&api, change(session_revoked(&api.world.provider))).await;
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
        assert_eq!(answer.json()["err"], *code, "{name}: {answer:?}");
        assert_error(&answer, code);
    }
    let known = api.world.provider.key();
    let forged = session_revoked(&api.world.provider).signed_by(&api.other.key());
    let forged = forged.kid(Some(known.kid()));
    assert_error(&push(&api, forged).await, "invalid_key");
    let none = session_revoked(&api.world.provider).header("alg", "none").sign();
    let unsigned = format!("{}.", none.rsplit_once('.').unwrap().0);
    assert_error(&push_to(&api.server, &unsigned).await, "invalid_key");
    for body in ["", "x", "a.b.c", "{}"] {
        assert_error(&push_to(&api.server, body).await, "invalid_request");
    }
    let token = session_revoked(&api.world.provider).sign();
    let json = [("content-type", "application/json")];
    assert_error(&post(&api.server, PATH, &json, token.as_str()).await, "invalid_request");
    assert_eq!(statuses(&api, &tokens).await, [200; 4]);
    assert_eq!(api.entries(), 0);
    let answer = api.server.send(request("GET", PATH, &[])).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    // One fault of several events: none is in force.
    let events = json!({
        format!("{CAEP}/session-revoked"): { "sub_id": alice(&api.world.provider) },
        format!("{RISC}/sessions-revoked"): { "sub_id": "alice" },
    });
    let two = session_revoked(&api.world.provider).without("sub_id").claim("events", events);
    assert_error(&push(&api, two).await, "invalid_request");
    assert_eq!(api.entries(), 0);
}

#[tokio::test]
async fn issuers_report_only_their_own_users() {
    let api = Api::with_issuer(|issuer, endpoints| {
        let other = format!("{}/other", issuer.trim_end_matches('/'));
        let stream = EventStream::push(other, AUDIENCE).authorization("Bearer other");
        endpoints.security_events(EventStream::push(issuer, AUDIENCE)).security_events(stream)
    })
    .await;
    let (ours, theirs) = (access_tokens(&api.world.provider), access_tokens(&api.other));
    let headers = [SET, ("authorization", "Bearer other")];
    let push_other =
        async |token: TokenBuilder| post(&api.server, PATH, &headers, token.sign()).await;
    let about_ours = session_revoked(&api.other).claim("sub_id", alice(&api.world.provider));
    assert_error(&push_other(about_ours).await, "access_denied");
    assert_error(&push_other(session_revoked(&api.other).issuer("x")).await, "invalid_issuer");
    // The header of one stream does not count for the other.
    assert_error(&push(&api, session_revoked(&api.other)).await, "authentication_failed");
    assert_eq!(statuses(&api, &theirs).await, [200; 4]);
    assert_accepted(&push_other(session_revoked(&api.other)).await);
    assert_eq!(statuses(&api, &theirs).await, [401, 401, 401, 200]);
    assert_eq!(statuses(&api, &ours).await, [200; 4]);
}

#[tokio::test]
async fn authorization_header_must_be_exact() {
    let api = api_with(|stream| stream.authorization("Bearer s3cret")).await;
    let token = session_revoked(&api.world.provider).sign();
    for value in ["", "Bearer s3cre", "bearer s3cret", "Bearer s3cretx", "s3cret"] {
        let answer =
            post(&api.server, PATH, &[SET, ("authorization", value)], token.as_str()).await;
        assert_error(&answer, "authentication_failed");
    }
    assert_error(&push_to(&api.server, &token).await, "authentication_failed");
    // Before the token is looked at.
    assert_error(&push_to(&api.server, "x").await, "authentication_failed");
    let right = ("authorization", "Bearer s3cret");
    let twice = post(&api.server, PATH, &[SET, right, right], token.as_str()).await;
    assert_error(&twice, "authentication_failed");
    assert_accepted(&post(&api.server, PATH, &[SET, right], token.as_str()).await);
}

/// A handler that records, and can fail.
#[derive(Debug, Clone, Default)]
struct Recorder {
    heard: Arc<Mutex<Vec<String>>>,
    fails: Arc<AtomicBool>,
}

#[async_trait]
impl EventHandler for Recorder {
    async fn handle(&self, event: &SecurityEvent<'_>) -> Result<(), BoxError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err("the queue is full".into());
        }
        assert!(event.occurred_at > UNIX_EPOCH && !event.token_id.is_empty());
        assert!(!format!("{event:?}").contains("alice"));
        let (name, subject) = (event.event_type, event.subject.unwrap_or(&Value::Null));
        let name = name.rsplit('/').next().unwrap_or_default();
        let text = format!("{name} {} {} {}", event.payload, subject["sub"], event.has_revoked);
        self.heard.lock().unwrap().push(text);
        Ok(())
    }
}

#[tokio::test]
async fn handler_hears_of_every_event_once() {
    let (handler, log) = (Recorder::default(), Log::start());
    let own = handler.clone();
    let api = api_with(|stream| stream.handler(own)).await;
    let issuer = &api.world.provider;
    let verification = |state: &str| {
        event(
            issuer,
            &format!("{SSF}/verification"),
            json!({ "state": state }),
            json!({ "format": "opaque", "id": "stream" }),
        )
    };
    handler.fails.store(true, Ordering::SeqCst);
    let token = verification("VGhpcw").sign();
    for _ in 0..2 {
        let answer = push_to(&api.server, &token).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, "5"), "{answer:?}");
        assert!(!answer.body.contains("queue"), "{answer:?}");
    }
    handler.fails.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        assert_accepted(&push_to(&api.server, &token).await);
    }
    let warnings = log.lines("WARN");
    let about = warnings.iter().filter(|line| line.contains("the queue is full"));
    assert_eq!(about.count(), 1, "{warnings:#?}");
    assert!(log.text().contains("handler of security events works again"));
    assert_accepted(&push(&api, session_revoked(issuer)).await);
    let foreign = json!({ "format": "iss_sub", "iss": "https://elsewhere.example", "sub": "eve" });
    assert_accepted(&push(&api, event(issuer, "urn:other", json!({ "x": 1 }), foreign)).await);
    let expected = [
        r#"verification {"state":"VGhpcw"} null false"#,
        r#"session-revoked {} "alice" true"#,
        r#"urn:other {"x":1} "eve" false"#,
    ];
    assert_eq!(*handler.heard.lock().unwrap(), expected);
    assert!(!log.text().contains("alice"), "{}", log.text());
}

/// A handler that gives way to other tasks before it ends.
#[derive(Debug, Clone, Default)]
struct Slow {
    calls: Arc<AtomicUsize>,
    fails: bool,
}

#[async_trait]
impl EventHandler for Slow {
    async fn handle(&self, _: &SecurityEvent<'_>) -> Result<(), BoxError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
        if self.fails && call == 0 { Err("the first call fails".into()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn simultaneous_deliveries_are_handled_once() {
    for fails in [false, true] {
        let handler = Slow { fails, ..Slow::default() };
        let own = handler.clone();
        let api = api_with(|stream| stream.handler(own)).await;
        let token = session_revoked(&api.world.provider).sign();
        let deliveries = (0..10).map(|_| push_to(&api.server, &token));
        let answers = futures_util::future::join_all(deliveries).await;
        // Deliveries that came while the first one failed are repeated by the provider.
        let accepted = answers.iter().filter(|it| it.status == 202).count();
        let failed = answers.iter().filter(|it| it.status == 503).count();
        assert_eq!(accepted + failed, 10, "{answers:?}");
        assert_eq!(failed > 0, fails, "{answers:?}");
        assert_accepted(&push_to(&api.server, &token).await);
        assert_eq!(handler.calls.load(Ordering::SeqCst), 1 + usize::from(fails));
    }
}

#[tokio::test]
async fn replay_ends_nothing_new() {
    let log = Flaky::default();
    let shared = log.clone();
    let api = Api::with_issuer_and(
        |auth| with_log(auth, shared),
        |issuer, endpoints| endpoints.security_events(EventStream::push(issuer, AUDIENCE)),
    )
    .await;
    let token = session_revoked(&api.world.provider).sign();
    log.is_full.store(true, Ordering::SeqCst);
    assert_eq!(push_to(&api.server, &token).await.status, 503);
    log.is_full.store(false, Ordering::SeqCst);
    assert_accepted(&push_to(&api.server, &token).await);
    let logged = log.log.len();
    api.advance(3600);
    let later = access_tokens(&api.world.provider);
    assert_accepted(&push_to(&api.server, &token).await);
    assert_eq!(log.log.len(), logged);
    // A process that has not seen it.
    let auth = with_log(api.world.auth(), log.clone()).build().unwrap();
    let issuer = api.issuer();
    let server = serve(&auth, |it| it.security_events(EventStream::push(issuer, AUDIENCE))).await;
    assert_accepted(&push_to(&server, &token).await);
    for token in &later {
        assert_eq!(server.get_as("/", token).await.status, 200);
    }
    assert_eq!(statuses(&api, &later).await, [200; 4]);
}

#[tokio::test]
async fn event_token_is_no_bearer_token() {
    let api = api().await;
    let valid = || session_revoked(&api.world.provider).audience("scaiwave").expires_in(MINUTE);
    for typ in [Some("secevent+jwt"), Some("JWT"), None] {
        assert_eq!(api.status(&valid().subject("alice").typ(typ).sign()).await, 401, "{typ:?}");
    }
}

#[test]
fn settings_are_checked() {
    let auth = || Auth::builder().issuer("https://id.example").audience("docs").build().unwrap();
    let stream = || EventStream::push("https://id.example", AUDIENCE);
    let build = |change: Addition| change(auth().endpoints(), stream()).build();
    let endpoints = build(|it, stream| it.security_events(stream)).unwrap();
    assert!(endpoints.enabled().contains(&Endpoint::Events));
    assert!(!auth().endpoints().build().unwrap().enabled().contains(&Endpoint::Events));
    let table: [(&str, Addition); 4] = [
        ("is not an issuer of this service", |it, _| {
            it.security_events(EventStream::push("https://elsewhere.example", AUDIENCE))
        }),
        ("has no audience", |it, _| {
            it.security_events(EventStream::push("https://id.example", ""))
        }),
        ("no header can have", |it, stream| it.security_events(stream.authorization("a\nb"))),
        ("is set twice", |it, stream| it.security_events(stream.clone()).security_events(stream)),
    ];
    for (problem, change) in table {
        let error = build(change).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
        assert!(!error.contains("a\nb"), "{error}");
    }
    // In development there is no provider.
    mock().endpoints().security_events(stream()).build().unwrap();
}
