//! Secrets in a configuration: each is a value, or the path of a file with the value.

use std::path::PathBuf;

#[cfg(feature = "jwe")]
use super::DecryptionKeys;
use super::{AuthMode, ClientConfig, EndpointsConfig, Fault, IssuerConfig, PolicyStoreKind};
use crate::support::seal::{InvalidSealingKeys, SealingKeys};
use crate::support::secret::{Secret, SecretSource};

/// Returns the source of the secret `field`. Its file is `field` followed by `_file`.
fn source(
    field: &str,
    value: Option<&Secret>,
    file: Option<&PathBuf>,
) -> Result<Option<SecretSource>, Fault> {
    match (value, file) {
        (Some(_), Some(_)) => {
            let name = field.rsplit('.').next().unwrap_or(field);
            let problem = format!("and {name} are both set: set only one of them");
            Err(Fault::new(file_field(field), problem))
        }
        (Some(secret), None) if secret.expose().is_empty() => {
            Err(Fault::new(field, "is empty: leave it out, or give the secret"))
        }
        (Some(secret), None) => Ok(Some(SecretSource::Value(secret.clone()))),
        (None, Some(file)) => Ok(Some(SecretSource::File(file.clone()))),
        (None, None) => Ok(None),
    }
}

pub(super) fn file_field(field: &str) -> String {
    format!("{field}_file")
}

/// Returns the secret `field`. Reads the file, if there is one.
fn secret(
    field: &str,
    value: Option<&Secret>,
    file: Option<&PathBuf>,
) -> Result<Option<Secret>, Fault> {
    let Some(source) = source(field, value, file)? else { return Ok(None) };
    match source.read() {
        Ok(secret) => Ok(Some(secret)),
        Err(error) => {
            let problem = format!("names a file that cannot be used: {error}");
            Err(Fault::new(file_field(field), problem))
        }
    }
}

fn sealing_keys(
    field: &str,
    value: Option<&Secret>,
    file: Option<&PathBuf>,
) -> Result<Option<SealingKeys>, Fault> {
    let Some(source) = source(field, value, file)? else { return Ok(None) };
    let name = if file.is_some() { file_field(field) } else { field.to_owned() };
    let fault = |error: InvalidSealingKeys| Fault::new(name, error.problem());
    SealingKeys::from_source(&source).map(Some).map_err(fault)
}

impl IssuerConfig {
    /// Adds the decryption keys of the configuration to those of the builder. Reads their file, if there is one.
    #[cfg(feature = "jwe")]
    pub(crate) fn with_decryption_keys(mut self, nth: usize) -> Result<Self, Fault> {
        let (value, file) = (self.decryption_keys.take(), self.decryption_keys_file.take());
        let field = format!("issuers[{nth}].decryption_keys");
        let source = source(&field, value.as_ref(), file.as_ref())?;
        let keys = source.map(DecryptionKeys::jwks).transpose();
        self.decryption.extend(keys.map_err(|error| error.into_fault(&field))?);
        Ok(self)
    }

    #[cfg(not(feature = "jwe"))]
    pub(crate) fn with_decryption_keys(self, nth: usize) -> Result<Self, Fault> {
        let field = match (&self.decryption_keys, &self.decryption_keys_file) {
            (Some(_), _) => "decryption_keys",
            (None, Some(_)) => "decryption_keys_file",
            (None, None) => return Ok(self),
        };
        // Not only a notice: the tokens of this issuer may have to be encrypted.
        let problem = "needs the cargo feature `jwe` of scaikey-auth";
        Err(Fault::new(format!("issuers[{nth}].{field}"), problem))
    }
}

impl IssuerConfig {
    /// Returns the fault of a decryption key that tokens name as they name a different one of `other`, which may be
    /// the same issuer.
    #[cfg(feature = "jwe")]
    pub(crate) fn confusable_key(&self, other: &Self, nth: usize) -> Option<Fault> {
        let key = self.decryption.iter().find_map(|it| it.confusable_with(&other.decryption))?;
        let (kid, alg, other) = (key.kid(), key.algorithm().name(), other.expected());
        let problem = format!(
            "have a key with the `kid` {kid:?} and the `alg` {alg}, and so has {other}, but the keys differ: tokens name a key by these, so give one of them another `kid`, also at its provider"
        );
        Some(Fault::new(format!("issuers[{nth}].decryption_keys"), problem))
    }

    #[cfg(not(feature = "jwe"))]
    pub(crate) fn confusable_key(&self, _: &Self, _: usize) -> Option<Fault> {
        None
    }

    /// Returns whether all decryption keys are also those of `other`.
    pub(crate) fn has_only_keys_of(&self, other: &Self) -> bool {
        #[cfg(feature = "jwe")]
        if !self.decryption.iter().all(|keys| keys.are_among(&other.decryption)) {
            return false;
        }
        let files = |it: &Self| (it.decryption_keys.clone(), it.decryption_keys_file.clone());
        files(self) == files(other)
    }
}

impl ClientConfig {
    /// Returns the source of the client secret. The file is read, to find faults early.
    pub(crate) fn secret_source(&self) -> Result<Option<SecretSource>, Fault> {
        let (value, file) = (self.secret.as_ref(), self.secret_file.as_ref());
        secret("client.secret", value, file)?;
        source("client.secret", value, file)
    }

    /// Returns whether a token of the platform replaces the secret.
    pub(crate) fn has_workload_token(&self) -> bool {
        self.assertion_file.is_some() || self.workload_token.is_some()
    }

    /// Returns the URLs of the Redis server.
    pub(crate) fn redis_urls(&self) -> Result<Option<SecretSource>, Fault> {
        let (value, file) = (self.redis_url.as_ref(), self.redis_url_file.as_ref());
        secret("client.redis_url", value, file)?;
        source("client.redis_url", value, file)
    }

    /// Returns the keys that seal tokens in Redis.
    pub(crate) fn sealing_keys(&self) -> Result<Option<SealingKeys>, Fault> {
        sealing_keys("client.cache_keys", self.cache_keys.as_ref(), self.cache_keys_file.as_ref())
    }
}

impl EndpointsConfig {
    /// Returns the keys that seal session cookies.
    pub(crate) fn sealing_keys(&self) -> Result<Option<SealingKeys>, Fault> {
        let (value, file) = (self.session_keys.as_ref(), self.session_keys_file.as_ref());
        sealing_keys("endpoints.session_keys", value, file)
    }

    /// Returns whether sessions are configured.
    pub(crate) fn has_sessions(&self) -> bool {
        self.session_keys.is_some() || self.session_keys_file.is_some()
    }
}

impl super::AuthConfig {
    /// Returns the connection string of the database.
    pub(crate) fn database(&self) -> Result<Option<Secret>, Fault> {
        secret("database_url", self.database_url.as_ref(), self.database_url_file.as_ref())
    }

    /// Returns the faults of files with secrets. The parts of the service read only the files that they use, so
    /// a service that only verifies tokens would not notice a wrong path.
    pub(crate) fn faults_of_secret_files(&self) -> Vec<Fault> {
        let (client, endpoints) = (&self.client, &self.endpoints);
        let files = [
            ("client.secret", &client.secret_file),
            ("client.key", &client.key_file),
            ("client.redis_url", &client.redis_url_file),
            ("client.cache_keys", &client.cache_keys_file),
            ("endpoints.session_keys", &endpoints.session_keys_file),
        ];
        // Mock mode runs on machines without secrets.
        let files = files.into_iter().filter(|_| self.mode != AuthMode::Mock);
        files.filter_map(|(field, file)| secret(field, None, file.as_ref()).err()).collect()
    }

    /// Returns whether the tenants are in the database. It may be there for the trust policy only: then the lists of
    /// the issuers, or `any_tenant`, decide about tenants.
    pub(crate) fn has_tenant_table(&self) -> bool {
        let has_database = self.database_url.is_some() || self.database_url_file.is_some();
        let has_policy = self.endpoints.trust_store == Some(PolicyStoreKind::Database);
        let has_lists = || self.issuers.iter().all(|issuer| !issuer.tenants.is_empty());
        let decides_otherwise = self.any_tenant || (!self.issuers.is_empty() && has_lists());
        has_database && !(has_policy && decides_otherwise)
    }
}
