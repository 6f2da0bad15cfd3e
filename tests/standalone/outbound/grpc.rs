//! The layer around the channel of a tonic client.

use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, Mutex};

use scaikey_auth::error::Grpc;
use scaikey_auth::outbound::{CallerLayer, OutboundError, OutboundService, OutboundToken};
use scaikey_auth::{Auth, AuthContext};
use tonic::body::Body;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{LayerExt as _, Routes};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer, ServiceBuilder};

use super::{World, local, secs};
use crate::grpc::{Client, Texts, channel, serve};
use crate::support::Server;

/// A gRPC service that accepts tokens for `scaivault`.
struct Vault {
    server: Server,
    tokens: Arc<Mutex<Tokens>>,
}

#[derive(Default)]
struct Tokens {
    last: Option<String>,
    /// A token that the vault does not accept any more.
    revoked: Option<String>,
}

impl Vault {
    async fn start(world: &World) -> Self {
        let auth = Auth::builder().issuer(local(world.provider.issuer())).audience("scaivault");
        let auth = auth.clock(world.clock.clone()).tenant_optional();
        let auth = auth.verified_tokens_bytes(1 << 20).build().unwrap();
        let tokens = Arc::new(Mutex::new(Tokens::default()));
        let check = {
            let tokens = tokens.clone();
            move |request: Request<()>| {
                let context = request.extensions().get::<AuthContext>();
                let mut tokens = tokens.lock().unwrap();
                tokens.last = context.and_then(AuthContext::token).map(str::to_owned);
                let is_revoked = tokens.last == tokens.revoked;
                if is_revoked { Err(Status::unauthenticated("revoked")) } else { Ok(request) }
            }
        };
        let service = InterceptedService::new(Texts, check);
        let routes = Routes::new(auth.layer().respond_with(Grpc).named_layer(service));
        Self { server: serve(routes).await, tokens }
    }

    fn url(&self) -> String {
        self.server.url()
    }

    /// Returns a channel to the vault inside the layer.
    async fn inside(&self, world: &World, token: OutboundToken) -> OutboundService<Channel> {
        let layer = world.builder().destination(format!("{}/test.Texts", self.url()), token);
        layer.build().unwrap().layer(channel(&self.server).await)
    }

    fn revoke_last(&self) {
        let mut tokens = self.tokens.lock().unwrap();
        tokens.revoked = tokens.last.clone();
    }
}

/// Adds the caller to each call of a client.
fn calling_for(
    caller: AuthContext,
) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |mut request| {
        request.extensions_mut().insert(caller.clone());
        Ok(request)
    }
}

#[tokio::test]
async fn tonic_client_sends_the_exchanged_token() {
    let world = World::new().await;
    let (vault, alice) = (Vault::start(&world).await, world.caller("alice-id").await);
    let service = vault.inside(&world, OutboundToken::on_behalf_of_caller("scaivault")).await;
    let service = InterceptedService::new(service, calling_for(alice));
    let mut client = Client::with_origin(service, &vault.url());
    for _ in 0..2 {
        assert_eq!(client.say("Say", "hi").await.unwrap(), "alice-id: hi");
    }
    assert_eq!(world.provider.token_requests(), 1);
}

/// A service that calls the vault finds its caller through [`CallerLayer`].
#[tokio::test]
async fn tonic_service_calls_for_its_caller() {
    let world = World::new().await;
    let vault = Vault::start(&world).await;
    let service = vault.inside(&world, OutboundToken::on_behalf_of_caller("scaivault")).await;
    let url = vault.url();
    let drive = move |_: http::Request<Body>| {
        let mut client = Client::with_origin(service.clone(), &url);
        async move {
            let answer = client.say("Say", "hi").await;
            // The answer goes back in the message of a status, which needs no codec.
            let status = answer.map_or_else(|status| status, Status::already_exists);
            Ok::<_, Infallible>(status.into_http::<Body>())
        }
    };
    let stack = ServiceBuilder::new()
        .map_request(|request: http::Request<hyper::body::Incoming>| request.map(Body::new))
        .layer(world.auth.layer().respond_with(Grpc))
        .layer(CallerLayer);
    let server = Server::hyper(stack.service_fn(drive)).await;
    for subject in ["alice-id", "bob-id"] {
        let token = world.provider.token().subject(subject).sign();
        let status = Client::new(&server, Some(token)).await.say("Any", "").await.unwrap_err();
        assert_eq!(status.message(), format!("{subject}: hi"));
    }
    assert_eq!(world.provider.token_requests(), 2);
}

#[tokio::test]
async fn client_without_origin_names_the_remedy() {
    let world = World::new().await;
    let vault = Vault::start(&world).await;
    let service = vault.inside(&world, OutboundToken::service()).await;
    // The origin of a client that is created by `new`.
    let refused = Client::with_origin(service.clone(), "/").say("Say", "hi").await.unwrap_err();
    assert!(refused.message().contains("with_origin"), "{refused:?}");
    let cause = OutboundError::find_in(refused.source().unwrap());
    assert!(matches!(cause, Some(OutboundError::RelativeUrl)), "{cause:?}");
    // Another service on the same server is no destination.
    let mut health = HealthClient::with_origin(service, vault.url().parse().unwrap());
    let refused = health.check(HealthCheckRequest::default()).await.unwrap_err();
    assert!(refused.message().contains("no destination"), "{refused:?}");
    assert_eq!(world.provider.token_requests(), 0);
}

/// The gRPC status `UNAUTHENTICATED` has the HTTP status 200.
#[tokio::test]
async fn unauthenticated_call_replaces_the_token() {
    let world = World::new().await;
    let (vault, alice) = (Vault::start(&world).await, world.caller("alice-id").await);
    let service = vault.inside(&world, OutboundToken::on_behalf_of_caller("scaivault")).await;
    let service = InterceptedService::new(service, calling_for(alice));
    let mut client = Client::with_origin(service, &vault.url());
    assert_eq!(client.say("Say", "hi").await.unwrap(), "alice-id: hi");
    vault.revoke_last();
    let refused = client.say("Say", "hi").await.unwrap_err();
    assert_eq!((refused.code(), world.provider.token_requests()), (Code::Unauthenticated, 1));
    world.clock.advance(secs(10));
    let refused = client.say("Say", "hi").await.unwrap_err();
    assert_eq!((refused.code(), world.provider.token_requests()), (Code::Unauthenticated, 2));
    assert_eq!(client.say("Say", "hi").await.unwrap(), "alice-id: hi");
    // Other gRPC statuses replace no token.
    world.clock.advance(secs(10));
    let refused = client.say("Missing", "hi").await.unwrap_err();
    assert_eq!((refused.code(), world.provider.token_requests()), (Code::Unimplemented, 2));
}
