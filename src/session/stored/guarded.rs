//! [`GuardedStore`]: a session store whose calls end in time, and whose outages are logged.

use std::future::Future;
use std::sync::Arc;

use crate::clock::{CHECK_TIMEOUT, Clock, with_timeout};
use crate::error::{AuthError, BoxError};
use crate::session::store::{
    SessionId, SessionLabel, SessionSelector, SessionStore, StoredSession,
};
use crate::support::telemetry::{self, Causes, Outage};

/// The name of the store in errors and logs.
const COMPONENT: &str = "session store";

/// A session store behind a timeout. Every error is [`AuthError::Unavailable`].
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
        self.call(self.store.remove_where(selector)).await
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
        let late = || Err(format!("it did not answer within {CHECK_TIMEOUT:?}").into());
        let now = || self.clock.elapsed();
        match with_timeout(CHECK_TIMEOUT, call).await.unwrap_or_else(late) {
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
