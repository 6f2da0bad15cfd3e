//! HTTP/1.1 over the loopback interface: a hyper server, and a client that asks with prepared octets.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::Service;

pub(crate) type Answer = Result<Response<Full<Bytes>>, Infallible>;

pub(crate) async fn answer(_request: Request<Incoming>) -> Answer {
    Ok(Response::new(Full::from("hello")))
}

/// A listener on a free port, and the port.
pub(crate) async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// Serves for as long as the process lives.
pub(crate) async fn serve<S>(listener: TcpListener, service: S)
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// The octets of a request.
pub(crate) fn get(token: Option<&str>) -> Vec<u8> {
    let authorization = token.map(|it| format!("Authorization: Bearer {it}\r\n"));
    let authorization = authorization.unwrap_or_default();
    format!("GET /me HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n{authorization}\r\n")
        .into_bytes()
}

/// A connection that is kept open.
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) fn open(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Self(stream)
    }

    pub(crate) fn send(&mut self, request: &[u8]) {
        self.0.write_all(request).expect("a request goes out");
    }

    /// Reads the answer, which is small, and returns its status.
    pub(crate) fn status(&mut self) -> u16 {
        let (mut buffer, mut length) = ([0; 4096], 0);
        loop {
            let more = self.0.read(&mut buffer[length..]).expect("an answer");
            assert_ne!(more, 0, "the server hung up, or sent a large answer");
            length += more;
            if let Some(status) = complete(&buffer[..length]) {
                return status;
            }
        }
    }
}

/// The status of an answer, once all of it is there.
fn complete(answer: &[u8]) -> Option<u16> {
    let answer = str::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|it| it.parse().ok()).expect("a length");
    (body.len() == length).then(|| head[9..12].parse().expect("a status"))
}
