//! Run with `cargo run --example grpc_mesh`
//!
//! Two gRPC services in one program. The shop has public health and a guard for each method. It calls
//! the warehouse: a layer around its channel adds a token for the caller, or the shop's own token.
//! Prints the calls and their status codes.

use scaikey_auth::error::BoxError;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::outbound::{CallerLayer, OutboundLayer, OutboundService, OutboundToken};
use scaikey_auth::testing::{self, Provider};
use scaikey_auth::{Auth, AuthBuilder, AuthContext, IssuerConfig, TokenExchangeClient, scope};
use texts::{Methods, Texts, call, serve};
use tonic::service::{LayerExt as _, Routes};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Layer as _, ServiceBuilder};

mod texts;

const COUNT: &str = "/warehouse.Stock/Count";
const ORDER: &str = "/warehouse.Stock/Order";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // The warning about the method without a rule goes to the error output.
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
    log.with_writer(std::io::stderr).with_ansi(false).init();
    let provider = Provider::builder().audience("warehouse").start().await;
    let client = testing::Client::new("shop", "a secret").scopes("stock:write");
    provider.register_client(client.may_exchange("warehouse", "stock:read"));
    let warehouse = warehouse(&provider)?;
    let shop = shop(&provider, &warehouse)?;

    let token = |scope| provider.token().subject("alice").audience("shop").scope(scope).sign();
    let (reader, writer) = (token("orders:read"), token("orders:read orders:write"));
    let mut health = HealthClient::new(Endpoint::from_shared(shop.clone())?.connect().await?);
    let health = health.check(HealthCheckRequest::default()).await;
    println!("health: {:?}", health.map_or_else(|status| status.code(), |_| Code::Ok));
    let calls = [
        ("the version", &shop, "/shop.Orders/Version", None),
        ("a quote without a token", &shop, "/shop.Orders/Quote", None),
        ("a quote", &shop, "/shop.Orders/Quote", Some(&reader)),
        ("a restock without the scope", &shop, "/shop.Orders/Restock", Some(&reader)),
        ("a restock", &shop, "/shop.Orders/Restock", Some(&writer)),
        ("a method without a rule", &shop, "/shop.Orders/Purge", Some(&writer)),
        ("the warehouse with a token for the shop", &warehouse, COUNT, Some(&writer)),
    ];
    for (name, server, path, token) in calls {
        let channel = Endpoint::from_shared(server.clone())?.connect().await?;
        match call(channel, server, path, "apples", token.map(String::as_str)).await {
            Ok(answer) => println!("{name}: {:?}: {answer}", Code::Ok),
            Err(status) => println!("{name}: {:?}: {}", status.code(), status.message()),
        }
    }
    println!("{} token requests reached the provider", provider.token_requests());
    Ok(())
}

fn auth(provider: &Provider) -> AuthBuilder {
    Auth::builder().issuer(IssuerConfig::new(provider.issuer()).allow_loopback_http(true))
}

/// Starts the shop, `shop.Orders`. Its users' tokens are for `shop`, so the warehouse refuses them.
fn shop(provider: &Provider, warehouse: &str) -> Result<String, BoxError> {
    let client = TokenExchangeClient::builder(provider.issuer())
        .client_auth(ClientAuth::basic("shop", "a secret"))
        .allow_loopback_http(true)
        .build()?;
    let outbound = OutboundLayer::builder(client)
        .allow_loopback_http(true)
        .destination(format!("{warehouse}{COUNT}"), OutboundToken::on_behalf_of_caller("warehouse"))
        .destination(format!("{warehouse}{ORDER}"), OutboundToken::service())
        .build()?;
    let channel = Endpoint::from_shared(warehouse.to_owned())?.connect_lazy();
    let orders = Orders { stock: outbound.layer(channel), origin: warehouse.to_owned() };

    let auth = auth(provider).audience("shop").build()?;
    let methods = auth
        .require_by_path()
        .path("/shop.Orders/Quote", scope("orders:read"))
        .path("/shop.Orders/Restock", scope("orders:write"))
        .public("/shop.Orders/Version")
        .build()?;
    let protected =
        ServiceBuilder::new().layer(auth.layer().optional()).layer(methods).layer(CallerLayer);
    let (_reporter, health) = tonic_health::server::health_reporter();
    serve(Routes::new(health).add_service(protected.named_layer(Texts(orders))))
}

#[derive(Clone)]
struct Orders {
    stock: OutboundService<Channel>,
    /// The layer compares each request with its destinations, so the client must know the server.
    origin: String,
}

impl Methods for Orders {
    const NAME: &'static str = "shop.Orders";

    async fn call(self, path: String, request: Request<String>) -> Result<String, Status> {
        let path = match path.as_str() {
            "/shop.Orders/Quote" => COUNT,
            "/shop.Orders/Restock" => ORDER,
            "/shop.Orders/Version" => return Ok("1.0".to_owned()),
            _ => return Err(Status::unimplemented("no such method")),
        };
        // The codes of the warehouse are about the shop's token, not about the caller's.
        let answer = call(self.stock, &self.origin, path, request.get_ref(), None).await;
        answer.map_err(|status| Status::unavailable(format!("the warehouse: {:?}", status.code())))
    }
}

/// Starts the warehouse, `warehouse.Stock`.
fn warehouse(provider: &Provider) -> Result<String, BoxError> {
    let auth = auth(provider).audience("warehouse").build()?;
    let methods = auth.require_by_path().path(COUNT, scope("stock:read"));
    let methods = methods.path(ORDER, scope("stock:write")).build()?;
    let protected = ServiceBuilder::new().layer(auth.layer()).layer(methods);
    serve(Routes::new(protected.named_layer(Texts(Stock))))
}

#[derive(Clone)]
struct Stock;

impl Methods for Stock {
    const NAME: &'static str = "warehouse.Stock";

    async fn call(self, path: String, request: Request<String>) -> Result<String, Status> {
        let caller = request.extensions().get::<AuthContext>().map(AuthContext::identity);
        let caller = caller.ok_or_else(|| Status::internal("the layer is missing"))?;
        let (goods, subject) = (request.get_ref(), caller.subject());
        let actor =
            caller.actor().and_then(|actor| actor.subject.as_deref()).unwrap_or("no service");
        match path.as_str() {
            COUNT => Ok(format!("12 {goods}, asked by {subject} through {actor}")),
            ORDER => Ok(format!("100 {goods} more, asked by {subject} through {actor}")),
            _ => Err(Status::unimplemented("no such method")),
        }
    }
}
