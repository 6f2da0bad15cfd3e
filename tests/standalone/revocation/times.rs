//! When a revocation counts: `iat`, clocks, and the end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scaikey_auth::clock::Clock;
use scaikey_auth::revocation::Revocation;
use scaikey_auth::testing::{ManualClock, TokenBuilder, identity};
use serde_json::json;

use super::Revocable;

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn new_sign_in_works_again() {
    let service = Revocable::new().await;
    let old = service.token().subject("alice").sign();
    service.revoke(Revocation::subject(service.issuer(), "alice")).await;
    assert_eq!(service.status(&old).await, 401);
    service.advance(4);
    let early = service.token().subject("alice").sign();
    assert_eq!(service.status(&early).await, 401, "within the leeway");
    service.advance(1);
    let new = service.token().subject("alice").sign();
    assert_eq!(service.status(&new).await, 200);
    for token in [old, early] {
        assert_eq!(service.status(&token).await, 401);
    }
}

/// A change to the claims of a token, and a time in seconds.
type Change = fn(TokenBuilder, u64) -> TokenBuilder;

#[tokio::test]
async fn time_of_issue_decides() {
    const HOUR: u64 = 3600;
    let service = Revocable::with(|builder| builder.leeway(Duration::ZERO)).await;
    let now = seconds(service.now());
    let before = service.now() - Duration::from_secs(HOUR);
    service.revoke(Revocation::subject(service.issuer(), "alice").issued_before(before)).await;
    let rows: [(Change, u64, u16); 6] = [
        (|token, at| token.claim("iat", at), now, 200),
        (|token, at| token.claim("iat", at), now - HOUR, 200),
        (|token, at| token.claim("iat", at), now - HOUR - 1, 401),
        (|token, at| token.claim("iat", at as f64 - 0.5), now - HOUR, 401),
        (|token, _| token.claim("iat", 0), now, 401),
        // A token that does not say when it was issued.
        (|token, _| token.without("iat"), now, 401),
    ];
    for (nth, (change, at, expected)) in rows.into_iter().enumerate() {
        let token = change(service.token().subject("alice"), at).sign();
        assert_eq!(service.status(&token).await, expected, "{nth}");
    }
}

#[tokio::test]
async fn token_and_session_ignore_time_of_issue() {
    let service = Revocable::new().await;
    let issuer = service.issuer();
    let long_ago = UNIX_EPOCH + Duration::from_secs(1);
    service.revoke(Revocation::token(&*issuer, "t").issued_before(long_ago)).await;
    let session = Revocation::session(&*issuer, "s").of_subject("alice").issued_before(long_ago);
    service.revoke(session).await;
    service.advance(60);
    let token =
        |change: fn(TokenBuilder) -> TokenBuilder| change(service.token().subject("alice")).sign();
    assert_eq!(service.status(&token(|token| token.claim("jti", "t"))).await, 401);
    assert_eq!(service.status(&token(|token| token.claim("sid", "s"))).await, 401);
    assert_eq!(service.status(&token(|token| token)).await, 200, "without `sid`, issued later");
    assert_eq!(service.status(&token(|token| token.without("iat"))).await, 401);
}

#[tokio::test]
async fn future_event_is_one_of_now() {
    let service = Revocable::new().await;
    let future = service.now() + Duration::from_secs(86_400);
    service.revoke(Revocation::subject(service.issuer(), "alice").issued_before(future)).await;
    assert_eq!(service.status(&service.token().subject("alice").sign()).await, 401);
    service.advance(5);
    assert_eq!(service.status(&service.token().subject("alice").sign()).await, 200);
}

#[tokio::test]
async fn revocation_ends_with_longest_token() {
    let hour = Duration::from_secs(3600);
    let service = Revocable::with(|builder| builder.token_lifetime(hour)).await;
    let issuer = service.issuer();
    let token = |sid: &str| service.token().claim("sid", sid).expires_in(24 * hour).sign();
    service.revoke(Revocation::session(&*issuer, "default")).await;
    let until = |hours| service.now() + hours * hour;
    service.revoke(Revocation::session(&*issuer, "longer").until(until(2))).await;
    service.revoke(Revocation::session(&*issuer, "extended").until(until(2))).await;
    service.revoke(Revocation::session(&*issuer, "extended")).await;
    service.revoke(Revocation::session(&*issuer, "past").until(service.now())).await;
    let tokens = ["default", "longer", "extended", "past"].map(token);
    let statuses = async || {
        let mut found = Vec::new();
        for token in &tokens {
            found.push(service.status(token).await);
        }
        found
    };
    assert_eq!(statuses().await, [401, 401, 401, 200]);
    assert_eq!(service.auth.revocations().health().entries, 3);
    service.advance(3599);
    assert_eq!(statuses().await, [401, 401, 401, 200]);
    service.advance(1);
    assert_eq!(statuses().await, [200, 401, 401, 200]);
    service.advance(3600);
    assert_eq!(statuses().await, [200; 4]);
    // The next revocation removes what has ended.
    service.revoke(Revocation::session(&*issuer, "new")).await;
    assert_eq!(service.auth.revocations().health().entries, 1);
}

#[tokio::test]
async fn wall_clock_may_be_set_back() {
    let clock = ManualClock::new();
    let builder = scaikey_auth::revocation::Revocations::builder().clock(clock.clone());
    let revocations = builder.build();
    let now = clock.now();
    let claims = json!({ "iss": "https://a", "sub": "alice", "iat": seconds(now) });
    revocations.revoke(Revocation::subject("https://a", "alice")).await.unwrap();
    clock.set_wall(now - Duration::from_secs(3600));
    assert!(revocations.is_revoked(&identity(claims.clone())));
    revocations.revoke(Revocation::subject("https://a", "alice")).await.unwrap();
    assert!(revocations.is_revoked(&identity(claims)), "the stronger one is in force");
}
