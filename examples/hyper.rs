//! Run with `cargo run --example hyper`
//!
//! Protects a plain hyper 1 service, without a framework. Prints `curl` lines to try.

use std::convert::Infallible;
use std::error::Error;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use scaikey_auth::{Auth, AuthContext, IssuerConfig, testing::Provider};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};

mod serve;

/// Reads the identity from the request's extensions, because hyper has no extractors.
async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let subject =
        request.extensions().get::<AuthContext>().map(|context| context.identity().subject());
    Ok(Response::new(Full::from(format!("hello, {}\n", subject.unwrap_or("nobody")))))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(&listen).await.map_err(|error| {
        format!("cannot listen on {listen}: {error}; set LISTEN to another address")
    })?;
    let provider = Provider::start().await;
    let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").build()?;
    let service = ServiceBuilder::new().layer(auth.layer()).service(service_fn(hello));

    let url = format!("http://{}", listener.local_addr()?);
    println!("curl -i {url}");
    println!("curl -i {url} -H 'Authorization: Bearer {}'", provider.token().sign());
    serve::serve(listener, service, serve::HEAD).await;
    Ok(())
}
