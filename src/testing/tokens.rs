//! [`TokenBuilder`]: says what is in a token, then signs it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::issuer::TestIssuer;
use super::keys::SigningKey;
use crate::clock::unix_seconds;
use crate::config::Algorithm;

/// A token about to be signed (feature `testing`). Made by [`TestIssuer::token`] or [`TestIssuer::service_token`].
///
/// It starts as a good token; every method changes one thing. Nothing is checked: this is how a
/// test makes tokens that a verifier should refuse, too.
#[derive(Debug, Clone)]
#[must_use = "a token exists only once it is signed"]
pub struct TokenBuilder {
    issuer: TestIssuer,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    key: Option<SigningKey>,
    algorithm: Option<Algorithm>,
    kid: Kid,
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
        Self { issuer, header, claims, key: None, algorithm: None, kid: Kid::OfTheKey }
    }

    /// `sub`.
    pub fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    /// `aud`, as one string. For a list use [`claim`](Self::claim).
    pub fn audience(self, audience: &str) -> Self {
        self.claim("aud", audience)
    }

    /// `tenant_id`.
    pub fn tenant(self, tenant: &str) -> Self {
        self.claim("tenant_id", tenant)
    }

    /// `iss`.
    pub fn issuer(self, issuer: &str) -> Self {
        self.claim("iss", issuer)
    }

    /// `scope`, separated by spaces.
    pub fn scope(self, scope: &str) -> Self {
        self.claim("scope", scope)
    }

    /// `roles`.
    pub fn roles<S: Into<Value>>(self, roles: impl IntoIterator<Item = S>) -> Self {
        self.claim("roles", roles.into_iter().collect::<Value>())
    }

    /// `groups`.
    pub fn groups<S: Into<Value>>(self, groups: impl IntoIterator<Item = S>) -> Self {
        self.claim("groups", groups.into_iter().collect::<Value>())
    }

    /// `email`.
    pub fn email(self, email: &str) -> Self {
        self.claim("email", email)
    }

    /// Any claim.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Leaves a claim out.
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// `exp`, counted from now, in whole seconds.
    pub fn expires_in(self, period: Duration) -> Self {
        let exp = unix_seconds(self.issuer.now() + period);
        self.claim("exp", exp)
    }

    /// Issued two hours ago, expired one hour ago.
    pub fn expired(self) -> Self {
        let now = self.issuer.unix_now();
        self.claim("iat", now.saturating_sub(7200)).claim("exp", now.saturating_sub(3600))
    }

    /// `nbf`, counted from now, in whole seconds.
    pub fn not_before(self, period: Duration) -> Self {
        let nbf = unix_seconds(self.issuer.now() + period);
        self.claim("nbf", nbf)
    }

    /// Signs with the issuer's current key of this algorithm, which is made and published if there
    /// is none. A verifier that has fetched the keys already will have to fetch them again: name
    /// the algorithms to [`ProviderBuilder::algorithms`](super::ProviderBuilder::algorithms) to avoid that.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = Some(algorithm);
        self
    }

    /// Signs with this key, whether or not it is published.
    pub fn signed_by(mut self, key: &SigningKey) -> Self {
        self.key = Some(key.clone());
        self
    }

    /// Any header parameter. `alg` and `kid` override those of the key, and no more: the signature
    /// is made as the key makes it.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// `typ`; `JWT` unless changed.
    pub fn typ(mut self, typ: Option<&str>) -> Self {
        match typ {
            Some(typ) => self.header.insert("typ".into(), typ.into()),
            None => self.header.remove("typ"),
        };
        self
    }

    /// `kid`; that of the key unless changed.
    pub fn kid(mut self, kid: Option<&str>) -> Self {
        self.kid = Kid::Set(kid.map(str::to_owned));
        self
    }

    /// The token.
    pub fn sign(self) -> String {
        let (key, header, payload) = self.parts();
        key.token(header, payload)
    }

    /// The key that would sign, and the two texts it would sign: raw material for forgeries.
    pub(super) fn parts(self) -> (SigningKey, String, String) {
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

    use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, ED25519, UnparsedPublicKey};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::super::provider::tests::{get, payload};
    use super::super::{ManualClock, Provider};
    use super::*;

    #[tokio::test]
    async fn tokens_of_every_algorithm_verify_with_the_published_key() {
        let provider = Provider::builder().algorithms(Algorithm::ALL).start().await;
        let keys: Value = get(&provider.jwks_uri()).await.unwrap();
        for algorithm in Algorithm::ALL {
            let token = provider.token().algorithm(algorithm).sign();
            let key = provider.key_for(algorithm);
            let published = keys["keys"].as_array().unwrap().iter();
            let jwk = published.clone().find(|jwk| jwk["kid"] == key.kid()).unwrap();
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let native = |verifier| {
                UnparsedPublicKey::new(verifier, key.public_key())
                    .verify(signed.as_bytes(), &signature)
                    .unwrap();
            };
            match algorithm {
                // jsonwebtoken does not know these names.
                Algorithm::ES512 => native(&ECDSA_P521_SHA512_FIXED),
                Algorithm::Ed25519 => native(&ED25519),
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
    async fn a_token_says_what_the_builder_was_told() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_778_935_867));
        let provider = Provider::builder().clock(clock.clone()).start().await;
        clock.advance(Duration::from_secs(3));
        let claims = payload(&provider.token().scope("a b").without("jti").sign());
        assert_eq!(
            claims,
            json!({
                "iss": provider.url(), "sub": "alice-id", "tenant_id": "tenant-1",
                "aud": "scaiwave", "preferred_username": "alice", "email": "alice@example.com",
                "roles": ["docs_internal", "tenant_admin"], "groups": ["group-eng", "group-sre"],
                "iat": 1_778_935_870, "exp": 1_778_939_470, "scope": "a b",
            })
        );
        let claims = payload(&provider.service_token("indexer").expired().sign());
        assert_eq!((&claims["sub"], &claims["exp"]), (&json!("indexer"), &json!(1_778_932_270)));
        assert_eq!(claims["token_type"], "client_credentials");
    }
}
