//! How the examples serve HTTP/1.1: hyper, with an end to the patience for a request's head.
//!
//! `axum::serve` has none: a client that sends half a head, or nothing, keeps its connection, and with
//! it a file handle, for as long as it likes.

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

/// How long a head may take, and a connection may be idle between two requests.
pub(crate) const HEAD: Duration = Duration::from_secs(15);

/// Serves until the process ends. The address of each connection goes with its requests, so that the
/// endpoints know whom they throttle.
pub(crate) async fn serve<S, B>(listener: TcpListener, service: S, head: Duration)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let mut server = http1::Builder::new();
    // Without a timer, the time limit is none.
    server.timer(TokioTimer::new()).header_read_timeout(head);
    loop {
        let (connection, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // There is no file handle left, say. Clients that go give theirs back.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
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
        // A client that hangs up is no reason to stop.
        tokio::spawn(async move { connection.with_upgrades().await.ok() });
    }
}
