//! [`SessionSecret`]: the value of the cookie of a stored session.

use std::fmt;

use zeroize::Zeroizing;

use crate::session::store::SessionId;
use crate::support::base64url;
use crate::support::crypto::{self, NoRandomness};

const ID_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// The length of the cookie's value: both parts in base64url, with a dot between them.
const TEXT_BYTES: usize = 22 + 1 + 43;

/// The id of a session, and the key that its value is sealed under. Only the cookie has both.
#[derive(Clone)]
pub(in crate::session) struct SessionSecret {
    id: [u8; ID_BYTES],
    key: Zeroizing<[u8; KEY_BYTES]>,
}

impl SessionSecret {
    pub(super) fn random() -> Result<Self, NoRandomness> {
        Ok(Self { id: crypto::random()?, key: Zeroizing::new(crypto::random()?) })
    }

    /// Reads the value of a cookie. Returns `None` if it is not that of a stored session.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() != TEXT_BYTES {
            return None;
        }
        let (id, key) = text.split_once('.')?;
        let key = Zeroizing::new(base64url::decode(key)?);
        let id = base64url::decode(id)?.try_into().ok()?;
        Some(Self { id, key: Zeroizing::new(key.as_slice().try_into().ok()?) })
    }

    /// Returns the value of the cookie.
    pub(super) fn to_text(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(base64url::encode(*self.key));
        Zeroizing::new(format!("{}.{}", base64url::encode(self.id), *key))
    }

    /// Returns the key under which the store has the session.
    pub(super) fn session_id(&self) -> SessionId {
        SessionId::from_bytes(crypto::sha256(&self.id))
    }

    pub(super) fn key(&self) -> &[u8] {
        &*self.key
    }
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_secrets_are_read() {
        let secret = SessionSecret::random().unwrap();
        let text = secret.to_text();
        assert_eq!(text.len(), 66);
        let read = SessionSecret::parse(&text).unwrap();
        assert_eq!((read.session_id(), read.key()), (secret.session_id(), secret.key()));
        assert_eq!(format!("{read:?}"), "[redacted]");
        let (id, key) = text.split_once('.').unwrap();
        for bad in [
            "".to_owned(),
            ".".repeat(66),
            text[1..].to_owned(),
            format!("{}A", *text),
            format!("{key}.{id}"),
            format!("{id}{key}."),
            format!("{id}.{}%", &key[1..]),
            format!("{id}.{}=", &key[1..]),
        ] {
            assert!(SessionSecret::parse(&bad).is_none(), "{bad}");
        }
    }
}
