//! [`CacheKey`]: all that was asked for, as something a cache can file tokens under.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::clock::{Clock, unix_time};
use crate::exchange::request::TokenRequest;
use crate::exchange::token::{AccessToken, Freshness};
use crate::identity::TenantId;
use crate::support::base64url;
use crate::support::crypto;
use crate::support::mac::Mac;
use crate::support::seal::{Purpose, SealingKey};

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
    mac: Mac,
    client: &'a ClientFingerprint,
    request: &'a TokenRequest<'a>,
    server_key: &'a SealingKey,
    clock: &'a dyn Clock,
    /// Not needed for what is found in memory.
    derived: OnceLock<Derived>,
}

struct Derived {
    /// Of the subject token.
    subject: Option<[u8; 32]>,
    digest: String,
}

impl<'a> CacheKey<'a> {
    pub(crate) fn new(
        client: &'a ClientFingerprint,
        request: &'a TokenRequest<'a>,
        server_key: &'a SealingKey,
        clock: &'a dyn Clock,
    ) -> Self {
        let credential = request.credential().map(|it| it.expose().as_bytes());
        let mac = Mac::of(&client.encoded(request, credential));
        Self { mac, client, request, server_key, clock, derived: OnceLock::new() }
    }

    /// The tenant the token is for, if the request names one: for caches that keep tenants apart
    /// by name.
    pub fn tenant(&self) -> Option<&TenantId> {
        self.request.tenant()
    }

    /// 43 characters of `A-Z a-z 0-9 - _` that stand for the whole request: an HMAC-SHA-256 under
    /// a key that is made from the server's. Two servers with the same [`SealingKeys`] and settings
    /// have the same; nobody else can tell what it stands for.
    ///
    /// [`SealingKeys`]: crate::exchange::SealingKeys
    pub fn digest(&self) -> &str {
        &self.derived().digest
    }

    /// The token encrypted and bound to this key, to be kept outside of this process for so long.
    /// `None` when the system has no random numbers.
    ///
    /// AES-256-GCM under a key that is derived from the server's and the subject token (or, for a
    /// service's own tokens, the tenant): a copy of the store opens nothing.
    pub fn seal(&self, token: &AccessToken, ttl: Duration) -> Option<Vec<u8>> {
        let expires =
            self.milliseconds().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let plain = match self.request {
            // Whoever comes with the same code checks the same ID token.
            TokenRequest::Code(_) => token.to_bytes_with_id_token(self.clock),
            _ => token.to_bytes(self.clock),
        };
        self.server_key.seal(self.purpose(), self.digest().as_bytes(), expires, &plain)
    }

    /// What [`seal`](Self::seal) gave, if it was this key's, nobody changed it, and the time for
    /// which it was to be kept is not over by more than a minute, which servers' clocks may differ.
    /// Under a key of [single use](Self::is_single_use) ten minutes: what a refresh token or a code gave is
    /// better given out late than bought twice.
    pub fn open(&self, sealed: &[u8]) -> Option<AccessToken> {
        let digest = self.digest().as_bytes();
        let (plain, expires) = self.server_key.open(self.purpose(), digest, sealed)?;
        let now = self.milliseconds();
        let skew = if self.is_single_use() { SINGLE_USE_SKEW } else { SKEW };
        if expires.saturating_add(skew) < now {
            return None;
        }
        let stays = Duration::from_millis(expires.saturating_sub(now));
        Some(AccessToken::from_bytes(&plain, self.clock)?.staying(stays))
    }

    /// Whether the token under this key was bought with a refresh token or a code, which can be
    /// spent once only. No answer is then no substitute for an answer: rather than being gone on
    /// without, the cache is asked again. A cache may take its time for these keys.
    pub fn is_single_use(&self) -> bool {
        self.request.spends() && !self.client.spends_without_lock
    }

    /// Where a token is in its life, by the client's clock.
    pub fn freshness(&self, token: &AccessToken) -> Freshness {
        token.freshness(self.clock)
    }

    /// How much longer a token may be kept, by the client's clock; `None`: not at all. One that
    /// [`open`](Self::open) gave, no longer than the cache it came from keeps it.
    pub fn remaining_ttl(&self, token: &AccessToken) -> Option<Duration> {
        token.left(self.clock)
    }

    fn milliseconds(&self) -> u64 {
        (unix_time(self.clock.now()) * 1000.0) as u64
    }

    pub(crate) fn mac(&self) -> Mac {
        self.mac
    }

    /// The time of the client's monotonic clock.
    pub(super) fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    pub(in crate::exchange) fn request(&self) -> &TokenRequest<'a> {
        self.request
    }

    fn derived(&self) -> &Derived {
        self.derived.get_or_init(|| {
            let subject =
                self.request.credential().map(|it| crypto::sha256(it.expose().as_bytes()));
            let encoded = self.client.encoded(self.request, subject.as_ref().map(|it| &it[..]));
            let digest = base64url::encode(self.server_key.index(&encoded));
            Derived { subject, digest }
        })
    }

    /// What the token is sealed for.
    fn purpose(&self) -> Purpose<'_> {
        match (&self.derived().subject, self.tenant()) {
            (Some(digest), _) => Purpose::UserTokens(digest),
            (None, Some(tenant)) => Purpose::ServiceTokens(tenant.as_str().as_bytes()),
            (None, None) => Purpose::ServiceTokens(&[]),
        }
    }
}

impl fmt::Debug for CacheKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheKey").field("tenant", &self.tenant()).finish_non_exhaustive()
    }
}

/// What all requests of one client have in common: a digest of its settings.
#[derive(Debug)]
pub(crate) struct ClientFingerprint {
    digest: [u8; 32],
    /// What it says of the answers, not of the requests: it is not part of the digest.
    spends_without_lock: bool,
}

impl ClientFingerprint {
    /// From the client's settings, in a fixed order.
    pub(crate) fn new<'s>(
        settings: impl Iterator<Item = &'s str>,
        spends_without_lock: bool,
    ) -> Self {
        Self { digest: crypto::sha256_of_parts(settings), spends_without_lock }
    }

    /// A request of this client, so that no two are written alike. In one place, which never grows:
    /// that would leave a copy of a token behind.
    fn encoded(&self, request: &TokenRequest<'_>, credential: Option<&[u8]>) -> Zeroizing<Vec<u8>> {
        let parts = request.parts(credential);
        let length = parts.iter().flatten().map(|part| part.len()).sum::<usize>();
        let length = self.digest.len() + parts.len() * size_of::<u64>() + length;
        let mut encoded = Zeroizing::new(Vec::with_capacity(length));
        encoded.extend_from_slice(&self.digest);
        parts.into_iter().for_each(|part| push(&mut encoded, part));
        encoded
    }
}

/// Adds a part: its length, and then it. What is not there has a length that nothing has.
fn push(encoded: &mut Vec<u8>, part: Option<&[u8]>) {
    let length = part.map_or(u64::MAX, |part| part.len() as u64);
    encoded.extend_from_slice(&length.to_be_bytes());
    encoded.extend_from_slice(part.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::SystemClock;
    use crate::exchange::{
        CodeRequest, ExchangeRequest, PkceVerifier, RefreshRequest, ServiceTokenRequest, TokenType,
    };
    use crate::support::seal::SealingKeys;
    use crate::support::secret::Secret;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Grant {
        Exchange,
        Service,
        Refresh,
        Code,
    }

    #[derive(Debug, Clone)]
    struct Asked {
        settings: Vec<String>,
        grant: Grant,
        tenant: Option<String>,
        credential: String,
        kind: String,
        actor: Option<(String, String)>,
        audiences: Vec<String>,
        resources: Vec<String>,
        scopes: Vec<String>,
    }

    impl Asked {
        fn request(&self) -> TokenRequest<'static> {
            let tenant = self.tenant.as_deref().map(|id| TenantId::new(id).unwrap());
            let scopes = self.scopes.join(" ").parse().unwrap();
            let kind = |kind: &str| TokenType::Other(kind.to_owned());
            match self.grant {
                Grant::Exchange => {
                    let mut request = ExchangeRequest::new(self.credential.as_str(), "");
                    (request.tenant, request.scopes) = (tenant, scopes);
                    request.subject_type = kind(&self.kind);
                    let actor = self.actor.as_ref();
                    request.actor = actor.map(|(token, it)| (token.as_str().into(), kind(it)));
                    request.audiences = self.audiences.clone();
                    request.resources = self
                        .resources
                        .iter()
                        .map(|it| format!("x:{it}").parse().unwrap())
                        .collect();
                    TokenRequest::Exchange(Cow::Owned(request))
                }
                Grant::Service => {
                    let mut request = ServiceTokenRequest::default().scopes(scopes);
                    request.tenant = tenant;
                    TokenRequest::Service(Cow::Owned(request))
                }
                Grant::Refresh => {
                    let mut request = RefreshRequest::new(self.credential.as_str());
                    (request.tenant, request.scopes) = (tenant, scopes);
                    TokenRequest::Refresh(Cow::Owned(request))
                }
                Grant::Code => {
                    let mut request =
                        CodeRequest::without_pkce(self.credential.as_str(), self.kind.as_str());
                    let verifier = self.actor.as_ref().map(|(text, _)| text.repeat(50));
                    request.verifier = verifier.and_then(|it| PkceVerifier::parse(&it));
                    request.tenant = tenant;
                    TokenRequest::Code(Cow::Owned(request))
                }
            }
        }

        /// All that is asked for, as somebody sees it who does not care for the order and repetition
        /// of sets.
        fn meaning(&self) -> String {
            let sets = [&self.audiences, &self.resources, &self.scopes];
            let [audiences, resources, scopes] = sets.map(|it| it.iter().collect::<BTreeSet<_>>());
            let (tenant, credential, kind) = (&self.tenant, &self.credential, &self.kind);
            let asked = match self.request() {
                TokenRequest::Exchange(_) => {
                    format!(
                        "{credential:?} {kind:?} {:?} {audiences:?} {resources:?} {scopes:?}",
                        self.actor
                    )
                }
                TokenRequest::Service(_) => format!("{scopes:?}"),
                TokenRequest::Code(code) => {
                    let verifier = code.verifier.as_ref().map(|it| it.secret().expose());
                    format!("{credential:?} {kind:?} {verifier:?}")
                }
                _ => format!("{credential:?}"),
            };
            format!("{:?} {:?} {tenant:?} {asked}", self.settings, self.grant)
        }

        fn filed(&self, keys: &SealingKeys) -> (Mac, String) {
            let settings = self.settings.iter().map(String::as_str);
            let (client, request) = (ClientFingerprint::new(settings, false), self.request());
            let clock = SystemClock::default();
            let key = CacheKey::new(&client, &request, keys.iter().next().unwrap(), &clock);
            (key.mac(), key.digest().to_owned())
        }
    }

    /// Texts that are easily taken for one another when they are put together.
    fn text() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "b", "ab", "a:b", "b:c", ":", "c"]).prop_map(str::to_owned)
    }

    fn asked() -> impl Strategy<Value = Asked> {
        let pair = || prop::option::of((text(), text()));
        let set = || prop::collection::vec(text(), 0..3);
        let grants =
            [Grant::Exchange, Grant::Exchange, Grant::Service, Grant::Refresh, Grant::Code];
        let grant = prop::sample::select(grants.to_vec());
        let head = (set(), grant, prop::option::of(text()));
        (head, text(), text(), pair(), set(), set(), set()).prop_map(
            |((settings, grant, tenant), credential, kind, actor, audiences, resources, scopes)| {
                Asked {
                    settings,
                    grant,
                    tenant,
                    credential,
                    kind,
                    actor,
                    audiences,
                    resources,
                    scopes,
                }
            },
        )
    }

    fn keys() -> SealingKeys {
        SealingKeys::parse(&Secret::new("QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=")).unwrap()
    }

    fn compare(one: &Asked, two: &Asked) {
        let (same, keys) = (one.meaning() == two.meaning(), keys());
        let ((mac, digest), (other_mac, other_digest)) = (one.filed(&keys), two.filed(&keys));
        assert_eq!(mac == other_mac, same);
        assert_eq!(digest == other_digest, same);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn requests_share_a_key_when_they_mean_the_same(one in asked(), two in asked()) {
            compare(&one, &two);
            // Two that differ in one thing alone.
            let (settings, tenant) = (two.settings.clone(), two.tenant.clone());
            compare(&one, &Asked { settings, ..one.clone() });
            compare(&one, &Asked { grant: two.grant, ..one.clone() });
            compare(&one, &Asked { tenant, ..one.clone() });
            compare(&one, &Asked { credential: two.credential.clone(), ..one.clone() });
            compare(&one, &Asked { kind: two.kind.clone(), ..one.clone() });
            compare(&one, &Asked { actor: two.actor.clone(), ..one.clone() });
            compare(&one, &Asked { audiences: two.audiences.clone(), ..one.clone() });
            compare(&one, &Asked { resources: two.resources.clone(), ..one.clone() });
            compare(&one, &Asked { scopes: two.scopes.clone(), ..one.clone() });
            // What moves from one set to another is not where it was.
            let (audiences, resources) = (one.resources.clone(), one.audiences.clone());
            compare(&one, &Asked { audiences, resources, ..one.clone() });
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
    fn servers_with_one_secret_share_digests() {
        let asked = Asked {
            settings: vec!["3".into(), "https://scaikey.example".into()],
            grant: Grant::Exchange,
            tenant: Some("acme".into()),
            credential: "token".into(),
            kind: "type".into(),
            actor: None,
            audiences: vec!["scaivault".into()],
            resources: vec![],
            scopes: vec![],
        };
        let digest = asked.filed(&keys()).1;
        // A change here makes all that lies in caches unreachable.
        assert_eq!(digest, "2bGwhbAjBTG-xtd4Q_0vmb8hn745IDg8BSfcMSOU9Kc");
        assert_ne!(asked.filed(&SealingKeys::random().unwrap()).1, digest);
    }
}
