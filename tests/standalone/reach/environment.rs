//! The variables that the operating system's tools know: `SSL_CERT_FILE`, `HTTPS_PROXY` and `NO_PROXY`.

use std::process::Stdio;

use scaikey_auth::testing::{Fault, ManualClock, ProviderEndpoint};
use scaikey_auth::{Auth, AuthConfig};
use tokio::process::Command;

use super::provider;
use crate::support::File;
use crate::support::tls::{ForwardProxy, TlsFront};

/// The variable with the token that a child process verifies. The environment of a running process cannot be
/// changed safely, so each case needs a child.
const TOKEN: &str = "SCAIKEY_AUTH_TEST_TOKEN";

/// Runs in the child process. Fetches the keys as the environment says.
#[tokio::test]
#[ignore = "started by other tests"]
async fn child() {
    let Ok(token) = std::env::var(TOKEN) else { return };
    let mut config = AuthConfig::from_env("WAVE");
    config.issuers[0].jwks.wait = std::time::Duration::from_secs(60);
    let auth = Auth::from_config(config).build().unwrap();
    let error = auth.authenticate(&token).await.err();
    println!("child: {} {error:?}", if error.is_none() { "accepted" } else { "refused" });
}

/// Variables, whether the token is accepted then, and whether the request passes the proxy.
type Case<'c> = (&'c [(&'c str, &'c str)], bool, bool);

async fn run(environment: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "reach::environment::child", "--ignored", "--nocapture"]);
    child.env_clear().envs(environment.iter().copied()).stdin(Stdio::null());
    let output = child.output().await.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn variables_set_proxy_and_certificates() {
    let clock = ManualClock::new();
    let provider = provider(&clock).await;
    let front = TlsFront::start("idp.invalid", provider.address()).await;
    let ca = File::new("ca.pem", &front.certificate);
    let jwks_uri = provider.jwks_uri().replace(&provider.url(), "https://idp.invalid");
    let (issuer, ca_file) = (provider.issuer(), ca.path_text());
    let token = provider.token().expires_in(std::time::Duration::from_secs(1 << 30)).sign();
    provider.fail(ProviderEndpoint::Discovery, Fault::Status(500));
    let bundle = File::new("bundle.pem", &crate::support::tls::acceptor("localhost").1);
    let other = bundle.path_text();
    let base = [
        ("WAVE_ISSUER", "https://idp.invalid"),
        ("WAVE_EXPECTED_ISSUER", &*issuer),
        ("WAVE_JWKS_URI", &*jwks_uri),
        ("WAVE_AUDIENCE", "scaiwave"),
        ("WAVE_ALGORITHMS", "ES256"),
        (TOKEN, &*token),
    ];
    let table: &[Case<'_>] = &[
        (&[("SSL_CERT_FILE", &ca_file)], true, true),
        (&[("SSL_CERT_FILE", &other)], false, true),
        (&[("SSL_CERT_FILE", &other), ("WAVE_CA_FILE", &ca_file)], true, true),
        (&[("SSL_CERT_FILE", &ca_file), ("NO_PROXY", "idp.invalid")], false, false),
        (&[("SSL_CERT_FILE", &ca_file), ("NO_PROXY", "example.com, .invalid")], false, false),
    ];
    for (variables, is_accepted, is_proxied) in table {
        let proxy = ForwardProxy::start(front.address).await;
        let url = proxy.url();
        let environment = [&base[..], variables, &[("HTTPS_PROXY", &*url)]].concat();
        let output = run(&environment).await;
        let expected = if *is_accepted { "child: accepted" } else { "child: refused" };
        assert!(output.contains(expected), "{variables:?}: {output}");
        let targets = proxy.targets();
        assert_eq!(targets.contains(&"idp.invalid:443".to_owned()), *is_proxied, "{variables:?}");
    }
}

/// A network that encrypts plain `http` does so on the direct way only.
#[tokio::test]
async fn plain_http_passes_no_proxy() {
    let clock = ManualClock::new();
    let provider = provider(&clock).await;
    let token = provider.token().sign();
    let jwks_uri = provider.jwks_uri().replace(&provider.url(), "http://idp.invalid");
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let proxy = ForwardProxy::start(provider.address()).await;
        let url = proxy.url();
        let output = run(&[
            ("WAVE_ISSUER", "http://idp.invalid"),
            ("WAVE_EXPECTED_ISSUER", &provider.issuer()),
            ("WAVE_JWKS_URI", &jwks_uri),
            ("WAVE_AUDIENCE", "scaiwave"),
            ("WAVE_ALGORITHMS", "ES256"),
            ("WAVE_INSECURE_HTTP_HOSTS", "idp.invalid"),
            (TOKEN, &token),
            (name, &url),
        ])
        .await;
        // No DNS server knows the name, so the request fails.
        assert!(output.contains("child: refused"), "{name}: {output}");
        assert!(output.contains("Unavailable"), "{name}: {output}");
        assert!(proxy.targets().is_empty(), "{name}: {:?}", proxy.targets());
    }
}
