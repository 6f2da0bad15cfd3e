//! Browser sessions in Redis: conformance suite, keys, expiry, outages, and three processes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::Method;
use scaikey_auth::exchange::RedisCache;
use scaikey_auth::session::{
    RedisSessions, SessionId, SessionLabel, SessionSelector, SessionStore, StoredSession,
};
use scaikey_auth::testing::conformance::session_store;

use tokio::task::JoinSet;

use super::fixture::redis;
use super::server::Redis;
use crate::support::eventually;
use crate::support::stored_sessions::{Processes, check_three_processes};

const USER: SessionLabel = SessionLabel::from_bytes([7; 32]);

fn sessions(server: &Redis) -> RedisSessions {
    RedisSessions::new(&redis(&server.url()))
}

fn session(number: u8, lifetime: Duration) -> StoredSession {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    StoredSession::new(
        SessionId::from_bytes([number; 32]),
        vec![number; 9],
        start,
        start + lifetime,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_passes_conformance_suite() {
    let server = Redis::start();
    for _ in 0..2 {
        session_store(Arc::new(sessions(&server))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_passes_conformance_suite() {
    let nodes = Redis::three(false);
    let urls: Vec<_> = nodes.iter().map(|node| node.url().expose().to_owned()).collect();
    let store = RedisSessions::new(&redis(&urls.join(",").as_str().into()));
    session_store(Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_share_redis() {
    let server = Redis::start();
    check_three_processes(|| sessions(&server)).await;
}

#[tokio::test]
async fn entries_expire_with_their_session() {
    let server = Redis::start();
    let store = RedisSessions::new(&redis(&server.url()).prefix("wave"));
    let mut stored = session(1, Duration::from_secs(3600));
    store.create(stored.clone(), &[USER]).await.unwrap();
    let key = format!("wave:-:session:{}", stored.id);
    let label = format!("wave:-:session-of:{USER}");
    let ttl = |key: &str| server.ask::<i64>(&["PTTL", key]) / 1000;
    assert!((3600..=3660).contains(&ttl(&key)), "{}", ttl(&key));
    assert!((3660..=3720).contains(&ttl(&label)), "{}", ttl(&label));
    stored.version = 2;
    stored.expires_at = stored.used_at + Duration::from_secs(60);
    assert!(store.replace(stored.clone(), 1).await.unwrap());
    assert!((60..=120).contains(&ttl(&key)), "{}", ttl(&key));
    // A shorter session of the same user does not shorten the set of labels.
    store.create(session(2, Duration::from_secs(60)), &[USER]).await.unwrap();
    assert!(ttl(&label) > 3000, "{}", ttl(&label));
    assert_eq!(store.list(&SessionSelector::any_of([USER])).await.unwrap().len(), 2);
    // The server removed a session: its label finds nothing.
    let _: i64 = server.ask(&["DEL", &key]);
    let left = store.list(&SessionSelector::any_of([USER])).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(store.remove_where(&SessionSelector::any_of([USER])).await.unwrap(), 1);
}

#[tokio::test]
async fn labels_of_expired_sessions_are_removed() {
    let server = Redis::start();
    let store = sessions(&server);
    store.create(session(1, Duration::from_secs(10)), &[USER]).await.unwrap();
    let mut later = session(2, Duration::from_secs(3600));
    later.used_at += Duration::from_secs(200);
    store.create(later, &[USER]).await.unwrap();
    let count: i64 = server.ask(&["ZCARD", &format!("scaikey:-:session-of:{USER}")]);
    assert_eq!(count, 1);
}

/// Returns the session with this number.
fn numbered(number: u32) -> StoredSession {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let mut session = session(1, Duration::from_secs(3600));
    session.id = SessionId::from_bytes(id);
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_sessions_end_in_time() {
    let server = Redis::start();
    let store = sessions(&server);
    let mut calls = JoinSet::new();
    for first in 0..8 {
        let store = store.clone();
        calls.spawn(async move {
            for number in (first..5000).step_by(8) {
                store.create(numbered(number), &[USER]).await.unwrap();
            }
        });
    }
    calls.join_all().await;
    let others = SessionSelector::any_of([USER]).except(numbered(7).id);
    let limit = Duration::from_secs(30);
    let removal = tokio::time::timeout(limit, store.remove_where(&others)).await;
    assert_eq!(removal.expect("in time").unwrap(), 4999);
    let all = SessionSelector::any_of([USER]);
    assert_eq!(store.list(&all).await.unwrap(), [numbered(7)]);
    assert_eq!(store.remove_where(&all).await.unwrap(), 1);
}

/// The server has no set of a label without sessions.
#[tokio::test]
async fn ids_of_ended_sessions_are_removed() {
    let server = Redis::start();
    let store = sessions(&server);
    let label = format!("scaikey:-:session-of:{USER}");
    let count = || server.ask::<i64>(&["ZCARD", &label]);
    store.create(numbered(0), &[USER]).await.unwrap();
    for number in 1..600 {
        store.create(numbered(number), &[USER]).await.unwrap();
        assert!(store.remove(&numbered(number).id).await.unwrap());
    }
    eventually(async || count() < 300).await;
    let all = SessionSelector::any_of([USER]);
    assert_eq!(store.list(&all).await.unwrap(), [numbered(0)]);
    assert_eq!(store.remove_where(&all).await.unwrap(), 1);
    assert_eq!(count(), 0);
}

#[tokio::test]
async fn list_looks_behind_ended_sessions() {
    let server = Redis::start();
    let store = sessions(&server);
    store.create(numbered(0), &[USER]).await.unwrap();
    let mut ended = vec!["ZADD".to_owned(), format!("scaikey:-:session-of:{USER}")];
    for number in 1..2500 {
        // The score is the end in milliseconds since 1970: later than that of the session.
        ended.extend(["1890000000000".to_owned(), numbered(number).id.to_string()]);
    }
    let ended: Vec<_> = ended.iter().map(String::as_str).collect();
    assert_eq!(server.ask::<i64>(&ended), 2499);
    let all = SessionSelector::any_of([USER]);
    assert_eq!(store.list(&all).await.unwrap(), [numbered(0)]);
}

#[tokio::test]
async fn values_of_other_programs_are_errors() {
    let server = Redis::start();
    let (store, stored) = (sessions(&server), session(1, Duration::from_secs(60)));
    let key = format!("scaikey:-:session:{}", stored.id);
    let _: String = server.ask(&["SET", &key, "short"]);
    let error = store.load(&stored.id).await.unwrap_err().to_string();
    assert!(error.contains("is damaged"), "{error}");
    let _: i64 = server.ask(&["DEL", &key]);
    let _: i64 = server.ask(&["RPUSH", &key, "x"]);
    let error = store.load(&stored.id).await.unwrap_err().to_string();
    assert!(error.contains("written by another program"), "{error}");
    store.replace(stored.clone(), 1).await.unwrap_err();
    store.create(stored, &[]).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_server_signs_no_user_out() {
    let server = Redis::start();
    let store = || RedisSessions::new(&RedisCache::open(&server.url()).unwrap());
    let processes = Processes::start(store).await;
    let cookie = processes.sign_in(0).await;
    assert_eq!(processes.me(0, &cookie).await, 200);
    server.pause();
    let answer = processes.get(0, "/me", &cookie).await;
    assert_eq!(answer.status(), 503);
    assert!(!answer.headers().contains_key("set-cookie"));
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(processes.change(0, Method::POST, "/v1/auth/logout", &cookie).await, 503);
    server.resume();
    eventually(async || processes.me(0, &cookie).await == 200).await;
    assert_eq!(processes.change(1, Method::POST, "/v1/auth/logout", &cookie).await, 204);
    assert_eq!(processes.me(0, &cookie).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_server_signs_no_user_out() {
    let mut server = Redis::start();
    let processes = Processes::start(|| sessions(&server)).await;
    let cookie = processes.sign_in(0).await;
    assert_eq!(processes.me(0, &cookie).await, 200);
    server.kill();
    // The second process has not read the session before.
    for process in [0, 1] {
        for path in ["/me", "/v1/auth/sessions"] {
            let answer = processes.get(process, path, &cookie).await;
            assert_eq!(answer.status(), 503, "{process} {path}");
            assert!(!answer.headers().contains_key("set-cookie"), "{process} {path}");
            assert!(answer.headers().contains_key("retry-after"), "{process} {path}");
        }
        let out = processes.change(process, Method::POST, "/v1/auth/logout", &cookie).await;
        assert_eq!(out, 503, "{process}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emptied_server_ends_every_session() {
    let server = Redis::start();
    let processes = Processes::start(|| sessions(&server)).await;
    let cookie = processes.sign_in(0).await;
    assert_eq!(processes.me(0, &cookie).await, 200);
    let _: () = server.ask(&["FLUSHALL"]);
    let (name, _) = cookie.split_once('=').unwrap();
    for process in [0, 1] {
        let answer = processes.get(process, "/me", &cookie).await;
        assert_eq!(answer.status(), 401, "{process}");
        let set = answer.headers()["set-cookie"].to_str().unwrap();
        assert!(set.starts_with(&format!("{name}=;")) && set.contains("Max-Age=0"), "{set}");
    }
    let again = processes.sign_in(0).await;
    assert_eq!(processes.me(1, &again).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_server_still_signs_users_out() {
    let server = Redis::start();
    let processes = Processes::start(|| sessions(&server)).await;
    let (one, other) = (processes.sign_in(0).await, processes.sign_in(0).await);
    assert_eq!(processes.me(1, &other).await, 200);
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!([processes.me(0, &one).await, processes.me(0, &other).await], [200; 2]);
    assert_eq!(processes.change(0, Method::POST, "/v1/auth/logout", &one).await, 204);
    assert_eq!([processes.me(0, &one).await, processes.me(0, &other).await], [401, 200]);
    let failed = processes.try_sign_in(0).await;
    assert_eq!(failed.status(), 503);
    let body = axum::body::to_bytes(failed.into_body(), 10_000).await.unwrap();
    let body = String::from_utf8_lossy(&body);
    assert!(body.contains("temporarily_unavailable") && !body.contains("OOM"), "{body}");
    // The failed write disturbs no other session.
    assert_eq!(processes.me(0, &other).await, 200);
    assert_eq!(processes.change(0, Method::POST, "/v1/auth/logout", &other).await, 204);
    assert_eq!(processes.me(1, &other).await, 401);
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    eventually(async || processes.try_sign_in(0).await.status() == 303).await;
}
