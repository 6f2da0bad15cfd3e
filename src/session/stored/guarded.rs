//! [`GuardedStore`]: a session store whose calls end in time, and whose outages are logged.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{CHECK_TIMEOUT, Clock, with_timeout};
use crate::error::{AuthError, BoxError};
use crate::session::store::{
    SessionId, SessionLabel, SessionSelector, SessionStore, StoredSession,
};
use crate::support::telemetry::{self, Causes, Outage};

/// The name of the store in errors and logs.
const COMPONENT: &str = "session store";

/// The timeout of a removal of all sessions of a user, who may have thousands.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// A session store behind timeouts. Every error is [`AuthError::Unavailable`].
#[derive(Debug)]
pub(super) struct GuardedStore {
    store: Arc<dyn SessionStore>,
    clock: Arc<dyn Clock>,
    outage: Outage,
}

impl GuardedStore {
    pub(super) fn new(store: Arc<dyn SessionStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, outage: Outage::default() }
    }

    pub(super) async fn create(
        &self,
        session: StoredSession,
        labels: &[SessionLabel],
    ) -> Result<(), AuthError> {
        self.call(self.store.create(session, labels)).await
    }

    pub(super) async fn load(&self, id: &SessionId) -> Result<Option<StoredSession>, AuthError> {
        self.call(self.store.load(id)).await
    }

    pub(super) async fn replace(
        &self,
        session: StoredSession,
        version: u64,
    ) -> Result<bool, AuthError> {
        self.call(self.store.replace(session, version)).await
    }

    pub(super) async fn remove(&self, id: &SessionId) -> Result<bool, AuthError> {
        self.call(self.store.remove(id)).await
    }

    pub(super) async fn remove_where(&self, selector: &SessionSelector) -> Result<u64, AuthError> {
        self.call_within(REMOVAL_TIMEOUT, self.store.remove_where(selector)).await
    }

    pub(super) async fn list(
        &self,
        selector: &SessionSelector,
    ) -> Result<Vec<StoredSession>, AuthError> {
        self.call(self.store.list(selector)).await
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, AuthError> {
        self.call_within(CHECK_TIMEOUT, call).await
    }

    async fn call_within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, AuthError> {
        let late = || Err(format!("it did not answer within {limit:?}").into());
        let now = || self.clock.elapsed();
        match with_timeout(limit, call).await.unwrap_or_else(late) {
            Ok(answer) => {
                if self.outage.record_success(now) {
                    telemetry::store_recovered(COMPONENT);
                }
                Ok(answer)
            }
            Err(error) => {
                let is_new = self.outage.record_failure(&Causes(&*error), now());
                telemetry::session_store_failed(&*error, is_new);
                Err(AuthError::unavailable(COMPONENT, None, error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::sync::Notify;

    use super::*;
    use crate::clock::SystemClock;

    /// Answers no call, except that it removes sessions when told.
    #[derive(Debug, Default)]
    struct Slow(Notify);

    #[async_trait]
    impl SessionStore for Slow {
        async fn create(&self, _: StoredSession, _: &[SessionLabel]) -> Result<(), BoxError> {
            std::future::pending().await
        }
        async fn load(&self, _: &SessionId) -> Result<Option<StoredSession>, BoxError> {
            std::future::pending().await
        }
        async fn replace(&self, _: StoredSession, _: u64) -> Result<bool, BoxError> {
            std::future::pending().await
        }
        async fn remove(&self, _: &SessionId) -> Result<bool, BoxError> {
            std::future::pending().await
        }
        async fn remove_where(&self, _: &SessionSelector) -> Result<u64, BoxError> {
            self.0.notified().await;
            Ok(5000)
        }
        async fn list(&self, _: &SessionSelector) -> Result<Vec<StoredSession>, BoxError> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn removal_outlasts_other_calls() {
        let slow = Arc::new(Slow::default());
        let store = GuardedStore::new(slow.clone(), Arc::new(SystemClock::default()));
        let (selector, id) = (SessionSelector::any_of([]), SessionId::from_bytes([0; 32]));
        let (removed, ()) = tokio::join!(store.remove_where(&selector), async {
            store.load(&id).await.unwrap_err();
            slow.0.notify_one();
        });
        assert_eq!(removed.unwrap(), 5000);
    }
}
