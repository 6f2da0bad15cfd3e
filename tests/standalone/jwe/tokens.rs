//! Tokens that providers issue: all algorithms, the token inside, and the choice of the key.

use std::time::Duration;

use scaikey_auth::config::DecryptionKeys;
use scaikey_auth::error::{BoxError, InvalidToken};
use scaikey_auth::issuer::TenantIssuers;
use scaikey_auth::testing::Provider;
use scaikey_auth::validator::Credentials;
use scaikey_auth::{Auth, AuthMode, IssuerConfig, JwksValidator, TenantId, TokenValidator};

use super::{Service, error, outcome, serve};
use crate::support::jwe::{ALGORITHMS, ENCRYPTIONS, KeyPair, decryption_keys, private_set};
use crate::support::{World, local_with_all_algorithms};

#[tokio::test]
async fn every_algorithm_opens_tokens() {
    let pairs: Vec<KeyPair> = ALGORITHMS
        .iter()
        .enumerate()
        .map(|(nth, (alg, curve))| KeyPair::new(&nth.to_string(), alg, curve))
        .collect();
    let service = Service::new(&pairs).await;
    for (pair, (alg, curve)) in pairs.iter().zip(ALGORITHMS) {
        for enc in ENCRYPTIONS {
            let token = pair.encrypt(enc, &service.signed());
            assert_eq!(service.outcome(&token).await, "accepted", "{alg} {curve} {enc}");
        }
    }
}

#[tokio::test]
async fn known_token_is_not_decrypted_again() {
    let pair = KeyPair::p256("a");
    let service = Service::new([&pair]).await;
    let token = pair.encrypt("A256GCM", &service.signed());
    let hits = || service.auth.verified_tokens().stats().hits;
    service.auth.authenticate(&token).await.unwrap();
    assert_eq!(hits(), 0);
    service.auth.authenticate(&token).await.unwrap();
    assert_eq!(hits(), 1);
    // The same token in another envelope is another token.
    service.auth.authenticate(&pair.encrypt("A256GCM", &service.signed())).await.unwrap();
    assert_eq!(hits(), 1);
    // It expires as it would have alone.
    service.world.clock.advance(Duration::from_secs(3700));
    assert_eq!(service.outcome(&token).await, "token_expired");
}

#[tokio::test]
async fn unencrypted_tokens_are_refused_by_default() {
    let pair = KeyPair::p256("a");
    let service = Service::new([&pair]).await;
    let (signed, other) = (service.signed(), service.world.provider.token().subject("b").sign());
    assert_eq!(service.outcome(&signed).await, "token_unencrypted");
    // The signed token inside an accepted one is refused, too.
    assert_eq!(service.outcome(&pair.encrypt("A128GCM", &signed)).await, "accepted");
    assert_eq!(service.outcome(&signed).await, "token_unencrypted");
    let keys = decryption_keys([&pair]);
    let auth = service.world.auth_with(service.world.issuer().decrypt(keys).also_unencrypted());
    let auth = auth.build().unwrap();
    let server = serve(&auth).await;
    for token in [&signed, &other, &pair.encrypt("A128GCM", &signed)] {
        assert_eq!(outcome(&auth, &server, token).await, "accepted");
    }
}

#[tokio::test]
async fn token_inside_must_pass_every_rule() {
    let pair = KeyPair::p256("a");
    let service = Service::new([&pair]).await;
    let provider = &service.world.provider;
    let other = Provider::builder().clock(service.world.clock.clone()).start().await;
    let signed = service.signed();
    let (signed_part, _) = signed.rsplit_once('.').unwrap();
    for (inside, expected) in [
        (provider.token().expired().sign(), "token_expired"),
        (provider.token().audience("else").sign(), "token_audience"),
        (provider.token().claim("at_hash", "a").sign(), "token_type"),
        (provider.token().without("sub").sign(), "token_claim_missing"),
        (other.token().sign(), "token_issuer"),
        (other.token().issuer(&provider.issuer()).sign(), "token_key_unknown"),
        (format!("{signed_part}.{}", "A".repeat(86)), "token_signature"),
        // `{"alg":"none"}`
        (format!("eyJhbGciOiJub25lIn0.{}.", signed.split('.').nth(1).unwrap()), "token_algorithm"),
        (r#"{"iss":"a","sub":"alice"}"#.to_owned(), "token_malformed"),
        (String::new(), "token_malformed"),
        ("..".to_owned(), "token_malformed"),
        (format!("{signed} "), "token_malformed"),
        (pair.encrypt("A128GCM", &signed), "token_malformed"),
        (provider.token().header("cty", "JWT").sign(), "token_malformed"),
    ] {
        let token = pair.encrypt("A256GCM", &inside);
        assert_eq!(service.outcome(&token).await, expected, "{inside}");
    }
}

#[tokio::test]
async fn key_of_another_issuer_opens_no_token() {
    let world = World::new().await;
    let other = Provider::builder().clock(world.clock.clone()).start().await;
    let (ours, theirs) = (KeyPair::p256("ours"), KeyPair::p256("theirs"));
    let plain = Provider::builder().clock(world.clock.clone()).start().await;
    let auth = world
        .auth_with(world.issuer().decrypt(decryption_keys([&ours])))
        .issuer(local_with_all_algorithms(&other.issuer()).decrypt(decryption_keys([&theirs])))
        .issuer(local_with_all_algorithms(&plain.issuer()))
        .build()
        .unwrap();
    let server = serve(&auth).await;
    let signed = world.provider.token().sign();
    for (pair, content, expected) in [
        (&ours, &signed, "accepted"),
        (&theirs, &signed, "token_decryption"),
        (&theirs, &other.token().sign(), "accepted"),
        (&ours, &other.token().sign(), "token_decryption"),
        // An issuer without keys encrypts nothing.
        (&ours, &plain.token().sign(), "token_decryption"),
    ] {
        let token = pair.encrypt("A128GCM", content);
        assert_eq!(outcome(&auth, &server, &token).await, expected);
    }
    assert_eq!(outcome(&auth, &server, &plain.token().sign()).await, "accepted");
    // Two issuers may share a key, even if it was read twice.
    let both = KeyPair::p256("both");
    let auth = world
        .auth_with(world.issuer().decrypt(decryption_keys([&both])))
        .issuer(local_with_all_algorithms(&other.issuer()).decrypt(decryption_keys([&both])))
        .build()
        .unwrap();
    for content in [signed, other.token().sign()] {
        auth.authenticate(&both.encrypt("A128GCM", &content)).await.unwrap();
    }
}

/// Returns an issuer that no token here comes from.
fn issuer_of_others(nth: usize, pair: &KeyPair) -> IssuerConfig {
    IssuerConfig::new(format!("https://id{nth}.example")).decrypt(decryption_keys([pair]))
}

fn nameless(pair: &KeyPair, content: &str) -> String {
    pair.encrypt_with("A128GCM", content, |header| header.set_claim("kid", None).unwrap())
}

#[tokio::test]
async fn shared_key_is_tried_once() {
    let (shared, own) = (KeyPair::p256("shared"), KeyPair::p256("own"));
    let world = World::new().await;
    let signed = world.provider.token().sign();
    // As if all issuers named the same file: each reads it.
    let auth = world.auth_with(issuer_of_others(0, &shared));
    let auth = (1..6).fold(auth, |auth, nth| auth.issuer(issuer_of_others(nth, &shared)));
    let auth = auth.issuer(world.issuer().decrypt(decryption_keys([&own]))).build().unwrap();
    assert_eq!(outcome(&auth, &serve(&auth).await, &nameless(&own, &signed)).await, "accepted");
}

#[tokio::test]
async fn key_with_two_names_is_one_key() {
    let world = World::new().await;
    let other = Provider::builder().clock(world.clock.clone()).start().await;
    let key = KeyPair::p256("a");
    let renamed = decryption_keys([&key.with("kid", "b")]);
    let auth = world
        .auth_with(world.issuer().decrypt(decryption_keys([&key])))
        .issuer(local_with_all_algorithms(&other.issuer()).decrypt(renamed))
        .build()
        .unwrap();
    let server = serve(&auth).await;
    for content in [world.provider.token().sign(), other.token().sign()] {
        let token = nameless(&key, &content);
        assert_eq!(outcome(&auth, &server, &token).await, "accepted");
    }
    // With another algorithm, it would be used for what this issuer does not allow.
    let stricter = decryption_keys([&key.with("alg", "ECDH-ES+A256KW")]);
    let auth = world
        .auth_with(world.issuer().decrypt(decryption_keys([&key])))
        .issuer(local_with_all_algorithms(&other.issuer()).decrypt(stricter))
        .build()
        .unwrap();
    let token = key.encrypt("A128GCM", &other.token().sign());
    assert_eq!(outcome(&auth, &serve(&auth).await, &token).await, "token_decryption");
}

#[tokio::test]
async fn different_keys_with_one_name_are_faults() {
    let ours = KeyPair::p256("2026-11");
    let build = |other: &KeyPair| {
        let builder = Auth::builder().audience("a").issuer(issuer_of_others(0, &ours));
        builder.issuer(issuer_of_others(1, other)).build()
    };
    let error = build(&KeyPair::p256("2026-11")).unwrap_err();
    let [fault] = error.faults() else { panic!("one fault: {error}") };
    assert_eq!(fault.field, "issuers[1].decryption_keys");
    for part in ["2026-11", "ECDH-ES", "https://id0.example", "give one of them another `kid`"] {
        assert!(fault.problem.contains(part), "{error}");
    }
    // What else a token says tells these apart.
    for other in [
        ours.clone(),
        KeyPair::p256("2026-12"),
        KeyPair::new("2026-11", "ECDH-ES", "X25519"),
        KeyPair::new("2026-11", "RSA-OAEP", ""),
        ours.with("alg", "ECDH-ES+A128KW"),
    ] {
        build(&other).unwrap();
    }
    // Also within an issuer, and for those that are added later.
    let other = decryption_keys([&KeyPair::p256("2026-11")]);
    let twice = issuer_of_others(0, &ours).decrypt(other.clone());
    assert!(Auth::builder().audience("a").issuer(twice).build().is_err());
    let auth = build(&ours).unwrap();
    let late = |name: &str| auth.issuers().add(IssuerConfig::new(name).decrypt(other.clone()));
    assert!(late("https://id2.example").unwrap_err().to_string().contains("another `kid`"));
    assert!(late("https://{tenant_id}.id.example").is_err());
    auth.issuers().remove("https://id0.example");
    late("https://id1.example").unwrap();
    late("https://id2.example").unwrap();
}

#[derive(Debug)]
struct WithKeys(String, DecryptionKeys);

#[async_trait::async_trait]
impl TenantIssuers for WithKeys {
    async fn resolve(
        &self,
        _: &TenantId,
        template: IssuerConfig,
    ) -> Result<Option<IssuerConfig>, BoxError> {
        let discovery = format!("{}/.well-known/openid-configuration", self.0);
        Ok(Some(template.discovery_url(discovery).decrypt(self.1.clone())))
    }
}

#[tokio::test]
async fn keys_of_a_resolver_are_an_error() {
    let (ours, theirs) = (KeyPair::p256("a"), KeyPair::p256("b"));
    for (in_resolver, expected) in [(&theirs, Some("unavailable")), (&ours, None)] {
        let world = World::new().await;
        let acme = world.provider.tenant("tnt-1", "acme");
        let template = format!("{}/tenants/{{tenant_id}}", world.provider.url());
        let template = local_with_all_algorithms(&template).decrypt(decryption_keys([&ours]));
        let place = format!("{}/api/v1/auth/tenants/acme", world.provider.url());
        let resolver = WithKeys(place, decryption_keys([in_resolver]));
        let auth = Auth::builder().audience("scaiwave").clock(world.clock.clone());
        let auth = auth.tenant_issuers(template, resolver).build().unwrap();
        let token = ours.encrypt("A128GCM", &acme.token().sign());
        let refused = auth.authenticate(&token).await.err();
        assert_eq!(refused.map(|error| error.reason()), expected);
    }
}

#[tokio::test]
async fn keys_are_found_by_name_and_algorithm() {
    let pairs = ["a", "b", "c"].map(KeyPair::p256);
    let rsa = KeyPair::new("rsa", "RSA-OAEP-256", "");
    let service = Service::new(pairs.iter().chain([&rsa])).await;
    let signed = service.signed();
    let named = |pair: &KeyPair, kid: Option<&str>| {
        pair.encrypt_with("A128GCM", &signed, |header| {
            header.set_claim("kid", kid.map(Into::into)).unwrap();
        })
    };
    assert_eq!(service.outcome(&named(&pairs[2], Some("c"))).await, "accepted");
    for (pair, kid) in [(&pairs[0], "b"), (&pairs[0], "x"), (&pairs[0], "rsa"), (&rsa, "a")] {
        assert_eq!(service.outcome(&named(pair, Some(kid))).await, "token_decryption");
    }
    // Without a name, two keys are tried, and those for another algorithm do not count.
    for (pair, expected) in [
        (&pairs[0], "accepted"),
        (&pairs[1], "accepted"),
        (&pairs[2], "token_decryption"),
        (&rsa, "accepted"),
    ] {
        assert_eq!(service.outcome(&named(pair, None)).await, expected);
    }
    // A key is used for its own algorithm only.
    let other = KeyPair::new("rsa", "RSA-OAEP", "");
    assert_eq!(service.outcome(&other.encrypt("A128GCM", &signed)).await, "token_decryption");
    let other = pairs[0].with("alg", "ECDH-ES+A256KW");
    assert_eq!(service.outcome(&other.encrypt("A128GCM", &signed)).await, "token_decryption");
}

#[tokio::test]
async fn parties_of_the_agreement_are_used() {
    for alg in ["ECDH-ES", "ECDH-ES+A128KW"] {
        let pair = KeyPair::new("a", alg, "P-256");
        let service = Service::new([&pair]).await;
        let token = pair.encrypt_with("A256CBC-HS512", &service.signed(), |header| {
            header.set_agreement_partyuinfo("Alice");
            header.set_agreement_partyvinfo("Bob");
        });
        assert_eq!(service.outcome(&token).await, "accepted", "{alg}");
    }
}

#[tokio::test]
async fn content_type_must_be_a_jwt() {
    let pair = KeyPair::p256("a");
    let service = Service::new([&pair]).await;
    for (cty, expected) in [
        (Some("JWT"), "accepted"),
        (Some("jwt"), "accepted"),
        (Some("application/jwt"), "accepted"),
        (Some("at+jwt"), "accepted"),
        (Some("json"), "token_malformed"),
        (Some(""), "token_malformed"),
        (None, "token_malformed"),
    ] {
        let token = pair.encrypt_with("A128GCM", &service.signed(), |header| {
            header.set_claim("cty", cty.map(Into::into)).unwrap();
        });
        assert_eq!(service.outcome(&token).await, expected, "{cty:?}");
    }
}

#[tokio::test]
async fn service_without_keys_says_so() {
    let world = World::new().await;
    let token = KeyPair::p256("a").encrypt("A128GCM", &world.provider.token().sign());
    let auth = world.auth().build().unwrap();
    let server = serve(&auth).await;
    assert_eq!(outcome(&auth, &server, &token).await, "token_decryption");
    assert!(error(&auth, &token).await.contains("`IssuerConfig::decrypt`, feature `jwe`"));
    let mut config = scaikey_auth::AuthConfig::default();
    config.issuers = vec![world.issuer()];
    config.audience = vec!["scaiwave".to_owned()];
    let validator = JwksValidator::new(&config).unwrap();
    let refused = validator.validate(&Credentials::bearer(&token)).await.unwrap_err();
    assert!(validator.accepts(&Credentials::bearer(&token)));
    assert_eq!(refused.reason(), InvalidToken::Decryption("").reason());
}

#[tokio::test]
async fn mock_never_accepts_an_encrypted_token() {
    let world = World::new().await;
    for keys in [None, Some(KeyPair::p256("a"))] {
        let issuer = match &keys {
            Some(pair) => world.issuer().decrypt(decryption_keys([pair])),
            None => world.issuer(),
        };
        let auth = world.auth_with(issuer).mode(AuthMode::Hybrid);
        let auth = auth.insecure_allow_mock_in_production().build().unwrap();
        let server = serve(&auth).await;
        for token in ["mock-a.b.c.d.e", "mock-....", "mock-a.b.c.d.e.f"] {
            assert_eq!(server.get_as("/", token).await.status, 401, "{token}");
        }
        assert_eq!(server.get_as("/", "mock-a").await.status, 200);
    }
}

#[tokio::test]
async fn issuers_of_tenants_use_template_keys() {
    let world = World::new().await;
    let acme = world.provider.tenant_at("acme", "/tenants/acme");
    let pair = KeyPair::p256("a");
    let template =
        local_with_all_algorithms(&format!("{}/tenants/{{tenant_id}}", world.provider.url()));
    let auth = world.auth_with(template.decrypt(decryption_keys([&pair])));
    let auth = auth.tenants(scaikey_auth::tenant::AnyTenant).build().unwrap();
    let server = serve(&auth).await;
    let signed = acme.token().sign();
    assert_eq!(outcome(&auth, &server, &signed).await, "token_unencrypted");
    let token = pair.encrypt("A128GCM", &signed);
    assert_eq!(outcome(&auth, &server, &token).await, "accepted");
    assert_eq!(outcome(&auth, &server, &signed).await, "token_unencrypted", "it is open now");
}

#[tokio::test]
async fn issuers_with_keys_come_and_go() {
    let world = World::new().await;
    let other = Provider::builder().clock(world.clock.clone()).start().await;
    let pair = KeyPair::p256("a");
    let auth = world.auth().build().unwrap();
    let token = pair.encrypt("A128GCM", &other.token().sign());
    let reason = async || auth.authenticate(&token).await.err().map(|error| error.reason());
    assert_eq!(reason().await, Some("token_decryption"));
    let added = local_with_all_algorithms(&other.issuer()).decrypt(decryption_keys([&pair]));
    auth.issuers().add(added).unwrap();
    assert_eq!(reason().await, None);
    auth.issuers().remove(&other.issuer());
    assert_eq!(reason().await, Some("token_decryption"));
}

#[test]
fn permission_without_keys_is_a_fault() {
    let issuer = IssuerConfig::new("https://a.example").also_unencrypted();
    let error = Auth::builder().issuer(issuer).audience("a").build().unwrap_err();
    assert!(error.to_string().contains("also_unencrypted has no effect"), "{error}");
}

#[test]
fn debug_output_hides_private_keys() {
    let pair = KeyPair::p256("a");
    let keys = decryption_keys([&pair]);
    let issuer = IssuerConfig::new("https://a.example").decrypt(keys.clone());
    let secret = pair.private()["d"].as_str().unwrap().to_owned();
    assert!(private_set([&pair]).contains(&secret));
    for output in [format!("{keys:?}"), format!("{issuer:?}")] {
        assert!(output.contains(r#""a""#) && !output.contains(&secret), "{output}");
    }
    assert!(!serde_json::to_string(&issuer).unwrap().contains(&secret));
}
