//! The small service for peers that wrap any tower service.

use std::convert::Infallible;
use std::future::{Ready, ready};

use http::{Extensions, HeaderValue, Request, Response};
use tower::Service;

use crate::service::{SUBJECT_HEADER, SUBJECT_PATH};

/// A function that returns the subject from the place where a layer stores it.
pub(super) type SubjectOf = fn(&Extensions) -> Option<String>;

/// Returns a service that answers with the subject at [`SUBJECT_PATH`] and otherwise does nothing.
pub(super) fn small_service<B, R>(
    subject_of: SubjectOf,
) -> impl Service<Request<B>, Response = Response<R>, Error = Infallible, Future: Send> + Clone + Send
where
    B: 'static,
    R: Default + Send + 'static,
{
    tower::service_fn(move |request: Request<B>| answer(&request, subject_of))
}

fn answer<B, R: Default>(
    request: &Request<B>,
    subject_of: SubjectOf,
) -> Ready<Result<Response<R>, Infallible>> {
    let mut response = Response::new(R::default());
    if request.uri().path() == SUBJECT_PATH
        && let Some(subject) = subject_of(request.extensions())
        && let Ok(subject) = HeaderValue::try_from(subject)
    {
        response.headers_mut().insert(SUBJECT_HEADER, subject);
    }
    ready(Ok(response))
}
