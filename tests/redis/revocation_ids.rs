//! Entries of the stream of revocations whose ids are in the future.

use std::time::{Duration, SystemTime};

use redis::Value;
use scaikey_auth::exchange::RedisRevocations;
use scaikey_auth::revocation::{Revocation, RevocationLog, Revocations};
use scaikey_auth::testing::identity;
use serde_json::json;

use crate::support::eventually;

use super::fixture::{OLD, keys, redis};
use super::server::Redis;

/// The key of the stream.
const STREAM: &str = "scaikey:-:revocations";

/// The last id that a stream can have.
const LAST: &str = "18446744073709551615-18446744073709551615";

fn log(server: &Redis) -> RedisRevocations {
    RedisRevocations::new(&redis(&server.url()), keys(OLD))
}

fn process(server: &Redis) -> Revocations {
    Revocations::builder().check_every(Duration::from_millis(20)).log(log(server)).build()
}

fn session(sid: &str) -> Revocation {
    Revocation::session("https://a", sid)
}

fn refuses(revocations: &Revocations, sid: &str) -> bool {
    revocations.is_revoked(&identity(json!({ "iss": "https://a", "sub": "alice", "sid": sid })))
}

/// Adds an entry of an attacker with this id.
fn add(server: &Redis, id: &str) {
    let _: String = server.ask(&["XADD", STREAM, id, "entry", "x", "until", "9"]);
}

fn ids(server: &Redis) -> Vec<String> {
    let entries: Vec<(String, Vec<Value>)> = server.ask(&["XRANGE", STREAM, "-", "+"]);
    entries.into_iter().map(|(id, _)| id).collect()
}

#[tokio::test]
async fn id_of_an_attacker_stops_nothing() {
    let server = Redis::start();
    for (nth, id) in [LAST, "18446744073709551615-7", "99999999999999-0"].iter().enumerate() {
        let [one, other] = [process(&server), process(&server)];
        one.ready().await.unwrap();
        other.ready().await.unwrap();
        let sid = |n: usize| format!("{nth} {n}");
        one.revoke(session(&sid(0))).await.unwrap();
        add(&server, id);
        // The readers have seen the entry of the attacker, which is their cursor.
        eventually(async || other.health().unreadable > 0 && one.health().unreadable > 0).await;
        one.revoke(session(&sid(1))).await.unwrap();
        other.revoke(session(&sid(2))).await.unwrap();
        eventually(async || (0..3).all(|n| refuses(&one, &sid(n)) && refuses(&other, &sid(n))))
            .await;
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let time = |id: &String| id.split('-').next().unwrap().parse::<u128>().unwrap();
        assert!(ids(&server).iter().all(|id| time(id) < now + 3_600_000), "{:?}", ids(&server));
        let late = process(&server);
        late.ready().await.unwrap();
        assert!((0..3).all(|n| refuses(&late, &sid(n))));
    }
}

/// The last id stays that of the attacker when the entry is removed.
#[tokio::test]
async fn removed_id_stops_nothing() {
    let server = Redis::start();
    let one = process(&server);
    one.revoke(session("1")).await.unwrap();
    add(&server, LAST);
    let _: u64 = server.ask(&["XDEL", STREAM, LAST]);
    one.revoke(session("2")).await.unwrap();
    let late = process(&server);
    late.ready().await.unwrap();
    assert!(refuses(&late, "1") && refuses(&late, "2"));
    // The stream has only the id of the attacker.
    let _: u64 = server.ask(&["DEL", STREAM]);
    add(&server, LAST);
    let _: u64 = server.ask(&["XDEL", STREAM, LAST]);
    let other = process(&server);
    other.revoke(session("3")).await.unwrap();
    let late = process(&server);
    late.ready().await.unwrap();
    assert!(refuses(&late, "3"));
}

/// The clock of the server was ahead for a while, or an attacker copied entries: they count nevertheless.
#[tokio::test]
async fn honest_entries_of_the_future_stay() {
    let server = Redis::start();
    let log = log(&server);
    for sid in ["1", "2"] {
        process(&server).revoke(session(sid)).await.unwrap();
    }
    let entries: Vec<(String, Vec<Vec<u8>>)> = server.ask(&["XRANGE", STREAM, "-", "+"]);
    let _: u64 = server.ask(&["DEL", STREAM]);
    let mut link = redis::Client::open(server.url().expose()).unwrap().get_connection().unwrap();
    for (nth, (_, fields)) in entries.iter().enumerate() {
        let mut add = redis::cmd("XADD");
        add.arg(STREAM).arg(format!("99999999999999-{nth}")).arg(fields.as_slice());
        let _: String = add.query(&mut link).unwrap();
    }
    // A reader that has seen one of them.
    let page = log.read(None, 1).await.unwrap();
    let cursor = page.entries[0].0.clone();
    process(&server).revoke(session("3")).await.unwrap();
    let late = process(&server);
    late.ready().await.unwrap();
    assert!(["1", "2", "3"].iter().all(|sid| refuses(&late, sid)));
    let page = log.read(Some(&cursor), 10).await.unwrap();
    assert!(page.was_reset, "its cursor is gone, so it reads all");
    assert_eq!(page.entries.iter().filter(|(_, entry)| entry.is_ok()).count(), 3);
}

#[tokio::test]
async fn many_entries_of_the_future_are_removed() {
    let server = Redis::start();
    let one = process(&server);
    one.revoke(session("1")).await.unwrap();
    let script =
        "for n = 1, 20000 do redis.call('XADD', KEYS[1], '99999999999999-' .. n, 'a', 'b') end";
    let _: Value = server.ask(&["EVAL", script, "1", STREAM]);
    one.revoke(session("2")).await.unwrap();
    assert_eq!(ids(&server).len(), 2, "entries without a value are not stored again");
    let late = process(&server);
    late.ready().await.unwrap();
    assert!(refuses(&late, "1") && refuses(&late, "2"));
}

/// Some servers do not set the last id of a stream back. Then it is written anew, with the ids that readers know.
#[tokio::test]
async fn stream_is_written_anew_if_necessary() {
    let server = Redis::start();
    let user = ["ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", "-xsetid"];
    let _: () = server.ask(&user);
    let url = server.url().expose().replace("redis://", "redis://limited:secret@");
    let limited = RedisRevocations::new(&redis(&url.into()), keys(OLD));
    let one = Revocations::builder().log(limited).build();
    one.revoke(session("1")).await.unwrap();
    let before = ids(&server);
    let cursor = log(&server).read(None, 1).await.unwrap().entries[0].0.clone();
    add(&server, LAST);
    one.revoke(session("2")).await.unwrap();
    let after = ids(&server);
    assert_eq!((&after[0], after.len()), (&before[0], 3), "the last two are stored again");
    let page = log(&server).read(Some(&cursor), 10).await.unwrap();
    assert_eq!((page.was_reset, page.entries.len()), (false, 2));
    let late = process(&server);
    late.ready().await.unwrap();
    assert!(refuses(&late, "1") && refuses(&late, "2"));
}
