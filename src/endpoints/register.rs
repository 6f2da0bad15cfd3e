//! `POST register`: creates a participant and a personal workspace for the caller.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Serialize;

use super::identity_id::rfc3339;
use super::response::Failure;
use super::{EndpointRequest, Inner};
use crate::error::AuthError;
use crate::layer::mark_mock;
use crate::registrar::{ParticipantId, RegistrarError, Registration, WorkspaceId};
use crate::support::telemetry::{self, Causes};

#[derive(Serialize)]
struct RegisterResponse<'a> {
    participant_id: &'a ParticipantId,
    workspace_id: &'a WorkspaceId,
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
        let registrar = self.registrar.as_ref();
        let registrar = registrar.ok_or(Failure::NotConfigured("there is no registrar"))?;
        let registered = registrar.register(caller.identity()).await;
        self.log_outage(&registered);
        let registered = registered.map_err(auth_error)?;
        let status = if registered.created { StatusCode::CREATED } else { StatusCode::OK };
        let body = RegisterResponse {
            participant_id: &registered.participant_id,
            workspace_id: &registered.workspace_id,
            created_at: rfc3339(registered.created_at),
        };
        let mut response = self.success(status, &body);
        mark_mock(caller.identity().is_mock(), &mut response);
        Ok(response)
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

fn auth_error(error: RegistrarError) -> AuthError {
    match error {
        RegistrarError::InvalidIdentity { .. } => AuthError::Unregistrable(error.to_string()),
        error => AuthError::unavailable("store of participants", None, error),
    }
}
