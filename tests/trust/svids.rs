//! JWT-SVIDs: tokens of a SPIFFE trust domain, whose keys come from a bundle.

use std::time::Duration;

use scaikey_auth::config::Algorithm;
use scaikey_auth::identity::Scopes;
use scaikey_auth::testing::{
    Fault, ManualClock, Provider, ProviderEndpoint, SigningKey, TestIssuer, TokenBuilder,
};
use scaikey_auth::trust::{TrustEvaluator, TrustPolicy};
use serde_json::{Value, json};

use super::fixture::{ask, bare, evaluator, grant, platform, policy, trust, why};
use crate::support::{File, Log, Server, Spy, World};

const REPORTER: &str = "spiffe://prod.acme.example/ns/reports/sa/reporter";

/// The control plane of a trust domain: its bundle endpoint, and the signer of its workloads' tokens.
async fn control_plane(clock: &ManualClock) -> Provider {
    let plane = platform(clock).await;
    plane.set_cache_control(None);
    publish(&plane, |bundle| bundle);
    plane
}

/// Publishes the keys as a SPIFFE bundle, changed by `change`.
fn publish(plane: &TestIssuer, change: impl Fn(Value) -> Value + Send + Sync + 'static) {
    let fault = Fault::rewrite(move |set| change(bundle(set)).to_string());
    plane.fail(ProviderEndpoint::Jwks, fault);
}

/// Makes a SPIFFE bundle of a key set.
fn bundle(mut set: Value) -> Value {
    for key in set["keys"].as_array_mut().unwrap() {
        key["use"] = "jwt-svid".into();
        key.as_object_mut().unwrap().remove("alg");
    }
    set["spiffe_sequence"] = 7.into();
    set
}

/// A JWT-SVID of the reporter for `scaivault`: without `iss` and `iat`, valid for five minutes.
fn svid(plane: &TestIssuer) -> TokenBuilder {
    let token = bare(plane).subject(REPORTER).typ(None).expires_in(Duration::from_secs(300));
    ["iss", "iat", "nbf", "jti", "scope"].into_iter().fold(token, TokenBuilder::without)
}

/// The trust for the trust domain `prod.acme.example`, with its bundle at the plane's endpoint.
fn mesh(plane: &TestIssuer, more: &str) -> String {
    domain(
        "mesh",
        "prod.acme.example",
        &format!("bundle = {{ url = \"{}\" }}\n{more}", plane.jwks_uri()),
    )
}

fn domain(id: &str, name: &str, more: &str) -> String {
    format!(
        "[[trust]]\nid = \"{id}\"\ntrust_domain = \"{name}\"\nallow_loopback_http = true\naudiences = [\"scaivault\"]\n{more}\n"
    )
}

fn reporter() -> String {
    grant("reporting", &format!("subject = \"{REPORTER}\""))
}

fn trusts(clock: &ManualClock, plane: &TestIssuer) -> TrustEvaluator {
    evaluator(clock, &[mesh(plane, ""), reporter()])
}

/// Returns the logged reason for denying a token of the trust with this id.
async fn why_named(evaluator: &TrustEvaluator, id: &str, token: &str) -> &'static str {
    match evaluator.evaluate(token, Some(id), &Scopes::new()).await {
        Ok(granted) => panic!("granted: {granted:?}"),
        Err(denied) => denied.reason().as_str(),
    }
}

#[tokio::test]
async fn svid_becomes_its_workload() {
    let clock = ManualClock::new();
    let plane = control_plane(&clock).await;
    let evaluator = trusts(&clock, &plane);
    let issued = || svid(&plane).claim("iss", "https://oidc.acme.example");
    let accepted = [
        svid(&plane),
        svid(&plane).typ(Some("JWT")),
        svid(&plane).typ(Some("JOSE")),
        svid(&plane).kid(None),
        svid(&plane).claim("iat", bare_iat(&plane)),
        svid(&plane).claim("aud", ["scaivault"].as_slice()),
        svid(&plane).claim("aud", ["other", "scaivault"].as_slice()),
        issued(),
        issued().claim("iss", plane.issuer()),
        issued().claim("iss", "spiffe://other.example"),
    ];
    for token in accepted {
        let granted = ask(&evaluator, &token.sign()).await.unwrap();
        assert_eq!(granted.identity, "sa:mesh:reporting");
        assert_eq!(granted.workload.subject(), REPORTER);
        // Not the `iss` of the token: the keys of the trust domain have signed it.
        assert_eq!(granted.workload.issuer(), "spiffe://prod.acme.example");
    }
}

fn bare_iat(plane: &TestIssuer) -> Value {
    let token = bare(plane).sign();
    let claims: Value = scaikey_auth::validator::insecure_decode_claims(&token).unwrap();
    claims["iat"].clone()
}

#[tokio::test]
async fn every_algorithm_of_rfc7518_verifies() {
    let clock = ManualClock::new();
    let plane = control_plane(&clock).await;
    let evaluator = trusts(&clock, &plane);
    use Algorithm::{ES256, ES384, ES512, PS256, PS384, PS512, RS256, RS384, RS512};
    for algorithm in [RS256, RS384, RS512, ES256, ES384, ES512, PS256, PS384, PS512] {
        let token = svid(&plane).algorithm(algorithm).sign();
        clock.advance(Duration::from_secs(30)); // for the fetch of the new key
        ask(&evaluator, &token).await.unwrap_or_else(|denied| panic!("{algorithm}: {denied}"));
    }
}

#[tokio::test]
async fn tokens_that_are_no_svids_are_denied() {
    let clock = ManualClock::new();
    let plane = control_plane(&clock).await;
    let ed25519 = SigningKey::generate(Algorithm::Ed25519);
    let jwk = ed25519.jwk();
    publish(&plane, move |mut bundle| {
        let mut key = jwk.clone();
        key["use"] = "jwt-svid".into();
        bundle["keys"].as_array_mut().unwrap().push(key);
        bundle
    });
    let evaluator = trusts(&clock, &plane);
    ask(&evaluator, &svid(&plane).sign()).await.unwrap();
    let day = Duration::from_secs(24 * 3600);
    let table = [
        ("an access token", svid(&plane).typ(Some("at+jwt")), "token_type"),
        ("a WIT-SVID", svid(&plane).typ(Some("wit+jwt")), "token_type"),
        ("an empty type", svid(&plane).typ(Some("")), "token_type"),
        ("a header of certificates", svid(&plane).header("x5t", "AAAA"), "token_malformed"),
        ("a header with a URL", svid(&plane).header("jku", "https://evil"), "token_malformed"),
        ("a private header", svid(&plane).header("tenant", "acme"), "token_malformed"),
        ("a critical header", svid(&plane).header("crit", json!(["exp"])), "token_malformed"),
        ("EdDSA", svid(&plane).signed_by(&ed25519), "token_algorithm"),
        ("no algorithm", svid(&plane).header("alg", "none"), "token_algorithm"),
        ("a MAC", svid(&plane).header("alg", "HS256"), "token_algorithm"),
        ("no audience", svid(&plane).without("aud"), "token_claim_missing"),
        ("an empty audience", svid(&plane).claim("aud", json!([])), "token_audience"),
        ("another audience", svid(&plane).audience("scaidrive"), "token_audience"),
        ("no expiry", svid(&plane).without("exp"), "token_claim_missing"),
        ("an expiry in the past", svid(&plane).claim("exp", 1), "token_expired"),
        ("a start in the future", svid(&plane).not_before(day), "token_not_yet_valid"),
        ("more than a day", svid(&plane).expires_in(day + day), "token_lifetime"),
        (
            "a bound key",
            svid(&plane).claim("cnf", json!({ "jkt": "A".repeat(43) })),
            "token_unproven",
        ),
        ("no subject", svid(&plane).without("sub"), "token_claim_missing"),
        ("another trust domain", svid(&plane).subject("spiffe://other.example/a"), "token_issuer"),
        (
            "a longer trust domain",
            svid(&plane).subject("spiffe://prod.acme.example.evil/a"),
            "token_issuer",
        ),
        ("a shorter trust domain", svid(&plane).subject("spiffe://acme.example/a"), "token_issuer"),
    ];
    for (kind, token, expected) in table {
        assert_eq!(why_named(&evaluator, "mesh", &token.sign()).await, expected, "{kind}");
    }
}

#[tokio::test]
async fn subject_must_be_a_strict_id() {
    let clock = ManualClock::new();
    let plane = control_plane(&clock).await;
    let rule = grant("any", "claims = { team = { eq = \"a\" } }");
    let evaluator = evaluator(&clock, &[mesh(&plane, ""), rule]);
    let token = |subject: &str| svid(&plane).subject(subject).claim("team", "a").sign();
    ask(&evaluator, &token(REPORTER)).await.unwrap();
    for subject in [
        "",
        "reporter",
        "spiffe://prod.acme.example",
        "spiffe://prod.acme.example/",
        "SPIFFE://prod.acme.example/a",
        "spiffe://PROD.acme.example/a",
        "spiffe://user@prod.acme.example/a",
        "spiffe://prod.acme.example:443/a",
        "spiffe://prod.acme.example/a?b",
        "spiffe://prod.acme.example/a#b",
        "spiffe://prod.acme.example/a%2Fb",
        "spiffe://prod.acme.example//a",
        "spiffe://prod.acme.example/a/",
        "spiffe://prod.acme.example/./a",
        "spiffe://prod.acme.example/a/../b",
        "https://prod.acme.example/a",
        &format!("spiffe://prod.acme.example/{}", "a".repeat(2048)),
    ] {
        let token = token(subject);
        let expected = "token_claim_malformed";
        assert_eq!(why_named(&evaluator, "mesh", &token).await, expected, "{subject:?}");
        assert_eq!(why(&evaluator, &token).await, "token_claim_missing", "{subject:?}");
    }
    let token = svid(&plane).claim("sub", json!([REPORTER])).claim("team", "a").sign();
    assert_eq!(why_named(&evaluator, "mesh", &token).await, "token_claim_malformed");
}

#[tokio::test]
async fn key_signs_for_its_trust_domain_only() {
    let clock = ManualClock::new();
    let (prod, stage) = (control_plane(&clock).await, control_plane(&clock).await);
    let other = domain(
        "stage",
        "stage.acme.example",
        &format!("bundle = {{ url = \"{}\" }}", stage.jwks_uri()),
    );
    let rule = grant("any", "subject = \"spiffe://stage.acme.example/ns/reports/sa/reporter\"");
    let evaluator = evaluator(&clock, &[mesh(&prod, ""), reporter(), other, rule]);
    let of_stage = "spiffe://stage.acme.example/ns/reports/sa/reporter";
    assert_eq!(ask(&evaluator, &svid(&prod).sign()).await.unwrap().trust, "mesh");
    let token = svid(&stage).subject(of_stage).sign();
    assert_eq!(ask(&evaluator, &token).await.unwrap().trust, "stage");

    let forged = svid(&stage);
    assert_eq!(why(&evaluator, &forged.clone().sign()).await, "token_key_unknown");
    let forged = forged.kid(Some(&prod.kid()));
    assert_eq!(why(&evaluator, &forged.sign()).await, "token_signature");
    // Naming the trust of the key does not help, either.
    assert_eq!(why_named(&evaluator, "stage", &svid(&stage).sign()).await, "token_issuer");
}

#[tokio::test]
async fn issuer_claim_selects_no_trust_domain() {
    let clock = ManualClock::new();
    let (plane, cluster) = (control_plane(&clock).await, platform(&clock).await);
    let rule = grant("pod", "claims = { pod = { eq = \"a\" } }");
    let evaluator =
        evaluator(&clock, &[mesh(&plane, ""), reporter(), trust("k8s", &cluster, ""), rule]);
    // The cluster signs the SPIFFE ID of a workload, with and without its own `iss`.
    let forged = svid(&cluster).claim("pod", "a");
    assert_eq!(why(&evaluator, &forged.clone().sign()).await, "token_key_unknown");
    let forged = forged.issuer(&cluster.issuer()).claim("iat", bare_iat(&cluster));
    assert_eq!(why(&evaluator, &forged.clone().sign()).await, "trust_ambiguous");
    assert_eq!(why_named(&evaluator, "mesh", &forged.clone().sign()).await, "token_key_unknown");
    // Its own trust knows the token, which the rule decides about.
    let granted = evaluator.evaluate(&forged.sign(), Some("k8s"), &Scopes::new()).await.unwrap();
    assert_eq!((&*granted.trust, granted.workload.issuer()), ("k8s", &*cluster.issuer()));
    // The name of the trust domain as `iss` is no issuer.
    let named = bare(&plane).issuer("spiffe://prod.acme.example").sign();
    assert_eq!(why(&evaluator, &named).await, "trust_none");
    let wrong = svid(&plane).claim("iss", 7).sign();
    assert_eq!(why(&evaluator, &wrong).await, "token_claim_malformed");
}

#[tokio::test]
async fn only_svid_keys_of_bundle_count() {
    let clock = ManualClock::new();
    let plane = control_plane(&clock).await;
    let keys =
        ["x509", "sig", "none", "nameless"].map(|kid| SigningKey::with_kid(Algorithm::ES256, kid));
    let jwks = keys.clone().map(|key| key.jwk());
    publish(&plane, move |mut bundle| {
        let [mut x509, sig, mut none, mut nameless] = jwks.clone();
        x509["use"] = "x509-svid".into();
        none.as_object_mut().unwrap().remove("use");
        nameless["use"] = "jwt-svid".into();
        nameless.as_object_mut().unwrap().remove("kid");
        let unknown = json!({ "kty": "future", "use": "jwt-svid", "kid": "future" });
        let other = json!({ "kty": "future", "use": "future-svid" });
        let list = bundle["keys"].as_array_mut().unwrap();
        list.extend([x509, sig, none, nameless, unknown, other, json!(7)]);
        bundle
    });
    let evaluator = trusts(&clock, &plane);
    ask(&evaluator, &svid(&plane).sign()).await.unwrap();
    for key in &keys {
        let reason = why(&evaluator, &svid(&plane).signed_by(key).sign()).await;
        assert_eq!(reason, "token_key_unknown", "{}", key.kid());
    }
    let (_, health) = evaluator.health().remove(0);
    assert_eq!(health.issuer, "spiffe://prod.acme.example");
    assert_eq!(health.keys, 1);
    // Keys for other documents are expected in a bundle, so only these are reported.
    let reported: Vec<_> = health.unusable.iter().map(|key| key.kid.as_deref()).collect();
    assert_eq!(reported, [Some("none"), None, Some("future"), None]);
}

#[tokio::test]
async fn empty_bundle_revokes_all_keys() {
    let clock = ManualClock::new();
    let plane = control_plane(&clock).await;
    let evaluator = trusts(&clock, &plane);
    let day = Duration::from_secs(24 * 3600);
    let token = svid(&plane).expires_in(day).sign();
    ask(&evaluator, &token).await.unwrap();
    publish(&plane, |mut bundle| {
        bundle["keys"] = json!([]);
        bundle
    });
    refresh(&clock, &plane, &evaluator).await;
    assert_eq!(why(&evaluator, &token).await, "token_key_unknown");
    // Keys that cannot be read are a fault: the previous keys stay.
    publish(&plane, |bundle| bundle);
    refresh(&clock, &plane, &evaluator).await;
    ask(&evaluator, &token).await.unwrap();
    publish(&plane, |mut bundle| {
        bundle["keys"][0]["x"] = "AA".into();
        bundle
    });
    refresh(&clock, &plane, &evaluator).await;
    ask(&evaluator, &token).await.unwrap();
    let error = evaluator.health().remove(0).1.last_error.unwrap();
    assert!(error.contains("none of the 1 keys"), "{error}");
}

/// Lets the keys become old, and waits until they were fetched again.
async fn refresh(clock: &ManualClock, plane: &Provider, evaluator: &TrustEvaluator) {
    let before = plane.jwks_requests();
    clock.advance(Duration::from_secs(400));
    evaluator.health();
    plane.wait_for_jwks_requests(before + 1).await;
    settled(evaluator).await;
}

/// Waits until the fetch that is running has ended.
async fn settled(evaluator: &TrustEvaluator) {
    use scaikey_auth::issuer::KeyState::{Fresh, Stale};
    while !matches!(evaluator.health()[0].1.state, Fresh | Stale) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn plain_key_set_needs_the_field_jwks() {
    let clock = ManualClock::new();
    let plane = platform(&clock).await;
    let with = |field: &str| {
        let keys = format!("{field} = {{ url = \"{}\" }}", plane.jwks_uri());
        evaluator(&clock, &[domain("mesh", "prod.acme.example", &keys), reporter()])
    };
    let token = svid(&plane).sign();
    // With `use: sig` and `alg`, and without both.
    ask(&with("jwks"), &token).await.unwrap();
    let log = Log::start();
    assert_eq!(why(&with("bundle"), &token).await, "token_key_unknown");
    assert!(log.text().contains("a plain key set belongs into `jwks`"), "{}", log.text());
    plane.fail(
        ProviderEndpoint::Jwks,
        Fault::rewrite(|mut set| {
            for key in set["keys"].as_array_mut().unwrap() {
                ["use", "alg"]
                    .iter()
                    .for_each(|name| drop(key.as_object_mut().unwrap().remove(*name)));
            }
            set.to_string()
        }),
    );
    ask(&with("jwks"), &token).await.unwrap();
    let evaluator = with("bundle");
    assert_eq!(why(&evaluator, &token).await, "unavailable");
    let error = evaluator.health().remove(0).1.last_error.unwrap();
    assert!(error.contains("it has no `use`; a SPIFFE bundle marks"), "{error}");
    // The other way round: the keys of a bundle are for no plain key set.
    publish(&plane, |bundle| bundle);
    assert_eq!(why(&with("jwks"), &token).await, "unavailable");
}

#[tokio::test]
async fn hint_sets_time_of_refresh() {
    let clock = ManualClock::new();
    let seconds = Duration::from_secs;
    // The hint, a time at which the keys are fresh, and one at which they are due (± 10 %).
    for (hint, fresh, due) in [
        (json!(120), 100, 140),
        (json!(1), 50, 70),
        (json!(86_400), 3200, 4000),
        (json!(0), 260, 340),
        (json!(-5), 260, 340),
        (json!("120"), 260, 340),
        (Value::Null, 260, 340),
    ] {
        let plane = control_plane(&clock).await;
        publish(&plane, {
            let hint = hint.clone();
            move |mut bundle| {
                bundle["spiffe_refresh_hint"] = hint.clone();
                bundle
            }
        });
        // A hint counts more than HTTP's.
        plane.set_cache_control(hint.as_u64().filter(|hint| *hint > 0).map(|_| "max-age=600"));
        let evaluator = trusts(&clock, &plane);
        ask(&evaluator, &svid(&plane).sign()).await.unwrap();
        let state = || evaluator.health()[0].1.state;
        use scaikey_auth::issuer::KeyState::{Due, Fresh};
        clock.advance(seconds(fresh));
        assert_eq!(state(), Fresh, "{hint}");
        clock.advance(seconds(due - fresh));
        assert_eq!(state(), Due, "{hint}");
    }
}

#[tokio::test]
async fn keys_rotate_and_survive_an_outage() {
    let clock = ManualClock::new();
    let mut plane = control_plane(&clock).await;
    let evaluator = trusts(&clock, &plane);
    let day = Duration::from_secs(24 * 3600 - 600);
    let token = |plane: &Provider| svid(plane).expires_in(day).sign();
    let old = token(&plane);
    let old_kid = plane.kid();
    ask(&evaluator, &old).await.unwrap();
    plane.rotate();
    let new = token(&plane);
    ask(&evaluator, &new).await.unwrap();
    ask(&evaluator, &old).await.unwrap();
    plane.remove_key(&old_kid);
    refresh(&clock, &plane, &evaluator).await;
    assert_eq!(why(&evaluator, &old).await, "token_key_unknown");

    plane.pause().await;
    clock.advance(Duration::from_secs(12 * 3600));
    ask(&evaluator, &new).await.unwrap();
    clock.advance(Duration::from_secs(13 * 3600));
    let fresh = token(&plane);
    assert_eq!(why(&evaluator, &fresh).await, "unavailable");
    plane.resume().await;
    clock.advance(Duration::from_secs(120));
    ask(&evaluator, &token(&plane)).await.unwrap();
}

#[tokio::test]
async fn older_bundle_is_used_and_logged() {
    let clock = ManualClock::new();
    let plane = control_plane(&clock).await;
    let evaluator = trusts(&clock, &plane);
    ask(&evaluator, &svid(&plane).sign()).await.unwrap();
    let log = Log::start();
    refresh(&clock, &plane, &evaluator).await;
    assert!(!log.text().contains("spiffe_sequence"), "{}", log.text());
    publish(&plane, |mut bundle| {
        bundle["spiffe_sequence"] = 3.into();
        bundle
    });
    refresh(&clock, &plane, &evaluator).await;
    let warnings = log.lines("WARN");
    assert!(warnings.len() == 1 && warnings[0].contains("spiffe_sequence of the bundle went back"));
    assert!(warnings[0].contains("sequence=3 previous=7"), "{warnings:?}");
    ask(&evaluator, &svid(&plane).sign()).await.unwrap();
}

#[tokio::test]
async fn bundle_file_is_read_again() {
    let clock = ManualClock::new();
    let plane = platform(&clock).await;
    let text = |set: Value| {
        let mut bundle = bundle(set);
        bundle["spiffe_refresh_hint"] = 3600.into();
        bundle.to_string()
    };
    let file = File::new("bundle.json", &text(plane.jwks()));
    let keys = format!("bundle = {{ file = \"{}\" }}", file.path_text());
    let parts = [domain("mesh", "prod.acme.example", &keys), reporter()];
    let evaluator = evaluator(&clock, &parts);
    ask(&evaluator, &svid(&plane).sign()).await.unwrap();
    let old = plane.kid();
    plane.rotate();
    file.write(&text(plane.jwks()));
    ask(&evaluator, &svid(&plane).sign()).await.unwrap();
    let token = svid(&plane).expires_in(Duration::from_secs(3600)).signed_by(&plane.key()).sign();
    plane.remove_key(&old);
    plane.rotate();
    plane.remove_old_keys();
    file.write(&text(plane.jwks()));
    // A file is read more often than its hint says.
    clock.advance(Duration::from_secs(400));
    evaluator.health();
    settled(&evaluator).await;
    assert_eq!(why(&evaluator, &token).await, "token_key_unknown");

    let build = || TrustEvaluator::builder().policy(policy(&parts)).build();
    let fault = |text: Option<&str>| {
        match text {
            Some(text) => file.write(text),
            None => file.remove(),
        }
        build().unwrap_err().faults()[0].to_string()
    };
    let secret =
        json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0", "use": "jwt-svid", "kid": "a" }] });
    let faults = [
        fault(Some("<html>")),
        fault(Some(&secret.to_string())),
        fault(Some(&json!({ "keys": [{ "kty": "EC", "kid": "a" }] }).to_string())),
        fault(None),
    ];
    let expected = [
        "the key set is not a JSON object",
        "has a private or symmetric key",
        "it has no `use`",
        "cannot be used: No such file",
    ];
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.starts_with("line 6, column 10: trust.mesh.bundle "), "{fault}");
        assert!(fault.contains(&file.path_text()) && fault.contains(expected), "{fault}");
        assert!(!fault.contains("c2VjcmV0"), "{fault}");
    }
    // The trust domain has no key now: that is valid.
    file.write(r#"{"keys":[]}"#);
    let evaluator = TrustEvaluator::builder().policy(policy(&parts)).clock(clock.clone()).build();
    assert_eq!(why(&evaluator.unwrap(), &svid(&plane).sign()).await, "token_key_unknown");
}

#[tokio::test]
async fn pattern_matches_whole_segments_only() {
    let clock = ManualClock::new();
    let plane = control_plane(&clock).await;
    let parts = [
        mesh(&plane, ""),
        grant("exact", "subject = \"spiffe://prod.acme.example/ns/a\""),
        grant("any", "subject = \"spiffe://prod.acme.example/ns/reports/sa/*\""),
    ];
    let evaluator = evaluator(&clock, &parts);
    let token =
        |path: &str| svid(&plane).subject(&format!("spiffe://prod.acme.example{path}")).sign();
    assert_eq!(ask(&evaluator, &token("/ns/a")).await.unwrap().rule, "exact");
    assert_eq!(ask(&evaluator, &token("/ns/reports/sa/b")).await.unwrap().rule, "any");
    for path in
        ["/ns/ab", "/ns/a/b", "/x/ns/a", "/ns/A", "/ns", "/ns/reports/sa", "/ns/reports/sa/b/c"]
    {
        assert_eq!(why(&evaluator, &token(path)).await, "grant_none", "{path}");
    }
}

#[tokio::test]
async fn lifetime_and_reuse_are_limited() {
    let clock = ManualClock::new();
    let plane = control_plane(&clock).await;
    let limited = evaluator(&clock, &[mesh(&plane, "max_lifetime = \"10m\""), reporter()]);
    let token = |seconds| svid(&plane).expires_in(Duration::from_secs(seconds));
    ask(&limited, &token(600).sign()).await.unwrap();
    assert_eq!(why(&limited, &token(660).sign()).await, "token_lifetime");
    let issued = token(300).claim("iat", bare_iat(&plane));
    clock.advance(Duration::from_secs(200));
    ask(&limited, &issued.clone().sign()).await.unwrap();

    let aged = evaluator(&clock, &[mesh(&plane, "max_age = \"1m\""), reporter()]);
    assert_eq!(why(&aged, &issued.sign()).await, "token_age");
    assert_eq!(why(&aged, &token(300).sign()).await, "token_lifetime");

    let once = evaluator(&clock, &[mesh(&plane, "single_use_jti = true"), reporter()]);
    assert_eq!(why(&once, &token(300).sign()).await, "jti_missing");
    let token = token(300).claim("jti", "a").sign();
    ask(&once, &token).await.unwrap();
    assert_eq!(why(&once, &token).await, "replayed");
}

#[tokio::test]
async fn svids_are_no_bearer_tokens() {
    let world = World::new().await;
    let auth = world.auth_with(world.issuer().audience("scaivault")).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let log = Log::start();
    let plane = &world.provider;
    let table = [
        ("a JWT-SVID", svid(plane), "token_claim_missing"),
        ("with `JOSE`", bare(plane).subject(REPORTER).typ(Some("JOSE")), "token_type"),
        ("a WIT-SVID", bare(plane).subject(REPORTER).typ(Some("wit+jwt")), "token_type"),
    ];
    for (kind, token, expected) in table {
        let answer = server.get_as("/", &token.sign()).await;
        assert_eq!((answer.status, &*answer.error().unwrap()), (401, "invalid_token"), "{kind}");
        assert!(log.text().contains(expected), "{kind}: {}", log.text());
    }
    assert_eq!(server.get_as("/", &plane.token().audience("scaivault").sign()).await.status, 200);
}

#[tokio::test]
async fn explanation_quotes_the_workload() {
    let clock = ManualClock::new();
    let plane = control_plane(&clock).await;
    let evaluator = trusts(&clock, &plane);
    let token = svid(&plane).subject("spiffe://prod.acme.example/ns/x");
    let explained = evaluator.explain(&token.sign(), None).await.to_string();
    assert_eq!(
        explained,
        format!(
            "trust `mesh`: the token's signature, audience and times are valid\n\
             rule `reporting`: does not match: `sub` is \"spiffe://prod.acme.example/ns/x\", but the rule requires \"{REPORTER}\"\n\
             denied: no rule matches"
        )
    );
    let token = svid(&plane).subject("spiffe://prod.acme/ns/x").sign();
    let explained = evaluator.explain(&token, None).await.to_string();
    assert!(
        explained
            .contains("the token's `iss` is absent\nthe token's `sub` is \"spiffe://prod.acme/")
    );
}

#[test]
fn trust_domain_survives_json_round_trip() {
    let url = "bundle = { url = \"https://bundle.acme.example\", ca_file = \"/etc/ca.pem\" }";
    let file = "bundle = { file = \"/run/spiffe/bundle.json\" }\nalgorithms = [\"ES256\"]";
    let set = "jwks = { url = \"https://oidc.acme.example/keys\" }";
    for more in [url, file, set] {
        let more = format!("{more}\nmax_lifetime = \"1h\"");
        let policy = policy(&[domain("mesh", "prod.acme.example", &more), reporter()]);
        let text = serde_json::to_string(&policy).unwrap();
        assert!(text.contains("\"trust_domain\":\"prod.acme.example\""), "{text}");
        assert_eq!(TrustPolicy::from_json(&text).unwrap(), policy);
    }
}

#[tokio::test]
async fn trust_domain_is_compared_exactly() {
    let clock = ManualClock::new();
    let plane = control_plane(&clock).await;
    let evaluator = trusts(&clock, &plane);
    for subject in [
        "spiffe://prod.acme.example.evil/a",
        "spiffe://prod.acme.exampl/a",
        "spiffe://acme.example/a",
    ] {
        assert_eq!(
            why(&evaluator, &svid(&plane).subject(subject).sign()).await,
            "trust_none",
            "{subject}"
        );
    }
}
