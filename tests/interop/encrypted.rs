//! A provider that encrypts tokens for the keys that a service publishes.

use scaikey_auth::testing::EncryptionKey;
use serde_json::{Value, json};

use super::{ES256, Provider, Site, status, token};
use crate::support::webdriver::Browser;

fn private_keys() -> String {
    let keys = ["RSA-OAEP-256", "ECDH-ES"].map(EncryptionKey::generate);
    let keys: Value = keys.iter().map(EncryptionKey::private_jwk).collect();
    json!({ "keys": keys }).to_string()
}

#[tokio::test]
async fn tokens_are_encrypted_for_published_keys() {
    let site = Site::reserve();
    let (redirect_uri, logout_uri) = (site.redirect_uri(), site.logout_uri());
    let uris = [
        ("REDIRECT_URI", &*redirect_uri),
        ("POST_LOGOUT_REDIRECT_URI", &logout_uri),
        ("KEYS_URI", &format!("{}/v1/auth/keys", site.url())),
    ];
    let provider = Provider::start_with(&uris).await;
    let environment = [
        ("SCAIWAVE_ISSUER", provider.url.as_str()),
        ("SCAIWAVE_AUDIENCE", "scaiwave"),
        ("SCAIWAVE_CLIENT_ID", "encrypted"),
        ("SCAIWAVE_CLIENT_SECRET", "s3cret"),
        ("SCAIWAVE_SCOPES", "openid admin"),
        ("SCAIWAVE_DECRYPTION_KEYS", &private_keys()),
        ("SCAIWAVE_POST_LOGOUT_REDIRECT_URI", &logout_uri),
    ];
    let _service = site.start(&environment).await;

    // An access token, encrypted with RSA, around a signed one.
    let form =
        "grant_type=client_credentials&scope=admin&resource=https://scaiwave.example/encrypted";
    let encrypted = token(&format!("{}/token", provider.url), ("svc", "s3cret"), form).await;
    assert_eq!(encrypted.split('.').count(), 5);
    assert_eq!(status(&site.url(), "/admin", &encrypted).await, 200);
    let signed = provider.token(ES256, "admin").await;
    assert_eq!(status(&site.url(), "/admin", &signed).await, 401);

    // A sign-in with an ID token that is encrypted by a key agreement, and the sign-out at the provider.
    let browser = Browser::start().await;
    site.open_login(&browser).await;
    browser.shows("identity").await;
    let confirm = async |browser: &Browser| {
        browser.has("button[name=logout]").await;
        browser.click("button[name=logout]").await;
    };
    site.sign_out(&browser, confirm).await;
}
