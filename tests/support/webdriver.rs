//! A real browser, controlled by ChromeDriver (W3C WebDriver).

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// The key of an element's id (WebDriver §12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The Enter key (WebDriver §17.4.2).
pub(crate) const ENTER: &str = "\u{e007}";

/// The Escape key.
pub(crate) const ESCAPE: &str = "\u{e00c}";

/// The Tab key.
pub(crate) const TAB: &str = "\u{e004}";

pub(crate) struct Browser {
    driver: Child,
    session: String,
    http: reqwest::Client,
    profile: PathBuf,
}

impl Browser {
    /// Starts a browser with an empty profile.
    pub(crate) async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("`chromedriver` is missing: install the Debian package `chromium-driver`");
        let profile = std::env::temp_dir().join(format!("scaikey-auth-browser-{port}"));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let driver_url = format!("http://127.0.0.1:{port}");
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1000,900",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
        } } });
        let mut browser = Self { driver, session: driver_url.clone(), http, profile };
        for _ in 0..2400 {
            let request = browser.http.get(format!("{driver_url}/status")).send().await;
            if request.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let session = browser.ask("POST", "/session", &capabilities).await;
        let id = session["sessionId"].as_str().unwrap_or_else(|| panic!("{session}")).to_owned();
        browser.session = format!("{driver_url}/session/{id}");
        browser
    }

    pub(crate) async fn open(&self, url: &str) {
        self.ask("POST", "/url", &json!({ "url": url })).await;
    }

    pub(crate) async fn url(&self) -> String {
        self.ask("GET", "/url", &Value::Null).await.as_str().unwrap().to_owned()
    }

    /// Opens a new tab and returns the handle of the previous one.
    pub(crate) async fn new_tab(&self) -> Value {
        let before = self.ask("GET", "/window", &Value::Null).await;
        let tab = self.ask("POST", "/window/new", &json!({ "type": "tab" })).await;
        self.switch_to(&tab["handle"]).await;
        before
    }

    pub(crate) async fn switch_to(&self, tab: &Value) {
        self.ask("POST", "/window", &json!({ "handle": tab })).await;
    }

    pub(crate) async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.ask("POST", &format!("/element/{element}/click"), &json!({})).await;
    }

    pub(crate) async fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.ask("POST", &format!("/element/{element}/value"), &json!({ "text": text })).await;
    }

    /// Types into the element that has the focus.
    pub(crate) async fn press(&self, keys: &str) {
        let active = self.ask("GET", "/element/active", &Value::Null).await;
        let id = active[ELEMENT].as_str().unwrap_or_else(|| panic!("no focus: {active}"));
        self.ask("POST", &format!("/element/{id}/value"), &json!({ "text": keys })).await;
    }

    /// Runs a script in each page that this tab opens from now on, before the scripts of the page.
    pub(crate) async fn run_in_pages(&self, script: &str) {
        let parameters = json!({ "source": script });
        self.devtools("Page.addScriptToEvaluateOnNewDocument", parameters).await;
    }

    /// Runs a script and returns its result. Awaits a promise.
    pub(crate) async fn script(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        self.ask("POST", "/execute/sync", &body).await
    }

    /// Waits until the page shows a text.
    pub(crate) async fn shows(&self, text: &str) {
        let mut seen = Value::Null;
        for _ in 0..2400 {
            seen = self.script("return document.body.innerText").await;
            if seen.as_str().is_some_and(|seen| seen.contains(text)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the page at {} does not show `{text}` but: {seen}", self.url().await);
    }

    /// Waits until the page shows an element.
    pub(crate) async fn has(&self, selector: &str) {
        let script = format!("return !!document.querySelector('{selector}')?.checkVisibility()");
        for _ in 0..2400 {
            if self.script(&script).await == true {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let seen = self.script("return document.body.innerText").await;
        panic!("the page at {} has no `{selector}`: {seen}", self.url().await);
    }

    /// Returns all cookies of the page, including those that scripts cannot read.
    pub(crate) async fn cookies(&self) -> Vec<Value> {
        self.ask("GET", "/cookie", &Value::Null).await.as_array().unwrap().clone()
    }

    /// Saves a screenshot in the folder `SCREENSHOTS`, if the variable is set.
    pub(crate) async fn screenshot(&self, name: &str) {
        let Some(folder) = std::env::var_os("SCREENSHOTS") else { return };
        let image = self.ask("GET", "/screenshot", &Value::Null).await;
        let path = PathBuf::from(folder).join(format!("{name}.base64"));
        std::fs::write(path, image.as_str().unwrap()).unwrap();
    }

    /// Sets the size of the page, also below the smallest window, and whether the user prefers dark pages.
    pub(crate) async fn look(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": scheme })).await;
    }

    /// Sends a command of the Chrome DevTools Protocol.
    async fn devtools(&self, command: &str, parameters: Value) {
        let command = json!({ "cmd": command, "params": parameters });
        self.ask("POST", "/goog/cdp/execute", &command).await;
    }

    async fn element(&self, selector: &str) -> String {
        let body = json!({ "using": "css selector", "value": selector });
        let found = self.ask("POST", "/element", &body).await;
        found[ELEMENT].as_str().unwrap_or_else(|| panic!("{selector}: {found}")).to_owned()
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.session);
        let request = match method {
            "GET" => self.http.get(url),
            _ => self
                .http
                .post(url)
                .header("content-type", "application/json")
                .body(body.to_string()),
        };
        let answer = request.send().await.unwrap().bytes().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver closes the browser on SIGTERM, but not when it is killed.
        if let Some(id) = self.driver.id() {
            let _ = std::process::Command::new("kill").arg(id.to_string()).status();
        }
        let profile = format!("--user-data-dir={}", self.profile.display());
        let _ = std::process::Command::new("pkill").args(["-f", "--", &profile]).status();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
