//! Records the metrics of one thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};

/// A recorder of counter and gauge values by name and labels, and of the names of all histograms. A
/// test installs it as the recorder of its thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetricsRecorder {
    /// Zero for series that are no counters.
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    gauges: Arc<Mutex<BTreeMap<String, f64>>>,
}

struct Series(MetricsRecorder, String);

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        *self.0.counts.lock().unwrap().get_mut(&self.1).unwrap() += value;
    }

    fn absolute(&self, _: u64) {}
}

impl Series {
    fn set_gauge(&self, change: impl FnOnce(f64) -> f64) {
        let mut gauges = self.0.gauges.lock().unwrap();
        let value = gauges.entry(self.1.clone()).or_default();
        *value = change(*value);
    }
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        self.set_gauge(|before| before + value);
    }

    fn decrement(&self, value: f64) {
        self.set_gauge(|before| before - value);
    }

    fn set(&self, value: f64) {
        self.set_gauge(|_| value);
    }
}

impl MetricsRecorder {
    /// Returns the sum of the counters whose name and labels contain all these parts.
    pub(crate) fn sum_of(&self, parts: &[&str]) -> u64 {
        let counts = self.counts.lock().unwrap();
        let has = |name: &str| parts.iter().all(|part| name.contains(part));
        counts.iter().filter(|(name, _)| has(name)).map(|(_, count)| count).sum()
    }

    /// Returns the value of the gauge whose name and labels contain this part, if it was set.
    pub(crate) fn gauge(&self, part: &str) -> Option<f64> {
        let gauges = self.gauges.lock().unwrap();
        gauges.iter().find(|(name, _)| name.contains(part)).map(|(_, value)| *value)
    }

    /// Returns the names and labels of all series.
    pub(crate) fn series(&self) -> Vec<String> {
        self.counts.lock().unwrap().keys().cloned().collect()
    }

    fn register(&self, key: &Key) {
        self.counts.lock().unwrap().entry(key.to_string()).or_default();
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
        Gauge::from_arc(Arc::new(Series(self.clone(), key.to_string())))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.register(key);
        Histogram::noop()
    }
}
