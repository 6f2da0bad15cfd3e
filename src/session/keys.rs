//! [`SessionKeys`]: the secrets under which cookies are sealed.

use std::fmt;
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::base64url;
use crate::clock::unix_time;
use crate::config::{ConfigError, Fault};
use crate::exchange::CacheKeys;
use crate::secret::Secret;

/// One secret, or two while one replaces the other, that all processes of a service share. Cookies
/// are sealed with AES-256-GCM under the first and opened under either.
///
/// To replace a secret: give `new,old` to every server; when the longest session is over, `new`.
/// Until all servers know the new one, a cookie from one that does is nothing to one that does not,
/// so give `old,new` to all of them first where that matters.
#[derive(Clone)]
pub struct SessionKeys(CacheKeys);

impl SessionKeys {
    /// From one or two secrets of at least 32 octets in base64 or base64url, with a comma between
    /// them: what `P_SESSION_KEYS` holds. `openssl rand -base64 32` makes one.
    ///
    /// # Errors
    /// When there is none or more than two, or one is not base64 or too short.
    pub fn parse(keys: &Secret) -> Result<Self, ConfigError> {
        let renamed = |error: ConfigError| {
            let faults = error.faults().iter();
            let faults = faults.map(|fault| Fault::new("session_keys", fault.problem.clone()));
            let none = || ConfigError::one(Fault::new("session_keys", "cannot be used"));
            ConfigError::from_faults(faults.collect()).err().unwrap_or_else(none)
        };
        CacheKeys::parse(keys).map(Self).map_err(renamed)
    }

    /// A secret of this process alone: its sessions end with it, and no other process serves them.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random() -> Result<Self, ConfigError> {
        CacheKeys::random().map(Self)
    }

    /// What only these keys open again, as this cookie and until then.
    pub(crate) fn seal(&self, cookie: &str, plain: &[u8], ends: SystemTime) -> Option<String> {
        let key = self.0.first()?;
        let ends = milliseconds(ends);
        let sealed = key.seal(&key.cookie_key(), cookie.as_bytes(), ends, plain)?;
        Some(base64url::encode(sealed))
    }

    /// What was sealed for this cookie. When it ends is the caller's to look at.
    pub(crate) fn open(&self, cookie: &str, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        let sealed = base64url::decode(sealed)?;
        self.0.iter().find_map(|key| {
            let (plain, _) = key.open(&key.cookie_key(), cookie.as_bytes(), &sealed)?;
            Some(plain)
        })
    }

    /// [`open`](Self::open), unless it ended before `now`.
    pub(crate) fn open_until(
        &self,
        cookie: &str,
        sealed: &str,
        now: SystemTime,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let sealed = base64url::decode(sealed)?;
        self.0.iter().find_map(|key| {
            let (plain, ends) = key.open(&key.cookie_key(), cookie.as_bytes(), &sealed)?;
            (milliseconds(now) < ends).then_some(plain)
        })
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn milliseconds(at: SystemTime) -> u64 {
    (unix_time(at) * 1000.0) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_cookie_opens_under_its_name_and_either_key_until_it_ends() {
        let (old, new) = ("QUFB".repeat(12), "QkJC".repeat(12));
        let keys = |text: &str| SessionKeys::parse(&text.into()).unwrap();
        let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let sealed = keys(&old).seal("a", b"plain", ends).unwrap();
        let before = ends - Duration::from_secs(1);
        let opened = |keys: SessionKeys, name: &str, now| {
            keys.open_until(name, &sealed, now).map(|plain| plain.to_vec())
        };
        let both = format!("{new},{old}");
        assert_eq!(opened(keys(&both), "a", before).as_deref(), Some(&b"plain"[..]));
        assert_eq!(opened(keys(&both), "a", ends), None, "it ended");
        assert_eq!(opened(keys(&both), "b", before), None, "another cookie");
        assert_eq!(opened(keys(&new), "a", before), None, "another key");
        for broken in ["", "%", &sealed[1..], &format!("{sealed}A")] {
            assert!(keys(&old).open("a", broken).is_none(), "{broken}");
        }
        assert!(SessionKeys::parse(&"x".into()).unwrap_err().to_string().contains("session_keys"));
    }
}
