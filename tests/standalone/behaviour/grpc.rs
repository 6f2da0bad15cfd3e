//! The layer around a tonic service, tested with tonic's client.

use http::{HeaderName, HeaderValue};
use scaikey_auth::error::Grpc;
use scaikey_auth::tenant::MemoryTenants;
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use scaikey_auth::{AuthLayer, Identity};
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Server, Spy, World, request};

async fn server(layer: AuthLayer) -> Server {
    let (_, health) = tonic_health::server::health_reporter();
    Server::start(|listener| async move {
        let mut server = tonic::transport::Server::builder().layer(layer.respond_with(Grpc));
        server.add_service(health).serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
    })
    .await
}

async fn check(server: &Server, authorization: Option<&str>) -> Result<i32, tonic::Status> {
    let channel = tonic::transport::Channel::from_shared(server.url()).unwrap();
    let mut client = HealthClient::new(channel.connect().await.unwrap());
    let mut request = Request::new(HealthCheckRequest { service: String::new() });
    if let Some(authorization) = authorization {
        request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    }
    client.check(request).await.map(|answer| answer.into_inner().status)
}

#[tokio::test]
async fn grpc_client_sees_the_matching_status() {
    let world = World::new().await;
    let tenants: MemoryTenants = MemoryTenants::new();
    tenants.insert(scaikey_auth::Tenant::new(crate::support::tenant_id("tenant-1")));
    let auth = world.auth().tenants(tenants).build().unwrap();
    let server = server(auth.layer()).await;
    let bearer = |token: String| Some(format!("Bearer {token}"));
    let table = [
        (None, Err((Code::Unauthenticated, "This resource needs a bearer token."))),
        (
            Some("Bearer".to_owned()),
            Err((
                Code::InvalidArgument,
                "The request must carry exactly one well-formed bearer token.",
            )),
        ),
        (
            bearer(world.provider.token().expired().sign()),
            Err((Code::Unauthenticated, "The token has expired.")),
        ),
        (
            bearer(world.provider.token().tenant("tenant-2").sign()),
            Err((Code::PermissionDenied, "The tenant is not known here.")),
        ),
        (bearer(world.provider.token().sign()), Ok(1)),
    ];
    for (authorization, expected) in table {
        let answer = check(&server, authorization.as_deref()).await;
        let result =
            answer.as_ref().map(|s| *s).map_err(|status| (status.code(), status.message()));
        assert_eq!(result, expected, "{authorization:?}");
    }
}

#[tokio::test]
async fn grpc_client_sees_unavailable_without_keys() {
    let world = World::new().await;
    world.provider.fail(ProviderEndpoint::Discovery, Fault::Status(500));
    let server = server(world.auth().build().unwrap().layer()).await;
    let token = format!("Bearer {}", world.provider.token().sign());
    let status = check(&server, Some(&token)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn one_layer_serves_grpc_and_http_clients() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let grpc = ["application/grpc", "application/grpc+proto", "application/grpc;charset=x"];
    for content_type in grpc {
        let answer = server.send(request("POST", "/", &[("content-type", content_type)])).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
        assert_eq!(answer.header_opt("grpc-status"), Some("16"));
        assert_eq!(answer.header_opt("content-type"), Some("application/grpc"));
    }
    let answer = server.send(request("POST", "/", &[("content-type", "application/json")])).await;
    assert_eq!((answer.status, answer.header_opt("grpc-status")), (401, None));
    // A content type that is not UTF-8 is not gRPC.
    let mut odd = request("POST", "/", &[]);
    odd.headers_mut()
        .insert(HeaderName::from_static("content-type"), HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(server.send(odd).await.status, 401);
}

/// Only a gRPC client understands a refusal with status 200. Other clients would treat it as success, and a
/// cache might store it (RFC 9110 §15.3.1).
#[tokio::test]
async fn only_grpc_requests_are_refused_with_200() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let inner = Spy::default().app().layer(auth.require(|_: &_| Ok(())));
    let servers = [
        Server::axum(Spy::default().app().layer(auth.layer())).await,
        Server::axum(inner.layer(auth.layer().optional())).await,
    ];
    let table = [
        ("GET", "application/grpc"),
        ("PUT", "application/grpc"),
        ("GET", "application/grpcX"),
        ("POST", "application/grpcX"),
        ("POST", "application/grpc-web+proto"),
        ("POST", "application/grpc/x"),
    ];
    for server in &servers {
        for (method, content_type) in table {
            let answer = server.send(request(method, "/", &[("content-type", content_type)])).await;
            let result = (answer.status, answer.header_opt("grpc-status"));
            assert_eq!(result, (401, None), "{method} {content_type}");
        }
    }
}

#[tokio::test]
async fn extractors_refuse_grpc_with_grpc_status() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let strict = |identity: Identity| async move { identity.subject().to_owned() };
    let app = || axum::Router::new().fallback(axum::routing::any(strict));
    let table = [(app().layer(auth.layer().optional()), "16"), (app(), "13")];
    for (app, status) in table {
        let server = Server::axum(app).await;
        let grpc = [("content-type", "application/grpc+proto")];
        let answer = server.send(request("POST", "/", &grpc)).await;
        assert_eq!((answer.status, answer.header_opt("grpc-status")), (200, Some(status)));
        assert_eq!(server.send(request("GET", "/", &grpc)).await.header_opt("grpc-status"), None);
    }
}
