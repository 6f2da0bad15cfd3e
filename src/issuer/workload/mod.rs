//! [`WorkloadToken`]: the token that the platform of this service issues to it.

mod cached_tokens;
mod claims;
mod file;
mod gcp;
mod github_actions;
#[cfg(feature = "spiffe")]
mod spiffe;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::clock::unix_time;
use crate::config::environment_variable;
use crate::error::BoxError;
use crate::support::secret::Secret;
use cached_tokens::CachedTokens;
use claims::TokenClaims;
use file::TokenFile;
use gcp::Gcp;
use github_actions::GitHubActions;

#[cfg(feature = "spiffe")]
pub use spiffe::SpiffeSource;

#[cfg(feature = "testing")]
pub(crate) use file::workload_token_in;

/// The maximum length of a workload token, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// The time limit of a source that makes a request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where the projected service account token is, by the convention of this crate's manual.
const KUBERNETES_PATH: &str = "/var/run/secrets/tokens/provider";

/// The `client_assertion_type` of a JWT (RFC 7523 §2.2).
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The `client_assertion_type` of a JWT-SVID (draft-ietf-oauth-spiffe-client-auth).
#[cfg(feature = "spiffe")]
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// A source of workload tokens that this crate does not know, for example Vault, or the security token
/// service of AWS.
///
/// A token that is a JWT is cached until shortly before its own `exp`, and all callers share one call. A token of
/// another kind is not cached: each use calls the source. One with the form of a JWT that cannot be read is refused.
/// A call may take 5 seconds, but no more than half of the time limit of the request that needs the token: for an
/// introspection with its default limit, 1 second.
///
/// For AWS, for example, call `GetWebIdentityToken` of the crate `aws-sdk-sts` with the audience, and return the token.
///
/// Harmless mistake: a source that fails. Mistake that lets an attacker in: a token for another audience
/// than the asked one, because the provider receives it and could use it there. So a JWT must have the asked
/// audience in `aud`.
///
/// ```
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::issuer::{ClientAuth, WorkloadToken, WorkloadTokenSource};
/// use scaikey_auth::Secret;
///
/// #[derive(Debug)]
/// struct Vault;
///
/// #[async_trait::async_trait]
/// impl WorkloadTokenSource for Vault {
///     async fn token(&self, audience: &str) -> Result<Secret, BoxError> {
///         // A request to `identity/oidc/token/scaiwave`, whose role has this audience.
///         Err(format!("Vault has no role with the audience {audience}").into())
///     }
/// }
///
/// let client = ClientAuth::assertion("scaiwave", WorkloadToken::source(Vault));
/// ```
#[async_trait]
pub trait WorkloadTokenSource: Debug + Send + Sync + 'static {
    /// Returns a token for `audience`.
    ///
    /// # Errors
    /// There is no token. The error is logged, so it must contain neither a token nor another secret.
    async fn token(&self, audience: &str) -> Result<Secret, BoxError>;
}

/// The token of this workload, issued by its platform: Kubernetes, Azure, AWS, GitHub Actions, Google Cloud,
/// or a [source of your own](Self::source).
///
/// With [`ClientAuth::assertion`](super::ClientAuth::assertion) it replaces the client secret. With
/// `ExchangeRequest::of_workload` it is exchanged for a token of the provider.
///
/// ```
/// use scaikey_auth::TokenExchangeClient;
/// use scaikey_auth::issuer::{ClientAuth, WorkloadToken};
///
/// let token = WorkloadToken::file("/var/run/secrets/tokens/provider");
/// let builder = TokenExchangeClient::builder("https://scaikey.example")
///     .client_auth(ClientAuth::assertion("scaiwave", token));
/// ```
///
/// # Checks
/// Before a token is sent, its claims are read. *Not* checked: the signature, because the provider does that.
/// A token is refused, with an error that names its file or service, if it
///
/// * has expired, or has more than 16 KiB; or comes from a file and has no `exp`;
/// * is for the API server of Kubernetes: the provider could act as this pod in the cluster;
/// * does not have the [audience](Self::audience) in `aud`. The default is the issuer of the provider
///   (draft-ietf-oauth-rfc7523bis).
///
/// A token from a file must be a JWT. Another token of a service, or of a source of your own, is sent unchecked.
///
/// # Renewal
/// A file is read at each use, so a token that the platform replaces is used from the next request on. The
/// token of a service is cached until shortly before its `exp`: for four fifths of its time, or until a minute
/// is left. If the provider answers `invalid_client`, the cached token is forgotten and the source is asked
/// once more. Another token is then sent once. A subject token that the provider refuses (`invalid_grant`,
/// `invalid_request`) is forgotten, so that the next exchange asks the source.
#[derive(Debug, Clone)]
pub struct WorkloadToken {
    source: Source,
    audience: Audience,
    assertion_type: &'static str,
    cached: CachedTokens,
}

#[derive(Debug, Clone)]
enum Source {
    File(TokenFile),
    Service {
        /// The subject of error messages.
        name: &'static str,
        service: Arc<dyn WorkloadTokenSource>,
        timeout: Duration,
    },
    /// A source that cannot be used, and why.
    Unusable(String),
}

/// The audience that a token must have.
#[derive(Debug, Clone)]
enum Audience {
    /// The provider that gets the token.
    Provider,
    Named(String),
    /// Any. The platform chooses it.
    Any,
}

/// The error for a source that gives no usable token.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WorkloadTokenError(Arc<str>);

impl WorkloadTokenError {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into().into())
    }
}

impl WorkloadToken {
    /// Uses the token in a file, which must exist when `build` is called. It is read synchronously at each
    /// use, so it must be local.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::of(Source::File(TokenFile::new(path.into())))
    }

    /// Uses the projected service account token of Kubernetes at `/var/run/secrets/tokens/provider`. This
    /// path is a convention of this crate: [manual::exchange](crate::manual::exchange#without-a-client-secret)
    /// has the lines of YAML that put the token there. For another path, use [`file`](Self::file).
    pub fn kubernetes() -> Self {
        Self::file(KUBERNETES_PATH)
    }

    /// Uses the file that `AZURE_FEDERATED_TOKEN_FILE` names: Microsoft Entra Workload ID sets the variable,
    /// which is read by this call. Azure chooses the audience (`api://AzureADTokenExchange`), so it is only
    /// checked if [`audience`](Self::audience) is set.
    pub fn azure() -> Self {
        Self::file_named_by("AZURE_FEDERATED_TOKEN_FILE", environment_variable)
    }

    /// Uses the file that `AWS_WEB_IDENTITY_TOKEN_FILE` names: Amazon EKS sets the variable, which is read by
    /// this call. AWS chooses the audience (`sts.amazonaws.com`), so it is only checked if
    /// [`audience`](Self::audience) is set.
    pub fn aws() -> Self {
        Self::file_named_by("AWS_WEB_IDENTITY_TOKEN_FILE", environment_variable)
    }

    fn file_named_by(name: &str, read: impl Fn(&str) -> Option<String>) -> Self {
        let source = match read(name) {
            Some(path) => Source::File(TokenFile::new(path.into())),
            None => Source::Unusable(format!(
                "{name} is not set: the platform sets it for a workload with an identity; otherwise name the file"
            )),
        };
        Self { audience: Audience::Any, ..Self::of(source) }
    }

    /// Requests a token from GitHub Actions, with the variables `ACTIONS_ID_TOKEN_REQUEST_URL` and
    /// `ACTIONS_ID_TOKEN_REQUEST_TOKEN`, which are read by this call. The job needs the permission
    /// `id-token: write`. The URL must be `https`. A request may take 5 seconds.
    pub fn github_actions() -> Self {
        match GitHubActions::from_variables(environment_variable) {
            Ok(actions) => Self::of_service("GitHub Actions", actions, TIMEOUT),
            Err(problem) => Self::of(Source::Unusable(problem)),
        }
    }

    /// Requests a token of the service account from the metadata server of Google Cloud. A request may take
    /// one second. It goes to `http://metadata.google.internal` without a proxy and follows no redirect.
    pub fn gcp() -> Self {
        Self::of_service("the metadata server of Google Cloud", Gcp::new(), gcp::TIMEOUT)
    }

    /// Requests JWT-SVIDs from the SPIFFE Workload API, for example of a SPIRE agent (feature `spiffe`). A
    /// request may take 5 seconds.
    ///
    /// As client authentication they are sent with the type `jwt-spiffe`
    /// (draft-ietf-oauth-spiffe-client-auth), as Keycloak expects. For a provider that wants `jwt-bearer`, pass
    /// the [`SpiffeSource`] to [`source`](Self::source).
    #[cfg(feature = "spiffe")]
    pub fn spiffe(agent: SpiffeSource) -> Self {
        match agent.problem() {
            Some(problem) => Self::of(Source::Unusable(problem.to_owned())),
            None => Self {
                assertion_type: JWT_SPIFFE,
                ..Self::of_service("the SPIFFE Workload API", agent, TIMEOUT)
            },
        }
    }

    /// Requests tokens from a source of your own.
    pub fn source(source: impl WorkloadTokenSource) -> Self {
        Self::of_service("the source of workload tokens", source, TIMEOUT)
    }

    /// Sets the audience: a source is asked for it, and a token must have it in `aud`. Default: the issuer of
    /// the provider that gets the token, except for [`azure`](Self::azure) and [`aws`](Self::aws). Set it for
    /// a provider that requires another one, such as `api://AzureADTokenExchange` for Microsoft Entra ID.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Audience::Named(audience.into());
        self
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            audience: Audience::Provider,
            assertion_type: JWT_BEARER,
            cached: CachedTokens::default(),
        }
    }

    /// Creates the token of a service. `name` is the subject of error messages.
    fn of_service(
        name: &'static str,
        service: impl WorkloadTokenSource,
        timeout: Duration,
    ) -> Self {
        Self::of(Source::Service { name, service: Arc::new(service), timeout })
    }

    /// Reads the setting `client.workload_token`.
    pub(crate) fn from_setting(text: &str) -> Result<Self, String> {
        match text {
            "kubernetes" => Ok(Self::kubernetes()),
            "azure" => Ok(Self::azure()),
            "aws" => Ok(Self::aws()),
            "github" => Ok(Self::github_actions()),
            "gcp" => Ok(Self::gcp()),
            #[cfg(feature = "spiffe")]
            "spiffe" => Ok(Self::spiffe(SpiffeSource::from_env())),
            #[cfg(not(feature = "spiffe"))]
            "spiffe" => Err("is `spiffe`, which needs the feature `spiffe` of this crate".to_owned()),
            _ => match text.strip_prefix("file:") {
                Some(path) if Path::new(path).is_absolute() => Ok(Self::file(path)),
                _ => Err("must be `kubernetes`, `azure`, `aws`, `github`, `gcp`, `spiffe` or `file:` and an absolute path".to_owned()),
            },
        }
    }

    /// Checks the source. Reads its file, if it has one.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &self.source {
            Source::File(file) => file.read().map(drop).map_err(|error| error.to_string()),
            Source::Service { .. } => Ok(()),
            Source::Unusable(problem) => Err(problem.clone()),
        }
    }

    /// Returns the `client_assertion_type` of the tokens.
    pub(super) fn assertion_type(&self) -> &'static str {
        self.assertion_type
    }

    /// Returns a token for the provider with this issuer.
    pub(crate) async fn token(
        &self,
        issuer: &str,
        now: SystemTime,
    ) -> Result<Secret, WorkloadTokenError> {
        let rules = Rules { audience: self.audience.of(issuer), now: unix_time(now) };
        match &self.source {
            Source::File(file) => file.token(rules),
            Source::Service { name, service, timeout } => {
                let asked = rules.audience.unwrap_or(issuer);
                self.cached.token(name, service, *timeout, asked, rules.now).await
            }
            Source::Unusable(problem) => Err(WorkloadTokenError::new(problem)),
        }
    }

    /// Forgets this token, if it is cached.
    pub(crate) fn forget(&self, token: &Secret) {
        self.cached.forget(token);
    }
}

impl Audience {
    fn of<'a>(&'a self, issuer: &'a str) -> Option<&'a str> {
        match self {
            Self::Provider => Some(issuer),
            Self::Named(audience) => Some(audience),
            Self::Any => None,
        }
    }
}

/// The rules for a token that is about to be sent.
#[derive(Debug, Clone, Copy)]
struct Rules<'r> {
    /// The audience that it must have.
    audience: Option<&'r str>,
    now: f64,
}

impl Rules<'_> {
    /// Checks the claims of a token. The problem continues a sentence that begins with the source.
    fn check(self, claims: &TokenClaims) -> Result<(), String> {
        claims.check_not_for_api_server(self.audience)?;
        if let Some(audience) = self.audience
            && !claims.has_audience(audience)
        {
            return Err(format!(
                "has a token for {}, and not for {audience:?}: let the platform issue one for {audience:?}, or set the audience of the workload token, if the provider accepts another one",
                claims.audiences_for_errors()
            ));
        }
        match claims.expires() {
            Some(expires) if self.now < expires => Ok(()),
            Some(expires) => Err(format!(
                "has a token that expired {:.0} s ago: the platform no longer renews it (Kubernetes, for example, never renews a file that is mounted with `subPath`)",
                self.now - expires
            )),
            None => {
                Err("has a token without `exp`, which providers refuse (RFC 7523 §3)".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::support::base64url;

    pub(super) const AUDIENCE: &str = "https://idp.example";

    /// The time of the tests, in seconds.
    pub(super) const NOW: u64 = 1_800_000_000;

    /// A server that answers every request with the same bytes, or never.
    pub(super) struct Platform {
        pub(super) url: String,
        requests: Arc<Mutex<Vec<String>>>,
    }

    impl Platform {
        pub(super) async fn answering(answer: Option<String>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let requests = Arc::<Mutex<Vec<String>>>::default();
            let received = requests.clone();
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut request = vec![0; 16 * 1024];
                    let length = stream.read(&mut request).await.unwrap();
                    let request = String::from_utf8_lossy(&request[..length]).into_owned();
                    received.lock().unwrap().push(request);
                    match &answer {
                        Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                        None => std::future::pending().await,
                    }
                }
            });
            Self { url, requests }
        }

        pub(super) fn requests(&self) -> Vec<String> {
            self.requests.lock().unwrap().clone()
        }
    }

    /// Returns an answer with this status line, further headers and body.
    pub(super) fn answer(status: &str, headers: &str, body: &str) -> Option<String> {
        let length = body.len();
        Some(format!(
            "HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    }

    /// Returns an unsigned JWT that looks signed.
    pub(super) fn jwt(audience: &str, exp: u64) -> String {
        let part = |json: serde_json::Value| base64url::encode(json.to_string());
        let claims = serde_json::json!({ "iss": "platform", "aud": audience, "exp": exp });
        format!("{}.{}.c2ln", part(serde_json::json!({ "alg": "RS256" })), part(claims))
    }

    pub(super) async fn ask(token: &WorkloadToken) -> Result<Secret, String> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        token.token(AUDIENCE, now).await.map_err(|error| error.to_string())
    }

    #[test]
    fn file_variables_of_platforms_are_read() {
        let set = |name: &str| Some(format!("/run/{name}"));
        let token = WorkloadToken::file_named_by("X_FILE", set);
        let error = token.check().unwrap_err();
        assert!(error.starts_with("/run/X_FILE cannot be read"), "{error}");
        let error = WorkloadToken::file_named_by("X_FILE", |_| None).check().unwrap_err();
        assert!(error.starts_with("X_FILE is not set"), "{error}");
    }

    #[tokio::test]
    async fn platform_chooses_the_audience_of_its_file() {
        let folder =
            std::env::temp_dir().join(format!("scaikey-auth-token-{}", std::process::id()));
        std::fs::write(&folder, jwt("sts.amazonaws.com", NOW + 9)).unwrap();
        let path = |_: &str| Some(folder.display().to_string());
        let token = WorkloadToken::file_named_by("X_FILE", path);
        ask(&token).await.unwrap();
        let error = ask(&token.audience("sts")).await.unwrap_err();
        assert!(error.contains("not for \"sts\""), "{error}");
        let error = ask(&WorkloadToken::file(&folder)).await.unwrap_err();
        assert!(error.contains(AUDIENCE), "{error}");
        // The default mount is for the API server, whatever its name is.
        let mount = folder.with_extension("d").join("kubernetes.io/serviceaccount");
        std::fs::create_dir_all(&mount).unwrap();
        std::fs::write(mount.join("token"), jwt("api", NOW + 9)).unwrap();
        let error = ask(&WorkloadToken::file(mount.join("token"))).await.unwrap_err();
        assert!(error.contains("for the API server of Kubernetes (\"api\")"), "{error}");
        std::fs::remove_file(&folder).unwrap();
        std::fs::remove_dir_all(folder.with_extension("d")).unwrap();
    }
}
