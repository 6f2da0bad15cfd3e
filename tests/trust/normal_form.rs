//! Policies as TOML text.

use proptest::prelude::*;
use scaikey_auth::trust::TrustPolicy;
use serde_json::{Value, json};

#[test]
fn normal_form_is_pleasant_to_read() {
    let json = r#"{ "trust": [
        { "id": "k8s", "issuer": "https://k8s.example", "mode": "enforce", "leeway": "60s", "max_lifetime": "3600s",
          "algorithms": ["RS256", "ES256"], "audiences": ["scaivault", "scaidrive"], "single_use_jti": true,
          "jwks": { "url": "https://keys.example", "ca_file": "/etc/ca.pem" },
          "grant": [
            { "name": "reports", "subject": "system:serviceaccount:reports:*",
              "map": { "identity": "sa:{trust}:{sub}", "tenant": "acme", "scopes": ["secrets:read", "secrets:list"] } },
            { "name": "one", "claims": { "/k/ns": { "eq": "a" }, "x": { "one_of": [1, true, "b"] } },
              "map": { "identity": "sa:one", "tenant": "acme", "scopes": ["a"] } },
            { "name": "many", "claims": { "x": { "eq": 7 }, "a b": { "glob": "c:*" }, "z": { "contains": "d" } },
              "map": { "identity": "sa:many", "tenant": "acme", "scopes": ["a"] } } ] },
        { "id": "mesh", "trust_domain": "prod.example", "bundle": { "file": "/run/bundle.json" },
          "audiences": ["scaivault"], "not_after": "2027-06-30", "mode": "audit" } ] }"#;
    let expected = r#"[[trust]]
id = "k8s"
issuer = "https://k8s.example"
jwks = { url = "https://keys.example", ca_file = "/etc/ca.pem" }
audiences = ["scaivault", "scaidrive"]
max_lifetime = "1h"
single_use_jti = true

[[trust.grant]]
name = "reports"
subject = "system:serviceaccount:reports:*"
map = { identity = "sa:{trust}:{sub}", tenant = "acme", scopes = ["secrets:read", "secrets:list"] }

[[trust.grant]]
name = "one"
claims = { "/k/ns" = { eq = "a" }, x = { one_of = [1, true, "b"] } }
map = { identity = "sa:one", tenant = "acme", scopes = ["a"] }

[[trust.grant]]
name = "many"
claims."a b" = { glob = "c:*" }
claims.x = { eq = 7 }
claims.z = { contains = "d" }
map = { identity = "sa:many", tenant = "acme", scopes = ["a"] }

[[trust]]
id = "mesh"
trust_domain = "prod.example"
bundle = { file = "/run/bundle.json" }
audiences = ["scaivault"]
not_after = "2027-06-30"
mode = "audit"
"#;
    let policy = TrustPolicy::from_json(json).unwrap();
    assert_eq!(policy.to_toml(), expected);
    assert_eq!(TrustPolicy::from_toml(expected).unwrap(), policy);
    assert_eq!(TrustPolicy::default().to_toml(), "");
}

/// A string with characters that mean something in TOML, in JSON or to a reader.
fn text() -> impl Strategy<Value = String> {
    let awkward = prop::sample::select(vec![
        "\"", "'", "\\", "\n", "\r", "\t", "\0", "#", "=", "[", "]", "{x}", ".", ",", "'''",
        "\"\"\"", "é", "\u{202e}", "\u{7f}", "\u{2028}", "😀", " ", "a", "1",
    ]);
    prop::collection::vec(awkward, 1..6).prop_map(|parts| parts.concat())
}

fn constant() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from)
    ]
}

fn condition() -> impl Strategy<Value = Value> {
    prop_oneof![
        constant().prop_map(|value| json!({ "eq": value })),
        constant().prop_map(|value| json!({ "contains": value })),
        prop::collection::vec(constant(), 1..4).prop_map(|values| json!({ "one_of": values })),
        text().prop_map(|text| json!({ "glob": format!("a:{text}:*") })),
    ]
}

/// The members of a rule, without name and identity.
fn rule() -> impl Strategy<Value = Value> {
    let claims =
        prop::collection::btree_map(text().prop_map(|name| format!("c{name}")), condition(), 1..5);
    let subject = prop::option::of(text().prop_map(|text| format!("s:{text}")));
    (subject, claims, "[!#-~]{1,6}", "[a-z]{1,8}").prop_map(|(subject, claims, scope, tenant)| {
        let map = json!({ "identity": "", "tenant": tenant, "scopes": [scope, "b"] });
        match subject {
            Some(subject) => json!({ "subject": subject, "claims": claims, "map": map }),
            None => json!({ "claims": claims, "map": map }),
        }
    })
}

/// The optional members of a trust.
fn settings() -> impl Strategy<Value = Value> {
    let period = |max: u32| (1..max).prop_map(|seconds| format!("{seconds}s"));
    let flags = any::<[bool; 2]>();
    let mode = prop::sample::select(vec!["enforce", "audit"]);
    let algorithms = prop::sample::subsequence(vec!["RS256", "ES256", "PS384", "Ed25519"], 1..4);
    let file = text().prop_map(|text| format!("/{}", text.replace('\0', "")));
    (period(600_000), period(600), flags, mode, algorithms, file).prop_map(
        |(lifetime, leeway, [single_use, named_only], mode, algorithms, file)| {
            json!({
                "max_lifetime": lifetime, "max_age": lifetime, "leeway": leeway, "single_use_jti": single_use,
                "named_only": named_only, "mode": mode, "algorithms": algorithms, "jwks": { "file": file },
                "not_after": "2027-06-30 12:00:00z",
            })
        },
    )
}

fn policy() -> impl Strategy<Value = Value> {
    let trust = (settings(), prop::collection::vec(rule(), 0..4));
    prop::collection::vec(trust, 0..3).prop_map(|trusts| {
        let trust = |(nth, (mut trust, mut rules)): (usize, (Value, Vec<Value>))| {
            for (nth, rule) in rules.iter_mut().enumerate() {
                rule["name"] = json!(format!("r{nth}"));
                rule["map"]["identity"] = json!(format!("sa:{{trust}}:r{nth}"));
            }
            trust["id"] = json!(format!("t{nth}"));
            trust["issuer"] = json!(format!("https://{nth}.example"));
            trust["audiences"] = json!(["scaivault"]);
            trust["grant"] = json!(rules);
            trust
        };
        json!({ "trust": trusts.into_iter().enumerate().map(trust).collect::<Vec<_>>() })
    })
}

proptest! {
    #[test]
    fn normal_form_reads_back_equal(policy in policy()) {
        let Ok(policy) = TrustPolicy::from_json(&policy.to_string()) else {
            // Some of these strings are faults, such as `{x}` or a placeholder.
            return Err(TestCaseError::reject("not a policy"));
        };
        let text = policy.to_toml();
        let read = TrustPolicy::from_toml(&text);
        prop_assert_eq!(read.as_ref(), Ok(&policy), "{}", text);
        prop_assert_eq!(read.unwrap().to_toml(), text);
    }
}
