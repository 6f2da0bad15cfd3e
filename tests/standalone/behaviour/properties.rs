//! Property tests: no input causes a panic, and only signed tokens are accepted.

use std::sync::LazyLock;

use axum::body::Body;
use http::{HeaderValue, Request};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use scaikey_auth::config::{ENVIRONMENT, MockUser};
use scaikey_auth::identity::Scopes;
use scaikey_auth::testing::challenge;
use scaikey_auth::{Auth, AuthConfig, IssuerConfig};
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use crate::support::{Spy, World};

/// A service for all cases, with its keys loaded.
struct Service {
    runtime: Runtime,
    auth: Auth,
    good: String,
    _world: World,
}

static SERVICE: LazyLock<Service> = LazyLock::new(|| {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let world = runtime.block_on(World::new());
    let auth = world.auth().build().unwrap();
    runtime.block_on(auth.ready()).unwrap();
    let good = world.provider.token().sign();
    Service { runtime, auth, good, _world: world }
});

impl Service {
    /// Sends a request with these `Authorization` headers, and returns status and challenge. Checks that the inner
    /// service ran only if the status is 200.
    fn send(&self, values: &[HeaderValue]) -> (u16, Option<String>) {
        let spy = Spy::default();
        let mut request = Request::new(Body::empty());
        for value in values {
            request.headers_mut().append("authorization", value.clone());
        }
        let service = spy.app().layer(self.auth.layer());
        let answer = self.runtime.block_on(service.oneshot(request)).unwrap();
        let status = answer.status().as_u16();
        assert_eq!(spy.calls(), u64::from(status == 200));
        let challenge = answer.headers().get("www-authenticate");
        (status, challenge.map(|value| value.to_str().unwrap().to_owned()))
    }

    fn accepts(&self, token: &str) -> bool {
        self.runtime.block_on(self.auth.authenticate(token)).is_ok()
    }
}

fn cases(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

fn assert_refused((status, challenge): (u16, Option<String>)) {
    assert!(matches!(status, 400 | 401), "{status}");
    assert_eq!(challenge::parse(&challenge.unwrap()).unwrap().len(), 1);
}

#[test]
fn random_authorization_header_is_refused() {
    let prefix = prop_oneof!["", "Bearer ", "bearer  ", "Bearer", "Basic "];
    let header = (prefix, vec(any::<u8>(), 0..80));
    proptest!(cases(512), |(headers in vec(header, 0..3))| {
        let values: Vec<_> = headers
            .iter()
            .filter_map(|(prefix, rest)| HeaderValue::from_bytes(&[prefix.as_bytes(), rest].concat()).ok())
            .collect();
        assert_refused(SERVICE.send(&values));
    });
}

#[test]
fn random_token_is_refused() {
    let part = "[A-Za-z0-9_-]{0,40}";
    let token = prop_oneof![
        any::<String>(),
        "[A-Za-z0-9._~+/=-]{1,120}",
        (part, part, part).prop_map(|(a, b, c)| format!("{a}.{b}.{c}")),
    ];
    proptest!(cases(1024), |(token in token)| {
        prop_assert!(!SERVICE.accepts(&token));
    });
}

/// A change to a text.
#[derive(Debug, Clone)]
enum Edit {
    Flip(usize, u8),
    Cut(usize),
    Remove(usize, usize),
    Swap(usize, usize),
    Insert(usize, char),
    Replace(usize, char),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || any::<usize>();
    let letter = || prop_oneof![proptest::char::range('!', '~'), any::<char>()];
    prop_oneof![
        (at(), 0..7u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        at().prop_map(Edit::Cut),
        (at(), 1..6usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        (at(), at()).prop_map(|(one, other)| Edit::Swap(one, other)),
        (at(), letter()).prop_map(|(at, letter)| Edit::Insert(at, letter)),
        (at(), letter()).prop_map(|(at, letter)| Edit::Replace(at, letter)),
    ]
}

fn apply(text: &str, edit: &Edit) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let length = letters.len().max(1);
    match *edit {
        _ if letters.is_empty() => {}
        Edit::Flip(at, bit) => {
            let letter = &mut letters[at % length];
            *letter = char::from_u32(*letter as u32 ^ (1 << bit)).unwrap_or('?');
        }
        Edit::Cut(at) => letters.truncate(at % length),
        Edit::Remove(at, count) => {
            let from = at % length;
            letters.drain(from..(from + count).min(length));
        }
        Edit::Swap(one, other) => letters.swap(one % length, other % length),
        Edit::Insert(at, letter) => letters.insert(at % length, letter),
        Edit::Replace(at, letter) => letters[at % length] = letter,
    }
    letters.into_iter().collect()
}

#[test]
fn modified_token_is_refused() {
    proptest!(cases(1024), |(edits in vec(edit(), 0..4))| {
        let edited = edits.iter().fold(SERVICE.good.clone(), |text, edit| apply(&text, edit));
        prop_assert_eq!(SERVICE.accepts(&edited), edited == SERVICE.good, "{}", edited);
    });
}

#[test]
fn challenge_is_parsable_for_any_text() {
    let text = || prop_oneof!["[ -~]{0,30}", any::<String>()];
    proptest!(cases(128), |(realm in text(), required in text())| {
        let Ok(auth) = Auth::builder()
            .verified_tokens_bytes(0)
            .mode(scaikey_auth::AuthMode::Mock)
            .insecure_allow_mock_in_production()
            .realm(&realm)
            .build() else { return Ok(()) };
        let app = Spy::default().app().layer(auth.require(scaikey_auth::scope(&required)));
        let app = app.layer(auth.layer());
        for (token, status) in [(None, 401), (Some("x"), 403)] {
            let request = crate::support::axum_request(token);
            let answer = SERVICE.runtime.block_on(app.clone().oneshot(request)).unwrap();
            prop_assert_eq!(answer.status().as_u16(), status);
            // A 403 has no challenge if its scope cannot be part of a header.
            let Some(value) = answer.headers().get("www-authenticate") else {
                prop_assert_eq!(status, 403);
                continue;
            };
            let challenges = challenge::parse(value.to_str().unwrap()).unwrap();
            prop_assert_eq!(challenges.len(), 1);
            prop_assert_eq!(challenges[0].param("realm"), Some(realm.as_str()));
            if status == 403 {
                prop_assert_eq!(challenges[0].param("scope"), Some(required.as_str()));
            }
        }
    });
}

#[test]
fn config_from_env_never_panics() {
    let name = prop_oneof![
        (0..ENVIRONMENT.len()).prop_map(|nth| ENVIRONMENT[nth].name.to_owned()),
        "[A-Z_]{0,20}",
        any::<String>(),
    ];
    let value = prop_oneof![
        any::<String>(),
        "[0-9]{1,25}",
        "https?://[a-z:@{}/.0-9]{0,30}",
        "(mock|hybrid|scaikey|rfc9068|true|RS256,ES256|/a~1b,c|\\{tenant_id\\})",
    ];
    proptest!(cases(512), |(pairs in vec((name, value), 0..6), prefix in "(X|)")| {
        let vars = pairs.into_iter().map(|(name, value)| (format!("{prefix}_{name}"), value));
        if let Err(error) = Auth::from_config(AuthConfig::from_vars(&prefix, vars)).build() {
            prop_assert!(!error.faults().is_empty() && !error.to_string().is_empty());
        }
    });
}

/// Generates JSON with the names of configuration fields.
fn json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        "(https://a.example|http://127.0.0.1|RS256|/a/b|~|mock|\\{tenant_id\\}|t)",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let name = "(mode|issuers|issuer|audience|realm|jwks|claims|tenants|algorithms|leeway_seconds|\
                ttl_seconds|wait_seconds|max_bytes|roles|tenant_id|kind|mock|token_prefix|\
                database_url|max_token_bytes|jwks_uri|expected_issuer|profile|[a-z]{0,3})";
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((name, inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Generates a valid configuration with one field replaced.
fn with_one_field_replaced() -> impl Strategy<Value = Value> {
    const FIELDS: [&str; 18] = [
        "issuer",
        "expected_issuer",
        "discovery_url",
        "jwks_uri",
        "audience",
        "algorithms",
        "profile",
        "leeway_seconds",
        "max_token_lifetime_seconds",
        "jwks",
        "claims",
        "tenants",
        "/mode",
        "/audience",
        "/realm",
        "/max_token_bytes",
        "/mock",
        "/tenant_required",
    ];
    (0..FIELDS.len(), json()).prop_map(|(nth, value)| {
        let mut config = serde_json::json!({
            "audience": ["a"], "issuers": [{ "issuer": "https://a.example" }],
        });
        match FIELDS[nth].strip_prefix('/') {
            Some(field) => config[field] = value,
            None => config["issuers"][0][FIELDS[nth]] = value,
        }
        config
    })
}

#[test]
fn config_from_file_never_panics() {
    proptest!(cases(1024), |(file in prop_oneof![json(), with_one_field_replaced()])| {
        if let Ok(config) = serde_json::from_value::<AuthConfig>(file.clone()) {
            drop(Auth::from_config(config).build());
        }
        let _ = serde_json::from_value::<IssuerConfig>(file.clone());
        let _ = serde_json::from_value::<MockUser>(file.clone());
        let _ = serde_json::from_value::<Scopes>(file);
    });
}
