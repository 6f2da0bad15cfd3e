//! The variables of the administration and of the store: `P_TRUST_…`.

use scaikey_auth::config::Algorithm;
use scaikey_auth::endpoints::{Endpoint, Endpoints};
use scaikey_auth::testing::Provider;
use scaikey_auth::{Auth, AuthConfig, ConfigError};

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
    let file = File::new("trust.toml", "");
    let file = ("TRUST_FILE", &*file.path_text());
    let store = |store| ("TRUST_STORE", store);
    let (admin, tenant) = ("TRUST_ADMIN_SCOPE", "TRUST_TENANT_ADMIN_SCOPE");
    for (variables, field, remedy) in [
        (&[store("shelf")][..], "TRUST_STORE", "`file`, `database` or `redis`"),
        (&[store("file")], "TRUST_STORE", "set trust_file (`P_TRUST_FILE`)"),
        (&[store("database")], "TRUST_STORE", "set database_url (`P_DATABASE_URL`)"),
        (&[store("redis")], "TRUST_STORE", "`P_REDIS_URL`"),
        (&[store("redis"), file], "TRUST_FILE", "remove it"),
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
