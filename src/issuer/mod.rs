//! [`Issuers`]: the issuers a service trusts, by the `iss` of their tokens.

mod budget;
mod client_auth;
mod ecdsa;
mod grounds;
mod health;
mod http;
mod jwk;
mod keys;
mod metadata;
mod pem;
mod per_tenant;
mod set;
mod signing;
mod source;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::clock::{Clock, SystemClock};
use crate::config::{Algorithm, AuthConfig, ConfigError, Fault, IssuerConfig};
use crate::error::AuthError;
use crate::identity::TenantId;

pub use client_auth::{ClientAuth, SecretSource};
pub use health::{IssuerHealth, KeyState, UnusableKey};
pub use per_tenant::TenantIssuers;

pub(crate) use client_auth::Unproven;
#[cfg(feature = "testing")]
pub(crate) use foreign::{read_given_keys, read_key, read_key_set, read_metadata};
pub(crate) use grounds::Grounds;
pub(crate) use http::{FetchError, Http, Limits};
pub(crate) use jwk::{CertificateHash, KeyQuery, MAX_KID};
pub(crate) use keys::{Keys, NoNewKeys, Renewed, Verdict};
pub(crate) use metadata::{Endpoints, well_known};
pub(crate) use per_tenant::PerTenant;
#[cfg(feature = "trust")]
pub(crate) use signing::SigningKey;

/// One issuer, ready to verify tokens.
#[derive(Debug)]
pub(crate) struct Issuer {
    /// What `iss` says.
    pub(crate) name: Arc<str>,
    pub(crate) config: IssuerConfig,
    pub(crate) audience: Box<[Box<str>]>,
    pub(crate) keys: Arc<Keys>,
    /// The one tenant this issuer speaks for, if it is a per-tenant one.
    pub(crate) tenant: Option<TenantId>,
}

/// What `iss` leads to.
pub(crate) enum Found {
    Issuer(Arc<Issuer>),
    /// An issuer of the right shape whose configuration is not at hand yet.
    NotYet(Arc<PerTenant>, TenantId),
    Unknown,
}

/// The issuers a service trusts. A handle: clones share the list.
///
/// Issuers can be added and removed while requests run. A token is matched with its issuer by
/// `iss`, byte for byte, before anything else happens to it and without any network traffic.
#[derive(Debug, Clone)]
pub struct Issuers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    listed: ArcSwap<Listed>,
    /// How often an `iss` came to mean something else than before.
    changes: AtomicU64,
    opener: Arc<Opener>,
}

#[derive(Debug, Clone, Default)]
struct Listed {
    by_name: HashMap<Arc<str>, Arc<Issuer>>,
    per_tenant: Vec<Arc<PerTenant>>,
}

impl Issuers {
    /// The issuers of a configuration.
    ///
    /// # Errors
    /// When an issuer lacks an audience or has a URL that cannot be used.
    pub fn new(config: &AuthConfig) -> Result<Self, ConfigError> {
        Self::with_clock(config, Arc::new(SystemClock::default()))
    }

    /// [`new`](Self::new) with a clock of your own.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_clock(config: &AuthConfig, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        Self::through(config, Arc::default(), clock)
    }

    /// With a door to the network that others use, too: each reads the system's certificates.
    pub(crate) fn through(
        config: &AuthConfig,
        http: Arc<Http>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        check(config)?;
        let opener = Opener {
            http,
            clock,
            audience: config.audience.clone(),
            any_tenant: config.any_tenant || config.database_url.is_some(),
        };
        let issuers = Self(Arc::new(Inner {
            listed: ArcSwap::default(),
            changes: AtomicU64::new(0),
            opener: Arc::new(opener),
        }));
        config.issuers.iter().try_for_each(|issuer| issuers.add(issuer.clone()))?;
        Ok(issuers)
    }

    /// Adds an issuer, or replaces the one with the same `iss`; its keys are fetched when its first
    /// token arrives.
    ///
    /// # Errors
    /// When it lacks an audience or has a URL that cannot be used.
    pub fn add(&self, issuer: impl Into<IssuerConfig>) -> Result<(), ConfigError> {
        let config = issuer.into();
        if config.is_per_tenant() {
            return self.add_per_tenant(config, None);
        }
        let issuer = Arc::new(self.0.opener.open(config, None, None)?);
        let before = self.edit(|listed| {
            listed.by_name.insert(issuer.name.clone(), issuer.clone());
        });
        // Tokens of an issuer that was unknown before were never accepted.
        if before.knows(&issuer.name) {
            self.distrust();
        }
        Ok(())
    }

    /// Adds per-tenant issuers whose whereabouts `resolver` knows. `template` says what they have
    /// in common; its `iss` has `{tenant_id}` in it.
    ///
    /// # Errors
    /// As [`add`](Self::add), and when `{tenant_id}` is missing.
    pub fn add_tenant_issuers(
        &self,
        template: impl Into<IssuerConfig>,
        resolver: Arc<dyn TenantIssuers>,
    ) -> Result<(), ConfigError> {
        self.add_per_tenant(template.into(), Some(resolver))
    }

    /// Removes the issuer whose `iss` is `name` (for per-tenant issuers: the template). From the
    /// next request on its tokens are refused.
    pub fn remove(&self, name: &str) {
        self.edit(|listed| {
            listed.by_name.remove(name);
            listed.per_tenant.retain(|issuers| issuers.template() != name);
        });
        self.distrust();
    }

    /// Forgets the keys of an issuer, after a key of its was compromised: its tokens wait for a
    /// newly fetched set.
    pub fn purge(&self, name: &str) {
        let listed = self.0.listed.load();
        if let Some(issuer) = listed.by_name.get(name) {
            issuer.keys.purge();
        }
        listed.per_tenant.iter().for_each(|all| all.purge(name));
        self.distrust();
    }

    /// How the keys of each issuer are doing, sorted by issuer; of per-tenant issuers those in use.
    /// Asks for keys that are due, so that a readiness probe makes an idle service ready.
    pub fn health(&self) -> Vec<IssuerHealth> {
        let mut health = Vec::new();
        self.each(|issuer| health.push(issuer.keys.health()));
        health.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        health
    }

    /// Waits until every listed issuer has keys; of per-tenant issuers nothing is waited for.
    ///
    /// # Errors
    /// When a provider cannot be reached. Nothing is lost then: keys are fetched when needed.
    pub async fn ready(&self) -> Result<(), AuthError> {
        let listed = self.0.listed.load_full();
        for issuer in listed.by_name.values() {
            if !issuer.keys.health().can_verify() {
                issuer.keys.refresh().await?;
            }
        }
        Ok(())
    }

    /// What those are called that can be told by name: not the ones of tenants.
    pub(crate) fn names(&self) -> Vec<String> {
        let listed = self.0.listed.load();
        let mut names: Vec<_> = listed.by_name.keys().map(|name| name.to_string()).collect();
        names.sort();
        names
    }

    /// The issuer of tokens whose `iss` is `name`.
    pub(crate) fn find(&self, name: &str) -> Found {
        let listed = self.0.listed.load();
        if let Some(issuer) = listed.by_name.get(name) {
            return Found::Issuer(issuer.clone());
        }
        let matching = listed.per_tenant.iter().find_map(|all| Some((all, all.tenant_in(name)?)));
        match matching {
            None => Found::Unknown,
            Some((all, tenant)) => match all.at_hand(&tenant) {
                Some(issuer) => Found::Issuer(issuer),
                None => Found::NotYet(all.clone(), tenant),
            },
        }
    }

    fn add_per_tenant(
        &self,
        config: IssuerConfig,
        resolver: Option<Arc<dyn TenantIssuers>>,
    ) -> Result<(), ConfigError> {
        let all = Arc::new(PerTenant::new(config, resolver, self.0.opener.clone())?);
        self.edit(|listed| {
            listed.per_tenant.retain(|other| other.template() != all.template());
            listed.per_tenant.push(all.clone());
        });
        self.distrust();
        Ok(())
    }

    fn each(&self, mut visit: impl FnMut(&Arc<Issuer>)) {
        let listed = self.0.listed.load();
        listed.by_name.values().for_each(&mut visit);
        listed.per_tenant.iter().flat_map(|all| all.in_use()).for_each(|issuer| visit(&issuer));
    }

    /// Requests must not wait for a change, so it happens on a copy that is swapped in. Returns the
    /// list as it was.
    fn edit(&self, edit: impl Fn(&mut Listed)) -> Arc<Listed> {
        self.0.listed.rcu(|listed| {
            let mut listed = Listed::clone(listed);
            edit(&mut listed);
            listed
        })
    }

    /// How often verdicts given before lost their worth. A verdict whose giver read the count
    /// before [`find`](Self::find) holds while the count is the same.
    pub(crate) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Acquire)
    }

    /// Counts a change, after it was made: who reads the new count sees the new list.
    fn distrust(&self) {
        self.0.changes.fetch_add(1, Ordering::Release);
    }
}

impl Listed {
    fn knows(&self, name: &str) -> bool {
        let one_of = |all: &Arc<PerTenant>| all.tenant_in(name).is_some();
        self.by_name.contains_key(name) || self.per_tenant.iter().any(one_of)
    }
}

/// Everything that is wrong with a configuration and the keys in it.
fn check(config: &AuthConfig) -> Result<(), ConfigError> {
    let mut faults = config.check().map_or_else(|error| error.faults().to_vec(), |()| Vec::new());
    for (nth, issuer) in config.issuers.iter().enumerate() {
        if let Some(keys) = &issuer.inline_keys
            && let Err(problem) = inspect_keys(keys, &issuer.algorithms, issuer.jwks.max_keys)
        {
            faults.push(Fault::new(format!("issuers[{nth}].keys"), problem));
        }
    }
    ConfigError::from_faults(faults).map_err(|error| error.named(config.prefix.as_deref()))
}

/// Whether keys written into a configuration or a policy can be used.
///
/// The error says what is wrong with them and what to do.
pub(crate) fn inspect_keys(
    keys: &str,
    allowed: &[Algorithm],
    max_keys: usize,
) -> Result<(), String> {
    use source::FetchFault::{NoUsableKey, NotAKeySet, Pem};
    let secret = jwk::Unusable::Secret.reason();
    let has_secret = |keys: &[UnusableKey]| keys.iter().any(|key| key.reason == secret);
    let fault = match set::KeySet::read_given(keys, allowed, max_keys) {
        Ok(set) if !has_secret(&set.unusable) => return Ok(()),
        Ok(_) => return Err(SECRET_GIVEN.to_owned()),
        Err(fault) => fault,
    };
    Err(match fault {
        NoUsableKey(unusable) if has_secret(&unusable) => SECRET_GIVEN.to_owned(),
        NotAKeySet => NO_KEYS_GIVEN.to_owned(),
        Pem(problem) => problem.to_owned(),
        fault => format!("cannot be used: {fault}"),
    })
}

const SECRET_GIVEN: &str = "has a private or symmetric key: leave the public ones, and replace the key that was written down here";

const NO_KEYS_GIVEN: &str = "is neither a key set or JWK in JSON (RFC 7517) nor PEM with public keys or certificates; a shared secret cannot be used";

/// The parsers of foreign text, for the fuzz targets.
#[cfg(feature = "testing")]
mod foreign {
    use super::{jwk::Key, metadata::Metadata, set::KeySet};
    use crate::config::{Algorithm, JwksSettings};
    use crate::json::Document;

    pub(crate) fn read_key(jwk: &[u8], allowed: &[Algorithm]) -> bool {
        Document::parse(jwk).is_ok_and(|document| Key::read(document.root(), allowed).is_ok())
    }

    /// How many keys are usable and how many are not.
    pub(crate) fn read_key_set(body: &[u8]) -> Option<(usize, usize)> {
        let max_keys = JwksSettings::default().max_keys;
        let set = KeySet::read(body, &Algorithm::ALL, max_keys).ok()?;
        Some((set.all.len(), set.unusable.len()))
    }

    /// How many keys of a configuration are usable and how many are not.
    pub(crate) fn read_given_keys(text: &str) -> Option<(usize, usize)> {
        let max_keys = JwksSettings::default().max_keys;
        let set = KeySet::read_given(text, &Algorithm::ALL, max_keys).ok()?;
        Some((set.all.len(), set.unusable.len()))
    }

    pub(crate) fn read_metadata(body: &[u8], issuer: &str) -> bool {
        let from = url::Url::parse(issuer);
        from.is_ok_and(|from| Metadata::parse(body, &from, issuer, false).is_ok())
    }
}

/// What it takes to open an issuer.
#[derive(Debug)]
pub(crate) struct Opener {
    http: Arc<Http>,
    clock: Arc<dyn Clock>,
    /// The audience of issuers that state none of their own.
    audience: Vec<String>,
    /// Whether it was said that every tenant counts, or a tenant store says which do.
    any_tenant: bool,
}

impl Opener {
    fn check(&self, config: &IssuerConfig) -> Result<(), ConfigError> {
        let config = AuthConfig::of_issuer(config, &self.audience);
        check(&AuthConfig { any_tenant: self.any_tenant, ..config })
    }

    /// `template` is what a tenant's issuer was made from: metrics must not count by what tokens say.
    fn open(
        &self,
        config: IssuerConfig,
        tenant: Option<TenantId>,
        template: Option<&str>,
    ) -> Result<Issuer, ConfigError> {
        self.check(&config)?;
        let name: Arc<str> = config.expected().into();
        let audience = if config.audience.is_empty() { &self.audience } else { &config.audience };
        let series = template.unwrap_or(&name).into();
        let keys = Keys::new(name.clone(), series, &config, self.http.clone(), self.clock.clone());
        let unusable = |_| Fault::new(name.as_ref(), "has a URL that cannot be used");
        Ok(Issuer {
            audience: audience.iter().map(|name| name.as_str().into()).collect(),
            keys: Arc::new(keys.map_err(unusable).map_err(ConfigError::one)?),
            name: name.clone(),
            tenant,
            config,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_counts_but_the_first_of_a_name_nobody_answered_to() {
        let mut config = AuthConfig::default();
        config.audience.push("me".to_owned());
        config.issuers.push("https://one.example".into());
        config.any_tenant = true;
        let issuers = Issuers::new(&config).unwrap();
        let add = |name: &str| issuers.add(name).unwrap();
        let counts = |change: &dyn Fn()| {
            let before = issuers.changes();
            change();
            issuers.changes() != before
        };
        assert!(!counts(&|| add("https://two.example")));
        assert!(counts(&|| add("https://two.example")), "replaced");
        assert!(counts(&|| issuers.remove("https://two.example")));
        assert!(!counts(&|| add("https://two.example")));
        assert!(counts(&|| issuers.purge("https://two.example")));
        assert!(counts(&|| add("https://many.example/{tenant_id}")));
        assert!(counts(&|| add("https://many.example/acme")), "one of the template's");
    }
}
