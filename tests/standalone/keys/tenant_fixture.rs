//! The fixture for tenants: a provider with tenants, and a service that resolves them in a directory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use scaikey_auth::error::BoxError;
use scaikey_auth::issuer::TenantIssuers;
use scaikey_auth::testing::{ManualClock, Provider, TestIssuer};
use scaikey_auth::{Auth, IssuerConfig, TenantId};
use tokio::sync::Semaphore;

use super::fixture::{provider, service_of_tenants, status};

pub(crate) fn template(provider: &Provider) -> IssuerConfig {
    IssuerConfig::new(format!("{}/tenants/{{tenant_id}}", provider.url())).allow_loopback_http(true)
}

/// A token of an invented tenant, signed by the provider's key.
pub(crate) fn invented(provider: &Provider, id: &str) -> String {
    let iss = format!("{}/tenants/{id}", provider.url());
    provider.token().issuer(&iss).tenant(id).sign()
}

/// A resolver that maps ids to slugs, as a service's directory does.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    base: String,
    slugs: Arc<HashMap<&'static str, &'static str>>,
    calls: Arc<AtomicU64>,
    /// Each answer takes one permit. Without permits, the directory hangs; if closed, it fails.
    pub(crate) answers: Arc<Semaphore>,
}

impl Directory {
    pub(crate) fn new(
        provider: &Provider,
        slugs: impl IntoIterator<Item = (&'static str, &'static str)>,
    ) -> Self {
        Self {
            base: provider.url(),
            slugs: Arc::new(slugs.into_iter().collect()),
            calls: Arc::default(),
            answers: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl TenantIssuers for Directory {
    async fn resolve(
        &self,
        tenant: &TenantId,
        template: IssuerConfig,
    ) -> Result<Option<IssuerConfig>, BoxError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.answers.acquire().await?.forget();
        let Some(slug) = self.slugs.get(tenant.as_str()) else { return Ok(None) };
        if *slug == "panics" {
            panic!("on purpose");
        }
        let place = format!("{}/api/v1/auth/tenants/{slug}", self.base);
        Ok(Some(template.discovery_url(format!("{place}/.well-known/openid-configuration"))))
    }
}

pub(crate) struct TenantWorld {
    pub(crate) provider: Provider,
    pub(crate) clock: ManualClock,
    pub(crate) acme: TestIssuer,
    pub(crate) globex: TestIssuer,
    pub(crate) directory: Directory,
    pub(crate) auth: Auth,
}

impl TenantWorld {
    pub(crate) async fn new() -> Self {
        Self::with(|template| template).await
    }

    /// Creates a world with a changed template.
    pub(crate) async fn with(change: impl FnOnce(IssuerConfig) -> IssuerConfig) -> Self {
        let (provider, clock) = provider().await;
        let (acme, globex) = (provider.tenant("tnt-1", "acme"), provider.tenant("tnt-2", "globex"));
        let slugs = [("tnt-1", "acme"), ("tnt-2", "globex"), ("tnt-9", "panics")];
        let directory = Directory::new(&provider, slugs);
        let template = change(template(&provider));
        let auth = service_of_tenants(template, directory.clone(), &clock);
        Self { provider, clock, acme, globex, directory, auth }
    }

    pub(crate) async fn status(&self, token: &str) -> u16 {
        status(&self.auth, token).await
    }
}
