//! `build()` refuses configurations that can never work.

use scaikey_auth::endpoints::{Endpoint, Endpoints, SignIn};
use scaikey_auth::exchange::{
    AuthorizationRequest, ExchangeError, PkceVerifier, SealingKeys, TokenExchangeBuilder,
};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::session::Sessions;
use scaikey_auth::{Auth, AuthConfig, ConfigError, TokenExchangeClient};

use tower::ServiceExt as _;

use super::stores::NoTokenUrls;
use crate::support::Log;
use crate::support::files::File;

const TEMPLATE: &str = "https://id.example/tenants/{tenant_id}";
const AUTHORIZE: &str = "https://id.example/authorize";
const TOKEN: &str = "https://id.example/token";

fn client(issuer: &str) -> TokenExchangeBuilder {
    TokenExchangeClient::builder(issuer).client_auth(ClientAuth::basic("wave", "secret"))
}

fn sign_in() -> SignIn {
    SignIn::new("https://wave.example/v1/auth/login")
}

fn auth() -> Auth {
    Auth::builder().issuer("https://id.example").audience("wave").build().unwrap()
}

fn build_sign_in(client: TokenExchangeBuilder, sign_in: SignIn) -> Result<(), ConfigError> {
    auth().endpoints().client(client.build()?).sign_in(sign_in).build().map(drop)
}

#[track_caller]
fn refused<T>(outcome: Result<T, ConfigError>, field: &str, problem: &str) {
    let error = outcome.err().expect("the configuration must be refused").to_string();
    assert!(error.contains(field) && error.contains(problem), "{error}");
}

#[test]
fn template_issuer_without_token_url_is_refused() {
    refused(client(TEMPLATE).build(), "issuer", "no single metadata document");
    let place = format!("{TEMPLATE}/.well-known/openid-configuration");
    let client = client("https://id.example");
    refused(client.discovery_url(place).build(), "discovery_url", "{tenant_id}");
}

#[test]
fn template_issuer_for_sign_in_is_refused() {
    let with_urls =
        || client(TEMPLATE).token_url(TOKEN).revocation_url("https://id.example/revoke");
    with_urls().build().unwrap();
    refused(build_sign_in(with_urls(), sign_in()), "issuer", "one issuer");
    let located = || with_urls().authorization_url(AUTHORIZE);
    refused(build_sign_in(located(), sign_in()), "issuer", "one issuer");
    // Without ID tokens the issuer does not matter.
    build_sign_in(located(), sign_in().scopes("docs:read")).unwrap();
    refused(
        build_sign_in(with_urls(), sign_in().scopes("docs:read")),
        "authorization_url",
        "is missing",
    );
    build_sign_in(client("https://id.example"), sign_in()).unwrap();
}

#[test]
fn unused_url_placeholders_are_refused() {
    let with = || client("https://id.example").token_url(TOKEN);
    let place = "https://id.example/{tenant_id}/x";
    refused(with().authorization_url(place).build(), "authorization_url", "{tenant_id}");
    refused(with().revocation_url(place).build(), "revocation_url", "{tenant_id}");
    refused(with().end_session_url(place).build(), "end_session_url", "{tenant_id}");
}

#[test]
fn per_tenant_endpoints_cannot_sign_in() {
    let by_url = || client("https://id.example").token_url("https://id.example/{tenant_id}/token");
    let by_store = || client("https://id.example").token_urls(NoTokenUrls);
    for client in [by_url(), by_store()] {
        refused(build_sign_in(client, sign_in()), "token_url", "depends on the tenant");
    }
    // Refreshes name no tenant.
    let client = by_url().build().unwrap();
    let endpoints = || auth().endpoints().client(client.clone());
    refused(endpoints().build(), "token_url", "depends on the tenant");
    endpoints().without(Endpoint::Refresh).without(Endpoint::Token).build().unwrap();
    let sessions = Sessions::builder(&auth(), client.clone(), SealingKeys::random().unwrap());
    let endpoints = endpoints().without(Endpoint::Refresh).without(Endpoint::Token);
    let endpoints = endpoints.sessions(sessions.build().unwrap());
    refused(endpoints.build(), "token_url", "depends on the tenant");
}

fn from_variables(variables: &[(&str, &str)]) -> Result<Endpoints, ConfigError> {
    let all = variables.iter().map(|(name, value)| (format!("WAVE_{name}"), (*value).to_owned()));
    auth().endpoints().configured(&AuthConfig::from_vars("WAVE", all)).build()
}

#[test]
fn tenant_token_endpoints_disable_refresh() {
    let log = Log::start();
    let variables = [
        ("ISSUER", TEMPLATE),
        ("TOKEN_URL", "https://id.example/tenants/{tenant_id}/token"),
        ("CLIENT_ID", "wave"),
        ("CLIENT_SECRET", "secret"),
    ];
    let endpoints = from_variables(&variables).unwrap();
    assert_eq!(endpoints.enabled(), [Endpoint::Whoami, Endpoint::Introspect]);
    assert!(log.text().contains("token, refresh and logout"), "{}", log.text());
    // With passwords enabled, the fault names the setting to change.
    let more = [("PASSWORD_GRANT", "true")];
    let fault = from_variables(&[&variables[..], &more].concat());
    refused(fault, "WAVE_TOKEN_URL", "no `WAVE_REDIRECT_URI`");
}

#[test]
fn faults_name_variables_to_set() {
    let client = [("ISSUER", "https://id.example"), ("CLIENT_ID", "wave")];
    let secret = from_variables(&client);
    refused(secret, "WAVE_CLIENT_SECRET", "`WAVE_CLIENT_SECRET_FILE`");
    let keys = [("CLIENT_SECRET", "secret"), ("SESSION_KEYS", "short")];
    let keys = from_variables(&[&client[..], &keys].concat());
    refused(keys, "WAVE_SESSION_KEYS", "openssl rand -base64 32");
    let template = [("ISSUER", TEMPLATE), ("CLIENT_ID", "wave"), ("CLIENT_SECRET", "secret")];
    refused(from_variables(&template), "WAVE_ISSUER", "`WAVE_TOKEN_URL`");
    let policy = [("TRUST_FILE", "/nowhere")];
    refused(from_variables(&policy), "WAVE_TRUST_FILE", "`WAVE_CLIENT_ID`");
    let tenants = [("ISSUER", TEMPLATE), ("AUDIENCE", "wave")];
    let tenants = tenants.map(|(name, value)| (format!("WAVE_{name}"), value.to_owned()));
    let tenants = Auth::from_config(AuthConfig::from_vars("WAVE", tenants)).build();
    refused(tenants, "WAVE_TENANTS", "`WAVE_ANY_TENANT=true`");
}

/// The variables that name a file with a secret, and a valid content.
const SECRET_FILES: [(&str, &str); 5] = [
    ("CLIENT_SECRET_FILE", "hunter2"),
    ("SESSION_KEYS_FILE", KEY),
    ("CACHE_KEYS_FILE", KEY),
    ("REDIS_URL_FILE", "redis://:hunter2@r"),
    ("DATABASE_URL_FILE", "sqlite::memory:"),
];

const KEY: &str = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";

#[tokio::test]
async fn secrets_are_read_from_files() {
    let files = SECRET_FILES.map(|(_, text)| File::new("secret", &format!("{text}\n")));
    let paths = files.each_ref().map(File::path_text);
    let mut variables = vec![
        ("ISSUER", "https://id.example"),
        ("CLIENT_ID", "wave"),
        ("REDIRECT_URI", "https://wave.example/v1/auth/login"),
    ];
    variables.extend(SECRET_FILES.iter().zip(&paths).map(|((name, _), path)| (*name, &**path)));
    let endpoints = from_variables(&variables).unwrap();
    assert!(endpoints.sessions().is_some());
    assert!(endpoints.enabled().contains(&Endpoint::Register), "there is a database");
}

#[tokio::test]
async fn unusable_secret_files_are_named() {
    let fixed = [("ISSUER", "https://id.example"), ("CLIENT_ID", "wave")];
    let empty = File::new("empty", " \n");
    let empty = empty.path_text();
    for (name, text) in SECRET_FILES {
        for (path, why) in [("/nowhere/x", "cannot be read: No such file"), (&empty, "is empty")] {
            let problem = format!("names a file that cannot be used: {path} {why}");
            let mut variables = fixed.to_vec();
            if name != "CLIENT_SECRET_FILE" {
                variables.push(("CLIENT_SECRET", "s"));
            }
            variables.push((name, path));
            let error = from_variables(&variables).unwrap_err();
            let [fault] = error.faults() else { panic!("one fault for one cause: {error}") };
            assert_eq!(fault.field, format!("WAVE_{name}"));
            assert!(fault.problem.starts_with(&problem), "{error}");
            // The value, too, is set.
            variables.push((name.trim_end_matches("_FILE"), text));
            refused(from_variables(&variables), &format!("WAVE_{name}"), "are both set");
        }
    }
}

/// `Auth` uses no client secret, but a wrong path must not wait for the part that does.
#[tokio::test]
async fn auth_checks_the_files_of_secrets() {
    let build = |variables: &[(&str, &str)]| {
        let fixed = [("ISSUER", "https://id.example"), ("AUDIENCE", "wave")];
        let all = fixed.iter().chain(variables);
        let all = all.map(|(name, value)| (format!("WAVE_{name}"), (*value).to_owned()));
        Auth::from_config(AuthConfig::from_vars("WAVE", all)).build()
    };
    let key_file = ("CLIENT_KEY_FILE", "");
    for (name, text) in SECRET_FILES.into_iter().chain([key_file]) {
        let problem = "names a file that cannot be used: /nowhere/x cannot be read";
        let error = build(&[(name, "/nowhere/x")]).unwrap_err();
        let [fault] = error.faults() else { panic!("one fault for one cause: {error}") };
        assert_eq!(fault.field, format!("WAVE_{name}"));
        assert!(fault.problem.starts_with(problem), "{error}");
        let file = File::new("secret", text);
        assert_eq!(build(&[(name, &file.path_text())]).is_ok(), !text.is_empty(), "{name}");
    }
    let two = [("CLIENT_SECRET_FILE", "/nowhere/x"), ("SESSION_KEYS_FILE", "/nowhere/y")];
    assert_eq!(build(&two).unwrap_err().faults().len(), 2);
    // Mock mode runs on machines without secrets.
    let mock = [("AUTH_MODE", "mock"), two[0]];
    let mock = mock.map(|(name, value)| (format!("WAVE_{name}"), value.to_owned()));
    let mock = Auth::from_config(AuthConfig::from_vars("WAVE", mock));
    mock.insecure_allow_mock_in_production().build().unwrap();
}

#[test]
fn invalid_sealing_keys_name_their_file() {
    let keys = File::new("keys", "hunter2");
    let path = keys.path_text();
    for name in ["SESSION_KEYS_FILE", "CACHE_KEYS_FILE"] {
        let client = [("ISSUER", "https://id.example"), ("CLIENT_ID", "w"), ("CLIENT_SECRET", "s")];
        let error = from_variables(&[&client[..], &[(name, &*path)]].concat()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("WAVE_{name} names a file that cannot be used: {path}")));
        assert!(text.contains("openssl rand") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn client_urls_with_foreign_braces_are_refused() {
    let issuer = "https://id.example";
    for path in ["{tenantid}", "{tenant", "tenant}"] {
        let url = || format!("{issuer}/{path}");
        let with = || client(issuer);
        for (builder, field) in [
            (client(&url()), "issuer"),
            (with().token_url(url()), "token_url"),
            (with().revocation_url(url()), "revocation_url"),
            (with().authorization_url(url()), "authorization_url"),
            (with().end_session_url(url()), "end_session_url"),
            (with().discovery_url(url()), "discovery_url"),
        ] {
            let error = builder.build().unwrap_err();
            assert_eq!((error.faults().len(), &*error.faults()[0].field), (1, field), "{error}");
            assert!(error.to_string().contains("has braces"), "{error}");
        }
        let error = build_sign_in(client(issuer), SignIn::new(url())).unwrap_err();
        assert!(error.to_string().contains("braces"), "{error}");
    }
    let metadata = format!("{issuer}/.well-known/openid-configuration");
    refused(client(&metadata).build(), "issuer", &format!("probably {issuer}"));
}

#[test]
fn one_cause_is_one_fault() {
    let fixed = [
        ("ISSUER", "https://id.example"),
        ("REDIRECT_URI", "https://wave.example/v1/auth/login"),
        ("SESSION_KEYS", KEY),
        ("PASSWORD_GRANT", "true"),
        ("TRUST_FILE", "/nowhere"),
    ];
    for (variables, field) in [
        (&[("CLIENT_ID", "wave")][..], "WAVE_CLIENT_SECRET"),
        (&[("CLIENT_ID", "wave"), ("CLIENT_AUTH", "x")], "WAVE_CLIENT_AUTH"),
        (
            &[
                ("CLIENT_ID", "wave"),
                ("CLIENT_SECRET", "s"),
                ("REDIS_URL", "redis://r"),
                ("CACHE_KEYS", "x"),
            ],
            "WAVE_CACHE_KEYS",
        ),
    ] {
        let error = from_variables(&[&fixed[..], variables].concat()).unwrap_err();
        assert_eq!(error.faults().len(), 1, "{error}");
        assert_eq!(error.faults()[0].field, field, "{error}");
    }
    let error = from_variables(&fixed[..4]).unwrap_err();
    assert_eq!((error.faults().len(), &*error.faults()[0].field), (1, "WAVE_CLIENT_ID"), "{error}");
}

#[test]
fn empty_client_secret_is_refused() {
    let config = r#"{ "issuers": [{ "issuer": "https://id.example" }], "client": { "id": "wave", "secret": "" } }"#;
    let config: AuthConfig = serde_json::from_str(config).unwrap();
    refused(TokenExchangeClient::from_config(&config).build(), "client.secret is empty", "");
}

#[test]
fn unused_and_misdirected_settings_are_told() {
    let told = |sign_in: SignIn, prefix: &str| {
        let log = Log::start();
        let endpoints =
            auth().endpoints().prefix(prefix).client(client("https://id.example").build().unwrap());
        endpoints.sign_in(sign_in).build().unwrap();
        log.text()
    };
    let elsewhere = told(SignIn::new("https://wave.example/callback"), "/v1/auth");
    let named = "the path of redirect_uri is /callback, but this service completes sign-ins at /v1/auth/login";
    assert!(elsewhere.contains(named), "{elsewhere}");
    assert!(!told(sign_in(), "/v1/auth").contains("redirect_uri"));
    assert!(!told(sign_in(), "").contains("redirect_uri"), "a router removes the prefix");
    // The service's own client has another cache than the configured one.
    let log = Log::start();
    let variables = [("P_CLIENT_ID", "wave"), ("P_REDIS_URL", "redis://r"), ("P_CACHE_KEYS", KEY)];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let endpoints = auth().endpoints().client(client("https://id.example").build().unwrap());
    endpoints.configured(&AuthConfig::from_vars("P", variables)).build().unwrap();
    assert!(log.text().contains("redis_url is set, but"), "{}", log.text());
}

#[test]
fn start_line_names_issuers_and_audiences() {
    let log = Log::start();
    let _auth = auth();
    let text = log.text();
    assert!(text.contains("https://id.example") && text.contains("wave"), "{text}");
}

#[test]
fn listed_tenants_silence_open_tenancy_warning() {
    let logs_open_warning = |variables: &[(&str, &str)]| {
        let log = Log::start();
        let fixed = [("ISSUER", "https://id.example"), ("AUDIENCE", "wave")];
        let all = fixed.iter().chain(variables);
        let all = all.map(|(name, value)| (format!("P_{name}"), (*value).to_owned()));
        Auth::from_config(AuthConfig::from_vars("P", all)).build().unwrap();
        log.text().contains("every tenant that a verified token names")
    };
    assert!(logs_open_warning(&[]));
    assert!(!logs_open_warning(&[("TENANTS", "acme,globex")]));
}

#[test]
fn timeout_of_zero_is_refused() {
    let client = client("https://id.example").timeout(std::time::Duration::ZERO);
    refused(client.build(), "timeout", "0");
}

#[test]
fn error_for_template_issuer_names_its_variable() {
    let variables = |more: &[(&str, &str)]| {
        let all = [("ISSUER", TEMPLATE), ("CLIENT_ID", "wave"), ("CLIENT_SECRET", "s")];
        let sign_in = [("REDIRECT_URI", "https://wave.example/v1/auth/login")];
        let all = all.iter().chain(&sign_in).chain(more);
        let all = all.map(|(name, value)| (format!("P_{name}"), (*value).to_owned()));
        let config = AuthConfig::from_vars("P", all);
        auth().endpoints().configured(&config).build()
    };
    refused(variables(&[]), "P_ISSUER", "no single metadata document");
    refused(variables(&[("TOKEN_URL", TOKEN)]), "P_AUTHORIZATION_URL", "is missing");
}

/// The variables of a sign-in that needs no metadata.
const SIGN_IN: [(&str, &str); 6] = [
    ("ISSUER", "https://id.example"),
    ("CLIENT_ID", "wave"),
    ("CLIENT_SECRET", "secret"),
    ("TOKEN_URL", TOKEN),
    ("AUTHORIZATION_URL", AUTHORIZE),
    ("REDIRECT_URI", "https://wave.example/v1/auth/login"),
];

#[tokio::test]
async fn sign_in_sends_the_configured_parameters() {
    let value = "audience=https%3A%2F%2Fapi.example&prompt=login&resource=a&resource=b";
    let endpoints = from_variables(&[&SIGN_IN[..], &[("SIGN_IN_PARAMETERS", value)]].concat());
    let request = http::Request::get("/v1/auth/login").body(axum::body::Body::empty()).unwrap();
    let answer = axum::Router::new().layer(endpoints.unwrap()).oneshot(request).await.unwrap();
    let location = answer.headers()[http::header::LOCATION].to_str().unwrap();
    let url: url::Url = location.parse().unwrap();
    let named = ["audience", "prompt", "resource"];
    let pairs = url.query_pairs().into_owned().filter(|(name, _)| named.contains(&&**name));
    let expected = [
        ("audience", "https://api.example"),
        ("prompt", "login"),
        ("resource", "a"),
        ("resource", "b"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(pairs.collect::<Vec<_>>(), expected);
}

#[test]
fn reserved_sign_in_parameters_are_faults() {
    for name in [
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "request",
        "request_uri",
        "response_mode",
    ] {
        let parameters = format!("{name}=hunter2");
        let pair = [("SIGN_IN_PARAMETERS", parameters.as_str())];
        let outcome = from_variables(&[&SIGN_IN[..], &pair].concat());
        let error = outcome.expect_err(name).to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(error.contains("WAVE_SIGN_IN_PARAMETERS") && error.contains(name), "{error}");
        let client = client("https://id.example");
        let outcome = build_sign_in(client, sign_in().parameter(name, "x"));
        refused(outcome, "sign_in_parameters", name);
    }
    for text in ["prompt", "=login", "prompt=login&"] {
        let pair = [("SIGN_IN_PARAMETERS", text)];
        let outcome = from_variables(&[&SIGN_IN[..], &pair].concat());
        refused(outcome, "WAVE_SIGN_IN_PARAMETERS", "must be pairs");
    }
}

#[test]
fn settings_of_missing_sign_in_are_faults() {
    let without_sign_in = |more: &[(&str, &str)]| {
        let settings = SIGN_IN.iter().filter(|(name, _)| *name != "REDIRECT_URI");
        from_variables(&settings.chain(more).copied().collect::<Vec<_>>())
    };
    without_sign_in(&[]).unwrap();
    for setting in [
        ("FORM_POST", "true"),
        ("LANDING", "/home"),
        ("FAILURE_PAGE", "/sorry"),
        ("COOKIE_NAME", "wave"),
        ("REDIRECT_NAVIGATION", "true"),
        ("REGISTER_AT_SIGN_IN", "true"),
        ("SIGN_IN_PARAMETERS", "prompt=login"),
    ] {
        let outcome = without_sign_in(&[setting]);
        refused(outcome, &format!("WAVE_{}", setting.0), "WAVE_REDIRECT_URI");
    }
    // Sessions without a sign-in, which another process starts.
    without_sign_in(&[("COOKIE_NAME", "wave"), ("SESSION_KEYS", KEY)]).unwrap();
    // A sign-in in code takes the place of the settings.
    let variables = [("P_LANDING", "/home"), ("P_FORM_POST", "true")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = AuthConfig::from_vars("P", variables);
    let client = client("https://id.example").build().unwrap();
    let endpoints = auth().endpoints().client(client).sign_in(sign_in()).configured(&config);
    endpoints.build().unwrap();
}

#[test]
fn failure_page_is_no_endpoint() {
    let with = |page| from_variables(&[&SIGN_IN[..], &[("FAILURE_PAGE", page)]].concat());
    for page in ["/v1/auth/logout", "/v1/auth/./whoami?a", "/v1/auth/config"] {
        refused(with(page), "WAVE_FAILURE_PAGE", "is the path of an endpoint");
    }
    // Not enabled, or no endpoint.
    for page in ["/v1/auth/register", "/v1/auth/sorry", "/v1/auth/logout/page", "/logout"] {
        with(page).unwrap();
    }
}

#[test]
fn wrong_database_is_one_fault() {
    let more = [("REGISTER_AT_SIGN_IN", "true"), ("DATABASE_URL", "nonsense://x")];
    let error = from_variables(&[&SIGN_IN[..], &more].concat()).unwrap_err();
    assert_eq!(error.faults().len(), 1, "{error}");
    refused(Err::<(), _>(error), "WAVE_DATABASE_URL", "");
}

#[test]
fn invalid_cookie_names_are_one_fault() {
    let all = |name| from_variables(&[&SIGN_IN[..], &[("SESSION_KEYS", KEY), name]].concat());
    let longest = "w".repeat(56);
    all(("COOKIE_NAME", longest.as_str())).unwrap();
    for name in [&format!("{longest}w"), &"w".repeat(65), "a b", "\u{e4}", "a;"] {
        let error = all(("COOKIE_NAME", name)).unwrap_err();
        assert_eq!(error.faults().len(), 1, "{error}");
        refused(Err::<(), _>(error), "WAVE_COOKIE_NAME", "56 characters");
    }
}

#[tokio::test]
async fn authorization_request_keeps_its_own_parameters() {
    let client = client("https://id.example").authorization_url(AUTHORIZE).build().unwrap();
    let verifier = PkceVerifier::generate().unwrap();
    let request = || AuthorizationRequest::new("https://wave.example/cb", &verifier, "state");
    let url = client.authorization_url(&request().parameter("prompt", "login")).await.unwrap();
    assert!(url.as_str().ends_with("&prompt=login"), "{url}");
    for name in ["state", "nonce", "request_uri"] {
        let refused = client.authorization_url(&request().parameter(name, "x")).await;
        assert!(matches!(refused, Err(ExchangeError::NotConfigured(_))), "{name}");
    }
}

/// Posts to `logout` without a session, and returns the URL in the answer.
async fn end_session_url(endpoints: scaikey_auth::endpoints::Endpoints) -> Option<String> {
    let request = http::Request::post("/v1/auth/logout").header("sec-fetch-site", "same-origin");
    let request = request.body(axum::body::Body::empty()).unwrap();
    let answer = axum::Router::new().layer(endpoints).oneshot(request).await.unwrap();
    let body = axum::body::to_bytes(answer.into_body(), 9999).await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    body["end_session_url"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn variables_turn_sign_out_at_provider_on() {
    let sessions = [&SIGN_IN[..], &[("SESSION_KEYS", KEY)]].concat();
    let page = ("POST_LOGOUT_REDIRECT_URI", "https://wave.example/bye");
    let place = ("END_SESSION_URL", "https://id.example/logout?logout_uri=x");
    let with = |more: &[(&str, &str)]| from_variables(&[&sessions[..], more].concat());
    assert_eq!(end_session_url(with(&[place]).unwrap()).await, None);
    let url = end_session_url(with(&[page, place]).unwrap()).await.unwrap();
    let parameters = "client_id=wave&post_logout_redirect_uri=https%3A%2F%2Fwave.example%2Fbye";
    assert_eq!(url, format!("https://id.example/logout?logout_uri=x&{parameters}"));

    let file = r#"{ "endpoints": { "post_logout_redirect_uri": "https://wave.example/bye" },
                    "client": { "end_session_url": "https://id.example/logout" } }"#;
    let file: AuthConfig = serde_json::from_str(file).unwrap();
    assert!(file.endpoints.post_logout_redirect_uri.is_some());
    assert!(file.client.end_session_url.is_some());
}

#[tokio::test]
async fn variables_choose_the_session_store() {
    let sessions = [&SIGN_IN[..], &[("SESSION_KEYS", KEY)]].concat();
    let with = |more: &[(&str, &str)]| from_variables(&[&sessions[..], more].concat());
    let has_list = |endpoints: Endpoints| endpoints.enabled().contains(&Endpoint::Sessions);
    assert!(!has_list(with(&[]).unwrap()), "in cookies");
    let (memory, idle) = (("SESSION_STORE", "memory"), ("SESSION_IDLE_SECONDS", "60"));
    assert!(has_list(with(&[memory, idle]).unwrap()));
    for (variables, variable, problem) in [
        (&[idle][..], "WAVE_SESSION_IDLE_SECONDS", "needs a session store"),
        (&[memory, ("SESSION_IDLE_SECONDS", "59")], "WAVE_SESSION_IDLE_SECONDS", "one minute"),
        (&[("SESSION_STORE", "disk")], "WAVE_SESSION_STORE", "`memory`, `database` or `redis`"),
        (&[("SESSION_STORE", "database")], "WAVE_SESSION_STORE", "WAVE_DATABASE_URL"),
        (&[("SESSION_STORE", "redis")], "WAVE_SESSION_STORE", "WAVE_REDIS_URL"),
    ] {
        refused(with(variables), variable, problem);
    }
    for setting in [memory, idle] {
        let outcome = from_variables(&[&SIGN_IN[..], &[setting]].concat());
        refused(outcome, &format!("WAVE_{}", setting.0), "WAVE_SESSION_KEYS");
    }
    #[cfg(feature = "sqlite")]
    {
        let database = [("SESSION_STORE", "database"), ("DATABASE_URL", "sqlite::memory:")];
        assert!(has_list(with(&database).unwrap()));
    }
    #[cfg(feature = "redis")]
    {
        let url = "redis://127.0.0.1:9";
        let redis = [("SESSION_STORE", "redis"), ("REDIS_URL", url), ("CACHE_KEYS", KEY)];
        assert!(has_list(with(&redis).unwrap()));
    }
}

#[test]
fn urls_for_browsers_have_no_password() {
    for (name, url) in [
        ("END_SESSION_URL", "https://user:pw@id.example/logout"),
        ("AUTHORIZATION_URL", "https://user@id.example/authorize"),
        ("REDIRECT_URI", "https://user:pw@wave.example/v1/auth/login"),
    ] {
        let variables = SIGN_IN.iter().filter(|(other, _)| *other != name).copied();
        let variables: Vec<_> = variables.chain([(name, url)]).collect();
        let error = from_variables(&variables).unwrap_err().to_string();
        assert!(error.contains(&format!("WAVE_{name}")), "{error}");
        assert!(error.contains("user") && !error.contains("pw@"), "{error}");
    }
}

#[test]
fn pages_that_look_like_logout_are_logged() {
    let build = |page: &str| {
        let log = Log::start();
        let page = [("SESSION_KEYS", KEY), ("POST_LOGOUT_REDIRECT_URI", page)];
        from_variables(&[&SIGN_IN[..], &page].concat()).unwrap();
        log.text().contains("set it to https://wave.example/v1/auth/logout")
    };
    for page in [
        "https://www.wave.example/v1/auth/logout",
        "https://wave.example/v1/auth/logout/",
        "https://wave.example/v1/auth/logout?x",
        "https://wave.example/app/v1/auth/logout",
    ] {
        assert!(build(page), "{page}");
    }
    for page in ["https://wave.example/v1/auth/logout", "https://wave.example/logout"] {
        assert!(!build(page), "{page}");
    }
}

#[test]
fn useless_pages_after_sign_out_are_refused() {
    let name = "POST_LOGOUT_REDIRECT_URI";
    let outcome = from_variables(&[&SIGN_IN[..], &[(name, "https://wave.example/")]].concat());
    refused(outcome, "WAVE_POST_LOGOUT_REDIRECT_URI", "WAVE_SESSION_KEYS");
    for page in ["http://wave.example/", "/bye", "https://wave.example/#a", "https://a/{x}"] {
        let outcome =
            from_variables(&[&SIGN_IN[..], &[("SESSION_KEYS", KEY), (name, page)]].concat());
        refused(outcome, "WAVE_POST_LOGOUT_REDIRECT_URI", "https URL");
    }
    for (page, problem) in [
        ("https://wave.example/v1/auth/login", "another sign-in"),
        ("https://wave.example/x/../v1/auth/login?a=b", "another sign-in"),
        ("https://user:pw@wave.example/bye", "user information"),
    ] {
        let outcome =
            from_variables(&[&SIGN_IN[..], &[("SESSION_KEYS", KEY), (name, page)]].concat());
        refused(outcome, "WAVE_POST_LOGOUT_REDIRECT_URI", problem);
    }
    // The path of `login`, but of another service.
    let page = (name, "https://other.example/v1/auth/login");
    from_variables(&[&SIGN_IN[..], &[("SESSION_KEYS", KEY), page]].concat()).unwrap();
    // Sessions that the service builds itself.
    let client = client("https://id.example").build().unwrap();
    let sessions = || Sessions::builder(&auth(), client.clone(), SealingKeys::random().unwrap());
    let variables = [("P_CLIENT_ID", "wave"), ("P_POST_LOGOUT_REDIRECT_URI", "https://w.example/")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = AuthConfig::from_vars("P", variables);
    let endpoints = || auth().endpoints().client(client.clone());
    let plain = endpoints().sessions(sessions().build().unwrap()).configured(&config);
    refused(plain.build(), "P_POST_LOGOUT_REDIRECT_URI", "end_at_provider");
    let sessions = sessions().end_at_provider("https://w.example/").build().unwrap();
    endpoints().sessions(sessions).configured(&config).build().unwrap();
}
