//! The number of entries is bounded, and none is forgotten early.

use std::time::Duration;

use scaikey_auth::revocation::{Revocation, RevokeError};
use serde_json::json;

use super::Revocable;

#[tokio::test]
async fn full_index_refuses_further_revocations() {
    let hour = Duration::from_secs(3600);
    let service = Revocable::with(|builder| builder.max_entries(2).token_lifetime(hour)).await;
    let (issuer, revocations) = (service.issuer(), service.auth.revocations());
    let session = |sid: &str| Revocation::session(&*issuer, sid);
    service.revoke(session("one")).await;
    service.revoke(session("two")).await;
    for _ in 0..3 {
        let error = revocations.revoke(session("three")).await.unwrap_err();
        assert!(matches!(error, RevokeError::Full), "{error}");
    }
    // Those in force can be repeated, and stay.
    service.revoke(session("one")).await;
    for (sid, status) in [("one", 401), ("two", 401), ("three", 200)] {
        let token = service.token().claim("sid", sid).sign();
        assert_eq!(service.status(&token).await, status, "{sid}");
    }
    assert_eq!(revocations.health().entries, 2);
    // Expired ones make room.
    service.advance(3600);
    service.revoke(session("three")).await;
    assert_eq!(revocations.health().entries, 1);
}

#[tokio::test]
async fn full_index_widens_sessions_to_subjects() {
    let service = Revocable::with(|builder| builder.max_entries(10)).await;
    let (issuer, revocations) = (service.issuer(), service.auth.revocations());
    let session = |subject: &str, n: u32| {
        Revocation::session(&*issuer, format!("{subject} {n}")).of_subject(subject)
    };
    // Six entries: five sessions, and the tokens without a session.
    for n in 0..5 {
        service.revoke(session("alice", n)).await;
    }
    service.revoke(Revocation::token(&*issuer, "t").of_subject("alice")).await;
    service.revoke(session("bob", 0)).await;
    service.revoke(Revocation::session(&*issuer, "without subject")).await;
    assert_eq!(revocations.health().entries, 10);
    assert_eq!(revocations.health().widened, 0);
    let token =
        |subject: &str, sid: &str| service.token().subject(subject).claim("sid", sid).sign();
    let (other, later) = (token("alice", "another"), token("bob", "another"));
    assert_eq!(service.status(&other).await, 200, "exact as long as there is room");
    service.revoke(session("carol", 0)).await;
    // Two of bob and seven of alice became one each.
    let health = revocations.health();
    assert_eq!((health.entries, health.widened), (5, 9));
    for token in [other, later, token("alice", "alice 3"), token("bob", "bob 0")] {
        assert_eq!(service.status(&token).await, 401);
    }
    for (subject, sid, status) in
        [("carol", "carol 0", 401), ("carol", "another", 200), ("dave", "without subject", 401)]
    {
        assert_eq!(service.status(&token(subject, sid)).await, status, "{subject} {sid}");
    }
    // A new sign-in works, as after the revocation of the subject.
    service.advance(10);
    assert_eq!(service.status(&token("alice", "new")).await, 200);
}

#[tokio::test]
async fn widened_entry_takes_further_sessions() {
    let service = Revocable::with(|builder| builder.max_entries(2)).await;
    let (issuer, revocations) = (service.issuer(), service.auth.revocations());
    let session = |subject: &str, n: u32| {
        Revocation::session(&*issuer, format!("{subject} {n}")).of_subject(subject)
    };
    service.revoke(session("alice", 0)).await;
    // Alice's two entries become one, and there is room for one of bob.
    service.revoke(session("bob", 0)).await;
    assert_eq!(revocations.health().entries, 2);
    for n in 1..4 {
        service.revoke(session("alice", n)).await;
        service.revoke(session("bob", n)).await;
        service.advance(60);
    }
    assert_eq!(revocations.health().entries, 2);
    let error = revocations.revoke(session("carol", 0)).await.unwrap_err();
    assert!(matches!(error, RevokeError::Full), "{error}");
    service.advance(10);
    for (subject, status) in [("alice", 200), ("bob", 200), ("carol", 200)] {
        let token = service.token().subject(subject).claim("sid", format!("{subject} 9")).sign();
        assert_eq!(service.status(&token).await, status, "{subject}: issued later");
    }
    let early = service.now() - Duration::from_secs(90);
    let iat = early.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for subject in ["alice", "bob"] {
        let token = service.token().subject(subject).claim("sid", format!("{subject} 3"));
        assert_eq!(service.status(&token.claim("iat", iat).sign()).await, 401, "{subject}");
    }
}

#[tokio::test]
async fn many_events_stay_within_the_limit() {
    const LIMIT: usize = 20_000;
    let service = Revocable::with(|builder| builder.max_entries(LIMIT)).await;
    let (issuer, revocations) = (service.issuer(), service.auth.revocations());
    let iat = service.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let identity = |subject: &str, sid: &str| {
        let claims = json!({ "iss": issuer, "sub": subject, "sid": sid, "iat": iat });
        scaikey_auth::testing::identity(claims)
    };
    let mut accepted = Vec::new();
    for n in 0..2 * LIMIT {
        // Half of them are of subjects with several sessions.
        let subject = format!("subject {}", if n % 2 == 0 { n } else { n % 1000 });
        let session = Revocation::session(&*issuer, format!("{n}")).of_subject(&*subject);
        if revocations.revoke(session).await.is_ok() {
            accepted.push((subject, n));
        }
        assert!(revocations.health().entries <= LIMIT);
    }
    assert!(accepted.len() > LIMIT * 3 / 2, "{}", accepted.len());
    for (subject, n) in &accepted {
        assert!(revocations.is_revoked(&identity(subject, &n.to_string())), "{subject} {n}");
    }
    assert!(!revocations.is_revoked(&identity("another", "another")));
    let token = service.token().subject("subject 0").claim("sid", "0").sign();
    assert_eq!(service.status(&token).await, 401, "the first is still in force");
}
