//! The revocation log of a configuration.

use scaikey_auth::revocation::{MemoryRevocationLog, Revocations};
use scaikey_auth::{Auth, AuthBuilder, AuthConfig};

use crate::support::Log;

const KEY: &str = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";

/// A server that does not exist: building a service does no I/O.
const URL: (&str, &str) = ("REDIS_URL", "redis://127.0.0.1:9");
const KEYS: (&str, &str) = ("CACHE_KEYS", KEY);
const SHARED: (&str, &str) = ("REVOCATION_LOG", "redis");
const LIMIT: (&str, &str) = ("REVOCATION_REFUSE_AFTER_SECONDS", "30");

fn builder(variables: &[(&str, &str)]) -> AuthBuilder {
    let own = [("ISSUER", "https://id.example"), ("AUDIENCE", "wave")];
    let all = own.iter().chain(variables);
    let all = all.map(|(name, value)| (format!("WAVE_{name}"), (*value).to_owned()));
    Auth::from_config(AuthConfig::from_vars("WAVE", all))
}

#[test]
fn variables_choose_the_revocation_log() {
    for (variables, variable, problem) in [
        (&[("REVOCATION_LOG", "disk")][..], "WAVE_REVOCATION_LOG", "must be `redis`"),
        (&[LIMIT], "WAVE_REVOCATION_REFUSE_AFTER_SECONDS", "WAVE_REVOCATION_LOG"),
        (
            &[SHARED, URL, KEYS, ("REVOCATION_REFUSE_AFTER_SECONDS", "4")],
            "WAVE_REVOCATION_REFUSE_AFTER_SECONDS",
            "at least 5 s",
        ),
        #[cfg(feature = "redis")]
        (&[SHARED], "WAVE_REVOCATION_LOG", "WAVE_REDIS_URL"),
        #[cfg(feature = "redis")]
        (&[SHARED, URL], "WAVE_REVOCATION_LOG", "WAVE_CACHE_KEYS"),
        #[cfg(feature = "redis")]
        (&[SHARED, KEYS, ("REDIS_URL", "http://a")], "WAVE_REDIS_URL", "redis://"),
        #[cfg(not(feature = "redis"))]
        (&[SHARED, URL, KEYS], "WAVE_REVOCATION_LOG", "cargo feature `redis`"),
    ] {
        let error = builder(variables).build().expect_err(variable).to_string();
        assert!(error.contains(variable) && error.contains(problem), "{error}");
    }
}

#[cfg(feature = "redis")]
#[test]
fn configured_log_is_followed() {
    let auth = builder(&[SHARED, URL, KEYS, LIMIT]).build().unwrap();
    assert!(auth.revocations().health().is_away, "it was not read yet");
    let file = r#"{ "audience": ["wave"], "issuers": [{ "issuer": "https://id.example" }],
                    "client": { "redis_url": "redis://127.0.0.1:9", "cache_keys": "KEY" },
                    "revocation_log": "redis", "revocation_refuse_after_seconds": 30 }"#;
    let file: AuthConfig = serde_json::from_str(&file.replace("KEY", KEY)).unwrap();
    let auth = Auth::from_config(file).build().unwrap();
    assert!(auth.revocations().health().is_away);
    let in_code = Revocations::builder().log(MemoryRevocationLog::default()).build();
    let error = builder(&[SHARED, URL, KEYS]).revocations(in_code).build().unwrap_err();
    assert!(error.to_string().contains("WAVE_REVOCATION_LOG has no effect"), "{error}");
}

#[cfg(feature = "mock")]
#[test]
fn mock_mode_needs_no_redis() {
    let auth = builder(&[("AUTH_MODE", "mock"), SHARED, LIMIT]).build().unwrap();
    assert!(!auth.revocations().health().is_away);
}

#[cfg(feature = "redis")]
#[test]
fn local_revocations_beside_redis_are_told() {
    let client = [("CLIENT_ID", "wave"), ("CLIENT_SECRET", "secret"), URL, KEYS];
    let reports = ("BACKCHANNEL_LOGOUT", "true");
    let told = |more: &[(&str, &str)], revocations: Option<Revocations>| {
        let log = Log::start();
        let builder = builder(&[&client[..], more].concat());
        match revocations {
            Some(it) => builder.revocations(it),
            None => builder,
        }
        .build()
        .unwrap();
        let text = log.text();
        assert!(!text.contains("WAVE_REDIS_URL has no effect"), "{text}");
        text.contains("WAVE_BACKCHANNEL_LOGOUT counts in the process that gets a report only")
    };
    assert!(told(&[reports], None));
    assert!(!told(&[], None));
    assert!(!told(&[reports, SHARED], None));
    assert!(!told(&[reports], Some(Revocations::default())), "a choice of the code");
    // The log uses the server without a client, too.
    let log = Log::start();
    builder(&[URL, KEYS, SHARED]).build().unwrap();
    assert!(!log.text().contains("has no effect"), "{}", log.text());
}
