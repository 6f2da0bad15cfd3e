//! How long a revocation lasts, if it does not say so, and settings at their limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use scaikey_auth::clock::Clock;
use scaikey_auth::error::BoxError;
use scaikey_auth::revocation::{
    LogCursor, LogEntry, LogPage, MemoryRevocationLog, Revocation, RevocationLog, Revocations,
    RevocationsBuilder,
};
use scaikey_auth::testing::{ManualClock, Provider, identity};
use scaikey_auth::{Auth, AuthBuilder};
use serde_json::json;

use super::Revocable;
use crate::support::{World, eventually, local_with_all_algorithms};

const HOUR: Duration = Duration::from_secs(3600);

fn builder(provider: &Provider, limit: Option<Duration>) -> AuthBuilder {
    let mut issuer = local_with_all_algorithms(&provider.issuer());
    issuer.max_token_lifetime = limit;
    issuer.leeway = Duration::from_secs(60);
    Auth::builder().issuer(issuer).audience("scaiwave")
}

/// Returns how long a revocation of a user of the provider lasts.
async fn lifetime(provider: &Provider, revocations: &Revocations, clock: &ManualClock) -> Duration {
    let caller = identity(json!({ "iss": provider.issuer(), "sub": "alice" }));
    revocations.revoke(Revocation::subject(provider.issuer(), "alice")).await.unwrap();
    let start = clock.now();
    while revocations.is_revoked(&caller) {
        clock.advance(Duration::from_secs(30));
        assert!(clock.now() < start + 100 * HOUR, "it ends");
    }
    clock.now().duration_since(start).unwrap()
}

#[tokio::test]
async fn revocation_lasts_as_long_as_tokens() {
    let provider = Provider::start().await;
    // Twice the leeway: of the time of issue, and of the expiry.
    let two_hours = 2 * HOUR + Duration::from_secs(120);
    for (limit, explicit, expected) in [
        (None, None, 24 * HOUR),
        (Some(2 * HOUR), None, two_hours),
        (Some(48 * HOUR), None, 48 * HOUR + Duration::from_secs(120)),
        (None, Some(HOUR), HOUR),
        (Some(2 * HOUR), Some(HOUR), two_hours),
        (Some(HOUR), Some(3 * HOUR), 3 * HOUR),
        // A time that would revoke nothing.
        (None, Some(Duration::ZERO), Duration::from_secs(60)),
    ] {
        let clock = ManualClock::new();
        let mut revocations = Revocations::builder().clock(clock.clone());
        if let Some(explicit) = explicit {
            revocations = revocations.token_lifetime(explicit);
        }
        let revocations = revocations.build();
        let auth = builder(&provider, limit).clock(clock.clone()).revocations(revocations);
        let auth = auth.build().unwrap();
        let found = lifetime(&provider, auth.revocations(), &clock).await;
        let difference = found.abs_diff(expected);
        assert!(difference <= Duration::from_secs(31), "{limit:?} {explicit:?}: {found:?}");
    }
}

#[tokio::test]
async fn longest_limit_of_services_counts() {
    let provider = Provider::start().await;
    let clock = ManualClock::new();
    let revocations = Revocations::builder().clock(clock.clone()).build();
    let with = |limit| {
        let builder = builder(&provider, limit).clock(clock.clone());
        builder.revocations(revocations.clone()).build().unwrap()
    };
    let _short = with(Some(HOUR));
    let found = lifetime(&provider, &revocations, &clock).await;
    assert!(found < 2 * HOUR, "{found:?}");
    let _long = with(Some(3 * HOUR));
    let found = lifetime(&provider, &revocations, &clock).await;
    assert!((3 * HOUR..4 * HOUR).contains(&found), "{found:?}");
    let _without = with(None);
    let found = lifetime(&provider, &revocations, &clock).await;
    assert!((24 * HOUR..25 * HOUR).contains(&found), "{found:?}");
}

/// An issuer that is added later may have tokens that live longer.
#[tokio::test]
async fn added_issuer_has_its_own_limit() {
    let (first, second) = (Provider::start().await, Provider::start().await);
    let clock = ManualClock::new();
    let auth = builder(&first, Some(HOUR)).clock(clock.clone()).build().unwrap();
    auth.issuers().add(local_with_all_algorithms(&second.issuer())).unwrap();
    let found = lifetime(&second, auth.revocations(), &clock).await;
    assert!((24 * HOUR..25 * HOUR).contains(&found), "{found:?}");
    let found = lifetime(&first, auth.revocations(), &clock).await;
    assert!(found < 2 * HOUR, "{found:?}");
}

/// Services that share a log may have tokens that live longer than those of the service that hears of an event.
#[tokio::test]
async fn readers_use_their_own_lifetimes() {
    let clock = ManualClock::new();
    let log = MemoryRevocationLog::with_clock(clock.clone());
    let process = |lifetime| {
        let builder = Revocations::builder().check_every(Duration::from_millis(10));
        builder.token_lifetime(lifetime).log(log.clone()).clock(clock.clone()).build()
    };
    let (short, long) = (process(HOUR), process(48 * HOUR));
    long.ready().await.unwrap();
    let subject = |id: &str| Revocation::subject("https://a", id);
    short.revoke(subject("alice")).await.unwrap();
    short.revoke(subject("bob").until(clock.now() + HOUR)).await.unwrap();
    // The log gets an entry that lasts as long.
    eventually(async || log.len() == 3).await;
    let is_refused = |by: &Revocations, id: &str| {
        by.is_revoked(&identity(json!({ "iss": "https://a", "sub": id })))
    };
    assert!(is_refused(&long, "alice") && is_refused(&long, "bob"));
    clock.advance(2 * HOUR);
    assert!(!is_refused(&short, "bob") && !is_refused(&long, "bob"), "an end that was set stays");
    // What has ended leaves the log.
    short.revoke(subject("carol")).await.unwrap();
    let late = process(48 * HOUR);
    late.ready().await.unwrap();
    assert!(is_refused(&long, "alice") && is_refused(&late, "alice"));
    clock.advance(47 * HOUR);
    assert!(!is_refused(&long, "alice"));
}

#[tokio::test]
async fn refuse_after_is_longer_than_reads() {
    for (every, limit, allowed, refused) in [
        (HOUR, Duration::from_secs(1), 4 * HOUR, Some(Duration::from_secs(1))),
        (HOUR, 5 * HOUR, 5 * HOUR, Some(Duration::from_secs(1))),
        (Duration::from_secs(1), Duration::ZERO, Duration::from_secs(5), None),
    ] {
        let world = Arc::new(World::new().await);
        let log = MemoryRevocationLog::default();
        let service =
            Revocable::of(&world, |it| it.check_every(every).refuse_after(limit).log(log));
        let service = service.await;
        service.auth.ready().await.unwrap();
        let token = service.token().expires_in(9 * HOUR).sign();
        world.clock.advance(allowed);
        assert_eq!(service.status(&token).await, 200, "{every:?} {limit:?}");
        if let Some(more) = refused {
            world.clock.advance(more);
            assert_eq!(service.status(&token).await, 503, "{every:?} {limit:?}");
        }
    }
}

/// A log that counts how often it is read.
#[derive(Debug, Clone, Default)]
struct Counting(MemoryRevocationLog, Arc<AtomicU64>);

#[async_trait]
impl RevocationLog for Counting {
    async fn append(&self, entry: &LogEntry) -> Result<LogCursor, BoxError> {
        self.0.append(entry).await
    }

    async fn read(&self, after: Option<&LogCursor>, limit: usize) -> Result<LogPage, BoxError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.read(after, limit).await
    }
}

#[tokio::test]
async fn period_of_zero_does_not_spin() {
    let log = Counting::default();
    let revocations = Revocations::builder().check_every(Duration::ZERO).log(log.clone()).build();
    revocations.ready().await.unwrap();
    let (start, before) = (Instant::now(), log.1.load(Ordering::SeqCst));
    eventually(async || log.1.load(Ordering::SeqCst) >= before + 20).await;
    // Each period is random by a tenth.
    assert!(start.elapsed() > Duration::from_millis(19 * 9), "{:?}", start.elapsed());
}

#[tokio::test]
async fn extreme_settings_panic_nowhere() {
    let changes: [fn(RevocationsBuilder) -> RevocationsBuilder; 6] = [
        |it| it.token_lifetime(Duration::MAX),
        |it| it.leeway(Duration::MAX),
        |it| it.check_every(Duration::MAX),
        |it| it.check_every(Duration::ZERO),
        |it| it.refuse_after(Duration::MAX),
        |it| it.token_lifetime(Duration::from_nanos(1)),
    ];
    for (nth, change) in changes.into_iter().enumerate() {
        let log = MemoryRevocationLog::default();
        let one = change(Revocations::builder().log(log.clone())).build();
        one.revoke(Revocation::subject("https://a", "alice")).await.unwrap();
        one.ready().await.unwrap();
        let late = change(Revocations::builder().log(log.clone())).build();
        late.ready().await.unwrap();
        let iat = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() - 9;
        let caller = identity(json!({ "iss": "https://a", "sub": "alice", "iat": iat }));
        for revocations in [&one, &late] {
            eventually(async || revocations.is_revoked(&caller)).await;
            assert_eq!(revocations.health().unreadable, 0, "{nth}");
        }
    }
}
