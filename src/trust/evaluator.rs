//! [`TrustEvaluator`]: the policy in force, and the decisions it leads to.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::explain::Explanation;
use super::fault::PolicyError;
use super::outcome::{DenialReason, Denied, Granted};
use super::policy::{Mode, Trust, TrustPolicy};
use super::rule::Grant;
use super::verification::{CompiledTrust, Verification};
use crate::clock::{Clock, SystemClock};
use crate::config::AuthConfig;
use crate::identity::{IdentityKind, Scopes};
use crate::issuer::{IssuerHealth, KeySets};
use crate::replay::{MemoryReplayLog, ReplayKey, ReplayLog};
use crate::support::crypto;
use crate::support::telemetry::{self, Outage};
use crate::validator::JwksValidator;

/// The foreign issuers a service trusts, by a [`TrustPolicy`] (feature `trust`). A handle: clones share the policy.
///
/// The policy is exchanged as a whole while requests run, by [`reload`](Self::reload) or
/// [`replace`](Self::replace); a decision is made by one policy from beginning to end. Keys that
/// were fetched stay at hand where a trust did not change, and the log of used tokens stays.
#[derive(Debug, Clone)]
pub struct TrustEvaluator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    loaded: ArcSwap<Loaded>,
    file: Option<PathBuf>,
    own_issuers: Vec<String>,
    replay_log: Arc<dyn ReplayLog>,
    /// What the log was told of it.
    replay_outage: Outage,
    clock: Arc<dyn Clock>,
    /// TrustEvaluator that name the same URL share its keys, which are at hand after a reload, too.
    key_sets: Arc<KeySets>,
    /// Held while the policy is exchanged, so that an older file does not overtake a newer one.
    changing: Mutex<()>,
}

/// A policy with what verifies its tokens.
#[derive(Debug, Default)]
struct Loaded {
    policy: TrustPolicy,
    trusts: Vec<Arc<CompiledTrust>>,
}

impl TrustEvaluator {
    /// Puts one together.
    pub fn builder() -> TrustEvaluatorBuilder {
        TrustEvaluatorBuilder::default()
    }

    /// Decides about a foreign token.
    ///
    /// `trust_id` is the trust the caller names; with `None` the token leads to its trust by issuer
    /// and audience. `requested` is the scope asked for; when empty, everything the rule permits.
    /// A scope beyond that is refused, not left out.
    ///
    /// In this order: the trust; that it has not ended; signature, audience and times, as
    /// [`JwksValidator`] checks them; `max_lifetime` and `max_age`; exactly one matching rule; the
    /// identity; the scopes; and last, where the trust says so, that the token was not used before.
    /// A token that is denied is not used up.
    ///
    /// *Not* checked: whether the workload still exists (a token may outlive its pod), and whether
    /// the tenant does.
    ///
    /// # Errors
    /// [`Denied`], which tells the caller next to nothing. Every decision is logged.
    pub async fn evaluate(
        &self,
        token: &str,
        trust_id: Option<&str>,
        requested: &Scopes,
    ) -> Result<Granted, Denied> {
        let loaded = self.0.loaded.load_full();
        let found = Verification::of(&loaded.trusts, trust_id, token, &*self.0.clock).await;
        let decision = self.decide(&found, requested).await;
        log(&found, decision.as_ref().err());
        decision.map_err(|reason| Denied { reason })
    }

    /// Says which rule matches a token, or why none does. For administrators and logs, never for
    /// the caller: it quotes the policy and claims of the token. It has neither token nor signature
    /// in it. Scopes and earlier use are not looked at, and the token is not used up.
    pub async fn explain(&self, token: &str, trust_id: Option<&str>) -> Explanation {
        let loaded = self.0.loaded.load_full();
        Explanation::of(Verification::of(&loaded.trusts, trust_id, token, &*self.0.clock).await)
    }

    /// Reads the policy's file again. The calling thread waits for the disk.
    ///
    /// # Errors
    /// Everything that is wrong; the policy in force stays in force. Also when there is no file.
    pub fn reload(&self) -> Result<(), PolicyError> {
        self.change(|| match &self.0.file {
            Some(file) => read(file),
            None => Err(no_file("there is no file to read again: use `replace`")),
        })
    }

    /// Puts another policy into force, whole and at once.
    ///
    /// # Errors
    /// When it lists an issuer of this service's own; the policy in force stays in force.
    pub fn replace(&self, policy: TrustPolicy) -> Result<(), PolicyError> {
        self.change(|| Ok(policy))
    }

    /// The policy in force.
    pub fn policy(&self) -> TrustPolicy {
        self.0.loaded.load().policy.clone()
    }

    /// How the keys of each trust are doing, by its id.
    pub fn health(&self) -> Vec<(String, IssuerHealth)> {
        let loaded = self.0.loaded.load();
        let of = |compiled: &Arc<CompiledTrust>| {
            let health = compiled.validator.issuers().health();
            health.into_iter().map(|health| (compiled.trust.id.clone(), health)).collect::<Vec<_>>()
        };
        loaded.trusts.iter().flat_map(of).collect()
    }

    fn change(
        &self,
        policy: impl FnOnce() -> Result<TrustPolicy, PolicyError>,
    ) -> Result<(), PolicyError> {
        let _changing = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = policy().and_then(|policy| self.0.open(policy, &self.0.loaded.load()));
        let loaded = loaded.inspect_err(|error| telemetry::trust_policy_refused(error))?;
        telemetry::trust_policy_loaded(loaded.trusts.len());
        self.0.loaded.store(Arc::new(loaded));
        Ok(())
    }

    async fn decide(
        &self,
        found: &Verification,
        requested: &Scopes,
    ) -> Result<Granted, DenialReason> {
        let identity = found.verdict.clone()?;
        let (Some(trust), Some(grant), Some(workload)) =
            (found.trust(), found.grant(), &found.workload)
        else {
            return Err(DenialReason::NoGrant);
        };
        let expires_at = workload.expires_at();
        let granted = Granted {
            trust: trust.id.clone(),
            grant: grant.name.clone(),
            identity,
            kind: IdentityKind::Workload,
            tenant: grant.map.tenant.clone(),
            scopes: permitted(grant, requested)?,
            expires_at: trust.not_after.as_ref().map_or(expires_at, |it| it.end.min(expires_at)),
            workload: workload.clone(),
        };
        if trust.single_use_jti {
            self.use_up(trust, found.text("jti"), expires_at).await?;
        }
        match trust.mode {
            Mode::Enforce => Ok(granted),
            Mode::Audit => Err(DenialReason::AuditMode),
        }
    }

    async fn use_up(
        &self,
        trust: &Trust,
        jti: Option<&str>,
        expires_at: SystemTime,
    ) -> Result<(), DenialReason> {
        // Until then the validator takes it; a fraction of `exp` was cut off.
        let until = expires_at.checked_add(trust.leeway.0 + Duration::from_secs(1));
        let jti = jti.filter(|jti| !jti.is_empty());
        let (jti, until) = jti.zip(until).ok_or(DenialReason::NoJti)?;
        let key = ReplayKey::of_foreign_token(&trust.id, &trust.issuer, jti);
        match self.0.replay_log.first_use(key, until).await {
            Ok(is_first) => {
                if self.0.replay_outage.ends(|| self.0.clock.elapsed()) {
                    telemetry::store_recovered("replay log");
                }
                if is_first { Ok(()) } else { Err(DenialReason::Replayed) }
            }
            Err(error) => {
                let is_new = self.0.replay_outage.begins(&error, self.0.clock.elapsed());
                telemetry::replay_log_failed(&*error, is_new);
                Err(DenialReason::Unavailable { what: "replay log", retry_after: None })
            }
        }
    }
}

/// What was asked for, if the rule permits it; everything it permits, if nothing was.
fn permitted(grant: &Grant, requested: &Scopes) -> Result<Scopes, DenialReason> {
    let permitted = &grant.map.scopes;
    match requested.is_empty() {
        true => Ok(permitted.clone()),
        false if permitted.contains_all(requested) => Ok(requested.clone()),
        false => Err(DenialReason::Scope),
    }
}

impl Inner {
    fn open(&self, policy: TrustPolicy, before: &Loaded) -> Result<Loaded, PolicyError> {
        policy.check_own(&self.own_issuers)?;
        let mut trusts = Vec::new();
        for trust in &policy.trusts {
            let config = trust.issuer_config();
            let unchanged = before
                .trusts
                .iter()
                .find(|old| old.trust.id == trust.id && old.trust.issuer_config() == config);
            let validator = match unchanged {
                Some(old) => old.validator.clone(),
                None => {
                    let mut config = AuthConfig::of_issuer(&config, &[]);
                    // A foreign token comes once: there is nothing to remember.
                    config.verified_tokens_bytes = 0;
                    let compiled = JwksValidator::with_key_sets(&config, self.key_sets.clone());
                    let compiled = compiled.map_err(|error| error.to_string());
                    let place = format!("trust.{}", trust.id);
                    compiled.map_err(|error| PolicyError::one(trust.lines.own, place, error))?
                }
            };
            trusts.push(Arc::new(CompiledTrust { trust: trust.clone(), validator }));
        }
        Ok(Loaded { policy, trusts })
    }
}

fn no_file(problem: &str) -> PolicyError {
    PolicyError::one(0, "the policy", problem)
}

/// JSON if the name ends so, else TOML.
fn read(file: &Path) -> Result<TrustPolicy, PolicyError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| no_file(&format!("cannot be read from {}: {error}", file.display())))?;
    match file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        true => TrustPolicy::from_json(&text),
        false => TrustPolicy::from_toml(&text),
    }
}

/// Puts [`TrustEvaluator`] together (feature `trust`). `build` does no I/O but to read the file.
#[derive(Debug, Default)]
#[must_use = "nothing is trusted before `build()`"]
pub struct TrustEvaluatorBuilder {
    policy: Option<TrustPolicy>,
    file: Option<PathBuf>,
    own_issuers: Vec<String>,
    replay_log: Option<Arc<dyn ReplayLog>>,
    clock: Option<Arc<dyn Clock>>,
}

impl TrustEvaluatorBuilder {
    /// Sets the policy. Default: one that trusts nobody.
    pub fn policy(mut self, policy: TrustPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Reads the policy from a file, now and at every [`TrustEvaluator::reload`]: JSON if its name ends in
    /// `.json`, else TOML.
    pub fn file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Names an issuer whose tokens this service takes as its own, or the template of such issuers
    /// (`https://scaikey.example/tenants/{tenant_id}`). May be repeated. A policy that lists it is
    /// refused: a rule must not give the provider's own tokens other scopes.
    pub fn own_issuer(mut self, issuer: impl Into<String>) -> Self {
        self.own_issuers.push(issuer.into());
        self
    }

    /// [`own_issuer`](Self::own_issuer) for every issuer of the service's configuration.
    pub fn own_issuers(mut self, config: &AuthConfig) -> Self {
        self.own_issuers.extend(config.issuers.iter().map(|issuer| issuer.expected().to_owned()));
        self
    }

    /// Sets where used tokens are noted. Default: [`MemoryReplayLog`] for 100 000 tokens, which is
    /// right for one process only.
    pub fn replay_log(mut self, log: impl ReplayLog) -> Self {
        self.replay_log = Some(Arc::new(log));
        self
    }

    /// Sets the clock. Default [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Reads and checks the policy.
    ///
    /// # Errors
    /// Everything that is wrong with it; both a policy and a file; a file that cannot be read.
    pub fn build(self) -> Result<TrustEvaluator, PolicyError> {
        let Self { policy, file, own_issuers, replay_log, clock } = self;
        let policy = match (policy, &file) {
            (Some(_), Some(_)) => {
                return Err(no_file("is given twice, as a value and as a file: give one"));
            }
            (None, Some(file)) => read(file)?,
            (policy, None) => policy.unwrap_or_default(),
        };
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock::default()));
        let in_memory = || Arc::new(MemoryReplayLog::with_clock(100_000, clock.clone())) as _;
        let inner = Inner {
            loaded: ArcSwap::default(),
            replay_log: replay_log.unwrap_or_else(in_memory),
            replay_outage: Outage::default(),
            key_sets: Arc::new(KeySets::new(clock.clone())),
            changing: Mutex::default(),
            file,
            own_issuers,
            clock,
        };
        let loaded = inner.open(policy, &Loaded::default())?;
        inner.loaded.store(Arc::new(loaded));
        Ok(TrustEvaluator(Arc::new(inner)))
    }
}

/// Tells the audit log of a decision. Digests only: what a token says may be about a person, and may be
/// made to forge log lines.
fn log(found: &Verification, denied: Option<&DenialReason>) {
    let digest = |name| found.text(name).map(crypto::sha256_hex);
    let trust = found.trust();
    telemetry::trust_decided(&telemetry::TrustDecision {
        trust: trust.map(|trust| trust.id.as_str()),
        issuer: trust.map(|trust| trust.issuer.as_str()),
        grant: found.grant().map(|grant| grant.name.as_str()),
        outcome: denied.map_or("granted", DenialReason::as_str),
        subject_sha256: digest("sub").as_deref(),
        jti_sha256: digest("jti").as_deref(),
        is_verified: found.workload.is_some(),
    });
}
