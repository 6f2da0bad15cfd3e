//! Browser sessions in Redis: conformance suite, keys, expiry, outages, and three processes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::Method;
use scaikey_auth::exchange::RedisCache;
use scaikey_auth::session::{
    RedisSessions, SessionId, SessionLabel, SessionSelector, SessionStore, StoredSession,
};
use scaikey_auth::testing::conformance::session_store;

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
