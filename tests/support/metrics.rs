//! Records the metrics of one thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// A recorder of counter values by name and labels, and of the names of all other series. A test
/// installs it as the recorder of its thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetricsRecorder(Arc<Mutex<BTreeMap<String, u64>>>);

struct Series(MetricsRecorder, String);

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        *self.0.0.lock().unwrap().get_mut(&self.1).unwrap() += value;
    }

    fn absolute(&self, _: u64) {}
}

impl MetricsRecorder {
    /// Returns the sum of the counters whose name and labels contain all these parts.
    pub(crate) fn sum_of(&self, parts: &[&str]) -> u64 {
        let counts = self.0.lock().unwrap();
        let has = |name: &str| parts.iter().all(|part| name.contains(part));
        counts.iter().filter(|(name, _)| has(name)).map(|(_, count)| count).sum()
    }

    /// Returns the names and labels of all series.
    pub(crate) fn series(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    fn register(&self, key: &Key) {
        self.0.lock().unwrap().entry(key.to_string()).or_default();
    }
}

impl Recorder for MetricsRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.register(key);
        Counter::from_arc(Arc::new(Series(self.clone(), key.to_string())))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.register(key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.register(key);
        Histogram::noop()
    }
}
