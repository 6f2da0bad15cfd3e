//! [`Quota`]: the limit that all key sets of one template share for their fetches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::cached_key_set::CachedKeySet;
use crate::support::retry::{Rate, TokenBucket};

/// The time for which a refused set stays in the queue for a fetch. A set that is still needed is requested
/// again within this time. After a flood of unknown key ids, the queue is soon empty.
const REFUSAL_TTL: Duration = Duration::from_secs(5);

/// The limits that all issuers of one template share.
#[derive(Debug, Default)]
pub(crate) struct Quota(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The budget for fetches that unknown key ids cause.
    extra_fetches: TokenBucket,
    /// The budget for fetching metadata again.
    metadata: TokenBucket,
    /// The sets whose fetch was refused, by their address.
    refused: HashMap<usize, RefusedSet>,
}

#[derive(Debug)]
struct RefusedSet {
    set: Weak<CachedKeySet>,
    /// The start of the set's last fetch at the time of the refusal. If the set was fetched again since, it
    /// leaves the queue.
    fetch_began_at: Duration,
    refused_at: Duration,
}

impl Quota {
    /// Returns whether the budget allows a fetch for an unknown key id. If it does not, adds `set` to the
    /// queue.
    pub(crate) fn has_left_or_queue(&self, set: &Arc<CachedKeySet>, now: Duration) -> bool {
        let mut state = self.state();
        let has_left = state.extra_fetches.has_one(Rate::TEMPLATE, now);
        if !has_left {
            state.enqueue(set, now);
        }
        has_left
    }

    /// Charges the budget for a fetch that an unknown key id causes. Returns whether `set` may be fetched.
    /// Queued sets that were fetched longer ago go first: they are added to `others`, and the caller fetches
    /// them. If the budget allows several fetches, the last one is for `set`.
    pub(crate) fn take(
        &self,
        set: &Arc<CachedKeySet>,
        now: Duration,
        others: &mut Vec<Arc<CachedKeySet>>,
    ) -> bool {
        let mut state = self.state();
        while state.extra_fetches.take(Rate::TEMPLATE, now).is_ok() {
            let is_last = !others.is_empty() && !state.extra_fetches.has_one(Rate::TEMPLATE, now);
            let other = if is_last { None } else { state.take_older_than(set, now) };
            match other {
                None => {
                    state.refused.remove(&address(set));
                    return true;
                }
                Some(other) => others.push(other),
            }
        }
        state.enqueue(set, now);
        false
    }

    /// Charges the budget for metadata. Returns whether the metadata may be fetched.
    pub(crate) fn take_metadata(&self, now: Duration) -> bool {
        self.state().metadata.take(Rate::TEMPLATE, now).is_ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic can leave only outdated entries, and entries are checked before use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enqueue(&mut self, set: &Arc<CachedKeySet>, now: Duration) {
        let (fetch_began_at, weak) = (set.fetch_began_at(), Arc::downgrade(set));
        let refused = RefusedSet { set: weak, fetch_began_at, refused_at: now };
        self.refused.insert(address(set), refused);
    }

    /// Removes the set that was fetched longest ago from the queue and returns it, if `set` was fetched
    /// later.
    fn take_older_than(
        &mut self,
        set: &Arc<CachedKeySet>,
        now: Duration,
    ) -> Option<Arc<CachedKeySet>> {
        self.refused.retain(|_, it| {
            now.saturating_sub(it.refused_at) < REFUSAL_TTL
                && it.set.upgrade().is_some_and(|set| set.fetch_began_at() == it.fetch_began_at)
        });
        let older = self.refused.values().filter(|it| it.fetch_began_at < set.fetch_began_at());
        let older = older.filter_map(|it| it.set.upgrade());
        let oldest =
            older.filter(|it| it.has_extra_fetch_left(now)).min_by_key(|it| it.fetch_began_at())?;
        oldest.take_extra_fetch(now);
        self.refused.remove(&address(&oldest));
        Some(oldest)
    }
}

fn address(set: &Arc<CachedKeySet>) -> usize {
    Arc::as_ptr(set).addr()
}
