//! The decision of an [`AuthLayer`] about a request: an identity or a refusal.

use std::mem;

use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, HeaderValue, Request, Response, StatusCode};
use http_body::Body;

use super::PROVENANCE_HEADER;
use super::auth_layer::AuthLayer;
use super::query::{self, HadQueryToken};
use super::source::{Removed, TenantSource, TokenSource};
use super::web_socket;
use crate::auth::{Attempt, Auth, AuthContext, AuthRequest, IncomingToken};
use crate::error::{AuthError, ErrorResponse, Refusal};
use crate::gate::{BoxFuture, Decision, Gate, ResponseBody};
use crate::proof::ProofHead;
use crate::support::request_head::{ClientKind, RequestHead};
use crate::support::telemetry;

/// Marks a request that passes without an identity. Guards and extractors read it from the
/// extensions, to distinguish an anonymous caller from a missing layer. Extractors need the [`Auth`]
/// of the layer for their challenges.
#[derive(Clone)]
#[cfg_attr(not(feature = "axum"), allow(dead_code, reason = "only extractors read the `Auth`"))]
pub(crate) enum Unauthenticated {
    /// The request has no token and needs none.
    Anonymous(Auth),
    /// A CORS preflight.
    Preflight(Auth),
}

/// The result of authenticating a request, and the places from which its tokens were removed.
type AuthResult = (Result<AuthContext, AuthError>, Removed);

/// The facts about a request that decide about headers of its response.
#[derive(Debug, Clone, Copy, Default)]
pub struct AfterRequest {
    is_mock: bool,
    removed: Removed,
}

impl<Q: Body> Gate<Q> for AuthLayer {
    type After = AfterRequest;
    type Awaited = AuthResult;

    fn decide(
        &self,
        request: &mut Request<Q>,
    ) -> Result<Decision<AfterRequest, AuthResult>, Response<Bytes>> {
        let head = RequestHead::of(request);
        let is_preflight =
            self.options.preflights_pass && head.is_preflight() && is_empty(request.body());
        let token = match is_preflight {
            true => Ok(None),
            false => TokenSource::read_all(&self.options.tokens, head),
        };
        let removed = match self.options.removes_tokens {
            true => TokenSource::remove_all(&self.options.tokens, request),
            false => Removed::default(),
        };
        // Taken out of the request, so that `admit` can insert the large context directly instead
        // of returning it.
        let mut extensions = mem::take(request.extensions_mut());
        // An identity from an outer layer must not pass without the checks of this layer.
        extensions.remove::<AuthContext>();
        let decision = if is_preflight {
            extensions.insert(Unauthenticated::Preflight(self.auth.clone()));
            Ok(Decision::Pass(AfterRequest { is_mock: false, removed }))
        } else {
            self.admit(RequestHead::of(request), token, removed, &mut extensions)
        };
        *request.extensions_mut() = extensions;
        decision.map_err(|error| self.refuse(&error, RequestHead::of(request).client_kind()))
    }

    fn resume(
        &self,
        (result, removed): AuthResult,
        request: &mut Request<Q>,
    ) -> Result<AfterRequest, Response<Bytes>> {
        let refuse = |error| self.refuse(&error, RequestHead::of(request).client_kind());
        let context = result.map_err(refuse)?;
        let is_mock = context.identity().is_mock();
        self.record(&context);
        request.extensions_mut().insert(context);
        Ok(AfterRequest { is_mock, removed })
    }

    fn finish<B>(
        AfterRequest { is_mock, removed }: AfterRequest,
        response: &mut Response<ResponseBody<B>>,
    ) -> Option<BoxFuture<AfterRequest>> {
        mark_mock(is_mock, response);
        if removed.from_protocols {
            web_socket::select_protocol(response);
        }
        if removed.from_query {
            query::forbid_shared_caches(response.headers_mut());
            response.extensions_mut().insert(HadQueryToken);
        }
        None
    }
}

impl AuthLayer {
    fn admit(
        &self,
        head: RequestHead<'_>,
        token: Result<Option<IncomingToken>, AuthError>,
        removed: Removed,
        extensions: &mut Extensions,
    ) -> Result<Decision<AfterRequest, AuthResult>, AuthError> {
        // Only a missing token makes a caller anonymous, not a validator or check that returns
        // `MissingCredentials`.
        match token.and_then(|token| token.ok_or(AuthError::MissingCredentials)) {
            Ok(token) => self.authenticate_token(head, token, removed, extensions),
            Err(error)
                if self.options.optional
                    && matches!(error.plain(), AuthError::MissingCredentials) =>
            {
                extensions.insert(Unauthenticated::Anonymous(self.auth.clone()));
                Ok(Decision::Pass(AfterRequest { is_mock: false, removed }))
            }
            Err(error) => Err(error),
        }
    }

    fn authenticate_token(
        &self,
        head: RequestHead<'_>,
        token: IncomingToken,
        removed: Removed,
        extensions: &mut Extensions,
    ) -> Result<Decision<AfterRequest, AuthResult>, AuthError> {
        let tenant = TenantSource::requested(&self.options.tenants, head);
        let head = ProofHead { head, extensions };
        let request = AuthRequest {
            credentials: token.credentials(),
            tenant: tenant.as_ref(),
            head: Some(head),
        };
        match self.auth.try_authenticate(request) {
            Attempt::Done(result) => {
                let context = result?;
                let is_mock = context.identity().is_mock();
                self.record(&context);
                extensions.insert(context.with_token(token));
                Ok(Decision::Pass(AfterRequest { is_mock, removed }))
            }
            attempt => {
                let auth = self.auth.clone();
                let parts = auth.needs_head(&attempt).then(|| head.to_parts());
                Ok(Decision::Wait(Box::pin(async move {
                    let request = AuthRequest {
                        credentials: token.credentials(),
                        tenant: tenant.as_ref(),
                        head: parts.as_deref().map(ProofHead::of_parts),
                    };
                    let result = auth.finish(attempt, request).await;
                    (result.map(|context| context.with_token(token)), removed)
                })))
            }
        }
    }

    /// Records the caller on the current span, if the layer is set to.
    #[inline]
    fn record(&self, context: &AuthContext) {
        if let Some(fields) = &self.options.recorded {
            fields.record(context);
        }
    }
}

/// Returns whether the body is empty. The headers alone are not enough, because HTTP/2 requests
/// need no `Content-Length`.
fn is_empty(body: &impl Body) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// Authenticates the bearer token in the `Authorization` header, for the endpoints of this crate.
pub(crate) async fn authenticate(auth: &Auth, parts: &Parts) -> Result<AuthContext, AuthError> {
    let token = TokenSource::read_all(&[TokenSource::Authorization], RequestHead::of_parts(parts))?;
    let token = token.ok_or(AuthError::MissingCredentials)?;
    let head = Some(ProofHead::of_parts(parts));
    let request = AuthRequest { head, ..AuthRequest::token_only(token.credentials()) };
    let context = auth.finish(auth.try_authenticate(request), request).await?;
    Ok(context.with_token(token))
}

/// Adds the header that marks a response to a mock identity.
pub(crate) fn mark_mock<B>(is_mock: bool, response: &mut Response<B>) {
    if is_mock {
        response.headers_mut().insert(PROVENANCE_HEADER, HeaderValue::from_static("mock"));
    }
}

/// Builds the response of a refusal, and adds the headers that every refusal has.
pub(crate) fn refuse(
    auth: &Auth,
    respond: &dyn ErrorResponse,
    error: &AuthError,
    client: ClientKind,
) -> Response<Bytes> {
    telemetry::refused(error.reason(), error);
    if let AuthError::MissingLayer = error.plain() {
        telemetry::layer_missing(error);
    }
    let mut refusal = Refusal::new(error, client);
    if matches!(error.plain(), AuthError::UnknownTenant) && auth.unknown_tenant_is_not_found() {
        refusal.status = StatusCode::NOT_FOUND;
    }
    let mut response = respond.respond(&refusal);
    error.write_headers(&mut response, || auth.challenger().challenges(error));
    response
}
