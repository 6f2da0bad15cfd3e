//! [`TokenBuilder`]: sets the contents of a token, then signs it.

use std::time::Duration;

use serde_json::{Map, Value, json};

#[cfg(feature = "jwe")]
use super::encryption::EncryptionKey;
use super::issuer::TestIssuer;
use super::keys::SigningKey;
use crate::clock::unix_seconds;
use crate::config::Algorithm;

/// A token to be signed (feature `testing`), from [`TestIssuer::token`] or
/// [`TestIssuer::service_token`].
///
/// It starts as a valid token. The methods check nothing, so a test can also build tokens that a
/// verifier must reject.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
///
/// use scaikey_auth::testing::Provider;
///
/// let provider = Provider::start().await;
/// let editor = provider.token().subject("alice").tenant("acme").roles(["editor"]).sign();
/// let expired = provider.token().expired().sign();
/// let for_another_service = provider.token().audience("billing").sign();
/// let short = provider.token().claim("amr", vec!["mfa"]).expires_in(Duration::from_secs(5)).sign();
/// let without_subject = provider.token().without("sub").sign();
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "call `sign` to get the token"]
pub struct TokenBuilder {
    issuer: TestIssuer,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    key: Option<SigningKey>,
    algorithm: Option<Algorithm>,
    kid: Kid,
    /// Whether [`TestIssuer::shape_tokens`] applies.
    shaped: bool,
    #[cfg(feature = "jwe")]
    recipient: Option<EncryptionKey>,
}

#[derive(Debug, Clone)]
enum Kid {
    OfTheKey,
    Set(Option<String>),
}

impl TokenBuilder {
    pub(super) fn new(issuer: &TestIssuer, claims: Value) -> Self {
        let now = issuer.unix_now();
        let mut common = json!({
            "iss": issuer.issuer(),
            "aud": issuer.audience(),
            "iat": now,
            "exp": now + issuer.token_lifetime().as_secs(),
            "jti": issuer.next_jti(),
        });
        if let (Value::Object(all), Value::Object(own)) = (&mut common, claims) {
            all.extend(own);
        }
        let claims = match common {
            Value::Object(claims) => claims,
            _ => Map::new(),
        };
        let header = Map::from_iter([("typ".to_owned(), Value::from("JWT"))]);
        let issuer = issuer.clone();
        Self {
            issuer,
            header,
            claims,
            key: None,
            algorithm: None,
            kid: Kid::OfTheKey,
            shaped: true,
            #[cfg(feature = "jwe")]
            recipient: None,
        }
    }

    /// Sets `sub`.
    pub fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    /// Sets `aud` to one string. For a list use [`claim`](Self::claim).
    pub fn audience(self, audience: &str) -> Self {
        self.claim("aud", audience)
    }

    /// Sets `tenant_id`.
    pub fn tenant(self, tenant: &str) -> Self {
        self.claim("tenant_id", tenant)
    }

    /// Sets `iss`.
    pub fn issuer(self, issuer: &str) -> Self {
        self.claim("iss", issuer)
    }

    /// Sets `scope`: one or more scopes, separated by spaces.
    pub fn scope(self, scope: &str) -> Self {
        self.claim("scope", scope)
    }

    /// Sets `roles`.
    pub fn roles<S: Into<Value>>(self, roles: impl IntoIterator<Item = S>) -> Self {
        self.claim("roles", roles.into_iter().collect::<Value>())
    }

    /// Sets `groups`.
    pub fn groups<S: Into<Value>>(self, groups: impl IntoIterator<Item = S>) -> Self {
        self.claim("groups", groups.into_iter().collect::<Value>())
    }

    /// Sets `email`.
    pub fn email(self, email: &str) -> Self {
        self.claim("email", email)
    }

    /// Sets any claim.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Removes a claim.
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets `exp` to this period from now, rounded down to whole seconds.
    pub fn expires_in(self, period: Duration) -> Self {
        let exp = unix_seconds(self.issuer.now() + period);
        self.claim("exp", exp)
    }

    /// Makes the token expired: issued two hours ago, expired one hour ago.
    pub fn expired(self) -> Self {
        let now = self.issuer.unix_now();
        self.claim("iat", now.saturating_sub(7200)).claim("exp", now.saturating_sub(3600))
    }

    /// Sets `nbf` to this period from now, rounded down to whole seconds.
    pub fn not_before(self, period: Duration) -> Self {
        let nbf = unix_seconds(self.issuer.now() + period);
        self.claim("nbf", nbf)
    }

    /// Signs with the issuer's current key of this algorithm. Generates and publishes one if there
    /// is none; a verifier that fetched the keys earlier must then fetch them again. To avoid that,
    /// pass the algorithms to [`ProviderBuilder::algorithms`](super::ProviderBuilder::algorithms).
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = Some(algorithm);
        self
    }

    /// Signs with this key, published or not. Takes precedence over [`algorithm`](Self::algorithm).
    pub fn signed_by(mut self, key: &SigningKey) -> Self {
        self.key = Some(key.clone());
        self
    }

    /// Sets any header parameter. `alg` and `kid` change only the header: the key still signs with
    /// its own algorithm.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Sets or removes `typ`. Default: `JWT`.
    pub fn typ(mut self, typ: Option<&str>) -> Self {
        match typ {
            Some(typ) => self.header.insert("typ".into(), typ.into()),
            None => self.header.remove("typ"),
        };
        self
    }

    /// Sets or removes `kid`. Default: the `kid` of the key.
    pub fn kid(mut self, kid: Option<&str>) -> Self {
        self.kid = Kid::Set(kid.map(str::to_owned));
        self
    }

    /// Exempts the token from [`TestIssuer::shape_tokens`], because it is an ID token.
    pub(super) fn unshaped(mut self) -> Self {
        self.shaped = false;
        self
    }

    /// Encrypts the token for this recipient after it is signed (RFC 7519 §11.2; feature `jwe`). For other
    /// headers of the encryption, sign the token and use [`EncryptionKey::encrypt`].
    #[cfg(feature = "jwe")]
    pub fn encrypted_for(mut self, recipient: &EncryptionKey) -> Self {
        self.recipient = Some(recipient.clone());
        self
    }

    /// Signs the token.
    pub fn sign(self) -> String {
        #[cfg(feature = "jwe")]
        let recipient = self.recipient.clone();
        let (key, header, payload) = self.parts();
        let token = key.token(header, payload);
        #[cfg(feature = "jwe")]
        if let Some(recipient) = recipient {
            return recipient.encrypt(token, json!({}));
        }
        token
    }

    /// Returns an opaque token with these claims instead of a JWT: a text that begins with `prefix`, which
    /// may be empty. Only the issuer's [introspection](TestIssuer::introspection_endpoint) shows its claims
    /// (RFC 7662 §2.2), until it expires or is [revoked](TestIssuer::revoke_token). Key and header are not
    /// used.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use scaikey_auth::testing::Provider;
    ///
    /// let provider = Provider::start().await;
    /// let token = provider.token().subject("bob").scope("docs:read").opaque("skt_");
    /// assert!(token.starts_with("skt_"));
    /// # }
    /// ```
    pub fn opaque(mut self, prefix: &str) -> String {
        self.shape_claims();
        self.issuer.grant_store().add_opaque_token(prefix, self.claims)
    }

    fn shape_claims(&mut self) {
        if self.shaped {
            self.issuer.shape(&mut self.claims);
        }
    }

    /// Returns the signing key, the header and the payload, for forgeries.
    pub(super) fn parts(mut self) -> (SigningKey, String, String) {
        self.shape_claims();
        let key = match self.key {
            Some(key) => key,
            None => match self.algorithm {
                Some(algorithm) => self.issuer.key_for(algorithm),
                None => self.issuer.key(),
            },
        };
        let mut header = Map::new();
        header.insert("alg".into(), key.algorithm().as_str().into());
        match self.kid {
            Kid::OfTheKey => header.insert("kid".into(), key.kid().into()),
            Kid::Set(Some(kid)) => header.insert("kid".into(), kid.into()),
            Kid::Set(None) => None,
        };
        header.extend(self.header);
        (key, Value::Object(header).to_string(), Value::Object(self.claims).to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use aws_lc_rs::signature::{
        ECDSA_P521_SHA512_FIXED, ED25519, ML_DSA_44, ML_DSA_65, ML_DSA_87, UnparsedPublicKey,
        VerificationAlgorithm,
    };
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::super::provider::tests::{get, payload};
    use super::super::{ManualClock, Provider};
    use super::*;

    #[tokio::test]
    async fn published_keys_verify_every_algorithm() {
        let provider = Provider::builder().algorithms(Algorithm::ALL).start().await;
        let keys: Value = get(&provider.jwks_uri()).await.unwrap();
        for algorithm in Algorithm::ALL {
            let token = provider.token().algorithm(algorithm).sign();
            let key = provider.key_for(algorithm);
            let published = keys["keys"].as_array().unwrap().iter();
            let jwk = published.clone().find(|jwk| jwk["kid"] == key.kid()).unwrap();
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let native = |verifier: &'static dyn VerificationAlgorithm| {
                UnparsedPublicKey::new(verifier, key.public_key())
                    .verify(signed.as_bytes(), &signature)
                    .unwrap();
            };
            match algorithm {
                // jsonwebtoken does not support these algorithms.
                Algorithm::ES512 => native(&ECDSA_P521_SHA512_FIXED),
                Algorithm::Ed25519 => native(&ED25519),
                Algorithm::MLDSA44 => native(&ML_DSA_44),
                Algorithm::MLDSA65 => native(&ML_DSA_65),
                Algorithm::MLDSA87 => native(&ML_DSA_87),
                _ => {
                    let known: jsonwebtoken::Algorithm = algorithm.as_str().parse().unwrap();
                    let mut rules = jsonwebtoken::Validation::new(known);
                    rules.set_audience(&["scaiwave"]);
                    rules.set_issuer(&[provider.url()]);
                    let jwk = serde_json::from_value(jwk.clone()).unwrap();
                    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
                    jsonwebtoken::decode::<Value>(&token, &key, &rules).unwrap();
                }
            }
        }
    }

    #[tokio::test]
    async fn token_has_the_chosen_claims() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_778_935_867));
        let provider = Provider::builder().clock(clock.clone()).start().await;
        clock.advance(Duration::from_secs(3));
        let claims = payload(&provider.token().scope("a b").without("jti").sign());
        assert_eq!(
            claims,
            json!({
                "iss": provider.url(), "sub": "alice-id", "tenant_id": "tenant-1",
                "aud": "scaiwave", "preferred_username": "alice", "email": "alice@example.com",
                "iat": 1_778_935_870, "exp": 1_778_939_470, "scope": "a b",
            })
        );
        provider.shape_tokens(|claims| {
            let roles = claims.remove("roles");
            claims.insert("realm_access".to_owned(), json!({ "roles": roles }));
            claims.remove("aud");
        });
        let claims = payload(&provider.token().roles(["boss"]).sign());
        assert_eq!(claims["realm_access"], json!({ "roles": ["boss"] }));
        assert!(claims.get("aud").is_none() && claims.get("roles").is_none());
        let claims = payload(&provider.service_token("indexer").expired().sign());
        assert_eq!((&claims["sub"], &claims["exp"]), (&json!("indexer"), &json!(1_778_932_270)));
        assert_eq!(claims["token_type"], "client_credentials");
    }
}
