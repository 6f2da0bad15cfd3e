//! [`KnownTokens`]: tokens verified before, so that a signature is verified once and not per request.
//!
//! What is kept of a token is the identity with its claims, a [mark](Mark) of all its octets, and what
//! its verification rests on; that is no token. Only tokens that passed every rule get in, and only
//! acceptance is ever remembered: whatever else there is to say about a token, the way of a first-seen
//! token says it. A remembered token is taken if
//!
//! - it is the same, by its mark;
//! - no issuer was removed, replaced or purged since before it was first looked at;
//! - nobody flushed it since then;
//! - its key was not withdrawn, and the key set is neither due to be asked for nor too old, so that
//!   a service that sees known tokens only still learns of withdrawn keys;
//! - the time is within its `nbf`, `iat` and `exp`, by the same arithmetic as the first time.
//!
//! Everything else the rules look at (audience, issuer policy, token type, claims mapping) belongs
//! to the issuer's configuration, which never changes: a change makes a new issuer.

mod hot;
mod table;
mod tally;

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use self::hot::Hot;
use self::table::{Placed, Table};
use self::tally::Tally;
use super::rules::Lifetime;
use crate::clock::Clock;
use crate::identity::{Identity, TenantId};
use crate::issuer::Grounds;
use crate::mark::{Mark, Spot};
use crate::sync::{AtomicU64, Ordering, RandomState};
use crate::telemetry;

/// The tokens a validator verified before and need not verify again. A handle: clones share them.
///
/// Switched on by default and bounded by `AuthConfig::known_tokens_bytes`. A token is forgotten
/// when it expires; it stops counting at once when its key is withdrawn or its issuer removed or
/// purged. There is nothing to flush for safety: a flushed token is verified anew, and accepted if
/// it still holds. Flush to free memory, or to hold fewer personal data of a tenant that left.
#[derive(Clone)]
pub struct KnownTokens(Option<Arc<Memory>>);

/// How many tokens are known, and how often that helped. Counts are since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct KnownTokensStats {
    /// Tokens held now, those included that stopped counting and were not cleared away yet.
    pub tokens: usize,
    /// Bytes held now, as asked of the allocator; it takes some more. The table that finds them,
    /// 4 % of the limit, is included, and so are the copies of tokens that one thread is asked for
    /// over and over, at most a sixteenth.
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
    pub displaced: u64,
}

impl KnownTokensStats {
    /// The share of tokens that were found, if any was looked for.
    pub fn hit_rate(&self) -> Option<f64> {
        let all = self.hits.saturating_add(self.misses);
        (all > 0).then(|| self.hits as f64 / all as f64)
    }
}

#[derive(Debug)]
struct Memory {
    table: Table<Known>,
    hot: Hot<Copied>,
    tally: Tally,
    displaced: AtomicU64,
    flushes: Flushes,
}

/// A token that was verified.
#[derive(Debug)]
struct Known {
    identity: Identity,
    mark: Mark,
    /// How long that is which the token signs. The mark does not tell, being of two texts.
    signed: u32,
    lot: u32,
    lifetime: Lifetime,
    grounds: Grounds,
    /// [`Issuers::changes`](crate::issuer::Issuers::changes) before its issuer was looked up.
    changes: u64,
    /// When it was looked at, in flushes.
    flushes: u64,
}

/// The same in memory of its own, for one thread. It is found so often that what the token signs is kept
/// as it stands: to compare that takes less time than to make a mark of it, too.
#[derive(Debug)]
struct Copied {
    known: Known,
    signed: Box<[u8]>,
    /// Of the rest, as it stands behind that.
    signature: Mark,
}

/// A token looked at for the first time: what to remember it by, should it turn out to be good.
#[derive(Debug)]
pub(crate) struct Sighting<'t>(Option<Sighted<'t>>);

#[derive(Debug)]
struct Sighted<'t> {
    token: &'t [u8],
    spot: Spot,
    changes: u64,
    flushes: u64,
}

impl Sighting<'_> {
    /// Of a token that is not to be remembered.
    pub(super) const NONE: Self = Self(None);
}

impl KnownTokens {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self((max_bytes > 0).then(|| {
            let hot = Hot::within(max_bytes);
            Arc::new(Memory {
                table: Table::new(max_bytes - hot.max_bytes()),
                hot,
                tally: Tally::default(),
                displaced: AtomicU64::new(0),
                flushes: Flushes::default(),
            })
        }))
    }

    /// Forgets all tokens. Also those being verified right now are not remembered.
    pub fn flush(&self) {
        if let Some(memory) = &self.0 {
            memory.flushes.all();
            memory.sweep(|_| true);
        }
    }

    /// Forgets the tokens of one tenant, as [`flush`](Self::flush) does for all. Some of other
    /// tenants may go along, and are verified anew.
    pub fn flush_tenant(&self, tenant: &TenantId) {
        if let Some(memory) = &self.0 {
            memory.flushes.one(memory.flushes.lot(Some(tenant)));
            memory.sweep(|known| known.identity.tenant_id() == Some(tenant));
        }
    }

    /// How many tokens are known, and how often that helped.
    pub fn stats(&self) -> KnownTokensStats {
        let Some(memory) = &self.0 else { return KnownTokensStats::default() };
        let (hits, misses) = memory.tally.totals();
        KnownTokensStats {
            tokens: memory.table.entries(),
            bytes: memory.table.bytes() + memory.hot.bytes(),
            max_bytes: memory.table.max_bytes() + memory.hot.max_bytes(),
            hits,
            misses,
            displaced: memory.displaced.load(Ordering::Relaxed),
        }
    }

    /// Who the token stands for, if it is known and still good; `changes` is what the issuers say
    /// now. Otherwise, what to [remember](Self::remember) it by.
    pub(super) fn recall<'t>(
        &self,
        token: &'t [u8],
        changes: u64,
        clock: &dyn Clock,
    ) -> Result<Identity, Sighting<'t>> {
        let Some(memory) = &self.0 else { return Err(Sighting::NONE) };
        // Before anything is verified: a flush from now on concerns this token too.
        let flushes = memory.flushes.so_far();
        let spot = Spot::of(token);
        let accept = |known: &Known| {
            (memory.counts(known, changes) && known.holds(clock)).then(|| known.identity.clone())
        };
        let own = memory.hot.find(spot, |copy| copy.is(token).then(|| accept(&copy.known))?);
        let found = own.or_else(|| memory.find_shared(token, spot, accept, clock));
        match found {
            Some(_) => memory.tally.hit(),
            None => memory.tally.miss(),
        }
        found.ok_or(Sighting(Some(Sighted { token, spot, changes, flushes })))
    }

    /// Remembers a token that passed every rule after it was sighted.
    pub(super) fn remember(
        &self,
        sighting: Sighting<'_>,
        identity: &Identity,
        lifetime: Lifetime,
        grounds: Grounds,
        clock: &dyn Clock,
    ) {
        let (Some(memory), Some(sighted)) = (&self.0, sighting.0) else { return };
        let Sighted { token, spot, changes, flushes } = sighted;
        let (signed, mark) = mark(token);
        let lot = memory.flushes.lot(identity.tenant_id());
        let identity = identity.clone();
        let known = Known { identity, mark, signed, lot, lifetime, grounds, changes, flushes };
        let (is_same, is_dead) = (|held: &Known| held.is(token), memory.is_dead(changes, clock));
        let bytes = known.identity.footprint();
        let displaced = match memory.table.insert(spot, bytes, known, is_same, is_dead) {
            Placed::Displacing(others) => others,
            Placed::TurnedAway => 1,
        };
        if displaced > 0 {
            memory.displaced.fetch_add(displaced as u64, Ordering::Relaxed);
            telemetry::known_tokens_displaced(displaced as u64);
        }
    }
}

impl fmt::Debug for KnownTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KnownTokens").field(&self.stats()).finish()
    }
}

impl Memory {
    /// What all threads find. One that finds it over and over gets a copy.
    fn find_shared(
        &self,
        token: &[u8],
        spot: Spot,
        accept: impl Fn(&Known) -> Option<Identity>,
        clock: &dyn Clock,
    ) -> Option<Identity> {
        let (identity, copy) = self.table.find(spot, |known| {
            // Asked of memory now, it comes while the mark is made: with many tokens, a sixth of the time.
            let is_it = known.identity.is_there() && known.is(token);
            let identity = is_it.then(|| accept(known))??;
            let wanted = self.hot.wants(spot, || known.identity.footprint() + token.len());
            Some((identity, wanted.then(|| known.copy(token))))
        })?;
        if let Some(copy) = copy {
            let is_dead = self.is_dead(copy.known.changes, clock);
            let is_dead = |held: &Copied| is_dead(&held.known);
            self.hot.insert(spot, copy.footprint(), copy, |held| held.is(token), is_dead);
        }
        Some(identity)
    }

    /// Tells which tokens are worth nothing any more.
    fn is_dead(&self, changes: u64, clock: &dyn Clock) -> impl Fn(&Known) -> bool {
        let (now, _) = clock.coarse();
        move |known| !self.counts(known, changes) || known.is_over(now)
    }

    fn sweep(&self, is_unwanted: impl Fn(&Known) -> bool) {
        self.table.sweep(&is_unwanted);
        self.hot.sweep(|copy| is_unwanted(&copy.known));
    }

    /// Whether neither a change of the issuers nor a flush came after the token was looked at.
    fn counts(&self, known: &Known, changes: u64) -> bool {
        known.changes == changes && !self.flushes.concern(known.lot, known.flushes)
    }
}

impl Known {
    fn is(&self, token: &[u8]) -> bool {
        mark(token) == (self.signed, self.mark)
    }

    /// A copy, for whoever comes with the token again.
    fn copy(&self, token: &[u8]) -> Copied {
        let Self { mark, signed, lot, lifetime, changes, flushes, .. } = *self;
        let (identity, grounds) = (self.identity.copy(), self.grounds.clone());
        let known = Self { identity, mark, signed, lot, lifetime, grounds, changes, flushes };
        let (signed, signature) = parts(token);
        Copied { known, signed: signed.into(), signature: Mark::behind(signed.len(), signature) }
    }

    /// Whether the token would be accepted again now.
    fn holds(&self, clock: &dyn Clock) -> bool {
        let (now, elapsed) = clock.coarse();
        self.grounds.stand(elapsed) && self.lifetime.check(now).is_ok()
    }

    /// Whether it never will be again.
    fn is_over(&self, now: SystemTime) -> bool {
        self.grounds.are_gone() || self.lifetime.is_over(now)
    }
}

impl Copied {
    fn is(&self, token: &[u8]) -> bool {
        let length = self.signed.len();
        token.split_at_checked(length).is_some_and(|(signed, signature)| {
            Mark::behind(length, signature) == self.signature && *signed == *self.signed
        })
    }

    fn footprint(&self) -> usize {
        self.known.identity.footprint() + self.signed.len()
    }
}

/// What a token signs, and from the last dot on its signature.
fn parts(token: &[u8]) -> (&[u8], &[u8]) {
    let dot = memchr::memrchr(b'.', token).unwrap_or_default();
    token.split_at_checked(dot).unwrap_or_default()
}

/// What a token is known by: how long that is which it signs, and the mark. Follows from the token alone,
/// so that it is made while what it is compared with comes from memory.
fn mark(token: &[u8]) -> (u32, Mark) {
    let (signed, signature) = parts(token);
    (signed.len() as u32, Mark::of_both(signed, signature))
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
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::base64url;
    use crate::identity::{ClaimsMapping, Provenance, Reading};
    use crate::json::Document;

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

    fn standing() -> Grounds {
        Grounds::until(Duration::MAX).0
    }

    /// So often must a token be found that the thread has a copy, and that the copy is found.
    const OFTEN: usize = 3;

    /// Remembers `token` as that of `identity`, for ever, and asks for it over and over.
    fn learn(known: &KnownTokens, token: &[u8], identity: &Identity, grounds: Grounds) {
        let clock = Seconds::default();
        if let Err(sighting) = known.recall(token, 0, &clock) {
            known.remember(sighting, identity, Lifetime::until(FOR_EVER), grounds, &clock);
        }
        (0..OFTEN).for_each(|_| drop(known.recall(token, 0, &clock)));
    }

    /// What the copies of all threads take.
    fn hot_bytes(known: &KnownTokens) -> usize {
        known.0.as_ref().unwrap().hot.bytes()
    }

    fn subject(known: &KnownTokens, token: &[u8]) -> Option<String> {
        let found = known.recall(token, 0, &Seconds::default());
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
            let known = KnownTokens::new(BUDGET);
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

    /// Longer than the key that marks are made with; of RSA keys of 8,192 bits, and of 16,384.
    #[test]
    fn a_long_signature_is_known_by_all_its_octets_too() {
        for signature in [1366, 2731, 9000] {
            let known = KnownTokens::new(BUDGET);
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
            let known = KnownTokens::new(BUDGET);
            let tokens: Vec<_> = texts.into_iter().enumerate().map(|(n, (header, name, signature))| {
                let identity = somebody_of(&n.to_string(), &name);
                (n, token_with(&header, &identity, &signature), identity)
            }).collect();
            for (_, token, identity) in tokens.iter().filter(|(n, ..)| n % 2 == 0) {
                learn(&known, token, identity, standing());
            }
            for (n, token, _) in &tokens {
                let expected = (n % 2 == 0).then(|| n.to_string());
                let found = known.recall(token, 0, &Seconds::default()).ok();
                let issuer = found.map(|identity| identity.issuer().to_owned());
                prop_assert_eq!(issuer, expected, "{}", String::from_utf8_lossy(token));
            }
        }
    }

    #[test]
    fn a_token_counts_while_time_key_issuers_and_flushes_allow_it() {
        let known = KnownTokens::new(BUDGET);
        let (grounds, withdraw) = Grounds::until(Duration::from_secs(50));
        let clock = Seconds::default();
        let token = token_of(&somebody("a"));
        let learn = |grounds: &Grounds| {
            let sighting = known.recall(&token, 7, &clock).unwrap_err();
            let lifetime = Lifetime::until(40);
            known.remember(sighting, &somebody("a"), lifetime, grounds.clone(), &clock);
            (0..OFTEN).for_each(|_| drop(known.recall(&token, 7, &clock).unwrap()));
            let memory = known.0.as_ref().unwrap();
            let good = |known: &Known| memory.counts(known, 7) && known.holds(&clock);
            let copy = memory.hot.find(Spot::of(&token), |copy| good(&copy.known).then_some(()));
            assert!(copy.is_some(), "the thread has a good copy");
        };
        let counts = |changes, at| {
            clock.0.store(at, Ordering::SeqCst);
            known.recall(&token, changes, &clock).is_ok()
        };
        learn(&grounds);
        assert!(counts(7, 0) && counts(7, 39));
        assert!(!counts(7, 40) && !counts(8, 0) && !counts(6, 0));
        assert!(counts(7, 0), "looking changes nothing");
        known.flush_tenant(&TenantId::new("acme").unwrap());
        assert!(!counts(7, 0));
        learn(&grounds);
        assert!(counts(7, 0));
        known.flush();
        assert!(!counts(7, 0));
        learn(&grounds);
        assert!(counts(7, 0));
        withdraw();
        assert!(!counts(7, 0));
        learn(&Grounds::until(Duration::from_secs(30)).0);
        assert!(counts(7, 29) && !counts(7, 30), "its keys are due");
        let stats = known.stats();
        assert_eq!((stats.tokens, stats.displaced), (1, 0));
    }

    /// The last chunks of texts overlap what is before them, so that such texts are made of the same chunks
    /// wherever the dot stands.
    #[test]
    fn a_dot_that_stands_elsewhere_makes_another_token() {
        let token = |dot: usize| ["B".repeat(dot), "A".repeat(139 - dot)].join(".").into_bytes();
        for dot in [33, 40, 64, 70, 100] {
            let known = KnownTokens::new(BUDGET);
            learn(&known, &token(dot), &somebody("a"), standing());
            for other in 20..=110 {
                let expected = (other == dot).then(|| "a".to_owned());
                assert_eq!(subject(&known, &token(other)), expected, "{other} for {dot}");
            }
        }
    }

    #[test]
    fn threads_that_ask_for_one_token_over_and_over_do_not_share_its_identity() {
        let known = KnownTokens::new(BUDGET);
        let token = token_of(&somebody("a"));
        learn(&known, &token, &somebody("a"), standing());
        let place = || {
            let found = || known.recall(&token, 0, &Seconds::default()).unwrap();
            (0..OFTEN).for_each(|_| drop(found()));
            let identity = found();
            assert_eq!(token_of(&identity), token);
            identity.subject().as_ptr() as usize
        };
        let other = thread::scope(|scope| scope.spawn(place).join().unwrap());
        assert_eq!(place(), place());
        assert_ne!(place(), other);
        let stats = known.stats();
        assert_eq!((stats.tokens, stats.misses), (1, 1));
        let held = stats.bytes;
        known.flush();
        assert_eq!((known.stats().tokens, hot_bytes(&known) < 1000), (0, true));
        assert!(known.stats().bytes < held);
    }

    #[test]
    fn tokens_that_come_in_turn_are_not_copied() {
        let known = KnownTokens::new(BUDGET);
        let all: Vec<_> = (0..100).map(|n| somebody(&n.to_string())).collect();
        for identity in all.iter().cycle().take(1000) {
            let (clock, token) = (Seconds::default(), token_of(identity));
            if let Err(sighting) = known.recall(&token, 0, &clock) {
                let lifetime = Lifetime::until(FOR_EVER);
                known.remember(sighting, identity, lifetime, standing(), &clock);
            }
        }
        assert_eq!((known.stats().hits, hot_bytes(&known)), (900, 0));
    }

    #[test]
    fn what_was_sighted_before_a_flush_is_not_remembered_after_it() {
        let clock = Seconds::default();
        let acme = |known: &KnownTokens| known.flush_tenant(&TenantId::new("acme").unwrap());
        let flushes: [&dyn Fn(&KnownTokens); 2] = [&KnownTokens::flush, &acme];
        for flush in flushes {
            let (known, token) = (KnownTokens::new(BUDGET), token_of(&somebody("a")));
            let sighting = known.recall(&token, 0, &clock).unwrap_err();
            flush(&known);
            let lifetime = Lifetime::until(FOR_EVER);
            known.remember(sighting, &somebody("a"), lifetime, standing(), &clock);
            assert_eq!(subject(&known, &token), None);
            learn(&known, &token, &somebody("a"), standing());
            assert_eq!(subject(&known, &token).as_deref(), Some("a"));
        }
    }

    #[test]
    fn a_token_weighs_what_it_makes_the_allocator_give() {
        let identity = |n: u32| somebody(&format!("subject-{n}-{}", "read ".repeat(n as usize)));
        let known = KnownTokens::new(BUDGET);
        // The first look sets up what belongs to the thread.
        learn(&known, &token_of(&somebody("first")), &somebody("first"), standing());
        let before = known.stats().bytes;
        let grounds = standing();
        let allocated = allocations::measure(|| {
            for n in 0..100_u32 {
                learn(&known, &token_of(&identity(n)), &identity(n), grounds.clone());
            }
        });
        let held = (known.stats().bytes - before) as i64;
        // The name of the issuer is the issuer's; here each has its own.
        let names = 100 * (2 * size_of::<usize>() + "issuer".len()).next_multiple_of(8) as i64;
        assert_eq!(known.stats().tokens, 101);
        let off = (allocated.bytes - names - held).abs();
        assert!(off * 50 < held, "{held} said, {} given", allocated.bytes);
    }

    /// Threads verify, recall, flush, withdraw and let time pass, all at once. Whatever the order:
    /// once a flush or a withdrawal has returned, or time has passed, nothing older is recalled.
    #[test]
    fn nothing_is_recalled_that_was_flushed_withdrawn_or_expired_before() {
        let copied = [20_000, BUDGET].map(|budget| {
            let known = KnownTokens::new(budget);
            visit_flush_withdraw_and_let_time_pass(&known);
            hot_bytes(&known) > 0
        });
        assert_eq!(copied, [false, true], "with copies and without");
    }

    fn visit_flush_withdraw_and_let_time_pass(known: &KnownTokens) {
        const ROUNDS: u64 = 900;
        let clock = Seconds::default();
        // A round withdraws its key, flushes, and lets a second pass.
        let (begun, ended) = (AtomicU64::new(0), AtomicU64::new(0));
        let current = Mutex::new(Grounds::until(Duration::MAX));
        let acme = TenantId::new("acme").unwrap();
        let visit = |n: u64| {
            let subject = (n % 20).to_string();
            let token = token_of(&somebody(&subject));
            let (over, now) = (ended.load(Ordering::SeqCst), clock.now());
            match known.recall(&token, 0, &clock) {
                Ok(identity) => {
                    let (round, expires) = identity.issuer().split_once(' ').unwrap();
                    let [round, expires] = [round, expires].map(|it| it.parse::<u64>().unwrap());
                    assert!(round >= over, "of round {round} after round {over}");
                    assert!(expires > now);
                }
                Err(sighting) => {
                    let grounds = current.lock().unwrap().0.clone();
                    // Not before the sighting: what is older than the label says is let pass, what
                    // is younger is not.
                    let round = begun.load(Ordering::SeqCst);
                    let exp = now + 1 + n % 3;
                    // The claims belong to the token, but the issuer's name to the identity.
                    let identity = somebody_of(&format!("{round} {exp}"), &subject);
                    let lifetime = Lifetime::until(exp);
                    known.remember(sighting, &identity, lifetime, grounds, &clock);
                }
            }
        };
        thread::scope(|scope| {
            for start in 0..3 {
                let (visit, ended) = (&visit, &ended);
                scope.spawn(move || {
                    let mut n = start;
                    while ended.load(Ordering::SeqCst) < ROUNDS {
                        (0..=OFTEN).for_each(|_| visit(n));
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
                        *current = Grounds::until(Duration::MAX);
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
