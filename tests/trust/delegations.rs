//! Delegations: what an owner may delegate, so that no tenant's rule can concern another tenant.

use scaikey_auth::TenantId;
use scaikey_auth::trust::{TenantPolicy, TrustPolicy};

pub(crate) const TRUST: &str = "[[trust]]\nid = \"k8s\"\nissuer = \"https://k8s.example\"\njwks = { url = \"https://keys.k8s.example/jwks\" }\naudiences = [\"scaivault\"]\n";

/// A `[[trust.delegation]]` with these conditions.
pub(crate) fn delegation(tenant: &str, conditions: &str) -> String {
    format!(
        "\n[[trust.delegation]]\ntenant = \"{tenant}\"\n{conditions}\nscopes = [\"secrets:read\", \"secrets:list\"]\n"
    )
}

/// A `[[trust.grant]]` of a tenant with these conditions.
pub(crate) fn rule(name: &str, tenant: &str, conditions: &str) -> String {
    format!(
        "\n[[trust.grant]]\nname = \"{name}\"\n{conditions}\nmap = {{ identity = \"sa:{tenant}:{name}\", tenant = \"{tenant}\", scopes = [\"secrets:read\"] }}\n"
    )
}

fn faults(policy: &str) -> Vec<String> {
    match TrustPolicy::from_toml(policy) {
        Ok(_) => Vec::new(),
        Err(error) => error.faults().iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn overlapping_delegations_are_rejected() {
    let namespace = |name: &str| format!("subject = \"system:serviceaccount:{name}:*\"");
    let claim = |value: &str| format!("claims = {{ ns = {value} }}");
    let both = |subject: &str, value: &str| format!("{}\n{}", namespace(subject), claim(value));
    let table = [
        (namespace("a"), namespace("b"), true),
        (namespace("a"), namespace("a"), false),
        (namespace("a"), "subject = \"system:serviceaccount:a:x\"".to_owned(), false),
        (namespace("a"), "subject = \"system:serviceaccount:*:x\"".to_owned(), false),
        (namespace("a"), "subject = \"system:serviceaccount:*:x:y\"".to_owned(), true),
        (namespace("a"), "subject = \"system:*:a:x\"".to_owned(), false),
        (namespace("a"), "subject = \"system:*:b:x\"".to_owned(), true),
        (claim("{ eq = \"a\" }"), claim("{ eq = \"b\" }"), true),
        (claim("{ eq = \"a\" }"), claim("{ one_of = [\"b\", \"a\"] }"), false),
        (claim("{ eq = 1 }"), claim("{ eq = \"1\" }"), true),
        (claim("{ eq = \"a:x\" }"), claim("{ glob = \"a:*\" }"), false),
        (claim("{ glob = \"a:*\" }"), claim("{ glob = \"b:*\" }"), true),
        (claim("{ glob = \"a:*:b\" }"), claim("{ glob = \"a:c:*\" }"), false),
        (claim("{ one_of = [\"c\", \"d\"] }"), claim("{ glob = \"a:*\" }"), true),
        (claim("{ contains = \"a\" }"), claim("{ contains = \"b\" }"), false),
        (claim("{ contains = \"a\" }"), claim("{ eq = \"a\" }"), true),
        // Conditions on different claims can hold together.
        (namespace("a"), claim("{ eq = \"b\" }"), false),
        (both("a", "{ eq = \"x\" }"), claim("{ eq = \"y\" }"), true),
        (both("a", "{ eq = \"x\" }"), both("a", "{ eq = \"y\" }"), true),
        (both("a", "{ eq = \"x\" }"), both("a", "{ glob = \"x\" }"), false),
    ];
    for (one, other, is_accepted) in &table {
        for (one, other) in [(one, other), (other, one)] {
            let of_delegations =
                format!("{TRUST}{}{}", delegation("acme", one), delegation("rival", other));
            let of_rule =
                format!("{TRUST}{}{}", delegation("acme", one), rule("r", "rival", other));
            for policy in [&of_delegations, &of_rule] {
                let found = faults(policy);
                assert_eq!(found.is_empty(), *is_accepted, "{policy}\n{found:?}");
                let is_overlap = |it: &String| it.contains("could match the same tokens as");
                assert!(found.len() <= 1 && found.iter().all(is_overlap), "{found:?}");
            }
            // The rules of one tenant may overlap.
            let of_one = format!("{TRUST}{}{}", delegation("acme", one), rule("r", "acme", other));
            assert_eq!(faults(&of_one), [""; 0], "{of_one}");
        }
    }
}

#[test]
fn faulty_delegation_names_its_field() {
    let shared = TRUST.replace("k8s.example", "token.actions.githubusercontent.com");
    let subject = "subject = \"system:serviceaccount:a:*\"";
    let table = [
        (TRUST, delegation("acme", ""), "delegation.acme.subject is missing, and so are `claims`"),
        (TRUST, delegation("a b", subject), "delegation[0].tenant is not a tenant id"),
        (TRUST, delegation("{sub}", subject), "tenant contains a placeholder"),
        (TRUST, delegation("acme", "subject = \"*\""), "subject begins with a wildcard"),
        (
            TRUST,
            delegation("acme", "claims = { aud = { eq = \"x\" } }"),
            "has a condition on `aud`",
        ),
        (
            TRUST,
            delegation("acme", &format!("{subject}\nidentity = \"sa:x\"")),
            "the fields are tenant, subject, claims, scopes",
        ),
        (
            TRUST,
            delegation("acme", subject).replace("[\"secrets:read\", \"secrets:list\"]", "[]"),
            "delegation.acme.scopes is empty",
        ),
        (
            TRUST,
            delegation("acme", subject).replace("[[trust.delegation]]", "[trust.delegation]"),
            "in TOML, write [[trust.delegation]]",
        ),
        (
            &shared,
            delegation("acme", "subject = \"repo:acme/*\""),
            "does not identify the owner of the workload",
        ),
    ];
    for (trust, delegation, expected) in table {
        let found = faults(&format!("{trust}{delegation}"));
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
}

#[test]
fn identities_of_delegated_tenants_are_reserved() {
    let subject = "subject = \"system:serviceaccount:a:*\"";
    let of = |identity: &str| {
        let rule = rule("r", "rival", "subject = \"system:serviceaccount:b:x\"");
        let rule = rule.replace("sa:rival:r", identity);
        faults(&format!("{TRUST}{}{rule}", delegation("acme", subject)))
    };
    for identity in ["sa:acme:x", "job:acme:{trust}", "sa:acme:{trust}:{sub}"] {
        let found = of(identity);
        assert!(
            found.len() == 1 && found[0].contains("identity of tenant `acme`"),
            "{identity}: {found:?}"
        );
    }
    for identity in
        ["sa:acme", "sa:acme2:x", "sa:{trust}:acme:x", "sa:rival:acme:x", "sa:k8s:{sub}"]
    {
        assert_eq!(of(identity), [""; 0], "{identity}");
    }
    // A trust with the name of the tenant.
    let trust = TRUST.replace("\"k8s\"", "\"acme\"");
    let rule = rule("r", "rival", "subject = \"system:serviceaccount:b:x\"");
    let rule = rule.replace("sa:rival:r", "sa:{trust}:{sub}");
    let found = faults(&format!("{trust}{}{rule}", delegation("acme", subject)));
    assert!(found.len() == 1 && found[0].contains("identity of tenant `acme`"), "{found:?}");
}

#[test]
fn many_delegations_are_accepted() {
    let mut policy = TRUST.to_owned();
    for nth in 0..1500 {
        let tenant = format!("t{nth}");
        let namespace = format!("system:serviceaccount:team-{nth:05}");
        policy += &delegation(&tenant, &format!("subject = \"{namespace}:*\""));
        policy += &rule(&format!("r{nth}"), &tenant, &format!("subject = \"{namespace}:x\""));
    }
    assert_eq!(faults(&policy), [""; 0]);
    let tenant = TenantId::new("t7").unwrap();
    assert!(TenantPolicy::of(&policy, &tenant).unwrap().text().contains("team-00007:x"));
    let overlapping =
        policy + &delegation("late", "subject = \"system:serviceaccount:team-00700:y\"");
    assert_eq!(faults(&overlapping).len(), 1);
}

#[test]
fn each_claim_of_a_delegation_is_required() {
    let acme = TenantId::new("acme").unwrap();
    let claims = "claims = { cluster = { eq = \"eu\" }, team = { eq = \"a\" } }";
    let policy = format!("{TRUST}{}", delegation("acme", claims));
    for (conditions, missing) in [
        (claims, None),
        ("claims = { cluster = { eq = \"eu\" } }", Some("team")),
        ("claims = { team = { eq = \"a\" } }", Some("cluster")),
        (&claims.replace("eq = \"a\"", "one_of = [\"a\", \"b\"]"), Some("team")),
    ] {
        let text = format!("[[trust]]\nid = \"k8s\"\n{}", rule("r", "acme", conditions));
        let problem = TenantPolicy::change(&policy, &acme, &text).err().map(|it| it.to_string());
        let expected = missing.map(|claim| format!("must have a condition on `{claim}`"));
        let is_expected = match (&problem, &expected) {
            (Some(problem), Some(expected)) => problem.contains(expected),
            (problem, expected) => problem == expected,
        };
        assert!(is_expected, "{conditions}: {problem:?}");
    }
}
