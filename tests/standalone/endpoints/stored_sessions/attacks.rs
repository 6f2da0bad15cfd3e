//! Attacks on sessions in a store.

use axum::http::Method;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::session::{SessionId, SessionStore};

use super::super::env::{MINUTE, Visitor};
use super::{LOGOUT, SAME, Service, cookie, sign_in, signed_in};
use crate::support::{Log, files::File};

fn set(browser: &Visitor, name: &str, value: &str) {
    browser.cookies.lock().unwrap().insert(name.to_owned(), value.to_owned());
}

#[tokio::test]
async fn guessed_and_changed_cookies_open_nothing() {
    let (env, service, browser) = signed_in().await;
    let (name, value) = cookie(&browser);
    let other = sign_in(&env).await;
    let (_, others) = cookie(&other);
    let ((id, key), (other_id, other_key)) =
        (value.split_once('.').unwrap(), others.split_once('.').unwrap());
    let before = service.store.loads();
    for (bad, loads) in [
        (String::new(), 0),
        ("x".to_owned(), 0),
        (format!("{value}A"), 0),
        (format!("{id}.{}", &key[1..]), 0),
        (format!("{key}.{id}"), 0),
        (format!("{}.{}", "A".repeat(22), "A".repeat(43)), 1),
        (format!("{id}.{}", "A".repeat(43)), 1),
        (format!("{id}.{other_key}"), 1),
        (format!("{other_id}.{key}"), 1),
    ] {
        let loaded = service.store.loads();
        let thief = env.visitor();
        set(&thief, &name, &bad);
        assert_eq!(thief.get("/me").await.status, 401, "{bad}");
        assert!(thief.cookie_names().is_empty(), "the cookie is cleared: {bad}");
        assert_eq!(service.store.loads() - loaded, loads, "{bad}");
    }
    assert!(service.store.loads() > before);
    // The sessions are unharmed.
    for browser in [&browser, &other] {
        assert_eq!(browser.get("/me").await.status, 200);
    }
}

#[tokio::test]
async fn copy_of_the_store_opens_no_session() {
    let (env, service, browser) = signed_in().await;
    let session = service.store.all().await.remove(0);
    let text = String::from_utf8_lossy(&session.value).into_owned();
    for secret in ["eyJ", "bob", "refresh", "access", &env.provider.issuer()] {
        assert!(!text.contains(secret), "{secret}");
    }
    // The store has the digest of the id. A cookie made of it names another session.
    let (name, value) = cookie(&browser);
    let (_, key) = value.split_once('.').unwrap();
    let thief = env.visitor();
    let id = base64(&session.id.as_bytes()[..16]);
    set(&thief, &name, &format!("{id}.{key}"));
    assert_eq!(thief.get("/me").await.status, 401);
    // Without the keys of the server, the cookie does not open the copy either.
    let copied = Service { keys: SealingKeys::random().unwrap(), ..service.clone() };
    let api = env.start_beside(copied.setup()).await;
    assert_eq!(browser.copy_at(&api).get("/me").await.status, 401);
    assert_eq!(browser.get("/me").await.status, 200);
}

fn base64(bytes: &[u8]) -> String {
    use base64_simd::URL_SAFE_NO_PAD;
    URL_SAFE_NO_PAD.encode_to_string(bytes)
}

#[tokio::test]
async fn value_of_another_session_does_not_open() {
    let log = Log::start();
    let (env, service, victim) = signed_in().await;
    let thief = env.visitor();
    env.sign_in_as("alice", &thief).await;
    let [victims, thiefs]: [_; 2] = service.store.all().await.try_into().unwrap();
    // The thief can write to the store.
    service.store.change(&thiefs.id, |session| session.value = victims.value.clone()).await;
    let me = thief.get("/me").await;
    assert_eq!((me.status, thief.cookie_names().len()), (401, 0), "{me:?}");
    assert_eq!(victim.get("/me").await.body, "bob-id ");
    assert!(log.text().contains("is not opened by its cookie"), "{}", log.text());
    // A damaged value is as good as none.
    for value in
        [vec![], vec![0; 3], vec![255; 100], victims.value[..victims.value.len() - 1].to_vec()]
    {
        service.store.change(&victims.id, |session| session.value = value).await;
        assert_eq!(victim.copy_at(&env.api).get("/me").await.status, 401);
    }
}

#[tokio::test]
async fn old_cookie_is_worthless_after_sign_out() {
    let (env, service, browser) = signed_in().await;
    let copy = browser.copy_at(&env.api);
    let session = service.store.all().await.remove(0);
    assert_eq!(browser.send(Method::POST, LOGOUT, &[SAME], "").await.status, 204);
    assert_eq!(copy.copy_at(&env.api).get("/me").await.status, 401);
    // Also if an older copy of the store is restored, while the access token is valid.
    service.store.create(session, &[]).await.unwrap();
    assert_eq!(copy.get("/me").await.status, 401);
}

#[tokio::test]
async fn cross_site_requests_are_refused() {
    let (_env, service, browser) = signed_in().await;
    let post = async |headers: &[(&str, &str)]| {
        browser.send(Method::POST, "/me", headers, "").await.status
    };
    assert_eq!(post(&[SAME]).await, 200);
    assert_eq!(post(&[("origin", "https://spa.example")]).await, 200);
    for forged in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[],
    ] {
        assert_eq!(post(forged).await, 403, "{forged:?}");
    }
    let socket = [("sec-websocket-key", "x"), ("origin", "https://evil.example")];
    assert_eq!(browser.send(Method::GET, "/me", &socket, "").await.status, 403);
    let followed = browser.send(Method::GET, "/me", &[("sec-fetch-site", "cross-site")], "").await;
    assert_eq!(followed.status, 200);
    // Without a session there is no check.
    let ids: Vec<SessionId> = service.store.all().await.iter().map(|it| it.id).collect();
    service.store.remove(&ids[0]).await.unwrap();
    assert_eq!(post(&[]).await, 401);
}

#[tokio::test]
async fn another_token_beside_session_is_refused() {
    let (env, _, browser) = signed_in().await;
    let other = format!("Bearer {}", env.provider.token().sign());
    let get =
        async |value: &str| browser.send(Method::GET, "/me", &[("authorization", value)], "").await;
    assert_eq!(get(&other).await.status, 400);
    assert_eq!(get(&other.replace("Bearer", "bEARER")).await.status, 400);
    assert_eq!(get("Basic cHJveHk6cHJveHk=").await.status, 200);
    browser.cookies.lock().unwrap().clear();
    assert_eq!(get(&other).await.status, 200);
}

#[tokio::test]
async fn newest_session_of_a_browser_counts() {
    let (env, service, one) = signed_in().await;
    env.clock.advance(MINUTE);
    let two = env.visitor();
    env.sign_in_as("alice", &two).await;
    one.cookies.lock().unwrap().extend(two.session_cookies());
    assert_eq!(one.get("/me").await.body, "alice-id ");
    // The newest one ended, so the one before is used.
    let newest = service.store.all().await[1].id;
    service.store.remove(&newest).await.unwrap();
    assert_eq!(one.get("/me").await.body, "bob-id ");
    assert_eq!(one.session_cookies().len(), 1, "the cookie of the ended session is cleared");
}

#[tokio::test]
async fn session_keys_are_replaced_without_restart() {
    let [old, new] = ["QUFB", "QkJC"].map(|part| part.repeat(12));
    let file = File::new("keys", &old);
    let service = Service { keys: SealingKeys::file(file.path()).unwrap(), ..Service::new() };
    let env = service.setup().build().await;
    let (first, mut browsers) = (sign_in(&env).await, Vec::new());
    for keys in [format!("{old},{new}"), format!("{new},{old}")] {
        file.write(&keys);
        env.clock.advance(super::seconds(10));
        assert_eq!(first.get("/me").await.status, 200);
        browsers.push(sign_in(&env).await);
    }
    // The sessions of both keys are listed and ended together.
    let listed = first.get(super::SESSIONS).await.json();
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 3);
    let path = format!("{}?others=true", super::SESSIONS);
    let ended = first.send(Method::DELETE, &path, &[SAME], "").await;
    assert_eq!(ended.json()["ended"], 2);
    file.write(&new);
    env.clock.advance(super::seconds(10));
    assert_eq!(first.get("/me").await.status, 401);
}
