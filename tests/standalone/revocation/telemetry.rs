//! Logs and metrics of revocations: pseudonyms only.

use std::sync::Arc;
use std::time::Duration;

use scaikey_auth::revocation::{MemoryRevocationLog, Revocation};

use super::Revocable;
use crate::support::{Log, MetricsRecorder, World, eventually};

#[tokio::test]
async fn each_revocation_is_one_event() {
    let recorder = MetricsRecorder::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let logged = Log::start();
    let (world, log) = (Arc::new(World::new().await), MemoryRevocationLog::default());
    let follow = |builder: scaikey_auth::revocation::RevocationsBuilder| {
        builder.check_every(Duration::from_millis(5)).log(log.clone())
    };
    let [one, other] = [Revocable::of(&world, follow).await, Revocable::of(&world, follow).await];
    other.auth.ready().await.unwrap();
    let session = Revocation::session(one.issuer(), "sid-canary").of_subject("subject-canary");
    one.revoke(session).await;
    one.revoke(Revocation::subject(one.issuer(), "subject-canary")).await;
    let token = one.token().subject("subject-canary").sign();
    assert_eq!(one.status(&token).await, 401);
    // The revocations have arrived before the only request, so there is one refusal in each.
    eventually(async || other.auth.revocations().health().entries == 3).await;
    assert_eq!(other.status(&token).await, 401);
    let text = logged.text();
    assert!(!text.contains("canary"), "{text}");
    let events = |level: &str, kind: &str, from: &str| {
        let lines =
            text.lines().filter(|line| line.contains(" revoked kind=") && line.contains(level));
        let kind = format!("kind=\"{kind}\"");
        lines.filter(|line| line.contains(&kind) && line.ends_with(from)).count()
    };
    for kind in ["session", "subject"] {
        assert_eq!(events("INFO", kind, "from=\"here\""), 1, "{text}");
        assert_eq!(events("DEBUG", kind, "from=\"log\""), 1, "{text}");
        let name = "scaikey_auth_revocations_total";
        for from in ["here", "log"] {
            assert_eq!(recorder.sum_of(&[name, kind, from]), 1, "{:?}", recorder.series());
        }
    }
    assert_eq!(recorder.sum_of(&["scaikey_auth_refusals_total", "token_revoked"]), 2);
    let series = recorder.series().join("\n");
    assert!(series.contains("scaikey_auth_revocation_log_lag_seconds"), "{series}");
    assert!(series.contains("scaikey_auth_revocations_in_force"), "{series}");
}
