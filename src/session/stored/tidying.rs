//! Revoked sessions leave their store. This is tidiness only: each request judges its session.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{EndReason, Whose};
use crate::revocation::{Revocation, Target};
use crate::session::{Inner, Sessions};

/// The number of revocations that wait for the worker. Others are ignored.
const MAX_WAITING: usize = 1_000;

/// The revocations that a worker is to follow. They outlive the sessions, and do not own them.
#[derive(Clone)]
struct Tidying {
    sessions: Weak<Inner>,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Revocation>,
    has_worker: bool,
}

impl Sessions {
    /// Removes sessions from the store when they are revoked, and makes revocations last as long as sessions.
    pub(in crate::session) fn follow_revocations(&self) {
        let revocations = self.0.auth.revocations();
        revocations.keep_for_at_least(self.0.lifetime);
        if self.has_store() {
            let tidying = Tidying { sessions: Arc::downgrade(&self.0), queue: Arc::default() };
            revocations.subscribe(Arc::new(move |revocation| tidying.hear(revocation)));
        }
    }

    async fn tidy(&self, revocation: &Revocation) {
        let (Some(whose), Some(stored)) = (whose(revocation), self.stored()) else { return };
        let means_all = match revocation.issued_before_or_now() {
            _ if matches!(whose, Whose::ProviderSession { .. }) => true,
            None => true,
            Some(time) => self.0.auth.revocations().means_all_until_now(time),
        };
        if means_all {
            let _ = self.end_where(whose, None, EndReason::Revoked).await;
            return;
        }
        let Ok(records) = self.records(stored, whose).await else { return };
        for record in records {
            let owner = self.owner_of_record(&record);
            if owner.is_some_and(|owner| self.is_revoked_for(&owner, record.started_at))
                && matches!(stored.store.remove(&record.id).await, Ok(true))
            {
                EndReason::Revoked.count();
            }
        }
    }
}

/// Returns the sessions that a revocation means, if the store finds them by a label.
fn whose(revocation: &Revocation) -> Option<Whose<'_>> {
    let issuer = revocation.iss();
    match revocation.target() {
        // The provider's session, or another one that began in it, goes on.
        Target::Session { is_dated: true, .. } => None,
        Target::Session { id, .. } => Some(Whose::ProviderSession { issuer, session: id }),
        Target::Subject { id, tenant: None } => Some(Whose::Subject { issuer, subject: id }),
        Target::Subject { id, tenant: Some(tenant) } => {
            Some(Whose::User { issuer, subject: id, tenant: Some(tenant.as_str()) })
        }
        Target::SubjectWithoutTenant { id } => {
            Some(Whose::User { issuer, subject: id, tenant: None })
        }
        Target::Token { .. } | Target::Client { .. } | Target::Tenant(_) | Target::Issuer => None,
    }
}

impl Tidying {
    /// Takes note of a revocation, and starts the worker if there is none. Without a runtime, a later one does.
    fn hear(&self, revocation: &Revocation) {
        if self.sessions.strong_count() == 0 || whose(revocation).is_none() {
            return;
        }
        let mut queue = self.queue();
        if queue.waiting.len() < MAX_WAITING {
            queue.waiting.push_back(revocation.clone());
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !std::mem::replace(&mut queue.has_worker, true) {
            // Unlock first: a runtime that has shut down drops the worker in `spawn`, and the drop takes the lock.
            drop(queue);
            runtime.spawn(Worker { tidying: self.clone(), is_done: false }.run());
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Worker {
    tidying: Tidying,
    is_done: bool,
}

impl Worker {
    async fn run(mut self) {
        while let Some(revocation) = self.next() {
            let Some(inner) = self.tidying.sessions.upgrade() else { return };
            Sessions(inner).tidy(&revocation).await;
        }
    }

    fn next(&mut self) -> Option<Revocation> {
        let mut queue = self.tidying.queue();
        let next = queue.waiting.pop_front();
        if next.is_none() {
            queue.has_worker = false;
            drop(queue);
            self.is_done = true;
        }
        next
    }
}

/// The next revocation starts another worker, if this one panicked, or its runtime ended.
impl Drop for Worker {
    fn drop(&mut self) {
        if !self.is_done {
            self.tidying.queue().has_worker = false;
        }
    }
}
