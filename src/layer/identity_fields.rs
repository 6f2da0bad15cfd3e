//! [`IdentityFields`]: the caller in the fields of the current `tracing` span.

use std::fmt;
use std::sync::Arc;

use crate::auth::AuthContext;
use crate::config::{ConfigError, Fault};
use crate::identity::{IdentityKey, TenantId};
use crate::support::base64url;
use crate::support::crypto::{self, HmacKey};
use crate::support::secret::Secret;
use crate::support::telemetry;

/// Minimum length of a key for pseudonyms, in bytes. A shorter one could be guessed.
const MIN_KEY_BYTES: usize = 32;

/// Length of a pseudonym before it is encoded: 128 bits, so that two callers never share one.
const PSEUDONYM_BYTES: usize = 16;

/// The fields that [`AuthLayer::record_identity`](crate::AuthLayer::record_identity) records on the
/// current `tracing` span, if the span declares them.
///
/// Both variants also record `tenant`: the id of the tenant that the request acts in.
///
/// ```
/// use scaikey_auth::layer::{IdentityFields, Pseudonyms};
/// use scaikey_auth::{Auth, AuthLayer, ConfigError, Secret};
///
/// /// `key`: from `openssl rand -base64 32`, the same in all processes.
/// fn layer(auth: &Auth, key: &Secret) -> Result<AuthLayer, ConfigError> {
///     let fields = IdentityFields::Pseudonym(Pseudonyms::new(key)?);
///     Ok(auth.layer().record_identity(fields))
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum IdentityFields {
    /// `enduser.pseudo.id` (OpenTelemetry): a pseudonym of the caller. It is the same for all requests
    /// of a caller, and reveals neither the subject nor the name to readers without the key.
    Pseudonym(Pseudonyms),
    /// `user.id` (OpenTelemetry): the subject of the token, unchanged. It is personal data, and with
    /// some providers it is an e-mail address. It does not identify a caller by itself: two issuers
    /// may use the same subject.
    UserId,
}

impl IdentityFields {
    /// Records the fields on the current span.
    pub(super) fn record(&self, context: &AuthContext) {
        let identity = context.identity();
        let tenant = context.tenant().map(|tenant| tenant.id().as_str());
        match self {
            Self::Pseudonym(pseudonyms) => {
                let pseudonym = || pseudonyms.of(&identity.key());
                telemetry::record_caller("enduser.pseudo.id", pseudonym, tenant);
            }
            Self::UserId => {
                telemetry::record_caller("user.id", || identity.subject().to_owned(), tenant);
            }
        }
    }
}

/// Computes pseudonyms of callers: an HMAC-SHA-256 over issuer, tenant, kind and subject. Clones share
/// the key.
///
/// A pseudonym is personal data, too, as long as the key exists (GDPR, recital 26): with the key,
/// and only with it, the pseudonym of a known caller can be computed. When the key is replaced, all
/// callers get other pseudonyms, and lines of before and after cannot be linked.
///
/// To find the lines of a caller, compute its pseudonym:
///
/// ```
/// use scaikey_auth::layer::Pseudonyms;
/// use scaikey_auth::testing::identity;
/// use scaikey_auth::{ConfigError, Secret};
/// use serde_json::json;
///
/// # fn main() -> Result<(), ConfigError> {
/// // From `openssl rand -base64 32`.
/// let key = Secret::new("u0qJ8Jv5Jm0TtB5yJx2hQm1l8m6p3r5wA1sD4fG7hJk=");
/// let pseudonyms = Pseudonyms::new(&key)?;
/// let alice = identity(json!({ "iss": "https://id.example", "sub": "alice" }));
/// println!("grep {} service.log", pseudonyms.of(&alice.key()));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Pseudonyms(Arc<HmacKey>);

impl Pseudonyms {
    /// Creates pseudonyms under `key`: at least 32 bytes, such as a line of
    /// `openssl rand -base64 32`. All processes of a service need the same key, so that a caller has
    /// one pseudonym in all their logs. *Not* checked: that the key is random.
    ///
    /// # Errors
    /// If the key has less than 32 bytes.
    pub fn new(key: &Secret) -> Result<Self, ConfigError> {
        let key = key.expose().trim_end().as_bytes();
        if key.len() < MIN_KEY_BYTES {
            let problem = "is shorter than 32 bytes: create one with `openssl rand -base64 32`";
            return Err(ConfigError::one(Fault::new("the key of pseudonyms", problem)));
        }
        Ok(Self(Arc::new(HmacKey::new(key))))
    }

    /// Creates pseudonyms under a random key of this process, which is stored nowhere. A caller has
    /// another pseudonym in each process, and after each restart. So lines can be linked only within
    /// one process, and the pseudonym of a known caller cannot be computed later.
    ///
    /// # Errors
    /// If the operating system cannot supply random bytes.
    pub fn random() -> Result<Self, ConfigError> {
        let key = crypto::random::<MIN_KEY_BYTES>().map_err(|error| {
            ConfigError::one(Fault::new("the key of pseudonyms", error.to_string()))
        })?;
        Ok(Self(Arc::new(HmacKey::new(&key))))
    }

    /// Returns the pseudonym of a caller: 22 characters of base64url.
    pub fn of(&self, caller: &IdentityKey) -> String {
        let tenant = caller.tenant_id.as_ref().map_or("", TenantId::as_str);
        let parts = ["pseudonym", &*caller.issuer, tenant, caller.kind.as_str(), &*caller.subject];
        let mac = self.0.mac_of_parts(parts);
        base64url::encode(mac.get(..PSEUDONYM_BYTES).unwrap_or_default())
    }
}

/// Prints no key.
impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pseudonyms").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityKind;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn key(issuer: &str, tenant: Option<&str>, kind: IdentityKind, subject: &str) -> IdentityKey {
        let tenant_id = tenant.map(|tenant| TenantId::new(tenant).unwrap());
        IdentityKey { issuer: issuer.into(), tenant_id, kind, subject: subject.into() }
    }

    #[test]
    fn every_part_of_a_caller_counts() {
        let pseudonyms = Pseudonyms::new(&Secret::new(KEY)).unwrap();
        let user = IdentityKind::User;
        let callers = [
            key("i", Some("t"), user, "s"),
            key("is", Some("t"), user, ""),
            key("i", None, user, "s"),
            key("i", Some("ts"), user, ""),
            key("i", Some("t"), IdentityKind::ServiceAccount, "s"),
        ];
        let all: std::collections::BTreeSet<_> =
            callers.iter().map(|caller| pseudonyms.of(caller)).collect();
        assert_eq!(all.len(), callers.len());
        assert!(all.iter().all(|pseudonym| pseudonym.len() == 22));
        // The same in another process with the same key, and after an update of this crate.
        let [first, ..] = &callers;
        assert_eq!(pseudonyms.of(first), "N5YtCym-7TTBXMPDeIWNPw");
        assert_ne!(pseudonyms.of(first), Pseudonyms::random().unwrap().of(first));
    }

    #[test]
    fn short_key_is_refused() {
        let error = Pseudonyms::new(&Secret::new(&KEY[1..])).unwrap_err().to_string();
        assert!(error.contains("openssl rand") && !error.contains(&KEY[1..]), "{error}");
        let padded = Secret::new(format!("{}\n", &KEY[1..]));
        assert!(Pseudonyms::new(&padded).is_err());
    }
}
