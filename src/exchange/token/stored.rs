//! The serialized form of a token, which is sealed and stored in shared caches and session cookies.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{AccessToken, CacheStatus, TokenData, random_due_fraction};
use crate::clock::{Clock, unix_time};
use crate::identity::Scopes;
use crate::support::secret::Secret;

/// The version of [`StoredToken`]. Tokens with another version are ignored.
const VERSION: u8 = 1;

/// A token in JSON. The time of issue is on the wall clock, the only clock that processes share. `T` is
/// `&str` for writing and [`Secret`] for reading.
#[derive(Serialize, Deserialize)]
struct StoredToken<T> {
    v: u8,
    /// The time of issue in seconds since 1970. `life` and `limit` are in seconds, too.
    at: f64,
    life: Option<f64>,
    limit: f64,
    bearer: bool,
    token: T,
    /// The `issued_token_type`.
    kind: Option<T>,
    scopes: Option<T>,
    refresh: Option<T>,
    id: Option<T>,
}

impl AccessToken {
    /// Serializes the token without its ID token.
    pub(crate) fn to_bytes(&self, clock: &dyn Clock) -> Zeroizing<Vec<u8>> {
        self.serialize(clock, None)
    }

    /// Serializes the token with its ID token: for another process that completes the same sign-in, or for
    /// a later sign-out at the provider.
    pub(crate) fn to_bytes_with_id_token(&self, clock: &dyn Clock) -> Zeroizing<Vec<u8>> {
        self.serialize(clock, self.id_token())
    }

    fn serialize(&self, clock: &dyn Clock, id_token: Option<&Secret>) -> Zeroizing<Vec<u8>> {
        let data = &*self.data;
        let stored = StoredToken {
            v: VERSION,
            at: unix_time(clock.now()) - self.age(clock).as_secs_f64(),
            life: data.lifetime.map(|life| life.as_secs_f64()),
            limit: data.max_ttl.as_secs_f64(),
            bearer: data.bearer,
            token: data.token.expose(),
            kind: data.issued_type.as_deref(),
            scopes: data.scopes.as_ref().map(Scopes::as_str),
            refresh: data.refresh_token.as_ref().map(Secret::expose),
            id: id_token.map(Secret::expose),
        };
        // A buffer that grows would leave a copy of the token behind. JSON escapes some characters, so
        // twice the size is reserved.
        let more = [stored.scopes, stored.kind].into_iter().flatten().map(str::len).sum::<usize>();
        let mut out = Zeroizing::new(Vec::with_capacity(2 * (self.size() + more) + 400));
        // Cannot fail: it writes strings and finite numbers to memory.
        let _ = serde_json::to_writer(&mut *out, &stored);
        out
    }

    /// Reads the output of [`to_bytes`](Self::to_bytes). Returns `None` for any other input.
    pub(crate) fn from_bytes(bytes: &[u8], clock: &dyn Clock) -> Option<Self> {
        let stored: StoredToken<Secret> = serde_json::from_slice(bytes).ok()?;
        if stored.v != VERSION {
            return None;
        }
        let duration = |seconds| Duration::try_from_secs_f64(seconds).ok();
        let data = TokenData {
            token: stored.token,
            bearer: stored.bearer,
            issued_type: stored.kind.map(|kind| kind.expose().to_owned()),
            scopes: stored.scopes.map(|it| it.expose().parse()).transpose().ok()?,
            refresh_token: stored.refresh,
            id_token: stored.id,
            received: clock.elapsed(),
            age_when_received: duration((unix_time(clock.now()) - stored.at).max(0.0))?,
            lifetime: stored.life.and_then(duration),
            max_ttl: duration(stored.limit)?,
            due_fraction: random_due_fraction(),
        };
        Some(Self { data: Arc::new(data), status: CacheStatus::Hit, remaining_ttl: None })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FixedClock, parse};
    use super::*;

    fn stored(token: &AccessToken) -> serde_json::Value {
        serde_json::from_slice(&token.to_bytes_with_id_token(&FixedClock(0))).unwrap()
    }

    fn read(stored: &serde_json::Value) -> Option<AccessToken> {
        AccessToken::from_bytes(stored.to_string().as_bytes(), &FixedClock(0))
    }

    #[test]
    fn stored_token_is_read_unchanged() {
        let texts = ["plain", r#"a "quoted\" one"#, "ü\n\u{1}", ""];
        for text in texts {
            let body = serde_json::json!({
                "access_token": format!("t{text}"), "token_type": "bearer", "expires_in": 3600.25,
                "scope": "read write", "refresh_token": format!("r{text}"), "id_token": text,
                "issued_token_type": text,
            });
            let written = parse(&body.to_string()).unwrap();
            let read = read(&stored(&written)).unwrap();
            let members = |token: &AccessToken| {
                let texts = [Some(token.secret()), token.refresh_token(), token.id_token()];
                (
                    texts.map(|text| text.map(|text| text.expose().to_owned())),
                    (token.lifetime(), token.cacheable_for()),
                    token.scopes().cloned(),
                    token.is_bearer(),
                    token.issued_token_type().map(str::to_owned),
                )
            };
            assert_eq!(members(&read), members(&written), "{text:?}");
            let bytes = written.to_bytes(&FixedClock(0));
            let without = AccessToken::from_bytes(&bytes, &FixedClock(0)).unwrap();
            assert_eq!(without.id_token(), None);
        }
        let bare = read(&stored(&parse(r#"{"access_token":"a","token_type":"N_A"}"#).unwrap()));
        assert!(bare.is_some_and(|it| it.lifetime().is_none() && !it.is_bearer()));
    }

    #[test]
    fn invalid_members_and_versions_are_rejected() {
        let body = r#"{"access_token":"a","token_type":"bearer","expires_in":3600}"#;
        let good = stored(&parse(body).unwrap());
        assert!(read(&good).is_some());
        for (member, value) in [
            ("v", serde_json::json!(0)),
            ("v", serde_json::json!(2)),
            ("v", serde_json::Value::Null),
            ("at", serde_json::json!(-1e300)),
            ("life", serde_json::json!("3600")),
            ("limit", serde_json::json!(-1)),
            ("token", serde_json::Value::Null),
            ("scopes", serde_json::json!("\n")),
        ] {
            let mut bad = good.clone();
            bad[member] = value;
            assert!(read(&bad).is_none(), "{bad}");
        }
        // The previous format: two durations and a time, a flag, and strings with their lengths.
        let mut previous = [1.7e9_f64, 3600.0, 86_400.0].map(f64::to_be_bytes).concat();
        previous.extend_from_slice(&[1, 0, 0, 0, 1, b'a']);
        previous.extend_from_slice(&[255; 12]);
        assert!(AccessToken::from_bytes(&previous, &FixedClock(0)).is_none());
    }

    proptest::proptest! {
        #[test]
        fn invalid_bytes_are_rejected(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64), cut in 0_usize..200) {
            assert!(AccessToken::from_bytes(&bytes, &FixedClock(0)).is_none());
            let body = r#"{"access_token":"a","token_type":"bearer","expires_in":3600}"#;
            let mut good = parse(body).unwrap().to_bytes(&FixedClock(0));
            if cut < good.len() {
                good.truncate(cut);
                assert!(AccessToken::from_bytes(&good, &FixedClock(0)).is_none());
            }
        }
    }
}
