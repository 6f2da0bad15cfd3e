//! Issuers of which there is one per tenant, opened when their first token arrives.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;

use super::{Issuer, Opener};
use crate::clock;
use crate::config::{ConfigError, Fault, IssuerConfig, TENANT_PLACEHOLDER};
use crate::error::{AuthError, BoxError, InvalidToken};
use crate::flight::Flights;
use crate::identity::TenantId;

/// How many tenants' issuers are kept open; the least used are closed first.
const MAX_OPEN: u64 = 10_000;

/// How many issuers may be opened at once, and how many per second after that. Somebody who invents
/// tenants makes the provider answer no more than this.
const OPEN_BURST: f64 = 50.0;
const OPEN_PER_SECOND: f64 = 5.0;

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
    /// The issuer of `tenant`, starting from the template; `None` when there is no such tenant.
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
    open: Cache<TenantId, Arc<Issuer>>,
    opening: Flights<TenantId, Result<(), AuthError>>,
    budget: Mutex<Budget>,
}

#[derive(Debug)]
struct Budget {
    left: f64,
    counted_at: Duration,
}

impl PerTenant {
    pub(super) fn new(
        template: IssuerConfig,
        resolver: Option<Arc<dyn TenantIssuers>>,
        opener: Arc<Opener>,
    ) -> Result<Self, ConfigError> {
        if !template.is_per_tenant() {
            let problem = format!("must have {TENANT_PLACEHOLDER} where the tenant's id stands");
            return Err(ConfigError::one(Fault::new("issuer", problem)));
        }
        opener.check(&template)?;
        Ok(Self {
            template,
            resolver: resolver.unwrap_or_else(|| Arc::new(ByTemplate)),
            open: Cache::new(MAX_OPEN),
            opening: Flights::default(),
            budget: Mutex::new(Budget { left: OPEN_BURST, counted_at: opener.clock.elapsed() }),
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

    pub(super) fn at_hand(&self, tenant: &TenantId) -> Option<Arc<Issuer>> {
        self.open.get(tenant)
    }

    pub(super) fn in_use(&self) -> Vec<Arc<Issuer>> {
        self.open.iter().map(|(_, issuer)| issuer).collect()
    }

    /// Opens the tenant's issuer, once for all who wait for it.
    pub(crate) async fn open(self: &Arc<Self>, tenant: TenantId) -> Result<(), AuthError> {
        let (all, id) = (self.clone(), tenant.clone());
        let resolve = move || async move { all.resolve(id).await };
        let seat = self.opening.board_if(tenant, || self.charge(), resolve)?;
        let lost = || AuthError::unavailable("issuer", None, "resolving the tenant's issuer died");
        seat.landed().await.unwrap_or_else(|| Err(lost()))
    }

    async fn resolve(&self, tenant: TenantId) -> Result<(), AuthError> {
        let asked = self.resolver.resolve(&tenant, self.template.clone());
        let answer = clock::within(RESOLVE, asked).await;
        let answer =
            answer.unwrap_or_else(|| Err("the tenant's issuer was not resolved in time".into()));
        let config = answer.map_err(|error| AuthError::unavailable("issuer", None, error))?;
        let mut config = config.ok_or(InvalidToken::Issuer)?;
        config.expected_issuer = Some(expand(self.template(), &tenant));
        let issuer = self.opener.open(config, Some(tenant.clone()));
        let issuer = issuer.map_err(|error| AuthError::unavailable("issuer", None, error))?;
        self.open.insert(tenant, Arc::new(issuer));
        Ok(())
    }

    fn charge(&self) -> Result<(), AuthError> {
        let now = self.opener.clock.elapsed();
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let earned = now.saturating_sub(budget.counted_at).as_secs_f64() * OPEN_PER_SECOND;
        budget.left = (budget.left + earned).min(OPEN_BURST);
        budget.counted_at = now;
        if budget.left < 1.0 {
            return Err(AuthError::Unavailable { what: "issuer", retry_after: None, source: None });
        }
        budget.left -= 1.0;
        Ok(())
    }
}

/// Finds the issuer by putting the tenant's id into the template's URLs.
#[derive(Debug)]
struct ByTemplate;

#[async_trait]
impl TenantIssuers for ByTemplate {
    async fn resolve(
        &self,
        tenant: &TenantId,
        mut template: IssuerConfig,
    ) -> Result<Option<IssuerConfig>, BoxError> {
        template.issuer = expand(&template.issuer, tenant);
        for url in [&mut template.discovery_url, &mut template.jwks_uri] {
            *url = url.as_deref().map(|url| expand(url, tenant));
        }
        Ok(Some(template))
    }
}

fn expand(template: &str, tenant: &TenantId) -> String {
    template.replace(TENANT_PLACEHOLDER, tenant.as_str())
}
