//! [`KeySets`]: the key sets in use, by their URL.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::http::Http;
use super::keys::Keys;
use super::source::Source;
use crate::clock::{Clock, SystemClock};
use crate::config::{Algorithm, JwksSettings, TENANT_PLACEHOLDER};
use crate::support::telemetry::Outage;

/// What tells two key sets apart: where they are and who may see them there, which of their keys
/// are used, and how they are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KeySetId {
    pub(crate) source: Source,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) settings: JwksSettings,
}

/// The key sets in use. Issuers that name the same URL share one set: it is fetched once, and held
/// once, for all of them. A set goes when the last issuer that names it does.
#[derive(Debug)]
pub(crate) struct KeySets {
    pub(super) http: Arc<Http>,
    pub(crate) clock: Arc<dyn Clock>,
    sets: Mutex<Sets>,
    /// What the log was told of those of a template's tenants that never worked.
    outages: Mutex<Outages>,
}

/// By what never came, and the template.
type Outages = HashMap<(&'static str, Box<str>), Arc<Outage>>;

#[derive(Debug, Default)]
struct Sets {
    by_id: HashMap<KeySetId, Weak<Keys>>,
    /// How many there were when those that are gone were last cleared away.
    after_clearing: usize,
}

impl Default for KeySets {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::default()))
    }
}

impl KeySets {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let (http, sets, outages) = (Arc::default(), Mutex::default(), Mutex::default());
        Self { http, clock, sets, outages }
    }

    /// What the log was told of tenants of this template whose keys, or metadata, never came. Anybody
    /// can invent tenants: one warning for each would fill the log. `None`: this is no template.
    pub(crate) fn outage_of_template(
        &self,
        what: &'static str,
        series: &str,
    ) -> Option<Arc<Outage>> {
        if !series.contains(TENANT_PLACEHOLDER) {
            return None;
        }
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        Some(outages.entry((what, series.into())).or_default().clone())
    }

    /// The set that `id` names, which begins empty. Metrics count it under the `series` of the
    /// issuer that named it first.
    pub(crate) fn get(&self, id: KeySetId, series: &str) -> Arc<Keys> {
        // Only whole entries are written, so a panic cannot leave the map half done.
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = sets.by_id.get(&id).and_then(Weak::upgrade) {
            return keys;
        }
        // Now and then, so that it costs each new set next to nothing.
        if sets.by_id.len() > 2 * sets.after_clearing + 16 {
            sets.by_id.retain(|_, keys| keys.strong_count() > 0);
            sets.after_clearing = sets.by_id.len();
        }
        let keys = Arc::new(Keys::new(id.clone(), series, self));
        sets.by_id.insert(id, Arc::downgrade(&keys));
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyAccess;

    fn id(url: &str, algorithms: &[Algorithm]) -> KeySetId {
        KeySetId {
            source: Source::at(url.parse().unwrap(), KeyAccess::default()),
            algorithms: algorithms.to_vec(),
            settings: JwksSettings::default(),
        }
    }

    #[test]
    fn one_id_has_one_set_while_it_is_used() {
        let sets = KeySets::default();
        let get = |url: &str, algorithm| sets.get(id(url, &[algorithm]), "issuer");
        let one = get("https://a.example/keys", Algorithm::ES256);
        assert!(Arc::ptr_eq(&one, &get("https://a.example/keys", Algorithm::ES256)));
        assert!(!Arc::ptr_eq(&one, &get("https://a.example/keys", Algorithm::RS256)));
        assert!(!Arc::ptr_eq(&one, &get("https://a.example/other", Algorithm::ES256)));
    }

    #[test]
    fn sets_that_nobody_uses_are_cleared_away() {
        let sets = KeySets::default();
        for nth in 0..1000 {
            drop(sets.get(id(&format!("https://a.example/{nth}"), &[]), "issuer"));
        }
        let held = sets.sets.lock().unwrap().by_id.len();
        assert!(held < 50, "{held}");
    }
}
