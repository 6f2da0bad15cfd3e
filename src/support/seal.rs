//! [`SealingKeys`]: authenticated encryption of tokens and cookies that leave the process.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, Guard};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::clock::{Clock, unix_time};
use crate::support::base64url;
use crate::support::crypto::{self, HmacKey};
use crate::support::secret::{Secret, SecretFileError, SecretSource};
use crate::support::secret_file::SecretFile;

/// The version of the format of sealed bytes.
const VERSION: u8 = 1;

/// The length of the header: version, key id and expiry (milliseconds since 1970). Nonce and ciphertext follow.
const HEADER: usize = 1 + KEY_ID + 8;
const KEY_ID: usize = 4;

/// The minimum length of a key, in bytes. A shorter one could be guessed.
const MIN_KEY: usize = 32;

/// The keys that seal (encrypt and authenticate) cached tokens and cookies: one key, or two while it is
/// replaced. All processes of a service share them.
///
/// For each use, a separate key is derived with HKDF under a label, so one key may serve both uses. The
/// cipher is AES-256-GCM.
///
/// To replace a key, take three steps. Finish each step on all servers before the next one:
///
/// - *For a cache:* `old,new`, then `new,old`, then `new`. Tokens are stored under both keys, and looked up
///   under the first. Tokens that were stored before the first step exist only under `old`, so after the
///   second step a process without a copy in memory requests them again. To avoid that, wait for the lifetime
///   of a token between the first and the second step.
/// - *For sessions:* `old,new`, then `new,old`, then, after the longest session has ended, `new`. Cookies are
///   sealed under the first key and opened under either. Without the first step, a server that does not have
///   the new key yet ignores the cookies of the others.
/// - *For revocations in Redis*: `old,new`, then `new,old`, then, after the longest lifetime of a token and
///   of a session, `new`. An entry that was sealed under a removed key is ignored.
/// - *For trust policies in Redis* (feature `trust`): `old,new`, then `new,old`, then call
///   `RedisPolicies::reseal`, then `new`. A version that was sealed under a removed key cannot be read.
///
/// Keys from a [file](Self::file) can be replaced while the service runs. Clones share the keys.
///
/// ```
/// use scaikey_auth::Secret;
/// use scaikey_auth::exchange::{InvalidSealingKeys, SealingKeys};
///
/// /// `text` is the output of `openssl rand -base64 32`, or two of them, separated by a comma.
/// fn keys(text: Option<&Secret>) -> Result<SealingKeys, InvalidSealingKeys> {
///     match text {
///         Some(text) => SealingKeys::parse(text),
///         // For one process: what is sealed cannot be opened after a restart.
///         None => SealingKeys::random(),
///     }
/// }
///
/// assert!(keys(None).is_ok());
/// assert!(keys(Some(&"too short".into())).is_err());
/// ```
#[derive(Clone)]
pub struct SealingKeys {
    keys: Arc<ArcSwap<KeyList>>,
    file: Option<Arc<SecretFile>>,
}

/// The keys in force, in order of preference.
type KeyList = Vec<Arc<SealingKey>>;

/// The error for text that is not a valid set of keys, for a file that cannot be read, or for missing random
/// bytes. It contains the path of the file, and reveals nothing about the keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value of the sealing keys {problem}")]
pub struct InvalidSealingKeys {
    problem: Cow<'static, str>,
}

impl InvalidSealingKeys {
    fn new(problem: impl Into<Cow<'static, str>>) -> Self {
        Self { problem: problem.into() }
    }

    /// Returns the problem, for a fault that names the setting.
    pub(crate) fn problem(&self) -> &str {
        &self.problem
    }
}

impl From<SecretFileError> for InvalidSealingKeys {
    fn from(error: SecretFileError) -> Self {
        Self { problem: format!("names a file that cannot be used: {error}").into() }
    }
}

/// The purpose of sealed bytes, with their owner. Bytes sealed for one purpose cannot be opened for another.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// Cached tokens of the user whose token has this digest.
    UserTokens(&'a [u8]),
    /// Cached tokens of the service itself, for the tenant with this id; the id is empty if there is no
    /// tenant.
    ServiceTokens(&'a [u8]),
    /// The cookies of a session.
    Session,
    /// The cookie of a pending sign-in.
    SignIn,
    /// The cookie of a sign-out at the provider.
    SignOut,
    /// The parameters of a sign-in that a guard asks for, and the cookie that records it.
    StepUp,
    /// The tokens of a session in a store, under the key in the session's cookie, too.
    StoredSession(&'a [u8]),
    /// The user of a session in a store.
    SessionOwner,
    /// The versions of a trust policy.
    #[cfg_attr(not(all(feature = "redis", feature = "trust")), allow(dead_code))]
    TrustPolicy,
    /// The entries of a revocation log.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    Revocation,
}

/// The reason why sealed bytes cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// They name a key that is not in force: its id, which reveals nothing about it.
    UnknownKey(String),
    /// They were changed, or sealed for another purpose or name.
    Invalid,
}

impl SealingKeys {
    /// Parses one key, or two separated by a comma. Each has at least 32 bytes in base64 or base64url:
    /// `openssl rand -base64 32` prints one. The variables `…_CACHE_KEYS` and `…_SESSION_KEYS` have this
    /// format.
    ///
    /// # Errors
    /// If there is no key or more than two, or if a key is not base64 or has less than 32 bytes.
    pub fn parse(keys: &Secret) -> Result<Self, InvalidSealingKeys> {
        parse(keys).map(Self::fixed).map_err(InvalidSealingKeys::new)
    }

    /// Reads the keys from a file, in the format of [`parse`](Self::parse). White space at its end is ignored.
    ///
    /// The file is read again while keys are used, at most every 10 seconds, so that keys can be replaced
    /// without a restart. It is read synchronously, so it must be small and local. If it cannot be used then,
    /// the previous keys stay in force, and a warning is logged. Every process must read a new key before any
    /// of them seals with it: follow the steps above.
    ///
    /// **Replace the file atomically**: write another one and rename it, as Kubernetes does. *Not* checked:
    /// that a key is complete. The beginning of a long key is another valid key, which a process that reads a
    /// half-written file seals with.
    ///
    /// # Errors
    /// If the file cannot be read, or if its content is invalid, as in [`parse`](Self::parse).
    ///
    /// ```no_run
    /// use scaikey_auth::exchange::SealingKeys;
    ///
    /// let keys = SealingKeys::file("/run/secrets/session-keys")?;
    /// # Ok::<(), scaikey_auth::exchange::InvalidSealingKeys>(())
    /// ```
    pub fn file(path: impl Into<PathBuf>) -> Result<Self, InvalidSealingKeys> {
        let (file, keys) = SecretFile::read(&path.into(), "sealing keys", parse)?;
        Ok(Self { file: Some(Arc::new(file)), ..Self::fixed(keys) })
    }

    pub(crate) fn from_source(source: &SecretSource) -> Result<Self, InvalidSealingKeys> {
        match source {
            SecretSource::Value(keys) => Self::parse(keys),
            SecretSource::File(path) => Self::file(path),
        }
    }

    fn fixed(keys: KeyList) -> Self {
        Self { keys: Arc::new(ArcSwap::from_pointee(keys)), file: None }
    }

    /// Creates a random key for this process: for tests, and for sessions that only this process serves and
    /// that may end with it.
    ///
    /// # Errors
    /// If the operating system cannot supply random bytes.
    pub fn random() -> Result<Self, InvalidSealingKeys> {
        let failed = |_| {
            InvalidSealingKeys::new(
                "cannot be created: the operating system cannot supply random bytes",
            )
        };
        let key = Zeroizing::new(crypto::random::<MIN_KEY>().map_err(failed)?);
        Ok(Self::fixed(vec![Arc::new(SealingKey::new(&*key))]))
    }

    /// Returns the keys in force. Reads their file again, if that is due by `clock`.
    pub(crate) fn current(&self, clock: &dyn Clock) -> Guard<Arc<KeyList>> {
        let replaced = self.file.as_ref().and_then(|it| it.read_again(clock.elapsed(), parse));
        if let Some(keys) = replaced {
            self.keys.store(Arc::new(keys));
        }
        self.keys.load()
    }

    /// Seals `plain` under the first key, and returns it as the value of the cookie named `cookie`. The value
    /// includes the expiry `expires`.
    pub(crate) fn seal(
        &self,
        purpose: Purpose<'_>,
        cookie: &str,
        plain: &[u8],
        expires: SystemTime,
        clock: &dyn Clock,
    ) -> Option<String> {
        self.seal_bytes(purpose, cookie, plain, milliseconds(expires), clock).map(base64url::encode)
    }

    /// Seals `plain` under the first key, and binds it to `name`. `expires` is in milliseconds since 1970.
    pub(crate) fn seal_bytes(
        &self,
        purpose: Purpose<'_>,
        name: &str,
        plain: &[u8],
        expires: u64,
        clock: &dyn Clock,
    ) -> Option<Vec<u8>> {
        let keys = self.current(clock);
        keys.first()?.seal(purpose, name.as_bytes(), expires, plain)
    }

    /// Opens bytes that [`seal_bytes`](Self::seal_bytes) returned. Does not check the expiry.
    pub(crate) fn open_bytes(
        &self,
        purpose: Purpose<'_>,
        name: &str,
        sealed: &[u8],
        clock: &dyn Clock,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let keys = self.current(clock);
        let opened = keys.iter().find_map(|key| key.open(purpose, name.as_bytes(), sealed));
        opened.map(|(plain, _)| plain).ok_or_else(|| match sealed {
            [VERSION, a, b, c, d, ..] if keys.iter().all(|key| key.id != [*a, *b, *c, *d]) => {
                OpenError::UnknownKey(base64url::encode([*a, *b, *c, *d]))
            }
            _ => OpenError::Invalid,
        })
    }

    /// Returns the name of these parts under each key in force. Without the keys, it cannot be distinguished from
    /// random bytes.
    pub(crate) fn labels<const N: usize>(
        &self,
        parts: [&str; N],
        clock: &dyn Clock,
    ) -> Vec<[u8; 32]> {
        let keys = self.current(clock);
        let label = |key: &Arc<SealingKey>| {
            let labels = expanded(&key.sealing, [b"labels of stored sessions", b""]);
            HmacKey::new(&*labels).mac_of_parts(parts)
        };
        keys.iter().map(label).collect()
    }

    /// Opens a text that was sealed for the cookie of this name, unless it has expired by `clock`.
    pub(crate) fn open_unexpired(
        &self,
        purpose: Purpose<'_>,
        cookie: &str,
        sealed: &str,
        clock: &dyn Clock,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let (plain, expires) = self.open_with_expiry(purpose, cookie, sealed, clock)?;
        (milliseconds(clock.now()) < expires).then_some(plain)
    }

    /// Opens a text as [`open_unexpired`](Self::open_unexpired) does, even if it has expired.
    pub(crate) fn open(
        &self,
        purpose: Purpose<'_>,
        cookie: &str,
        sealed: &str,
        clock: &dyn Clock,
    ) -> Option<Zeroizing<Vec<u8>>> {
        self.open_with_expiry(purpose, cookie, sealed, clock).map(|(plain, _)| plain)
    }

    fn open_with_expiry(
        &self,
        purpose: Purpose<'_>,
        cookie: &str,
        sealed: &str,
        clock: &dyn Clock,
    ) -> Option<(Zeroizing<Vec<u8>>, u64)> {
        let sealed = base64url::decode(sealed)?;
        let keys = self.current(clock);
        keys.iter().find_map(|key| key.open(purpose, cookie.as_bytes(), &sealed))
    }
}

/// Parses one key, or two separated by a comma.
fn parse(keys: &Secret) -> Result<KeyList, String> {
    let keys: Option<Vec<_>> = keys.expose().split(',').map(decode).collect();
    match keys.ok_or(NOT_BASE64)? {
        keys if keys.iter().any(|key| key.len() < MIN_KEY) => Err(TOO_SHORT.to_owned()),
        keys if keys.len() > 2 => Err("has more than two keys".to_owned()),
        keys => Ok(keys.iter().map(|key| Arc::new(SealingKey::new(key))).collect()),
    }
}

const NOT_BASE64: &str = "is not base64 (or two base64 texts with a comma between them): create a key with `openssl rand -base64 32`";
const TOO_SHORT: &str =
    "has a key of less than 32 bytes: create one with `openssl rand -base64 32`";

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.load().iter().map(|key| base64url::encode(key.id)))
            .finish()
    }
}

fn decode(key: &str) -> Option<Zeroizing<Vec<u8>>> {
    let key = key.trim().trim_end_matches('=');
    let key: Zeroizing<String> = key.replace('+', "-").replace('/', "_").into();
    base64url::decode(&**key).map(Zeroizing::new)
}

fn milliseconds(at: SystemTime) -> u64 {
    (unix_time(at) * 1000.0) as u64
}

/// The keys derived from one secret.
pub(crate) struct SealingKey {
    id: [u8; KEY_ID],
    index: hmac::Key,
    /// The pseudorandom key of HKDF. It is kept, because the library's HKDF would compute it for each
    /// derivation, which takes twice as long.
    sealing: hmac::Key,
}

impl Purpose<'_> {
    /// Returns the label and the owner. No label is a prefix of another.
    fn info(&self) -> [&[u8]; 2] {
        match self {
            Self::UserTokens(owner) => [b"cached tokens of user ", owner],
            Self::ServiceTokens(owner) => [b"cached tokens of service ", owner],
            Self::Session => [b"session cookie", b""],
            Self::SignIn => [b"sign-in cookie", b""],
            Self::SignOut => [b"sign-out cookie", b""],
            Self::StepUp => [b"step-up", b""],
            Self::StoredSession(key) => [b"stored session ", key],
            Self::SessionOwner => [b"owner of a stored session", b""],
            Self::TrustPolicy => [b"trust policy", b""],
            Self::Revocation => [b"revocation", b""],
        }
    }
}

impl SealingKey {
    fn new(secret: &[u8]) -> Self {
        let salt = hmac::Key::new(hmac::HMAC_SHA256, b"scaikey-auth sealing 1");
        let sealing = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&salt, secret).as_ref());
        let [a, b, c, d, ..] = *expanded(&sealing, [b"id", b""]);
        let index = hmac::Key::new(hmac::HMAC_SHA256, &*expanded(&sealing, [b"cache index", b""]));
        Self { id: [a, b, c, d], index, sealing }
    }

    /// Returns the name of the cache entry for `request`. Without the key, it cannot be distinguished from
    /// random bytes.
    pub(crate) fn index(&self, request: &[u8]) -> hmac::Tag {
        hmac::sign(&self.index, request)
    }

    /// Seals `plain` and binds it to `name`.
    pub(crate) fn seal(
        &self,
        purpose: Purpose<'_>,
        name: &[u8],
        expires: u64,
        plain: &[u8],
    ) -> Option<Vec<u8>> {
        let nonce = crypto::random::<NONCE_LEN>().ok()?;
        let header = self.header(expires);
        let mut sealed = [&header[..], &nonce, plain].concat();
        let (nonce, bound) = (Nonce::assume_unique_for_key(nonce), [name, &header].concat());
        let body = sealed.get_mut(HEADER + NONCE_LEN..)?;
        let tag =
            self.key(purpose)?.seal_in_place_separate_tag(nonce, Aad::from(bound), body).ok()?;
        sealed.extend_from_slice(tag.as_ref());
        Some(sealed)
    }

    /// Opens bytes that were sealed for this purpose and name, and returns them with their expiry.
    pub(crate) fn open(
        &self,
        purpose: Purpose<'_>,
        name: &[u8],
        sealed: &[u8],
    ) -> Option<(Zeroizing<Vec<u8>>, u64)> {
        let (header, rest) = sealed.split_first_chunk::<HEADER>()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        let expires = u64::from_be_bytes(*header.last_chunk()?);
        if *header != self.header(expires) {
            return None;
        }
        let bound = Aad::from([name, header].concat());
        let mut body = Zeroizing::new(body.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.key(purpose)?.open_in_place(nonce, bound, &mut body).ok()?.len();
        body.truncate(plain);
        Some((body, expires))
    }

    fn key(&self, purpose: Purpose<'_>) -> Option<LessSafeKey> {
        let key = expanded(&self.sealing, purpose.info());
        UnboundKey::new(&AES_256_GCM, &*key).ok().map(LessSafeKey::new)
    }

    fn header(&self, expires: u64) -> [u8; HEADER] {
        let [a, b, c, d] = self.id;
        let [e, f, g, h, i, j, k, l] = expires.to_be_bytes();
        [VERSION, a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

/// Returns the first block of HKDF-Expand (RFC 5869 §2.3), which has 32 bytes.
fn expanded(key: &hmac::Key, info: [&[u8]; 2]) -> Zeroizing<[u8; 32]> {
    let mut mac = hmac::Context::with_key(key);
    info.iter().for_each(|part| mac.update(part));
    mac.update(&[1]);
    #[expect(clippy::expect_used, reason = "a default would be a public key value")]
    Zeroizing::new(*mac.sign().as_ref().first_chunk().expect("the tag has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PURPOSES: [Purpose<'_>; 13] = [
        Purpose::UserTokens(b"alice"),
        Purpose::UserTokens(b"bob"),
        Purpose::ServiceTokens(b"alice"),
        Purpose::ServiceTokens(b""),
        Purpose::Session,
        Purpose::SignIn,
        Purpose::SignOut,
        Purpose::StepUp,
        Purpose::StoredSession(b"alice"),
        Purpose::StoredSession(b"bob"),
        Purpose::SessionOwner,
        Purpose::TrustPolicy,
        Purpose::Revocation,
    ];

    /// A clock that stands still: the wall-clock time, and the monotonic time.
    #[derive(Debug, Clone, Copy)]
    struct At(SystemTime, Duration);

    impl At {
        fn wall(now: SystemTime) -> Self {
            Self(now, Duration::ZERO)
        }

        fn seconds(elapsed: u64) -> Self {
            Self(SystemTime::UNIX_EPOCH, Duration::from_secs(elapsed))
        }
    }

    impl Clock for At {
        fn now(&self) -> SystemTime {
            self.0
        }

        fn elapsed(&self) -> Duration {
            self.1
        }
    }

    #[test]
    fn replaced_key_file_is_read_within_seconds() {
        let file = TempFile::new("seal");
        let (old, new) = ("QUFB".repeat(12), "QkJC".repeat(12));
        let id = |text: &str| SealingKeys::parse(&text.into()).unwrap().keys.load()[0].id;
        file.write(&format!("{old}\n"));
        let keys = SealingKeys::file(&file.0).unwrap();
        let first = |seconds| keys.clone().current(&At::seconds(seconds))[0].id;
        assert_eq!(first(100), id(&old));
        file.write(&format!("{new},{old}\n"));
        assert_eq!(first(109), id(&old), "read less than ten seconds ago");
        assert_eq!(first(110), id(&new));
        assert_eq!(keys.current(&At::seconds(110)).len(), 2);
        // Unusable contents change nothing.
        for (seconds, text) in [(120, ""), (130, "hunter2"), (140, "QUFB")] {
            file.write(text);
            assert_eq!(first(seconds), id(&new), "{text}");
        }
        std::fs::remove_file(&file.0).unwrap();
        assert_eq!(first(150), id(&new));
        file.write(&old);
        assert_eq!(first(160), id(&old));
        // Another clock may be behind.
        file.write(&new);
        assert_eq!(first(20), id(&new));
    }

    #[test]
    fn unusable_key_file_is_named() {
        let file = TempFile::new("unusable");
        let problem = || SealingKeys::file(&file.0).unwrap_err().to_string();
        let path = file.0.display().to_string();
        assert!(
            problem().contains(&format!("{path} cannot be read: No such file")),
            "{}",
            problem()
        );
        for (text, why) in [(" \n", "is empty"), ("hunter2", "is not base64"), ("%", "base64")] {
            file.write(text);
            let problem = problem();
            assert!(problem.contains(&path) && problem.contains(why), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    struct TempFile(PathBuf);

    impl TempFile {
        fn new(name: &str) -> Self {
            let name = format!("scaikey-auth-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn write(&self, text: &str) {
            std::fs::write(&self.0, text).unwrap();
        }
    }

    impl Drop for TempFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn sealed_bytes_are_bound_to_their_context() {
        let (ours, theirs) = (SealingKey::new(&[1; 32]), SealingKey::new(&[2; 32]));
        for (at, purpose) in PURPOSES.into_iter().enumerate() {
            let seal = |key: &SealingKey| key.seal(purpose, b"name", 7, b"plain");
            let sealed = seal(&ours).unwrap();
            assert_ne!(sealed, seal(&ours).unwrap(), "each sealing has a new nonce");
            let open = |key: &SealingKey, purpose, name: &[u8], sealed: &[u8]| {
                key.open(purpose, name, sealed).map(|(plain, ends)| (plain.to_vec(), ends))
            };
            assert_eq!(open(&ours, purpose, b"name", &sealed), Some((b"plain".to_vec(), 7)));
            assert_eq!(open(&theirs, purpose, b"name", &sealed), None);
            assert_eq!(open(&ours, purpose, b"other", &sealed), None);
            for (_, other) in PURPOSES.into_iter().enumerate().filter(|(other, _)| *other != at) {
                assert_eq!(open(&ours, other, b"name", &sealed), None, "{at}");
            }
            for changed in 0..sealed.len() {
                let mut other = sealed.clone();
                other[changed] ^= 1;
                assert_eq!(open(&ours, purpose, b"name", &other), None, "byte {changed}");
                assert_eq!(open(&ours, purpose, b"name", &sealed[..changed]), None);
            }
        }
    }

    /// Later versions of this crate must find and open what this version sealed.
    #[test]
    fn derived_keys_match_hkdf() {
        use aws_lc_rs::hkdf;
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"scaikey-auth sealing 1");
        let derived = |info: &[&[u8]]| {
            let mut out = [0; 32];
            let prk = salt.extract(&[7; 32]);
            prk.expand(info, hkdf::HKDF_SHA256).unwrap().fill(&mut out).unwrap();
            out
        };
        let key = SealingKey::new(&[7; 32]);
        for purpose in PURPOSES {
            assert_eq!(*expanded(&key.sealing, purpose.info()), derived(&purpose.info()));
        }
        let index = hmac::Key::new(hmac::HMAC_SHA256, &derived(&[b"cache index"]));
        assert_eq!(key.index(b"asked").as_ref(), hmac::sign(&index, b"asked").as_ref());
    }

    #[test]
    fn cookie_opens_until_expiry_under_either_key() {
        let (old, new) = ("QUFB".repeat(12), "QkJC".repeat(12));
        let keys = |text: &str| SealingKeys::parse(&text.into()).unwrap();
        let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let (before, ends) = (At::wall(ends - Duration::from_secs(1)), At::wall(ends));
        let sealed = keys(&old).seal(Purpose::SignIn, "a", b"plain", ends.0, &before).unwrap();
        let opened = |keys: SealingKeys, name: &str, clock: &At| {
            let opened = keys.open_unexpired(Purpose::SignIn, name, &sealed, clock);
            opened.map(|plain| plain.to_vec())
        };
        let both = format!("{new},{old}");
        assert_eq!(opened(keys(&both), "a", &before).as_deref(), Some(&b"plain"[..]));
        assert_eq!(opened(keys(&both), "a", &ends), None, "expired");
        assert_eq!(opened(keys(&both), "b", &before), None, "another cookie");
        assert_eq!(opened(keys(&new), "a", &before), None, "another key");
        assert!(
            keys(&both).open(Purpose::Session, "a", &sealed, &ends).is_none(),
            "another purpose"
        );
        assert!(
            keys(&both).open(Purpose::SignIn, "a", &sealed, &ends).is_some(),
            "even if expired"
        );
        for broken in ["", "%", &sealed[1..], &format!("{sealed}A")] {
            assert!(keys(&old).open(Purpose::SignIn, "a", broken, &ends).is_none(), "{broken}");
        }
    }

    #[cfg(all(feature = "redis", feature = "trust"))]
    #[test]
    fn unknown_key_is_named() {
        let keys = |text: &str| SealingKeys::parse(&text.into()).unwrap();
        let (old, new) = ("QUFB".repeat(12), "QkJC".repeat(12));
        let clock = At::seconds(0);
        let seal = |keys: SealingKeys| {
            keys.seal_bytes(Purpose::TrustPolicy, "a", b"plain", u64::MAX, &clock).unwrap()
        };
        let sealed = seal(keys(&old));
        let open = |keys: &SealingKeys, name: &str, sealed: &[u8]| {
            let opened = keys.open_bytes(Purpose::TrustPolicy, name, sealed, &clock);
            opened.map(|plain| plain.to_vec())
        };
        let both = keys(&format!("{new},{old}"));
        assert_eq!(open(&both, "a", &sealed), Ok(b"plain".to_vec()));
        assert_eq!(open(&both, "b", &sealed), Err(OpenError::Invalid));
        for length in 0..sealed.len() {
            assert_eq!(open(&both, "a", &sealed[..length]), Err(OpenError::Invalid), "{length}");
        }
        assert_eq!(open(&both, "a", b"garbage"), Err(OpenError::Invalid));
        let Err(OpenError::UnknownKey(id)) = open(&keys(&new), "a", &sealed) else { panic!() };
        assert!(format!("{:?}", keys(&old)).contains(&id), "{id}");
        assert_eq!(open(&both, "a", &seal(both.clone())), Ok(b"plain".to_vec()));
        assert!(open(&keys(&old), "a", &seal(both)).is_err(), "sealed under the first key");
    }

    #[test]
    fn one_or_two_long_secrets_are_accepted() {
        let secret = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
        let url_safe = "-_8BAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4";
        let parse = |text: &str| SealingKeys::parse(&text.into());
        for (text, count) in [
            (secret.to_owned(), 1),
            (format!("{secret}, {url_safe}\n"), 2),
            (secret.trim_end_matches('=').to_owned(), 1),
        ] {
            assert_eq!(parse(&text).unwrap().keys.load().len(), count, "{text}");
        }
        for text in ["", "hunter2", "QUFB", ",", &format!("{secret},{secret},{secret}")] {
            let error = parse(text).unwrap_err();
            assert!(text.is_empty() || !error.to_string().contains(text), "{error}");
        }
        assert!(!format!("{:?}", parse(secret).unwrap()).contains("QUFB"));
    }
}
