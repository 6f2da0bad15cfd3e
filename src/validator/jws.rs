//! [`Jws`]: the compact serialisation of a token, its three base64url parts and its header (RFC 7515),
//! parsed strictly.

use std::time::SystemTime;

use crate::config::Algorithm;
use crate::error::InvalidToken;
use crate::issuer::{CertificateHash, KeyQuery, MAX_KID, Rules};
use crate::support::base64url;
use crate::support::json::{Document, Fault, Value};

/// The maximum length of an encoded header, in bytes. Usual headers have 40 to 200 bytes.
const MAX_HEADER: usize = 4 * 1024;

/// The parts of a token. Nothing is verified.
pub(crate) struct Jws<'t> {
    header: &'t [u8],
    payload: &'t [u8],
    signature: &'t [u8],
    /// The signed part (`header.payload`), as sent.
    pub(crate) signed: &'t [u8],
}

impl<'t> Jws<'t> {
    /// Splits a token in compact serialisation. Refuses any other form.
    pub(crate) fn split(token: &'t [u8], max_bytes: usize) -> Result<Self, InvalidToken> {
        if token.len() > max_bytes {
            return Err(InvalidToken::Malformed("the token is too long"));
        }
        let mut dots = memchr::memchr_iter(b'.', token);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(InvalidToken::Malformed("the token does not have three parts"));
        };
        if first > MAX_HEADER {
            return Err(InvalidToken::Malformed("the header is too long"));
        }
        let part = |from: usize, to: usize| token.get(from..to).unwrap_or_default();
        Ok(Self {
            header: part(0, first),
            payload: part(first + 1, second),
            signature: part(second + 1, token.len()),
            signed: part(0, second),
        })
    }

    pub(crate) fn encoded_header(&self) -> &'t [u8] {
        self.header
    }

    pub(crate) fn header(&self) -> Result<Header, InvalidToken> {
        let text = base64url::decode(self.header)
            .ok_or(InvalidToken::Malformed("the header is not base64url"))?;
        Header::read(document(text)?.root())
    }

    /// Decodes the claims. [`document`] parses them.
    pub(crate) fn payload(&self) -> Result<Vec<u8>, InvalidToken> {
        base64url::decode(self.payload)
            .ok_or(InvalidToken::Malformed("the payload is not base64url"))
    }

    pub(crate) fn signature(&self) -> Result<Vec<u8>, InvalidToken> {
        base64url::decode(self.signature)
            .ok_or(InvalidToken::Malformed("the signature is not base64url"))
    }
}

/// Parses a JSON object.
pub(crate) fn document(text: impl Into<Vec<u8>>) -> Result<Document, InvalidToken> {
    Document::parse(text).map_err(|fault| {
        InvalidToken::Malformed(match fault {
            Fault::Syntax => "it is not a JSON object",
            Fault::Limit => "it has too many members, or is nested too deeply",
            Fault::Duplicate => "a member name occurs twice",
        })
    })
}

/// The header members that this crate uses. `jku`, `x5u` and `x5c` are ignored: keys come from the issuer
/// only.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<Box<str>>,
    /// `x5t` and `x5t#S256`, which select one of the issuer's keys, as `kid` does.
    pub(crate) certificate: CertificateHash,
    pub(crate) typ: Typ,
    /// Whether it has a member besides `alg`, `kid` and `typ`. A JWT-SVID must not.
    pub(crate) has_other_members: bool,
}

/// The kind of token according to `typ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Typ {
    Absent,
    Jwt,
    Jose,
    AccessToken,
    /// A signed introspection answer (RFC 9701 §5).
    Introspection,
    /// A logout token (OpenID Connect Back-Channel Logout 1.0 §2.4).
    Logout,
    /// A security event token (RFC 8417 §2.3).
    SecurityEvent,
    Other,
}

/// Header members that cause a refusal: critical extensions (`crit`; this crate supports none), an
/// unencoded payload (`b64`), a nested token (`cty`), compression (`zip`), and a key inside the token
/// (`jwk`).
const REFUSED: [&str; 5] = ["crit", "b64", "cty", "zip", "jwk"];

impl Header {
    fn read(header: Value<'_>) -> Result<Self, InvalidToken> {
        let mut algorithm = None;
        let mut kid = None;
        let mut certificate = CertificateHash::default();
        let (mut typ, mut has_other_members) = (Typ::Absent, false);
        for member in header.children() {
            let text = || {
                member.as_str().ok_or(InvalidToken::Malformed("a header member has the wrong type"))
            };
            has_other_members |= !matches!(member.name(), "alg" | "kid" | "typ");
            match member.name() {
                "alg" => algorithm = Some(text()?.parse().map_err(|_| InvalidToken::Algorithm)?),
                "kid" if text()?.len() > MAX_KID => {
                    return Err(InvalidToken::Malformed("kid is too long"));
                }
                "kid" => kid = Some(text()?.into()),
                "x5t" => certificate.sha1 = Some(text()?.into()),
                "x5t#S256" => certificate.sha256 = Some(text()?.into()),
                "typ" => typ = Typ::read(text()?),
                name if REFUSED.contains(&name) => {
                    return Err(InvalidToken::Malformed("header member not supported"));
                }
                _ => {}
            }
        }
        let algorithm = algorithm.ok_or(InvalidToken::Algorithm)?;
        Ok(Self { algorithm, kid, certificate, typ, has_other_members })
    }
}

impl Header {
    /// Returns the query for the issuer's keys that may have signed the token.
    pub(crate) fn key_query<'q>(
        &'q self,
        issuer: &'q str,
        rules: &Rules,
        now: SystemTime,
    ) -> KeyQuery<'q> {
        KeyQuery {
            kid: self.kid.as_deref(),
            certificate: &self.certificate,
            issuer,
            now,
            leeway: rules.config.leeway,
        }
    }
}

impl Typ {
    /// Parses `typ` as a media type: case does not matter, and `application/` may be omitted (RFC 7515 §4.1.9).
    fn read(typ: &str) -> Self {
        let prefix = "application/";
        let typ = match typ.get(..prefix.len()) {
            Some(start) if start.eq_ignore_ascii_case(prefix) => &typ[prefix.len()..],
            _ => typ,
        };
        match typ {
            typ if typ.eq_ignore_ascii_case("jwt") => Self::Jwt,
            typ if typ.eq_ignore_ascii_case("jose") => Self::Jose,
            typ if typ.eq_ignore_ascii_case("at+jwt") => Self::AccessToken,
            typ if typ.eq_ignore_ascii_case("token-introspection+jwt") => Self::Introspection,
            typ if typ.eq_ignore_ascii_case("logout+jwt") => Self::Logout,
            typ if typ.eq_ignore_ascii_case("secevent+jwt") => Self::SecurityEvent,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(json: &str) -> Result<Header, InvalidToken> {
        let token = format!("{}.e30.AA", base64url::encode(json));
        Jws::split(token.as_bytes(), 16 * 1024)?.header()
    }

    #[test]
    fn unknown_header_members_are_ignored() {
        let read = header(r#"{"alg":"ES256","kid":"k","typ":"at+JWT","x5t":"a","foo":{"a":[1]}}"#);
        let expected = Header {
            algorithm: Algorithm::ES256,
            kid: Some("k".into()),
            certificate: CertificateHash { sha1: Some("a".into()), sha256: None },
            typ: Typ::AccessToken,
            has_other_members: true,
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn malformed_json_has_distinct_reasons() {
        let deep = format!(r#"{{"alg":{}"#, "[".repeat(20));
        for (json, reason) in [
            ("[]", "it is not a JSON object"),
            (r#"{"alg":"ES256","alg":"ES256"}"#, "a member name occurs twice"),
            (deep.as_str(), "it has too many members, or is nested too deeply"),
        ] {
            assert_eq!(header(json), Err(InvalidToken::Malformed(reason)));
        }
    }

    #[test]
    fn typ_is_compared_as_a_media_type() {
        for (typ, read) in [
            ("JWT", Typ::Jwt),
            ("jwt", Typ::Jwt),
            ("JOSE", Typ::Jose),
            ("application/AT+jwt", Typ::AccessToken),
            ("APPLICATION/at+jwt", Typ::AccessToken),
            ("application/", Typ::Other),
            ("é", Typ::Other),
            ("Token-Introspection+JWT", Typ::Introspection),
            ("Logout+jwt", Typ::Logout),
            ("application/secevent+JWT", Typ::SecurityEvent),
            ("dpop+jwt", Typ::Other),
            ("text/jwt", Typ::Other),
            ("", Typ::Other),
        ] {
            assert_eq!(Typ::read(typ), read, "{typ}");
        }
    }

    #[test]
    fn unsupported_and_malformed_headers_are_refused() {
        for json in [
            r#"{}"#,
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"es256"}"#,
            r#"{"alg":7}"#,
            r#"{"alg":"ES256","alg":"ES256"}"#,
            r#"{"alg":"ES256","kid":7}"#,
            r#"{"alg":"ES256","kid":null}"#,
            r#"{"alg":"ES256","x5t":7}"#,
            r#"{"alg":"ES256","x5t#S256":null}"#,
            r#"{"alg":"ES256","typ":7}"#,
            r#"{"alg":"ES256","crit":[]}"#,
            r#"{"alg":"ES256","crit":["exp"]}"#,
            r#"{"alg":"ES256","b64":true}"#,
            r#"{"alg":"ES256","cty":"JWT"}"#,
            r#"{"alg":"ES256","zip":"DEF"}"#,
            r#"{"alg":"ES256","jwk":{}}"#,
            r#"[{"alg":"ES256"}]"#,
        ] {
            assert!(header(json).is_err(), "{json}");
        }
        let kid =
            |length: usize| header(&format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(length)));
        assert!(kid(256).is_ok() && kid(257).is_err());
        assert!(header(&format!(r#"{{"alg":"ES256","x":"{}"}}"#, "x".repeat(4000))).is_err());
    }

    #[test]
    fn token_has_exactly_three_parts() {
        for token in ["", ".", "a.b", "a.b.c.d", "a.b.c.d.e", "{\"payload\":\"\"}"] {
            assert!(Jws::split(token.as_bytes(), 100).is_err(), "{token}");
        }
        assert!(Jws::split(&[b'a'; 101], 100).is_err());
        let jws = Jws::split(b"aa.bb.cc", 100).ok().unwrap();
        assert_eq!(jws.signed, b"aa.bb");
    }
}
