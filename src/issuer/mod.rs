//! The trusted issuers, the life cycle of their keys, and client authentication.
//!
//! `Auth::issuers` returns [`Issuers`]: [`health`](Issuers::health) for readiness probes and dashboards
//! ([`IssuerHealth`], [`KeyState`]), and `add`, `remove` and `purge` while requests run. [`TenantIssuers`]
//! is the trait for a provider with one issuer per tenant. [`ClientAuth`] is the client authentication of
//! this service at the provider, and [`WorkloadToken`] replaces its secret. [`HttpClient`] replaces the HTTP client.
//! The configuration of an issuer, [`IssuerConfig`], is at the root of the crate.
//!
//! See also: [manual::tenants](crate::manual::tenants).

mod attempts;
mod cached_key_set;
mod client_auth;
mod client_request;
mod discovery;
mod health;
mod http;
mod issuer_keys;
mod jwk;
mod key_sets;
mod lease;
mod metadata;
mod near_miss;
mod pem;
mod quota;
mod set;
mod signing;
mod source;
mod template;
mod workload;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::{Clock, SystemClock};
#[cfg(feature = "jwe")]
use crate::config::DecryptionKeys;
use crate::config::{
    Algorithm, AuthConfig, ConfigError, Fault, IssuerConfig, JwksSettings, KeySetForm, PlainHttp,
    Route,
};
use crate::error::AuthError;
use crate::identity::TenantId;
use crate::support::telemetry::{self, LoggedOnce};
use near_miss::NearMiss;

pub use crate::support::secret::SecretSource;
pub use client_auth::ClientAuth;
pub use health::{IssuerHealth, KeyState, UnusableKey};
pub use http::HttpClient;
pub use template::TenantIssuers;
#[cfg(feature = "spiffe")]
pub use workload::SpiffeSource;
pub use workload::{WorkloadToken, WorkloadTokenSource};

pub(crate) use cached_key_set::{KeySetVersion, NotRefreshed, Refreshed, SignatureCheck};
pub(crate) use client_auth::ClientAuthError;
pub(crate) use client_request::{ClientRequest, RequestError};
pub(crate) use http::{FetchError, HAS_OWN_CLIENT, Http, Limits, check_ca_file};
pub(crate) use issuer_keys::IssuerKeys;
pub(crate) use jwk::{CertificateHash, KeyQuery, MAX_KID};
pub(crate) use key_sets::KeySets;
pub(crate) use lease::KeyLease;
pub(crate) use metadata::{Endpoints, well_known};
#[cfg(feature = "trust")]
pub(crate) use signing::SigningKey;
pub(crate) use template::IssuerTemplate;
pub(crate) use workload::WorkloadTokenError;
#[cfg(feature = "testing")]
pub(crate) use {jwk::Key, metadata::jwks_uri, set::KeySet, workload::workload_token_in};

/// One issuer, ready to verify tokens.
#[derive(Debug, Clone)]
pub(crate) struct Issuer {
    /// `iss` of its tokens.
    pub(crate) name: Arc<str>,
    pub(crate) rules: Arc<Rules>,
    /// The rules of the template, if a resolver returned other ones. Tokens must pass both.
    pub(crate) template_rules: Option<Arc<Rules>>,
    pub(crate) keys: Arc<IssuerKeys>,
    /// The only tenant of its tokens, if the issuer belongs to a tenant.
    pub(crate) tenant: Option<TenantId>,
    /// The template to add this issuer to, when one of its tokens is verified.
    cache_in: Option<Arc<IssuerTemplate>>,
}

/// The rules for tokens of an issuer. The tenants of a template usually share them.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) config: IssuerConfig,
    pub(crate) audience: Box<[Box<str>]>,
    /// The facts about tokens of the issuer that were logged.
    pub(crate) logged: LoggedOnce,
}

impl Issuer {
    /// Returns all rules that a token must pass.
    pub(crate) fn all_rules(&self) -> impl Iterator<Item = &Rules> + Clone {
        std::iter::once(&*self.rules).chain(self.template_rules.as_deref())
    }

    /// Returns the longest time from the moment at which a token may be used until it is refused. `None` without a
    /// limit. Both the time of issue and the expiry have the leeway.
    pub(crate) fn longest_validity(&self) -> Option<Duration> {
        let limits = self.all_rules().filter_map(|rules| {
            let (limit, leeway) = (rules.config.max_token_lifetime?, rules.config.leeway);
            Some(limit.saturating_add(leeway.saturating_mul(2)))
        });
        limits.min()
    }

    /// Records that the issuer signed a token: its tenant exists, and the template may cache the issuer.
    pub(crate) fn record_verified_token(&self) {
        if let Some(template) = &self.cache_in {
            template.insert(self);
        }
    }

    fn health(&self) -> IssuerHealth {
        self.keys.health(&self.name)
    }
}

/// The result of looking up an `iss`.
pub(crate) enum IssuerLookup {
    Found(Arc<Issuer>),
    /// `iss` matches a template, but the tenant's issuer is not open: it was not resolved yet, or its keys
    /// were not fetched.
    NotOpen(Arc<IssuerTemplate>, TenantId),
    Unknown,
}

/// The trusted issuers of a service. A handle: clones share the list.
///
/// Issuers can be added and removed while requests run. `iss` must equal the issuer's name exactly. The
/// comparison needs no network traffic.
///
/// ```
/// use scaikey_auth::{Auth, IssuerConfig};
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let auth = Auth::builder().issuer("https://scaikey.example").audience("scaiwave").build()?;
/// // While the service runs: a new customer brings a provider of their own. Later, the customer leaves.
/// auth.issuers().add(IssuerConfig::okta("https://umbrella.okta.com/oauth2/default"))?;
/// auth.issuers().remove("https://umbrella.okta.com/oauth2/default");
/// assert_eq!(auth.issuers().health().len(), 1);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Issuers(Arc<Inner>);

/// The issuers of a service that may have ended.
pub(crate) struct WeakIssuers(Weak<Inner>);

impl WeakIssuers {
    pub(crate) fn upgrade(&self) -> Option<Issuers> {
        self.0.upgrade().map(Issuers)
    }
}

#[derive(Debug)]
struct Inner {
    list: ArcSwap<IssuerList>,
    /// The logged `iss` that are almost those of configured issuers.
    near_misses: Mutex<HashSet<String>>,
    factory: Arc<IssuerFactory>,
}

/// The generation of the issuers: a number that grows with every change of the keys or rules of an existing
/// `iss`. Clones share the number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Generation(Arc<AtomicU64>);

impl Generation {
    /// Begins the next generation. Call it after the change: a reader of the new number then sees the change.
    pub(super) fn bump(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    pub(super) fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Debug, Clone, Default)]
struct IssuerList {
    by_name: HashMap<Arc<str>, Arc<Issuer>>,
    templates: Vec<Arc<IssuerTemplate>>,
    /// The decryption keys of all issuers, each once.
    #[cfg(feature = "jwe")]
    decryption_keys: Arc<[DecryptionKeys]>,
}

impl Issuers {
    /// Creates the issuers of a configuration.
    ///
    /// # Errors
    /// If the configuration is invalid. The error lists all faults.
    pub fn new(config: &AuthConfig) -> Result<Self, ConfigError> {
        Self::with_clock(config, Arc::new(SystemClock::default()))
    }

    /// Creates issuers as [`new`](Self::new) does, with another clock.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_clock(config: &AuthConfig, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        Self::with_key_sets(config, Arc::new(KeySets::new(clock)))
    }

    /// Creates issuers that share `key_sets` with others.
    pub(crate) fn with_key_sets(
        config: &AuthConfig,
        key_sets: Arc<KeySets>,
    ) -> Result<Self, ConfigError> {
        check(config, key_sets.http.is_own())?;
        let factory = IssuerFactory {
            key_sets,
            audience: config.audience.clone(),
            generation: Generation::default(),
            needs_no_tenant_list: config.any_tenant || config.has_tenant_table(),
        };
        let issuers = Self(Arc::new(Inner {
            list: ArcSwap::default(),
            near_misses: Mutex::default(),
            factory: Arc::new(factory),
        }));
        config.issuers.iter().try_for_each(|issuer| issuers.add(issuer.clone()))?;
        Ok(issuers)
    }

    pub(crate) fn downgrade(&self) -> WeakIssuers {
        WeakIssuers(Arc::downgrade(&self.0))
    }

    /// Returns whether the other handle shares these issuers.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Adds an issuer, or replaces the one with the same `iss`. If `iss` contains `{tenant_id}`, adds one
    /// issuer per tenant. Keys are fetched when the first token arrives.
    ///
    /// # Errors
    /// If the configuration of the issuer is invalid. The error lists all faults.
    pub fn add(&self, issuer: impl Into<IssuerConfig>) -> Result<(), ConfigError> {
        let config = self.with_decryption_keys(issuer.into())?;
        if config.is_per_tenant() {
            return self.add_template(config, None);
        }
        let issuer = Arc::new(self.0.factory.create(config)?);
        let before = self.edit(|list| {
            list.by_name.insert(issuer.name.clone(), issuer.clone());
        });
        log_insecure_settings(&issuer.name, &issuer.rules.config);
        // A new issuer has no cached tokens.
        if before.contains(&issuer.name) {
            self.bump_generation();
        }
        Ok(())
    }

    /// Adds one issuer per tenant. `resolver` finds the issuer of each tenant. `template` is their common
    /// configuration; its `iss` contains `{tenant_id}`.
    ///
    /// # Errors
    /// As [`add`](Self::add), and if `{tenant_id}` is missing.
    pub fn add_tenant_issuers(
        &self,
        template: impl Into<IssuerConfig>,
        resolver: Arc<dyn TenantIssuers>,
    ) -> Result<(), ConfigError> {
        self.add_template(self.with_decryption_keys(template.into())?, Some(resolver))
    }

    /// Removes the issuer whose `iss` is `name`. For per-tenant issuers, `name` contains `{tenant_id}`, and
    /// all of them are removed. The next request with one of their tokens is refused. An unknown name removes
    /// nothing.
    pub fn remove(&self, name: &str) {
        self.edit(|list| {
            list.by_name.remove(name);
            list.templates.retain(|template| template.pattern() != name);
        });
        self.bump_generation();
    }

    /// Discards the keys of the issuer whose `iss` is `name`, for example after a key was compromised. For
    /// per-tenant issuers, `name` is the `iss` of one tenant. The issuer's tokens then wait for a newly
    /// fetched key set, and get 503 if it cannot be fetched. This affects all issuers that use the same key
    /// set.
    pub fn purge(&self, name: &str) {
        let list = self.0.list.load();
        if let Some(issuer) = list.by_name.get(name) {
            issuer.keys.purge();
        }
        list.templates.iter().for_each(|template| template.purge(name));
        self.bump_generation();
    }

    /// Reports the state of each issuer's keys, sorted by issuer. A per-tenant issuer is included after the
    /// keys for the first token of its tenant were fetched. Starts fetches that are due, so a readiness probe
    /// keeps an idle service ready.
    pub fn health(&self) -> Vec<IssuerHealth> {
        let mut health = Vec::new();
        self.each(|issuer| health.push(issuer.health()));
        health.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        health
    }

    /// Waits until every issuer has keys. Per-tenant issuers are not included. The keys are fetched one
    /// issuer after the other, and the first failure ends the wait. Each request to a provider may take
    /// `jwks.timeout`, 5 s by default.
    ///
    /// # Errors
    /// If a provider cannot be reached. The service still works then: keys are fetched when needed.
    pub async fn ready(&self) -> Result<(), AuthError> {
        let list = self.0.list.load_full();
        for issuer in list.by_name.values() {
            if !issuer.health().can_verify() {
                issuer.keys.wait_until_usable(true).await?;
            }
        }
        Ok(())
    }

    /// Returns the client for requests to the providers.
    pub(crate) fn http(&self) -> &Http {
        &self.0.factory.key_sets.http
    }

    /// Returns the names of the issuers, sorted and without per-tenant issuers.
    pub(crate) fn names(&self) -> Vec<String> {
        let list = self.0.list.load();
        let mut names: Vec<_> = list.by_name.keys().map(|name| name.to_string()).collect();
        names.sort();
        names
    }

    /// Returns the endpoints of the issuer `name`, if it is in the list and its metadata come from the same
    /// URLs by the same rules. The caller then need not fetch the metadata again.
    pub(crate) async fn endpoints(
        &self,
        name: &str,
        metadata_urls: &[url::Url],
        plain_http: &PlainHttp,
        route: &Route,
    ) -> Option<Arc<Endpoints>> {
        let list = self.0.list.load_full();
        let keys = &list.by_name.get(name)?.keys;
        match keys.is_discovered_at(metadata_urls, plain_http, route) {
            true => keys.endpoints().await,
            false => None,
        }
    }

    /// Finds the issuer whose `iss` is `name`.
    pub(crate) fn find(&self, name: &str) -> IssuerLookup {
        let list = self.0.list.load();
        if let Some(issuer) = list.by_name.get(name) {
            return IssuerLookup::Found(issuer.clone());
        }
        let matching = list.templates.iter().find_map(|it| Some((it, it.tenant_in(name)?)));
        match matching {
            None => IssuerLookup::Unknown,
            Some((template, tenant)) => match template.get(&tenant) {
                Some(issuer) => IssuerLookup::Found(issuer),
                None => IssuerLookup::NotOpen(template.clone(), tenant),
            },
        }
    }

    /// Logs that a token is refused although its `iss` is almost that of a configured issuer. Called for each
    /// token of an unknown issuer; logs each difference once.
    pub(crate) fn note_unknown(&self, iss: &str) {
        let list = self.0.list.load();
        let missed = NearMiss::ALL.into_iter().find_map(|miss| {
            let name = miss.configured(iss)?;
            let template = || list.templates.iter().find(|it| it.tenant_in(&name).is_some());
            let configured = match list.by_name.get_key_value(&*name) {
                Some((name, _)) => &**name,
                None => template()?.pattern(),
            };
            Some((configured.to_owned(), miss.spelled(configured)))
        });
        let Some((configured, spelled)) = missed else { return };
        // Bounded by the number of configured issuers, because it contains only their names.
        let mut logged = self.0.near_misses.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.insert(spelled.clone()) {
            telemetry::issuer_nearly_matches(&configured, &spelled);
        }
    }

    fn add_template(
        &self,
        config: IssuerConfig,
        resolver: Option<Arc<dyn TenantIssuers>>,
    ) -> Result<(), ConfigError> {
        let template = Arc::new(IssuerTemplate::new(config, resolver, self.0.factory.clone())?);
        let before = self.edit(|list| {
            list.templates.retain(|other| other.pattern() != template.pattern());
            list.templates.push(template.clone());
        });
        // The builder adds a template twice: with the configuration, then with its resolver.
        let is_new = !before.templates.iter().any(|other| other.pattern() == template.pattern());
        if is_new {
            log_insecure_settings(template.pattern(), &template.rules().config);
        }
        self.bump_generation();
        Ok(())
    }

    /// Reads the decryption keys of an issuer, and compares them with those of the others.
    fn with_decryption_keys(&self, issuer: IssuerConfig) -> Result<IssuerConfig, ConfigError> {
        let issuer = issuer.with_decryption_keys(0).map_err(ConfigError::one)?;
        let list = self.0.list.load();
        let mut others = list.rules().map(|rules| &rules.config);
        let fault = others.find_map(|other| match other.expected() == issuer.expected() {
            // It is replaced.
            true => None,
            false => issuer.confusable_key(other, 0),
        });
        fault.map_or(Ok(issuer), |fault| Err(ConfigError::one(fault)))
    }

    fn each(&self, mut visit: impl FnMut(&Arc<Issuer>)) {
        let list = self.0.list.load();
        list.by_name.values().for_each(&mut visit);
        let open = list.templates.iter().flat_map(|template| template.open_issuers());
        open.for_each(|issuer| visit(&issuer));
    }

    /// Edits a copy of the list and swaps it in, so that no request waits. Returns the previous list.
    fn edit(&self, edit: impl Fn(&mut IssuerList)) -> Arc<IssuerList> {
        self.0.list.rcu(|list| {
            let mut list = IssuerList::clone(list);
            edit(&mut list);
            #[cfg(feature = "jwe")]
            list.collect_decryption_keys();
            list
        })
    }

    /// Returns the decryption keys of all issuers. They are needed before the issuer of a token is known.
    #[cfg(feature = "jwe")]
    pub(crate) fn decryption_keys(&self) -> Arc<[DecryptionKeys]> {
        self.0.list.load().decryption_keys.clone()
    }

    /// Returns the current generation. Read it before [`find`](Self::find): a token verified with that issuer
    /// stays valid only while the generation does not change.
    pub(crate) fn generation(&self) -> u64 {
        self.0.factory.generation.current()
    }

    fn bump_generation(&self) {
        self.0.factory.generation.bump();
    }
}

impl IssuerList {
    #[cfg(feature = "jwe")]
    fn collect_decryption_keys(&mut self) {
        let mut sets: Vec<DecryptionKeys> = Vec::new();
        let mut rules: Vec<_> = self.rules().collect();
        // For a token without `kid`, only the first keys are tried: the same ones in each process.
        rules.sort_by_key(|rules| rules.config.expected());
        for set in rules.into_iter().flat_map(|rules| &rules.config.decryption) {
            if !sets.contains(set) {
                sets.push(set.clone());
            }
        }
        self.decryption_keys = sets.into();
    }

    /// Returns the rules of all issuers and templates.
    fn rules(&self) -> impl Iterator<Item = &Rules> {
        let issuers = self.by_name.values().map(|issuer| &*issuer.rules);
        issuers.chain(self.templates.iter().map(|template| template.rules()))
    }

    fn contains(&self, name: &str) -> bool {
        let matches = |template: &Arc<IssuerTemplate>| template.tenant_in(name).is_some();
        self.by_name.contains_key(name) || self.templates.iter().any(matches)
    }
}

/// Logs the settings with which the issuer's tokens prove less than usual.
fn log_insecure_settings(issuer: &str, config: &IssuerConfig) {
    if config.insecure_accept_id_tokens {
        telemetry::id_tokens_accepted(issuer);
    }
    if !config.insecure_http_hosts.is_empty() {
        telemetry::insecure_http_hosts(issuer, &config.insecure_http_hosts);
    }
    if let Some(claim) = config.claims.reassignable_subject() {
        telemetry::subject_reassignable(issuer, claim);
    }
}

/// Reports all faults of a configuration, including those of its keys and files. Endpoints and token clients
/// read further files.
fn check(config: &AuthConfig, has_own_client: bool) -> Result<(), ConfigError> {
    let mut faults = config.check().map_or_else(|error| error.faults().to_vec(), |()| Vec::new());
    for (nth, issuer) in config.issuers.iter().enumerate() {
        let mut report = |field: &str, result: Option<Result<(), String>>| {
            if let Some(Err(problem)) = result {
                faults.push(Fault::new(format!("issuers[{nth}].{field}"), problem));
            }
        };
        let (algorithms, jwks) = (&issuer.algorithms, &issuer.jwks);
        let (inline, form) = (issuer.inline_keys.as_deref(), issuer.key_set_form);
        report("keys", inline.map(|keys| inspect_keys(keys, form, algorithms, jwks.max_keys)));
        let file = issuer.keys_file.as_deref();
        report("keys_file", file.map(|file| inspect_keys_file(file, form, algorithms, jwks)));
        report(
            "ca_file",
            issuer.ca_file.as_deref().map(|file| match has_own_client {
                true => Err(HAS_OWN_CLIENT.to_owned()),
                false => check_ca_file(file),
            }),
        );
    }
    faults.extend(config.faults_of_secret_files());
    ConfigError::from_faults(faults).map_err(|error| error.named_by(&config.origin))
}

/// Checks inline keys of a configuration or a policy. The error contains the problem and the remedy.
pub(crate) fn inspect_keys(
    keys: &str,
    form: KeySetForm,
    allowed: &[Algorithm],
    max_keys: usize,
) -> Result<(), String> {
    use source::FetchFault::{HasSecret, NotAKeySet, Pem};
    match set::KeySet::parse_local(keys, form, allowed, max_keys) {
        // It will never have one, unlike a bundle in a file.
        Ok(set) if set.all.is_empty() => Err(NO_JWT_AUTHORITY.to_owned()),
        Ok(_) => Ok(()),
        Err(NotAKeySet) => Err(NO_KEYS.to_owned()),
        Err(fault @ (HasSecret | Pem(_))) => Err(fault.to_string()),
        Err(fault) => Err(format!("cannot be used: {fault}")),
    }
}

/// Checks a file with keys. The error names the file, and contains the problem.
fn inspect_keys_file(
    file: &std::path::Path,
    form: KeySetForm,
    allowed: &[Algorithm],
    settings: &JwksSettings,
) -> Result<(), String> {
    let text = source::read_keys(file, settings.max_bytes);
    let set =
        text.and_then(|text| set::KeySet::parse_local(&text, form, allowed, settings.max_keys));
    set.map(drop).map_err(|fault| fault.in_file(file).to_string())
}

const NO_JWT_AUTHORITY: &str = "has no key with `use` `jwt-svid`, so no token could be valid";

const NO_KEYS: &str = "contains no keys: give a key set or a JWK in JSON (RFC 7517), or public keys or certificates in PEM, as text and not as a path or URL; a shared secret cannot be used";

/// A factory of issuers, with everything that they share.
#[derive(Debug)]
pub(crate) struct IssuerFactory {
    key_sets: Arc<KeySets>,
    /// The audience of issuers that configure none.
    audience: Vec<String>,
    generation: Generation,
    /// Whether per-tenant issuers need no list of tenants: the configuration accepts every tenant, or a
    /// tenant store decides.
    needs_no_tenant_list: bool,
}

impl IssuerFactory {
    fn check(&self, config: &IssuerConfig) -> Result<(), ConfigError> {
        let config = AuthConfig::of_issuer(config, &self.audience);
        let config = AuthConfig { any_tenant: self.needs_no_tenant_list, ..config };
        check(&config, self.key_sets.http.is_own())
    }

    fn rules(&self, config: IssuerConfig) -> Rules {
        let audience = if config.audience.is_empty() { &self.audience } else { &config.audience };
        let audience = audience.iter().map(|name| name.as_str().into()).collect();
        Rules { config, audience, logged: LoggedOnce::default() }
    }

    fn create(&self, config: IssuerConfig) -> Result<Issuer, ConfigError> {
        self.check(&config)?;
        let name: Arc<str> = config.expected().into();
        let keys = self.keys(&name, name.clone(), &config, None)?;
        let (rules, keys) = (Arc::new(self.rules(config)), Arc::new(keys));
        Ok(Issuer { name, rules, template_rules: None, keys, tenant: None, cache_in: None })
    }

    /// Creates the keys of an issuer. `label` names them in logs and metrics. For a per-tenant issuer it is
    /// the template's `iss`, because labels must not depend on the contents of tokens.
    fn keys(
        &self,
        name: &Arc<str>,
        label: Arc<str>,
        config: &IssuerConfig,
        quota: Option<Arc<quota::Quota>>,
    ) -> Result<IssuerKeys, ConfigError> {
        let (key_sets, generation) = (self.key_sets.clone(), self.generation.clone());
        let keys = IssuerKeys::new(name, label, config, key_sets, quota, generation);
        let unusable = |_| Fault::new("issuer", "has a URL that cannot be parsed");
        keys.map_err(unusable).map_err(ConfigError::one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_except_new_issuers_begin_a_generation() {
        let mut config = AuthConfig::default();
        config.audience.push("me".to_owned());
        config.issuers.push("https://one.example".into());
        config.any_tenant = true;
        let issuers = Issuers::new(&config).unwrap();
        let add = |name: &str| issuers.add(name).unwrap();
        let bumps = |change: &dyn Fn()| {
            let before = issuers.generation();
            change();
            issuers.generation() != before
        };
        assert!(!bumps(&|| add("https://two.example")));
        assert!(bumps(&|| add("https://two.example")), "replaced");
        assert!(bumps(&|| issuers.remove("https://two.example")));
        assert!(!bumps(&|| add("https://two.example")));
        assert!(bumps(&|| issuers.purge("https://two.example")));
        assert!(bumps(&|| add("https://many.example/{tenant_id}")));
        assert!(bumps(&|| add("https://many.example/acme")), "matches a template");
    }
}
