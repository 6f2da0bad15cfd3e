//! A clock that is moved by hand, and a store that does as it is told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use scaikey_auth::{
    BoxError, Clock, MemoryTenants, Tenant, TenantId, TenantResolver, TenantStatus,
};
use tokio::sync::watch;

pub fn id(text: &str) -> TenantId {
    text.parse().unwrap()
}

pub fn tenant(text: &str, status: TenantStatus) -> Tenant {
    Tenant::with_row(id(text), status, ())
}

/// Status of the tenant the resolver finds, `None` for an unknown one.
pub async fn status(
    resolver: &dyn TenantResolver,
    tenant: &str,
) -> Result<Option<TenantStatus>, BoxError> {
    Ok(resolver.resolve(&id(tenant)).await?.map(|tenant| tenant.status()))
}

#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<Mutex<Duration>>);

impl ManualClock {
    pub fn advance(&self, seconds: u64) {
        *self.0.lock().unwrap() += Duration::from_secs(seconds);
    }

    pub fn shared(&self) -> Arc<dyn Clock> {
        Arc::new(self.clone())
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

/// How a [`Store`] answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
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
pub struct Store<R = MemoryTenants> {
    pub list: R,
    questions: Arc<AtomicUsize>,
    mood: watch::Sender<Mood>,
}

impl<R> Store<R> {
    pub fn over(list: R) -> Self {
        Self { list, questions: Arc::default(), mood: watch::Sender::new(Mood::Well) }
    }

    pub fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }

    pub fn be(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

impl Store {
    pub fn with(tenants: &[&str]) -> Self {
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
