//! The faults of settings for opaque tokens, which `build()` reports.

use std::time::Duration;

use scaikey_auth::issuer::{ClientAuth, SecretSource};
use scaikey_auth::validator::OpaqueTokens;
use scaikey_auth::{Auth, AuthBuilder, IssuerConfig};

const ISSUER: &str = "https://id.example";

fn opaque(issuer: &str) -> OpaqueTokens {
    OpaqueTokens::new(issuer, ClientAuth::basic("docs", "secret"))
}

fn builder() -> AuthBuilder {
    Auth::builder().issuer(ISSUER).issuer("https://other.example").audience("docs")
}

/// Returns the faults as text.
fn faults(builder: AuthBuilder) -> String {
    builder.build().map_or_else(|error| error.to_string(), |_| String::new())
}

#[test]
fn each_fault_names_its_setting() {
    let none: [&str; 0] = [];
    let second = Duration::from_secs(1);
    for (settings, expected) in [
        (opaque("https://id.example/"), "opaque_tokens[0].issuer is `https://id.example/`, which"),
        (OpaqueTokens::new(ISSUER, ClientAuth::none("docs")), "client_auth has no credentials"),
        (
            OpaqueTokens::new(ISSUER, ClientAuth::basic("docs", "")),
            "client_auth has an empty secret",
        ),
        (
            OpaqueTokens::new(
                ISSUER,
                ClientAuth::basic("docs", SecretSource::File("/nowhere/x".into())),
            ),
            "client_auth names a file that cannot be used",
        ),
        (opaque(ISSUER).prefixes(["eyJ"]), "prefixes entry 1 is a start that a JWT can have"),
        (opaque(ISSUER).prefixes(["a", ""]), "prefixes entry 2 is empty"),
        (opaque(ISSUER).prefixes(["s k"]), "a character that a bearer token cannot have"),
        (opaque(ISSUER).prefixes(["skt_", "skt_a"]), "has `skt_` and `skt_a`"),
        (opaque(ISSUER).cache_for(second * 301), "cache_seconds must be at most 300 s"),
        (opaque(ISSUER).serve_while_unavailable(second * 301), "must be at most 300 s"),
        (opaque(ISSUER).timeout(Duration::ZERO), "timeout_seconds must be more than 0"),
        (opaque(ISSUER).timeout(second * 61), "at most 60 s"),
        (opaque(ISSUER).unknown_tokens(0, 20), "unknown_tokens must allow at least one question"),
        (opaque(ISSUER).introspection_url("http://id.example/i"), "url must be https"),
        (opaque(ISSUER).introspection_url("introspect"), "url is not a URL"),
        (opaque(ISSUER).introspection_url("https://u:p@id.example/i"), "no user name"),
        (opaque(ISSUER).introspection_url("https://id.example/{tenant_id}"), "braces"),
    ] {
        let text = faults(builder().opaque_tokens(settings));
        assert!(text.contains(expected), "{text} lacks {expected}");
        assert!(!text.contains("u:p@"), "{text}");
    }
    let good = opaque(ISSUER).prefixes(none).cache_for(second * 300);
    assert_eq!(faults(builder().opaque_tokens(good)), "");
}

#[test]
fn token_cannot_belong_to_two_issuers() {
    for (one, two, expected) in [
        (&["skt_"][..], &["sgk_"][..], ""),
        (&["skt_"], &[], ""),
        (&[], &[], "prefixes is missing, as for `https://id.example`"),
        (&["sk"], &["x", "skt_"], "has `skt_`, and `https://id.example` has `sk`"),
        (&["skt_"], &["skt_"], "has `skt_`, and"),
    ] {
        let builder = builder().opaque_tokens(opaque(ISSUER).prefixes(one.iter().copied()));
        let other = opaque("https://other.example").prefixes(two.iter().copied());
        let text = faults(builder.opaque_tokens(other));
        assert!(text.contains(expected) && (!expected.is_empty() || text.is_empty()), "{text}");
    }
    let twice = builder().opaque_tokens(opaque(ISSUER).prefixes(["a"]));
    let text = faults(twice.opaque_tokens(opaque(ISSUER).prefixes(["b"])));
    assert!(text.contains("opaque_tokens[1].issuer has opaque tokens twice"), "{text}");
}

#[test]
fn issuer_must_be_one_with_metadata() {
    let template = IssuerConfig::new("https://id.example/{tenant_id}");
    let template = template.tenants(["acme".parse().unwrap()]);
    let name = template.expected().to_owned();
    let text = faults(builder().issuer(template).opaque_tokens(opaque(&name)));
    assert!(text.contains("issuer stands for one issuer per tenant"), "{text}");
    let fixed = || IssuerConfig::new("https://keys.example").jwks_uri("https://keys.example/jwks");
    let text = faults(builder().issuer(fixed()).opaque_tokens(opaque("https://keys.example")));
    assert!(text.contains("opaque_tokens[0].url is missing: with configured keys"), "{text}");
    let settings = opaque("https://keys.example").introspection_url("https://keys.example/i");
    assert_eq!(faults(builder().issuer(fixed()).opaque_tokens(settings)), "");
}

#[test]
fn faults_come_with_those_of_issuers() {
    let text = faults(
        Auth::builder().issuer("http://id.example").opaque_tokens(opaque(ISSUER).prefixes(["eyJ"])),
    );
    assert!(text.contains("issuers[0].issuer") && text.contains("opaque_tokens[0]"), "{text}");
}

#[cfg(feature = "mock")]
mod mock {
    use scaikey_auth::AuthMode;
    use scaikey_auth::config::MockUser;

    use super::*;

    fn mock_user(prefix: &str) -> MockUser {
        let mut user = MockUser::default();
        user.token_prefix = prefix.to_owned();
        user
    }

    #[tokio::test]
    async fn mock_tokens_come_before_opaque_ones() {
        let hybrid = || builder().mode(AuthMode::Hybrid).mock_user(mock_user("mock_"));
        let text = faults(hybrid().opaque_tokens(opaque(ISSUER).prefixes(["mock_a"])));
        assert!(text.contains("which mock tokens begin with, too"), "{text}");
        let auth = hybrid().opaque_tokens(opaque(ISSUER)).build().unwrap();
        let caller = auth.authenticate("mock_alice").await.unwrap();
        assert!(caller.identity().is_mock());
        assert_eq!(auth.authenticate("other").await.unwrap_err().status(), 503);
    }

    #[tokio::test]
    async fn mock_mode_introspects_nothing() {
        let mode = Auth::builder().mode(AuthMode::Mock);
        let auth = mode.opaque_tokens(opaque("https://unknown.example")).build().unwrap();
        assert!(auth.authenticate("skt_any").await.unwrap().identity().is_mock());
        auth.ready().await.unwrap();
    }
}
