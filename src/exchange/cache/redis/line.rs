//! [`Line`]: the connection in use, and what happens while there is none.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{ConnectionInfo, RedisError, RedisResult};
use tokio::task::JoinSet;

use super::super::Fence;
use super::commands::{self, Found, MAX_VALUE};
use super::server::{self, Link, Server};
use super::slots::{Node, Slots};
use crate::clock::{Clock, SystemClock, jittered, pause, within};
use crate::config::ConfigError;
use crate::support::retry::Backoff;
use crate::support::secret::Secret;
use crate::support::single_flight::{SingleFlight, Waiter};
use crate::support::telemetry;

/// A connection that lasted so long has made up for the failures before it.
const STEADY: Duration = Duration::from_secs(10);

/// How soon a call that must have an answer tries again.
const AGAIN: Duration = Duration::from_millis(100);

/// What matters to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// To be over soon: without an answer its caller goes on without.
    Speed,
    /// To have an answer: its caller cannot go on without. It is asked again when a connection
    /// breaks, and also while the server is left alone by others.
    Certainty,
}

/// How a [`RedisCache`](super::RedisCache) is to be.
#[derive(Clone)]
pub(super) struct Settings {
    nodes: Vec<ConnectionInfo>,
    server: Server,
    pub(super) prefix: String,
    pub(super) budget: Duration,
    pub(super) write_timeout: Duration,
    pub(super) clock: Arc<dyn Clock>,
}

impl Settings {
    pub(super) fn new(urls: &Secret) -> Result<Self, ConfigError> {
        let nodes = server::nodes(urls)?;
        Ok(Self {
            server: Server::new(&nodes, None)?,
            nodes,
            prefix: "scaikey".to_owned(),
            budget: Duration::from_millis(50),
            write_timeout: Duration::from_secs(2),
            clock: Arc::new(SystemClock::default()),
        })
    }

    pub(super) fn trusting(&self, pem: &[u8]) -> Result<Self, ConfigError> {
        Ok(Self { server: Server::new(&self.nodes, Some(pem))?, ..self.clone() })
    }
}

/// One connection to the server: kept, given up, sought anew.
pub(super) struct Line {
    pub(super) settings: Settings,
    open: ArcSwapOption<Open>,
    /// Failures of each node of a cluster, and of the whole (`None`). Whoever changes `open` holds
    /// this.
    rests: Mutex<HashMap<Option<Node>, Rest>>,
    dials: SingleFlight<(), Result<Arc<Open>, Trouble>>,
    /// The same for those that wait until there is a connection.
    waits: SingleFlight<(), Result<Arc<Open>, Trouble>>,
    /// Of nodes that failed.
    trials: SingleFlight<Node, ()>,
    finds_garbage: AtomicBool,
}

/// A connection in use.
struct Open {
    link: Link,
    slots: Arc<Slots>,
    since: Duration,
}

/// What there is to remember while nothing is in use.
#[derive(Default)]
struct Rest {
    failures: u32,
    /// Nobody tries before.
    until: Duration,
    /// What happened last.
    why: Arc<str>,
}

impl Rest {
    fn begin(&mut self, now: Duration, trouble: &Trouble) {
        self.why = trouble.to_string().into();
        self.until = now + Backoff::STORE.wait(self.failures);
        self.failures = self.failures.saturating_add(1);
    }
}

/// Why there is no answer. Says nothing of URLs, and nothing that the server may have quoted.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Trouble {
    #[error("Redis does not answer in time")]
    Slow,
    #[error("Redis failed a moment ago and is left alone: {0}")]
    Resting(Arc<str>),
    #[error("Redis failed: {0}")]
    Failed(Arc<str>),
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        let what = match error.code() {
            Some(code) => format!("it says {code}"),
            None if error.is_io_error() => error.to_string(),
            None => error.category().to_owned(),
        };
        Self::Failed(what.into())
    }
}

impl Line {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            open: ArcSwapOption::empty(),
            rests: Mutex::default(),
            dials: SingleFlight::default(),
            waits: SingleFlight::default(),
            trials: SingleFlight::default(),
            finds_garbage: AtomicBool::new(false),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.open.load().is_some()
    }

    /// Connects, unless it is connected.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<(), Trouble> {
        self.awaited_connection().await.map(drop)
    }

    /// What the server answers about this key, in the time that the need allows.
    pub(super) async fn call<T, F>(
        self: &Arc<Self>,
        need: Need,
        name: &str,
        ask: impl Fn(Link) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = RedisResult<T>>,
    {
        if need == Need::Speed {
            return self.call_soon(name, ask).await;
        }
        let asked = within(self.settings.write_timeout, self.call_surely(name, ask)).await;
        asked.unwrap_or_else(|| match self.open.load_full() {
            Some(open) => Err(self.given_up(&open, name, Trouble::Slow)),
            None => Err(Trouble::Slow),
        })
    }

    async fn call_soon<T, F>(
        self: &Arc<Self>,
        name: &str,
        ask: impl Fn(Link) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let mut is_again = false;
        loop {
            let open = self.connection(name).await?;
            let trouble = match within(self.settings.budget, ask(open.link.clone())).await {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(error)) if !is_again && self.is_stale(&open, &error) => {
                    is_again = true;
                    continue;
                }
                Some(Err(error)) => error.into(),
                None => Trouble::Slow,
            };
            return Err(self.given_up(&open, name, trouble));
        }
    }

    async fn call_surely<T, F>(
        self: &Arc<Self>,
        name: &str,
        ask: impl Fn(Link) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = RedisResult<T>>,
    {
        loop {
            let open = self.awaited_connection().await?;
            match ask(open.link.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) if self.is_stale(&open, &error) => {}
                Err(error) if error.is_connection_dropped() => {
                    self.given_up(&open, name, error.into());
                    pause(jittered(AGAIN, 0.5)).await;
                }
                Err(error) => return Err(self.given_up(&open, name, error.into())),
            }
        }
    }

    /// The connection in use. Without one, the first who come wait for it; once the server has
    /// failed, a trial goes on behind everybody's back.
    async fn connection(self: &Arc<Self>, name: &str) -> Result<Arc<Open>, Trouble> {
        if let Some(open) = self.open.load_full() {
            return match open.slots.owner(name) {
                Some(node) => self.permitted(node, &open).map(|()| open.clone()),
                None => Ok(open),
            };
        }
        if let Some(why) = self.has_failed(None)? {
            drop(self.dial());
            return Err(Trouble::Resting(why));
        }
        match within(self.settings.write_timeout, self.dial().wait()).await {
            Some(Some(outcome)) => outcome,
            Some(None) => {
                self.rests().entry(None).or_default().begin(self.now(), &died());
                Err(died())
            }
            None => {
                // It is still being dialled. Whoever comes now need not wait as long as this one.
                let mut rests = self.rests();
                let rest = rests.entry(None).or_default();
                if rest.failures == 0 {
                    (rest.failures, rest.why) = (1, Trouble::Slow.to_string().into());
                }
                Err(Trouble::Slow)
            }
        }
    }

    /// The connection in use, or the next one, for those that wait until there is one.
    async fn awaited_connection(self: &Arc<Self>) -> Result<Arc<Open>, Trouble> {
        if let Some(open) = self.open.load_full() {
            return Ok(open);
        }
        let wait = self.waits.run((), || {
            let line = self.clone();
            async move { line.dial_until_open().await }
        });
        wait.wait().await.unwrap_or_else(|| Err(died()))
    }

    async fn dial_until_open(self: &Arc<Self>) -> Result<Arc<Open>, Trouble> {
        let mut last = Trouble::Slow;
        let dialling = async {
            loop {
                match self.dial().wait().await.unwrap_or_else(|| Err(died())) {
                    Ok(open) => return open,
                    Err(trouble) => last = trouble,
                }
                pause(jittered(AGAIN, 0.5)).await;
            }
        };
        let open = within(self.settings.write_timeout, dialling).await;
        open.ok_or(last)
    }

    /// How the server or this node failed, if it did; an error while it is left alone.
    fn has_failed(&self, node: Option<&Node>) -> Result<Option<Arc<str>>, Trouble> {
        let rests = self.rests();
        match rests.get(&node.cloned()) {
            Some(rest) if self.now() < rest.until => Err(Trouble::Resting(rest.why.clone())),
            rest => Ok(rest.filter(|rest| rest.failures > 0).map(|rest| rest.why.clone())),
        }
    }

    /// Whether a node may be asked. One that failed is tried behind everybody's back.
    fn permitted(self: &Arc<Self>, node: &Node, open: &Arc<Open>) -> Result<(), Trouble> {
        let Some(why) = self.has_failed(Some(node))? else { return Ok(()) };
        drop(self.trials.run(node.clone(), || {
            let (line, open, node) = (self.clone(), open.clone(), node.clone());
            async move { line.try_node(&open, node).await }
        }));
        Err(Trouble::Resting(why))
    }

    async fn try_node(&self, open: &Arc<Open>, node: Node) {
        let trial = self.rehearse(&open.link, &open.slots, Some(&node));
        let outcome =
            within(self.settings.write_timeout, trial).await.unwrap_or(Err(Trouble::Slow));
        let mut rests = self.rests();
        let Err(trouble) = outcome else {
            rests.remove(&Some(node));
            return;
        };
        rests.entry(Some(node)).or_default().begin(self.now(), &trouble);
        let all_fail = open.slots.nodes().into_iter().all(|node| rests.contains_key(&Some(node)));
        if all_fail && self.is_current(open) {
            // Perhaps it is another cluster by now.
            self.open.store(None);
            rests.clear();
            rests.entry(None).or_default().begin(self.now(), &trouble);
        }
    }

    fn dial(self: &Arc<Self>) -> Waiter<Result<Arc<Open>, Trouble>> {
        self.dials.run((), || {
            let line = self.clone();
            async move { line.dialled().await }
        })
    }

    async fn dialled(self: &Arc<Self>) -> Result<Arc<Open>, Trouble> {
        if let Some(open) = self.open.load_full() {
            return Ok(open);
        }
        let limit = self.settings.write_timeout;
        let connecting = async {
            let mut link = self.settings.server.connect(limit).await?;
            let slots = Arc::new(link.slots().await?);
            self.rehearse_anywhere(&link, &slots).await?;
            Ok((link, slots))
        };
        let connected = within(limit, connecting).await.unwrap_or(Err(Trouble::Slow));
        let mut rests = self.rests();
        match connected {
            Ok((link, slots)) => {
                let open = Arc::new(Open { link, slots, since: self.now() });
                self.open.store(Some(open.clone()));
                Ok(open)
            }
            Err(trouble) => {
                rests.entry(None).or_default().begin(self.now(), &trouble);
                Err(trouble)
            }
        }
    }

    /// Rehearses with one node that can. Those that cannot are found out about when they are asked.
    async fn rehearse_anywhere(
        self: &Arc<Self>,
        link: &Link,
        slots: &Arc<Slots>,
    ) -> Result<(), Trouble> {
        let nodes = slots.nodes();
        if nodes.is_empty() {
            return self.rehearse(link, slots, None).await;
        }
        let mut rehearsals = JoinSet::new();
        for node in nodes {
            let (line, link, slots) = (self.clone(), link.clone(), slots.clone());
            rehearsals.spawn(async move { line.rehearse(&link, &slots, Some(&node)).await });
        }
        let mut last = died();
        while let Some(outcome) = rehearsals.join_next().await {
            match outcome {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(trouble)) => last = trouble,
                Err(_) => {}
            }
        }
        Err(last)
    }

    /// Does once what calls will do. A server that cannot is better left alone than found out
    /// about with every call.
    async fn rehearse(
        &self,
        link: &Link,
        slots: &Slots,
        node: Option<&Node>,
    ) -> Result<(), Trouble> {
        const LIFE: Duration = Duration::from_secs(1);
        let (name, fence) = self.rehearsal(slots, node)?;
        commands::lock(link.clone(), &name, &fence, LIFE).await?;
        commands::put(link.clone(), &name, b"rehearsal", LIFE, Some(&fence)).await?;
        let found = commands::get(link.clone(), &name, MAX_VALUE).await?;
        commands::unlock(link.clone(), &name, &fence).await?;
        commands::remove(link.clone(), &name).await?;
        match found {
            Found::Value(value) if value == b"rehearsal" => Ok(()),
            _ => Err(failed("it does not keep what it is given")),
        }
    }

    /// A key of this node that nobody else uses.
    fn rehearsal(&self, slots: &Slots, node: Option<&Node>) -> Result<(String, Fence), Trouble> {
        const TRIES: usize = 100_000;
        for _ in 0..TRIES {
            let fence = Fence::random().map_err(|_| failed("the system has no random numbers"))?;
            let name = format!("{}:-:token:{{{}}}", self.settings.prefix, fence.as_str());
            if node.is_none() || slots.owner(&name) == node {
                return Ok((name, fence));
            }
        }
        Err(failed("a node of the cluster has no keys"))
    }

    /// Whether this connection broke only after it had lasted: servers, and what stands before
    /// them, close what is idle. That is no failure yet. A cluster's connects again by itself.
    fn is_stale(&self, open: &Arc<Open>, error: &RedisError) -> bool {
        let mut rests = self.rests();
        if !error.is_connection_dropped() || !self.is_steady(open) || !open.slots.is_empty() {
            return false;
        }
        if self.is_current(open) {
            self.open.store(None);
            rests.remove(&None);
        }
        true
    }

    fn given_up(&self, open: &Arc<Open>, name: &str, trouble: Trouble) -> Trouble {
        let mut rests = self.rests();
        // Many calls fail together; the first of them counts.
        if !self.is_current(open) {
            return trouble;
        }
        let now = self.now();
        if let Some(node) = open.slots.owner(name) {
            let rest = rests.entry(Some(node.clone())).or_default();
            if now >= rest.until {
                rest.begin(now, &trouble);
            }
            return trouble;
        }
        self.open.store(None);
        let rest = rests.entry(None).or_default();
        if self.is_steady(open) {
            rest.failures = 0;
        }
        rest.begin(now, &trouble);
        trouble
    }

    fn is_current(&self, open: &Arc<Open>) -> bool {
        self.open.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, open))
    }

    fn is_steady(&self, open: &Open) -> bool {
        self.now().saturating_sub(open.since) >= STEADY
    }

    /// A value was there that opens.
    pub(super) fn found_token(&self) {
        if self.finds_garbage.load(Ordering::Relaxed) {
            self.finds_garbage.store(false, Ordering::Relaxed);
        }
    }

    /// A value was there that does not.
    pub(super) fn found_garbage(&self) {
        telemetry::token_cache_invalid_entry(!self.finds_garbage.swap(true, Ordering::Relaxed));
    }

    fn now(&self) -> Duration {
        self.settings.clock.elapsed()
    }

    /// A panic while the lock is held leaves it whole, so poisoning carries no information.
    fn rests(&self) -> MutexGuard<'_, HashMap<Option<Node>, Rest>> {
        self.rests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(what: &str) -> Trouble {
    Trouble::Failed(what.into())
}

fn died() -> Trouble {
    failed("connecting ended without an outcome")
}
