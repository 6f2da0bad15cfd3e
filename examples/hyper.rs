//! Run with `cargo run --example hyper`
//!
//! Protects a plain hyper 1 service, without a framework. Prints `curl` lines to try. `LISTEN` sets
//! the address (default `127.0.0.1:8080`).

use std::convert::Infallible;
use std::error::Error;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use scaikey_auth::{Auth, AuthContext, IssuerConfig, testing::Provider};
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
    let listener = serve::listen().await?;
    let provider = Provider::start().await;
    let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").build()?;
    let service = ServiceBuilder::new().layer(auth.layer()).service(service_fn(hello));

    let url = format!("http://{}", listener.local_addr()?);
    println!("# 401: no token\ncurl -i {url}");
    println!(
        "# 200: a valid token\ncurl -i {url} -H 'Authorization: Bearer {}'",
        provider.token().sign()
    );
    serve::serve(listener, service, serve::HEAD_TIMEOUT).await;
    Ok(())
}
