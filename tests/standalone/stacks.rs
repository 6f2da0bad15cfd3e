//! Stacks of this crate's layers with the layers of other crates. Each stack compiles, refuses and
//! serves.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleError;
use axum::routing::get;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Incoming;
use scaikey_auth::error::{BoxError, EmptyBody, Envelope, Grpc, ProblemJson, Refusal};
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::layer::{RequestHead, ResponseBody};
use scaikey_auth::outbound::CallerLayer;
use scaikey_auth::session::Sessions;
use scaikey_auth::{Auth, AuthContext, AuthError, AuthLayer, TokenExchangeClient, scope};
use tonic::service::interceptor::{InterceptedService, InterceptorLayer};
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::util::{BoxCloneService, BoxCloneSyncService};
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use crate::support::{Server, World, mock, request, within_timeout};

const REFUSED: &str = r#"{"type":"urn:scaikey-auth:credentials_missing","title":"Unauthorized","status":401,"detail":"This resource needs a bearer token."}"#;

const SERVED: &str = "served, with a sentence that is long enough to be compressed";

/// Makes a request. The path selects what the service does.
fn to(path: &str, token: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method("POST").uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Full::from("a body.")).unwrap()
}

/// Serves, panics or hangs. Its response body type cannot be constructed from bytes.
async fn work<B: Body>(request: Request<B>) -> Result<Response<BoxBody<Bytes, BoxError>>, BoxError>
where
    B::Error: Into<BoxError>,
{
    assert!(request.extensions().get::<AuthContext>().is_some(), "an unauthenticated request");
    let (head, body) = request.into_parts();
    match head.uri.path() {
        "/panic" => panic!("requested panic"),
        "/hang" => std::future::pending().await,
        _ => {}
    }
    let answer = match body.collect().await {
        Ok(_) => SERVED,
        Err(_) => "the body is too long",
    };
    Ok(Response::new(Full::from(answer).map_err(|never| match never {}).boxed()))
}

async fn text<B: Body<Error: Debug>>(response: Response<B>) -> (StatusCode, HeaderMap, String) {
    let (head, body) = response.into_parts();
    let body = within_timeout(body.collect()).await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8(body.into()).unwrap())
}

/// Sends a request without a token and one with a token.
async fn refuses_and_serves<S, B>(stack: S)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Debug> + Clone,
    B: Body<Error: Debug>,
{
    let (status, headers, body) =
        text(within_timeout(stack.clone().oneshot(to("/", None))).await.unwrap()).await;
    assert_eq!((status.as_u16(), body.as_str()), (401, REFUSED));
    assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    assert!(headers[header::WWW_AUTHENTICATE].as_bytes().starts_with(b"Bearer"));
    let (status, _, body) =
        text(within_timeout(stack.oneshot(to("/", Some("mock-user")))).await.unwrap()).await;
    assert_eq!((status.as_u16(), body.as_str()), (200, SERVED));
}

/// Returns the response to a request with a token.
async fn response<S, B>(stack: &S, path: &str) -> (StatusCode, HeaderMap, String)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Debug> + Clone,
    B: Body<Error: Debug>,
{
    text(within_timeout(stack.clone().oneshot(to(path, Some("mock-user")))).await.unwrap()).await
}

/// A guard that admits every authenticated request.
fn anyone(_: &AuthContext) -> Result<(), AuthError> {
    Ok(())
}

#[tokio::test]
async fn trace_layer_works_inside_and_outside() {
    let auth = mock();
    let trace = TraceLayer::new_for_http;
    let (layer, guard) = (auth.layer(), auth.require(anyone));
    let stack = ServiceBuilder::new().layer(layer.clone()).layer(trace());
    refuses_and_serves(stack.service_fn(work)).await;
    let stack = ServiceBuilder::new().layer(trace()).layer(layer.clone());
    refuses_and_serves(stack.service_fn(work)).await;
    let stack = ServiceBuilder::new().layer(layer.clone()).layer(guard.clone()).layer(trace());
    refuses_and_serves(stack.service_fn(work)).await;
    let stack = ServiceBuilder::new().layer(layer).layer(trace()).layer(guard);
    refuses_and_serves(stack.service_fn(work)).await;
}

#[tokio::test]
async fn body_limit_works_inside_and_outside() {
    let (auth, limit) = (mock(), RequestBodyLimitLayer::new);
    let inside =
        |bytes| ServiceBuilder::new().layer(auth.layer()).layer(limit(bytes)).service_fn(work);
    refuses_and_serves(inside(100)).await;
    assert_eq!(response(&inside(3), "/").await.2, "the body is too long");
    let outside =
        |bytes| ServiceBuilder::new().layer(limit(bytes)).layer(auth.layer()).service_fn(work);
    refuses_and_serves(outside(100)).await;
    assert_eq!(response(&outside(3), "/").await.2, "the body is too long");
    let mut announced = to("/", Some("mock-user"));
    announced.headers_mut().insert(header::CONTENT_LENGTH, 8.into());
    let answer = outside(3).oneshot(announced.clone()).await.unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(inside(3).oneshot(announced).await.unwrap().status(), 413);
}

#[tokio::test]
async fn timeout_layer_works_inside_and_outside() {
    let auth = mock();
    let timeout = |time| TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, time);
    let inside = |time| {
        let stack = ServiceBuilder::new().layer(auth.layer());
        stack.layer(timeout(time)).service_fn(default_body)
    };
    let outside = |time| {
        let stack = ServiceBuilder::new().layer(timeout(time));
        stack.layer(auth.layer()).service_fn(work)
    };
    let hour = Duration::from_secs(3600);
    refuses_and_serves(inside(hour)).await;
    refuses_and_serves(outside(hour)).await;
    // A request that hangs for ever exceeds any timeout.
    let short = Duration::from_millis(1);
    assert_eq!(response(&inside(short), "/hang").await.0, 504);
    assert_eq!(response(&outside(short), "/hang").await.0, 504);
}

/// Like `work`, with a body type that implements `Default`, which the timeout layer requires.
async fn default_body<B: Body>(
    request: Request<B>,
) -> Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>
where
    B::Error: Into<BoxError>,
{
    Ok(work(request).await?.map(UnsyncBoxBody::new))
}

#[tokio::test]
async fn compression_works_inside_and_outside() {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    let auth = mock();
    let inside = ServiceBuilder::new().layer(auth.layer()).layer(CompressionLayer::new());
    let outside = ServiceBuilder::new().layer(CompressionLayer::new()).layer(auth.layer());
    let (inside, outside) = (inside.service_fn(work), outside.service_fn(work));
    refuses_and_serves(inside.clone()).await;
    refuses_and_serves(outside.clone()).await;
    let accepting_gzip = |token| {
        let mut request = to("/", token);
        request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
        request
    };
    async fn start<B: Body<Error: Debug>>(response: Response<B>) -> Vec<u8> {
        response.into_body().collect().await.unwrap().to_bytes()[..2].to_vec()
    }
    let user = Some("mock-user");
    assert_eq!(start(inside.clone().oneshot(accepting_gzip(user)).await.unwrap()).await, GZIP);
    assert_eq!(start(inside.oneshot(accepting_gzip(None)).await.unwrap()).await, *b"{\"");
    assert_eq!(start(outside.clone().oneshot(accepting_gzip(user)).await.unwrap()).await, GZIP);
    assert_eq!(start(outside.oneshot(accepting_gzip(None)).await.unwrap()).await, GZIP);
}

#[tokio::test]
async fn panic_catcher_works_inside_and_outside() {
    let auth = mock();
    let inside = ServiceBuilder::new().layer(auth.layer()).layer(CatchPanicLayer::new());
    let inside = inside.service_fn(work);
    refuses_and_serves(inside.clone()).await;
    assert_eq!(response(&inside, "/panic").await.0, 500);
    let outside = ServiceBuilder::new().layer(CatchPanicLayer::new()).layer(auth.layer());
    let outside = outside.service_fn(work);
    refuses_and_serves(outside.clone()).await;
    assert_eq!(response(&outside, "/panic").await.0, 500);
}

/// Rejects the user `nobody`.
fn intercept(request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
    match request.extensions().get::<AuthContext>() {
        Some(context) if context.identity().subject() == "nobody" => {
            Err(Status::permission_denied("not you"))
        }
        Some(_) => Ok(request),
        None => Err(Status::internal("no identity")),
    }
}

#[tokio::test]
async fn interceptors_work_inside_and_outside() {
    let auth = mock();
    let inside = ServiceBuilder::new().layer(auth.layer());
    let inside = inside.layer(InterceptorLayer::new(intercept)).service_fn(work);
    refuses_and_serves(inside).await;
    let by_name = InterceptedService::new(service_fn(work), intercept);
    refuses_and_serves(ServiceBuilder::new().layer(auth.layer()).service(by_name)).await;
    let pass = InterceptorLayer::new(|request: tonic::Request<()>| Ok(request));
    let outside = ServiceBuilder::new().layer(pass).layer(auth.layer()).service_fn(work);
    refuses_and_serves(outside).await;
    let refuse = |_| Err::<tonic::Request<()>, _>(Status::resource_exhausted("full"));
    let outside = ServiceBuilder::new().layer(InterceptorLayer::new(refuse)).layer(auth.layer());
    let (status, headers, _) = response(&outside.service_fn(work), "/").await;
    assert_eq!((status.as_u16(), &headers["grpc-status"]), (200, &HeaderValue::from_static("8")));
}

#[tokio::test]
async fn all_body_types_pass() {
    let auth = mock();
    let stack = || ServiceBuilder::new().layer(auth.layer()).layer(auth.require(anyone));
    refuses_and_serves(stack().service_fn(work)).await;
    refuses_and_serves(stack().service_fn(default_body)).await;
    let full = async |_| Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(SERVED)));
    refuses_and_serves(stack().service_fn(full)).await;
    let texts = async |_| Ok::<_, Infallible>(Response::new(SERVED.to_owned()));
    refuses_and_serves(stack().service_fn(texts)).await;
    let own_data = async |_| {
        let body = Full::new(BytesMut::from(SERVED));
        Ok::<_, Infallible>(Response::new(body))
    };
    refuses_and_serves(stack().service_fn(own_data)).await;
    // A framework boxes the body of the outermost layer.
    let boxed = ServiceBuilder::new().map_response(|answer: Response<_>| {
        answer.map(|body: ResponseBody<ResponseBody<Full<Bytes>>>| BoxBody::new(body))
    });
    let full = async |_| Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(SERVED)));
    refuses_and_serves(boxed.layer(auth.layer()).layer(auth.require(anyone)).service_fn(full))
        .await;
}

#[tokio::test]
async fn frames_and_size_hint_pass_unchanged() {
    let auth = mock();
    let serve = async |_| {
        let trailers = HeaderMap::from_iter([(header::ETAG, HeaderValue::from_static("a"))]);
        let frames = [Frame::data(Bytes::from("one")), Frame::trailers(trailers)];
        let frames = futures_util::stream::iter(frames.map(Ok::<_, Infallible>));
        Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
    };
    let stack = ServiceBuilder::new().layer(auth.layer()).service_fn(serve);
    let answer = stack.oneshot(to("/", Some("mock-user"))).await.unwrap();
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["etag"], "a");
    assert_eq!(body.to_bytes(), "one");

    let full = |text| {
        let answer = Response::new(Full::<Bytes>::from(text));
        service_fn(move |_| std::future::ready(Ok::<_, Infallible>(answer.clone())))
    };
    let user = Some("mock-user");
    for (text, is_over) in [("", true), ("12345", false)] {
        let stack = ServiceBuilder::new().layer(auth.layer()).service(full(text));
        let body = stack.oneshot(to("/", user)).await.unwrap().into_body();
        let end_and_length = (body.is_end_stream(), body.size_hint().exact());
        assert_eq!(end_and_length, (is_over, Some(text.len() as u64)));
    }
    let refusal = |layer: AuthLayer| async {
        let stack = ServiceBuilder::new().layer(layer).service(full("not served"));
        stack.oneshot(to("/", None)).await.unwrap().into_body()
    };
    let mut body = refusal(auth.layer()).await;
    let length = REFUSED.len() as u64;
    assert_eq!((body.is_end_stream(), body.size_hint().exact()), (false, Some(length)));
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), REFUSED);
    assert_eq!((body.is_end_stream(), body.size_hint().exact()), (true, Some(0)));
    assert!(body.frame().await.is_none());
    let body = refusal(auth.layer().respond_with(EmptyBody)).await;
    assert_eq!((body.is_end_stream(), body.size_hint().exact()), (true, Some(0)));
    assert!(ResponseBody::<Full<Bytes>>::default().is_end_stream());
}

#[tokio::test]
async fn all_layers_of_this_crate_combine() {
    let auth = mock();
    let client = TokenExchangeClient::builder("https://id.example");
    let client = client.client_auth(ClientAuth::basic("wave", "secret")).build().unwrap();
    let sessions = Sessions::builder(&auth, client, SealingKeys::random().unwrap());
    let stack = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(sessions.build().unwrap().layer())
        .layer(CatchPanicLayer::new())
        .layer(auth.endpoints().build().unwrap())
        .layer(TraceLayer::new_for_http())
        .layer(auth.layer())
        .layer(RequestBodyLimitLayer::new(100))
        .layer(auth.require(anyone))
        .layer(CompressionLayer::new())
        .service_fn(work);
    refuses_and_serves(stack.clone()).await;
    let mut whoami = to("/v1/auth/whoami", Some("mock-user"));
    *whoami.method_mut() = http::Method::GET;
    let (status, _, body) = text(within_timeout(stack.oneshot(whoami)).await.unwrap()).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn refusal_body_may_be_any_bytes() {
    let auth = mock();
    fn respond<B>(refusal: &Refusal<'_>, body: B) -> Response<B> {
        let mut response = Response::new(body);
        *response.status_mut() = refusal.status;
        response
    }
    let owned = |refusal: &Refusal<'_>| respond(refusal, refusal.error.reason().to_owned());
    let layers = [
        auth.layer().respond_with(|refusal: &Refusal<'_>| respond(refusal, "credentials_missing")),
        auth.layer().respond_with(owned),
        auth.layer().respond_with(|refusal: &Refusal<'_>| {
            respond(refusal, Bytes::from(refusal.error.reason()))
        }),
        auth.layer().respond_with(|refusal: &Refusal<'_>| {
            respond(refusal, refusal.error.reason().as_bytes().to_vec())
        }),
    ];
    for layer in layers {
        let stack = ServiceBuilder::new().layer(layer).service_fn(work);
        let (status, headers, body) = text(stack.oneshot(to("/", None)).await.unwrap()).await;
        assert_eq!((status.as_u16(), body.as_str()), (401, "credentials_missing"));
        assert!(headers.contains_key(header::WWW_AUTHENTICATE));
    }
}

/// Routers of axum box the response body for each layer, and accept every layer.
#[tokio::test]
async fn axum_routers_accept_layers_everywhere() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let app = Router::new().route("/", get(|| async { SERVED }));
    let guarded = get(|| async { SERVED }).route_layer(auth.require(scope("read")));
    let stack = ServiceBuilder::new().layer(auth.layer()).layer(TraceLayer::new_for_http());
    let inner = ServiceBuilder::new().layer(CompressionLayer::new()).layer(auth.require(anyone));
    let servers = [
        Server::axum(app.clone().layer(auth.layer())).await,
        Server::axum(app.clone().route_layer(auth.layer())).await,
        Server::axum(app.clone().layer(stack)).await,
        Server::axum(app.route_layer(inner).route_layer(auth.layer())).await,
        Server::axum(Router::new().route("/", guarded).layer(auth.layer())).await,
    ];
    let token = world.provider.token().scope("read").sign();
    for server in servers {
        server_refuses_and_serves(&server, &token).await;
    }
}

/// Checks the responses with and without a token, and their lengths.
async fn server_refuses_and_serves(server: &Server, token: &str) {
    let refused = server.get("/", &[]).await;
    assert_eq!((refused.status, refused.body.as_str()), (401, REFUSED));
    assert_eq!(refused.header("content-length"), REFUSED.len().to_string());
    let served = server.get_as("/", token).await;
    assert_eq!((served.status, served.body.as_str()), (200, SERVED));
    assert_eq!(served.header("content-length"), SERVED.len().to_string());
}

#[tokio::test]
async fn hyper_serves_stacks_over_a_socket() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(CatchPanicLayer::new())
        .layer(auth.layer())
        .layer(TraceLayer::new_for_http())
        .layer(RequestBodyLimitLayer::new(100))
        .layer(auth.require(anyone));
    let servers = [
        Server::hyper(stack.service_fn(work)).await,
        Server::hyper(ServiceBuilder::new().layer(auth.layer()).service_fn(work)).await,
    ];
    let token = world.provider.token().sign();
    for server in servers {
        server_refuses_and_serves(&server, &token).await;
        // Responses to HEAD have no body.
        let head = server.send(request("HEAD", "/", &[])).await;
        assert_eq!((head.status, head.body.as_str()), (401, ""));
    }
}

type BoxedAnswer = Response<BoxBody<Bytes, BoxError>>;

/// Services with a boxed error and a boxed body, in the shapes that programs with hyper and axum have.
#[tokio::test]
async fn all_layers_accept_the_usual_shapes() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let client = TokenExchangeClient::builder(world.provider.issuer()).allow_loopback_http(true);
    let client = client.client_auth(ClientAuth::basic("wave", "secret")).build().unwrap();
    let sessions = Sessions::builder(&auth, client, SealingKeys::random().unwrap());
    let rules = auth.require_by_path().path("/", anyone);
    let layers = ServiceBuilder::new()
        .layer(sessions.build().unwrap().layer())
        .layer(auth.endpoints().build().unwrap())
        .layer(auth.layer())
        .layer(CallerLayer)
        .layer(auth.require(anyone))
        .layer(rules.build().unwrap());

    let function = layers.clone().service_fn(work::<Incoming>);
    let boxed: BoxCloneService<Request<Incoming>, BoxedAnswer, BoxError> =
        BoxCloneService::new(service_fn(work));
    let synced: BoxCloneSyncService<Request<Incoming>, BoxedAnswer, BoxError> =
        BoxCloneSyncService::new(service_fn(work));
    // The type of the whole stack is erased: for a field of a struct.
    let erased: BoxCloneService<Request<Incoming>, BoxedAnswer, BoxError> = ServiceBuilder::new()
        .boxed_clone()
        .map_response(|answer: Response<_>| answer.map(BoxBody::new))
        .layer(layers.clone())
        .service_fn(work);
    let fallible = layers.clone().service_fn(work::<axum::body::Body>);
    let handled = HandleError::new(fallible, async |_: BoxError| StatusCode::BAD_GATEWAY);
    let servers = [
        Server::hyper(function).await,
        Server::hyper(layers.clone().service(boxed)).await,
        Server::hyper(layers.clone().service(synced)).await,
        Server::hyper(erased).await,
        Server::axum(Router::new().fallback_service(handled)).await,
        Server::axum(Router::new().route("/", get(async || SERVED)).layer(layers.clone())).await,
        Server::hyper(layers.service(Router::new().route("/", get(async || SERVED)))).await,
    ];
    let token = world.provider.token().sign();
    for server in servers {
        server_refuses_and_serves(&server, &token).await;
    }
}

async fn grpc(server: &Server, token: Option<&str>) -> Result<i32, Status> {
    let channel = tonic::transport::Channel::from_shared(server.url()).unwrap();
    let mut client = HealthClient::new(within_timeout(channel.connect()).await.unwrap());
    let mut request = tonic::Request::new(HealthCheckRequest { service: String::new() });
    if let Some(token) = token {
        let authorization = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", authorization);
    }
    within_timeout(client.check(request)).await.map(|answer| answer.into_inner().status)
}

#[tokio::test]
async fn tonic_serves_stacks_over_a_socket() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let health = || tonic_health::server::health_reporter().1;
    let layer = auth.layer().respond_with(Grpc);
    let stack = tower::ServiceBuilder::new()
        .layer(TraceLayer::new_for_grpc())
        .layer(layer.clone())
        .layer(CatchPanicLayer::new())
        .layer(auth.require(scope("health:read")).respond_with(Grpc))
        .layer(InterceptorLayer::new(intercept));
    let stacked = Server::start(|listener| async move {
        let server = tonic::transport::Server::builder().layer(stack).add_service(health());
        server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
    });
    let guard = auth.require(scope("health:read"));
    let intercepted = Server::start(|listener| async move {
        let mut server = tonic::transport::Server::builder().layer(layer).layer(guard);
        let service = InterceptedService::new(health(), intercept);
        let incoming = TcpIncoming::from(listener);
        server.add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    let token = |subject| world.provider.token().subject(subject);
    for server in [stacked.await, intercepted.await] {
        let refused = grpc(&server, None).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert_eq!(refused.message(), "This resource needs a bearer token.");
        let refused = grpc(&server, Some(&token("alice").sign())).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let refused = grpc(&server, Some(&token("nobody").scope("health:read").sign())).await;
        assert_eq!(refused.unwrap_err().message(), "not you");
        let served = grpc(&server, Some(&token("alice").scope("health:read").sign())).await;
        assert_eq!(served.unwrap(), 1);
    }
}

/// The layer's response to a request without a token equals the result of [`AuthLayer::refusal`].
#[tokio::test]
async fn refusal_equals_response_of_layer() {
    let world = World::new().await;
    let auth = world.auth().realm("docs").unknown_tenant_is_not_found().build().unwrap();
    let layers = [
        auth.layer(),
        auth.layer().respond_with(ProblemJson),
        auth.layer().respond_with(Envelope::new("SW_")),
        auth.layer().respond_with(EmptyBody),
        auth.layer().respond_with(Grpc),
        auth.layer().respond_with(|refusal: &Refusal<'_>| {
            let response = Response::builder().status(refusal.status).header("x-own", "1");
            response.body(refusal.error.reason()).unwrap()
        }),
    ];
    for layer in layers {
        for content_type in ["text/plain", "application/grpc"] {
            let mut request = to("/", None);
            let value = HeaderValue::from_static(content_type);
            request.headers_mut().insert(header::CONTENT_TYPE, value);
            let is_grpc = RequestHead::of(&request).is_grpc();
            assert_eq!(is_grpc, content_type == "application/grpc");
            let made = layer.refusal(&AuthError::MissingCredentials, is_grpc).map(Full::new);
            let stack = ServiceBuilder::new().layer(layer.clone()).service_fn(work);
            let answer = within_timeout(stack.oneshot(request)).await.unwrap();
            assert_eq!(text(made).await, text(answer).await);
        }
    }
    let layer = auth.layer();
    let unavailable =
        |retry_after| AuthError::Unavailable { component: "keys", retry_after, source: None };
    let retry_after = |answer: &Response<Bytes>| answer.headers().get("retry-after").cloned();
    let refusal = layer.refusal(&unavailable(Some(Duration::from_secs(7))), false);
    assert_eq!(
        (refusal.status().as_u16(), retry_after(&refusal)),
        (503, Some(HeaderValue::from_static("7")))
    );
    let refusal = layer.refusal(&AuthError::UnknownTenant, false);
    assert_eq!(refusal.status(), 404, "as configured");
    let required = "docs:write".into();
    let refusal = layer.refusal(&AuthError::InsufficientScope { required }, true);
    let status = Status::from_header_map(refusal.headers()).unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(status.message(), "The token lacks a scope that this resource needs.");
}

/// For a cached token, the layers allocate only what inserting the context allocates.
#[tokio::test]
async fn cached_token_allocates_only_the_context() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let token = world.provider.token().sign();
    let context = auth.authenticate(&token).await.unwrap();
    let serve = |_| std::future::ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
    let insert_only = ServiceBuilder::new().map_request(move |mut request: Request<_>| {
        request.extensions_mut().insert(context.clone());
        request
    });
    let ours = ServiceBuilder::new().layer(auth.layer()).layer(auth.require(anyone));
    // A clone shares the bytes of the header value, as with a request that a server has read.
    let (first, authorization) = (to("/", Some(&token)), header::AUTHORIZATION);
    let authorised = || {
        let mut request = to("/", None);
        request.headers_mut().insert(&authorization, first.headers()[&authorization].clone());
        request
    };
    let allocations = |answer: &mut dyn FnMut()| {
        answer();
        ::allocations::measure(answer).count
    };
    let (mut insert_only, mut ours) = (insert_only.service_fn(serve), ours.service_fn(serve));
    let mut context = Context::from_waker(Waker::noop());
    let without = allocations(&mut || {
        let answer = pin!(insert_only.call(authorised()));
        assert!(answer.poll(&mut context).is_ready());
    });
    let with = allocations(&mut || {
        let answer = pin!(ours.call(authorised()));
        let Poll::Ready(Ok(answer)) = answer.poll(&mut context) else {
            panic!("the response is not ready")
        };
        assert_eq!(answer.status(), 200);
    });
    assert!(without > 0, "nothing was measured");
    assert_eq!(with, without);
}

#[test]
fn layer_type_is_independent_of_responder() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let auth = mock();
    // The layer has the same type for every responder, so it can be chosen at run time and named in
    // a struct.
    let layer = |is_grpc: bool| -> AuthLayer {
        if is_grpc { auth.layer().respond_with(Grpc) } else { auth.layer() }
    };
    shared(&layer(true));
    shared(&layer(false));
    let body = ResponseBody::<Empty<Bytes>>::from(Bytes::from("a"));
    fn sent<T: Send + Unpin>(_: &T) {}
    sent(&body);
    let _: fn(&Auth) -> scaikey_auth::guard::RequireLayer = |auth| auth.require(anyone);
}
