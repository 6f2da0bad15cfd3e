//! Decryption of tokens: JWE in compact serialisation (RFC 7516), with a private key of this service.
//!
//! Everyone who has the public key can make such a token, so nothing in it is trusted before the signed token inside
//! is verified. Cheap checks come first: the private key is used once the header, the algorithms and the length of
//! every part are right. From then on, all failures have one result, after the same work.

mod content;
mod key;
mod manage;

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::support::base64url;
use crate::support::crypto;
use crate::support::json::{Document, Value};
use content::{Content, ContentEncryption};
use key::Curve;

pub(crate) use key::{DecryptionKey, parse_keys};

/// The maximum length of an encoded header, in bytes. Usual headers have 100 to 300 bytes.
const MAX_HEADER: usize = 4 * 1024;

/// The maximum length of a key id, in bytes.
const MAX_KID: usize = 256;

/// The maximum length of `apu` and `apv`, decoded, in bytes.
const MAX_PARTY: usize = 256;

/// The maximum number of keys that are tried for a token. Each costs up to a millisecond or more.
const MAX_TRIED: usize = 2;

/// The reason why a token cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Malformed(&'static str),
    /// `alg` or `enc` is not supported.
    Algorithm,
    /// No key has the token's `kid` and `alg`, and the curve of its `epk`.
    NoKey,
    /// The token was encrypted to another key, or it was altered. Nothing says which part is wrong.
    NotOpened,
}

/// An encrypted token, decoded but not decrypted.
pub(crate) struct Jwe<'t> {
    header: Header,
    encrypted_key: Vec<u8>,
    content: Content<'t>,
}

/// The header members that are used. A key inside the token (`jwk`, `jku`, `x5c`, `x5u`) is ignored: keys come from
/// the configuration only.
struct Header {
    algorithm: key::KeyAlgorithm,
    encryption: ContentEncryption,
    kid: Option<Box<str>>,
    agreement: Agreement,
}

/// The header members of ECDH-ES (RFC 7518 §4.6.1).
#[derive(Default)]
struct Agreement {
    /// The ephemeral public key, and its curve.
    epk: Option<(Curve, Vec<u8>)>,
    apu: Vec<u8>,
    apv: Vec<u8>,
}

impl<'t> Jwe<'t> {
    /// Parses a token in compact serialisation. Refuses any other form, and all contents except a JWT.
    pub(crate) fn parse(token: &'t [u8]) -> Result<Self, Fault> {
        let mut parts = token.split(|byte| *byte == b'.');
        let mut next =
            || parts.next().ok_or(Fault::Malformed("the token does not have five parts"));
        let (protected, encrypted_key, iv) = (next()?, next()?, next()?);
        let (ciphertext, tag) = (next()?, next()?);
        if next().is_ok() {
            return Err(Fault::Malformed("the token does not have five parts"));
        }
        if protected.len() > MAX_HEADER {
            return Err(Fault::Malformed("the header is too long"));
        }
        let decode =
            |part: &[u8], problem| base64url::decode(part).ok_or(Fault::Malformed(problem));
        let header = Header::read(decode(protected, "the header is not base64url")?)?;
        Ok(Self {
            header,
            encrypted_key: decode(encrypted_key, "the encrypted key is not base64url")?,
            content: Content {
                iv: decode(iv, "the IV is not base64url")?,
                ciphertext: decode(ciphertext, "the ciphertext is not base64url")?,
                tag: decode(tag, "the tag is not base64url")?,
                authenticated: protected,
            },
        })
    }

    /// Decrypts the content with one of `keys`. Returns it with its key.
    pub(crate) fn open(
        &self,
        keys: impl Iterator<Item = Arc<DecryptionKey>>,
    ) -> Result<(Arc<DecryptionKey>, Zeroizing<Vec<u8>>), Fault> {
        let mut candidates = keys.filter(|key| self.is_for(key)).take(MAX_TRIED).peekable();
        if candidates.peek().is_none() {
            return Err(Fault::NoKey);
        }
        if !self.header.encryption.fits(&self.content) {
            return Err(Fault::NotOpened);
        }
        let opened = candidates.find_map(|key| Some((key.clone(), self.open_with(&key)?)));
        opened.ok_or(Fault::NotOpened)
    }

    /// Returns whether the header names the key, or may mean it.
    fn is_for(&self, key: &DecryptionKey) -> bool {
        let Header { algorithm, kid, agreement, .. } = &self.header;
        let is_named = kid.as_ref().is_none_or(|kid| **kid == *key.kid());
        let curve = agreement.epk.as_ref().map(|(curve, _)| *curve);
        is_named && key.algorithm() == *algorithm && key.is_on(curve)
    }

    /// Decrypts the content. Without the content key, it continues with a random one, so that neither the result nor
    /// the time shows whether the encrypted key or the content is wrong (RFC 7516 §11.5).
    fn open_with(&self, key: &DecryptionKey) -> Option<Zeroizing<Vec<u8>>> {
        let encryption = self.header.encryption;
        let random = Zeroizing::new(crypto::random::<64>().ok()?);
        let managed = key.content_key(self);
        let managed = managed.as_ref().filter(|key| key.len() == encryption.key_length());
        let content_key = managed.map_or(random.get(..encryption.key_length())?, |key| &**key);
        encryption.open(content_key, &self.content)
    }
}

impl Header {
    fn read(text: Vec<u8>) -> Result<Self, Fault> {
        let document = Document::parse(text);
        let document = document.map_err(|_| Fault::Malformed("the header is not a JSON object"))?;
        let (mut algorithm, mut encryption, mut kid) = (None, None, None);
        let mut agreement = Agreement::default();
        let mut is_nested = false;
        for member in document.root().children() {
            let text =
                || member.as_str().ok_or(Fault::Malformed("a header member has the wrong type"));
            match member.name() {
                "alg" => {
                    let name = key::KeyAlgorithm::from_name(text()?);
                    algorithm = Some(name.ok_or(Fault::Algorithm)?);
                }
                "enc" => {
                    let name = ContentEncryption::from_name(text()?);
                    encryption = Some(name.ok_or(Fault::Algorithm)?);
                }
                "kid" if text()?.len() > MAX_KID => {
                    return Err(Fault::Malformed("kid is too long"));
                }
                "kid" => kid = Some(text()?.into()),
                "cty" => is_nested = is_jwt(text()?),
                "typ" => drop(text()?),
                "epk" => agreement.epk = Some(ephemeral_key(member)?),
                "apu" => agreement.apu = party(text()?)?,
                "apv" => agreement.apv = party(text()?)?,
                // Critical extensions, compression and an unencoded payload are not supported.
                "crit" | "zip" | "b64" => {
                    return Err(Fault::Malformed("header member not supported"));
                }
                _ => {}
            }
        }
        let algorithm = algorithm.ok_or(Fault::Algorithm)?;
        let encryption = encryption.ok_or(Fault::Algorithm)?;
        if !is_nested {
            return Err(Fault::Malformed(
                "the content of the encrypted token is not a JWT (`cty`)",
            ));
        }
        if algorithm.is_rsa() {
            agreement = Agreement::default();
        } else if agreement.epk.is_none() {
            return Err(Fault::Malformed("epk is missing"));
        }
        Ok(Self { algorithm, encryption, kid, agreement })
    }
}

/// Returns whether `cty` says that the content is a JWT (RFC 7519 §5.2). It is a media type: case does not matter, and
/// `application/` may be omitted (RFC 7516 §4.1.12).
fn is_jwt(cty: &str) -> bool {
    let prefix = "application/";
    let start = cty.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(prefix));
    let name = start.and_then(|start| cty.get(start.len()..)).unwrap_or(cty);
    name.eq_ignore_ascii_case("jwt")
}

/// Reads `epk`. Whether the point is on the curve is checked when it is used.
fn ephemeral_key(jwk: Value<'_>) -> Result<(Curve, Vec<u8>), Fault> {
    let text = |name| jwk.get(name).and_then(Value::as_str);
    let key = Curve::of(text("kty"), text("crv"))
        .and_then(|curve| Some((curve, curve.point(text("x"), text("y"))?)));
    key.ok_or(Fault::Malformed("epk is not a public key on P-256, P-384 or X25519"))
}

fn party(text: &str) -> Result<Vec<u8>, Fault> {
    let decoded = base64url::decode(text).filter(|decoded| decoded.len() <= MAX_PARTY);
    decoded.ok_or(Fault::Malformed("apu or apv is too long, or not base64url"))
}
