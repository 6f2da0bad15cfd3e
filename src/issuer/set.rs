//! [`KeySet`]: a published key set (RFC 7517 §5), read key by key.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::health::UnusableKey;
use super::jwk::{Key, KeyQuery, Unusable};
use super::pem;
use super::source::FetchFault;
use crate::config::Algorithm;
use crate::support::json::Document;

/// The usable keys of an issuer. There is always one at least.
#[derive(Debug)]
pub(crate) struct KeySet {
    by_kid: HashMap<Box<str>, Vec<Arc<Key>>>,
    pub(crate) all: Vec<Arc<Key>>,
    /// The published keys that were left out.
    pub(crate) unusable: Vec<UnusableKey>,
    /// Whether keys have no names here (PEM), so that whatever name a token gives may mean each.
    is_nameless: bool,
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
        let (mut all, mut unusable) = (Vec::new(), Vec::new());
        for jwk in sent.keys {
            match read_key(jwk, allowed) {
                Ok(key) => all.push(Arc::new(key)),
                Err(left_out) => unusable.push(left_out),
            }
        }
        match (all.is_empty(), unusable.is_empty()) {
            (false, _) => {}
            (true, true) => return Err(FetchFault::Empty),
            (true, false) => return Err(FetchFault::NoUsableKey(unusable)),
        }
        Ok(Self { by_kid: by_kid(&all), all, unusable, is_nameless: false })
    }

    /// Reads keys that were written into a configuration: a set, a single JWK, or PEM with public
    /// keys and certificates.
    pub(crate) fn read_given(
        text: &str,
        allowed: &[Algorithm],
        max_keys: usize,
    ) -> Result<Self, FetchFault> {
        if pem::is_pem(text) {
            let set = pem::to_key_set(text).map_err(FetchFault::Pem)?;
            let set = Self::read(set.as_bytes(), allowed, max_keys)?;
            return Ok(Self { is_nameless: true, ..set });
        }
        let document = Document::parse(text.as_bytes()).ok();
        let is_single = document
            .is_some_and(|it| it.root().get("keys").is_none() && it.root().get("kty").is_some());
        match is_single {
            true => Self::read(format!(r#"{{"keys":[{text}]}}"#).as_bytes(), allowed, max_keys),
            false => Self::read(text.as_bytes(), allowed, max_keys),
        }
    }

    /// The keys a token may have been signed with, of those that are published for it: those it
    /// names by `kid`, else by its certificate's hash, or all if it names none.
    pub(crate) fn candidates<'s>(
        &'s self,
        query: &KeyQuery<'_>,
    ) -> impl Iterator<Item = &'s Arc<Key>> {
        let kid = query.kid.filter(|_| !self.is_nameless);
        let named = match kid {
            None => self.all.as_slice(),
            Some(kid) => self.by_kid.get(kid).map_or(&[][..], Vec::as_slice),
        };
        named.iter().filter(move |key| {
            key.counts_for(query) && (kid.is_some() || key.may_have(query.certificate))
        })
    }

    /// Takes over the prepared keys that are still published, and marks the others as removed.
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

/// One key, or what a report says about it.
fn read_key(jwk: &RawValue, allowed: &[Algorithm]) -> Result<Key, UnusableKey> {
    let document = Document::parse(jwk.get().as_bytes());
    let document = document.map_err(|_| UnusableKey::new(None, Unusable::Malformed))?;
    let kid = document.root().get("kid").and_then(crate::support::json::Value::as_str);
    Key::read(document.root(), allowed).map_err(|why| UnusableKey::new(kid, why))
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
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::super::jwk::CertificateHash;
    use super::*;

    const KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a"}"#;

    fn read(body: &str) -> Result<KeySet, FetchFault> {
        KeySet::read(body.as_bytes(), &Algorithm::ALL, 3)
    }

    fn named<'s>(set: &'s KeySet, kid: Option<&str>) -> Vec<&'s Arc<Key>> {
        let query = KeyQuery {
            kid,
            certificate: &CertificateHash::default(),
            issuer: "https://a.example",
            now: SystemTime::UNIX_EPOCH,
            leeway: Duration::ZERO,
        };
        set.candidates(&query).collect()
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
            assert_eq!((set.all.len(), set.unusable.len()), (1, 1), "{jwk}");
        }
    }

    #[test]
    fn given_keys_may_be_written_in_three_ways() {
        let given = |text: &str| KeySet::read_given(text, &Algorithm::ALL, 3);
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAn3+Z+nbjERpcfP0LWuj/VHaKNdfhfd3DXYa009hetWE=\n-----END PUBLIC KEY-----\n";
        let set = format!(r#"{{"keys":[{KEY}]}}"#);
        for (text, any_name) in [(pem, true), (KEY, false), (&set, false)] {
            let keys = given(text).unwrap();
            assert_eq!(named(&keys, None).len(), 1, "{text}");
            assert_eq!(named(&keys, Some("other")).len(), usize::from(any_name), "{text}");
        }
        for text in ["", "s3cr3t", r#"{"keys":[]}"#, r#"{"kty":"oct","k":"AA"}"#, "{}", "[]"] {
            assert!(given(text).is_err(), "{text}");
        }
        assert!(read(pem).is_err(), "a fetched set is JSON");
    }

    #[test]
    fn unusable_keys_are_named_with_reasons() {
        let set = read(&format!(
            r#"{{"keys":[{{"kty":"RSA","kid":"r","n":"3Q","e":"AQAB"}},{{"kty":"AKP","kid":"p\n"}},{KEY}]}}"#
        ));
        let set = set.unwrap();
        let told: Vec<_> =
            set.unusable.iter().map(|key| (key.kid.as_deref(), key.is_fault)).collect();
        assert_eq!(told, [(Some("r"), true), (Some("p\n"), false)]);
        let list = super::super::health::list(&set.unusable);
        assert!(
            list.starts_with(r#": "r": RSA below 2048"#) && list.contains(r#""p\n": its type"#),
            "{list}"
        );
        let error = read(r#"{"keys":[{"kty":"oct","k":"AA"}]}"#).unwrap_err().to_string();
        assert!(error.contains("private or symmetric"), "{error}");
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
        assert!(Arc::ptr_eq(named(&next, Some("a"))[0], &before.all[0]));
        assert!(!before.all[0].removed().is_set() && before.all[1].removed().is_set());
    }

    /// JSON near enough to a key to come far: its member names, with any values.
    fn nearly_a_key() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec![
            "kty", "crv", "x", "y", "n", "e", "d", "k", "kid", "use", "alg", "key_ops", "issuer",
            "exp", "nbf", "revoked", "x5t", "x5c",
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
            prop_assert_eq!(set.all.len() + set.unusable.len(), 2);
            prop_assert!(!named(&set, Some("a")).is_empty());
        }
    }
}
