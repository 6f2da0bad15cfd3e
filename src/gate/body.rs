//! [`ResponseBody`]: the response body of this crate's layers.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The response body of this crate's layers: either the body of the inner service, or the short
    /// body of a refusal.
    ///
    /// With this type the layers work anywhere in a tower stack: the inner body may have any type
    /// whose `Data` can be made from [`Bytes`]. The inner body is passed on frame by frame, with
    /// its trailers and its size hint. You rarely need to name the type, because frameworks accept
    /// every [`Body`]. Its `Data` type is that of the inner body, in most cases [`Bytes`].
    ///
    /// Each layer adds one: `auth.layer()` around `auth.require(…)` returns
    /// `Response<ResponseBody<ResponseBody<B>>>`.
    ///
    /// ```
    /// use axum::body::Body;
    /// use http::{Request, Response};
    /// use scaikey_auth::layer::ResponseBody;
    /// use scaikey_auth::{Auth, scope};
    /// use tower::{Service, ServiceBuilder};
    ///
    /// fn protected<S, B>(
    ///     auth: &Auth,
    ///     service: S,
    /// ) -> impl Service<Request<Body>, Response = Response<ResponseBody<ResponseBody<B>>>, Error = S::Error>
    /// where
    ///     S: Service<Request<Body>, Response = Response<B>> + Clone,
    /// {
    ///     ServiceBuilder::new()
    ///         .layer(auth.layer())
    ///         .layer(auth.require(scope("admin")))
    ///         .service(service)
    /// }
    /// ```
    ///
    /// [`Default`] creates an empty body, which outer layers need for their own responses (for
    /// example tower-http's timeout and tonic's interceptors).
    #[derive(Debug, Clone)]
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    #[derive(Debug, Clone)]
    enum Kind<B> {
        Inner {
            #[pin]
            body: B,
        },
        // Empty once it has been sent.
        Own {
            bytes: Bytes,
        },
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn inner(body: B) -> Self {
        Self { kind: Kind::Inner { body } }
    }
}

impl<B> From<Bytes> for ResponseBody<B> {
    fn from(bytes: Bytes) -> Self {
        Self { kind: Kind::Own { bytes } }
    }
}

impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Bytes::new().into()
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data: From<Bytes>>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().kind.project() {
            KindProjection::Inner { body } => body.poll_frame(context),
            KindProjection::Own { bytes } if bytes.is_empty() => Poll::Ready(None),
            KindProjection::Own { bytes } => {
                Poll::Ready(Some(Ok(Frame::data(mem::take(bytes).into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Own { bytes } => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Own { bytes } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
