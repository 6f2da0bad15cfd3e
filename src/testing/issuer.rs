//! [`TestIssuer`]: its keys, the URLs that publish them, and the tokens that it signs.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::clients::Registry;
use super::endpoint::{EndpointState, ProviderEndpoint, ReceivedRequest};
use super::faults::Fault;
use super::key_ring::KeyRing;
use super::keys::SigningKey;
use super::oauth::GrantStore;
use super::tokens::TokenBuilder;
use crate::clock::Clock;
use crate::clock::unix_seconds;
use crate::config::Algorithm;
use crate::support::crypto;

/// Settings that all issuers of one provider share.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) url: String,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) audience: String,
    pub(super) lifetime: Duration,
}

/// An issuer of a [`Provider`](super::Provider) (feature `testing`): the platform or a tenant.
///
/// It has its own keys, counters and faults. Clones share them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use scaikey_auth::testing::{Provider, ProviderEndpoint};
///
/// let provider = Provider::start().await; // it is the issuer of the platform, too
/// let acme = provider.tenant("tnt_acme", "acme");
/// assert_ne!(acme.issuer(), provider.issuer());
///
/// let before = acme.kid();
/// acme.rotate(); // the old key stays published
/// assert!(acme.kids().contains(&before));
/// acme.remove_key(&before);
/// assert_eq!(acme.requests(ProviderEndpoint::Jwks), 0);
/// # }
/// ```
#[derive(Clone)]
pub struct TestIssuer(Arc<Inner>);

struct Inner {
    settings: Arc<Settings>,
    /// The `iss` of its tokens.
    identifier: String,
    /// The path prefix of its endpoints. Empty for the platform.
    base: String,
    tenant: Option<String>,
    keys: Mutex<KeyRing>,
    cache_control: Mutex<Option<String>>,
    discovery: EndpointState,
    jwks: EndpointState,
    authorization: EndpointState,
    token: EndpointState,
    revocation: EndpointState,
    introspection: EndpointState,
    end_session: EndpointState,
    registry: Registry,
    grant_store: GrantStore,
    trusted_workloads: Mutex<Vec<TrustedWorkload>>,
    shape: Mutex<Option<Arc<Shape>>>,
}

/// Changes the claims of a token.
type Shape = dyn Fn(&mut Map<String, Value>) + Send + Sync;

/// A foreign issuer that this issuer trusts, and the claims that replace those of its tokens.
struct TrustedWorkload {
    foreign: TestIssuer,
    subject: String,
    tenant: String,
}

impl TestIssuer {
    pub(super) fn new(
        settings: Arc<Settings>,
        identifier: String,
        base: String,
        tenant: Option<&str>,
    ) -> Self {
        let mut keys = KeyRing::default();
        for algorithm in &settings.algorithms {
            keys.make_current(SigningKey::generate(*algorithm));
        }
        Self(Arc::new(Inner {
            settings,
            identifier,
            base,
            tenant: tenant.map(str::to_owned),
            keys: Mutex::new(keys),
            cache_control: Mutex::default(),
            discovery: EndpointState::new(),
            jwks: EndpointState::new(),
            authorization: EndpointState::new(),
            token: EndpointState::new(),
            revocation: EndpointState::new(),
            introspection: EndpointState::new(),
            end_session: EndpointState::new(),
            registry: Registry::default(),
            grant_store: GrantStore::default(),
            trusted_workloads: Mutex::default(),
            shape: Mutex::default(),
        }))
    }

    /// Returns the `iss` of its tokens.
    pub fn issuer(&self) -> String {
        self.0.identifier.clone()
    }

    /// Returns the URL of its OpenID Connect discovery document.
    pub fn discovery_url(&self) -> String {
        self.url_of("/.well-known/openid-configuration")
    }

    /// Returns the URL of its key set.
    pub fn jwks_uri(&self) -> String {
        self.url_of("/.well-known/jwks.json")
    }

    /// Builds an access token of the user `alice` (`sub`: `alice-id`), with an e-mail address. She has
    /// no roles, groups or scopes: a test sets those that it needs. The tenant is the issuer's own,
    /// or `tenant-1` for an issuer without one. Audience and lifetime are those of the
    /// [`ProviderBuilder`](super::ProviderBuilder). The claims: `iss`, `aud`, `iat`, `exp`, `jti`, `sub`,
    /// `tenant_id`, `preferred_username` and `email`.
    pub fn token(&self) -> TokenBuilder {
        TokenBuilder::new(
            self,
            json!({
                "sub": "alice-id",
                "tenant_id": self.tenant_id(),
                "preferred_username": "alice",
                "email": "alice@example.com",
            }),
        )
    }

    /// Builds an access token of a service, as the client-credentials grant issues it to
    /// `client_id`. The claims: `iss`, `aud`, `iat`, `exp`, `jti`, `sub`, `tenant_id`, `client_id` and
    /// `token_type`.
    pub fn service_token(&self, client_id: &str) -> TokenBuilder {
        TokenBuilder::new(
            self,
            json!({
                "sub": client_id,
                "client_id": client_id,
                "token_type": "client_credentials",
                "tenant_id": self.tenant_id(),
            }),
        )
    }

    /// Sets a function that changes the claims of each access token of this issuer immediately before
    /// it is signed. So a test names roles and tenants as usual, and its tokens have the shape of
    /// another provider's. ID tokens stay unchanged. Replaces the function that was set before. The page
    /// [testing](crate::manual::testing) has complete functions for Keycloak and Entra ID.
    ///
    /// ```
    /// use scaikey_auth::testing::Provider;
    /// use scaikey_auth::{Auth, IssuerConfig};
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let provider = Provider::start().await;
    /// let realm = provider.issuer_at("/realms/main");
    /// realm.shape_tokens(|claims| {
    ///     let roles = claims.remove("roles").unwrap_or_else(|| json!([]));
    ///     claims.insert("realm_access".to_owned(), json!({ "roles": roles }));
    ///     claims.remove("tenant_id");
    /// });
    ///
    /// let issuer = IssuerConfig::keycloak(realm.issuer()).allow_loopback_http(true);
    /// let auth = Auth::builder().issuer(issuer).audience("scaiwave").tenant_optional().build()?;
    ///
    /// let editor = auth.authenticate(&realm.token().roles(["editor"]).sign()).await?;
    /// assert!(editor.identity().has_role("editor"));
    /// # Ok(()) }
    /// ```
    pub fn shape_tokens(&self, shape: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) {
        *lock(&self.0.shape) = Some(Arc::new(shape));
    }

    /// Applies the function of [`shape_tokens`](Self::shape_tokens).
    pub(super) fn shape(&self, claims: &mut Map<String, Value>) {
        // Called without the lock: the function may use this issuer.
        let shape = lock(&self.0.shape).clone();
        if let Some(shape) = shape {
            shape(claims);
        }
    }

    /// Returns the current signing key of the provider's first algorithm, which signs by default.
    pub fn key(&self) -> SigningKey {
        let algorithm = self.0.settings.algorithms.first().copied().unwrap_or(Algorithm::RS256);
        self.key_for(algorithm)
    }

    /// Returns the current signing key of this algorithm. Generates and publishes one if there is
    /// none.
    pub fn key_for(&self, algorithm: Algorithm) -> SigningKey {
        let mut ring = self.ring();
        let current = ring.current(algorithm).cloned();
        current.unwrap_or_else(|| ring.make_current(SigningKey::generate(algorithm)))
    }

    /// Returns the `kid` of [`key`](Self::key).
    pub fn kid(&self) -> String {
        self.key().kid().to_owned()
    }

    /// Returns the `kid`s of the published keys.
    pub fn kids(&self) -> Vec<String> {
        self.ring().published().iter().map(|key| key.kid().to_owned()).collect()
    }

    /// Replaces the signing key of the provider's first algorithm, and returns the `kid` of the new
    /// key. The old key stays published. The new key is the one from
    /// [`publish_next`](Self::publish_next), otherwise a generated one.
    pub fn rotate(&self) -> String {
        let algorithm = self.key().algorithm();
        let mut ring = self.ring();
        let key = ring.take_next().unwrap_or_else(|| SigningKey::generate(algorithm));
        ring.make_current(key).kid().to_owned()
    }

    /// Publishes the key that the next [`rotate`](Self::rotate) will use, and returns its `kid`.
    pub fn publish_next(&self) -> String {
        let key = SigningKey::generate(self.key().algorithm());
        let kid = key.kid().to_owned();
        self.ring().publish_next(key);
        kid
    }

    /// Publishes a key and makes it the signing key for its algorithm.
    pub fn rotate_to(&self, key: SigningKey) {
        self.ring().make_current(key);
    }

    /// Removes a key from the key set. If it is the current key, it still signs: a verifier must
    /// reject those tokens as soon as it has fetched the set again.
    pub fn remove_key(&self, kid: &str) {
        self.ring().remove_key(|key| key.kid() == kid);
    }

    /// Removes all keys from the key set, except the current signing keys. Discards the key from
    /// [`publish_next`](Self::publish_next).
    pub fn remove_old_keys(&self) {
        self.ring().remove_old_keys();
    }

    /// Sets the `Cache-Control` header of the key set. `None`, or a text that is not a valid header
    /// value, sends no header. Default: `None`.
    pub fn set_cache_control(&self, value: Option<&str>) {
        *lock(&self.0.cache_control) = value.map(str::to_owned);
    }

    /// Sets a fault on an endpoint. It applies until [`heal`](Self::heal).
    pub fn fail(&self, endpoint: ProviderEndpoint, fault: Fault) {
        self.endpoint_state(endpoint).set_fault(Some(fault));
    }

    /// Clears the fault of an endpoint. Requests that [`Fault::Hang`] holds are answered.
    pub fn heal(&self, endpoint: ProviderEndpoint) {
        self.endpoint_state(endpoint).set_fault(None);
    }

    /// Returns the number of requests that reached an endpoint, answered or not.
    pub fn requests(&self, endpoint: ProviderEndpoint) -> u64 {
        self.endpoint_state(endpoint).count()
    }

    /// Returns the number of requests for the key set.
    pub fn jwks_requests(&self) -> u64 {
        self.requests(ProviderEndpoint::Jwks)
    }

    /// Returns the number of requests for the discovery document.
    pub fn discovery_requests(&self) -> u64 {
        self.requests(ProviderEndpoint::Discovery)
    }

    /// Returns the number of requests to the token endpoint.
    pub fn token_requests(&self) -> u64 {
        self.requests(ProviderEndpoint::Token)
    }

    /// Returns the last 100 requests to an endpoint, oldest first.
    pub fn received(&self, endpoint: ProviderEndpoint) -> Vec<ReceivedRequest> {
        self.endpoint_state(endpoint).recent()
    }

    /// Waits until an endpoint has received at least `least` requests in total.
    ///
    /// # Panics
    /// Panics after 120 seconds of real time.
    pub async fn wait_for_requests(&self, endpoint: ProviderEndpoint, least: u64) {
        self.endpoint_state(endpoint).wait_for(least).await;
    }

    /// Waits until the key set has been requested at least `least` times in total.
    ///
    /// # Panics
    /// Panics after 120 seconds of real time.
    pub async fn wait_for_jwks_requests(&self, least: u64) {
        self.wait_for_requests(ProviderEndpoint::Jwks, least).await;
    }

    /// Returns the key set as currently published.
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.ring().published().iter().map(SigningKey::jwk).collect::<Value>() })
    }

    pub(super) fn base(&self) -> &str {
        &self.0.base
    }

    pub(super) fn is_tenant(&self, id: &str) -> bool {
        self.0.tenant.as_deref() == Some(id)
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub(super) fn grant_store(&self) -> &GrantStore {
        &self.0.grant_store
    }

    /// Returns the claims of a token that this issuer signed, or of an opaque token that it made. Checks
    /// nothing but the signature.
    pub(super) fn own_claims(&self, token: &str) -> Option<Map<String, Value>> {
        let opaque = self.grant_store().opaque_claims(token);
        opaque.or_else(|| self.ring().published().iter().find_map(|key| key.claims_of(token)))
    }

    /// Trusts the tokens of `foreign`, for example those of a workload platform: the token endpoint
    /// accepts them as subject and actor tokens, as if they had the subject `subject` and the
    /// tenant `tenant`. It checks only the signature, neither `exp` nor `aud`.
    pub fn trust_workloads(&self, foreign: &TestIssuer, subject: &str, tenant: &str) {
        let (foreign, subject, tenant) = (foreign.clone(), subject.to_owned(), tenant.to_owned());
        lock(&self.0.trusted_workloads).push(TrustedWorkload { foreign, subject, tenant });
    }

    /// Returns the subject and the tenant that a trusted foreign token stands for.
    pub(super) fn workload_claims(&self, token: &str) -> Option<Map<String, Value>> {
        let workloads = lock(&self.0.trusted_workloads);
        let trusted = workloads.iter().find(|it| it.foreign.own_claims(token).is_some())?;
        let claims = json!({ "sub": trusted.subject, "tenant_id": trusted.tenant });
        claims.as_object().cloned()
    }

    pub(super) fn current_cache_control(&self) -> Option<String> {
        lock(&self.0.cache_control).clone()
    }

    pub(super) fn endpoint_state(&self, endpoint: ProviderEndpoint) -> &EndpointState {
        match endpoint {
            ProviderEndpoint::Discovery => &self.0.discovery,
            ProviderEndpoint::Jwks => &self.0.jwks,
            ProviderEndpoint::Authorization => &self.0.authorization,
            ProviderEndpoint::Token => &self.0.token,
            ProviderEndpoint::Revocation => &self.0.revocation,
            ProviderEndpoint::Introspection => &self.0.introspection,
            ProviderEndpoint::EndSession => &self.0.end_session,
        }
    }

    pub(super) fn now(&self) -> SystemTime {
        self.0.settings.clock.now()
    }

    pub(super) fn unix_now(&self) -> u64 {
        unix_seconds(self.now())
    }

    pub(super) fn audience(&self) -> &str {
        &self.0.settings.audience
    }

    pub(super) fn token_lifetime(&self) -> Duration {
        self.0.settings.lifetime
    }

    pub(super) fn algorithms(&self) -> &[Algorithm] {
        &self.0.settings.algorithms
    }

    /// Returns a unique `jti`. Another process has others, because a log of revocations may outlive this one.
    pub(super) fn next_jti(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        static PROCESS: LazyLock<String> =
            LazyLock::new(|| crypto::hex(&crypto::random::<4>().unwrap_or_default()));
        format!("token-{}-{}", *PROCESS, NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn tenant_id(&self) -> &str {
        self.0.tenant.as_deref().unwrap_or("tenant-1")
    }

    pub(super) fn url_of(&self, path: &str) -> String {
        format!("{}{}{path}", self.0.settings.url, self.0.base)
    }

    fn ring(&self) -> MutexGuard<'_, KeyRing> {
        lock(&self.0.keys)
    }
}

impl fmt::Debug for TestIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestIssuer")
            .field("issuer", &self.0.identifier)
            .field("kids", &self.kids())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
