//! [`Following`]: an evaluator follows the store of its policy, and saves new versions in it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::current::{CurrentPolicy, SaveError, SyncError};
use super::evaluator::{Inner, LoadedPolicy, TrustEvaluator, policy_error};
use super::fault::PolicyError;
use super::policy::TrustPolicy;
use super::store::{
    Appended, FilePolicies, NewPolicyVersion, PolicyStore, PolicyVersion, PolicyVersionId,
};
use crate::clock::with_timeout;
use crate::error::BoxError;
use crate::support::crypto;
use crate::support::off_thread::off_thread;
use crate::support::single_flight::SingleFlight;
use crate::support::telemetry::{self, Causes, Outage};

/// The default time between two checks of the store.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// The longest time that a decision waits for a check, in real time.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The limit of one check, in real time. Longer than a decision waits, so that a slow store is followed too.
const CHECK_LIMIT: Duration = Duration::from_secs(10);

/// The limit of saving, in real time. Longer than a store waits for another writer.
const SAVE_LIMIT: Duration = Duration::from_secs(15);

/// The number of attempts to read the latest version while others write.
const ATTEMPTS: usize = 3;

/// The store of a policy, and the outcome of the last check for a new version.
pub(super) struct Following {
    pub(super) store: Arc<dyn PolicyStore>,
    /// The store, if it is a file that the evaluator was built with.
    file: Option<FilePolicies>,
    every: Duration,
    save_limit: Duration,
    /// The monotonic time of the next check, in nanoseconds.
    due: AtomicU64,
    /// Shares a check between all decisions that wait for it.
    checks: SingleFlight<(), ()>,
    /// Held while a version is read and compiled, so that checks at the same time do that once.
    loading: tokio::sync::Mutex<()>,
    /// Held while a tenant's change is merged and saved, so that tenants do not make each other repeat it.
    pub(super) tenant_saves: tokio::sync::Mutex<()>,
    /// The last check failed or takes long, so that decisions do not wait for the next one.
    is_away: AtomicBool,
    outage: Outage,
    rejected: Mutex<Option<Rejected>>,
}

/// The latest version, if it cannot be used.
struct Rejected {
    id: PolicyVersionId,
    faults: PolicyError,
    /// The monotonic time at which it was read.
    at: Duration,
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (store, every) = (&self.store, &self.every);
        f.debug_struct("Following").field("store", store).field("every", every).finish()
    }
}

impl Following {
    pub(super) fn new(store: Arc<dyn PolicyStore>, every: Option<Duration>) -> Self {
        Self {
            store,
            file: None,
            every: every.unwrap_or(CHECK_EVERY),
            save_limit: SAVE_LIMIT,
            due: AtomicU64::new(0),
            checks: SingleFlight::default(),
            loading: tokio::sync::Mutex::default(),
            tenant_saves: tokio::sync::Mutex::default(),
            is_away: AtomicBool::new(false),
            outage: Outage::default(),
            rejected: Mutex::default(),
        }
    }

    pub(super) fn of_file(file: FilePolicies, every: Option<Duration>) -> Self {
        let store = Arc::new(file.clone());
        Self { file: Some(file), ..Self::new(store, every) }
    }

    fn is_due(&self, now: Duration) -> bool {
        nanoseconds(now) >= self.due.load(Ordering::Acquire)
    }

    /// Records the outcome of a check. Faults of a version are no failure of the store.
    fn record(&self, failure: Option<&BoxError>, is_loaded: bool, now: Duration) {
        match failure {
            Some(error) => {
                self.is_away.store(true, Ordering::Release);
                let error = Causes(&**error);
                let is_new = self.outage.record_failure(&error, now);
                telemetry::trust_store_failed(&error, is_loaded, is_new);
            }
            None => {
                self.is_away.store(false, Ordering::Release);
                if self.outage.record_success(|| now) {
                    telemetry::store_recovered("trust policy store");
                }
            }
        }
        self.due.store(nanoseconds(now.saturating_add(self.every)), Ordering::Release);
    }

    /// Remembers that the latest version cannot be used. Returns whether its faults are new.
    fn reject(&self, id: &PolicyVersionId, faults: &PolicyError, at: Duration) -> bool {
        let mut rejected = self.lock_rejected();
        let is_known = |before: &Rejected| before.id == *id && before.faults == *faults;
        let is_new = !rejected.as_ref().is_some_and(is_known);
        *rejected = Some(Rejected { id: id.clone(), faults: faults.clone(), at });
        is_new
    }

    /// Returns the faults of a version that was read of late, so that it need not be read again.
    fn known_faults(&self, id: &PolicyVersionId, now: Duration) -> Option<PolicyError> {
        let rejected = self.lock_rejected();
        let is_known = |it: &&Rejected| it.id == *id && now < it.at.saturating_add(self.every);
        rejected.as_ref().filter(is_known).map(|it| it.faults.clone())
    }

    fn rejected(&self) -> Option<PolicyVersionId> {
        self.lock_rejected().as_ref().map(|rejected| rejected.id.clone())
    }

    fn accept(&self) {
        *self.lock_rejected() = None;
    }

    fn lock_rejected(&self) -> MutexGuard<'_, Option<Rejected>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

impl TrustEvaluator {
    /// Returns the loaded policy with its version, and the state of the store, as of the last check. It makes no
    /// check: call [`sync`](Self::sync) before.
    pub fn current(&self) -> CurrentPolicy {
        let following = self.0.following.as_ref();
        CurrentPolicy {
            loaded: self.0.loaded.load_full(),
            is_store_away: following
                .is_some_and(|following| following.is_away.load(Ordering::Acquire)),
            rejected: following.and_then(Following::rejected),
        }
    }

    /// Returns the id of the loaded version, or `None` if the policy is in no store, or the store is empty.
    pub fn version(&self) -> Option<PolicyVersionId> {
        self.0.loaded.load().version.as_ref().map(|version| version.change.id.clone())
    }

    /// Returns the store of the policy, for its history. Save by [`save`](Self::save), which checks the policy.
    pub fn policy_store(&self) -> Option<&Arc<dyn PolicyStore>> {
        self.0.following.as_ref().map(|following| &following.store)
    }

    /// Loads the latest version from the store, if it is not loaded yet. Decisions do this by themselves every
    /// [5 s](super::TrustEvaluatorBuilder::check_store_every). Without a store, it does nothing. A version with faults
    /// is read again after that time at the earliest; until then, the faults are returned that it had.
    ///
    /// # Errors
    /// The store failed or did not answer within 10 s, or the version has faults. The loaded policy stays in force.
    pub async fn sync(&self) -> Result<(), SyncError> {
        self.0.check().await
    }

    /// Saves a version in the store and loads it. Other processes load it within
    /// [5 s](super::TrustEvaluatorBuilder::check_store_every).
    ///
    /// It saves only if the version in force is still `expected` (`None`: the store is empty), so that no change of
    /// another writer is lost. The policy passes all checks before, including the files that it names. It does *not*
    /// check who the author is.
    ///
    /// The version is saved even if the returned future is dropped.
    ///
    /// # Errors
    /// [`SaveError`]; a store that does not answer within 15 s has failed. The current policy stays in force.
    pub async fn save(
        &self,
        version: NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<PolicyVersionId, SaveError> {
        let (inner, expected) = (self.0.clone(), expected.cloned());
        let save = async move { inner.save(version, expected).await };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => match runtime.spawn(save).await {
                Ok(outcome) => outcome,
                Err(error) => Err(SaveError::Store(error.into())),
            },
            Err(_) => save.await,
        }
    }

    /// Returns the policy for a decision, after a check of the store if one is due.
    pub(super) async fn follow(&self) -> Arc<LoadedPolicy> {
        let inner = &self.0;
        let Some(following) = &inner.following else { return inner.loaded.load_full() };
        if following.is_due(inner.clock.elapsed()) {
            let permit = || following.is_due(inner.clock.elapsed()).then_some(()).ok_or(());
            let check = following.checks.run_if((), permit, || inner.clone().check_for_decisions());
            let may_wait =
                !following.is_away.load(Ordering::Acquire) || inner.loaded.load().is_missing;
            if let (Ok(check), true) = (check, may_wait) {
                let _ = with_timeout(MAX_WAIT, check.wait()).await;
            }
        }
        inner.loaded.load_full()
    }
}

/// Records a check that panics as a failure of the store.
struct RecordPanic<'c> {
    inner: &'c Inner,
    following: &'c Following,
}

impl Drop for RecordPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.inner.record(self.following, Some(&"panicked".into()));
        }
    }
}

impl Inner {
    fn record(&self, following: &Following, failure: Option<&BoxError>) {
        following.record(failure, !self.loaded.load().is_missing, self.clock.elapsed());
    }

    /// Makes a check that decisions wait for. If it takes longer than they wait, later ones do not wait.
    async fn check_for_decisions(self: Arc<Self>) {
        let mut check = std::pin::pin!(self.check());
        if with_timeout(MAX_WAIT, &mut check).await.is_none() {
            if let Some(following) = &self.following {
                let error = "did not answer within 1 s".into();
                self.record(following, Some(&error));
            }
            let _ = check.await;
        }
    }

    /// Loads the latest version, if it is not loaded yet, and records how the store works.
    async fn check(self: &Arc<Self>) -> Result<(), SyncError> {
        let Some(following) = &self.following else { return Ok(()) };
        let _panic = RecordPanic { inner: self, following };
        let outcome = with_timeout(CHECK_LIMIT, self.load_latest(following)).await;
        let outcome =
            outcome.unwrap_or_else(|| Err(SyncError::Store("did not answer within 10 s".into())));
        let failure = match &outcome {
            Err(SyncError::Store(error)) => Some(error),
            Err(SyncError::Faults(_)) | Ok(()) => None,
        };
        self.record(following, failure);
        outcome
    }

    async fn load_latest(self: &Arc<Self>, following: &Following) -> Result<(), SyncError> {
        for _ in 0..ATTEMPTS {
            let before = self.loaded.load_full();
            let latest = following.store.latest().await.map_err(SyncError::Store)?;
            let _loading = following.loading.lock().await;
            let current = self.loaded.load_full();
            let loaded = current.version.as_ref().map(|version| &version.change.id);
            if !current.is_missing && latest.as_ref() == loaded {
                following.accept();
                return Ok(());
            }
            if !Arc::ptr_eq(&current, &before) {
                // Loaded meanwhile, so it may be newer.
                continue;
            }
            let version = match (latest, loaded) {
                (None, Some(loaded)) => {
                    let error = format!("is empty, although it had version {loaded}");
                    return Err(SyncError::Store(error.into()));
                }
                (None, None) => None,
                (Some(latest), _) => {
                    let now = self.clock.elapsed();
                    if let Some(faults) = following.known_faults(&latest, now) {
                        return Err(SyncError::Faults(faults));
                    }
                    let read = following.store.read(latest.number()).await;
                    let read = read.map_err(SyncError::Store)?;
                    // Otherwise a writer was faster.
                    let Some(version) = read.filter(|read| read.change.id == latest) else {
                        continue;
                    };
                    if !latest.is_of(&version.text) {
                        let error = format!("returned another text for version {latest}");
                        return Err(SyncError::Store(error.into()));
                    }
                    Some(version)
                }
            };
            if self.load_version(following, version, &before).await? {
                return Ok(());
            }
        }
        Err(SyncError::Store("changed each time that it was read".into()))
    }

    /// Loads a version (`None`: of an empty store). Returns `false` if another one was loaded in the meantime.
    async fn load_version(
        self: &Arc<Self>,
        following: &Following,
        version: Option<PolicyVersion>,
        before: &Arc<LoadedPolicy>,
    ) -> Result<bool, SyncError> {
        let id = version.as_ref().map(|version| version.change.id.clone());
        let (inner, old) = (self.clone(), before.clone());
        let compiled = off_thread(move || inner.compile_version(version, &old)).await;
        let compiled = compiled.map_err(|error| SyncError::Store(error.into()))?;
        let loaded = compiled.inspect_err(|error| {
            let now = self.clock.elapsed();
            if id.as_ref().is_some_and(|id| following.reject(id, error, now)) {
                telemetry::trust_policy_rejected(error);
            }
        })?;
        let trusts = loaded.trusts.len();
        let is_unchanged = |current: &Arc<LoadedPolicy>| Arc::ptr_eq(current, before);
        let is_loaded = self.load_if(is_unchanged, loaded);
        if is_loaded {
            following.accept();
            let (number, earlier) = (id.map(|id| id.number()), before.number());
            if number < earlier {
                telemetry::trust_policy_went_back(number, earlier);
            }
            telemetry::trust_policy_loaded(trusts, number);
        }
        Ok(is_loaded)
    }

    /// Loads the policy file, if the evaluator was built with one. Blocks the calling thread.
    pub(super) fn load_file(&self, following: &Following) -> Result<(), PolicyError> {
        let Some(file) = &following.file else { return Ok(()) };
        loop {
            let before = self.loaded.load_full();
            let version = file.read_blocking()?;
            let id = version.change.id.clone();
            let loaded = self.compile_version(Some(version), &before);
            let loaded = loaded.inspect_err(|error| {
                following.reject(&id, error, self.clock.elapsed());
            })?;
            // Otherwise another thread has loaded a version, which may be newer.
            if self.load_if(|current| Arc::ptr_eq(current, &before), loaded) {
                following.accept();
                self.record(following, None);
                return Ok(());
            }
        }
    }

    /// Loads the policy file again, and logs the outcome.
    pub(super) fn reload_file(&self, following: &Following) -> Result<(), PolicyError> {
        let reloaded = match following.file {
            Some(_) => self.load_file(following),
            None => Err(policy_error("is in a store: use `sync`")),
        };
        reloaded.inspect_err(|error| telemetry::trust_policy_rejected(error))?;
        let loaded = self.loaded.load();
        telemetry::trust_policy_loaded(loaded.trusts.len(), loaded.number());
        Ok(())
    }

    fn compile_version(
        &self,
        version: Option<PolicyVersion>,
        before: &LoadedPolicy,
    ) -> Result<LoadedPolicy, PolicyError> {
        let text = version.as_ref().map_or("", |version| &version.text);
        let mut loaded = self.compile(TrustPolicy::from_toml(text)?, before)?;
        loaded.version = version;
        Ok(loaded)
    }

    /// Puts a policy into force, if `may_replace` permits it. Returns whether it did.
    fn load_if(
        &self,
        may_replace: impl FnOnce(&Arc<LoadedPolicy>) -> bool,
        loaded: LoadedPolicy,
    ) -> bool {
        let _guard = self.change_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let may_replace = may_replace(&self.loaded.load_full());
        if may_replace {
            self.loaded.store(Arc::new(loaded));
        }
        may_replace
    }

    async fn save(
        self: Arc<Self>,
        version: NewPolicyVersion,
        expected: Option<PolicyVersionId>,
    ) -> Result<PolicyVersionId, SaveError> {
        let Some(following) = &self.following else { return Err(SaveError::ReadOnly) };
        // The number is not known yet.
        let (inner, checked) = (self.clone(), PolicyVersion::new(0, version.clone()));
        let compiled =
            off_thread(move || inner.compile_version(Some(checked), &inner.loaded.load())).await;
        let mut loaded = compiled.map_err(|error| SaveError::Store(error.into()))??;
        let before = self.loaded.load_full();
        let append = following.store.append(version.clone(), expected.as_ref());
        let appended = with_timeout(following.save_limit, append).await;
        let appended = appended.unwrap_or_else(|| Err("did not answer within 15 s".into()));
        let id = match appended.map_err(SaveError::Store)? {
            Appended::Done(id) => id,
            Appended::Conflict(current) => return Err(SaveError::Conflict(current)),
        };
        let author = version.author.as_ref().map(|author| crypto::sha256_hex(&author.subject));
        telemetry::trust_policy_changed(id.number(), version.restores, author.as_deref());
        let trusts = loaded.trusts.len();
        loaded.version = Some(PolicyVersion::new(id.number(), version));
        // A check may have loaded this version or a later one meanwhile. What was loaded before is older, whatever its
        // number: it may be an edit of the policy file that was taken back.
        let is_older = |current: &Arc<LoadedPolicy>| {
            Arc::ptr_eq(current, &before) || current.number() < Some(id.number())
        };
        if self.load_if(is_older, loaded) {
            following.accept();
            telemetry::trust_policy_loaded(trusts, Some(id.number()));
        } else {
            following.due.store(0, Ordering::Release);
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use async_trait::async_trait;

    use super::*;
    use crate::trust::PolicyChange;

    /// An empty store that does not answer a writer.
    #[derive(Debug)]
    struct Hanging;

    #[async_trait]
    impl PolicyStore for Hanging {
        async fn latest(&self) -> Result<Option<PolicyVersionId>, BoxError> {
            Ok(None)
        }

        async fn read(&self, _: u64) -> Result<Option<PolicyVersion>, BoxError> {
            Ok(None)
        }

        async fn append(
            &self,
            _: NewPolicyVersion,
            _: Option<&PolicyVersionId>,
        ) -> Result<Appended, BoxError> {
            std::future::pending().await
        }

        async fn history(&self, _: Option<u64>, _: usize) -> Result<Vec<PolicyChange>, BoxError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn save_ends_if_store_hangs() {
        let mut trusts = TrustEvaluator::builder().store(Hanging).build().unwrap();
        let following = Arc::get_mut(&mut trusts.0).and_then(|inner| inner.following.as_mut());
        following.unwrap().save_limit = Duration::ZERO;
        let version = NewPolicyVersion::new("", SystemTime::UNIX_EPOCH);
        let error = trusts.save(version, None).await.unwrap_err();
        assert!(matches!(error, SaveError::Store(_)), "{error}");
    }
}
