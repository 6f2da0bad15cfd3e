//! `POST introspect`: reports whether a token is active (RFC 7662).

use bytes::Bytes;
use http::Response;
use serde::Serialize;
use serde_json::json;

use super::identity_id::rfc3339;
use super::parameters::{BodyFormat, Parameters};
use super::response::Failure;
use super::{Endpoint, EndpointRequest, Inner};
use crate::auth::AuthContext;
use crate::clock::unix_seconds;
use crate::guard::GuardRequest;
use crate::identity::{Identity, IdentityKey, IdentityKind, Scopes};

/// The response for an active token: `active`, members of this crate's own, and further members of
/// RFC 7662 §2.2.
#[derive(Serialize)]
struct IntrospectionResponse<'a> {
    active: bool,
    identity_id: String,
    identity_type: IdentityKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<&'a str>,
    scopes: &'a Scopes,
    expires_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<String>,
    scope: &'a str,
    iss: &'a str,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    token_type: &'static str,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
}

/// Returns the caller's account for the throttle: two issuers or tenants may assign the same
/// subject. No part contains a line feed.
pub(super) fn throttle_account(identity: &Identity) -> String {
    let IdentityKey { issuer, tenant_id, kind, subject } = identity.key();
    let tenant = tenant_id.as_ref().map_or("", |id| id.as_str());
    format!("{issuer}\n{tenant}\n{kind}\n{subject}")
}

impl Inner {
    pub(super) async fn introspect(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        let caller = self.caller(incoming).await?;
        let request = GuardRequest::of_parts(&incoming.head, &caller, self.auth.now());
        self.introspect_guard.check(&request)?;
        let account = throttle_account(caller.identity());
        self.admit(Endpoint::Introspect, &incoming.head, Some(&account)).await?;
        let parameters = Parameters::from_body(incoming, BodyFormat::FormOrJson, &["token"])?;
        let token = parameters.required("token", "The parameter token is missing.")?;
        match self.auth.authenticate(token).await {
            Ok(found) if self.may_see(&caller, &found) => {
                Ok(self.active_response(found.identity()))
            }
            // An unavailable validator may accept the token later, so it must not be reported
            // inactive.
            Err(error) if error.is_unavailable() => Err(error.into()),
            // The same response for every reason (RFC 7662 §2.2).
            _ => Ok(self.ok(&json!({ "active": false }))),
        }
    }

    /// Returns whether the caller may see the token: it belongs to the caller's tenant, or the
    /// tokens of all tenants are visible.
    fn may_see(&self, caller: &AuthContext, found: &AuthContext) -> bool {
        self.introspects_all_tenants
            || caller.identity().tenant_id() == found.identity().tenant_id()
    }

    fn active_response(&self, identity: &Identity) -> Response<Bytes> {
        self.ok(&IntrospectionResponse {
            active: true,
            identity_id: (self.identity_id)(identity),
            identity_type: identity.kind(),
            tenant_id: identity.tenant_id().map(|id| id.as_str()),
            scopes: identity.scopes(),
            expires_at: rfc3339(identity.expires_at()),
            issued_at: identity.issued_at().map(rfc3339),
            scope: identity.scopes().as_str(),
            iss: identity.issuer(),
            sub: identity.subject(),
            client_id: identity.client_id(),
            token_type: "Bearer",
            exp: unix_seconds(identity.expires_at()),
            iat: identity.issued_at().map(unix_seconds),
        })
    }
}
