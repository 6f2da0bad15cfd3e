//! A foreign platform, and a policy that trusts it.

use scaikey_auth::config::Algorithm;
use scaikey_auth::identity::Scopes;
use scaikey_auth::testing::{ManualClock, Provider, TestIssuer, TokenBuilder};
use scaikey_auth::trust::{Denied, Granted, TrustEvaluator, TrustPolicy};

pub(crate) const REPORTER: &str = "system:serviceaccount:reports:reporter";

/// A platform with a clock of its own, which signs with ES256.
pub(crate) async fn platform(clock: &ManualClock) -> Provider {
    Provider::builder().clock(clock.clone()).algorithms([Algorithm::ES256]).start().await
}

/// A token as a cluster gives it to a pod: one hour, for `scaivault`, of the reporter.
pub(crate) fn pod(issuer: &TestIssuer) -> TokenBuilder {
    bare(issuer).subject(REPORTER).claim(
        "kubernetes.io",
        serde_json::json!({
            "namespace": "reports",
            "serviceaccount": { "name": "reporter", "uid": "6a2d" },
        }),
    )
}

/// A token that says nothing but who signed it, for `scaivault`.
pub(crate) fn bare(issuer: &TestIssuer) -> TokenBuilder {
    let person = ["tenant_id", "preferred_username", "email", "roles", "groups"];
    person.into_iter().fold(issuer.token().audience("scaivault"), TokenBuilder::without)
}

/// `[[trust]]` of an issuer at its own address, with whatever fields.
pub(crate) fn trust(id: &str, issuer: &TestIssuer, more: &str) -> String {
    format!(
        "[[trust]]\nid = \"{id}\"\nissuer = \"{}\"\nallow_loopback_http = true\naudiences = [\"scaivault\"]\n{more}\n",
        issuer.issuer(),
    )
}

/// `[[trust]]` of an issuer that goes by another name than its address.
pub(crate) fn trust_called(name: &str, id: &str, issuer: &TestIssuer, more: &str) -> String {
    format!(
        "[[trust]]\nid = \"{id}\"\nissuer = \"{name}\"\njwks = {{ url = \"{}\" }}\nallow_loopback_http = true\naudiences = [\"scaivault\"]\n{more}\n",
        issuer.jwks_uri(),
    )
}

/// `[[trust.grant]]` for whom `who` describes.
pub(crate) fn grant(name: &str, who: &str) -> String {
    format!(
        "[[trust.grant]]\nname = \"{name}\"\n{who}\nmap = {{ identity = \"sa:{{trust}}:{name}\", tenant = \"tnt_acme\", scopes = [\"secrets:read\", \"secrets:list\"] }}\n"
    )
}

pub(crate) fn reporter() -> String {
    grant("reporting", &format!("subject = \"{REPORTER}\""))
}

pub(crate) fn policy(parts: &[String]) -> TrustPolicy {
    let text = parts.join("\n");
    TrustPolicy::from_toml(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

pub(crate) fn trusts(clock: &ManualClock, parts: &[String]) -> TrustEvaluator {
    TrustEvaluator::builder().policy(policy(parts)).clock(clock.clone()).build().unwrap()
}

pub(crate) async fn ask(trusts: &TrustEvaluator, token: &str) -> Result<Granted, Denied> {
    trusts.evaluate(token, None, &Scopes::new()).await
}

/// Why a token is denied, for the log.
pub(crate) async fn why(trusts: &TrustEvaluator, token: &str) -> &'static str {
    match ask(trusts, token).await {
        Ok(granted) => panic!("granted: {granted:?}"),
        Err(denied) => denied.reason().as_str(),
    }
}
