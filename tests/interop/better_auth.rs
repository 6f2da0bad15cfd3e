//! Better Auth, whose tokens are JWTs only if a request names a resource.

use serde_json::json;
use tokio::process::Command;

use super::{INSTALL_HINT, Site, install, status, token};
use crate::support::http::get;
use crate::support::process::Program;
use crate::support::webdriver::Browser;

/// A running provider: see `better_auth.mjs`.
struct BetterAuth {
    issuer: String,
    _process: Program,
}

impl BetterAuth {
    async fn start(site: &Site) -> Self {
        let mut node = Command::new("node");
        node.arg("better_auth.mjs").current_dir(install());
        node.env("REDIRECT_URI", site.redirect_uri());
        let mut process = Program::spawn(node);
        let issuer = process.url(INSTALL_HINT).await;
        Self { issuer, _process: process }
    }

    /// Starts the service of the public client `app`.
    async fn service(&self, site: &Site) -> Program {
        let environment = [
            ("SCAIWAVE_ISSUER", self.issuer.as_str()),
            ("SCAIWAVE_ALGORITHMS", "EdDSA"),
            ("SCAIWAVE_TOKEN_PROFILE", "rfc9068"),
            ("SCAIWAVE_AUDIENCE", "https://wave.example"),
            ("SCAIWAVE_TENANT_CLAIM", "org"),
            ("SCAIWAVE_CLIENT_ID", "app"),
            ("SCAIWAVE_CLIENT_AUTH", "none"),
            ("SCAIWAVE_SIGN_IN_PARAMETERS", "resource=https://wave.example"),
        ];
        site.start(&environment).await
    }

    /// Gets an access token of the client `worker`.
    async fn token(&self, resource: Option<&str>) -> String {
        let mut form = "grant_type=client_credentials&scope=docs:read".to_owned();
        if let Some(resource) = resource {
            form.push_str(&format!("&resource={resource}"));
        }
        token(&format!("{}/oauth2/token", self.issuer), ("worker", "s3cret"), form).await
    }
}

#[tokio::test]
async fn better_auth_tokens_are_for_resources() {
    let site = Site::reserve();
    let provider = BetterAuth::start(&site).await;
    let _service = provider.service(&site).await;
    let worker = provider.token(Some("https://wave.example")).await;
    let me = get(&format!("{}/me", site.url()), Some(&worker)).await.json();
    assert_eq!(
        me["identity"],
        json!({
            "issuer": provider.issuer, "subject": "worker", "kind": "service_account", "name": null,
            "email": null, "scopes": ["docs:read"], "roles": [], "groups": [],
        })
    );
    assert_eq!(me["tenant"], "tenant-1");
    let (other, opaque) =
        (provider.token(Some("https://drive.example")).await, provider.token(None).await);
    for token in [other, opaque, "a.b.c".to_owned()] {
        assert_eq!(status(&site.url(), "/me", &token).await, 401, "{token}");
    }
}

#[tokio::test]
async fn better_auth_signs_a_browser_in() {
    let site = Site::reserve();
    let provider = BetterAuth::start(&site).await;
    let _service = provider.service(&site).await;
    let fill_in = async |browser: &Browser| {
        browser.has("#email").await;
        browser.write("#email", "alice@wave.example").await;
        browser.write("#password", "wonderland-42").await;
        browser.click("button").await;
    };
    let (me, whoami) = site.sign_in_and_out(fill_in).await;
    let identity = &me["identity"];
    assert_eq!((&identity["name"], &identity["kind"]), (&"Alice Smith".into(), &"user".into()));
    assert_eq!(me["tenant"], "tenant-1");
    assert_eq!(whoami["subject"], identity["subject"]);
}
