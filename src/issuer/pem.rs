//! Conversion of public keys and certificates in PEM (RFC 7468) to a key set.

use serde_json::{Value, json};

use crate::support::base64url;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Tags of DER (X.690).
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// The version of a certificate; version 1 omits it.
const EXPLICIT_0: u8 = 0xa0;

/// Object identifiers (RFC 3279 §2.3, RFC 5480 §2.1.1, RFC 8410 §3, RFC 9881 §2).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const CURVES: [(&[u8], &str); 3] = [
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], "P-256"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x22], "P-384"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x23], "P-521"),
];

/// The common beginning of the identifiers of ML-DSA, and the last byte of each.
const ML_DSA: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03];
const ML_DSA_NAMES: [(u8, &str); 3] = [(17, "ML-DSA-44"), (18, "ML-DSA-65"), (19, "ML-DSA-87")];

const PRIVATE: &str =
    "has a private key: give the public key, and replace the private key, which is now exposed";
const UNREADABLE: &str = "has a PEM block that cannot be parsed";
const UNSUPPORTED: &str = "has a PEM block that is neither a public key (RSA, P-256, P-384, P-521, Ed25519, ML-DSA) nor a certificate";

/// Returns whether a text is PEM. Other text may precede its first block.
pub(super) fn is_pem(text: &str) -> bool {
    !text.trim_start().starts_with('{') && text.contains(BEGIN)
}

/// Converts `PUBLIC KEY`, `RSA PUBLIC KEY` and `CERTIFICATE` blocks to a key set without key ids. The key of
/// a certificate also has `x5c`. The issuer and the expiry of a certificate are *not* checked.
pub(super) fn to_key_set(text: &str) -> Result<String, &'static str> {
    // Checked first, because a refused block may precede a private key.
    let labels = text.split(BEGIN).skip(1).filter_map(|block| block.split(DASHES).next());
    if labels.into_iter().any(|label| label.ends_with("PRIVATE KEY")) {
        return Err(PRIVATE);
    }
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some((_, block)) = rest.split_once(BEGIN) {
        let (label, block) = block.split_once(DASHES).ok_or(UNREADABLE)?;
        let (content, after) = block.split_once(END).ok_or(UNREADABLE)?;
        let content: String = content.split_ascii_whitespace().collect();
        let der = base64url::decode_standard(content.as_bytes()).ok_or(UNREADABLE)?;
        keys.push(match label {
            "PUBLIC KEY" => public_key(&der).ok_or(UNSUPPORTED)?,
            "RSA PUBLIC KEY" => rsa(&der).ok_or(UNREADABLE)?,
            "CERTIFICATE" => certificate_key(&der, content).ok_or(UNSUPPORTED)?,
            _ => return Err(UNSUPPORTED),
        });
        rest = after;
    }
    Ok(json!({ "keys": keys }).to_string())
}

/// Reads the key of a certificate (RFC 5280 §4.1).
fn certificate_key(der: &[u8], content: String) -> Option<Value> {
    let mut certificate = Der(Der(der).only(SEQUENCE)?);
    let mut body = Der(certificate.next(SEQUENCE)?);
    body.skip_if(EXPLICIT_0);
    body.next(INTEGER)?;
    // Signature algorithm, issuer, validity, subject.
    for _ in 0..4 {
        body.next(SEQUENCE)?;
    }
    let mut key = key_of(Der(body.next(SEQUENCE)?))?;
    key.as_object_mut()?.insert("x5c".to_owned(), json!([content]));
    Some(key)
}

/// Reads a `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7).
pub(super) fn public_key(der: &[u8]) -> Option<Value> {
    key_of(Der(Der(der).only(SEQUENCE)?))
}

fn key_of(mut info: Der<'_>) -> Option<Value> {
    let mut algorithm = Der(info.next(SEQUENCE)?);
    // The first byte is the number of unused bits in the last byte: zero.
    let (0, key) = info.only(BIT_STRING)?.split_first()? else { return None };
    match algorithm.next(OBJECT_ID)? {
        id if id == RSA => rsa(key),
        id if id == EC => ec(algorithm.only(OBJECT_ID)?, key),
        // The others have no parameters (RFC 8410 §3, RFC 9881 §2).
        _ if !algorithm.0.is_empty() => None,
        id if id == ED25519 => {
            Some(json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url::encode(key) }))
        }
        id => ml_dsa(id, key),
    }
}

/// Reads an ML-DSA key (RFC 9881 §4). Its parameter set becomes the `alg`, which a JWK of it must have.
fn ml_dsa(id: &[u8], key: &[u8]) -> Option<Value> {
    let [last] = id.strip_prefix(ML_DSA)? else { return None };
    let (_, name) = ML_DSA_NAMES.iter().find(|(it, _)| it == last)?;
    Some(json!({ "kty": "AKP", "alg": name, "pub": base64url::encode(key) }))
}

/// Reads an `RSAPublicKey` (RFC 8017 §A.1.1).
fn rsa(der: &[u8]) -> Option<Value> {
    let mut key = Der(Der(der).only(SEQUENCE)?);
    // DER has a zero byte before a number whose first bit is set; a JWK has none.
    let number = |der: &[u8]| base64url::encode(der.strip_prefix(&[0]).unwrap_or(der));
    let (n, e) = (number(key.next(INTEGER)?), number(key.only(INTEGER)?));
    Some(json!({ "kty": "RSA", "n": n, "e": e }))
}

/// Reads an uncompressed point (SEC 1 §2.3.3).
fn ec(curve: &[u8], point: &[u8]) -> Option<Value> {
    let (_, name) = CURVES.iter().find(|(id, _)| *id == curve)?;
    let (4, coordinates) = point.split_first()? else { return None };
    let (x, y) = coordinates.split_at(coordinates.len() / 2);
    let (x, y) = (base64url::encode(x), base64url::encode(y));
    Some(json!({ "kty": "EC", "crv": name, "x": x, "y": y }))
}

/// The part of a DER encoding that is not read yet.
struct Der<'d>(&'d [u8]);

impl<'d> Der<'d> {
    /// Returns the content of the next value, which must have this tag.
    fn next(&mut self, tag: u8) -> Option<&'d [u8]> {
        let (found, rest) = self.0.split_first()?;
        let (length, rest) = length(rest)?;
        let (content, rest) = rest.split_at_checked(length)?;
        if *found != tag {
            return None;
        }
        self.0 = rest;
        Some(content)
    }

    /// Returns the content of the next value, which must be the last.
    fn only(mut self, tag: u8) -> Option<&'d [u8]> {
        self.next(tag).filter(|_| self.0.is_empty())
    }

    fn skip_if(&mut self, tag: u8) {
        let _ = self.next(tag);
    }
}

/// Reads a length of at most 65,535 and returns it with the rest. Returns `None` for a longer or indefinite
/// length.
fn length(der: &[u8]) -> Option<(usize, &[u8])> {
    match *der {
        [short @ ..=0x7f, ref rest @ ..] => Some((usize::from(short), rest)),
        [0x81, length, ref rest @ ..] => Some((usize::from(length), rest)),
        [0x82, high, low, ref rest @ ..] => {
            Some((usize::from(u16::from_be_bytes([high, low])), rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519_PEM: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAn3+Z+nbjERpcfP0LWuj/VHaKNdfhfd3DXYa009hetWE=
-----END PUBLIC KEY-----";
    const P256_PEM: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEVsJURw6t029g7fa7+9zX/J4HoI3h
ALY6ePceyfcXwdLEDl72MTG2ouacdLf/gT8PAN9bE4G39acFoDBTMgS7uA==
-----END PUBLIC KEY-----";
    const P256_CERTIFICATE_PEM: &str = "-----BEGIN CERTIFICATE-----
MIIBfDCCASGgAwIBAgIUCKpSe/zSqLZmENE0dAEsD6dhxBMwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHZXhhbXBsZTAgFw0yNjExMjkwMTA4MjJaGA8yMTI2MTEwNTAx
MDgyMlowEjEQMA4GA1UEAwwHZXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABFbCVEcOrdNvYO32u/vc1/yeB6CN4QC2Onj3Hsn3F8HSxA5e9jExtqLmnHS3
/4E/DwDfWxOBt/WnBaAwUzIEu7ijUzBRMB0GA1UdDgQWBBQkl9bxRNzLJVBoxGG7
T+aM2QM1cTAfBgNVHSMEGDAWgBQkl9bxRNzLJVBoxGG7T+aM2QM1cTAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQCX2bi593n3FTOk9Gkfhg+KuIK1
7J0YlcGBm3Be10+ERwIhAJlGBrn4txYxyNItAYiDYpQ8j3fn2xPChYgZ5Acz8+kU
-----END CERTIFICATE-----";
    const P384_PEM: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEchqa+7eWD4zyyEjMcfyhtEVpqESKXC3d
qLNddNX39a3FsPUC6SuU4/4fMAWzM/IPPTYYD+u6eOoiIgdeVhOD7E7TooLl1mze
roumPWeNVjZI3dvZpPUTdOI6kZqfU64o
-----END PUBLIC KEY-----";
    const P521_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQA1fae1Pg4fz7wBNaG7lVA16hiPWE1
U+Qq7IcSG0Nsq70tw3aqEg6WbqrrXIAoTtUeHRjhSr2WHSiz8DAWLx267ygAAZiL
SzTMxWkykH+VHsdhItF9MGENDcsGO1Vl4bAQBZzJplS3fxnP34m48ayO+gSljLHA
YjQhw3lWQ5J/Z8YFnoQ=
-----END PUBLIC KEY-----";
    const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAz0DEXO91L8/YAZJWkLqx
ZssXy5tGv0/OCIpG1bfVkAP5VId6kvSgDkrBEMrzqJ7CAra8ywsNHl4nv+AOVcjZ
UwpId9rs9y5kYrpCZOLE1YGdaqztXv+wDwqUU7Z2o+e0QNt5mVCnE8QLmekQC+/f
LAIMwWiv3UrOK2VQ9K/VvnwoBsaoIiGU7cYMD+Mf66Atx9HM+mrJqwngq9pxU0iX
AHB0MuHC7WUpENxhrbGFL789qEsA7kXXqvvqaKc2ttgI6Dqcb7zVGn9JKMktxu72
yGWSouu0lbMkjJn6rcCF7zNIVbg8KIVxR5/REBvD1Kna76dGimFIzdUYxLHoC1Zn
KwIDAQAB
-----END PUBLIC KEY-----";
    const RSA_PKCS1_PEM: &str = "-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAz0DEXO91L8/YAZJWkLqxZssXy5tGv0/OCIpG1bfVkAP5VId6kvSg
DkrBEMrzqJ7CAra8ywsNHl4nv+AOVcjZUwpId9rs9y5kYrpCZOLE1YGdaqztXv+w
DwqUU7Z2o+e0QNt5mVCnE8QLmekQC+/fLAIMwWiv3UrOK2VQ9K/VvnwoBsaoIiGU
7cYMD+Mf66Atx9HM+mrJqwngq9pxU0iXAHB0MuHC7WUpENxhrbGFL789qEsA7kXX
qvvqaKc2ttgI6Dqcb7zVGn9JKMktxu72yGWSouu0lbMkjJn6rcCF7zNIVbg8KIVx
R5/REBvD1Kna76dGimFIzdUYxLHoC1ZnKwIDAQAB
-----END RSA PUBLIC KEY-----";

    fn parse(text: &str) -> Result<Value, &'static str> {
        to_key_set(text).map(|set| serde_json::from_str(&set).unwrap())
    }

    #[test]
    fn blocks_of_other_kinds_are_refused() {
        for (text, why) in [
            ("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----", PRIVATE),
            ("-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----", PRIVATE),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", PRIVATE),
            (
                "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----",
                PRIVATE,
            ),
            ("-----BEGIN PUBLIC KEY-----\nAA==", UNREADABLE),
            ("-----BEGIN PUBLIC KEY", UNREADABLE),
            ("-----BEGIN PUBLIC KEY-----\n?\n-----END PUBLIC KEY-----", UNREADABLE),
            ("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----", UNSUPPORTED),
            ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----", UNSUPPORTED),
            ("-----BEGIN DH PARAMETERS-----\nMAA=\n-----END DH PARAMETERS-----", UNSUPPORTED),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn public_keys_become_jwks() {
        let first = |pem: &str| parse(pem).unwrap()["keys"][0].clone();
        let length =
            |key: &Value, name: &str| base64url::decode(key[name].as_str().unwrap()).unwrap().len();
        for (pem, crv, coordinate) in
            [(P256_PEM, "P-256", 32), (P384_PEM, "P-384", 48), (P521_PEM, "P-521", 66)]
        {
            let key = first(pem);
            assert_eq!((&key["kty"], &key["crv"]), (&json!("EC"), &json!(crv)));
            assert_eq!((length(&key, "x"), length(&key, "y")), (coordinate, coordinate), "{crv}");
        }
        let ed25519 = first(ED25519_PEM);
        assert_eq!((&ed25519["crv"], length(&ed25519, "x")), (&json!("Ed25519"), 32));
        let rsa = first(RSA_PEM);
        assert_eq!((&rsa["e"], length(&rsa, "n")), (&json!("AQAB"), 256), "without the sign byte");
        assert_eq!(rsa, first(RSA_PKCS1_PEM));
    }

    /// RFC 8410 §3, RFC 9881 §2.
    #[test]
    fn algorithms_without_parameters_have_none() {
        let value = |tag: u8, content: &[u8]| [&[tag, 0x81, content.len() as u8], content].concat();
        let info = |id: &[u8], parameters: &[u8]| {
            let algorithm = value(SEQUENCE, &[&value(OBJECT_ID, id), parameters].concat());
            value(SEQUENCE, &[algorithm, value(BIT_STRING, &[0; 33])].concat())
        };
        for id in [ED25519, &[ML_DSA, &[17]].concat()] {
            assert!(public_key(&info(id, &[])).is_some());
            assert_eq!(public_key(&info(id, &[5, 0])), None, "NULL");
        }
    }

    #[test]
    fn certificate_becomes_jwk_with_x5c() {
        let two = format!("subject=CN = example\n{P256_CERTIFICATE_PEM}{ED25519_PEM}");
        assert!(is_pem(&two) && !is_pem(r#"{"keys":[]}"#) && !is_pem("s3cr3t"));
        let set = parse(&two).unwrap();
        let alone = parse(P256_PEM).unwrap();
        let mut certified = set["keys"][0].clone();
        let chain = certified.as_object_mut().unwrap().remove("x5c").unwrap();
        assert_eq!(certified, alone["keys"][0]);
        assert!(chain[0].as_str().unwrap().starts_with("MIIBfDCCASGg"));
        assert_eq!(set["keys"][1]["crv"], "Ed25519");
    }

    #[test]
    fn truncated_or_changed_blocks_do_not_panic() {
        for pem in [P256_CERTIFICATE_PEM, RSA_PEM, ED25519_PEM] {
            let der: String = pem.lines().filter(|line| !line.starts_with(DASHES)).collect();
            let der = base64url::decode_standard(der.as_bytes()).unwrap();
            for at in 0..der.len() {
                let mut changed = der.clone();
                changed[at] ^= 0xff;
                for der in [&der[..at], &changed] {
                    let _ = (public_key(der), rsa(der), certificate_key(der, String::new()));
                }
                assert_eq!(public_key(&der[..at]), None);
            }
        }
    }
}
