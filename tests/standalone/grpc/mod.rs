//! gRPC services behind the layers, tested with tonic's client over sockets.

mod path_rules;
mod services;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt as _, stream};
use http::uri::PathAndQuery;
use scaikey_auth::AuthContext;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server as Tonic};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use crate::support::{Server, within_timeout};

type Codec = ProstCodec<String, String>;

/// A service whose methods take and return strings, like one that is generated from a `.proto` file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Texts;

impl NamedService for Texts {
    const NAME: &'static str = "test.Texts";
}

impl Service<http::Request<Body>> for Texts {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Codec::default());
            Ok(match request.uri().path() {
                "/test.Texts/Say" | "/test.Texts/Whisper" => {
                    grpc.unary(service_fn(say), request).await
                }
                "/test.Texts/Count" => grpc.server_streaming(service_fn(count), request).await,
                "/test.Texts/Collect" => grpc.client_streaming(service_fn(collect), request).await,
                "/test.Texts/Echo" => grpc.streaming(service_fn(echo), request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

fn caller<T>(request: &Request<T>) -> String {
    let context = request.extensions().get::<AuthContext>();
    context.map_or("nobody", |context| context.identity().subject()).to_owned()
}

async fn say(request: Request<String>) -> Result<Response<String>, Status> {
    Ok(Response::new(format!("{}: {}", caller(&request), request.get_ref())))
}

type Texted = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

async fn count(request: Request<String>) -> Result<Response<Texted>, Status> {
    let caller = caller(&request);
    let numbers = (1..=3).map(move |number| Ok(format!("{caller}: {number}")));
    Ok(Response::new(Box::pin(stream::iter(numbers))))
}

async fn collect(request: Request<Streaming<String>>) -> Result<Response<String>, Status> {
    let mut text = format!("{}:", caller(&request));
    let mut parts = request.into_inner();
    while let Some(part) = parts.next().await {
        text = text + " " + &part?;
    }
    Ok(Response::new(text))
}

async fn echo(request: Request<Streaming<String>>) -> Result<Response<Texted>, Status> {
    let caller = caller(&request);
    let echoes = request.into_inner().map(move |part| Ok(format!("{caller}: {}", part?)));
    Ok(Response::new(Box::pin(echoes)))
}

/// Serves gRPC services. HTTP/1 too, for tests that read the answer without a gRPC client.
pub(crate) async fn serve(services: Routes) -> Server {
    Server::start(|listener| async move {
        let server = Tonic::builder().accept_http1(true).add_routes(services);
        server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
    })
    .await
}

pub(crate) async fn channel(server: &Server) -> Channel {
    let endpoint = Channel::from_shared(server.url()).unwrap();
    within_timeout(endpoint.connect()).await.unwrap()
}

/// A client of [`Texts`] that sends one bearer token, if any.
pub(crate) struct Client<S> {
    grpc: tonic::client::Grpc<S>,
    token: Option<String>,
}

impl Client<Channel> {
    pub(crate) async fn new(server: &Server, token: Option<String>) -> Self {
        Self { grpc: tonic::client::Grpc::new(channel(server).await), token }
    }
}

impl<S> Client<S>
where
    S: GrpcService<Body, Error: Into<tonic::codegen::StdError>>,
    S::ResponseBody: http_body::Body<Data = bytes::Bytes, Error: Into<tonic::codegen::StdError>>
        + Send
        + 'static,
{
    /// Creates a client of a service that needs the scheme and the host of each request.
    pub(crate) fn with_origin(service: S, origin: &str) -> Self {
        let origin = origin.parse().unwrap();
        Self { grpc: tonic::client::Grpc::with_origin(service, origin), token: None }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            let authorization = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", authorization);
        }
        request
    }

    async fn ready(&mut self, method: &str) -> Result<PathAndQuery, Status> {
        let ready = within_timeout(self.grpc.ready()).await;
        ready.map_err(|error| Status::from_error(error.into()))?;
        Ok(format!("/test.Texts/{method}").parse().unwrap())
    }

    /// Calls a method with one message and one answer.
    pub(crate) async fn say(&mut self, method: &str, text: &str) -> Result<String, Status> {
        let path = self.ready(method).await?;
        let request = self.request(text.to_owned());
        let answer = within_timeout(self.grpc.unary(request, path, Codec::default())).await?;
        Ok(answer.into_inner())
    }

    /// Calls a method whose answer is a stream.
    async fn count(&mut self) -> Result<Vec<String>, Status> {
        let path = self.ready("Count").await?;
        let request = self.request(String::new());
        let answer = self.grpc.server_streaming(request, path, Codec::default());
        all(within_timeout(answer).await?.into_inner()).await
    }

    /// Calls a method with a stream of messages.
    async fn collect(&mut self, texts: &[&str]) -> Result<String, Status> {
        let path = self.ready("Collect").await?;
        let request = self.request(messages(texts));
        let answer = self.grpc.client_streaming(request, path, Codec::default());
        Ok(within_timeout(answer).await?.into_inner())
    }

    /// Calls a method with a stream of messages whose answer is a stream.
    async fn echo(&mut self, texts: &[&str]) -> Result<Vec<String>, Status> {
        let path = self.ready("Echo").await?;
        let request = self.request(messages(texts));
        let answer = self.grpc.streaming(request, path, Codec::default());
        all(within_timeout(answer).await?.into_inner()).await
    }
}

fn messages(texts: &[&str]) -> impl Stream<Item = String> + Send + 'static {
    stream::iter(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
}

async fn all(mut answers: Streaming<String>) -> Result<Vec<String>, Status> {
    let mut texts = Vec::new();
    while let Some(text) = within_timeout(answers.message()).await? {
        texts.push(text);
    }
    Ok(texts)
}

/// Calls the health service without a token.
async fn health(server: &Server) -> Result<i32, Code> {
    let request = HealthCheckRequest { service: String::new() };
    let answer = HealthClient::new(channel(server).await).check(request).await;
    answer.map(|answer| answer.into_inner().status).map_err(|status| status.code())
}
