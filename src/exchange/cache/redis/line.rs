//! [`Line`]: the connection in use, and what happens while there is none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{ConnectionInfo, RedisError, RedisResult};

use super::super::Fence;
use super::commands::{self, Found};
use super::server::{self, CONNECT, Link, Server};
use crate::clock::{Clock, SystemClock, backoff, within};
use crate::config::ConfigError;
use crate::flight::Flights;
use crate::secret::Secret;
use crate::telemetry;

/// How long a server that failed is left alone, growing with each failure.
const BASE: Duration = Duration::from_millis(250);
const CAP: Duration = Duration::from_secs(5);

/// A connection that lasted so long has made up for the failures before it.
const STEADY: Duration = Duration::from_secs(10);

/// How a [`RedisCache`](super::RedisCache) is to be.
#[derive(Clone)]
pub(super) struct Settings {
    nodes: Vec<ConnectionInfo>,
    server: Server,
    pub(super) prefix: String,
    pub(super) budget: Duration,
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
    /// Whoever changes `open` holds this.
    rest: Mutex<Rest>,
    dials: Flights<(), Result<Arc<Open>, Trouble>>,
    finds_garbage: AtomicBool,
}

/// A connection in use.
struct Open {
    link: Link,
    since: Duration,
}

/// What there is to remember while nothing is in use.
#[derive(Default)]
struct Rest {
    failures: u32,
    /// Nobody tries before.
    until: Duration,
}

impl Rest {
    fn begin(&mut self, now: Duration) {
        self.until = now + backoff(BASE, CAP, self.failures);
        self.failures = self.failures.saturating_add(1);
    }
}

/// Why there is no answer. Says nothing of URLs, and nothing that the server may have quoted.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Trouble {
    #[error("Redis does not answer in time")]
    Slow,
    #[error("Redis failed a moment ago and is left alone")]
    Resting,
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
            rest: Mutex::default(),
            dials: Flights::default(),
            finds_garbage: AtomicBool::new(false),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.open.load().is_some()
    }

    /// What the server answers within the budget.
    pub(super) async fn call<T, F>(self: &Arc<Self>, ask: impl Fn(Link) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let asked = async {
            let open = self.connection().await?;
            match ask(open.link.clone()).await {
                Ok(answer) => Ok(answer),
                Err(error) if error.is_connection_dropped() && self.is_just_stale(&open) => {
                    let open = self.connection().await?;
                    ask(open.link.clone()).await.map_err(|error| self.given_up(&open, error.into()))
                }
                Err(error) => Err(self.given_up(&open, error.into())),
            }
        };
        within(self.settings.budget, asked).await.unwrap_or_else(|| Err(self.too_late()))
    }

    /// The connection in use. Without one, the first who come wait for it; once the server has
    /// failed, a trial goes on behind everybody's back.
    async fn connection(self: &Arc<Self>) -> Result<Arc<Open>, Trouble> {
        if let Some(open) = self.open.load_full() {
            return Ok(open);
        }
        let has_failed = {
            let rest = self.rest();
            if self.now() < rest.until {
                return Err(Trouble::Resting);
            }
            rest.failures > 0
        };
        let dial = self.dials.board((), || {
            let line = self.clone();
            async move { line.dial().await }
        });
        if has_failed {
            return Err(Trouble::Resting);
        }
        dial.landed().await.unwrap_or_else(|| {
            self.rest().begin(self.now());
            Err(Trouble::Failed("connecting ended without an outcome".into()))
        })
    }

    async fn dial(&self) -> Result<Arc<Open>, Trouble> {
        if let Some(open) = self.open.load_full() {
            return Ok(open);
        }
        let connecting = async {
            let link = self.settings.server.connect().await?;
            self.rehearse(&link).await.map(|()| link)
        };
        let link = within(CONNECT, connecting).await.unwrap_or(Err(Trouble::Slow));
        let mut rest = self.rest();
        match link {
            Ok(link) => {
                let open = Arc::new(Open { link, since: self.now() });
                self.open.store(Some(open.clone()));
                Ok(open)
            }
            Err(trouble) => {
                rest.begin(self.now());
                Err(trouble)
            }
        }
    }

    /// Does once what calls will do. A server that cannot is better left alone than found out
    /// about with every call.
    async fn rehearse(&self, link: &Link) -> Result<(), Trouble> {
        const LIFE: Duration = Duration::from_secs(1);
        let failed = |what: &str| Trouble::Failed(what.into());
        let fence = Fence::random().map_err(|_| failed("the system has no random numbers"))?;
        let name = format!("{}:-:token:{{{}}}", self.settings.prefix, fence.as_str());
        commands::lock(link.clone(), &name, &fence, LIFE).await?;
        commands::put(link.clone(), &name, b"rehearsal", LIFE, Some(&fence)).await?;
        let found = commands::get(link.clone(), &name).await?;
        commands::unlock(link.clone(), &name, &fence).await?;
        commands::remove(link.clone(), &name).await?;
        match found {
            Found::Value(value) if value == b"rehearsal" => Ok(()),
            _ => Err(failed("it does not keep what it is given")),
        }
    }

    /// Whether this connection broke only after it had lasted: servers, and what stands before
    /// them, close what is idle. That is no failure yet.
    fn is_just_stale(&self, open: &Arc<Open>) -> bool {
        let mut rest = self.rest();
        if !self.is_steady(open) {
            return false;
        }
        if self.is_current(open) {
            self.open.store(None);
            *rest = Rest::default();
        }
        true
    }

    fn given_up(&self, open: &Arc<Open>, trouble: Trouble) -> Trouble {
        let mut rest = self.rest();
        // Many calls fail together; the first of them counts.
        if self.is_current(open) {
            self.open.store(None);
            if self.is_steady(open) {
                rest.failures = 0;
            }
            rest.begin(self.now());
        }
        trouble
    }

    fn too_late(&self) -> Trouble {
        match self.open.load_full() {
            Some(open) => self.given_up(&open, Trouble::Slow),
            None => {
                // It is still being dialled. Whoever comes now need not wait as long as this one.
                let mut rest = self.rest();
                rest.failures = rest.failures.max(1);
                Trouble::Slow
            }
        }
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
        telemetry::token_cache_garbage(!self.finds_garbage.swap(true, Ordering::Relaxed));
    }

    fn now(&self) -> Duration {
        self.settings.clock.elapsed()
    }

    /// A panic while the lock is held leaves it whole, so poisoning carries no information.
    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
