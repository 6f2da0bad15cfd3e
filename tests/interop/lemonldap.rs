//! LemonLDAP::NG, whose tokens always name several audiences.

use serde_json::{Value, json};
use tokio::process::Command;

use super::{Site, source, status, token, tokens};
use crate::support::File;
use crate::support::http::get;
use crate::support::process::Program;
use crate::support::webdriver::Browser;

const INSTALL_HINT: &str = "install the Debian packages `liblemonldap-ng-portal-perl`, `libio-string-perl` \
    and `libstring-random-perl`";

/// A running provider: see `lemonldap.pl`.
struct LemonLdap {
    issuer: String,
    _process: Program,
    _folder: File,
}

impl LemonLdap {
    async fn start(site: &Site) -> Self {
        let folder = File::new("redirect_uri", &site.redirect_uri());
        let mut perl = Command::new("perl");
        perl.arg(source("lemonldap.pl"))
            .env("FOLDER", folder.path().with_file_name("").as_os_str());
        perl.env("REDIRECT_URI", site.redirect_uri());
        perl.env("POST_LOGOUT_REDIRECT_URI", site.logout_uri());
        let mut process = Program::spawn(perl);
        let issuer = process.url(INSTALL_HINT).await;
        Self { issuer, _process: process, _folder: folder }
    }

    /// Starts the service of the client `web`.
    async fn service(&self, site: &Site, more: &[(&str, &str)]) -> Program {
        let environment = [
            ("SCAIWAVE_ISSUER", self.issuer.as_str()),
            ("SCAIWAVE_AUDIENCE", "https://wave.example"),
            ("SCAIWAVE_ROLES_CLAIM", "groups"),
            ("SCAIWAVE_TENANT_CLAIM", "tenant"),
            ("SCAIWAVE_CLIENT_ID", "web"),
            ("SCAIWAVE_CLIENT_SECRET", "web-s3cret"),
            ("SCAIWAVE_SCOPES", "openid profile email"),
            ("SCAIWAVE_PASSWORD_GRANT", "true"),
            ("SCAIWAVE_TENANT_REQUIRED", "false"),
            ("SCAIWAVE_TRUSTED_AUDIENCES", "https://drive.example"),
        ];
        site.start(&[&environment, more].concat()).await
    }

    /// Gets an access token by client credentials.
    async fn token(&self, client: &str) -> String {
        let endpoint = format!("{}oauth2/token", self.issuer);
        let secret = format!("{client}-s3cret");
        token(&endpoint, (client, &secret), "grant_type=client_credentials&scope=read").await
    }
}

#[tokio::test]
async fn lemonldap_tokens_name_several_audiences() {
    let site = Site::reserve();
    let provider = LemonLdap::start(&site).await;
    let _service = provider.service(&site, &[]).await;
    let me = format!("{}/me", site.url());
    let own = get(&me, Some(&provider.token("web").await)).await;
    assert_eq!(own.status, 200, "{own:?}");
    assert_eq!(
        own.json()["identity"],
        json!({
            "issuer": provider.issuer, "subject": "web", "kind": "service_account", "name": null,
            "email": null, "scopes": ["read"], "roles": [], "groups": [],
        })
    );
    assert_eq!(status(&site.url(), "/me", &provider.token("other").await).await, 401);
    assert_eq!(status(&site.url(), "/me", "a.b.c").await, 401);
}

#[tokio::test]
async fn lemonldap_id_tokens_need_an_exception() {
    let site = Site::reserve();
    let provider = LemonLdap::start(&site).await;
    let endpoint = format!("{}oauth2/token", provider.issuer);
    let form = "grant_type=password&username=dwho&password=dwho&scope=openid";
    let tokens = tokens(&endpoint, ("web", "web-s3cret"), form).await;
    let id_token = tokens["id_token"].as_str().unwrap();
    let exception = [("SCAIWAVE_INSECURE_ACCEPT_ID_TOKENS", "true")];
    for (more, expected) in [(&[][..], 401), (&exception, 200)] {
        let service = provider.service(&site, more).await;
        assert_eq!(status(&site.url(), "/me", id_token).await, expected);
        service.kill().await;
    }
}

// It has no revocation endpoint.
#[tokio::test]
async fn lemonldap_refreshes_tokens() {
    let site = Site::reserve();
    let provider = LemonLdap::start(&site).await;
    let _service = provider.service(&site, &[]).await;
    site.password_and_refresh("username=dwho&password=dwho&scope=openid profile").await;
}

async fn fill_in(browser: &Browser) {
    browser.has("#userfield").await;
    browser.write("#userfield", "dwho").await;
    browser.write("#passwordfield", "dwho").await;
    browser.click("button[type=submit]").await;
}

#[tokio::test]
async fn lemonldap_signs_a_browser_out() {
    let site = Site::reserve();
    let provider = LemonLdap::start(&site).await;
    let page = site.logout_uri();
    let _service = provider.service(&site, &[("SCAIWAVE_POST_LOGOUT_REDIRECT_URI", &page)]).await;
    let browser = Browser::start().await;
    site.open_login(&browser).await;
    fill_in(&browser).await;
    browser.shows("identity").await;
    let confirm = async |browser: &Browser| {
        browser.has("button[type=submit]").await;
        browser.click("button[type=submit]").await;
    };
    site.sign_out(&browser, confirm).await;
    site.open_login(&browser).await;
    browser.has("#passwordfield").await;
}

#[tokio::test]
async fn lemonldap_signs_a_browser_in() {
    let site = Site::reserve();
    let provider = LemonLdap::start(&site).await;
    let _service = provider.service(&site, &[]).await;
    let (mut me, whoami) = site.sign_in_and_out(fill_in).await;
    for names in ["groups", "roles"] {
        me["identity"][names].as_array_mut().unwrap().sort_by_key(Value::to_string);
    }
    assert_eq!(
        me["identity"],
        json!({
            "issuer": provider.issuer, "subject": "dwho", "kind": "user", "name": "Doctor Who",
            "email": "dwho@badwolf.org", "scopes": ["openid", "profile", "email"],
            "roles": ["docs_internal", "timelords", "users"],
            "groups": ["docs_internal", "timelords", "users"],
        })
    );
    assert_eq!(me["tenant"], "tardis");
    assert_eq!(whoami["identity_id"], "user:dwho");
}
