//! [`SingleFlight`]: one piece of work per key, however many want its outcome.
//!
//! The work runs as a task of its own and callers only wait for it. So a caller that goes away,
//! even the one that started it, disturbs nobody; and if the work itself dies, everybody learns
//! that at once and the next caller starts anew.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

type Running<K, T> = Arc<Mutex<HashMap<K, watch::Receiver<Option<T>>>>>;

/// The work now under way, by key.
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
    /// Joins the flight for `key`, or starts one that does `work`.
    ///
    /// Outside of a tokio runtime nothing can be started, and the waiter lands with `None`.
    pub(crate) fn run<F>(&self, key: K, work: impl FnOnce() -> F) -> Waiter<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let Ok(waiter) = self.run_if(key, || Ok::<_, Infallible>(()), work);
        waiter
    }

    /// Whether somebody does the work for `key` now.
    pub(crate) fn is_running(&self, key: &K) -> bool {
        lock(&self.running).contains_key(key)
    }

    /// Joins the flight for `key`, or starts one whose work tells the outcome itself and may go on after
    /// that, while the next flight starts.
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

    /// Joins the flight for `key`, or starts one if `permit` allows it. The permit is asked while
    /// nobody else can start, so that those who come together are charged once and all get a waiter.
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
        let (publish, outcome) = watch::channel(None);
        if let Ok(runtime) = runtime {
            running.insert(key.clone(), outcome.clone());
            // A runtime that has ended drops the task right here, and dropping it takes the lock.
            drop(running);
            let entry = Entry { running: self.running.clone(), key };
            runtime.spawn(work(Leader { entry, publish }));
        }
        Ok(Waiter { outcome, is_new: true })
    }
}

/// Whoever does the work. If it is dropped before there is an outcome, those who wait learn that.
pub(crate) struct Leader<K: Eq + Hash, T> {
    entry: Entry<K, T>,
    publish: watch::Sender<Option<T>>,
}

impl<K: Eq + Hash, T> Leader<K, T> {
    pub(crate) fn publish(self, outcome: T) {
        // In this order: whoever asks from here on wants work that begins after they ask.
        drop(self.entry);
        self.publish.send_replace(Some(outcome));
    }
}

/// A place in a flight.
pub(crate) struct Waiter<T> {
    outcome: watch::Receiver<Option<T>>,
    is_new: bool,
}

impl<T: Clone> Waiter<T> {
    /// Whether the flight began with this waiter.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Waits for the outcome; `None` when the work died: it panicked, or its runtime ended.
    pub(crate) async fn wait(mut self) -> Option<T> {
        let outcome = self.outcome.wait_for(Option::is_some).await.ok()?;
        outcome.clone()
    }
}

/// Takes the flight off the list when its task ends, in whatever way.
struct Entry<K: Eq + Hash, T> {
    running: Running<K, T>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Entry<K, T> {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.key);
    }
}

/// A panic while the lock is held leaves the map whole, so poisoning carries no information.
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
        let (flights, started) = (SingleFlight::default(), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(Notify::new());
        let waiters: Vec<_> = (0..1000)
            .map(|_| {
                let (started, gate) = (started.clone(), gate.clone());
                flights.run("key", || async move {
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
        let (flights, gate) = (SingleFlight::default(), Arc::new(Notify::new()));
        let (ended, has_ended) = tokio::sync::oneshot::channel();
        let first = flights.run_with_leader("key", |leader| {
            let gate = gate.clone();
            async move {
                leader.publish(7);
                gate.notified().await;
                let _ = ended.send(());
            }
        });
        assert_eq!(first.wait().await, Some(7));
        // The next flight does not wait for what the first still does.
        assert!(!flights.is_running(&"key"));
        assert_eq!(flights.run("key", || async { 8 }).wait().await, Some(8));
        gate.notify_one();
        has_ended.await.unwrap();
        // One that gives up leaves nobody waiting.
        let waiter = flights.run_with_leader("key", |leader| async move { drop(leader) });
        assert_eq!(waiter.wait().await, None);
        assert!(!flights.is_running(&"key"));
    }

    #[tokio::test]
    async fn dropped_leader_does_not_cancel_the_work() {
        let (flights, gate) = (SingleFlight::default(), Arc::new(Notify::new()));
        let work = || {
            let gate = gate.clone();
            async move { gate.notified().await }
        };
        let leader = flights.run("key", work);
        let follower = flights.run("key", work);
        drop(leader);
        gate.notify_one();
        assert_eq!(follower.wait().await, Some(()));
    }

    #[tokio::test]
    async fn panicking_work_releases_waiters_and_restarts() {
        let flights = SingleFlight::default();
        let doomed = flights.run("key", || async { panic!("on purpose") });
        assert_eq!(doomed.wait().await, None::<u8>);
        assert_eq!(flights.run("key", || async { 7 }).wait().await, Some(7));
    }

    #[tokio::test]
    async fn only_starting_needs_a_permit() {
        let (flights, gate) = (SingleFlight::default(), Arc::new(Notify::new()));
        let refused = flights.run_if("key", || Err("no"), || async {});
        assert_eq!(refused.err(), Some("no"));
        let leader = flights.run("key", || {
            let gate = gate.clone();
            async move { gate.notified().await }
        });
        let follower = flights.run_if("key", || Err("no"), || async {}).ok().unwrap();
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
            let flights = SingleFlight::default();
            drop(flights.run("key", || async { 7 }));
            send.send(lock(&flights.running).len())
        });
        assert_eq!(done.recv_timeout(std::time::Duration::from_secs(120)), Ok(0));
    }

    #[test]
    fn missing_runtime_starts_nothing() {
        let flights = SingleFlight::default();
        drop(flights.run("key", || async { 7 }));
        assert!(lock(&flights.running).is_empty());
    }
}
