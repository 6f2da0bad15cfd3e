//! Sign-ins whose tokens are encrypted for this service, and the keys that it publishes.

use std::time::Duration;

use axum::http::Method;
use scaikey_auth::config::DecryptionKeys;
use scaikey_auth::endpoints::Endpoint;
use scaikey_auth::issuer::SecretSource;
use scaikey_auth::testing::{Client, EncryptionKey, Fault, ProviderEndpoint};
use serde_json::{Value, json};

use super::env::{BYE, MINUTE, REDIRECT, Setup, TestEnv, Visitor};
use crate::support::files::File;
use crate::support::{Log, http};

const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");
const FETCH: (&str, &str) = ("sec-fetch-mode", "cors");

fn private_set<'k>(keys: impl IntoIterator<Item = &'k EncryptionKey>) -> String {
    let keys: Value = keys.into_iter().map(EncryptionKey::private_jwk).collect();
    json!({ "keys": keys }).to_string()
}

fn client() -> Client {
    let client = Client::new("wave", "secret").scopes("openid docs:read");
    client.redirect_uri(REDIRECT).post_logout_redirect_uri(BYE)
}

/// A service that has this key, and a provider with this client.
async fn service(key: &EncryptionKey, client: Client) -> TestEnv {
    let keys = DecryptionKeys::jwks(private_set([key])).unwrap();
    let setup = Setup::with_sessions().end_at_provider(BYE).issuer(|issuer| issuer.decrypt(keys));
    let env = setup.build().await;
    env.provider.register_client(client);
    env
}

async fn is_signed_in(env: &TestEnv, browser: &Visitor) -> bool {
    let arrived = env.sign_in(browser).await;
    let is_signed_in = arrived.status == 303 && arrived.header("location") == "/me";
    assert_eq!(browser.get("/me").await.status == 200, is_signed_in, "{arrived:?}");
    is_signed_in
}

/// Signs out. Returns the hint for the provider, and the page to which the provider leads.
async fn sign_out(browser: &Visitor) -> (String, String) {
    let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME, FETCH], "").await.json();
    let url = url::Url::parse(out["end_session_url"].as_str().unwrap()).unwrap();
    let hint = url.query_pairs().find(|(name, _)| name == "id_token_hint").unwrap().1.into_owned();
    let answer = http::send(http::client().get(url)).await;
    (hint, answer.header("location").to_owned())
}

#[tokio::test]
async fn encrypted_tokens_sign_in_and_out() {
    let key = EncryptionKey::generate("ECDH-ES+A256KW").content_encryption("A128CBC-HS256");
    let client = client().encrypt_id_tokens(&key).encrypt_access_tokens(&key);
    let env = service(&key, client).await;
    let browser = env.visitor();
    assert!(is_signed_in(&env, &browser).await);
    assert_eq!(browser.get("/me").await.body, "bob-id ");
    for renewals in 1..=2 {
        env.clock.advance(MINUTE * 55);
        assert_eq!(browser.get("/me").await.body, "bob-id ");
        assert_eq!(env.provider.granted("refresh_token"), renewals);
    }
    // The provider cannot read its own encrypted ID token, so the hint is the signed one inside.
    let (hint, page) = sign_out(&browser).await;
    assert_eq!((hint.split('.').count(), page.as_str()), (3, BYE));
}

#[tokio::test]
async fn id_tokens_need_not_be_encrypted() {
    let key = EncryptionKey::generate("ECDH-ES");
    let env = service(&key, client().encrypt_access_tokens(&key)).await;
    let browser = env.visitor();
    assert!(is_signed_in(&env, &browser).await);
    assert_eq!(sign_out(&browser).await.1, BYE);
    // An access token that is only signed is refused.
    env.provider.register_client(client().encrypt_id_tokens(&key));
    assert!(!is_signed_in(&env, &env.visitor()).await);
}

#[tokio::test]
async fn id_token_for_another_key_is_refused() {
    let [key, other] = ["ours", "ours"].map(|kid| EncryptionKey::generate("ECDH-ES").with_kid(kid));
    let log = Log::start();
    let env = service(&key, client().encrypt_id_tokens(&other).encrypt_access_tokens(&key)).await;
    assert!(!is_signed_in(&env, &env.visitor()).await);
    assert!(log.text().contains("the decryption key does not open it"), "{}", log.text());
    // A service without keys says so.
    let env = Setup::with_sessions().build().await;
    env.provider.register_client(client().encrypt_id_tokens(&key));
    assert!(!is_signed_in(&env, &env.visitor()).await);
    assert!(log.text().contains("this service has no decryption keys"), "{}", log.text());
}

#[tokio::test]
async fn encryption_does_not_replace_the_signature() {
    let key = EncryptionKey::generate("ECDH-ES");
    let env = service(&key, client().encrypt_id_tokens(&key).encrypt_access_tokens(&key)).await;
    assert!(is_signed_in(&env, &env.visitor()).await);
    // Everyone can encrypt to a public key. Tokens inside with a signature of no published key are refused.
    env.provider.rotate();
    env.provider.remove_key(&env.provider.kid());
    assert!(!is_signed_in(&env, &env.visitor()).await);
}

#[tokio::test]
async fn session_outlives_its_decryption_key() {
    let [old, new] = ["old", "new"].map(|kid| EncryptionKey::generate("ECDH-ES").with_kid(kid));
    let file = File::new("keys", &private_set([&old]));
    let keys = DecryptionKeys::jwks(SecretSource::File(file.path().into())).unwrap();
    let env = Setup::with_sessions().issuer(|issuer| issuer.decrypt(keys)).build().await;
    env.provider.register_client(client().encrypt_access_tokens(&old));
    let browser = env.visitor();
    assert!(is_signed_in(&env, &browser).await);
    file.write(&private_set([&new]));
    env.provider.register_client(client().encrypt_access_tokens(&new));
    env.clock.advance(MINUTE * 70);
    assert_eq!(browser.get("/me").await.body, "bob-id ");
}

#[tokio::test]
async fn session_without_expires_in_is_renewed() {
    let key = EncryptionKey::generate("ECDH-ES");
    let env = service(&key, client().without_expires_in().encrypt_access_tokens(&key)).await;
    let browser = env.visitor();
    assert!(is_signed_in(&env, &browser).await);
    for renewals in 1..=2 {
        env.clock.advance(MINUTE * 70);
        assert_eq!(browser.get("/me").await.body, "bob-id ");
        assert_eq!(env.provider.granted("refresh_token"), renewals);
    }
}

#[tokio::test]
async fn log_names_unreadable_id_token_of_renewal() {
    let [key, lost] = ["ours", "lost"].map(|kid| EncryptionKey::generate("ECDH-ES").with_kid(kid));
    let log = Log::start();
    let env = service(&key, client().encrypt_access_tokens(&key).encrypt_id_tokens(&key)).await;
    let browser = env.visitor();
    assert!(is_signed_in(&env, &browser).await);
    let other = env.provider.token().subject("bob-id").audience("wave").encrypted_for(&lost);
    env.provider.fail(ProviderEndpoint::Token, Fault::replace_member("id_token", other.sign()));
    env.clock.advance(MINUTE * 55);
    assert_eq!(browser.get("/me").await.body, "bob-id ", "the access token names the user");
    let text = log.text();
    assert!(text.contains("the ID token of a renewed session is refused"), "{text}");
    assert!(text.contains("token_decryption"), "{text}");
}

#[cfg(feature = "josekit")]
#[tokio::test]
async fn no_empty_key_set_is_published() {
    let jwk = EncryptionKey::generate("ECDH-ES").private_jwk().to_string();
    let jwk = josekit::jwk::Jwk::from_bytes(jwk).unwrap();
    let decrypter = josekit::jwe::ECDH_ES.decrypter_from_jwk(&jwk).unwrap();
    let keys = DecryptionKeys::josekit(decrypter).unwrap();
    let env = Setup::default().issuer(|issuer| issuer.decrypt(keys)).build().await;
    assert_eq!(env.visitor().get("/v1/auth/keys").await.status, 401, "a path of the service");
}

#[tokio::test]
async fn public_keys_are_published() {
    let [rsa, curve] = ["RSA-OAEP-256", "ECDH-ES"].map(EncryptionKey::generate);
    let file = File::new("keys", &private_set([&rsa]));
    let keys = DecryptionKeys::jwks(SecretSource::File(file.path().into())).unwrap();
    let shared = keys.clone();
    let env = Setup::default().issuer(|issuer| issuer.decrypt(keys)).build().await;
    let browser = env.visitor();
    let path = "/v1/auth/keys";
    let published = browser.get(path).await;
    assert_eq!((published.status, published.json()), (200, json!({ "keys": [rsa.jwk()] })));
    assert_eq!(published.header("content-type"), "application/jwk-set+json");
    assert_eq!(published.header("cache-control"), "public, max-age=300");
    // A new key in the file is published soon.
    file.write(&private_set([&curve, &rsa]));
    assert_eq!(browser.get(path).await.body, published.body);
    env.clock.advance(Duration::from_secs(10));
    let both = browser.get(path).await;
    assert_eq!(both.json(), json!({ "keys": [curve.jwk(), rsa.jwk()] }));
    let set = shared.public_key_set();
    assert_eq!(serde_json::from_str::<Value>(&set).unwrap(), both.json());
    // No private member is in the answers or in the output of `Debug`.
    let outputs = [&published.body, &both.body, &set, &format!("{shared:?} {:?}", env.auth)];
    for jwk in [rsa.private_jwk(), curve.private_jwk()] {
        for name in ["d", "p", "q", "dp", "dq", "qi"] {
            let Some(secret) = jwk[name].as_str() else { continue };
            assert!(outputs.iter().all(|output| !output.contains(secret)), "{name}");
        }
    }
    let posted = browser.send(Method::POST, path, &[], "").await;
    assert_eq!((posted.status, posted.header("allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn service_without_decryption_keys_publishes_none() {
    let env = TestEnv::new().await;
    assert_eq!(env.visitor().get("/v1/auth/keys").await.status, 401, "a path of the service");
    let endpoints = env.auth.endpoints().build().unwrap();
    assert!(!endpoints.enabled().contains(&Endpoint::Keys));
}
