//! [`IssuerTemplate`]: the issuers of a provider with one issuer per tenant.
//!
//! - To *open* a tenant's issuer is to ask the resolver for its URLs and to fetch its keys. This happens when
//!   the first token of the tenant arrives. An *open* issuer is in the cache.
//! - An *invented* tenant is one that the provider does not have. An attacker can put any tenant into `iss`.
//! - A *known* tenant is certainly not invented: it is listed in the configuration, the resolver knows it, or
//!   its issuer was opened before.
//! - A key set *vouches* for a tenant if one of its keys made the signature of the tenant's token. It is a
//!   key set of another tenant of the provider: the provider issued the token, so the tenant is not invented.
//! - The *budget* limits how many issuers of other tenants are opened per second (`Rate::OPENING`). Known
//!   tenants and those with a vouching key set need none of it.
//! - The *quota* limits the fetches of keys and metadata of all open issuers together ([`Quota`]).
//! - The *pattern* is the template's `iss`, with `{tenant_id}` in it. It is also the label in logs and
//!   metrics, because labels must not depend on the contents of tokens.

use std::fmt::Debug;
use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore};

use super::cached_key_set::{CachedKeySet, MAX_CANDIDATES};
use super::issuer_keys::IssuerKeys;
use super::jwk::KeyQuery;
use super::quota::Quota;
use super::{Issuer, IssuerFactory, Rules};
use crate::clock;
use crate::config::{Algorithm, ConfigError, Fault, IssuerConfig, TENANT_PLACEHOLDER, fits_url};
use crate::error::{AuthError, BoxError, InvalidToken};
use crate::identity::TenantId;
use crate::support::bounded::{Bounded, bounded};
use crate::support::retry::{Rate, TokenBucket};
use crate::support::single_flight::{SingleFlight, Waiter};
use crate::support::telemetry::{self, Causes, Outage};

/// The maximum number of open issuers, and of cached refusals. Entries that were used only once are evicted
/// first.
const MAX_OPEN: usize = 10_000;

/// The time for which a tenant without an issuer is refused without another call of the resolver. A new
/// tenant may be refused for this time.
const UNKNOWN_TTL: Duration = Duration::from_secs(10);

/// The maximum number of tenants that are known because their issuer was opened before.
const MAX_KNOWN: usize = 5 * MAX_OPEN;

/// The maximum number of issuers that are opened at the same time. There are as many further slots for known
/// tenants, so that these do not wait behind invented ones.
const MAX_OPENING: usize = 64;

/// The maximum number of requests that wait until the budget allows another opening.
const MAX_QUEUE: usize = 4096;

/// The maximum number of key sets that may vouch for a tenant: those of the issuers opened last.
const MAX_VOUCHING: usize = 4;

/// The timeout of the resolver.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A resolver of the issuer of each tenant, for providers whose URLs cannot be built from the tenant's id.
///
/// Example: the `iss` of ScaiKey is `https://scaikey.example/tenants/{tenant_id}`, but the keys are published
/// under the tenant's *slug*.
///
/// ```
/// use async_trait::async_trait;
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::issuer::TenantIssuers;
/// use scaikey_auth::{Auth, IssuerConfig, TenantId};
///
/// /// The slug of each tenant, in a table of this service.
/// #[derive(Debug)]
/// struct Slugs;
///
/// impl Slugs {
///     async fn of(&self, tenant: &TenantId) -> Result<Option<String>, BoxError> {
///         Ok((tenant.as_str() == "tnt_7").then(|| "acme".to_owned()))
///     }
/// }
///
/// #[async_trait]
/// impl TenantIssuers for Slugs {
///     async fn resolve(
///         &self,
///         tenant: &TenantId,
///         template: IssuerConfig,
///     ) -> Result<Option<IssuerConfig>, BoxError> {
///         let slug = self.of(tenant).await?;
///         Ok(slug.map(|slug| template.jwks_uri(format!("https://scaikey.example/{slug}/jwks.json"))))
///     }
/// }
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let auth = Auth::builder()
///     .tenant_issuers("https://scaikey.example/tenants/{tenant_id}", Slugs)
///     .audience("scaiwave")
///     .build()?;
/// # Ok(()) }
/// ```
///
/// # Security
/// An implementation that fails is harmless: the request is answered with 503. It must never return an issuer
/// with another tenant's keys: that tenant could then issue tokens for this one. The crate does not take the
/// expected `iss` from the returned configuration, and the tenant in the token must be the tenant that was
/// resolved.
#[async_trait]
pub trait TenantIssuers: Debug + Send + Sync + 'static {
    /// Returns `template` with the URLs of `tenant`, or `None` if there is no such tenant. `None` is cached
    /// for 10 s. `{tenant_id}` in the returned URLs is replaced by the id.
    ///
    /// It is called when the first token of the tenant arrives, and again if the tenant's keys could not be
    /// fetched for `max_stale`. It is cancelled after 2 s. The token has already passed the rules of the
    /// template, without its signature. The returned configuration may have stricter rules. It cannot relax
    /// any: each token of the tenant must pass the template's rules and those of the returned configuration.
    /// URLs, keys and the settings for fetching them are taken from the returned configuration alone, and so
    /// are the claims that the identity is read from. It must not add decryption keys: the answer is then 503, because
    /// they are needed before the tenant of a token is known.
    ///
    /// # Errors
    /// If the issuer cannot be determined now. The request is answered with 503, and the failure is logged.
    async fn resolve(
        &self,
        tenant: &TenantId,
        template: IssuerConfig,
    ) -> Result<Option<IssuerConfig>, BoxError>;

    /// Returns whether the tenant exists, if that is known without waiting. Default: `None`, which means
    /// unknown.
    ///
    /// An attacker can invent tenants. [`resolve`](Self::resolve) is therefore limited to a burst of 200
    /// calls and then 20 per second for unknown tenants. Further requests wait for up to half of `jwks.wait`,
    /// 1 s by default, and then get 503. A tenant with `Some(true)` is resolved without this limit; a tenant
    /// with `Some(false)` is refused without a call of `resolve`.
    fn knows(&self, tenant: &TenantId) -> Option<bool> {
        let _ = tenant;
        None
    }
}

/// A template with `{tenant_id}`, and the issuers opened from it.
#[derive(Debug)]
pub(crate) struct IssuerTemplate {
    rules: Arc<Rules>,
    pattern: Arc<str>,
    resolver: Arc<dyn TenantIssuers>,
    /// Logs when the resolver begins to fail, and when it answers again.
    outage: Outage,
    factory: Arc<IssuerFactory>,
    quota: Arc<Quota>,
    /// The common keys of all tenants, if the template has one key set URL and no resolver. Such issuers
    /// need not be opened.
    common_keys: Option<Arc<IssuerKeys>>,
    /// The open issuers. An invented tenant has no keys, so its issuer is never opened successfully.
    open_issuers: Bounded<TenantId, Arc<Issuer>, RandomState>,
    /// Tenants whose issuer was opened before, so they are not invented.
    known: Bounded<TenantId, (), RandomState>,
    opening: SingleFlight<TenantId, Result<(), AuthError>>,
    slots: Semaphore,
    slots_of_known: Semaphore,
    refused: Bounded<TenantId, Refusal, RandomState>,
    /// The budget for opening issuers of unknown tenants. It limits the load on resolver and provider.
    budget: Mutex<TokenBucket>,
    queue: Semaphore,
    /// Notified when the first key set is added to `sets`.
    first_keys: Notify,
    /// The key sets of the issuers opened last, newest first.
    sets: Mutex<Vec<Weak<CachedKeySet>>>,
    /// The number of purges, to notice one that happens while an issuer is opened.
    purges: AtomicU64,
}

/// The reason why a call does not start to open the issuer.
enum NotStarted {
    /// There is a result already.
    Finished(Result<(), AuthError>),
    /// The budget is exhausted.
    OverBudget,
}

/// A cached refusal to open an issuer.
#[derive(Debug, Clone)]
struct Refusal {
    error: AuthError,
    until: Duration,
}

impl IssuerTemplate {
    pub(super) fn new(
        mut template: IssuerConfig,
        resolver: Option<Arc<dyn TenantIssuers>>,
        factory: Arc<IssuerFactory>,
    ) -> Result<Self, ConfigError> {
        template.has_resolver |= resolver.is_some();
        if !template.is_per_tenant() {
            let problem = format!("must have {TENANT_PLACEHOLDER} where the tenant's id stands");
            return Err(ConfigError::one(Fault::new("issuer", problem)));
        }
        factory.check(&template)?;
        let pattern = Arc::from(template.expected());
        let quota = Arc::new(Quota::default());
        let common_keys = match (&resolver, has_common_keys(&template)) {
            (None, true) => {
                let keys =
                    factory.keys(&pattern, pattern.clone(), &template, Some(quota.clone()))?;
                Some(Arc::new(keys))
            }
            _ => None,
        };
        Ok(Self {
            rules: Arc::new(factory.rules(template)),
            pattern,
            resolver: resolver.unwrap_or_else(|| Arc::new(ByTemplate)),
            outage: Outage::default(),
            quota,
            common_keys,
            open_issuers: bounded(MAX_OPEN),
            known: bounded(MAX_KNOWN),
            opening: SingleFlight::default(),
            slots: Semaphore::new(MAX_OPENING),
            slots_of_known: Semaphore::new(MAX_OPENING),
            refused: bounded(MAX_OPEN),
            purges: AtomicU64::new(0),
            budget: Mutex::default(),
            queue: Semaphore::new(MAX_QUEUE),
            first_keys: Notify::new(),
            sets: Mutex::default(),
            factory,
        })
    }

    /// Returns the template's `iss`, with `{tenant_id}` in it.
    pub(super) fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Returns the rules for tokens of all tenants.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns `iss` of the tenant's tokens.
    pub(crate) fn name_of(&self, tenant: &TenantId) -> String {
        expand(self.pattern(), tenant)
    }

    /// Returns the tenant in `iss`, if `iss` matches the template and the id is safe in a URL.
    pub(super) fn tenant_in(&self, iss: &str) -> Option<TenantId> {
        let (before, after) = self.pattern().split_once(TENANT_PLACEHOLDER)?;
        let id = iss.strip_prefix(before)?.strip_suffix(after)?;
        if fits_url(id) { TenantId::new(id).ok() } else { None }
    }

    /// Returns the tenant's issuer, if it is open or need not be opened. An issuer with dead keys may have
    /// moved, and must be opened again.
    pub(super) fn get(self: &Arc<Self>, tenant: &TenantId) -> Option<Arc<Issuer>> {
        let open = self.open_issuers.get(tenant);
        match &self.common_keys {
            None => open.filter(|issuer| !issuer.keys.is_dead()),
            Some(keys) => Some(open.unwrap_or_else(|| {
                Arc::new(Issuer {
                    name: self.name_of(tenant).into(),
                    rules: self.rules.clone(),
                    template_rules: None,
                    keys: keys.clone(),
                    tenant: Some(tenant.clone()),
                    cache_in: Some(self.clone()),
                })
            })),
        }
    }

    /// Adds an issuer to the open ones.
    pub(super) fn insert(&self, issuer: &Issuer) {
        if let Some(tenant) = &issuer.tenant {
            let issuer = Issuer { cache_in: None, ..issuer.clone() };
            self.open_issuers.insert(tenant.clone(), Arc::new(issuer));
        }
    }

    pub(super) fn open_issuers(&self) -> Vec<Arc<Issuer>> {
        self.open_issuers.iter().map(|(_, issuer)| issuer).collect()
    }

    /// Discards the keys of the issuer `name`, even if it is being opened.
    pub(super) fn purge(&self, name: &str) {
        self.purges.fetch_add(1, Ordering::SeqCst);
        let open = self.open_issuers();
        open.iter().filter(|issuer| *issuer.name == *name).for_each(|it| it.keys.purge());
        if let (Some(keys), Some(_)) = (&self.common_keys, self.tenant_in(name)) {
            keys.purge();
        }
    }

    /// Returns whether a key of another tenant of this provider made the signature, so that the tenant is not
    /// invented. The token is still not verified: only the tenant's own issuer can decide whether the key is
    /// valid for the tenant. Tries no key if the result would not matter, and at most [`MAX_CANDIDATES`] keys
    /// in all sets together.
    pub(crate) fn vouches(
        &self,
        tenant: &TenantId,
        query: &KeyQuery<'_>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        if self.refusal(tenant).is_some() || self.knows(tenant).is_some() {
            return false;
        }
        let sets: Vec<_> = self.sets().iter().filter_map(Weak::upgrade).collect();
        let mut tries = MAX_CANDIDATES;
        sets.iter().any(|set| set.has_signed(query, algorithm, message, signature, &mut tries))
    }

    /// Returns whether the tenant exists, if that is known without waiting.
    fn knows(&self, tenant: &TenantId) -> Option<bool> {
        self.resolver.knows(tenant).or_else(|| {
            let listed = &self.rules.config.tenants;
            (listed.contains(tenant) || self.known.get(tenant).is_some()).then_some(true)
        })
    }

    /// Returns the cached error of a recent attempt to open the tenant's issuer.
    fn refusal(&self, tenant: &TenantId) -> Option<AuthError> {
        let now = self.now();
        Some(self.refused.get(tenant).filter(|refusal| now < refusal.until)?.error)
    }

    /// Opens the tenant's issuer, once for all waiting requests. `is_vouched` is the result of
    /// [`vouches`](Self::vouches), which is false while there is no key set to try. If the first key set
    /// arrives while the call waits for the budget, `check_again` computes the result again.
    pub(crate) async fn open(
        self: &Arc<Self>,
        tenant: TenantId,
        is_vouched: bool,
        check_again: impl Fn() -> bool,
    ) -> Result<(), AuthError> {
        let wait = self.rules.config.jwks.wait;
        // At most half of `wait` for the budget. Opening the issuer may then take another `wait`.
        let started =
            clock::with_timeout(wait / 2, self.start_open(tenant, is_vouched, check_again));
        let waiter = match started.await {
            Some(Ok(waiter)) => waiter,
            Some(Err(NotStarted::Finished(result))) => return result,
            Some(Err(NotStarted::OverBudget)) | None => {
                return Err(unavailable("there are too many new tenants at the same time"));
            }
        };
        match clock::with_timeout(wait, waiter.wait()).await {
            Some(Some(outcome)) => outcome,
            Some(None) => Err(unavailable("the fetch of the tenant's keys was interrupted")),
            None => Err(unavailable("the tenant's keys were not fetched in time")),
        }
    }

    /// Starts to open the issuer, or joins a request that does. Waits in the queue while the budget is
    /// exhausted.
    async fn start_open(
        self: &Arc<Self>,
        tenant: TenantId,
        mut is_vouched: bool,
        check_again: impl Fn() -> bool,
    ) -> Result<Waiter<Result<(), AuthError>>, NotStarted> {
        let (mut queue_permit, mut has_checked) = (None, is_vouched);
        loop {
            // Created before the check, so that no notification is missed in between.
            let first_keys = self.first_keys.notified();
            let (template, id) = (self.clone(), tenant.clone());
            let work = move || async move { template.open_in_slot(id, is_vouched).await };
            let permit = || self.permit(&tenant, is_vouched);
            match self.opening.run_if(tenant.clone(), permit, work) {
                Err(NotStarted::OverBudget) => {}
                other => return other,
            }
            if !has_checked && !self.sets().is_empty() {
                (has_checked, is_vouched) = (true, check_again());
                continue;
            }
            if queue_permit.is_none() {
                let permit = self.queue.try_acquire();
                queue_permit = Some(permit.map_err(|_| NotStarted::OverBudget)?);
            }
            clock::with_timeout(Rate::OPENING.period, first_keys).await;
        }
    }

    /// Decides whether the tenant's issuer may be opened now.
    fn permit(self: &Arc<Self>, tenant: &TenantId, is_vouched: bool) -> Result<(), NotStarted> {
        if self.get(tenant).is_some() {
            return Err(NotStarted::Finished(Ok(())));
        }
        if let Some(error) = self.refusal(tenant) {
            return Err(NotStarted::Finished(Err(error)));
        }
        let is_known = match self.knows(tenant) {
            Some(false) => return Err(NotStarted::Finished(Err(InvalidToken::Issuer.into()))),
            Some(true) => true,
            None => is_vouched,
        };
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        match is_known || budget.take(Rate::OPENING, self.now()).is_ok() {
            true => Ok(()),
            false => Err(NotStarted::OverBudget),
        }
    }

    fn now(&self) -> Duration {
        self.factory.key_sets.clock.elapsed()
    }

    fn sets(&self) -> std::sync::MutexGuard<'_, Vec<Weak<CachedKeySet>>> {
        // A panic cannot leave the list half written: each change keeps it a valid list.
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the key set of an opened issuer to those that may vouch.
    fn add_set(&self, set: &Arc<CachedKeySet>) {
        let mut sets = self.sets();
        if sets.first().is_some_and(|first| std::ptr::eq(first.as_ptr(), Arc::as_ptr(set))) {
            return;
        }
        sets.retain(|other| {
            other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), Arc::as_ptr(set))
        });
        if sets.is_empty() {
            self.first_keys.notify_waiters();
        }
        sets.insert(0, Arc::downgrade(set));
        sets.truncate(MAX_VOUCHING);
    }

    /// Opens the issuer when a slot is free, and caches a failure.
    async fn open_in_slot(&self, tenant: TenantId, is_vouched: bool) -> Result<(), AuthError> {
        let is_known = is_vouched || self.knows(&tenant) == Some(true);
        let slots = if is_known { &self.slots_of_known } else { &self.slots };
        let slot = slots.acquire().await;
        let result = self.resolve_and_open(&tenant).await;
        drop(slot);
        if let Err(error) = &result {
            let pause = error.retry_after().unwrap_or(UNKNOWN_TTL);
            let until = self.now() + pause;
            self.refused.insert(tenant, Refusal { error: error.clone(), until });
        }
        result
    }

    /// Calls the resolver. Logs when it begins to fail, and when it answers again.
    async fn resolve(&self, tenant: &TenantId) -> Result<Option<IssuerConfig>, AuthError> {
        let answer = self.resolver.resolve(tenant, self.rules.config.clone());
        let answer = clock::with_timeout(RESOLVE_TIMEOUT, answer).await;
        let answer =
            answer.unwrap_or_else(|| Err("the tenant's issuer was not resolved in time".into()));
        let now = || self.now();
        match &answer {
            Err(why) if self.outage.record_failure(&Causes(why.as_ref()), now()) => {
                telemetry::resolver_failed(&self.pattern, why.as_ref());
            }
            Ok(_) if self.outage.record_success(now) => {
                telemetry::resolver_recovered(&self.pattern)
            }
            _ => {}
        }
        answer.map_err(unavailable)
    }

    async fn resolve_and_open(&self, tenant: &TenantId) -> Result<(), AuthError> {
        let mut config = self.resolve(tenant).await?.ok_or(InvalidToken::Issuer)?;
        if let Some(field) = config.field_with_server_by_tenant() {
            let problem = "has {tenant_id} before its path: the resolver must name the host";
            return Err(unavailable(format!("{field} {problem}")));
        }
        if !config.has_only_keys_of(&self.rules.config) {
            let problem = "the resolver must not add decryption keys: give them to the template, because the tenant of a token is known only after decryption";
            return Err(unavailable(problem));
        }
        let name: Arc<str> = self.name_of(tenant).into();
        config.expected_issuer = Some(name.to_string());
        config.issuer = expand(&config.issuer, tenant);
        for url in [&mut config.discovery_url, &mut config.jwks_uri].into_iter().flatten() {
            *url = expand(url, tenant);
        }
        self.factory.check(&config).map_err(unavailable)?;
        let keys =
            self.factory.keys(&name, self.pattern.clone(), &config, Some(self.quota.clone()));
        let keys = Arc::new(keys.map_err(unavailable)?);
        let purges = self.purges.load(Ordering::SeqCst);
        keys.wait_until_usable(false).await?;
        keys.set().iter().for_each(|set| self.add_set(set));
        let (rules, template_rules) = self.rules_of(config);
        let own = Some(tenant.clone());
        let issuer =
            Arc::new(Issuer { name, rules, template_rules, keys, tenant: own, cache_in: None });
        self.open_issuers.insert(tenant.clone(), issuer.clone());
        self.known.insert(tenant.clone(), ());
        // A concurrent purge may not have seen this issuer.
        if self.purges.load(Ordering::SeqCst) != purges {
            issuer.keys.purge();
        }
        Ok(())
    }

    /// Returns the rules for tokens of the tenant, and those of the template if they differ. Usually the tenants
    /// share the template's rules.
    fn rules_of(&self, mut config: IssuerConfig) -> (Arc<Rules>, Option<Arc<Rules>>) {
        let template = &self.rules.config;
        config.issuer.clone_from(&template.issuer);
        config.expected_issuer.clone_from(&template.expected_issuer);
        config.discovery_url.clone_from(&template.discovery_url);
        config.jwks_uri.clone_from(&template.jwks_uri);
        match config == *template {
            true => (self.rules.clone(), None),
            false => (Arc::new(self.factory.rules(config)), Some(self.rules.clone())),
        }
    }
}

/// Returns whether all tenants have the same keys: inline, or at a fixed URL.
fn has_common_keys(template: &IssuerConfig) -> bool {
    let url = template.jwks_uri.as_ref();
    let is_local = template.inline_keys.is_some() || template.keys_file.is_some();
    is_local || url.is_some_and(|url| !url.contains(TENANT_PLACEHOLDER))
}

fn unavailable(why: impl Into<BoxError>) -> AuthError {
    AuthError::unavailable("issuer", None, why)
}

/// The resolver of a template without one. It returns the template, into whose URLs the caller inserts the
/// tenant's id.
#[derive(Debug)]
struct ByTemplate;

#[async_trait]
impl TenantIssuers for ByTemplate {
    async fn resolve(
        &self,
        _: &TenantId,
        template: IssuerConfig,
    ) -> Result<Option<IssuerConfig>, BoxError> {
        Ok(Some(template))
    }
}

fn expand(template: &str, tenant: &TenantId) -> String {
    template.replace(TENANT_PLACEHOLDER, tenant.as_str())
}

#[cfg(feature = "testing")]
#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::jwk::CertificateHash;
    use super::super::{Generation, KeySets};
    use super::*;
    use crate::config::JwksSettings;
    use crate::testing::SigningKey;

    /// A resolver that returns the second key set for tenants whose id begins with `b`, and the first one for
    /// others. It knows tenants whose id begins with `k`.
    #[derive(Debug)]
    struct TwoKeySets([String; 2]);

    #[async_trait]
    impl TenantIssuers for TwoKeySets {
        async fn resolve(
            &self,
            tenant: &TenantId,
            template: IssuerConfig,
        ) -> Result<Option<IssuerConfig>, BoxError> {
            let keys = &self.0[usize::from(tenant.as_str().starts_with('b'))];
            Ok(Some(template.keys(keys)))
        }

        fn knows(&self, tenant: &TenantId) -> Option<bool> {
            tenant.as_str().starts_with('k').then_some(true)
        }
    }

    fn id(id: &str) -> TenantId {
        TenantId::new(id).unwrap()
    }

    fn template(sets: [&[SigningKey]; 2]) -> Arc<IssuerTemplate> {
        let set = |keys: &[SigningKey]| {
            json!({ "keys": keys.iter().map(SigningKey::jwk).collect::<Vec<_>>() }).to_string()
        };
        let factory = IssuerFactory {
            key_sets: Arc::new(KeySets::default()),
            audience: vec!["scaiwave".to_owned()],
            generation: Generation::default(),
            needs_no_tenant_list: true,
        };
        let mut template = IssuerConfig::new("https://scaikey.example/tenants/{tenant_id}");
        // Long enough for every request that gets a slot.
        template.jwks.wait = Duration::from_secs(60);
        let resolver = Arc::new(TwoKeySets(sets.map(set)));
        Arc::new(IssuerTemplate::new(template, Some(resolver), Arc::new(factory)).unwrap())
    }

    fn keys(count: usize) -> Vec<SigningKey> {
        (0..count).map(|_| SigningKey::generate(Algorithm::ES256)).collect()
    }

    #[tokio::test]
    async fn known_tenants_never_wait_behind_invented_ones() {
        let one = keys(1);
        let template = template([&one, &one]);
        let _taken = template.slots.acquire_many(MAX_OPENING as u32).await.unwrap();
        template.known.insert(id("opened"), ());
        for (tenant, is_vouched) in [("known", false), ("vouched", true), ("opened", false)] {
            template.open(id(tenant), is_vouched, || false).await.expect(tenant);
        }
    }

    #[tokio::test]
    async fn vouching_tries_eight_keys_for_all_sets() {
        let (first, second) = (keys(MAX_CANDIDATES), keys(MAX_CANDIDATES));
        let template = template([&first, &second]);
        for tenant in ["a", "b"] {
            template.resolve_and_open(&id(tenant)).await.unwrap();
        }
        let vouches = |tenant: &str, key: &SigningKey, is_named: bool| {
            let name = template.name_of(&id(tenant));
            let query = KeyQuery {
                kid: is_named.then_some(key.kid()),
                certificate: &CertificateHash::default(),
                issuer: &name,
                now: std::time::SystemTime::now(),
                leeway: JwksSettings::default().cooldown,
            };
            template.vouches(&id(tenant), &query, Algorithm::ES256, b"text", &key.sign(b"text"))
        };
        assert!(vouches("new", &second[7], false));
        assert!(!vouches("new", &first[0], false), "it would be the ninth");
        assert!(vouches("new", &first[0], true));
        assert!(!vouches("new", &keys(1)[0], true));
        // For these tenants the result would not matter.
        let until = template.now() + Duration::from_secs(3600);
        let refusal = Refusal { error: InvalidToken::Issuer.into(), until };
        template.refused.insert(id("refused"), refusal);
        for tenant in ["refused", "known", "a"] {
            assert!(!vouches(tenant, &second[0], true), "{tenant}");
        }
    }
}
