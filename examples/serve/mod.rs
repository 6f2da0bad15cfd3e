//! Serves HTTP/1.1 for the examples: hyper with a time limit for request heads.
//!
//! `axum::serve` has no such limit: a client that sends half a head, or nothing, keeps its
//! connection and its file descriptor open forever.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tower::{Service, ServiceExt as _};

/// The time limit for a request head, and for an idle connection between two requests.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Serves until the process ends. Adds the client address to each request, because the endpoints
/// throttle by address.
pub(crate) async fn serve<S, B>(listener: TcpListener, service: S, head_timeout: Duration)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let mut server = http1::Builder::new();
    // Without a timer, hyper ignores the time limit.
    server.timer(TokioTimer::new()).header_read_timeout(head_timeout);
    loop {
        let (connection, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // For example, no file descriptor is left. Closed connections release theirs.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let service = service.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            service.clone().oneshot(request)
        });
        let connection = server.serve_connection(TokioIo::new(connection), service);
        // Ignores the error when a client closes its connection.
        tokio::spawn(async move { connection.with_upgrades().await.ok() });
    }
}
