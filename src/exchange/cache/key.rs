//! [`CacheKey`]: the key of a token in a cache.

use std::fmt;
use std::sync::{Arc, OnceLock};
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

/// The tolerated difference between the clocks of two processes, in milliseconds.
const CLOCK_SKEW: u64 = 60_000;

/// The tolerated difference under a single-use key, in milliseconds. It is larger, because a miss would
/// end a session.
const SINGLE_USE_CLOCK_SKEW: u64 = 600_000;

/// The key of a token in a cache.
///
/// It covers the provider, client, endpoint, grant, tenant, credential, actor, audiences, resources,
/// scopes and token type, each encoded with its length, so requests that differ in any of them do not
/// share an entry. Exception: requests with the same refresh token share an entry, whatever their
/// scopes. The order of audiences, resources and scopes does not matter.
///
/// ```
/// use std::collections::HashMap;
/// use std::time::Duration;
/// use scaikey_auth::exchange::{AccessToken, CacheKey};
///
/// /// The part of a token cache that stores and reads.
/// fn put(store: &mut HashMap<String, Vec<u8>>, key: &CacheKey<'_>, token: &AccessToken, ttl: Duration) {
///     if let Some(sealed) = key.seal(token, ttl) {
///         store.insert(key.digest().to_owned(), sealed);
///     }
/// }
///
/// fn get(store: &HashMap<String, Vec<u8>>, key: &CacheKey<'_>) -> Option<AccessToken> {
///     key.open(store.get(key.digest())?)
/// }
/// ```
pub struct CacheKey<'a> {
    mac: Mac,
    client: &'a ClientFingerprint,
    request: &'a TokenRequest<'a>,
    sealing_key: Arc<SealingKey>,
    clock: &'a dyn Clock,
    /// The digests, computed on first use, because a hit in memory does not need them.
    lazy_digest: OnceLock<LazyDigest>,
}

struct LazyDigest {
    /// The SHA-256 of the subject token, refresh token or code.
    credential: Option<[u8; 32]>,
    digest: String,
}

impl<'a> CacheKey<'a> {
    pub(crate) fn new(
        client: &'a ClientFingerprint,
        request: &'a TokenRequest<'a>,
        sealing_key: Arc<SealingKey>,
        clock: &'a dyn Clock,
    ) -> Self {
        let credential = request.credential().map(|it| it.expose().as_bytes());
        let mac = Mac::of(&client.encode(request, credential));
        Self { mac, client, request, sealing_key, clock, lazy_digest: OnceLock::new() }
    }

    /// Returns the tenant of the request, if it names one. A cache may use it to separate tenants.
    pub fn tenant(&self) -> Option<&TenantId> {
        self.request.tenant()
    }

    /// Returns a digest of the request and the client's settings: 43 characters of `A-Z a-z 0-9 - _`.
    /// It is an HMAC-SHA-256 under a key derived from the [`SealingKeys`]. Processes with the same keys
    /// and settings compute the same digest; without the keys it reveals nothing about the request.
    ///
    /// [`SealingKeys`]: crate::exchange::SealingKeys
    pub fn digest(&self) -> &str {
        &self.lazy_digest().digest
    }

    /// Encrypts the token and binds it to this key and to `ttl`. Returns `None` if the system has no
    /// random numbers.
    ///
    /// The cipher is AES-256-GCM. Its key is derived from the [`SealingKeys`] and the credential of the
    /// request (for service tokens: the tenant), so a copy of the store cannot be decrypted.
    ///
    /// [`SealingKeys`]: crate::exchange::SealingKeys
    pub fn seal(&self, token: &AccessToken, ttl: Duration) -> Option<Vec<u8>> {
        let expires =
            self.now_millis().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let plain = match self.request {
            // A repeated sign-in callback verifies the ID token again.
            TokenRequest::Code(_) => token.to_bytes_with_id_token(self.clock),
            _ => token.to_bytes(self.clock),
        };
        self.sealing_key.seal(self.purpose(), self.digest().as_bytes(), expires, &plain)
    }

    /// Decrypts the output of [`seal`](Self::seal). Returns `None` if the value belongs to another key,
    /// was changed, or has expired. Expiry allows for a clock difference of one minute, and of ten
    /// minutes under a [single-use key](Self::is_single_use): returning a token late is better than
    /// using a refresh token twice.
    pub fn open(&self, sealed: &[u8]) -> Option<AccessToken> {
        let digest = self.digest().as_bytes();
        let (plain, expires) = self.sealing_key.open(self.purpose(), digest, sealed)?;
        let now = self.now_millis();
        let skew = if self.is_single_use() { SINGLE_USE_CLOCK_SKEW } else { CLOCK_SKEW };
        if expires.saturating_add(skew) < now {
            return None;
        }
        let remaining = Duration::from_millis(expires.saturating_sub(now));
        Some(AccessToken::from_bytes(&plain, self.clock)?.with_remaining_ttl(remaining))
    }

    /// Returns whether the request uses a refresh token or code, which can be used only once. Always
    /// false with
    /// [`insecure_spend_without_lock`](crate::exchange::TokenExchangeBuilder::insecure_spend_without_lock).
    /// Under such a key the client retries a cache that does not answer, instead of continuing without
    /// it, so a cache should use a longer timeout.
    pub fn is_single_use(&self) -> bool {
        self.request.has_single_use_credential() && !self.client.spends_without_lock
    }

    /// Returns the freshness of a token, by the client's clock.
    pub fn freshness(&self, token: &AccessToken) -> Freshness {
        token.freshness(self.clock)
    }

    /// Returns the remaining time for which a token may be cached, by the client's clock, or `None` if
    /// it must not be cached. For a token from [`open`](Self::open), the limit includes the `ttl` given
    /// to [`seal`](Self::seal).
    pub fn remaining_ttl(&self, token: &AccessToken) -> Option<Duration> {
        token.remaining_ttl(self.clock)
    }

    /// Returns the wall-clock time in milliseconds since 1970.
    fn now_millis(&self) -> u64 {
        (unix_time(self.clock.now()) * 1000.0) as u64
    }

    pub(crate) fn mac(&self) -> Mac {
        self.mac
    }

    /// Returns the time of the client's monotonic clock.
    pub(super) fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    pub(in crate::exchange) fn request(&self) -> &TokenRequest<'a> {
        self.request
    }

    fn lazy_digest(&self) -> &LazyDigest {
        self.lazy_digest.get_or_init(|| {
            let credential =
                self.request.credential().map(|it| crypto::sha256(it.expose().as_bytes()));
            let encoded = self.client.encode(self.request, credential.as_ref().map(|it| &it[..]));
            let digest = base64url::encode(self.sealing_key.index(&encoded));
            LazyDigest { credential, digest }
        })
    }

    /// Returns the purpose that the sealing key is derived for.
    fn purpose(&self) -> Purpose<'_> {
        match (&self.lazy_digest().credential, self.tenant()) {
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

/// A digest of the settings that affect the tokens of one client, and whether the client works without
/// locks.
#[derive(Debug)]
pub(crate) struct ClientFingerprint {
    digest: [u8; 32],
    /// Not part of the digest: it does not change the tokens.
    spends_without_lock: bool,
}

impl ClientFingerprint {
    /// Computes the digest. The settings must come in a fixed order.
    pub(crate) fn new<'s>(
        settings: impl Iterator<Item = &'s str>,
        spends_without_lock: bool,
    ) -> Self {
        Self { digest: crypto::sha256_of_parts(settings), spends_without_lock }
    }

    /// Encodes a request so that different requests have different encodings. The buffer never grows,
    /// because that would leave a copy of a token behind.
    fn encode(&self, request: &TokenRequest<'_>, credential: Option<&[u8]>) -> Zeroizing<Vec<u8>> {
        let parts = request.parts(credential);
        let length = parts.iter().flatten().map(|part| part.len()).sum::<usize>();
        let length = self.digest.len() + parts.len() * size_of::<u64>() + length;
        let mut encoded = Zeroizing::new(Vec::with_capacity(length));
        encoded.extend_from_slice(&self.digest);
        parts.into_iter().for_each(|part| push_part(&mut encoded, part));
        encoded
    }
}

/// Appends the length of a part and the part. An absent part has the length `u64::MAX`.
fn push_part(encoded: &mut Vec<u8>, part: Option<&[u8]>) {
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
        CodeRequest, ExchangeRequest, OnBehalfOfRequest, PkceVerifier, RefreshRequest,
        ServiceTokenRequest, TokenType,
    };
    use crate::support::seal::SealingKeys;
    use crate::support::secret::Secret;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum GrantKind {
        Exchange,
        OnBehalfOf,
        Service,
        Refresh,
        Code,
    }

    #[derive(Debug, Clone)]
    struct RequestSpec {
        settings: Vec<String>,
        grant: GrantKind,
        tenant: Option<String>,
        credential: String,
        kind: String,
        actor: Option<(String, String)>,
        audiences: Vec<String>,
        resources: Vec<String>,
        scopes: Vec<String>,
    }

    impl RequestSpec {
        fn request(&self) -> TokenRequest<'static> {
            let tenant = self.tenant.as_deref().map(|id| TenantId::new(id).unwrap());
            let scopes = self.scopes.join(" ").parse().unwrap();
            let kind = |kind: &str| TokenType::Other(kind.to_owned());
            match self.grant {
                GrantKind::Exchange => {
                    let mut request = ExchangeRequest::new(self.credential.as_str(), "");
                    (request.tenant, request.scopes) = (tenant, scopes);
                    request.subject_type = kind(&self.kind);
                    let actor = self.actor.as_ref();
                    request.actor = actor.map(|(token, it)| (token.as_str().into(), kind(it)));
                    request.audiences = self.audiences.clone();
                    request.resources = self.resource_urls();
                    TokenRequest::Exchange(Cow::Owned(request))
                }
                GrantKind::OnBehalfOf => {
                    let request =
                        OnBehalfOfRequest::new(self.credential.as_str(), self.kind.as_str());
                    let mut request = request.scopes(scopes);
                    request.tenant = tenant;
                    TokenRequest::OnBehalfOf(Cow::Owned(request))
                }
                GrantKind::Service => {
                    let mut request = ServiceTokenRequest::default().scopes(scopes);
                    (request.tenant, request.audiences) = (tenant, self.audiences.clone());
                    request.resources = self.resource_urls();
                    TokenRequest::Service(Cow::Owned(request))
                }
                GrantKind::Refresh => {
                    let mut request = RefreshRequest::new(self.credential.as_str());
                    (request.tenant, request.scopes) = (tenant, scopes);
                    TokenRequest::Refresh(Cow::Owned(request))
                }
                GrantKind::Code => {
                    let mut request =
                        CodeRequest::without_pkce(self.credential.as_str(), self.kind.as_str());
                    let verifier = self.actor.as_ref().map(|(text, _)| text.repeat(50));
                    request.verifier = verifier.and_then(|it| PkceVerifier::parse(&it));
                    request.tenant = tenant;
                    TokenRequest::Code(Cow::Owned(request))
                }
            }
        }

        fn resource_urls(&self) -> Vec<url::Url> {
            self.resources.iter().map(|it| format!("x:{it}").parse().unwrap()).collect()
        }

        /// Describes the request, without the order and repetition of set members.
        fn meaning(&self) -> String {
            let sets = [&self.audiences, &self.resources, &self.scopes];
            let [audiences, resources, scopes] = sets.map(|it| it.iter().collect::<BTreeSet<_>>());
            let (tenant, credential, kind) = (&self.tenant, &self.credential, &self.kind);
            let request = match self.request() {
                TokenRequest::Exchange(_) => {
                    format!(
                        "{credential:?} {kind:?} {:?} {audiences:?} {resources:?} {scopes:?}",
                        self.actor
                    )
                }
                TokenRequest::OnBehalfOf(_) => format!("{credential:?} {kind:?} {scopes:?}"),
                TokenRequest::Service(_) => format!("{audiences:?} {resources:?} {scopes:?}"),
                TokenRequest::Code(code) => {
                    let verifier = code.verifier.as_ref().map(|it| it.secret().expose());
                    format!("{credential:?} {kind:?} {verifier:?}")
                }
                _ => format!("{credential:?}"),
            };
            format!("{:?} {:?} {tenant:?} {request}", self.settings, self.grant)
        }

        fn cache_key(&self, keys: &SealingKeys) -> (Mac, String) {
            let settings = self.settings.iter().map(String::as_str);
            let (client, request) = (ClientFingerprint::new(settings, false), self.request());
            let clock = SystemClock::default();
            let key = CacheKey::new(&client, &request, keys.current(&clock)[0].clone(), &clock);
            (key.mac(), key.digest().to_owned())
        }
    }

    /// Strings whose concatenations are easily confused.
    fn text() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "b", "ab", "a:b", "b:c", ":", "c"]).prop_map(str::to_owned)
    }

    fn request_spec() -> impl Strategy<Value = RequestSpec> {
        let pair = || prop::option::of((text(), text()));
        let set = || prop::collection::vec(text(), 0..3);
        let grants = [
            GrantKind::Exchange,
            GrantKind::Exchange,
            GrantKind::OnBehalfOf,
            GrantKind::Service,
            GrantKind::Refresh,
            GrantKind::Code,
        ];
        let grant = prop::sample::select(grants.to_vec());
        let head = (set(), grant, prop::option::of(text()));
        (head, text(), text(), pair(), set(), set(), set()).prop_map(
            |((settings, grant, tenant), credential, kind, actor, audiences, resources, scopes)| {
                RequestSpec {
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

    fn compare(one: &RequestSpec, two: &RequestSpec) {
        let (same, keys) = (one.meaning() == two.meaning(), keys());
        let ((mac, digest), (other_mac, other_digest)) =
            (one.cache_key(&keys), two.cache_key(&keys));
        assert_eq!(mac == other_mac, same);
        assert_eq!(digest == other_digest, same);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn equivalent_requests_share_a_key(one in request_spec(), two in request_spec()) {
            compare(&one, &two);
            // Requests that differ in a single field.
            let (settings, tenant) = (two.settings.clone(), two.tenant.clone());
            compare(&one, &RequestSpec { settings, ..one.clone() });
            compare(&one, &RequestSpec { grant: two.grant, ..one.clone() });
            compare(&one, &RequestSpec { tenant, ..one.clone() });
            compare(&one, &RequestSpec { credential: two.credential.clone(), ..one.clone() });
            compare(&one, &RequestSpec { kind: two.kind.clone(), ..one.clone() });
            compare(&one, &RequestSpec { actor: two.actor.clone(), ..one.clone() });
            compare(&one, &RequestSpec { audiences: two.audiences.clone(), ..one.clone() });
            compare(&one, &RequestSpec { resources: two.resources.clone(), ..one.clone() });
            compare(&one, &RequestSpec { scopes: two.scopes.clone(), ..one.clone() });
            // Sets that are swapped.
            let (audiences, resources) = (one.resources.clone(), one.audiences.clone());
            compare(&one, &RequestSpec { audiences, resources, ..one.clone() });
        }

        #[test]
        fn set_order_does_not_change_the_key(request in request_spec()) {
            let mut reordered = request.clone();
            reordered.audiences.reverse();
            reordered.scopes.extend(request.scopes.iter().cloned().rev());
            prop_assert_eq!(request.cache_key(&keys()), reordered.cache_key(&keys()));
        }
    }

    #[test]
    fn processes_with_one_key_share_digests() {
        let request = RequestSpec {
            settings: vec!["3".into(), "https://scaikey.example".into()],
            grant: GrantKind::Exchange,
            tenant: Some("acme".into()),
            credential: "token".into(),
            kind: "type".into(),
            actor: None,
            audiences: vec!["scaivault".into()],
            resources: vec![],
            scopes: vec![],
        };
        let digest = request.cache_key(&keys()).1;
        // If this value changes, entries in existing caches can no longer be found.
        assert_eq!(digest, "2bGwhbAjBTG-xtd4Q_0vmb8hn745IDg8BSfcMSOU9Kc");
        assert_ne!(request.cache_key(&SealingKeys::random().unwrap()).1, digest);
    }
}
