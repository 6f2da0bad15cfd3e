//! [`Fault`]: the ways in which an endpoint can fail.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::keys::base64url;

/// A way in which an endpoint fails (feature `testing`).
///
/// [`TestIssuer::fail`](super::TestIssuer::fail) sets it,
/// [`TestIssuer::heal`](super::TestIssuer::heal) clears it. Until then it applies to every request,
/// also to requests that an earlier [`Hang`](Fault::Hang) still holds.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use scaikey_auth::testing::{Fault, Provider, ProviderEndpoint};
/// use scaikey_auth::{Auth, IssuerConfig};
///
/// let provider = Provider::start().await;
/// let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
/// let auth = Auth::builder().issuer(issuer).audience("scaiwave").build()?;
///
/// provider.fail(ProviderEndpoint::Jwks, Fault::Status(500));
/// let error = auth.authenticate(&provider.token().sign()).await.unwrap_err();
/// assert_eq!(error.status(), 503);
/// provider.heal(ProviderEndpoint::Jwks); // `auth` tries again after its pause
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Fault {
    /// An empty answer with this status code. An invalid code is sent as 500.
    Status(u16),
    /// A status code with `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// A status code with this `error` code (RFC 6749 §5.2).
    OAuthError(u16, &'static str),
    /// The normal answer, after this delay.
    Slow(Duration),
    /// No answer until the fault is cleared or replaced.
    Hang,
    /// Status 200 with the content type JSON. The normal body follows when the fault is cleared or
    /// replaced.
    Stall,
    /// Status 200 with a body that never ends.
    EndlessBody,
    /// Status 200 with the normal JSON body after this many bytes of white space: valid JSON, but
    /// too long.
    Padded(usize),
    /// Status 200 with this content type and text.
    Body(&'static str, String),
    /// Status 200 with these headers and bytes.
    Bytes(Vec<(&'static str, &'static str)>, Vec<u8>),
    /// A redirect (302) to this URL.
    Redirect(String),
    /// A redirect (302) to another path of the same origin, which gives the normal answer. The
    /// request to that path is not counted.
    RedirectHere,
    /// No answer: the server closes the connection.
    HangUp,
    /// The normal answer, rewritten. See [`rewrite`](Fault::rewrite).
    Rewrite(Rewrite),
}

/// A function from the normal JSON answer to the text to send (feature `testing`).
#[derive(Clone)]
pub struct Rewrite(Arc<dyn Fn(Value) -> String + Send + Sync>);

impl Rewrite {
    pub(super) fn apply(&self, good: Value) -> String {
        (self.0)(good)
    }
}

impl Fault {
    /// Rewrites the normal answer with a function that returns the text to send.
    pub fn rewrite(change: impl Fn(Value) -> String + Send + Sync + 'static) -> Self {
        Self::Rewrite(Rewrite(Arc::new(change)))
    }

    /// Replaces or adds one member of the normal answer, for example `issuer` or `expires_in`.
    pub fn replace_member(name: &str, value: impl Into<Value>) -> Self {
        let (name, value) = (name.to_owned(), value.into());
        Self::rewrite(move |mut good| {
            if let Some(members) = good.as_object_mut() {
                members.insert(name.clone(), value.clone());
            }
            good.to_string()
        })
    }

    /// Removes one member of the normal answer.
    pub fn remove_member(name: &str) -> Self {
        let name = name.to_owned();
        Self::rewrite(move |mut good| {
            if let Some(members) = good.as_object_mut() {
                members.remove(&name);
            }
            good.to_string()
        })
    }

    /// Sends control characters instead of JSON.
    pub fn garbage() -> Self {
        Self::Body("application/json", "\u{0}\u{1}{{{\u{fffd}]".to_owned())
    }

    /// Sends an HTML login page instead of JSON, as a captive portal does.
    pub fn html() -> Self {
        Self::Body("text/html", "<!doctype html><title>Sign in</title>".to_owned())
    }

    /// Sends a key set without keys.
    pub fn empty_key_set() -> Self {
        Self::replace_member("keys", json!([]))
    }

    /// Sends a key set of this many keys, none of which is the issuer's.
    pub fn many_keys(count: usize) -> Self {
        let key = |number| {
            json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": format!("many-{number}"),
                    "x": base64url([7; 32]) })
        };
        Self::replace_member("keys", (0..count).map(key).collect::<Value>())
    }

    /// Sends the normal key set with one unusable key before the others. A verifier must ignore
    /// that key and use the others (RFC 7517 §5).
    pub fn bad_key(bad: BadKey) -> Self {
        Self::rewrite(move |good| {
            let keys = good.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
            let texts = std::iter::once(bad.jwk()).chain(keys.iter().map(Value::to_string));
            format!(r#"{{"keys":[{}]}}"#, texts.collect::<Vec<_>>().join(","))
        })
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code) => write!(f, "Status({code})"),
            Self::RetryAfter(code, seconds) => write!(f, "RetryAfter({code}, {seconds})"),
            Self::Slow(delay) => write!(f, "Slow({delay:?})"),
            Self::Hang => f.write_str("Hang"),
            Self::Stall => f.write_str("Stall"),
            Self::EndlessBody => f.write_str("EndlessBody"),
            Self::Padded(bytes) => write!(f, "Padded({bytes})"),
            Self::Body(content_type, _) => write!(f, "Body({content_type:?}, ..)"),
            Self::Bytes(headers, bytes) => write!(f, "Bytes({headers:?}, {} bytes)", bytes.len()),
            Self::Redirect(to) => write!(f, "Redirect({to:?})"),
            Self::RedirectHere => f.write_str("RedirectHere"),
            Self::OAuthError(code, error) => write!(f, "OAuthError({code}, {error})"),
            Self::HangUp => f.write_str("HangUp"),
            Self::Rewrite(_) => f.write_str("Rewrite(..)"),
        }
    }
}

/// A key that a verifier must not use, for [`Fault::bad_key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadKey {
    /// A `kty` of no registry.
    UnknownType,
    /// `crv: P-256K`.
    UnknownCurve,
    /// An RSA modulus of 1024 bits (RFC 7518 §3.3 requires at least 2048).
    ShortRsa,
    /// An RSA key without `n`.
    IncompleteRsa,
    /// A point that is not on its curve.
    OffCurve,
    /// A coordinate without its leading zeros (RFC 7518 §6.2.1.2).
    ShortCoordinate,
    /// An ML-DSA key without `alg`, which alone names its parameter set (RFC 9964 §3).
    MlDsaWithoutAlgorithm,
    /// An ML-DSA key that lacks its last byte.
    ShortMlDsa,
    /// `use: enc`.
    ForEncryption,
    /// `key_ops` without `verify`.
    NotForVerifying,
    /// An HMAC secret, published.
    Symmetric,
    /// A `kid` that is a number.
    NumericKid,
    /// A member twice.
    DuplicateMember,
    /// Not an object at all.
    NotAnObject,
}

impl BadKey {
    /// All variants.
    pub const ALL: [Self; 14] = [
        Self::UnknownType,
        Self::UnknownCurve,
        Self::ShortRsa,
        Self::IncompleteRsa,
        Self::OffCurve,
        Self::ShortCoordinate,
        Self::MlDsaWithoutAlgorithm,
        Self::ShortMlDsa,
        Self::ForEncryption,
        Self::NotForVerifying,
        Self::Symmetric,
        Self::NumericKid,
        Self::DuplicateMember,
        Self::NotAnObject,
    ];

    /// The `kid` of these keys, except where the `kid` itself is bad.
    pub const KID: &'static str = "bad";

    /// Returns the key as JSON text.
    pub fn jwk(self) -> String {
        let n = base64url([0xff; 256]);
        let key = match self {
            Self::UnknownType => json!({ "kty": "XYZ", "alg": "XYZ-1", "pub": base64url([7; 64]) }),
            Self::MlDsaWithoutAlgorithm => {
                json!({ "kty": "AKP", "pub": base64url([7; 1312]) })
            }
            Self::ShortMlDsa => {
                json!({ "kty": "AKP", "alg": "ML-DSA-65", "pub": base64url([7; 1951]) })
            }
            Self::UnknownCurve => {
                json!({ "kty": "EC", "crv": "P-256K", "x": base64url([7; 32]), "y": base64url([7; 32]) })
            }
            Self::ShortRsa => {
                json!({ "kty": "RSA", "alg": "RS256", "n": base64url([0xff; 128]), "e": "AQAB" })
            }
            Self::IncompleteRsa => json!({ "kty": "RSA", "alg": "RS256", "e": "AQAB" }),
            Self::OffCurve => {
                json!({ "kty": "EC", "crv": "P-256", "x": base64url([7; 32]), "y": base64url([7; 32]) })
            }
            Self::ShortCoordinate => {
                json!({ "kty": "EC", "crv": "P-256", "x": base64url([7; 31]), "y": base64url([7; 32]) })
            }
            Self::ForEncryption => json!({ "kty": "RSA", "use": "enc", "n": n, "e": "AQAB" }),
            Self::NotForVerifying => {
                json!({ "kty": "RSA", "key_ops": ["encrypt"], "n": n, "e": "AQAB" })
            }
            Self::Symmetric => {
                json!({ "kty": "oct", "alg": "HS256", "k": base64url(Self::SHARED_SECRET) })
            }
            Self::NumericKid => json!({ "kty": "RSA", "kid": 7, "n": n, "e": "AQAB" }),
            Self::DuplicateMember => {
                return format!(r#"{{"kty":"RSA","kid":"bad","kid":"bad","n":"{n}","e":"AQAB"}}"#);
            }
            Self::NotAnObject => return r#""bad""#.to_owned(),
        };
        named(key).to_string()
    }

    /// The secret of [`Symmetric`](Self::Symmetric). A verifier that uses it accepts tokens that
    /// any reader of the key set can sign.
    pub const SHARED_SECRET: [u8; 32] = [7; 32];
}

fn named(mut key: Value) -> Value {
    if let Some(members) = key.as_object_mut() {
        members.entry("kid").or_insert_with(|| BadKey::KID.into());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_key_comes_before_good_keys() {
        for bad in BadKey::ALL {
            let Fault::Rewrite(rewrite) = Fault::bad_key(bad) else { unreachable!() };
            let text = rewrite.apply(json!({ "keys": [{ "kid": "good" }] }));
            assert!(text.starts_with(r#"{"keys":["#), "{bad:?}: {text}");
            assert!(text.ends_with(r#",{"kid":"good"}]}"#), "{bad:?}: {text}");
            serde_json::from_str::<Value>(&text).unwrap();
        }
    }

    #[test]
    fn member_is_replaced_or_removed() {
        let good = || json!({ "issuer": "a", "jwks_uri": "b" });
        let Fault::Rewrite(rewrite) = Fault::replace_member("issuer", "c") else { unreachable!() };
        assert_eq!(rewrite.apply(good()), r#"{"issuer":"c","jwks_uri":"b"}"#);
        let Fault::Rewrite(rewrite) = Fault::remove_member("issuer") else { unreachable!() };
        assert_eq!(rewrite.apply(good()), r#"{"jwks_uri":"b"}"#);
    }
}
