//! [`VerifiedTokens`]: a cache of verified tokens, so that each signature is verified once and not per
//! request.
//!
//! An entry holds the token's identity, its lifetime and a lease on its key, under a [MAC](Mac) of the
//! whole token. The token itself is not stored. Only tokens that passed every rule are cached; rejections
//! never are. A cached token is accepted again if all of these hold:
//!
//! - it is the same token, by its MAC;
//! - no issuer was removed, replaced or purged since the lookup that preceded its insertion;
//! - it was not flushed since the lookup that preceded its insertion;
//! - its [`KeyLease`] is valid: its key was not removed, and the key set is neither due for a refresh nor too
//!   old;
//! - the time is within its `nbf`, `iat` and `exp`, by the same rule as at first.
//!
//! A service that sees only cached tokens therefore still notices removed keys.
//!
//! All other rules (audience, issuer policy, token type, claims mapping) depend on the issuer's
//! configuration, which is immutable: a change creates a new issuer.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, Weighter};
use serde::Serialize;

use super::rules::ValidityPeriod;
use crate::clock::Clock;
use crate::identity::{Identity, TenantId};
use crate::issuer::KeyLease;
use crate::support::mac::{BuildMacHasher, Mac};
use crate::support::telemetry;

/// The cache of verified tokens of a validator. A handle: clones share the cache.
/// [`Auth::verified_tokens`](crate::Auth::verified_tokens) returns it.
///
/// The cache is on by default.
/// [`AuthConfig::verified_tokens_bytes`](crate::AuthConfig::verified_tokens_bytes) limits its size. An entry
/// becomes invalid as soon as its token expires, a fetched key set lacks its key, or its issuer is removed,
/// replaced or purged. The memory of an invalid entry is freed when the token is presented again, when the
/// cache evicts it, or by a flush; no task searches for invalid entries.
///
/// A flush is never needed for security: the next request with a flushed token verifies it again, and accepts
/// it if it is still valid. Flush to free memory, or to remove the personal data of a tenant that left from
/// memory.
///
/// ```
/// use scaikey_auth::{Auth, TenantId};
///
/// /// Logs the use of the cache, and drops the tokens of a tenant that left.
/// fn tidy(auth: &Auth, left: &TenantId) {
///     let tokens = auth.verified_tokens();
///     println!("hit rate {:?}, {} bytes", tokens.stats().hit_rate(), tokens.stats().bytes);
///     tokens.flush_tenant(left);
/// }
/// ```
#[derive(Clone)]
pub struct VerifiedTokens(Option<Arc<Shared>>);

/// Statistics of [`VerifiedTokens`]. The counters start at zero when the validator is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct VerifiedTokensStats {
    /// The number of entries, including invalid ones that were not freed yet.
    pub tokens: usize,
    /// The approximate memory of all entries, in bytes: their allocations and their slots in the table.
    pub bytes: usize,
    /// The limit of `bytes`; 0 if the cache is off.
    pub max_bytes: usize,
    /// The number of lookups that found a valid entry.
    pub hits: u64,
    /// The number of lookups that found no valid entry, whether the token was valid or not. A token that
    /// waits for keys is looked up more than once.
    pub misses: u64,
    /// The number of valid entries that were evicted or not stored because the cache was full. If this grows
    /// as fast as `misses`, raise the limit.
    pub evicted: u64,
}

impl VerifiedTokensStats {
    /// Returns hits divided by lookups, or `None` before the first lookup.
    pub fn hit_rate(&self) -> Option<f64> {
        let all = self.hits.saturating_add(self.misses);
        (all > 0).then(|| self.hits as f64 / all as f64)
    }
}

#[derive(Debug)]
struct Shared {
    entries: Cache<Mac, Arc<Entry>, WeighBytes, BuildMacHasher, CollectEvicted>,
    max_bytes: usize,
    hits: AtomicU64,
    misses: AtomicU64,
    evicted: AtomicU64,
    flushes: Flushes,
}

/// A verified token.
#[derive(Debug)]
struct Entry {
    identity: Identity,
    bytes: usize,
    lifetime: ValidityPeriod,
    lease: KeyLease,
    /// [`Issuers::generation`](crate::issuer::Issuers::generation) before the issuer was looked up.
    generation: u64,
    tenant_group: u32,
    /// [`Flushes::count`] before the verification began.
    flushes: u64,
}

/// Bytes of an entry without its identity: the entry with the counters of its `Arc`, and its share of the
/// cache's slots, links and index.
const ENTRY_BYTES: usize = size_of::<Entry>() + 2 * size_of::<usize>() + 64;

/// Approximate bytes of a usual entry, to estimate the cache's initial number of slots.
const USUAL_ENTRY_BYTES: usize = 1200;

#[derive(Debug, Clone)]
struct WeighBytes;

impl Weighter<Mac, Arc<Entry>> for WeighBytes {
    fn weight(&self, _: &Mac, entry: &Arc<Entry>) -> u64 {
        entry.bytes as u64
    }
}

/// A lifecycle that collects the entries that an insertion evicts.
#[derive(Debug, Clone)]
struct CollectEvicted;

impl Lifecycle<Mac, Arc<Entry>> for CollectEvicted {
    type RequestState = Vec<(Mac, Arc<Entry>)>;

    fn on_evict(&self, evicted: &mut Self::RequestState, mac: Mac, entry: Arc<Entry>) {
        evicted.push((mac, entry));
    }
}

/// A failed lookup. [`VerifiedTokens::insert`] needs it if the token turns out to be valid.
#[derive(Debug)]
pub(super) struct Miss {
    mac: Mac,
    generation: u64,
    flushes: u64,
}

impl VerifiedTokens {
    pub(super) fn new(max_bytes: usize) -> Self {
        let (slots, weight) = (max_bytes / USUAL_ENTRY_BYTES, max_bytes as u64);
        Self((max_bytes > 0).then(|| {
            let hasher = BuildMacHasher::default();
            Arc::new(Shared {
                entries: Cache::with(slots, weight, WeighBytes, hasher, CollectEvicted),
                max_bytes,
                hits: AtomicU64::new(0),
                misses: AtomicU64::new(0),
                evicted: AtomicU64::new(0),
                flushes: Flushes::default(),
            })
        }))
    }

    /// Removes all tokens. Tokens whose verification is in progress are not cached either.
    pub fn flush(&self) {
        if let Some(shared) = &self.0 {
            shared.flushes.flush_all();
            shared.entries.clear();
        }
    }

    /// Removes the tokens of one tenant, as [`flush`](Self::flush) does for all. Some tokens of other tenants
    /// may be removed too; they are verified again.
    pub fn flush_tenant(&self, tenant: &TenantId) {
        if let Some(shared) = &self.0 {
            shared.flushes.flush_group(shared.flushes.group_of(Some(tenant)));
            shared.entries.retain(|_, entry| entry.identity.tenant_id() != Some(tenant));
        }
    }

    /// Returns the size of the cache and its counters.
    pub fn stats(&self) -> VerifiedTokensStats {
        let Some(shared) = &self.0 else { return VerifiedTokensStats::default() };
        VerifiedTokensStats {
            tokens: shared.entries.len(),
            bytes: usize::try_from(shared.entries.weight()).unwrap_or(usize::MAX),
            max_bytes: shared.max_bytes,
            hits: shared.hits.load(Ordering::Relaxed),
            misses: shared.misses.load(Ordering::Relaxed),
            evicted: shared.evicted.load(Ordering::Relaxed),
        }
    }

    /// Returns the identity of a cached token that is still valid. Otherwise returns a [`Miss`], with which
    /// the token can be [inserted](Self::insert); `None` if the cache is off. `generation` is the current
    /// generation of the issuers.
    pub(super) fn get(
        &self,
        token: &[u8],
        generation: u64,
        clock: &dyn Clock,
    ) -> Result<Identity, Option<Miss>> {
        let Some(shared) = &self.0 else { return Err(None) };
        // Read before the verification, so that a flush from now on concerns this token too.
        let flushes = shared.flushes.count();
        let mac = Mac::of(token);
        let entry = shared.entries.get(&mac);
        if let Some(entry) = &entry
            && shared.is_current(entry, generation)
            && entry.is_valid(clock)
        {
            shared.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(entry.identity.clone());
        }
        if let Some(obsolete) = entry.filter(|entry| shared.is_obsolete(entry, generation, clock)) {
            shared.entries.remove_if(&mac, |stored| Arc::ptr_eq(stored, &obsolete));
        }
        shared.misses.fetch_add(1, Ordering::Relaxed);
        Err(Some(Miss { mac, generation, flushes }))
    }

    /// Caches a token that passed every rule after `miss`.
    pub(super) fn insert(
        &self,
        miss: Option<Miss>,
        identity: &Identity,
        lifetime: ValidityPeriod,
        lease: KeyLease,
        clock: &dyn Clock,
    ) {
        let (Some(shared), Some(miss)) = (&self.0, miss) else { return };
        let Miss { mac, generation, flushes } = miss;
        let (identity, bytes) = (identity.clone(), identity.footprint() + ENTRY_BYTES);
        let tenant_group = shared.flushes.group_of(identity.tenant_id());
        let entry = Entry { identity, bytes, tenant_group, lifetime, lease, generation, flushes };
        let mut evicted = Vec::new();
        shared.entries.insert_with_lifecycle(mac, Arc::new(entry), &mut evicted);
        // An entry that the same token replaced is not evicted. If the cache stored nothing, the entry in
        // `evicted` is the new one.
        let is_replaced = |other: &Mac| *other == mac && shared.entries.contains_key(&mac);
        let evicted = evicted.iter().filter(|(other, entry)| {
            !is_replaced(other) && !shared.is_obsolete(entry, generation, clock)
        });
        let evicted = evicted.count();
        if evicted > 0 {
            shared.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
            telemetry::verified_tokens_evicted(evicted as u64);
        }
    }
}

impl fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifiedTokens").field(&self.stats()).finish()
    }
}

impl Shared {
    /// Returns whether there was neither a change of the issuers nor a flush since the verification of the
    /// token began.
    fn is_current(&self, entry: &Entry, generation: u64) -> bool {
        entry.generation == generation
            && !self.flushes.is_flushed(entry.tenant_group, entry.flushes)
    }

    /// Returns whether the entry can never be valid again.
    fn is_obsolete(&self, entry: &Entry, generation: u64, clock: &dyn Clock) -> bool {
        !self.is_current(entry, generation)
            || entry.lease.is_removed()
            || entry.lifetime.is_over(clock.now())
    }
}

impl Entry {
    /// Returns whether a new verification would accept the token now.
    fn is_valid(&self, clock: &dyn Clock) -> bool {
        self.lease.is_valid(clock.elapsed()) && self.lifetime.check(clock.now()).is_ok()
    }
}

/// The number of groups of tenants. Each costs eight bytes.
const TENANT_GROUPS: usize = 64;

/// The last flush of each group of tenants, as its number: the first flush of the cache is 1. A token whose
/// verification began before the last flush of its group is flushed, whether it was in the table then or not.
#[derive(Debug)]
struct Flushes {
    count: AtomicU64,
    last: [AtomicU64; TENANT_GROUPS],
    hasher: RandomState,
}

impl Default for Flushes {
    fn default() -> Self {
        Self {
            count: AtomicU64::new(0),
            last: std::array::from_fn(|_| AtomicU64::new(0)),
            hasher: RandomState::new(),
        }
    }
}

impl Flushes {
    fn group_of(&self, tenant: Option<&TenantId>) -> u32 {
        (self.hasher.hash_one(tenant) % TENANT_GROUPS as u64) as u32
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn flush_group(&self, tenant_group: u32) {
        let now = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(last) = self.last.get(tenant_group as usize) {
            last.fetch_max(now, Ordering::Relaxed);
        }
    }

    fn flush_all(&self) {
        let now = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        for last in &self.last {
            last.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Returns whether a token of the group was flushed, if its verification began when there had been
    /// `count` flushes.
    fn is_flushed(&self, tenant_group: u32, count: u64) -> bool {
        self.last.get(tenant_group as usize).is_none_or(|last| count < last.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::*;
    use crate::identity::{ClaimsMapping, Provenance, Reading};
    use crate::support::base64url;
    use crate::support::json::Document;

    const BUDGET: usize = 1 << 20;
    const FOREVER: u64 = 1 << 40;

    /// A clock that counts seconds, both since 1970 and since the start.
    #[derive(Debug, Default)]
    struct Seconds(AtomicU64);

    impl Seconds {
        fn now(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    impl Clock for Seconds {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + self.elapsed()
        }

        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.now())
        }
    }

    /// An identity of the tenant `acme`.
    fn identity_from(issuer: &str, subject: &str) -> Identity {
        let claims = format!(r#"{{"sub":"{subject}","tenant_id":"acme","exp":1}}"#);
        let reading = Reading {
            issuer: issuer.into(),
            mapping: &ClaimsMapping::default(),
            provenance: Provenance::Verified,
            legacy_service_tokens: false,
            logged: None,
        };
        reading.identity(Document::parse(claims).unwrap()).unwrap()
    }

    fn identity(subject: &str) -> Identity {
        identity_from("issuer", subject)
    }

    /// A token of the identity with this header and this signature.
    fn token_with(header: &str, identity: &Identity, signature: &str) -> Vec<u8> {
        let claims = base64url::encode(identity.subject());
        format!("{header}.{claims}.{signature}").into_bytes()
    }

    fn token_of(identity: &Identity) -> Vec<u8> {
        token_with("header", identity, identity.subject())
    }

    fn endless_lease() -> KeyLease {
        KeyLease::until(Duration::MAX).0
    }

    /// Caches `token` as a token of `identity` that never expires.
    fn insert(cache: &VerifiedTokens, token: &[u8], identity: &Identity, lease: KeyLease) {
        let clock = Seconds::default();
        if let Err(miss) = cache.get(token, 0, &clock) {
            cache.insert(miss, identity, ValidityPeriod::until(FOREVER), lease, &clock);
        }
    }

    fn subject(cache: &VerifiedTokens, token: &[u8]) -> Option<String> {
        let found = cache.get(token, 0, &Seconds::default());
        found.ok().map(|identity| identity.subject().to_owned())
    }

    /// Variants of a good token that an attacker could try: cut, extended, doubled, and with changed bytes.
    fn variants(token: &[u8]) -> Vec<Vec<u8>> {
        let mut variants = vec![token.to_ascii_uppercase(), token.to_ascii_lowercase()];
        variants.extend((0..token.len()).map(|at| token[..at].to_vec()));
        variants.extend((1..token.len()).map(|at| token[at..].to_vec()));
        for more in [&b"="[..], b"==", b"A", b"\0", b" ", b".", b"\r\n", token] {
            variants.extend([[token, more].concat(), [more, token].concat()]);
        }
        for at in 0..token.len() {
            for changed in [token[at] ^ 1, token[at] ^ 0x20, token[at] ^ 0x80, b'.', 0] {
                let mut variant = token.to_vec();
                variant[at] = changed;
                variants.push(variant);
            }
            let mut longer = token.to_vec();
            longer.insert(at, token[at]);
            variants.push(longer);
        }
        variants.retain(|variant| variant != token);
        variants
    }

    #[test]
    fn lookup_compares_every_byte() {
        // Lengths of header, claims and signature: one block and several, whole and partial, and with each
        // number of spare bits at the end of the claims.
        let lengths = [(0, 1, 0), (0, 2, 1), (3, 3, 31), (31, 4, 32), (32, 5, 33), (75, 400, 86)];
        for (header, claims, signature) in lengths.into_iter().chain([(90, 770, 342)]) {
            let cache = VerifiedTokens::new(BUDGET);
            let letters =
                |length: usize| (0..length).map(|n| char::from(b'A' + (n * 7 % 50) as u8));
            let alice = identity(&"s".repeat(claims));
            let [header, signature] =
                [header, signature].map(|length| letters(length).collect::<String>());
            let token = token_with(&header, &alice, &signature);
            insert(&cache, &token, &alice, endless_lease());
            assert_eq!(subject(&cache, &token).as_deref(), Some(alice.subject()));
            for variant in variants(&token) {
                let variant_text = String::from_utf8_lossy(&variant);
                assert_eq!(subject(&cache, &variant), None, "{variant_text}");
            }
        }
    }

    /// Signatures of RSA keys of 8,192 and 16,384 bits, and a longer one.
    #[test]
    fn lookup_compares_every_byte_of_long_signatures() {
        for signature in [1366, 2731, 9000] {
            let cache = VerifiedTokens::new(BUDGET);
            let token = token_with("header", &identity("a"), &"A".repeat(signature));
            insert(&cache, &token, &identity("a"), endless_lease());
            assert_eq!(subject(&cache, &token).as_deref(), Some("a"), "{signature}");
            for behind in [1, 20, 30, signature / 2, signature - 500, signature - 1, signature] {
                let mut variant = token.clone();
                let at = token.len() - behind;
                variant[at] = b'B';
                assert_eq!(subject(&cache, &variant), None, "byte {at} of {}", token.len());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn similar_tokens_are_never_confused(
            texts in proptest::collection::hash_set(
                ("[abA=]{0,6}|[aA]{30,34}", "[ab]{1,4}", "[ab.=]{0,6}|[aA+/_-]{30,34}"), 0..100
            ),
        ) {
            let cache = VerifiedTokens::new(BUDGET);
            let tokens: Vec<_> = texts.into_iter().enumerate().map(|(n, (header, name, signature))| {
                let identity = identity_from(&n.to_string(), &name);
                (n, token_with(&header, &identity, &signature), identity)
            }).collect();
            for (_, token, identity) in tokens.iter().filter(|(n, ..)| n % 2 == 0) {
                insert(&cache, token, identity, endless_lease());
            }
            for (n, token, _) in &tokens {
                let expected = (n % 2 == 0).then(|| n.to_string());
                let found = cache.get(token, 0, &Seconds::default()).ok();
                let issuer = found.map(|identity| identity.issuer().to_owned());
                prop_assert_eq!(issuer, expected, "{}", String::from_utf8_lossy(token));
            }
        }
    }

    #[test]
    fn time_key_generation_and_flush_invalidate_tokens() {
        let cache = VerifiedTokens::new(BUDGET);
        let (lease, remove_key) = KeyLease::until(Duration::from_secs(50));
        let clock = Seconds::default();
        let token = token_of(&identity("a"));
        let insert = |lease: &KeyLease| {
            let miss = cache.get(&token, 7, &clock).unwrap_err();
            let lifetime = ValidityPeriod::until(40);
            cache.insert(miss, &identity("a"), lifetime, lease.clone(), &clock);
        };
        let is_accepted = |generation, at| {
            clock.0.store(at, Ordering::SeqCst);
            cache.get(&token, generation, &clock).is_ok()
        };
        insert(&lease);
        assert!(is_accepted(7, 0) && is_accepted(7, 39) && is_accepted(7, 0));
        assert!(!is_accepted(7, 40));
        insert(&lease);
        assert!(is_accepted(7, 0) && !is_accepted(8, 0));
        insert(&lease);
        assert!(is_accepted(7, 0) && !is_accepted(6, 0));
        insert(&lease);
        assert!(is_accepted(7, 0));
        cache.flush_tenant(&TenantId::new("acme").unwrap());
        assert!(!is_accepted(7, 0));
        insert(&lease);
        assert!(is_accepted(7, 0));
        cache.flush();
        assert!(!is_accepted(7, 0));
        insert(&lease);
        assert!(is_accepted(7, 0));
        remove_key();
        assert!(!is_accepted(7, 0));
        insert(&KeyLease::until(Duration::from_secs(30)).0);
        assert!(is_accepted(7, 29) && !is_accepted(7, 30), "its keys are due");
        let stats = cache.stats();
        assert_eq!((stats.tokens, stats.evicted), (1, 0));
    }

    #[test]
    fn moved_dot_makes_another_token() {
        let token = |dot: usize| ["B".repeat(dot), "A".repeat(139 - dot)].join(".").into_bytes();
        for dot in [33, 40, 64, 70, 100] {
            let cache = VerifiedTokens::new(BUDGET);
            insert(&cache, &token(dot), &identity("a"), endless_lease());
            for other in 20..=110 {
                let expected = (other == dot).then(|| "a".to_owned());
                assert_eq!(subject(&cache, &token(other)), expected, "{other} for {dot}");
            }
        }
    }

    #[test]
    fn flush_cancels_insertion_after_earlier_miss() {
        let clock = Seconds::default();
        let acme = |cache: &VerifiedTokens| cache.flush_tenant(&TenantId::new("acme").unwrap());
        let flushes: [&dyn Fn(&VerifiedTokens); 2] = [&VerifiedTokens::flush, &acme];
        for flush in flushes {
            let (cache, token) = (VerifiedTokens::new(BUDGET), token_of(&identity("a")));
            let miss = cache.get(&token, 0, &clock).unwrap_err();
            flush(&cache);
            let lifetime = ValidityPeriod::until(FOREVER);
            cache.insert(miss, &identity("a"), lifetime, endless_lease(), &clock);
            assert_eq!(subject(&cache, &token), None);
            insert(&cache, &token, &identity("a"), endless_lease());
            assert_eq!(subject(&cache, &token).as_deref(), Some("a"));
        }
    }

    #[test]
    fn reported_bytes_match_allocated_bytes() {
        let nth = |n: u32| identity(&format!("subject-{n}-{}", "read ".repeat(n as usize)));
        let cache = VerifiedTokens::new(BUDGET);
        let lease = endless_lease();
        let allocated = allocations::measure(|| {
            for n in 0..200_u32 {
                insert(&cache, &token_of(&nth(n)), &nth(n), lease.clone());
            }
        });
        let held = cache.stats().bytes as i64;
        // Identities of one issuer share its name; here each has a copy.
        let names = 200 * (2 * size_of::<usize>() + "issuer".len()).next_multiple_of(8) as i64;
        assert_eq!(cache.stats().tokens, 200);
        // The cache allocates its slots in powers of two.
        let off = (allocated.bytes - names - held).abs();
        assert!(off * 20 < held, "{held} reported, {} allocated", allocated.bytes);
    }

    #[test]
    fn entry_beyond_limit_counts_as_evicted() {
        let cache = VerifiedTokens::new(20_000);
        let huge = identity(&"s".repeat(30_000));
        insert(&cache, &token_of(&huge), &huge, endless_lease());
        assert_eq!((cache.stats().tokens, cache.stats().evicted), (0, 1));
        for n in 0..100 {
            let identity = identity(&n.to_string());
            insert(&cache, &token_of(&identity), &identity, endless_lease());
        }
        let stats = cache.stats();
        assert!(stats.tokens > 10 && stats.bytes <= stats.max_bytes, "{stats:?}");
        assert_eq!(stats.evicted, 101 - stats.tokens as u64);
    }

    #[test]
    fn obsolete_entry_is_removed_when_found() {
        let (cache, clock) = (VerifiedTokens::new(BUDGET), Seconds::default());
        let token = token_of(&identity("a"));
        let miss = cache.get(&token, 0, &clock).unwrap_err();
        cache.insert(miss, &identity("a"), ValidityPeriod::until(40), endless_lease(), &clock);
        clock.0.store(40, Ordering::SeqCst);
        assert!(cache.get(&token, 0, &clock).is_err());
        let stats = cache.stats();
        assert_eq!((stats.tokens, stats.bytes, stats.evicted), (0, 0, 0));
    }

    /// A guard that sets the flag that stops the other threads.
    struct End<'a>(&'a std::sync::atomic::AtomicBool);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// If the counter could return to an earlier value, a concurrent flush could undo another.
    #[test]
    fn concurrent_flushes_do_not_undo_each_other() {
        let acme = |cache: &VerifiedTokens| cache.flush_tenant(&TenantId::new("acme").unwrap());
        let flushes: [&(dyn Fn(&VerifiedTokens) + Sync); 2] = [&VerifiedTokens::flush, &acme];
        let (cache, clock) = (VerifiedTokens::new(BUDGET), Seconds::default());
        let (token, over) = (token_of(&identity("a")), std::sync::atomic::AtomicBool::new(false));
        thread::scope(|scope| {
            for flush in flushes {
                let (cache, over) = (&cache, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        flush(cache);
                    }
                });
            }
            // Stops the flushing threads even if an assertion fails.
            let _end = End(&over);
            for round in 0..5000 {
                let miss = match cache.get(&token, 0, &clock) {
                    Ok(_) => {
                        cache.flush();
                        continue;
                    }
                    Err(miss) => miss,
                };
                flushes[round % 2](&cache);
                let lifetime = ValidityPeriod::until(FOREVER);
                cache.insert(miss, &identity("a"), lifetime, endless_lease(), &clock);
                assert_eq!(subject(&cache, &token), None, "round {round}");
            }
        });
    }

    /// Threads insert, look up, flush, remove keys and advance the clock concurrently. After a flush or a
    /// removal returned, or the clock advanced, no lookup returns an older entry.
    #[test]
    fn concurrent_lookups_return_no_invalid_entry() {
        for budget in [20_000, BUDGET] {
            run_concurrent_rounds(&VerifiedTokens::new(budget));
        }
    }

    fn run_concurrent_rounds(cache: &VerifiedTokens) {
        const ROUNDS: u64 = 900;
        let clock = Seconds::default();
        // A round removes its key or flushes, and advances the clock by one second.
        let (begun, ended) = (AtomicU64::new(0), AtomicU64::new(0));
        let current = Mutex::new(KeyLease::until(Duration::MAX));
        let acme = TenantId::new("acme").unwrap();
        let visit = |n: u64| {
            let subject = (n % 20).to_string();
            let token = token_of(&identity(&subject));
            let (over, now) = (ended.load(Ordering::SeqCst), clock.now());
            match cache.get(&token, 0, &clock) {
                Ok(identity) => {
                    let (round, expires) = identity.issuer().split_once(' ').unwrap();
                    let [round, expires] = [round, expires].map(|it| it.parse::<u64>().unwrap());
                    assert!(round >= over, "of round {round} after round {over}");
                    assert!(expires > now);
                }
                Err(miss) => {
                    let lease = current.lock().unwrap().0.clone();
                    // Read after the miss: the label may be newer than the entry, never older.
                    let round = begun.load(Ordering::SeqCst);
                    let exp = now + 1 + n % 3;
                    // The claims belong to the token; the issuer's name carries the round and the expiry.
                    let identity = identity_from(&format!("{round} {exp}"), &subject);
                    let lifetime = ValidityPeriod::until(exp);
                    cache.insert(miss, &identity, lifetime, lease, &clock);
                }
            }
        };
        thread::scope(|scope| {
            for start in 0..3 {
                let (visit, ended) = (&visit, &ended);
                scope.spawn(move || {
                    let mut n = start;
                    while ended.load(Ordering::SeqCst) < ROUNDS {
                        (0..3).for_each(|_| visit(n));
                        n += 7;
                    }
                });
            }
            for round in 1..=ROUNDS {
                begun.store(round, Ordering::SeqCst);
                match round % 3 {
                    0 => cache.flush(),
                    1 => cache.flush_tenant(&acme),
                    _ => {
                        let mut current = current.lock().unwrap();
                        (current.1)();
                        *current = KeyLease::until(Duration::MAX);
                    }
                }
                ended.store(round, Ordering::SeqCst);
                clock.0.fetch_add(1, Ordering::SeqCst);
                visit(round);
                thread::yield_now();
            }
        });
        let stats = cache.stats();
        assert!(stats.bytes <= stats.max_bytes);
        assert!(stats.hits > 0 && stats.misses > 0, "{stats:?}");
    }
}
