//! [`SpiffeSource`]: JWT-SVIDs from the SPIFFE Workload API.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::spiffe::transport::Endpoint;
use ::spiffe::{SpiffeId, WorkloadApiClient, WorkloadApiError};
use async_trait::async_trait;

use super::WorkloadTokenSource;
use crate::config::environment_variable;
use crate::error::BoxError;
use crate::support::secret::Secret;

/// The variable with the address of the Workload API (SPIFFE Workload Endpoint §4).
const SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";

/// The SPIFFE Workload API, for example of a SPIRE agent, which gives this workload JWT-SVIDs (feature
/// `spiffe`). Pass it to [`WorkloadToken::spiffe`](super::WorkloadToken::spiffe).
///
/// The connection is made when the first token is needed, and made again if it is lost: a service starts
/// before its agent, and survives the agent's restart. Clones share the connection.
///
/// The address is `unix:///run/spire/agent.sock`, or `tcp://127.0.0.1:8081` on a loopback address. Other
/// addresses are refused, because the API neither encrypts nor authenticates. *Not* checked: which process
/// listens on the socket. Only trusted users may be able to create it.
///
/// ```
/// use scaikey_auth::issuer::{ClientAuth, SpiffeSource, WorkloadToken};
///
/// let agent = SpiffeSource::at("unix:///run/spire/agent.sock");
/// let wave = ClientAuth::assertion("spiffe://prod.example/ns/wave/sa/api", WorkloadToken::spiffe(agent));
/// ```
#[derive(Debug, Clone)]
pub struct SpiffeSource {
    address: Arc<str>,
    endpoint: Result<Endpoint, String>,
    /// The id of the wanted SVID.
    id: Option<Result<SpiffeId, String>>,
    client: Arc<Mutex<Option<WorkloadApiClient>>>,
}

impl SpiffeSource {
    /// Uses the Workload API that the variable `SPIFFE_ENDPOINT_SOCKET` names, which is read by this call.
    pub fn from_env() -> Self {
        match environment_variable(SOCKET) {
            Some(address) => Self::named(&address, SOCKET),
            None => Self::of(
                "",
                Err(format!(
                    "{SOCKET} is not set: set it to the socket of the SPIFFE agent, such as unix:///run/spire/agent.sock"
                )),
            ),
        }
    }

    /// Uses the Workload API at this address.
    pub fn at(address: &str) -> Self {
        Self::named(address, "the address of the SPIFFE Workload API")
    }

    /// Sets the SPIFFE ID of the wanted SVID, for a workload that has several. Default: the first one that the
    /// agent lists.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        let invalid = |error| format!("{id:?} is no SPIFFE ID: {error}");
        self.id = Some(id.parse().map_err(invalid));
        self
    }

    /// `name` is the subject of faults.
    fn named(address: &str, name: &str) -> Self {
        let endpoint = match Endpoint::parse(address) {
            Ok(Endpoint::Tcp { host, .. }) if !host.is_loopback() => Err(format!(
                "{name} must be a Unix socket or on a loopback address: tokens would be sent without encryption"
            )),
            Ok(endpoint) => Ok(endpoint),
            Err(error) => Err(format!(
                "{name} must be an address such as unix:///run/spire/agent.sock: {error}"
            )),
        };
        Self::of(address, endpoint)
    }

    fn of(address: &str, endpoint: Result<Endpoint, String>) -> Self {
        Self { address: address.into(), endpoint, id: None, client: Arc::default() }
    }

    /// Returns the reason why the source cannot be used.
    pub(super) fn problem(&self) -> Option<&str> {
        let id = self.id.as_ref().and_then(|id| id.as_ref().err());
        self.endpoint.as_ref().err().or(id).map(String::as_str)
    }

    /// Returns the connected client, or connects.
    async fn client(&self) -> Result<WorkloadApiClient, BoxError> {
        if let Some(client) = self.connected().clone() {
            return Ok(client);
        }
        let endpoint = self.endpoint.clone()?;
        let client =
            WorkloadApiClient::connect(endpoint).await.map_err(|error| self.failed(&error))?;
        *self.connected() = Some(client.clone());
        Ok(client)
    }

    fn connected(&self) -> MutexGuard<'_, Option<WorkloadApiClient>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self, audience: &str) -> Result<Result<String, WorkloadApiError>, BoxError> {
        let id = self.id.clone().transpose()?;
        let client = self.client().await?;
        Ok(client.fetch_jwt_token([audience], id.as_ref()).await)
    }

    /// Returns an error that names the address and the remedy, if one is known.
    fn failed(&self, error: &WorkloadApiError) -> BoxError {
        let remedy = match error {
            WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => {
                ": register this workload in the control plane".to_owned()
            }
            error => root_cause(error).map_or_else(String::new, |cause| format!(": {cause}")),
        };
        format!("{}: {error}{remedy}", self.address).into()
    }
}

/// Returns the first cause of an error, such as that of the operating system, if its text does not have it.
fn root_cause(error: &WorkloadApiError) -> Option<String> {
    let mut first = error.source()?;
    while let Some(cause) = first.source() {
        first = cause;
    }
    let first = first.to_string();
    (!error.to_string().contains(&first)).then_some(first)
}

#[async_trait]
impl WorkloadTokenSource for SpiffeSource {
    async fn token(&self, audience: &str) -> Result<Secret, BoxError> {
        let mut fetched = self.fetch(audience).await?;
        // The agent may have been restarted since the connection was made.
        if let Err(WorkloadApiError::Transport(_)) = fetched {
            *self.connected() = None;
            fetched = self.fetch(audience).await?;
        }
        fetched.map(Secret::new).map_err(|error| self.failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_must_be_local() {
        let problem = |source: SpiffeSource| source.problem().map(str::to_owned);
        for address in
            ["unix:///run/agent.sock", "unix:/run/agent.sock", "tcp://127.0.0.1:1", "tcp://[::1]:1"]
        {
            assert_eq!(problem(SpiffeSource::at(address)), None, "{address}");
        }
        for address in
            ["", "/run/agent.sock", "https://agent", "tcp://agent:1", "unix://", "tcp://127.0.0.1"]
        {
            let problem = problem(SpiffeSource::at(address)).unwrap();
            assert!(problem.contains("must be an address such as unix:"), "{address}: {problem}");
        }
        for address in ["tcp://10.0.0.1:1", "tcp://0.0.0.0:1", "tcp://[2001:db8::1]:1"] {
            let problem = problem(SpiffeSource::at(address)).unwrap();
            assert!(problem.contains("without encryption"), "{address}: {problem}");
        }
        let socket = || SpiffeSource::at("unix:///run/agent.sock");
        assert_eq!(problem(socket().id("spiffe://td/a")), None);
        assert!(problem(socket().id("https://td/a")).unwrap().contains("is no SPIFFE ID"));
    }
}
