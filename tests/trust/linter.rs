//! Rejected policies: the faults, with their lines and texts.

use proptest::prelude::*;
use scaikey_auth::AuthConfig;
use scaikey_auth::testing::ManualClock;
use scaikey_auth::trust::{PolicyError, TrustEvaluator, TrustPolicy, presets};

use super::fixture::{grant, platform, policy, reporter, trust};

/// Cases: a title, a policy, and after `--` all of its faults.
const REJECTED: &str = include_str!("rejected.txt");

fn cases() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    REJECTED.split("## ").skip(1).map(|case| {
        let (title, rest) = case.split_once('\n').unwrap();
        let (policy, faults) = rest.split_once("\n--\n").unwrap();
        (title, policy, faults.trim_end())
    })
}

fn faults(result: Result<TrustPolicy, PolicyError>) -> String {
    match result {
        Ok(_) => "nothing".to_owned(),
        Err(error) => error.faults().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[test]
fn bad_policy_reports_all_faults_with_lines() {
    assert!(cases().count() > 60);
    let wrong: Vec<String> = cases()
        .filter_map(|(title, policy, expected)| {
            let found = faults(TrustPolicy::from_toml(policy));
            (found != expected).then(|| format!("## {title}\n{policy}\n--\n{found}\n\n"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} cases differ; they give:\n{}", wrong.len(), wrong.concat());
}

/// Rules with these subjects and identities, in one trust.
fn rules(rules: &[(&str, &str)]) -> String {
    let rule = |(nth, (subject, identity)): (usize, &(&str, &str))| {
        format!(
            "[[trust.grant]]\nname = \"g{nth}\"\nsubject = \"{subject}\"\n\
             map = {{ identity = \"{identity}\", tenant = \"t\", scopes = [\"a\"] }}\n"
        )
    };
    let rules = rules.iter().enumerate().map(rule).collect::<String>();
    format!(
        "[[trust]]\nid = \"k8s\"\nissuer = \"https://k8s.example\"\naudiences = [\"s\"]\n{rules}"
    )
}

#[test]
fn shared_identities_are_found_exactly() {
    let by_sub = "sa:{trust}:{sub}";
    // The subject of a rule that gives `sub`, that of one that gives `a:` before it, and whether both could give one.
    for (subject, after_a, is_shared) in [
        ("a:*", "xyz", true),
        ("a:*", "x:y", false),
        ("a:*", "x/y", false),
        ("a:*:c", "x:c", true),
        ("a:*:c", "x:d", false),
        ("a:*:c", "x:y:c", false),
        ("a:*:*", "x:*", true),
        ("a:*/*", "x:*", false),
        ("a:*:c:*", "b:*:d", true),
        ("b:*", "x", false),
        // Two fixed subjects are no pattern: who writes both means them.
        ("a:x", "x", false),
    ] {
        for is_reversed in [false, true] {
            let mut both = [(subject, by_sub), (after_a, "sa:{trust}:a:{sub}")];
            if is_reversed {
                both.reverse();
            }
            let found = faults(TrustPolicy::from_toml(&rules(&both)));
            let expected = "could be the identity of another workload by rule `g0`";
            assert_eq!(found.contains(expected), is_shared, "{both:?}: {found}");
            assert_eq!(found != "nothing", is_shared, "{both:?}: {found}");
        }
    }
}

#[test]
fn listed_identities_may_be_shared() {
    let rule = |name: &str, claim: &str| {
        format!(
            "[[trust.grant]]\nname = \"{name}\"\nsubject = \"s:{name}\"\nclaims = {{ {claim} = {{ one_of = [\"x\", \"y\"] }} }}\n\
             map = {{ identity = \"sa:{{trust}}:{{{claim}}}\", tenant = \"t\", scopes = [\"a\"] }}\n"
        )
    };
    // Who lists the values in both rules means those workloads.
    let text = format!("{}{}{}", rules(&[]), rule("a", "ns"), rule("b", "team"));
    assert_eq!(faults(TrustPolicy::from_toml(&text)), "nothing");
    let open = text.replace("claims = { team = { one_of = [\"x\", \"y\"] } }\n", "");
    let found = faults(TrustPolicy::from_toml(&open));
    assert!(found.contains("could be the identity of another workload by rule `a`"), "{found}");
}

#[test]
fn json_fault_has_its_line() {
    let text = r#"{
  "trust": [
    { "id": "k8s", "issuer": "https://k8s.example",
      "audience": ["scaivault"],
      "grant": [
        { "name": "g",
          "subject": "*" } ] } ]
}"#;
    let lines: Vec<_> =
        TrustPolicy::from_json(text).unwrap_err().faults().iter().map(|f| f.line).collect();
    assert_eq!(lines, [Some(3), Some(4), Some(6), Some(7)]);
}

#[test]
fn json_claim_order_does_not_matter() {
    let policy = |claims: &[&str]| {
        let rule = |(nth, claims): (usize, &&str)| {
            format!(
                r#"{{"name":"g{nth}","claims":{{{claims}}},"map":{{"identity":"sa:x","tenant":"t","scopes":["a"]}}}}"#
            )
        };
        let rules: Vec<_> = claims.iter().enumerate().map(rule).collect();
        TrustPolicy::from_json(&format!(
            r#"{{"trust":[{{"id":"k8s","issuer":"https://k8s.example","audiences":["s"],"grant":[{}]}}]}}"#,
            rules.join(",")
        ))
    };
    let one = r#""a":{"eq":"1"},"b":{"eq":"2"}"#;
    let other = r#""b":{"eq":"2"},"a":{"eq":"1"}"#;
    assert_eq!(policy(&[one]).unwrap(), policy(&[other]).unwrap());
    assert!(faults(policy(&[one, other])).contains("g1.name has the same conditions as `g0`"));
}

#[test]
fn preset_needs_every_placeholder_filled() {
    for (name, text) in presets::ALL {
        let refused = faults(TrustPolicy::from_toml(text));
        assert!(refused.lines().count() > 3, "{name}: {refused}");
        for fault in refused.lines() {
            assert!(fault.contains("still has the placeholder <"), "{name}: {fault}");
        }
        let filled = fill(text);
        let policy = TrustPolicy::from_toml(&filled);
        let policy = policy.unwrap_or_else(|error| panic!("{name}: {error}\n{filled}"));
        assert!(policy.warnings().is_empty(), "{name}: {:?}", policy.warnings());
        TrustEvaluator::builder().policy(policy).build().unwrap();
    }
}

/// Replaces the placeholders in all lines except comments.
fn fill(preset: &str) -> String {
    let line = |line: &str| {
        let mut line = line.to_owned();
        while let Some((before, rest)) = line.split_once('<').filter(|_| !line.starts_with('#')) {
            let (placeholder, after) = rest.split_once('>').unwrap();
            let value = match placeholder {
                "the cluster's --service-account-issuer" => "https://k8s.example",
                _ => "1234",
            };
            line = format!("{before}{value}{after}");
        }
        line
    };
    preset.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn policy_survives_json_round_trip() {
    let text = r#"
        [[trust]]
        id = "a"
        issuer = "https://a.example"
        jwks = { url = "https://keys.example" }
        algorithms = ["ES384"]
        audiences = ["scaivault", "scaidrive"]
        max_lifetime = "1h"
        max_age = "5m"
        leeway = "10s"
        single_use_jti = true
        not_after = 2027-06-30
        mode = "audit"
        named_only = true
        [[trust.grant]]
        name = "g"
        subject = "a:*"
        claims = { x = { eq = 7 }, "/y/z" = { one_of = ["1", true] }, l = { contains = "i" }, r = { glob = "refs/heads/*" } }
        map = { identity = "sa:{trust}:{sub}", tenant = "t", scopes = ["b", "a"] }
        [[trust]]
        id = "b"
        issuer = "https://b.example"
        audiences = ["scaivault"]
    "#;
    let policy = TrustPolicy::from_toml(text).unwrap();
    let json = serde_json::to_string_pretty(&policy).unwrap();
    assert_eq!(TrustPolicy::from_json(&json).unwrap(), policy);
    assert_eq!(serde_json::from_str::<TrustPolicy>(&json).unwrap(), policy);
    assert_ne!(TrustPolicy::from_json(&json.replace("\"b\"", "\"c\"")).unwrap(), policy);
    assert!(serde_json::from_str::<TrustPolicy>(&json.replace("audiences", "audience")).is_err());
}

#[test]
fn client_id_alone_is_a_warning() {
    let rule = |claims: &str| {
        let text = format!(
            "[[trust]]\nid = \"az\"\nissuer = \"https://sts.windows.net/1/\"\naudiences = [\"api://scaivault\"]\n{}",
            grant("g", &format!("claims = {{ {claims} }}")),
        );
        TrustPolicy::from_toml(&text).unwrap().warnings().len()
    };
    assert_eq!(rule(r#"appid = { eq = "1" }"#), 1);
    assert_eq!(rule(r#"appid = { eq = "1" }, oid = { eq = "2" }"#), 0);
}

#[test]
fn shared_audience_needs_exact_subjects() {
    let policy = |issuer: &str, conditions: &str| {
        let text = format!(
            "[[trust]]\nid = \"az\"\nissuer = \"{issuer}\"\naudiences = [\"api://AzureADTokenExchange\"]\n\
             insecure_shared_audience = true\n{}",
            grant("g", conditions),
        );
        TrustPolicy::from_toml(&text)
    };
    let own = "https://vstoken.dev.azure.com/0d2b3f9e";
    let exact = "subject = \"sc://org/project/connection\"";
    let accepted = policy(own, exact).unwrap();
    let warnings: Vec<_> = accepted.warnings().iter().map(ToString::to_string).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("could use them here"), "{warnings:?}");
    for conditions in ["subject = \"sc://org/project/*\"", "claims = { p = { eq = \"1\" } }"] {
        assert!(faults(policy(own, conditions)).contains("subject must be exact"), "{conditions}");
    }
    // All customers share this issuer, so the rule must name the organisation, too.
    let shared = "https://token.actions.githubusercontent.com";
    let subject = "subject = \"repo:octo-org/octo-repo:environment:Production\"";
    assert!(faults(policy(shared, subject)).contains("must pin the organisation"));
    let pinned = format!("{subject}\nclaims = {{ repository_owner_id = {{ eq = \"65\" }} }}");
    policy(shared, &pinned).unwrap();
}

#[tokio::test]
async fn own_issuer_is_rejected() {
    let clock = ManualClock::new();
    let own = platform(&clock).await;
    let policy = policy(&[trust("k8s", &own, ""), reporter()]);
    for name in [own.issuer(), format!("{}/", own.issuer())] {
        let built = TrustEvaluator::builder().policy(policy.clone()).own_issuer(name).build();
        assert!(built.unwrap_err().to_string().contains("is an issuer of this service"));
    }
    let config: AuthConfig = serde_json::from_str(
        r#"{"audience":["x"],"issuers":[{"issuer":"https://k.example/tenants/{tenant_id}"}]}"#,
    )
    .unwrap();
    let tenant_policy = TrustPolicy::from_toml(
        "[[trust]]\nid = \"t\"\nissuer = \"https://k.example/tenants/acme\"\naudiences = [\"scaivault\"]\n",
    );
    let tenant_policy = tenant_policy.unwrap();
    assert!(TrustEvaluator::builder().policy(tenant_policy.clone()).build().is_ok());
    let built = TrustEvaluator::builder().policy(tenant_policy).own_issuers(&config).build();
    assert_eq!(built.unwrap_err().faults()[0].line, Some(1));
    let evaluator = TrustEvaluator::builder().own_issuer(own.issuer()).build().unwrap();
    assert!(evaluator.replace(policy).is_err());
    assert_eq!(evaluator.policy().trust_ids().count(), 0);
}

proptest! {
    #[test]
    fn parser_never_panics(
        case in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        with in "[\\PC\n\"{}\\[\\]=.#<>*']{0,8}",
    ) {
        let cases: Vec<_> = cases().collect();
        let mut text: Vec<char> = case.get(&cases).1.chars().collect();
        let at = at.index(text.len());
        text.splice(at..(at + with.len() / 2).min(text.len()), with.chars());
        let text: String = text.into_iter().collect();
        if let Ok(policy) = TrustPolicy::from_toml(&text) {
            // An accepted policy survives a round trip.
            let json = serde_json::to_string(&policy).unwrap();
            prop_assert_eq!(TrustPolicy::from_json(&json).unwrap(), policy);
            let half: String = json.chars().take(json.chars().count() / 2).collect();
            prop_assert!(TrustPolicy::from_json(&half).is_err());
        }
        let _ = TrustPolicy::from_json(&text);
    }
}

#[test]
fn deep_nesting_is_refused() {
    for depth in [20, 200, 100_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        assert!(TrustPolicy::from_toml(&format!("trust = {open}{close}")).is_err());
        assert!(TrustPolicy::from_json(&format!("{{\"trust\":{open}{close}}}")).is_err());
    }
}

/// Parses a policy with one rule with these conditions.
fn with_claims(claims: &str) -> Result<TrustPolicy, PolicyError> {
    TrustPolicy::from_json(&format!(
        r#"{{"trust":[{{"id":"k8s","issuer":"https://k8s.example","audiences":["scaivault"],"grant":[{{"name":"g","subject":"repo:*",
        "claims":{{{claims}}},"map":{{"identity":"sa:x","tenant":"t","scopes":["a"]}}}}]}}]}}"#
    ))
}

/// Returns the faults as strings.
fn fault_lines<T: std::fmt::Debug>(read: Result<T, PolicyError>) -> Vec<String> {
    read.unwrap_err().faults().iter().map(ToString::to_string).collect()
}

#[test]
fn name_with_unpaired_surrogate_is_refused() {
    let prod = r#""environment":{"eq":"prod"}"#;
    assert!(with_claims(prod).is_ok());
    let faults = fault_lines(with_claims(&format!("{prod},\n\n\"\\ud800\":{{\"eq\":\"x\"}}")));
    assert!(faults[0].starts_with("line 4, column 8: the text has a name"), "{faults:?}");
    let whole = TrustPolicy::from_json("{\n\"\\ud800\":1,\"trust\":[{\"id\":\"k8s\"}]}");
    let faults = fault_lines(whole);
    assert!(faults[0].starts_with("line 2, column 8: the text has a name"), "{faults:?}");
}

#[test]
fn claim_in_two_spellings_is_refused() {
    let one = r#""env":{"eq":"prod"}"#;
    let faults =
        fault_lines(with_claims(&format!(r#"{one},"/env":{{"one_of":["prod","stage"]}}"#)));
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0].ends_with("claims./env is given twice, as a name and as a pointer: remove one"),
        "{faults:?}"
    );
    assert!(with_claims(&format!(r#"{one},"/env/x":{{"eq":"prod"}}"#)).is_ok());
}

#[test]
fn unreadable_condition_does_not_hide_claim_fault() {
    for (claim, other) in [("sub", "`sub`"), ("email", "`email`"), ("iss", "`iss`")] {
        let faults = fault_lines(with_claims(&format!(r#""{claim}":{{"one_of":[]}}"#)));
        assert!(
            faults.iter().any(|fault| fault.contains("is empty, so nothing could match")),
            "{faults:?}"
        );
        assert!(faults.iter().any(|fault| fault.contains(other)), "{faults:?}");
    }
}

#[test]
fn error_of_main_is_readable() {
    let error = TrustPolicy::from_toml("trust = 7").unwrap_err();
    let expected =
        "the trust policy cannot be used:\n  line 1, column 9: trust is a number: give a list";
    assert_eq!(format!("{error:?}"), expected);
    let error = TrustEvaluator::builder().file("/nonexistent/trust.toml").build().unwrap_err();
    let expected = "the trust policy cannot be used:\n  /nonexistent/trust.toml cannot be read: its folder does not exist";
    assert_eq!(format!("{error:?}"), expected);
}
