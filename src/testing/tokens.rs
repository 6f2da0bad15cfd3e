//! [`TokenBuilder`]: says what is in a token, then signs it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::issuer::Issuer;
use super::keys::SigningKey;
use crate::clock::unix_seconds;
use crate::config::Algorithm;

/// A token about to be signed. Made by [`Issuer::token`] or [`Issuer::service_token`].
///
/// It starts as a good token; every method changes one thing. Nothing is checked: this is how a
/// test makes tokens that a verifier should refuse, too.
#[derive(Debug, Clone)]
#[must_use = "a token exists only once it is signed"]
pub struct TokenBuilder {
    issuer: Issuer,
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
    pub(super) fn new(issuer: &Issuer, claims: Value) -> Self {
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
    /// the algorithms to [`Builder::algorithms`](super::Builder::algorithms) to avoid that.
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
