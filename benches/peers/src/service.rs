//! The small service that every peer protects, and a type-erased way to send it requests.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::marker::PhantomData;
use std::pin::Pin;

use http::{HeaderValue, Request, Response, Uri, header};
use tower::Service;

use crate::protocol::Statuses;

/// The path at which the handler returns the subject, and the header that contains it.
pub(crate) const SUBJECT_PATH: &str = "/subject";
pub(crate) const SUBJECT_HEADER: &str = "x-subject";

type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// `Authorization` headers, used in turn.
pub(crate) struct Slot {
    headers: Vec<Option<HeaderValue>>,
    next: usize,
}

impl Slot {
    pub(crate) fn new(headers: Vec<Option<HeaderValue>>) -> Self {
        Self { headers, next: 0 }
    }

    pub(crate) fn len(&self) -> u32 {
        self.headers.len() as u32
    }

    fn next_header(&mut self) -> Option<HeaderValue> {
        let header = self.headers[self.next].clone();
        self.next = (self.next + 1) % self.headers.len();
        header
    }
}

/// A type-erased service.
pub(crate) trait Target {
    /// Sends this many requests in sequence and returns their statuses.
    fn send<'a>(&'a mut self, slot: &'a mut Slot, calls: u32) -> LocalFuture<'a, Statuses>;

    /// Sends a request and returns the subject that the handler received.
    fn subject<'a>(&'a mut self, slot: &'a mut Slot) -> LocalFuture<'a, Option<String>>;
}

/// A protected service and the same service without protection.
pub(crate) struct Pair {
    pub(crate) protected: Box<dyn Target>,
    bare: Box<dyn Target>,
}

impl Pair {
    /// Creates a pair. `B` is the body type of the requests.
    pub(crate) fn new<B, P, Q, R, T>(protected: P, bare: Q) -> Self
    where
        B: Default + 'static,
        P: Service<Request<B>, Response = Response<R>, Error: Debug> + 'static,
        Q: Service<Request<B>, Response = Response<T>, Error: Debug> + 'static,
        R: 'static,
        T: 'static,
    {
        Self {
            protected: Box::new(Typed(protected, PhantomData)),
            bare: Box::new(Typed(bare, PhantomData)),
        }
    }

    pub(crate) fn side(&mut self, bare: bool) -> &mut dyn Target {
        if bare { &mut *self.bare } else { &mut *self.protected }
    }
}

struct Typed<S, B>(S, PhantomData<B>);

impl<S, B, R> Target for Typed<S, B>
where
    S: Service<Request<B>, Response = Response<R>, Error: Debug>,
    B: Default,
{
    fn send<'a>(&'a mut self, slot: &'a mut Slot, calls: u32) -> LocalFuture<'a, Statuses> {
        Box::pin(async move {
            let mut counts = vec![0; 1000];
            for _ in 0..calls {
                let response = self.call(Uri::default(), slot.next_header()).await;
                counts[usize::from(response.status().as_u16())] += 1;
            }
            (0..).zip(counts).filter(|(_, count)| *count > 0).collect()
        })
    }

    fn subject<'a>(&'a mut self, slot: &'a mut Slot) -> LocalFuture<'a, Option<String>> {
        Box::pin(async move {
            let response = self.call(Uri::from_static(SUBJECT_PATH), slot.next_header()).await;
            let subject = response.headers().get(SUBJECT_HEADER)?;
            subject.to_str().ok().map(str::to_owned)
        })
    }
}

impl<S, B, R> Typed<S, B>
where
    S: Service<Request<B>, Response = Response<R>, Error: Debug>,
    B: Default,
{
    async fn call(&mut self, uri: Uri, authorization: Option<HeaderValue>) -> Response<R> {
        let mut request = Request::new(B::default());
        *request.uri_mut() = uri;
        if let Some(value) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        poll_fn(|cx| self.0.poll_ready(cx)).await.expect("the service is ready");
        black_box(self.0.call(black_box(request)).await.expect("the service answers"))
    }
}
