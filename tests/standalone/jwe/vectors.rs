//! The tokens of `vectors.json`, which `vectors.mjs` describes.

use std::collections::BTreeSet;

use scaikey_auth::config::DecryptionKeys;
use scaikey_auth::{Auth, IssuerConfig};
use serde_json::{Value, json};

const VECTORS: &str = include_str!("vectors.json");

/// Returns a service that has this private key.
fn service(issuer: &Value, key: &Value) -> Auth {
    let keys = DecryptionKeys::jwks(key.to_string()).unwrap();
    let signers = json!({ "keys": [issuer["signer"]] }).to_string();
    let config = IssuerConfig::new(issuer["issuer"].as_str().unwrap()).keys(&signers).decrypt(keys);
    let auth = Auth::builder().verified_tokens_bytes(0).issuer(config).tenant_optional();
    auth.audience(issuer["audience"].as_str().unwrap()).build().unwrap()
}

#[tokio::test]
async fn each_vector_has_its_result() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let (mut wrong, mut opaque, mut tests) = (Vec::new(), BTreeSet::new(), 0);
    for group in vectors["groups"].as_array().unwrap() {
        let auth = service(&vectors["issuer"], &group["key"]);
        for test in group["tests"].as_array().unwrap() {
            tests += 1;
            let outcome = auth.authenticate(test["jwe"].as_str().unwrap()).await;
            let is_expected = match (&outcome, test["fault"].as_str()) {
                (Ok(context), None) => context.identity().subject() == "alice",
                (Err(error), Some(fault)) => {
                    opaque.extend((fault == "opaque").then(|| error.to_string()));
                    true
                }
                _ => false,
            };
            if !is_expected {
                let (key, comment) = (&group["key"]["kid"], &test["comment"]);
                wrong.push(format!("{} {key} {comment}: {:?}", test["id"], outcome.err()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tests}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(opaque.len(), 1, "{opaque:?}");
    assert!(tests > 800, "{tests}");
}
