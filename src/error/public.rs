//! The public part of each refusal, one row per response, built at compile time.

use http::StatusCode;

/// The public part of one refusal.
pub(super) struct PublicResponse {
    pub(super) reason: &'static str,
    pub(super) status: StatusCode,
    pub(super) message: &'static str,
    /// The RFC 9457 document, built at compile time, so that a flood of refusals costs no formatting.
    pub(super) problem: &'static str,
}

macro_rules! responses {
    ($($name:ident = $reason:literal, $status:literal $title:literal, $message:literal;)*) => {$(
        pub(super) static $name: PublicResponse = PublicResponse {
            reason: $reason,
            status: match StatusCode::from_u16($status) {
                Ok(status) => status,
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
            message: $message,
            problem: concat!(
                r#"{"type":"urn:scaikey-auth:"#, $reason, r#"","title":""#, $title,
                r#"","status":"#, $status, r#","detail":""#, $message, r#""}"#
            ),
        };
    )*};
}

responses! {
    CREDENTIALS_MISSING = "credentials_missing", 401 "Unauthorized", "This resource needs a bearer token.";
    CREDENTIALS_MALFORMED = "credentials_malformed", 400 "Bad Request", "The request must carry exactly one well-formed bearer token.";
    TOKEN_EXPIRED = "token_expired", 401 "Unauthorized", "The token has expired.";
    TOKEN_REVOKED = "token_revoked", 401 "Unauthorized", "The token has been revoked.";
    TOKEN_INVALID = "token_invalid", 401 "Unauthorized", "The token is not valid here.";
    INSUFFICIENT_SCOPE = "insufficient_scope", 403 "Forbidden", "The token lacks a scope that this resource needs.";
    FORBIDDEN = "forbidden", 403 "Forbidden", "The token does not grant access to this resource.";
    STEP_UP_REQUIRED = "step_up_required", 401 "Unauthorized", "A more recent or a stronger sign-in is needed.";
    FOREIGN_ORIGIN = "foreign_origin", 403 "Forbidden", "The request does not come from this service's own pages.";
    TENANT_MISSING = "tenant_missing", 403 "Forbidden", "The token names no tenant.";
    TENANT_UNKNOWN = "tenant_unknown", 403 "Forbidden", "The tenant is not known here.";
    TENANT_SUSPENDED = "tenant_suspended", 403 "Forbidden", "The tenant is suspended.";
    TENANT_MISMATCH = "tenant_mismatch", 403 "Forbidden", "The token does not belong to this tenant.";
    UNAVAILABLE = "unavailable", 503 "Service Unavailable", "Something that this answer needs is unavailable right now. Try again.";
    UNAVAILABLE_KEYS = "unavailable", 503 "Service Unavailable", "The token cannot be checked right now. Try again.";
    UNAVAILABLE_TENANTS = "unavailable", 503 "Service Unavailable", "The tenant cannot be looked up right now. Try again.";
    UNAVAILABLE_PARTICIPANTS = "unavailable", 503 "Service Unavailable", "The store of participants is unavailable right now. Try again.";
    UNAVAILABLE_PROVIDER = "unavailable", 503 "Service Unavailable", "The identity provider is unavailable right now. Try again.";
    UNAVAILABLE_POLICY_STORE = "unavailable", 503 "Service Unavailable", "The store of the trust policy failed. Look at the policy, and try again. The service's log names the cause.";
    UNAVAILABLE_TOKEN_STORE = "unavailable", 503 "Service Unavailable", "The service's token store is unavailable right now. Try again.";
    UNAVAILABLE_SESSION_STORE = "unavailable", 503 "Service Unavailable", "The store of sessions is unavailable right now. Try again.";
    REQUEST_MALFORMED = "request_malformed", 400 "Bad Request", "The request lacks what this resource needs, or has it twice.";
    TOO_MANY_REQUESTS = "too_many_requests", 429 "Too Many Requests", "Too many requests. Try again later.";
    UNREGISTRABLE = "unregistrable", 422 "Unprocessable Content", "This identity cannot be registered here.";
    LAYER_MISSING = "layer_missing", 500 "Internal Server Error", "The service is misconfigured.";
}

/// Returns the public part of the refusal for an unavailable component.
pub(super) fn unavailable(component: &str) -> &'static PublicResponse {
    match component {
        "keys" | "issuer" | "introspection endpoint" | "revocation log" => &UNAVAILABLE_KEYS,
        "tenant store" => &UNAVAILABLE_TENANTS,
        "store of participants" => &UNAVAILABLE_PARTICIPANTS,
        "identity provider" => &UNAVAILABLE_PROVIDER,
        "token store" => &UNAVAILABLE_TOKEN_STORE,
        "session store" => &UNAVAILABLE_SESSION_STORE,
        "trust policy store" => &UNAVAILABLE_POLICY_STORE,
        _ => &UNAVAILABLE,
    }
}
