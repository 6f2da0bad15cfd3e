//! Run with `cargo run --example web_app --features sqlite`
//!
//! A web application under the sub-path `/app`, with browser sessions and its own table of users. Open
//! the printed address, then the notes: the page leads to the sign-in and back. Sign in as `alice` with
//! the password `wonderland`, or as `bob` with `hunter2`. Each sign-in registers the user. Sign-out also
//! ends the provider's session. `LISTEN` sets the address (default `127.0.0.1:8080`).

use std::time::{Duration, UNIX_EPOCH};

use axum::extract::State;
use axum::response::{Html, IntoResponse, Redirect};
use axum::{Form, Router, http::StatusCode, routing::get};
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::registrar::{ParticipantId, Profile, Registrar, RegistrarError, Registration};
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Client, Provider, User};
use scaikey_auth::{Auth, Identity, IssuerConfig, TokenExchangeClient};
use sqlx::SqlitePool;

mod serve;

const HOME: &str = "<h1>Notes</h1><p>This page is public. Your notes are yours alone.</p>";
const SORRY: &str = "<h1>Not signed in</h1><p>You cancelled the sign-in, or it did not work.</p>";

/// The service's own table of users: see `web_app.sql`.
#[derive(Debug, Clone)]
struct Users(SqlitePool);

/// One statement, so that two sign-ins at the same time make one row. A token without a name keeps it.
const REGISTER: &str = "INSERT INTO users (key, name, email) VALUES ($1, $2, $3) \
    ON CONFLICT (key) DO UPDATE SET name = COALESCE(excluded.name, name), \
    email = COALESCE(excluded.email, email), sign_ins = sign_ins + 1 \
    RETURNING CAST(id AS TEXT), sign_ins, created_at";

fn key_of(identity: &Identity) -> String {
    let key = identity.key();
    let tenant = key.tenant_id.as_ref().map(|id| id.as_str());
    serde_json::json!([&*key.issuer, tenant, key.kind.as_str(), &*key.subject]).to_string()
}

#[async_trait::async_trait]
impl Registrar for Users {
    async fn register(&self, identity: &Identity) -> Result<Registration, RegistrarError> {
        let profile = Profile::new(identity);
        let query = sqlx::query_as(REGISTER).bind(key_of(identity));
        let query = query.bind(profile.display_name.as_deref()).bind(profile.email.as_deref());
        let row: Result<(String, u32, u32), _> = query.fetch_one(&self.0).await;
        let (id, sign_ins, created_at) = row.map_err(RegistrarError::store)?;
        let id = ParticipantId::new(&id).map_err(RegistrarError::store)?;
        let created_at = UNIX_EPOCH + Duration::from_secs(created_at.into());
        let mut registration = Registration::new(id, created_at); // without a workspace
        registration.created = sign_ins == 1;
        Ok(registration)
    }
}

async fn notes(users: State<Users>, me: Identity) -> Result<impl IntoResponse, StatusCode> {
    let user = "SELECT id, IFNULL(name,'?'), IFNULL(email,'?'), sign_ins FROM users WHERE key = $1";
    let user = sqlx::query_as(user).bind(key_of(&me)).fetch_optional(&users.0.0).await;
    let user: Option<(i64, String, String, i64)> = user.map_err(unavailable)?;
    let (id, name, email, sign_ins) = user.ok_or(StatusCode::FORBIDDEN)?; // never signed in here
    let notes = sqlx::query_scalar("SELECT text FROM notes WHERE user = $1 ORDER BY rowid DESC");
    let notes: Vec<String> = notes.bind(id).fetch_all(&users.0.0).await.map_err(unavailable)?;
    let items: String = notes.iter().map(|note| format!("<li>{}</li>", escaped(note))).collect();
    let (name, email) = (escaped(&name), escaped(&email));
    let page = page(&format!(
        r#"<h1>Hello, {name}</h1><p>You are user {id}: {email}. Sign-ins: {sign_ins}.</p>
<form method="post" action="/app/notes"><label for="text">New note</label>
<input id="text" name="text" maxlength="200" required><button id="add">Add</button></form><ul>{items}</ul>
<form method="post" action="/app/v1/auth/logout"><button id="sign-out" class="quiet">Sign out</button></form>"#
    ));
    Ok(([("cache-control", "no-store")], page)) // so that Back does not show it after a sign-out
}

/// The session layer refuses this request if a page of another site sends it.
async fn add(users: State<Users>, me: Identity, note: Form<Note>) -> Result<Redirect, StatusCode> {
    let insert = sqlx::query("INSERT INTO notes SELECT id, $2 FROM users WHERE key = $1");
    let insert = insert.bind(key_of(&me)).bind(&note.text).execute(&users.0.0);
    insert.await.map(|_| Redirect::to("/app/notes")).map_err(unavailable)
}

#[derive(serde::Deserialize)]
struct Note {
    text: String,
}

fn unavailable(_: sqlx::Error) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}

fn page(main: &str) -> Html<String> {
    Html(include_str!("web_app.html").replace("<!-- main -->", main))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// The application. `base` is its public URL, with the sub-path; it sees paths without it.
async fn app(issuer: String, base: &str, pool: SqlitePool) -> Result<Router, BoxError> {
    sqlx::raw_sql(include_str!("web_app.sql")).execute(&pool).await?;
    // The test provider has no TLS. Plain http is allowed for loopback only.
    let issuer_config = IssuerConfig::new(&issuer).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer_config).audience("scaiwave").build()?;
    let client = TokenExchangeClient::builder(issuer).allow_loopback_http(true);
    let client = client.client_auth(ClientAuth::basic("notes", "secret")).build()?;
    let sessions = Sessions::builder(&auth, client.clone(), SealingKeys::random()?);
    let sessions = sessions.cookie_name("notes").end_at_provider(format!("{base}/v1/auth/logout"));
    let sessions = sessions.build()?;
    let sign_in = SignIn::new(format!("{base}/v1/auth/login")).redirect_navigation();
    let sign_in = sign_in.cookie_prefix("notes-sign-in").failure_page("/app/sorry");
    let endpoints = auth.endpoints().client(client).sessions(sessions.clone()).sign_in(sign_in);
    let endpoints = endpoints.registrar(Users(pool.clone())).register_at_sign_in().build()?;
    Ok(Router::new()
        .route("/notes", get(notes).post(add).with_state(Users(pool)))
        .layer(auth.layer())
        .route("/", get(async || page(HOME)))
        .route("/sorry", get(async || page(SORRY))) // with `?error=…`
        .layer(endpoints)
        .layer(sessions.layer()))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    serve::log_warnings(); // such as the reason why a sign-in failed
    let listener = serve::listen().await?;
    // Browsers accept secure cookies over plain http from `localhost`.
    let base = format!("http://localhost:{}/app", listener.local_addr()?.port());
    let provider = Provider::start().await;
    provider.single_sign_on(true);
    let notes = Client::new("notes", "secret").scopes("openid profile email offline_access");
    let notes = notes.redirect_uri(&format!("{base}/v1/auth/login"));
    provider.register_client(notes.post_logout_redirect_uri(&format!("{base}/v1/auth/logout")));
    let alice = User::new("alice", "wonderland").claim("name", "Alice Smith");
    provider.register_user(alice.claim("email", "alice@example.com"));
    provider.register_user(User::new("bob", "hunter2").claim("email", "bob@example.com"));
    // As at many providers, only the ID token has the address. Registration at sign-in reads it there.
    provider.shape_tokens(|claims| claims.retain(|name, _| name != "email"));
    // An in-memory database exists only as long as its connection, so the pool keeps exactly one.
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).idle_timeout(None);
    let pool = pool.max_lifetime(None).connect("sqlite::memory:").await?;
    // This router removes the sub-path, as a proxy may do.
    let site = Router::new().nest_service("/app", app(provider.issuer(), &base, pool).await?);
    println!("Open {base} in a browser. Press Ctrl-C to stop.");
    serve::serve(listener, site, serve::HEAD_TIMEOUT).await;
    Ok(())
}
