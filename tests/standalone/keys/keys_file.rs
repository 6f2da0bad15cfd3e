//! Keys from a file: rotated, broken and repaired while the service runs.

use std::fs;
use std::time::Duration;

use scaikey_auth::config::Algorithm;
use scaikey_auth::issuer::KeyState;
use scaikey_auth::testing::{ManualClock, Provider, SigningKey};
use scaikey_auth::{Auth, AuthConfig, IssuerConfig};
use serde_json::json;

use super::fixture::{PAST_BACKOFF, PAST_TTL, provider, service, status, token, unknown_kid};
use crate::support::{File, Log, until};

fn config(provider: &Provider, file: &File) -> IssuerConfig {
    let mut config = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    config.jwks.wait = Duration::from_secs(60);
    config.keys_file(file.path())
}

/// A service that reads the keys of a provider from a file.
async fn world(name: &str) -> (Provider, ManualClock, File, Auth) {
    let (provider, clock) = provider().await;
    let file = File::new(name, &provider.jwks().to_string());
    let auth = service([config(&provider, &file)], &clock);
    (provider, clock, file, auth)
}

/// Replaces a file as `kubectl` and most tools do: another file gets its name.
fn replace(file: &File, text: &str) {
    let new = file.path().with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file.path()).unwrap();
}

#[tokio::test]
async fn unknown_key_id_reads_file_again() {
    let (provider, _, file, auth) = world("keys.json").await;
    assert_eq!(status(&auth, &token(&provider)).await, 200);
    provider.rotate();
    let rotated = token(&provider);
    assert_eq!(status(&auth, &rotated).await, 401, "the file has the old key only");
    replace(&file, &provider.jwks().to_string());
    assert_eq!(status(&auth, &rotated).await, 200);
    assert_eq!((provider.discovery_requests(), provider.jwks_requests()), (0, 0));
}

#[cfg(unix)]
#[tokio::test]
async fn kubernetes_volume_is_read_after_swap() {
    use std::os::unix::fs::symlink;
    let (provider, clock) = provider().await;
    let folder = File::reserve("mount");
    let version = |name: &str| {
        let version = folder.path().join(name);
        fs::create_dir_all(&version).unwrap();
        fs::write(version.join("keys.json"), provider.jwks().to_string()).unwrap();
    };
    version("..2026_1");
    symlink("..2026_1", folder.path().join("..data")).unwrap();
    symlink("..data/keys.json", folder.path().join("keys.json")).unwrap();
    let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    let issuer = issuer.keys_file(folder.path().join("keys.json"));
    let auth = service([issuer], &clock);
    assert_eq!(status(&auth, &token(&provider)).await, 200);
    provider.rotate();
    version("..2026_2");
    symlink("..2026_2", folder.path().join("..data_tmp")).unwrap();
    fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    assert_eq!(status(&auth, &token(&provider)).await, 200);
}

#[tokio::test]
async fn removed_key_ends_with_ttl() {
    let (provider, clock, file, auth) = world("keys.json").await;
    let old = token(&provider);
    assert_eq!(status(&auth, &old).await, 200);
    provider.rotate();
    provider.remove_old_keys();
    replace(&file, &provider.jwks().to_string());
    assert_eq!(status(&auth, &old).await, 200);
    clock.advance(PAST_TTL);
    drop(auth.issuers().health());
    until(|| auth.issuers().health()[0].state == KeyState::Fresh).await;
    assert_eq!(status(&auth, &old).await, 401);
    assert_eq!(status(&auth, &token(&provider)).await, 200);
}

#[tokio::test]
async fn broken_file_keeps_previous_keys() {
    let private = SigningKey::generate(Algorithm::ES256).private_pem();
    let secret = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }).to_string();
    let (provider, clock, file, auth) = world("keys.json").await;
    assert_eq!(status(&auth, &token(&provider)).await, 200);
    let log = Log::start();
    for (text, why) in [
        (None, "No such file"),
        (Some("{\"keys\":["), "not a JSON object"),
        (Some(r#"{"keys":[]}"#), "is empty"),
        (Some(private.as_str()), "private key"),
        (Some(secret.as_str()), "private or symmetric"),
        (Some(&*" ".repeat(300_000)), "more than 262144 bytes"),
    ] {
        match text {
            Some(text) => file.write(text),
            None => file.remove(),
        }
        clock.advance(PAST_TTL);
        assert_eq!(status(&auth, &token(&provider)).await, 200, "{why}");
        until(|| auth.issuers().health()[0].last_error.as_ref().is_some_and(|it| it.contains(why)))
            .await;
        let health = auth.issuers().health().remove(0);
        assert_eq!(health.state, KeyState::Stale);
        assert!(health.last_error.unwrap().contains(&file.path_text()), "{why}");
        assert!(log.lines("WARN").last().unwrap().contains(why), "{why}");
        assert_eq!(status(&auth, &unknown_kid(&provider)).await, 503, "{why}");
    }
    provider.rotate();
    replace(&file, &provider.jwks().to_string());
    clock.advance(PAST_BACKOFF);
    assert_eq!(status(&auth, &token(&provider)).await, 200);
    until(|| auth.issuers().health()[0].state == KeyState::Fresh).await;
}

#[tokio::test]
async fn file_may_have_pem_or_jwk() {
    let (provider, clock) = provider().await;
    for text in [provider.key().public_pem(), provider.key().jwk().to_string()] {
        let file = File::new("keys", &text);
        let auth = service([config(&provider, &file)], &clock);
        assert_eq!(status(&auth, &token(&provider)).await, 200, "{text}");
    }
    // Keys in PEM have no key id, so another key shows as a bad signature.
    let file = File::new("key.pem", &provider.key().public_pem());
    let auth = service([config(&provider, &file)], &clock);
    assert_eq!(status(&auth, &token(&provider)).await, 200);
    provider.rotate();
    replace(&file, &provider.key().public_pem());
    assert_eq!(status(&auth, &token(&provider)).await, 200);
}

#[test]
fn unusable_file_is_a_fault() {
    let build = |issuer: IssuerConfig| Auth::builder().issuer(issuer).audience("scaiwave").build();
    let missing = File::reserve("keys.json");
    let private = File::new("key.pem", &SigningKey::generate(Algorithm::ES256).private_pem());
    let jwk = json!({ "kty": "oct", "k": "c2VjcmV0" });
    let secret = File::new("secret.json", &jwk.to_string());
    let text = File::new("keys.txt", "garbage");
    for (file, why) in [
        (&missing, "cannot be used: No such file"),
        (&private, "private key"),
        (&secret, "has a private or symmetric key"),
        (&text, "cannot be used: the key set is not a JSON object"),
    ] {
        let issuer = IssuerConfig::new("https://a.example").keys_file(file.path());
        let error = build(issuer).unwrap_err().to_string();
        let place = format!("issuers[0].keys_file {}", file.path_text());
        assert!(error.contains(&place) && error.contains(why), "{why}: {error}");
    }
    let key = SigningKey::generate(Algorithm::ES256);
    let file = File::new("key.pem", &key.public_pem());
    let issuer = || IssuerConfig::new("https://a.example").keys_file(file.path());
    build(issuer()).unwrap();
    for (issuer, other) in [
        (issuer().keys(&key.public_pem()), "`keys`"),
        (issuer().jwks_uri("https://a.example/keys"), "jwks_uri"),
    ] {
        let error = build(issuer).unwrap_err().to_string();
        assert!(error.contains(&format!("keys_file is set together with {other}")), "{error}");
    }
    let vars = |file: &File| {
        let pairs = [("ISSUER", "https://a.example"), ("AUDIENCE", "a"), ("ALGORITHMS", "ES256")];
        let pairs = pairs.map(|(name, value)| (format!("P_{name}"), value.to_owned()));
        let pairs = pairs.into_iter().chain([("P_KEYS_FILE".to_owned(), file.path_text())]);
        Auth::from_config(AuthConfig::from_vars("P", pairs)).build()
    };
    vars(&file).unwrap();
    let error = vars(&missing).unwrap_err().to_string();
    assert!(error.contains(&format!("P_KEYS_FILE {}", missing.path_text())), "{error}");
}

#[test]
fn pasted_content_of_files_is_not_repeated() {
    let key = SigningKey::generate(Algorithm::ES256).private_pem();
    let secret = key.lines().nth(1).unwrap();
    for name in ["P_KEYS_FILE", "P_CA_FILE"] {
        let pairs = [("P_ISSUER", "https://a.example"), ("P_AUDIENCE", "a"), (name, &*key)];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let error = Auth::from_config(AuthConfig::from_vars("P", pairs)).build().unwrap_err();
        let error = error.to_string();
        assert!(error.contains("it begins with neither `/` nor `./`"), "{error}");
        assert!(!error.contains(secret), "{error}");
    }
}
