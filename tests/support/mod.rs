//! Helpers for all test binaries. Each binary compiles this module and uses a part of it.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of this module")]

pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod jwe;
mod log;
mod metrics;
pub(crate) mod process;
pub(crate) mod proxy;
#[cfg(all(feature = "axum", feature = "endpoints"))]
pub(crate) mod stored_sessions;
pub(crate) mod tenants;
pub(crate) mod tls;
pub(crate) mod webdriver;

pub(crate) use files::File;
pub(crate) use http::{Answer, Server, request};
pub(crate) use log::Log;
pub(crate) use metrics::MetricsRecorder;
pub(crate) use process::Program;

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

/// A test provider, and the clock that it shares with the services that trust it.
pub(crate) struct World {
    pub(crate) provider: Provider,
    pub(crate) clock: ManualClock,
}

impl World {
    /// Starts a provider that signs with ES256, whose keys are the fastest to generate.
    pub(crate) async fn new() -> Self {
        Self::with([Algorithm::ES256]).await
    }

    pub(crate) async fn with(algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let clock = ManualClock::new();
        let provider =
            Provider::builder().algorithms(algorithms).clock(clock.clone()).start().await;
        Self { provider, clock }
    }

    /// Returns the issuer configuration of the provider, with every algorithm allowed.
    pub(crate) fn issuer(&self) -> IssuerConfig {
        local_with_all_algorithms(&self.provider.issuer())
    }

    /// Returns a builder for a service with the audience `scaiwave` that trusts the provider.
    pub(crate) fn auth(&self) -> AuthBuilder {
        self.auth_with(self.issuer())
    }

    pub(crate) fn auth_with(&self, issuer: IssuerConfig) -> AuthBuilder {
        // Dropping a cache of the default size takes an unoptimised build longer than most tests.
        let builder = Auth::builder().verified_tokens_bytes(1 << 20);
        builder.issuer(issuer).audience("scaiwave").clock(self.clock.clone())
    }
}

/// Returns the configuration of a local issuer, with every algorithm allowed.
pub(crate) fn local_with_all_algorithms(url: &str) -> IssuerConfig {
    local(url).algorithms(Algorithm::ALL)
}

/// Returns the configuration of a local issuer, with long timeouts for busy machines.
pub(crate) fn local(url: impl Into<String>) -> IssuerConfig {
    let mut config = IssuerConfig::new(url).allow_loopback_http(true);
    config.jwks.wait = Duration::from_secs(60);
    config
}

/// Returns a service in mock mode.
pub(crate) fn mock() -> Auth {
    let auth = Auth::builder().verified_tokens_bytes(0).mode(AuthMode::Mock);
    auth.insecure_allow_mock_in_production().build().unwrap()
}

pub(crate) fn tenant_id(id: &str) -> TenantId {
    TenantId::new(id).unwrap()
}

/// Parses a configuration as if it were read from a file.
pub(crate) fn config(json: serde_json::Value) -> AuthConfig {
    serde_json::from_value(json).unwrap()
}

/// A counter of the calls to the service behind the layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spy(Arc<AtomicU64>);

impl Spy {
    pub(crate) fn called(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn calls(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Returns an app that counts its requests and answers 200.
    pub(crate) fn app(&self) -> Router {
        let spy = self.clone();
        Router::new().fallback(move || async move { spy.called() })
    }
}

/// The time limit for work that should be immediate. Long, because the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Awaits work that must finish immediately. Panics after 120 s.
pub(crate) async fn within_timeout<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(TIMEOUT, work).await.expect("finishes before the timeout")
}

/// Waits until other tasks make a condition true. Panics after 120 s.
pub(crate) async fn until(mut reached: impl FnMut() -> bool) {
    eventually(async || reached()).await;
}

/// Waits until other tasks or processes make a condition true. Panics after 120 s.
pub(crate) async fn eventually(mut reached: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !reached().await {
        assert!(since.elapsed() < TIMEOUT, "the condition was not met in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Returns an axum request, for services called without a socket.
pub(crate) fn axum_request(token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().uri("/");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}
