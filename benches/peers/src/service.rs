//! The little service that every peer protects, and a way to send it requests whatever its types are.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::marker::PhantomData;
use std::pin::Pin;

use http::{HeaderValue, Request, Response, Uri, header};
use tower::Service;

use crate::protocol::Statuses;

/// Where the handler tells whom it saw, and how.
pub(crate) const SUBJECT_PATH: &str = "/subject";
pub(crate) const SUBJECT_HEADER: &str = "x-subject";

type Sent<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Headers that take turns.
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

    fn turn(&mut self) -> Option<HeaderValue> {
        let header = self.headers[self.next].clone();
        self.next = (self.next + 1) % self.headers.len();
        header
    }
}

/// Whoever requests can be sent to.
pub(crate) trait Target {
    /// So many requests, one after the other, and how they were answered.
    fn send<'a>(&'a mut self, slot: &'a mut Slot, calls: u32) -> Sent<'a, Statuses>;

    /// Whom the handler saw in a request.
    fn subject<'a>(&'a mut self, slot: &'a mut Slot) -> Sent<'a, Option<String>>;
}

/// A protected service and the same without protection.
pub(crate) struct Pair {
    pub(crate) protected: Box<dyn Target>,
    bare: Box<dyn Target>,
}

impl Pair {
    /// `B` is the body of the requests both are sent.
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
    fn send<'a>(&'a mut self, slot: &'a mut Slot, calls: u32) -> Sent<'a, Statuses> {
        Box::pin(async move {
            let mut counts = vec![0; 1000];
            for _ in 0..calls {
                let response = self.call(Uri::default(), slot.turn()).await;
                counts[usize::from(response.status().as_u16())] += 1;
            }
            (0..).zip(counts).filter(|(_, count)| *count > 0).collect()
        })
    }

    fn subject<'a>(&'a mut self, slot: &'a mut Slot) -> Sent<'a, Option<String>> {
        Box::pin(async move {
            let response = self.call(Uri::from_static(SUBJECT_PATH), slot.turn()).await;
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
        poll_fn(|cx| self.0.poll_ready(cx)).await.expect("it is ready");
        black_box(self.0.call(black_box(request)).await.expect("it answers"))
    }
}
