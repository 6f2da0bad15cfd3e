//! The variables of the administration and of the store: `P_TRUST_…`.

use scaikey_auth::config::Algorithm;
use scaikey_auth::endpoints::{Endpoint, Endpoints, TrustAdmin};
use scaikey_auth::testing::Provider;
use scaikey_auth::{Auth, AuthConfig, ConfigError, scope};

use crate::support::Server;
use crate::support::files::File;

fn endpoints(variables: &[(&str, &str)]) -> Result<Endpoints, ConfigError> {
    let base = [
        ("ISSUER", "https://scaikey.example"),
        ("AUDIENCE", "scaivault"),
        ("CLIENT_ID", "scaivault"),
        ("CLIENT_SECRET", "secret"),
    ];
    // A variable of the test replaces one of these.
    let all = base.iter().chain(variables);
    let all = all.map(|(name, value)| (format!("P_{name}"), (*value).to_owned()));
    let config = AuthConfig::from_vars("P", all);
    Auth::from_config(config.clone()).build()?.endpoints().configured(&config).build()
}

#[tokio::test]
async fn unusable_settings_name_variable_and_remedy() {
    let (file, faulty) = (File::new("trust.toml", ""), File::new("trust.toml", "trust = 7"));
    let file = ("TRUST_FILE", &*file.path_text());
    let faulty = ("TRUST_FILE", &*faulty.path_text());
    let missing = ("TRUST_FILE", "/nonexistent/trust.toml");
    let store = |store| ("TRUST_STORE", store);
    let (admin, tenant) = ("TRUST_ADMIN_SCOPE", "TRUST_TENANT_ADMIN_SCOPE");
    for (variables, field, remedy) in [
        (&[store("shelf")][..], "TRUST_STORE", "`file`, `database` or `redis`"),
        (&[store("file")], "TRUST_STORE", "set trust_file (`P_TRUST_FILE`)"),
        (&[store("database")], "TRUST_STORE", "set database_url (`P_DATABASE_URL`)"),
        (&[store("redis")], "TRUST_STORE", "`P_REDIS_URL`"),
        (&[store("redis"), file], "TRUST_FILE", "remove it"),
        (&[faulty], "TRUST_FILE", "cannot be used:\n  line 1, column 9: trust is a number"),
        (&[missing], "TRUST_FILE", "cannot be used:\n  /nonexistent/trust.toml cannot be read"),
        (&[(admin, "\"")], "TRUST_ADMIN_SCOPE", "scopes, separated by spaces"),
        (&[(admin, "trusts")], "TRUST_ADMIN_SCOPE", "`P_TRUST_FILE`"),
        (&[file, (tenant, "t")], "TRUST_TENANT_ADMIN_SCOPE", "`P_TRUST_ADMIN_SCOPE`"),
        (&[file, (admin, "a"), (tenant, "b a")], "TRUST_TENANT_ADMIN_SCOPE", "other scopes"),
    ] {
        let error = endpoints(variables).unwrap_err();
        let fault = &error.faults()[0];
        assert_eq!((error.faults().len(), &*fault.field), (1, &*format!("P_{field}")), "{error}");
        assert!(fault.problem.contains(remedy), "{error}");
    }
}

#[tokio::test]
async fn configured_scopes_admit_administrators() {
    let scaikey = Provider::builder().algorithms([Algorithm::ES256]).start().await;
    let (issuer, file) = (scaikey.issuer(), File::new("trust.toml", ""));
    let path = file.path_text();
    let base = [
        ("ISSUER", &*issuer),
        ("ALLOW_LOOPBACK_HTTP", "true"),
        ("ALGORITHMS", "ES256"),
        ("TRUST_FILE", &path),
    ];
    assert!(!endpoints(&base).unwrap().enabled().contains(&Endpoint::Trusts));
    let admins = [("TRUST_ADMIN_SCOPE", "trusts all"), ("TRUST_TENANT_ADMIN_SCOPE", "trusts")];
    let endpoints = endpoints(&[&base[..], &admins[..]].concat()).unwrap();
    assert!(endpoints.enabled().contains(&Endpoint::Trusts));
    let server = Server::hyper(endpoints.service()).await;
    for (scopes, access) in [("all trusts", "owner"), ("trusts", "tenant"), ("all", "")] {
        let token = scaikey.token().audience("scaivault").scope(scopes).sign();
        let answer = server.get_as("/v1/auth/trusts", &token).await;
        match access {
            "" => assert_eq!(answer.status, 403, "{scopes}"),
            _ => assert_eq!(answer.json()["access"], access, "{scopes}: {answer:?}"),
        }
    }
}

/// Tenants that the configuration lists or allows need no table, if the database has the policy.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn explicit_tenants_replace_the_table() {
    let scaikey = Provider::builder().algorithms([Algorithm::ES256]).start().await;
    let (issuer, policy) = (scaikey.issuer(), File::new("trust.toml", ""));
    let policy = ("TRUST_FILE", &*policy.path_text());
    let store = ("TRUST_STORE", "database");
    let (listed, any, not_any) =
        (("TENANTS", "acme"), ("ANY_TENANT", "true"), ("ANY_TENANT", "false"));
    for (variables, acme, other, asks_table) in [
        (&[store, listed][..], 200, 401, false),
        (&[store, any], 200, 200, false),
        (&[store, listed, any], 200, 401, false),
        (&[store], 403, 403, true),
        (&[store, not_any], 403, 403, true),
        // The database is for tenants only.
        (&[policy, listed], 403, 401, true),
        (&[policy, any], 403, 403, true),
    ] {
        let database = File::reserve("vault.db");
        let url = database.sqlite_url();
        let base = [
            ("ISSUER", &*issuer),
            ("ALLOW_LOOPBACK_HTTP", "true"),
            ("ALGORITHMS", "ES256"),
            ("TRUST_ADMIN_SCOPE", "trusts"),
            ("DATABASE_URL", url.expose()),
        ];
        let endpoints = endpoints(&[&base, variables].concat()).unwrap();
        let server = Server::hyper(endpoints.service()).await;
        for (tenant, status) in [("acme", acme), ("other", other)] {
            let token = scaikey.token().audience("scaivault").scope("trusts").tenant(tenant);
            let answer = server.get_as("/v1/auth/trusts", &token.sign()).await;
            assert_eq!(answer.status, status, "{variables:?} {tenant}: {answer:?}");
        }
        assert_eq!(mentions_tenant_table(database.path()), asks_table, "{variables:?}");
    }
}

/// Returns whether the database or its log has the table of tenants.
#[cfg(feature = "sqlite")]
fn mentions_tenant_table(database: &std::path::Path) -> bool {
    let files = std::fs::read_dir(database.parent().unwrap()).unwrap();
    let mut contents = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    contents.any(|bytes| bytes.windows(12).any(|window| window == b"auth_tenants"))
}

#[cfg(all(feature = "sqlite", feature = "redis"))]
#[tokio::test]
async fn variable_selects_the_store() {
    let file = File::new("trust.toml", "");
    let file = file.path_text();
    let key = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
    let (database, redis) =
        (("DATABASE_URL", "sqlite::memory:"), ("REDIS_URL", "redis://127.0.0.1:1"));
    for (variables, kind) in [
        (&[("TRUST_FILE", &*file)][..], "file"),
        (&[("TRUST_FILE", &*file), ("TRUST_STORE", "file"), database], "file"),
        (&[("TRUST_STORE", "database"), database], "sql"),
        (&[("TRUST_STORE", "redis"), redis, ("CACHE_KEYS", key)], "redis"),
    ] {
        let endpoints = endpoints(variables).unwrap();
        let store = endpoints.workloads().unwrap().evaluator().policy_store().unwrap();
        assert_eq!(store.kind(), kind);
    }
}

#[tokio::test]
async fn administration_without_policy_names_both_sources() {
    let auth = Auth::builder().issuer("https://scaikey.example").audience("scaivault");
    let admin = TrustAdmin::new(scope("trusts"));
    let error = auth.build().unwrap().endpoints().trust_admin(admin).build().unwrap_err();
    let problem = error.to_string();
    assert!(problem.contains("trust_file") && problem.contains("trust_store"), "{problem}");
}
