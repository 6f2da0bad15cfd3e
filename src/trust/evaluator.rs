//! [`TrustEvaluator`]: holds the current policy and decides about foreign tokens.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::decisions::{Asked, DecisionLog};
use super::fault::{PolicyError, Position};
use super::following::Following;
use super::outcome::{DenialReason, Denied, Granted};
use super::policy::{Mode, Trust, TrustPolicy};
use super::store::{FilePolicies, PolicyStore, PolicyVersion};
use super::verification::{CompiledTrust, Verification};
use crate::clock::{Clock, SystemClock};
use crate::config::AuthConfig;
use crate::identity::{IdentityKind, Scopes};
use crate::issuer::{IssuerHealth, KeySets};
use crate::replay::{MemoryReplayLog, ReplayKey, ReplayLog};
use crate::support::crypto;
use crate::support::secret::path_for_errors;
use crate::support::telemetry::{self, Outage};
use crate::validator::JwksValidator;

/// An evaluator of foreign tokens against a [`TrustPolicy`] (feature `trust`). Clones share the
/// policy.
///
/// With a [`store`](TrustEvaluatorBuilder::store), [`save`](Self::save) changes the policy of all
/// processes, and each decision checks that the latest check of the store is not older than 5 s.
/// Without one, [`reload`](Self::reload) and [`replace`](Self::replace) change the policy of this
/// process. A change replaces the whole policy while requests run, and does not affect decisions
/// that have begun. It keeps the fetched keys of unchanged trusts and the log of used tokens.
///
/// ```no_run
/// use scaikey_auth::identity::Scopes;
/// use scaikey_auth::trust::TrustEvaluator;
///
/// # async fn example(token: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let trusts = TrustEvaluator::builder()
///     .file("/etc/scaivault/trust.toml")
///     .own_issuer("https://scaikey.example")
///     .build()?;
/// match trusts.evaluate(token, None, &Scopes::new()).await {
///     Ok(granted) => println!("{} may use {}", granted.identity, granted.scopes),
///     Err(denied) => println!("{}: {}", denied.status(), denied.public_message()),
/// }
/// trusts.reload()?; // after the file has changed
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct TrustEvaluator(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) loaded: ArcSwap<LoadedPolicy>,
    pub(super) decisions: DecisionLog,
    /// The store of the policy, if it has one.
    pub(super) following: Option<Following>,
    /// The file of a policy in JSON.
    json_file: Option<PathBuf>,
    own_issuers: Vec<String>,
    replay_log: Arc<dyn ReplayLog>,
    /// Logs a failure of the replay log once, until it works again.
    replay_outage: Outage,
    pub(super) clock: Arc<dyn Clock>,
    /// Shares keys between trusts with the same URL, and keeps them across reloads.
    key_sets: Arc<KeySets>,
    /// Held while the policy changes, so that an older file cannot replace a newer one.
    pub(super) change_lock: Mutex<()>,
}

/// A policy and the validators of its trusts.
#[derive(Debug, Default)]
pub(super) struct LoadedPolicy {
    pub(super) policy: TrustPolicy,
    pub(super) trusts: Vec<Arc<CompiledTrust>>,
    /// The version in the store, unless the store is empty or there is none.
    pub(super) version: Option<PolicyVersion>,
    /// The store has not given a policy yet, so that no token can be judged.
    pub(super) is_missing: bool,
}

impl LoadedPolicy {
    pub(super) fn number(&self) -> Option<u64> {
        self.version.as_ref().map(|version| version.change.id.number())
    }
}

impl TrustEvaluator {
    /// Returns a builder without a policy.
    pub fn builder() -> TrustEvaluatorBuilder {
        TrustEvaluatorBuilder::default()
    }

    /// Decides whether a foreign token is granted an identity.
    ///
    /// `trust_id` names the trust. With `None`, the audience of the token and its issuer select it,
    /// or the trust domain of its subject.
    /// `requested` are the requested scopes. If there are none, the workload gets all scopes that
    /// the rule permits. If a requested scope is not permitted, the token is denied.
    ///
    /// It checks, in this order, that the trust exists and has not ended; that signature, audience
    /// and times are valid ([`JwksValidator`]); that the token meets `max_lifetime` and `max_age`;
    /// that exactly one rule matches; that the claims can fill in the identity; that the scopes are
    /// permitted; and, with `single_use_jti`, that the token was not used before. A denied token
    /// does not count as used, except in audit mode.
    ///
    /// It does *not* check that the workload still exists (a token may outlive its pod), or that
    /// the tenant exists.
    ///
    /// # Errors
    /// [`Denied`]. Its public message does not say what is wrong with the token. Every decision is
    /// logged.
    pub async fn evaluate(
        &self,
        token: &str,
        trust_id: Option<&str>,
        requested: &Scopes,
    ) -> Result<Granted, Denied> {
        let loaded = self.follow().await;
        let verification = self.verify(&loaded, trust_id, token).await;
        let decision = self.decide(&verification, requested).await;
        let denied = decision.as_ref().err();
        let subject_sha256 = verification.text_claim("sub").map(crypto::sha256_hex);
        log(&verification, subject_sha256.as_deref(), denied);
        let asked = Asked { trust_id, requested };
        self.0.decisions.record(verification, &asked, subject_sha256, denied);
        decision.map_err(|reason| Denied { reason })
    }

    /// Runs all checks of a token that have no side effects.
    pub(super) async fn verify<'p>(
        &self,
        loaded: &'p LoadedPolicy,
        trust_id: Option<&str>,
        token: &str,
    ) -> Verification<'p> {
        if loaded.is_missing {
            let component = "trust policy";
            let reason = DenialReason::Unavailable { component, retry_after: None };
            return Verification::denied(reason, self.0.clock.now());
        }
        Verification::run(&loaded.policy, &loaded.trusts, trust_id, token, &*self.0.clock).await
    }

    /// Reads the policy file again now, with the files that the policy names. Blocks the calling thread while it
    /// reads. A file of TOML is followed anyway.
    ///
    /// # Errors
    /// All faults of the file; a file that cannot be read; or an evaluator that was built without a
    /// [`file`](TrustEvaluatorBuilder::file). The current policy stays in force.
    pub fn reload(&self) -> Result<(), PolicyError> {
        if let Some(following) = &self.0.following {
            return self.0.reload_file(following);
        }
        self.change(|| match &self.0.json_file {
            Some(file) => read_json(file),
            None => Err(policy_error("was not read from a file: use `replace`")),
        })
    }

    /// Replaces the whole policy of this process.
    ///
    /// # Errors
    /// If the policy lists an issuer of this service, or is in a
    /// [`store`](TrustEvaluatorBuilder::store), whose policy would return at the next check: use
    /// [`save`](Self::save) instead. The current policy stays in force.
    pub fn replace(&self, policy: TrustPolicy) -> Result<(), PolicyError> {
        self.change(|| match self.0.following.is_some() {
            true => Err(policy_error("is in a store: use `save`")),
            false => Ok(policy),
        })
    }

    /// Returns the current policy.
    pub fn policy(&self) -> TrustPolicy {
        self.0.loaded.load().policy.clone()
    }

    /// Returns the id of each trust with the state of its keys.
    pub fn health(&self) -> Vec<(String, IssuerHealth)> {
        let loaded = self.0.loaded.load();
        let health_of = |compiled: &Arc<CompiledTrust>| {
            let health = compiled.validator.issuers().health();
            health.into_iter().map(|health| (compiled.trust.id.clone(), health)).collect::<Vec<_>>()
        };
        loaded.trusts.iter().flat_map(health_of).collect()
    }

    /// Checks whether a policy lists an issuer of this service. Does not read the files that the policy names.
    #[cfg(feature = "endpoints")]
    pub(crate) fn check(&self, policy: TrustPolicy) -> Result<TrustPolicy, PolicyError> {
        policy.reject_own_issuers(&self.0.own_issuers)?;
        Ok(policy)
    }

    fn change(
        &self,
        policy: impl FnOnce() -> Result<TrustPolicy, PolicyError>,
    ) -> Result<(), PolicyError> {
        let _guard = self.0.change_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = policy().and_then(|policy| self.0.compile(policy, &self.0.loaded.load()));
        let loaded = loaded.inspect_err(|error| telemetry::trust_policy_rejected(error))?;
        telemetry::trust_policy_loaded(loaded.trusts.len(), None);
        self.0.loaded.store(Arc::new(loaded));
        Ok(())
    }

    async fn decide(
        &self,
        verification: &Verification<'_>,
        requested: &Scopes,
    ) -> Result<Granted, DenialReason> {
        let identity = verification.identity.clone()?;
        let (Some(trust), Some(grant), Some(workload)) =
            (verification.trust, verification.grant(), &verification.workload)
        else {
            return Err(DenialReason::NoMatchingRule);
        };
        let expires_at = workload.expires_at();
        let granted = Granted {
            trust: trust.id.clone(),
            rule: grant.name.clone(),
            identity,
            kind: IdentityKind::Workload,
            tenant: grant.map.tenant.clone(),
            scopes: grant.permitted(requested).ok_or(DenialReason::Scope)?,
            expires_at: trust
                .not_after
                .as_ref()
                .map_or(expires_at, |not_after| not_after.end.min(expires_at)),
            workload: workload.clone(),
        };
        if trust.single_use_jti {
            self.record_use(trust, verification.jti(), expires_at).await?;
        }
        match trust.mode {
            Mode::Enforce => Ok(granted),
            Mode::Audit => Err(DenialReason::AuditMode),
        }
    }

    async fn record_use(
        &self,
        trust: &Trust,
        jti: Option<&str>,
        expires_at: SystemTime,
    ) -> Result<(), DenialReason> {
        // The validator accepts the token until `exp` plus the leeway. The extra second covers the
        // truncated fraction of `exp`.
        let until = expires_at.checked_add(trust.leeway.0 + Duration::from_secs(1));
        let (jti, until) = jti.zip(until).ok_or(DenialReason::NoJti)?;
        let key = ReplayKey::of_foreign_token(&trust.id, trust.authority.name(), jti);
        match self.0.replay_log.first_use(key, until).await {
            Ok(is_first) => {
                if self.0.replay_outage.record_success(|| self.0.clock.elapsed()) {
                    telemetry::store_recovered("replay log");
                }
                if is_first { Ok(()) } else { Err(DenialReason::Replayed) }
            }
            Err(error) => {
                let is_new = self.0.replay_outage.record_failure(&error, self.0.clock.elapsed());
                telemetry::replay_log_failed(&*error, is_new);
                Err(DenialReason::Unavailable { component: "replay log", retry_after: None })
            }
        }
    }
}

impl Inner {
    /// Checks a policy with its files, and creates its validators. Unchanged trusts keep theirs, and trusts with
    /// the same id keep their counters.
    pub(super) fn compile(
        &self,
        policy: TrustPolicy,
        before: &LoadedPolicy,
    ) -> Result<LoadedPolicy, PolicyError> {
        policy.reject_own_issuers(&self.own_issuers)?;
        let mut trusts = Vec::new();
        for trust in &policy.trusts {
            let config = trust.issuer_config();
            let old = before.policy.index.named(&trust.id).and_then(|nth| before.trusts.get(nth));
            let usage = old.map(|old| old.usage.clone()).unwrap_or_default();
            let (validator, config) = match old.filter(|old| *old.config == config) {
                Some(old) => (old.validator.clone(), old.config.clone()),
                None => {
                    let mut settings = AuthConfig::of_issuer(&config, &[]);
                    // A foreign token usually comes once, so a cache would not help.
                    settings.verified_tokens_bytes = 0;
                    let compiled = JwksValidator::with_key_sets(&settings, self.key_sets.clone());
                    (compiled.map_err(|error| trust.faults_of_files(&error))?, config.into())
                }
            };
            trusts.push(Arc::new(CompiledTrust { trust: trust.clone(), validator, config, usage }));
        }
        Ok(LoadedPolicy { policy, trusts, ..LoadedPolicy::default() })
    }
}

pub(super) fn policy_error(problem: &str) -> PolicyError {
    PolicyError::one(Position::default(), "the policy", problem)
}

fn read_json(file: &Path) -> Result<TrustPolicy, PolicyError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        policy_error(&format!("cannot be read from {}: {error}", path_for_errors(file)))
    })?;
    TrustPolicy::from_json(&text)
}

fn is_json(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// A builder for [`TrustEvaluator`] (feature `trust`). `build` reads the policy file and the files
/// with keys that the policy names, and does no other I/O.
///
/// ```
/// use scaikey_auth::replay::MemoryReplayLog;
/// use scaikey_auth::trust::{TrustEvaluator, TrustPolicy};
///
/// # fn main() -> Result<(), scaikey_auth::trust::PolicyError> {
/// let trusts = TrustEvaluator::builder()
///     .policy(TrustPolicy::default())
///     .own_issuer("https://scaikey.example/tenants/{tenant_id}")
///     .replay_log(MemoryReplayLog::new(10_000)) // one process; several processes share a `RedisCache`
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
#[must_use = "nothing is trusted before `build()`"]
pub struct TrustEvaluatorBuilder {
    policy: Option<TrustPolicy>,
    file: Option<PathBuf>,
    store: Option<Arc<dyn PolicyStore>>,
    check_store_every: Option<Duration>,
    own_issuers: Vec<String>,
    replay_log: Option<Arc<dyn ReplayLog>>,
    clock: Option<Arc<dyn Clock>>,
}

impl TrustEvaluatorBuilder {
    /// Sets the policy. Default: a policy without trusts.
    pub fn policy(mut self, policy: TrustPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Sets the policy file, which [`build`](Self::build) and [`TrustEvaluator::reload`] read. It must exist.
    ///
    /// A file of TOML is a [store](Self::store), [`FilePolicies`]: its changes are followed, and
    /// [`TrustEvaluator::save`] writes to it. A file whose name ends in `.json` is JSON: it is neither followed nor
    /// written.
    pub fn file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Sets the store of the policy, which all processes of a service share. `build` does not call it: the first
    /// decision loads the policy. Until the store has answered, tokens are denied with
    /// [`DenialReason::Unavailable`]; an empty store is a policy without trusts.
    ///
    /// Each decision uses a policy that was in force at most [5 s](Self::check_store_every) before, while the store
    /// works. While it does not, or has a version with faults, the loaded policy stays in force.
    pub fn store(mut self, store: impl PolicyStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Sets the time between two checks for a new version in the [`store`](Self::store). Default: 5 s. A decision
    /// makes the check if it is due, and waits for it for up to 1 s; all decisions at the same time share one check.
    /// With zero, each decision makes one.
    pub fn check_store_every(mut self, period: Duration) -> Self {
        self.check_store_every = Some(period);
        self
    }

    /// Names an issuer whose tokens this service accepts directly, or a pattern for one issuer per
    /// tenant (`https://scaikey.example/tenants/{tenant_id}`). May be repeated. A policy that lists
    /// it is rejected, because a rule must not change the scopes of the provider's own tokens.
    pub fn own_issuer(mut self, issuer: impl Into<String>) -> Self {
        self.own_issuers.push(issuer.into());
        self
    }

    /// Calls [`own_issuer`](Self::own_issuer) for every issuer in the service's configuration.
    pub fn own_issuers(mut self, config: &AuthConfig) -> Self {
        self.own_issuers.extend(config.issuers.iter().map(|issuer| issuer.expected().to_owned()));
        self
    }

    /// Sets the log of used tokens. Default: a [`MemoryReplayLog`] for 100,000 tokens, which serves
    /// one process only.
    pub fn replay_log(mut self, log: impl ReplayLog) -> Self {
        self.replay_log = Some(Arc::new(log));
        self
    }

    /// Sets the clock. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Reads and checks the policy.
    ///
    /// # Errors
    /// All faults of the policy; a file that cannot be read; or if more than one of
    /// [`policy`](Self::policy), [`file`](Self::file) and [`store`](Self::store) was called.
    pub fn build(self) -> Result<TrustEvaluator, PolicyError> {
        let Self { policy, file, store, check_store_every, own_issuers, replay_log, clock } = self;
        if usize::from(policy.is_some())
            + usize::from(file.is_some())
            + usize::from(store.is_some())
            > 1
        {
            let problem = "has more than one source of `policy`, `file` and `store`: give one";
            return Err(policy_error(problem));
        }
        let (json_file, toml_file) = match file {
            Some(file) if is_json(&file) => (Some(file), None),
            file => (None, file.map(FilePolicies::new)),
        };
        let policy = match &json_file {
            Some(file) => read_json(file)?,
            None => policy.unwrap_or_default(),
        };
        let following = match (toml_file, store) {
            (Some(file), _) => Some(Following::of_file(file, check_store_every)),
            (None, store) => store.map(|store| Following::new(store, check_store_every)),
        };
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock::default()));
        let in_memory = || Arc::new(MemoryReplayLog::with_clock(100_000, clock.clone())) as _;
        let inner = Inner {
            loaded: ArcSwap::default(),
            decisions: DecisionLog::default(),
            replay_log: replay_log.unwrap_or_else(in_memory),
            replay_outage: Outage::default(),
            key_sets: Arc::new(KeySets::new(clock.clone())),
            change_lock: Mutex::default(),
            following,
            json_file,
            own_issuers,
            clock,
        };
        let mut loaded = inner.compile(policy, &LoadedPolicy::default())?;
        loaded.is_missing = inner.following.is_some();
        inner.loaded.store(Arc::new(loaded));
        if let Some(following) = &inner.following {
            inner.load_file(following)?;
        }
        Ok(TrustEvaluator(Arc::new(inner)))
    }
}

/// Writes a decision to the audit log. Claims are logged as digests, because they may be personal
/// data or contain forged log lines.
fn log(
    verification: &Verification<'_>,
    subject_sha256: Option<&str>,
    denied: Option<&DenialReason>,
) {
    let jti_sha256 = verification.text_claim("jti").map(crypto::sha256_hex);
    let trust = verification.trust;
    telemetry::trust_decided(&telemetry::TrustDecision {
        trust: trust.map(|trust| trust.id.as_str()),
        issuer: trust.map(|trust| trust.authority.name()),
        rule: verification.grant().map(|grant| grant.name.as_str()),
        tenant: verification.grant().map(|grant| grant.map.tenant.as_str()),
        outcome: denied.map_or("granted", DenialReason::as_str),
        subject_sha256,
        jti_sha256: jti_sha256.as_deref(),
        is_verified: verification.workload.is_some(),
    });
}
