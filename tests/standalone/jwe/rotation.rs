//! Decryption keys in a file that is replaced while the service runs.

use std::time::Duration;

use scaikey_auth::config::DecryptionKeys;
use scaikey_auth::issuer::SecretSource;

use super::Service;
use crate::support::jwe::{KeyPair, private_set};
use crate::support::{File, Log};

async fn service(file: &File) -> Service {
    let keys = DecryptionKeys::jwks(SecretSource::File(file.path().into())).unwrap();
    Service::with(|issuer| issuer.decrypt(keys)).await
}

/// Encrypts a new token to this key. Returns what the service says.
async fn outcome(service: &Service, pair: &KeyPair) -> &'static str {
    service.outcome(&pair.encrypt("A256GCM", &service.signed())).await
}

fn pass_interval(service: &Service) {
    service.world.clock.advance(Duration::from_secs(10));
}

#[tokio::test]
async fn keys_are_replaced_without_restart() {
    let [old, new] = ["old", "new"].map(KeyPair::p256);
    let file = File::new("keys", &private_set([&old]));
    let service = service(&file).await;
    let known = old.encrypt("A128GCM", &service.signed());
    pass_interval(&service);
    assert_eq!(service.outcome(&known).await, "accepted");
    file.write(&private_set([&old, &new]));
    assert_eq!(outcome(&service, &new).await, "token_decryption", "read less than 10 s ago");
    pass_interval(&service);
    assert_eq!(outcome(&service, &new).await, "accepted");
    assert_eq!(outcome(&service, &old).await, "accepted");
    file.write(&private_set([&new]));
    pass_interval(&service);
    assert_eq!(outcome(&service, &old).await, "token_decryption");
    assert_eq!(outcome(&service, &new).await, "accepted");
    // The signature of the provider proves a token that was verified before.
    assert_eq!(service.outcome(&known).await, "accepted");
}

#[tokio::test]
async fn unusable_file_leaves_the_previous_keys() {
    let [old, new] = ["old", "new"].map(KeyPair::p256);
    let file = File::new("keys", &private_set([&old]));
    let service = service(&file).await;
    let good = private_set([&new]);
    let (half, signing) = (&good[..good.len() - 9], good.replace("\"enc\"", "\"sig\""));
    let log = Log::start();
    for text in ["", "{}", r#"{"keys":[]}"#, "hunter2", half, &signing] {
        file.write(text);
        pass_interval(&service);
        assert_eq!(outcome(&service, &old).await, "accepted", "{text}");
        assert_eq!(outcome(&service, &new).await, "token_decryption", "{text}");
    }
    file.remove();
    pass_interval(&service);
    assert_eq!(outcome(&service, &old).await, "accepted");
    let text = log.text();
    assert!(text.contains(&file.path_text()) && !text.contains("hunter2"), "{text}");
    for pair in [&old, &new] {
        assert!(!text.contains(pair.private()["d"].as_str().unwrap()), "{text}");
    }
    file.write(&good);
    pass_interval(&service);
    assert_eq!(outcome(&service, &new).await, "accepted");
}
