//! Services with and without protection in one server, interceptors, and streams.

use http::HeaderValue;
use scaikey_auth::error::{EmptyBody, Envelope, Grpc, ProblemJson};
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use scaikey_auth::{AuthContext, AuthLayer, scope};
use tonic::service::interceptor::{InterceptedService, InterceptorLayer};
use tonic::service::{LayerExt as _, Routes};
use tonic::{Code, Request, Status};
use tower::ServiceBuilder;

use super::{Client, Texts, channel, health, serve};
use crate::support::{Server, World, request};

/// Serves routes beside a public health service.
async fn beside_health(mut routes: tonic::service::RoutesBuilder) -> Server {
    routes.add_service(tonic_health::server::health_reporter().1);
    serve(routes.routes()).await
}

#[tokio::test]
async fn public_health_stands_beside_protected_service() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let layer = auth.layer().respond_with(Grpc);
    let mut layered = Routes::builder();
    layered.add_service(layer.named_layer(Texts));
    let stack = ServiceBuilder::new()
        .layer(layer)
        .layer(auth.require(scope("texts:read")).respond_with(Grpc));
    let mut stacked = Routes::builder();
    stacked.add_service(stack.named_layer(Texts));
    let token = |scope| world.provider.token().subject("alice").scope(scope).sign();
    for (routes, without_scope) in [(layered, None), (stacked, Some(Code::PermissionDenied))] {
        let server = beside_health(routes).await;
        assert_eq!(health(&server).await, Ok(1));
        let refused = Client::new(&server, None).await.say("Say", "hi").await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert_eq!(refused.message(), "This resource needs a bearer token.");
        let answer = Client::new(&server, Some(token("other"))).await.say("Say", "hi").await;
        assert_eq!(answer.err().map(|status| status.code()), without_scope);
        let answer = Client::new(&server, Some(token("texts:read"))).await.say("Say", "hi").await;
        assert_eq!(answer.unwrap(), "alice: hi");
    }
}

/// Reads the caller, refuses bob, and passes the subject on as metadata.
fn read_caller(mut request: Request<()>) -> Result<Request<()>, Status> {
    let context = request.extensions().get::<AuthContext>();
    let context = context.ok_or_else(|| Status::internal("outside the layer"))?;
    let subject = context.identity().subject().to_owned();
    if subject == "bob" {
        return Err(Status::permission_denied("not bob"));
    }
    request.metadata_mut().insert("x-subject", subject.parse().unwrap());
    Ok(request)
}

/// Refuses requests without the header `x-gateway`.
fn through_gateway(request: Request<()>) -> Result<Request<()>, Status> {
    match request.metadata().get("x-gateway") {
        Some(_) => Ok(request),
        None => Err(Status::failed_precondition("no gateway")),
    }
}

#[tokio::test]
async fn interceptors_work_on_both_sides() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let layer = auth.layer().respond_with(Grpc);
    let mut wrapped = Routes::builder();
    wrapped.add_service(layer.named_layer(InterceptedService::new(Texts, read_caller)));
    let mut stacked = Routes::builder();
    let stack = ServiceBuilder::new()
        .layer(InterceptorLayer::new(through_gateway))
        .layer(layer.clone())
        .layer(InterceptorLayer::new(read_caller));
    stacked.add_service(stack.named_layer(Texts));
    let mut outside = Routes::builder();
    outside.add_service(InterceptedService::new(layer.named_layer(Texts), through_gateway));
    let mut wrong = Routes::builder();
    wrong.add_service(InterceptedService::new(layer.named_layer(Texts), read_caller));
    let outcome = async |server: &Server, subject: Option<&str>, gateway: bool| {
        let token = subject.map(|subject| world.provider.token().subject(subject).sign());
        let with_header = move |mut request: Request<()>| {
            if gateway {
                request.metadata_mut().insert("x-gateway", "1".parse().unwrap());
            }
            Ok(request)
        };
        let service = InterceptedService::new(channel(server).await, with_header);
        let mut client = Client { token, ..Client::with_origin(service, &server.url()) };
        let answer = client.say("Say", "hi").await;
        answer.map_err(|status| (status.code(), status.message().to_owned()))
    };
    let code = |code, message: &str| Err((code, message.to_owned()));
    let unauthenticated = || code(Code::Unauthenticated, "This resource needs a bearer token.");
    let gateway_missing = || code(Code::FailedPrecondition, "no gateway");
    let alice = || Ok("alice: hi".to_owned());

    let server = beside_health(wrapped).await;
    assert_eq!(outcome(&server, Some("alice"), false).await, alice());
    assert_eq!(outcome(&server, None, false).await, unauthenticated());
    let refused = code(Code::PermissionDenied, "not bob");
    assert_eq!(outcome(&server, Some("bob"), false).await, refused);

    for routes in [stacked, outside] {
        let server = beside_health(routes).await;
        assert_eq!(outcome(&server, Some("alice"), true).await, alice());
        assert_eq!(outcome(&server, Some("alice"), false).await, gateway_missing());
        assert_eq!(outcome(&server, None, false).await, gateway_missing());
        assert_eq!(outcome(&server, None, true).await, unauthenticated());
    }

    // An interceptor around the layer sees no caller.
    let server = beside_health(wrong).await;
    let refused = code(Code::Internal, "outside the layer");
    assert_eq!(outcome(&server, Some("alice"), false).await, refused);
}

#[tokio::test]
async fn streams_are_served_and_refused() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let layer = auth.layer().respond_with(Grpc);
    let guard = auth.require(scope("texts:read")).respond_with(Grpc);
    let stack = ServiceBuilder::new().layer(layer).layer(guard);
    let mut routes = Routes::builder();
    routes.add_service(stack.named_layer(Texts));
    let server = beside_health(routes).await;
    let token = |scope| world.provider.token().subject("alice").scope(scope).sign();

    let mut client = Client::new(&server, Some(token("texts:read"))).await;
    assert_eq!(client.count().await.unwrap(), ["alice: 1", "alice: 2", "alice: 3"]);
    assert_eq!(client.collect(&["a", "b", "c"]).await.unwrap(), "alice: a b c");
    assert_eq!(client.echo(&["a", "b"]).await.unwrap(), ["alice: a", "alice: b"]);

    let refusals = [
        (None, Code::Unauthenticated),
        (Some("x".to_owned()), Code::Unauthenticated),
        (Some(token("other")), Code::PermissionDenied),
    ];
    for (token, code) in refusals {
        let mut client = Client::new(&server, token).await;
        assert_eq!(client.count().await.unwrap_err().code(), code);
        assert_eq!(client.collect(&["a"; 500]).await.unwrap_err().code(), code);
        assert_eq!(client.echo(&["a"; 500]).await.unwrap_err().code(), code);
    }
}

/// With each format, the answer to a gRPC request has HTTP status 200, no body and no trailers.
#[tokio::test]
async fn refusals_are_trailers_only() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let outage = World::new().await;
    outage.provider.fail(ProviderEndpoint::Discovery, Fault::Status(500));
    let dark = outage.auth().build().unwrap();
    let formats: [fn(AuthLayer) -> AuthLayer; 4] = [
        |layer| layer.respond_with(Grpc),
        |layer| layer.respond_with(ProblemJson),
        |layer| layer.respond_with(EmptyBody),
        |layer| layer.respond_with(Envelope::new("X_")),
    ];
    let (good, dark_token) = (world.provider.token().sign(), outage.provider.token().sign());
    for format in formats {
        let guarded = |auth: &scaikey_auth::Auth| {
            let guard = auth.require(scope("texts:read")).respond_with(Grpc);
            let stack = ServiceBuilder::new().layer(format(auth.layer())).layer(guard);
            let mut routes = Routes::builder();
            routes.add_service(stack.named_layer(Texts));
            routes
        };
        let table = [
            (&auth, None, "16"),
            (&auth, Some("x"), "16"),
            (&auth, Some(good.as_str()), "7"),
            (&dark, Some(dark_token.as_str()), "14"),
        ];
        for (auth, token, status) in table {
            let server = beside_health(guarded(auth)).await;
            let content_type = ("content-type", "application/grpc");
            let mut call = request("POST", "/test.Texts/Echo", &[content_type]);
            if let Some(token) = token {
                let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
                call.headers_mut().insert("authorization", value);
            }
            let answer = server.send(call).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{answer:?}");
            assert_eq!(answer.header("grpc-status"), status, "{answer:?}");
            assert_eq!(answer.header("content-type"), "application/grpc");
            assert_eq!(answer.header_opt("trailer"), None);
            assert_eq!(answer.header_opt("retry-after"), (status == "14").then_some("1"));
            let error = answer.challenge().and_then(|it| it.param("error").map(str::to_owned));
            let expected = match (token, status) {
                (_, "7") => Some("insufficient_scope"),
                (Some(_), "16") => Some("invalid_token"),
                _ => None,
            };
            assert_eq!(error.as_deref(), expected, "{answer:?}");
            assert_eq!(answer.header_opt("www-authenticate").is_none(), status == "14");
        }
    }
}
