//! Unit tests of revocations.

use std::sync::Mutex;

use super::*;

/// Returns the ids of the sessions that a listener hears of.
fn listen(to: &Revocations) -> Arc<Mutex<Vec<String>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (listener, weak) = (heard.clone(), Arc::downgrade(&to.0));
    to.subscribe(Arc::new(move |revocation| {
        let Target::Session { id, .. } = revocation.target() else { return };
        // The revocation is in force already.
        let inner = weak.upgrade().unwrap();
        assert!(revocation.keys().iter().all(|(_, key)| inner.index.get(*key).is_some()));
        listener.lock().unwrap().push(format!("{} {id}", revocation.iss()));
    }));
    heard
}

#[tokio::test]
async fn listeners_hear_of_each_revocation() {
    let log = MemoryRevocationLog::default();
    let [one, other] = [(); 2].map(|()| Revocations::builder().log(log.clone()).build());
    let heard = [listen(&one), listen(&other)];
    one.revoke(Revocation::session("a", "1").of_subject("alice")).await.unwrap();
    one.revoke(Revocation::subject("a", "1")).await.unwrap();
    one.revoke(Revocation::session("a", "2").until(SystemTime::UNIX_EPOCH)).await.unwrap();
    one.revoke(Revocation::session("a", "3")).await.unwrap();
    other.ready().await.unwrap();
    one.ready().await.unwrap();
    for heard in heard {
        assert_eq!(*heard.lock().unwrap(), ["a 1", "a 3"]);
    }
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn tokens_of_a_session_may_be_meant() {
    use crate::testing::{ManualClock, identity};
    use serde_json::json;
    let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_millis(4_000_000_000_700));
    let log = MemoryRevocationLog::default();
    let build = || Revocations::builder().log(log.clone()).clock(clock.clone()).build();
    let [one, other] = [(); 2].map(|()| build());
    let before = one.without_leeway(clock.now());
    let event = Revocation::tokens_of_session("a", "1").of_subject("alice");
    one.revoke(event.issued_before(before)).await.unwrap();
    one.revoke(Revocation::session("a", "2").issued_before(before)).await.unwrap();
    one.revoke(Revocation::subject_without_tenant("a", "bob")).await.unwrap();
    other.ready().await.unwrap();
    for revocations in [one, other] {
        for (claims, expected) in [
            (json!({ "sub": "alice", "sid": "1", "iat": 3_999_999_999_u64 }), true),
            (json!({ "sub": "alice", "sid": "1" }), true),
            (json!({ "sub": "alice", "sid": "1", "iat": 4_000_000_000_u64 }), false),
            (json!({ "sub": "alice", "iat": 1 }), false),
            (json!({ "sub": "alice", "sid": "2", "iat": 4_200_000_000_u64 }), true),
            (json!({ "sub": "bob", "iat": 4_000_000_000_u64 }), true),
            (json!({ "sub": "bob", "tenant_id": "acme", "iat": 4_000_000_000_u64 }), false),
        ] {
            let mut token = claims.clone();
            token["iss"] = "a".into();
            assert_eq!(revocations.is_revoked(&identity(token)), expected, "{claims}");
        }
    }
}

#[test]
fn debug_output_has_no_ids() {
    use futures_util::FutureExt as _;
    let revocations = Revocations::default();
    let revoked = revocations.revoke(Revocation::subject("https://canary", "canary"));
    revoked.now_or_never().unwrap().unwrap();
    let text = format!("{revocations:?}");
    assert!(text.contains("entries: 1") && !text.contains("canary"), "{text}");
}

/// A clock that stands still, and calls a function once, when its wall time is read.
struct Hooked(Mutex<Option<Hook>>);

type Hook = Box<dyn FnOnce() + Send>;

const NOW: u32 = 4_000_000_000;

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl Clock for Hooked {
    fn now(&self) -> SystemTime {
        let hook = self.0.lock().unwrap().take();
        hook.into_iter().for_each(|hook| hook());
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.into())
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// Returns revocations in which `ended` ended 50 s ago. While a token or session is judged by it, `meanwhile` comes.
fn racing(
    limit: usize,
    ended: Revocation,
    others: &[Revocation],
    meanwhile: Vec<Revocation>,
) -> Revocations {
    let clock = Arc::new(Hooked(Mutex::default()));
    let builder = Revocations::builder().max_entries(limit).shared_clock(clock.clone());
    let revocations = builder.build();
    let entries = |inner: &Inner, of: &Revocation, until: u32| {
        let entries = inner.entries(&inner.with_times(of.clone())).into_iter();
        entries.map(|entry| Entry { until, ..entry }).collect::<Vec<_>>()
    };
    let earlier = Now { wall: NOW - 100, elapsed: Duration::ZERO };
    let insert = |of: &Revocation, until| {
        let inner = &revocations.0;
        inner.index.insert(&entries(inner, of, until), Origin::Here, earlier).unwrap();
    };
    insert(&ended, NOW - 50);
    others.iter().for_each(|other| insert(other, NOW + 100));
    let inner = Arc::downgrade(&revocations.0);
    *clock.0.lock().unwrap() = Some(Box::new(move || {
        let inner = inner.upgrade().unwrap();
        let new: Vec<_> = meanwhile.iter().flat_map(|it| entries(&inner, it, NOW + 100)).collect();
        let now = Now { wall: NOW, elapsed: Duration::from_secs(30) };
        inner.index.insert(&new, Origin::Here, now).unwrap();
    }));
    revocations
}

#[cfg(feature = "testing")]
#[test]
fn merging_lets_no_token_through() {
    use crate::testing::identity;
    let session = |id: &str| Revocation::session("a", id).of_subject("alice");
    let token = |id: &str| Revocation::token("a", id);
    let others = [session("1"), session("2")];
    let revocations = racing(4, token("ended"), &others, vec![token("x"), token("y")]);
    let claims = serde_json::json!({
        "iss": "a", "sub": "alice", "sid": "1", "jti": "ended", "iat": NOW - 10
    });
    assert!(revocations.is_revoked(&identity(claims)));
    assert_eq!(revocations.health().widened, 3, "while the token was judged");
}

#[test]
fn sessions_are_judged_by_current_kinds() {
    let ended = Revocation::session("a", "1");
    let revocations = racing(4, ended, &[], vec![Revocation::subject("a", "alice")]);
    let started_at = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(NOW) - 10);
    assert!(revocations.is_session_revoked(&SessionFacts {
        issuer: "a",
        subject: "alice",
        session_id: Some("1"),
        tenant: None,
        client_id: "web",
        started_at,
    }));
}

/// Sessions of a service live longer than its tokens.
#[cfg(feature = "testing")]
#[tokio::test]
async fn sessions_do_not_prolong_tokens() {
    use crate::testing::{ManualClock, identity};
    use serde_json::json;
    const HOUR: Duration = Duration::from_secs(3600);
    let clock = ManualClock::new();
    let log = MemoryRevocationLog::with_clock(clock.clone());
    let build = || {
        Revocations::builder().token_lifetime(HOUR).log(log.clone()).clock(clock.clone()).build()
    };
    let [api, browser, shop] = [(); 3].map(|()| build());
    browser.keep_for_at_least(48 * HOUR);
    shop.keep_for_at_least(48 * HOUR);
    // An event of a service without sessions, and one of a service with sessions.
    for (service, ids) in [(&api, ["t1", "s1", "u1"]), (&browser, ["t2", "s2", "u2"])] {
        let [token, session, subject] = ids;
        service.revoke(Revocation::token("a", token)).await.unwrap();
        service.revoke(Revocation::session("a", session)).await.unwrap();
        service.revoke(Revocation::subject("a", subject)).await.unwrap();
        let until = clock.now() + HOUR;
        service
            .revoke(Revocation::session("a", format!("{session} ends")).until(until))
            .await
            .unwrap();
    }
    shop.ready().await.unwrap();
    let iat = unix_seconds(clock.now()) - 60;
    let judged = |name: &str, value: &str| {
        let mut claims = json!({ "iss": "a", "sub": "other", "iat": iat });
        claims[name] = value.into();
        shop.is_revoked(&identity(claims))
    };
    let refused = || {
        ["1", "2"].map(|n| {
            [("jti", "t"), ("sid", "s"), ("sub", "u")]
                .map(|(name, id)| judged(name, &format!("{id}{n}")))
        })
    };
    assert_eq!(refused(), [[true; 3]; 2]);
    assert!(judged("sid", "s1 ends"));
    clock.advance(47 * HOUR);
    assert_eq!(refused(), [[false, true, true]; 2]);
    assert!(!judged("sid", "s1 ends") && !judged("sid", "s2 ends"), "an end that was set stays");
}

/// A process may read the log before its sessions are set up.
#[tokio::test]
async fn later_sessions_prolong_what_was_read() {
    let log = MemoryRevocationLog::default();
    let builder = || Revocations::builder().log(log.clone()).token_lifetime(Duration::ZERO);
    let [one, other] = [(); 2].map(|()| builder().check_every(Duration::ZERO).build());
    one.revoke(Revocation::session("a", "1")).await.unwrap();
    other.ready().await.unwrap();
    let key = Key::new(Kind::Session, "a", &["1"]);
    let until = || other.0.index.get(key).unwrap().until;
    let before = until();
    other.keep_for_at_least(Duration::from_secs(3600));
    for _ in 0..1_000 {
        if until() > before {
            break;
        }
        crate::clock::sleep(Duration::from_millis(10)).await;
    }
    assert!((3530..3550).contains(&(until() - before)), "an hour instead of a minute");
}

/// Two services may share revocations, and the second may be built after the log was read.
#[tokio::test]
async fn later_services_prolong_what_was_read() {
    const ISSUER: &str = "https://a.example";
    let log = MemoryRevocationLog::default();
    let builder = || Revocations::builder().log(log.clone()).token_lifetime(Duration::ZERO);
    let [one, other] = [(); 2].map(|()| builder().check_every(Duration::ZERO).build());
    one.revoke(Revocation::token(ISSUER, "1")).await.unwrap();
    other.ready().await.unwrap();
    let key = Key::new(Kind::Token, ISSUER, &["1"]);
    let until = || other.0.index.get(key).unwrap().until;
    let before = until();
    let hour = crate::IssuerConfig::new(ISSUER).max_token_lifetime(Duration::from_secs(3600));
    let service = crate::Auth::builder().issuer(hour).audience("docs").revocations(other.clone());
    let _service = service.build().unwrap();
    for _ in 0..1_000 {
        if until() > before {
            break;
        }
        crate::clock::sleep(Duration::from_millis(10)).await;
    }
    assert!(until() - before >= 3530, "{}", until() - before);
}

/// A session goes on if only its earlier tokens are refused, by the time of issue.
#[cfg(all(feature = "testing", feature = "endpoints"))]
#[tokio::test]
async fn earlier_tokens_may_be_replaced() {
    use crate::testing::identity;
    use serde_json::json;
    let seconds = |at| SystemTime::UNIX_EPOCH + Duration::from_secs(at);
    let now = unix_seconds(SystemTime::now());
    let claims = |sid| json!({ "iss": "a", "sub": "alice", "sid": sid, "iat": now - 60 });
    let without_sid = identity(json!({ "iss": "a", "sub": "alice", "iat": now - 60 }));
    let earlier = || Revocation::tokens_of_session("a", "1").issued_before(seconds(now - 30));
    let reported = || {
        let session = Revocation::session("a", "1").of_subject("alice");
        session.issued_before(seconds(now - 30))
    };
    // The leeway counts twice: the clock of the issuer may be behind.
    let from = Some(seconds(now - 20));
    for (revocation, token, expected) in [
        (earlier(), identity(claims("1")), from),
        (earlier(), identity(claims("2")), None),
        (reported(), without_sid.clone(), from),
        (reported(), identity(claims("1")), None),
        (Revocation::subject("a", "alice"), identity(claims("1")), None),
    ] {
        let revocations = Revocations::default();
        revocations.revoke(revocation.clone()).await.unwrap();
        assert_eq!(revocations.refused_as_earlier(&token), expected, "{revocation:?}");
    }
}

#[tokio::test]
async fn search_for_unlogged_entries_blocks_no_task() {
    use std::task::Poll;
    let builder = Revocations::builder().log(MemoryRevocationLog::default());
    let revocations = builder.build();
    let inner = &revocations.0;
    for n in 0..10_000 {
        let of = inner.with_times(Revocation::token("a", format!("{n}")));
        inner.index.insert(&inner.entries(&of), Origin::Log, inner.now()).unwrap();
    }
    let mut refill = std::pin::pin!(inner.refill(inner.following.as_ref().unwrap()));
    let first = std::future::poll_fn(|context| Poll::Ready(refill.as_mut().poll(context))).await;
    assert!(first.is_pending(), "another thread reads all entries");
    refill.await.unwrap();
}
