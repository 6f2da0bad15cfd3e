//! The `service` example with third-party providers, configured by environment variables only.

#[cfg(feature = "trust")]
mod accessibility;
mod better_auth;
mod canaille;
mod client_side;
#[cfg(feature = "jwe")]
mod encrypted;
mod lemonldap;
mod ml_dsa;
mod opaque;
mod sign_out;
mod step_up;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use support::http::{self, Answer, get, send};
use support::process::Program;
use support::webdriver::Browser;
use tokio::process::Command;

/// The hint for missing tools. npm installs the providers themselves.
const INSTALL_HINT: &str = "install Node.js 20 or later, with npm";

/// A running `oidc-provider`: see `provider.mjs`.
struct Provider {
    process: Program,
    url: String,
}

impl Provider {
    /// Starts a provider. Port 0 selects a free port.
    async fn start(port: &str) -> Self {
        Self::start_with(&[("PORT", port)]).await
    }

    /// Starts a provider whose client `keyed` has this public key.
    async fn start_for(port: &str, jwk: &str) -> Self {
        Self::start_with(&[("PORT", port), ("CLIENT_JWK", jwk)]).await
    }

    async fn start_with(environment: &[(&str, &str)]) -> Self {
        Self::start_on(Path::new("node"), environment).await
    }

    /// Starts a provider on this program of Node.js.
    async fn start_on(node: &Path, environment: &[(&str, &str)]) -> Self {
        let mut node = Command::new(node);
        node.arg("provider.mjs").current_dir(install()).envs(environment.iter().copied());
        let mut process = Program::spawn(node);
        let url = process.url(INSTALL_HINT).await;
        Self { process, url }
    }

    /// Restarts the provider at the same address with new keys.
    async fn restart(self) -> Self {
        self.process.kill().await;
        let (_, port) = self.url.rsplit_once(':').unwrap();
        let restarted = Self::start(port).await;
        assert_eq!(restarted.url, self.url);
        restarted
    }

    /// Gets an access token by client credentials. Without a resource it is opaque.
    async fn token(&self, resource: Option<&str>, scope: &str) -> String {
        let mut form = format!("grant_type=client_credentials&scope={scope}");
        if let Some(resource) = resource {
            form.push_str(&format!("&resource={resource}"));
        }
        token(&format!("{}/token", self.url), ("svc", "s3cret"), form).await
    }
}

/// Gets an access token from a token endpoint.
async fn token(endpoint: &str, client: (&str, &str), form: impl Into<String>) -> String {
    let tokens = tokens(endpoint, client, form).await;
    tokens["access_token"].as_str().unwrap().to_owned()
}

/// Gets the answer of a token endpoint.
async fn tokens(endpoint: &str, (id, secret): (&str, &str), form: impl Into<String>) -> Value {
    let request = http::client().post(endpoint).basic_auth(id, Some(secret)).body(form.into());
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer = send(request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Installs the packages of `package.json` into the build folder, once. Returns the folder.
fn install() -> PathBuf {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop");
    if *done {
        return folder;
    }
    std::fs::create_dir_all(&folder).unwrap();
    for file in
        ["package.json", "package-lock.json", "provider.mjs", "better_auth.mjs", "ml_dsa.mjs"]
    {
        std::fs::copy(source(file), folder.join(file)).unwrap();
    }
    let mut npm = std::process::Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund"]).current_dir(&folder);
    let output = npm.output().unwrap_or_else(|error| panic!("npm: {error}: {INSTALL_HINT}"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "npm install failed ({INSTALL_HINT}): {message}");
    *done = true;
    folder
}

/// Returns the path of a file beside this one.
fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(file)
}

async fn service(provider: &Provider, more: &[(&str, &str)]) -> (Program, String) {
    let mut environment = vec![
        ("SCAIWAVE_ISSUER", provider.url.as_str()),
        ("SCAIWAVE_ALLOW_LOOPBACK_HTTP", "true"),
        ("SCAIWAVE_AUDIENCE", "scaiwave"),
    ];
    environment.extend(more);
    Program::service(&environment).await
}

/// The address of a service with sessions. Providers must know it before the service starts.
struct Site(u16);

impl Site {
    fn reserve() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self(listener.local_addr().unwrap().port())
    }

    /// Another site than the provider's, whose cookies would otherwise go to the service.
    fn url(&self) -> String {
        format!("http://localhost:{}", self.0)
    }

    fn redirect_uri(&self) -> String {
        format!("{}/v1/auth/login", self.url())
    }

    fn logout_uri(&self) -> String {
        format!("{}/v1/auth/logout", self.url())
    }

    async fn open_login(&self, browser: &Browser) {
        browser.open(&format!("{}/v1/auth/login?return_to=/me", self.url())).await;
    }

    /// Signs a browser out with a form of the service, and at the provider, whose question `confirm` answers.
    async fn sign_out(&self, browser: &Browser, confirm: impl AsyncFnOnce(&Browser)) {
        let form = r#"document.body.innerHTML = '<form method="post" action="/v1/auth/logout">' +
            '<input name="return_to" value="/public"><button id="out">Sign out</button></form>'"#;
        browser.script(form).await;
        browser.click("#out").await;
        confirm(browser).await;
        browser.shows("hello, stranger").await;
        assert_eq!(browser.url().await, format!("{}/public", self.url()));
    }

    async fn start(&self, environment: &[(&str, &str)]) -> Program {
        let (listen, redirect_uri) = (format!("127.0.0.1:{}", self.0), self.redirect_uri());
        let own = [
            ("LISTEN", listen.as_str()),
            ("SCAIWAVE_ALLOW_LOOPBACK_HTTP", "true"),
            ("SCAIWAVE_REDIRECT_URI", &redirect_uri),
            ("SCAIWAVE_SESSION_KEYS", "YSBzZWFsaW5nIGtleSBvZiB0aGlydHktdHdvIGJ5dGVzISE="),
        ];
        Program::service(&[&own, environment].concat()).await.0
    }

    async fn post(&self, path: &str, form: impl Into<String>) -> Answer {
        let request = http::client().post(format!("{}{path}", self.url())).body(form.into());
        send(request.header("content-type", "application/x-www-form-urlencoded")).await
    }

    /// Gets tokens with a password and refreshes them, through the service. Returns the form with the
    /// newest refresh token.
    async fn password_and_refresh(&self, password: &str) -> String {
        let form = format!("grant_type=password&{password}");
        let answer = self.post("/v1/auth/token", form).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let refresh_token = |answer: &Answer| {
            let token = answer.json()["refresh_token"].as_str().map(str::to_owned);
            token.map(|token| format!("refresh_token={token}"))
        };
        let first = refresh_token(&answer).expect("a refresh token");
        let answer = self.post("/v1/auth/refresh", first.clone()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let next = refresh_token(&answer).unwrap_or(first);
        let access_token = answer.json()["access_token"].as_str().unwrap().to_owned();
        assert_eq!(status(&self.url(), "/me", &access_token).await, 200);
        next
    }

    /// Signs a user in with a browser, and out again. `fill_in` fills in the provider's forms. Returns the
    /// answers of `/me` and `whoami` between them.
    async fn sign_in_and_out(&self, fill_in: impl AsyncFnOnce(&Browser)) -> (Value, Value) {
        let browser = Browser::start().await;
        self.open_login(&browser).await;
        fill_in(&browser).await;
        browser.shows("identity").await;
        assert_eq!(browser.url().await, format!("{}/me", self.url()));
        let me = browser.script("return fetch('/me').then(answer => answer.json())").await;
        let whoami = "return fetch('/v1/auth/whoami').then(answer => answer.json())";
        let whoami = browser.script(whoami).await;
        let sign_out = "return fetch('/v1/auth/logout', { method: 'POST' }).then(it => it.status)";
        assert_eq!(browser.script(sign_out).await, 204);
        let status = "return fetch('/me').then(answer => answer.status)";
        assert_eq!(browser.script(status).await, 401);
        (me, whoami)
    }
}

async fn status(service: &str, path: &str, token: &str) -> u16 {
    get(&format!("{service}{path}"), Some(token)).await.status
}

const RS256: Option<&str> = Some("https://scaiwave.example/rs256");
const ES256: Option<&str> = Some("https://scaiwave.example/es256");
const EDDSA: Option<&str> = Some("https://scaiwave.example/eddsa");

#[tokio::test]
async fn tokens_open_the_permitted_routes() {
    let provider = Provider::start("0").await;
    let more =
        [("SCAIWAVE_ALGORITHMS", "RS256 ES256 EdDSA"), ("SCAIWAVE_TOKEN_PROFILE", "rfc9068")];
    let (_service, url) = service(&provider, &more).await;
    for resource in [RS256, ES256, EDDSA] {
        let (admin, reader) =
            (provider.token(resource, "admin").await, provider.token(resource, "docs:read").await);
        for (path, token, expected) in [
            ("/me", &admin, 200),
            ("/admin", &admin, 200),
            ("/docs", &admin, 200),
            ("/me", &reader, 200),
            ("/admin", &reader, 403),
        ] {
            assert_eq!(status(&url, path, token).await, expected, "{path} {token}");
        }
    }
    let me = get(&format!("{url}/me"), Some(&provider.token(RS256, "admin").await)).await.json();
    assert_eq!(
        me["identity"],
        json!({
            "issuer": provider.url, "subject": "svc", "kind": "service_account", "name": null,
            "email": null, "scopes": ["admin"], "roles": ["docs_internal"], "groups": [],
        })
    );
    assert_eq!((&me["tenant"], &me["provenance"]), (&json!("tenant-1"), &json!("verified")));
    let health = get(&format!("{url}/healthz"), None).await;
    let issuer = &health.json()["issuers"][0];
    assert_eq!(
        (health.status, &issuer["state"], &issuer["keys"]),
        (200, &json!("fresh"), &json!(3))
    );
}

#[tokio::test]
async fn tokens_for_other_services_are_rejected() {
    let provider = Provider::start("0").await;
    let (_service, url) = service(&provider, &[]).await;
    let admin = provider.token(RS256, "admin").await;
    let reader = provider.token(RS256, "docs:read").await;
    assert_eq!(status(&url, "/me", &reader).await, 200);

    let (signed, signature) = reader.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { "B" } else { "A" };
    let tampered = format!("{signed}.{other}{}", &signature[1..]);
    let (claims, _) = admin.rsplit_once('.').unwrap();
    let borrowed = format!("{claims}.{signature}");
    for (case, token) in [
        ("a tampered signature", tampered),
        ("another token's signature", borrowed),
        ("another audience", provider.token(Some("https://elsewhere.example"), "admin").await),
        ("an algorithm not allowed here", provider.token(EDDSA, "admin").await),
        ("an opaque token", provider.token(None, "admin").await),
    ] {
        assert_eq!(status(&url, "/me", &token).await, 401, "{case}: {token}");
    }
}

#[tokio::test]
async fn new_keys_are_accepted_old_tokens_refused() {
    let provider = Provider::start("0").await;
    let (_service, url) = service(&provider, &[]).await;
    let old = provider.token(ES256, "admin").await;
    assert_eq!(status(&url, "/admin", &old).await, 200);
    let provider = provider.restart().await;
    assert_eq!(status(&url, "/admin", &provider.token(ES256, "admin").await).await, 200);
    assert_eq!(status(&url, "/admin", &old).await, 401);
}
