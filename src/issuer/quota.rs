//! [`Quota`]: the limit on fetches of all key sets of one template together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::cached_key_set::CachedKeySet;
use crate::support::retry::{Rate, TokenBucket};

/// How long a refused set stays in line for a fetch. A set that is still needed is requested again within
/// this time; requests of a flood are forgotten soon after it.
const REFUSAL_TTL: Duration = Duration::from_secs(5);

/// Limits that all issuers of one template share.
#[derive(Debug, Default)]
pub(crate) struct Quota(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The budget for fetches that unknown key ids cause.
    misses: TokenBucket,
    /// The budget for fetching metadata again.
    metadata: TokenBucket,
    /// The sets whose fetch was refused, by their address.
    refused: HashMap<usize, RefusedSet>,
}

#[derive(Debug)]
struct RefusedSet {
    set: Weak<CachedKeySet>,
    /// The set's last fetch at the time of the refusal. If it was fetched since, it leaves the line.
    fetched_at: Duration,
    refused_at: Duration,
}

impl Quota {
    /// Returns whether the budget allows a fetch for an unknown key id. If not, `set` is put in line.
    pub(crate) fn has_left(&self, set: &Arc<CachedKeySet>, now: Duration) -> bool {
        let mut state = self.state();
        let has_left = state.misses.has_one(Rate::TEMPLATE, now);
        if !has_left {
            state.put_in_line(set, now);
        }
        has_left
    }

    /// Charges the budget for a fetch that an unknown key id causes. Returns whether `set` may be fetched.
    /// Sets in line whose last fetch is older go first: they are added to `others`, and the caller fetches
    /// them. If the budget allows several fetches, the last one is for `set`.
    pub(crate) fn take(
        &self,
        set: &Arc<CachedKeySet>,
        now: Duration,
        others: &mut Vec<Arc<CachedKeySet>>,
    ) -> bool {
        let mut state = self.state();
        while state.misses.take(Rate::TEMPLATE, now).is_ok() {
            let is_last = !others.is_empty() && !state.misses.has_one(Rate::TEMPLATE, now);
            let other = if is_last { None } else { state.take_older_than(set, now) };
            match other {
                None => {
                    state.refused.remove(&address(set));
                    return true;
                }
                Some(other) => others.push(other),
            }
        }
        state.put_in_line(set, now);
        false
    }

    /// Charges the budget for metadata. Returns whether they may be fetched.
    pub(crate) fn take_metadata(&self, now: Duration) -> bool {
        self.state().metadata.take(Rate::TEMPLATE, now).is_ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic can leave only outdated entries, and entries are checked before use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put_in_line(&mut self, set: &Arc<CachedKeySet>, now: Duration) {
        let (fetched_at, weak) = (set.fetched_at(), Arc::downgrade(set));
        let refused = RefusedSet { set: weak, fetched_at, refused_at: now };
        self.refused.insert(address(set), refused);
    }

    /// Takes the set with the oldest fetch out of the line, if that fetch is older than the one of `set`.
    fn take_older_than(
        &mut self,
        set: &Arc<CachedKeySet>,
        now: Duration,
    ) -> Option<Arc<CachedKeySet>> {
        self.refused.retain(|_, it| {
            now.saturating_sub(it.refused_at) < REFUSAL_TTL
                && it.set.upgrade().is_some_and(|set| set.fetched_at() == it.fetched_at)
        });
        let older = self.refused.values().filter(|it| it.fetched_at < set.fetched_at());
        let older = older.filter_map(|it| it.set.upgrade());
        let oldest = older.filter(|it| it.has_misses_left(now)).min_by_key(|it| it.fetched_at())?;
        oldest.take_miss(now);
        self.refused.remove(&address(&oldest));
        Some(oldest)
    }
}

fn address(set: &Arc<CachedKeySet>) -> usize {
    Arc::as_ptr(set).addr()
}
