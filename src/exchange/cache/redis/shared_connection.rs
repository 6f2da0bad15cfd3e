//! [`SharedConnection`]: the shared connection to Redis, its probes and its backoff.
//!
//! The client library's `ConnectionManager` would keep a connection that hangs. It also has no probe,
//! and does not support clusters: see `manual/decisions.md`, "The crate manages its Redis connection itself".

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{ConnectionInfo, RedisError, RedisResult};
use tokio::task::JoinSet;

use super::super::Fence;
use super::commands::{self, Entry, MAX_VALUE};
use super::server::{self, Connection, Server};
use super::slots::{Node, Slots};
use crate::clock::{Clock, SystemClock, jittered, sleep, with_timeout};
use crate::config::{ConfigError, Fault};
use crate::support::retry::Backoff;
use crate::support::secret::{Secret, SecretFileError, read_file};
use crate::support::single_flight::{SingleFlight, Waiter};
use crate::support::telemetry::{self, Outage};

/// The time after which a connection counts as stable, which resets the failure count.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The mean delay before a [`CallMode::Required`] call tries again.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The behaviour of a call while the server fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallMode {
    /// Ends within the budget, and fails immediately during a backoff. The caller continues without the
    /// cache.
    BestEffort,
    /// Retries for the duration of the write timeout, even during a backoff. The caller cannot continue
    /// without an answer.
    Required,
}

/// The settings of a [`RedisCache`](super::RedisCache).
#[derive(Clone)]
pub(super) struct Settings {
    nodes: Vec<ConnectionInfo>,
    /// Certificate authorities in PEM that replace those of the operating system.
    roots: Option<Arc<[u8]>>,
    server: Server,
    /// The file with the URLs, which is read for each connection. While it cannot be used, `server` is.
    file: Option<PathBuf>,
    pub(super) prefix: String,
    pub(super) budget: Duration,
    pub(super) write_timeout: Duration,
    pub(super) clock: Arc<dyn Clock>,
}

impl Settings {
    pub(super) fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let urls = read_file(path).map_err(|error| unusable_file(&error))?;
        let settings = Self::new(&urls).map_err(|error| invalid_file(path, &error))?;
        Ok(Self { file: Some(path.to_owned()), ..settings })
    }

    pub(super) fn new(urls: &Secret) -> Result<Self, ConfigError> {
        let nodes = server::nodes(urls)?;
        Ok(Self {
            server: Server::new(&nodes, None)?,
            nodes,
            roots: None,
            file: None,
            prefix: "scaikey".to_owned(),
            budget: Duration::from_millis(50),
            write_timeout: Duration::from_secs(2),
            clock: Arc::new(SystemClock::default()),
        })
    }

    pub(super) fn with_roots(&self, pem: &[u8]) -> Result<Self, ConfigError> {
        let server = Server::new(&self.nodes, Some(pem))?;
        Ok(Self { server, roots: Some(pem.into()), ..self.clone() })
    }

    /// Returns the server at the URLs in the file.
    fn server_in(&self, file: &Path) -> Result<Server, ConfigError> {
        let urls = read_file(file).map_err(|error| unusable_file(&error))?;
        let server =
            server::nodes(&urls).and_then(|nodes| Server::new(&nodes, self.roots.as_deref()));
        server.map_err(|error| invalid_file(file, &error))
    }
}

/// The shared connection to one server or cluster, with its probes and backoffs.
pub(super) struct SharedConnection {
    pub(super) settings: Settings,
    active: ArcSwapOption<ActiveConnection>,
    /// The backoff of each cluster node, and of the whole server (`None`). This lock must be held while
    /// `active` is changed.
    backoffs: Mutex<HashMap<Option<Node>, BackoffState>>,
    /// The connection attempt in progress.
    connects: SingleFlight<(), Result<Arc<ActiveConnection>, CallError>>,
    /// The retry loop that [`CallMode::Required`] calls wait for.
    retrying_connects: SingleFlight<(), Result<Arc<ActiveConnection>, CallError>>,
    /// Probes of nodes that failed.
    node_probes: SingleFlight<Node, ()>,
    has_invalid_entries: AtomicBool,
    /// Logs once that the file with the URLs cannot be used.
    file_outage: Outage,
}

/// A connection that passed its probe.
struct ActiveConnection {
    connection: Connection,
    slots: Arc<Slots>,
    since: Duration,
}

/// The backoff of one node, or of the server as a whole.
#[derive(Default)]
struct BackoffState {
    failures: u32,
    /// No call is made before this time.
    until: Duration,
    last_error: Arc<str>,
}

impl BackoffState {
    fn start(&mut self, now: Duration, error: &CallError) {
        self.last_error = error.to_string().into();
        self.until = now + Backoff::STORE.wait(self.failures);
        self.failures = self.failures.saturating_add(1);
    }
}

/// The reason why a call has no answer. It contains no URL, and of the server's text only the error
/// code.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CallError {
    #[error("Redis did not answer in time")]
    Timeout,
    #[error(
        "Redis failed recently and is not called until the backoff ends; the last error was: {0}"
    )]
    BackingOff(Arc<str>),
    #[error("Redis failed: {0}")]
    Failed(Arc<str>),
}

impl From<RedisError> for CallError {
    fn from(error: RedisError) -> Self {
        let problem = match error.code() {
            Some(code) => format!("the server returned {code}"),
            None if error.is_io_error() => error.to_string(),
            None => error.category().to_owned(),
        };
        Self::Failed(problem.into())
    }
}

/// Returns whether the server has no room for a write, in memory or on its disk.
fn refuses_writes_only(error: &RedisError) -> bool {
    matches!(error.code(), Some("OOM" | "MISCONF"))
}

impl SharedConnection {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            active: ArcSwapOption::empty(),
            backoffs: Mutex::default(),
            connects: SingleFlight::default(),
            retrying_connects: SingleFlight::default(),
            node_probes: SingleFlight::default(),
            has_invalid_entries: AtomicBool::new(false),
            file_outage: Outage::default(),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.active.load().is_some()
    }

    /// Connects, unless a connection is active. Retries for the duration of the write timeout.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<(), CallError> {
        self.wait_for_connection().await.map(drop)
    }

    /// Sends a command that concerns `key`, and returns the answer. `key` determines the cluster node.
    pub(super) async fn call<T, F>(
        self: &Arc<Self>,
        mode: CallMode,
        key: &str,
        send: impl Fn(Connection) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        if mode == CallMode::BestEffort {
            return self.call_best_effort(key, send).await;
        }
        let answer = with_timeout(self.settings.write_timeout, self.call_required(key, send)).await;
        answer.unwrap_or_else(|| match self.active.load_full() {
            Some(active) => Err(self.record_failure(&active, key, CallError::Timeout)),
            None => Err(CallError::Timeout),
        })
    }

    async fn call_best_effort<T, F>(
        self: &Arc<Self>,
        key: &str,
        send: impl Fn(Connection) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let mut is_second = false;
        loop {
            let active = self.connection_for(key).await?;
            let error =
                match with_timeout(self.settings.budget, send(active.connection.clone())).await {
                    Some(Ok(answer)) => return Ok(answer),
                    Some(Err(error)) if !is_second && self.discard_stale(&active, &error) => {
                        is_second = true;
                        continue;
                    }
                    Some(Err(error)) => error.into(),
                    None => CallError::Timeout,
                };
            return Err(self.record_failure(&active, key, error));
        }
    }

    async fn call_required<T, F>(
        self: &Arc<Self>,
        key: &str,
        send: impl Fn(Connection) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        loop {
            let active = self.wait_for_connection().await?;
            match send(active.connection.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) if self.discard_stale(&active, &error) => {}
                Err(error) if error.is_connection_dropped() => {
                    self.record_failure(&active, key, error.into());
                    sleep(jittered(RETRY_DELAY, 0.5)).await;
                }
                // The server answers reads. A new connection would not, because its probe writes.
                Err(error) if refuses_writes_only(&error) => return Err(error.into()),
                Err(error) => return Err(self.record_failure(&active, key, error.into())),
            }
        }
    }

    /// Returns the active connection, if the node of `key` may be called. The first callers of a
    /// process wait for the connection. After a failure, callers fail immediately while a task connects
    /// in the background.
    async fn connection_for(
        self: &Arc<Self>,
        key: &str,
    ) -> Result<Arc<ActiveConnection>, CallError> {
        if let Some(active) = self.active.load_full() {
            return match active.slots.owner(key) {
                Some(node) => self.check_node(node, &active).map(|()| active.clone()),
                None => Ok(active),
            };
        }
        if let Some(error) = self.check_backoff(None)? {
            drop(self.start_connect());
            return Err(CallError::BackingOff(error));
        }
        match with_timeout(self.settings.write_timeout, self.start_connect().wait()).await {
            Some(Some(outcome)) => outcome,
            Some(None) => {
                self.backoffs().entry(None).or_default().start(self.now(), &aborted());
                Err(aborted())
            }
            None => {
                // The attempt continues. Count it as a failure, so that later callers do not wait.
                let mut backoffs = self.backoffs();
                let backoff = backoffs.entry(None).or_default();
                if backoff.failures == 0 {
                    backoff.failures = 1;
                    backoff.last_error = CallError::Timeout.to_string().into();
                }
                Err(CallError::Timeout)
            }
        }
    }

    /// Returns the active connection. If there is none, retries until it is established or the write
    /// timeout ends.
    async fn wait_for_connection(self: &Arc<Self>) -> Result<Arc<ActiveConnection>, CallError> {
        if let Some(active) = self.active.load_full() {
            return Ok(active);
        }
        let wait = self.retrying_connects.run((), || {
            let shared = self.clone();
            async move { shared.connect_with_retry().await }
        });
        wait.wait().await.unwrap_or_else(|| Err(aborted()))
    }

    async fn connect_with_retry(self: &Arc<Self>) -> Result<Arc<ActiveConnection>, CallError> {
        let mut last_error = CallError::Timeout;
        let attempts = async {
            loop {
                match self.start_connect().wait().await.unwrap_or_else(|| Err(aborted())) {
                    Ok(active) => return active,
                    Err(error) => last_error = error,
                }
                sleep(jittered(RETRY_DELAY, 0.5)).await;
            }
        };
        let active = with_timeout(self.settings.write_timeout, attempts).await;
        active.ok_or(last_error)
    }

    /// Checks that the server or node is not in a backoff. Returns its last error, if the last call
    /// failed.
    ///
    /// # Errors
    /// The backoff has not ended.
    fn check_backoff(&self, node: Option<&Node>) -> Result<Option<Arc<str>>, CallError> {
        let backoffs = self.backoffs();
        match backoffs.get(&node.cloned()) {
            Some(backoff) if self.now() < backoff.until => {
                Err(CallError::BackingOff(backoff.last_error.clone()))
            }
            backoff => Ok(backoff
                .filter(|backoff| backoff.failures > 0)
                .map(|backoff| backoff.last_error.clone())),
        }
    }

    /// Checks that the node may be called. If its last call failed, starts a probe in the background
    /// and returns an error.
    fn check_node(
        self: &Arc<Self>,
        node: &Node,
        active: &Arc<ActiveConnection>,
    ) -> Result<(), CallError> {
        let Some(error) = self.check_backoff(Some(node))? else { return Ok(()) };
        drop(self.node_probes.run(node.clone(), || {
            let (shared, active, node) = (self.clone(), active.clone(), node.clone());
            async move { shared.probe_node(&active, node).await }
        }));
        Err(CallError::BackingOff(error))
    }

    async fn probe_node(&self, active: &Arc<ActiveConnection>, node: Node) {
        let probe = self.probe(&active.connection, &active.slots, Some(&node));
        let outcome = with_timeout(self.settings.write_timeout, probe)
            .await
            .unwrap_or(Err(CallError::Timeout));
        let mut backoffs = self.backoffs();
        let Err(error) = outcome else {
            backoffs.remove(&Some(node));
            return;
        };
        backoffs.entry(Some(node)).or_default().start(self.now(), &error);
        let all_fail =
            active.slots.nodes().into_iter().all(|node| backoffs.contains_key(&Some(node)));
        if all_fail && self.is_current(active) {
            // The cluster may have been replaced: connect again.
            self.active.store(None);
            backoffs.clear();
            backoffs.entry(None).or_default().start(self.now(), &error);
        }
    }

    fn start_connect(self: &Arc<Self>) -> Waiter<Result<Arc<ActiveConnection>, CallError>> {
        self.connects.run((), || {
            let shared = self.clone();
            async move { shared.connect_and_probe().await }
        })
    }

    async fn connect_and_probe(self: &Arc<Self>) -> Result<Arc<ActiveConnection>, CallError> {
        if let Some(active) = self.active.load_full() {
            return Ok(active);
        }
        let limit = self.settings.write_timeout;
        let connecting = async {
            let mut connection = self.server().connect(limit).await?;
            let slots = Arc::new(connection.slots().await?);
            self.probe_any_node(&connection, &slots).await?;
            Ok((connection, slots))
        };
        let connected = with_timeout(limit, connecting).await.unwrap_or(Err(CallError::Timeout));
        let mut backoffs = self.backoffs();
        match connected {
            Ok((connection, slots)) => {
                let active = Arc::new(ActiveConnection { connection, slots, since: self.now() });
                self.active.store(Some(active.clone()));
                Ok(active)
            }
            Err(error) => {
                backoffs.entry(None).or_default().start(self.now(), &error);
                Err(error)
            }
        }
    }

    /// Returns the server to connect to. Reads the file with the URLs, if there is one.
    fn server(&self) -> Server {
        let server = self.settings.file.as_deref().map(|file| self.settings.server_in(file));
        match server {
            Some(Ok(server)) => {
                self.file_outage.record_success(|| self.now());
                server
            }
            Some(Err(error)) => {
                let is_new = self.file_outage.record_failure(&error, self.now());
                telemetry::redis_urls_not_read(&first_problem(&error), is_new);
                self.settings.server.clone()
            }
            None => self.settings.server.clone(),
        }
    }

    /// Probes all nodes at the same time and returns after the first success. A node that fails later
    /// gets its own backoff.
    async fn probe_any_node(
        self: &Arc<Self>,
        connection: &Connection,
        slots: &Arc<Slots>,
    ) -> Result<(), CallError> {
        let nodes = slots.nodes();
        if nodes.is_empty() {
            return self.probe(connection, slots, None).await;
        }
        let mut probes = JoinSet::new();
        for node in nodes {
            let (shared, connection, slots) = (self.clone(), connection.clone(), slots.clone());
            probes.spawn(async move { shared.probe(&connection, &slots, Some(&node)).await });
        }
        let mut last_error = aborted();
        while let Some(outcome) = probes.join_next().await {
            match outcome {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => last_error = error,
                Err(_) => {}
            }
        }
        Err(last_error)
    }

    /// Locks, writes, reads and deletes one value, like the calls of a cache. A PING would succeed on a
    /// server that is full, still loading, or a read-only replica, where every call would fail.
    async fn probe(
        &self,
        connection: &Connection,
        slots: &Slots,
        node: Option<&Node>,
    ) -> Result<(), CallError> {
        const LIFETIME: Duration = Duration::from_secs(1);
        let (key, fence) = self.probe_key(slots, node)?;
        commands::lock(connection.clone(), &key, &fence, LIFETIME).await?;
        commands::put(connection.clone(), &key, b"probe", LIFETIME, Some(&fence)).await?;
        let entry = commands::get(connection.clone(), &key, MAX_VALUE).await?;
        commands::unlock(connection.clone(), &key, &fence).await?;
        commands::remove(connection.clone(), &key).await?;
        match entry {
            Entry::Value(value) if value == b"probe" => Ok(()),
            _ => Err(failed("the server did not store the probe value")),
        }
    }

    /// Returns an unused key that this node owns.
    fn probe_key(&self, slots: &Slots, node: Option<&Node>) -> Result<(String, Fence), CallError> {
        const TRIES: usize = 100_000;
        for _ in 0..TRIES {
            let fence = Fence::random()
                .map_err(|_| failed("the operating system cannot supply random bytes"))?;
            let key = format!("{}:-:token:{{{}}}", self.settings.prefix, fence.as_str());
            if node.is_none() || slots.owner(&key) == node {
                return Ok((key, fence));
            }
        }
        Err(failed("a node of the cluster owns no slots"))
    }

    /// Discards a stable connection that the server has closed, and returns whether it did. Servers and
    /// proxies close idle connections, so this is not a failure. A cluster client reconnects on its
    /// own.
    fn discard_stale(&self, active: &Arc<ActiveConnection>, error: &RedisError) -> bool {
        let mut backoffs = self.backoffs();
        if !error.is_connection_dropped() || !self.is_stable(active) || !active.slots.is_empty() {
            return false;
        }
        if self.is_current(active) {
            self.active.store(None);
            backoffs.remove(&None);
        }
        true
    }

    /// Starts the backoff of the server or node, unless the connection was replaced in the meantime,
    /// and returns the error.
    fn record_failure(
        &self,
        active: &Arc<ActiveConnection>,
        key: &str,
        error: CallError,
    ) -> CallError {
        let mut backoffs = self.backoffs();
        // Many calls fail together; only the first counts.
        if !self.is_current(active) {
            return error;
        }
        let now = self.now();
        if let Some(node) = active.slots.owner(key) {
            let backoff = backoffs.entry(Some(node.clone())).or_default();
            if now >= backoff.until {
                backoff.start(now, &error);
            }
            return error;
        }
        self.active.store(None);
        let backoff = backoffs.entry(None).or_default();
        if self.is_stable(active) {
            backoff.failures = 0;
        }
        backoff.start(now, &error);
        error
    }

    fn is_current(&self, active: &Arc<ActiveConnection>) -> bool {
        self.active.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, active))
    }

    fn is_stable(&self, active: &ActiveConnection) -> bool {
        self.now().saturating_sub(active.since) >= STABLE_AFTER
    }

    pub(super) fn note_valid_entry(&self) {
        // Loading first avoids a write on each hit.
        if self.has_invalid_entries.load(Ordering::Relaxed) {
            self.has_invalid_entries.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn note_invalid_entry(&self) {
        let is_new = !self.has_invalid_entries.swap(true, Ordering::Relaxed);
        telemetry::token_cache_invalid_entry(is_new);
    }

    fn now(&self) -> Duration {
        self.settings.clock.elapsed()
    }

    /// Locks the backoffs. Poisoning is ignored, because a panic leaves the map consistent.
    fn backoffs(&self) -> MutexGuard<'_, HashMap<Option<Node>, BackoffState>> {
        self.backoffs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unusable_file(error: &SecretFileError) -> ConfigError {
    let problem = format!("names a file that cannot be used: {error}");
    ConfigError::one(Fault::new("redis_url_file", problem))
}

/// Returns the error for a file whose URLs are invalid.
fn invalid_file(path: &Path, error: &ConfigError) -> ConfigError {
    unusable_file(&SecretFileError::new(path, first_problem(error)))
}

fn first_problem(error: &ConfigError) -> String {
    error.faults().first().map(|fault| fault.problem.clone()).unwrap_or_default()
}

fn failed(problem: &str) -> CallError {
    CallError::Failed(problem.into())
}

fn aborted() -> CallError {
    failed("the connection attempt was aborted")
}
