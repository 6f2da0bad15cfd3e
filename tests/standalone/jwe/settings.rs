//! Decryption keys in files of settings and in the environment.

use scaikey_auth::{Auth, AuthConfig, ConfigError};
use serde_json::{Value, json};

use super::{outcome, serve};
use crate::support::jwe::{KeyPair, private_set};
use crate::support::{File, World, config};

fn from_vars(world: &World, more: &[(&str, &str)]) -> Result<Auth, ConfigError> {
    let issuer = world.provider.issuer();
    let vars = [("ISSUER", &*issuer), ("AUDIENCE", "scaiwave"), ("ALLOW_LOOPBACK_HTTP", "true")];
    let vars = vars.iter().chain(more);
    let vars = vars.map(|(name, value)| (format!("WAVE_{name}"), (*value).to_owned()));
    Auth::from_config(AuthConfig::from_vars("WAVE", vars)).clock(world.clock.clone()).build()
}

/// Returns what the service says to an encrypted token, and to one that is only signed.
async fn outcomes(world: &World, pair: &KeyPair, auth: &Auth) -> (&'static str, &'static str) {
    let server = serve(auth).await;
    let encrypted = pair.encrypt("A256GCM", &world.provider.token().sign());
    let signed = world.provider.token().sign();
    (outcome(auth, &server, &encrypted).await, outcome(auth, &server, &signed).await)
}

#[tokio::test]
async fn variables_set_decryption_keys() {
    let (world, pair) = (World::new().await, KeyPair::p256("a"));
    let set = private_set([&pair]);
    let file = File::new("keys", &format!("{set}\n"));
    let path = file.path_text();
    for keys in [("DECRYPTION_KEYS", set.as_str()), ("DECRYPTION_KEYS_FILE", &path)] {
        let auth = from_vars(&world, &[keys]).unwrap();
        assert_eq!(outcomes(&world, &pair, &auth).await, ("accepted", "token_unencrypted"));
        let auth = from_vars(&world, &[keys, ("ALSO_UNENCRYPTED", "true")]).unwrap();
        assert_eq!(outcomes(&world, &pair, &auth).await, ("accepted", "accepted"));
    }
}

#[tokio::test]
async fn files_of_settings_set_decryption_keys() {
    let (world, pair) = (World::new().await, KeyPair::p256("a"));
    let set = private_set([&pair]);
    let file = File::new("keys", &set);
    for (name, value) in [("decryption_keys", &set), ("decryption_keys_file", &file.path_text())] {
        let issuer = json!({
            "issuer": world.provider.issuer(), "allow_loopback_http": true,
            "algorithms": ["ES256"], name: value,
        });
        let settings = config(json!({ "audience": ["scaiwave"], "issuers": [issuer] }));
        let auth = Auth::from_config(settings).clock(world.clock.clone()).build().unwrap();
        assert_eq!(outcomes(&world, &pair, &auth).await, ("accepted", "token_unencrypted"));
    }
}

#[tokio::test]
async fn faults_name_variable_and_remedy() {
    let (world, pair) = (World::new().await, KeyPair::p256("a"));
    let set = private_set([&pair]);
    let mut public: Value = pair.private();
    let secret = public.as_object_mut().unwrap().remove("d").unwrap();
    let public = File::new("public", &public.to_string());
    let (public, missing) = (public.path_text(), File::reserve("missing"));
    let (missing, signing) = (missing.path_text(), set.replace("\"enc\"", "\"sig\""));
    for (vars, variable, problem) in [
        (&[("DECRYPTION_KEYS_FILE", &*missing)][..], "DECRYPTION_KEYS_FILE", "cannot be read"),
        (&[("DECRYPTION_KEYS_FILE", &*public)], "DECRYPTION_KEYS_FILE", "cannot be used"),
        (&[("DECRYPTION_KEYS", "hunter2")], "DECRYPTION_KEYS", "neither a JWK Set nor a JWK"),
        (&[("DECRYPTION_KEYS", &*signing)], "DECRYPTION_KEYS", "its `use` is not `enc`"),
        (&[("ALSO_UNENCRYPTED", "true")], "ALSO_UNENCRYPTED", "has no effect without"),
    ] {
        let error = from_vars(&world, vars).unwrap_err();
        let [fault] = error.faults() else { panic!("one fault: {error}") };
        assert_eq!(fault.field, format!("WAVE_{variable}"), "{error}");
        assert!(fault.problem.contains(problem), "{error}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains(secret.as_str().unwrap()) && !text.contains("hunter2"), "{text}");
    }
    let both = [("DECRYPTION_KEYS", &*set), ("DECRYPTION_KEYS_FILE", &*public)];
    let error = from_vars(&world, &both).unwrap_err().to_string();
    assert!(error.contains("are both set"), "{error}");
}
