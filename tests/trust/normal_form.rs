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

#[test]
fn json_too_long_in_toml_is_refused() {
    let values: Vec<_> = (10_000..160_000).map(|nth| nth.to_string()).collect();
    let rule = json!({ "name": "r", "claims": { "x": { "one_of": [0] } },
        "map": { "identity": "sa:r", "tenant": "t", "scopes": ["a"] } });
    let json = json!({ "trust": [{ "id": "k", "issuer": "https://k.example", "audiences": ["s"], "grant": [rule] }] });
    let json = json.to_string().replace("[0]", &format!("[{}]", values.join(",")));
    assert!(json.len() <= TrustPolicy::MAX_TEXT_BYTES);
    let error = TrustPolicy::from_json(&json).unwrap_err().to_string();
    assert!(error.contains("longer than 1 MiB in TOML"), "{error}");
}

fn hostile() -> impl Strategy<Value = String> {
    let awkward = prop::sample::select(vec![
        "\"",
        "'",
        "\\",
        "\\u0022",
        "\n",
        "\r\n",
        "\r",
        "\t",
        "\0",
        "\u{1}",
        "\u{1b}",
        "\u{1f}",
        "\u{85}",
        "\u{feff}",
        "#",
        "=",
        "[[trust]]",
        "]",
        "{",
        "}",
        "{sub}",
        ".",
        ",",
        "'''",
        "\"\"\"",
        "\u{202e}",
        "\u{7f}",
        "\u{2028}",
        "\u{10ffff}",
        " ",
        "a",
        "1",
        "-",
        "/",
        "~0",
        "~1",
        "//",
        "true",
        "inf",
        "1979-05-27",
    ]);
    prop::collection::vec(awkward, 0..6).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn hostile_strings_survive_the_normal_form(
        claim in hostile(), value in hostile(), subject in hostile(), tenant in hostile(), scope in hostile(),
        audience in hostile(), key in hostile(), identity in hostile(), issuer in hostile(),
    ) {
        // The claim with an empty name is a finding of its own: `the_nameless_claim_survives`.
        let pointer = format!("/k{key}");
        let claim = if claim == "/" { "c".to_owned() } else { claim };
        let json = json!({ "trust": [{
            "id": "k", "issuer": format!("https://k.example/{issuer}"), "audiences": [audience, "s"],
            "jwks": { "inline": { "keys": [{ "kty": "EC", "crv": "P-256", "kid": key,
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" }] } },
            "grant": [{ "name": "r", "subject": format!("s:{subject}"),
                "claims": { claim: { "eq": value }, pointer: { "one_of": [value, 7, true, i64::from(i32::MIN)] } },
                "map": { "identity": format!("sa:{identity}x"), "tenant": format!("t{tenant}"), "scopes": [format!("a{scope}")] } }],
        }] });
        // Fields that a policy refuses are left as they are harmless, one at a time.
        let mut json = json;
        for (path, plain) in [
            ("/trust/0/issuer", json!("https://k.example")),
            ("/trust/0/grant/0/map/tenant", json!("t")),
            ("/trust/0/grant/0/map/scopes", json!(["a"])),
            ("/trust/0/grant/0/map/identity", json!("sa:x")),
            ("/trust/0/grant/0/claims", json!({ "c": { "eq": "x" } })),
            ("/trust/0/audiences", json!(["s"])),
            ("/trust/0/grant/0/subject", json!("s:x")),
        ] {
            if TrustPolicy::from_json(&json.to_string()).is_ok() { break; }
            let kept = json.pointer(path).cloned().unwrap();
            *json.pointer_mut(path).unwrap() = plain;
            let faults = TrustPolicy::from_json(&json.to_string()).err().map(|it| it.to_string());
            let field = path.rsplit('/').next().unwrap();
            if faults.is_some_and(|text| text.contains(field)) { *json.pointer_mut(path).unwrap() = kept; }
        }
        let Ok(policy) = TrustPolicy::from_json(&json.to_string()) else { return Ok(()) };
        let toml = policy.to_toml();
        let read = TrustPolicy::from_toml(&toml);
        prop_assert!(read.is_ok(), "{toml}\n{read:?}");
        let read = read.unwrap();
        prop_assert_eq!(&read, &policy, "{}", toml);
        prop_assert_eq!(read.to_toml(), toml);
    }
}

#[test]
fn nameless_claim_survives_the_normal_form() {
    let rule = json!({ "name": "r", "claims": { "/": { "eq": "x" } },
        "map": { "identity": "sa:r", "tenant": "t", "scopes": ["a"] } });
    let json = json!({ "trust": [{ "id": "k", "issuer": "https://k.example", "audiences": ["s"], "grant": [rule] }] });
    let policy = TrustPolicy::from_json(&json.to_string()).unwrap();
    let toml = policy.to_toml();
    assert_eq!(TrustPolicy::from_toml(&toml).as_ref(), Ok(&policy), "{toml}");
}
