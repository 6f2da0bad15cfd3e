//! A tenant store whose failures a test controls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use scaikey_auth::error::BoxError;
use scaikey_auth::tenant::{MemoryTenants, TenantStatus};
use scaikey_auth::{Tenant, TenantId, TenantResolver};
use tokio::sync::watch;

pub(crate) fn id(text: &str) -> TenantId {
    text.parse().unwrap()
}

pub(crate) fn tenant(text: &str, status: TenantStatus) -> Tenant {
    Tenant::with_row(id(text), status, ())
}

/// Returns the status of a tenant, `None` for an unknown tenant.
pub(crate) async fn status(
    resolver: &dyn TenantResolver,
    tenant: &str,
) -> Result<Option<TenantStatus>, BoxError> {
    Ok(resolver.resolve(&id(tenant)).await?.map(|tenant| tenant.status()))
}

/// The behaviour of a [`Store`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum StoreMode {
    /// Answers from the list.
    Normal,
    /// Does not answer until the mode changes.
    Hanging,
    /// Answers with an error.
    Failing,
    /// Answers with another tenant.
    WrongTenant,
    /// Panics.
    Panicking,
}

/// A list of tenants that counts lookups and fails on demand. Clones share their state.
#[derive(Debug, Clone)]
pub(crate) struct Store<R = MemoryTenants> {
    pub(crate) list: R,
    lookups: Arc<AtomicUsize>,
    mode: watch::Sender<StoreMode>,
}

impl<R> Store<R> {
    pub(crate) fn over(list: R) -> Self {
        Self { list, lookups: Arc::default(), mode: watch::Sender::new(StoreMode::Normal) }
    }

    pub(crate) fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }

    pub(crate) fn set_mode(&self, mode: StoreMode) {
        self.mode.send_replace(mode);
    }
}

impl Store {
    pub(crate) fn with(tenants: &[&str]) -> Self {
        Self::over(tenants.iter().map(|known| tenant(known, TenantStatus::Active)).collect())
    }
}

#[async_trait]
impl<R: TenantResolver> TenantResolver for Store<R> {
    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        // Reads the list first, so that a hanging store answers with the state before it hung.
        let answer = self.list.resolve(id).await;
        let mode = *self.mode.subscribe().wait_for(|mode| *mode != StoreMode::Hanging).await?;
        match mode {
            StoreMode::Normal | StoreMode::Hanging => answer,
            StoreMode::Failing => Err("on purpose".into()),
            StoreMode::WrongTenant => Ok(Some(tenant("another", TenantStatus::Active))),
            StoreMode::Panicking => panic!("on purpose"),
        }
    }
}
