//! [`VerifiedTokens`]: tokens verified before, so that a signature is verified once and not per request.
//!
//! Of a token its identity with its claims is kept, a [mac](Mac) of all its bytes, and what its
//! verification rests on; that is no token. Only tokens that passed every rule get in, and only
//! acceptance is ever remembered. A known token is accepted if
//!
//! - it is the same, by its mac;
//! - no issuer was removed, replaced or purged since before it was first looked at;
//! - nobody flushed it since then;
//! - its key was not withdrawn, and the key set is neither due to be asked for nor too old, so that
//!   a service that sees known tokens only still learns of withdrawn keys;
//! - the time is within its `nbf`, `iat` and `exp`, by the same arithmetic as the first time.
//!
//! Everything else the rules look at (audience, issuer policy, token type, claims mapping) belongs
//! to the issuer's configuration, which never generation: a change makes a new issuer.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, Weighter};
use serde::Serialize;

use super::rules::Lifetime;
use crate::clock::Clock;
use crate::identity::{Identity, TenantId};
use crate::issuer::KeyLease;
use crate::support::mac::{BuildMacHasher, Mac};
use crate::support::telemetry;

/// The tokens a validator verified before and need not verify again. A handle: clones share them.
/// [`Auth::verified_tokens`](crate::Auth::verified_tokens) returns it.
///
/// Switched on by default and bounded by
/// [`AuthConfig::verified_tokens_bytes`](crate::AuthConfig::verified_tokens_bytes). A token stops counting
/// immediately when it expires, when its key is withdrawn, or when its issuer is removed or purged. Its
/// memory is freed when somebody comes with it again, when others need the room, or by a flush: what is
/// worthless is not looked for by itself. There is nothing to flush for safety: a flushed token is verified
/// anew, and accepted if it still holds. Flush to free memory, or to hold fewer personal data of a tenant
/// that left.
#[derive(Clone)]
pub struct VerifiedTokens(Option<Arc<Memory>>);

/// How many tokens are known, and how often that helped. Counts are since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct VerifiedTokensStats {
    /// Tokens held now, those included that stopped counting and were not cleared away yet.
    pub tokens: usize,
    /// Bytes held now, about: what is asked of the allocator for each token, and its place in the table.
    pub bytes: usize,
    /// The limit; 0 if switched off.
    pub max_bytes: usize,
    /// Tokens looked for and found.
    pub hits: u64,
    /// Tokens looked for and not found, good or bad. One whose keys must be waited for is looked
    /// for more than once.
    pub misses: u64,
    /// Tokens that were still good and gave way to others, or were not taken in for want of room.
    /// When this grows like `misses`, the limit is too low.
    pub evicted: u64,
}

impl VerifiedTokensStats {
    /// The share of tokens that were found, if any was looked for.
    pub fn hit_rate(&self) -> Option<f64> {
        let all = self.hits.saturating_add(self.misses);
        (all > 0).then(|| self.hits as f64 / all as f64)
    }
}

#[derive(Debug)]
struct Memory {
    tokens: Cache<Mac, Arc<Known>, Bytes, BuildMacHasher, CollectEvicted>,
    max_bytes: usize,
    hits: AtomicU64,
    misses: AtomicU64,
    evicted: AtomicU64,
    flushes: Flushes,
}

/// A token that was verified.
#[derive(Debug)]
struct Known {
    identity: Identity,
    bytes: usize,
    lot: u32,
    lifetime: Lifetime,
    lease: KeyLease,
    /// [`Issuers::generation`](crate::issuer::Issuers::generation) before its issuer was looked up.
    generation: u64,
    /// When it was looked at, in flushes.
    flushes: u64,
}

/// What an entry takes beside its identity: itself with the counters of its `Arc`, its place among the
/// cache's entries with their links, and its share of the cache's index.
const ENTRY: usize = size_of::<Known>() + 2 * size_of::<usize>() + 64;

/// What a token with its identity takes, about; for the number of places that the cache begins with.
const USUAL: usize = 1200;

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Mac, Arc<Known>> for Bytes {
    fn weight(&self, _: &Mac, known: &Arc<Known>) -> u64 {
        known.bytes as u64
    }
}

/// Collects what has to go for an entry.
#[derive(Debug, Clone)]
struct CollectEvicted;

impl Lifecycle<Mac, Arc<Known>> for CollectEvicted {
    type RequestState = Vec<(Mac, Arc<Known>)>;

    fn on_evict(&self, gone: &mut Self::RequestState, mac: Mac, known: Arc<Known>) {
        gone.push((mac, known));
    }
}

/// A token looked at for the first time: what to remember it by, should it turn out to be good.
#[derive(Debug)]
pub(super) struct Miss {
    mac: Mac,
    generation: u64,
    flushes: u64,
}

impl VerifiedTokens {
    pub(super) fn new(max_bytes: usize) -> Self {
        let (places, weight) = (max_bytes / USUAL, max_bytes as u64);
        Self((max_bytes > 0).then(|| {
            Arc::new(Memory {
                tokens: Cache::with(
                    places,
                    weight,
                    Bytes,
                    BuildMacHasher::default(),
                    CollectEvicted,
                ),
                max_bytes,
                hits: AtomicU64::new(0),
                misses: AtomicU64::new(0),
                evicted: AtomicU64::new(0),
                flushes: Flushes::default(),
            })
        }))
    }

    /// Forgets all tokens. Also those being verified right now are not remembered.
    pub fn flush(&self) {
        if let Some(memory) = &self.0 {
            memory.flushes.all();
            memory.tokens.clear();
        }
    }

    /// Forgets the tokens of one tenant, as [`flush`](Self::flush) does for all. Some of other
    /// tenants may go along, and are verified anew.
    pub fn flush_tenant(&self, tenant: &TenantId) {
        if let Some(memory) = &self.0 {
            memory.flushes.one(memory.flushes.lot(Some(tenant)));
            memory.tokens.retain(|_, known| known.identity.tenant_id() != Some(tenant));
        }
    }

    /// How many tokens are known, and how often that helped.
    pub fn stats(&self) -> VerifiedTokensStats {
        let Some(memory) = &self.0 else { return VerifiedTokensStats::default() };
        VerifiedTokensStats {
            tokens: memory.tokens.len(),
            bytes: usize::try_from(memory.tokens.weight()).unwrap_or(usize::MAX),
            max_bytes: memory.max_bytes,
            hits: memory.hits.load(Ordering::Relaxed),
            misses: memory.misses.load(Ordering::Relaxed),
            evicted: memory.evicted.load(Ordering::Relaxed),
        }
    }

    /// Who the token stands for, if it is known and still good; `generation` is what the issuers say
    /// now. Otherwise, what to [remember](Self::remember) it by.
    pub(super) fn get(
        &self,
        token: &[u8],
        generation: u64,
        clock: &dyn Clock,
    ) -> Result<Identity, Option<Miss>> {
        let Some(memory) = &self.0 else { return Err(None) };
        // Before anything is verified: a flush from now on concerns this token too.
        let flushes = memory.flushes.so_far();
        let mac = Mac::of(token);
        let known = memory.tokens.get(&mac);
        if let Some(known) = &known
            && memory.counts(known, generation)
            && known.holds(clock)
        {
            memory.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(known.identity.clone());
        }
        if let Some(dead) = known.filter(|known| memory.is_dead(known, generation, clock)) {
            memory.tokens.remove_if(&mac, |held| Arc::ptr_eq(held, &dead));
        }
        memory.misses.fetch_add(1, Ordering::Relaxed);
        Err(Some(Miss { mac, generation, flushes }))
    }

    /// Remembers a token that passed every rule after it was sighted.
    pub(super) fn insert(
        &self,
        miss: Option<Miss>,
        identity: &Identity,
        lifetime: Lifetime,
        lease: KeyLease,
        clock: &dyn Clock,
    ) {
        let (Some(memory), Some(miss)) = (&self.0, miss) else { return };
        let Miss { mac, generation, flushes } = miss;
        let (identity, bytes) = (identity.clone(), identity.footprint() + ENTRY);
        let lot = memory.flushes.lot(identity.tenant_id());
        let known = Known { identity, bytes, lot, lifetime, lease, generation, flushes };
        let mut gone = Vec::new();
        memory.tokens.insert_with_lifecycle(mac, Arc::new(known), &mut gone);
        // What was replaced by the same token is not evicted; unless nothing was put in, and this is it.
        let is_replaced = |other: &Mac| *other == mac && memory.tokens.contains_key(&mac);
        let evicted = gone.iter().filter(|(other, known)| {
            !is_replaced(other) && !memory.is_dead(known, generation, clock)
        });
        let evicted = evicted.count();
        if evicted > 0 {
            memory.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
            telemetry::verified_tokens_evicted(evicted as u64);
        }
    }
}

impl fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifiedTokens").field(&self.stats()).finish()
    }
}

impl Memory {
    /// Whether neither a change of the issuers nor a flush came after the token was looked at.
    fn counts(&self, known: &Known, generation: u64) -> bool {
        known.generation == generation && !self.flushes.concern(known.lot, known.flushes)
    }

    /// Whether the token will never count again.
    fn is_dead(&self, known: &Known, generation: u64, clock: &dyn Clock) -> bool {
        !self.counts(known, generation)
            || known.lease.is_over()
            || known.lifetime.is_over(clock.now())
    }
}

impl Known {
    /// Whether the token would be accepted again now.
    fn holds(&self, clock: &dyn Clock) -> bool {
        self.lease.is_valid(clock.elapsed()) && self.lifetime.check(clock.now()).is_ok()
    }
}

/// How many lots tenants are in. One more costs eight bytes.
const LOTS: usize = 64;

/// What was flushed when, counted in flushes. A token sighted before the last flush of its lot is
/// flushed, wherever it is just then: in the table, or on its way there.
#[derive(Debug)]
struct Flushes {
    count: AtomicU64,
    last: [AtomicU64; LOTS],
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
    fn lot(&self, tenant: Option<&TenantId>) -> u32 {
        (self.hasher.hash_one(tenant) % LOTS as u64) as u32
    }

    fn so_far(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn one(&self, lot: u32) {
        let now = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(last) = self.last.get(lot as usize) {
            last.fetch_max(now, Ordering::Relaxed);
        }
    }

    fn all(&self) {
        let now = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        for last in &self.last {
            last.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Whether a token of this lot, sighted then, was flushed since.
    fn concern(&self, lot: u32, sighted: u64) -> bool {
        self.last.get(lot as usize).is_none_or(|last| sighted < last.load(Ordering::Relaxed))
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
    const FOR_EVER: u64 = 1 << 40;

    /// Seconds since 1970, and since the start.
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

    /// Somebody called `subject`, of the tenant `acme`, as `issuer` says.
    fn somebody_of(issuer: &str, subject: &str) -> Identity {
        let claims = format!(r#"{{"sub":"{subject}","tenant_id":"acme","exp":1}}"#);
        let reading = Reading {
            issuer: issuer.into(),
            mapping: &ClaimsMapping::default(),
            provenance: Provenance::Verified,
            legacy_service_tokens: false,
        };
        reading.identity(Document::parse(claims).unwrap()).unwrap()
    }

    fn somebody(subject: &str) -> Identity {
        somebody_of("issuer", subject)
    }

    /// A token that stands for somebody, with this header and this signature.
    fn token_with(header: &str, identity: &Identity, signature: &str) -> Vec<u8> {
        let claims = base64url::encode(identity.subject());
        format!("{header}.{claims}.{signature}").into_bytes()
    }

    /// Tokens are placed by what they end with.
    fn token_of(identity: &Identity) -> Vec<u8> {
        token_with("header", identity, identity.subject())
    }

    fn standing() -> KeyLease {
        KeyLease::until(Duration::MAX).0
    }

    /// Remembers `token` as that of `identity`, for ever.
    fn learn(known: &VerifiedTokens, token: &[u8], identity: &Identity, lease: KeyLease) {
        let clock = Seconds::default();
        if let Err(miss) = known.get(token, 0, &clock) {
            known.insert(miss, identity, Lifetime::until(FOR_EVER), lease, &clock);
        }
    }

    fn subject(known: &VerifiedTokens, token: &[u8]) -> Option<String> {
        let found = known.get(token, 0, &Seconds::default());
        found.ok().map(|identity| identity.subject().to_owned())
    }

    /// What an attacker would make of a good token: cut, prolonged, doubled, and with other letters.
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
    fn a_token_is_known_by_all_its_octets_and_nothing_near_it_is() {
        // How long the header is, the claims, and the signature: of one block and of several, whole and
        // not, and with each number of bits to spare at the end of the claims.
        let lengths = [(0, 1, 0), (0, 2, 1), (3, 3, 31), (31, 4, 32), (32, 5, 33), (75, 400, 86)];
        for (header, claims, signature) in lengths.into_iter().chain([(90, 770, 342)]) {
            let known = VerifiedTokens::new(BUDGET);
            let letters =
                |length: usize| (0..length).map(|n| char::from(b'A' + (n * 7 % 50) as u8));
            let somebody = somebody(&"s".repeat(claims));
            let [header, signature] =
                [header, signature].map(|length| letters(length).collect::<String>());
            let token = token_with(&header, &somebody, &signature);
            learn(&known, &token, &somebody, standing());
            assert_eq!(subject(&known, &token).as_deref(), Some(somebody.subject()));
            for variant in variants(&token) {
                let variant_text = String::from_utf8_lossy(&variant);
                assert_eq!(subject(&known, &variant), None, "{variant_text}");
            }
        }
    }

    /// Longer than the key that macs are made with; of RSA keys of 8,192 bits, and of 16,384.
    #[test]
    fn a_long_signature_is_known_by_all_its_octets_too() {
        for signature in [1366, 2731, 9000] {
            let known = VerifiedTokens::new(BUDGET);
            let token = token_with("header", &somebody("a"), &"A".repeat(signature));
            learn(&known, &token, &somebody("a"), standing());
            assert_eq!(subject(&known, &token).as_deref(), Some("a"), "{signature}");
            for behind in [1, 20, 30, signature / 2, signature - 500, signature - 1, signature] {
                let mut variant = token.clone();
                let at = token.len() - behind;
                variant[at] = b'B';
                assert_eq!(subject(&known, &variant), None, "octet {at} of {}", token.len());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn however_alike_texts_are_each_is_known_as_itself(
            texts in proptest::collection::hash_set(
                ("[abA=]{0,6}|[aA]{30,34}", "[ab]{1,4}", "[ab.=]{0,6}|[aA+/_-]{30,34}"), 0..100
            ),
        ) {
            let known = VerifiedTokens::new(BUDGET);
            let tokens: Vec<_> = texts.into_iter().enumerate().map(|(n, (header, name, signature))| {
                let identity = somebody_of(&n.to_string(), &name);
                (n, token_with(&header, &identity, &signature), identity)
            }).collect();
            for (_, token, identity) in tokens.iter().filter(|(n, ..)| n % 2 == 0) {
                learn(&known, token, identity, standing());
            }
            for (n, token, _) in &tokens {
                let expected = (n % 2 == 0).then(|| n.to_string());
                let found = known.get(token, 0, &Seconds::default()).ok();
                let issuer = found.map(|identity| identity.issuer().to_owned());
                prop_assert_eq!(issuer, expected, "{}", String::from_utf8_lossy(token));
            }
        }
    }

    #[test]
    fn a_token_counts_while_time_key_issuers_and_flushes_allow_it() {
        let known = VerifiedTokens::new(BUDGET);
        let (lease, withdraw) = KeyLease::until(Duration::from_secs(50));
        let clock = Seconds::default();
        let token = token_of(&somebody("a"));
        let learn = |lease: &KeyLease| {
            let miss = known.get(&token, 7, &clock).unwrap_err();
            let lifetime = Lifetime::until(40);
            known.insert(miss, &somebody("a"), lifetime, lease.clone(), &clock);
        };
        let counts = |generation, at| {
            clock.0.store(at, Ordering::SeqCst);
            known.get(&token, generation, &clock).is_ok()
        };
        learn(&lease);
        assert!(counts(7, 0) && counts(7, 39) && counts(7, 0));
        assert!(!counts(7, 40));
        learn(&lease);
        assert!(counts(7, 0) && !counts(8, 0));
        learn(&lease);
        assert!(counts(7, 0) && !counts(6, 0));
        learn(&lease);
        assert!(counts(7, 0));
        known.flush_tenant(&TenantId::new("acme").unwrap());
        assert!(!counts(7, 0));
        learn(&lease);
        assert!(counts(7, 0));
        known.flush();
        assert!(!counts(7, 0));
        learn(&lease);
        assert!(counts(7, 0));
        withdraw();
        assert!(!counts(7, 0));
        learn(&KeyLease::until(Duration::from_secs(30)).0);
        assert!(counts(7, 29) && !counts(7, 30), "its keys are due");
        let stats = known.stats();
        assert_eq!((stats.tokens, stats.evicted), (1, 0));
    }

    /// The last chunks of texts overlap what is before them, so that such texts are made of the same chunks
    /// wherever the dot stands.
    #[test]
    fn a_dot_that_stands_elsewhere_makes_another_token() {
        let token = |dot: usize| ["B".repeat(dot), "A".repeat(139 - dot)].join(".").into_bytes();
        for dot in [33, 40, 64, 70, 100] {
            let known = VerifiedTokens::new(BUDGET);
            learn(&known, &token(dot), &somebody("a"), standing());
            for other in 20..=110 {
                let expected = (other == dot).then(|| "a".to_owned());
                assert_eq!(subject(&known, &token(other)), expected, "{other} for {dot}");
            }
        }
    }

    #[test]
    fn what_was_sighted_before_a_flush_is_not_remembered_after_it() {
        let clock = Seconds::default();
        let acme = |known: &VerifiedTokens| known.flush_tenant(&TenantId::new("acme").unwrap());
        let flushes: [&dyn Fn(&VerifiedTokens); 2] = [&VerifiedTokens::flush, &acme];
        for flush in flushes {
            let (known, token) = (VerifiedTokens::new(BUDGET), token_of(&somebody("a")));
            let miss = known.get(&token, 0, &clock).unwrap_err();
            flush(&known);
            let lifetime = Lifetime::until(FOR_EVER);
            known.insert(miss, &somebody("a"), lifetime, standing(), &clock);
            assert_eq!(subject(&known, &token), None);
            learn(&known, &token, &somebody("a"), standing());
            assert_eq!(subject(&known, &token).as_deref(), Some("a"));
        }
    }

    #[test]
    fn a_token_weighs_what_it_makes_the_allocator_give() {
        let identity = |n: u32| somebody(&format!("subject-{n}-{}", "read ".repeat(n as usize)));
        let known = VerifiedTokens::new(BUDGET);
        let lease = standing();
        let allocated = allocations::measure(|| {
            for n in 0..200_u32 {
                learn(&known, &token_of(&identity(n)), &identity(n), lease.clone());
            }
        });
        let held = known.stats().bytes as i64;
        // The name of the issuer is the issuer's; here each has its own.
        let names = 200 * (2 * size_of::<usize>() + "issuer".len()).next_multiple_of(8) as i64;
        assert_eq!(known.stats().tokens, 200);
        // The places of the cache are asked for in powers of two.
        let off = (allocated.bytes - names - held).abs();
        assert!(off * 20 < held, "{held} said, {} given", allocated.bytes);
    }

    #[test]
    fn entry_beyond_the_limit_counts_as_displaced() {
        let known = VerifiedTokens::new(20_000);
        let huge = somebody(&"s".repeat(30_000));
        learn(&known, &token_of(&huge), &huge, standing());
        assert_eq!((known.stats().tokens, known.stats().evicted), (0, 1));
        for n in 0..100 {
            let identity = somebody(&n.to_string());
            learn(&known, &token_of(&identity), &identity, standing());
        }
        let stats = known.stats();
        assert!(stats.tokens > 10 && stats.bytes <= stats.max_bytes, "{stats:?}");
        assert_eq!(stats.evicted, 101 - stats.tokens as u64);
    }

    #[test]
    fn dead_entry_is_dropped_when_found() {
        let (known, clock) = (VerifiedTokens::new(BUDGET), Seconds::default());
        let token = token_of(&somebody("a"));
        let miss = known.get(&token, 0, &clock).unwrap_err();
        known.insert(miss, &somebody("a"), Lifetime::until(40), standing(), &clock);
        clock.0.store(40, Ordering::SeqCst);
        assert!(known.get(&token, 0, &clock).is_err());
        let stats = known.stats();
        assert_eq!((stats.tokens, stats.bytes, stats.evicted), (0, 0, 0));
    }

    /// Ends the threads that look at it.
    struct End<'a>(&'a std::sync::atomic::AtomicBool);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// A count that another brought back to what it was would make two flushes one.
    #[test]
    fn flush_holds_beside_other_flushes() {
        let acme = |known: &VerifiedTokens| known.flush_tenant(&TenantId::new("acme").unwrap());
        let flushes: [&(dyn Fn(&VerifiedTokens) + Sync); 2] = [&VerifiedTokens::flush, &acme];
        let (known, clock) = (VerifiedTokens::new(BUDGET), Seconds::default());
        let (token, over) = (token_of(&somebody("a")), std::sync::atomic::AtomicBool::new(false));
        thread::scope(|scope| {
            for flush in flushes {
                let (known, over) = (&known, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        flush(known);
                    }
                });
            }
            // Also when an assertion fails: else the flushing threads would go on for ever.
            let _end = End(&over);
            for round in 0..5000 {
                let miss = match known.get(&token, 0, &clock) {
                    Ok(_) => {
                        known.flush();
                        continue;
                    }
                    Err(miss) => miss,
                };
                flushes[round % 2](&known);
                let lifetime = Lifetime::until(FOR_EVER);
                known.insert(miss, &somebody("a"), lifetime, standing(), &clock);
                assert_eq!(subject(&known, &token), None, "round {round}");
            }
        });
    }

    /// Threads verify, recall, flush, withdraw and let time pass, all at once. Whatever the order:
    /// once a flush or a withdrawal has returned, or time has passed, nothing older is recalled.
    #[test]
    fn nothing_is_recalled_that_was_flushed_withdrawn_or_expired_before() {
        for budget in [20_000, BUDGET] {
            visit_flush_withdraw_and_let_time_pass(&VerifiedTokens::new(budget));
        }
    }

    fn visit_flush_withdraw_and_let_time_pass(known: &VerifiedTokens) {
        const ROUNDS: u64 = 900;
        let clock = Seconds::default();
        // A round withdraws its key, flushes, and lets a second pass.
        let (begun, ended) = (AtomicU64::new(0), AtomicU64::new(0));
        let current = Mutex::new(KeyLease::until(Duration::MAX));
        let acme = TenantId::new("acme").unwrap();
        let visit = |n: u64| {
            let subject = (n % 20).to_string();
            let token = token_of(&somebody(&subject));
            let (over, now) = (ended.load(Ordering::SeqCst), clock.now());
            match known.get(&token, 0, &clock) {
                Ok(identity) => {
                    let (round, expires) = identity.issuer().split_once(' ').unwrap();
                    let [round, expires] = [round, expires].map(|it| it.parse::<u64>().unwrap());
                    assert!(round >= over, "of round {round} after round {over}");
                    assert!(expires > now);
                }
                Err(miss) => {
                    let lease = current.lock().unwrap().0.clone();
                    // Not before the miss: what is older than the label says is let pass, what
                    // is younger is not.
                    let round = begun.load(Ordering::SeqCst);
                    let exp = now + 1 + n % 3;
                    // The claims belong to the token, but the issuer's name to the identity.
                    let identity = somebody_of(&format!("{round} {exp}"), &subject);
                    let lifetime = Lifetime::until(exp);
                    known.insert(miss, &identity, lifetime, lease, &clock);
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
                    0 => known.flush(),
                    1 => known.flush_tenant(&acme),
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
        let stats = known.stats();
        assert!(stats.bytes <= stats.max_bytes);
        assert!(stats.hits > 0 && stats.misses > 0, "{stats:?}");
    }
}
