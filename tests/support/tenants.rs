//! A clock that is moved by hand, and a store that does as it is told.

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

/// Status of the tenant the resolver finds, `None` for an unknown one.
pub(crate) async fn status(
    resolver: &dyn TenantResolver,
    tenant: &str,
) -> Result<Option<TenantStatus>, BoxError> {
    Ok(resolver.resolve(&id(tenant)).await?.map(|tenant| tenant.status()))
}

/// How a [`Store`] answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mood {
    /// As the list says.
    Well,
    /// Not until the mood changes.
    Hanging,
    /// With an error.
    Failing,
    /// With another tenant than the one asked for.
    Confused,
    /// By panicking.
    Panicking,
}

/// A list of tenants that counts questions and has moods. Clones are the same store.
#[derive(Debug, Clone)]
pub(crate) struct Store<R = MemoryTenants> {
    pub(crate) list: R,
    questions: Arc<AtomicUsize>,
    mood: watch::Sender<Mood>,
}

impl<R> Store<R> {
    pub(crate) fn over(list: R) -> Self {
        Self { list, questions: Arc::default(), mood: watch::Sender::new(Mood::Well) }
    }

    pub(crate) fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }

    pub(crate) fn be(&self, mood: Mood) {
        self.mood.send_replace(mood);
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
        self.questions.fetch_add(1, Ordering::SeqCst);
        // The list is read first, so that a hanging store answers from before it hung.
        let answer = self.list.resolve(id).await;
        let mood = *self.mood.subscribe().wait_for(|mood| *mood != Mood::Hanging).await?;
        match mood {
            Mood::Well | Mood::Hanging => answer,
            Mood::Failing => Err("on purpose".into()),
            Mood::Confused => Ok(Some(tenant("another", TenantStatus::Active))),
            Mood::Panicking => panic!("on purpose"),
        }
    }
}
