//! The `browser_login` example, in a real browser.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::Html;
use axum::response::sse::{Event, Sse};
use axum::{Router, routing};
use futures_util::stream;
use scaikey_auth::Identity;
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Client, ManualClock, Provider, User};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::support::process::Program;
use crate::support::stored_sessions::{wave_auth, wave_client};
use crate::support::webdriver::Browser;

/// Starts the example and opens its page in a browser.
pub(super) async fn open_example(token_seconds: &str) -> (Program, Browser, String) {
    let environment = [("LISTEN", "127.0.0.1:0"), ("TOKEN_SECONDS", token_seconds)];
    let mut example = Program::example("browser_login", &environment);
    let line = example.stdout.line("Open http").await;
    let here = line.split(' ').nth(1).unwrap().to_owned();
    let browser = Browser::start().await;
    browser.open(&here).await;
    browser.shows("Welcome").await;
    (example, browser, here)
}

pub(super) async fn sign_in(browser: &Browser) {
    browser.click("#sign-in").await;
    browser.shows("to continue to scaiwave").await;
    browser.write("#username", "alice").await;
    browser.write("#password", "wonderland").await;
    browser.click("button[type=submit]").await;
    browser.shows("Hello, Alice Smith").await;
}

#[tokio::test]
async fn session_outlives_access_token_until_sign_out() {
    let (_example, browser, here) = open_example("4").await;
    browser.open(&format!("{here}/v1/auth/login?error=access_denied")).await;
    browser.shows("Sign-in failed (invalid_request)").await;
    browser.open(&here).await;
    browser.shows("Welcome").await;
    browser.screenshot("1-welcome").await;
    browser.click("#sign-in").await;
    browser.shows("to continue to scaiwave").await;
    browser.screenshot("2-provider").await;
    browser.write("#username", "alice").await;
    browser.write("#password", "looking-glass").await;
    browser.click("#sign-in").await;
    browser.shows("is wrong").await;
    browser.write("#username", "alice").await;
    browser.write("#password", "wonderland").await;
    browser.click("#sign-in").await;
    browser.shows("Hello, Alice Smith").await;
    assert_eq!(browser.url().await, format!("{here}/"));
    browser.shows("user:alice@example.com").await;

    // The browser has only the cookie of the session, which its scripts cannot read.
    let cookies = browser.cookies().await;
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    assert!(cookies[0]["name"].as_str().unwrap().starts_with("__Host-session-"), "{cookies:?}");
    assert_eq!((&cookies[0]["httpOnly"], &cookies[0]["secure"]), (&true.into(), &true.into()));
    assert_eq!(browser.script("return document.cookie").await, "");

    browser.click("#call").await;
    browser.shows("200 note 1 of alice-id in tenant-1").await;
    browser.screenshot("3-signed-in").await;
    // Repeats until the service has renewed the tokens of the session, in the store.
    let expiry =
        "return fetch('/v1/auth/whoami').then(it => it.json()).then(it => it.token_expires_at)";
    let first = browser.script(expiry).await;
    assert!(first.is_string(), "{first}");
    for nth in 2.. {
        browser.click("#call").await;
        browser.shows(&format!("200 note {nth} of alice-id")).await;
        assert_eq!(browser.cookies().await, cookies);
        if browser.script(expiry).await != first {
            break;
        }
        assert!(nth < 1200, "the session was not renewed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // The provider remembers the browser until the sign-out.
    let sign_in = format!("{here}/v1/auth/login?return_to=/");
    browser.open(&sign_in).await;
    browser.shows("Hello, Alice Smith").await;
    browser.click("#sign-out").await;
    browser.shows("Welcome").await;
    assert_eq!(browser.url().await, format!("{here}/"));
    assert!(browser.cookies().await.is_empty());
    browser.open(&sign_in).await;
    browser.shows("to continue to scaiwave").await;
}

#[tokio::test]
async fn another_origin_cannot_act_for_the_user() {
    let (_example, browser, here) = open_example("60").await;
    sign_in(&browser).await;
    // Another port is another origin of the same site, so the browser sends the cookies.
    let form = format!(
        r#"<form method="post" action="{here}/api/notes" enctype="text/plain">
        <input name="a" value="b"><button id="attack">Win a prize</button></form>"#
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let evil = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    let page = Router::new().route("/", routing::get(move || async move { Html(form) }));
    tokio::spawn(async move { axum::serve(listener, page).await });

    browser.open(&evil).await;
    browser.click("#attack").await;
    browser.shows("urn:scaikey-auth:foreign_origin").await;
    browser.open(&evil).await;
    let attack = format!(
        "return fetch('{here}/api/notes', {{ method: 'POST', mode: 'no-cors', credentials: 'include' }})
            .then(answer => answer.type)"
    );
    assert_eq!(browser.script(&attack).await, "opaque");
    let sign_out = attack.replace("/api/notes", "/v1/auth/logout");
    assert_eq!(browser.script(&sign_out).await, "opaque");

    // No note was written, and the user is still signed in.
    browser.open(&here).await;
    browser.shows("Hello, Alice Smith").await;
    browser.click("#call").await;
    browser.shows("200 note 1 of alice-id").await;
}

#[tokio::test]
async fn cancelled_sign_in_creates_no_session() {
    let (_example, browser, here) = open_example("60").await;
    browser.click("#sign-in").await;
    browser.shows("to continue to scaiwave").await;
    browser.click("#cancel").await;
    browser.shows("access_denied").await;
    assert!(browser.cookies().await.is_empty());
    browser.open(&here).await;
    browser.shows("Welcome").await;
}

/// A service that answers with the subject: immediately (`/who`), or after a signal (`/slow`).
struct Slow {
    here: String,
    clock: ManualClock,
    started: Arc<Notify>,
    release: Arc<Notify>,
    _provider: Provider,
}

impl Slow {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let redirect = format!("{here}/v1/auth/login");
        let clock = ManualClock::new();
        let provider = Provider::builder().clock(clock.clone()).start().await;
        let wave = Client::new("wave", "secret").scopes("openid").redirect_uri(&redirect);
        provider.register_client(wave);
        provider.register_user(User::new("alice", "wonderland"));
        provider.register_user(User::new("bob", "hunter2"));
        let auth = wave_auth(&provider, &clock);
        let client = wave_client(&provider, &clock).build().unwrap();
        let sessions = Sessions::builder(&auth, client.clone(), SealingKeys::random().unwrap());
        let sessions = sessions.renewal_wait(Duration::from_secs(60)).build().unwrap();
        let endpoints = auth.endpoints().client(client).sessions(sessions.clone());
        let endpoints = endpoints.sign_in(SignIn::new(redirect).scopes("openid").landing("/who"));
        let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (starting, released) = (started.clone(), release.clone());
        let slow = move |identity: Identity| async move {
            starting.notify_one();
            released.notified().await;
            identity.subject().to_owned()
        };
        let who = async |identity: Identity| format!("I am {}", identity.subject());
        let socket = async |identity: Identity, upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async move |mut socket: WebSocket| {
                let _ = socket.send(format!("socket of {}", identity.subject()).into()).await;
            })
        };
        let event = async |identity: Identity| {
            let event = Event::default().data(format!("event of {}", identity.subject()));
            Sse::new(stream::once(async { Ok::<_, Infallible>(event) }))
        };
        let app = Router::new()
            .route("/who", routing::get(who))
            .route("/socket", routing::get(socket))
            .route("/event", routing::get(event))
            .route("/slow", routing::get(slow))
            .layer(auth.layer())
            .layer(endpoints.build().unwrap())
            .layer(sessions.layer());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { here, clock, started, release, _provider: provider }
    }

    async fn sign_in(&self, browser: &Browser, user: &str, password: &str) {
        browser.open(&format!("{}/v1/auth/login", self.here)).await;
        browser.shows("to continue to").await;
        browser.write("#username", user).await;
        browser.write("#password", password).await;
        browser.click("button[type=submit]").await;
        browser.shows(&format!("I am {user}-id")).await;
    }

    /// Starts a request whose answer renews the session, and returns before the answer.
    async fn begin(&self, browser: &Browser) {
        self.clock.advance(Duration::from_secs(52 * 60));
        browser
            .script("window.late = fetch('/slow').then(answer => answer.text()); return 1")
            .await;
        self.started.notified().await;
    }

    async fn end(&self, browser: &Browser) -> String {
        self.release.notify_one();
        browser.script("return window.late").await.as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn session_opens_web_sockets_and_event_sources() {
    let slow = Slow::start().await;
    let browser = Browser::start().await;
    slow.sign_in(&browser, "alice", "wonderland").await;
    let open = |client: &str| {
        format!(
            "return new Promise(done => {{
                const client = new {client};
                client.onmessage = event => {{ client.close(); done(event.data) }};
                client.onerror = () => done('refused');
            }})"
        )
    };
    let socket = open(&format!("WebSocket('{}/socket')", slow.here.replace("http", "ws")));
    assert_eq!(browser.script(&socket).await, "socket of alice-id");
    assert_eq!(browser.script(&open("EventSource('/event')")).await, "event of alice-id");
    // Another port is another origin of the same site, so the browser sends the cookies.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let evil = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    let page = Router::new().route("/", routing::get(async || "Win a prize"));
    tokio::spawn(async move { axum::serve(listener, page).await });
    browser.open(&evil).await;
    browser.shows("Win a prize").await;
    assert_eq!(browser.script(&socket).await, "refused");
}

#[tokio::test]
async fn late_answer_restores_no_session() {
    let slow = Slow::start().await;
    let browser = Browser::start().await;
    slow.sign_in(&browser, "alice", "wonderland").await;
    slow.begin(&browser).await;
    let sign_out = "return fetch('/v1/auth/logout', { method: 'POST' }).then(it => it.status)";
    assert_eq!(browser.script(sign_out).await, 204);
    assert!(browser.cookies().await.is_empty());
    assert_eq!(slow.end(&browser).await, "alice-id");
    let who = "return fetch('/who').then(answer => answer.status)";
    assert_eq!(browser.script(who).await, 401);
    assert!(browser.cookies().await.is_empty());

    slow.sign_in(&browser, "alice", "wonderland").await;
    slow.begin(&browser).await;
    let first = browser.new_tab().await;
    slow.sign_in(&browser, "bob", "hunter2").await;
    let bobs = browser.cookies().await;
    browser.switch_to(&first).await;
    assert_eq!(slow.end(&browser).await, "alice-id");
    browser.open(&format!("{}/who", slow.here)).await;
    browser.shows("I am bob-id").await;
    assert_eq!(browser.cookies().await.len(), bobs.len());
}
