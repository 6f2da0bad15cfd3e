//! [`Polling`]: the tasks that poll, from the first runtime to the end of the endpoints.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::super::{Endpoints, Inner};
use super::poll::Poller;
use crate::config::AuthMode;
use crate::support::telemetry;

/// The shortest time between two starts of the tasks, which end early if a handler panics.
const RESTART: Duration = Duration::from_secs(10);

/// The tasks that poll. They end with the endpoints.
#[derive(Debug, Default)]
pub(in super::super) struct Polling {
    must_start: AtomicBool,
    tasks: Mutex<Option<Tasks>>,
}

#[derive(Debug)]
struct Tasks {
    handles: Vec<AbortHandle>,
    started_at: Duration,
    state: Arc<TaskState>,
}

#[derive(Debug, Default)]
struct TaskState {
    has_polled: AtomicBool,
    is_dropped: AtomicBool,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.state.is_dropped.store(true, Ordering::Release);
        self.handles.iter().for_each(AbortHandle::abort);
        if !self.state.has_polled.load(Ordering::Acquire) {
            telemetry::polling_never_began();
        }
    }
}

/// A task. The tasks start again if one ends early, by a panic or with its runtime.
pub(super) struct Task {
    inner: Weak<Inner>,
    state: Arc<TaskState>,
}

impl Task {
    /// Records that the task runs.
    pub(super) fn polls(&self) {
        self.state.has_polled.store(true, Ordering::Release);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let inner = self.inner.upgrade();
        let inner = inner.filter(|_| !self.state.is_dropped.load(Ordering::Acquire));
        if let Some(inner) = inner {
            inner.polling.must_start.store(true, Ordering::Release);
        }
    }
}

impl Endpoints {
    /// Starts the tasks that poll, if a stream is polled. Without a tokio runtime, they start with the first request.
    pub(in super::super) fn prepare_polling(&self) {
        let Inner { polling, event_streams, auth, .. } = &*self.0;
        let is_polled = event_streams.iter().any(|stream| stream.url.is_some());
        // In development there is no provider.
        if !is_polled || auth.mode() == AuthMode::Mock {
            return;
        }
        polling.must_start.store(true, Ordering::Release);
        self.start_polling();
        if polling.must_start.load(Ordering::Acquire) {
            telemetry::polling_waits();
        }
    }

    /// Starts the tasks that poll, if they must start.
    pub(in super::super) fn start_polling(&self) {
        let Inner { polling, event_streams, auth, .. } = &*self.0;
        if !polling.must_start.load(Ordering::Acquire) {
            return;
        }
        let mut tasks = polling.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let now = auth.clock().elapsed();
        let is_early = |tasks: &Tasks| now < tasks.started_at + RESTART;
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if tasks.as_ref().is_some_and(is_early) || !polling.must_start.swap(false, Ordering::AcqRel)
        {
            return;
        }
        let state = Arc::new(TaskState::default());
        let pollers = event_streams.iter().filter_map(|stream| Poller::new(stream, &self.0));
        let spawn = |poller: Poller| {
            let task = Task { inner: Arc::downgrade(&self.0), state: state.clone() };
            runtime.spawn(poller.run(task)).abort_handle()
        };
        let handles = pollers.map(spawn).collect();
        *tasks = Some(Tasks { handles, started_at: now, state });
    }
}
