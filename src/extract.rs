//! Extractors for axum 0.8 handlers (feature `axum`, on by default).
//!
//! | extractor | value | no token (optional layer, preflight) | token, but no value |
//! |---|---|---|---|
//! | [`AuthContext`] | identity and tenant | 401 | – |
//! | [`Identity`] | the caller | 401 | – |
//! | [`Tenant`] | the tenant of the request | 401 | 403 |
//! | [`Claims<T>`] | the claims, deserialised into your type | 401 | 401 `token_invalid` |
//! | [`TenantRow<T>`] | the tenant's row in the tenant store | 401 | 500 |
//! | `Option<…>` of the first three | the same, or `None` | `None` | `None` |
//!
//! If tokens without a tenant are accepted ([`tenant_optional`](crate::AuthBuilder::tenant_optional)), take
//! `Option<Tenant>`: [`Tenant`] still answers such a token with 403.
//!
//! On a route without an [`AuthLayer`](crate::AuthLayer), every extractor answers 500 and logs that
//! the layer is missing.
//!
//! See also: [manual::request](crate::manual::request).

use std::any::Any;
use std::ops::Deref;
use std::sync::OnceLock;

use axum_core::body::Body;
use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::auth::{Auth, AuthContext};
use crate::error::{
    AuthError, Challenger, DEFAULT_REALM, ErrorResponse, InvalidToken, ProblemJson, Refusal,
};
use crate::identity::Identity;
use crate::layer::{ClientKind, RequestHead, Unauthenticated, refuse};
use crate::support::telemetry;
use crate::tenant::Tenant;

/// The claims of the token, deserialised into your type. If they do not fit the type, the extractor
/// answers 401.
///
/// ```
/// use scaikey_auth::extract::Claims;
/// use serde::Deserialize;
///
/// #[derive(Clone, Deserialize)]
/// struct Employee {
///     department: String,
/// }
///
/// async fn department(Claims(employee): Claims<Employee>) -> String {
///     employee.department
/// }
/// # let _: axum::routing::MethodRouter = axum::routing::get(department);
/// ```
#[derive(Debug, Clone)]
pub struct Claims<T>(pub T);

/// The row that the tenant store attached to the tenant. The extractor answers 500 without a
/// body if there is no row of this type, or no tenant.
///
/// ```
/// use scaikey_auth::extract::TenantRow;
///
/// /// The row that your tenant store passes to `Tenant::with_row`.
/// #[derive(Clone)]
/// struct Plan {
///     seats: u32,
/// }
///
/// async fn seats(TenantRow(plan): TenantRow<Plan>) -> String {
///     plan.seats.to_string()
/// }
/// # let _: axum::routing::MethodRouter = axum::routing::get(seats);
/// ```
#[derive(Debug, Clone)]
pub struct TenantRow<T>(pub T);

impl<T> Deref for Claims<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Deref for TenantRow<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The rejection of an extractor. Its response has the status, challenges and headers of the
/// layer's refusals, but its format is always [`ProblemJson`], even if the layer has another.
///
/// An extractor of your own returns it when it uses one of these:
///
/// ```
/// use axum::extract::FromRequestParts;
/// use http::request::Parts;
/// use scaikey_auth::Identity;
/// use scaikey_auth::extract::Rejection;
///
/// /// The language of the caller.
/// struct Language(String);
///
/// impl<S: Send + Sync> FromRequestParts<S> for Language {
///     type Rejection = Rejection;
///
///     async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
///         let caller = <Identity as FromRequestParts<S>>::from_request_parts(parts, state).await?;
///         let claims: serde_json::Value = caller.claims().unwrap_or_default();
///         Ok(Self(claims["locale"].as_str().unwrap_or("en").to_owned()))
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Rejection(Box<Response>);

impl Rejection {
    fn new(parts: &Parts, error: AuthError) -> Self {
        let client = RequestHead::of_parts(parts).client_kind();
        let response = match layer_auth(parts) {
            Some(auth) => refuse(auth, &ProblemJson, &error, client).map(Body::from),
            None => response_without_layer(error, client),
        };
        Self(Box::new(response))
    }
}

/// Returns the [`Auth`] of the layer that the request passed through.
fn layer_auth(parts: &Parts) -> Option<&Auth> {
    if let Some(context) = parts.extensions.get::<AuthContext>() {
        return Some(context.auth());
    }
    let (Unauthenticated::Anonymous(auth) | Unauthenticated::Preflight(auth)) =
        parts.extensions.get::<Unauthenticated>()?;
    Some(auth)
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// Converts the error of a handler into a response with the challenges and headers of the layer's
/// refusals. Prefer a guard: the handler does not know the settings of the layer, so this `Bearer`
/// challenge has the realm `scaikey` and no metadata URL, and the schemes of
/// [`AuthBuilder::challenge`](crate::AuthBuilder::challenge) are missing.
impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        response_without_layer(self, ClientKind::Program)
    }
}

fn response_without_layer(error: AuthError, client: ClientKind) -> Response {
    if let AuthError::MissingLayer = error.plain() {
        telemetry::layer_missing(&error);
    }
    let mut response = ProblemJson.respond(&Refusal::new(&error, client));
    let challenger = CHALLENGER.get_or_init(|| Challenger::new(DEFAULT_REALM, None));
    error.write_headers(&mut response, || {
        challenger.iter().flat_map(|challenger| challenger.challenges(&error))
    });
    response.map(Body::from)
}

/// The challenges of handlers, which do not know those of the layer.
static CHALLENGER: OnceLock<Option<Challenger>> = OnceLock::new();

/// Returns the context, or `None` for a caller that was admitted without a token.
fn context(parts: &Parts) -> Result<Option<&AuthContext>, Rejection> {
    match (parts.extensions.get::<AuthContext>(), parts.extensions.get::<Unauthenticated>()) {
        (Some(context), _) => Ok(Some(context)),
        (None, Some(_)) => Ok(None),
        (None, None) => Err(Rejection::new(parts, AuthError::MissingLayer)),
    }
}

fn required(parts: &Parts) -> Result<&AuthContext, Rejection> {
    context(parts)?.ok_or_else(|| Rejection::new(parts, AuthError::MissingCredentials))
}

impl<S: Sync> FromRequestParts<S> for AuthContext {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        required(parts).cloned()
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for AuthContext {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        Ok(context(parts)?.cloned())
    }
}

impl<S: Sync> FromRequestParts<S> for Identity {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Ok(required(parts)?.identity().clone())
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Identity {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        Ok(context(parts)?.map(|context| context.identity().clone()))
    }
}

impl<S: Sync> FromRequestParts<S> for Tenant {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let tenant = required(parts)?.tenant().cloned();
        tenant.ok_or_else(|| Rejection::new(parts, AuthError::TenantMissing))
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Tenant {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        Ok(context(parts)?.and_then(|context| context.tenant().cloned()))
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Claims<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let claims = required(parts)?.identity().claims();
        let malformed = |_| Rejection::new(parts, InvalidToken::Malformed("claims").into());
        claims.map(Claims).map_err(malformed)
    }
}

impl<S: Sync, T: Any + Clone> FromRequestParts<S> for TenantRow<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let row = required(parts)?.tenant().and_then(Tenant::row::<T>).cloned();
        row.map(TenantRow).ok_or_else(|| {
            telemetry::tenant_row_missing(std::any::type_name::<T>());
            Rejection(Box::new(http::StatusCode::INTERNAL_SERVER_ERROR.into_response()))
        })
    }
}
