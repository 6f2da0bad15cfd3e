//! Canaille, whose clients are named as audiences.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::json;
use tokio::process::Command;

use super::{Site, source, status, token};
use crate::support::http::get;
use crate::support::process::Program;
use crate::support::webdriver::{Browser, ENTER};

/// The hint for missing tools. pip installs Canaille itself.
const INSTALL_HINT: &str = "install the Debian packages `python3` and `python3-pip`";

/// A running provider: see `canaille_server.py`.
struct Canaille {
    issuer: String,
    _process: Program,
}

impl Canaille {
    async fn start(site: &Site) -> Self {
        let mut python = Command::new("python3");
        python.arg(source("canaille_server.py")).env("PYTHONPATH", install());
        python.env("REDIRECT_URI", site.redirect_uri());
        python.env("POST_LOGOUT_REDIRECT_URI", site.logout_uri());
        let mut process = Program::spawn(python);
        let issuer = process.url(INSTALL_HINT).await;
        Self { issuer, _process: process }
    }

    /// Starts the service of the client `wave`.
    async fn service(&self, site: &Site, more: &[(&str, &str)]) -> Program {
        let environment = [
            ("SCAIWAVE_ISSUER", self.issuer.as_str()),
            ("SCAIWAVE_ALGORITHMS", "RS512"),
            ("SCAIWAVE_AUDIENCE", "wave"),
            ("SCAIWAVE_ROLES_CLAIM", "groups"),
            ("SCAIWAVE_TENANT_REQUIRED", "false"),
            ("SCAIWAVE_CLIENT_ID", "wave"),
            ("SCAIWAVE_CLIENT_SECRET", "wave-s3cret"),
            ("SCAIWAVE_SCOPES", "openid profile email groups"),
            ("SCAIWAVE_PASSWORD_GRANT", "true"),
        ];
        site.start(&[&environment, more].concat()).await
    }

    /// Gets an access token of the user `alice`, or of the client itself.
    async fn token(&self, client: &str, form: &str) -> String {
        let (endpoint, secret) =
            (format!("{}/oauth/token", self.issuer), format!("{client}-s3cret"));
        token(&endpoint, (client, &secret), form).await
    }
}

/// Installs Canaille into the build folder, unless it is there. Returns the folder with the packages.
fn install() -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let python = std::process::Command::new("python3").arg("--version").output();
    let python = python.unwrap_or_else(|error| panic!("python3: {error}: {INSTALL_HINT}"));
    let requirements = std::fs::read_to_string(source("requirements.txt")).unwrap();
    let wanted = format!("{}{requirements}", String::from_utf8_lossy(&python.stdout));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("canaille");
    let installed = folder.join("installed.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return folder;
    }
    let _ = std::fs::remove_dir_all(&folder);
    let mut pip = std::process::Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]);
    pip.arg("--requirement").arg(source("requirements.txt")).arg("--target").arg(&folder);
    let output = pip.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pip install failed ({INSTALL_HINT}): {message}");
    std::fs::write(&installed, wanted).unwrap();
    folder
}

const ALICE: &str =
    "grant_type=password&username=alice&password=wonderland-42&scope=openid profile email groups";

#[tokio::test]
async fn canaille_tokens_are_accepted_by_audience() {
    let site = Site::reserve();
    let provider = Canaille::start(&site).await;
    let _service = provider.service(&site, &[]).await;
    let own = get(&format!("{}/me", site.url()), Some(&provider.token("wave", ALICE).await)).await;
    assert_eq!(own.status, 200, "{own:?}");
    assert_eq!(own.json()["identity"]["subject"], "alice");
    let opaque = provider.token("wave", "grant_type=client_credentials").await;
    for token in [provider.token("drive", ALICE).await, opaque, "a.b.c".to_owned()] {
        assert_eq!(status(&site.url(), "/me", &token).await, 401, "{token}");
    }
}

#[tokio::test]
async fn canaille_tells_what_opaque_tokens_mean() {
    let site = Site::reserve();
    let provider = Canaille::start(&site).await;
    let introspection = [
        ("SCAIWAVE_INTROSPECTION", "true"),
        // The answers about tokens of a client have no `sub`.
        ("SCAIWAVE_SUBJECT_CLAIM", "sub client_id"),
    ];
    let _service = provider.service(&site, &introspection).await;
    let own = provider.token("wave", "grant_type=client_credentials").await;
    assert!(!own.contains('.'), "{own}");
    let me = get(&format!("{}/me", site.url()), Some(&own)).await;
    assert_eq!(me.status, 200, "{me:?}");
    assert_eq!(me.json()["identity"]["subject"], "wave");
    let jwt = provider.token("wave", ALICE).await;
    assert_eq!(status(&site.url(), "/me", &jwt).await, 200);
    // Canaille answers only about tokens of which the client is an audience.
    let foreign = provider.token("drive", "grant_type=client_credentials").await;
    for token in [foreign, "invented".to_owned()] {
        assert_eq!(status(&site.url(), "/me", &token).await, 401, "{token}");
    }
}

#[tokio::test]
async fn canaille_refreshes_and_revokes_tokens() {
    let site = Site::reserve();
    let provider = Canaille::start(&site).await;
    let _service = provider.service(&site, &[]).await;
    let alice = "username=alice&password=wonderland-42&scope=openid";
    let refresh_token = site.password_and_refresh(alice).await;
    assert_eq!(site.post("/v1/auth/logout", refresh_token.clone()).await.status, 204);
    site.post("/v1/auth/refresh", refresh_token).await.assert_oauth_error(400, "invalid_grant");
}

/// Fills in the forms for name and password.
async fn fill_in(browser: &Browser) {
    // Enter ends the input, because a script of the page replaces the form half a second later.
    browser.has("#login").await;
    browser.write("#login", &format!("alice{ENTER}")).await;
    browser.has("#password").await;
    browser.write("#password", &format!("wonderland-42{ENTER}")).await;
}

#[tokio::test]
async fn canaille_signs_a_browser_out() {
    let site = Site::reserve();
    let provider = Canaille::start(&site).await;
    let page = site.logout_uri();
    let _service = provider.service(&site, &[("SCAIWAVE_POST_LOGOUT_REDIRECT_URI", &page)]).await;
    let browser = Browser::start().await;
    site.open_login(&browser).await;
    fill_in(&browser).await;
    browser.has("#accept").await;
    browser.click("#accept").await;
    browser.shows("identity").await;
    site.sign_out(&browser, async |_| {}).await;
    site.open_login(&browser).await;
    browser.has("#login, #password").await;
}

#[tokio::test]
async fn canaille_signs_a_browser_in() {
    let site = Site::reserve();
    let provider = Canaille::start(&site).await;
    let _service = provider.service(&site, &[]).await;
    let fill_in = async |browser: &Browser| {
        fill_in(browser).await;
        browser.has("#accept").await;
        browser.click("#accept").await;
    };
    let (me, whoami) = site.sign_in_and_out(fill_in).await;
    assert_eq!(
        me["identity"],
        json!({
            "issuer": provider.issuer, "subject": "alice", "kind": "user", "name": "Alice Smith",
            "email": "alice@wave.example", "scopes": [], "roles": ["docs_internal"],
            "groups": ["docs_internal"],
        })
    );
    assert_eq!(whoami["identity_id"], "user:alice");
}
