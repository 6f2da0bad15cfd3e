//! A foreign platform, and a policy that trusts it.

use scaikey_auth::config::Algorithm;
use scaikey_auth::identity::Scopes;
use scaikey_auth::testing::{ManualClock, Provider, TestIssuer, TokenBuilder};
use scaikey_auth::trust::{Denied, Granted, TrustEvaluator, TrustPolicy};

pub(crate) const REPORTER: &str = "system:serviceaccount:reports:reporter";

/// A platform that signs with ES256.
pub(crate) async fn platform(clock: &ManualClock) -> Provider {
    Provider::builder().clock(clock.clone()).algorithms([Algorithm::ES256]).start().await
}

/// A token of the reporter's pod: valid for one hour, for `scaivault`.
pub(crate) fn pod(issuer: &TestIssuer) -> TokenBuilder {
    bare(issuer).subject(REPORTER).claim(
        "kubernetes.io",
        serde_json::json!({
            "namespace": "reports",
            "serviceaccount": { "name": "reporter", "uid": "6a2d" },
        }),
    )
}

/// A token for `scaivault` without any claims about a user.
pub(crate) fn bare(issuer: &TestIssuer) -> TokenBuilder {
    let person = ["tenant_id", "preferred_username", "email"];
    person.into_iter().fold(issuer.token().audience("scaivault"), TokenBuilder::without)
}

/// A `[[trust]]` for an issuer, with additional fields.
pub(crate) fn trust(id: &str, issuer: &TestIssuer, more: &str) -> String {
    format!(
        "[[trust]]\nid = \"{id}\"\nissuer = \"{}\"\nallow_loopback_http = true\naudiences = [\"scaivault\"]\n{more}\n",
        issuer.issuer(),
    )
}

/// A `[[trust]]` for an issuer whose name differs from its address.
pub(crate) fn trust_called(name: &str, id: &str, issuer: &TestIssuer, more: &str) -> String {
    format!(
        "[[trust]]\nid = \"{id}\"\nissuer = \"{name}\"\njwks = {{ url = \"{}\" }}\nallow_loopback_http = true\naudiences = [\"scaivault\"]\n{more}\n",
        issuer.jwks_uri(),
    )
}

/// A `[[trust.grant]]` with the conditions in `conditions`.
pub(crate) fn grant(name: &str, conditions: &str) -> String {
    format!(
        "[[trust.grant]]\nname = \"{name}\"\n{conditions}\nmap = {{ identity = \"sa:{{trust}}:{name}\", tenant = \"tnt_acme\", scopes = [\"secrets:read\", \"secrets:list\"] }}\n"
    )
}

pub(crate) fn reporter() -> String {
    grant("reporting", &format!("subject = \"{REPORTER}\""))
}

pub(crate) fn policy(parts: &[String]) -> TrustPolicy {
    let text = parts.join("\n");
    TrustPolicy::from_toml(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

pub(crate) fn evaluator(clock: &ManualClock, parts: &[String]) -> TrustEvaluator {
    TrustEvaluator::builder().policy(policy(parts)).clock(clock.clone()).build().unwrap()
}

pub(crate) async fn ask(evaluator: &TrustEvaluator, token: &str) -> Result<Granted, Denied> {
    evaluator.evaluate(token, None, &Scopes::new()).await
}

/// Returns the logged reason for denying a token.
pub(crate) async fn why(evaluator: &TrustEvaluator, token: &str) -> &'static str {
    match ask(evaluator, token).await {
        Ok(granted) => panic!("granted: {granted:?}"),
        Err(denied) => denied.reason().as_str(),
    }
}
