//! What the stories have in common: a provider, a clock, a service that trusts the one and asks the other.

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

/// Longer than any pause after a failed fetch.
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

    /// With the keys already fetched.
    pub(crate) async fn warm() -> Self {
        Self::new().await.warmed().await
    }

    pub(crate) async fn warmed(self) -> Self {
        self.auth.ready().await.unwrap();
        assert_eq!((self.state(), self.provider.jwks_requests()), (KeyState::Fresh, 1));
        self
    }

    /// What a good token of the provider's present key is answered with.
    pub(crate) async fn good(&self) -> u16 {
        self.status(&self.token()).await
    }

    /// What a token with an invented key id is answered with.
    pub(crate) async fn strange(&self) -> u16 {
        self.status(&strange(&self.provider)).await
    }

    pub(crate) async fn status(&self, token: &str) -> u16 {
        status(&self.auth, token).await
    }

    /// A token that outlives every story.
    pub(crate) fn token(&self) -> String {
        token(&self.provider)
    }

    pub(crate) fn health(&self) -> IssuerHealth {
        self.auth.issuers().health().remove(0)
    }

    pub(crate) fn state(&self) -> KeyState {
        self.health().state
    }

    /// In how long the set is asked for next.
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

/// Known tokens have a small table: emptying one of the default size takes an unoptimised build longer than
/// most of these tests.
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

/// A token that outlives every story.
pub(crate) fn token(issuer: &TestIssuer) -> String {
    issuer.token().expires_in(Duration::from_secs(30 * 24 * 3600)).sign()
}

/// A token signed by a key nobody published, under a name nobody has heard.
pub(crate) fn strange(issuer: &TestIssuer) -> String {
    issuer.token().signed_by(&SigningKey::generate(Algorithm::ES256)).sign()
}

pub(crate) async fn status(auth: &Auth, token: &str) -> u16 {
    match auth.authenticate(token).await {
        Ok(_) => 200,
        Err(error) => error.status().as_u16(),
    }
}

/// What each token is answered with when all come at the same time.
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

/// The stable name of the refusal, or `"accepted"`.
pub(crate) async fn verdict(auth: &Auth, token: &str) -> &'static str {
    match auth.authenticate(token).await {
        Ok(_) => "accepted",
        Err(error) => error.reason(),
    }
}
