//! Run with `cargo run --example trust_admin`
//!
//! The administration of a trust policy, *Access → Token Exchange*: a vault, a test provider at which its
//! administrators sign in, and another one that stands for the CI whose jobs get tokens of the vault. The
//! program prints the address of the page, and `curl` lines for the same by API. `LISTEN` sets the address
//! (default `127.0.0.1:8080`). The policy is in a temporary folder, and Ctrl-C removes it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use scaikey_auth::config::Algorithm;
use scaikey_auth::endpoints::{SignIn, TrustAdmin};
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::mint::{LocalMinter, WorkloadExchange};
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Client, Provider, SigningKey, User};
use scaikey_auth::trust::{PolicyVersionId, TrustEvaluator, presets};
use scaikey_auth::{Auth, IssuerConfig, TokenExchangeClient, role};

mod serve;

/// The administrators, each with a password and a role. Both are of the tenant `acme`.
const USERS: [[&str; 3]; 2] = [["alice", "wonderland", "owner"], ["bob", "hunter2", "editor"]];

/// A rule that an administrator adds.
const NIGHTLY: &str = r#"
[[trust.grant]]
name = "nightly"
subject = "repo:acme/shop:ref:refs/heads/nightly"
map = { identity = "sa:nightly", tenant = "acme", scopes = ["secrets:read"] }
"#;

/// The vault: sign-in, sessions, the exchange of workload tokens, and its administration.
fn app(issuer: String, url: &str, file: &Path) -> Result<(Router, TrustEvaluator), BoxError> {
    // The test providers have no TLS. Plain http is allowed for loopback only.
    let key = SigningKey::generate(Algorithm::ES256).private_pem();
    let minter = LocalMinter::new("https://vault.example", Algorithm::ES256, key, "1")?;
    let auth = Auth::builder()
        .issuer(IssuerConfig::new(&issuer).allow_loopback_http(true))
        .issuer(minter.issuer())
        .audience("vault")
        .build()?;
    let client = TokenExchangeClient::builder(&issuer)
        .allow_loopback_http(true)
        .client_auth(ClientAuth::basic("vault", "secret"))
        .build()?;
    let sessions = Sessions::builder(&auth, client.clone(), SealingKeys::random()?).build()?;
    let trusts = TrustEvaluator::builder()
        .file(file)
        .own_issuer(issuer)
        .own_issuer("https://vault.example")
        .build()?;
    let endpoints = auth
        .endpoints()
        .client(client)
        .sign_in(SignIn::new(format!("{url}/login")))
        .sessions(sessions.clone())
        .workloads(WorkloadExchange::new(trusts.clone(), minter, "vault"))
        .trust_admin(TrustAdmin::new(role("owner")).tenant_guard(role("editor")))
        .build()?;
    Ok((Router::new().layer(endpoints).layer(sessions.layer()), trusts))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    serve::log_warnings();
    let listener = serve::listen().await?;
    // Browsers accept secure cookies over plain http from `localhost`.
    let url = format!("http://localhost:{}/v1/auth", listener.local_addr()?.port());
    let provider = || Provider::builder().audience("vault").algorithms([Algorithm::ES256]).start();
    let (provider, ci) = (provider().await, provider().await);
    let client = Client::new("vault", "secret").scopes("openid profile email offline_access");
    provider.register_client(client.redirect_uri(&format!("{url}/login")));
    for [name, password, role] in USERS {
        let user = User::new(name, password).claim("tenant_id", "acme");
        provider.register_user(user.claim("roles", vec![role]));
    }
    let folder = std::env::temp_dir().join(format!("trust_admin-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let policy = include_str!("trust_admin.toml").replace("CI\"", &format!("{}\"", ci.issuer()));
    let next = format!("{policy}{NIGHTLY}");
    let file = |name: &str, text: &str| {
        let file = folder.join(name);
        std::fs::write(&file, text).map(|()| file)
    };
    let files = [file("next.toml", &next)?, file("preset.toml", presets::github_actions())?];
    let (app, trusts) = app(provider.issuer(), &url, &file("trust.toml", &policy)?)?;
    let now = trusts.version().ok_or("the policy is not loaded")?;
    let versions = [PolicyVersionId::new(now.number() + 1, &next), now];
    print_instructions(&url, &provider, &ci, &files, &versions);
    let stop = async { _ = tokio::signal::ctrl_c().await };
    serve::serve_until(listener, app, serve::HEAD_TIMEOUT, stop, Duration::ZERO).await;
    Ok(std::fs::remove_dir_all(folder)?)
}

fn print_instructions(
    url: &str,
    provider: &Provider,
    ci: &Provider,
    [next, preset]: &[PathBuf; 2],
    [after, now]: &[PolicyVersionId; 2],
) {
    let [alice, bob] = USERS.map(|[name, _, role]| {
        let token = provider.token().subject(&format!("{name}-id")).tenant("acme").roles([role]);
        format!("-H 'Authorization: Bearer {}'", token.claim("preferred_username", name).sign())
    });
    let job = ci.token().subject("repo:acme/shop:ref:refs/heads/nightly").sign();
    let (next, preset, number) = (next.display(), preset.display(), now.number());
    let (curl, toml) = ("curl -i -w '\\n'", "-H 'Content-Type: application/toml' --data-binary");
    println!(
        "\
Open {url}/trusts/ui in a browser, and sign in as alice with the password
wonderland, who administers the whole policy, or as bob with hunter2, who administers the tenant acme.

The same by API. Paste these lines into another terminal.

  200  the policy, with its version as the entity tag
{curl} {url}/trusts -H 'Accept: application/toml' {alice}

  200  the linter: a preset needs values of yours
{curl} {url}/trusts/lint {toml} @{preset} {alice}

  200  the nightly job: no rule matches its token
{curl} {url}/trusts/explain --json '{{\"token\":\"{job}\"}}' {alice}

  200  a policy with a rule for the job replaces the version that was read (again: 412, it was changed)
{curl} '{url}/trusts?note=nightly' -X PUT -H 'If-Match: \"{now}\"' {toml} @{next} {alice}

  200  now the job gets a token
{curl} {url}/exchange -d grant_type=urn:ietf:params:oauth:grant-type:token-exchange -d subject_token_type=urn:ietf:params:oauth:token-type:jwt -d subject_token={job}

  200  the decisions of this process
{curl} '{url}/trusts/decisions?limit=10' {alice}

  200  who changed the policy, and when
{curl} {url}/trusts/history {alice}

  200  the tenant administrator sees the rules of acme only
{curl} {url}/trusts -H 'Accept: application/toml' {bob}

  200  back to the first version
{curl} {url}/trusts/rollback --json '{{\"number\":{number}}}' -H 'If-Match: \"{after}\"' {alice}

Press Ctrl-C to stop."
    );
}
