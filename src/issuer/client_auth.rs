//! [`ClientAuth`]: client authentication at the provider (RFC 6749 §2.3, RFC 7523 §2.2).

use std::time::SystemTime;

use http::HeaderValue;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::signing::SigningKey;
use crate::clock::unix_seconds;
use crate::config::Algorithm;
use crate::support::base64url;
use crate::support::crypto;
use crate::support::secret::{Secret, SecretFileError, SecretSource};

/// The lifetime of a client assertion, in seconds.
const ASSERTION_LIFETIME: u64 = 60;

const EMPTY_SECRET: &str = "has an empty secret: give one, or make the client public (`none`)";

const ASSERTION_TYPE: &str = "client-authentication+jwt";

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The error for credentials that cannot be read or used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ClientAuthError(String);

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
    /// an unencrypted PKCS #8 key (`BEGIN PRIVATE KEY`) for `algorithm`. `key_id` is the key's `kid` at the
    /// provider; `None` sends no `kid`.
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

    /// Sets the `aud` of assertions for [`private_key_jwt`](Self::private_key_jwt). Other methods ignore it.
    /// The default is the issuer, which is the safe choice: two providers with the same `aud` could use each
    /// other's assertions. Set it only for a provider that requires the URL of its token endpoint.
    pub fn assertion_audience(mut self, audience: impl Into<String>) -> Self {
        if let Method::Key(_, aud) = &mut self.method {
            *aud = Some(audience.into());
        }
        self
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
                ClientCredentials {
                    header: None,
                    parameters: vec![
                        id,
                        ("client_assertion_type", Secret::new(JWT_BEARER)),
                        ("client_assertion", Secret::new(assertion)),
                    ],
                }
            }
            Method::None => ClientCredentials { header: None, parameters: vec![id] },
        })
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

pub(super) fn failed(problem: impl Into<String>) -> ClientAuthError {
    ClientAuthError(problem.into())
}
