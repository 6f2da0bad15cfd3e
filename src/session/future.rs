//! [`SessionFuture`]: a response under way, and the cookies that go with it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, header};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::layer::after_renewal;
use super::{Session, Sessions};
use crate::clock::within;
use crate::error::ErrorResponse;
use crate::exchange::ExchangeError;
use crate::middleware::refuse;

/// How long an answer waits for the new cookie. What comes later is kept for a minute, and goes
/// with another answer.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) type Renewal =
    Pin<Box<dyn Future<Output = Result<Option<Session>, ExchangeError>> + Send + 'static>>;

type Late = Pin<Box<dyn Future<Output = Option<Result<Option<Session>, ExchangeError>>> + Send>>;

/// What is done to an answer.
pub(super) struct Aftermath {
    cookies: Vec<HeaderValue>,
    renewal: Option<Renewal>,
}

impl Aftermath {
    /// Sets these cookies.
    pub(super) fn setting(cookies: Vec<HeaderValue>) -> Self {
        Self { cookies, renewal: None }
    }

    /// Sets the cookies of the session that is being renewed.
    pub(super) fn renewing(renewal: Renewal) -> Self {
        Self { cookies: Vec::new(), renewal: Some(renewal) }
    }
}

pin_project! {
    /// The response of a [`SessionService`](super::SessionService).
    pub struct SessionFuture<S, R, Q>
    where
        S: Service<Request<Q>>,
    {
        #[pin]
        state: State<S, S::Future, S::Response, R, Q>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F, T, R, Q> {
        // No session is involved.
        Passing {
            #[pin]
            future: F,
        },
        // The inner service is at work.
        Serving {
            #[pin]
            future: F,
            after: Option<(Aftermath, Sessions)>,
        },
        // The answer is there; the new cookie is not yet.
        Renewing {
            renewal: Late,
            answer: Option<(T, Sessions)>,
        },
        // There is no token before the session is renewed.
        Waiting {
            pending: Renewal,
            held: Option<Box<Held<S, R, Q>>>,
        },
        Refused {
            response: Option<T>,
        },
    }
}

/// A request that waits, and what goes on with it.
struct Held<S, R, Q> {
    ready: S,
    request: Request<Q>,
    sessions: Sessions,
    respond: R,
}

impl<S: Service<Request<Q>>, R, Q> SessionFuture<S, R, Q> {
    pub(super) fn passing(future: S::Future) -> Self {
        Self { state: State::Passing { future } }
    }

    pub(super) fn serving(future: S::Future, after: Aftermath, sessions: &Sessions) -> Self {
        Self { state: State::Serving { future, after: Some((after, sessions.clone())) } }
    }

    pub(super) fn refused(response: S::Response) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }

    pub(super) fn waiting(
        pending: Renewal,
        ready: S,
        request: Request<Q>,
        sessions: Sessions,
        respond: R,
    ) -> Self {
        let held = Some(Box::new(Held { ready, request, sessions, respond }));
        Self { state: State::Waiting { pending, held } }
    }
}

impl<S, R, Q, B> Future for SessionFuture<S, R, Q>
where
    S: Service<Request<Q>, Response = Response<B>>,
    R: ErrorResponse<B>,
{
    type Output = Result<Response<B>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Passing { future } => return future.poll(context),
                StateProjection::Serving { future, after } => {
                    let mut response = ready!(future.poll(context))?;
                    let Some((after, sessions)) = after.take() else { return Poll::Pending };
                    attach(response.headers_mut(), after.cookies);
                    match after.renewal {
                        None => return Poll::Ready(Ok(response)),
                        Some(renewal) => State::Renewing {
                            renewal: Box::pin(within(PATIENCE, renewal)),
                            answer: Some((response, sessions)),
                        },
                    }
                }
                StateProjection::Renewing { renewal, answer } => {
                    let renewed = ready!(renewal.as_mut().poll(context));
                    let Some((mut response, sessions)) = answer.take() else {
                        return Poll::Pending;
                    };
                    // Whatever came of it, this token is good for a while: the next request tries, or
                    // meets the end.
                    let session = renewed.and_then(Result::ok).flatten();
                    let cookies = session.and_then(|session| sessions.cookies(&session));
                    attach(response.headers_mut(), cookies.unwrap_or_default());
                    return Poll::Ready(Ok(response));
                }
                StateProjection::Waiting { pending, held } => {
                    let renewed = ready!(pending.as_mut().poll(context));
                    let Some(held) = held.take() else { return Poll::Pending };
                    let Held { mut ready, mut request, sessions, respond } = *held;
                    match after_renewal(&sessions, renewed, &mut request) {
                        Ok(after) => State::Serving {
                            future: ready.call(request),
                            after: Some((after, sessions)),
                        },
                        Err(error) => {
                            let response = refuse(&sessions.0.auth, &respond, &error, false);
                            State::Refused { response: Some(response) }
                        }
                    }
                }
                StateProjection::Refused { response } => match response.take() {
                    Some(response) => return Poll::Ready(Ok(response)),
                    None => return Poll::Pending,
                },
            };
            this.state.set(next);
        }
    }
}

/// Adds cookies, unless the service behind sets the same ones (it ended the session, say). An answer
/// that depends on a cookie is the browser's alone, as one to an `Authorization` header would be
/// (RFC 9111 §3.5).
fn attach(headers: &mut HeaderMap, cookies: Vec<HeaderValue>) {
    let name =
        |value: &HeaderValue| value.as_bytes().split(|b| *b == b'=').next().map(<[u8]>::to_vec);
    let set: Vec<_> = headers.get_all(header::SET_COOKIE).iter().map(name).collect();
    for cookie in cookies.into_iter().filter(|cookie| !set.contains(&name(cookie))) {
        headers.append(header::SET_COOKIE, cookie);
    }
    let private = || HeaderValue::from_static("private");
    headers.entry(header::CACHE_CONTROL).or_insert_with(private);
    let cookie = HeaderValue::from_static("cookie");
    if !headers.get_all(header::VARY).iter().any(|value| *value == cookie) {
        headers.append(header::VARY, cookie);
    }
}

impl<S: Service<Request<Q>>, R, Q> std::fmt::Debug for SessionFuture<S, R, Q> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionFuture").finish_non_exhaustive()
    }
}
