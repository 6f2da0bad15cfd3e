//! Refusals with additional challenges and headers, as custom validators and guards make them.

use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::get;
use http::{HeaderName, HeaderValue, header};
use scaikey_auth::error::{Challenge, InvalidToken, Refusal};
use scaikey_auth::guard::{GuardExt, GuardRequest, guard_fn};
use scaikey_auth::identity::Confirmation;
use scaikey_auth::layer::TokenSource;
use scaikey_auth::proof::{ProofRequest, ProofVerifier, Proven};
use scaikey_auth::replay::{MemoryReplayLog, ReplayKey, ReplayLog};
use scaikey_auth::testing::challenge;
use scaikey_auth::validator::Credentials;
use scaikey_auth::{AuthContext, AuthError, Identity, TokenValidator, scope};

use crate::support::{Answer, Server, Spy, World, request};

const BEARER: &str = r#"Bearer realm="scaiwave""#;
const ALGS: &str = r#"DPoP algs="ES256""#;
const NONCE_CHALLENGE: &str = r#"DPoP algs="ES256", error="use_dpop_nonce""#;
const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

fn dpop() -> Challenge {
    Challenge::new("DPoP").param("algs", "ES256")
}

/// The refusal of a proof without the server's nonce (RFC 9449 §9).
fn nonce_required(nonce: &HeaderValue) -> AuthError {
    AuthError::from(InvalidToken::Unproven)
        .with_challenge(dpop().param("error", "use_dpop_nonce"))
        .with_header(NONCE, nonce.clone())
}

/// A validator that refuses every opaque token and requires a nonce.
#[derive(Debug)]
struct NonceRequired;

#[async_trait]
impl TokenValidator for NonceRequired {
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        !presented.token().contains('.')
    }

    async fn validate(&self, _: &Credentials<'_>) -> Result<Identity, AuthError> {
        Err(nonce_required(&HeaderValue::from_static("n-1")))
    }
}

fn expect_nonce(answer: &Answer) {
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header_lines("www-authenticate"), [BEARER, NONCE_CHALLENGE]);
    assert_eq!(answer.header("dpop-nonce"), "n-1");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.json()["type"], "urn:scaikey-auth:token_invalid");
}

#[tokio::test]
async fn response_contains_challenge_and_headers_of_error() {
    let world = World::new().await;
    let auth = world.auth().validator(NonceRequired).build().unwrap();
    let spy = Spy::default();
    let layers = [auth.layer(), auth.layer().optional()];
    for layer in layers {
        let server = Server::axum(spy.app().layer(layer)).await;
        expect_nonce(&server.get_as("/", "opaque").await);
        let plain = server.get_as("/", "a.b").await;
        assert_eq!(plain.header_lines("www-authenticate").len(), 1, "{plain:?}");
        assert_eq!(plain.header_opt("dpop-nonce"), None);
    }
    assert_eq!(spy.calls(), 0);
}

#[tokio::test]
async fn each_401_names_all_configured_schemes() {
    let world = World::new().await;
    let auth = world.auth().validator(NonceRequired).challenge(dpop()).build().unwrap();
    let app = Router::new()
        .route("/context", get(|_: AuthContext| async {}))
        .route("/option", get(|_: Option<Identity>| async {}))
        .route("/guarded", get(|| async {}).route_layer(auth.require(scope("admin"))))
        .layer(auth.layer().optional());
    let server = Server::axum(app).await;
    for path in ["/context", "/guarded"] {
        let answer = server.get(path, &[]).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header_lines("www-authenticate"), [BEARER, ALGS], "{path}");
    }
    assert_eq!(server.get("/option", &[]).await.status, 200);
    // The challenge of the refusal replaces the configured one.
    expect_nonce(&server.get_as("/option", "opaque").await);
    // A 403 names no other scheme, because another scheme would not give the scope.
    let answer = server.get_as("/guarded", &world.provider.token().sign()).await;
    assert_eq!((answer.status, answer.header_lines("www-authenticate").len()), (403, 1));
}

#[tokio::test]
async fn endpoints_refuse_with_challenges_and_headers() {
    let world = World::new().await;
    let auth = world.auth().validator(NonceRequired).challenge(dpop()).build().unwrap();
    let endpoints = auth.endpoints().build().unwrap();
    let server = Server::axum(Spy::default().app().layer(endpoints)).await;
    let answer = server.get("/v1/auth/whoami", &[]).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header_lines("www-authenticate"), [BEARER, ALGS]);
    expect_nonce(&server.get_as("/v1/auth/whoami", "opaque").await);
}

#[tokio::test]
async fn guard_and_handler_errors_keep_their_challenges() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let refusal = || AuthError::Forbidden { required: "a grant".into() };
    let refusal = move || {
        refusal().with_challenge(Challenge::new("GNAP").param("referrer", "https://wave.example"))
    };
    let guard = guard_fn(move |_: &GuardRequest<'_>| Err(refusal()));
    let app = Router::new()
        .route("/guarded", get(|| async {}).route_layer(auth.require(guard.and(scope("x")))))
        .route("/handler", get(move || async move { Err::<(), _>(refusal()) }))
        .layer(auth.layer());
    let server = Server::axum(app).await;
    let token = world.provider.token().sign();
    let forbidden = format!(r#"{BEARER}, error="insufficient_scope""#);
    let gnap = r#"GNAP referrer="https://wave.example""#;
    let answer = server.get_as("/guarded", &token).await;
    assert_eq!(
        (answer.status, answer.header_lines("www-authenticate")),
        (403, vec![&*forbidden, gnap])
    );
    // The handler does not know the realm.
    let forbidden = r#"Bearer realm="scaikey", error="insufficient_scope""#;
    let answer = server.get_as("/handler", &token).await;
    assert_eq!(
        (answer.status, answer.header_lines("www-authenticate")),
        (403, vec![forbidden, gnap])
    );
}

#[tokio::test]
async fn grpc_refusal_has_headers_and_challenges() {
    let world = World::new().await;
    let auth = world.auth().validator(NonceRequired).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let headers = [("content-type", "application/grpc"), ("authorization", "Bearer opaque")];
    let answer = server.send(request("POST", "/", &headers)).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "16"));
    assert_eq!(answer.header("dpop-nonce"), "n-1");
    assert_eq!(answer.header_lines("www-authenticate"), [BEARER, NONCE_CHALLENGE]);
}

#[tokio::test]
async fn error_response_receives_the_plain_error() {
    let world = World::new().await;
    let auth = world.auth().validator(NonceRequired).build().unwrap();
    let own = |refusal: &Refusal<'_>| {
        assert!(matches!(refusal.error, AuthError::InvalidToken(InvalidToken::Unproven)));
        let response = http::Response::builder().status(refusal.status);
        response.header("dpop-nonce", "old").body("no").unwrap()
    };
    let server = Server::axum(Spy::default().app().layer(auth.layer().respond_with(own))).await;
    let answer = server.get_as("/", "opaque").await;
    assert_eq!((answer.status, &*answer.body, answer.header("dpop-nonce")), (401, "no", "n-1"));
    assert_eq!(answer.header_lines("www-authenticate"), [BEARER, NONCE_CHALLENGE]);
}

/// The token source adds a challenge to the refusal of a request without a token.
#[tokio::test]
async fn request_without_token_stays_anonymous_despite_challenge() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let source = TokenSource::Custom(std::sync::Arc::new(|_| {
        Err(AuthError::MissingCredentials.with_challenge(Challenge::new("ApiKey")))
    }));
    let layer = auth.layer().tokens_from([source]);
    for (layer, status) in [(layer.clone().optional(), 200), (layer, 401)] {
        let server = Server::axum(Spy::default().app().layer(layer)).await;
        assert_eq!(server.get("/", &[]).await.status, status);
    }
}

/// A verifier that accepts each proof once, and only with the server's nonce. `x-proof` has nonce and id.
#[derive(Debug, Default)]
struct OnceWithNonce(MemoryReplayLog);

#[async_trait]
impl ProofVerifier for OnceWithNonce {
    fn accepts(&self, _: &Confirmation) -> bool {
        true
    }

    async fn verify(&self, request: &ProofRequest<'_>) -> Result<Proven, AuthError> {
        let proof = request.head.headers.get("x-proof").and_then(|value| value.to_str().ok());
        let proof = proof.and_then(|proof| proof.split_once(' '));
        let Some((_, id)) = proof.filter(|(nonce, _)| *nonce == "n-1") else {
            return Err(nonce_required(&HeaderValue::from_static("n-1")));
        };
        let until = request.now + std::time::Duration::from_secs(60);
        let key = ReplayKey::new("proof", [&*format!("{:?}", request.confirmation), id]);
        match self.0.first_use(key, until).await {
            Ok(true) => Ok(Proven::new()),
            Ok(false) => Err(InvalidToken::Unproven.into()),
            Err(error) => Err(AuthError::Unavailable {
                component: "replay log",
                retry_after: None,
                source: Some(error.into()),
            }),
        }
    }
}

#[tokio::test]
async fn proof_with_a_nonce_works_once() {
    let world = World::new().await;
    let verifier =
        OnceWithNonce(MemoryReplayLog::with_clock(3, std::sync::Arc::new(world.clock.clone())));
    let auth = world.auth().proof_verifier(verifier).challenge(dpop()).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let thumbprint = "0".repeat(43);
    let token =
        world.provider.token().claim("cnf", serde_json::json!({ "jkt": thumbprint })).sign();
    let bearer = format!("Bearer {token}");
    let send = async |proof: &str| {
        server.get("/", &[("authorization", bearer.as_str()), ("x-proof", proof)]).await
    };
    for old in ["", "n-0 1"] {
        let answer = send(old).await;
        assert_eq!((answer.status, answer.header("dpop-nonce")), (401, "n-1"), "{answer:?}");
        assert_eq!(answer.header_lines("www-authenticate"), [BEARER, NONCE_CHALLENGE]);
    }
    for (proof, status) in [("n-1 1", 200), ("n-1 1", 401), ("n-1 2", 200), ("n-1 3", 200)] {
        assert_eq!(send(proof).await.status, status, "{proof}");
    }
    let invalid = format!(r#"{BEARER}, error="invalid_token""#);
    assert_eq!(send("n-1 1").await.header_lines("www-authenticate"), [&*invalid, ALGS]);
    // The log is full, so it cannot show that the proof is unused.
    let answer = send("n-1 4").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
}

/// The token source puts text of the request into a challenge and a header.
#[tokio::test]
async fn request_text_cannot_escape_challenge_parameter() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let echo = TokenSource::Custom(std::sync::Arc::new(|head| {
        let said = percent_decoded(head.uri.query().unwrap_or_default());
        let challenge = Challenge::new("Echo").param("said", &said);
        let refusal = AuthError::MissingCredentials.with_challenge(challenge);
        Err(match HeaderValue::from_str(&said) {
            Ok(value) => refusal.with_header(HeaderName::from_static("x-said"), value),
            Err(_) => refusal,
        })
    }));
    let server = Server::axum(Spy::default().app().layer(auth.layer().tokens_from([echo]))).await;
    for (query, expected) in [
        ("a", "a"),
        ("a%22,%20Basic%20realm=%22b", r#"a", Basic realm="b"#),
        ("%5C%22%5C", r#"\"\"#),
        ("a%0D%0ASet-Cookie:%20b=c", "a??Set-Cookie: b=c"),
        ("%00%7F%C3%A9", "???"),
    ] {
        let answer = server.get(&format!("/?{query}"), &[]).await;
        assert_eq!((answer.status, answer.header_opt("set-cookie")), (401, None), "{answer:?}");
        let [bearer, echo] = answer.header_lines("www-authenticate")[..] else {
            panic!("{answer:?}")
        };
        assert_eq!(bearer, BEARER);
        let challenges = challenge::parse(echo).unwrap();
        assert_eq!(challenges.len(), 1, "{echo}");
        assert_eq!(challenges[0].param("said"), Some(expected), "{echo}");
    }
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A refusal that sets `Cache-Control`, `Retry-After` and `WWW-Authenticate` itself.
fn with_layer_headers() -> AuthError {
    AuthError::from(InvalidToken::Expired)
        .with_header(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"))
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("99"))
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Mine"))
        .with_header(NONCE, HeaderValue::from_static("n-1"))
}

#[tokio::test]
async fn refusal_cannot_set_layer_headers() {
    let auth = World::new().await.auth().build().unwrap();
    let headers = auth.layer().refusal(&with_layer_headers(), false).headers().clone();
    let lines: Vec<_> = headers.get_all(header::WWW_AUTHENTICATE).iter().collect();
    assert!(matches!(*lines, [line] if line.to_str().unwrap().starts_with(BEARER)), "{lines:?}");
    assert_eq!(headers.get(header::RETRY_AFTER), None);
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(headers[NONCE], "n-1");
}

#[test]
fn error_from_handler_is_not_cacheable() {
    let answer = with_layer_headers().into_response();
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.headers().get(header::RETRY_AFTER), None);
    let lines: Vec<_> = answer.headers().get_all(header::WWW_AUTHENTICATE).iter().collect();
    assert!(matches!(*lines, [line] if line.to_str().unwrap().starts_with("Bearer ")), "{lines:?}");
    assert_eq!(answer.headers()[NONCE], "n-1");
}

#[test]
fn handler_503_has_no_challenge() {
    let error = AuthError::Unavailable { component: "keys", retry_after: None, source: None };
    let answer = error.with_challenge(dpop()).into_response();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()[header::RETRY_AFTER].as_bytes()),
        (503, &b"1"[..])
    );
    assert_eq!(answer.headers().get(header::WWW_AUTHENTICATE), None);
}

#[test]
fn handler_429_has_retry_after() {
    let answer = AuthError::TooManyRequests { retry_after: Duration::from_secs(7) }.into_response();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()[header::RETRY_AFTER].as_bytes()),
        (429, &b"7"[..])
    );
}
