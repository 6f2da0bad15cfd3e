//! Two clusters with one issuer string: each is believed by its own keys only.

use scaikey_auth::Scopes;
use scaikey_auth::testing::{Issuer, ManualClock, SigningKey};

use super::support::{ask, platform, pod, reporter, trust_called, trusts, why};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn cluster(id: &str, issuer: &Issuer, audience: &str, more: &str) -> String {
    let audiences = format!("audiences = [\"{audience}\"]");
    trust_called(ISSUER, id, issuer, more).replace("audiences = [\"scaivault\"]", &audiences)
}

#[tokio::test]
async fn an_audience_of_its_own_leads_a_token_to_its_cluster() {
    let clock = ManualClock::new();
    let (eu, us) = (platform(&clock).await, platform(&clock).await);
    // The same name for both keys: only the trust tells them apart.
    for issuer in [&eu, &us] {
        issuer.adopt(SigningKey::with_kid(scaikey_auth::Algorithm::ES256, "k1"));
    }
    let parts = [
        cluster("eu", &eu, "scaivault-eu", ""),
        reporter(),
        cluster("us", &us, "scaivault-us", ""),
        reporter(),
    ];
    let trusts = trusts(&clock, &parts);
    let token = |by: &Issuer, audience: &str| pod(by).issuer(ISSUER).audience(audience).sign();
    for _ in 0..2 {
        assert_eq!(ask(&trusts, &token(&eu, "scaivault-eu")).await.unwrap().trust, "eu");
        assert_eq!(ask(&trusts, &token(&us, "scaivault-us")).await.unwrap().trust, "us");
        // One cluster's signature under the other's name.
        assert_eq!(why(&trusts, &token(&us, "scaivault-eu")).await, "token_signature");
        assert_eq!(why(&trusts, &token(&eu, "scaivault-us")).await, "token_signature");
    }
    let both = pod(&eu).issuer(ISSUER).claim("aud", ["scaivault-eu", "scaivault-us"].as_slice());
    assert_eq!(why(&trusts, &both.clone().sign()).await, "trust_ambiguous");
    let named = trusts.evaluate(&both.sign(), Some("eu"), &Scopes::new()).await;
    assert_eq!(named.unwrap().trust, "eu");
}

#[tokio::test]
async fn with_one_audience_the_caller_says_which_cluster_is_meant() {
    let clock = ManualClock::new();
    let (eu, us) = (platform(&clock).await, platform(&clock).await);
    let parts = [
        cluster("eu", &eu, "scaivault", "named_only = true"),
        reporter(),
        cluster("us", &us, "scaivault", "named_only = true"),
        reporter(),
    ];
    let trusts = trusts(&clock, &parts);
    let all = Scopes::new();
    let of_us = pod(&us).issuer(ISSUER).sign();
    let named = trusts.evaluate(&of_us, Some("us"), &all).await;
    assert_eq!(named.unwrap().identity, "sa:us:reporting");
    let wrong = trusts.evaluate(&of_us, Some("eu"), &all).await.unwrap_err();
    assert_eq!(wrong.reason().as_str(), "token_key_unknown");
    let stranger = trusts.evaluate(&of_us, Some("../eu\n"), &all).await.unwrap_err();
    assert_eq!(stranger.reason().as_str(), "trust_unknown");
    assert_eq!(why(&trusts, &of_us).await, "trust_none");
    // Who names a trust does not get around its issuer.
    let elsewhere = pod(&us).sign();
    let other = trusts.evaluate(&elsewhere, Some("us"), &all).await.unwrap_err();
    assert_eq!(other.reason().as_str(), "token_issuer");
}

#[tokio::test]
async fn keys_in_the_policy_are_asked_of_nobody() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let inline = |set: &str| {
        format!(
            "[[trust]]\nid = \"k8s\"\nissuer = \"{ISSUER}\"\naudiences = [\"scaivault\"]\njwks = {{ inline = '''{set}''' }}\n"
        )
    };
    let trusts = trusts(&clock, &[inline(&cluster.jwks().to_string()), reporter()]);
    let token = || pod(&cluster).issuer(ISSUER);
    assert!(ask(&trusts, &token().sign()).await.is_ok());
    // As an idle service meets it: long after, and with a key it does not know.
    clock.advance(std::time::Duration::from_secs(40 * 24 * 3600));
    assert!(ask(&trusts, &token().sign()).await.is_ok());
    let strange = SigningKey::generate(scaikey_auth::Algorithm::ES256);
    for _ in 0..5 {
        assert_eq!(why(&trusts, &token().signed_by(&strange).sign()).await, "token_key_unknown");
    }
    assert_eq!((cluster.fetches(), cluster.discoveries(), cluster.strays()), (0, 0, 0));
}
