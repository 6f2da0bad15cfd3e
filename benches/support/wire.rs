//! HTTP/1.1 over the loopback interface: a hyper server, and a client that sends prepared bytes.

use std::convert::Infallible;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::Service;

pub(crate) type Answer = Result<Response<Full<Bytes>>, Infallible>;

pub(crate) async fn answer(_request: Request<Incoming>) -> Answer {
    Ok(Response::new(Full::from("hello")))
}

/// Returns a listener on a free port, and the port.
pub(crate) async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// Serves until the process ends.
pub(crate) async fn serve<S, B>(listener: TcpListener, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Returns the bytes of a request.
pub(crate) fn get(token: Option<&str>) -> Vec<u8> {
    let authorization = token.map(|it| format!("Authorization: Bearer {it}\r\n"));
    let authorization = authorization.unwrap_or_default();
    format!("GET /me HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n{authorization}\r\n")
        .into_bytes()
}

/// A persistent connection.
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) fn open(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Self(stream)
    }

    pub(crate) fn send(&mut self, request: &[u8]) {
        self.0.write_all(request).expect("the request is sent");
    }

    /// Reads a small answer and returns its status.
    pub(crate) fn status(&mut self) -> u16 {
        let (mut buffer, mut length) = ([0; 4096], 0);
        loop {
            let more = self.0.read(&mut buffer[length..]).expect("an answer");
            assert_ne!(more, 0, "the server closed the connection or sent a large answer");
            length += more;
            if let Some(status) = complete(&buffer[..length]) {
                return status;
            }
        }
    }
}

/// Returns the status if the answer is complete.
fn complete(answer: &[u8]) -> Option<u16> {
    let answer = str::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|it| it.parse().ok()).expect("a length");
    (body.len() == length).then(|| head[9..12].parse().expect("a status"))
}

/// The number of parallel clients, each with its own connection.
const CLIENTS: usize = 8;
/// The number of requests of each client in a round.
const REQUESTS: usize = 50;

/// A server on its own thread, and its clients.
pub(crate) struct Server {
    /// The Linux file with the CPU time of the thread.
    meter: PathBuf,
    clients: Vec<Connection>,
}

impl Server {
    pub(crate) fn start<S, B>(service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let thread = fs::read_link("/proc/thread-self").expect("this thread");
                let (listener, port) = listen().await;
                sender.send((port, thread)).expect("the receiver waits");
                serve(listener, service).await;
            });
        });
        let (port, thread) = receiver.recv().expect("the server listens");
        let meter = Path::new("/proc").join(thread).join("schedstat");
        Self { meter, clients: (0..CLIENTS).map(|_| Connection::open(port)).collect() }
    }

    /// Returns the CPU time of the server thread per request, in microseconds.
    pub(crate) fn cost(&mut self, request: &[u8], expected: u16) -> f64 {
        let before = self.cpu_time();
        for _ in 0..REQUESTS {
            self.clients.iter_mut().for_each(|client| client.send(request));
            for client in &mut self.clients {
                assert_eq!(client.status(), expected);
            }
        }
        (self.cpu_time() - before) as f64 / 1e3 / (CLIENTS * REQUESTS) as f64
    }

    /// Returns the CPU time of the thread in nanoseconds. Linux updates it only when the thread
    /// sleeps, so this waits until the value is stable.
    fn cpu_time(&self) -> u64 {
        let mut last = None;
        loop {
            thread::sleep(Duration::from_micros(300));
            let line = fs::read_to_string(&self.meter).expect("the thread runs");
            let ran = line.split(' ').next().and_then(|it| it.parse().ok());
            let ran: u64 = ran.expect("a time");
            if last == Some(ran) {
                return ran;
            }
            last = Some(ran);
        }
    }
}
