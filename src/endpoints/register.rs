//! `POST register`: creates a participant for the caller.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Serialize;

use super::identity_id::rfc3339;
use super::response::Failure;
use super::{EndpointRequest, Inner};
use crate::clock::with_timeout;
use crate::error::AuthError;
use crate::exchange::{AccessToken, identity_of};
use crate::identity::Identity;
use crate::layer::mark_mock;
use crate::registrar::{ParticipantId, RegistrarError, Registration, WorkspaceId};
use crate::support::telemetry::{self, Causes};

/// The timeout of a registrar, which holds a sign-in. Longer than that of `SqlRegistrar`, because a
/// registrar of the service may create more than a row.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct RegisterResponse<'a> {
    participant_id: &'a ParticipantId,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_id: Option<&'a WorkspaceId>,
    created_at: String,
}

impl Inner {
    /// Registers the caller: 201 for a new participant, 200 with the same ids for a known one.
    /// Ignores the body.
    pub(super) async fn register(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        let caller = self.caller(incoming).await?;
        let registered = self.register_identity(caller.identity()).await?;
        let status = if registered.created { StatusCode::CREATED } else { StatusCode::OK };
        let body = RegisterResponse {
            participant_id: &registered.participant_id,
            workspace_id: registered.workspace_id.as_ref(),
            created_at: rfc3339(registered.created_at),
        };
        let mut response = self.success(status, &body);
        mark_mock(caller.identity().is_mock(), &mut response);
        Ok(response)
    }

    /// Registers the user of a sign-in, if the service asks for it, and if the tenant of the user may
    /// use the service. Name and e-mail address come from the access token or, where it has none, from
    /// the verified ID token.
    pub(super) async fn register_at_sign_in(
        &self,
        identity: &Identity,
        token: &AccessToken,
    ) -> Result<(), Failure> {
        if !self.registers_at_sign_in {
            return Ok(());
        }
        if let Err(error) = self.auth.resolve_tenant(identity, None).await {
            return Err(refused_sign_in(error, "The user's tenant cannot use this service."));
        }
        let mapping = self.client()?.claims_mapping();
        let id_token = token.id_token().and_then(|it| identity_of(it, mapping));
        let identity = match id_token.filter(|it| is_same_user(identity, it)) {
            Some(id_token) => identity.with_profile_of(&id_token),
            None => identity.clone(),
        };
        match self.register_identity(&identity).await {
            Ok(_) => Ok(()),
            Err(Failure::Auth(error)) => {
                Err(refused_sign_in(error, "This service cannot register this identity."))
            }
            Err(failure) => Err(failure),
        }
    }

    async fn register_identity(&self, identity: &Identity) -> Result<Registration, Failure> {
        let registrar = self.registrar.as_ref();
        let registrar = registrar.ok_or(Failure::NotConfigured("there is no registrar"))?;
        let registered = with_timeout(REGISTRATION_TIMEOUT, registrar.register(identity)).await;
        let registered = registered.unwrap_or(Err(RegistrarError::TimedOut(REGISTRATION_TIMEOUT)));
        self.log_outage(&registered);
        registered.map_err(|error| auth_error(error).into())
    }

    /// Logs once when the store begins to fail, and once when it works again. An invalid identity
    /// is not a failure of the store.
    fn log_outage(&self, outcome: &Result<Registration, RegistrarError>) {
        let (outage, clock) = (&self.outages.registrar, self.auth.clock());
        match outcome {
            Err(RegistrarError::InvalidIdentity { .. }) => {}
            Err(error) if outage.record_failure(&Causes(error), clock.elapsed()) => {
                telemetry::registrar_failed(error);
            }
            Err(_) => {}
            Ok(_) if outage.record_success(|| clock.elapsed()) => {
                telemetry::store_recovered("store of participants")
            }
            Ok(_) => {}
        }
    }
}

/// Returns the failure of a sign-in whose user cannot be registered, now or ever.
fn refused_sign_in(error: AuthError, description: &'static str) -> Failure {
    if error.is_unavailable() {
        return error.into();
    }
    telemetry::refused(error.reason(), &error);
    Failure::OAuth("access_denied", description)
}

/// Returns whether an ID token is about the user of the access token. Most ID tokens name no tenant.
fn is_same_user(identity: &Identity, id_token: &Identity) -> bool {
    let tenant = id_token.tenant_id();
    identity.issuer() == id_token.issuer()
        && identity.subject() == id_token.subject()
        && (tenant.is_none() || tenant == identity.tenant_id())
}

fn auth_error(error: RegistrarError) -> AuthError {
    match error {
        RegistrarError::InvalidIdentity { .. } => AuthError::Unregistrable(error.to_string()),
        error => AuthError::unavailable("store of participants", None, error),
    }
}
