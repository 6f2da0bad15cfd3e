//! Key-bound tokens: accepted only with a proof in each request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use axum::routing::get;
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Uri};
use scaikey_auth::admission::{Admission, AdmissionCheck, AdmissionRequest};
use scaikey_auth::error::{BoxError, InvalidToken};
use scaikey_auth::identity::Confirmation;
use scaikey_auth::proof::{ProofRequest, ProofVerifier, Proven};
use scaikey_auth::tenant::MemoryTenants;
use scaikey_auth::testing::TokenBuilder;
use scaikey_auth::validator::Credentials;
use scaikey_auth::{Auth, AuthError, Identity, JwksValidator, TokenValidator};
use serde_json::json;

use crate::support::{Answer, Server, Spy, World, request};

const KEY: &str = "the client's key";

fn thumbprint(key: &str) -> [u8; 32] {
    digest(&SHA256, key.as_bytes()).as_ref().try_into().unwrap()
}

/// Returns a token bound to [`KEY`] by this member of `cnf`.
fn bound_by(world: &World, member: &str) -> TokenBuilder {
    let thumbprint = URL_SAFE_NO_PAD.encode(thumbprint(KEY));
    world.provider.token().claim("cnf", json!({ member: thumbprint }))
}

fn bound(world: &World) -> String {
    bound_by(world, "jkt").sign()
}

/// A verifier for tests. It accepts a request whose header `x-key` is the key itself.
#[derive(Debug, Clone, Default)]
struct KeyInHeader {
    calls: Arc<AtomicU64>,
    /// Whether the answer takes an asynchronous call.
    is_slow: bool,
}

impl KeyInHeader {
    fn slow() -> Self {
        Self { is_slow: true, ..Self::default() }
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn check(&self, request: &ProofRequest<'_>) -> Result<Proven, AuthError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let key = request.head.headers.get("x-key").and_then(|value| value.to_str().ok());
        let presented = key.map(|key| Confirmation::JwkThumbprint(thumbprint(key)));
        match presented {
            Some(presented) if presented == *request.confirmation => Ok(Proven::new()),
            _ => Err(InvalidToken::Unproven.into()),
        }
    }
}

#[async_trait]
impl ProofVerifier for KeyInHeader {
    fn accepts(&self, confirmation: &Confirmation) -> bool {
        matches!(confirmation, Confirmation::JwkThumbprint(_))
    }

    fn try_verify(&self, request: &ProofRequest<'_>) -> Option<Result<Proven, AuthError>> {
        (!self.is_slow).then(|| self.check(request))
    }

    async fn verify(&self, request: &ProofRequest<'_>) -> Result<Proven, AuthError> {
        tokio::task::yield_now().await;
        self.check(request)
    }
}

async fn send(server: &Server, token: &str, key: Option<&str>) -> Answer {
    let authorization = format!("Bearer {token}");
    let mut headers = vec![("authorization", authorization.as_str())];
    headers.extend(key.map(|key| ("x-key", key)));
    server.get("/", &headers).await
}

#[track_caller]
fn assert_unproven(answer: &Answer) {
    assert_eq!((answer.status, answer.error().as_deref()), (401, Some("invalid_token")));
    assert_eq!(answer.json()["type"], "urn:scaikey-auth:token_invalid");
}

#[tokio::test]
async fn bound_token_passes_with_its_proof_only() {
    let world = World::new().await;
    for verifier in [KeyInHeader::default(), KeyInHeader::slow()] {
        let auth = world.auth().proof_verifier(verifier.clone()).build().unwrap();
        let spy = Spy::default();
        let server = Server::axum(spy.app().layer(auth.layer())).await;
        let token = bound(&world);
        // The token is new, so the layer also waits for the keys.
        assert_unproven(&send(&server, &token, None).await);
        assert_unproven(&send(&server, &token, Some("another key")).await);
        assert_eq!(send(&server, &token, Some(KEY)).await.status, 200);
        // The token is cached, but each request needs a proof.
        let hits = auth.verified_tokens().stats().hits;
        assert_unproven(&send(&server, &token, None).await);
        assert_unproven(&send(&server, &token, Some("another key")).await);
        assert_eq!(send(&server, &token, Some(KEY)).await.status, 200);
        assert_eq!(auth.verified_tokens().stats().hits, hits + 3, "{verifier:?}");
        assert_eq!((spy.calls(), verifier.calls()), (2, 6));
    }
}

#[tokio::test]
async fn unbound_token_needs_no_proof() {
    let world = World::new().await;
    let verifier = KeyInHeader::default();
    let auth = world.auth().proof_verifier(verifier.clone()).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let token = world.provider.token().sign();
    for key in [None, Some("another key")] {
        assert_eq!(send(&server, &token, key).await.status, 200);
    }
    assert_eq!(verifier.calls(), 0);
}

#[tokio::test]
async fn bound_token_needs_configured_verifier() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer().optional())).await;
    assert_unproven(&send(&server, &bound(&world), Some(KEY)).await);
    assert_eq!(world.provider.jwks_requests(), 0, "no key is fetched");
    assert_eq!(auth.verified_tokens().stats().tokens, 0);
}

#[tokio::test]
async fn unsupported_key_binding_is_refused() {
    let world = World::new().await;
    let verifier = KeyInHeader::default();
    let auth = world.auth().proof_verifier(verifier.clone()).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let token = bound_by(&world, "x5t#S256").sign();
    for _ in 0..2 {
        assert_unproven(&send(&server, &token, Some(KEY)).await);
    }
    assert_eq!(verifier.calls(), 0);
}

/// The certificate that a TLS server puts into the extensions.
#[derive(Clone)]
struct Certificate([u8; 32]);

/// A verifier that records its input, and accepts the certificate of the connection.
#[derive(Debug, Clone, Default)]
struct ConnectionCertificate(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl ProofVerifier for ConnectionCertificate {
    fn accepts(&self, confirmation: &Confirmation) -> bool {
        matches!(confirmation, Confirmation::CertificateThumbprint(_))
    }

    async fn verify(&self, request: &ProofRequest<'_>) -> Result<Proven, AuthError> {
        let printed = format!("{request:?}");
        assert!(!printed.contains(request.token) && !printed.contains("x-seen"), "{printed}");
        let seen = request.head.headers["x-seen"].to_str().unwrap();
        let (method, uri, now) = (request.head.method, request.head.uri, request.now);
        let input = format!("{method} {uri} {seen} {} {now:?}", request.token);
        self.0.lock().unwrap().push(input);
        let presented = request.extensions.get::<Certificate>();
        match presented.map(|it| Confirmation::CertificateThumbprint(it.0)) {
            Some(presented) if presented == *request.confirmation => Ok(Proven::new()),
            _ => Err(InvalidToken::Unproven.into()),
        }
    }
}

#[tokio::test]
async fn verifiers_see_the_request_and_its_connection() {
    let world = World::new().await;
    let verifier = ConnectionCertificate::default();
    let auth = world.auth().proof_verifier(KeyInHeader::default()).proof_verifier(verifier.clone());
    let auth = auth.build().unwrap();
    let app = |key| {
        let app = Spy::default().app().layer(auth.layer());
        app.layer(Extension(Certificate(thumbprint(key))))
    };
    let (own, other) = (Server::axum(app(KEY)).await, Server::axum(app("another")).await);
    let token = bound_by(&world, "x5t#S256").sign();
    let authorization = format!("Bearer {token}");
    let message =
        || request("PUT", "/a/b?c=d", &[("authorization", &authorization), ("x-seen", "yes")]);
    assert_unproven(&other.send(message()).await);
    assert_eq!(own.send(message()).await.status, 200);
    assert_unproven(&other.send(message()).await);
    let now = scaikey_auth::clock::Clock::now(&world.clock);
    let expected = format!("PUT /a/b?c=d yes {token} {now:?}");
    assert_eq!(*verifier.0.lock().unwrap(), vec![expected; 3]);
    // The first verifier still handles its kind of key.
    assert_eq!(send(&own, &bound(&world), Some(KEY)).await.status, 200);
}

#[tokio::test]
async fn handlers_see_the_confirmation() {
    async fn key(identity: Identity) -> String {
        format!("{:?}", identity.confirmation())
    }
    let world = World::new().await;
    let auth = world.auth().proof_verifier(KeyInHeader::default()).build().unwrap();
    let server = Server::axum(Router::new().route("/", get(key)).layer(auth.layer())).await;
    let expected = Some(Confirmation::JwkThumbprint(thumbprint(KEY)));
    for _ in 0..2 {
        let answer = send(&server, &bound(&world), Some(KEY)).await;
        assert_eq!(answer.body, format!("{expected:?}"));
    }
    assert_eq!(send(&server, &world.provider.token().sign(), None).await.body, "None");
}

/// The proof is verified before the tenant, so a sender without the key learns nothing about the tenant.
#[tokio::test]
async fn missing_proof_reveals_nothing_about_tenant() {
    let world = World::new().await;
    for verifier in [KeyInHeader::default(), KeyInHeader::slow()] {
        let auth = world.auth().tenants(MemoryTenants::new()).proof_verifier(verifier);
        let server = Server::axum(Spy::default().app().layer(auth.build().unwrap().layer())).await;
        for _ in 0..2 {
            assert_unproven(&send(&server, &bound(&world), None).await);
            assert_eq!(send(&server, &bound(&world), Some(KEY)).await.status, 403);
        }
    }
}

/// A verifier whose replay log is unavailable.
#[derive(Debug)]
struct Unavailable;

#[async_trait]
impl ProofVerifier for Unavailable {
    fn accepts(&self, _: &Confirmation) -> bool {
        true
    }

    async fn verify(&self, _: &ProofRequest<'_>) -> Result<Proven, AuthError> {
        let source = Some(Arc::from(BoxError::from("secret cause")));
        Err(AuthError::Unavailable { component: "replay log", retry_after: None, source })
    }
}

#[tokio::test]
async fn failing_verifier_answers_503() {
    let world = World::new().await;
    let auth = world.auth().proof_verifier(Unavailable).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let answer = send(&server, &bound(&world), Some(KEY)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert!(!answer.body.contains("secret cause"));
}

/// A verifier that never answers.
#[derive(Debug)]
struct Hangs;

#[async_trait]
impl ProofVerifier for Hangs {
    fn accepts(&self, _: &Confirmation) -> bool {
        true
    }

    async fn verify(&self, _: &ProofRequest<'_>) -> Result<Proven, AuthError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn hanging_verifier_answers_503() {
    let world = World::new().await;
    let auth = world.auth().proof_verifier(Hangs).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let token = bound(&world);
    let sent = tokio::time::timeout(Duration::from_secs(30), send(&server, &token, Some(KEY)));
    let answer = sent.await.expect("the layer answers within its deadline");
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
}

/// A token without a request has no proof, even if it is in the cache of verified tokens.
#[tokio::test]
async fn bound_token_without_request_is_refused() {
    let world = World::new().await;
    let auth = world.auth().proof_verifier(KeyInHeader::default()).build().unwrap();
    let token = bound(&world);
    let is_unproven = async || {
        let result = auth.authenticate(&token).await;
        matches!(result, Err(AuthError::InvalidToken(InvalidToken::Unproven)))
    };
    assert!(is_unproven().await);
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    for _ in 0..2 {
        assert_eq!(send(&server, &token, Some(KEY)).await.status, 200);
    }
    assert!(is_unproven().await);
}

#[tokio::test]
async fn validator_accepts_bound_token_if_allowed() {
    let world = World::new().await;
    let mut config = scaikey_auth::AuthConfig::default();
    config.issuers = vec![world.issuer()];
    config.audience = vec!["scaiwave".to_owned()];
    config.verified_tokens_bytes = 1 << 20;
    let validator = JwksValidator::with_clock(&config, Arc::new(world.clock.clone())).unwrap();
    let token = bound(&world);
    let plain = Credentials::bearer(&token);
    let is_unproven = async || {
        let result = validator.validate(&plain).await;
        matches!(result, Err(AuthError::InvalidToken(InvalidToken::Unproven)))
    };
    assert!(is_unproven().await);
    let identity = validator.validate(&plain.allow_bound()).await.unwrap();
    assert_eq!(identity.confirmation(), Some(&Confirmation::JwkThumbprint(thumbprint(KEY))));
    assert_eq!(validator.verified_tokens().stats().tokens, 1);
    assert!(is_unproven().await, "refused although it is cached");
    let refused = validator.try_validate(&plain).unwrap();
    assert!(matches!(refused, Err(AuthError::InvalidToken(InvalidToken::Unproven))));
}

/// A validator that returns bound identities without permission.
#[derive(Debug)]
struct Careless(JwksValidator);

#[async_trait]
impl TokenValidator for Careless {
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        self.0.accepts(presented)
    }

    async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError> {
        self.0.validate(&presented.allow_bound()).await
    }
}

#[tokio::test]
async fn careless_validator_cannot_admit_bound_tokens() {
    let world = World::new().await;
    let mut config = scaikey_auth::AuthConfig::default();
    config.issuers = vec![world.issuer()];
    config.audience = vec!["scaiwave".to_owned()];
    let validator = JwksValidator::with_clock(&config, Arc::new(world.clock.clone())).unwrap();
    let auth: Auth = world.auth().validator(Careless(validator)).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let token = bound(&world);
    assert_unproven(&send(&server, &token, Some(KEY)).await);
    let bare = auth.authenticate(&token).await.unwrap_err();
    assert!(matches!(bare, AuthError::InvalidToken(InvalidToken::Unproven)));
    assert_eq!(send(&server, &world.provider.token().sign(), None).await.status, 200);
}

#[tokio::test]
async fn endpoints_require_the_proof() {
    let world = World::new().await;
    let auth = world.auth().proof_verifier(KeyInHeader::default()).build().unwrap();
    let endpoints = auth.endpoints().introspection_requires(|_: &scaikey_auth::AuthContext| Ok(()));
    let server = Server::axum(Router::new().layer(endpoints.build().unwrap())).await;
    let (token, plain) = (bound(&world), world.provider.token().sign());
    let authorization = format!("Bearer {token}");
    let whoami = async |key| {
        let headers = [("authorization", authorization.as_str()), ("x-key", key)];
        server.get("/v1/auth/whoami", &headers).await
    };
    for _ in 0..2 {
        assert_unproven(&whoami("another key").await);
        assert_eq!(whoami(KEY).await.json()["subject"], "alice-id");
    }
    // The introspected token has no proof.
    let uri = Uri::from_static("/v1/auth/introspect");
    let body = json!({ "token": token }).to_string();
    let introspection = Request::post(uri).header("authorization", format!("Bearer {plain}"));
    let introspection = introspection.header("content-type", "application/json");
    let answer = server.send(introspection.body(body).unwrap()).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "active": false })));
}

/// A check that denies every caller, and counts its calls.
#[derive(Debug, Clone, Default)]
struct Denies(Arc<AtomicU64>);

#[async_trait]
impl AdmissionCheck for Denies {
    async fn admit(&self, _: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Admission::Deny(InvalidToken::Revoked.into()))
    }
}

#[tokio::test]
async fn admission_check_runs_after_the_proof() {
    let world = World::new().await;
    for verifier in [KeyInHeader::default(), KeyInHeader::slow()] {
        let check = Denies::default();
        let auth = world.auth().admission(check.clone()).proof_verifier(verifier).build().unwrap();
        let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
        for calls in 1..=2 {
            assert_unproven(&send(&server, &bound(&world), None).await);
            let denied = send(&server, &bound(&world), Some(KEY)).await;
            assert_eq!(denied.json()["type"], "urn:scaikey-auth:token_revoked");
            assert_eq!(check.0.load(Ordering::SeqCst), calls);
        }
    }
}
