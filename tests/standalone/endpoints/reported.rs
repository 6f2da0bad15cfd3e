//! The fixture for reports of the provider: an API that trusts a provider with two issuers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use axum::http::Request;
use scaikey_auth::clock::Clock as _;
use scaikey_auth::endpoints::EndpointsBuilder;
use scaikey_auth::error::BoxError;
use scaikey_auth::revocation::{
    LogCursor, LogEntry, LogPage, MemoryRevocationLog, RevocationLog, Revocations,
};
use scaikey_auth::testing::{TestIssuer, TokenBuilder};
use scaikey_auth::{Auth, AuthBuilder};

use crate::support::{Answer, Server, Spy, World, local_with_all_algorithms};

/// An API without sessions, and the issuers that it trusts.
pub(crate) struct Api {
    pub(crate) world: World,
    /// Another issuer, of the same provider.
    pub(crate) other: TestIssuer,
    pub(crate) auth: Auth,
    pub(crate) server: Server,
}

impl Api {
    pub(crate) async fn new(endpoints: impl FnOnce(EndpointsBuilder) -> EndpointsBuilder) -> Self {
        Self::with(|auth| auth, endpoints).await
    }

    pub(crate) async fn with(
        set: impl FnOnce(AuthBuilder) -> AuthBuilder,
        endpoints: impl FnOnce(EndpointsBuilder) -> EndpointsBuilder,
    ) -> Self {
        Self::with_issuer_and(set, |_, builder| endpoints(builder)).await
    }

    /// Starts an API whose endpoints need the `iss` of the first issuer.
    pub(crate) async fn with_issuer(
        endpoints: impl FnOnce(String, EndpointsBuilder) -> EndpointsBuilder,
    ) -> Self {
        Self::with_issuer_and(|auth| auth, endpoints).await
    }

    pub(crate) async fn with_issuer_and(
        set: impl FnOnce(AuthBuilder) -> AuthBuilder,
        endpoints: impl FnOnce(String, EndpointsBuilder) -> EndpointsBuilder,
    ) -> Self {
        let world = World::new().await;
        // Whole seconds, as in tokens.
        let since = world.clock.now().duration_since(UNIX_EPOCH).unwrap();
        world.clock.set_wall(UNIX_EPOCH + Duration::from_secs(since.as_secs()));
        let other = world.provider.issuer_at("/other");
        let auth = world.auth().issuer(local_with_all_algorithms(&other.issuer()));
        let auth = set(auth).build().unwrap();
        let issuer = world.provider.issuer();
        let server = serve(&auth, |builder| endpoints(issuer, builder)).await;
        Self { world, other, auth, server }
    }

    pub(crate) fn token(&self) -> TokenBuilder {
        self.world.provider.token()
    }

    pub(crate) fn issuer(&self) -> String {
        self.world.provider.issuer()
    }

    pub(crate) fn now(&self) -> u64 {
        self.world.clock.now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.world.clock.advance(Duration::from_secs(seconds));
    }

    /// Returns the status for a request with this token.
    pub(crate) async fn status(&self, token: &str) -> u16 {
        self.server.get_as("/", token).await.status
    }

    pub(crate) async fn statuses<const N: usize>(&self, tokens: [&str; N]) -> [u16; N] {
        let mut statuses = [0; N];
        for (status, token) in statuses.iter_mut().zip(tokens) {
            *status = self.status(token).await;
        }
        statuses
    }

    /// Returns the number of revocations in force.
    pub(crate) fn entries(&self) -> usize {
        self.auth.revocations().health().entries
    }
}

/// Serves an API with these endpoints.
pub(crate) async fn serve(
    auth: &Auth,
    endpoints: impl FnOnce(EndpointsBuilder) -> EndpointsBuilder,
) -> Server {
    let endpoints = endpoints(auth.endpoints()).build().unwrap();
    Server::axum(Spy::default().app().layer(auth.layer()).layer(endpoints)).await
}

/// Posts a body of this type.
pub(crate) async fn post(
    server: &Server,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<String>,
) -> Answer {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.send(request.body(body.into()).unwrap()).await
}

/// A revocation log that can fail.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flaky {
    pub(crate) log: MemoryRevocationLog,
    pub(crate) is_full: Arc<AtomicBool>,
}

#[async_trait]
impl RevocationLog for Flaky {
    async fn append(&self, entry: &LogEntry) -> Result<LogCursor, BoxError> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err("the log is full".into());
        }
        self.log.append(entry).await
    }

    async fn read(&self, after: Option<&LogCursor>, limit: usize) -> Result<LogPage, BoxError> {
        self.log.read(after, limit).await
    }
}

/// Makes the service share its revocations through this log.
pub(crate) fn with_log(auth: AuthBuilder, log: impl RevocationLog) -> AuthBuilder {
    auth.revocations(Revocations::builder().log(log).build())
}
