//! [`CacheKey`]: all that was asked for, as something a cache can file tokens under.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::sealed::{DataKey, ServerKey};
use crate::base64url;
use crate::clock::{Clock, unix_time};
use crate::exchange::token::{AccessToken, Freshness};
use crate::identity::TenantId;
use crate::mark::Mark;

/// By how many milliseconds the clocks of two servers may differ.
const SKEW: u64 = 60_000;

/// The same for what can be spent once only: to take it for garbage ends a session.
const SINGLE_USE_SKEW: u64 = 600_000;

/// What a cache files a token under: made of everything that tells one request from another.
///
/// Provider, client, endpoint, grant, tenant, subject token, actor, audiences, resources, scopes and
/// token type all count, each with its length, so that no two requests that differ in any
/// of them share an entry; the order of audiences, resources and scopes does not count.
pub struct CacheKey<'a> {
    mark: Mark,
    question: Question<'a>,
    server_key: &'a ServerKey,
    clock: &'a dyn Clock,
    /// Not needed for what is found in memory.
    derived: OnceLock<Box<Derived>>,
}

struct Derived {
    /// Of the subject token.
    subject: Option<[u8; 32]>,
    digest: String,
}

impl<'a> CacheKey<'a> {
    pub(crate) fn new(
        question: Question<'a>,
        server_key: &'a ServerKey,
        clock: &'a dyn Clock,
    ) -> Self {
        Self { mark: question.mark(), question, server_key, clock, derived: OnceLock::new() }
    }

    /// The tenant the token is for, if the request names one: for caches that keep tenants apart
    /// by name.
    pub fn tenant(&self) -> Option<&TenantId> {
        self.question.tenant
    }

    /// 43 characters of `A-Z a-z 0-9 - _` that stand for the whole request: an HMAC-SHA-256 under
    /// a key that is made from the server's. Two servers with the same [`CacheKeys`] and settings
    /// have the same; nobody else can tell what it stands for.
    ///
    /// [`CacheKeys`]: super::CacheKeys
    pub fn digest(&self) -> &str {
        &self.derived().digest
    }

    /// The token encrypted and bound to this key, to be kept outside of this process for so long.
    /// `None` when the system has no random numbers.
    ///
    /// AES-256-GCM under a key that is derived from the server's and the subject token (or, for a
    /// service's own tokens, the tenant): a copy of the store opens nothing.
    pub fn seal(&self, token: &AccessToken, keep_for: Duration) -> Option<Vec<u8>> {
        let expires = self
            .milliseconds()
            .saturating_add(u64::try_from(keep_for.as_millis()).unwrap_or(u64::MAX));
        let plain = match self.question.grant {
            // Whoever comes with the same code checks the same ID token.
            CODE_GRANT => token.to_octets_with_id_token(self.clock),
            _ => token.to_octets(self.clock),
        };
        self.server_key.seal(&self.data_key(), self.digest().as_bytes(), expires, &plain)
    }

    /// What [`seal`](Self::seal) gave, if it was this key's, nobody changed it, and the time for
    /// which it was to be kept is not over by more than a minute, which servers' clocks may differ.
    /// Under a key of [single use](Self::is_single_use) ten minutes: what a refresh token or a code gave is
    /// better given out late than bought twice.
    pub fn open(&self, sealed: &[u8]) -> Option<AccessToken> {
        let (data_key, digest) = (self.data_key(), self.digest().as_bytes());
        let (plain, expires) = self.server_key.open(&data_key, digest, sealed)?;
        let now = self.milliseconds();
        let skew = if self.is_single_use() { SINGLE_USE_SKEW } else { SKEW };
        if expires.saturating_add(skew) < now {
            return None;
        }
        let stays = Duration::from_millis(expires.saturating_sub(now));
        Some(AccessToken::from_octets(&plain, self.clock)?.staying(stays))
    }

    /// Whether the token under this key was bought with a refresh token or a code, which can be
    /// spent once only. No answer is then no substitute for an answer: rather than being gone on
    /// without, the cache is asked again. A cache may take its time for these keys.
    pub fn is_single_use(&self) -> bool {
        self.question.single_use
    }

    /// Where a token is in its life, by the client's clock.
    pub fn freshness(&self, token: &AccessToken) -> Freshness {
        token.freshness(self.clock)
    }

    /// How much longer a token may be kept, by the client's clock; `None`: not at all. One that
    /// [`open`](Self::open) gave, no longer than the cache it came from keeps it.
    pub fn kept_for(&self, token: &AccessToken) -> Option<Duration> {
        token.left(self.clock)
    }

    fn milliseconds(&self) -> u64 {
        (unix_time(self.clock.now()) * 1000.0) as u64
    }

    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    fn derived(&self) -> &Derived {
        self.derived.get_or_init(|| {
            let question = &self.question;
            let subject = question.subject.map(|(token, _)| sha256(token.as_bytes()));
            let digest = subject.as_ref().map(|digest| &digest[..]);
            let digest = base64url::encode(self.server_key.index(&question.written(digest)));
            Box::new(Derived { subject, digest })
        })
    }

    /// What seals the token.
    fn data_key(&self) -> DataKey {
        let subject = &self.derived().subject;
        let owner: &[u8] = match (subject, self.question.tenant) {
            (Some(digest), _) => digest,
            (None, Some(tenant)) => tenant.as_str().as_bytes(),
            (None, None) => &[],
        };
        self.server_key.data_key(subject.is_some(), owner)
    }
}

impl fmt::Debug for CacheKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheKey").field("tenant", &self.tenant()).finish_non_exhaustive()
    }
}

/// What all requests of one client have in common.
#[derive(Clone)]
pub(crate) struct Ground {
    digest: [u8; 32],
}

impl Ground {
    /// From the client's settings, in a fixed order.
    pub(crate) fn new<'s>(settings: impl Iterator<Item = &'s str>) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        settings.for_each(|setting| write(&mut hash, setting));
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        Self { digest }
    }
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ground").finish_non_exhaustive()
    }
}

/// All that tells one request of a client from another.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) grant: &'static str,
    pub(crate) tenant: Option<&'a TenantId>,
    /// The token and its type.
    pub(crate) subject: Option<(&'a str, &'a str)>,
    pub(crate) actor: Option<(&'a str, &'a str)>,
    pub(crate) audiences: &'a [String],
    pub(crate) resources: &'a [url::Url],
    /// Separated by spaces.
    pub(crate) scopes: &'a str,
    /// What it says of the answer, not of the question: it is not written.
    pub(crate) single_use: bool,
}

/// What a question about a code calls its grant.
pub(crate) const CODE_GRANT: &str = "authorization_code";

/// In an order that every process keeps, so that no two wait for each other.
pub(crate) fn in_order<'s, 'k>(keys: &'s [CacheKey<'k>]) -> Vec<&'s CacheKey<'k>> {
    let mut keys: Vec<_> = keys.iter().collect();
    if keys.len() > 1 {
        keys.sort_unstable_by(|one, other| one.digest().cmp(other.digest()));
    }
    keys
}

/// Takes octets in.
trait Sink {
    fn add(&mut self, octets: &[u8]);
}

/// How much was added.
struct Length(usize);

impl Sink for Length {
    fn add(&mut self, octets: &[u8]) {
        self.0 += octets.len();
    }
}

impl Sink for Vec<u8> {
    fn add(&mut self, octets: &[u8]) {
        self.extend_from_slice(octets);
    }
}

impl Sink for digest::Context {
    fn add(&mut self, octets: &[u8]) {
        self.update(octets);
    }
}

impl Question<'_> {
    fn mark(&self) -> Mark {
        let subject = self.subject.map(|(token, _)| token.as_bytes());
        Mark::of(&self.written(subject))
    }

    /// In one place, which never grows: that would leave a copy of a token behind.
    fn written(&self, subject: Option<&[u8]>) -> Zeroizing<Vec<u8>> {
        let mut length = Length(0);
        self.write(&mut length, subject);
        let mut written = Zeroizing::new(Vec::with_capacity(length.0));
        self.write(&mut *written, subject);
        written
    }

    /// First the client's settings, by their digest; then how long each text is (or that it is not
    /// there), then the texts, then the sets: so no two questions are written alike.
    fn write(&self, sink: &mut impl Sink, subject: Option<&[u8]>) {
        let octets = |text: Option<&'_ str>| text.map(str::len);
        let lengths = [
            Some(self.grant.len()),
            octets(self.tenant.map(TenantId::as_str)),
            octets(self.subject.map(|(_, kind)| kind)),
            octets(self.actor.map(|(token, _)| token)),
            octets(self.actor.map(|(_, kind)| kind)),
            subject.map(<[u8]>::len),
        ];
        let told = |length: Option<usize>| length.map_or(ABSENT, |it| it as u64).to_be_bytes();
        sink.add(&self.ground.digest);
        sink.add(lengths.map(told).as_flattened());
        sink.add(self.grant.as_bytes());
        if let Some(tenant) = self.tenant {
            sink.add(tenant.as_str().as_bytes());
        }
        if let Some((_, kind)) = self.subject {
            sink.add(kind.as_bytes());
        }
        if let Some((token, kind)) = self.actor {
            sink.add(token.as_bytes());
            sink.add(kind.as_bytes());
        }
        if let Some(subject) = subject {
            sink.add(subject);
        }
        write_set(sink, self.audiences.iter().map(String::as_str));
        write_set(sink, self.resources.iter().map(url::Url::as_str));
        write_set(sink, self.scopes.split(' ').filter(|scope| !scope.is_empty()));
    }
}

/// The length of what is not there.
const ABSENT: u64 = u64::MAX;

/// A text by itself: its length, and then it.
fn write(sink: &mut impl Sink, text: &str) {
    sink.add(&(text.len() as u64).to_be_bytes());
    sink.add(text.as_bytes());
}

/// A set: how many members, and then those in order, each once.
fn write_set<'t>(sink: &mut impl Sink, members: impl Iterator<Item = &'t str> + Clone) {
    let mut few = members.clone();
    match (few.next(), few.next()) {
        (None, _) => sink.add(&0_u64.to_be_bytes()),
        (Some(only), None) => {
            sink.add(&1_u64.to_be_bytes());
            write(sink, only);
        }
        _ => {
            let mut sorted: Vec<&str> = members.collect();
            sorted.sort_unstable();
            sorted.dedup();
            sink.add(&(sorted.len() as u64).to_be_bytes());
            sorted.iter().for_each(|member| write(sink, member));
        }
    }
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, octets).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::SystemClock;
    use crate::exchange::cache::CacheKeys;
    use crate::secret::Secret;

    #[derive(Debug, Clone, PartialEq)]
    struct Asked {
        settings: Vec<String>,
        tenant: Option<String>,
        subject: Option<(String, String)>,
        actor: Option<(String, String)>,
        audiences: Vec<String>,
        scopes: Vec<String>,
    }

    impl Asked {
        /// The same as somebody who does not care for the order and repetition of sets sees it.
        fn meaning(&self) -> Self {
            let mut asked = self.clone();
            for set in [&mut asked.audiences, &mut asked.scopes] {
                set.sort();
                set.dedup();
            }
            asked
        }

        fn filed(&self, keys: &CacheKeys) -> (Mark, String) {
            let ground = Ground::new(self.settings.iter().map(String::as_str));
            let tenant = self.tenant.as_deref().map(|id| TenantId::new(id).unwrap());
            let pair = |it: &'_ Option<(String, String)>| it.clone();
            let (subject, actor) = (pair(&self.subject), pair(&self.actor));
            let question = Question {
                ground: &ground,
                grant: "exchange",
                tenant: tenant.as_ref(),
                subject: subject.as_ref().map(|(token, kind)| (&**token, &**kind)),
                actor: actor.as_ref().map(|(token, kind)| (&**token, &**kind)),
                audiences: &self.audiences,
                resources: &[],
                scopes: &self.scopes.join(" "),
                single_use: false,
            };
            let clock = SystemClock::default();
            let key = CacheKey::new(question, keys.iter().next().unwrap(), &clock);
            (key.mark(), key.digest().to_owned())
        }
    }

    /// Texts that are easily taken for one another when they are put together.
    fn text() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "b", "ab", "a:b", "b:c", ":", "c"]).prop_map(str::to_owned)
    }

    fn asked() -> impl Strategy<Value = Asked> {
        let pair = || prop::option::of((text(), text()));
        let set = || prop::collection::vec(text(), 0..3);
        let option = || prop::option::of(text());
        (set(), option(), pair(), pair(), set(), set()).prop_map(
            |(settings, tenant, subject, actor, audiences, scopes)| Asked {
                settings,
                tenant,
                subject,
                actor,
                audiences,
                scopes,
            },
        )
    }

    fn keys() -> CacheKeys {
        CacheKeys::parse(&Secret::new("QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=")).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn two_requests_have_one_key_exactly_when_they_mean_the_same(one in asked(), two in asked()) {
            let (same, keys) = (one.meaning() == two.meaning(), keys());
            let ((mark, digest), (other_mark, other_digest)) = (one.filed(&keys), two.filed(&keys));
            prop_assert_eq!(mark == other_mark, same);
            prop_assert_eq!(digest == other_digest, same);
        }

        #[test]
        fn a_set_has_one_key_in_every_order(asked in asked()) {
            let mut turned = asked.clone();
            turned.audiences.reverse();
            turned.scopes.extend(asked.scopes.iter().cloned().rev());
            prop_assert_eq!(asked.filed(&keys()), turned.filed(&keys()));
        }
    }

    #[test]
    fn servers_with_the_same_secret_file_under_the_same_digest_for_ever() {
        let asked = Asked {
            settings: vec!["1".into(), "https://scaikey.example".into()],
            tenant: Some("acme".into()),
            subject: Some(("token".into(), "type".into())),
            actor: None,
            audiences: vec!["scaivault".into()],
            scopes: vec![],
        };
        let digest = asked.filed(&keys()).1;
        assert_eq!(digest, "tlYDhaxhyp8H2zMxxUlVvluhs624LMTQyrvCo4Fbr_A");
        assert_ne!(asked.filed(&CacheKeys::random().unwrap()).1, digest);
    }
}
