//! [`HeaderCache`]: parsed headers of verified tokens. All tokens of one key have exactly the same header, so
//! a lookup in a short list (30 ns) replaces decoding and parsing the header (600 ns).

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::jws::{Header, Jws};
use crate::error::InvalidToken;

/// The maximum number of cached headers. The oldest is evicted first. A provider uses a few at a time.
const CAPACITY: usize = 16;

/// A cache of parsed headers, by their encoded text.
///
/// Only headers of verified tokens are cached, so an attacker, who chooses headers freely, cannot fill it.
#[derive(Debug, Default)]
pub(super) struct HeaderCache {
    entries: ArcSwap<Vec<Entry>>,
}

/// An encoded header and its parsed form.
type Entry = (Box<[u8]>, Arc<Header>);

impl HeaderCache {
    /// Returns the token's header, from the cache or parsed.
    pub(super) fn get(&self, jws: &Jws<'_>) -> Result<Arc<Header>, InvalidToken> {
        let entries = self.entries.load();
        match entries.iter().find(|(encoded, _)| **encoded == *jws.encoded_header()) {
            Some((_, header)) => Ok(header.clone()),
            None => jws.header().map(Arc::new),
        }
    }

    /// Caches the header of a token that was verified.
    pub(super) fn insert(&self, jws: &Jws<'_>, header: &Arc<Header>) {
        let encoded = jws.encoded_header();
        // `get` returns the `Arc` of the entry, so a pointer comparison finds it.
        let is_cached = self.entries.load().iter().any(|(_, cached)| Arc::ptr_eq(cached, header));
        if is_cached {
            return;
        }
        self.entries.rcu(|entries| {
            let surplus = (entries.len() + 1).saturating_sub(CAPACITY);
            let newer =
                entries.iter().skip(surplus).filter(|(text, _)| **text != *encoded).cloned();
            newer.chain([(encoded.into(), header.clone())]).collect::<Vec<_>>()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::base64url;

    #[test]
    fn cache_is_bounded_and_returns_cached_headers() {
        let headers = HeaderCache::default();
        let token = |kid: usize| {
            let header = format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#);
            format!("{}.e30.AA", base64url::encode(header))
        };
        for kid in 0..CAPACITY + 5 {
            let token = token(kid);
            let jws = Jws::split(token.as_bytes(), 1000).ok().unwrap();
            let read = headers.get(&jws).unwrap();
            headers.insert(&jws, &read);
            assert!(Arc::ptr_eq(&read, &headers.get(&jws).unwrap()));
            assert_eq!(read.kid.as_deref(), Some(&*kid.to_string()));
        }
        assert_eq!(headers.entries.load().len(), CAPACITY);
    }
}
