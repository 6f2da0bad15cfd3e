//! [`ResponseBody`]: the body of an answer that passed a layer.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of an answer behind a layer of this crate: the inner service's body, or a short one of
    /// the layer's own, such as a refusal's.
    ///
    /// So the layers stand anywhere in a tower stack: the body of the service behind may be of any
    /// type, and needs no way to be made of bytes. The inner body is handed on frame by frame, with its
    /// trailers, its length and its end. To name the type is rarely needed: frameworks take every
    /// [`Body`]. Its data are those of the inner body, so [`Bytes`] nearly always.
    ///
    /// Each layer adds one: `auth.layer()` around `auth.require(…)` answers
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
    /// [`Default`] is an empty body, which layers outside (tower-http's timeout, tonic's interceptors)
    /// answer with.
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
        // What is left to send.
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
