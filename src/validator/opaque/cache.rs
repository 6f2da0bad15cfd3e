//! [`IntrospectedTokens`]: the cache of introspection answers.
//!
//! An entry is found by the [MAC](Mac) of the token; the token itself is not stored. Active and inactive tokens
//! have a table each, so that invented tokens never evict good ones. An active token is accepted again without a
//! question if all of these hold:
//!
//! - the answer is younger than the time of reuse;
//! - `exp` has not passed, and the time is within `nbf` and `iat`;
//! - there was no flush, and no issuer was removed, replaced or purged, since the question began;
//! - no [revocation](RevokedAnswers) is newer than the answer, if the answer does not say when the token was issued.
//!
//! An entry that is too old stays in the table: it shows that the token is not invented, and it may serve while
//! the endpoint is unavailable.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::Serialize;

use super::super::rules::ValidityPeriod;
use crate::clock::Clock;
use crate::error::InvalidToken;
use crate::identity::Identity;
use crate::support::bounded::{Bounded, bounded, weighed};
use crate::support::mac::{BuildMacHasher, Mac};

/// The maximum number of active tokens, and of inactive ones.
const MAX_TOKENS: usize = 10_000;

/// The maximum memory of the active tokens.
const MAX_BYTES: usize = 8 << 20;

/// The time for which a token that the endpoint called inactive, or that a rule refused, is refused without
/// another question.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// The time for which an old answer serves before the endpoint, which did not answer, is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The cache of introspection answers. A handle: clones share the cache.
/// [`Auth::introspected_tokens`](crate::Auth::introspected_tokens) returns it.
///
/// It holds at most 10,000 active tokens in 8 MiB, and 10,000 inactive ones. The tokens themselves are not
/// stored. An answer is reused for [`cache_for`](super::OpaqueTokens::cache_for).
///
/// ```
/// use scaikey_auth::Auth;
///
/// /// Lets the next request with each opaque token ask the issuer again, after a mass revocation.
/// fn forget(auth: &Auth) {
///     println!("{} questions until now", auth.introspected_tokens().stats().questions);
///     auth.introspected_tokens().flush();
/// }
/// ```
#[derive(Clone)]
pub struct IntrospectedTokens(Option<Arc<Shared>>);

/// Statistics of [`IntrospectedTokens`]. The counters start at zero when the service is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct IntrospectedTokensStats {
    /// The number of entries about active tokens, including those that are too old to be reused.
    pub active: usize,
    /// The number of entries about inactive and refused tokens, including those that are too old.
    pub refused: usize,
    /// The approximate memory of all entries, in bytes.
    pub bytes: usize,
    /// The limit of `bytes`; 0 without opaque tokens.
    pub max_bytes: usize,
    /// The number of requests that a reused answer decided.
    pub hits: u64,
    /// The number of questions to introspection endpoints.
    pub questions: u64,
    /// The number of questions without a usable answer.
    pub failures: u64,
    /// The number of requests that were answered with 503 because the budget for unknown tokens was used up.
    pub over_budget: u64,
    /// The number of requests that an old answer decided while the endpoint was unavailable.
    pub served_while_unavailable: u64,
}

#[derive(Debug)]
struct Shared {
    active: Cache<Mac, Arc<Entry>, WeighBytes, BuildMacHasher>,
    refused: Bounded<Mac, Refused, BuildMacHasher>,
    flushes: AtomicU64,
    counters: Counters,
}

/// The counters of the statistics.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: AtomicU64,
    pub(super) questions: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) over_budget: AtomicU64,
    pub(super) served_while_unavailable: AtomicU64,
}

/// An active token that passed every rule.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) identity: Identity,
    lifetime: ValidityPeriod,
    /// `exp`, if the answer has it.
    expires_at: Option<SystemTime>,
    /// The monotonic time up to which the answer is reused.
    fresh_until: Duration,
    /// The monotonic time up to which the answer serves while the endpoint is unavailable.
    usable_until: Duration,
    /// The monotonic time, in milliseconds, up to which the answer serves without another question, because
    /// the last one was not answered.
    unanswered_until: AtomicU64,
    question: QuestionId,
}

/// A token that is refused.
#[derive(Debug, Clone, Copy)]
struct Refused {
    fault: InvalidToken,
    until: Duration,
    question: QuestionId,
}

/// The identity of a question. An answer counts only for requests with the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct QuestionId {
    pub(super) mac: Mac,
    /// The number of flushes before the question.
    flushes: u64,
    /// [`Issuers::generation`](crate::issuer::Issuers::generation) before the question.
    generation: u64,
}

/// The revocations, which know of events that an answer is too old for.
pub(crate) trait RevokedAnswers: fmt::Debug + Send + Sync {
    /// Returns the time from which on an answer about this token counts, if older answers do not.
    fn counts_from(&self, identity: &Identity) -> Option<SystemTime>;
}

/// The result of a lookup.
pub(super) enum Lookup {
    Active(Identity),
    Refused(InvalidToken),
    /// The endpoint must be asked.
    Unknown(QuestionId, Option<Arc<Entry>>),
}

/// The time of reuse of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reuse {
    /// The monotonic time of the question.
    pub(super) asked_at: Duration,
    /// The wall-clock time of the question, or the later one from which on its answer counts.
    pub(super) counts_from: SystemTime,
    pub(super) cache_for: Duration,
    pub(super) serve_while_unavailable: Duration,
}

#[derive(Debug, Clone)]
struct WeighBytes;

impl Weighter<Mac, Arc<Entry>> for WeighBytes {
    fn weight(&self, _: &Mac, entry: &Arc<Entry>) -> u64 {
        // The minimum limits the number of entries.
        (entry.identity.footprint() + ENTRY_BYTES).max(MAX_BYTES / MAX_TOKENS) as u64
    }
}

/// Bytes of an entry without its identity: the entry with the counters of its `Arc`, and its share of the
/// cache's slots, links and index.
const ENTRY_BYTES: usize = size_of::<Entry>() + 2 * size_of::<usize>() + 64;

/// Approximate bytes of an entry about a refused token.
const REFUSED_BYTES: usize = size_of::<Refused>() + size_of::<Mac>() + 32;

impl IntrospectedTokens {
    /// Creates a cache, or none for a service without opaque tokens.
    pub(crate) fn new(is_used: bool) -> Self {
        let active = || weighed(MAX_TOKENS / 512, MAX_TOKENS, MAX_BYTES as u64, WeighBytes);
        Self(is_used.then(|| {
            Arc::new(Shared {
                active: active(),
                refused: bounded(MAX_TOKENS),
                flushes: AtomicU64::new(0),
                counters: Counters::default(),
            })
        }))
    }

    /// Removes all answers. The next request with each token asks its issuer again. An answer to a question that
    /// is being asked now is not reused either.
    ///
    /// A flush is useful after a mass revocation, or to remove personal data from memory.
    pub fn flush(&self) {
        if let Some(shared) = &self.0 {
            shared.flushes.fetch_add(1, Ordering::AcqRel);
            shared.active.clear();
            shared.refused.clear();
        }
    }

    /// Removes the answer about one token, because it may be revoked now. Its next request asks its issuer again.
    #[cfg(feature = "endpoints")]
    pub(crate) fn forget(&self, token: &[u8]) {
        if let Some(shared) = &self.0 {
            shared.active.remove(&Mac::of(token));
        }
    }

    /// Returns the size of the cache and its counters.
    pub fn stats(&self) -> IntrospectedTokensStats {
        let Some(shared) = &self.0 else { return IntrospectedTokensStats::default() };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (counters, refused) = (&shared.counters, shared.refused.len());
        let active_bytes = usize::try_from(shared.active.weight()).unwrap_or(usize::MAX);
        IntrospectedTokensStats {
            active: shared.active.len(),
            refused,
            bytes: active_bytes.saturating_add(refused * REFUSED_BYTES),
            max_bytes: MAX_BYTES + MAX_TOKENS * REFUSED_BYTES,
            hits: count(&counters.hits),
            questions: count(&counters.questions),
            failures: count(&counters.failures),
            over_budget: count(&counters.over_budget),
            served_while_unavailable: count(&counters.served_while_unavailable),
        }
    }

    /// Looks a token up. `generation` is the current generation of the issuers. `counts` says whether an answer still
    /// counts, whatever its age.
    pub(super) fn get(
        &self,
        token: &[u8],
        generation: u64,
        clock: &dyn Clock,
        counts: impl FnOnce(&Identity) -> bool,
    ) -> Lookup {
        let mac = Mac::of(token);
        // Read before the tables, so that a flush from now on concerns this request too.
        let flushes = self.0.as_ref().map_or(0, |shared| shared.flushes.load(Ordering::Acquire));
        let question = QuestionId { mac, flushes, generation };
        let Some(shared) = &self.0 else { return Lookup::Unknown(question, None) };
        let elapsed = clock.elapsed();
        let entry = shared.active.get(&mac);
        if let Some(entry) = &entry
            && entry.question == question
            && entry.is_fresh(elapsed)
            && entry.is_valid(clock.now())
            && counts(&entry.identity)
        {
            shared.counters.hits.fetch_add(1, Ordering::Relaxed);
            return Lookup::Active(entry.identity.clone());
        }
        match shared.refused.get(&mac) {
            Some(refused) if refused.question == question && elapsed < refused.until => {
                shared.counters.hits.fetch_add(1, Ordering::Relaxed);
                Lookup::Refused(refused.fault)
            }
            _ => Lookup::Unknown(question, entry),
        }
    }

    /// Stores an active token that passed every rule.
    pub(super) fn insert(&self, entry: &Arc<Entry>) {
        if let Some(shared) = &self.0 {
            shared.active.insert(entry.question.mac, entry.clone());
            shared.refused.remove(&entry.question.mac);
        }
    }

    /// Stores that a token is refused.
    pub(super) fn refuse(&self, question: QuestionId, fault: InvalidToken, asked_at: Duration) {
        if let Some(shared) = &self.0 {
            shared.active.remove(&question.mac);
            let until = asked_at.saturating_add(REFUSED_FOR);
            shared.refused.insert(question.mac, Refused { fault, until, question });
        }
    }

    /// Counts an event.
    pub(super) fn count(&self, counter: impl FnOnce(&Counters) -> &AtomicU64) {
        if let Some(shared) = &self.0 {
            counter(&shared.counters).fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for IntrospectedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IntrospectedTokens").field(&self.stats()).finish()
    }
}

/// The time of reuse of an answer without `exp`, at most: nothing else ends it.
const MAX_REUSE_WITHOUT_EXPIRY: Duration = Duration::from_secs(30);

impl Entry {
    pub(super) fn new(
        question: QuestionId,
        identity: Identity,
        lifetime: ValidityPeriod,
        expires_at: Option<SystemTime>,
        reuse: Reuse,
    ) -> Self {
        let cache_for = match expires_at {
            Some(_) => reuse.cache_for,
            None => reuse.cache_for.min(MAX_REUSE_WITHOUT_EXPIRY),
        };
        let fresh_until = reuse.asked_at.saturating_add(cache_for);
        let usable_until = fresh_until.saturating_add(reuse.serve_while_unavailable);
        let unanswered_until = AtomicU64::new(0);
        let identity = identity.with_valid_until(lifetime.ends());
        let identity = identity.with_answered_at(reuse.counts_from);
        Self {
            identity,
            lifetime,
            expires_at,
            fresh_until,
            usable_until,
            unanswered_until,
            question,
        }
    }

    fn is_fresh(&self, elapsed: Duration) -> bool {
        elapsed < self.fresh_until
            || (elapsed < self.usable_until
                && elapsed.as_millis() < self.unanswered_until.load(Ordering::Relaxed).into())
    }

    /// Returns whether the token may be accepted without a new answer. After `exp`, the leeway does not count:
    /// the issuer knows better.
    pub(super) fn is_valid(&self, now: SystemTime) -> bool {
        self.expires_at.is_none_or(|end| now < end) && self.lifetime.check(now).is_ok()
    }

    /// Returns the identity if this old answer may serve for a question that was not answered.
    pub(super) fn while_unavailable(
        &self,
        question: QuestionId,
        clock: &dyn Clock,
    ) -> Option<Identity> {
        let elapsed = clock.elapsed();
        let is_usable =
            self.question == question && elapsed < self.usable_until && self.is_valid(clock.now());
        is_usable.then(|| {
            let again = elapsed.saturating_add(RETRY_AFTER).as_millis();
            self.unanswered_until
                .store(u64::try_from(again).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.identity.clone()
        })
    }
}
