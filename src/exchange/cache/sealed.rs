//! [`CacheKeys`]: the secrets under which tokens leave this process.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::base64url;
use crate::config::{ConfigError, Fault};
use crate::secret::Secret;
use crate::support::crypto;

/// The format of what is sealed.
const VERSION: u8 = 1;

/// Version, key id and expiry (in milliseconds since 1970), in front of nonce and ciphertext.
const HEADER: usize = 1 + KEY_ID + 8;
const KEY_ID: usize = 4;

/// Fewer octets can be guessed.
const MIN_KEY: usize = 32;

/// One secret, or two while one replaces the other, under which all servers of a service file and
/// seal tokens in a shared cache.
///
/// To replace a secret: give `old,new` to every server, then `new,old`, then `new`, each time to
/// all servers before the next step. Tokens are filed under both and looked for under the first. So
/// one that was filed before `old,new`, and is not in memory, is not found from `new,old` on and
/// costs a request; wait as long as tokens live before that step to save those, too.
#[derive(Clone)]
pub struct CacheKeys(Vec<Arc<ServerKey>>);

impl CacheKeys {
    /// From one or two secrets of at least 32 octets in base64 or base64url, with a comma between
    /// them: what `P_CACHE_KEYS` holds. `openssl rand -base64 32` makes one.
    ///
    /// # Errors
    /// When there is none or more than two, or one is not base64 or too short.
    pub fn parse(keys: &Secret) -> Result<Self, ConfigError> {
        let wrong = |what| ConfigError::one(Fault::new("cache_keys", what));
        let keys: Option<Vec<_>> = keys.expose().split(',').map(decode).collect();
        let keys = keys.ok_or_else(|| wrong("is not base64, with a comma between two keys: make one with `openssl rand -base64 32`"))?;
        if keys.iter().any(|key| key.len() < MIN_KEY) {
            return Err(wrong(
                "has a key of less than 32 bytes: make one with `openssl rand -base64 32`",
            ));
        }
        if keys.len() > 2 {
            return Err(wrong("has more than two keys"));
        }
        Self::of(keys.iter().map(|key| &***key))
    }

    /// A secret of this process alone, which nobody else can open anything with.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random() -> Result<Self, ConfigError> {
        let failed = |_| ConfigError::one(Fault::new("cache_keys", "need random numbers"));
        let key = Zeroizing::new(crypto::random::<MIN_KEY>().map_err(failed)?);
        Self::of([&key[..]].into_iter())
    }

    fn of<'k>(keys: impl Iterator<Item = &'k [u8]>) -> Result<Self, ConfigError> {
        let keys: Option<_> = keys.map(|key| ServerKey::new(key).map(Arc::new)).collect();
        let failed = || ConfigError::one(Fault::new("cache_keys", "cannot be used"));
        keys.map(Self).ok_or_else(failed)
    }

    /// Under which tokens are looked for.
    pub(crate) fn first(&self) -> Option<&ServerKey> {
        self.0.first().map(|key| &**key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ServerKey> {
        self.0.iter().map(|key| &**key)
    }
}

impl fmt::Debug for CacheKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| base64url::encode(key.id))).finish()
    }
}

fn decode(key: &str) -> Option<Zeroizing<Vec<u8>>> {
    let key = key.trim().trim_end_matches('=');
    let key: Zeroizing<String> = key.replace('+', "-").replace('/', "_").into();
    base64url::decode(&**key).map(Zeroizing::new)
}

/// What is made from one secret.
pub(crate) struct ServerKey {
    id: [u8; KEY_ID],
    index: hmac::Key,
    /// The pseudorandom key of HKDF, prepared: half the time of deriving with the library's HKDF,
    /// which extracts anew each time.
    sealing: hmac::Key,
}

/// Seals the tokens of one subject or tenant.
pub(crate) struct DataKey(Option<LessSafeKey>);

impl ServerKey {
    fn new(secret: &[u8]) -> Option<Self> {
        let salt = hmac::Key::new(hmac::HMAC_SHA256, b"scaikey-auth token cache 1");
        let sealing = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&salt, secret).as_ref());
        let id = *expanded(&sealing, &[b"id"]).first_chunk()?;
        let index = hmac::Key::new(hmac::HMAC_SHA256, &*expanded(&sealing, &[b"index"]));
        Some(Self { id, index, sealing })
    }

    /// What somebody without the secret cannot tell from random octets.
    pub(crate) fn index(&self, question: &[u8]) -> hmac::Tag {
        hmac::sign(&self.index, question)
    }

    /// The key for tokens of a user, by the digest of their token, or of a tenant.
    pub(crate) fn data_key(&self, of_user: bool, owner: &[u8]) -> DataKey {
        let kind: &[u8] = if of_user { b"user" } else { b"service" };
        self.derived(&[kind, owner])
    }

    /// The key for what browsers keep.
    pub(crate) fn cookie_key(&self) -> DataKey {
        self.derived(&[b"cookie"])
    }

    fn derived(&self, info: &[&[u8]]) -> DataKey {
        let key = expanded(&self.sealing, info);
        DataKey(UnboundKey::new(&AES_256_GCM, &*key).ok().map(LessSafeKey::new))
    }

    pub(crate) fn seal(
        &self,
        key: &DataKey,
        digest: &[u8],
        expires: u64,
        plain: &[u8],
    ) -> Option<Vec<u8>> {
        let nonce = crypto::random::<NONCE_LEN>().ok()?;
        let header = self.header(expires);
        let mut sealed = Vec::with_capacity(HEADER + NONCE_LEN + plain.len() + 16);
        sealed.extend_from_slice(&header);
        sealed.extend_from_slice(&nonce);
        let mut body = plain.to_vec();
        let (nonce, bound) = (Nonce::assume_unique_for_key(nonce), bound(digest, &header));
        key.0.as_ref()?.seal_in_place_append_tag(nonce, Aad::from(bound), &mut body).ok()?;
        sealed.extend_from_slice(&body);
        Some(sealed)
    }

    pub(crate) fn open(
        &self,
        key: &DataKey,
        digest: &[u8],
        sealed: &[u8],
    ) -> Option<(Zeroizing<Vec<u8>>, u64)> {
        let (header, rest) = sealed.split_at_checked(HEADER)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
        let expires = u64::from_be_bytes(header.get(1 + KEY_ID..)?.try_into().ok()?);
        if header != self.header(expires) {
            return None;
        }
        let (nonce, bound) = (Nonce::try_assume_unique_for_key(nonce).ok()?, bound(digest, header));
        let mut body = Zeroizing::new(body.to_vec());
        let plain = key.0.as_ref()?.open_in_place(nonce, Aad::from(bound), &mut body).ok()?.len();
        body.truncate(plain);
        Some((body, expires))
    }

    fn header(&self, expires: u64) -> [u8; HEADER] {
        let [a, b, c, d] = self.id;
        let [e, f, g, h, i, j, k, l] = expires.to_be_bytes();
        [VERSION, a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

/// What a sealed token is bound to.
fn bound(digest: &[u8], header: &[u8]) -> Vec<u8> {
    [digest, header].concat()
}

/// The first block of HKDF-Expand (RFC 5869 §2.3), which is all that 32 octets take.
fn expanded(key: &hmac::Key, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut mac = hmac::Context::with_key(key);
    info.iter().for_each(|part| mac.update(part));
    mac.update(&[1]);
    let mut out = Zeroizing::new([0; 32]);
    out.iter_mut().zip(mac.sign().as_ref()).for_each(|(out, octet)| *out = *octet);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fill: u8) -> ServerKey {
        ServerKey::new(&[fill; 32]).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_for_the_same_key_digest_and_owner_only() {
        let (ours, theirs) = (key(1), key(2));
        let seal =
            |key: &ServerKey| key.seal(&key.data_key(true, b"alice"), b"digest", 7, b"plain");
        let sealed = seal(&ours).unwrap();
        assert_ne!(sealed, seal(&ours).unwrap(), "a nonce is used once");
        let open = |key: &ServerKey, of_user, owner: &[u8], digest: &[u8], sealed: &[u8]| {
            let data_key = key.data_key(of_user, owner);
            key.open(&data_key, digest, sealed).map(|(plain, _)| plain.to_vec())
        };
        assert_eq!(open(&ours, true, b"alice", b"digest", &sealed), Some(b"plain".to_vec()));
        assert_eq!(open(&theirs, true, b"alice", b"digest", &sealed), None);
        assert_eq!(open(&ours, false, b"alice", b"digest", &sealed), None);
        assert_eq!(open(&ours, true, b"bob", b"digest", &sealed), None);
        assert_eq!(open(&ours, true, b"alice", b"another", &sealed), None);
        for changed in 0..sealed.len() {
            let mut other = sealed.clone();
            other[changed] ^= 1;
            assert_eq!(open(&ours, true, b"alice", b"digest", &other), None, "octet {changed}");
            assert_eq!(open(&ours, true, b"alice", b"digest", &sealed[..changed]), None);
        }
    }

    /// What other versions filed and sealed must be found and opened.
    #[test]
    fn what_is_derived_is_what_hkdf_derives() {
        use aws_lc_rs::hkdf;
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"scaikey-auth token cache 1");
        let derived = |info: &[&[u8]]| {
            let mut out = [0; 32];
            let prk = salt.extract(&[7; 32]);
            prk.expand(info, hkdf::HKDF_SHA256).unwrap().fill(&mut out).unwrap();
            out
        };
        let key = key(7);
        assert_eq!(*expanded(&key.sealing, &[b"user", b"alice"]), derived(&[b"user", b"alice"]));
        let index = hmac::Key::new(hmac::HMAC_SHA256, &derived(&[b"index"]));
        assert_eq!(key.index(b"asked").as_ref(), hmac::sign(&index, b"asked").as_ref());
    }

    #[test]
    fn keys_are_one_or_two_secrets_of_some_length() {
        let secret = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
        let url_safe = "-_8BAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4";
        let parse = |text: &str| CacheKeys::parse(&text.into());
        for (text, count) in [
            (secret.to_owned(), 1),
            (format!("{secret}, {url_safe}\n"), 2),
            (secret.trim_end_matches('=').to_owned(), 1),
        ] {
            assert_eq!(parse(&text).unwrap().iter().count(), count, "{text}");
        }
        for text in ["", "hunter2", "QUFB", ",", &format!("{secret},{secret},{secret}")] {
            let error = parse(text).unwrap_err();
            assert!(text.is_empty() || !error.to_string().contains(text), "{error}");
        }
        assert!(!format!("{:?}", parse(secret).unwrap()).contains("QUFB"));
    }
}
