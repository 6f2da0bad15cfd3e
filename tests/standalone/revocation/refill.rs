//! A long history is read while requests come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use scaikey_auth::error::BoxError;
use scaikey_auth::revocation::{LogCursor, LogEntry, LogPage, MemoryRevocationLog, RevocationLog};
use scaikey_auth::testing::ManualClock;
use tokio::sync::Semaphore;

use super::Revocable;
use crate::support::{World, eventually, within_timeout};

/// The time that each page takes by the clock of the service.
const PAGE: Duration = Duration::from_secs(20);

/// A log whose calls take long by the clock of the service. While it is slow, each read needs a permit.
#[derive(Debug, Clone)]
struct Slow {
    log: MemoryRevocationLog,
    clock: ManualClock,
    is_slow: Arc<AtomicBool>,
    permits: Arc<Semaphore>,
    pages: Arc<AtomicU64>,
}

#[async_trait]
impl RevocationLog for Slow {
    async fn append(&self, entry: &LogEntry) -> Result<LogCursor, BoxError> {
        self.log.append(entry).await
    }

    async fn read(&self, after: Option<&LogCursor>, limit: usize) -> Result<LogPage, BoxError> {
        if self.is_slow.load(Ordering::SeqCst) {
            self.permits.acquire().await?.forget();
            self.clock.advance(PAGE);
        }
        let page = self.log.read(after, limit).await;
        self.pages.fetch_add(1, Ordering::SeqCst);
        page
    }
}

#[tokio::test]
async fn each_page_of_history_counts() {
    let world = Arc::new(World::new().await);
    let log = Slow {
        log: MemoryRevocationLog::with_clock(world.clock.clone()),
        clock: world.clock.clone(),
        is_slow: Arc::default(),
        permits: Arc::new(Semaphore::new(0)),
        pages: Arc::default(),
    };
    let process = async |limit| {
        let log = log.clone();
        Revocable::of(&world, |it| {
            it.check_every(Duration::from_millis(10)).refuse_after(limit).log(log)
        })
        .await
    };
    let service = process(Duration::from_secs(60)).await;
    service.auth.ready().await.unwrap();
    let token = service.token().sign();
    assert_eq!(service.status(&token).await, 200);
    // Another process appends some thousand entries at a time when each page takes long.
    let other = process(Duration::from_secs(60)).await;
    let issuer = world.provider.issuer();
    log.is_slow.store(true, Ordering::SeqCst);
    for n in 0..5_000 {
        other.revoke(scaikey_auth::revocation::Revocation::token(&*issuer, format!("{n}"))).await;
    }
    // Both read the same history, each with permits of its own.
    drop(other);
    let before = log.pages.load(Ordering::SeqCst);
    for page in 1..=8 {
        log.permits.add_permits(1);
        eventually(async || log.pages.load(Ordering::SeqCst) >= before + page).await;
        let status = within_timeout(service.status(&token)).await;
        assert_eq!(status, 200, "page {page}: the log answers");
    }
    let health = service.auth.revocations().health();
    assert!(health.lag > 5 * PAGE, "the end was not reached: {health:?}");
    // No page any more.
    service.advance(61);
    assert_eq!(within_timeout(service.status(&token)).await, 503);
    log.is_slow.store(false, Ordering::SeqCst);
    log.permits.add_permits(2);
    eventually(async || service.status(&token).await == 200).await;
    eventually(async || service.auth.revocations().health().entries == 5_000).await;
}
