//! What the tests of all binaries stand on. Each binary has the whole and uses its part.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

pub(crate) mod files;
pub(crate) mod http;
mod log;
mod metrics;
pub(crate) mod process;
pub(crate) mod tenants;

pub(crate) use files::File;
pub(crate) use http::{Answer, Server, request};
pub(crate) use log::Log;
pub(crate) use metrics::Counts;
pub(crate) use process::Running;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::http::Request;
use axum::Router;
use axum::body::Body;
use scaikey_auth::config::Algorithm;
use scaikey_auth::testing::{ManualClock, Provider};
use scaikey_auth::{Auth, AuthBuilder, AuthConfig, AuthMode, IssuerConfig, TenantId};

/// A provider and the time it shares with the services that trust it.
pub(crate) struct World {
    pub(crate) provider: Provider,
    pub(crate) clock: ManualClock,
}

impl World {
    /// A provider that signs with ES256, the cheapest key to make.
    pub(crate) async fn new() -> Self {
        Self::with([Algorithm::ES256]).await
    }

    pub(crate) async fn with(algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let clock = ManualClock::new();
        let provider =
            Provider::builder().algorithms(algorithms).clock(clock.clone()).start().await;
        Self { provider, clock }
    }

    /// The provider as an issuer of any algorithm.
    pub(crate) fn issuer(&self) -> IssuerConfig {
        trusted(&self.provider.issuer())
    }

    /// A service called `scaiwave` that trusts the provider.
    pub(crate) fn auth(&self) -> AuthBuilder {
        self.auth_with(self.issuer())
    }

    pub(crate) fn auth_with(&self, issuer: IssuerConfig) -> AuthBuilder {
        // The default size takes an unoptimised build longer to empty than most tests take.
        let builder = Auth::builder().verified_tokens_bytes(1 << 20);
        builder.issuer(issuer).audience("scaiwave").clock(self.clock.clone())
    }
}

/// An issuer on this machine, with every algorithm allowed.
pub(crate) fn trusted(url: &str) -> IssuerConfig {
    local(url).algorithms(Algorithm::ALL)
}

/// An issuer on this machine, which a busy one may keep waiting.
pub(crate) fn local(url: impl Into<String>) -> IssuerConfig {
    let mut config = IssuerConfig::new(url).allow_loopback_http(true);
    config.jwks.wait = Duration::from_secs(60);
    config
}

/// A service that asks nobody.
pub(crate) fn mock() -> Auth {
    let auth = Auth::builder().verified_tokens_bytes(0).mode(AuthMode::Mock);
    auth.insecure_allow_mock_in_production().build().unwrap()
}

pub(crate) fn tenant_id(id: &str) -> TenantId {
    TenantId::new(id).unwrap()
}

/// A configuration as a file would give it.
pub(crate) fn config(json: serde_json::Value) -> AuthConfig {
    serde_json::from_value(json).unwrap()
}

/// Counts how often the service behind the layer was called.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spy(Arc<AtomicU64>);

impl Spy {
    pub(crate) fn called(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn calls(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// An app that counts whatever reaches it and answers 200.
    pub(crate) fn app(&self) -> Router {
        let spy = self.clone();
        Router::new().fallback(move || async move { spy.called() })
    }
}

/// Only what hangs takes so long, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A future that must end soon, because nothing it waits for is late.
pub(crate) async fn soon<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(PATIENCE, work).await.expect("ends soon")
}

/// Waits for what other tasks bring about.
pub(crate) async fn until(mut reached: impl FnMut() -> bool) {
    eventually(async || reached()).await;
}

/// Waits for what other tasks or processes bring about.
pub(crate) async fn eventually(mut reached: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !reached().await {
        assert!(since.elapsed() < PATIENCE, "it did not come to pass");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// An axum request, for services called without a socket.
pub(crate) fn axum_request(token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().uri("/");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}
