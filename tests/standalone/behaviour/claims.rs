//! Reading identities from the claims of ScaiKey and of other providers.

use std::time::{Duration, SystemTime};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::Config;
use scaikey_auth::error::InvalidToken;
use scaikey_auth::identity::{ClaimTest, ClaimsMapping, IdentityKind, Provenance};
use scaikey_auth::testing::TokenBuilder;
use scaikey_auth::validator::insecure_decode_claims;
use scaikey_auth::{Auth, AuthBuilder, AuthConfig, AuthError, Identity};
use serde_json::{Value, json};

use crate::support::Log;
use crate::support::World;

async fn identity(builder: AuthBuilder, token: TokenBuilder) -> Identity {
    builder.build().unwrap().authenticate(&token.sign()).await.unwrap().identity().clone()
}

async fn refusal(builder: AuthBuilder, token: TokenBuilder) -> AuthError {
    builder.build().unwrap().authenticate(&token.sign()).await.unwrap_err()
}

fn mapping(json: Value) -> ClaimsMapping {
    serde_json::from_value(json).unwrap()
}

/// A user's token with more claims.
fn token_with(world: &World, claims: &Value) -> TokenBuilder {
    let claims = claims.as_object().unwrap().iter();
    claims.fold(world.provider.token(), |token, (name, value)| token.claim(name, value.clone()))
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The sample of ScaiWave's tutorial, with an added `iss`.
#[tokio::test]
async fn sample_token_gives_complete_identity() {
    let world = World::new().await;
    world.clock.set_wall(at(1_778_935_900));
    let sample = json!({
        "sub": "7a1f9c52-0d3e-4b8a-9f61-2c5d8e7b4a10",
        "tenant_id": "6f1c2d3e-4a5b-4c6d-8e7f-901a2b3c4d5e",
        "aud": "scaiwave",
        "preferred_username": "alice",
        "email": "alice@example.com",
        "roles": ["docs_internal", "tenant_admin"],
        "groups": ["group-eng", "group-sre"],
        "exp": 1_778_939_467,
        "iat": 1_778_935_867,
        "iss": world.provider.issuer(),
    });
    let key = world.provider.key();
    let header = json!({ "alg": key.algorithm(), "kid": key.kid() });
    let token = key.token(header.to_string(), sample.to_string());
    let auth = world.auth().build().unwrap();
    let context = auth.authenticate(&token).await.unwrap();
    let identity = context.identity();
    assert_eq!(identity.subject(), sample["sub"]);
    assert_eq!(identity.tenant_id().unwrap().as_str(), sample["tenant_id"]);
    assert_eq!(context.tenant().unwrap().id().as_str(), sample["tenant_id"]);
    assert_eq!(identity.display_name(), Some("alice"));
    assert_eq!((identity.email(), identity.email_verified()), (Some("alice@example.com"), false));
    assert!(identity.roles().eq(["docs_internal", "tenant_admin"]));
    assert!(identity.groups().eq(["group-eng", "group-sre"]));
    assert_eq!(identity.issued_at(), Some(at(1_778_935_867)));
    assert_eq!(identity.expires_at(), at(1_778_939_467));
    assert_eq!(
        (identity.kind(), identity.provenance()),
        (IdentityKind::User, Provenance::Verified)
    );
    assert!(identity.scopes().is_empty() && identity.actor().is_none());
    assert_eq!((identity.client_id(), identity.partner_id()), (None, None));
    assert_eq!(identity.mfa_verified_at(), None);
    assert_eq!(identity.claims::<Value>().unwrap(), sample, "nothing is lost");
    // The original sample, without `iss`, is refused.
    let mut original = sample.clone();
    original.as_object_mut().unwrap().remove("iss");
    let token = key.token(header.to_string(), original.to_string());
    let refusal = auth.authenticate(&token).await.unwrap_err();
    assert!(matches!(refusal, AuthError::InvalidToken(InvalidToken::MissingClaim("iss"))));
}

#[tokio::test]
async fn scopes_are_the_union_of_three_claims() {
    let world = World::new().await;
    let token =
        world.provider.token().scope("a b").claim("scp", vec!["b", "c"]).claim("scopes", "d  e");
    let identity = identity(world.auth(), token).await;
    assert_eq!(identity.scopes(), &"a b c d e".parse().unwrap());
    for (name, value) in [("scope", json!(7)), ("scp", json!([7])), ("scope", json!("a\tb"))] {
        let refusal = refusal(world.auth(), world.provider.token().claim(name, value)).await;
        let malformed = InvalidToken::MalformedClaim("scope");
        assert!(matches!(refusal, AuthError::InvalidToken(kind) if kind == malformed), "{name}");
    }
}

#[tokio::test]
async fn claims_mapping_supports_other_providers() {
    let world = World::new().await;
    let cases = [
        // Keycloak
        (
            json!({ "roles": ["/realm_access/roles", "/resource_access/scaiwave/roles"] }),
            json!({ "realm_access": { "roles": ["boss"] },
                    "resource_access": { "scaiwave": { "roles": ["clerk"] } } }),
            vec!["boss", "clerk"],
            "tenant-1",
        ),
        // Auth0
        (
            json!({ "roles": ["https://example.com/roles"], "tenant_id": ["org_id"] }),
            json!({ "https://example.com/roles": ["boss"], "org_id": "org_1" }),
            vec!["boss"],
            "org_1",
        ),
        // Entra ID
        (
            json!({ "tenant_id": ["tid"] }),
            json!({ "tid": "9188040d-6c67-4c5b-b112-36a304b66dad", "roles": "boss" }),
            vec!["boss"],
            "9188040d-6c67-4c5b-b112-36a304b66dad",
        ),
        // SCIM-like objects
        (
            json!({}),
            json!({ "roles": [{ "value": "boss", "display": "Boss" }] }),
            vec!["boss"],
            "tenant-1",
        ),
    ];
    for (paths, claims, roles, tenant) in cases {
        let issuer = world.issuer().claims(mapping(paths.clone()));
        let mut token = world.provider.token().without("roles");
        for (name, value) in claims.as_object().unwrap() {
            token = token.claim(name, value.clone());
        }
        let identity = identity(world.auth_with(issuer), token).await;
        assert!(identity.roles().eq(roles.iter().copied()), "{paths}");
        assert_eq!(identity.tenant_id().unwrap().as_str(), tenant, "{paths}");
    }
    // Without the mapping, the same claims have no meaning.
    let token =
        world.provider.token().without("roles").claim("realm_access", json!({ "roles": ["boss"] }));
    assert_eq!(identity(world.auth(), token).await.roles().count(), 0);
}

#[tokio::test]
async fn mfa_time_needs_mfa_and_auth_time() {
    let world = World::new().await;
    let issuer = || {
        world.issuer().claims(mapping(json!({ "mfa": [
        { "claim": "amr", "contains": "mfa" }, { "claim": "acr", "equals": "urn:mfa" },
    ] })))
    };
    for (claims, expected) in [
        (json!({ "amr": ["pwd", "mfa"], "auth_time": 1000 }), Some(1000)),
        (json!({ "acr": "urn:mfa", "auth_time": 1000.9 }), Some(1000)),
        (json!({ "amr": ["mfa"] }), None),
        (json!({ "amr": ["pwd", "otp"], "auth_time": 1000 }), None),
        (json!({ "acr": "urn:other", "auth_time": 1000 }), None),
        (json!({ "auth_time": 1000 }), None),
        (json!({}), None),
    ] {
        let mut token = world.provider.token();
        for (name, value) in claims.as_object().unwrap() {
            token = token.claim(name, value.clone());
        }
        let identity = identity(world.auth_with(issuer()), token).await;
        assert_eq!(identity.mfa_verified_at(), expected.map(at), "{claims}");
    }
    // An unreadable time is none, so that guards demand another authentication.
    let broken = world.provider.token().claim("amr", vec!["mfa"]).claim("auth_time", "1000");
    assert_eq!(identity(world.auth(), broken).await.mfa_verified_at(), None);
}

#[tokio::test]
async fn sid_jti_and_acr_are_kept_verbatim() {
    let world = World::new().await;
    let token = || world.provider.token().without("jti");
    let known = identity(world.auth(), token()).await;
    assert_eq!((known.session_id(), known.token_id(), known.acr()), (None, None, None));
    let claims = [("sid", "s-1"), ("jti", "t \"1\""), ("acr", "urn:example:gold")];
    let named = claims.iter().fold(token(), |token, (name, value)| token.claim(name, *value));
    let known = identity(world.auth(), named).await;
    assert_eq!((known.session_id(), known.token_id()), (Some("s-1"), Some("t \"1\"")));
    assert_eq!(known.acr(), Some("urn:example:gold"));
    for name in ["sid", "jti", "acr"] {
        let absent = identity(world.auth(), token().claim(name, Value::Null)).await;
        assert_eq!((absent.session_id(), absent.token_id(), absent.acr()), (None, None, None));
    }
}

#[tokio::test]
async fn outermost_actor_is_the_current_one() {
    let world = World::new().await;
    let act = json!({
        "sub": "support", "iss": "https://other.example", "exp": 1, "aud": "x",
        "act": { "client_id": "gateway", "act": { "sub": "origin", "act": null } },
    });
    let identity = identity(world.auth(), world.provider.token().claim("act", act)).await;
    let actor = identity.actor().unwrap();
    assert_eq!(actor.subject.as_deref(), Some("support"));
    assert_eq!(actor.issuer.as_deref(), Some("https://other.example"));
    let prior: Vec<_> = identity.prior_actors().iter().collect();
    assert_eq!(prior.len(), 2);
    assert_eq!(prior[0].client_id.as_deref(), Some("gateway"));
    assert_eq!(prior[1].subject.as_deref(), Some("origin"));
}

#[tokio::test]
async fn unreadable_actor_stays_an_actor() {
    let world = World::new().await;
    for (act, prior) in [
        (json!("support"), 0),
        (json!(7), 0),
        (json!([{ "sub": "support" }]), 0),
        (json!({ "sub": 7, "client_id": "gateway" }), 0),
        // Without its issuer, it would look like an actor of the token's issuer.
        (json!({ "sub": "support", "iss": ["https://other.example"] }), 0),
        (json!({ "sub": 7, "act": { "sub": "origin" } }), 1),
    ] {
        let token = world.provider.token().claim("act", act.clone());
        let identity = identity(world.auth(), token).await;
        let actor = identity.actor().unwrap();
        let fields = [&actor.subject, &actor.client_id, &actor.issuer];
        assert_eq!(fields, [&None, &None, &None], "{act}");
        assert_eq!(identity.prior_actors().len(), prior, "{act}");
    }
    let token = world.provider.token().claim("act", Value::Null);
    assert!(identity(world.auth(), token).await.actor().is_none());
}

#[tokio::test]
async fn other_claim_can_be_the_subject() {
    let world = World::new().await;
    let issuer = |paths: &[&str]| {
        world.issuer().claims(ClaimsMapping::default().subject(paths.iter().copied()))
    };
    let token = || world.provider.token().without("sub");
    let named = identity(world.auth_with(issuer(&["oid"])), token().claim("oid", "o-1")).await;
    assert_eq!((named.subject(), &*named.key().subject), ("o-1", "o-1"));
    let first = token().claim("oid", Value::Null).claim("uid", "u-1").claim("sub", "s-1");
    let first = identity(world.auth_with(issuer(&["oid", "/uid", "sub"])), first).await;
    assert_eq!(first.subject(), "u-1");
    for (path, token) in [
        // The default does not look elsewhere, and `sub` does not replace another claim.
        ("sub", token().claim("oid", "o-1")),
        ("oid", token().claim("sub", "s-1")),
        ("oid", token().claim("sub", "s-1").claim("oid", "")),
        ("oid", token().claim("sub", "s-1").claim("oid", 7)),
    ] {
        let refusal = refusal(world.auth_with(issuer(&[path])), token).await;
        let names_sub = matches!(
            refusal,
            AuthError::InvalidToken(
                InvalidToken::MissingClaim("sub") | InvalidToken::MalformedClaim("sub")
            )
        );
        assert!(names_sub, "{refusal:?}");
    }
}

#[tokio::test]
async fn reassignable_subject_is_warned_about() {
    let world = World::new().await;
    for (path, warnings) in [("email", 1), ("/user/upn", 1), ("sub", 0), ("oid", 0)] {
        let log = Log::start();
        let issuer = world.issuer().claims(ClaimsMapping::default().subject(["sub", path]));
        world.auth_with(issuer).build().unwrap();
        let about = format!("claim={path}");
        assert_eq!(log.lines("WARN").iter().filter(|it| it.contains(&about)).count(), warnings);
    }
}

#[tokio::test]
async fn tests_of_claims_find_service_accounts() {
    use IdentityKind::{ServiceAccount, User};
    let world = World::new().await;
    let mapping = ClaimsMapping::default().client_id(["azp", "appid", "cid"]).service_account([
        ClaimTest::equals("idtyp", "app"),
        ClaimTest::starts_with("preferred_username", "service-account-"),
        ClaimTest::is_present("machine").and(ClaimTest::contains("/realm_access/roles", "machine")),
    ]);
    for (claims, kind) in [
        (json!({}), User),
        (json!({ "idtyp": "app" }), ServiceAccount),
        (json!({ "idtyp": "user" }), User),
        (json!({ "preferred_username": "service-account-docs" }), ServiceAccount),
        (json!({ "machine": 1 }), User),
        (json!({ "machine": 1, "realm_access": { "roles": ["machine"] } }), ServiceAccount),
        // The rule for all other tokens.
        (json!({ "cid": "alice-id" }), ServiceAccount),
        (json!({ "appid": "web", "cid": "alice-id" }), User),
        (json!({ "token_type": "client_credentials" }), ServiceAccount),
        (json!({ "client_id": "alice-id" }), User),
    ] {
        let issuer = world.issuer().claims(mapping.clone());
        let identity = identity(world.auth_with(issuer), token_with(&world, &claims)).await;
        assert_eq!(identity.kind(), kind, "{claims}");
    }
    let issuer = world.issuer().claims(mapping.clone());
    let token = world.provider.token().claim("appid", "web");
    assert_eq!(identity(world.auth_with(issuer), token).await.client_id(), Some("web"));
}

#[tokio::test]
async fn mfa_tests_read_methods_and_their_times() {
    let world = World::new().await;
    let methods = |list: Value| json!({ "auth_time": 500, "amr": list });
    let supabase = "aal=aal2+amr*=totp";
    let totp =
        |time: Value| json!({ "aal": "aal2", "amr": [{ "method": "totp", "timestamp": time }] });
    for (tests, claims, expected) in [
        ("aal=aal2", json!({ "aal": "aal2", "auth_time": 500 }), Some(500)),
        ("aal=aal2", json!({ "aal": "aal1", "auth_time": 500 }), None),
        ("amr*=pwd+amr*=otp", methods(json!(["pwd", "otp"])), Some(500)),
        ("amr*=pwd+amr*=otp", methods(json!(["pwd"])), None),
        ("amr*=pwd+amr*=otp", methods(json!(["otp", { "method": "pwd" }])), Some(500)),
        // If the methods state their own times, the earliest counts.
        (
            "amr*=pwd+amr*=otp",
            methods(json!([
                { "method": "otp", "timestamp": 900 }, { "method": "pwd", "timestamp": 800.5 },
            ])),
            Some(800),
        ),
        (
            supabase,
            json!({ "aal": "aal2", "amr": [
                { "method": "totp", "timestamp": 900 }, { "method": "password", "timestamp": 100 },
            ] }),
            Some(900),
        ),
        (supabase, json!({ "aal": "aal2", "amr": [{ "method": "password" }] }), None),
        (supabase, totp(json!("900")), None),
        (supabase, totp(json!(1e300)), None),
        ("amr*=mfa", json!({ "amr": "mfa", "auth_time": 500 }), None),
        ("acr=gold,aal=aal2", json!({ "aal": "aal2", "auth_time": 500 }), Some(500)),
        // If several tests pass, the last authentication counts.
        (
            "amr*=totp,amr*=phone,amr*=key",
            methods(json!([
                { "method": "totp", "timestamp": 700 }, { "method": "phone", "timestamp": 900 },
            ])),
            Some(900),
        ),
    ] {
        let tests = tests.split(',').map(|test| test.parse().unwrap());
        let issuer = world.issuer().claims(ClaimsMapping::default().mfa(tests));
        let identity = identity(world.auth_with(issuer), token_with(&world, &claims)).await;
        assert_eq!(identity.mfa_verified_at(), expected.map(at), "{claims}");
    }
    let mapping = ClaimsMapping::default().auth_time(["https://example.com/auth_time"]);
    let claims = json!({ "amr": ["mfa"], "https://example.com/auth_time": 700, "auth_time": 500 });
    let issuer = world.issuer().claims(mapping);
    let identity = identity(world.auth_with(issuer), token_with(&world, &claims)).await;
    assert_eq!(identity.mfa_verified_at(), Some(at(700)));
}

#[tokio::test]
async fn roles_and_groups_have_three_forms() {
    let world = World::new().await;
    let project = "urn:zitadel:iam:org:project:roles";
    let mapping = ClaimsMapping::default()
        .roles([project, "/app/roles"])
        .groups(["teams"])
        .name_member("name");
    let org = json!({ "284": "acme.example" });
    let claims = json!({
        project: { "editor": org, "viewer": org, "x": null },
        "app": { "roles": ["owner", null, 7, "editor"] },
        "teams": [{ "name": "eng", "id": 1 }, { "value": "sre" }, "ops"],
    });
    let issuer = world.issuer().claims(mapping);
    let identity = identity(world.auth_with(issuer), token_with(&world, &claims)).await;
    assert!(identity.roles().eq(["editor", "viewer", "owner"]));
    assert!(identity.groups().eq(["eng", "ops"]));
}

#[tokio::test]
async fn ignored_claims_are_logged_once() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let log = Log::start();
    let claims = json!({
        "roles": ["boss", 7], "groups": 8, "email": ["canary-1"], "name": { "x": "canary-2" },
        "acr": 1, "act": "canary-3", "amr": ["mfa"], "auth_time": "canary-4",
    });
    for id in ["1", "2", "3"] {
        let token = token_with(&world, &claims).claim("jti", id).sign();
        let context = auth.authenticate(&token).await.unwrap();
        assert!(context.identity().roles().eq(["boss"]));
    }
    let warnings = log.lines("WARN");
    for attribute in ["roles", "groups", "email", "display_name", "acr", "act", "auth_time"] {
        let named = format!("attribute=\"{attribute}\"");
        let count = warnings.iter().filter(|line| line.contains(&named)).count();
        assert_eq!(count, 1, "{attribute}: {warnings:#?}");
    }
    assert!(warnings.iter().all(|line| line.contains(&world.provider.issuer())), "{warnings:#?}");
    assert!(!log.text().contains("canary-"), "{}", log.text());
    // Another issuer's warnings are its own, and `null` is no fault.
    let log = Log::start();
    let absent =
        json!({ "roles": [null], "groups": null, "email": null, "acr": null, "act": null });
    identity(world.auth(), token_with(&world, &absent)).await;
    assert!(log.lines("WARN").is_empty(), "{}", log.text());
    identity(world.auth(), token_with(&world, &json!({ "roles": 7 }))).await;
    assert_eq!(log.lines("WARN").len(), 1, "{}", log.text());
}

/// The two lists are those of the manual's page on requests.
#[tokio::test]
async fn malformed_claim_is_refused_if_it_decides() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let values = [json!(true), json!(["x", 7]), json!([["x"]]), json!({ "x": "y" }), json!(-1)];
    let token = |name: &str, value: &Value| {
        world.provider.token().without("client_id").claim(name, value.clone()).sign()
    };
    for name in [
        "iss",
        "aud",
        "exp",
        "nbf",
        "iat",
        "sub",
        "client_id",
        "azp",
        "tenant_id",
        "partner_id",
        "scope",
        "scp",
        "scopes",
        "sid",
        "jti",
        "cnf",
    ] {
        for value in &values {
            let refusal = auth.authenticate(&token(name, value)).await.unwrap_err();
            assert!(matches!(refusal, AuthError::InvalidToken(_)), "{name} {value}: {refusal:?}");
        }
    }
    for name in [
        "name",
        "preferred_username",
        "email",
        "email_verified",
        "roles",
        "role",
        "groups",
        "acr",
        "amr",
        "auth_time",
        "act",
        "token_type",
        "locale",
    ] {
        for value in &values {
            let accepted = auth.authenticate(&token(name, value)).await;
            assert!(accepted.is_ok(), "{name} {value}: {accepted:?}");
        }
    }
    // The first claim with a value counts, even if the value cannot be read.
    let claims = json!({ "name": 7, "preferred_username": "alice" });
    assert_eq!(identity(world.auth(), token_with(&world, &claims)).await.display_name(), None);
}

#[tokio::test]
async fn invalid_mapping_is_a_fault_by_number() {
    let world = World::new().await;
    let mapping = ClaimsMapping::default()
        .roles(["roles", "/~x"])
        .tenant_id([""])
        .service_account([ClaimTest::equals("idtyp", "app"), ClaimTest::starts_with("sub", "")]);
    let error = world.auth_with(world.issuer().claims(mapping.clone())).build().unwrap_err();
    let faults: Vec<_> =
        error.faults().iter().map(|fault| format!("{} {}", fault.field, fault.problem)).collect();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(faults[0].starts_with("issuers[0].claims.roles entry 2: write a claim's name"));
    assert!(faults[1].starts_with("issuers[0].claims.tenant_id entry 1: write a claim's name"));
    assert!(faults[2].starts_with("issuers[0].claims.service_account entry 2: write `claim`"));
    // With an invalid mapping, no identity is read from the claims of another validator.
    let claims = json!({ "iss": "https://keys.example", "sub": "robot", "exp": 1 });
    let read =
        |mapping: &ClaimsMapping| Identity::from_claims(&claims, mapping, Provenance::Verified);
    assert!(read(&ClaimsMapping::default()).is_ok());
    assert!(matches!(read(&mapping).unwrap_err(), InvalidToken::Malformed(_)));
}

#[test]
fn variables_and_files_map_claims() {
    let config = |name: &str, value: &str| {
        let vars = [("P_ISSUER", "https://id.example"), ("P_AUDIENCE", "docs"), (name, value)];
        AuthConfig::from_vars("P", vars.map(|(name, value)| (name.to_owned(), value.to_owned())))
    };
    let code = ClaimTest::contains("amr", "pwd").and(ClaimTest::contains("amr", "otp"));
    let tests = [ClaimTest::equals("acr", "gold"), code];
    for (name, value, expected) in [
        ("P_SUBJECT_CLAIM", "oid", ClaimsMapping::default().subject(["oid"])),
        ("P_CLIENT_ID_CLAIM", "azp, appid", ClaimsMapping::default().client_id(["azp", "appid"])),
        (
            "P_SERVICE_ACCOUNT_IF",
            "acr=gold amr*=pwd+amr*=otp",
            ClaimsMapping::default().service_account(tests.clone()),
        ),
        ("P_MFA_IF", "acr=gold, amr*=pwd+amr*=otp", ClaimsMapping::default().mfa(tests)),
    ] {
        assert_eq!(config(name, value).issuers[0].claims, expected, "{name}");
        assert_eq!(mapping(serde_json::to_value(&expected).unwrap()), expected, "in files");
    }
    for (name, value) in [
        // A space in the wrong place must not turn a password into multi-factor authentication.
        ("P_MFA_IF", "amr*=pwd + amr*=otp"),
        ("P_MFA_IF", "amr*=pwd +amr*=otp"),
        ("P_SERVICE_ACCOUNT_IF", "idtyp="),
        ("P_SUBJECT_CLAIM", "/~"),
        ("P_IDENTITY_KIND", "robot"),
    ] {
        let error = Auth::from_config(config(name, value)).build().unwrap_err();
        assert_eq!(error.faults()[0].field, name, "{value}");
        assert!(!error.to_string().contains("idtyp"), "{error}");
    }
}

#[tokio::test]
async fn client_credentials_token_is_service_account() {
    let world = World::new().await;
    for (token, kind) in [
        (world.provider.service_token("indexer"), IdentityKind::ServiceAccount),
        (world.provider.token().claim("azp", "alice-id"), IdentityKind::ServiceAccount),
        (world.provider.token().claim("client_id", "alice-id"), IdentityKind::ServiceAccount),
        (world.provider.token().claim("client_id", "web"), IdentityKind::User),
        (world.provider.token().claim("token_type", "Bearer"), IdentityKind::User),
    ] {
        assert_eq!(identity(world.auth(), token).await.kind(), kind);
    }
    let issuer = world.issuer().claims(mapping(json!({ "kind": "workload" })));
    let token = world.provider.service_token("indexer");
    assert_eq!(identity(world.auth_with(issuer), token).await.kind(), IdentityKind::Workload);
}

#[tokio::test]
async fn missing_subject_requires_legacy_setting() {
    let world = World::new().await;
    let old = || world.provider.service_token("indexer").without("sub");
    let missing = refusal(world.auth(), old()).await;
    assert!(matches!(missing, AuthError::InvalidToken(InvalidToken::MissingClaim("sub"))));
    let mut issuer = world.issuer();
    issuer.legacy_service_tokens = true;
    let identity = identity(world.auth_with(issuer.clone()), old()).await;
    assert_eq!((identity.subject(), identity.kind()), ("indexer", IdentityKind::ServiceAccount));
    // The setting applies to client credentials only.
    let user = world.provider.token().without("sub").claim("client_id", "web");
    assert!(matches!(refusal(world.auth_with(issuer), user).await, AuthError::InvalidToken(_)));
}

#[tokio::test]
async fn display_claims_are_optional() {
    let world = World::new().await;
    let token = world
        .provider
        .token()
        .claim("name", "Alice A.")
        .claim("email_verified", true)
        .claim("partner_id", "p-1")
        .claim("client_id", "web");
    let identity = identity(world.auth(), token).await;
    assert_eq!(identity.display_name(), Some("Alice A."));
    assert!(identity.email_verified());
    assert_eq!((identity.partner_id(), identity.client_id()), (Some("p-1"), Some("web")));
    // A string is not accepted as a boolean.
    let token = world.provider.token().claim("email_verified", "true");
    assert!(!self::identity(world.auth(), token).await.email_verified());
}

#[tokio::test]
async fn verified_address_is_the_claim_email() {
    let world = World::new().await;
    let mapping = ClaimsMapping::default().email(["/user_metadata/mail", "email"]);
    let token = || world.provider.token().claim("email_verified", true).email("m@x.example");
    for (token, expected) in [
        (token(), (Some("m@x.example"), true)),
        (
            token().claim("user_metadata", json!({ "mail": "ceo@v.example" })),
            (Some("ceo@v.example"), false),
        ),
        (
            token().claim("user_metadata", json!({ "mail": "m@x.example" })),
            (Some("m@x.example"), false),
        ),
        (token().claim("user_metadata", json!({ "mail": 7 })), (None, false)),
        (token().claim("email", 7), (None, false)),
        (token().without("email"), (None, false)),
    ] {
        let issuer = world.issuer().claims(mapping.clone());
        let identity = identity(world.auth_with(issuer), token).await;
        assert_eq!((identity.email(), identity.email_verified()), expected);
    }
}

#[tokio::test]
async fn insecure_decode_claims_reads_any_token() {
    let world = World::new().await;
    let token = world.provider.token().expired().issuer("https://unknown.example").sign();
    let claims: Value = insecure_decode_claims(&format!("{token}AAAA")).unwrap();
    assert_eq!(claims["iss"], "https://unknown.example");
    for text in ["", "x", "a.b", "a.b.c", "a.e30=.c", "a.W10.c.d"] {
        assert!(insecure_decode_claims::<Value>(text).is_err(), "{text}");
    }
}

fn cases(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// Any JSON. Its names are those that have a meaning in claims, and others.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_000_000_000_i64..9_000_000_000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c ]{0,3}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let name = prop_oneof!["value|method|timestamp|sub|iss|act", "[a-c\"é]{0,2}"];
        let members = vec((name, inner.clone()), 0..4);
        prop_oneof![
            vec(inner, 0..4).prop_map(Value::from),
            members.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Returns whether `text` is a string, a part of one, or the name of a member, at any depth.
fn occurs(value: &Value, text: &str) -> bool {
    match value {
        Value::String(own) => own == text || own.split(' ').any(|part| part == text),
        Value::Array(items) => items.iter().any(|item| occurs(item, text)),
        Value::Object(members) => {
            members.iter().any(|(name, member)| name == text || occurs(member, text))
        }
        _ => false,
    }
}

/// Checks that the identity has no right that the claims do not state.
fn check_rights(claims: &Value) -> Result<(), TestCaseError> {
    let tests = |tests: [&str; 2]| tests.map(|test| test.parse().unwrap());
    let mapping = ClaimsMapping::default()
        .mfa(tests(["amr*=a", "/amr/0/method=b+acr"]))
        .service_account(tests(["acr^=a", "amr"]));
    let read = Identity::from_claims(claims, &mapping, Provenance::Verified);
    let Ok(identity) = read else { return Ok(()) };
    prop_assert_eq!(&claims["sub"], identity.subject());
    let has_role = |role: &str| ["roles", "role"].iter().any(|name| occurs(&claims[name], role));
    prop_assert!(identity.roles().all(has_role), "{}", claims);
    prop_assert!(identity.groups().all(|group| occurs(&claims["groups"], group)), "{}", claims);
    prop_assert!(identity.scopes().iter().all(|scope| occurs(&claims["scope"], scope)));
    prop_assert_eq!(identity.tenant_id().map(|id| id.as_str()), claims["tenant_id"].as_str());
    prop_assert_eq!(identity.actor().is_some(), !claims["act"].is_null());
    if let Some(time) = identity.mfa_verified_at() {
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let items = claims["amr"].as_array().into_iter().flatten();
        // The methods may also be the members of an object.
        let methods = items.chain(claims["amr"].as_object().into_iter().flat_map(|it| it.values()));
        let mut times = methods.map(|method| &method["timestamp"]).chain([&claims["auth_time"]]);
        let is_stated = times.any(|time| time.as_f64().is_some_and(|it| it as u64 == seconds));
        prop_assert!(is_stated, "{}", claims);
    }
    Ok(())
}

#[test]
fn any_claims_never_add_a_right() {
    const NAMES: [&str; 12] = [
        "sub",
        "client_id",
        "tenant_id",
        "scope",
        "roles",
        "role",
        "groups",
        "amr",
        "acr",
        "auth_time",
        "act",
        "email",
    ];
    let base = || json!({ "iss": "https://id.example", "sub": "s", "exp": 4_000_000_000_u64 });
    let mut object = base();
    object["amr"] = json!({ "a": { "timestamp": -0.0 } });
    check_rights(&object).unwrap();
    let claims = vec((0..NAMES.len(), json_value()), 0..8);
    proptest!(cases(4096), |(drawn in claims)| {
        let mut claims = base();
        for (nth, value) in drawn {
            claims[NAMES[nth]] = value;
        }
        check_rights(&claims)?;
    });
}

/// Compares with the rules for ScaiKey's tokens in their plainest form.
#[test]
fn well_formed_scaikey_token_is_read_completely() {
    let id = || "[a-d]{1,2}";
    let names = || vec("[a-d]{1,2}", 0..4);
    let of_client = (id(), option::of(id()), option::of(id()), any::<bool>());
    let of_rights = (names(), names(), names());
    let of_sign_in = (
        option::of(0..2_000_000_000_u32),
        option::of(id()),
        vec(prop_oneof!["pwd", "otp", "mfa"], 0..3),
    );
    proptest!(cases(1024), |(
        (sub, client, tenant, is_grant) in of_client,
        (roles, groups, scopes) in of_rights,
        (auth_time, actor, amr) in of_sign_in,
    )| {
        let claims = json!({
            "iss": "https://scaikey.example", "exp": 4_000_000_000_u64, "sub": sub,
            "client_id": client, "tenant_id": tenant, "roles": roles, "groups": groups,
            "token_type": if is_grant { "client_credentials" } else { "Bearer" },
            "scope": scopes.join(" "), "auth_time": auth_time, "amr": amr,
            "act": actor.as_ref().map(|actor| json!({ "sub": actor })),
        });
        let read = Identity::from_claims(&claims, &ClaimsMapping::default(), Provenance::Verified);
        let identity = read.unwrap();
        let is_service = is_grant || client.as_ref() == Some(&sub);
        let kind = if is_service { IdentityKind::ServiceAccount } else { IdentityKind::User };
        prop_assert_eq!((identity.subject(), identity.kind()), (sub.as_str(), kind));
        prop_assert_eq!(identity.client_id(), client.as_deref());
        prop_assert_eq!(identity.tenant_id().map(|id| id.as_str()), tenant.as_deref());
        prop_assert!(identity.roles().eq(distinct(&roles)));
        prop_assert!(identity.groups().eq(distinct(&groups)));
        prop_assert!(identity.scopes().iter().eq(distinct(&scopes)));
        prop_assert_eq!(identity.actor().and_then(|it| it.subject.as_deref()), actor.as_deref());
        let has_mfa = amr.iter().any(|method| method == "mfa");
        let time = auth_time.filter(|_| has_mfa).map(|time| at(time.into()));
        prop_assert_eq!(identity.mfa_verified_at(), time);
    });
}

fn distinct(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().enumerate().filter(|(nth, name)| !names[..*nth].contains(name)).map(|(_, it)| it)
}
