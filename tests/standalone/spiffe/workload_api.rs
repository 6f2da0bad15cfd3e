//! A server of the SPIFFE Workload API on a Unix socket, as an agent has.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::stream;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tonic_prost::prost::Message;
use tower::{Service, service_fn};

use crate::support::File;

/// `JWTSVIDRequest` of the Workload API.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "tonic_prost::prost")]
pub(super) struct SvidRequest {
    #[prost(string, repeated, tag = "1")]
    pub(super) audience: Vec<String>,
    #[prost(string, tag = "2")]
    pub(super) spiffe_id: String,
}

/// `JWTSVIDResponse`.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "tonic_prost::prost")]
struct SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
}

/// `JWTSVID`.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "tonic_prost::prost")]
struct Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(string, tag = "2")]
    svid: String,
}

/// The answer to a request.
pub(super) enum Answer {
    /// A SPIFFE ID with its JWT-SVID.
    Issue(String, String),
    Deny(Status),
    /// None at all.
    Silence,
}

type Issue = dyn Fn(&SvidRequest) -> Answer + Send + Sync;

/// An agent. Its socket exists while it runs.
pub(super) struct Agent {
    socket: File,
    service: WorkloadApi,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

#[derive(Clone)]
struct WorkloadApi {
    issue: Arc<Issue>,
    requests: Arc<Mutex<Vec<SvidRequest>>>,
}

impl Agent {
    /// Creates an agent that does not run yet.
    pub(super) fn new(issue: impl Fn(&SvidRequest) -> Answer + Send + Sync + 'static) -> Self {
        let service = WorkloadApi { issue: Arc::new(issue), requests: Arc::default() };
        Self { socket: File::reserve("agent.sock"), service, running: None }
    }

    pub(super) fn started(issue: impl Fn(&SvidRequest) -> Answer + Send + Sync + 'static) -> Self {
        let mut agent = Self::new(issue);
        agent.start();
        agent
    }

    pub(super) fn start(&mut self) {
        let listener = UnixListener::bind(self.socket.path()).unwrap();
        let incoming = stream::unfold(listener, |listener| async move {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let (stop, stopped) = oneshot::channel();
        let server = Server::builder().add_service(self.service.clone());
        let server = server.serve_with_incoming_shutdown(incoming, async {
            let _ = stopped.await;
        });
        self.running = Some((stop, tokio::spawn(async { server.await.unwrap() })));
    }

    /// Closes all connections and removes the socket.
    pub(super) async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        stop.send(()).unwrap();
        task.await.unwrap();
        self.socket.remove();
    }

    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.socket.path_text())
    }

    pub(super) fn requests(&self) -> Vec<SvidRequest> {
        self.service.requests.lock().unwrap().clone()
    }
}

impl NamedService for WorkloadApi {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl Service<http::Request<Body>> for WorkloadApi {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/SpiffeWorkloadAPI/FetchJWTSVID" => {
                    let fetch = service_fn(move |request| service.clone().fetch(request));
                    tonic::server::Grpc::new(ProstCodec::default()).unary(fetch, request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

impl WorkloadApi {
    async fn fetch(self, request: Request<SvidRequest>) -> Result<Response<SvidResponse>, Status> {
        // Workload Endpoint §5: a defence against forged requests of browsers and proxies.
        if request.metadata().get("workload.spiffe.io").is_none_or(|value| value != "true") {
            return Err(Status::invalid_argument("security header missing"));
        }
        let answer = (self.issue)(request.get_ref());
        self.requests.lock().unwrap().push(request.into_inner());
        match answer {
            Answer::Issue(spiffe_id, svid) => {
                Ok(Response::new(SvidResponse { svids: vec![Svid { spiffe_id, svid }] }))
            }
            Answer::Deny(status) => Err(status),
            Answer::Silence => pending().await,
        }
    }
}
