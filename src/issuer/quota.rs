//! [`Quota`]: how often the key sets of one template may be asked for, all together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::keys::Keys;
use crate::support::retry::{Rate, TokenBucket};

/// For how long a set that was refused a fetch wants one: whoever needs it asks again, and what a
/// flood wanted ends soon after the flood.
const WISH: Duration = Duration::from_secs(5);

/// The limits that the issuers of one template share, whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Quota(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Of fetches that unknown key ids cause.
    misses: TokenBucket,
    /// Of metadata read again.
    metadata: TokenBucket,
    /// The sets that were refused a fetch, by their address.
    wanting: HashMap<usize, Wanting>,
}

#[derive(Debug)]
struct Wanting {
    keys: Weak<Keys>,
    /// When it was last fetched, as it was refused: it wants no more if it was fetched since.
    fetched_at: Duration,
    refused_at: Duration,
}

impl Quota {
    /// Whether there is anything left for unknown key ids. If not, `keys` is noted as wanting.
    pub(crate) fn has_left(&self, keys: &Arc<Keys>, now: Duration) -> bool {
        let mut state = self.state();
        let has_left = state.misses.has_one(Rate::TEMPLATE, now);
        if !has_left {
            state.note(keys, now);
        }
        has_left
    }

    /// Charges a fetch that an unknown key id causes, and says whether it is for `keys`. Where
    /// other sets have wanted one and were fetched longer ago, it is for those: they are handed
    /// out, to be fetched in its place. Of several that can be had, the last is for `keys`.
    pub(crate) fn take(
        &self,
        keys: &Arc<Keys>,
        now: Duration,
        others: &mut Vec<Arc<Keys>>,
    ) -> bool {
        let mut state = self.state();
        while state.misses.take(Rate::TEMPLATE, now).is_ok() {
            let is_for_keys = !others.is_empty() && !state.misses.has_one(Rate::TEMPLATE, now);
            let other = if is_for_keys { None } else { state.first_before(keys, now) };
            match other {
                None => {
                    state.wanting.remove(&address(keys));
                    return true;
                }
                Some(other) => others.push(other),
            }
        }
        state.note(keys, now);
        false
    }

    /// Charges a reading of metadata, where there is something left for it.
    pub(crate) fn take_metadata(&self, now: Duration) -> bool {
        self.state().metadata.take(Rate::TEMPLATE, now).is_ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic might leave behind are entries that are looked into before they are used.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, keys: &Arc<Keys>, now: Duration) {
        let (fetched_at, keys_then) = (keys.fetched_at(), Arc::downgrade(keys));
        let wanting = Wanting { keys: keys_then, fetched_at, refused_at: now };
        self.wanting.insert(address(keys), wanting);
    }

    /// Takes out the wanting set that was fetched longest ago, if that is longer than `keys`.
    fn first_before(&mut self, keys: &Arc<Keys>, now: Duration) -> Option<Arc<Keys>> {
        self.wanting.retain(|_, it| {
            now.saturating_sub(it.refused_at) < WISH
                && it.keys.upgrade().is_some_and(|keys| keys.fetched_at() == it.fetched_at)
        });
        let others = self.wanting.values().filter(|it| it.fetched_at < keys.fetched_at());
        let others = others.filter_map(|it| it.keys.upgrade());
        let first = others.filter(|it| it.has_misses_left(now)).min_by_key(|it| it.fetched_at())?;
        first.take_miss(now);
        self.wanting.remove(&address(&first));
        Some(first)
    }
}

fn address(keys: &Arc<Keys>) -> usize {
    Arc::as_ptr(keys).addr()
}
