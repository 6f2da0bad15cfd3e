//! [`LocalMinter`]: the service mints, with a key of its own.

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

/// A token lives for as long at most.
const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Mints with a key of the service's own (feature `trust`): for tests, and where the provider cannot be asked.
///
/// Access tokens as RFC 9068 has them, for 15 minutes, and never longer than the foreign token. The
/// service believes them once it has [`issuer`](Self::issuer) among its issuers; nobody else does.
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
    /// `issuer` is what `iss` says, and no other issuer's; `pem` an unencrypted PKCS #8 key
    /// (`BEGIN PRIVATE KEY`) for this algorithm. A file is read here and not again, so that what
    /// signs is what [`key_set`](Self::key_set) publishes.
    ///
    /// Name it to the policy as well ([`own_issuer`](crate::trust::TrustEvaluatorBuilder::own_issuer)), so
    /// that no rule can give a token of this service's another life or other scopes.
    ///
    /// # Errors
    /// When the key cannot be read, or is not for this algorithm.
    pub fn new(
        issuer: impl Into<String>,
        algorithm: Algorithm,
        pem: impl Into<SecretSource>,
        key_id: impl Into<String>,
    ) -> Result<Self, ExchangeError> {
        let key = SigningKey::new(algorithm, pem.into(), Some(key_id.into())).loaded()?;
        let key_set = json!({ "keys": [key.public_jwk()?] }).to_string();
        Ok(Self { issuer: issuer.into(), key, key_set, lifetime: LIFETIME })
    }

    /// How long a token lives, in whole seconds, if the foreign one does. Default 15 minutes.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// This service as an issuer of its own: with its key, so that nothing is fetched. Everybody it
    /// vouches for is a [workload](IdentityKind::Workload), whatever their `sub`.
    pub fn issuer(&self) -> IssuerConfig {
        let mut issuer =
            IssuerConfig::new(&self.issuer).keys(&self.key_set).algorithms([self.key.algorithm()]);
        issuer.claims.kind = Some(IdentityKind::Workload);
        issuer
    }

    /// The public key as a key set (RFC 7517).
    pub fn key_set(&self) -> &str {
        &self.key_set
    }
}

#[async_trait]
impl Minter for LocalMinter {
    async fn mint(&self, order: &MintRequest<'_>) -> Result<Minted, ExchangeError> {
        let granted = order.granted;
        let id =
            crypto::random_id().map_err(|error| ExchangeError::ClientAuth(error.to_string()))?;
        let now = unix_seconds(order.now);
        let exp = now.saturating_add(self.lifetime.as_secs());
        // Which is over already when the foreign token was taken within the leeway.
        let exp = exp.min(unix_seconds(granted.expires_at));
        let life = exp.saturating_sub(now);
        let claims = json!({
            "iss": self.issuer,
            "sub": granted.identity,
            "aud": order.audience,
            "client_id": granted.identity,
            "tenant_id": granted.tenant,
            "scope": granted.scopes.as_str(),
            "jti": id,
            "iat": now,
            "exp": exp,
        });
        let token = self.key.sign("at+jwt", &claims)?;
        Ok(Minted::new(token, Some(Duration::from_secs(life)), granted.scopes.clone()))
    }
}
