//! Issuers of which there is one per tenant, opened when their first token arrives.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::budget::Budget;
use super::{Issuer, Opener};
use crate::clock;
use crate::config::{ConfigError, Fault, IssuerConfig, TENANT_PLACEHOLDER};
use crate::error::{AuthError, BoxError, InvalidToken};
use crate::flight::Flights;
use crate::identity::TenantId;

/// How many tenants' issuers are kept open, and how many refusals are remembered; what was not used
/// for longest goes first.
const MAX_OPEN: u64 = 10_000;

/// How long a tenant without issuer is refused unasked. Until then a tenant just made is refused.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// How many issuers may be opened at once, and how often one more after that. Somebody who invents
/// tenants makes resolver and provider answer no more than this; a service with a thousand tenants
/// has opened them all 40 s after a restart.
const OPEN_BURST: f64 = 200.0;
const OPEN_EVERY: Duration = Duration::from_millis(50);

/// How long the resolver may take.
const RESOLVE: Duration = Duration::from_secs(2);

/// The longest tenant id that is put into a URL, in bytes.
const MAX_TENANT: usize = 128;

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
    /// `max_stale`.
    ///
    /// # Errors
    /// When it cannot be told right now.
    async fn resolve(
        &self,
        tenant: &TenantId,
        template: IssuerConfig,
    ) -> Result<Option<IssuerConfig>, BoxError>;
}

/// All issuers of one template.
#[derive(Debug)]
pub(crate) struct PerTenant {
    template: IssuerConfig,
    resolver: Arc<dyn TenantIssuers>,
    opener: Arc<Opener>,
    /// Those whose keys were found. An invented tenant has none, and is not kept.
    open: Cache<TenantId, Arc<Issuer>>,
    opening: Flights<TenantId, Result<(), AuthError>>,
    refused: Cache<TenantId, Refusal>,
    budget: Mutex<Budget>,
    purges: AtomicU64,
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
        Ok(Self {
            template,
            resolver: resolver.unwrap_or_else(|| Arc::new(ByTemplate)),
            open: bounded(),
            opening: Flights::default(),
            refused: bounded(),
            purges: AtomicU64::new(0),
            budget: Mutex::new(Budget::new(OPEN_BURST, OPEN_EVERY, opener.clock.elapsed())),
            opener,
        })
    }

    pub(super) fn template(&self) -> &str {
        self.template.expected()
    }

    /// The tenant in `iss`, if it has the template's shape and an id that is safe in a URL.
    pub(super) fn tenant_in(&self, iss: &str) -> Option<TenantId> {
        let (before, after) = self.template().split_once(TENANT_PLACEHOLDER)?;
        let id = iss.strip_prefix(before)?.strip_suffix(after)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        let safe =
            id.len() <= MAX_TENANT && id.bytes().all(plain) && !id.bytes().all(|b| b == b'.');
        if safe { TenantId::new(id).ok() } else { None }
    }

    /// The tenant's issuer, if it is open. One whose keys died may have moved: it is opened anew.
    pub(super) fn at_hand(&self, tenant: &TenantId) -> Option<Arc<Issuer>> {
        self.open.get(tenant).filter(|issuer| !issuer.keys.is_dead())
    }

    pub(super) fn in_use(&self) -> Vec<Arc<Issuer>> {
        self.open.iter().map(|(_, issuer)| issuer).collect()
    }

    /// Forgets the keys of the issuer called `name`, also if it is being opened.
    pub(super) fn purge(&self, name: &str) {
        self.purges.fetch_add(1, Ordering::SeqCst);
        self.in_use().iter().filter(|issuer| *issuer.name == *name).for_each(|it| it.keys.purge());
    }

    /// Opens the tenant's issuer, once for all who wait for it.
    pub(crate) async fn open(self: &Arc<Self>, tenant: TenantId) -> Result<(), AuthError> {
        let (all, id) = (self.clone(), tenant.clone());
        let work = move || async move { all.find(id).await };
        let seat = match self.opening.board_if(tenant.clone(), || self.permit(&tenant), work) {
            Ok(seat) => seat,
            Err(answer) => return answer,
        };
        match clock::within(self.template.jwks.wait, seat.landed()).await {
            Some(Some(outcome)) => outcome,
            Some(None) => Err(unavailable("opening the tenant's issuer died")),
            None => Err(unavailable("the tenant's issuer is still being opened")),
        }
    }

    /// Whether somebody may look for the tenant's issuer; if not, the answer as it stands.
    fn permit(&self, tenant: &TenantId) -> Result<(), Result<(), AuthError>> {
        if self.at_hand(tenant).is_some() {
            return Err(Ok(()));
        }
        let now = self.opener.clock.elapsed();
        if let Some(refusal) = self.refused.get(tenant).filter(|refusal| now < refusal.until) {
            return Err(Err(refusal.error));
        }
        match self.budget.lock().unwrap_or_else(PoisonError::into_inner).take(now) {
            true => Ok(()),
            false => Err(Err(unavailable("too many tenants' issuers are being opened"))),
        }
    }

    async fn find(&self, tenant: TenantId) -> Result<(), AuthError> {
        let found = self.resolve(&tenant).await;
        if let Err(error) = &found {
            let pause = error.retry_after().unwrap_or(UNKNOWN_FOR);
            let until = self.opener.clock.elapsed() + pause;
            self.refused.insert(tenant, Refusal { error: error.clone(), until });
        }
        found
    }

    async fn resolve(&self, tenant: &TenantId) -> Result<(), AuthError> {
        let asked = self.resolver.resolve(tenant, self.template.clone());
        let answer = clock::within(RESOLVE, asked).await;
        let answer =
            answer.unwrap_or_else(|| Err("the tenant's issuer was not resolved in time".into()));
        let mut config = answer.map_err(unavailable)?.ok_or(InvalidToken::Issuer)?;
        if let Some(field) = config.server_by_tenant() {
            let problem = "has {tenant_id} before its path: the resolver must name the host";
            return Err(unavailable(format!("{field} {problem}")));
        }
        config.expected_issuer = Some(expand(self.template(), tenant));
        config.issuer = expand(&config.issuer, tenant);
        for url in [&mut config.discovery_url, &mut config.jwks_uri].into_iter().flatten() {
            *url = expand(url, tenant);
        }
        let issuer = self
            .opener
            .open(config, Some(tenant.clone()), Some(self.template()))
            .map_err(unavailable)?;
        let purges = self.purges.load(Ordering::SeqCst);
        issuer.keys.refresh().await?;
        let issuer = Arc::new(issuer);
        self.open.insert(tenant.clone(), issuer.clone());
        // A purge meanwhile did not see this issuer.
        if self.purges.load(Ordering::SeqCst) != purges {
            issuer.keys.purge();
        }
        Ok(())
    }
}

fn bounded<V: Clone + Send + Sync + 'static>() -> Cache<TenantId, V> {
    // The default policy turns new entries away when it is full; an issuer just opened is needed.
    Cache::builder().max_capacity(MAX_OPEN).eviction_policy(EvictionPolicy::lru()).build()
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
