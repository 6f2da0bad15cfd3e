//! [`ResponseFuture`]: a response under way. Boxed only while something is waited for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::PROVENANCE_HEADER;
use super::service::{Pending, refuse};
use super::source::RequestHead;
use crate::auth::Auth;
use crate::error::ErrorResponse;

pin_project! {
    /// The response of an [`AuthService`](super::AuthService).
    pub struct ResponseFuture<S, R, Q>
    where
        S: Service<Request<Q>>,
    {
        #[pin]
        state: State<S, S::Future, S::Response, R, Q>,
        // Whether the identity is a mock, which the response must say.
        mock: bool,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F, T, R, Q> {
        // The inner service is at work.
        Admitted {
            #[pin]
            future: F,
        },
        Refused {
            response: Option<T>,
        },
        // The verdict needs keys or a tenant; the request is kept meanwhile, out of the way of
        // those that need not wait.
        Waiting {
            pending: Pending,
            held: Option<Box<Held<S, R, Q>>>,
        },
    }
}

/// A request that waits, and what goes on with it.
struct Held<S, R, Q> {
    ready: S,
    request: Request<Q>,
    auth: Auth,
    respond: R,
}

impl<S: Service<Request<Q>>, R, Q> ResponseFuture<S, R, Q> {
    pub(super) fn admitted(future: S::Future, mock: bool) -> Self {
        Self { state: State::Admitted { future }, mock }
    }

    pub(super) fn refused(response: S::Response) -> Self {
        Self { state: State::Refused { response: Some(response) }, mock: false }
    }

    pub(super) fn waiting(
        pending: Pending,
        ready: S,
        request: Request<Q>,
        auth: Auth,
        respond: R,
    ) -> Self {
        let held = Some(Box::new(Held { ready, request, auth, respond }));
        Self { state: State::Waiting { pending, held }, mock: false }
    }
}

impl<S, R, Q, B> Future for ResponseFuture<S, R, Q>
where
    S: Service<Request<Q>, Response = Response<B>>,
    R: ErrorResponse<B>,
{
    type Output = Result<Response<B>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Admitted { future } => {
                    let mut response = ready!(future.poll(context))?;
                    if *this.mock {
                        let mark = HeaderValue::from_static("mock");
                        response.headers_mut().insert(PROVENANCE_HEADER, mark);
                    }
                    return Poll::Ready(Ok(response));
                }
                StateProjection::Refused { response } => match response.take() {
                    Some(response) => return Poll::Ready(Ok(response)),
                    // Polled again after it answered: there is nothing to say any more.
                    None => return Poll::Pending,
                },
                StateProjection::Waiting { pending, held } => {
                    let verdict = ready!(pending.as_mut().poll(context));
                    let Some(held) = held.take() else { return Poll::Pending };
                    let Held { mut ready, mut request, auth, respond } = *held;
                    match verdict {
                        Ok(admitted) => {
                            *this.mock = admitted.identity().is_mock();
                            request.extensions_mut().insert(admitted);
                            State::Admitted { future: ready.call(request) }
                        }
                        Err(error) => {
                            let grpc = RequestHead::of(&request).is_grpc();
                            let response = refuse(&auth, &respond, &error, grpc);
                            State::Refused { response: Some(response) }
                        }
                    }
                }
            };
            this.state.set(next);
        }
    }
}

impl<S: Service<Request<Q>>, R, Q> std::fmt::Debug for ResponseFuture<S, R, Q> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
