//! Shared parts of the examples: a log, a listener, and a server for HTTP/1.1. The server is hyper with a time
//! limit for request heads, and a graceful stop.
//!
//! `axum::serve` has no such limit: a client that sends half a head, or nothing, keeps its
//! connection and its file descriptor open forever.

#![allow(dead_code, reason = "each example uses a part")]

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, pending};
use std::pin::pin;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::{Service, ServiceExt as _};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The time limit for a request head, and for an idle connection between two requests.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Logs warnings and errors to the error output. `RUST_LOG` replaces this filter.
pub(crate) fn log_warnings() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into());
    let log = tracing_subscriber::fmt().with_env_filter(filter.from_env_lossy());
    log.with_writer(std::io::stderr).init();
}

/// Listens on the address in `LISTEN`, by default on `127.0.0.1:8080`.
pub(crate) async fn listen() -> Result<TcpListener, String> {
    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    TcpListener::bind(&address).await.map_err(|why| {
        format!(
            "Cannot listen on {address}: {why}. Set LISTEN to another address, for example LISTEN=127.0.0.1:8081."
        )
    })
}

/// A share in the stop of the server. Each request has one in its extensions. The server waits until all
/// are dropped, so a web socket keeps a clone.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Waits until the server stops. Streams that would not end by themselves then end.
    pub(crate) async fn requested(&mut self) {
        // Fails if the server is gone.
        let _ = self.0.wait_for(|is_requested| *is_requested).await;
    }
}

/// Serves until the process ends. Adds the client address to each request, because the endpoints
/// throttle by address.
pub(crate) async fn serve<S, B>(listener: TcpListener, service: S, head_timeout: Duration)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    serve_until(listener, service, head_timeout, pending(), Duration::ZERO).await;
}

/// Serves as [`serve`] does, until `stop` is ready. Then accepts no more connections, closes idle ones, and
/// waits at most `limit` for requests in flight and for clones of [`Stop`]. Returns whether all have ended.
pub(crate) async fn serve_until<S, B>(
    listener: TcpListener,
    service: S,
    head_timeout: Duration,
    stop: impl Future<Output = ()>,
    limit: Duration,
) -> bool
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let mut server = http1::Builder::new();
    // Without a timer, hyper ignores the time limit.
    server.timer(TokioTimer::new()).header_read_timeout(head_timeout);
    let (stop_connections, receiver) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (connection, peer) = match accepted {
            Ok(accepted) => accepted,
            // For example, no file descriptor is left. Closed connections release theirs.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let (service, share) = (service.clone(), Stop(receiver.clone()));
        let mut stopping = share.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(share.clone());
            service.clone().oneshot(request)
        });
        let connection = server.serve_connection(TokioIo::new(connection), service);
        tokio::spawn(async move {
            let mut connection = pin!(connection.with_upgrades());
            // Ignores the error when a client closes its connection.
            tokio::select! {
                _ = &mut connection => {}
                () = stopping.requested() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await.ok();
                }
            }
        });
    }
    drop((listener, receiver));
    tracing::info!("accepts no more connections");
    stop_connections.send_replace(true);
    tokio::time::timeout(limit, stop_connections.closed()).await.is_ok()
}
