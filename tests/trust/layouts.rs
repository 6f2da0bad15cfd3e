//! A tenant's change keeps every other byte of the policy, in each layout of TOML.

use scaikey_auth::TenantId;
use scaikey_auth::trust::{TenantPolicy, TrustPolicy};

use super::tenant_policy::{POLICY, changed, good_and_only_rule, good_rule, view};

/// The policy in other layouts, which mean the same.
pub(crate) fn layouts() -> Vec<(&'static str, String)> {
    let parsed = TrustPolicy::from_toml(POLICY).unwrap();
    let json = serde_json::to_value(&parsed).unwrap();
    let inline: String = json["trust"]
        .as_array()
        .unwrap()
        .iter()
        .map(inline_table)
        .collect::<Vec<_>>()
        .join(",\n  ");
    vec![
        ("as written", POLICY.to_owned()),
        ("CRLF", POLICY.replace('\n', "\r\n")),
        ("no line end", POLICY.trim_end().to_owned()),
        ("BOM", format!("\u{feff}{POLICY}")),
        ("tabs", POLICY.replace("[[trust", "\t[[trust")),
        ("normal form", toml::to_string(&json).unwrap()),
        ("one inline list", format!("trust = [\n  {inline}\n] # end\n")),
    ]
}

/// JSON as a TOML value.
fn inline_table(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(members) => {
            let members =
                members.iter().map(|(name, it)| format!("{name:?} = {}", inline_table(it)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        serde_json::Value::Array(items) => {
            format!("[{}]", items.iter().map(inline_table).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

#[test]
fn unchanged_view_changes_no_byte() {
    for (layout, policy) in layouts() {
        let view = view(&policy);
        assert_eq!(changed(&policy, &view), policy, "{layout}");
        // As a browser sends a text area.
        assert_eq!(changed(&policy, &view.replace("\r\n", "\n")), policy, "{layout}");
        assert_eq!(
            changed(&policy, &view.replace("\r\n", "\n").replace('\n', "\r\n")),
            policy,
            "{layout}"
        );
    }
}

#[test]
fn changes_keep_every_other_byte() {
    let reporter = &POLICY[POLICY.find("# Nightly").unwrap()..POLICY.find("[[ trust .").unwrap()];
    let old = &POLICY[POLICY.find("[[ trust .").unwrap()..POLICY.find("# Only").unwrap()];
    let view = view(POLICY);
    let table = [
        ("remove", view.replace(reporter, ""), POLICY.replace(reporter, "")),
        ("remove the last", view.replace(old, ""), POLICY.replace(old, "")),
        (
            "comment",
            view.replace("# They need one", "# They still need one"),
            POLICY.replace("# They need one", "# They still need one"),
        ),
        (
            "narrow",
            view.replace("{ eq = \"eu\" }", "{ one_of = [\"eu\"] }"),
            POLICY.replace("{ eq = \"eu\" }", "{ one_of = [\"eu\"] }"),
        ),
        (
            "rename",
            view.replace("\"reporter\"   #", "\"reports\"   #"),
            POLICY.replace("\"reporter\"   #", "\"reports\"   #"),
        ),
        (
            "add",
            view.replace(
                "\n# Tokens of issuer \"https://token",
                &format!("{}\n# Tokens of issuer \"https://token", good_rule("new")),
            ),
            POLICY.replace("\n# Only", &format!("{}\n# Only", good_rule("new"))),
        ),
        (
            "remove from a list",
            view[..view.find("\n[[trust.grant]]\nname = \"ci\"").unwrap()].to_owned(),
            POLICY.replace("\n  { name = \"ci\", subject = \"repo:acme/app:ref:refs/heads/main\", map = { identity = \"sa:ci\", tenant = \"acme\", scopes = [\"secrets:read\"] } },\n]", "\n  \n]"),
        ),
        // The comment of a rule that cannot be changed stays.
        (
            "comment a kept rule",
            view.replace("name = \"old\"", "name = \"old\" # x"),
            POLICY.to_owned(),
        ),
    ];
    for (title, text, expected) in table {
        assert_eq!(changed(POLICY, &text), expected, "{title}");
        let crlf = |text: &str| text.replace('\n', "\r\n");
        assert_eq!(changed(&crlf(POLICY), &text), crlf(&expected), "{title}");
    }
}

#[test]
fn every_layout_can_be_changed() {
    for (layout, policy) in layouts() {
        let before = view(&policy).replace("\r\n", "\n");
        let all = |changed: &str| {
            let tenants = ["acme", "rival"].map(|tenant| TenantId::new(tenant).unwrap());
            tenants.map(|tenant| TenantPolicy::of(changed, &tenant).unwrap())
        };
        let [_, rival] = all(&policy);
        let head = before.find("\n# Tokens of issuer \"https://token").unwrap();
        let with_rule = format!("{}{}{}", &before[..head], good_rule("new"), &before[head..]);
        let added = changed(&policy, &with_rule);
        let [own, others] = all(&added);
        assert!(own.text().contains("acme:new\""), "{layout}: {added}");
        assert_eq!(others.text(), rival.text(), "{layout}");
        let without = changed(&added, "");
        let [own, others] = all(&without);
        assert!(
            !own.text().contains("\"acme\", scopes") && !own.text().contains("github"),
            "{layout}: {}",
            own.text()
        );
        assert_eq!(others.text(), rival.text(), "{layout}");
        let again = changed(&without, &good_and_only_rule());
        assert!(view(&again).contains("acme:only\""), "{layout}");
        assert!(TrustPolicy::from_toml(&again).is_ok());
    }
}
