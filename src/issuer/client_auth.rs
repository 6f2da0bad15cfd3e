//! [`ClientAuth`]: client authentication at the provider (RFC 6749 §2.3, RFC 7523 §2.2).

use std::time::SystemTime;

use http::HeaderValue;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::signing::SigningKey;
use super::workload::{JWT_BEARER, WorkloadToken, WorkloadTokenError};
use crate::clock::unix_seconds;
use crate::config::{Algorithm, ClientAuthMethod, ClientConfig, Fault};
use crate::support::base64url;
use crate::support::crypto;
use crate::support::secret::{Secret, SecretFileError, SecretSource};

/// The lifetime of a client assertion, in seconds.
const ASSERTION_LIFETIME: u64 = 60;

const EMPTY_SECRET: &str = "has an empty secret: give one, or make the client public (`none`)";

/// The form parameter of an assertion (RFC 7521 §4.2).
const ASSERTION: &str = "client_assertion";

const ASSERTION_TYPE: &str = "client-authentication+jwt";

/// The error for credentials that cannot be read or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientAuthError {
    #[error("{0}")]
    Unusable(String),
    /// The platform gives no token at present.
    #[error(transparent)]
    NoWorkloadToken(#[from] WorkloadTokenError),
}

impl From<SecretFileError> for ClientAuthError {
    fn from(error: SecretFileError) -> Self {
        failed(error.to_string())
    }
}

/// A client's id and its credentials. The credentials never appear in a URL, a log line or an error.
///
/// ```
/// use scaikey_auth::TokenExchangeClient;
/// use scaikey_auth::issuer::ClientAuth;
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let client = TokenExchangeClient::builder("https://scaikey.example")
///     .client_auth(ClientAuth::basic("scaidrive", "the secret"))
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct ClientAuth {
    id: String,
    method: Method,
}

/// The credentials for one request: a header or form parameters.
#[derive(Debug)]
pub(crate) struct ClientCredentials {
    header: Option<HeaderValue>,
    parameters: Vec<(&'static str, Secret)>,
}

impl ClientCredentials {
    /// Returns the value of the header `Authorization`, if the method needs it.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        self.header.clone()
    }

    fn assertion(&self) -> Option<&Secret> {
        let named = self.parameters.iter().find(|(name, _)| *name == ASSERTION);
        named.map(|(_, assertion)| assertion)
    }

    /// Appends the form parameters that the method needs.
    pub(crate) fn append_to(&self, form: &mut Serializer<'_, String>) {
        form.extend_pairs(self.parameters.iter().map(|(name, value)| (name, value.expose())));
    }
}

#[derive(Debug, Clone)]
enum Method {
    Basic(SecretSource),
    Post(SecretSource),
    Key(SigningKey, Option<String>),
    Assertion(WorkloadToken),
    None,
}

impl ClientAuth {
    /// Creates a client that authenticates with `client_secret_basic`: HTTP Basic with the form-encoded id
    /// and secret (RFC 6749 §2.3.1). Use this method unless the provider requires another one.
    pub fn basic(id: impl Into<String>, secret: impl Into<SecretSource>) -> Self {
        Self { id: id.into(), method: Method::Basic(secret.into()) }
    }

    /// Creates a client that authenticates with `client_secret_post`: the secret is a form parameter. Use it
    /// for providers without HTTP Basic.
    pub fn post(id: impl Into<String>, secret: impl Into<SecretSource>) -> Self {
        Self { id: id.into(), method: Method::Post(secret.into()) }
    }

    /// Creates a client that authenticates with `private_key_jwt`: a signed assertion instead of a secret.
    /// Each assertion is used once, expires after 60 seconds, and has the issuer as its only `aud`. `pem` is
    /// an unencrypted PKCS #8 key (`BEGIN PRIVATE KEY`) for `algorithm`; of ML-DSA, in any form of RFC 9881
    /// §6. `key_id` is the key's `kid` at the provider; `None` sends no `kid`.
    ///
    /// ```
    /// use scaikey_auth::config::Algorithm;
    /// use scaikey_auth::issuer::{ClientAuth, SecretSource};
    ///
    /// // The file is read for each request to the provider, so a new key is used from the next one on.
    /// let pem = SecretSource::File("/run/secrets/scaidrive.pem".into());
    /// let client = ClientAuth::private_key_jwt("scaidrive", Algorithm::ES256, Some("2026-11"), pem);
    /// ```
    pub fn private_key_jwt(
        id: impl Into<String>,
        algorithm: Algorithm,
        key_id: Option<&str>,
        pem: impl Into<SecretSource>,
    ) -> Self {
        let key = SigningKey::new(algorithm, pem.into(), key_id.map(str::to_owned));
        Self { id: id.into(), method: Method::Key(key, None) }
    }

    /// Creates a client that authenticates with a token of its platform, and so needs no secret (RFC 7523
    /// §2.2): the token is sent as `client_assertion`, with the client's id. The provider must trust the
    /// issuer of the token, and map its `sub` to this client: see
    /// [manual::exchange](crate::manual::exchange#without-a-client-secret).
    ///
    /// ```
    /// use scaikey_auth::issuer::{ClientAuth, WorkloadToken};
    ///
    /// let pod = ClientAuth::assertion("scaiwave", WorkloadToken::file("/var/run/secrets/tokens/idp"));
    /// ```
    pub fn assertion(id: impl Into<String>, token: WorkloadToken) -> Self {
        Self { id: id.into(), method: Method::Assertion(token) }
    }

    /// Sets the `aud` of assertions for [`private_key_jwt`](Self::private_key_jwt) and
    /// [`assertion`](Self::assertion), where it is [`WorkloadToken::audience`]. Other methods ignore it.
    /// The default is the issuer, which is the safe choice: two providers with the same `aud` could use each
    /// other's assertions. Set it only for a provider that requires the URL of its token endpoint.
    pub fn assertion_audience(mut self, audience: impl Into<String>) -> Self {
        self.method = match self.method {
            Method::Key(key, _) => Method::Key(key, Some(audience.into())),
            Method::Assertion(token) => Method::Assertion(token.audience(audience)),
            other => other,
        };
        self
    }

    /// Reads the client authentication from the configuration.
    pub(crate) fn from_config(client: &ClientConfig) -> Result<Self, Fault> {
        let fault = |field: &str, problem: &str| Fault::new(format!("client.{field}"), problem);
        let id = client.id.as_deref().filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| fault("id", "is missing: set this service's client_id"))?;
        let secret = || client.secret_source()?.ok_or_else(|| fault("secret", NO_SECRET));
        let auth = match (client.auth, workload_token(client)?) {
            (ClientAuthMethod::Basic | ClientAuthMethod::Assertion, Some(token)) => {
                Self::assertion(id, token)
            }
            (_, Some(_)) => return Err(fault("auth", ASSERTION_EXCLUDES)),
            (ClientAuthMethod::Assertion, None) => return Err(fault("workload_token", NO_TOKEN)),
            (ClientAuthMethod::Basic, None) => Self::basic(id, secret()?),
            (ClientAuthMethod::Post, None) => Self::post(id, secret()?),
            (ClientAuthMethod::None, None) => Self::none(id),
            (ClientAuthMethod::PrivateKeyJwt, None) => {
                let file = client.key_file.clone().ok_or_else(|| fault("key_file", NO_KEY_FILE))?;
                let (algorithm, kid) = (client.key_algorithm, client.key_id.as_deref());
                Self::private_key_jwt(id, algorithm, kid, SecretSource::File(file))
            }
        };
        Ok(match &client.assertion_audience {
            Some(audience) => auth.assertion_audience(audience),
            None => auth,
        })
    }

    /// Creates a public client, which has no credentials. It cannot use the client credentials grant.
    pub fn none(id: impl Into<String>) -> Self {
        Self { id: id.into(), method: Method::None }
    }

    /// Returns the client's id.
    pub fn client_id(&self) -> &str {
        &self.id
    }

    pub(crate) fn is_public(&self) -> bool {
        matches!(self.method, Method::None)
    }

    /// Checks the credentials. Reads them, if they are in a file.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &self.method {
            Method::Basic(secret) | Method::Post(secret) => match secret.read() {
                Ok(secret) if secret.expose().is_empty() => Err(EMPTY_SECRET.to_owned()),
                Ok(_) => Ok(()),
                Err(error) => Err(format!("names a file that cannot be used: {error}")),
            },
            Method::Key(key, _) => key.check(),
            Method::Assertion(token) => token.check(),
            Method::None => Ok(()),
        }
    }

    /// Returns the credentials for one request to the provider. `issuer` is the audience of an assertion,
    /// unless [`assertion_audience`](Self::assertion_audience) set another one.
    pub(crate) async fn credentials(
        &self,
        issuer: &str,
        now: SystemTime,
    ) -> Result<ClientCredentials, ClientAuthError> {
        let id = ("client_id", Secret::new(self.id.as_str()));
        Ok(match &self.method {
            Method::Basic(secret) => ClientCredentials {
                header: Some(self.basic_header(&secret.read()?)?),
                parameters: Vec::new(),
            },
            Method::Post(secret) => ClientCredentials {
                header: None,
                parameters: vec![id, ("client_secret", secret.read()?)],
            },
            Method::Key(key, audience) => {
                let audience = audience.as_deref().unwrap_or(issuer);
                let assertion = key.sign(ASSERTION_TYPE, &self.assertion_claims(audience, now)?)?;
                self.assertion_credentials(JWT_BEARER, assertion.into())
            }
            Method::Assertion(token) => {
                let assertion = token.token(issuer, now).await?;
                self.assertion_credentials(token.assertion_type(), assertion)
            }
            Method::None => ClientCredentials { header: None, parameters: vec![id] },
        })
    }

    /// Returns other credentials than `refused`, if the source of the workload token has another token by
    /// now.
    pub(super) async fn other_credentials(
        &self,
        refused: &ClientCredentials,
        issuer: &str,
        now: SystemTime,
    ) -> Result<Option<ClientCredentials>, ClientAuthError> {
        let Method::Assertion(token) = &self.method else { return Ok(None) };
        refused.assertion().into_iter().for_each(|assertion| token.forget(assertion));
        let others = self.credentials(issuer, now).await?;
        Ok((others.assertion() != refused.assertion()).then_some(others))
    }

    fn assertion_credentials(&self, kind: &str, assertion: Secret) -> ClientCredentials {
        let parameters = vec![
            ("client_id", Secret::new(self.id.as_str())),
            ("client_assertion_type", Secret::new(kind)),
            (ASSERTION, assertion),
        ];
        ClientCredentials { header: None, parameters }
    }

    fn basic_header(&self, secret: &Secret) -> Result<HeaderValue, ClientAuthError> {
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encoded(&self.id), encoded(secret.expose()));
        let value = format!("Basic {}", base64url::encode_standard(pair));
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| failed("the client id and secret cannot be sent in a header"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn assertion_claims(
        &self,
        audience: &str,
        now: SystemTime,
    ) -> Result<serde_json::Value, ClientAuthError> {
        let id = crypto::random_id().map_err(|error| failed(error.to_string()))?;
        let now = unix_seconds(now);
        Ok(serde_json::json!({
            "iss": self.id, "sub": self.id, "aud": audience, "jti": id,
            "iat": now, "exp": now + ASSERTION_LIFETIME,
        }))
    }
}

const NO_SECRET: &str = "is missing: set secret or secret_file (`P_CLIENT_SECRET_FILE`), or a workload token \
                         (`P_WORKLOAD_TOKEN`), or, for a public client, auth = none (`P_CLIENT_AUTH=none`)";
const NO_KEY_FILE: &str = "is missing: private_key_jwt needs the file with the private key";
const NO_TOKEN: &str = "is missing: auth = assertion needs workload_token (`P_WORKLOAD_TOKEN`) or assertion_file (`P_CLIENT_ASSERTION_FILE`)";
const ASSERTION_EXCLUDES: &str = "must be `assertion`, or left out, if there is a workload token";

/// Reads the workload token from the configuration.
fn workload_token(client: &ClientConfig) -> Result<Option<WorkloadToken>, Fault> {
    let fault = |field: &str, problem: String| Fault::new(format!("client.{field}"), problem);
    let (field, token) = match (&client.assertion_file, &client.workload_token) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let problem = "and assertion_file are both set: set only one of them";
            return Err(fault("workload_token", problem.to_owned()));
        }
        (Some(file), None) => ("assertion_file", WorkloadToken::file(file)),
        (None, Some(source)) => {
            let token = WorkloadToken::from_setting(source);
            ("workload_token", token.map_err(|problem| fault("workload_token", problem))?)
        }
    };
    let secrets =
        [("secret", client.secret.is_some()), ("secret_file", client.secret_file.is_some())];
    if let Some((secret, _)) = secrets.into_iter().find(|(_, is_set)| *is_set) {
        let problem = format!("and {field} are both set: a workload token replaces the secret");
        return Err(fault(secret, problem));
    }
    token.check().map_err(|problem| fault(field, format!("cannot be used: {problem}")))?;
    Ok(Some(token))
}

pub(super) fn failed(problem: impl Into<String>) -> ClientAuthError {
    ClientAuthError::Unusable(problem.into())
}
