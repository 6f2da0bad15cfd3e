//! Run with `cargo run --example tonic`
//!
//! Protects a gRPC service (tonic's health service) with the layer and a guard. A client calls it
//! with a token, without a token, and with a token that lacks the scope. Prints the status codes.

use std::error::Error;
use std::time::Duration;

use scaikey_auth::error::Grpc;
use scaikey_auth::testing::Provider;
use scaikey_auth::{Auth, IssuerConfig, scope};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let provider = Provider::start().await;
    let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").build()?;

    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let address = incoming.local_addr()?;
    let (_reporter, health) = tonic_health::server::health_reporter();
    // Your own service finds the `AuthContext` in `request.extensions()`.
    let server = Server::builder()
        // Closes connections of clients that disappear, and every connection after an hour.
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .max_connection_age(Duration::from_secs(3600))
        .layer(auth.layer().respond_with(Grpc))
        .layer(auth.require(scope("health:read")).respond_with(Grpc))
        .add_service(health)
        .serve_with_incoming(incoming);
    tokio::spawn(server);

    let channel = Endpoint::try_from(format!("http://{address}"))?.connect().await?;
    let calls = [
        ("with a token", Some(provider.token().scope("health:read").sign())),
        ("without a token", None),
        ("without the scope", Some(provider.token().sign())),
    ];
    for (call, token) in calls {
        match check(&channel, token.as_deref()).await {
            Ok(()) => println!("{call:18} {:?}", Code::Ok),
            Err(status) => println!("{call:18} {:?}: {}", status.code(), status.message()),
        }
    }
    Ok(())
}

async fn check(channel: &Channel, token: Option<&str>) -> Result<(), Status> {
    let mut request = Request::new(HealthCheckRequest { service: String::new() });
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse();
        let value = value.map_err(|_| Status::internal("a token is ASCII"))?;
        request.metadata_mut().insert("authorization", value);
    }
    HealthClient::new(channel.clone()).check(request).await.map(|_| ())
}
