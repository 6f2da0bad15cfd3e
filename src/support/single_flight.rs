//! [`SingleFlight`]: concurrent callers with the same key share one run of the work.
//!
//! The work runs as a separate task, and callers wait for its outcome. A dropped caller does not cancel the
//! work, not even the caller that started it. If the work panics, all callers get `None` immediately, and the
//! next caller starts the work again.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

type Running<K, T> = Arc<Mutex<HashMap<K, watch::Receiver<Option<T>>>>>;

/// The running work, by key.
pub(crate) struct SingleFlight<K, T> {
    running: Running<K, T>,
}

impl<K, T> Default for SingleFlight<K, T> {
    fn default() -> Self {
        Self { running: Arc::default() }
    }
}

impl<K, T> fmt::Debug for SingleFlight<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").field("running", &lock(&self.running).len()).finish()
    }
}

impl<K, T> SingleFlight<K, T>
where
    K: Eq + Hash + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the running work for `key`, or starts `work`.
    ///
    /// Outside of a tokio runtime nothing starts, and the waiter gets `None`.
    pub(crate) fn run<F>(&self, key: K, work: impl FnOnce() -> F) -> Waiter<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let Ok(waiter) = self.run_if(key, || Ok::<_, Infallible>(()), work);
        waiter
    }

    /// Returns whether work for `key` is running.
    pub(crate) fn is_running(&self, key: &K) -> bool {
        lock(&self.running).contains_key(key)
    }

    /// Joins the running work for `key`, or starts `work`, which publishes the outcome through the [`Leader`]. It
    /// may continue after that, while the next caller starts new work.
    pub(crate) fn run_with_leader<F>(
        &self,
        key: K,
        work: impl FnOnce(Leader<K, T>) -> F,
    ) -> Waiter<T>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Ok(waiter) = self.start(key, || Ok::<_, Infallible>(()), work);
        waiter
    }

    /// Joins the running work for `key`, or starts `work` if `permit` allows it. `permit` runs under the lock, so
    /// callers that arrive together need one permit between them.
    pub(crate) fn run_if<E, F>(
        &self,
        key: K,
        permit: impl FnOnce() -> Result<(), E>,
        work: impl FnOnce() -> F,
    ) -> Result<Waiter<T>, E>
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.start(key, permit, |leader| {
            let work = work();
            async move { leader.publish(work.await) }
        })
    }

    fn start<E, F>(
        &self,
        key: K,
        permit: impl FnOnce() -> Result<(), E>,
        work: impl FnOnce(Leader<K, T>) -> F,
    ) -> Result<Waiter<T>, E>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Handle::try_current();
        let mut running = lock(&self.running);
        if let Some(outcome) = running.get(&key) {
            return Ok(Waiter { outcome: outcome.clone(), is_new: false });
        }
        permit()?;
        let (sender, outcome) = watch::channel(None);
        if let Ok(runtime) = runtime {
            running.insert(key.clone(), outcome.clone());
            // Unlock first: a runtime that has shut down drops the task in `spawn`, and the drop takes the lock.
            drop(running);
            let entry = Entry { running: self.running.clone(), key };
            runtime.spawn(work(Leader { entry, sender }));
        }
        Ok(Waiter { outcome, is_new: true })
    }
}

/// The publisher of the outcome. If it is dropped without publishing, the waiters get `None`.
pub(crate) struct Leader<K: Eq + Hash, T> {
    entry: Entry<K, T>,
    sender: watch::Sender<Option<T>>,
}

impl<K: Eq + Hash, T> Leader<K, T> {
    /// Gives the outcome to all waiters.
    pub(crate) fn publish(self, outcome: T) {
        // Remove the entry first, so that a caller that arrives after this outcome starts new work.
        drop(self.entry);
        self.sender.send_replace(Some(outcome));
    }
}

/// A caller's claim to the outcome of running work.
pub(crate) struct Waiter<T> {
    outcome: watch::Receiver<Option<T>>,
    is_new: bool,
}

impl<T: Clone> Waiter<T> {
    /// Returns whether this caller started the work.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Waits for the outcome. Returns `None` if the work panicked or its runtime shut down.
    pub(crate) async fn wait(mut self) -> Option<T> {
        let outcome = self.outcome.wait_for(Option::is_some).await.ok()?;
        outcome.clone()
    }
}

/// A guard that removes the key from the map when the task ends, even by a panic.
struct Entry<K: Eq + Hash, T> {
    running: Running<K, T>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Entry<K, T> {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.key);
    }
}

/// Locks the map. Poisoning is harmless, because a panic under the lock leaves the map consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn many_callers_share_one_run() {
        let (single_flight, started) = (SingleFlight::default(), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(Notify::new());
        let waiters: Vec<_> = (0..1000)
            .map(|_| {
                let (started, gate) = (started.clone(), gate.clone());
                single_flight.run("key", || async move {
                    started.fetch_add(1, Ordering::SeqCst);
                    gate.notified().await;
                    7
                })
            })
            .collect();
        gate.notify_one();
        for waiter in waiters {
            assert_eq!(waiter.wait().await, Some(7));
        }
        assert_eq!(started.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn work_continues_after_publishing() {
        let (single_flight, gate) = (SingleFlight::default(), Arc::new(Notify::new()));
        let (ended, has_ended) = tokio::sync::oneshot::channel();
        let first = single_flight.run_with_leader("key", |leader| {
            let gate = gate.clone();
            async move {
                leader.publish(7);
                gate.notified().await;
                let _ = ended.send(());
            }
        });
        assert_eq!(first.wait().await, Some(7));
        // New work does not wait for the rest of the first.
        assert!(!single_flight.is_running(&"key"));
        assert_eq!(single_flight.run("key", || async { 8 }).wait().await, Some(8));
        gate.notify_one();
        has_ended.await.unwrap();
        // A leader dropped without an outcome releases its waiters.
        let waiter = single_flight.run_with_leader("key", |leader| async move { drop(leader) });
        assert_eq!(waiter.wait().await, None);
        assert!(!single_flight.is_running(&"key"));
    }

    #[tokio::test]
    async fn dropped_starter_does_not_cancel_the_work() {
        let (single_flight, gate) = (SingleFlight::default(), Arc::new(Notify::new()));
        let work = || {
            let gate = gate.clone();
            async move { gate.notified().await }
        };
        let starter = single_flight.run("key", work);
        let follower = single_flight.run("key", work);
        drop(starter);
        gate.notify_one();
        assert_eq!(follower.wait().await, Some(()));
    }

    #[tokio::test]
    async fn panicking_work_releases_waiters_and_restarts() {
        let single_flight = SingleFlight::default();
        let doomed = single_flight.run("key", || async { panic!("on purpose") });
        assert_eq!(doomed.wait().await, None::<u8>);
        assert_eq!(single_flight.run("key", || async { 7 }).wait().await, Some(7));
    }

    #[tokio::test]
    async fn only_starting_needs_a_permit() {
        let (single_flight, gate) = (SingleFlight::default(), Arc::new(Notify::new()));
        let refused = single_flight.run_if("key", || Err("no"), || async {});
        assert_eq!(refused.err(), Some("no"));
        let leader = single_flight.run("key", || {
            let gate = gate.clone();
            async move { gate.notified().await }
        });
        let follower = single_flight.run_if("key", || Err("no"), || async {}).ok().unwrap();
        assert!(leader.is_new() && !follower.is_new());
        gate.notify_one();
        assert_eq!(follower.wait().await, Some(()));
    }

    #[test]
    fn shut_down_runtime_does_not_deadlock() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let (send, done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _inside = handle.enter();
            let single_flight = SingleFlight::default();
            drop(single_flight.run("key", || async { 7 }));
            send.send(lock(&single_flight.running).len())
        });
        assert_eq!(done.recv_timeout(std::time::Duration::from_secs(120)), Ok(0));
    }

    #[test]
    fn missing_runtime_starts_nothing() {
        let single_flight = SingleFlight::default();
        drop(single_flight.run("key", || async { 7 }));
        assert!(lock(&single_flight.running).is_empty());
    }
}
