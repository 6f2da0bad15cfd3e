//! `GET whoami`: returns the caller's identity.

use bytes::Bytes;
use http::Response;
use serde::Serialize;

use super::identity_id::rfc3339;
use super::response::Failure;
use super::{EndpointRequest, Inner};
use crate::identity::{Identity, IdentityKind, Scopes};
use crate::layer::mark_mock;

/// The response of `whoami`. Lists are always present; unknown values are omitted.
#[derive(Serialize)]
struct WhoamiResponse<'a> {
    identity_id: String,
    identity_type: IdentityKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    /// Absent if the token does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    email_verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_id: Option<&'a str>,
    scopes: &'a Scopes,
    groups: Vec<&'a str>,
    roles: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mfa_verified_at: Option<String>,
    token_expires_at: String,
    /// With `subject`, the stable key of the identity: neither changes when a display name or
    /// address does.
    issuer: &'a str,
    subject: &'a str,
}

impl Inner {
    pub(super) async fn whoami(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        let context = self.caller(incoming).await?;
        let mut response = self.ok(&self.whoami_response(context.identity()));
        mark_mock(context.identity().is_mock(), &mut response);
        Ok(response)
    }

    fn whoami_response<'a>(&self, identity: &'a Identity) -> WhoamiResponse<'a> {
        WhoamiResponse {
            identity_id: (self.identity_id)(identity),
            identity_type: identity.kind(),
            display_name: identity.display_name(),
            email: identity.email(),
            email_verified: identity.email_verification(),
            tenant_id: identity.tenant_id().map(|id| id.as_str()),
            partner_id: identity.partner_id(),
            scopes: identity.scopes(),
            groups: identity.groups().collect(),
            roles: identity.roles().collect(),
            mfa_verified_at: identity.mfa_verified_at().map(rfc3339),
            token_expires_at: rfc3339(identity.expires_at()),
            issuer: identity.issuer(),
            subject: identity.subject(),
        }
    }
}
