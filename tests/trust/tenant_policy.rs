//! The policy that a tenant's administrators see and change: what they try, what they learn, and what stays.

use scaikey_auth::TenantId;
use scaikey_auth::trust::{PolicyError, TenantPolicy, TrustPolicy};

use super::delegations::{TRUST, delegation, rule};
use super::layouts::layouts;
use crate::support::Log;

/// A policy of three tenants. `acme` has rules in `k8s` and a delegation there, and one rule in `github`.
pub(crate) const POLICY: &str = r#"# Policy of the platform team.
[[trust]]   # the main cluster
id = "k8s"
  issuer="https://k8s.example"
audiences = ["scaivault"]
jwks = { url = "https://keys.internal.example/jwks", bearer_file = "/run/secret-bearer" }
max_lifetime = "1h"

[[trust.delegation]]
tenant = "acme"
subject = "system:serviceaccount:acme:*"
scopes = ["secrets:read", "secrets:list"]

[trust.delegation.claims]
"/kubernetes.io/cluster" = { one_of = ["eu", "us"] }

[[trust.delegation]]
tenant = "rival"
subject = "system:serviceaccount:rival:*"
scopes = ["rival:all"]

# rival: call Jane before a change
[[trust.grant]]
name = "rival-agent"
subject = "system:serviceaccount:rival:agent"
map = { identity = "sa:rival:agent", tenant = "rival", scopes = ["rival:all"] }
# a remark after the rule of rival

# Nightly reports.
# They need one scope.
[[trust.grant]]
name = "reporter"   # see the runbook
subject = "system:serviceaccount:acme:reporter"
claims = { "/kubernetes.io/cluster" = { eq = "eu" } }
map = { identity = "sa:acme:{trust}:reporter", tenant = "acme", scopes = ["secrets:read"] }

[[ trust . "grant" ]]
name = "old"
subject = "system:serviceaccount:legacy:acme"
map.identity = "sa:{trust}:legacy"
map.tenant = "acme"
map.scopes = ["legacy:all"]

[trust.grant.claims]
team = { eq = "acme" }

# Only rival is here.
[[trust]]
id = "hidden"
issuer = "https://hidden.example"
audiences = ["scaivault"]
[[trust.grant]]
name = "reporter"
subject = "x:y"
map = { identity = "sa:hidden:reporter", tenant = "rival", scopes = ["rival:all"] }

[[trust]]
id = "github"
issuer = "https://token.actions.githubusercontent.com"
audiences = ["scaivault"]
grant = [ # by Terraform
  { name = "rival-ci", subject = "repo:rival/app:ref:refs/heads/main", map = { identity = "sa:rival:ci", tenant = "rival", scopes = ["rival:all"] } }, # rival's
  { name = "ci", subject = "repo:acme/app:ref:refs/heads/main", map = { identity = "sa:ci", tenant = "acme", scopes = ["secrets:read"] } },
]
"#;

/// Words of the policy that `acme` must never see.
const HIDDEN: [&str; 12] = [
    "rival",
    "hidden",
    "Jane",
    "keys.internal",
    "bearer",
    "remark",
    "platform team",
    "Only",
    "Terraform",
    "runbooks",
    "x:y",
    "main cluster",
];

pub(crate) fn acme() -> TenantId {
    TenantId::new("acme").unwrap()
}

pub(crate) fn view(policy: &str) -> String {
    TenantPolicy::of(policy, &acme()).unwrap().text().to_owned()
}

fn change(policy: &str, text: &str) -> Result<String, PolicyError> {
    TenantPolicy::change(policy, &acme(), text).map(|change| change.policy_text().to_owned())
}

pub(crate) fn changed(policy: &str, text: &str) -> String {
    change(policy, text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A rule of acme in the trust `k8s`, within the delegation.
pub(crate) fn good_rule(name: &str) -> String {
    let conditions = format!(
        "subject = \"system:serviceaccount:acme:{name}\"\nclaims = {{ \"/kubernetes.io/cluster\" = {{ eq = \"us\" }} }}"
    );
    rule(name, "acme", &conditions)
}

#[test]
fn view_has_only_own_rules() {
    let view = view(POLICY);
    assert_eq!(
        view,
        r#"# The trust rules of tenant "acme". Add, change and remove [[trust.grant]] tables.
# Comments are kept directly above a rule, and in it.
# A [[trust]] has nothing but its id here: everything else is for the owner of the policy to change.

# Tokens of issuer "https://k8s.example" for ["scaivault"], valid for at most 1h
# You can write rules with these conditions, or narrower ones:
#   subject: "system:serviceaccount:acme:*"
#   claim "/kubernetes.io/cluster": one of "eu" "us"
#   scopes, all or some: secrets:read secrets:list
#   identity: "sa:acme:{trust}:{sub}", or another that begins with "sa:acme:"
[[trust]]
id = "k8s"

# Nightly reports.
# They need one scope.
[[trust.grant]]
name = "reporter"   # see the runbook
subject = "system:serviceaccount:acme:reporter"
claims = { "/kubernetes.io/cluster" = { eq = "eu" } }
map = { identity = "sa:acme:{trust}:reporter", tenant = "acme", scopes = ["secrets:read"] }

[[ trust . "grant" ]]
name = "old"
subject = "system:serviceaccount:legacy:acme"
map.identity = "sa:{trust}:legacy"
map.tenant = "acme"
map.scopes = ["legacy:all"]

[trust.grant.claims]
team = { eq = "acme" }

# Tokens of issuer "https://token.actions.githubusercontent.com" for ["scaivault"], valid for at most 1d
# Rules here can be kept or removed, but not changed or added.
[[trust]]
id = "github"

[[trust.grant]]
name = "ci"
subject = "repo:acme/app:ref:refs/heads/main"
map = { identity = "sa:ci", tenant = "acme", scopes = ["secrets:read"] }
"#
    );
    for word in HIDDEN {
        assert!(!view.contains(word), "{word}");
    }
}

pub(crate) fn good_and_only_rule() -> String {
    format!("[[trust]]\nid = \"k8s\"\n{}", good_rule("only"))
}

/// Everything that an administrator of acme might try: a title, the text, and its faults. `None`: it is no fault,
/// but must change nothing beyond the rules of acme.
fn attacks() -> Vec<(&'static str, String, &'static str)> {
    let good = good_and_only_rule();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    let hidden_or_unknown = "line 2, column 6: trust.id is the id of no trust in which you have rules, or can write some: remove it";
    let field = |field: &str| format!("[[trust]]\nid = \"k8s\"\n{field}\n{}", good_rule("only"));
    vec![
        // What is not theirs.
        (
            "another tenant",
            with("tenant = \"acme\"", "tenant = \"rival\""),
            "grant.only.map.tenant must have your tenant, \"acme\"",
        ),
        (
            "another scope",
            with("\"secrets:read\"", "\"secrets:write\""),
            "grant.only.map.scopes may only be among \"secrets:read secrets:list\"",
        ),
        (
            "one more scope",
            with("\"secrets:read\"", "\"secrets:read\", \"x\""),
            "grant.only.map.scopes may only be among",
        ),
        (
            "another's subject",
            with("acme:only", "rival:only"),
            "grant.only.subject must be \"system:serviceaccount:acme:*\" or narrower",
        ),
        ("a wider subject", with("acme:only", "*:only"), "grant.only.subject must be"),
        ("a deeper subject", with("acme:only", "acme:only:x"), "grant.only.subject must be"),
        (
            "no subject",
            with("subject = \"system:serviceaccount:acme:only\"", ""),
            "grant.only.subject must be",
        ),
        (
            "no claim",
            with("claims = { \"/kubernetes.io/cluster\" = { eq = \"us\" } }", ""),
            "grant.only.claims must have a condition on `/kubernetes.io/cluster`: one of \"eu\" \"us\", or narrower",
        ),
        (
            "a wider claim",
            with("eq = \"us\"", "one_of = [\"us\", \"ap\"]"),
            "grant.only.claims must have",
        ),
        (
            "a claim of another type",
            with("eq = \"us\"", "contains = \"us\""),
            "grant.only.claims must have",
        ),
        (
            "another claim",
            with("/kubernetes.io/cluster", "/kubernetes.io/other"),
            "grant.only.claims must have",
        ),
        (
            "another's identity",
            with("sa:acme:only", "sa:rival:agent"),
            "grant.only.map.identity must begin with a kind and your tenant, such as \"sa:acme:{trust}:{sub}\"",
        ),
        (
            "a free identity",
            with("sa:acme:only", "sa:only:x"),
            "grant.only.map.identity must begin",
        ),
        (
            "an identity like the tenant's",
            with("sa:acme:only", "sa:acme2:x"),
            "grant.only.map.identity must begin",
        ),
        (
            "the identity of a user",
            with("sa:acme:only", "user:acme:x"),
            "grant.only.map.identity gives a workload the identity of a user",
        ),
        (
            "an owner's rule, changed",
            view(POLICY).replace("legacy:acme", "legacy:*"),
            "grant.old.subject must be",
        ),
        (
            "a rule where nothing is delegated",
            view(POLICY) + &good_rule("new"),
            "trust.github.grant.new.name is new or changed, but you can only keep and remove",
        ),
        // What they cannot see.
        ("a hidden trust", good.replace("k8s", "hidden"), hidden_or_unknown),
        ("an unknown trust", good.replace("k8s", "nothing"), hidden_or_unknown),
        // Fields of the owner.
        (
            "keys",
            field("jwks = { url = \"https://evil.example\" }"),
            "trust.k8s.\"jwks\" is unknown; the fields are id, grant",
        ),
        ("a file", field("jwks.file = \"/etc/passwd\""), "\"jwks\" is unknown"),
        ("an issuer", field("issuer = \"https://evil.example\""), "\"issuer\" is unknown"),
        ("audiences", field("audiences = [\"other\"]"), "\"audiences\" is unknown"),
        ("a mode", field("mode = \"enforce\""), "\"mode\" is unknown"),
        (
            "a delegation",
            good.clone() + "[[trust.delegation]]\ntenant = \"acme\"\n",
            "\"delegation\" is unknown",
        ),
        (
            "a field of the policy",
            format!("x = 1\n{good}"),
            "the policy.\"x\" is unknown; the fields are trust",
        ),
        // TOML.
        ("a trust twice", format!("{good}{good}"), "trust.id is given twice"),
        (
            "a trust twice, escaped",
            format!("{good}{}", good.replace("k8s", "k\\u0038s")),
            "trust.id is given twice",
        ),
        ("no id", good.replace("id = \"k8s\"", ""), "trust[0].id is missing"),
        (
            "a name twice",
            good.clone() + &good_rule("only"),
            "grant.only.name is the name of an earlier rule",
        ),
        (
            "the same conditions",
            good.clone() + &good_rule("only").replace("name = \"only\"", "name = \"b\""),
            "has the same conditions as `only`",
        ),
        ("no TOML", "[[trust]".to_owned(), "is not valid TOML"),
        (
            "a bidirectional override",
            format!("# \u{202e}\n{good}"),
            "line 1, column 3: the text has an invisible character",
        ),
        (
            "too long",
            format!("# {}\n{good}", "x".repeat(128 * 1024)),
            "the text is longer than 128 KiB",
        ),
        (
            "too many rules",
            format!(
                "[[trust]]\nid = \"k8s\"\n{}",
                (0..501).map(|nth| good_rule(&format!("r{nth}"))).collect::<String>()
            ),
            "the text has more than 500 rules",
        ),
        (
            "identities that are costly to compare",
            format!("[[trust]]\nid = \"k8s\"\n{}", (0..500).map(similar_rule).collect::<String>()),
            "the text has identities that are too similar",
        ),
        ("a placeholder", with("acme:only", "<name>"), "still has the placeholder <name>"),
    ]
}

/// A rule whose identity shares a long pattern with those of the same kind, but equals none.
fn similar_rule(nth: usize) -> String {
    let identity = format!("sa:acme:{{trust}}:{{a}}/{{b}}:{{c}}/{{d}}:r{nth}");
    let rule = good_rule(&format!("r{nth}"));
    rule.replace(&format!("sa:acme:r{nth}"), &identity)
}

#[test]
fn attacks_are_refused_without_hidden_words() {
    for (title, text, expected) in attacks() {
        match change(POLICY, &text) {
            Ok(policy) => panic!("{title}: accepted\n{policy}"),
            Err(error) => {
                let faults = error.to_string();
                assert!(error.faults()[0].to_string().contains(expected), "{title}: {faults}");
                for word in HIDDEN.iter().filter(|word| !text.contains(*word)) {
                    assert!(!faults.contains(word), "{title}: {faults}");
                }
            }
        }
    }
}

#[test]
fn smuggled_tables_stay_in_the_tenant() {
    let good = good_and_only_rule();
    let map =
        "map = { identity = \"sa:acme:only\", tenant = \"acme\", scopes = [\"secrets:read\"] }";
    let texts = [
        ("escaped id", good.replace("k8s", "k\\u0038s")),
        ("quoted headers", good.replace("[[trust.grant]]", "[['trust'.\"gr\\u0061nt\"]]")),
        ("dotted", good.replace(map, "map.identity = \"sa:acme:only\"\nmap.tenant = \"acme\"\nmap.scopes = [\"secrets:read\"]")),
        ("sub-table", good.replace(map, "[trust.grant.map]\nidentity = \"sa:acme:only\"\ntenant = \"acme\"\nscopes = [\"secrets:read\"]")),
        ("inline", format!("trust = [ {{ id = \"k8s\", grant = [ {{ name = \"only\", subject = \"system:serviceaccount:acme:only\", claims = {{ \"/kubernetes.io/cluster\" = {{ eq = \"us\" }} }}, {map} }} ] }} ]")),
        ("comment that looks like a table", good.replace("name =", "# [[trust]]\n# id = \"evil\"\nname =")),
        ("string that looks like a table", good.replace("\"secrets:read\"", "\"\"\"\\\n  secrets:read\"\"\"")),
        ("no line end", good.trim_end().to_owned()),
        ("comment at the end", good.clone() + "# [[trust]]"),
        ("carriage returns", good.replace('\n', "\r\n")),
    ];
    for (layout, policy) in layouts() {
        let rival = TenantPolicy::of(&policy, &TenantId::new("rival").unwrap()).unwrap();
        for (title, text) in &texts {
            let changed = changed(&policy, text);
            let parsed = TrustPolicy::from_toml(&changed).unwrap();
            assert_eq!(
                parsed.trust_ids().collect::<Vec<_>>(),
                ["k8s", "hidden", "github"],
                "{title}"
            );
            let after = TenantPolicy::of(&changed, &TenantId::new("rival").unwrap()).unwrap();
            assert_eq!(after, rival, "{layout}, {title}: {changed}");
            let own = TrustPolicy::from_toml(&changed).unwrap().for_tenant(&acme());
            let own = serde_json::to_value(own).unwrap();
            assert_eq!(own["trust"].as_array().unwrap().len(), 1, "{layout}, {title}");
            assert_eq!(own["trust"][0]["grant"].as_array().unwrap().len(), 1, "{layout}, {title}");
            assert_eq!(own["trust"][0]["grant"][0]["name"], "only", "{layout}, {title}");
        }
    }
}

#[test]
fn names_of_hidden_rules_are_free() {
    let text = good_and_only_rule().replace("\"only\"", "\"rival-agent\"");
    assert!(changed(POLICY, &text).matches("name = \"rival-agent\"").count() == 2);
}

#[test]
fn spiffe_id_needs_delegated_subject() {
    let mesh = "[[trust]]\nid = \"mesh\"\ntrust_domain = \"mesh.example\"\nbundle = { url = \"https://mesh.example\" }\naudiences = [\"scaivault\"]\n";
    let policy =
        format!("{TRUST}{}{mesh}", delegation("acme", "claims = { team = { eq = \"acme\" } }"));
    for domain in ["mesh.example", "unknown.example"] {
        let text = format!(
            "[[trust]]\nid = \"k8s\"\n{}",
            rule(
                "r",
                "acme",
                &format!(
                    "subject = \"spiffe://{domain}/x\"\nclaims = {{ team = {{ eq = \"acme\" }} }}"
                )
            )
        );
        let faults = change(&policy, &text).unwrap_err().to_string();
        assert!(faults.contains("is a SPIFFE ID, but the delegation has no `subject`"), "{faults}");
    }
}

#[test]
fn fault_of_hidden_rules_is_neutral() {
    let neutral =
        "the policy conflicts with rules that you cannot see: ask the owner of the policy";
    let text = good_and_only_rule();
    let broken = [
        POLICY.replace("issuer = \"https://hidden.example\"", ""),
        POLICY.replace("name = \"rival-agent\"", "name = 7"),
        POLICY.replace("id = \"hidden\"", "id = "),
    ];
    for policy in &broken {
        let change = change(policy, &text).unwrap_err();
        let view = TenantPolicy::of(policy, &acme()).err();
        for error in [Some(change), view].into_iter().flatten() {
            assert_eq!(error.faults().len(), 1);
            assert_eq!(error.faults()[0].to_string(), neutral);
        }
    }
}

#[test]
fn full_policy_is_logged_for_owner_only() {
    let log = Log::start();
    let limit = TrustPolicy::MAX_TEXT_BYTES;
    let full = format!("{POLICY}#{}\n", "x".repeat(limit - POLICY.len() - 2));
    assert_eq!(full.len(), limit);
    let view = view(&full);
    let head = view.find("\n# Tokens of issuer \"https://token").unwrap();
    let added = format!("{}{}{}", &view[..head], good_rule("new"), &view[head..]);
    let faults = change(&full, &added).unwrap_err().to_string();
    assert!(faults.contains("rules that you cannot see") && !faults.contains("MiB"), "{faults}");
    let warnings = log.lines("WARN");
    let reason = "the text has 1048";
    assert!(warnings.len() == 1 && warnings[0].contains(reason), "{warnings:?}");
    assert!(warnings[0].contains("tenant=\"acme\""), "{warnings:?}");
    assert_eq!(changed(&full, &view), full);
}

#[test]
fn id_depends_only_on_own_view() {
    let id = |policy: &str, tenant: &str| {
        TenantPolicy::of(policy, &TenantId::new(tenant).unwrap()).unwrap().id().to_string()
    };
    let before = id(POLICY, "acme");
    assert_eq!(before.parse::<scaikey_auth::trust::PolicyVersionId>().unwrap().to_string(), before);
    for (from, to) in [
        ("rival:agent\"", "rival:other\""),
        ("call Jane", "call Joe"),
        ("keys.internal.example", "keys2.internal.example"),
        ("# Only rival", "# Nobody"),
    ] {
        assert_eq!(id(&POLICY.replace(from, to), "acme"), before, "{from}");
    }
    for (from, to) in [
        ("acme:reporter", "acme:report"),
        ("They need one", "They need a"),
        ("max_lifetime = \"1h\"", "max_lifetime = \"2h\""),
        ("[\"secrets:read\", \"secrets:list\"]", "[\"secrets:read\"]"),
    ] {
        assert_ne!(id(&POLICY.replace(from, to), "acme"), before, "{from}");
    }
    let nobody = TRUST.to_owned();
    assert_ne!(id(&nobody, "acme"), id(&nobody, "rival"));
    assert!(TenantPolicy::of(&nobody, &acme()).unwrap().is_empty());
}

#[test]
fn texts_of_the_owner_stay_comments() {
    let policy = TRUST
        .replace("\"scaivault\"", "\"a\\n[[trust]]\\nid = 'x'\\u0085\\u2028\\u007f\"")
        + &delegation("acme", "claims = { \"a\\nb\" = { eq = \"c\\nd = 1\\u001f\" } }");
    let view = view(&policy);
    assert!(
        view.lines().all(|line| line.is_empty()
            || line.starts_with('#')
            || line.starts_with("[[trust]]")
            || line.starts_with("id = ")),
        "{view}"
    );
    assert_eq!(changed(&policy, &view), policy);
}
