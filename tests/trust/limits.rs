//! Large and hostile policies: what is accepted, and what the faults are.

use scaikey_auth::trust::{PolicyError, TrustPolicy};

use super::fixture::{grant, reporter};

fn one_trust(rules: impl IntoIterator<Item = String>) -> String {
    let head = "[[trust]]\nid = \"k8s\"\nissuer = \"https://k8s.example\"\naudiences = [\"s\"]\n";
    std::iter::once(head.to_owned()).chain(rules).collect()
}

fn rule(nth: usize, identity: &str) -> String {
    format!(
        "[[trust.grant]]\nname=\"r{nth}\"\nsubject=\"a:{nth}\"\nmap={{identity=\"{identity}\",tenant=\"t\",scopes=[\"a\"]}}\n"
    )
}

fn trusts(count: usize) -> String {
    let trust = |nth| {
        format!("[[trust]]\nid=\"t{nth}\"\nissuer=\"https://{nth}.example\"\naudiences=[\"s\"]\n")
    };
    (0..count).map(trust).collect()
}

#[test]
fn ten_thousand_rules_and_trusts_are_accepted() {
    let texts = [
        one_trust((0..10_000).map(|nth| rule(nth, "sa:{sub}"))),
        one_trust((0..9_000).map(|nth| rule(nth, &format!("sa:long:prefix:{nth}")))),
        trusts(10_000),
    ];
    for text in texts {
        let policy = TrustPolicy::from_toml(&text).unwrap();
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<TrustPolicy>(&json).unwrap(), policy);
    }
}

#[test]
fn rule_above_the_limit_is_a_fault() {
    for (text, kind) in
        [(one_trust((0..10_001).map(|nth| rule(nth, "sa:x"))), "rules"), (trusts(10_001), "trusts")]
    {
        let last_line = text.lines().count() - 3;
        let error = TrustPolicy::from_toml(&text).unwrap_err();
        let expected = format!(
            "line {last_line}, column 1: the policy has more than 10000 {kind}: remove those without use"
        );
        assert_eq!(error.faults()[0].to_string(), expected);
        assert_eq!(error.faults().len(), 1, "{error}");
    }
}

#[test]
fn text_above_one_mebibyte_is_a_fault() {
    let fill = |length: usize| format!("#{}", "x".repeat(length - 1));
    assert!(TrustPolicy::from_toml(&fill(TrustPolicy::MAX_TEXT_BYTES)).is_ok());
    let expected = "line 1, column 1: the text has 1048577 bytes: a policy has at most 1048576";
    let too_long = TrustPolicy::MAX_TEXT_BYTES + 1;
    let json = format!("{{{}}}", " ".repeat(too_long - 2));
    for error in [TrustPolicy::from_toml(&fill(too_long)), TrustPolicy::from_json(&json)] {
        assert_eq!(error.unwrap_err().faults()[0].to_string(), expected);
    }
}

#[test]
fn faults_after_the_first_200_are_counted() {
    let unknown: String = (0..1_000).map(|nth| format!("x{nth} = 1\n")).collect();
    let error = TrustPolicy::from_toml(&unknown).unwrap_err();
    let faults = error.faults();
    assert_eq!(faults.len(), 201);
    let lines: Vec<_> = faults.iter().take(200).map(|fault| fault.line).collect();
    assert_eq!(lines, (1..=200).map(Some).collect::<Vec<_>>());
    let last = faults.last().unwrap().to_string();
    assert_eq!(last, "the policy has 800 more, which are not listed: correct these first");
}

#[test]
fn limits_of_one_field_are_faults() {
    let many = |item: &str, count: usize| vec![item; count].join(", ");
    let audiences = |count| {
        let text =
            "[[trust]]\nid = \"k8s\"\nissuer = \"https://k8s.example\"\naudiences = [ITEMS]\n";
        TrustPolicy::from_toml(&text.replace("ITEMS", &many("\"s\"", count)))
    };
    assert!(audiences(100).is_ok());
    assert_eq!(
        first(audiences(101)),
        "line 4, column 514: trust.k8s.audiences has more than 100 items: remove those without use"
    );
    let identity = |count| {
        let text = one_trust([rule(1, &format!("sa:{}", vec!["{sub}"; count].join(":")))]);
        TrustPolicy::from_toml(&text)
    };
    assert!(identity(16).is_ok());
    assert!(first(identity(17)).ends_with("map.identity has more than 16 placeholders"));
    let long = |length| {
        TrustPolicy::from_toml(&one_trust([rule(1, &format!("sa:{}", "x".repeat(length)))]))
    };
    assert!(long(252).is_ok());
    assert!(first(long(253)).contains("map.identity is longer than 255 bytes"));
}

fn first(read: Result<TrustPolicy, PolicyError>) -> String {
    read.unwrap_err().faults()[0].to_string()
}

#[test]
fn similar_identities_have_a_limit() {
    // Each pair differs only in its last segment, after an open one.
    let rules = (0..6_000).map(|nth| rule(nth, &format!("sa:{{trust}}:{{x}}:{nth}")));
    let error = first(TrustPolicy::from_toml(&one_trust(rules)));
    assert!(
        error.contains("map.identity is too similar to those of too many other rules"),
        "{error}"
    );
    let rules = (0..6_000).map(|nth| rule(nth, &format!("sa:{{trust}}:{nth}:{{x}}")));
    assert!(TrustPolicy::from_toml(&one_trust(rules)).is_ok());
}

#[test]
fn dotted_keys_are_limited_in_depth() {
    let keys = |count| "a.".repeat(count);
    // Far deeper than brackets alone may nest.
    let nested = |depth: usize| {
        format!(
            "{}a = {}1{}",
            keys(78),
            format!("{{ {}a = ", keys(78)).repeat(depth),
            "}".repeat(depth)
        )
    };
    for text in [format!("{}a = 1", keys(17)), nested(1), nested(77)] {
        let error = first(TrustPolicy::from_toml(&text));
        assert!(error.contains("the text is nested too deeply: use at most 16 levels"), "{error}");
    }
}

/// Each of these made some check compare everything with everything, or quote a long name in each fault.
#[test]
fn hostile_texts_have_short_answers() {
    const SIZE: usize = 100_000;
    let fill = |unit: &str| unit.repeat(SIZE / unit.len());
    let trust = |fields: &str| format!("[[trust]]\nissuer = \"https://k8s.example\"\n{fields}\n");
    let in_rule = |fields: &str| one_trust([format!("[[trust.grant]]\nname = \"g\"\n{fields}\n")]);
    let numbered = |unit: &str, count: usize| -> String {
        (0..count).map(|nth| unit.replace('N', &nth.to_string())).collect()
    };
    let texts = [
        fill("."),
        fill("\r"),
        fill("=\n"),
        fill("a = 1\n"),
        fill("[["),
        format!("a = {}", fill("[")),
        format!("{}a = 1", fill("a.")),
        format!("a = \"{}", fill("\\q")),
        format!("trust = [{}]", fill("1,")),
        format!("trust = [{}]", fill("{},")),
        fill("[[trust]]\n"),
        fill("[[trust.grant]]\n"),
        trust(&format!(
            "id = \"{}\"\n{}",
            fill("i"),
            fill("x.x = 1\n").replacen("x.x = 1\n", "", 1)
        )),
        trust(&format!("id = \"{}\"\naudiences = [{}]", fill("i"), fill("\"*\","))),
        trust(&format!(
            "id = \"{}\"\naudiences = [\"*\"]\n{}",
            fill("i"),
            fill("[[trust.grant]]\nname=\"\"\n")
        )),
        trust(&format!("id = \"a\"\naudiences = [\"s\"]\nalgorithms = [{}]", fill("\"RS256\","))),
        in_rule(&format!("claims = {{ \"{}\" = {{ one_of = [{}] }} }}", fill("c"), fill("1.5,"))),
        in_rule(&format!("claims = {{ x = {{ one_of = [{}] }} }}", fill("[],"))),
        in_rule(&format!("claims = {{ {} }}", numbered("N = { glob = \"a:*:N\" }, ", 4_000))),
        in_rule(&format!("subject = \"a:{}\"", fill("*:"))),
        in_rule(&format!("subject = \"{}\"", fill("a*"))),
        in_rule(&format!(
            "map = {{ identity = \"sa:{}\", tenant = \"t\", scopes = [] }}",
            fill("{sub}:")
        )),
        in_rule(&format!(
            "map = {{ identity = \"{}\", tenant = \"{}\", scopes = [{}] }}",
            fill("x"),
            fill("t"),
            fill("\" \",")
        )),
    ];
    for text in texts {
        let start: String = text.chars().take(160).collect();
        let error = TrustPolicy::from_toml(&text).expect_err(&start);
        assert!(error.faults().len() <= 201, "{start}");
        let length = error.to_string().len();
        assert!(length < 100_000, "{length} bytes for {start}");
        let _ = TrustPolicy::from_json(&serde_json::to_string(&text).unwrap());
    }
}

#[test]
fn hostile_json_has_short_answers() {
    let names = |name: &str| format!("{{ {} }}", vec![format!("\"{name}\": 1"); 20_000].join(","));
    let nested = |open: &str, close: &str| {
        format!("{{\"trust\":{}{}}}", open.repeat(50_000), close.repeat(50_000))
    };
    for text in [
        names("a"),
        names(&"n".repeat(30)),
        nested("[", "]"),
        nested("{\"a\":", "}"),
        "[".repeat(100_000),
    ] {
        let error = TrustPolicy::from_json(&text).unwrap_err();
        assert!(error.faults().len() <= 201 && error.to_string().len() < 100_000);
    }
}

#[test]
fn rule_names_differ_within_a_tenant() {
    let of = |tenant: &str, subject: &str| {
        grant("g", &format!("subject = \"{subject}\""))
            .replace("tnt_acme", tenant)
            .replace("{trust}:g", subject)
    };
    assert!(TrustPolicy::from_toml(&one_trust([of("acme", "a"), of("other", "b")])).is_ok());
    let same = first(TrustPolicy::from_toml(&one_trust([of("acme", "a"), of("acme", "b")])));
    assert!(same.contains("g.name is the name of an earlier rule"), "{same}");
}

#[test]
fn scopes_of_a_rule_are_limited() {
    let scopes: Vec<_> = (0..2_000).map(|nth| format!("\"s:{nth}\"")).collect();
    let rule = reporter().replace("\"secrets:read\", \"secrets:list\"", &scopes.join(", "));
    let text = format!(
        "[[trust]]\nid = \"k8s\"\nissuer = \"https://k8s.example\"\naudiences = [\"a\"]\n{rule}"
    );
    let error = TrustPolicy::from_toml(&text).unwrap_err().to_string();
    assert!(error.contains("above the limit of 8192"), "{error}");
}
