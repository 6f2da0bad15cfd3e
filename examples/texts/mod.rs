//! A gRPC service and its client for the example `grpc_mesh`, with texts as messages. In your program,
//! `tonic-prost-build` generates both from a `.proto` file.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use scaikey_auth::error::BoxError;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

/// The methods of a service.
pub(crate) trait Methods: Clone + Send + Sync + 'static {
    /// The name of the service, with its package.
    const NAME: &'static str;

    /// Answers a call of the method with this path.
    fn call(
        self,
        path: String,
        request: Request<String>,
    ) -> impl Future<Output = Result<String, Status>> + Send;
}

/// The tonic service with these methods.
#[derive(Clone)]
pub(crate) struct Texts<M>(pub(crate) M);

impl<M: Methods> NamedService for Texts<M> {
    const NAME: &'static str = M::NAME;
}

impl<M: Methods> Service<http::Request<Body>> for Texts<M> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (methods, path) = (self.0.clone(), request.uri().path().to_owned());
        Box::pin(async move {
            let method = service_fn(move |request| {
                let answer = methods.clone().call(path.clone(), request);
                async move { answer.await.map(Response::new) }
            });
            Ok(tonic::server::Grpc::new(ProstCodec::default()).unary(method, request).await)
        })
    }
}

/// Calls a method at `origin`, with a bearer token if given.
pub(crate) async fn call<S>(
    service: S,
    origin: &str,
    path: &'static str,
    text: &str,
    token: Option<&str>,
) -> Result<String, Status>
where
    S: GrpcService<Body, ResponseBody = Body, Error: Into<BoxError>>,
{
    let mut request = Request::new(text.to_owned());
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse();
        let value = value.map_err(|_| Status::internal("a token is ASCII"))?;
        request.metadata_mut().insert("authorization", value);
    }
    // Generated clients have `with_origin`, too. Without it, the layers around the channel see no host.
    let origin = origin.parse().map_err(|_| Status::internal("not a URL"))?;
    let mut client = tonic::client::Grpc::with_origin(service, origin);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = http::uri::PathAndQuery::from_static(path);
    client.unary(request, path, ProstCodec::default()).await.map(Response::into_inner)
}

/// Serves on a free port until the program ends. Returns the URL.
pub(crate) fn serve(services: Routes) -> Result<String, BoxError> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let url = format!("http://{}", incoming.local_addr()?);
    // Closes connections of clients that disappear, and every connection after an hour.
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .max_connection_age(Duration::from_secs(3600));
    tokio::spawn(server.add_routes(services).serve_with_incoming(incoming));
    Ok(url)
}
