//! [`KeySets`]: the registry of key sets, by URL.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::cached_key_set::CachedKeySet;
use super::http::{Http, HttpClient};
use super::source::Source;
use crate::clock::{Clock, SystemClock};
use crate::config::{Algorithm, JwksSettings, KeySetForm, TENANT_PLACEHOLDER};
use crate::support::telemetry::Outage;

/// The identity of a key set: its source (with the files needed to fetch it), its form, the allowed algorithms,
/// and the cache settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KeySetId {
    pub(crate) source: Source,
    pub(crate) form: KeySetForm,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) settings: JwksSettings,
}

/// The registry of key sets. Issuers with the same URL share one set, which is fetched once for all of
/// them. A set is dropped with its last issuer.
#[derive(Debug)]
pub(crate) struct KeySets {
    pub(super) http: Arc<Http>,
    pub(crate) clock: Arc<dyn Clock>,
    sets: Mutex<Sets>,
    /// One outage for all tenants of a template whose keys or metadata were never fetched.
    outages: Mutex<Outages>,
}

/// The outages, by kind of document (`keys` or `metadata`) and template.
type Outages = HashMap<(&'static str, Box<str>), Arc<Outage>>;

#[derive(Debug, Default)]
struct Sets {
    by_id: HashMap<KeySetId, Weak<CachedKeySet>>,
    /// The number of entries after the last removal of dropped sets.
    count_after_sweep: usize,
}

impl Default for KeySets {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::default()))
    }
}

impl KeySets {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_client(clock, None)
    }

    /// Fetches all sets with `client`, if there is one.
    pub(crate) fn with_client(clock: Arc<dyn Clock>, client: Option<Arc<dyn HttpClient>>) -> Self {
        let (sets, outages) = (Mutex::default(), Mutex::default());
        Self { http: Arc::new(Http::new(client)), clock, sets, outages }
    }

    /// Returns the outage that all tenants of a template share for this kind of document; `None` if `label`
    /// is not a template. An attacker can invent tenants; one warning for each would fill the log.
    pub(crate) fn outage_of_template(
        &self,
        document: &'static str,
        label: &str,
    ) -> Option<Arc<Outage>> {
        if !label.contains(TENANT_PLACEHOLDER) {
            return None;
        }
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        Some(outages.entry((document, label.into())).or_default().clone())
    }

    /// Returns the set with this id. Creates it, without keys, if it does not exist. `label` is the label of
    /// a new set in logs and metrics.
    pub(crate) fn get(&self, id: KeySetId, label: &str) -> Arc<CachedKeySet> {
        // Only whole entries are written, so a panic cannot leave the map half written.
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = sets.by_id.get(&id).and_then(Weak::upgrade) {
            return set;
        }
        // The map must double before the next sweep, so a new set costs constant time on average.
        if sets.by_id.len() > 2 * sets.count_after_sweep + 16 {
            sets.by_id.retain(|_, set| set.strong_count() > 0);
            sets.count_after_sweep = sets.by_id.len();
        }
        let set = Arc::new(CachedKeySet::new(id.clone(), label, self));
        sets.by_id.insert(id, Arc::downgrade(&set));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyAccess;

    fn id(url: &str, algorithms: &[Algorithm]) -> KeySetId {
        KeySetId {
            source: Source::at(url.parse().unwrap(), KeyAccess::default()),
            form: KeySetForm::default(),
            algorithms: algorithms.to_vec(),
            settings: JwksSettings::default(),
        }
    }

    #[test]
    fn equal_ids_share_one_set() {
        let sets = KeySets::default();
        let get = |url: &str, algorithm| sets.get(id(url, &[algorithm]), "issuer");
        let one = get("https://a.example/keys", Algorithm::ES256);
        assert!(Arc::ptr_eq(&one, &get("https://a.example/keys", Algorithm::ES256)));
        assert!(!Arc::ptr_eq(&one, &get("https://a.example/keys", Algorithm::RS256)));
        assert!(!Arc::ptr_eq(&one, &get("https://a.example/other", Algorithm::ES256)));
    }

    #[test]
    fn dropped_sets_are_removed() {
        let sets = KeySets::default();
        for nth in 0..1000 {
            drop(sets.get(id(&format!("https://a.example/{nth}"), &[]), "issuer"));
        }
        let held = sets.sets.lock().unwrap().by_id.len();
        assert!(held < 50, "{held}");
    }
}
