//! [`KeySet`]: a published key set (RFC 7517 §5), parsed key by key.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::health::UnusableKey;
use super::jwk::{Key, KeyQuery, Unusable};
use super::pem;
use super::source::FetchFault;
use crate::config::{Algorithm, KeySetForm};
use crate::support::json::{Document, Value};

/// The keys of a key set, of which at least one is usable. A SPIFFE bundle may have none: the trust domain then
/// has no key for JWT-SVIDs (any more).
#[derive(Debug)]
pub(crate) struct KeySet {
    by_kid: HashMap<Box<str>, Vec<Arc<Key>>>,
    pub(crate) all: Vec<Arc<Key>>,
    /// The published keys that cannot be used.
    pub(crate) unusable: Vec<UnusableKey>,
    /// Whether the keys have no `kid`, because they come from PEM. A token's `kid` then matches every key.
    has_no_kids: bool,
    /// The time after which the publisher of a SPIFFE bundle suggests another fetch (`spiffe_refresh_hint`).
    pub(crate) refresh_hint: Option<Duration>,
    /// The number of the version of a SPIFFE bundle (`spiffe_sequence`).
    pub(crate) sequence: Option<u64>,
}

impl KeySet {
    /// Parses a set that was fetched.
    pub(crate) fn parse_fetched(
        body: &[u8],
        form: KeySetForm,
        allowed: &[Algorithm],
        max_keys: usize,
    ) -> Result<Self, FetchFault> {
        match form {
            KeySetForm::Jwks => Self::parse(body, allowed, max_keys),
            KeySetForm::SpiffeBundle => Self::parse_bundle(body, allowed, max_keys),
        }
    }

    /// Parses a set in a configuration or a file. Rejects private and symmetric keys.
    pub(crate) fn parse_local(
        text: &str,
        form: KeySetForm,
        allowed: &[Algorithm],
        max_keys: usize,
    ) -> Result<Self, FetchFault> {
        match form {
            KeySetForm::Jwks => Self::parse_inline(text, allowed, max_keys),
            KeySetForm::SpiffeBundle => {
                without_secrets(Self::parse_bundle(text.as_bytes(), allowed, max_keys))
            }
        }
    }

    /// Parses a set. An unusable key is skipped. A set that is too large, or has no usable key, is rejected.
    pub(crate) fn parse(
        body: &[u8],
        allowed: &[Algorithm],
        max_keys: usize,
    ) -> Result<Self, FetchFault> {
        let raw: RawKeySet<'_> = parse_object(body)?;
        if raw.keys.len() > max_keys {
            return Err(FetchFault::TooManyKeys(max_keys));
        }
        let set = Self::of_keys(
            raw.keys.iter().map(|jwk| parse_key(jwk, |jwk| Key::parse(jwk, allowed))),
        );
        match (set.all.is_empty(), set.unusable.is_empty()) {
            (false, _) => Ok(set),
            (true, true) => Err(FetchFault::Empty),
            (true, false) => Err(FetchFault::NoUsableKey(set.unusable)),
        }
    }

    /// Parses a SPIFFE bundle (SPIFFE Trust Domain and Bundle §4). Keys of other kinds, such as `x509-svid`, are
    /// ignored. A bundle without any key for JWT-SVIDs is valid: it revokes those of earlier bundles.
    pub(crate) fn parse_bundle(
        body: &[u8],
        allowed: &[Algorithm],
        max_keys: usize,
    ) -> Result<Self, FetchFault> {
        let raw: RawBundle<'_> = parse_object(body)?;
        if raw.keys.len() > max_keys {
            return Err(FetchFault::TooManyKeys(max_keys));
        }
        let key = |jwk: &&RawValue| parse_key(jwk, |jwk| Key::parse_jwt_authority(jwk, allowed));
        let is_for_svids = |key: &Result<Key, UnusableKey>| !matches!(key, Err(other) if other.reason == Unusable::NotForVerification.reason());
        let set = Self::of_keys(raw.keys.iter().map(key).filter(is_for_svids));
        // Keys that cannot be read are a fault, not a revocation.
        if set.all.is_empty() && set.unusable.iter().any(|key| key.is_fault) {
            return Err(FetchFault::NoUsableKey(set.unusable));
        }
        let number = |member: Option<&RawValue>| member.and_then(|it| it.get().parse().ok());
        let hint = number(raw.spiffe_refresh_hint).filter(|seconds| *seconds > 0);
        let refresh_hint = hint.map(Duration::from_secs);
        Ok(Self { refresh_hint, sequence: number(raw.spiffe_sequence), ..set })
    }

    fn of_keys(keys: impl Iterator<Item = Result<Key, UnusableKey>>) -> Self {
        let (mut all, mut unusable) = (Vec::new(), Vec::new());
        for key in keys {
            match key {
                Ok(key) => all.push(Arc::new(key)),
                Err(key) => unusable.push(key),
            }
        }
        let by_kid = by_kid(&all);
        Self { by_kid, all, unusable, has_no_kids: false, refresh_hint: None, sequence: None }
    }

    /// Parses keys in a configuration or a file: a key set, a single JWK, or PEM with public keys and
    /// certificates. Rejects private and symmetric keys.
    pub(crate) fn parse_inline(
        text: &str,
        allowed: &[Algorithm],
        max_keys: usize,
    ) -> Result<Self, FetchFault> {
        without_secrets(Self::parse_any_form(text, allowed, max_keys))
    }

    fn parse_any_form(
        text: &str,
        allowed: &[Algorithm],
        max_keys: usize,
    ) -> Result<Self, FetchFault> {
        if pem::is_pem(text) {
            let set = pem::to_key_set(text).map_err(FetchFault::Pem)?;
            let set = Self::parse(set.as_bytes(), allowed, max_keys)?;
            return Ok(Self { has_no_kids: true, ..set });
        }
        let document = Document::parse(text.as_bytes()).ok();
        let is_single = document
            .is_some_and(|it| it.root().get("keys").is_none() && it.root().get("kty").is_some());
        match is_single {
            true => Self::parse(format!(r#"{{"keys":[{text}]}}"#).as_bytes(), allowed, max_keys),
            false => Self::parse(text.as_bytes(), allowed, max_keys),
        }
    }

    /// Returns the keys that may have signed the token, among those that are valid for it. A token names
    /// its key by `kid` or by the hash of a certificate. If it names none, all keys are candidates.
    pub(crate) fn candidates<'s>(
        &'s self,
        query: &KeyQuery<'_>,
    ) -> impl Iterator<Item = &'s Arc<Key>> {
        let kid = query.kid.filter(|_| !self.has_no_kids);
        let candidates = match kid {
            None => self.all.as_slice(),
            Some(kid) => self.by_kid.get(kid).map_or(&[][..], Vec::as_slice),
        };
        candidates.iter().filter(move |key| {
            key.is_valid_for(query) && (kid.is_some() || key.may_match(query.certificate))
        })
    }

    /// Replaces a previous set: reuses its keys that are still published, and marks its other keys as removed.
    pub(crate) fn replace(&mut self, before: &KeySet) {
        for old in &before.all {
            match self.all.iter_mut().find(|new| new.is_same_as(old)) {
                Some(new) => *new = old.clone(),
                None => old.mark_removed(),
            }
        }
        self.by_kid = by_kid(&self.all);
    }
}

/// Rejects a set that has a private or symmetric key.
fn without_secrets(parsed: Result<KeySet, FetchFault>) -> Result<KeySet, FetchFault> {
    let secret = Unusable::Secret.reason();
    let has_secret = |keys: &[UnusableKey]| keys.iter().any(|key| key.reason == secret);
    match parsed {
        Ok(set) if has_secret(&set.unusable) => Err(FetchFault::HasSecret),
        Err(FetchFault::NoUsableKey(keys)) if has_secret(&keys) => Err(FetchFault::HasSecret),
        parsed => parsed,
    }
}

fn parse_key(
    jwk: &RawValue,
    parse: impl Fn(Value<'_>) -> Result<Key, Unusable>,
) -> Result<Key, UnusableKey> {
    let document = Document::parse(jwk.get().as_bytes());
    let document = document.map_err(|_| UnusableKey::new(None, Unusable::Malformed))?;
    let kid = document.root().get("kid").and_then(Value::as_str);
    parse(document.root()).map_err(|why| UnusableKey::new(kid, why))
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

/// A key set whose keys are not parsed yet, so that one key with a duplicate member does not make the set
/// invalid.
#[derive(serde::Deserialize)]
struct RawKeySet<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// A SPIFFE bundle whose keys and numbers are not parsed yet.
#[derive(serde::Deserialize)]
struct RawBundle<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    spiffe_sequence: Option<&'a RawValue>,
    #[serde(borrow, default)]
    spiffe_refresh_hint: Option<&'a RawValue>,
}

fn parse_object<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, FetchFault> {
    // Serde also accepts a list for a struct.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(FetchFault::NotAKeySet);
    }
    serde_json::from_slice(body).map_err(|_| FetchFault::NotAKeySet)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::super::jwk::CertificateHash;
    use super::*;
    #[cfg(feature = "jsonwebtoken")]
    use crate::support::base64url;

    const KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a"}"#;

    fn parse(body: &str) -> Result<KeySet, FetchFault> {
        KeySet::parse(body.as_bytes(), &Algorithm::ALL, 3)
    }

    fn candidates<'s>(set: &'s KeySet, kid: Option<&str>) -> Vec<&'s Arc<Key>> {
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
    fn unusable_key_does_not_invalidate_the_set() {
        let unusable = [
            r#"{"kty":"AKP","alg":"ML-DSA-65","pub":"AA","kid":"b"}"#,
            r#"{"kty":"OKP","kty":"OKP","crv":"Ed25519","x":"AA"}"#,
            r#"{"kty":"RSA","e":"AQAB"}"#,
            "7",
            "null",
            "[]",
            r#"{"kid":{"deep":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}}"#,
        ];
        for jwk in unusable {
            let set = parse(&format!(r#"{{"keys":[{jwk},{KEY}],"more":1}}"#)).unwrap();
            assert_eq!((set.all.len(), set.unusable.len()), (1, 1), "{jwk}");
        }
    }

    #[test]
    fn inline_keys_have_three_forms() {
        let inline = |text: &str| KeySet::parse_inline(text, &Algorithm::ALL, 3);
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAn3+Z+nbjERpcfP0LWuj/VHaKNdfhfd3DXYa009hetWE=\n-----END PUBLIC KEY-----\n";
        let set = format!(r#"{{"keys":[{KEY}]}}"#);
        for (text, any_name) in [(pem, true), (KEY, false), (&set, false)] {
            let keys = inline(text).unwrap();
            assert_eq!(candidates(&keys, None).len(), 1, "{text}");
            assert_eq!(candidates(&keys, Some("other")).len(), usize::from(any_name), "{text}");
        }
        for text in ["", "s3cr3t", r#"{"keys":[]}"#, r#"{"kty":"oct","k":"AA"}"#, "{}", "[]"] {
            assert!(inline(text).is_err(), "{text}");
        }
        assert!(parse(pem).is_err(), "a fetched set is JSON");
    }

    #[test]
    fn unusable_keys_are_named_with_reasons() {
        let set = parse(&format!(
            r#"{{"keys":[{{"kty":"RSA","kid":"r","n":"3Q","e":"AQAB"}},{{"kty":"XYZ","kid":"p\n"}},{KEY}]}}"#
        ));
        let set = set.unwrap();
        let reported: Vec<_> =
            set.unusable.iter().map(|key| (key.kid.as_deref(), key.is_fault)).collect();
        assert_eq!(reported, [(Some("r"), true), (Some("p\n"), false)]);
        let list = super::super::health::list(&set.unusable);
        assert!(
            list.starts_with(r#": "r": its RSA modulus"#) && list.contains(r#""p\n": its type"#),
            "{list}"
        );
        let error = parse(r#"{"keys":[{"kty":"oct","k":"AA"}]}"#).unwrap_err().to_string();
        assert!(error.contains("private or symmetric"), "{error}");
    }

    #[test]
    fn set_without_usable_key_is_refused() {
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
            assert!(parse(body).is_err(), "{body}");
        }
        let many = format!(r#"{{"keys":[{KEY},{KEY},{KEY},{KEY}]}}"#);
        assert!(matches!(parse(&many), Err(FetchFault::TooManyKeys(3))));
    }

    #[test]
    fn replacement_marks_removed_keys_and_keeps_others() {
        let before =
            parse(&format!(r#"{{"keys":[{KEY},{}]}}"#, KEY.replace("\"a\"", "\"b\""))).unwrap();
        let mut next = parse(&format!(r#"{{"keys":[{KEY}]}}"#)).unwrap();
        next.replace(&before);
        assert!(Arc::ptr_eq(&next.all[0], &before.all[0]), "the parsed key is reused");
        assert!(Arc::ptr_eq(candidates(&next, Some("a"))[0], &before.all[0]));
        assert!(!before.all[0].removed().is_set() && before.all[1].removed().is_set());
    }

    /// Generates JSON objects with the member names of a JWK and arbitrary values.
    fn almost_jwk() -> impl Strategy<Value = String> {
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
        fn arbitrary_bytes_do_not_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = KeySet::parse(&body, &Algorithm::ALL, 100);
        }

        #[test]
        fn arbitrary_key_does_not_invalidate_another(arbitrary in almost_jwk()) {
            let set = parse(&format!(r#"{{"keys":[{arbitrary},{KEY}]}}"#)).unwrap();
            prop_assert_eq!(set.all.len() + set.unusable.len(), 2);
            prop_assert!(!candidates(&set, Some("a")).is_empty());
        }
    }

    /// Keys as other crates' types may or may not carry them: valid ones, with members replaced or removed.
    #[cfg(feature = "jsonwebtoken")]
    fn varied_key() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::json;
        let public = base64url::encode(vec![7; 1312]);
        let keys = [
            serde_json::from_str(KEY).unwrap(),
            json!({ "kty": "EC", "crv": "P-256", "kid": "b", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" }),
            json!({ "kty": "RSA", "kid": "c", "n": base64url::encode(vec![0xff; 256]), "e": "AQAB" }),
            json!({ "kty": "AKP", "kid": "d", "alg": "ML-DSA-44", "pub": public }),
        ];
        let values = [
            ("alg", json!("RS256")),
            ("alg", json!("PS512")),
            ("alg", json!("ES256")),
            ("alg", json!("EdDSA")),
            ("alg", json!("Ed25519")),
            ("alg", json!("ES512")),
            ("alg", json!("ML-DSA-65")),
            ("alg", json!("HS256")),
            ("alg", json!("ECDH-ES")),
            ("alg", json!(7)),
            ("use", json!("sig")),
            ("use", json!("enc")),
            ("key_ops", json!(["verify"])),
            ("key_ops", json!(["sign", "x"])),
            ("kid", json!("other")),
            ("kid", json!(7)),
            ("kty", json!("EC")),
            ("kty", json!("XYZ")),
            ("crv", json!("P-384")),
            ("crv", json!("Ed448")),
            ("x", json!("AA")),
            ("e", json!("AQ")),
            ("x5c", json!(["AAAA"])),
            ("d", json!("AA")),
            ("priv", json!("AA")),
            ("k", json!("AA")),
        ];
        let removed = prop::sample::select(vec!["", "", "alg", "kid", "x", "n", "pub", "kty"]);
        let replaced = prop::collection::vec(prop::sample::select(values.to_vec()), 0..3);
        (prop::sample::select(keys.to_vec()), replaced, removed).prop_map(
            |(mut key, replaced, removed)| {
                for (name, value) in replaced {
                    key[name] = value;
                }
                key.as_object_mut().unwrap().remove(removed);
                key
            },
        )
    }

    #[cfg(feature = "jsonwebtoken")]
    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
        /// A key is the same with and without the detour through the types of `jsonwebtoken`, except for the
        /// members that these lose.
        #[test]
        fn keys_of_jsonwebtoken_are_read_alike(key in varied_key()) {
            use jsonwebtoken::DecodingKey;
            use jsonwebtoken::jwk::{Jwk, JwkSet};
            let Ok(theirs) = serde_json::from_value::<Jwk>(key.clone()) else { return Ok(()) };
            let set = JwkSet { keys: vec![theirs.clone()] };
            let config = crate::IssuerConfig::new("https://a.example").jwk_set(&set);
            let detour = parse(&config.inline_keys.unwrap());
            let direct = parse(&serde_json::json!({ "keys": [key] }).to_string());
            let is_lost = matches!(key["alg"].as_str(), Some("ES512" | "ML-DSA-44" | "ML-DSA-65"));
            let is_ed = key["crv"] == "Ed25519";
            let has_secret = ["d", "priv", "k"].iter().any(|name| key.get(*name).is_some());
            match (direct, detour) {
                (Ok(direct), Ok(detour)) => {
                    prop_assert!(direct.all[0].is_same_as(&detour.all[0]));
                    prop_assert!(DecodingKey::try_from(&theirs).is_ok());
                }
                (Ok(_), Err(_)) => prop_assert!(is_lost),
                // Their types drop private members, and the unknown algorithm of an Ed25519 key.
                (Err(_), Ok(_)) => prop_assert!(has_secret || is_ed),
                (Err(_), Err(_)) => {}
            }
        }
    }
}
