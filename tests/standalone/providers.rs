//! The presets for well-known providers: tokens with the documented claims pass and are mapped, similar tokens are
//! refused, and the snippets of the manual are valid configurations.

use std::time::Duration;
use std::{fs, slice};

use scaikey_auth::config::{Algorithm, ENVIRONMENT};
use scaikey_auth::identity::{ClaimTest, IdentityKind};
use scaikey_auth::testing::{SigningKey, TestIssuer};
use scaikey_auth::{Auth, AuthConfig, AuthError, Identity, IssuerConfig, TenantId};
use serde_json::{Map, Value, json};

use crate::support::World;
use crate::support::files::File;

const ENTRA_TENANT: &str = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490";
const OTHER_TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const SERVICE: &str = "6e74172b-be56-4843-9ff4-e66a39bb12e3";

/// The tokens of one preset.
struct Case {
    preset: IssuerConfig,
    audience: &'static str,
    /// The claims of a user's token, and the identity that they are.
    user: Value,
    is_user: Expected,
    /// Changes that make it a token of a service account.
    service: Option<(Value, Expected)>,
    /// Changes that make it another token that passes.
    others: Vec<(Value, Expected)>,
    /// Changes for which the token is refused, with the reason.
    refused: Vec<(Value, &'static str)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Expected {
    subject: &'static str,
    tenant: Option<&'static str>,
    client: Option<&'static str>,
    roles: &'static [&'static str],
    groups: &'static [&'static str],
    scopes: &'static str,
    is_mfa: bool,
}

fn keycloak() -> Case {
    let is_user = Expected {
        subject: "7a1f9c52-0d3e-4b8a-9f61-2c5d8e7b4a10",
        tenant: None,
        client: Some("web"),
        roles: &["editor", "offline_access"],
        groups: &["/staff"],
        scopes: "openid email profile",
        is_mfa: false,
    };
    Case {
        preset: IssuerConfig::keycloak("https://keycloak.example/realms/main"),
        audience: "docs",
        user: json!({
            "iss": "https://keycloak.example/realms/main", "aud": ["docs", "account"],
            "sub": is_user.subject, "typ": "Bearer", "azp": "web", "acr": "1",
            "sid": "2c5d8e7b", "jti": "onrtac:1", "allowed-origins": ["https://web.example"],
            "realm_access": { "roles": ["editor", "offline_access"] },
            "resource_access": { "account": { "roles": ["manage-account"] } },
            "scope": "openid email profile", "email_verified": true, "groups": ["/staff"],
            "name": "Alice Doe", "preferred_username": "alice", "email": "alice@example.com",
        }),
        is_user,
        service: Some((
            json!({
                "azp": "batch", "client_id": "batch", "clientHost": "10.0.0.1", "sid": null,
                "preferred_username": "service-account-batch", "groups": null,
            }),
            Expected { client: Some("batch"), groups: &[], ..is_user },
        )),
        others: vec![
            (json!({ "tenant_id": "acme" }), Expected { tenant: Some("acme"), ..is_user }),
            // Users may choose such a name, and edit such an attribute.
            (json!({ "preferred_username": "service-account-x", "partner_id": 7 }), is_user),
        ],
        refused: vec![
            (json!({ "aud": "account" }), "token_audience"),
            (json!({ "aud": null }), "token_claim_missing"),
            (json!({ "iss": "https://keycloak.example/realms/other" }), "token_issuer"),
            (json!({ "iss": "https://keycloak.example/realms/main/" }), "token_issuer"),
            (json!({ "typ": "ID", "aud": "docs" }), "token_type"),
            (json!({ "typ": "Refresh" }), "token_type"),
        ],
    }
}

fn entra() -> Case {
    let is_user = Expected {
        subject: "690222be-ff1a-4d56-abd1-7e4f7d38e474",
        tenant: Some(ENTRA_TENANT),
        client: Some("5a1c7a3e-7a52-4a8f-9d3b-0b3f8e7d9a11"),
        roles: &["Docs.Admin"],
        groups: &["0c3f2a57-5b0e-4c5c-8a8f-1d7c9d0f6a01"],
        scopes: "access_as_user",
        is_mfa: false,
    };
    let as_service = json!({
        "scp": null, "groups": null, "name": null, "preferred_username": null,
        "idtyp": "app", "roles": ["Docs.Read.All"], "azpacr": "1",
        "oid": "11f0a1d2-3f4e-4b5c-9c6d-7e8f9a0b1c2d", "sub": "11f0a1d2-3f4e-4b5c-9c6d-7e8f9a0b1c2d",
    });
    let is_service = Expected {
        subject: "11f0a1d2-3f4e-4b5c-9c6d-7e8f9a0b1c2d",
        roles: &["Docs.Read.All"],
        groups: &[],
        scopes: "",
        ..is_user
    };
    Case {
        preset: IssuerConfig::entra(ENTRA_TENANT),
        audience: SERVICE,
        user: json!({
            "iss": format!("https://login.microsoftonline.com/{ENTRA_TENANT}/v2.0"), "aud": SERVICE,
            "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ", "oid": is_user.subject,
            "tid": ENTRA_TENANT, "azp": "5a1c7a3e-7a52-4a8f-9d3b-0b3f8e7d9a11", "azpacr": "0",
            "scp": "access_as_user", "roles": ["Docs.Admin"], "ver": "2.0", "uti": "fqiBqXLPj0eQ",
            "groups": ["0c3f2a57-5b0e-4c5c-8a8f-1d7c9d0f6a01"], "aio": "AXQAi", "rh": "I",
            "name": "Abe Lincoln", "preferred_username": "abeli@example.com",
        }),
        is_user,
        service: Some((as_service, is_service)),
        others: vec![],
        refused: vec![
            (json!({ "aud": "00000003-0000-0000-c000-000000000000" }), "token_audience"),
            (json!({ "iss": format!("https://sts.windows.net/{ENTRA_TENANT}/") }), "token_issuer"),
            (
                json!({ "iss": format!("https://login.microsoftonline.com/{OTHER_TENANT}/v2.0") }),
                "token_issuer",
            ),
            (json!({ "tid": OTHER_TENANT }), "token_issuer_tenant"),
            (json!({ "tid": null }), "token_issuer_tenant"),
            (json!({ "oid": null }), "token_claim_missing"),
            (json!({ "scp": null, "nonce": "n" }), "token_type"),
            // As in an ID token.
            (json!({ "scp": null, "azp": null }), "token_type"),
        ],
    }
}

fn entra_v1() -> Case {
    let is_user = entra().is_user;
    let is_user = Expected { scopes: "user_impersonation", groups: &[], is_mfa: false, ..is_user };
    Case {
        preset: IssuerConfig::entra(format!("https://sts.windows.net/{ENTRA_TENANT}/")),
        audience: "api://docs",
        user: json!({
            "iss": format!("https://sts.windows.net/{ENTRA_TENANT}/"), "aud": "api://docs",
            "sub": "l3_roISQU222bULS9yi2k0XpqpOiMz5H3ZACo1GeXA", "oid": is_user.subject,
            "tid": ENTRA_TENANT, "appid": is_user.client, "appidacr": "0", "acr": "1",
            "amr": ["pwd"], "scp": "user_impersonation", "roles": ["Docs.Admin"],
            "unique_name": "abeli@example.com", "ver": "1.0",
        }),
        is_user,
        // Without the optional claim `idtyp`.
        service: Some((json!({ "scp": null }), Expected { scopes: "", ..is_user })),
        others: vec![],
        refused: vec![(
            json!({ "iss": format!("https://login.microsoftonline.com/{ENTRA_TENANT}/v2.0") }),
            "token_issuer",
        )],
    }
}

fn entra_multi_tenant() -> Case {
    let tenants = [ENTRA_TENANT, OTHER_TENANT].map(|id| TenantId::new(id).unwrap());
    let mut case = entra();
    let v2 = |tenant| format!("https://login.microsoftonline.com/{tenant}/v2.0");
    case.preset = IssuerConfig::entra_multi_tenant().tenants(tenants);
    case.others = vec![(
        json!({ "tid": OTHER_TENANT, "iss": v2(OTHER_TENANT) }),
        Expected { tenant: Some(OTHER_TENANT), ..case.is_user },
    )];
    let stranger = "9188040d-6c67-4c5b-b112-36a304b66dad";
    case.refused = vec![
        (json!({ "iss": v2(OTHER_TENANT) }), "token_issuer_tenant"),
        (json!({ "tid": null }), "token_issuer_tenant"),
        (json!({ "tid": stranger, "iss": v2(stranger) }), "token_issuer_tenant"),
        (json!({ "iss": "https://login.microsoftonline.com/common/v2.0" }), "token_issuer_tenant"),
        (json!({ "iss": format!("https://sts.windows.net/{ENTRA_TENANT}/") }), "token_issuer"),
    ];
    case
}

fn auth0() -> Case {
    let is_user = Expected {
        subject: "auth0|6553da60a54af58e29493993",
        tenant: Some("org_9ybsU1dN2dKfDkBi"),
        client: Some("K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja"),
        roles: &["read:docs", "write:docs"],
        scopes: "openid profile read:docs",
        ..Expected::default()
    };
    let is_service = Expected {
        subject: "awZfdIir8YFdGZWkvCejDoUb7SjTDicx@clients",
        client: Some("awZfdIir8YFdGZWkvCejDoUb7SjTDicx"),
        scopes: "read:docs",
        roles: &["read:docs"],
        ..is_user
    };
    let as_service = json!({
        "sub": is_service.subject, "azp": is_service.client, "gty": "client-credentials",
        "aud": "https://docs.example", "scope": "read:docs", "permissions": ["read:docs"],
    });
    Case {
        preset: IssuerConfig::auth0("example.eu.auth0.com"),
        audience: "https://docs.example",
        user: json!({
            "iss": "https://example.eu.auth0.com/", "sub": is_user.subject,
            "aud": ["https://docs.example", "https://example.eu.auth0.com/userinfo"],
            "azp": is_user.client, "scope": "openid profile read:docs",
            "org_id": is_user.tenant, "permissions": ["read:docs", "write:docs"],
        }),
        is_user,
        service: Some((as_service, is_service)),
        others: vec![(
            json!({ "azp": null, "client_id": is_user.client, "jti": "73WakrfVbNJB" }),
            is_user,
        )],
        refused: vec![
            (json!({ "aud": "https://example.eu.auth0.com/userinfo" }), "token_audience"),
            (json!({ "aud": "https://other.example" }), "token_audience"),
            (json!({ "iss": "https://example.eu.auth0.com" }), "token_issuer"),
            (json!({ "iss": "https://other.eu.auth0.com/" }), "token_issuer"),
            (json!({ "aud": "https://docs.example", "scope": null, "nonce": "n" }), "token_type"),
        ],
    }
}

fn okta() -> Case {
    let is_user = Expected {
        subject: "00ujmkLgagxeRrAg20g3",
        client: Some("nmdP1fcyvdVO11AL7ECm"),
        groups: &["Everyone"],
        scopes: "openid docs",
        ..Expected::default()
    };
    let is_service = Expected {
        subject: "0oa5example",
        client: Some("0oa5example"),
        groups: &[],
        scopes: "docs",
        ..is_user
    };
    Case {
        preset: IssuerConfig::okta("https://example.okta.com/oauth2/default"),
        audience: "api://default",
        user: json!({
            "ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
            "iss": "https://example.okta.com/oauth2/default", "aud": "api://default",
            "sub": "alice@example.com", "uid": is_user.subject, "cid": is_user.client,
            "scp": ["openid", "docs"], "auth_time": 1_467_142_021, "groups": ["Everyone"],
        }),
        is_user,
        service: Some((
            json!({
                "sub": "0oa5example", "cid": "0oa5example", "uid": null, "groups": null,
                "scp": ["docs"], "auth_time": null,
            }),
            is_service,
        )),
        others: vec![(
            json!({ "tenant_id": "acme" }),
            Expected { tenant: Some("acme"), ..is_user },
        )],
        refused: vec![
            (json!({ "iss": "https://example.okta.com" }), "token_issuer"),
            (json!({ "aud": "https://example.okta.com" }), "token_audience"),
            (json!({ "at_hash": "x" }), "token_type"),
        ],
    }
}

fn cognito() -> Case {
    let is_user = Expected {
        subject: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        client: Some("57cbishk4j24pabc1234567890"),
        groups: &["admin"],
        scopes: "docs/read",
        ..Expected::default()
    };
    let client = "57cbishk4j24pabc1234567890";
    Case {
        preset: IssuerConfig::cognito("eu-west-1", "eu-west-1_AbCdEf123"),
        audience: client,
        user: json!({
            "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123",
            "sub": is_user.subject, "client_id": client, "token_use": "access",
            "cognito:groups": ["admin"], "scope": "docs/read", "auth_time": 1_562_190_524,
            "origin_jti": "aaaa", "jti": "bbbb", "username": "janedoe@example.com",
        }),
        is_user,
        service: Some((
            json!({
                "sub": client, "cognito:groups": null, "username": null, "version": 2,
                "origin_jti": null,
            }),
            Expected { subject: client, groups: &[], ..is_user },
        )),
        others: vec![],
        refused: vec![
            (json!({ "client_id": "another-client" }), "token_audience"),
            // A token for a resource names it in `aud`, and then only that counts.
            (json!({ "aud": "https://other.example" }), "token_audience"),
            (json!({ "client_id": null }), "token_claim_missing"),
            (json!({ "token_use": null }), "token_type"),
            (json!({ "token_use": "id", "aud": client, "client_id": null }), "token_type"),
            (
                json!({ "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Other" }),
                "token_issuer",
            ),
        ],
    }
}

fn google() -> Case {
    let client = "1234987819200.apps.googleusercontent.com";
    let is_user = Expected {
        subject: "10769150350006150715113082367",
        tenant: Some("example.com"),
        client: Some(client),
        ..Expected::default()
    };
    let robot = "107517467455664443765";
    Case {
        preset: IssuerConfig::google(),
        audience: client,
        user: json!({
            "iss": "https://accounts.google.com", "azp": client, "aud": client,
            "sub": is_user.subject, "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q", "hd": "example.com",
            "email": "jsmith@example.com", "email_verified": true, "nonce": "0394852-3190485",
        }),
        is_user,
        service: Some((
            json!({ "sub": robot, "azp": robot, "at_hash": null, "nonce": null,
                    "email": "robot@example.iam.gserviceaccount.com", "hd": null }),
            Expected { subject: robot, client: Some(robot), tenant: None, ..is_user },
        )),
        others: vec![],
        refused: vec![
            (json!({ "hd": null }), "tenant_missing"),
            (json!({ "aud": "another-client" }), "token_audience"),
            (json!({ "iss": "accounts.google.com" }), "token_issuer"),
        ],
    }
}

fn zitadel() -> Case {
    let is_user = Expected {
        subject: "77776025198584418",
        tenant: Some("201982826478953724"),
        client: Some("69234237810729234"),
        roles: &["admin", "reader"],
        ..Expected::default()
    };
    Case {
        preset: IssuerConfig::zitadel("https://example.eu1.zitadel.cloud"),
        audience: "69234237810729019",
        user: json!({
            "iss": "https://example.eu1.zitadel.cloud", "sub": is_user.subject,
            "aud": ["69234237810729234", "69234237810729019"], "azp": is_user.client,
            "jti": "69234237813329048", "nbf": 1_311_280_970,
            "urn:zitadel:iam:user:resourceowner:id": is_user.tenant,
            "urn:zitadel:iam:user:resourceowner:name": "ACME",
            "urn:zitadel:iam:org:project:roles": {
                "admin": { "201982826478953724": "acme.ch" },
                "reader": { "201982826478953724": "acme.ch" },
            },
        }),
        is_user,
        service: None,
        others: vec![],
        refused: vec![
            (json!({ "aud": ["69234237810729234"] }), "token_audience"),
            (json!({ "urn:zitadel:iam:user:resourceowner:id": null }), "tenant_missing"),
            (json!({ "iss": "https://other.eu1.zitadel.cloud" }), "token_issuer"),
            (json!({ "at_hash": "x" }), "token_type"),
        ],
    }
}

fn supabase() -> Case {
    let is_user = Expected {
        subject: "123e4567-e89b-12d3-a456-426614174000",
        tenant: Some("acme"),
        roles: &["editor", "authenticated"],
        ..Expected::default()
    };
    let with_code = json!({
        "aal": "aal2",
        "amr": [{ "method": "totp", "timestamp": 1_640_991_700 },
                { "method": "password", "timestamp": 1_640_991_600 }],
    });
    Case {
        preset: IssuerConfig::supabase("https://example.supabase.co"),
        audience: "authenticated",
        user: json!({
            "iss": "https://example.supabase.co/auth/v1", "aud": "authenticated",
            "sub": is_user.subject, "role": "authenticated", "aal": "aal1",
            "amr": [{ "method": "password", "timestamp": 1_640_991_600 }],
            "session_id": "5b1c7a3e", "email": "user@example.com", "phone": "",
            "app_metadata": { "provider": "email", "tenant_id": "acme", "roles": ["editor"] },
            "user_metadata": { "name": "John Doe", "tenant_id": "evil", "roles": ["admin"] },
            "is_anonymous": false,
        }),
        is_user,
        service: None,
        others: vec![(with_code, Expected { is_mfa: true, ..is_user })],
        refused: vec![
            (json!({ "aud": "anon" }), "token_audience"),
            (json!({ "iss": "supabase" }), "token_issuer"),
            (json!({ "iss": "https://example.supabase.co" }), "token_issuer"),
            (json!({ "app_metadata": { "provider": "email" } }), "tenant_missing"),
        ],
    }
}

fn clerk() -> Case {
    let is_user = Expected {
        subject: "user_2abc",
        tenant: Some("org_2def"),
        roles: &["admin"],
        ..Expected::default()
    };
    Case {
        preset: IssuerConfig::clerk("https://clerk.example.com"),
        audience: "https://example.com",
        user: json!({
            "iss": "https://clerk.example.com", "azp": "https://example.com", "sub": "user_2abc",
            "sid": "sess_2ghi", "jti": "1234567890", "nbf": 1_713_158_400, "fva": [7, -1], "v": 2,
            "o": { "id": "org_2def", "slg": "acme", "rol": "admin", "per": "read,manage" },
            "pla": "u:free,o:pro", "fea": "o:dashboard",
        }),
        is_user,
        // With an audience, which machine tokens have only if the service asks for it.
        service: Some((
            json!({ "sub": "mch_2jkl", "aud": "https://example.com", "azp": null, "sid": null }),
            Expected { subject: "mch_2jkl", ..is_user },
        )),
        others: vec![(
            json!({ "v": null, "o": null, "org_id": "org_2def", "org_role": "org:admin" }),
            Expected { roles: &["org:admin"], ..is_user },
        )],
        refused: vec![
            (json!({ "azp": "https://evil.example" }), "token_audience"),
            (json!({ "azp": null }), "token_claim_missing"),
            // A token from a template for another service names it in `aud`.
            (json!({ "aud": "hasura" }), "token_audience"),
            (json!({ "o": null, "sts": "pending" }), "tenant_missing"),
            (
                json!({ "sub": "mch_2jkl", "azp": null, "scopes": ["mch_2abc"] }),
                "token_claim_missing",
            ),
            (json!({ "iss": "https://clerk.other.example" }), "token_issuer"),
        ],
    }
}

fn cases() -> [Case; 11] {
    [
        keycloak(),
        entra(),
        entra_v1(),
        entra_multi_tenant(),
        auth0(),
        okta(),
        cognito(),
        google(),
        zitadel(),
        supabase(),
        clerk(),
    ]
}

impl Case {
    /// Returns the service that accepts tokens with this key, whether or not they name a tenant.
    fn auth(&self, key: &SigningKey, tenant_required: bool) -> Auth {
        let mut issuer = self.preset.clone().keys(&key.public_pem());
        issuer.jwks_uri = None;
        let builder = Auth::builder().verified_tokens_bytes(0).issuer(issuer);
        let builder = builder.audience(self.audience);
        if tenant_required { builder } else { builder.tenant_optional() }.build().unwrap()
    }

    /// Returns a token with the claims of the user, changed; `null` removes a claim.
    fn token(&self, key: &SigningKey, changes: &Value) -> String {
        let mut claims: Map<_, _> = self.user.as_object().unwrap().clone();
        claims.insert("exp".to_owned(), 4_000_000_000_u64.into());
        claims.insert("iat".to_owned(), 1_700_000_000.into());
        claims.extend(changes.as_object().unwrap().clone());
        claims.retain(|_, value| !value.is_null());
        let header = json!({ "alg": key.algorithm(), "kid": key.kid(), "typ": "JWT" });
        key.token(header.to_string(), Value::Object(claims).to_string())
    }

    async fn identity(&self, key: &SigningKey, changes: &Value) -> Result<Identity, AuthError> {
        let auth = self.auth(key, false);
        let context = auth.authenticate(&self.token(key, changes)).await?;
        Ok(context.identity().clone())
    }
}

fn assert_identity(identity: &Identity, kind: IdentityKind, expected: Expected) {
    let (roles, groups): (Vec<_>, Vec<_>) =
        (identity.roles().collect(), identity.groups().collect());
    let found = Expected {
        subject: expected.subject,
        tenant: expected.tenant,
        client: expected.client,
        roles: if roles == expected.roles { expected.roles } else { &["other roles"] },
        groups: if groups == expected.groups { expected.groups } else { &["other groups"] },
        scopes: expected.scopes,
        is_mfa: identity.mfa_verified_at().is_some(),
    };
    assert_eq!(found, expected, "{identity:?} {roles:?} {groups:?}");
    assert_eq!(identity.subject(), expected.subject);
    assert_eq!(identity.tenant_id().map(TenantId::as_str), expected.tenant);
    assert_eq!(identity.client_id(), expected.client, "{identity:?}");
    assert_eq!(identity.scopes().as_str(), expected.scopes);
    assert_eq!(identity.kind(), kind, "{identity:?}");
}

#[tokio::test]
async fn documented_tokens_are_mapped() {
    let key = SigningKey::generate(Algorithm::ES256);
    for case in cases() {
        let user = case.identity(&key, &json!({})).await.unwrap();
        assert_identity(&user, IdentityKind::User, case.is_user);
        for (changes, expected) in &case.others {
            let other = case.identity(&key, changes).await.unwrap();
            assert_identity(&other, IdentityKind::User, *expected);
        }
        if let Some((changes, expected)) = &case.service {
            let service = case.identity(&key, changes).await.unwrap();
            assert_identity(&service, IdentityKind::ServiceAccount, *expected);
        }
    }
}

#[tokio::test]
async fn similar_tokens_are_refused() {
    let key = SigningKey::generate(Algorithm::ES256);
    for case in cases() {
        let auth = case.auth(&key, true);
        for (changes, reason) in &case.refused {
            let token = case.token(&key, changes);
            let error =
                auth.authenticate(&token).await.map(|it| it.identity().clone()).unwrap_err();
            assert_eq!(error.reason(), *reason, "{} {changes}", case.preset.issuer);
        }
        let stranger = SigningKey::with_kid(Algorithm::ES256, key.kid());
        let error = auth.authenticate(&case.token(&stranger, &json!({}))).await.unwrap_err();
        assert_eq!(error.reason(), "token_signature", "{}", case.preset.issuer);
    }
}

/// Anyone can have a Google account, and only those of a Workspace have a domain.
#[tokio::test]
async fn listed_domains_refuse_other_google_accounts() {
    let key = SigningKey::generate(Algorithm::ES256);
    let mut case = google();
    case.preset = case.preset.tenants([TenantId::new("example.com").unwrap()]);
    assert!(case.identity(&key, &json!({})).await.is_ok());
    for domain in [Value::Null, "other.example".into()] {
        let error = case.identity(&key, &json!({ "hd": domain })).await.unwrap_err();
        assert_eq!(error.reason(), "token_issuer_tenant", "{domain}");
    }
}

/// The blocks of code of a page: the language, and the text.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fences = page.split("```").skip(1).step_by(2);
    fences.filter_map(|block| block.split_once('\n')).collect()
}

fn from_variables(text: &str) -> AuthConfig {
    let lines = text.lines().map(|line| line.split_once('=').unwrap());
    let pairs = lines.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()));
    AuthConfig::from_vars("P", pairs)
}

#[test]
fn snippets_of_the_manual_are_valid() {
    let page = fs::read_to_string("src/manual/providers.md").unwrap();
    let secret = File::new("secret", "the secret");
    let page = page.replace("/run/secrets/docs", &secret.path_text());
    let blocks = blocks(&page);
    let mut pairs = 0;
    for (nth, (language, text)) in blocks.iter().enumerate().filter(|(_, it)| it.0 == "sh") {
        let config = from_variables(text);
        assert!(config.notices().is_empty(), "{text}");
        Auth::from_config(config.clone()).build().unwrap_or_else(|error| panic!("{text}{error}"));
        let Some((_, file)) = blocks.get(nth - 1).filter(|before| before.0 == "toml") else {
            continue;
        };
        let from_file: AuthConfig = toml::from_str(file).unwrap();
        assert_eq!(from_file.issuers, config.issuers, "{language}");
        assert_eq!(from_file.audience, config.audience);
        pairs += 1;
    }
    assert_eq!(pairs, 10);
}

/// The Rust blocks of the page are tests of their own; here their issuers equal those of the files.
#[test]
fn code_on_the_page_equals_the_files() {
    let page = fs::read_to_string("src/manual/providers.md").unwrap();
    let id = |text: &str| TenantId::new(text).unwrap();
    let code = [
        (IssuerConfig::keycloak("https://keycloak.example/realms/main"), "docs"),
        (IssuerConfig::entra(ENTRA_TENANT), SERVICE),
        (IssuerConfig::entra_multi_tenant().tenants([id(ENTRA_TENANT)]), SERVICE),
        (IssuerConfig::auth0("example.eu.auth0.com"), "https://docs.example"),
        (IssuerConfig::okta("https://example.okta.com/oauth2/default"), "api://default"),
        (IssuerConfig::cognito("eu-west-1", "eu-west-1_AbCdEf123"), "57cbishk4j24pabc1234567890"),
        (
            IssuerConfig::google().tenants([id("example.com")]),
            "1234987819200.apps.googleusercontent.com",
        ),
        (IssuerConfig::zitadel("https://example.eu1.zitadel.cloud"), "69234237810729019"),
        (IssuerConfig::supabase("https://example.supabase.co"), "authenticated"),
        (IssuerConfig::clerk("https://clerk.example.com"), "https://example.com"),
    ];
    let of_language = |language: &str| {
        let blocks = blocks(&page).into_iter().filter(|it| it.0 == language);
        blocks.map(|it| it.1.to_owned()).collect::<Vec<_>>()
    };
    let (mut rust, files) = (of_language("rust"), of_language("toml"));
    // The block about variations belongs to no section.
    rust.retain(|block| block.contains("let builder = "));
    assert_eq!((rust.len(), files.len()), (code.len(), code.len()));
    for ((block, file), (issuer, audience)) in rust.iter().zip(&files).zip(code) {
        let config: AuthConfig = toml::from_str(file).unwrap();
        assert_eq!(config.issuers, slice::from_ref(&issuer), "{block}");
        assert_eq!(config.audience, [audience]);
        assert!(block.contains(&format!(".audience(\"{audience}\")")), "{block}");
        // The arguments of the code are those of the file.
        let texts = file
            .lines()
            .filter(|line| line.starts_with("issuer =") || line.starts_with("tenants ="));
        for text in texts.filter_map(|line| line.split('"').nth(1)) {
            assert!(block.contains(&format!("\"{text}\"")), "{text} {block}");
        }
    }
}

#[test]
fn variables_of_the_page_exist() {
    let page = fs::read_to_string("src/manual/providers.md").unwrap();
    let is_of_a_name = |c: char| c.is_ascii_uppercase() || c == '_';
    for word in page.split(|c| !is_of_a_name(c)).filter_map(|word| word.strip_prefix("P_")) {
        assert!(ENVIRONMENT.iter().any(|variable| variable.name == word), "P_{word}");
    }
}

#[test]
fn fields_are_laid_over_the_preset() {
    let config: AuthConfig = toml::from_str(
        r#"
        audience = ["docs"]
        [[issuers]]
        provider = "supabase"
        issuer = "a.supabase.co"
        jwks_uri = "https://keys.example"
        leeway_seconds = 5
        claims.tenant_id = ["org"]
        claims.mfa = [{ claim = "acr", equals = "gold" }]
        "#,
    )
    .unwrap();
    let expected = IssuerConfig::supabase("https://a.supabase.co")
        .jwks_uri("https://keys.example")
        .map_claims(|it| it.tenant_id(["org"]).mfa([ClaimTest::equals("acr", "gold")]))
        .leeway(Duration::from_secs(5));
    assert_eq!(config.issuers, slice::from_ref(&expected));
    // The order of the variables does not matter.
    let mut lines = [
        "P_AUDIENCE=docs",
        "P_MFA_IF=acr=gold",
        "P_TENANT_CLAIM=org",
        "P_LEEWAY_SECONDS=5",
        "P_JWKS_URI=https://keys.example",
        "P_ISSUER=a.supabase.co",
        "P_PROVIDER=supabase",
    ];
    for _ in 0..lines.len() {
        lines.rotate_left(1);
        let config = from_variables(&lines.join("\n"));
        assert_eq!(config.issuers, slice::from_ref(&expected), "{lines:?}");
    }
}

#[test]
fn toml_error_names_the_member() {
    for (line, expected) in [
        ("claims.rolez = []", "claims.rolez: unknown field `rolez`"),
        ("leeway_seconds = \"a\"", "leeway_seconds: invalid type"),
        (
            "provider = \"keyclock\"",
            "provider: unknown variant `keyclock`, expected one of `keycloak`",
        ),
    ] {
        let file = format!("audience = [\"a\"]\n[[issuers]]\nissuer = \"https://a\"\n{line}");
        let error = toml::from_str::<AuthConfig>(&file).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("line "), "{error}");
    }
}

#[test]
fn wrong_issuer_of_a_preset_is_explained() {
    let fault = |text: &str| {
        let error = Auth::from_config(from_variables(text)).build().unwrap_err();
        let faults: Vec<_> = error.faults().iter().map(|it| (*it).clone()).collect();
        assert_eq!(faults.len(), 1, "{error}");
        format!("{} {}", faults[0].field, faults[0].problem)
    };
    for (text, expected) in [
        ("P_PROVIDER=keycloak\nP_AUDIENCE=a", "P_ISSUER is missing: it must be the URL of a realm"),
        (
            "P_PROVIDER=okta\nP_ISSUER=https://a.okta.com\nP_AUDIENCE=a",
            "P_ISSUER must be the URL of a custom",
        ),
        ("P_PROVIDER=entra\nP_ISSUER=common\nP_AUDIENCE=a", "P_ISSUER must be the id of a tenant"),
        (
            "P_PROVIDER=auth1\nP_ISSUER=https://a\nP_AUDIENCE=a",
            "P_PROVIDER must be `keycloak`, `entra`",
        ),
        ("P_PROVIDER=entra_multi_tenant\nP_AUDIENCE=a", "P_TENANTS is empty"),
    ] {
        assert!(fault(text).starts_with(expected), "{}", fault(text));
    }
    let error = Auth::builder().issuer(IssuerConfig::auth0("acme")).audience("a").build();
    let error = error.unwrap_err().to_string();
    assert!(error.contains("issuers[0].issuer must be the domain, such as"), "{error}");
}

/// Keys and metadata come over a socket, as in production.
#[tokio::test]
async fn local_keycloak_is_discovered() {
    let world = World::new().await;
    let issuer = world.provider.issuer_at("/realms/main");
    let preset = IssuerConfig::keycloak(issuer.issuer()).allow_loopback_http(true);
    let auth = world.auth_with(preset.algorithms([Algorithm::ES256])).tenant_optional();
    let auth = auth.build().unwrap();
    let token = issuer.token().claim("realm_access", json!({ "roles": ["boss"] })).sign();
    let context = auth.authenticate(&token).await.unwrap();
    assert!(context.identity().roles().eq(["boss"]));
}

fn entra_token(issuer: &TestIssuer, tenant: &str) -> String {
    issuer.token().claim("tid", tenant).claim("oid", "alice-oid").claim("azp", "web").sign()
}

#[tokio::test]
async fn local_entra_is_discovered() {
    let world = World::new().await;
    let issuer = world.provider.issuer_at(&format!("/{ENTRA_TENANT}/v2.0"));
    let preset = IssuerConfig::entra(issuer.issuer()).algorithms([Algorithm::ES256]);
    let error = world.auth_with(preset.clone()).build().unwrap_err();
    assert!(error.to_string().contains("must be https"), "{error}");
    let auth = world.auth_with(preset.allow_loopback_http(true)).build().unwrap();
    let token = entra_token(&issuer, ENTRA_TENANT);
    let context = auth.authenticate(&token).await.unwrap();
    assert_eq!(context.identity().subject(), "alice-oid");
    let elsewhere = entra_token(&issuer, OTHER_TENANT);
    let error = auth.authenticate(&elsewhere).await.unwrap_err();
    assert_eq!(error.reason(), "token_issuer_tenant");
}

/// As variables, too: the issuer of this preset must be left out.
#[tokio::test]
async fn tenants_of_entra_can_be_local() {
    let world = World::new().await;
    let issuer = world.provider.issuer_at(&format!("/{ENTRA_TENANT}/v2.0"));
    let template = |url: &str| url.replace(ENTRA_TENANT, "{tenant_id}");
    let variables = [
        ("PROVIDER", "entra_multi_tenant"),
        ("EXPECTED_ISSUER", &template(&issuer.issuer())),
        ("JWKS_URI", &template(&issuer.jwks_uri())),
        ("ALLOW_LOOPBACK_HTTP", "true"),
        ("ALGORITHMS", "ES256"),
        ("TENANTS", ENTRA_TENANT),
        ("AUDIENCE", "scaiwave"),
    ];
    let pairs = variables.map(|(name, value)| (format!("P_{name}"), value.to_owned()));
    let auth = Auth::from_config(AuthConfig::from_vars("P", pairs)).build().unwrap();
    let token = entra_token(&issuer, ENTRA_TENANT);
    let context = auth.authenticate(&token).await.unwrap();
    assert_eq!(context.identity().subject(), "alice-oid");
}
