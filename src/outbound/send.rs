//! [`decide`] and [`send`]: the token of a request, and the one retry. Every kind of HTTP client uses them.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap};
use http::{Extensions, HeaderValue, StatusCode, Uri};

use super::destination::{TokenKind, find};
use super::layer::Rules;
use super::{OutboundError, caller};
use crate::auth::AuthContext;
use crate::exchange::{AccessToken, ExchangeError, TokenExchangeClient, TokenRequest};
use crate::layer;

/// An HTTP client that sends requests of type `Q`.
pub(super) trait Client<Q> {
    type Response;
    type Error: From<OutboundError>;

    /// Returns a copy of a request that has not been sent, or `None` if its body cannot be copied.
    fn copy(&self, request: &Q) -> Option<Q>;

    fn headers(request: &mut Q) -> &mut HeaderMap;

    /// Returns the status and the headers of a response.
    fn head(response: &Self::Response) -> (StatusCode, &HeaderMap);

    /// Sends the request, without further checks.
    fn send(
        &mut self,
        request: Q,
    ) -> impl Future<Output = Result<Self::Response, Self::Error>> + Send;
}

/// The decision about a request, made synchronously.
pub(super) enum TokenAction {
    Pass,
    Forward(HeaderValue),
    Fetch(TokenRequest<'static>),
}

/// Decides which token a request gets.
///
/// # Errors
/// The request must not be sent.
pub(super) fn decide(
    rules: &Rules,
    uri: &Uri,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<TokenAction, OutboundError> {
    let destination = find(&rules.destinations, uri, headers)?;
    let action = TokenAction::of(&destination.token.kind, extensions)?;
    if !matches!(action, TokenAction::Pass) && headers.contains_key(AUTHORIZATION) {
        return Err(OutboundError::HasAuthorization);
    }
    Ok(action)
}

impl TokenAction {
    fn of(kind: &TokenKind, extensions: &Extensions) -> Result<Self, OutboundError> {
        let caller = || {
            let context = extensions.get().map(Cow::<AuthContext>::Borrowed);
            let context = context.or_else(|| caller::current().map(Cow::Owned));
            let context = context.ok_or(OutboundError::NoCaller)?;
            // It may have been revoked after its request began.
            if context.is_revoked() { Err(OutboundError::Revoked) } else { Ok(context) }
        };
        Ok(match kind {
            TokenKind::None => Self::Pass,
            TokenKind::Forwarded => Self::Forward(bearer(caller_token(&*caller()?)?)?),
            TokenKind::OnBehalf(request) => {
                let (caller, mut request) = (caller()?, request.clone());
                request.subject = caller_token(&caller)?.into();
                request.tenant_of_subject = caller.identity().tenant_id().cloned();
                Self::Fetch(TokenRequest::Exchange(Cow::Owned(request)))
            }
            TokenKind::Service { request, in_callers_tenant } => {
                let mut request = request.clone();
                if *in_callers_tenant {
                    let tenant = caller()?.tenant().ok_or(OutboundError::NoTenant)?.id().clone();
                    request.tenant = Some(tenant);
                }
                Self::Fetch(TokenRequest::Service(Cow::Owned(request)))
            }
        })
    }
}

fn caller_token(caller: &AuthContext) -> Result<&str, OutboundError> {
    caller.token().ok_or(OutboundError::MockCaller)
}

/// Fetches the token and sends the request with it. If the service rejects the
/// token, sends it once more with another one.
pub(super) async fn send<C: Client<Q>, Q>(
    mut client: C,
    rules: Arc<Rules>,
    token_request: TokenRequest<'static>,
    mut request: Q,
) -> Result<C::Response, C::Error> {
    let token = fetch_token(&rules.client, &token_request, None).await?;
    let retry = client.copy(&request);
    let header = bearer(token.secret().expose()).map_err(OutboundError::from)?;
    C::headers(&mut request).insert(AUTHORIZATION, header);
    let response = client.send(request).await?;
    if !rejects_token(C::head(&response)) {
        return Ok(response);
    }
    // The token is replaced even if the request cannot be repeated, because later requests need the new
    // token.
    let replacement = match fetch_token(&rules.client, &token_request, Some(&token)).await {
        Ok(replacement) if replacement.secret() != token.secret() => replacement,
        // There is no replacement, so return the 401.
        _ => return Ok(response),
    };
    let Some(mut retry) = retry else { return Ok(response) };
    drop(response);
    let header = bearer(replacement.secret().expose()).map_err(OutboundError::from)?;
    C::headers(&mut retry).insert(AUTHORIZATION, header);
    client.send(retry).await
}

/// Returns whether a service rejects the token: with 401, or with the gRPC status 16 (`UNAUTHENTICATED`) in a
/// response without messages. After messages, the status is in trailers, which are not examined.
fn rejects_token((status, headers): (StatusCode, &HeaderMap)) -> bool {
    status == StatusCode::UNAUTHORIZED || headers.get("grpc-status").is_some_and(|it| it == "16")
}

/// Obtains a bearer token. If a service rejected the token `rejected`, obtains another one.
async fn fetch_token(
    client: &TokenExchangeClient,
    request: &TokenRequest<'_>,
    rejected: Option<&AccessToken>,
) -> Result<AccessToken, OutboundError> {
    let token = client.token(request, rejected).await?;
    if !token.is_bearer() {
        return Err(ExchangeError::InvalidAnswer("has a token_type other than Bearer").into());
    }
    Ok(token)
}

fn bearer(token: &str) -> Result<HeaderValue, ExchangeError> {
    layer::bearer(token).ok_or(ExchangeError::InvalidAnswer(
        "contains a token with characters that are not allowed in a header",
    ))
}
