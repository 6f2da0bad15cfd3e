//! The common fixture: a provider, a clock, and a service that trusts the provider and uses the clock.

use std::time::Duration;

use scaikey_auth::clock::Clock;
use scaikey_auth::config::{Algorithm, JwksSettings};
use scaikey_auth::issuer::{IssuerHealth, KeyState, TenantIssuers};
use scaikey_auth::tenant::AnyTenant;
use scaikey_auth::testing::{ManualClock, Provider, SigningKey, TestIssuer};
use scaikey_auth::{Auth, AuthBuilder, IssuerConfig};

use crate::support::{local, until};

/// Longer than a set stays fresh by default, jitter included.
pub(crate) const PAST_TTL: Duration = Duration::from_secs(331);

/// Longer than any back-off after a failed fetch.
pub(crate) const PAST_BACKOFF: Duration = Duration::from_secs(61);

/// A provider with one ES256 key, and a service that trusts it.
pub(crate) struct World {
    pub(crate) provider: Provider,
    pub(crate) clock: ManualClock,
    pub(crate) auth: Auth,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|settings| settings).await
    }

    pub(crate) async fn with(settings: impl FnOnce(JwksSettings) -> JwksSettings) -> Self {
        let (provider, clock) = provider().await;
        let config = trust(&provider);
        let settings = settings(config.jwks.clone());
        let config = config.jwks(settings);
        let auth = service([config], &clock);
        Self { provider, clock, auth }
    }

    /// Creates a world whose keys are already fetched.
    pub(crate) async fn warm() -> Self {
        Self::new().await.warmed().await
    }

    pub(crate) async fn warmed(self) -> Self {
        self.auth.ready().await.unwrap();
        assert_eq!((self.state(), self.provider.jwks_requests()), (KeyState::Fresh, 1));
        self
    }

    /// Returns the status for a good token of the provider's current key.
    pub(crate) async fn good(&self) -> u16 {
        self.status(&self.token()).await
    }

    /// Returns the status for a token with an unknown key id.
    pub(crate) async fn unknown_kid(&self) -> u16 {
        self.status(&unknown_kid(&self.provider)).await
    }

    pub(crate) async fn status(&self, token: &str) -> u16 {
        status(&self.auth, token).await
    }

    /// Returns a token that does not expire during a test.
    pub(crate) fn token(&self) -> String {
        token(&self.provider)
    }

    pub(crate) fn health(&self) -> IssuerHealth {
        self.auth.issuers().health().remove(0)
    }

    pub(crate) fn state(&self) -> KeyState {
        self.health().state
    }

    /// Returns the time until the next fetch.
    pub(crate) fn pause(&self) -> Duration {
        self.health().next_attempt.duration_since(self.clock.now()).unwrap_or_default()
    }

    pub(crate) async fn until_state(&self, state: KeyState) {
        until(|| self.state() == state).await;
    }
}

pub(crate) async fn provider() -> (Provider, ManualClock) {
    let clock = ManualClock::new();
    let builder = Provider::builder().algorithms([Algorithm::ES256]).clock(clock.clone());
    (builder.start().await, clock)
}

pub(crate) fn trust(issuer: &TestIssuer) -> IssuerConfig {
    local(issuer.issuer())
}

/// A builder with a small cache of verified tokens. An unoptimised build needs longer to clear the default
/// cache than for most of these tests.
pub(crate) fn small_auth() -> AuthBuilder {
    Auth::builder().verified_tokens_bytes(1 << 20)
}

pub(crate) fn service(
    issuers: impl IntoIterator<Item = IssuerConfig>,
    clock: &ManualClock,
) -> Auth {
    let builder = small_auth().audience("scaiwave").clock(clock.clone()).tenants(AnyTenant);
    issuers.into_iter().fold(builder, |builder, issuer| builder.issuer(issuer)).build().unwrap()
}

pub(crate) fn service_of_tenants(
    template: IssuerConfig,
    resolver: impl TenantIssuers,
    clock: &ManualClock,
) -> Auth {
    let builder = small_auth().audience("scaiwave").clock(clock.clone());
    builder.tenant_issuers(template, resolver).build().unwrap()
}

/// Returns a token that does not expire during a test.
pub(crate) fn token(issuer: &TestIssuer) -> String {
    issuer.token().expires_in(Duration::from_secs(30 * 24 * 3600)).sign()
}

/// Returns a token that an unpublished key with an unknown key id signed.
pub(crate) fn unknown_kid(issuer: &TestIssuer) -> String {
    issuer.token().signed_by(&SigningKey::generate(Algorithm::ES256)).sign()
}

pub(crate) async fn status(auth: &Auth, token: &str) -> u16 {
    match auth.authenticate(token).await {
        Ok(_) => 200,
        Err(error) => error.status().as_u16(),
    }
}

/// Returns the status for each token. All are sent concurrently.
pub(crate) async fn statuses(auth: &Auth, tokens: impl IntoIterator<Item = String>) -> Vec<u16> {
    let requests: Vec<_> = tokens
        .into_iter()
        .map(|token| {
            let auth = auth.clone();
            tokio::spawn(async move { status(&auth, &token).await })
        })
        .collect();
    let mut statuses = Vec::new();
    for request in requests {
        statuses.push(request.await.unwrap());
    }
    statuses
}

/// Returns the stable name of the refusal, or `"accepted"`.
pub(crate) async fn outcome(auth: &Auth, token: &str) -> &'static str {
    match auth.authenticate(token).await {
        Ok(_) => "accepted",
        Err(error) => error.reason(),
    }
}
