//! [`Confirmation`]: the key that a token is bound to.

use crate::error::InvalidToken;
use crate::support::base64url;
use crate::support::crypto;
use crate::support::json::Value;

/// The key that a token is bound to (`cnf`, RFC 7800 §3.1). The sender of the token must prove possession of
/// the private key.
///
/// The claim must have exactly one member, of a kind that this crate knows. Otherwise the token is refused,
/// because an unknown binding cannot be enforced.
///
/// `==` takes constant time, so that its duration does not reveal the thumbprint.
///
/// ```
/// use scaikey_auth::identity::Confirmation;
///
/// // SHA-256 of the certificate that the client presented, as DER.
/// let presented = Confirmation::CertificateThumbprint([7; 32]);
/// assert_ne!(presented, Confirmation::JwkThumbprint([7; 32]), "a hash of another kind");
/// ```
#[derive(Debug, Clone, Copy, Eq)]
#[non_exhaustive]
pub enum Confirmation {
    /// `jkt`: SHA-256 thumbprint (RFC 7638) of the public JWK that signs DPoP proofs (RFC 9449 §6.1).
    JwkThumbprint([u8; 32]),
    /// `x5t#S256`: SHA-256 of the client's TLS certificate as DER (RFC 8705 §3.1).
    CertificateThumbprint([u8; 32]),
}

impl Confirmation {
    /// Reads the claim `cnf`, if there is one. `null` is malformed, not absent.
    pub(crate) fn read(claims: Value<'_>) -> Result<Option<Self>, InvalidToken> {
        let Some(cnf) = claims.get("cnf") else { return Ok(None) };
        if !cnf.is_object() {
            return Err(MALFORMED);
        }
        let mut members = cnf.children();
        let (Some(member), None) = (members.next(), members.next()) else {
            return Err(InvalidToken::Unproven);
        };
        let bound_by = match member.name() {
            "jkt" => Self::JwkThumbprint,
            "x5t#S256" => Self::CertificateThumbprint,
            _ => return Err(InvalidToken::Unproven),
        };
        let thumbprint = member.as_str().and_then(base64url::decode);
        let thumbprint = thumbprint.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        thumbprint.map(bound_by).map(Some).ok_or(MALFORMED)
    }
}

const MALFORMED: InvalidToken = InvalidToken::MalformedClaim("cnf");

impl PartialEq for Confirmation {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::JwkThumbprint(own), Self::JwkThumbprint(other))
            | (Self::CertificateThumbprint(own), Self::CertificateThumbprint(other)) => {
                crypto::equal(own, other)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::json::Document;

    fn read(claims: &str) -> Result<Option<Confirmation>, InvalidToken> {
        Confirmation::read(Document::parse(claims).unwrap().root())
    }

    #[test]
    fn confirmation_is_exactly_one_known_member() {
        let hash = crypto::sha256(b"key");
        let text = base64url::encode(hash);
        assert_eq!(read("{}"), Ok(None));
        let jwk = read(&format!(r#"{{"cnf":{{"jkt":"{text}"}}}}"#));
        assert_eq!(jwk, Ok(Some(Confirmation::JwkThumbprint(hash))));
        let certificate = read(&format!(r#"{{"cnf":{{"x5t#S256":"{text}"}}}}"#));
        assert_eq!(certificate, Ok(Some(Confirmation::CertificateThumbprint(hash))));
        for unknown in [
            "{}".to_owned(),
            r#"{"osc":"1"}"#.to_owned(),
            format!(r#"{{"kid":"{text}"}}"#),
            format!(r#"{{"JKT":"{text}"}}"#),
            format!(r#"{{"jkt":"{text}","x5t#S256":"{text}"}}"#),
            format!(r#"{{"jkt":"{text}","future":1}}"#),
        ] {
            assert_eq!(read(&format!(r#"{{"cnf":{unknown}}}"#)), Err(InvalidToken::Unproven));
        }
    }

    #[test]
    fn thumbprint_is_canonical_base64url_of_32_bytes() {
        let text = base64url::encode([0xff; 32]);
        for malformed in [
            "null".to_owned(),
            "[]".to_owned(),
            r#""jkt""#.to_owned(),
            r#"{"jkt":null}"#.to_owned(),
            r#"{"jkt":7}"#.to_owned(),
            r#"{"jkt":""}"#.to_owned(),
            format!(r#"{{"jkt":["{text}"]}}"#),
            format!(r#"{{"jkt":"{text}="}}"#),
            format!(r#"{{"jkt":" {text}"}}"#),
            format!(r#"{{"jkt":"{}"}}"#, &text[..42]),
            format!(r#"{{"jkt":"{}"}}"#, base64url::encode([0xff; 31])),
            format!(r#"{{"jkt":"{}"}}"#, base64url::encode([0xff; 33])),
            // The same bytes with trailing bits set.
            format!(r#"{{"jkt":"{}9"}}"#, &text[..42]),
        ] {
            assert_eq!(read(&format!(r#"{{"cnf":{malformed}}}"#)), Err(MALFORMED), "{malformed}");
        }
    }

    #[test]
    fn thumbprints_of_two_kinds_are_never_equal() {
        let (jwk, certificate) =
            (Confirmation::JwkThumbprint([1; 32]), Confirmation::CertificateThumbprint([1; 32]));
        assert_eq!(jwk, jwk);
        assert_ne!(jwk, certificate);
        assert_ne!(jwk, Confirmation::JwkThumbprint([2; 32]));
    }
}
