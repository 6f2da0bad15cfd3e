//! [`LocalMinter`]: signs tokens with the service's own key.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::{MintRequest, Minted, Minter};
use crate::clock::unix_seconds;
use crate::config::{Algorithm, IssuerConfig};
use crate::exchange::ExchangeError;
use crate::identity::IdentityKind;
use crate::issuer::{SecretSource, SigningKey};
use crate::support::crypto;

/// The default lifetime of a token.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// A minter that signs with the service's own key (feature `trust`). Use it for tests, and for
/// services without a provider.
///
/// It mints JWT access tokens (RFC 9068) for 15 minutes, but never for longer than the foreign
/// token. The service accepts them if [`issuer`](Self::issuer) is one of its configured issuers.
/// Services without this issuer do not accept them.
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use scaikey_auth::Auth;
/// use scaikey_auth::config::Algorithm;
/// use scaikey_auth::mint::LocalMinter;
///
/// let pem = std::fs::read_to_string("minter.pem")?; // openssl genpkey -algorithm ed25519
/// let minter = LocalMinter::new("https://vault.example", Algorithm::Ed25519, pem, "minter-1")?;
/// let auth = Auth::builder()
///     .issuer("https://scaikey.example")
///     .issuer(minter.issuer())
///     .audience("scaivault")
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct LocalMinter {
    issuer: String,
    key: SigningKey,
    key_set: String,
    lifetime: Duration,
}

impl LocalMinter {
    /// Creates a minter.
    ///
    /// `issuer` is the value of `iss`; no other issuer may use it. `pem` is an unencrypted PKCS #8
    /// key (`BEGIN PRIVATE KEY`) for this algorithm. If `pem` names a file, only this function
    /// reads it, so that the key always matches [`key_set`](Self::key_set).
    ///
    /// Pass the issuer to [`own_issuer`](crate::trust::TrustEvaluatorBuilder::own_issuer) too, so
    /// that no rule can extend the lifetime or change the scopes of this service's tokens.
    ///
    /// # Errors
    /// If the key cannot be read, or is not for this algorithm.
    pub fn new(
        issuer: impl Into<String>,
        algorithm: Algorithm,
        pem: impl Into<SecretSource>,
        key_id: impl Into<String>,
    ) -> Result<Self, ExchangeError> {
        let key = SigningKey::new(algorithm, pem.into(), Some(key_id.into())).loaded()?;
        let key_set = json!({ "keys": [key.public_jwk()?] }).to_string();
        Ok(Self { issuer: issuer.into(), key, key_set, lifetime: DEFAULT_LIFETIME })
    }

    /// Sets the lifetime of tokens. Default: 15 minutes. Fractions of a second are dropped. A token
    /// never outlives the foreign token.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Returns the configuration of this issuer, for
    /// [`AuthBuilder::issuer`](crate::AuthBuilder::issuer). It contains the public key, so no key
    /// is fetched. All its identities are [workloads](IdentityKind::Workload).
    pub fn issuer(&self) -> IssuerConfig {
        let mut issuer =
            IssuerConfig::new(&self.issuer).keys(&self.key_set).algorithms([self.key.algorithm()]);
        issuer.claims.kind = Some(IdentityKind::Workload);
        issuer
    }

    /// Returns the public key as a JWK set (RFC 7517).
    pub fn key_set(&self) -> &str {
        &self.key_set
    }
}

#[async_trait]
impl Minter for LocalMinter {
    async fn mint(&self, request: &MintRequest<'_>) -> Result<Minted, ExchangeError> {
        let granted = request.granted;
        let id =
            crypto::random_id().map_err(|error| ExchangeError::ClientAuth(error.to_string()))?;
        let now = unix_seconds(request.now);
        let exp = now.saturating_add(self.lifetime.as_secs());
        // The result is in the past if the foreign token has expired but is still within the
        // leeway.
        let exp = exp.min(unix_seconds(granted.expires_at));
        let lifetime = exp.saturating_sub(now);
        let claims = json!({
            "iss": self.issuer,
            "sub": granted.identity,
            "aud": request.audience,
            "client_id": granted.identity,
            "tenant_id": granted.tenant,
            "scope": granted.scopes.as_str(),
            "jti": id,
            "iat": now,
            "exp": exp,
        });
        let token = self.key.sign("at+jwt", &claims)?;
        Ok(Minted::new(token, Some(Duration::from_secs(lifetime)), granted.scopes.clone()))
    }
}
