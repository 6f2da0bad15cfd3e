//! Processes that share a log. Each service here stands for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use scaikey_auth::error::BoxError;
use scaikey_auth::revocation::{
    InvalidLogEntry, LogCursor, LogEntry, LogPage, MemoryRevocationLog, Revocation, RevocationLog,
    RevocationsBuilder, RevokeError,
};
use scaikey_auth::testing::conformance::revocation_log;
use tokio::sync::Notify;

use super::Revocable;
use crate::support::{Log, MetricsRecorder, World, eventually, within_timeout};

/// A log that can fail, hang, and have entries that cannot be read.
#[derive(Debug, Clone, Default)]
struct Faulty {
    log: MemoryRevocationLog,
    is_down: Arc<AtomicBool>,
    cannot_append: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
    /// The number of entries at the beginning that are unreadable.
    unreadable: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
    resumes: Arc<Notify>,
}

impl Faulty {
    fn set(flag: &AtomicBool, value: bool) {
        flag.store(value, Ordering::SeqCst);
    }

    /// Waits until everything that is in the log now has been read by a process.
    async fn until_read_twice(&self) {
        let before = self.reads.load(Ordering::SeqCst);
        eventually(async || self.reads.load(Ordering::SeqCst) >= before + 2).await;
    }

    async fn fail_if_down(&self) -> Result<(), BoxError> {
        if self.hangs.load(Ordering::SeqCst) {
            self.resumes.notified().await;
        }
        assert!(!self.panics.load(Ordering::SeqCst), "the log panics");
        if self.is_down.load(Ordering::SeqCst) { Err("the log is down".into()) } else { Ok(()) }
    }
}

#[async_trait]
impl RevocationLog for Faulty {
    async fn append(&self, entry: &LogEntry) -> Result<LogCursor, BoxError> {
        self.fail_if_down().await?;
        if self.cannot_append.load(Ordering::SeqCst) {
            return Err("the log is full".into());
        }
        self.log.append(entry).await
    }

    async fn read(&self, after: Option<&LogCursor>, limit: usize) -> Result<LogPage, BoxError> {
        self.fail_if_down().await?;
        let mut page = self.log.read(after, limit).await?;
        for (_, entry) in &mut page.entries {
            let unreadable = &self.unreadable;
            let decrement = |left: u64| left.checked_sub(1);
            if unreadable.fetch_update(Ordering::SeqCst, Ordering::SeqCst, decrement).is_ok() {
                *entry = Err(InvalidLogEntry::new("is forged"));
            }
        }
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(page)
    }
}

/// Returns a service that follows the log, as in a process of its own.
async fn process(world: &Arc<World>, log: &Faulty) -> Revocable {
    process_with(world, log, |builder| builder).await
}

async fn process_with(
    world: &Arc<World>,
    log: &Faulty,
    set: fn(RevocationsBuilder) -> RevocationsBuilder,
) -> Revocable {
    let log = log.clone();
    Revocable::of(world, |builder| set(builder.check_every(Duration::from_millis(5)).log(log)))
        .await
}

fn session(world: &World, sid: &str) -> (Revocation, String) {
    let token = world.provider.token().claim("sid", sid).sign();
    (Revocation::session(world.provider.issuer(), sid), token)
}

async fn world() -> Arc<World> {
    Arc::new(World::new().await)
}

#[tokio::test]
async fn memory_log_passes_the_suite() {
    let now = std::time::SystemTime::now();
    revocation_log(Arc::new(MemoryRevocationLog::default()), now).await;
    revocation_log(Arc::new(Faulty::default()), now).await;
}

#[tokio::test]
async fn event_reaches_every_process() {
    let (world, log) = (world().await, Faulty::default());
    let [one, other] = [process(&world, &log).await, process(&world, &log).await];
    let (revocation, token) = session(&world, "one");
    assert_eq!([one.status(&token).await, other.status(&token).await], [200; 2], "known in both");
    one.revoke(revocation).await;
    assert_eq!(one.status(&token).await, 401, "immediately");
    eventually(async || other.status(&token).await == 401).await;
    // A process that starts later refuses its first request.
    let late = process(&world, &log).await;
    assert_eq!(late.status(&token).await, 401);
    let ready = process(&world, &log).await;
    assert!(ready.auth.ready().await.is_ok());
    assert!(!ready.auth.revocations().health().is_away);
    assert_eq!(ready.auth.revocations().health().entries, 1);
}

#[tokio::test]
async fn every_kind_passes_through_the_log() {
    let (world, log) = (world().await, Faulty::default());
    let one = process(&world, &log).await;
    let (iss, acme) = (world.provider.issuer(), crate::support::tenant_id("acme"));
    for (revocation, entries) in [
        (Revocation::token(&*iss, "1"), 1),
        (Revocation::token(&*iss, "2").of_subject("alice"), 2),
        (Revocation::session(&*iss, "1"), 3),
        (Revocation::session(&*iss, "2").of_subject("alice"), 5),
        (Revocation::subject(&*iss, "alice"), 6),
        (Revocation::subject(&*iss, "alice").in_tenant(acme.clone()), 7),
        (Revocation::client(&*iss, "web"), 8),
        (Revocation::client(&*iss, "web").in_tenant(acme.clone()), 9),
        (Revocation::tenant(&*iss, acme.clone()), 10),
        (Revocation::issuer("https://other.example"), 11),
    ] {
        one.revoke(revocation).await;
        let late = process(&world, &log).await;
        late.auth.ready().await.unwrap();
        assert_eq!(late.auth.revocations().health().entries, entries);
    }
}

#[tokio::test]
async fn requests_wait_for_the_history() {
    let (world, log) = (world().await, Faulty::default());
    let (revocation, token) = session(&world, "one");
    process(&world, &log).await.revoke(revocation).await;
    Faulty::set(&log.hangs, true);
    let late = Arc::new(process(&world, &log).await);
    let request = tokio::spawn({
        let (late, token) = (late.clone(), token.clone());
        async move { late.status(&token).await }
    });
    tokio::task::yield_now().await;
    Faulty::set(&log.hangs, false);
    log.resumes.notify_waiters();
    // In case the request comes later.
    log.resumes.notify_one();
    assert_eq!(within_timeout(request).await.unwrap(), 401);
}

#[tokio::test]
async fn hanging_log_delays_requests_once() {
    let (world, log) = (world().await, Faulty::default());
    Faulty::set(&log.hangs, true);
    let (_, token) = session(&world, "one");
    let service = process(&world, &log).await;
    let strict = process_with(&world, &log, |it| it.refuse_after(Duration::from_secs(60))).await;
    assert_eq!(within_timeout(service.status(&token)).await, 200);
    let answer = within_timeout(strict.get(&token)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert_eq!(answer.json()["detail"], "The token cannot be checked right now. Try again.");
    let start = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(service.status(&token).await, 200);
        assert_eq!(strict.status(&token).await, 503);
    }
    assert!(start.elapsed() < Duration::from_secs(30), "only the first request waits");
    assert!(service.auth.revocations().health().is_away);
}

#[tokio::test]
async fn outage_is_logged_once_and_survived() {
    let (world, log) = (world().await, Faulty::default());
    let (first, token) = session(&world, "one");
    let (second, other) = session(&world, "two");
    let [one, two] = [process(&world, &log).await, process(&world, &log).await];
    one.revoke(first).await;
    eventually(async || two.status(&token).await == 401).await;
    let logged = Log::start();
    Faulty::set(&log.is_down, true);
    eventually(async || two.auth.revocations().health().is_away).await;
    assert_eq!([two.status(&token).await, two.status(&other).await], [401, 200]);
    assert!(two.auth.ready().await.is_err(), "readiness says so");
    let error = one.auth.revocations().revoke(second).await.unwrap_err();
    assert!(matches!(&error, RevokeError::Log(cause) if cause.to_string().contains("is down")));
    assert_eq!(one.status(&other).await, 401, "in force in this process");
    Faulty::set(&log.is_down, false);
    // The process appends it by itself when the log works again.
    eventually(async || two.status(&other).await == 401).await;
    eventually(async || !two.auth.revocations().health().is_away).await;
    let text = logged.text();
    let count = |level: &str, part: &str| {
        text.lines().filter(|line| line.contains(level) && line.contains(part)).count()
    };
    // Once for each process.
    assert_eq!(count("WARN", "are not noticed error=the log is down"), 2, "{text}");
    assert_eq!(count("WARN", "are in force here only"), 1, "{text}");
    assert!(count("INFO", "revocation log works again") >= 1, "{text}");
}

#[tokio::test]
async fn stale_index_refuses_if_told_to() {
    let (world, log) = (world().await, Faulty::default());
    let service = process_with(&world, &log, |it| it.refuse_after(Duration::from_secs(60))).await;
    let (_, token) = session(&world, "one");
    assert_eq!(service.status(&token).await, 200);
    Faulty::set(&log.is_down, true);
    eventually(async || service.auth.revocations().health().is_away).await;
    assert_eq!(service.status(&token).await, 200);
    service.advance(61);
    assert_eq!(service.status(&token).await, 503);
    assert!(service.auth.revocations().health().lag >= Duration::from_secs(61));
    assert_eq!(service.auth.authenticate(&token).await.unwrap_err().reason(), "unavailable");
    Faulty::set(&log.is_down, false);
    eventually(async || service.status(&token).await == 200).await;
    assert!(service.auth.revocations().health().lag < Duration::from_secs(61));
}

#[tokio::test]
async fn gauge_tells_the_lag_of_outages() {
    let recorder = MetricsRecorder::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (world, log) = (world().await, Faulty::default());
    let service = process(&world, &log).await;
    service.auth.ready().await.unwrap();
    let lag = || recorder.gauge("scaikey_auth_revocation_log_lag_seconds");
    eventually(async || lag().is_some_and(|lag| lag < 1.0)).await;
    Faulty::set(&log.is_down, true);
    eventually(async || service.auth.revocations().health().is_away).await;
    service.advance(61);
    eventually(async || lag().is_some_and(|lag| lag >= 61.0)).await;
    Faulty::set(&log.is_down, false);
    eventually(async || lag().is_some_and(|lag| lag < 1.0)).await;
}

#[tokio::test]
async fn log_that_is_down_at_start_refuses() {
    let (world, log) = (world().await, Faulty::default());
    Faulty::set(&log.is_down, true);
    let service = process(&world, &log).await;
    let strict = process_with(&world, &log, |it| it.refuse_after(Duration::from_secs(60))).await;
    let (_, token) = session(&world, "one");
    assert_eq!([service.status(&token).await, strict.status(&token).await], [200, 503]);
    let error = service.auth.ready().await.unwrap_err();
    assert_eq!(error.reason(), "unavailable");
    Faulty::set(&log.is_down, false);
    eventually(async || strict.status(&token).await == 200).await;
    eventually(async || service.auth.ready().await.is_ok()).await;
}

#[tokio::test]
async fn lost_log_is_filled_again() {
    let (world, log) = (world().await, Faulty::default());
    let [one, two] = [process(&world, &log).await, process(&world, &log).await];
    let mut tokens = Vec::new();
    for n in 0..50 {
        let (revocation, token) = session(&world, &format!("{n}"));
        (if n % 2 == 0 { &one } else { &two }).revoke(revocation).await;
        tokens.push(token);
    }
    let entries = |it: &Revocable| it.auth.revocations().health().entries;
    eventually(async || entries(&one) == 50 && entries(&two) == 50).await;
    log.log.clear();
    eventually(async || !log.log.is_empty()).await;
    let late = process(&world, &log).await;
    late.auth.ready().await.unwrap();
    eventually(async || entries(&late) == 50).await;
    for token in &tokens {
        assert_eq!(late.status(token).await, 401);
    }
    // The others go on as before.
    let (revocation, token) = session(&world, "after");
    one.revoke(revocation).await;
    eventually(async || two.status(&token).await == 401).await;
    log.until_read_twice().await;
    assert!(log.log.len() < 20, "few entries with many revocations: {}", log.log.len());
}

#[tokio::test]
async fn entry_lost_before_it_is_read_returns() {
    let (world, log) = (world().await, Faulty::default());
    let one = process_with(&world, &log, |it| it.check_every(Duration::from_millis(300))).await;
    one.auth.ready().await.unwrap();
    let (revocation, token) = session(&world, "one");
    one.revoke(revocation).await;
    log.log.clear();
    eventually(async || !log.log.is_empty()).await;
    let late = process(&world, &log).await;
    assert_eq!(late.status(&token).await, 401);
}

#[tokio::test]
async fn unreadable_entries_are_skipped_and_counted() {
    let (world, log) = (world().await, Faulty::default());
    let one = process(&world, &log).await;
    let mut tokens = Vec::new();
    for sid in ["one", "two", "three"] {
        let (revocation, token) = session(&world, sid);
        one.revoke(revocation).await;
        tokens.push(token);
    }
    log.until_read_twice().await;
    log.unreadable.store(2, Ordering::SeqCst);
    let logged = Log::start();
    let late = process(&world, &log).await;
    late.auth.ready().await.unwrap();
    let health = late.auth.revocations().health();
    assert_eq!((health.unreadable, health.entries), (2, 1));
    assert_eq!(late.status(&tokens[0]).await, 200);
    assert_eq!(late.status(&tokens[2]).await, 401);
    let text = logged.text();
    assert_eq!(text.matches("ERROR scaikey_auth: revocation ignored").count(), 1, "{text}");
    assert!(text.contains("it is forged"), "{text}");
}

#[tokio::test]
async fn long_history_is_read_in_pages() {
    let (world, log) = (world().await, Faulty::default());
    let one = process(&world, &log).await;
    for n in 0..1_234 {
        one.revoke(session(&world, &format!("{n}")).0).await;
    }
    let late = process(&world, &log).await;
    late.auth.ready().await.unwrap();
    assert_eq!(late.auth.revocations().health().entries, 1_234);
}

#[tokio::test]
async fn events_of_the_log_are_clamped() {
    let (world, log) = (world().await, Faulty::default());
    let fast = Arc::new(World::new().await);
    fast.clock.advance(Duration::from_secs(86_400));
    // A process whose clock is a day ahead.
    let ahead = process(&fast, &log).await;
    ahead.revoke(Revocation::subject(world.provider.issuer(), "alice")).await;
    let service = process(&world, &log).await;
    service.auth.ready().await.unwrap();
    let token = || service.token().subject("alice").sign();
    assert_eq!(service.status(&token()).await, 401);
    service.advance(10);
    assert_eq!(service.status(&token()).await, 200, "not refused for a day");
}

#[tokio::test]
async fn full_process_takes_entries_of_the_log() {
    let (world, log) = (world().await, Faulty::default());
    let large = process(&world, &log).await;
    let small = process_with(&world, &log, |builder| builder.max_entries(2)).await;
    small.auth.ready().await.unwrap();
    for n in 0..5 {
        large.revoke(session(&world, &format!("{n}")).0).await;
    }
    eventually(async || small.auth.revocations().health().entries == 5).await;
    let error = small.auth.revocations().revoke(session(&world, "own").0).await.unwrap_err();
    assert!(matches!(error, RevokeError::Full));
}

#[tokio::test]
async fn following_ends_with_the_service() {
    let (world, log) = (world().await, Faulty::default());
    let service = process(&world, &log).await;
    service.auth.ready().await.unwrap();
    assert_eq!(Arc::strong_count(&log.reads), 2);
    drop(service);
    eventually(async || Arc::strong_count(&log.reads) == 1).await;
}

#[tokio::test]
async fn panicking_log_is_followed_again() {
    let (world, log) = (world().await, Faulty::default());
    let service = process(&world, &log).await;
    service.auth.ready().await.unwrap();
    Faulty::set(&log.panics, true);
    eventually(async || service.auth.revocations().health().is_away).await;
    let (revocation, token) = session(&world, "one");
    let error = service.auth.revocations().revoke(revocation).await.unwrap_err();
    assert!(matches!(error, RevokeError::Log(_)));
    assert_eq!(service.status(&token).await, 401);
    Faulty::set(&log.panics, false);
    eventually(async || {
        let status = service.status(&token).await;
        status == 401 && !service.auth.revocations().health().is_away && log.log.len() == 1
    })
    .await;
}

#[tokio::test]
async fn dropped_call_is_completed() {
    let (world, log) = (world().await, Faulty::default());
    let service = process(&world, &log).await;
    service.auth.ready().await.unwrap();
    let (revocation, token) = session(&world, "one");
    {
        let call = service.auth.revocations().revoke(revocation);
        let mut call = std::pin::pin!(call);
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context)));
        assert!(polled.await.is_pending());
    }
    assert_eq!(service.status(&token).await, 401);
    eventually(async || log.log.len() == 1).await;
}

#[test]
fn log_needs_a_runtime() {
    let log = MemoryRevocationLog::default();
    let revocations = scaikey_auth::revocation::Revocations::builder().log(log).build();
    let caller = scaikey_auth::testing::identity(serde_json::json!({ "iss": "a", "sub": "b" }));
    assert!(!revocations.is_revoked(&caller));
    use futures_util::FutureExt as _;
    let error = revocations.ready().now_or_never().unwrap().unwrap_err();
    assert!(error.to_string().contains("needs a tokio runtime"), "{error}");
    // In force here, and appended.
    let revoked = revocations.revoke(Revocation::subject("a", "b")).now_or_never().unwrap();
    revoked.unwrap();
    assert!(revocations.is_revoked(&caller));
}
