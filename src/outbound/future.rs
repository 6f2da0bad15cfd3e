//! [`OutboundFuture`]: a response under way. Boxed only where a token is asked for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use super::OutboundError;
use crate::error::BoxError;

/// A request that waits for its token, is sent, and perhaps sent once more.
pub(super) type Errand<B> =
    Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send + 'static>>;

pin_project! {
    /// The response to a request of an [`OutboundService`](super::OutboundService).
    pub struct OutboundFuture<F, B> {
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, B> {
        // The client is at work, and its answer stands.
        Sent {
            #[pin]
            future: F,
        },
        Asking {
            errand: Errand<B>,
        },
        Refused {
            error: Option<OutboundError>,
        },
    }
}

impl<F, B> OutboundFuture<F, B> {
    pub(super) fn sent(future: F) -> Self {
        Self { state: State::Sent { future } }
    }

    pub(super) fn asking(errand: Errand<B>) -> Self {
        Self { state: State::Asking { errand } }
    }

    pub(super) fn refused(error: OutboundError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }
}

impl<F, B, E> Future for OutboundFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<B>, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Sent { future } => {
                Poll::Ready(ready!(future.poll(context)).map_err(Into::into))
            }
            StateProjection::Asking { errand } => errand.as_mut().poll(context),
            StateProjection::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error.into())),
                // Polled again after it answered: there is nothing to say any more.
                None => Poll::Pending,
            },
        }
    }
}

impl<F, B> fmt::Debug for OutboundFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundFuture").finish_non_exhaustive()
    }
}
