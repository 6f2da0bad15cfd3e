//! The `service` example, which is configured by environment variables only.

use std::time::Duration;

use scaikey_auth::config::Algorithm;
use scaikey_auth::tenant::{SqlTenantRow, SqlTenants, TenantStatus};
use scaikey_auth::testing::{Client, Provider, User};
use serde_json::json;

use crate::support::File;
use crate::support::http::{Answer, get, send};
use crate::support::process::Program;

#[cfg(unix)]
mod stopping;

type Variables = [(&'static str, &'static str)];

const MOCK: (&str, &str) = ("SCAIWAVE_AUTH_MODE", "mock");
const LOOPBACK: (&str, &str) = ("SCAIWAVE_ALLOW_LOOPBACK_HTTP", "true");
const AUDIENCE: (&str, &str) = ("SCAIWAVE_AUDIENCE", "scaiwave");

#[tokio::test]
async fn mock_mode_accepts_any_token_as_mock() {
    let (_service, url) = Program::service(&[MOCK]).await;
    let me = get(&format!("{url}/me"), Some("anything")).await;
    assert_eq!((me.status, me.header("x-auth-provenance")), (200, "mock"));
    assert_eq!(me.json()["identity"]["subject"], "mock-user");
    assert_eq!(
        (&me.json()["tenant"], &me.json()["provenance"]),
        (&json!("mock-tenant"), &json!("mock"))
    );
    for (path, token, status) in [
        ("/me", None, 401),
        ("/admin", Some("anything"), 403),
        ("/docs", Some("anything"), 403),
        ("/public", None, 200),
        ("/healthz", None, 200),
    ] {
        assert_eq!(get(&format!("{url}{path}"), token).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn mock_mode_is_logged_before_listening() {
    let mut service = Program::example("service", &[MOCK, ("LISTEN", "127.0.0.1:0")]);
    service.stderr.line("ACCEPTS MOCK TOKENS").await;
    service.stderr.line("listening on").await;
}

#[tokio::test]
async fn tokens_open_the_permitted_routes() {
    let provider = Provider::start().await;
    let issuer = provider.url();
    let environment = [("SCAIWAVE_ISSUER", issuer.as_str()), LOOPBACK, AUDIENCE];
    let (_service, url) = Program::service(&environment).await;
    let user = provider.token().sign();
    let admin = provider.token().algorithm(Algorithm::ES256).scope("admin").sign();
    let insider = provider.token().roles(["docs_internal"]).sign();
    let robot = provider.service_token("indexer").sign();
    let expired = provider.token().expired().sign();
    let foreign = provider.token().audience("another-service").sign();
    let table = [
        ("/me", Some(&user), 200),
        ("/me", Some(&admin), 200),
        ("/me", Some(&robot), 200),
        ("/me", Some(&expired), 401),
        ("/me", Some(&foreign), 401),
        ("/me", None, 401),
        ("/admin", Some(&admin), 200),
        ("/admin", Some(&user), 403),
        ("/docs", Some(&insider), 200),
        ("/docs", Some(&user), 403),
        ("/docs", Some(&robot), 403),
        ("/public", None, 200),
        ("/public", Some(&user), 200),
        ("/public", Some(&expired), 401),
        ("/healthz", None, 200),
    ];
    for (path, token, status) in table {
        let answer = get(&format!("{url}{path}"), token.map(String::as_str)).await;
        assert_eq!(answer.status, status, "{path} {token:?} {answer:?}");
    }
    let me = get(&format!("{url}/me"), Some(&admin)).await.json();
    assert_eq!(me["identity"]["issuer"], issuer);
    assert_eq!(me["identity"]["scopes"], json!(["admin"]));
    assert_eq!((&me["tenant"], &me["provenance"]), (&json!("tenant-1"), &json!("verified")));
    provider.rotate();
    let answer = get(&format!("{url}/me"), Some(&provider.token().sign())).await;
    assert_eq!(answer.status, 200, "a token signed with a new key: {answer:?}");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn tenants_come_from_the_configured_database() {
    use scaikey_auth::tenant::{SqlTenantRow, SqlTenants, TenantStatus};

    let file = File::reserve("tenants.db");
    let database = file.sqlite_url();
    let tenants = SqlTenants::connect(&database).await.unwrap();
    tenants.migrate().await.unwrap();
    for (tenant, status) in [("acme", TenantStatus::Active), ("late", TenantStatus::Suspended)] {
        tenants.insert(&tenant.parse().unwrap(), SqlTenantRow::default(), status).await.unwrap();
    }
    let provider = Provider::start().await;
    let issuer = provider.url();
    let database = ("SCAIWAVE_DATABASE_URL", database.expose());
    let environment = [("SCAIWAVE_ISSUER", issuer.as_str()), LOOPBACK, AUDIENCE, database];
    let (_service, url) = Program::service(&environment).await;
    for (tenant, status) in [("acme", 200), ("late", 403), ("nobody", 403)] {
        let token = provider.token().tenant(tenant).sign();
        let answer = get(&format!("{url}/me"), Some(&token)).await;
        assert_eq!(answer.status, status, "{tenant}: {answer:?}");
    }
}

#[tokio::test]
async fn key_fetch_from_loopback_bypasses_the_proxy() {
    let provider = Provider::start().await;
    let issuer = provider.url();
    let proxy = ("http_proxy", "http://127.0.0.1:1");
    let environment = [("SCAIWAVE_ISSUER", issuer.as_str()), LOOPBACK, AUDIENCE, proxy];
    let (_service, url) = Program::service(&environment).await;
    let answer = get(&format!("{url}/me"), Some(&provider.token().sign())).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn service_starts_during_provider_outage() {
    let mut provider = Provider::start().await;
    provider.pause().await;
    let issuer = provider.url();
    let environment = [("SCAIWAVE_ISSUER", issuer.as_str()), LOOPBACK, AUDIENCE];
    let (mut service, url) = Program::service(&environment).await;
    service.stderr.line("key set could not be refreshed").await;
    let token = provider.token().sign();
    let me = get(&format!("{url}/me"), Some(&token)).await;
    assert_eq!(me.status, 503);
    assert!(retry_after(&me).is_some(), "{me:?}");
    assert_eq!(get(&format!("{url}/me"), None).await.status, 401);
    let health = get(&format!("{url}/healthz"), None).await;
    assert_eq!((health.status, &health.json()["issuers"][0]["state"]), (503, &json!("never")));
    let next = health.json()["issuers"][0]["next_attempt"].as_u64();
    assert!(next.is_some_and(|next| next > 1_700_000_000), "seconds since 1970: {health:?}");

    provider.resume().await;
    // Retries like a client, after the time in `Retry-After`.
    for _ in 0..10 {
        let me = get(&format!("{url}/me"), Some(&token)).await;
        match retry_after(&me) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => break,
        }
    }
    assert_eq!(get(&format!("{url}/me"), Some(&token)).await.status, 200);
    let health = get(&format!("{url}/healthz"), None).await;
    assert_eq!((health.status, &health.json()["issuers"][0]["state"]), (200, &json!("fresh")));
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    (answer.status == 503)
        .then(|| Duration::from_secs(answer.header("retry-after").parse().unwrap()))
}

#[tokio::test]
async fn invalid_configuration_reports_all_faults_and_exits() {
    let issuer = ("SCAIWAVE_ISSUER", "https://id.example");
    let table: [(&Variables, &[&str]); 6] = [
        (&[], &["SCAIWAVE_ISSUER is missing", "SCAIWAVE_AUDIENCE is missing"]),
        (
            &[MOCK, ("APP_ENV", "production")],
            &["SCAIWAVE_AUTH_MODE", "`mock`", "APP_ENV=production"],
        ),
        (
            &[
                MOCK,
                ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
                ("APP_ENV", "development"),
                ("SCAIWAVE_INSECURE_ALLOW_MOCK_IN_KUBERNETES", "true"),
            ],
            &["SCAIWAVE_AUTH_MODE", "insecure_allow_mock_in_kubernetes"],
        ),
        (
            &[
                ("SCAIWAVE_ISSUER", "http://id.example"),
                AUDIENCE,
                ("SCAIWAVE_LEEWAY_SECONDS", "9999"),
            ],
            &["SCAIWAVE_ISSUER must be https", "SCAIWAVE_LEEWAY_SECONDS must be at most 600 s"],
        ),
        (
            &[
                issuer,
                AUDIENCE,
                ("SCAIWAVE_AUTH_MODE", "maybe"),
                ("SCAIWAVE_ALGORITHMS", "none"),
                ("SCAIWAVE_JWKS_TTL_SECONDS", "soon"),
            ],
            &[
                "SCAIWAVE_AUTH_MODE must be `scaikey`, `hybrid` or `mock`",
                "SCAIWAVE_ALGORITHMS entry 1: unknown signature algorithm",
                "SCAIWAVE_JWKS_TTL_SECONDS",
            ],
        ),
        (
            &[issuer, ("SCAIWAVE_AUDEINCE", "a")],
            &["SCAIWAVE_AUDIENCE is missing", "SCAIWAVE_AUDEINCE"],
        ),
    ];
    for (environment, reasons) in table {
        let (code, stdout, stderr) = Program::example("service", environment).end().await;
        assert_eq!(code, Some(2), "{environment:?}: {stderr}");
        assert_eq!(stdout, "", "{environment:?}");
        for reason in reasons {
            assert!(stderr.contains(reason), "{environment:?}: {stderr}");
        }
    }
}

#[tokio::test]
async fn misspelt_variable_is_logged_by_name() {
    let misspelt = ("SCAIWAVE_LEEWAY_SECOND", "5");
    let mut service = Program::example("service", &[MOCK, misspelt, ("LISTEN", "127.0.0.1:0")]);
    let warning = service.stderr.line("SCAIWAVE_LEEWAY_SECOND ").await;
    assert!(warning.contains("WARN") && warning.contains("SCAIWAVE_LEEWAY_SECONDS"), "{warning}");
}

#[tokio::test]
async fn downstream_routes_show_claims_not_tokens() {
    let provider = Provider::start().await;
    let wave = Client::new("scaiwave", "a secret").may_exchange("scaivault", "vault:read");
    provider.register_client(wave);
    let acme = provider.tenant("acme", "acme");
    acme.register_client(Client::new("scaiwave", "a secret"));
    let issuer = provider.url();
    let environment = [
        ("SCAIWAVE_ISSUER", issuer.as_str()),
        LOOPBACK,
        AUDIENCE,
        ("SCAIWAVE_CLIENT_ID", "scaiwave"),
        ("SCAIWAVE_CLIENT_SECRET", "a secret"),
    ];
    let (_service, url) = Program::service(&environment).await;
    let token = provider.token().sign();
    for cache in ["miss", "hit"] {
        let answer = get(&format!("{url}/downstream/scaivault"), Some(&token)).await;
        let body = answer.json();
        assert_eq!((answer.status, &body["cache"]), (200, &json!(cache)), "{answer:?}");
        let claims = &body["claims"];
        assert_eq!((&claims["aud"], &claims["sub"]), (&json!("scaivault"), &json!("alice-id")));
        assert!(!format!("{answer:?}").contains("eyJ"), "a token is in the answer: {answer:?}");
    }
    let answer = get(&format!("{url}/downstream/payroll"), Some(&token)).await;
    assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("invalid_target")));
    assert_eq!(get(&format!("{url}/downstream/scaivault"), None).await.status, 401);
    assert_eq!(get(&format!("{url}/service-token/acme"), Some(&token)).await.status, 403);

    // A token endpoint per tenant.
    let endpoint = format!("{issuer}/api/v1/auth/tenants/{{tenant_id}}/oauth/token");
    let environment = [&environment[..], &[("SCAIWAVE_TOKEN_URL", endpoint.as_str())]].concat();
    let (_service, url) = Program::service(&environment).await;
    let admin = provider.token().scope("admin").sign();
    for cache in ["miss", "hit"] {
        let answer = get(&format!("{url}/service-token/acme"), Some(&admin)).await;
        let body = answer.json();
        assert_eq!((answer.status, &body["cache"]), (200, &json!(cache)), "{answer:?}");
        let (tenant, sub) = (&body["claims"]["tenant_id"], &body["claims"]["sub"]);
        assert_eq!((tenant, sub), (&json!("acme"), &json!("scaiwave")));
    }
}

#[tokio::test]
async fn client_faults_name_the_variables() {
    let environment = [
        ("SCAIWAVE_ISSUER", "https://id.example"),
        AUDIENCE,
        ("SCAIWAVE_CLIENT_ID", "scaiwave"),
        ("SCAIWAVE_CLIENT_AUTH", "private_key_jwt"),
        ("SCAIWAVE_TOKEN_URL", "http://id.example/token"),
        ("SCAIWAVE_CACHE_KEYS", "hunter2"),
    ];
    let (code, _, stderr) = Program::example("service", &environment).end().await;
    assert_eq!(code, Some(2), "{stderr}");
    for name in ["SCAIWAVE_CLIENT_KEY_FILE", "SCAIWAVE_TOKEN_URL", "SCAIWAVE_CACHE_KEYS"] {
        assert!(stderr.contains(name), "{name}: {stderr}");
    }
    assert!(!stderr.contains("hunter2"), "{stderr}");
}

#[tokio::test]
async fn missing_client_is_named_in_answer() {
    let (_service, url) = Program::service(&[MOCK]).await;
    let answer = get(&format!("{url}/downstream/scaivault"), Some("anything")).await;
    assert_eq!(answer.status, 501);
    assert!(format!("{answer:?}").contains("SCAIWAVE_CLIENT_ID"), "{answer:?}");
}

/// Restarts the service twice with the same keys and the same database file.
#[tokio::test]
async fn sessions_and_participants_survive_a_restart() {
    let provider = Provider::start().await;
    let redirect = "http://127.0.0.1:1/v1/auth/login";
    let wave = Client::new("scaiwave", "secret").scopes("openid profile").redirect_uri(redirect);
    provider.register_client(wave);
    provider.register_user(User::new("alice", "wonderland"));
    let file = File::reserve("service.db");
    let database = file.sqlite_url();
    let tenants = SqlTenants::connect(&database).await.unwrap();
    tenants.migrate().await.unwrap();
    tenants
        .insert(&"tenant-1".parse().unwrap(), SqlTenantRow::default(), TenantStatus::Active)
        .await
        .unwrap();
    let (issuer, keys) = (provider.issuer(), "QUFB".repeat(12));
    let environment = [
        ("SCAIWAVE_ISSUER", issuer.as_str()),
        LOOPBACK,
        AUDIENCE,
        ("SCAIWAVE_CLIENT_ID", "scaiwave"),
        ("SCAIWAVE_CLIENT_SECRET", "secret"),
        ("SCAIWAVE_REDIRECT_URI", redirect),
        ("SCAIWAVE_SCOPES", "openid profile"),
        ("SCAIWAVE_SESSION_KEYS", keys.as_str()),
        ("SCAIWAVE_DATABASE_URL", database.expose()),
    ];
    let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let browser = browser.no_proxy().build().unwrap();
    let cookie_of = |answer: &Answer| {
        let cookies = answer.headers.get_all("set-cookie").iter();
        let pairs = cookies.map(|it| it.to_str().unwrap().split(';').next().unwrap());
        pairs.filter(|pair| !pair.ends_with('=')).collect::<Vec<_>>().join("; ")
    };
    let (service, url) = Program::service(&environment).await;
    let login = send(browser.get(format!("{url}/v1/auth/login?return_to=/me"))).await;
    let page = login.header("location").to_owned();
    let form = browser.post(page).header("content-type", "application/x-www-form-urlencoded");
    let back = send(form.body("username=alice&password=wonderland")).await;
    let (_, query) = back.header("location").split_once('?').unwrap();
    service.kill().await;

    let (service, url) = Program::service(&environment).await;
    let callback = browser.get(format!("{url}/v1/auth/login?{query}"));
    let signed_in = send(callback.header("cookie", cookie_of(&login))).await;
    assert_eq!((signed_in.status, signed_in.header("location")), (303, "/me"), "{signed_in:?}");
    let session = cookie_of(&signed_in);
    let register = async |url: &str| {
        let request = browser.post(format!("{url}/v1/auth/register")).header("cookie", &session);
        send(request.header("sec-fetch-site", "same-origin")).await
    };
    let first = register(&url).await;
    assert_eq!(first.status, 201, "{first:?}");
    service.kill().await;

    let (_service, url) = Program::service(&environment).await;
    let second = register(&url).await;
    assert_eq!((second.status, second.json()), (200, first.json()));
    let me = send(browser.get(format!("{url}/me")).header("cookie", &session)).await;
    assert_eq!(me.json()["identity"]["subject"], "alice-id");
}
