//! Requests without a token: optional authentication and CORS preflights.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use hyper::body::Frame;
use scaikey_auth::{AuthContext, AuthLayer, Identity, Tenant, scope};

use crate::support::{Server, Spy, World, request};

async fn describe_caller(
    identity: Option<Identity>,
    tenant: Option<Tenant>,
    context: Option<AuthContext>,
) -> String {
    assert_eq!(identity.is_some(), context.is_some());
    let identity =
        identity.map_or("anonymous".to_owned(), |identity| identity.subject().to_owned());
    let tenant = tenant.map_or("no-tenant".to_owned(), |tenant| tenant.id().to_string());
    format!("{identity} {tenant}")
}

async fn server(layer: AuthLayer) -> Server {
    Server::axum(Router::new().fallback(any(describe_caller)).layer(layer)).await
}

#[tokio::test]
async fn optional_layer_refuses_invalid_tokens() {
    let world = World::new().await;
    let server = server(world.auth().build().unwrap().layer().optional()).await;
    let token = world.provider.token();
    for (authorization, status, body) in [
        (None, 200, Some("anonymous no-tenant")),
        (Some("Basic eA==".to_owned()), 200, Some("anonymous no-tenant")),
        (Some(format!("Bearer {}", token.clone().sign())), 200, Some("alice-id tenant-1")),
        (Some(format!("Bearer {}", token.clone().expired().sign())), 401, None),
        (Some(format!("Bearer {}", token.without("tenant_id").sign())), 403, None),
        (Some("Bearer garbage".to_owned()), 401, None),
        (Some("Bearer".to_owned()), 400, None),
    ] {
        let headers: Vec<_> = authorization.iter().map(|a| ("authorization", a.as_str())).collect();
        let answer = server.get("/", &headers).await;
        assert_eq!(answer.status, status, "{authorization:?}");
        if let Some(body) = body {
            assert_eq!(answer.body, body);
        }
    }
}

#[tokio::test]
async fn extractor_refusal_has_challenge_of_layer() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let strict = |identity: Identity| async move { identity.subject().to_owned() };
    let app = Router::new().fallback(any(strict)).layer(auth.layer().optional());
    let server = Server::axum(app).await;
    let answer = server.get("/", &[]).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header_opt("www-authenticate"), Some(r#"Bearer realm="scaiwave""#));
}

const PREFLIGHT: [(&str, &str); 3] = [
    ("origin", "https://app.example"),
    ("access-control-request-method", "POST"),
    ("access-control-request-headers", "authorization"),
];

#[tokio::test]
async fn only_complete_preflights_pass() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let server = server(auth.layer()).await;
    let table = [
        ("OPTIONS", &PREFLIGHT[..], 200),
        ("OPTIONS", &PREFLIGHT[..2], 200),
        ("OPTIONS", &PREFLIGHT[..1], 401),
        ("OPTIONS", &PREFLIGHT[1..], 401),
        ("OPTIONS", &[], 401),
        ("GET", &PREFLIGHT[..], 401),
        ("POST", &PREFLIGHT[..], 401),
    ];
    for (method, headers, status) in table {
        let answer = server.send(request(method, "/", headers)).await;
        assert_eq!(answer.status, status, "{method} {headers:?}");
        if status == 200 {
            assert_eq!(answer.body, "anonymous no-tenant");
        }
    }
}

#[tokio::test]
async fn preflight_with_token_passes_as_anonymous() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let app = Router::new()
        .fallback(any(describe_caller))
        .layer(auth.require(scope("admin")))
        .layer(auth.layer());
    let server = Server::axum(app).await;
    let token = format!("Bearer {}", world.provider.token().sign());
    let mut headers = PREFLIGHT.to_vec();
    headers.push(("authorization", &token));
    let answer = server.send(request("OPTIONS", "/", &headers)).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "anonymous no-tenant"));
}

#[tokio::test]
async fn refuse_preflights_answers_401() {
    let world = World::new().await;
    let server = server(world.auth().build().unwrap().layer().refuse_preflights()).await;
    let answer = server.send(request("OPTIONS", "/", &PREFLIGHT)).await;
    assert_eq!((answer.status, answer.error()), (401, None));
}

/// Browsers send no body with a preflight (Fetch §4.8). A request with a body is an ordinary
/// request, whose handler might process it.
#[tokio::test]
async fn preflight_with_body_needs_token() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let spy = Spy::default();
    let app = spy.app().layer(auth.require(scope("admin"))).layer(auth.layer());
    let server = Server::axum(app.clone()).await;
    let mut with_body = request("OPTIONS", "/", &PREFLIGHT);
    *with_body.body_mut() = "delete=everything";
    assert_eq!(server.send(with_body).await.status, 401);
    for more in [("content-length", "1"), ("transfer-encoding", "chunked"), ("upgrade", "x")] {
        let headers = [&PREFLIGHT[..], &[more]].concat();
        let request = request("OPTIONS", "/", &headers).map(|_| Body::empty());
        let answer = tower::ServiceExt::oneshot(app.clone(), request).await.unwrap();
        assert_eq!(answer.status(), 401, "{more:?}");
    }
    // HTTP/2 allows a body without an announced length.
    let unannounced = request("OPTIONS", "/", &PREFLIGHT).map(|_| Body::new(Unannounced));
    let answer = tower::ServiceExt::oneshot(app.clone(), unannounced).await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(spy.calls(), 0);
    let headers = [&PREFLIGHT[..], &[("content-length", "0")]].concat();
    let empty = request("OPTIONS", "/", &headers).map(|_| Body::empty());
    assert_eq!(tower::ServiceExt::oneshot(app, empty).await.unwrap().status(), 200);
    assert_eq!(spy.calls(), 1);
}

/// A body of unknown length.
struct Unannounced;

impl hyper::body::Body for Unannounced {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Ready(Some(Ok(Frame::data(bytes::Bytes::from_static(b"x")))))
    }
}
