//! What the metrics of one thread record.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// Counters by name and labels, and the names of all other series. A test makes it the recorder of its
/// thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

struct Series(Counts, String);

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        *self.0.0.lock().unwrap().get_mut(&self.1).unwrap() += value;
    }

    fn absolute(&self, _: u64) {}
}

impl Counts {
    /// The sum of the counters in whose names and labels are all these parts.
    pub(crate) fn of(&self, parts: &[&str]) -> u64 {
        let counts = self.0.lock().unwrap();
        let has = |name: &str| parts.iter().all(|part| name.contains(part));
        counts.iter().filter(|(name, _)| has(name)).map(|(_, count)| count).sum()
    }

    /// The names and labels of all series.
    pub(crate) fn series(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    fn note(&self, key: &Key) {
        self.0.lock().unwrap().entry(key.to_string()).or_default();
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.note(key);
        Counter::from_arc(Arc::new(Series(self.clone(), key.to_string())))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.note(key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.note(key);
        Histogram::noop()
    }
}
