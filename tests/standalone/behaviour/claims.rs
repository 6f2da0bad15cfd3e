//! Reading identities from the claims of ScaiKey and of other providers.

use std::time::{Duration, SystemTime};

use scaikey_auth::error::InvalidToken;
use scaikey_auth::identity::{ClaimsMapping, IdentityKind, Provenance};
use scaikey_auth::testing::TokenBuilder;
use scaikey_auth::validator::insecure_decode_claims;
use scaikey_auth::{AuthBuilder, AuthError, Identity};
use serde_json::{Value, json};

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
    for (name, _) in claims {
        let absent = identity(world.auth(), token().claim(name, Value::Null)).await;
        assert_eq!((absent.session_id(), absent.token_id(), absent.acr()), (None, None, None));
        for wrong in [json!(1), json!(["x"]), json!({ "x": 1 }), json!(true)] {
            let refusal = refusal(world.auth(), token().claim(name, wrong)).await;
            let malformed = InvalidToken::MalformedClaim(name);
            assert!(
                matches!(refusal, AuthError::InvalidToken(kind) if kind == malformed),
                "{name}"
            );
        }
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
    for odd in [json!("support"), json!([]), json!({ "sub": 7 }), json!({ "act": "x" })] {
        let token = world.provider.token().claim("act", odd.clone());
        assert!(matches!(refusal(world.auth(), token).await, AuthError::InvalidToken(_)), "{odd}");
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
async fn insecure_decode_claims_reads_any_token() {
    let world = World::new().await;
    let token = world.provider.token().expired().issuer("https://unknown.example").sign();
    let claims: Value = insecure_decode_claims(&format!("{token}AAAA")).unwrap();
    assert_eq!(claims["iss"], "https://unknown.example");
    for text in ["", "x", "a.b", "a.b.c", "a.e30=.c", "a.W10.c.d"] {
        assert!(insecure_decode_claims::<Value>(text).is_err(), "{text}");
    }
}
