//! Sessions in a store: their life, their renewal, outages of the store, the endpoint `sessions`, and attacks.

mod attacks;
mod ended;
mod judged;
mod limits;
mod listing;
mod outages;
mod renewals;
mod revoked;
mod sign_in_and_out;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::session::{
    MemorySessions, SessionId, SessionLabel, SessionSelector, SessionStore, Sessions,
    SessionsBuilder, StoredSession,
};
use scaikey_auth::testing::conformance::session_store;

use super::env::{Setup, TestEnv, Visitor};

const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");

const LOGOUT: &str = "/v1/auth/logout";
const SESSIONS: &str = "/v1/auth/sessions";

/// A store that counts calls, and that fails or hangs on demand. Clones share the sessions.
#[derive(Debug, Clone, Default)]
struct TestStore {
    sessions: MemorySessions,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    mode: AtomicU8,
    /// The number of writes of existing sessions that fail.
    failing_writes: AtomicUsize,
    /// The number of removals of one session that fail.
    failing_removals: AtomicUsize,
    /// Whether lists fail.
    has_no_list: AtomicBool,
    loads: AtomicUsize,
    lists: AtomicUsize,
    hanging_lists: AtomicBool,
    writes: AtomicUsize,
    removals: AtomicUsize,
    ids: Mutex<Vec<SessionId>>,
    /// The labels of the session that began last.
    labels: Mutex<Vec<SessionLabel>>,
}

const WORKS: u8 = 0;
const FAILS: u8 = 1;
const HANGS: u8 = 2;

impl TestStore {
    fn set(&self, mode: u8) {
        self.shared.mode.store(mode, Ordering::SeqCst);
    }

    fn loads(&self) -> usize {
        self.shared.loads.load(Ordering::SeqCst)
    }

    fn lists(&self) -> usize {
        self.shared.lists.load(Ordering::SeqCst)
    }

    fn writes(&self) -> usize {
        self.shared.writes.load(Ordering::SeqCst)
    }

    fn removals(&self) -> usize {
        self.shared.removals.load(Ordering::SeqCst)
    }

    fn hang_lists(&self) {
        self.shared.hanging_lists.store(true, Ordering::SeqCst);
    }

    /// Returns the labels of the session that was created last.
    fn labels(&self) -> Vec<SessionLabel> {
        self.shared.labels.lock().unwrap().clone()
    }

    fn fail_writes(&self, count: usize) {
        self.shared.failing_writes.store(count, Ordering::SeqCst);
    }

    fn fail_removals(&self, count: usize) {
        self.shared.failing_removals.store(count, Ordering::SeqCst);
    }

    fn refuse_lists(&self) {
        self.shared.has_no_list.store(true, Ordering::SeqCst);
    }

    /// Returns the sessions in the store, in the order of their sign-ins.
    async fn all(&self) -> Vec<StoredSession> {
        let ids = self.shared.ids.lock().unwrap().clone();
        let mut all = Vec::new();
        for id in ids {
            all.extend(self.sessions.load(&id).await.unwrap());
        }
        all
    }

    /// Changes a session in the store, as an attacker or another process does.
    async fn change(&self, id: &SessionId, change: impl FnOnce(&mut StoredSession)) {
        let mut session = self.sessions.load(id).await.unwrap().unwrap();
        let version = session.version;
        session.version += 1;
        change(&mut session);
        assert!(self.sessions.replace(session, version).await.unwrap());
    }

    /// Adds sessions with the labels of the one that began last. Returns their number.
    async fn copies(&self, count: u32) -> u32 {
        let labels = self.shared.labels.lock().unwrap().clone();
        let all = self.all().await;
        for nth in 0..count {
            let mut session = all.last().unwrap().clone();
            let id = std::array::from_fn(|at| nth.to_be_bytes().get(at).copied().unwrap_or(9));
            session.id = SessionId::from_bytes(id);
            self.create(session, &labels).await.unwrap();
        }
        count
    }

    async fn available(&self) -> Result<(), BoxError> {
        match self.shared.mode.load(Ordering::SeqCst) {
            FAILS => Err("the disk is full".into()),
            HANGS => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl SessionStore for TestStore {
    async fn create(
        &self,
        session: StoredSession,
        labels: &[SessionLabel],
    ) -> Result<(), BoxError> {
        self.available().await?;
        self.shared.ids.lock().unwrap().push(session.id);
        *self.shared.labels.lock().unwrap() = labels.to_vec();
        self.sessions.create(session, labels).await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<StoredSession>, BoxError> {
        self.shared.loads.fetch_add(1, Ordering::SeqCst);
        self.available().await?;
        self.sessions.load(id).await
    }

    async fn replace(&self, session: StoredSession, version: u64) -> Result<bool, BoxError> {
        self.shared.writes.fetch_add(1, Ordering::SeqCst);
        self.available().await?;
        let less = |left: usize| left.checked_sub(1);
        let failing = &self.shared.failing_writes;
        match failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => Err("the disk is full".into()),
            Err(_) => self.sessions.replace(session, version).await,
        }
    }

    async fn remove(&self, id: &SessionId) -> Result<bool, BoxError> {
        self.shared.removals.fetch_add(1, Ordering::SeqCst);
        self.available().await?;
        let less = |left: usize| left.checked_sub(1);
        let failing = &self.shared.failing_removals;
        match failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => Err("the disk is full".into()),
            Err(_) => self.sessions.remove(id).await,
        }
    }

    async fn remove_where(&self, selector: &SessionSelector) -> Result<u64, BoxError> {
        self.available().await?;
        match self.shared.failing_removals.load(Ordering::SeqCst) {
            0 => self.sessions.remove_where(selector).await,
            _ => Err("the disk is full".into()),
        }
    }

    async fn list(&self, selector: &SessionSelector) -> Result<Vec<StoredSession>, BoxError> {
        self.shared.lists.fetch_add(1, Ordering::SeqCst);
        self.available().await?;
        if self.shared.has_no_list.load(Ordering::SeqCst) {
            return Err("the list takes too long".into());
        }
        if self.shared.hanging_lists.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.sessions.list(selector).await
    }
}

/// The keys and the store that the processes of a service share.
#[derive(Clone)]
struct Service {
    store: TestStore,
    keys: SealingKeys,
}

impl Service {
    fn new() -> Self {
        Self { store: TestStore::default(), keys: SealingKeys::random().unwrap() }
    }

    /// Returns the setup of one process.
    fn setup(&self) -> Setup {
        self.setup_with(|sessions| sessions)
    }

    fn setup_with(
        &self,
        change: impl FnOnce(SessionsBuilder) -> SessionsBuilder + 'static,
    ) -> Setup {
        let store = self.store.clone();
        let mut setup = Setup { sessions: Some(self.keys.clone()), ..Setup::default() };
        setup.session_settings = Box::new(move |sessions| change(sessions.store(store)));
        setup
    }
}

/// Returns a service with a store, and a browser in which bob is signed in.
async fn signed_in() -> (TestEnv, Service, Visitor) {
    let service = Service::new();
    let env = service.setup().build().await;
    let browser = sign_in(&env).await;
    (env, service, browser)
}

/// Signs bob in with a new browser.
async fn sign_in(env: &TestEnv) -> Visitor {
    let browser = env.visitor();
    let arrived = env.sign_in(&browser).await;
    assert_eq!((arrived.status, arrived.header("location")), (303, "/me"), "{arrived:?}");
    browser
}

/// Returns the only session cookie of a browser.
fn cookie(browser: &Visitor) -> (String, String) {
    let cookies = browser.session_cookies();
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    cookies.into_iter().next().unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_sessions_pass_conformance_suite() {
    session_store(Arc::new(MemorySessions::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[should_panic(expected = "rule broken: a session with another version is not replaced")]
async fn conformance_suite_finds_a_broken_store() {
    #[derive(Debug)]
    struct Careless(MemorySessions);

    #[async_trait]
    impl SessionStore for Careless {
        async fn create(
            &self,
            session: StoredSession,
            labels: &[SessionLabel],
        ) -> Result<(), BoxError> {
            self.0.create(session, labels).await
        }
        async fn load(&self, id: &SessionId) -> Result<Option<StoredSession>, BoxError> {
            self.0.load(id).await
        }
        async fn replace(&self, session: StoredSession, _: u64) -> Result<bool, BoxError> {
            let found = self.0.load(&session.id).await?;
            match found {
                Some(found) => self.0.replace(session, found.version).await,
                None => Ok(false),
            }
        }
        async fn remove(&self, id: &SessionId) -> Result<bool, BoxError> {
            self.0.remove(id).await
        }
        async fn remove_where(&self, selector: &SessionSelector) -> Result<u64, BoxError> {
            self.0.remove_where(selector).await
        }
        async fn list(&self, selector: &SessionSelector) -> Result<Vec<StoredSession>, BoxError> {
            self.0.list(selector).await
        }
    }

    session_store(Arc::new(Careless(MemorySessions::new()))).await;
}

/// Returns a time after the end of every session.
fn far_future(now: SystemTime) -> SystemTime {
    now + seconds(365 * 86_400)
}

impl Service {
    /// Returns the sessions of a process, for calls without a request.
    fn sessions(&self, env: &TestEnv) -> Sessions {
        let sessions = Sessions::builder(&env.auth, env.client.clone(), self.keys.clone());
        sessions.store(self.store.clone()).build().unwrap()
    }
}
