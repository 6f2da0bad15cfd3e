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
                // `idtyp` is optional. Every token for a user has scopes.
                .service_account([ClaimTest::equals("idtyp", "app"), ClaimTest::is_absent("scp")]),
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

    /// Returns the `requested_token_type` of an exchange, if the provider refuses the default.
    fn requested_token_type(self) -> Option<&'static str> {
        (self == Self::Keycloak).then_some("access_token")
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
            Self::EntraMultiTenant => {
                let issuer = format!("https://login.microsoftonline.com/{TENANT_PLACEHOLDER}/v2.0");
                // One key set for all tenants. Each key in it names the issuers that it is for.
                let keys = "https://login.microsoftonline.com/common/discovery/v2.0/keys";
                let is_issuer = text.is_empty() || text == issuer;
                is_issuer.then(|| Urls { issuer, jwks_uri: Some(keys.into()), ..Urls::default() })
            }
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
    let url = with_scheme(text);
    let url = url.strip_suffix(DISCOVERY).unwrap_or(&url).trim_end_matches('/');
    let parsed = Url::parse(url).ok()?;
    let is_plain = parsed.has_host() && parsed.query().is_none() && parsed.fragment().is_none();
    is_plain.then(|| url.to_owned())
}

fn with_scheme(text: &str) -> String {
    if text.contains("://") { text.to_owned() } else { format!("https://{text}") }
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
    let mut urls = Urls { tenant: Some(id), ..Urls::default() };
    urls.issuer = match server {
        "login.microsoftonline.com"
        | "login.microsoftonline.us"
        | "login.partner.microsoftonline.cn" => format!("https://{server}/{tenant}/v2.0"),
        "sts.windows.net" => {
            // Tokens of version 1.0 have their own metadata and keys.
            let metadata = "https://login.microsoftonline.com";
            urls.discovery_url =
                Some(format!("{metadata}/{tenant}/.well-known/openid-configuration"));
            format!("https://{server}/{tenant}/")
        }
        // External ID and other clouds: the `iss` of their tokens, as it is.
        _ => with_scheme(text),
    };
    Some(urls)
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

/// The presets. Each is a documented mapping of the claims of one provider. The setters change it afterwards;
/// for single claims, use [`map_claims`](Self::map_claims). The audience is always yours to name.
///
/// The issuer may be given with or without a `/` at the end, without `https://`, and as the URL of its metadata
/// (`…/.well-known/openid-configuration`): the preset turns it into the issuer of the tokens. Only with Entra ID
/// in other clouds is it taken as it is.
impl IssuerConfig {
    /// Returns the preset for a realm of Keycloak. `url` is the realm's URL,
    /// `https://keycloak.example/realms/main`. An `http` URL of a local Keycloak also needs
    /// [`allow_loopback_http`](Self::allow_loopback_http).
    ///
    /// | of the caller | claim |
    /// |---|---|
    /// | roles | the realm's roles, `/realm_access/roles` |
    /// | kind | a service account, if `preferred_username` begins with `service-account-`, and `client_id` (or `clientId`) is present; also by the rules that [every mapping](field@crate::identity::ClaimsMapping::service_account) has |
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
    /// (`https://sts.windows.net/{id}/`). An `iss` of an unknown form, such as that of External ID, stays as it
    /// is; if the metadata is not under it, set [`discovery_url`](Self::discovery_url). An `http` URL, of an
    /// emulator or in a test, also needs [`allow_loopback_http`](Self::allow_loopback_http).
    ///
    /// | of the caller | claim |
    /// |---|---|
    /// | subject | `oid`, which is the same in all services of the tenant; `sub` differs from service to service |
    /// | tenant | `tid`, which must be this tenant |
    /// | roles, scopes | `roles`, `scp` |
    /// | kind | a service account, if `idtyp` is `app`, or `scp` is absent: only tokens for users have it |
    /// | client | `azp`, in version 1.0 `appid` |
    ///
    /// A token without both `azp` and `appid` is refused, because it is an ID token.
    ///
    /// **Set up there**, in the manifest of this service's app registration: `requestedAccessTokenVersion: 2`,
    /// and at least one scope. The optional claim `idtyp` says more clearly which tokens are those of applications.
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
    /// For an emulator or a test, set [`expected_issuer`](Self::expected_issuer) and
    /// [`jwks_uri`](Self::jwks_uri); both may contain `{tenant_id}`.
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

    /// Returns the preset. `issuer` may be its short form, and other URLs follow from it.
    pub(super) fn of_provider(provider: Provider, issuer: &str) -> Self {
        let urls = provider.urls(issuer.trim());
        let issuer_has_wrong_form = urls.is_none() && !issuer.is_empty();
        let urls = urls.unwrap_or_else(|| Urls { issuer: issuer.to_owned(), ..Urls::default() });
        let config = Self {
            discovery_url: urls.discovery_url,
            jwks_uri: urls.jwks_uri,
            tenants: Vec::from_iter(urls.tenant),
            claims: provider.claims(),
            insecure_accept_id_tokens: provider.has_only_id_tokens(),
            access_token: provider.access_token(),
            provider: Some(provider),
            issuer_has_wrong_form,
            ..Self::new(urls.issuer)
        };
        config.audience_claims(provider.audience_claims())
    }

    /// Returns the default of `client.requested_token_type`, if the preset has one.
    pub(crate) fn requested_token_type(&self) -> Option<&'static str> {
        self.provider.and_then(Provider::requested_token_type)
    }

    /// Returns the configuration without any settings except the preset and `issuer`.
    fn base(&self, issuer: &str) -> Self {
        match self.provider {
            Some(provider) => Self::of_provider(provider, issuer),
            None => Self::new(issuer),
        }
    }

    /// Sets the issuer. With a preset, `text` may be its short form, and values that came from the preset follow.
    pub(super) fn set_issuer(&mut self, text: &str) {
        fn follow<T: PartialEq>(field: &mut T, old: T, new: T) {
            if *field == old {
                *field = new;
            }
        }
        let (old, new) = (self.base(&self.issuer), self.base(text));
        follow(&mut self.discovery_url, old.discovery_url, new.discovery_url);
        follow(&mut self.jwks_uri, old.jwks_uri, new.jwks_uri);
        follow(&mut self.tenants, old.tenants, new.tenants);
        self.issuer = new.issuer;
        self.issuer_has_wrong_form = new.issuer_has_wrong_form;
    }

    /// Replaces all settings except issuer and audience by those of another preset.
    pub(super) fn set_provider(&mut self, provider: Provider) {
        if self.provider != Some(provider) {
            let audience = std::mem::take(&mut self.audience);
            *self = Self { audience, ..Self::of_provider(provider, &self.issuer) };
        }
    }

    /// Removes the preset's URL of the key set if other keys are given, and writes the ids of tenants as the
    /// provider does.
    pub(super) fn lay_over_preset(&mut self) {
        let preset = self.base(&self.issuer);
        let has_other_keys =
            self.inline_keys.is_some() || self.keys_file.is_some() || self.gives_discovery_url();
        if self.provider.is_some() && has_other_keys && self.jwks_uri == preset.jwks_uri {
            self.jwks_uri = None;
        }
        if matches!(self.provider, Some(Provider::Entra | Provider::EntraMultiTenant)) {
            let lower = |id: &TenantId| TenantId::new(&id.as_str().to_ascii_lowercase()).ok();
            self.tenants.iter_mut().for_each(|id| *id = lower(id).unwrap_or_else(|| id.clone()));
        }
    }

    /// Returns whether a URL of the metadata is set that does not come from the preset.
    pub(super) fn gives_discovery_url(&self) -> bool {
        self.discovery_url.is_some() && self.discovery_url != self.base(&self.issuer).discovery_url
    }

    /// Returns the claims without the preset's tests for service accounts if a kind is given, which replaces them.
    pub(super) fn claims_to_check(&self) -> ClaimsMapping {
        let mut claims = self.claims.clone();
        let preset = self.base("").claims;
        if claims.kind.is_some() && claims.service_account == preset.service_account {
            claims.service_account.clear();
        }
        claims
    }

    /// Returns whether nothing is left of the preset's claims, although they were probably meant.
    pub(super) fn has_lost_claims(&self) -> bool {
        let members = |claims: &ClaimsMapping| match serde_json::to_value(claims) {
            Ok(serde_json::Value::Object(members)) => members,
            _ => serde_json::Map::new(),
        };
        let [given, preset, default] =
            [&self.claims, &self.base("").claims, &ClaimsMapping::default()].map(members);
        let is_special = |name: &str| preset.get(name) != default.get(name);
        let is_kept = |name: &str| is_special(name) && given.get(name) == preset.get(name);
        self.provider.is_some() && !preset.keys().any(|name| is_kept(name))
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

    /// Returns whether the issuer is, or looks like, a realm of Keycloak.
    pub(super) fn is_keycloak(&self) -> bool {
        self.provider == Some(Provider::Keycloak) || self.expected().contains("/realms/")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::AuthConfig;
    use crate::identity::IdentityKind;

    const TENANT: &str = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490";

    #[test]
    fn issuer_has_the_form_of_its_provider() {
        let entra = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
        let v1 = format!("https://sts.windows.net/{TENANT}/");
        let china_v1 = format!("https://sts.chinacloudapi.cn/{TENANT}/");
        let b2c = format!("https://contoso.b2clogin.com/{TENANT}/v2.0/");
        let local = format!("http://127.0.0.1:8080/{TENANT}/v2.0");
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
            (Provider::Entra, &china_v1, &china_v1),
            (Provider::Entra, &format!(" {b2c} "), &b2c),
            (Provider::Entra, b2c.trim_start_matches("https://"), &b2c),
            (Provider::Entra, b2c.trim_end_matches("v2.0/"), b2c.trim_end_matches("v2.0/")),
            (Provider::Entra, entra.trim_end_matches("/v2.0"), &entra),
            (Provider::Entra, &local, &local),
            (Provider::Entra, &entra.replace("https", "HTTPS"), &entra),
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

    fn laid_over(file: Value, variables: &[(&str, &str)]) -> AuthConfig {
        let named = |&(name, value): &(&str, &str)| (format!("P_{name}"), value.to_owned());
        let config: AuthConfig = serde_json::from_value(file).unwrap();
        config.overlay_vars("P", variables.iter().map(named))
    }

    fn with_variables(variables: &[(&str, &str)]) -> IssuerConfig {
        let mut config = laid_over(json!({ "audience": ["docs"] }), variables);
        config.check().unwrap_or_else(|error| panic!("{variables:?}: {error}"));
        config.issuers.remove(0)
    }

    fn in_file(issuer: Value) -> IssuerConfig {
        serde_json::from_value(issuer).unwrap()
    }

    #[test]
    fn given_keys_replace_those_of_preset() {
        let file = Some("/run/keys.pem".into());
        for (provider, issuer) in [("supabase", "a.supabase.co"), ("clerk", "clerk.example.com")] {
            let preset = [("PROVIDER", provider), ("ISSUER", issuer)];
            let given = [&preset[..], &[("KEYS_FILE", "/run/keys.pem")]].concat();
            let config = with_variables(&given);
            assert_eq!((&config.keys_file, &config.jwks_uri), (&file, &None));
            let given = [&preset[..], &[("DISCOVERY_URL", "https://mirror.example/m")]].concat();
            assert_eq!(with_variables(&given).jwks_uri, None);
            let given = [&preset[..], &[("JWKS_URI", "https://mirror.example/k")]].concat();
            assert_eq!(with_variables(&given).jwks_uri.unwrap(), "https://mirror.example/k");
        }
        let in_file = in_file(
            json!({ "provider": "clerk", "issuer": "clerk.example", "keys_file": "/run/keys.pem" }),
        );
        let clerk = || IssuerConfig::clerk("clerk.example");
        assert_eq!(in_file, clerk().keys_file("/run/keys.pem"));
        for config in [
            in_file,
            clerk().keys("{}"),
            clerk().discovery_url("https://mirror.example/m"),
            IssuerConfig::entra_multi_tenant().keys("{}"),
        ] {
            assert_eq!(config.jwks_uri, None);
        }
        let issuer = json!({ "provider": "clerk", "keys_file": "/run/keys.pem" });
        let file = json!({ "audience": ["docs"], "issuers": [issuer] });
        let late = laid_over(file, &[("ISSUER", "clerk.example")]);
        assert_eq!(late.issuers[0], clerk().keys_file("/run/keys.pem"));
    }

    #[test]
    fn key_variables_replace_keys_of_file() {
        let mut file =
            json!({ "audience": ["docs"], "issuers": [{ "issuer": "https://a.example" }] });
        for (given, variable, value) in [
            ("keys_file", "JWKS_URI", "https://a.example/keys"),
            ("jwks_uri", "KEYS_FILE", "/run/keys.pem"),
        ] {
            file["issuers"][0] =
                json!({ "issuer": "https://a.example", given: "https://b.example" });
            laid_over(file.clone(), &[(variable, value)]).check().unwrap();
        }
        let both = [("JWKS_URI", "https://a.example/keys"), ("KEYS_FILE", "/run/keys.pem")];
        let error = laid_over(file, &both).check().unwrap_err().to_string();
        assert!(error.contains("P_KEYS_FILE and P_JWKS_URI are both set"), "{error}");
    }

    #[test]
    fn discovery_url_without_effect_is_told() {
        let mut issuer = json!({ "issuer": "https://a.example",
            "discovery_url": "https://a.example/m", "jwks_uri": "https://a.example/keys" });
        let told = |issuer: &Value, client: Value| {
            let config = json!({ "audience": ["docs"], "issuers": [issuer], "client": client });
            serde_json::from_value::<AuthConfig>(config).unwrap().doubtful_settings()
        };
        let notices = told(&issuer, json!({}));
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].starts_with("issuers[0].discovery_url has no effect"), "{notices:?}");
        assert!(told(&issuer, json!({ "id": "docs" })).is_empty(), "the client needs it");
        issuer["jwks_uri"] = Value::Null;
        assert!(told(&issuer, json!({})).is_empty());
    }

    #[test]
    fn issuer_variable_keeps_given_fields() {
        for provider in [Value::Null, "keycloak".into()] {
            let mut issuer = json!({ "issuer": "https://a.example/realms/a",
                "jwks_uri": "https://mirror.example/keys", "tenants": ["acme"] });
            if !provider.is_null() {
                issuer["provider"] = provider.clone();
            }
            let file = json!({ "audience": ["docs"], "issuers": [issuer] });
            let config = laid_over(file, &[("ISSUER", "https://b.example/realms/b")]);
            let issuer = &config.issuers[0];
            assert_eq!(issuer.issuer, "https://b.example/realms/b");
            assert_eq!(issuer.jwks_uri.as_deref(), Some("https://mirror.example/keys"));
            assert_eq!(issuer.tenants, [TenantId::new("acme").unwrap()]);
        }
        let v1 = format!("https://sts.windows.net/{TENANT}/");
        let file = json!({ "issuers": [{ "provider": "entra", "issuer": v1 }] });
        const OTHER: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
        let config = laid_over(file, &[("ISSUER", OTHER)]);
        assert_eq!(config.issuers[0], IssuerConfig::entra(OTHER), "the rest follows");
    }

    #[test]
    fn provider_variable_replaces_another_preset_only() {
        let mut issuer = json!({
            "issuer": "http://old.auth.svc/realms/a", "insecure_http_hosts": ["old.auth.svc"],
            "legacy_service_tokens": true, "leeway_seconds": 600, "audience": ["own"],
            "expected_issuer": "https://old.example", "claims": { "mfa": [{ "claim": "gold" }] },
        });
        for provider in [Value::Null, "okta".into()] {
            if !provider.is_null() {
                issuer["provider"] = provider;
            }
            let variables = [("PROVIDER", "keycloak"), ("ISSUER", "https://k.example/realms/a")];
            let config = laid_over(json!({ "issuers": [issuer] }), &variables);
            let preset = IssuerConfig::keycloak("https://k.example/realms/a");
            assert_eq!(config.issuers[0], preset.audience("own"));
        }
        issuer["provider"] = "keycloak".into();
        let config = laid_over(json!({ "issuers": [issuer] }), &[("PROVIDER", "keycloak")]);
        assert_eq!(config.issuers[0], in_file(issuer), "it is the same preset");
    }

    #[test]
    fn kind_replaces_tests_of_preset() {
        let preset = [("PROVIDER", "keycloak"), ("ISSUER", "https://k.example/realms/a")];
        let given = with_variables(&[&preset[..], &[("IDENTITY_KIND", "workload")]].concat());
        assert_eq!(given.claims.kind, Some(IdentityKind::Workload));
        let both = [("IDENTITY_KIND", "workload"), ("SERVICE_ACCOUNT_IF", "a=b")];
        let both = laid_over(json!({ "audience": ["docs"] }), &[&preset[..], &both].concat());
        let error = both.check().unwrap_err();
        assert_eq!(error.faults()[0].field, "P_SERVICE_ACCOUNT_IF", "{error}");
        let mut in_code = IssuerConfig::entra(TENANT).audience("docs");
        in_code.claims.kind = Some(IdentityKind::User);
        AuthConfig { issuers: vec![in_code], ..AuthConfig::default() }.check().unwrap();
    }

    #[test]
    fn lost_claims_of_preset_are_told() {
        let told = |issuer: IssuerConfig| {
            AuthConfig { issuers: vec![issuer], ..AuthConfig::default() }.doubtful_settings()
        };
        let other = ClaimsMapping::default().groups(["wids"]);
        let notices = told(IssuerConfig::entra(TENANT).claims(other.clone()));
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].starts_with("issuers[0].claims replaces all"), "{notices:?}");
        let entra = IssuerConfig::entra(TENANT);
        let claims = entra.claims.clone().groups(["wids"]);
        assert!(told(entra.claims(claims)).is_empty());
        assert!(told(IssuerConfig::new("https://a.example").claims(other)).is_empty());
        assert!(told(IssuerConfig::zitadel("https://a.example")).is_empty());
    }

    #[test]
    fn tenants_of_entra_have_no_case() {
        let upper = TENANT.to_uppercase();
        let listed = || [TenantId::new(&upper).unwrap()];
        let lower = [TenantId::new(TENANT).unwrap()];
        assert_eq!(IssuerConfig::entra_multi_tenant().tenants(listed()).tenants, lower);
        let variables = [("PROVIDER", "entra_multi_tenant"), ("TENANTS", &*upper)];
        assert_eq!(with_variables(&variables).tenants, lower);
        let issuer = json!({ "provider": "entra_multi_tenant", "tenants": [upper] });
        assert_eq!(in_file(issuer).tenants, lower);
        assert_eq!(
            IssuerConfig::keycloak("k.example/realms/a").tenants(listed()).tenants,
            listed()
        );
    }
}
