//! [`Gated`]: the tower service behind this crate's layers. A [`Gate`] decides whether a request
//! passes, waits or is refused.

mod body;

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

pub use body::ResponseBody;

/// A boxed future of this crate. It never contains the inner service, so the inner service need not
/// be `Send`.
pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The rule by which a layer lets each request pass, wait, or be refused. An `Err` is the response
/// of a refusal.
#[expect(
    clippy::result_large_err,
    reason = "the refusal is moved into the future; a box would cost an allocation per refusal"
)]
pub trait Gate<Q>: Clone {
    /// The value that [`finish`](Self::finish) needs after the service has responded. The default
    /// means that there is nothing to do.
    type After: Default;

    /// The result of the future that a request waits for.
    type Awaited;

    /// Decides as far as possible without waiting.
    fn decide(
        &self,
        request: &mut Request<Q>,
    ) -> Result<Decision<Self::After, Self::Awaited>, Response<Bytes>>;

    /// Decides about a request that has waited.
    fn resume(
        &self,
        awaited: Self::Awaited,
        request: &mut Request<Q>,
    ) -> Result<Self::After, Response<Bytes>>;

    /// Completes a response. Returns a future if the response must wait for more work. The default
    /// does nothing.
    fn finish<B>(
        _after: Self::After,
        _response: &mut Response<ResponseBody<B>>,
    ) -> Option<BoxFuture<Self::After>> {
        None
    }
}

/// The decision about a request that is not refused.
pub enum Decision<A, V> {
    /// The request goes to the service immediately.
    Pass(A),
    /// The request waits, together with the service instance that was ready for it.
    Wait(BoxFuture<V>),
}

/// A service `S` behind one of this crate's layers (`G`).
#[derive(Debug, Clone)]
pub struct Gated<S, G> {
    inner: S,
    gate: G,
}

impl<S, G> Gated<S, G> {
    pub(crate) fn new(inner: S, gate: G) -> Self {
        Self { inner, gate }
    }
}

impl<S, G, Q, B> Service<Request<Q>> for Gated<S, G>
where
    S: Service<Request<Q>, Response = Response<B>> + Clone,
    G: Gate<Q>,
{
    type Response = Response<ResponseBody<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, G, Q, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        let state = match self.gate.decide(&mut request) {
            Ok(Decision::Pass(after)) => State::Serving { future: self.inner.call(request), after },
            Ok(Decision::Wait(awaited)) => {
                let ready = take_ready(&mut self.inner);
                let waiting =
                    Some(Box::new(WaitingRequest { gate: self.gate.clone(), ready, request }));
                State::Waiting { awaited, waiting }
            }
            Err(refusal) => {
                drop(take_ready(&mut self.inner));
                State::refused(refusal)
            }
        };
        ResponseFuture { state }
    }
}

/// Takes the instance that `poll_ready` made ready, and leaves a clone that is not ready. Only the
/// taken instance may be called. If it is not called, it must be dropped, because it would keep the
/// resources that `poll_ready` reserved, such as a permit of a concurrency limit.
pub(crate) fn take_ready<S: Clone>(inner: &mut S) -> S {
    let spare = inner.clone();
    mem::replace(inner, spare)
}

pin_project! {
    /// The response future of a [`Gated`] service. It boxes nothing unless the request or its
    /// response waits.
    pub struct ResponseFuture<S, G, Q, B>
    where
        S: Service<Request<Q>>,
        G: Gate<Q>,
    {
        #[pin]
        state: State<S, G, Q, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, G, Q, B>
    where
        S: Service<Request<Q>>,
        G: Gate<Q>,
    {
        // The request waits, for keys, a tenant or a token.
        Waiting {
            awaited: BoxFuture<G::Awaited>,
            waiting: Option<Box<WaitingRequest<S, G, Q>>>,
        },
        // The inner service processes the request.
        Serving {
            #[pin]
            future: S::Future,
            after: G::After,
        },
        // The response is complete; it is returned when `after` is done.
        Responded {
            response: Option<Response<ResponseBody<B>>>,
            after: Option<BoxFuture<G::After>>,
        },
    }
}

impl<S, G, Q, B> State<S, G, Q, B>
where
    S: Service<Request<Q>>,
    G: Gate<Q>,
{
    fn refused(refusal: Response<Bytes>) -> Self {
        Self::Responded { response: Some(refusal.map(ResponseBody::from)), after: None }
    }
}

/// A waiting request, with its gate and the service instance that is ready for it.
struct WaitingRequest<S, G, Q> {
    gate: G,
    ready: S,
    request: Request<Q>,
}

impl<S, G, Q, B> Future for ResponseFuture<S, G, Q, B>
where
    S: Service<Request<Q>, Response = Response<B>>,
    G: Gate<Q>,
{
    type Output = Result<Response<ResponseBody<B>>, S::Error>;

    // A future that is polled again after completion stays pending.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let (mut response, after) = match state.as_mut().project() {
                StateProjection::Waiting { awaited, waiting } => {
                    let awaited = ready!(awaited.as_mut().poll(context));
                    let Some(waiting) = waiting.take() else { return Poll::Pending };
                    let WaitingRequest { gate, mut ready, mut request } = *waiting;
                    state.set(match gate.resume(awaited, &mut request) {
                        Ok(after) => State::Serving { future: ready.call(request), after },
                        Err(refusal) => State::refused(refusal),
                    });
                    continue;
                }
                StateProjection::Serving { future, after } => {
                    (ready!(future.poll(context))?.map(ResponseBody::inner), mem::take(after))
                }
                StateProjection::Responded { response, after } => {
                    let after = match after {
                        Some(after) if response.is_some() => ready!(after.as_mut().poll(context)),
                        _ => G::After::default(),
                    };
                    let Some(response) = response.take() else { return Poll::Pending };
                    (response, after)
                }
            };
            match G::finish(after, &mut response) {
                None => return Poll::Ready(Ok(response)),
                after => state.set(State::Responded { response: Some(response), after }),
            }
        }
    }
}

impl<S, G, Q, B> fmt::Debug for ResponseFuture<S, G, Q, B>
where
    S: Service<Request<Q>>,
    G: Gate<Q>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::convert::Infallible;
    use std::future::{self, Ready, poll_fn};
    use std::rc::Rc;
    use std::task::Waker;

    use http_body::Body;

    use super::*;

    const AFTER: &str = "after";

    /// A service that is not `Send`. It counts its ready instances. Calling an instance that is not
    /// ready panics.
    struct Reserving {
        ready: Rc<Cell<usize>>,
        is_ready: bool,
    }

    impl Reserving {
        fn set(&mut self, is_ready: bool) {
            let others = self.ready.get() - usize::from(self.is_ready);
            self.ready.set(others + usize::from(is_ready));
            self.is_ready = is_ready;
        }
    }

    impl Clone for Reserving {
        fn clone(&self) -> Self {
            Self { ready: self.ready.clone(), is_ready: false }
        }
    }

    impl Drop for Reserving {
        fn drop(&mut self) {
            self.set(false);
        }
    }

    impl Service<Request<Rc<str>>> for Reserving {
        type Response = Response<String>;
        type Error = Infallible;
        type Future = Ready<Result<Response<String>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.set(true);
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Rc<str>>) -> Self::Future {
            assert!(self.is_ready, "called without being ready");
            self.set(false);
            future::ready(Ok(Response::new(format!("{} served", request.body()))))
        }
    }

    /// A gate that is not `Send` and decides by the request body.
    #[derive(Clone)]
    struct ScriptedGate(Rc<RefCell<Vec<&'static str>>>);

    /// Returns `result` on the second poll.
    async fn later<T>(result: T) -> T {
        let mut is_first = true;
        poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        result
    }

    impl Gate<Rc<str>> for ScriptedGate {
        type After = u8;
        type Awaited = bool;

        fn decide(
            &self,
            request: &mut Request<Rc<str>>,
        ) -> Result<Decision<u8, bool>, Response<Bytes>> {
            self.0.borrow_mut().push("decide");
            match &**request.body() {
                "refuse" => Err(Response::new("refused".into())),
                "wait" => Ok(Decision::Wait(Box::pin(later(true)))),
                "wait and refuse" => Ok(Decision::Wait(Box::pin(later(false)))),
                "respond late" => Ok(Decision::Pass(2)),
                _ => Ok(Decision::Pass(0)),
            }
        }

        fn resume(&self, awaited: bool, _: &mut Request<Rc<str>>) -> Result<u8, Response<Bytes>> {
            self.0.borrow_mut().push("resume");
            if awaited { Ok(1) } else { Err(Response::new("refused late".into())) }
        }

        fn finish<B>(after: u8, response: &mut Response<ResponseBody<B>>) -> Option<BoxFuture<u8>> {
            response.headers_mut().append(AFTER, u16::from(after).into());
            after.checked_sub(1).filter(|left| *left > 0).map(|left| Box::pin(later(left)) as _)
        }
    }

    type TestFuture = ResponseFuture<Reserving, ScriptedGate, Rc<str>, String>;

    fn gated() -> (Gated<Reserving, ScriptedGate>, Rc<Cell<usize>>) {
        let ready = Rc::new(Cell::new(0));
        let inner = Reserving { ready: ready.clone(), is_ready: false };
        (Gated::new(inner, ScriptedGate(Rc::default())), ready)
    }

    fn call(service: &mut Gated<Reserving, ScriptedGate>, body: &Rc<str>) -> Pin<Box<TestFuture>> {
        let mut context = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut context).is_ready());
        Box::pin(service.call(Request::new(body.clone())))
    }

    /// Returns the response body, followed by the values of the header `AFTER`.
    fn poll(future: &mut Pin<Box<TestFuture>>) -> Poll<String> {
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(mut answer)) = future.as_mut().poll(&mut context) else {
            return Poll::Pending;
        };
        let frame = Pin::new(answer.body_mut()).poll_frame(&mut context);
        let Poll::Ready(Some(Ok(frame))) = frame else {
            panic!("the body is not ready: {frame:?}")
        };
        let mut text = String::from_utf8(frame.into_data().unwrap().into()).unwrap();
        for after in answer.headers().get_all(AFTER) {
            text = format!("{text} {}", after.to_str().unwrap());
        }
        Poll::Ready(text)
    }

    fn answer(text: &str) -> Poll<String> {
        Poll::Ready(text.to_owned())
    }

    #[test]
    fn ready_instance_is_called_or_dropped() {
        let (mut service, ready) = gated();
        for (body, answers) in [
            ("pass", vec![answer("pass served 0")]),
            ("refuse", vec![answer("refused 0")]),
            ("wait", vec![Poll::Pending, answer("wait served 1")]),
            ("wait and refuse", vec![Poll::Pending, answer("refused late 0")]),
            ("respond late", vec![Poll::Pending, answer("respond late served 2 1")]),
        ] {
            let body: Rc<str> = body.into();
            let mut future = call(&mut service, &body);
            let waits = usize::from(body.starts_with("wait"));
            assert_eq!(
                ready.get(),
                waits,
                "{body}: the ready instance is kept only while the request waits"
            );
            for expected in answers {
                assert_eq!(poll(&mut future), expected);
            }
            assert_eq!((ready.get(), Rc::strong_count(&body)), (0, 1), "{body}");
        }
    }

    #[test]
    fn completed_future_stays_pending() {
        let (mut service, _) = gated();
        for body in ["refuse", "wait and refuse", "respond late"] {
            let mut future = call(&mut service, &body.into());
            while poll(&mut future).is_pending() {}
            assert!(poll(&mut future).is_pending(), "{body}");
        }
    }

    #[test]
    fn dropped_future_drops_request_and_service() {
        let (mut service, ready) = gated();
        let body: Rc<str> = "wait".into();
        for polls in [0, 1] {
            let mut future = call(&mut service, &body);
            for _ in 0..polls {
                assert!(poll(&mut future).is_pending());
            }
            assert_eq!((ready.get(), Rc::strong_count(&body)), (1, 2));
            drop(future);
            assert_eq!((ready.get(), Rc::strong_count(&body)), (0, 1));
        }
        assert_eq!(*service.gate.0.borrow(), ["decide", "decide"]);
    }
}
