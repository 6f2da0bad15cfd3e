//! [`SessionFuture`]: a response under way, and the cookies that go with it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::layer::after_renewal;
use super::{Names, Session, Sessions, clear_cookies};
use crate::clock::within;
use crate::error::{AuthError, ErrorResponse};
use crate::exchange::ExchangeError;
use crate::middleware::refuse;

pub(super) type Renewed = Result<Option<Session>, ExchangeError>;

pub(super) type Renewal = Pin<Box<dyn Future<Output = Renewed> + Send + 'static>>;

/// `None` when it takes too long; it goes on.
pub(super) type Late = Pin<Box<dyn Future<Output = Option<Renewed>> + Send>>;

/// How a gRPC service says that there is no identity: with status 200.
const GRPC_STATUS: &str = "grpc-status";
const GRPC_UNAUTHENTICATED: &str = "16";

/// What happened to a session.
pub(super) enum Change {
    None,
    Renewed(Session),
    Over,
}

/// What is done to an answer.
pub(super) struct Aftermath {
    sessions: Sessions,
    names: Names,
    change: Change,
    renewal: Option<Renewal>,
}

impl Aftermath {
    pub(super) fn new(sessions: &Sessions, names: Names) -> Self {
        Self { sessions: sessions.clone(), names, change: Change::None, renewal: None }
    }

    pub(super) fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    pub(super) fn with(mut self, change: Change) -> Self {
        self.change = change;
        self
    }

    /// Waits for this renewal when the answer is there.
    pub(super) fn renewing(mut self, renewal: Renewal) -> Self {
        self.renewal = Some(renewal);
        self
    }

    /// The renewal to wait for before [`finish`](Self::finish). An answer that begins or ends a session
    /// itself need not wait.
    fn pending(&mut self, headers: &HeaderMap) -> Option<Late> {
        let renewal = self.renewal.take().filter(|_| !self.is_done_by(headers))?;
        Some(Box::pin(within(self.sessions.0.renewal_patience, renewal)))
    }

    fn is_done_by(&self, headers: &HeaderMap) -> bool {
        let name = &self.sessions.0.name;
        headers.get_all(header::SET_COOKIE).iter().any(|cookie| name.is_set_by(cookie))
    }

    /// Sets and clears cookies. What the service behind does about sessions (it began one, say) stands,
    /// and takes the place of all that the browser had.
    fn finish(self, headers: &mut HeaderMap) {
        let Names { marker, data, others } = &self.names;
        let change = if self.is_done_by(headers) { Change::Over } else { self.change };
        let mut cookies: Vec<_> = clear_cookies(others).collect();
        match change {
            Change::None => {}
            Change::Over => cookies.extend(clear_cookies(marker.iter().chain(data))),
            Change::Renewed(session) => {
                cookies.extend(clear_cookies(data));
                cookies.extend(self.sessions.cookies(&session).unwrap_or_default());
            }
        }
        attach(headers, cookies);
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
            after: Option<Aftermath>,
            excuse: Option<Box<Excuse<R>>>,
        },
        // The answer is there; the new cookies are not yet.
        Renewing {
            renewal: Late,
            answer: Option<(T, Aftermath)>,
        },
        // The token does not last until the session is renewed.
        Waiting {
            pending: Late,
            held: Option<Box<Held<S, R, Q>>>,
        },
        Refused {
            response: Option<T>,
        },
    }
}

/// Why a browser that has a session is served without it, and how that is answered where an identity is
/// needed: a 401 would tell the page that its user signed out.
struct Excuse<R> {
    error: AuthError,
    respond: R,
}

/// A request that waits, and what goes on with it.
pub(super) struct Held<S, R, Q> {
    pub(super) ready: S,
    pub(super) request: Request<Q>,
    pub(super) session: Session,
    pub(super) after: Aftermath,
    pub(super) respond: R,
}

impl<S: Service<Request<Q>>, R, Q> SessionFuture<S, R, Q> {
    pub(super) fn passing(future: S::Future) -> Self {
        Self { state: State::Passing { future } }
    }

    pub(super) fn serving(future: S::Future, after: Aftermath) -> Self {
        Self { state: State::Serving { future, after: Some(after), excuse: None } }
    }

    pub(super) fn refused(response: S::Response) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }

    pub(super) fn waiting(pending: Late, held: Held<S, R, Q>) -> Self {
        Self { state: State::Waiting { pending, held: Some(Box::new(held)) } }
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
                StateProjection::Serving { future, after, excuse } => {
                    let mut response = ready!(future.poll(context))?;
                    let Some(mut after) = after.take() else { return Poll::Pending };
                    if let Some(excuse) = excuse.take() {
                        response = excuse.in_place_of(response, &after.sessions);
                    }
                    match after.pending(response.headers()) {
                        None => {
                            after.finish(response.headers_mut());
                            return Poll::Ready(Ok(response));
                        }
                        Some(renewal) => {
                            State::Renewing { renewal, answer: Some((response, after)) }
                        }
                    }
                }
                StateProjection::Renewing { renewal, answer } => {
                    let renewed = ready!(renewal.as_mut().poll(context));
                    let Some((mut response, after)) = answer.take() else { return Poll::Pending };
                    let change = match renewed {
                        Some(Ok(Some(session))) => Change::Renewed(session),
                        Some(Ok(None)) => Change::Over,
                        // This token is good for a while: the next request tries again.
                        Some(Err(_)) | None => Change::None,
                    };
                    after.with(change).finish(response.headers_mut());
                    return Poll::Ready(Ok(response));
                }
                StateProjection::Waiting { pending, held } => {
                    let renewed = ready!(pending.as_mut().poll(context));
                    let Some(held) = held.take() else { return Poll::Pending };
                    let Held { mut ready, mut request, session, after, respond } = *held;
                    let (after, error) = after_renewal(renewed, session, after, &mut request);
                    let excuse = error.map(|error| Box::new(Excuse { error, respond }));
                    State::Serving { future: ready.call(request), after: Some(after), excuse }
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

impl<R> Excuse<R> {
    /// The answer, unless it says that it lacks an identity.
    fn in_place_of<B>(&self, answer: Response<B>, sessions: &Sessions) -> Response<B>
    where
        R: ErrorResponse<B>,
    {
        let status = answer.headers().get(GRPC_STATUS);
        let is_grpc = status.is_some_and(|status| status == GRPC_UNAUTHENTICATED);
        if is_grpc || answer.status() == StatusCode::UNAUTHORIZED {
            return refuse(&sessions.0.auth, &self.respond, &self.error, is_grpc);
        }
        answer
    }
}

/// Adds cookies, unless the service behind sets the same ones. An answer that depends on a cookie is the
/// browser's alone, as one to an `Authorization` header would be (RFC 9111 §3.5); and one that sets
/// cookies must not be stored for others, whatever the service behind says (RFC 9111 §7.3).
fn attach(headers: &mut HeaderMap, cookies: Vec<HeaderValue>) {
    let name =
        |value: &HeaderValue| value.as_bytes().split(|b| *b == b'=').next().map(<[u8]>::to_vec);
    let set: Vec<_> = headers.get_all(header::SET_COOKIE).iter().map(name).collect();
    let sets = !cookies.is_empty();
    for cookie in cookies.into_iter().filter(|cookie| !set.contains(&name(cookie))) {
        headers.append(header::SET_COOKIE, cookie);
    }
    if !headers.contains_key(header::CACHE_CONTROL) || (sets && !is_private(headers)) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    let cookie = HeaderValue::from_static("cookie");
    if !headers.get_all(header::VARY).iter().any(|value| *value == cookie) {
        headers.append(header::VARY, cookie);
    }
}

/// Whether no shared cache stores the answer.
fn is_private(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    let mut directives = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    directives.any(|directive| {
        let directive = directive.trim_ascii();
        directive.eq_ignore_ascii_case(b"private") || directive.eq_ignore_ascii_case(b"no-store")
    })
}

impl<S: Service<Request<Q>>, R, Q> std::fmt::Debug for SessionFuture<S, R, Q> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionFuture").finish_non_exhaustive()
    }
}
