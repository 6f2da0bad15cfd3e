//! The issuers a service trusts: their keys, how those are renewed, and how the service proves itself
//! to them.
//!
//! `Auth::issuers` returns [`Issuers`]: [`health`](Issuers::health) for readiness and dashboards
//! ([`IssuerHealth`], [`KeyState`]), `add`, `remove` and `purge` while requests run. [`TenantIssuers`] is
//! the trait for a provider with one issuer for each tenant. [`ClientAuth`] is how this service
//! authenticates when it asks for tokens itself. What is configured of an issuer is
//! [`IssuerConfig`], at the root.
//!
//! How it fits together: [manual::tenants](crate::manual::tenants).

mod attempts;
mod client_auth;
mod discovery;
mod health;
mod http;
mod issuer_keys;
mod jwk;
mod key_sets;
mod keys;
mod lease;
mod metadata;
mod pem;
mod per_tenant;
mod quota;
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
pub(crate) use http::{FetchError, Http, Limits};
pub(crate) use issuer_keys::IssuerKeys;
pub(crate) use jwk::{CertificateHash, KeyQuery, MAX_KID};
pub(crate) use key_sets::KeySets;
pub(crate) use keys::{NoNewKeys, Renewed, Seen, Verdict};
pub(crate) use lease::KeyLease;
pub(crate) use metadata::{Endpoints, well_known};
pub(crate) use per_tenant::PerTenant;
#[cfg(feature = "trust")]
pub(crate) use signing::SigningKey;
#[cfg(feature = "testing")]
pub(crate) use {jwk::Key, metadata::jwks_uri, set::KeySet};

/// One issuer, ready to verify tokens.
#[derive(Debug, Clone)]
pub(crate) struct Issuer {
    /// What `iss` says.
    pub(crate) name: Arc<str>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) keys: Arc<IssuerKeys>,
    /// The one tenant this issuer speaks for, if it is a per-tenant one.
    pub(crate) tenant: Option<TenantId>,
    /// Where it is to be kept open once a token of its was verified.
    keeper: Option<Arc<PerTenant>>,
}

/// What its tokens must say. The tenants of a template have these in common.
#[derive(Debug, PartialEq)]
pub(crate) struct Rules {
    pub(crate) config: IssuerConfig,
    pub(crate) audience: Box<[Box<str>]>,
}

impl Issuer {
    /// A signature of the issuer's was verified: the tenant in `iss` is not invented.
    pub(crate) fn was_verified(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.keep(self);
        }
    }

    fn health(&self) -> IssuerHealth {
        self.keys.health(&self.name)
    }
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
    opener: Arc<Opener>,
}

/// How often an `iss`, or the set of keys behind it, came to mean something else than before.
/// Clones share the count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Generation(Arc<AtomicU64>);

impl Generation {
    /// Counts a change, after it was made: who reads the new count sees what was changed.
    pub(super) fn bump(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    pub(super) fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
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
        Self::through(config, Arc::new(KeySets::new(clock)))
    }

    /// With key sets that others use, too.
    pub(crate) fn through(
        config: &AuthConfig,
        key_sets: Arc<KeySets>,
    ) -> Result<Self, ConfigError> {
        check(config)?;
        let opener = Opener {
            key_sets,
            audience: config.audience.clone(),
            generation: Generation::default(),
            any_tenant: config.any_tenant || config.database_url.is_some(),
        };
        let issuers =
            Self(Arc::new(Inner { listed: ArcSwap::default(), opener: Arc::new(opener) }));
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
        let issuer = Arc::new(self.0.opener.open(config)?);
        let before = self.edit(|listed| {
            listed.by_name.insert(issuer.name.clone(), issuer.clone());
        });
        // Tokens of an issuer that was unknown before were never accepted.
        if before.knows(&issuer.name) {
            self.bump_generation();
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
        self.bump_generation();
    }

    /// Forgets the keys of an issuer, after a key of its was compromised: its tokens wait for a
    /// newly fetched set, and so do those of all issuers that name the same key set.
    pub fn purge(&self, name: &str) {
        let listed = self.0.listed.load();
        if let Some(issuer) = listed.by_name.get(name) {
            issuer.keys.purge();
        }
        listed.per_tenant.iter().for_each(|all| all.purge(name));
        self.bump_generation();
    }

    /// How the keys of each issuer are doing, sorted by issuer; of per-tenant issuers those in use.
    /// Asks for keys that are due, so that a readiness probe makes an idle service ready.
    pub fn health(&self) -> Vec<IssuerHealth> {
        let mut health = Vec::new();
        self.each(|issuer| health.push(issuer.health()));
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
            if !issuer.health().can_verify() {
                issuer.keys.obtain(true).await?;
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

    /// The endpoints of the issuer called `name`, if that is listed and its metadata are looked for
    /// at the same places: who needs them for something else need not read them again.
    pub(crate) async fn endpoints(
        &self,
        name: &str,
        places: &[url::Url],
        allow_loopback_http: bool,
    ) -> Option<Arc<Endpoints>> {
        let listed = self.0.listed.load_full();
        let keys = &listed.by_name.get(name)?.keys;
        match keys.is_discovered_at(places, allow_loopback_http) {
            true => keys.endpoints().await,
            false => None,
        }
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
        self.bump_generation();
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
    pub(crate) fn generation(&self) -> u64 {
        self.0.opener.generation.current()
    }

    /// Counts a change, after it was made: who reads the new count sees the new list.
    fn bump_generation(&self) {
        self.0.opener.generation.bump();
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

const NO_KEYS_GIVEN: &str = "is neither a key set or JWK in JSON (RFC 7517) nor PEM with public keys or certificates: give the text itself, not a path or URL; a shared secret cannot be used";

/// What it takes to open an issuer.
#[derive(Debug)]
pub(crate) struct Opener {
    key_sets: Arc<KeySets>,
    /// The audience of issuers that state none of their own.
    audience: Vec<String>,
    generation: Generation,
    /// Whether it was said that every tenant counts, or a tenant store says which do.
    any_tenant: bool,
}

impl Opener {
    fn check(&self, config: &IssuerConfig) -> Result<(), ConfigError> {
        let config = AuthConfig::of_issuer(config, &self.audience);
        check(&AuthConfig { any_tenant: self.any_tenant, ..config })
    }

    fn rules(&self, config: IssuerConfig) -> Rules {
        let audience = if config.audience.is_empty() { &self.audience } else { &config.audience };
        Rules { audience: audience.iter().map(|name| name.as_str().into()).collect(), config }
    }

    fn open(&self, config: IssuerConfig) -> Result<Issuer, ConfigError> {
        self.check(&config)?;
        let name: Arc<str> = config.expected().into();
        let keys = self.keys(&name, name.clone(), &config, None)?;
        let rules = Arc::new(self.rules(config));
        Ok(Issuer { name, rules, keys: Arc::new(keys), tenant: None, keeper: None })
    }

    /// `series` is what a tenant's issuer was made from: metrics must not count by what tokens say.
    fn keys(
        &self,
        name: &Arc<str>,
        series: Arc<str>,
        config: &IssuerConfig,
        quota: Option<Arc<quota::Quota>>,
    ) -> Result<IssuerKeys, ConfigError> {
        let (key_sets, generation) = (self.key_sets.clone(), self.generation.clone());
        let keys = IssuerKeys::new(name, series, config, key_sets, quota, generation);
        let unusable = |_| Fault::new(name.as_ref(), "has a URL that cannot be used");
        keys.map_err(unusable).map_err(ConfigError::one)
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
            let before = issuers.generation();
            change();
            issuers.generation() != before
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
