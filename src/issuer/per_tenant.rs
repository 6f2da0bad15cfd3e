//! Issuers of which there is one per tenant, opened when their first token arrives.

use std::fmt::Debug;
use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore};

use super::issuer_keys::IssuerKeys;
use super::jwk::KeyQuery;
use super::keys::{Keys, MAX_CANDIDATES};
use super::quota::Quota;
use super::{Issuer, Opener, Rules};
use crate::clock;
use crate::config::{Algorithm, ConfigError, Fault, IssuerConfig, TENANT_PLACEHOLDER, fits_url};
use crate::error::{AuthError, BoxError, InvalidToken};
use crate::identity::TenantId;
use crate::support::bounded::{Bounded, bounded};
use crate::support::retry::{Rate, TokenBucket};
use crate::support::single_flight::{SingleFlight, Waiter};
use crate::support::telemetry::{self, Causes, Outage};

/// How many tenants' issuers are kept open, and how many refusals are remembered. Those that were not
/// used again since they came make room first.
const MAX_OPEN: usize = 10_000;

/// How long a tenant without issuer is refused unasked. Until then a tenant just made is refused.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// How many tenants are remembered to have been opened once.
const MAX_REMEMBERED: usize = 5 * MAX_OPEN;

/// How many issuers are being opened at the same time; the others wait their turn. Those of known
/// tenants have as many turns of their own, so that they do not wait behind invented ones.
const MAX_OPENING: usize = 64;

/// How many requests wait for a turn that the budget does not give them yet.
const MAX_QUEUE: usize = 4096;

/// How many key sets are asked whether they know a token whose issuer is not open.
const MAX_VOUCHING: usize = 4;

/// How long the resolver may take.
const RESOLVE: Duration = Duration::from_secs(2);

/// Knows where each tenant's issuer is found, when the tenant's id alone does not tell.
///
/// ScaiKey issues `{scaikey}/tenants/{tenant_id}` and publishes the keys under the tenant's *slug*.
///
/// Harmless mistake: to fail, which is answered with 503. Attack: to answer with an issuer of
/// another tenant's keys. What `iss` says is not taken from the answer, and the tenant claimed must
/// be the one asked for.
#[async_trait]
pub trait TenantIssuers: Debug + Send + Sync + 'static {
    /// The issuer of `tenant`, starting from the template; `None` when there is no such tenant,
    /// which is believed for 10 s. `{tenant_id}` left in the answer's URLs is replaced by the id.
    ///
    /// Asked when the tenant's first token arrives, and again when its keys could not be fetched for
    /// `max_stale`. The token was judged by the template before, except for its signature: the
    /// answer may ask for more than the template does, and not for less.
    ///
    /// # Errors
    /// When it cannot be told right now.
    async fn resolve(
        &self,
        tenant: &TenantId,
        template: IssuerConfig,
    ) -> Result<Option<IssuerConfig>, BoxError>;

    /// Whether there is such a tenant, if that can be told without waiting. Default: `None`, it
    /// cannot.
    ///
    /// Anybody can invent tenants, so [`resolve`](Self::resolve) is asked for 200 of them
    /// immediately and then for 20 a second; a request beyond that waits a moment, or is answered with 503. A
    /// tenant for which this says `Some(true)` is resolved regardless, and one for which it says
    /// `Some(false)` is refused without being resolved.
    fn knows(&self, tenant: &TenantId) -> Option<bool> {
        let _ = tenant;
        None
    }
}

/// All issuers of one template.
#[derive(Debug)]
pub(crate) struct PerTenant {
    rules: Arc<Rules>,
    series: Arc<str>,
    resolver: Arc<dyn TenantIssuers>,
    /// What the log was told of the resolver.
    outage: Outage,
    opener: Arc<Opener>,
    quota: Arc<Quota>,
    /// The keys of all its tenants, where neither resolver nor metadata say which these are. Then
    /// there is nothing to open.
    common: Option<Arc<IssuerKeys>>,
    /// Those whose keys were found. An invented tenant has none, and is not kept.
    open: Bounded<TenantId, Arc<Issuer>, RandomState>,
    /// Those that were open once: they are not invented.
    opened: Bounded<TenantId, (), RandomState>,
    opening: SingleFlight<TenantId, Result<(), AuthError>>,
    turns: Semaphore,
    turns_of_known: Semaphore,
    refused: Bounded<TenantId, Refusal, RandomState>,
    /// How many may still be opened of those that may be invented: resolver and provider answer no
    /// more than this.
    budget: Mutex<TokenBucket>,
    queue: Semaphore,
    /// Told when there are keys of an issuer's, after there were none.
    first_keys: Notify,
    /// Some sets of its issuers, the latest first.
    sets: Mutex<Vec<Weak<Keys>>>,
    purges: AtomicU64,
}

/// Whether an issuer may be opened now.
enum Permit {
    No(Result<(), AuthError>),
    /// Only when the budget gives a turn.
    NotYet,
}

/// Why an issuer could not be opened, and until when that stands.
#[derive(Debug, Clone)]
struct Refusal {
    error: AuthError,
    until: Duration,
}

impl PerTenant {
    pub(super) fn new(
        mut template: IssuerConfig,
        resolver: Option<Arc<dyn TenantIssuers>>,
        opener: Arc<Opener>,
    ) -> Result<Self, ConfigError> {
        template.has_resolver |= resolver.is_some();
        if !template.is_per_tenant() {
            let problem = format!("must have {TENANT_PLACEHOLDER} where the tenant's id stands");
            return Err(ConfigError::one(Fault::new("issuer", problem)));
        }
        opener.check(&template)?;
        let series = Arc::from(template.expected());
        let quota = Arc::new(Quota::default());
        let common = match (&resolver, is_the_same_for_all(&template)) {
            (None, true) => {
                let keys = opener.keys(&series, series.clone(), &template, Some(quota.clone()))?;
                Some(Arc::new(keys))
            }
            _ => None,
        };
        Ok(Self {
            rules: Arc::new(opener.rules(template)),
            series,
            resolver: resolver.unwrap_or_else(|| Arc::new(ByTemplate)),
            outage: Outage::default(),
            quota,
            common,
            open: bounded(MAX_OPEN),
            opened: bounded(MAX_REMEMBERED),
            opening: SingleFlight::default(),
            turns: Semaphore::new(MAX_OPENING),
            turns_of_known: Semaphore::new(MAX_OPENING),
            refused: bounded(MAX_OPEN),
            purges: AtomicU64::new(0),
            budget: Mutex::default(),
            queue: Semaphore::new(MAX_QUEUE),
            first_keys: Notify::new(),
            sets: Mutex::default(),
            opener,
        })
    }

    pub(super) fn template(&self) -> &str {
        &self.series
    }

    /// What tokens of all its tenants must say.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What `iss` says in tokens of the tenant.
    pub(crate) fn name_of(&self, tenant: &TenantId) -> String {
        expand(self.template(), tenant)
    }

    /// The tenant in `iss`, if it has the template's shape and an id that is safe in a URL.
    pub(super) fn tenant_in(&self, iss: &str) -> Option<TenantId> {
        let (before, after) = self.template().split_once(TENANT_PLACEHOLDER)?;
        let id = iss.strip_prefix(before)?.strip_suffix(after)?;
        if fits_url(id) { TenantId::new(id).ok() } else { None }
    }

    /// The tenant's issuer, if it is open or nothing is needed to open it. One whose keys died may
    /// have moved: it is opened anew.
    pub(super) fn at_hand(self: &Arc<Self>, tenant: &TenantId) -> Option<Arc<Issuer>> {
        let open = self.open.get(tenant);
        match &self.common {
            None => open.filter(|issuer| !issuer.keys.is_dead()),
            Some(keys) => Some(open.unwrap_or_else(|| {
                Arc::new(Issuer {
                    name: self.name_of(tenant).into(),
                    rules: self.rules.clone(),
                    keys: keys.clone(),
                    tenant: Some(tenant.clone()),
                    keeper: Some(self.clone()),
                })
            })),
        }
    }

    /// Keeps an issuer open.
    pub(super) fn keep(&self, issuer: &Issuer) {
        if let Some(tenant) = &issuer.tenant {
            let issuer = Issuer { keeper: None, ..issuer.clone() };
            self.open.insert(tenant.clone(), Arc::new(issuer));
        }
    }

    pub(super) fn in_use(&self) -> Vec<Arc<Issuer>> {
        self.open.iter().map(|(_, issuer)| issuer).collect()
    }

    /// Forgets the keys of the issuer called `name`, also if it is being opened.
    pub(super) fn purge(&self, name: &str) {
        self.purges.fetch_add(1, Ordering::SeqCst);
        self.in_use().iter().filter(|issuer| *issuer.name == *name).for_each(|it| it.keys.purge());
        if let (Some(keys), Some(_)) = (&self.common, self.tenant_in(name)) {
            keys.purge();
        }
    }

    /// Whether a key that is published for other tenants made this signature for a token of the
    /// tenant called so. Then somebody whom the provider knows has the token, and the tenant is
    /// not invented; whether the key is the tenant's, only its issuer tells. No key is tried where
    /// its word would change nothing, and no more for all sets than for a token of an open issuer.
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
        let mut made =
            |set: &Arc<Keys>| set.has_made(query, algorithm, message, signature, &mut tries);
        sets.iter().any(&mut made)
    }

    /// Whether there is such a tenant, if that can be told by what is at hand.
    fn knows(&self, tenant: &TenantId) -> Option<bool> {
        self.resolver.knows(tenant).or_else(|| {
            let listed = &self.rules.config.tenants;
            (listed.contains(tenant) || self.opened.get(tenant).is_some()).then_some(true)
        })
    }

    /// Why the tenant's issuer could not be opened a moment ago.
    fn refusal(&self, tenant: &TenantId) -> Option<AuthError> {
        let now = self.now();
        Some(self.refused.get(tenant).filter(|refusal| now < refusal.until)?.error)
    }

    /// Opens the tenant's issuer, once for all who wait for it. `is_vouched` tells whether a
    /// signature vouches for the tenant; while it waits for its turn, the token is looked at again
    /// when the first keys come.
    pub(crate) async fn open(
        self: &Arc<Self>,
        tenant: TenantId,
        is_vouched: bool,
        look_again: impl Fn() -> bool,
    ) -> Result<(), AuthError> {
        let wait = self.rules.config.jwks.wait;
        // Half of the time, so that there is time to open it.
        let joined = clock::within(wait / 2, self.join(tenant, is_vouched, look_again)).await;
        let waiter = match joined {
            Some(Ok(waiter)) => waiter,
            Some(Err(Permit::No(answer))) => return answer,
            Some(Err(Permit::NotYet)) | None => {
                return Err(unavailable("too many tenants' issuers are being opened"));
            }
        };
        match clock::within(wait, waiter.wait()).await {
            Some(Some(outcome)) => outcome,
            Some(None) => Err(unavailable("opening the tenant's issuer died")),
            None => Err(unavailable("the tenant's issuer is still being opened")),
        }
    }

    /// Waits for a turn, where the budget gives none at once.
    async fn join(
        self: &Arc<Self>,
        tenant: TenantId,
        mut is_vouched: bool,
        look_again: impl Fn() -> bool,
    ) -> Result<Waiter<Result<(), AuthError>>, Permit> {
        let (mut place, mut has_looked) = (None, is_vouched);
        loop {
            // Before looking, so that nothing is missed in between.
            let first_keys = self.first_keys.notified();
            let (all, id) = (self.clone(), tenant.clone());
            let work = move || async move { all.find(id, is_vouched).await };
            let permit = || self.permit(&tenant, is_vouched);
            match self.opening.run_if(tenant.clone(), permit, work) {
                Err(Permit::NotYet) => {}
                other => return other,
            }
            if !has_looked && !self.sets().is_empty() {
                (has_looked, is_vouched) = (true, look_again());
                continue;
            }
            if place.is_none() {
                place = Some(self.queue.try_acquire().map_err(|_| Permit::NotYet)?);
            }
            clock::within(Rate::OPENING.period, first_keys).await;
        }
    }

    /// Whether somebody may look for the tenant's issuer now.
    fn permit(self: &Arc<Self>, tenant: &TenantId, is_vouched: bool) -> Result<(), Permit> {
        if self.at_hand(tenant).is_some() {
            return Err(Permit::No(Ok(())));
        }
        if let Some(error) = self.refusal(tenant) {
            return Err(Permit::No(Err(error)));
        }
        let is_known = match self.knows(tenant) {
            Some(false) => return Err(Permit::No(Err(InvalidToken::Issuer.into()))),
            Some(true) => true,
            None => is_vouched,
        };
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        match is_known || budget.take(Rate::OPENING, self.now()).is_ok() {
            true => Ok(()),
            false => Err(Permit::NotYet),
        }
    }

    fn now(&self) -> Duration {
        self.opener.key_sets.clock.elapsed()
    }

    fn sets(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Keys>>> {
        // Whatever a panic leaves behind is a list of sets.
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the set of an issuer that was opened.
    fn note(&self, set: &Arc<Keys>) {
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

    async fn find(&self, tenant: TenantId, is_vouched: bool) -> Result<(), AuthError> {
        let is_known = is_vouched || self.knows(&tenant) == Some(true);
        let turns = if is_known { &self.turns_of_known } else { &self.turns };
        let turn = turns.acquire().await;
        let found = self.resolve(&tenant).await;
        drop(turn);
        if let Err(error) = &found {
            let pause = error.retry_after().unwrap_or(UNKNOWN_FOR);
            let until = self.now() + pause;
            self.refused.insert(tenant, Refusal { error: error.clone(), until });
        }
        found
    }

    /// What the resolver says of the tenant. The log is told when it begins to fail, and when it
    /// answers again.
    async fn ask_resolver(&self, tenant: &TenantId) -> Result<Option<IssuerConfig>, AuthError> {
        let asked = self.resolver.resolve(tenant, self.rules.config.clone());
        let answer = clock::within(RESOLVE, asked).await;
        let answer =
            answer.unwrap_or_else(|| Err("the tenant's issuer was not resolved in time".into()));
        let now = || self.now();
        match &answer {
            Err(why) if self.outage.begins(&Causes(why.as_ref()), now()) => {
                telemetry::resolver_fails(&self.series, why.as_ref());
            }
            Ok(_) if self.outage.ends(now) => telemetry::resolver_works(&self.series),
            _ => {}
        }
        answer.map_err(unavailable)
    }

    async fn resolve(&self, tenant: &TenantId) -> Result<(), AuthError> {
        let mut config = self.ask_resolver(tenant).await?.ok_or(InvalidToken::Issuer)?;
        if let Some(field) = config.server_by_tenant() {
            let problem = "has {tenant_id} before its path: the resolver must name the host";
            return Err(unavailable(format!("{field} {problem}")));
        }
        let name: Arc<str> = self.name_of(tenant).into();
        config.expected_issuer = Some(name.to_string());
        config.issuer = expand(&config.issuer, tenant);
        for url in [&mut config.discovery_url, &mut config.jwks_uri].into_iter().flatten() {
            *url = expand(url, tenant);
        }
        self.opener.check(&config).map_err(unavailable)?;
        let keys = self.opener.keys(&name, self.series.clone(), &config, Some(self.quota.clone()));
        let keys = Arc::new(keys.map_err(unavailable)?);
        let purges = self.purges.load(Ordering::SeqCst);
        keys.obtain(false).await?;
        keys.set().iter().for_each(|set| self.note(set));
        let (rules, own) = (self.rules_of(config), Some(tenant.clone()));
        let issuer = Arc::new(Issuer { name, rules, keys, tenant: own, keeper: None });
        self.open.insert(tenant.clone(), issuer.clone());
        self.opened.insert(tenant.clone(), ());
        // A purge meanwhile did not see this issuer.
        if self.purges.load(Ordering::SeqCst) != purges {
            issuer.keys.purge();
        }
        Ok(())
    }

    /// What tokens of a tenant must say: most often the same as of all.
    fn rules_of(&self, mut config: IssuerConfig) -> Arc<Rules> {
        let template = &self.rules.config;
        config.issuer.clone_from(&template.issuer);
        config.expected_issuer.clone_from(&template.expected_issuer);
        config.discovery_url.clone_from(&template.discovery_url);
        config.jwks_uri.clone_from(&template.jwks_uri);
        match config == *template {
            true => self.rules.clone(),
            false => Arc::new(self.opener.rules(config)),
        }
    }
}

/// Whether the keys of all tenants are at one URL, or written down.
fn is_the_same_for_all(template: &IssuerConfig) -> bool {
    let url = template.jwks_uri.as_ref();
    template.inline_keys.is_some() || url.is_some_and(|url| !url.contains(TENANT_PLACEHOLDER))
}

fn unavailable(why: impl Into<BoxError>) -> AuthError {
    AuthError::unavailable("issuer", None, why)
}

/// Finds the issuer by the tenant's id in the template's URLs.
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

    /// Has the keys of tenants by their first letter; knows those whose name begins with `k`.
    #[derive(Debug)]
    struct Given([String; 2]);

    #[async_trait]
    impl TenantIssuers for Given {
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

    fn all(sets: [&[SigningKey]; 2]) -> Arc<PerTenant> {
        let set = |keys: &[SigningKey]| {
            json!({ "keys": keys.iter().map(SigningKey::jwk).collect::<Vec<_>>() }).to_string()
        };
        let opener = Opener {
            key_sets: Arc::new(KeySets::default()),
            audience: vec!["scaiwave".to_owned()],
            generation: Generation::default(),
            any_tenant: true,
        };
        let mut template = IssuerConfig::new("https://scaikey.example/tenants/{tenant_id}");
        // Nobody needs so long who has a turn.
        template.jwks.wait = Duration::from_secs(60);
        let resolver = Arc::new(Given(sets.map(set)));
        Arc::new(PerTenant::new(template, Some(resolver), Arc::new(opener)).unwrap())
    }

    fn keys(count: usize) -> Vec<SigningKey> {
        (0..count).map(|_| SigningKey::generate(Algorithm::ES256)).collect()
    }

    #[tokio::test]
    async fn known_tenants_wait_behind_no_invented_ones() {
        let one = keys(1);
        let all = all([&one, &one]);
        let _taken = all.turns.acquire_many(MAX_OPENING as u32).await.unwrap();
        all.opened.insert(id("opened"), ());
        for (tenant, is_vouched) in [("known", false), ("vouched", true), ("opened", false)] {
            all.open(id(tenant), is_vouched, || false).await.expect(tenant);
        }
    }

    #[tokio::test]
    async fn vouching_tries_eight_keys_for_all_sets() {
        let (first, second) = (keys(MAX_CANDIDATES), keys(MAX_CANDIDATES));
        let all = all([&first, &second]);
        for tenant in ["a", "b"] {
            all.resolve(&id(tenant)).await.unwrap();
        }
        let vouches = |tenant: &str, key: &SigningKey, is_named: bool| {
            let name = all.name_of(&id(tenant));
            let query = KeyQuery {
                kid: is_named.then_some(key.kid()),
                certificate: &CertificateHash::default(),
                issuer: &name,
                now: std::time::SystemTime::now(),
                leeway: JwksSettings::default().cooldown,
            };
            all.vouches(&id(tenant), &query, Algorithm::ES256, b"text", &key.sign(b"text"))
        };
        assert!(vouches("new", &second[7], false));
        assert!(!vouches("new", &first[0], false), "it would be the ninth");
        assert!(vouches("new", &first[0], true));
        assert!(!vouches("new", &keys(1)[0], true));
        // Its word would change nothing for these.
        let until = all.now() + Duration::from_secs(3600);
        let refusal = Refusal { error: InvalidToken::Issuer.into(), until };
        all.refused.insert(id("refused"), refusal);
        for tenant in ["refused", "known", "a"] {
            assert!(!vouches(tenant, &second[0], true), "{tenant}");
        }
    }
}
