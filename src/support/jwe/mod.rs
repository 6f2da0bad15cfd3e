//! Decryption of tokens: JWE in compact serialisation (RFC 7516), with a private key of this service.
//!
//! Everyone who has the public key can make such a token, so nothing in it is trusted before the signed token inside
//! is verified. Cheap checks come first: the private key is used once the header, the algorithms and the length of
//! every part are right. All failures with a key have one result. Whether the encrypted key or the content is wrong also
//! makes no difference to the work; lengths, and whether a point is on its curve, are no secrets.

mod content;
mod key;
mod manage;

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::support::base64url;
use crate::support::crypto;
use crate::support::json::{Document, Value};
use content::{Content, ContentEncryption};
use key::{Curve, MAX_KID};

pub(crate) use key::{DecryptionKey, parse_keys};

/// The maximum length of an encoded header, in bytes. Usual headers have 100 to 300 bytes.
const MAX_HEADER: usize = 4 * 1024;

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
    /// Whether `cty` says that the content is a JWT.
    is_nested: bool,
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
        let jwe = Self::decode(token)?;
        match jwe.header.is_nested {
            true => Ok(jwe),
            false => {
                Err(Fault::Malformed("the content of the encrypted token is not a JWT (`cty`)"))
            }
        }
    }

    fn decode(token: &'t [u8]) -> Result<Self, Fault> {
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

    /// Decrypts the content with one of `keys`, which may contain a key twice. Returns it with its key.
    pub(crate) fn open(
        &self,
        keys: impl Iterator<Item = Arc<DecryptionKey>>,
    ) -> Result<(Arc<DecryptionKey>, Zeroizing<Vec<u8>>), Fault> {
        let mut candidates: Vec<Arc<DecryptionKey>> = Vec::with_capacity(MAX_TRIED);
        for key in keys.filter(|key| self.is_for(key)) {
            let is_new = candidates.iter().all(|other| !other.is_same_as(&key));
            if is_new && candidates.len() < MAX_TRIED {
                candidates.push(key);
            }
        }
        if candidates.is_empty() {
            return Err(Fault::NoKey);
        }
        if !self.header.encryption.fits(&self.content) {
            return Err(Fault::NotOpened);
        }
        let opened = candidates.into_iter().find_map(|key| {
            let content = self.open_with(&key)?;
            Some((key, content))
        });
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
        if algorithm.is_rsa() {
            agreement = Agreement::default();
        } else if agreement.epk.is_none() {
            return Err(Fault::Malformed("epk is missing"));
        }
        Ok(Self { algorithm, encryption, kid, is_nested, agreement })
    }
}

/// Returns whether `cty` says that the content is a JWT (RFC 7519 §5.2), or an access token (RFC 9068 §2.1), which some
/// providers write. It is a media type: case does not matter, and `application/` may be omitted (RFC 7516 §4.1.12).
fn is_jwt(cty: &str) -> bool {
    let prefix = "application/";
    let start = cty.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(prefix));
    let name = start.and_then(|start| cty.get(start.len()..)).unwrap_or(cty);
    name.eq_ignore_ascii_case("jwt") || name.eq_ignore_ascii_case("at+jwt")
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

#[cfg(test)]
mod tests {
    use aws_lc_rs::agreement;

    use super::*;

    /// The key of RFC 7516 appendix A.1. The RFC has neither `kid` nor `alg`.
    const A1_KEY: &str = r#"{"kty":"RSA","kid":"a1","alg":"RSA-OAEP","e":"AQAB","n":"oahUIoWw0K0usKNuOR6H4wkf4oBUXHTxRvgb48E-BVvxkeDNjbC4he8rUWcJoZmds2h7M70imEVhRU5djINXtqllXI4DFqcI1DgjT9LewND8MW2Krf3Spsk_ZkoFnilakGygTwpZ3uesH-PFABNIUYpOiN15dsQRkgr0vEhxN92i2asbOenSZeyaxziK72UwxrrKoExv6kc5twXTq4h-QChLOln0_mtUZwfsRaMStPs6mS6XrgxnxbWhojf663tuEQueGC-FCMfra36C9knDFGzKsNa7LZK2djYgyD3JR_MB_4NUJW_TqOQtwHYbxevoJArm-L5StowjzGy-_bq6Gw","d":"kLdtIj6GbDks_ApCSTYQtelcNttlKiOyPzMrXHeI-yk1F7-kpDxY4-WY5NWV5KntaEeXS1j82E375xxhWMHXyvjYecPT9fpwR_M9gV8n9Hrh2anTpTD93Dt62ypW3yDsJzBnTnrYu1iwWRgBKrEYY46qAZIrA2xAwnm2X7uGR1hghkqDp0Vqj3kbSCz1XyfCs6_LehBwtxHIyh8Ripy40p24moOAbgxVw3rxT_vlt3UVe4WO3JkJOzlpUf-KTVI2Ptgm-dARxTEtE-id-4OJr0h-K-VFs3VSndVTIznSxfyrj8ILL6MG_Uv8YAu7VILSB3lOW085-4qE3DzgrTjgyQ","p":"1r52Xk46c-LsfB5P442p7atdPUrxQSy4mti_tZI3Mgf2EuFVbUoDBvaRQ-SWxkbkmoEzL7JXroSBjSrK3YIQgYdMgyAEPTPjXv_hI2_1eTSPVZfzL0lffNn03IXqWF5MDFuoUYE0hzb2vhrlN_rKrbfDIwUbTrjjgieRbwC6Cl0","q":"wLb35x7hmQWZsWJmB_vle87ihgZ19S8lBEROLIsZG4ayZVe9Hi9gDVCOBmUDdaDYVTSNx_8Fyw1YYa9XGrGnDew00J28cRUoeBB_jKI1oma0Orv1T9aXIWxKwd4gvxFImOWr3QRL9KEBRzk2RatUBnmDZJTIAfwTs0g68UZHvtc","dp":"ZK-YwE7diUh0qR1tR7w8WHtolDx3MZ_OTowiFvgfeQ3SiresXjm9gZ5KLhMXvo-uz-KUJWDxS5pFQ_M0evdo1dKiRTjVw_x4NyqyXPM5nULPkcpU827rnpZzAJKpdhWAgqrXGKAECQH0Xt4taznjnd_zVpAmZZq60WPMBMfKcuE","dq":"Dq0gfgJ1DdFGXiLvQEZnuKEN0UUmsJBxkjydc3j4ZYdBiMRAy86x0vHCjywcMlYYg4yoC4YZa9hNVcsjqA3FeiL19rk8g6Qn29Tt0cj8qqyFpz9vNDBUfCAiJVeESOjJDZPYHdHY8v1b-o-Z2X5tvLx-TCekf7oxyeKDUqKWjis","qi":"VIMpMYbPf47dT1w_zDUXfPimsSegnMOA1zTaX7aGk_8urY6R8-ZW1FxU7AlWAyLWybqq6t16VFd7hQd0y6flUK4SlOydB61gwanOsXGOAOv82cHq0E3eL4HrtZkUuKvnPrMnsUUFlfUdybVzxyjz9JF_XyaY14ardLSjf4L_FNY"}"#;

    const A1: &str = "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.OKOawDo13gRp2ojaHV7LFpZcgV7T6DVZKTyKOMTYUmKoTCVJRgckCL9kiMT03JGeipsEdY3mx_etLbbWSrFr05kLzcSr4qKAq7YN7e9jwQRb23nfa6c9d-StnImGyFDbSv04uVuxIp5Zms1gNxKKK2Da14B8S4rzVRltdYwam_lDp5XnZAYpQdb76FdIKLaVmqgfwX7XWRxv2322i-vDxRfqNzo_tETKzpVLzfiwQyeyPGLBIO56YJ7eObdv0je81860ppamavo35UgoRdbYaBcoh9QcfylQr66oc6vFWXRcZ_ZT2LawVCWTIy3brGPi6UklfCpIMfIjf7iGdXKHzg.48V1_ALb6US04U3b.5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6jiSdiwkIr3ajwQzaBtQD_A.XFBoMYUZodetZdvTiFvSkQ";

    /// RFC 7516 appendix A.2: `RSA1_5`.
    const A2: &str = "eyJhbGciOiJSU0ExXzUiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0.UGhIOguC7IuEvf_NPVaXsGMoLOmwvc1GyqlIKOK1nN94nHPoltGRhWhw7Zx0-kFm1NJn8LE9XShH59_i8J0PH5ZZyNfGy2xGdULU7sHNF6Gp2vPLgNZ__deLKxGHZ7PcHALUzoOegEI-8E66jX2E4zyJKx-YxzZIItRzC5hlRirb6Y5Cl_p-ko3YvkkysZIFNPccxRU7qve1WYPxqbb2Yw8kZqa2rMWI5ng8OtvzlV7elprCbuPhcCdZ6XDP0_F8rkXds2vE4X-ncOIM8hAYHHi29NX0mcKiRaD0-D-ljQTP-cFPgwCp6X-nZZd9OHBv-B3oWh2TbqmScqXMR4gp_A.AxY8DCtDaGlsbGljb3RoZQ.KDlTtXchhZTGufMYmOYGS4HffxPSUrfmqCHXaI9wOGY.9hH0vgRfYgPnAHOd8stkvw";

    /// RFC 7516 appendix A.3: `A128KW`.
    const A3: &str = "eyJhbGciOiJBMTI4S1ciLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0.6KB707dM9YTIgHtLvtgWQ8mKwboJW3of9locizkDTHzBC2IlrT1oOQ.AxY8DCtDaGlsbGljb3RoZQ.KDlTtXchhZTGufMYmOYGS4HffxPSUrfmqCHXaI9wOGY.U0m_YmjN04DJvceFICbCVQ";

    /// The content encryption key of RFC 7516 appendix A.3.2.
    const A3_CONTENT_KEY: [u8; 32] = [
        4, 211, 31, 197, 84, 157, 252, 254, 11, 100, 157, 250, 63, 170, 106, 206, 107, 124, 212,
        45, 111, 107, 9, 219, 200, 177, 0, 240, 143, 156, 44, 207,
    ];

    /// Bob's key of RFC 7518 appendix C.
    const BOB_P256: &str = r#"{"kty":"EC","kid":"Bob","alg":"ECDH-ES","crv":"P-256","x":"weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ","y":"e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck","d":"VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw"}"#;

    /// Bob's key of RFC 8037 appendix A.6, whose private part is in RFC 7748 §6.1.
    const BOB_X25519: &str = r#"{"kty":"OKP","kid":"Bob","alg":"ECDH-ES","crv":"X25519","x":"3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08","d":"XasIfmJKikt54X-Lg4AO5m87sSkmGLb9HC-LJ_-I4Os"}"#;

    fn key(jwk: &str) -> Arc<DecryptionKey> {
        Arc::new(parse_keys(jwk).unwrap().remove(0))
    }

    fn header(json: &str) -> Result<Header, Fault> {
        Header::read(json.as_bytes().to_vec())
    }

    /// Returns the content key of a token with this ephemeral key, for `ECDH-ES` with `A128GCM`.
    fn agreed(own: &str, epk: &str, parties: &str) -> Option<String> {
        let header = format!(r#"{{"alg":"ECDH-ES","enc":"A128GCM","epk":{epk}{parties}}}"#);
        let token = format!("{}....", base64url::encode(header));
        let content_key = key(own).content_key(&Jwe::decode(token.as_bytes()).unwrap());
        content_key.map(base64url::encode)
    }

    #[test]
    fn example_of_rfc_7516_is_opened() {
        let jwe = Jwe::decode(A1.as_bytes()).unwrap();
        let (_, content) = jwe.open([key(A1_KEY)].into_iter()).unwrap();
        assert_eq!(*content, b"The true sign of intelligence is not knowledge but imagination.");
        assert!(matches!(Jwe::parse(A1.as_bytes()), Err(Fault::Malformed(_))), "it has no `cty`");
        let other = A1_KEY.replace("RSA-OAEP", "RSA-OAEP-256");
        assert_eq!(jwe.open([key(&other)].into_iter()).unwrap_err(), Fault::NoKey);
    }

    #[test]
    fn other_algorithms_of_rfc_7516_are_refused() {
        for token in [A2, A3] {
            assert_eq!(Jwe::decode(token.as_bytes()).err(), Some(Fault::Algorithm));
        }
        let parts: Vec<&str> = A3.split('.').collect();
        let decode = |part: &str| base64url::decode(part).unwrap();
        let content = Content {
            iv: decode(parts[2]),
            ciphertext: decode(parts[3]),
            tag: decode(parts[4]),
            authenticated: parts[0].as_bytes(),
        };
        let opened = ContentEncryption::A128CbcHs256.open(&A3_CONTENT_KEY, &content);
        assert_eq!(*opened.unwrap(), b"Live long and prosper.", "the content encryption is ours");
    }

    #[test]
    fn agreed_key_is_that_of_rfc_7518() {
        let epk = r#"{"kty":"EC","crv":"P-256","x":"gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0","y":"SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps"}"#;
        let key = agreed(BOB_P256, epk, r#","apu":"QWxpY2U","apv":"Qm9i""#);
        assert_eq!(key.as_deref(), Some("VqqN6vgjbSBcIijNcacQGg"));
    }

    #[test]
    fn agreed_secret_is_that_of_rfc_8037() {
        let key = key(BOB_X25519);
        let key::PrivateKey::Ecdh(curve, private) = &key.private else { unreachable!() };
        let ephemeral = base64url::decode("hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo").unwrap();
        let ephemeral = agreement::UnparsedPublicKey::new(curve.algorithm(), ephemeral);
        let secret = agreement::agree(private, ephemeral, (), |secret| Ok(crypto::hex(secret)));
        let expected = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
        assert_eq!(secret.as_deref(), Ok(expected));
    }

    #[test]
    fn points_off_the_curve_yield_no_key() {
        let on_p256 = |x: &str, y: &str| {
            let epk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#);
            agreed(BOB_P256, &epk, "").is_some()
        };
        let x = "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0";
        let y = "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps";
        assert!(on_p256(x, y));
        let zero = "A".repeat(43);
        for (x, y) in [(y, x), (x, x), (x, &*zero), (&*zero, y), (&*zero, &*zero)] {
            assert!(!on_p256(x, y), "{x} {y}");
        }
        // Points of small order, with which the secret would be zero.
        for x in [&*zero, "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            let epk = format!(r#"{{"kty":"OKP","crv":"X25519","x":"{x}"}}"#);
            assert_eq!(agreed(BOB_X25519, &epk, ""), None, "{x}");
        }
    }

    #[test]
    fn unsupported_and_malformed_headers_are_refused() {
        let with = |members: &str| {
            header(&format!(r#"{{"alg":"RSA-OAEP","enc":"A128GCM","cty":"JWT"{members}}}"#))
        };
        assert!(with("").unwrap().is_nested);
        assert!(with(r#","typ":"at+jwt","jwk":{},"jku":"https://a","x5c":[],"iss":"a""#).is_ok());
        for members in [
            r#","crit":["exp"]"#,
            r#","crit":[]"#,
            r#","zip":"DEF""#,
            r#","zip":"""#,
            r#","zip":null"#,
            r#","b64":true"#,
            r#","alg":"RSA-OAEP""#,
            r#","kid":7"#,
            r#","typ":7"#,
            r#","cty":"JWT""#,
            r#","epk":{}"#,
            r#","epk":7"#,
            r#","apu":"?""#,
            r#","apv":7"#,
        ] {
            assert!(matches!(with(members), Err(Fault::Malformed(_))), "{members}");
        }
        let long =
            |name: &str, length: usize| with(&format!(r#","{name}":"{}""#, "A".repeat(length)));
        assert!(long("kid", 256).is_ok() && long("kid", 257).is_err());
        assert!(long("apu", 340).is_ok() && long("apv", 344).is_err());
        for alg in [
            "RSA1_5",
            "dir",
            "A128KW",
            "A256GCMKW",
            "PBES2-HS256+A128KW",
            "ECDH-ES+A192KW",
            "none",
            "rsa-oaep",
        ] {
            let read = header(&format!(r#"{{"alg":"{alg}","enc":"A128GCM","p2c":2147483648}}"#));
            assert_eq!(read.err(), Some(Fault::Algorithm), "{alg}");
        }
        for enc in ["A192GCM", "A192CBC-HS384", "none", "a128gcm"] {
            let read = header(&format!(r#"{{"alg":"RSA-OAEP","enc":"{enc}"}}"#));
            assert_eq!(read.err(), Some(Fault::Algorithm), "{enc}");
        }
        for json in ["{}", r#"{"alg":"RSA-OAEP"}"#, r#"{"enc":"A128GCM"}"#] {
            assert_eq!(header(json).err(), Some(Fault::Algorithm), "{json}");
        }
        assert!(header(r#"{"alg":"ECDH-ES","enc":"A128GCM","cty":"JWT"}"#).is_err(), "no epk");
    }

    #[test]
    fn content_type_is_a_media_type() {
        for (cty, expected) in [
            ("JWT", true),
            ("jwt", true),
            ("application/JWT", true),
            ("APPLICATION/jwt", true),
            ("application/", false),
            ("at+jwt", true),
            ("json", false),
            ("é", false),
            ("", false),
        ] {
            assert_eq!(is_jwt(cty), expected, "{cty}");
        }
    }

    #[test]
    fn coordinates_have_their_full_length() {
        let is_read = |crv: &str, x: &str, y: &str| {
            let json = format!(r#"{{"kty":"EC","crv":"{crv}","x":"{x}","y":"{y}"}}"#);
            ephemeral_key(Document::parse(json).unwrap().root()).is_ok()
        };
        let (full, short, long) = ("A".repeat(43), "A".repeat(42), "A".repeat(44));
        assert!(is_read("P-256", &full, &full));
        for (crv, x, y) in [
            ("P-256", &short, &full),
            ("P-256", &full, &long),
            ("P-384", &full, &full),
            ("P-521", &full, &full),
            ("X25519", &full, &full),
        ] {
            assert!(!is_read(crv, x, y), "{crv}");
        }
    }

    #[test]
    fn unusable_private_keys_are_named_with_remedies() {
        let faults = |jwk: String| parse_keys(&jwk).err().unwrap_or_default();
        let p256 = |from: &str, to: &str| faults(BOB_P256.replace(from, to));
        let rsa = |from: &str, to: &str| faults(A1_KEY.replace(from, to));
        let public = BOB_P256.split_once(r#","d""#).unwrap().0.to_owned() + "}";
        for (fault, expected) in [
            (faults(public), "give the private key"),
            (p256("EC\"", "oct\""), "it is symmetric"),
            (p256(r#""kid":"Bob""#, r#""use":"sig","kid":"Bob""#), "a key that signs must not"),
            (p256(r#""kid":"#, r#""key_ops":["sign"],"kid":"#), "its `key_ops` have none of"),
            (p256(r#""kid":"#, r#""key_ops":[],"kid":"#), "its `key_ops` have none of"),
            (p256("ECDH-ES", "RSA1_5"), "its `alg` is not supported"),
            (p256("ECDH-ES", "RSA-OAEP"), "does not fit its `alg`"),
            (p256(r#","alg":"ECDH-ES""#, ""), "it has no `alg`"),
            (p256(r#""kid":"Bob","#, ""), "key 1: it has no `kid`"),
            (p256("P-256", "P-521"), "its curve is not supported"),
            (p256("weNJ", "AeNJ"), "does not belong to its `d`"),
            (p256("VEmD", "AEmD"), "does not belong to its `d`"),
            (p256(r#""d":"VEmDZpDXXK8p8N0C"#, r#""d":"AAAA"#), "is not a private key of its curve"),
            (rsa(r#""dq""#, r#""dx""#), "it lacks a member"),
            (rsa(r#""oahUIoWw0K0usKN"#, r#""oahUIoWw0K0usKM"#), "are not those of one RSA key"),
            (rsa(r#""n":"oahU"#, r#""n":"oahUoahU"#), "are not those of one RSA key"),
            (rsa(r#""n":"#, r#""n":"3Q","m":"#), "2048 to 4096 bits"),
            (rsa(r#""kty""#, r#""oth":[],"kty""#), "more than two primes"),
            (p256(r#""kty""#, r#""kty":"EC","kty""#), "are neither a JWK Set nor a JWK"),
            (faults(format!(r#"{{"keys":[{BOB_P256},{BOB_P256}]}}"#)), "two keys with the `kid`"),
            (faults(r#"{"keys":[]}"#.to_owned()), "contain no key"),
            (faults(r#"{"keys":[7]}"#.to_owned()), "key 1: it is not a JWK"),
            (faults("-----BEGIN PRIVATE KEY-----".to_owned()), "are neither a JWK Set nor a JWK"),
            (faults(format!("[[{BOB_P256}]]")), "are neither a JWK Set nor a JWK"),
        ] {
            assert!(fault.contains(expected), "{expected}: {fault}");
            for secret in ["VEmD", "kLdt", "1r52", "VIMp"] {
                assert!(!fault.contains(secret), "{fault}");
            }
        }
        for name in ["decrypt", "unwrapKey", "deriveKey", "deriveBits"] {
            let operations = format!(r#""key_ops":["x","{name}"],"kid":"#);
            assert_eq!(p256(r#""kid":"#, &operations), "");
        }
        let set = format!(r#"{{"keys":[{BOB_P256},{A1_KEY}]}}"#);
        let keys = parse_keys(&set).unwrap();
        for (key, private) in keys.iter().zip([r#""d""#, r#""d""#]) {
            let public = key.public_jwk().unwrap().to_string();
            assert!(public.contains(r#""use":"enc""#) && !public.contains(private), "{public}");
            assert!(!format!("{key:?}").contains(private));
        }
    }
}
