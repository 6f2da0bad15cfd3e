//! Refusals on the wire: status, challenge, `Retry-After` and body.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use scaikey_auth::error::{BoxError, EmptyBody, Envelope, Grpc, InvalidToken, Refusal, StepUp};
use scaikey_auth::guard::mfa_within;
use scaikey_auth::tenant::MemoryTenants;
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use scaikey_auth::validator::Credentials;
use scaikey_auth::{
    AuthError, Identity, Tenant, TenantId, TenantResolver, TokenValidator, role, scope,
};

use crate::support::{Server, Spy, World, axum_request, mock};

#[tokio::test]
async fn refusal_is_a_problem_with_its_challenge() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let app = Router::new()
        .route("/", get(|| async {}))
        .route("/admin", get(|| async {}).route_layer(auth.require(scope("admin audit"))))
        .route("/boss", get(|| async {}).route_layer(auth.require(role("boss"))))
        .route("/mfa", get(|| async {}).route_layer(auth.require(mfa_within(MAX_AGE))))
        .layer(auth.layer());
    let server = Server::axum(app).await;
    let token = || world.provider.token();
    let bearer = |token: String| format!("Bearer {token}");
    let table = [
        (
            "/",
            None,
            401,
            Some(r#"Bearer realm="scaiwave""#),
            r#"{"type":"urn:scaikey-auth:credentials_missing","title":"Unauthorized","status":401,"detail":"This resource needs a bearer token."}"#,
        ),
        (
            "/",
            Some("Bearer".to_owned()),
            400,
            Some(r#"Bearer realm="scaiwave", error="invalid_request""#),
            r#"{"type":"urn:scaikey-auth:credentials_malformed","title":"Bad Request","status":400,"detail":"The request must carry exactly one well-formed bearer token."}"#,
        ),
        (
            "/",
            Some(bearer(token().expired().sign())),
            401,
            Some(
                r#"Bearer realm="scaiwave", error="invalid_token", error_description="The token has expired""#,
            ),
            r#"{"type":"urn:scaikey-auth:token_expired","title":"Unauthorized","status":401,"detail":"The token has expired."}"#,
        ),
        (
            "/",
            Some(bearer(token().audience("another").sign())),
            401,
            Some(r#"Bearer realm="scaiwave", error="invalid_token""#),
            r#"{"type":"urn:scaikey-auth:token_invalid","title":"Unauthorized","status":401,"detail":"The token is not valid here."}"#,
        ),
        (
            "/",
            Some(bearer(token().without("tenant_id").sign())),
            403,
            None,
            r#"{"type":"urn:scaikey-auth:tenant_missing","title":"Forbidden","status":403,"detail":"The token names no tenant."}"#,
        ),
        (
            "/admin",
            Some(bearer(token().scope("other").sign())),
            403,
            Some(r#"Bearer realm="scaiwave", error="insufficient_scope", scope="admin audit""#),
            r#"{"type":"urn:scaikey-auth:insufficient_scope","title":"Forbidden","status":403,"detail":"The token lacks a scope that this resource needs.","required_scope":"admin audit"}"#,
        ),
        (
            "/boss",
            Some(bearer(token().sign())),
            403,
            Some(r#"Bearer realm="scaiwave", error="insufficient_scope""#),
            r#"{"type":"urn:scaikey-auth:forbidden","title":"Forbidden","status":403,"detail":"The token does not grant access to this resource."}"#,
        ),
        (
            "/mfa",
            Some(bearer(token().sign())),
            401,
            Some(
                r#"Bearer realm="scaiwave", error="insufficient_user_authentication", max_age="300""#,
            ),
            r#"{"type":"urn:scaikey-auth:step_up_required","title":"Unauthorized","status":401,"detail":"A more recent or a stronger sign-in is needed.","max_age":300}"#,
        ),
    ];
    for (path, authorization, status, challenge, body) in table {
        let headers: Vec<_> =
            authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        let answer = server.get(path, &headers).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert_eq!(answer.header_opt("www-authenticate"), challenge, "{path}");
        assert_eq!(answer.header_opt("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header_opt("retry-after"), None);
        assert_eq!(answer.body, body, "{path}");
        assert_eq!(answer.json()["status"], status, "the member equals the HTTP status");
    }
}

const MAX_AGE: Duration = Duration::from_secs(300);

#[tokio::test]
async fn unavailable_keys_give_503_with_retry_after() {
    let world = World::new().await;
    world.provider.fail(ProviderEndpoint::Discovery, Fault::Status(500));
    let auth = world.auth().build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let answer = server.get_as("/", &world.provider.token().sign()).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header_opt("www-authenticate"), None, "another token would not help");
    let seconds: u64 = answer.header_opt("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(
        answer.body,
        r#"{"type":"urn:scaikey-auth:unavailable","title":"Service Unavailable","status":503,"detail":"The token cannot be checked right now. Try again."}"#
    );
}

#[tokio::test]
async fn response_formats_differ_only_in_the_body() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let layer = auth.layer();
    let closure = |refusal: &Refusal<'_>| {
        let mut response = Response::new(refusal.error.reason());
        *response.status_mut() = refusal.status;
        response
    };
    let app = || Spy::default().app();
    let formats = [
        (
            Server::axum(app().layer(layer.clone().respond_with(Envelope::new("SW_AUTH_")))).await,
            Some("application/json"),
            r#"{"error":{"code":"SW_AUTH_TOKEN_EXPIRED","message":"The token has expired."}}"#,
        ),
        (Server::axum(app().layer(layer.clone().respond_with(EmptyBody))).await, None, ""),
        (Server::axum(app().layer(layer.respond_with(closure))).await, None, "token_expired"),
    ];
    let expired = world.provider.token().expired().sign();
    for (server, content_type, body) in formats {
        let answer = server.get_as("/", &expired).await;
        assert_eq!((answer.status, answer.body.as_str()), (401, body));
        assert_eq!(answer.header_opt("content-type"), content_type);
        assert_eq!(answer.error().as_deref(), Some("invalid_token"), "the layer adds it");
    }
}

#[tokio::test]
async fn layer_works_with_plain_hyper() {
    let world = World::new().await;
    let auth = world.auth().realm(r#"say "hi""#).build().unwrap();
    let spy = Spy::default();
    let service = {
        let spy = spy.clone();
        tower::service_fn(move |request: Request<hyper::body::Incoming>| {
            spy.called();
            let context = request.extensions().get::<scaikey_auth::AuthContext>().unwrap();
            let subject = context.identity().subject().to_owned();
            let answer = Response::new(Full::<Bytes>::from(subject));
            async move { Ok::<_, std::convert::Infallible>(answer) }
        })
    };
    let service = tower::ServiceBuilder::new().layer(auth.layer()).service(service);
    let server = Server::hyper(service).await;
    let answer = server.get("/", &[]).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header_opt("www-authenticate"), Some(r#"Bearer realm="say \"hi\"""#));
    assert_eq!(answer.challenge().unwrap().param("realm"), Some(r#"say "hi""#));
    assert_eq!(spy.calls(), 0);
    let answer = server.get_as("/", &world.provider.token().sign()).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "alice-id"));
}

/// A validator that refuses every token with the given error.
#[derive(Debug, Clone)]
struct Refuses(AuthError);

#[async_trait]
impl TokenValidator for Refuses {
    fn accepts(&self, _: &Credentials<'_>) -> bool {
        true
    }

    async fn validate(&self, _: &Credentials<'_>) -> Result<Identity, AuthError> {
        Err(self.0.clone())
    }
}

#[tokio::test]
async fn no_challenge_parameter_occurs_twice() {
    let invalid = [
        InvalidToken::Malformed("a \"quote\"\r\n"),
        InvalidToken::Algorithm,
        InvalidToken::Type,
        InvalidToken::Issuer,
        InvalidToken::Audience,
        InvalidToken::Expired,
        InvalidToken::NotYetValid,
        InvalidToken::MissingClaim("exp"),
        InvalidToken::MalformedClaim("exp"),
        InvalidToken::Key,
        InvalidToken::Signature,
        InvalidToken::Unproven,
        InvalidToken::Revoked,
        InvalidToken::Decryption("why"),
        InvalidToken::Unencrypted,
        InvalidToken::IssuerTenant,
        InvalidToken::Unrecognised,
    ];
    let mut kinds: Vec<AuthError> = invalid.map(AuthError::from).to_vec();
    kinds.extend([
        AuthError::MissingCredentials,
        AuthError::MalformedCredentials("why"),
        AuthError::InsufficientScope { required: "a b".into() },
        AuthError::InsufficientScope { required: "é\r\n\"".into() },
        AuthError::Forbidden { required: "role é\r\n".into() },
        AuthError::UnlistedPath { path: "/é\r\n".into() },
        StepUp::default().max_age(Duration::MAX).acr_values(["x\"y"]).scope("é\r\n").into(),
        AuthError::ForeignOrigin,
        AuthError::TenantMissing,
        AuthError::UnknownTenant,
        AuthError::TenantSuspended,
        AuthError::TenantMismatch,
        AuthError::Unavailable { component: "keys", retry_after: None, source: None },
        AuthError::Unavailable {
            component: "keys",
            retry_after: Some(Duration::ZERO),
            source: None,
        },
        AuthError::Unavailable {
            component: "keys",
            retry_after: Some(Duration::from_millis(1500)),
            source: Some(Arc::from(BoxError::from("secret cause"))),
        },
        AuthError::MissingLayer,
    ]);
    let world = World::new().await;
    for error in kinds {
        let auth = world.auth().validator(Refuses(error.clone())).build().unwrap();
        let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
        let answer = server.get_as("/", "x").await;
        assert_eq!(answer.status, error.status(), "{error:?}");
        assert_eq!(answer.json()["status"], answer.status, "{error:?}");
        assert!(!answer.body.contains("secret cause"));
        // `challenge` fails on a duplicate parameter.
        let challenge = answer.challenge();
        if answer.status == 401 {
            assert_eq!(challenge.unwrap().param("realm"), Some("scaiwave"), "{error:?}");
        }
        assert_eq!(answer.header_opt("retry-after").is_some(), answer.status == 503, "{error:?}");
        if let AuthError::Unavailable { retry_after, .. } = error {
            let half = retry_after.is_some_and(|wait| !wait.is_zero());
            let expected = if half { "2" } else { "1" };
            assert_eq!(answer.header_opt("retry-after"), Some(expected), "rounded up, never 0");
        }
    }
}

/// A tenant resolver that always fails.
#[derive(Debug)]
struct Down;

#[async_trait]
impl TenantResolver for Down {
    async fn resolve(&self, _: &TenantId) -> Result<Option<Tenant>, BoxError> {
        Err("postgres://user:password@db is down".into())
    }
}

#[tokio::test]
async fn response_hides_the_internal_cause() {
    let world = World::new().await;
    let auth = world.auth().tenants(Down).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let answer = server.get_as("/", &world.provider.token().sign()).await;
    assert_eq!(answer.status, 503);
    assert!(!format!("{answer:?}").contains("postgres"), "{answer:?}");
}

#[tokio::test]
async fn custom_response_keeps_its_own_challenge() {
    let auth = mock();
    let own = |refusal: &Refusal<'_>| {
        let response = Response::builder().status(refusal.status);
        response.header("www-authenticate", r#"Bearer realm="own""#).body("").unwrap()
    };
    let app = Spy::default().app().layer(auth.layer().respond_with(own));
    let response = tower::ServiceExt::oneshot(app, axum_request(None)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let challenges: Vec<_> = response.headers().get_all("www-authenticate").iter().collect();
    assert_eq!(challenges, [r#"Bearer realm="own""#]);
}

/// By default caches may store a 404 (RFC 9110 §15.1), and a gRPC status, because it comes with 200.
#[tokio::test]
async fn no_refusal_may_be_cached() {
    let world = World::new().await;
    let empty: MemoryTenants = MemoryTenants::new();
    let auth = world.auth().unknown_tenant_is_not_found().tenants(empty).build().unwrap();
    let careless = |refusal: &Refusal<'_>| {
        let response = Response::builder().status(refusal.status);
        response.header("cache-control", "public, max-age=60").body("").unwrap()
    };
    let guard = |_: &scaikey_auth::AuthContext| Ok(());
    let layer = auth.layer();
    let app = || Spy::default().app();
    let by_extractor = Router::new().fallback(|_: Identity| async {});
    let by_handler = Router::new().fallback(|| async { Err::<(), _>(AuthError::TenantMissing) });
    let apps = [
        app().layer(layer.clone()),
        app().layer(layer.clone().respond_with(EmptyBody)),
        app().layer(layer.clone().respond_with(Envelope::new("X_"))),
        app().layer(layer.clone().respond_with(Grpc)),
        app().layer(layer.clone().respond_with(careless)),
        app().layer(auth.require(guard)),
        app().layer(auth.require(guard)).layer(auth.layer().optional()),
        by_extractor.layer(auth.layer().optional()),
        by_handler,
    ];
    let token = world.provider.token().sign();
    for (nth, app) in apps.into_iter().enumerate() {
        let server = Server::axum(app).await;
        let grpc = [("content-type", "application/grpc")];
        for answer in [
            server.get("/", &[]).await,
            server.get_as("/", &token).await,
            server.get_as("/", "x").await,
            server.send(crate::support::request("POST", "/", &grpc)).await,
        ] {
            let is_refused = answer.status >= 400 || answer.header_opt("grpc-status").is_some();
            let caching = answer.header_opt("cache-control");
            assert!(!is_refused || caching == Some("no-store"), "app {nth}: {answer:?}");
        }
    }
}
