//! [`KeySet`]: a published key set (RFC 7517 §5), read key by key.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::jwk::Key;
use super::source::FetchFault;
use crate::config::Algorithm;
use crate::json::Document;

/// The usable keys of an issuer. There is always one at least.
#[derive(Debug)]
pub(crate) struct KeySet {
    by_kid: HashMap<Box<str>, Vec<Arc<Key>>>,
    pub(crate) all: Vec<Arc<Key>>,
    /// How many published keys were left out.
    pub(crate) unusable: usize,
}

impl KeySet {
    /// Reads a set. One strange key costs only itself; a set that is too large, or has no key that
    /// can be used, is refused whole.
    pub(crate) fn read(
        body: &[u8],
        allowed: &[Algorithm],
        max_keys: usize,
    ) -> Result<Self, FetchFault> {
        let sent = Sent::parse(body)?;
        if sent.keys.len() > max_keys {
            return Err(FetchFault::TooManyKeys(max_keys));
        }
        let read = |jwk: &&RawValue| {
            let document = Document::parse(jwk.get().as_bytes()).ok()?;
            Key::read(document.root(), allowed).ok().map(Arc::new)
        };
        let all: Vec<_> = sent.keys.iter().filter_map(read).collect();
        let unusable = sent.keys.len() - all.len();
        if all.is_empty() {
            return Err(FetchFault::NoUsableKey { published: unusable });
        }
        Ok(Self { by_kid: by_kid(&all), all, unusable })
    }

    /// The keys a token may have been signed with: those it names, or all if it names none.
    pub(crate) fn candidates(&self, kid: Option<&str>) -> &[Arc<Key>] {
        match kid {
            None => &self.all,
            Some(kid) => self.by_kid.get(kid).map_or(&[], Vec::as_slice),
        }
    }

    /// Takes over the prepared keys that are still published, and marks the others as withdrawn.
    pub(crate) fn succeed(&mut self, before: &KeySet) {
        for old in &before.all {
            match self.all.iter_mut().find(|new| new.is_same_as(old)) {
                Some(new) => *new = old.clone(),
                None => old.withdraw(),
            }
        }
        self.by_kid = by_kid(&self.all);
    }
}

fn by_kid(keys: &[Arc<Key>]) -> HashMap<Box<str>, Vec<Arc<Key>>> {
    let mut by_kid: HashMap<Box<str>, Vec<Arc<Key>>> = HashMap::new();
    for key in keys {
        if let Some(kid) = key.kid() {
            by_kid.entry(kid.into()).or_default().push(key.clone());
        }
    }
    by_kid
}

/// A key set with its keys not yet looked into: a duplicate member in one must not spoil the rest.
#[derive(serde::Deserialize)]
struct Sent<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl<'a> Sent<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, FetchFault> {
        // Serde would also take a list for the members in order.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(FetchFault::NotAKeySet);
        }
        serde_json::from_slice(body).map_err(|_| FetchFault::NotAKeySet)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a"}"#;

    fn read(body: &str) -> Result<KeySet, FetchFault> {
        KeySet::read(body.as_bytes(), &Algorithm::ALL, 3)
    }

    #[test]
    fn one_strange_key_costs_only_itself() {
        let strange = [
            r#"{"kty":"AKP","alg":"ML-DSA-65","pub":"AA","kid":"b"}"#,
            r#"{"kty":"OKP","kty":"OKP","crv":"Ed25519","x":"AA"}"#,
            r#"{"kty":"RSA","e":"AQAB"}"#,
            "7",
            "null",
            "[]",
            r#"{"kid":{"deep":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}}"#,
        ];
        for jwk in strange {
            let set = read(&format!(r#"{{"keys":[{jwk},{KEY}],"more":1}}"#)).unwrap();
            assert_eq!((set.all.len(), set.unusable), (1, 1), "{jwk}");
        }
    }

    #[test]
    fn what_is_no_set_or_has_no_usable_key_is_refused_whole() {
        let (list, twice) = (format!("[[{KEY}]]"), format!(r#"{{"keys":[{KEY}],"keys":[{KEY}]}}"#));
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            r#"{"keys":null}"#,
            r#"{"keys":[]}"#,
            r#"{"keys":[7]}"#,
            &list,
            &twice,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
        let many = format!(r#"{{"keys":[{KEY},{KEY},{KEY},{KEY}]}}"#);
        assert!(matches!(read(&many), Err(FetchFault::TooManyKeys(3))));
    }

    #[test]
    fn a_key_that_left_the_set_is_marked_and_one_that_stayed_is_kept() {
        let before =
            read(&format!(r#"{{"keys":[{KEY},{}]}}"#, KEY.replace("\"a\"", "\"b\""))).unwrap();
        let mut next = read(&format!(r#"{{"keys":[{KEY}]}}"#)).unwrap();
        next.succeed(&before);
        assert!(Arc::ptr_eq(&next.all[0], &before.all[0]), "the prepared key is used on");
        assert!(Arc::ptr_eq(&next.candidates(Some("a"))[0], &before.all[0]));
        assert!(!before.all[0].withdrawn().is_set() && before.all[1].withdrawn().is_set());
    }

    /// JSON near enough to a key to come far: its member names, with any values.
    fn nearly_a_key() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec![
            "kty", "crv", "x", "y", "n", "e", "d", "k", "kid", "use", "alg", "key_ops",
        ]);
        let value = prop_oneof![
            prop::sample::select(vec![
                "\"RSA\"",
                "\"EC\"",
                "\"OKP\"",
                "\"P-256\"",
                "\"P-521\"",
                "\"Ed25519\"",
                "\"sig\"",
                "\"AQAB\"",
                "\"\"",
                "null",
                "7",
                "[]",
                "{}",
                "[\"verify\"]",
            ])
            .prop_map(str::to_owned),
            "[A-Za-z0-9_-]{0,400}".prop_map(|text| format!("\"{text}\"")),
        ];
        prop::collection::vec((name, value), 0..8).prop_map(|members| {
            let members = members.iter().map(|(name, value)| format!("\"{name}\":{value}"));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        })
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = KeySet::read(&body, &Algorithm::ALL, 100);
        }

        #[test]
        fn no_key_makes_the_reader_panic_or_spoils_its_neighbour(strange in nearly_a_key()) {
            let set = read(&format!(r#"{{"keys":[{strange},{KEY}]}}"#)).unwrap();
            prop_assert_eq!(set.all.len() + set.unusable, 2);
            prop_assert!(!set.candidates(Some("a")).is_empty());
        }
    }
}
