//! Comments in the rules of a tenant: none is lost silently, and none becomes another tenant's.

use scaikey_auth::TenantId;
use scaikey_auth::trust::TenantPolicy;

use super::delegations::{TRUST, delegation, rule};

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn namespace(name: &str) -> String {
    format!("subject = \"system:serviceaccount:{name}:*\"")
}

fn subject(name: &str) -> String {
    format!("subject = \"system:serviceaccount:{name}:x\"")
}

/// A policy whose rule of acme stands directly below that of rival.
fn dense() -> String {
    let (acme, rival) =
        (delegation("acme", &namespace("acme")), delegation("rival", &namespace("rival")));
    let own = rule("own", "acme", &subject("acme"));
    format!("{TRUST}{acme}{rival}{}{}", rule("r", "rival", &subject("rival")), own.trim_start())
}

fn commented(view: &str, comment: &str) -> String {
    view.replace("\n[[trust.grant]]", &format!("\n{comment}\n[[trust.grant]]"))
}

#[test]
fn comment_of_a_rule_is_seen_again() {
    let view = TenantPolicy::of(&dense(), &tenant("acme")).unwrap().text().to_owned();
    let change =
        TenantPolicy::change(&dense(), &tenant("acme"), &commented(&view, "# mine")).unwrap();
    let after = TenantPolicy::of(change.policy_text(), &tenant("acme")).unwrap();
    assert!(
        after.text().contains("# mine"),
        "{}\n--- policy:\n{}",
        after.text(),
        change.policy_text()
    );
}

#[test]
fn saving_again_does_not_grow() {
    let mut policy = dense();
    for _ in 0..3 {
        let view = TenantPolicy::of(&policy, &tenant("acme")).unwrap().text().to_owned();
        let text = if view.contains("# mine") { view } else { commented(&view, "# mine") };
        policy =
            TenantPolicy::change(&policy, &tenant("acme"), &text).unwrap().policy_text().to_owned();
    }
    assert_eq!(policy.matches("# mine").count(), 1, "{policy}");
}

#[test]
fn one_tenant_does_not_fill_the_policy() {
    let mut policy = dense();
    let long = format!("# {}", "x".repeat(120 * 1024));
    for _ in 0..9 {
        let view = TenantPolicy::of(&policy, &tenant("acme")).unwrap().text().to_owned();
        match TenantPolicy::change(&policy, &tenant("acme"), &commented(&view, &long)) {
            Ok(change) => policy = change.policy_text().to_owned(),
            Err(_) => break,
        }
    }
    let view = TenantPolicy::of(&policy, &tenant("rival")).unwrap().text().to_owned();
    let text = view.replace("name = \"r\"", &format!("# {}\nname = \"r\"", "y".repeat(100 * 1024)));
    let rival = TenantPolicy::change(&policy, &tenant("rival"), &text).map(drop);
    assert!(rival.is_ok(), "{} bytes: {}", policy.len(), rival.unwrap_err());
}

/// A remark of the owner about acme's rule, directly below it, and directly above a rule of rival.
#[test]
fn removal_shows_no_comment_to_others() {
    let (acme, rival) =
        (delegation("acme", &namespace("acme")), delegation("rival", &namespace("rival")));
    let own = rule("a", "acme", &subject("acme"));
    let other = rule("r", "rival", &subject("rival"));
    let policy = format!("{TRUST}{acme}{rival}{own}# remark about acme\n{}", other.trim_start());
    let view = |policy: &str| TenantPolicy::of(policy, &tenant("rival")).unwrap();
    assert!(!view(&policy).text().contains("remark"));
    let change =
        TenantPolicy::change(&policy, &tenant("acme"), "[[trust]]\nid = \"k8s\"\n").unwrap();
    let after = view(change.policy_text());
    assert_eq!(after.text(), view(&policy).text());
    assert_eq!(after.id(), view(&policy).id());
}

#[test]
fn dropped_comments_are_said() {
    let policy = dense();
    let view = TenantPolicy::of(&policy, &tenant("acme")).unwrap().text().to_owned();
    let change = TenantPolicy::change(&policy, &tenant("acme"), &format!("{view}# ask Jane\n"));
    let is_said = change.is_err()
        || change.is_ok_and(|it| it.policy_text() != policy || !it.warnings().is_empty());
    assert!(is_said, "a comment is dropped without a fault or warning");
}
