//! Presets for well-known providers: where their tokens hold what a service asks for.
//!
//! [`Provider::claims`] and [`Provider::audience_claims`] are the table of claims, and [`Provider::urls`] is the
//! table of issuers. The constructors of [`IssuerConfig`] say where each entry comes from. In files and in the
//! environment, the field `provider` selects a preset, and every other field is laid over it.

use serde::Deserialize;
use url::Url;

use super::IssuerConfig;
use super::issuer::{MISSING_ISSUER, TENANT_PLACEHOLDER};
use crate::identity::{ClaimTest, ClaimsMapping, TenantId};

/// A provider with a preset, by its name in files and in the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Provider {
    Keycloak,
    Entra,
    EntraMultiTenant,
    Auth0,
    Okta,
    Cognito,
    Google,
    Zitadel,
    Supabase,
    Clerk,
}

/// The names of the providers, for errors.
pub(super) const PROVIDERS: &str = "`keycloak`, `entra`, `entra_multi_tenant`, `auth0`, `okta`, `cognito`, `google`, `zitadel`, `supabase` or `clerk`";

/// The URLs of an issuer.
#[derive(Default)]
struct Urls {
    issuer: String,
    discovery_url: Option<String>,
    jwks_uri: Option<String>,
    /// The tenant that the issuer's URL names.
    tenant: Option<TenantId>,
}

impl Provider {
    /// Returns the claims in which the provider's access tokens state who the caller is. Claims that are not
    /// named here keep their defaults.
    fn claims(self) -> ClaimsMapping {
        // Only ScaiKey knows partners. Elsewhere, users may be able to edit a claim of this name.
        let claims = ClaimsMapping::default().partner_id([""; 0]);
        match self {
            Self::Keycloak => {
                // A user may choose such a name. The claim of the client is only in tokens of service
                // accounts; its name depends on the version.
                let service_account = |client| {
                    ClaimTest::starts_with("preferred_username", "service-account-")
                        .and(ClaimTest::is_present(client))
                };
                claims
                    .roles(["/realm_access/roles"])
                    .service_account(["client_id", "clientId"].map(service_account))
            }
            Self::Entra | Self::EntraMultiTenant => claims
                .subject(["oid"])
                .tenant_id(["tid"])
                .client_id(["azp", "appid"])
                .service_account([ClaimTest::equals("idtyp", "app")]),
            Self::Auth0 => claims.tenant_id(["org_id"]).roles(["permissions"]).service_account([
                ClaimTest::equals("gty", "client-credentials"),
                ClaimTest::ends_with("sub", "@clients"),
            ]),
            Self::Okta => claims.subject(["uid", "sub"]).client_id(["cid"]),
            Self::Cognito => claims
                .client_id(["client_id"])
                .display_name(["username"])
                .groups(["cognito:groups"]),
            Self::Google => claims.tenant_id(["hd"]).client_id(["azp"]),
            Self::Zitadel => claims
                .tenant_id(["urn:zitadel:iam:user:resourceowner:id"])
                .roles(["urn:zitadel:iam:org:project:roles"]),
            Self::Supabase => claims
                .tenant_id(["/app_metadata/tenant_id"])
                .display_name(["/user_metadata/full_name", "/user_metadata/name"])
                .roles(["/app_metadata/roles", "user_role", "role"])
                // The methods state their times; there is no `auth_time`.
                .mfa(["totp", "mfa/totp", "mfa/phone", "mfa/webauthn"].map(|method| {
                    ClaimTest::equals("aal", "aal2").and(ClaimTest::contains("amr", method))
                })),
            Self::Clerk => claims
                .tenant_id(["/o/id", "org_id"])
                .scopes(["scope"])
                .roles(["/o/rol", "org_role"])
                .client_id(["client_id"])
                .service_account([ClaimTest::starts_with("sub", "mch_")]),
        }
    }

    /// Returns the claims that name the service a token is for. The first that is present counts.
    fn audience_claims(self) -> &'static [&'static str] {
        match self {
            Self::Cognito => &["aud", "client_id"],
            Self::Clerk => &["aud", "azp"],
            _ => &["aud"],
        }
    }

    /// Returns the tests for access tokens, of which one must pass.
    pub(super) fn access_token(self) -> Vec<ClaimTest> {
        match self {
            // ID tokens name no client besides `aud`, and may have no other mark.
            Self::Entra | Self::EntraMultiTenant => {
                ["azp", "appid"].map(ClaimTest::is_present).into()
            }
            Self::Cognito => vec![ClaimTest::equals("token_use", "access")],
            _ => Vec::new(),
        }
    }

    /// Returns whether the provider signs no other tokens than ID tokens.
    fn has_only_id_tokens(self) -> bool {
        self == Self::Google
    }

    /// Returns the URLs of the issuer that `text` names, or `None` if `text` does not have the
    /// [form](Self::form) of this provider.
    fn urls(self, text: &str) -> Option<Urls> {
        let issuer = |issuer: String| Some(Urls { issuer, ..Urls::default() });
        match self {
            Self::Keycloak => {
                let url = https_url(text)?;
                let (base, realm) = url.rsplit_once("/realms/")?;
                let is_realm = !base.is_empty() && !realm.is_empty() && !realm.contains('/');
                is_realm.then_some(url).and_then(issuer)
            }
            Self::Entra => entra(text),
            Self::EntraMultiTenant => text.is_empty().then(|| Urls {
                issuer: format!("https://login.microsoftonline.com/{TENANT_PLACEHOLDER}/v2.0"),
                // One key set for all tenants. Each key in it names the issuers that it is for.
                jwks_uri: Some(
                    "https://login.microsoftonline.com/common/discovery/v2.0/keys".into(),
                ),
                ..Urls::default()
            }),
            Self::Auth0 => host_url(text).and_then(|url| issuer(format!("{url}/"))),
            Self::Okta => {
                let url = https_url(text)?;
                let (base, server) = url.rsplit_once("/oauth2/")?;
                let is_server = has_no_path(base) && !server.is_empty() && !server.contains('/');
                is_server.then_some(url).and_then(issuer)
            }
            Self::Cognito => cognito(text).and_then(issuer),
            Self::Google => {
                const GOOGLE: &str = "https://accounts.google.com";
                let is_google = text.is_empty() || https_url(text)? == GOOGLE;
                is_google.then(|| GOOGLE.to_owned()).and_then(issuer)
            }
            Self::Zitadel => host_url(text).and_then(issuer),
            Self::Supabase => {
                let url = https_url(text)?;
                let project = url.strip_suffix("/auth/v1").unwrap_or(&url);
                has_no_path(project).then(|| with_jwks(format!("{project}/auth/v1")))
            }
            Self::Clerk => host_url(text).map(with_jwks),
        }
    }

    /// Returns the form of the issuer, for the fault of an issuer without it.
    fn form(self) -> &'static str {
        match self {
            Self::Keycloak => {
                "must be the URL of a realm, such as https://keycloak.example/realms/main"
            }
            Self::Entra => {
                "must be the id of a tenant, such as 8eaef023-2b34-4da1-9baa-8bc8c9d6a490 (in the Entra admin centre: Overview, Tenant ID), or the `iss` of its tokens; for all tenants, use entra_multi_tenant"
            }
            Self::EntraMultiTenant => "must be left out: it is the same for everyone",
            Self::Auth0 => "must be the domain, such as example.eu.auth0.com",
            Self::Okta => {
                "must be the URL of a custom authorization server, such as https://example.okta.com/oauth2/default: access tokens of the org authorization server are for Okta's own API"
            }
            Self::Cognito => {
                "must be the id of a user pool, such as eu-west-1_AbCdEf123, or its URL"
            }
            Self::Google => "must be left out, or https://accounts.google.com",
            Self::Zitadel => {
                "must be the URL of the instance, such as https://example.eu1.zitadel.cloud"
            }
            Self::Supabase => "must be the URL of the project, such as https://example.supabase.co",
            Self::Clerk => "must be the Frontend API URL, such as https://clerk.example.com",
        }
    }
}

/// Returns `text` as a URL without trailing slash and without the path of a discovery document. `https://` is
/// added to a text without scheme. Returns `None` if `text` is not the URL of an issuer.
fn https_url(text: &str) -> Option<String> {
    const DISCOVERY: &str = "/.well-known/openid-configuration";
    let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = url.strip_suffix(DISCOVERY).unwrap_or(&url).trim_end_matches('/');
    let parsed = Url::parse(url).ok()?;
    let is_plain = parsed.has_host() && parsed.query().is_none() && parsed.fragment().is_none();
    is_plain.then(|| url.to_owned())
}

/// Returns `text` as a URL without path. A text without scheme must look like a domain.
fn host_url(text: &str) -> Option<String> {
    https_url(text).filter(|url| has_no_path(url) && text.contains(['.', ':']))
}

fn has_no_path(url: &str) -> bool {
    url.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'))
}

/// Adds the usual URL of the key set.
fn with_jwks(issuer: String) -> Urls {
    Urls { jwks_uri: Some(format!("{issuer}/.well-known/jwks.json")), issuer, ..Urls::default() }
}

/// Returns the URLs of one tenant: by its id, or by the `iss` of its tokens, which also says their version.
fn entra(text: &str) -> Option<Urls> {
    let url = if is_guid(text) {
        format!("https://login.microsoftonline.com/{text}")
    } else {
        https_url(text)?
    };
    let (server, path) = url.rsplit_once("://").and_then(|(_, rest)| rest.split_once('/'))?;
    let tenant = path.strip_suffix("/v2.0").unwrap_or(path);
    let tenant = is_guid(tenant).then(|| tenant.to_ascii_lowercase())?;
    let id = TenantId::new(&tenant).ok()?;
    if server != "sts.windows.net" {
        let issuer = format!("https://{server}/{tenant}/v2.0");
        return Some(Urls { issuer, tenant: Some(id), ..Urls::default() });
    }
    // Tokens of version 1.0 have their own metadata and keys.
    let metadata = "https://login.microsoftonline.com";
    Some(Urls {
        issuer: format!("https://sts.windows.net/{tenant}/"),
        discovery_url: Some(format!("{metadata}/{tenant}/.well-known/openid-configuration")),
        jwks_uri: None,
        tenant: Some(id),
    })
}

fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Returns the issuer of a user pool: by the pool's id, which begins with the region, or by the URL itself.
fn cognito(text: &str) -> Option<String> {
    let url = if text.contains("://") { https_url(text) } else { None };
    let pool = url.as_deref().unwrap_or(text).rsplit('/').next()?;
    let (region, id) = pool.split_once('_')?;
    let is_plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !region.contains('-') || id.is_empty() || !is_plain(region) || !is_plain(id) {
        return None;
    }
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let issuer = format!("https://cognito-idp.{region}.{domain}/{pool}");
    (url.is_none() || url.as_ref() == Some(&issuer)).then_some(issuer)
}

/// The presets. Each is a documented mapping of the claims of one provider; any setter changes it afterwards.
/// The audience is always yours to name.
///
/// The issuer may be given with or without a `/` at the end, without `https://`, and as the URL of its metadata
/// (`…/.well-known/openid-configuration`): the preset turns it into the issuer of the tokens.
impl IssuerConfig {
    /// Returns the preset for a realm of Keycloak. `url` is the realm's URL,
    /// `https://keycloak.example/realms/main`. An `http` URL of a local Keycloak also needs
    /// [`allow_loopback_http`](Self::allow_loopback_http).
    ///
    /// | of the caller | claim |
    /// |---|---|
    /// | roles | the realm's roles, `/realm_access/roles` |
    /// | kind | a service account, if `preferred_username` begins with `service-account-`, and `client_id` (or `clientId`) is present |
    /// | client | `azp`, or `client_id` |
    /// | everything else | as by default: `tenant_id` and `groups` need a mapper |
    ///
    /// **Set up there.** An *Audience* mapper, in a client scope of the calling clients, that puts this
    /// service's name into `aud`. Without it, `aud` is `account` or absent.
    ///
    /// **Not to trust.** The audience `account`: nearly every token of the realm has it. User attributes that
    /// users can edit, as a tenant or a role.
    ///
    /// Source: <https://www.keycloak.org/docs/latest/server_admin/#audience-support>
    ///
    /// ```
    /// use scaikey_auth::{Auth, IssuerConfig};
    ///
    /// # fn main() -> Result<(), scaikey_auth::ConfigError> {
    /// let keycloak = IssuerConfig::keycloak("https://keycloak.example/realms/main");
    /// let auth = Auth::builder().issuer(keycloak).audience("docs").build()?;
    /// # Ok(()) }
    /// ```
    pub fn keycloak(url: impl AsRef<str>) -> Self {
        Self::of_provider(Provider::Keycloak, url.as_ref())
    }

    /// Returns the preset for one tenant of Microsoft Entra ID. `tenant` is the tenant's id, a GUID. It may also
    /// be the `iss` of its tokens, for other clouds and for tokens of version 1.0
    /// (`https://sts.windows.net/{id}/`).
    ///
    /// | of the caller | claim |
    /// |---|---|
    /// | subject | `oid`, which is the same in all services of the tenant; `sub` differs from service to service |
    /// | tenant | `tid`, which must be this tenant |
    /// | roles, scopes | `roles`, `scp` |
    /// | kind | a service account, if `idtyp` is `app` |
    /// | client | `azp`, in version 1.0 `appid` |
    ///
    /// A token without both `azp` and `appid` is refused, because it is an ID token.
    ///
    /// **Set up there**, in the manifest of this service's app registration: `requestedAccessTokenVersion: 2`,
    /// and the optional claim `idtyp` for access tokens. Without `idtyp`, applications count as users.
    ///
    /// **Not to trust.** `email`, `upn`, `preferred_username` and `name` can change, and administrators of
    /// other tenants can choose any `email`. Guests of the tenant have its `tid`.
    ///
    /// The audience is the client id of this service's app registration.
    ///
    /// Source: <https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference>
    ///
    /// ```
    /// use scaikey_auth::{Auth, IssuerConfig};
    ///
    /// # fn main() -> Result<(), scaikey_auth::ConfigError> {
    /// let entra = IssuerConfig::entra("8eaef023-2b34-4da1-9baa-8bc8c9d6a490");
    /// let auth = Auth::builder()
    ///     .issuer(entra)
    ///     .audience("6e74172b-be56-4843-9ff4-e66a39bb12e3")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn entra(tenant: impl AsRef<str>) -> Self {
        Self::of_provider(Provider::Entra, tenant.as_ref())
    }

    /// Returns the preset for several tenants of Microsoft Entra ID, each of which is an issuer. The claims are
    /// those of [`entra`](Self::entra).
    ///
    /// Say which tenants are accepted: by [`tenants`](Self::tenants), or by a tenant store. Anyone can create a
    /// tenant, so [`any_tenant`](super::AuthConfig::any_tenant) accepts everyone. All tenants share one key set.
    ///
    /// Source: <https://learn.microsoft.com/entra/identity-platform/access-tokens#validate-the-issuer>
    ///
    /// ```
    /// use scaikey_auth::{Auth, IssuerConfig, TenantId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let customers = [TenantId::new("8eaef023-2b34-4da1-9baa-8bc8c9d6a490")?];
    /// let auth = Auth::builder()
    ///     .issuer(IssuerConfig::entra_multi_tenant().tenants(customers))
    ///     .audience("6e74172b-be56-4843-9ff4-e66a39bb12e3")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn entra_multi_tenant() -> Self {
        Self::of_provider(Provider::EntraMultiTenant, "")
    }

    /// Returns the preset for Auth0. `domain` is the tenant's domain or your own, with or without `https://`.
    /// The slash at the end of `iss` is added.
    ///
    /// | of the caller | claim |
    /// |---|---|
    /// | tenant | the organization, `org_id` |
    /// | roles | `permissions` |
    /// | kind | a service account, if `gty` is `client-credentials` or `sub` ends with `@clients` |
    /// | client | `azp`, in the RFC 9068 profile `client_id` |
    ///
    /// **Set up there.** An API with this service's name as its identifier; *RBAC* and *Add Permissions in the
    /// Access Token* in its settings. Clients must send the parameter `audience`: without it, Auth0 issues
    /// access tokens that only Auth0 can read. The signature algorithm of the API must not be HS256.
    ///
    /// **Not to trust.** Claims that an Action copies from `user_metadata`, which users can edit. The audience
    /// `https://{domain}/userinfo`, which tokens for every API have.
    ///
    /// Source: <https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles>
    ///
    /// ```
    /// use scaikey_auth::{Auth, IssuerConfig};
    ///
    /// # fn main() -> Result<(), scaikey_auth::ConfigError> {
    /// let auth = Auth::builder()
    ///     .issuer(IssuerConfig::auth0("example.eu.auth0.com"))
    ///     .audience("https://docs.example")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn auth0(domain: impl AsRef<str>) -> Self {
        Self::of_provider(Provider::Auth0, domain.as_ref())
    }

    /// Returns the preset for a custom authorization server of Okta. `issuer` is its URL,
    /// `https://example.okta.com/oauth2/default`.
    ///
    /// | of the caller | claim |
    /// |---|---|
    /// | subject | `uid`; for a service, `sub`. The `sub` of a user is their login, which can be reassigned |
    /// | scopes | `scp` |
    /// | kind | a service account, if `sub` is the client and there is no `uid` |
    /// | client | `cid` |
    /// | tenant, roles, groups | as by default, from claims that you define: `tenant_id`, `roles`, `groups` |
    ///
    /// **Set up there.** A custom authorization server with this service's name as its audience. Access tokens
    /// of the org authorization server (`https://example.okta.com`) are for Okta's own API.
    ///
    /// **Not to trust.** The login and the e-mail address. Profile attributes that users can edit, as a claim.
    ///
    /// Source: <https://developer.okta.com/docs/api/openapi/okta-oauth/guides/overview/#access-token>
    ///
    /// ```
    /// use scaikey_auth::{Auth, IssuerConfig};
    ///
    /// # fn main() -> Result<(), scaikey_auth::ConfigError> {
    /// let auth = Auth::builder()
    ///     .issuer(IssuerConfig::okta("https://example.okta.com/oauth2/default"))
    ///     .audience("api://default")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn okta(issuer: impl AsRef<str>) -> Self {
        Self::of_provider(Provider::Okta, issuer.as_ref())
    }

    /// Returns the preset for a user pool of Amazon Cognito: `cognito("eu-west-1", "eu-west-1_AbCdEf123")`.
    ///
    /// | of the caller | claim |
    /// |---|---|
    /// | groups | `cognito:groups` |
    /// | kind | a service account, if `sub` is the client |
    /// | client | `client_id` |
    /// | tenant, roles | as by default, from claims that a *pre token generation* trigger adds |
    ///
    /// An access token has no `aud`, unless the client asked for a resource. Then `client_id` is compared with
    /// the audience: name the ids of the app clients that may call this service.
    ///
    /// **Set up there.** Scopes of a resource server, where services differ in what they allow: `client_id`
    /// says who got the token, not which service it is for.
    ///
    /// **Not to trust.** `username`, and `custom:` attributes that the app client may write: their users can
    /// write them, too.
    ///
    /// Source:
    /// <https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html>
    ///
    /// ```
    /// use scaikey_auth::{Auth, IssuerConfig};
    ///
    /// # fn main() -> Result<(), scaikey_auth::ConfigError> {
    /// let auth = Auth::builder()
    ///     .issuer(IssuerConfig::cognito("eu-west-1", "eu-west-1_AbCdEf123"))
    ///     .audience("57cbishk4j24pabc1234567890")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn cognito(region: impl AsRef<str>, pool: impl AsRef<str>) -> Self {
        let (region, pool) = (region.as_ref().trim(), pool.as_ref().trim());
        let is_in_region = pool.strip_prefix(region).is_some_and(|id| id.starts_with('_'));
        let mut config = Self::of_provider(Provider::Cognito, pool);
        config.issuer_has_wrong_form |= !is_in_region;
        config
    }

    /// Returns the preset for Google accounts. Google's access tokens are readable by Google alone, so this
    /// preset [accepts ID tokens](field@Self::insecure_accept_id_tokens), and the start of the service logs a
    /// warning.
    ///
    /// | of the caller | claim |
    /// |---|---|
    /// | tenant | the domain of the Google Workspace, `hd` |
    /// | kind | a service account, if `sub` is the client |
    /// | client | `azp` |
    ///
    /// The audience is the OAuth client id of the pages that sign users in.
    ///
    /// **Not to trust.** Anyone with a Google account can sign in at your client, and any service account can
    /// get an ID token with any `aud`. Accounts without a Workspace, and service accounts, have no `hd`, so a
    /// service that requires a tenant refuses them. List the domains with [`tenants`](Self::tenants), or decide
    /// by `sub`. Never decide by `email`: use `sub`.
    ///
    /// Source: <https://developers.google.com/identity/openid-connect/openid-connect#an-id-tokens-payload>
    ///
    /// ```
    /// use scaikey_auth::{Auth, IssuerConfig, TenantId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let auth = Auth::builder()
    ///     .issuer(IssuerConfig::google().tenants([TenantId::new("example.com")?]))
    ///     .audience("1234987819200.apps.googleusercontent.com")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn google() -> Self {
        Self::of_provider(Provider::Google, "")
    }

    /// Returns the preset for an instance of ZITADEL. `url` is the instance's URL.
    ///
    /// | of the caller | claim |
    /// |---|---|
    /// | tenant | the organization of the user, `urn:zitadel:iam:user:resourceowner:id` |
    /// | roles | `urn:zitadel:iam:org:project:roles`: the member names of this object |
    /// | client | `azp`, or `client_id` |
    ///
    /// No claim says whether the caller is a service account, so every identity is a user. If an Action adds
    /// such a claim, name it with
    /// [`ClaimsMapping::service_account`](method@crate::identity::ClaimsMapping::service_account).
    ///
    /// **Set up there.** The token type *JWT* for each application and service account; *Assert Roles on
    /// Authentication* in the project. Clients must request the scopes `urn:zitadel:iam:user:resourceowner` and
    /// `urn:zitadel:iam:org:project:id:{projectid}:aud`. The audience is the project's id.
    ///
    /// **Not to trust.** Roles as roles of the caller's own organization: a project that is granted to other
    /// organizations has roles from each of them, and the value of a role names the organization. User metadata
    /// that users can edit.
    ///
    /// Source: <https://zitadel.com/docs/apis/openidoauth/claims>
    ///
    /// ```
    /// use scaikey_auth::{Auth, IssuerConfig};
    ///
    /// # fn main() -> Result<(), scaikey_auth::ConfigError> {
    /// let auth = Auth::builder()
    ///     .issuer(IssuerConfig::zitadel("https://example.eu1.zitadel.cloud"))
    ///     .audience("69234237810729019")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn zitadel(url: impl AsRef<str>) -> Self {
        Self::of_provider(Provider::Zitadel, url.as_ref())
    }

    /// Returns the preset for the users of a Supabase project. `project_url` is `https://example.supabase.co`.
    ///
    /// | of the caller | claim |
    /// |---|---|
    /// | tenant | `/app_metadata/tenant_id` |
    /// | roles | `role`, `user_role` and `/app_metadata/roles` |
    /// | multi-factor authentication | `aal` is `aal2`, and `amr` has a second factor, with its time |
    /// | name for display | from `user_metadata` |
    ///
    /// The audience is `authenticated`.
    ///
    /// **Set up there.** An asymmetric JWT signing key. Tokens that are signed with the legacy JWT secret or
    /// another shared secret are refused, and so are the `anon` and `service_role` keys.
    ///
    /// **Not to trust.** `user_metadata`, which users can edit. `is_anonymous`: anonymous users have the
    /// audience and role `authenticated`, too, if the project allows them.
    ///
    /// Source: <https://supabase.com/docs/guides/auth/jwt-fields>
    ///
    /// ```
    /// use scaikey_auth::{Auth, IssuerConfig};
    ///
    /// # fn main() -> Result<(), scaikey_auth::ConfigError> {
    /// let auth = Auth::builder()
    ///     .issuer(IssuerConfig::supabase("https://example.supabase.co"))
    ///     .audience("authenticated")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn supabase(project_url: impl AsRef<str>) -> Self {
        Self::of_provider(Provider::Supabase, project_url.as_ref())
    }

    /// Returns the preset for session tokens of Clerk. `frontend_api` is the Frontend API URL,
    /// `https://clerk.example.com`.
    ///
    /// | of the caller | claim |
    /// |---|---|
    /// | tenant | the active organization, `/o/id` (version 1: `org_id`) |
    /// | roles | the role in it, `/o/rol` (version 1: `org_role`, with the prefix `org:`) |
    /// | kind | a service account, if `sub` begins with `mch_` |
    ///
    /// Session tokens have no `aud`. `azp` is compared instead: the audience is the origin of your pages,
    /// `https://example.com`.
    ///
    /// **Set up there.** Nothing, for users with an organization. Machine tokens are refused, because they have
    /// neither `aud` nor `azp`.
    ///
    /// **Not to trust.** `azp` protects browsers from pages of other origins, but a program can send any
    /// `Origin`. A session that is not complete has `sts: pending`, and its token is accepted: if users must
    /// choose an organization, the missing tenant refuses it; otherwise refuse it with an
    /// [admission check](crate::admission). `fva` (age of the factors) is not read as multi-factor
    /// authentication.
    ///
    /// Source: <https://clerk.com/docs/guides/sessions/session-tokens>
    ///
    /// ```
    /// use scaikey_auth::{Auth, IssuerConfig};
    ///
    /// # fn main() -> Result<(), scaikey_auth::ConfigError> {
    /// let auth = Auth::builder()
    ///     .issuer(IssuerConfig::clerk("https://clerk.example.com"))
    ///     .audience("https://example.com")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn clerk(frontend_api: impl AsRef<str>) -> Self {
        Self::of_provider(Provider::Clerk, frontend_api.as_ref())
    }

    pub(super) fn of_provider(provider: Provider, issuer: &str) -> Self {
        let mut config = Self::new("").with_provider(provider);
        config.set_issuer(issuer);
        config
    }

    /// Sets what the preset knows without the issuer.
    fn with_provider(mut self, provider: Provider) -> Self {
        self.provider = Some(provider);
        self.claims = provider.claims();
        self.insecure_accept_id_tokens = provider.has_only_id_tokens();
        self.access_token = provider.access_token();
        self.audience_claims(provider.audience_claims())
    }

    /// Sets the issuer. With a preset, `text` may be its short form, and other URLs follow from it.
    pub(super) fn set_issuer(&mut self, text: &str) {
        let Some(provider) = self.provider else {
            text.clone_into(&mut self.issuer);
            return;
        };
        let urls = provider.urls(text.trim());
        self.issuer_has_wrong_form = urls.is_none() && !text.is_empty();
        let Some(urls) = urls else {
            text.clone_into(&mut self.issuer);
            return;
        };
        self.issuer = urls.issuer;
        self.discovery_url = urls.discovery_url;
        self.jwks_uri = urls.jwks_uri;
        if let Some(tenant) = urls.tenant {
            self.tenants = vec![tenant];
        }
    }

    /// Applies a preset to an issuer whose issuer may be set already.
    pub(super) fn set_provider(&mut self, provider: Provider) {
        let issuer = std::mem::take(&mut self.issuer);
        *self = std::mem::replace(self, Self::new("")).with_provider(provider);
        self.set_issuer(&issuer);
    }

    /// Returns the fault of the issuer, if it is missing or does not have the form that the preset needs.
    pub(super) fn issuer_fault(&self) -> Option<String> {
        match self.provider {
            Some(provider) if self.issuer_has_wrong_form => Some(provider.form().to_owned()),
            Some(provider) if self.issuer.is_empty() => {
                Some(format!("is missing: it {}", provider.form()))
            }
            None if self.issuer.is_empty() => Some(MISSING_ISSUER.to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuer_has_the_form_of_its_provider() {
        const TENANT: &str = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490";
        let entra = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
        let v1 = format!("https://sts.windows.net/{TENANT}/");
        let table = [
            (Provider::Keycloak, "https://k.example/realms/main", "https://k.example/realms/main"),
            (Provider::Keycloak, "k.example/auth/realms/a/", "https://k.example/auth/realms/a"),
            (
                Provider::Keycloak,
                "http://localhost:8080/realms/a/.well-known/openid-configuration",
                "http://localhost:8080/realms/a",
            ),
            (Provider::Entra, TENANT, &entra),
            (Provider::Entra, &entra, &entra),
            (Provider::Entra, &entra.to_uppercase().replace("HTTPS", "https"), ""),
            (Provider::Entra, &TENANT.to_uppercase(), &entra),
            (Provider::Entra, &v1, &v1),
            (Provider::Auth0, "a.eu.auth0.com", "https://a.eu.auth0.com/"),
            (Provider::Auth0, " https://a.eu.auth0.com/ ", "https://a.eu.auth0.com/"),
            (Provider::Okta, "a.okta.com/oauth2/default", "https://a.okta.com/oauth2/default"),
            (
                Provider::Cognito,
                "eu-west-1_Ab1",
                "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Ab1",
            ),
            (
                Provider::Cognito,
                "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Ab1",
                "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Ab1",
            ),
            (Provider::Google, "", "https://accounts.google.com"),
            (Provider::Google, "accounts.google.com", "https://accounts.google.com"),
            (Provider::Zitadel, "https://z.example:8443", "https://z.example:8443"),
            (Provider::Supabase, "https://a.supabase.co", "https://a.supabase.co/auth/v1"),
            (Provider::Supabase, "a.supabase.co/auth/v1/", "https://a.supabase.co/auth/v1"),
            (Provider::Clerk, "clerk.example.com", "https://clerk.example.com"),
            (Provider::Keycloak, "https://k.example", ""),
            (Provider::Keycloak, "https://k.example/realms/a/protocol/openid-connect", ""),
            (Provider::Entra, "common", ""),
            (Provider::Entra, "contoso.onmicrosoft.com", ""),
            (Provider::EntraMultiTenant, "common", ""),
            (Provider::Auth0, "https://a.eu.auth0.com/api/v2", ""),
            (Provider::Auth0, "acme", ""),
            (Provider::Okta, "https://a.okta.com", ""),
            (Provider::Cognito, "eu-west-1", ""),
            (Provider::Cognito, "https://cognito.example/eu-west-1_Ab1", ""),
            (Provider::Google, "https://google.com", ""),
            (Provider::Supabase, "https://a.supabase.co/rest/v1", ""),
            (Provider::Clerk, "https://clerk.example.com/v1?a", ""),
        ];
        for (provider, given, issuer) in table {
            let config = IssuerConfig::of_provider(provider, given);
            match issuer {
                "" => {
                    assert_eq!(config.issuer_fault().as_deref(), Some(provider.form()), "{given}")
                }
                _ => {
                    assert_eq!((&*config.issuer, config.issuer_fault()), (issuer, None), "{given}")
                }
            }
        }
        let other_region = IssuerConfig::cognito("us-east-1", "eu-west-1_Ab1");
        assert!(other_region.issuer_fault().is_some());
        assert_eq!(IssuerConfig::cognito("eu-west-1", "eu-west-1_Ab1").issuer_fault(), None);
        assert_eq!(IssuerConfig::keycloak("").issuer_fault().unwrap()[..11], *"is missing:");
    }

    #[test]
    fn other_urls_follow_from_the_issuer() {
        const TENANT: &str = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490";
        let v1 = format!("https://sts.windows.net/{TENANT}/");
        let metadata_v1 =
            format!("https://login.microsoftonline.com/{TENANT}/.well-known/openid-configuration");
        let of = IssuerConfig::of_provider;
        for (config, issuer, discovery_url, jwks_uri) in [
            (of(Provider::Entra, &v1), &*v1, Some(&*metadata_v1), None),
            (
                IssuerConfig::entra_multi_tenant(),
                "https://login.microsoftonline.com/{tenant_id}/v2.0",
                None,
                Some("https://login.microsoftonline.com/common/discovery/v2.0/keys"),
            ),
            (
                of(Provider::Cognito, "cn-north-1_Ab1"),
                "https://cognito-idp.cn-north-1.amazonaws.com.cn/cn-north-1_Ab1",
                None,
                None,
            ),
            (
                of(Provider::Supabase, "a.supabase.co"),
                "https://a.supabase.co/auth/v1",
                None,
                Some("https://a.supabase.co/auth/v1/.well-known/jwks.json"),
            ),
            (
                of(Provider::Clerk, "clerk.example.com"),
                "https://clerk.example.com",
                None,
                Some("https://clerk.example.com/.well-known/jwks.json"),
            ),
            (of(Provider::Auth0, "a.auth0.com"), "https://a.auth0.com/", None, None),
        ] {
            assert_eq!(config.issuer, issuer);
            assert_eq!(config.discovery_url.as_deref(), discovery_url, "{issuer}");
            assert_eq!(config.jwks_uri.as_deref(), jwks_uri, "{issuer}");
        }
    }
}
